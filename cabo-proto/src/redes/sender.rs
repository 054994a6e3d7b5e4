//! A window of numbered frames on their way: go-back-N, of which stop-and-wait is the window of one.

use std::collections::VecDeque;
use std::time::Instant;

use super::frame::{Frame, Type};
use super::timer::{GaveUp, Timer};
use super::{after, ahead};

/// Requests for the same frame that are heeded; more come from a side that never takes it.
const NACKS_MAX: u32 = 64;

/// Numbered frames, the oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Sender {
    next: u8,
    flight: VecDeque<Frame>,
    sent: usize,  // since the last return to the oldest
    known: usize, // ever, so that the other side may have them
    nacks: u32,
    timer: Timer,
}

impl Sender {
    /// The first frame gets the number `next`.
    pub(super) fn new(next: u8) -> Self {
        Self { next, ..Self::default() }
    }

    /// The number of the next frame.
    pub(super) fn next(&self) -> u8 {
        self.next
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flight.is_empty()
    }

    /// Whether a frame of the file may go as well: behind such frames alone, and within the window.
    pub(super) fn takes_data(&self, window: u8) -> bool {
        let is_behind_data = self.flight.back().is_none_or(|frame| frame.kind == Type::Data);
        is_behind_data && self.flight.len() < usize::from(window)
    }

    pub(super) fn push(&mut self, kind: Type, data: Vec<u8>) {
        self.flight.push_back(Frame { sequence: self.next, kind, data });
        self.next = after(self.next);
    }

    /// All up to `number` arrived; false if nothing of that number is on its way.
    pub(super) fn acked(&mut self, now: Instant, number: u8) -> bool {
        let Some(first) = self.flight.front() else { return false };
        let count = usize::from(ahead(number, first.sequence)) + 1;
        if count > self.known {
            return false;
        }
        self.timer.answered(now);
        self.drop_first(now, count);
        true
    }

    /// The other side wants `number` again, and has all before it.
    pub(super) fn nacked(&mut self, now: Instant, number: u8) -> Result<(), GaveUp> {
        let Some(first) = self.flight.front() else { return Ok(()) };
        let count = usize::from(ahead(number, first.sequence));
        if count >= self.known {
            return Ok(());
        }
        if count > 0 {
            self.drop_first(now, count);
        }
        self.nacks += 1;
        self.sent = 0;
        if self.nacks > NACKS_MAX { Err(GaveUp) } else { Ok(()) }
    }

    fn drop_first(&mut self, now: Instant, count: usize) {
        self.flight.drain(..count);
        self.sent = self.sent.saturating_sub(count);
        self.known -= count;
        self.nacks = 0;
        if self.flight.is_empty() {
            self.timer.stop();
        } else {
            self.timer.start(now);
        }
    }

    /// The next frame that is due.
    pub(super) fn poll(&mut self, now: Instant) -> Option<&Frame> {
        let frame = self.flight.get(self.sent)?;
        if self.sent == 0 && self.timer.deadline().is_none() {
            self.timer.start(now);
        }
        self.sent += 1;
        self.known = self.known.max(self.sent);
        Some(frame)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.timer.deadline()
    }

    /// Goes back to the oldest frame when it was waited for long enough.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Result<(), GaveUp> {
        if !self.timer.is_due(now) {
            return Ok(());
        }
        self.sent = 0;
        self.timer.again(now)
    }
}
