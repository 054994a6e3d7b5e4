//! `cabo lab` as its user sees it: hosts, the way into the others, and the command's exit code.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

use std::process::{Command, Output};

#[path = "../../tests/needs.rs"]
mod needs;
use needs::{Need, skip_without};

const CABO: &str = env!("CARGO_BIN_EXE_cabo");

fn lab(arguments: &[&str], script: &str) -> Output {
    let mut command = Command::new(CABO);
    command.arg("lab").args(arguments).args(["--", "sh", "-c", script, CABO]);
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_other_hosts_can_be_entered_and_are_others() {
    if skip_without(&[Need::Namespaces]) {
        return;
    }
    let script = "readlink /proc/self/ns/net; for host in 1 2 3; do \
                  \"$0\" lab exec $host -- sh -c 'readlink /proc/self/ns/net; echo $CABO_LAB_HERE'; done";
    let output = lab(&["--hosts", "3"], script);
    let said = text(&output.stdout);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 7, "{said}{}", text(&output.stderr));
    assert_eq!(lines[0], lines[1], "the command runs on host 1");
    assert_ne!(lines[1], lines[3]);
    assert_ne!(lines[3], lines[5]);
    assert_eq!([lines[2], lines[4], lines[6]], ["1", "2", "3"]);
}

#[test]
fn hosts_reach_each_other_over_a_bad_cable() {
    if skip_without(&[Need::Namespaces]) {
        return;
    }
    // The program is its own net tool: a relay on host 2 hears what host 1 sends it.
    let script = "\"$0\" lab exec 2 -- \"$0\" relay udp://0.0.0.0:6000 udp://127.0.0.1:9 --for 1500ms --json & \
                  for n in 1 2 3 4 5 6; do sleep 0.2; \
                  bash -c 'echo hello >/dev/udp/'$CABO_LAB_HOST2'/6000'; done; wait";
    let output = lab(&["--delay", "5ms"], script);
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(summary["forward"]["offered"].as_u64().unwrap() >= 3, "{summary}");
    assert!(text(&output.stderr).contains("5ms delay"));
}

#[test]
fn the_exit_code_is_the_commands() {
    if skip_without(&[Need::Namespaces]) {
        return;
    }
    assert_eq!(lab(&[], "exit 7").status.code(), Some(7));
    assert_eq!(lab(&[], "kill -TERM $$").status.code(), Some(128 + 15));
    let missing = Command::new(CABO).args(["lab", "--", "no-such-command"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("no-such-command"));
}

#[test]
fn background_processes_end_with_the_lab() {
    if skip_without(&[Need::Namespaces]) {
        return;
    }
    // One of our own, one on another host, and one that listens to nothing.
    let script = "sleep 1000 >&- & echo $!; \"$0\" lab exec 2 -- sh -c 'sleep 1000 >&- & echo $!'; \
                  sh -c 'trap \"\" TERM; echo $$; exec sleep 1000 >&-' & sleep 0.2";
    let output = lab(&["-q"], script);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    let pids: Vec<&str> = said.lines().collect();
    assert_eq!(pids.len(), 3, "{said}");
    for pid in pids {
        assert!(!std::path::Path::new("/proc").join(pid).exists(), "{pid} is still there");
    }
}

#[test]
fn an_mtu_that_no_interface_of_a_lab_takes_is_named_with_the_limits() {
    for command in ["lab", "demo"] {
        for mtu in ["1279", "65536"] {
            let output = Command::new(CABO).args([command, "--mtu", mtu]).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{command} {mtu}");
            let said = text(&output.stderr);
            assert!(
                said.contains(&format!("--mtu {mtu}")) && said.contains("1280 to 65535"),
                "{said}"
            );
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
}

#[test]
fn outside_a_lab_there_is_nobody_to_enter() {
    let mut command = Command::new(CABO);
    let output =
        command.args(["lab", "exec", "2", "--", "true"]).env_remove("CABO_LAB").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("not inside a lab"));
    let mut command = Command::new(CABO);
    let output =
        command.args(["lab", "exec", "2", "--", "true"]).env("CABO_LAB", "1:x").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
