//! What arrived in one packet-number space, and when to say so (T-2). `loss.rs` reads the peer's account.
//!
//! Two sets: `seen` finds duplicates and forgets only by age; `unreported` is what the next acknowledgement says and
//! shrinks when the peer has acknowledged an acknowledgement.

use std::time::{Duration, Instant};

use super::ranges::RangeSet;

/// The longest that an acknowledgement waits (T-2.3).
pub const MAX_ACK_DELAY: Duration = Duration::from_millis(25);

const MIN_ACK_DELAY: Duration = Duration::from_millis(1); // the caller's timers are no finer
const MAX_RANGES: usize = 64; // in one acknowledgement
const MAX_SEEN_RANGES: usize = 256; // numbers are never reused, so each loss leaves a hole here
const EAGER_PACKETS: u64 = 100; // at first the peer's window grows by our acknowledgements
const EAGER_EVERY: u32 = 2;
const EVERY: u32 = 32;
const REORDERING_PACKETS: u64 = 3; // the peer's packet threshold (T-4.1)

/// Whether a packet came for the first time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Arrival {
    /// For the first time.
    New,
    /// Again, or so old that it cannot be told from a duplicate (T-1.3).
    Duplicate,
}

/// The receiver's side of acknowledgement, for one space.
#[derive(Clone, Debug)]
pub struct AckTracker {
    seen: RangeSet,
    floor: u64, // all numbers below count as seen
    unreported: RangeSet,
    largest_at: Option<Instant>,
    is_immediate: bool, // T-2.5
    eliciting_total: u64,
    eliciting_pending: u32,
    nack_at: Option<u64>, // the arrival that puts the last gap beyond the peer's packet threshold
    deadline: Option<Instant>,
    is_due: bool,
}

impl Default for AckTracker {
    fn default() -> Self {
        Self::new()
    }
}

impl AckTracker {
    /// For the data space.
    pub fn new() -> Self {
        Self {
            seen: RangeSet::with_limit(MAX_SEEN_RANGES),
            floor: 0,
            unreported: RangeSet::with_limit(MAX_RANGES),
            largest_at: None,
            is_immediate: false,
            eliciting_total: 0,
            eliciting_pending: 0,
            nack_at: None,
            deadline: None,
            is_due: false,
        }
    }

    /// For the spaces of the handshake, where nothing waits (T-2.5).
    pub fn immediate() -> Self {
        Self { is_immediate: true, ..Self::new() }
    }

    /// The path is a new one: the peer's window grows by our acknowledgements again (T-17.5).
    pub fn on_new_path(&mut self) {
        self.eliciting_total = 0;
    }

    /// True if `number` would be a duplicate; asks without recording, so that a replay costs no decryption.
    pub fn is_duplicate(&self, number: u64) -> bool {
        number < self.floor || number == u64::MAX || self.seen.contains(number)
    }

    /// Records a packet that proved genuine. `rtt` is the smoothed estimate.
    pub fn on_packet(
        &mut self,
        now: Instant,
        number: u64,
        ack_eliciting: bool,
        rtt: Duration,
    ) -> Arrival {
        if self.is_duplicate(number) {
            return Arrival::Duplicate;
        }
        let previous = self.largest();
        let lowest = self.seen.min();
        let was_full = self.seen.len() == MAX_SEEN_RANGES;
        self.seen.insert(number);
        let forgot =
            !self.seen.contains(number) || lowest.is_some_and(|lowest| !self.seen.contains(lowest));
        if was_full && forgot {
            self.floor = self.seen.min().unwrap_or(0);
        }
        self.unreported.insert(number);
        if previous.is_none_or(|largest| number > largest) {
            self.largest_at = Some(now);
        }
        if ack_eliciting {
            self.schedule(now, number, previous, rtt);
        }
        Arrival::New
    }

    /// Decides when this ack-eliciting packet is acknowledged (T-2.2 to T-2.4).
    fn schedule(&mut self, now: Instant, number: u64, previous: Option<u64>, rtt: Duration) {
        self.eliciting_total += 1;
        self.eliciting_pending += 1;
        let expected = previous.map_or(0, |largest| largest + 1);
        let opens_gap = number > expected && previous.is_some();
        let fills_gap = number < expected;
        let is_beyond = self.nack_at.is_some_and(|at| number >= at);
        if opens_gap {
            self.nack_at = Some(number + (REORDERING_PACKETS - 1));
        } else if is_beyond {
            self.nack_at = None;
        }
        let every = if self.eliciting_total <= EAGER_PACKETS { EAGER_EVERY } else { EVERY };
        if self.is_immediate
            || opens_gap
            || fills_gap
            || is_beyond
            || self.eliciting_pending >= every
        {
            self.is_due = true;
        }
        let wait = (rtt / 4).clamp(MIN_ACK_DELAY, MAX_ACK_DELAY);
        self.deadline.get_or_insert(now + wait);
    }

    /// When an acknowledgement must leave at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// True if an acknowledgement must leave now.
    pub fn due(&self, now: Instant) -> bool {
        self.is_due || self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// True if something waits to be acknowledged, so that an acknowledgement may ride on another packet.
    pub fn is_pending(&self) -> bool {
        self.eliciting_pending > 0
    }

    /// What an acknowledgement says: at most 64 ranges, to be written from the highest down.
    pub fn ranges(&self) -> &RangeSet {
        &self.unreported
    }

    /// The largest number that arrived.
    pub fn largest(&self) -> Option<u64> {
        self.seen.max()
    }

    /// How long ago the largest number arrived: what an acknowledgement states as its delay.
    pub fn delay(&self, now: Instant) -> Duration {
        self.largest_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at))
    }

    /// An acknowledgement with all of [`ranges`](Self::ranges) left.
    pub fn on_sent(&mut self) {
        self.eliciting_pending = 0;
        self.deadline = None;
        self.is_due = false;
    }

    /// The peer has an acknowledgement of ours that reached up to `largest`: no need to repeat that part (T-2.6).
    pub fn on_ack_acked(&mut self, largest: u64) {
        // The largest of all stays: an acknowledgement must name something.
        let keep = self.largest().unwrap_or(0);
        self.unreported.remove_below(largest.saturating_add(1).min(keep));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(40);

    /// A tracker that is past its eager first packets, with 0..100 received and acknowledged.
    fn settled(now: Instant) -> AckTracker {
        let mut acks = AckTracker::new();
        for number in 0..EAGER_PACKETS {
            assert_eq!(acks.on_packet(now, number, true, RTT), Arrival::New);
        }
        acks.on_sent();
        acks
    }

    #[test]
    fn at_first_every_second_packet_is_acknowledged() {
        let now = crate::sim::origin();
        let mut acks = AckTracker::new();
        acks.on_packet(now, 0, true, RTT);
        assert!(!acks.due(now));
        assert_eq!(acks.deadline(), Some(now + RTT / 4));
        acks.on_packet(now, 1, true, RTT);
        assert!(acks.due(now));
        acks.on_sent();
        assert_eq!((acks.due(now), acks.deadline(), acks.is_pending()), (false, None, false));
    }

    #[test]
    fn later_32_packets_or_a_quarter_of_the_round_trip() {
        let now = crate::sim::origin();
        let mut acks = settled(now);
        for number in 100..131 {
            acks.on_packet(now, number, true, RTT);
            assert!(!acks.due(now), "packet {number}");
        }
        assert!(acks.due(now + RTT / 4));
        acks.on_packet(now, 131, true, RTT);
        assert!(acks.due(now));
    }

    #[test]
    fn no_acknowledgement_waits_longer_than_25_ms() {
        let now = crate::sim::origin();
        let mut acks = AckTracker::new();
        acks.on_packet(now, 0, true, Duration::from_secs(1));
        assert_eq!(acks.deadline(), Some(now + MAX_ACK_DELAY));
    }

    #[test]
    fn a_gap_is_told_when_it_opens_when_it_is_a_loss_and_when_it_fills() {
        let now = crate::sim::origin();
        let mut acks = settled(now);
        let mut told = Vec::new();
        for number in [100, 102, 103, 104, 105, 101, 106] {
            acks.on_packet(now, number, true, RTT);
            if acks.due(now) {
                told.push(number);
                acks.on_sent();
            }
        }
        assert_eq!(told, [102, 104, 101]);
    }

    #[test]
    fn what_elicits_nothing_is_recorded_and_never_answered() {
        let now = crate::sim::origin();
        let mut acks = settled(now);
        acks.on_packet(now, 150, false, RTT);
        assert_eq!((acks.due(now), acks.deadline(), acks.is_pending()), (false, None, false));
        assert_eq!(acks.ranges().max(), Some(150));
    }

    #[test]
    fn a_duplicate_is_known_even_after_its_range_was_forgotten() {
        let now = crate::sim::origin();
        let mut acks = AckTracker::new();
        for number in (0..4000).step_by(2) {
            assert_eq!(acks.on_packet(now, number, true, RTT), Arrival::New);
        }
        assert_eq!(acks.ranges().len(), MAX_RANGES);
        for number in (0..4000).step_by(2) {
            assert_eq!(acks.on_packet(now, number, true, RTT), Arrival::Duplicate, "{number}");
        }
        assert_eq!(
            acks.on_packet(now, 3997, true, RTT),
            Arrival::New,
            "a hole that is still known to be one"
        );
        assert_eq!(acks.on_packet(now, 1, true, RTT), Arrival::Duplicate, "too old to tell");
        assert_eq!(acks.on_packet(now, u64::MAX, true, RTT), Arrival::Duplicate);
    }

    #[test]
    fn what_the_peer_knows_is_not_repeated_but_duplicates_of_it_are_still_found() {
        let now = crate::sim::origin();
        let mut acks = settled(now);
        acks.on_packet(now, 105, true, RTT);
        acks.on_ack_acked(99);
        assert_eq!((acks.ranges().len(), acks.ranges().min()), (1, Some(105)));
        assert_eq!(acks.on_packet(now, 50, true, RTT), Arrival::Duplicate);
        acks.on_ack_acked(500);
        assert_eq!(
            (acks.ranges().len(), acks.ranges().min()),
            (1, Some(105)),
            "the largest is always named"
        );
    }

    #[test]
    fn the_delay_counts_from_the_arrival_of_the_largest() {
        let now = crate::sim::origin();
        let mut acks = AckTracker::new();
        acks.on_packet(now, 5, true, RTT);
        acks.on_packet(now + RTT, 3, true, RTT);
        assert_eq!(acks.delay(now + 2 * RTT), 2 * RTT);
    }

    #[test]
    fn in_the_handshake_nothing_waits() {
        let now = crate::sim::origin();
        let mut acks = AckTracker::immediate();
        acks.on_packet(now, 0, true, RTT);
        assert!(acks.due(now));
    }
}
