//! `cabo relay` as its user sees it: what passes, the summary, the trace, and refusals in words.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn relay(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cabo"));
    command.arg("relay").args(arguments).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Where it listens, as it says on its first line.
fn listening(child: &mut Child) -> SocketAddr {
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.split(" at ").nth(1).and_then(|rest| rest.split(' ').next());
    address.unwrap_or_else(|| panic!("{line}")).parse().unwrap()
}

fn interrupted(mut child: Child) -> String {
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    said
}

#[test]
fn datagrams_pass_late_and_the_summary_counts_them() {
    let far = UdpSocket::bind("127.0.0.1:0").unwrap();
    let near = UdpSocket::bind("127.0.0.1:0").unwrap();
    for socket in [&far, &near] {
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    let to = format!("udp://{}", far.local_addr().unwrap());
    let trace = tempfile::NamedTempFile::new().unwrap();
    let path = trace.path().to_str().unwrap();
    let arguments = ["udp://127.0.0.1:0", &to, "--delay", "50ms", "--json", "--trace", path];
    let mut child = relay(&arguments).spawn().unwrap();
    let through = listening(&mut child);
    let (mut room, started) = ([0; 16], Instant::now());
    for index in 0..5_u8 {
        near.send_to(&[index], through).unwrap();
        let (len, from) = far.recv_from(&mut room).unwrap();
        assert_eq!(room[..len], [index]);
        far.send_to(&[index + 100], from).unwrap();
        assert_eq!(near.recv(&mut room).unwrap(), 1);
        assert_eq!(room[0], index + 100);
    }
    assert!(started.elapsed() >= Duration::from_millis(500), "five round trips of 100 ms");
    let summary: Value = serde_json::from_str(&interrupted(child)).unwrap();
    assert_eq!(summary["forward"]["delivered"], 5, "{summary}");
    assert_eq!(summary["backward"]["delivered"], 5, "{summary}");
    let lines = std::fs::read_to_string(path).unwrap();
    assert_eq!(lines.lines().count(), 10, "{lines}");
}

#[test]
fn all_is_lost_where_that_is_asked_for_and_it_ends_by_itself() {
    let arguments = ["udp://127.0.0.1:0", "udp://127.0.0.1:9", "--loss", "100%", "--for", "700ms"];
    let mut child = relay(&arguments).spawn().unwrap();
    let through = listening(&mut child);
    let near = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..3 {
        near.send_to(b"lost", through).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    let lost = said.lines().find(|line| line.starts_with("lost")).unwrap();
    assert_eq!(lost.split_whitespace().collect::<Vec<_>>(), ["lost", "3", "0"], "{said}");
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    let cases: [(&[&str], i32, &str); 8] = [
        (&["a0", "b0", "--loss", "1"], 2, "1%"),
        (&["a0", "b0", "--delay", "10"], 2, "10ms"),
        (&["a0", "b0", "--rate", "200"], 2, "200mbit"),
        (&["udp://127.0.0.1:0", "eth0"], 2, "two interfaces or two URLs"),
        (&["udp://127.0.0.1:0", "tcp://127.0.0.1:1"], 2, "two udp:// or two tcp://"),
        (&["tcp://127.0.0.1:0", "tcp://127.0.0.1:1", "--loss", "1%"], 1, "means nothing on tcp://"),
        (&["udp://127.0.0.1:0", "udp://127.0.0.1:1", "--delay", "2h"], 1, "the longest is"),
        (&["no-such-end", "lo"], 1, "no-such-end"),
    ];
    for (arguments, code, words) in cases {
        let output = relay(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}

#[test]
fn a_taken_port_is_told_once_and_in_words() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let here = format!("udp://{}", taken.local_addr().unwrap());
    let output = relay(&[&here, "udp://127.0.0.1:9"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains(&here) && said.contains("in use") && !said.contains("os error"),
        "{said}"
    );
}

#[test]
fn a_quiet_relay_says_nothing() {
    let output = relay(&["-q", "udp://127.0.0.1:0", "udp://127.0.0.1:9", "--for", "10ms"]).output();
    let output = output.unwrap();
    assert!(output.status.success());
    assert_eq!((output.stdout.len(), output.stderr.len()), (0, 0));
}
