//! `cabo play` as its user sees it: bytes on stdout, players that come and go, and exit codes.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A server of one film of 3 MB, which ends with the test.
struct Stage {
    dir: tempfile::TempDir,
    server: Child,
    film: Vec<u8>,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let film: Vec<u8> = (0..3_000_000_u32).map(|index| (index % 251) as u8).collect();
        std::fs::create_dir(dir.path().join("films")).unwrap();
        std::fs::write(dir.path().join("films/a b.mp4"), &film).unwrap();
        let server = cabo(dir.path())
            .args(["serve", "films", "--on", &address(dir.path())])
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while !dir.path().join("s").exists() {
            assert!(started.elapsed() < Duration::from_secs(20), "the server never listened");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { dir, server, film }
    }

    fn play(&self, item: &str, more: &[&str]) -> Command {
        let mut command = cabo(self.dir.path());
        command.args(["play", &address(self.dir.path()), item]).args(more);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn cabo(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cabo"));
    command.current_dir(dir).stdin(Stdio::null());
    command.env("HOME", dir).env("XDG_CONFIG_HOME", dir.join("config")).env_remove("CABO_PLAYER");
    command
}

fn address(dir: &Path) -> String {
    format!("unix://{}", dir.join("s").display())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn stdout_gets_every_byte_and_may_close() {
    let stage = Stage::new();
    let output = stage.play("a b.mp4", &["--stdout"]).output().unwrap();
    assert!(output.status.success() && output.stdout == stage.film, "{}", said(&output));
    let mut child = stage.play("a b.mp4", &["--stdout"]).spawn().unwrap();
    let mut few = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut few).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && !said(&output).contains("pipe"), "{}", said(&output));
}

#[test]
fn a_player_gets_one_address_and_its_end_is_ours() {
    let stage = Stage::new();
    for (player, code, text) in
        [("true", 0, ""), ("false", 1, "false ended"), ("./no", 1, "cannot start")]
    {
        let output = stage.play("a b.mp4", &["--player", player]).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{player}: {}", said(&output));
        assert!(said(&output).contains(text), "{player}: {}", said(&output));
    }
    let output = stage.play("a b.mp4", &["--player", "echo one"]).output().unwrap();
    let line = String::from_utf8(output.stdout).unwrap();
    let mut words = line.split_whitespace();
    assert_eq!(words.next(), Some("one"));
    let url = words.next().unwrap();
    assert!(url.starts_with("http://127.0.0.1:") && url.ends_with("/a%20b.mp4"), "{url}");
    assert_eq!(words.next(), None);
}

#[test]
fn the_address_is_printed_and_served_until_the_end() {
    let stage = Stage::new();
    let mut child = stage.play("a b.mp4", &["--url", "--json"]).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    if line.is_empty() {
        panic!("{}", said(&child.wait_with_output().unwrap()));
    }
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (value["size"].as_u64(), value["media_type"].as_str()),
        (Some(3_000_000), Some("video/mp4"))
    );
    assert_eq!(child.try_wait().unwrap(), None);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_is_not_there_is_one_line_and_no_player() {
    let stage = Stage::new();
    let output = stage.play("none.mp4", &["--player", "touch started"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    let mut lines = said.lines().filter(|line| line.starts_with("cabo: unix:"));
    assert!(lines.next().is_some_and(|line| line.ends_with(": not found")), "{said}");
    assert_eq!(lines.next(), None);
    assert!(!stage.dir.path().join("started").exists());
}
