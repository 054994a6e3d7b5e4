//! Patience with the other side: when to send again, and when to give up.

use std::time::{Duration, Instant};

use super::{FIRST_WAIT, TRIES};

/// The shortest wait: a measured round trip says nothing about how long the other side may be off its core.
const SHORTEST_WAIT: Duration = Duration::from_millis(5);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The other side did not answer in [`TRIES`] tries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct GaveUp;

/// One wait at a time.
#[derive(Clone, Debug, Default)]
pub(super) struct Timer {
    round_trip: Option<Duration>, // smoothed
    started: Option<Instant>,
    deadline: Option<Instant>,
    wait: Duration, // the first of this wait
    tries: u32,
}

impl Timer {
    /// Waits for the answer to something new.
    pub(super) fn start(&mut self, now: Instant) {
        let measured = self.round_trip.map(|mean| (mean * 4).clamp(SHORTEST_WAIT, FIRST_WAIT));
        self.start_for(now, measured.unwrap_or(FIRST_WAIT));
    }

    /// Waits for something new, for so long at first.
    pub(super) fn start_for(&mut self, now: Instant, wait: Duration) {
        self.tries = 1;
        self.started = Some(now);
        self.wait = wait;
        self.deadline = Some(now + wait);
    }

    pub(super) fn stop(&mut self) {
        self.deadline = None;
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// An answer came. What was sent twice says nothing about the time that it took.
    pub(super) fn answered(&mut self, now: Instant) {
        let Some(started) = self.started.filter(|_| self.tries == 1) else { return };
        let sample = now.saturating_duration_since(started);
        self.round_trip = Some(match self.round_trip {
            Some(mean) => (mean * 7 + sample) / 8,
            None => sample,
        });
    }

    /// Waits once more, longer, or not at all.
    pub(super) fn again(&mut self, now: Instant) -> Result<(), GaveUp> {
        if self.tries >= TRIES {
            self.stop();
            return Err(GaveUp);
        }
        let wait = self.wait * (1 << self.tries.min(10));
        self.tries += 1;
        self.deadline = Some(now + wait.min(LONGEST_WAIT));
        Ok(())
    }
}
