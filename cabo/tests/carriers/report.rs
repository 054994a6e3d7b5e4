//! What `cargo test` and `cargo nextest` expect of a test binary, for checks that are futures.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// Which checks run, and what became of them.
pub(crate) struct Report {
    filters: Vec<String>,
    is_exact: bool,
    is_list: bool,
    is_ignored_only: bool, // no check is
    skips_raw: bool,
    passed: usize,
    failed: Vec<String>,
}

impl Report {
    pub(crate) fn from_args() -> Self {
        let (flags, words): (Vec<_>, Vec<_>) =
            env::args().skip(1).partition(|arg| arg.starts_with("--"));
        let has = |flag: &str| flags.iter().any(|given| given == flag);
        Self {
            filters: words.into_iter().filter(|word| word != "terse").collect(), // the value of `--format`
            is_exact: has("--exact"),
            is_list: has("--list"),
            is_ignored_only: has("--ignored"),
            skips_raw: false,
            passed: 0,
            failed: Vec::new(),
        }
    }

    /// Not only a list is asked for.
    pub(crate) fn runs_any(&self) -> bool {
        !self.is_list && !self.is_ignored_only
    }

    /// Leaves out what needs raw sockets; why, was said.
    pub(crate) fn skip_raw(&mut self) {
        self.skips_raw = true;
    }

    pub(crate) fn run<F: Future<Output = ()>>(
        &mut self,
        kind: &str,
        name: &str,
        is_raw: bool,
        check: impl FnOnce() -> F,
    ) {
        let title = format!("{kind}::{name}");
        let is_asked =
            |filter: &String| if self.is_exact { *filter == title } else { title.contains(filter) };
        if self.is_ignored_only || !(self.filters.is_empty() || self.filters.iter().any(is_asked)) {
            return;
        }
        if self.is_list {
            println!("{title}: test");
            return;
        }
        if is_raw && self.skips_raw {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = catch_unwind(AssertUnwindSafe(|| runtime.block_on(check())));
        println!("test {title} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
        match result {
            Ok(()) => self.passed += 1,
            Err(_) => self.failed.push(title),
        }
    }

    pub(crate) fn end(self) -> ExitCode {
        if !self.runs_any() {
            return ExitCode::SUCCESS;
        }
        let verdict = if self.failed.is_empty() { "ok" } else { "FAILED" };
        let (passed, failed) = (self.passed, self.failed.len());
        println!("\ntest result: {verdict}. {passed} passed; {failed} failed: {:?}", self.failed);
        if self.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
