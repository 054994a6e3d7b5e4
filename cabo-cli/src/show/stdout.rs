//! What goes to stdout, with errors that say so.

use std::io::{self, StdoutLock, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anstream::AutoStream;

/// Whether a terminal's cursor stands in a line that nobody has ended.
static IS_IN_LINE: AtomicBool = AtomicBool::new(false);

/// Why nothing more goes to stdout.
#[derive(Debug, thiserror::Error)]
#[error("standard output: {0}")]
struct StdoutError(io::Error);

/// Stdout; its errors name it.
pub(crate) struct Stdout<W>(W);

/// Stdout for a person: without colours where it is no terminal.
pub(crate) fn styled() -> Stdout<AutoStream<StdoutLock<'static>>> {
    Stdout(anstream::stdout().lock())
}

/// Stdout for bytes as they are.
pub(crate) fn raw() -> Stdout<StdoutLock<'static>> {
    Stdout(io::stdout().lock())
}

/// Says where what was written to a terminal has left its cursor.
pub(crate) fn stands_in_line(is_in_line: bool) {
    IS_IN_LINE.store(is_in_line, Relaxed);
}

/// Begins a new line on the terminal, where one was left without its end: for the next message, an error, the prompt.
pub(crate) fn end_line() -> io::Result<()> {
    if !IS_IN_LINE.swap(false, Relaxed) {
        return Ok(());
    }
    let mut out = raw();
    out.write_all(b"\n")?;
    out.flush()
}

/// An error of stdout that says so.
pub(crate) fn named(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), StdoutError(error))
}

/// Whether whoever read our stdout has seen enough.
pub(crate) fn is_closed(error: &anyhow::Error) -> bool {
    let Some(error) = error.downcast_ref::<io::Error>() else { return false };
    let is_ours = error.get_ref().is_some_and(|inner| inner.is::<StdoutError>());
    is_ours && error.kind() == io::ErrorKind::BrokenPipe
}

impl<W: Write> Write for Stdout<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(named)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(named)
    }
}
