//! The conformance suite: one list of checks (`checks.rs`) on every datagram carrier (`kinds.rs`), what only
//! Ethernet must do (`ether.rs`), and what every stream carrier must do (`streams.rs`).
//!
//! Raw frames need `CAP_NET_RAW`, so the whole suite moves into user and network namespaces of its own (`room.rs`)
//! before any thread starts; hence no libtest harness. Where that is forbidden, the Ethernet kinds say SKIPPED, and with
//! `CI=true` they fail.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod checks;
mod ether;
mod kinds;
mod room;
mod streams;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

fn main() -> ExitCode {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let mut report =
        Report { filter, is_raw_allowed: room::enter(), passed: 0, skipped: 0, failed: Vec::new() };
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

struct Report {
    filter: String,
    is_raw_allowed: Result<(), String>,
    passed: usize,
    skipped: usize,
    failed: Vec<String>,
}

impl Report {
    fn run<F: Future<Output = ()>>(
        &mut self,
        kind: &str,
        name: &str,
        is_raw: bool,
        check: impl FnOnce() -> F,
    ) {
        let title = format!("{kind}: {name}");
        if !title.contains(&self.filter) {
            return;
        }
        if let (true, Err(why)) = (is_raw, &self.is_raw_allowed) {
            println!("{title} ... SKIPPED ({why})");
            self.skipped += 1;
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = catch_unwind(AssertUnwindSafe(|| runtime.block_on(check())));
        println!("{title} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
        match result {
            Ok(()) => self.passed += 1,
            Err(_) => self.failed.push(title),
        }
    }

    fn end(self) -> ExitCode {
        let Self { passed, skipped, failed, .. } = self;
        println!("{passed} passed, {skipped} skipped, {} failed: {failed:#?}", failed.len());
        let must_run_all = std::env::var("CI").is_ok_and(|ci| ci == "true");
        if failed.is_empty() && (skipped == 0 || !must_run_all) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}
