//! What `cargo test` and `cargo nextest` expect of a test binary, for tests in a lab.
//!
//! [`Lab::enter`] wants a process with a single thread, and the standard harness has more. A test binary of `cabo` takes
//! this in by path, beside `needs.rs`, which says what is skipped.

use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use cabo::lab::Lab;

use crate::needs;

/// A name, and what is run.
pub(crate) type Test = (&'static str, fn(&Lab));

/// Runs the tests that were asked for, in the lab that `enter` makes, or skips them for its reason.
pub(crate) fn run(
    tests: impl IntoIterator<Item = Test>,
    enter: impl FnOnce() -> Result<Lab, String>,
) -> ExitCode {
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
    let wanted: Vec<Test> = tests.into_iter().filter(|(name, _)| is_wanted(name)).collect();
    if has("--list") {
        wanted.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let lab = enter();
    let mut failed = 0;
    for (name, test) in &wanted {
        let start = Instant::now();
        let is_ok = on_thread_of(name, || match &lab {
            Ok(lab) => test(lab),
            Err(reason) => needs::skip(reason),
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
