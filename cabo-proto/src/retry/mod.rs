//! Finding a server again: how long to wait before the next attempt, and what waits meanwhile.
//!
//! [`BackOff`] says the pause, [`Queue`] keeps what cannot be sent yet. Neighbours: none; `cabo`'s reconnecting client
//! drives both.

mod queue;

use std::time::Duration;

pub use queue::{Full, Queue, Refused};

/// How long to wait before the next attempt to connect.
///
/// The pause doubles with every attempt that fails, from the first to the longest, and is drawn evenly from its upper
/// half: many clients that lost the same server together do not come back together. A connection that lasts longer
/// than the longest pause proves that the server is well, and the next pause is the first again; a server that takes
/// connections only to drop them is met with longer and longer pauses.
///
/// ```
/// # use {cabo_proto::retry::BackOff, std::time::Duration};
/// let mut back_off = BackOff::new(Duration::from_millis(100), Duration::from_secs(30));
/// assert_eq!(back_off.next_pause(0), Duration::from_millis(50)); // half of 100 ms
/// assert_eq!(back_off.next_pause(0), Duration::from_millis(100)); // half of 200 ms
/// ```
#[derive(Clone, Debug)]
pub struct BackOff {
    first: Duration,
    longest: Duration,
    /// The longest that the next pause may be.
    next: Duration,
}

impl BackOff {
    /// Pauses from `first` to `longest`, each by its jitter shorter.
    pub fn new(first: Duration, longest: Duration) -> Self {
        let first = first.min(longest);
        Self { first, longest, next: first }
    }

    /// The pause before the next attempt, and a longer one the next time. `chance` is any random number.
    pub fn next_pause(&mut self, chance: u64) -> Duration {
        let ceiling = self.next;
        self.next = ceiling.saturating_mul(2).min(self.longest);
        let half = ceiling / 2;
        // The upper 32 bits as a fraction of one: no more than `half`, and no rounding that matters.
        let part = half.as_nanos().saturating_mul(u128::from(chance >> 32)) >> 32;
        ceiling - half + Duration::from_nanos(u64::try_from(part).unwrap_or(u64::MAX)).min(half)
    }

    /// A connection has lasted for so long and is lost.
    pub fn lost(&mut self, lasted: Duration) {
        if lasted > self.longest {
            self.next = self.first;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(30);

    #[test]
    fn pauses_double_up_to_the_longest_and_stay_there() {
        let mut back_off = BackOff::new(FIRST, LONGEST);
        let mut ceiling = FIRST;
        for attempt in 0..100 {
            let pause = back_off.clone().next_pause(u64::MAX);
            assert!(pause <= ceiling && pause >= ceiling - Duration::from_nanos(100), "{attempt}");
            assert_eq!(back_off.next_pause(0), ceiling - ceiling / 2, "{attempt}");
            ceiling = (ceiling * 2).min(LONGEST);
        }
    }

    #[test]
    fn every_draw_is_in_the_upper_half_and_draws_differ() {
        let back_off = BackOff::new(FIRST, LONGEST);
        let draw = |chance| back_off.clone().next_pause(chance);
        let draws: Vec<Duration> = (0..16).map(|part| draw(part << 60)).collect();
        assert!(draws.iter().all(|pause| (FIRST / 2..=FIRST).contains(pause)));
        assert!(draws.windows(2).all(|pair| pair[0] < pair[1]), "evenly over the half: {draws:?}");
    }

    #[test]
    fn only_a_connection_that_lasted_makes_pauses_short_again() {
        let mut back_off = BackOff::new(FIRST, LONGEST);
        for _ in 0..4 {
            back_off.next_pause(0);
        }
        back_off.lost(LONGEST);
        assert_eq!(back_off.clone().next_pause(0), FIRST * 8);
        back_off.lost(LONGEST + FIRST);
        assert_eq!(back_off.next_pause(0), FIRST / 2);
    }

    #[test]
    fn no_bounds_overflow() {
        let mut back_off = BackOff::new(Duration::MAX, Duration::MAX);
        (0..3).for_each(|_| assert!(back_off.next_pause(u64::MAX) >= Duration::MAX / 2));
        let mut none = BackOff::new(FIRST, Duration::ZERO);
        assert_eq!(none.next_pause(u64::MAX), Duration::ZERO);
    }
}
