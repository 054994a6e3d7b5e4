//! What goes to stderr. What cannot be written there is lost: a full disk or a terminal that is gone ends nothing else.
//!
//! While a question stands on the terminal, everything else is written above it.

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::stdout;

/// Back to the start of the line, and nothing in it.
const ERASE_LINE: &str = "\r\x1b[2K";

static QUESTION: Mutex<Option<String>> = Mutex::new(None);

/// Says one line.
pub(crate) fn say(text: &str) {
    write(format!("{text}\n").as_bytes());
}

/// Writes these bytes; they end with a line.
pub(crate) fn write(bytes: &[u8]) {
    if io::stderr().is_terminal() {
        let _ = stdout::end_line(); // a stdout that is gone is told by whoever writes messages
    }
    let question = question();
    let mut whole = Vec::new();
    match &*question {
        Some(question) => {
            whole.extend_from_slice(clear_line().as_bytes());
            whole.extend_from_slice(bytes);
            whole.extend_from_slice(question.as_bytes());
        }
        None => whole.extend_from_slice(bytes),
    }
    write_now(&whole);
}

/// Shows a line that stays below everything else until [`withdraw`] or [`answered`].
pub(crate) fn ask(text: &str) {
    let mut question = question();
    write_now(text.as_bytes());
    *question = Some(text.to_owned());
}

/// Does what writes whole lines to stdout, above the question where both are on a terminal.
pub(crate) fn above<T>(work: impl FnOnce() -> T) -> T {
    let question = question();
    let Some(text) = question.as_ref().filter(|_| io::stdout().is_terminal()) else {
        drop(question);
        return work();
    };
    write_now(clear_line().as_bytes());
    let done = work();
    write_now(text.as_bytes());
    done
}

/// Takes the question away.
pub(crate) fn withdraw() {
    if question().take().is_some() {
        write_now(clear_line().as_bytes());
    }
}

/// Whoever sat there ended the question's line: it stays as it is.
pub(crate) fn answered() {
    *question() = None;
}

/// Writes over the line in which the cursor stands.
pub(crate) fn overwrite(text: &str) {
    write_now(format!("{ERASE_LINE}{text}").as_bytes());
}

/// For whoever wants a [`Write`], as logs do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What gives an empty line: where the terminal takes no commands, a new one.
fn clear_line() -> &'static str {
    let choice = anstream::AutoStream::choice(&io::stderr());
    if choice == anstream::ColorChoice::Never { "\n" } else { ERASE_LINE }
}

fn question() -> MutexGuard<'static, Option<String>> {
    QUESTION.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write_now(bytes: &[u8]) {
    let mut out = anstream::stderr().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush()); // nobody is left who could be told
}
