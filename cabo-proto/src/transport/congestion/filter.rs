//! What `model` remembers of a path (T-9): its highest rate, its lowest round trip, the loss that it has anyway.

use std::time::{Duration, Instant};

const MEMORY_PACKETS: u64 = 1024; // of the base loss; beyond it the older half fades
const DOUBTED_PACKETS: u64 = 32;
const MAX_BASE_LOSS: f64 = 0.4; // more is never taken for the wire's own
const LEAST_EXCESS: f64 = 0.02; // BBRv3's threshold, here on top of the base
const SIGMAS: f64 = 3.0;

/// The highest rate of the last two probing cycles.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MaxRate {
    current: u64,
    before: u64,
}

impl MaxRate {
    /// Bytes a second; zero before the first sample.
    pub(super) fn get(&self) -> u64 {
        self.current.max(self.before)
    }

    /// Takes a sample, which counts for this cycle and the next.
    pub(super) fn update(&mut self, bytes_per_second: u64) {
        self.current = self.current.max(bytes_per_second);
    }

    /// A cycle is over.
    pub(super) fn advance(&mut self) {
        if self.current > 0 {
            self.before = std::mem::take(&mut self.current);
        }
    }

    /// The path has become slower.
    pub(super) fn reset(&mut self, bytes_per_second: u64) {
        *self = Self { current: bytes_per_second, before: 0 };
    }
}

/// The lowest round trip, and when it was last seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct MinRtt {
    pub(super) value: Option<Duration>,
    pub(super) seen_at: Instant,
}

impl MinRtt {
    /// Takes a sample; one that is nearly as low shows that the minimum still holds.
    pub(super) fn update(&mut self, now: Instant, sample: Duration) {
        let is_low = self
            .value
            .is_none_or(|value| sample <= value + value / 16 + Duration::from_micros(200));
        if is_low {
            self.value = Some(self.value.map_or(sample, |value| value.min(sample)));
            self.seen_at = now;
        }
    }
}

/// Rounds in a row that said the same, and the best rate of any of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Streak {
    pub(super) rounds: u32,
    pub(super) time: Duration,
    pub(super) best: u64,
}

impl Streak {
    /// One more round; one that says otherwise ends the row.
    pub(super) fn count(&mut self, says_so: bool, elapsed: Duration, bytes_per_second: u64) {
        if !says_so {
            *self = Self::default();
            return;
        }
        self.rounds += 1;
        self.time += elapsed;
        self.best = self.best.max(bytes_per_second);
    }
}

/// Bytes of the packets sent in one stretch of time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    start: Instant,
    end: Option<Instant>,
    pub(super) acked: u64,
    pub(super) lost: u64,
}

impl Span {
    /// A stretch that starts now.
    pub(super) fn new(start: Instant) -> Self {
        Self { start, end: None, acked: 0, lost: 0 }
    }

    /// A stretch in which nothing was sent.
    pub(super) fn empty(at: Instant) -> Self {
        Self { end: Some(at), ..Self::new(at) }
    }

    /// The stretch ends, though its packets are still under way.
    pub(super) fn close(&mut self, end: Instant) {
        self.end.get_or_insert(end);
    }

    /// The stretch goes on after a break.
    pub(super) fn reopen(&mut self, now: Instant) {
        if self.end.is_some() {
            *self = Self::new(now);
        }
    }

    /// True if packets from `oldest` to `newest` were sent in it.
    pub(super) fn has(&self, oldest: Instant, newest: Instant) -> bool {
        self.start <= oldest && self.end.is_none_or(|end| newest < end)
    }
}

/// The share of packets that the path loses though its queue is empty (T-9.2).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BaseLoss {
    acked: u64,
    lost: u64,
}

impl BaseLoss {
    /// Counts bytes of packets that were sent below the path's rate.
    pub(super) fn count(&mut self, acked: u64, lost: u64, mtu: u64) {
        self.acked += acked;
        self.lost += lost;
        if self.acked + self.lost > MEMORY_PACKETS * mtu {
            self.acked /= 2;
            self.lost /= 2;
        }
    }

    /// The loss has changed: what is counted next weighs most.
    pub(super) fn doubt(&mut self, mtu: u64) {
        let total = self.acked + self.lost;
        let keep = (DOUBTED_PACKETS * mtu) as f64 / total.max(1) as f64;
        if keep < 1.0 {
            self.acked = (self.acked as f64 * keep) as u64;
            self.lost = (self.lost as f64 * keep) as u64;
        }
    }

    /// From 0 to 0.4.
    pub(super) fn share(&self) -> f64 {
        let total = self.acked + self.lost;
        if total == 0 { 0.0 } else { (self.lost as f64 / total as f64).min(MAX_BASE_LOSS) }
    }

    /// What was put on the path to have `delivered` arrive, if no more than the base was lost.
    pub(super) fn offered(&self, delivered: u64, lost: u64) -> u64 {
        let share = self.share();
        let explained = delivered as f64 * share / (1.0 - share);
        delivered + lost.min(explained as u64)
    }

    /// True if the base and chance do not explain a loss.
    pub(super) fn is_excess(&self, acked: u64, lost: u64, mtu: u64) -> bool {
        let total = acked + lost;
        if total == 0 {
            return false;
        }
        let packets = (total as f64 / mtu as f64).max(1.0);
        let share = self.share();
        let likely = share.max(0.01);
        let sigma = (likely * (1.0 - likely) / packets).sqrt();
        lost as f64 / total as f64 > share + LEAST_EXCESS.max(SIGMAS * sigma)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u64 = 1000;

    #[test]
    fn a_rate_is_forgotten_after_two_cycles() {
        let mut filter = MaxRate::default();
        filter.update(9);
        filter.advance();
        filter.update(5);
        assert_eq!(filter.get(), 9);
        filter.advance();
        assert_eq!(filter.get(), 5);
        filter.advance();
        assert_eq!(filter.get(), 5, "a cycle without samples forgets nothing");
    }

    #[test]
    fn only_the_loss_that_the_path_has_anyway_is_added_to_what_arrived() {
        let mut base = BaseLoss::default();
        assert_eq!(base.offered(1000, 500), 1000);
        base.count(900 * MTU, 100 * MTU, MTU);
        assert_eq!(base.offered(900, 50), 950);
        assert_eq!(base.offered(900, 500), 1000);
    }

    #[test]
    fn no_loss_above_two_fifths_is_taken_for_the_wire() {
        let mut base = BaseLoss::default();
        base.count(MTU, 99 * MTU, MTU);
        assert!(base.share() <= MAX_BASE_LOSS);
    }

    #[test]
    fn a_loss_is_excess_only_beyond_chance() {
        let mut base = BaseLoss::default();
        base.count(950 * MTU, 50 * MTU, MTU);
        assert!(!base.is_excess(92 * MTU, 8 * MTU, MTU), "8 of 100 where 5 are usual");
        assert!(base.is_excess(920 * MTU, 80 * MTU, MTU), "80 of 1000 where 50 are usual");
        assert!(
            BaseLoss::default().is_excess(95 * MTU, 5 * MTU, MTU),
            "5 of 100 where none are usual"
        );
        assert!(!BaseLoss::default().is_excess(0, 0, MTU));
    }
}
