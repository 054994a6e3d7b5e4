//! Sessions whose ends change their addresses, over real sockets in namespaces of this process (session S-10).
//!
//! The harness is its own: `Lab::enter` wants a process with a single thread, and the standard one has more.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod film;
mod moves;
mod place;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use cabo::lab::Lab;

type Test = (&'static str, fn(&Lab));

const TESTS: &[Test] = &[
    (
        "a_download_goes_on_when_one_way_is_pulled_and_another_is_there",
        moves::a_download_goes_on_when_one_way_is_pulled_and_another_is_there,
    ),
    (
        "an_upload_goes_on_when_one_way_is_pulled_and_another_is_there",
        moves::an_upload_goes_on_when_one_way_is_pulled_and_another_is_there,
    ),
    (
        "a_client_without_any_address_goes_on_when_it_gets_one",
        moves::a_client_without_any_address_goes_on_when_it_gets_one,
    ),
    (
        "a_server_that_gets_another_address_is_followed",
        moves::a_server_that_gets_another_address_is_followed,
    ),
    (
        "another_hardware_address_of_either_end_is_followed",
        moves::another_hardware_address_of_either_end_is_followed,
    ),
    (
        "a_translator_that_forgets_its_port_is_not_noticed",
        moves::a_translator_that_forgets_its_port_is_not_noticed,
    ),
    (
        "a_film_goes_on_after_the_link_was_gone_for_a_while",
        film::a_film_goes_on_after_the_link_was_gone_for_a_while,
    ),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_exact = arguments.iter().any(|argument| argument == "--exact");
    let filters: Vec<&String> =
        arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let is_match =
        |name: &str, filter: &str| if is_exact { name == filter } else { name.contains(filter) };
    let is_wanted =
        |name: &str| filters.is_empty() || filters.iter().any(|filter| is_match(name, filter));
    let wanted: Vec<&Test> = TESTS.iter().filter(|(name, _)| is_wanted(name)).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        wanted.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let lab = match Lab::enter().map_err(|reason| reason.to_string()).and_then(place::with_ip) {
        Ok(lab) => lab,
        Err(reason) => {
            wanted.iter().for_each(|(name, _)| println!("test {name} ... SKIPPED: {reason}"));
            let is_bad = std::env::var_os("CI").is_some();
            return if is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let is_bad = |test: fn(&Lab)| catch_unwind(AssertUnwindSafe(|| test(&lab))).is_err();
    let failed: Vec<_> = wanted.iter().filter(|(_, test)| is_bad(*test)).collect();
    failed.iter().for_each(|(name, _)| println!("test {name} ... FAILED"));
    println!("\ntest result: {} passed; {} failed", wanted.len() - failed.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
