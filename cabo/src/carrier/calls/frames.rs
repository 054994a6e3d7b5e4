//! Calls on raw Ethernet, told of: the carrier makes them itself, for none of them has a safe crate.
//!
//! Neighbours: `ether/raw` shows what came of each call, `wire` finds the words for errors.

use std::io;
use std::os::fd::AsRawFd;

use super::{is_watched, outcome, tell, wire};
use crate::carrier::InterfaceName;

/// Tells that the socket hears frames of `ethertype` on an interface from now on.
pub(in crate::carrier) fn bound(
    socket: &impl AsRawFd,
    interface: InterfaceName,
    ethertype: u16,
    bound: io::Result<()>,
) -> io::Result<()> {
    if is_watched() {
        let (descriptor, result) = (socket.as_raw_fd(), outcome(&bound, |()| 0));
        let arguments = format!("{descriptor}, {interface}, {ethertype:#06x}");
        let words = "nothing on the wire; frames of that type are heard on that link from now on";
        tell("bind", Some(descriptor), arguments, Some(result), words_of(result, words.into()));
    }
    bound
}

/// Tells of frames that left in one call: `asked` of at most `stride` bytes behind their headers.
pub(in crate::carrier) fn sent(
    socket: &impl AsRawFd,
    (asked, stride): (usize, usize),
    to: impl FnOnce() -> String,
    sent: io::Result<usize>,
) -> io::Result<usize> {
    if is_told(&sent) {
        let (descriptor, result) = (socket.as_raw_fd(), outcome(&sent, |count| *count as i64));
        let arguments = format!("{descriptor}, {}", frames(asked));
        let count = sent.as_ref().copied().unwrap_or_default();
        let words =
            format!("{} of at most {stride} bytes behind the header, to {}", frames(count), to());
        tell("sendmmsg", Some(descriptor), arguments, Some(result), words_of(result, words));
    }
    sent
}

/// Tells of frames that came in one call, which had room for `asked`.
pub(in crate::carrier) fn received(
    socket: &impl AsRawFd,
    asked: usize,
    received: &io::Result<usize>,
    from: impl FnOnce() -> String,
) {
    if is_told(received) {
        let (descriptor, result) = (socket.as_raw_fd(), outcome(received, |count| *count as i64));
        let arguments = format!("{descriptor}, room for {}", frames(asked));
        let count = received.as_ref().copied().unwrap_or_default();
        let words = match count {
            0 | 1 => format!("{} from {}", frames(count), from()),
            _ => format!("{}, the first from {}", frames(count), from()),
        };
        tell("recvmmsg", Some(descriptor), arguments, Some(result), words_of(result, words));
    }
}

/// A call that found nothing to do is not told of.
fn is_told(answer: &io::Result<usize>) -> bool {
    let is_idle = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
    is_watched() && !answer.as_ref().is_err_and(is_idle)
}

fn words_of(result: Result<i64, i32>, words: String) -> String {
    result.map_or_else(wire::failed, |_| words)
}

/// `1 frame`, `2 frames`.
fn frames(count: usize) -> String {
    format!("{count} frame{}", if count == 1 { "" } else { "s" })
}
