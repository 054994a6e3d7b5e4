//! The conformance suite: one list of checks (`checks.rs`) on every datagram carrier (`kinds.rs`).
//!
//! Raw frames need `CAP_NET_RAW`, so the whole suite moves into user and network namespaces of its own (`room.rs`)
//! before any thread starts; hence no libtest harness. Where that is forbidden, the Ethernet kinds say SKIPPED, and with
//! `CI=true` they fail.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod checks;
mod kinds;
mod room;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

fn main() -> ExitCode {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let is_raw_allowed = room::enter();
    let (mut passed, mut skipped, mut failed) = (0, 0, Vec::new());
    for kind in kinds::all() {
        for (name, check) in checks::ALL {
            let title = format!("{}: {name}", kind.name);
            if !title.contains(&filter) {
                continue;
            }
            if let (true, Err(why)) = (kind.is_raw, &is_raw_allowed) {
                println!("{title} ... SKIPPED ({why})");
                skipped += 1;
                continue;
            }
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let result = catch_unwind(AssertUnwindSafe(|| runtime.block_on(check(&kind))));
            println!("{title} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
            match result {
                Ok(()) => passed += 1,
                Err(_) => failed.push(title),
            }
        }
    }
    println!("{passed} passed, {skipped} skipped, {} failed: {failed:#?}", failed.len());
    let must_run_all = std::env::var("CI").is_ok_and(|ci| ci == "true");
    if failed.is_empty() && (skipped == 0 || !must_run_all) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
