//! Whole sessions over real wires between hosts of their own: what a listener on the wire sees, and what sessions
//! outlive and endure. Neighbours: `lab.rs` (the wires alone), `carriers` (the carriers alone).
//!
//! `ends` serves and fetches, `listener` hears the wire, the tests are in `seen`, `outlived`, `strained` and
//! `forged`, and `in_lab` runs them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod ends;
mod forged;
#[path = "../../../tests/in_lab.rs"]
mod in_lab;
mod listener;
#[path = "../../../tests/needs.rs"]
mod needs;
mod outlived;
mod seen;
mod strained;

use std::process::ExitCode;

use cabo::lab::Lab;
use in_lab::Test;

fn main() -> ExitCode {
    let tests = seen::ALL.iter().chain(outlived::ALL).chain(strained::ALL).chain(forged::ALL);
    in_lab::run(tests.copied(), || Lab::enter().map_err(|reason| reason.to_string()))
}
