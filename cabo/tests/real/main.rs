//! Whole sessions over real wires between hosts of their own: what a listener on the wire sees, and what sessions
//! outlive and endure. Neighbours: `lab.rs` (the wires alone), `carriers` (the carriers alone).
//!
//! `ends` serves and fetches, `listener` hears the wire, the tests are in `seen`, `outlived`, `strained` and
//! `forged`. The harness is its own:
//! [`Lab::enter`] wants a process with a single thread, and the standard one has more.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod ends;
mod forged;
mod listener;
#[path = "../../../tests/needs.rs"]
mod needs;
mod outlived;
mod seen;
mod strained;

use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use cabo::lab::Lab;

type Test = (&'static str, fn(&Lab));

fn main() -> ExitCode {
    let (flags, words): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with('-'));
    let has = |flag: &str| flags.iter().any(|given| given == flag);
    let filters: Vec<String> = words.into_iter().filter(|word| word != "terse").collect(); // the value of `--format`
    let is_match = |name: &str, filter: &str| {
        if has("--exact") { name == filter } else { name.contains(filter) }
    };
    let is_wanted =
        |name: &str| filters.is_empty() || filters.iter().any(|filter| is_match(name, filter));
    if has("--ignored") {
        return ExitCode::SUCCESS; // no test is
    }
    let wanted: Vec<Test> = seen::ALL
        .iter()
        .chain(outlived::ALL)
        .chain(strained::ALL)
        .chain(forged::ALL)
        .copied()
        .filter(|(name, _)| is_wanted(name))
        .collect();
    if has("--list") {
        wanted.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let lab = Lab::enter();
    let mut failed = 0;
    for (name, test) in &wanted {
        let start = Instant::now();
        let is_ok = on_thread_of(name, || match &lab {
            Ok(lab) => test(lab),
            Err(reason) => needs::skip(&reason.to_string()),
        });
        failed += usize::from(!is_ok);
        let verdict = if is_ok { "ok" } else { "FAILED" };
        println!("test {name} ... {verdict} ({:.2?})", start.elapsed());
    }
    println!("\ntest result: {} passed; {failed} failed", wanted.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a test on a thread of its name, which is how `needs` knows who skips. False where it panicked.
fn on_thread_of(name: &str, test: impl FnOnce() + Send) -> bool {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, test);
        thread.unwrap().join().is_ok()
    })
}
