//! Sessions whose ends change their addresses, over real sockets in namespaces of this process (session S-10).
//! `in_lab` runs them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod film;
#[path = "../../../tests/in_lab.rs"]
mod in_lab;
mod moves;
#[path = "../../../tests/needs.rs"]
mod needs;
mod place;

use std::process::ExitCode;

use cabo::lab::Lab;
use in_lab::Test;

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
    in_lab::run(TESTS.iter().copied(), || {
        Lab::enter().map_err(|reason| reason.to_string()).and_then(place::with_ip)
    })
}
