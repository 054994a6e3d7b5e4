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
                  echo 0 >/proc/sys/user/max_net_namespaces; exec \"$0\" demo \"$1\" --json";
    let forbidden = |scene: &str| {
        let cabo = env!("CARGO_BIN_EXE_cabo");
        let output = Command::new("unshare")
            .args(["--user", "--map-root-user", "sh", "-c", script, cabo, scene])
            .env("TMPDIR", folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("sysctl -w user.max_"), "{said}");
        assert!(output.status.success(), "{said}");
        rows(&output.stdout)
    };
    let (rows, summary) = forbidden("film");
    assert_eq!(rows.len(), 30, "udp, tcp and unix");
    assert_eq!(summary["verified"], 30);

    let (rows, summary) = forbidden("sockets");
    assert!(summary["cable"].is_null());
    assert_eq!(rows.len(), 5);
    for row in rows {
        let [sent, arrived, ..] = adds_up(&row);
        assert!(row["on_cable"] == false && arrived > 0, "{row}");
        assert!(row["carrier"] != "tcp" || arrived == sent, "{row}");
    }
}

/// One row of the scene `sockets`, whose account has to add up.
#[track_caller]
fn adds_up(row: &Value) -> [u64; 5] {
    let count = |name: &str| row[name].as_u64().unwrap();
    let [sent, arrived, lost] = ["sent", "arrived", "lost"].map(count);
    assert_eq!(sent, arrived + lost, "{row}");
    let [doubled, out_of_order] = ["doubled", "out_of_order"].map(count);
    assert!(count("late") <= arrived && out_of_order < arrived.max(1), "{row}");
    if arrived > 0 {
        let time = |name: &str| row[name].as_f64().unwrap();
        assert!(time("p50_seconds") <= time("p99_seconds"), "{row}");
        assert!(time("p99_seconds") <= time("max_seconds"), "{row}");
    }
    [sent, arrived, lost, doubled, out_of_order]
}

#[test]
fn sockets_through_a_bad_cable_are_in_order_over_tcp_and_lossy_over_udp() {
    if skip_without(&[Need::Namespaces]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let bad = ["sockets", "--json", "--loss", "20%", "--duplicate", "20%", "--seed", "3"];
    let output = demo(folder.path(), &bad).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let (rows, summary) = rows(&output.stdout);
    let names: Vec<&str> = rows.iter().map(|row| row["carrier"].as_str().unwrap()).collect();
    assert_eq!(names, ["tcp", "udp", "group", "group", "group"], "{said}");
    let messages = summary["messages"].as_u64().unwrap();
    let mut is_whole = false;
    for row in &rows {
        let [sent, arrived, lost, doubled, out_of_order] = adds_up(row);
        assert_eq!(sent, messages, "{row}");
        if row["carrier"] == "tcp" {
            // With bad luck it is not through in the time of the scene; what is there is in order.
            assert_eq!((doubled, out_of_order), (0, 0), "{row}");
            is_whole = arrived == messages;
        } else {
            assert!(lost > 0 && doubled > 0 && arrived > lost, "{row}");
        }
        // The cable lets nothing through before its 40 ms are over.
        assert!(row["p50_seconds"].as_f64().unwrap() >= 0.04, "{row}");
    }
    assert!(summary["tcp_segments_resent"].as_u64().unwrap() > 0, "{summary}");
    assert!(summary["cable"]["backward"]["lost"].as_u64().unwrap() > 0, "{summary}");
    assert_eq!(output.status.code(), Some(if is_whole { 0 } else { 5 }), "{said}");
    assert!(is_empty(folder.path()));
}

#[test]
fn sockets_are_shown_as_a_table_a_time_line_and_what_it_means() {
    if skip_without(&[Need::Namespaces]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = demo(folder.path(), &["sockets"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for words in
        ["host ana", "5% loss", "99% in", "longest silence", "once and in order", "So: TCP"]
    {
        assert!(text.contains(words), "{words:?}: {text}");
    }
    let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(widest <= 128, "{text}");
    assert!(output.status.success(), "{text}");
}

#[test]
fn sockets_on_a_dead_cable_end_and_say_so() {
    if skip_without(&[Need::Namespaces]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = demo(folder.path(), &["sockets", "--json", "--loss", "100%"]).output().unwrap();
    let (rows, summary) = rows(&output.stdout);
    assert_eq!(output.status.code(), Some(5), "{summary}");
    for row in &rows {
        let [_, arrived, ..] = adds_up(row);
        assert_eq!(arrived, 0, "{row}");
        assert_eq!(row["error"].is_string(), row["carrier"] == "tcp", "{row}");
    }
}

#[test]
fn ctrl_c_ends_the_scene_of_sockets() {
    if skip_without(&[Need::Namespaces]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["sockets", "--loss", "100%"];
    let mut child = demo(folder.path(), &arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let begun = lines.by_ref().map(Result::unwrap).find(|line| line.starts_with("messages"));
    assert!(begun.is_some());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let last = lines.map(Result::unwrap).last().unwrap();
    assert!(last.contains("interrupted"), "{last}");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
