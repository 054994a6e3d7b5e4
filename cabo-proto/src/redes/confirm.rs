//! When a client confirms what arrived: each frame at once, or once a window.
//!
//! Programs of `streaming` take every confirmation for the answer to the window that they sent last, and send a window
//! again at once: one confirmation too many is one window too many, and after five of them they end. Neighbours:
//! `client.rs` says what arrived, `sender.rs` is the other side.

use std::time::{Duration, Instant};

use super::frame::Type;
use super::{Sequence, Settings};

/// A window that is not whole is confirmed after this pause, and so is what came again. The programs wait for 160 ms.
const PAUSE: Duration = Duration::from_millis(20);

/// What is owed to the server.
#[derive(Debug)]
pub(super) struct Confirm {
    sequence: Sequence,
    window: u8,        // how many frames the server sends before it waits, as far as known
    waiting: u8,       // frames that were taken since
    short: Option<u8>, // how many came before the last pause
    at: Option<Instant>, // when it is due at the latest
    is_due: bool,
}

impl Confirm {
    pub(super) fn new(settings: Settings) -> Self {
        let Settings { sequence, window, .. } = settings;
        Self { sequence, window, waiting: 0, short: None, at: None, is_due: false }
    }

    /// At once.
    pub(super) fn now(&mut self) {
        self.is_due = true;
    }

    /// The next frame arrived.
    pub(super) fn arrived(&mut self, now: Instant, kind: Type) {
        if self.sequence == Sequence::Rss || kind != Type::Data {
            return self.now();
        }
        self.waiting += 1;
        self.at = Some(now + PAUSE);
        if self.waiting >= self.window {
            self.short = None;
            self.now();
        }
    }

    /// A frame came again that was taken before: its confirmation was lost, or late.
    pub(super) fn repeated(&mut self, now: Instant) {
        match self.sequence {
            Sequence::Rss => self.now(),
            Sequence::Streaming | Sequence::Wired => _ = self.at.get_or_insert(now + PAUSE),
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.at
    }

    /// The pause is over; true where the next frame is to be asked for instead. Where it ends twice behind as
    /// many frames, the server's windows have that length.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        if self.at.is_none_or(|at| now < at) {
            return false;
        }
        self.at = None;
        if self.sequence == Sequence::Wired {
            return true;
        }
        if self.waiting > 0 && self.short.replace(self.waiting) == Some(self.waiting) {
            self.window = self.waiting;
        }
        self.now();
        false
    }

    /// Whether it is due; then it is said.
    pub(super) fn take(&mut self) -> bool {
        let is_due = self.is_due;
        if is_due {
            self.said();
        }
        is_due
    }

    /// Something was said, or will be, that confirms all that arrived.
    pub(super) fn said(&mut self) {
        self.is_due = false;
        self.waiting = 0;
        self.at = None;
    }
}
