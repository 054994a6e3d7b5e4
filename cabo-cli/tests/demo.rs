//! `cabo demo` as its user sees it: rows, exit codes, and nothing left behind.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

#[path = "../../tests/needs.rs"]
mod needs;
use needs::{Need, skip_without};

fn demo(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cabo"));
    command.arg("demo").args(arguments).env("TMPDIR", folder).stdin(Stdio::null());
    command
}

fn rows(stdout: &[u8]) -> (Vec<Value>, Value) {
    let text = String::from_utf8(stdout.to_vec()).unwrap();
    let mut rows: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = rows.pop().unwrap();
    (rows, summary)
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn every_item_arrives_over_every_carrier_through_a_bad_cable() {
    if skip_without(&[Need::Namespaces]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = demo(folder.path(), &["--json"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let (rows, summary) = rows(&output.stdout);
    for row in &rows {
        assert_eq!(row["verified"], true, "{row}");
    }
    for carrier in ["eth", "udp", "tcp", "unix"] {
        let count = rows.iter().filter(|row| row["carrier"] == carrier).count();
        assert_eq!(count, 10, "{carrier}: {said}");
    }
    assert_eq!(summary["verified"], 40);
    assert!(
        summary["cable"]["forward"]["lost"].as_u64().unwrap() > 0,
        "the cable is bad: {summary}"
    );
    assert!(output.status.success(), "{said}");
    assert!(is_empty(folder.path()));
}

#[test]
fn a_dead_cable_fails_rows_in_words_and_in_time() {
    if skip_without(&[Need::Namespaces]) {
        return;
    }
    let (folder, started) = (tempfile::tempdir().unwrap(), Instant::now());
    let output = demo(folder.path(), &["--json", "--loss", "100%"]).output().unwrap();
    let (rows, summary) = rows(&output.stdout);
    assert!(started.elapsed() < Duration::from_secs(30));
    assert_eq!(output.status.code(), Some(5), "{summary}");
    assert_eq!(summary["verified"], 10, "unix does not cross the cable");
    let dead = rows.iter().filter(|row| row["carrier"] != "unix");
    for row in dead {
        assert!(!row["error"].as_str().unwrap().is_empty(), "{row}");
    }
    assert!(is_empty(folder.path()));
}

#[test]
fn ctrl_c_ends_it_and_leaves_nothing() {
    if skip_without(&[Need::Namespaces]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut child =
        demo(folder.path(), &["--loss", "100%"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let head = lines.by_ref().map(Result::unwrap).find(|line| line.contains("verified"));
    assert!(head.is_some());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let last = lines.map(Result::unwrap).last().unwrap();
    assert!(last.contains("interrupted"), "{last}");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(is_empty(folder.path()));
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let folder = tempfile::tempdir().unwrap();
    let mut child =
        demo(folder.path(), &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"));
    assert!(is_empty(folder.path()));
}

#[test]
fn where_namespaces_are_forbidden_it_says_what_helps_and_plays_the_rest() {
    if skip_without(&[Need::Namespaces, Need::Program("unshare")]) {
        return;
    }
    // A user namespace of its own, in which no more may be made.
    let folder = tempfile::tempdir().unwrap();
    let script = "echo 0 >/proc/sys/user/max_user_namespaces; \
                  echo 0 >/proc/sys/user/max_net_namespaces; exec \"$0\" demo --json";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", script, env!("CARGO_BIN_EXE_cabo")])
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("sysctl -w user.max_"), "{said}");
    let (rows, summary) = rows(&output.stdout);
    assert_eq!(rows.len(), 30, "udp, tcp and unix");
    assert_eq!(summary["verified"], 30);
    assert!(output.status.success(), "{said}");
}
