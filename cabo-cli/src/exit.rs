//! Exit codes, and errors as one line of what, where, why and what next.

use std::io;
use std::process::ExitCode;

/// It worked.
pub(crate) const OK: u8 = 0;
/// It did not work; the line on stderr says why.
pub(crate) const FAILED: u8 = 1;
/// The command line is wrong (clap uses the same).
pub(crate) const USAGE: u8 = 2;
/// Nobody answered, or the peer was lost.
pub(crate) const UNREACHABLE: u8 = 3;
/// The peer refused us, or we refused it: access, identity, version.
pub(crate) const REFUSED: u8 = 4;
/// Not all of it arrived whole and proved; what is there can be resumed.
pub(crate) const INCOMPLETE: u8 = 5;
/// Ended by Ctrl-C or SIGTERM before it was done; what is there can be resumed.
pub(crate) const INTERRUPTED: u8 = 130;

/// An error that knows its exit code.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// Prints the error and returns the code to end with. Who closed our stdout has seen enough: that is success.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let is_broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().next().is_some_and(is_broken_pipe) {
        return ExitCode::from(OK);
    }
    anstream::eprintln!("cabo: {error:#}");
    ExitCode::from(error.downcast_ref::<Failure>().map_or(FAILED, |failure| failure.code))
}
