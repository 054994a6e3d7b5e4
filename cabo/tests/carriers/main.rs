//! The conformance suite: one list of checks (`checks.rs`) on every datagram carrier (`kinds.rs`), what only
//! Ethernet must do (`ether.rs`), and what every stream carrier must do (`streams.rs`).
//!
//! Raw frames need `CAP_NET_RAW`, so the whole suite moves into user and network namespaces of its own (`room.rs`)
//! before any thread starts; hence no libtest harness. What a runner asks of one is in `report.rs`.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod checks;
mod ether;
mod kinds;
#[path = "../../../tests/needs.rs"]
mod needs;
mod report;
mod room;
mod streams;

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use needs::{Need, skip_without};
use report::Report;

fn main() -> ExitCode {
    let mut report = Report::from_args();
    if report.runs_any() {
        let ask = || skip_without(&[Need::Namespaces]);
        let asking = thread::Builder::new().name("eth: all checks".into()).spawn(ask).unwrap();
        match asking.join() {
            Ok(true) => report.skip_raw(),
            Ok(false) => {
                until_alone();
                room::enter().expect("namespaces are allowed here");
            }
            Err(_) => return ExitCode::FAILURE,
        }
    }
    for kind in kinds::all() {
        for (name, check) in checks::ALL {
            report.run(kind.name, name, kind.is_raw, || check(&kind));
        }
    }
    for (name, check) in ether::ALL {
        report.run("eth", name, true, check);
    }
    for (kind_name, kind) in streams::all() {
        for (name, check) in streams::ALL {
            report.run(kind_name, name, false, || check(&kind));
        }
    }
    for (name, check) in streams::OWN {
        report.run("streams", name, false, check);
    }
    report.end()
}

/// A thread that was joined may leave a moment later, and until then the kernel gives this process no user namespace.
fn until_alone() {
    let begun = Instant::now();
    while std::fs::read_dir("/proc/self/task").unwrap().count() > 1 {
        assert!(begun.elapsed() < Duration::from_secs(10), "there is another thread");
        thread::sleep(Duration::from_millis(1)); // looks again
    }
}
