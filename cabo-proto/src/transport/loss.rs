//! What became of the packets sent in one space: acknowledged, lost, or wrongly called lost (T-4), and when to probe
//! (T-5). RFC 9002 with a reordering window that adapts as in RFC 8985.
//!
//! `sent.rs` keeps the packets, `ack.rs` is the other end, `path.rs` hears of every outcome. Memory: at most
//! [`MAX_TRACKED`] entries (T-15), whatever the peer does.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::rtt::{GRANULARITY, Rtt};
use super::sent::{Sent, SentPackets, Trace};

/// Packets that one space tracks at most; beyond it [`Loss::has_room`] is false.
pub const MAX_TRACKED: usize = 1 << 16;

/// The longest probe timeout (T-5.2).
pub const MAX_PTO: Duration = Duration::from_secs(2);

const MAX_BACKOFF: u32 = 16; // doublings; the cap above is reached long before
const PACKET_THRESHOLD: u64 = 3;
const MAX_PACKET_THRESHOLD: u64 = 1024;
const TIME_EIGHTHS: u32 = 9; // of a round trip
const MAX_TIME_EIGHTHS: u32 = 16;
const PERSIST_EPISODES: u32 = 16; // episodes of loss without reordering until the window shrinks (RFC 8985 6.2)
const PERSISTENT_PTOS: u32 = 3; // RFC 9002 section 7.6.1

/// An acknowledgement that no honest peer sends.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AckError {
    /// It names a number that was never used.
    #[error("packet {number} was acknowledged and never sent")]
    NeverSent {
        /// The number.
        number: u64,
    },
}

/// What an acknowledgement settled.
#[derive(Clone, Debug)]
pub struct AckOutcome<F> {
    /// Newly acknowledged packets, ascending within each range.
    pub acked: Vec<(u64, Sent<F>)>,
    /// Packets that were declared lost and were not, with their sizes.
    pub spurious: Vec<(u64, u32)>,
    /// A round-trip sample, where the largest acknowledged number is new.
    pub rtt_sample: Option<Duration>,
}

/// What was found lost.
#[derive(Clone, Debug)]
pub struct LossOutcome<F> {
    /// The packets, ascending.
    pub lost: Vec<(u64, Sent<F>)>,
    /// True if nothing at all got through for a long time (T-6).
    pub is_persistent: bool,
}

/// The sender's side of loss detection, for one space.
#[derive(Clone, Debug)]
pub struct Loss<F> {
    next: u64,
    largest_acked: Option<u64>,
    packets: SentPackets<F>,
    loss_deadline: Option<Instant>,
    last_sent: Option<Instant>,
    pto_count: u32,
    packet_threshold: u64,
    time_eighths: u32,
    episode_end: Option<Instant>, // losses of packets sent before belong to one episode
    quiet_episodes: u32,
}

impl<F> Default for Loss<F> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F> Loss<F> {
    /// A space in which nothing was sent.
    pub fn new() -> Self {
        Self {
            next: 0,
            largest_acked: None,
            packets: SentPackets::new(),
            loss_deadline: None,
            last_sent: None,
            pto_count: 0,
            packet_threshold: PACKET_THRESHOLD,
            time_eighths: TIME_EIGHTHS,
            episode_end: None,
            quiet_episodes: 0,
        }
    }

    /// The number of the next packet.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// The largest number that the peer acknowledged.
    pub fn largest_acked(&self) -> Option<u64> {
        self.largest_acked
    }

    /// False while so much is unsettled that nothing which asks for acknowledgement may be sent.
    pub fn has_room(&self) -> bool {
        self.packets.len() < MAX_TRACKED
    }

    /// Uses up the next number for a packet. `sent` is `None` where the packet does not ask for acknowledgement; such
    /// packets are not tracked.
    pub fn on_sent(&mut self, sent: Option<Sent<F>>) -> u64 {
        let number = self.next;
        self.next += 1;
        if let Some(sent) = sent {
            self.last_sent = Some(sent.time);
            self.packets.push(number, sent);
        }
        number
    }

    /// Takes the ranges of an acknowledgement, disjoint, in any order. Call [`detect`](Self::detect) after the
    /// estimate of the round trip has heard of the sample.
    pub fn on_ack(
        &mut self,
        now: Instant,
        ranges: impl IntoIterator<Item = Range<u64>>,
        rtt: &Rtt,
    ) -> Result<AckOutcome<F>, AckError> {
        let mut outcome = AckOutcome { acked: Vec::new(), spurious: Vec::new(), rtt_sample: None };
        let previous = self.largest_acked;
        let mut largest = None;
        for range in ranges {
            if range.end > self.next {
                return Err(AckError::NeverSent { number: range.end - 1 });
            }
            if range.is_empty() {
                continue;
            }
            largest = largest.max(Some(range.end - 1));
            self.settle_range(now, &range, rtt, &mut outcome);
        }
        self.largest_acked = self.largest_acked.max(largest);
        let newest = outcome.acked.iter().max_by_key(|(number, _)| *number);
        if let Some((_, sent)) =
            newest.filter(|(number, _)| largest == Some(*number) && previous < largest)
        {
            outcome.rtt_sample = Some(now.saturating_duration_since(sent.time));
        }
        if !outcome.acked.is_empty() {
            self.pto_count = 0;
        }
        Ok(outcome)
    }

    fn settle_range(
        &mut self,
        now: Instant,
        range: &Range<u64>,
        rtt: &Rtt,
        outcome: &mut AckOutcome<F>,
    ) {
        self.packets.take_acked(range, |number, sent| outcome.acked.push((number, sent)));
        let mut late = Vec::new();
        self.packets.take_spurious(range, |number, trace| late.push((number, trace)));
        for (number, trace) in late {
            self.widen(now, number, trace, rtt);
            outcome.spurious.push((number, trace.bytes));
        }
    }

    /// A packet was late and not lost: waits longer for the next ones (T-4.3).
    fn widen(&mut self, now: Instant, number: u64, trace: Trace, rtt: &Rtt) {
        let behind = self.largest_acked.map_or(0, |largest| largest.saturating_sub(number));
        self.packet_threshold = self.packet_threshold.max((behind + 1).min(MAX_PACKET_THRESHOLD));
        let took = now.saturating_duration_since(trace.sent);
        let eighth = rtt.smoothed().max(rtt.latest()) / 8;
        if took > eighth * self.time_eighths {
            self.time_eighths = (self.time_eighths + 1).min(MAX_TIME_EIGHTHS);
        }
        self.quiet_episodes = 0;
    }

    /// Finds what is lost by now (T-4.1, T-4.2), after an acknowledgement or at the loss deadline.
    pub fn detect(&mut self, now: Instant, rtt: &Rtt, max_ack_delay: Duration) -> LossOutcome<F> {
        let mut outcome = LossOutcome { lost: Vec::new(), is_persistent: false };
        self.loss_deadline = None;
        let Some(largest) = self.largest_acked else { return outcome };
        let patience = (rtt.smoothed().max(rtt.latest()) / 8 * self.time_eighths).max(GRANULARITY);
        let threshold = self.packet_threshold;
        let persistent = (rtt.pto_base() + max_ack_delay) * PERSISTENT_PTOS;
        let mut deadline: Option<Instant> = None;
        let mut run_start = now;
        self.packets.take_lost(
            now,
            largest,
            |number, sent| {
                let due = sent.time + patience;
                if due <= now || largest - number >= threshold {
                    return true;
                }
                deadline = Some(deadline.map_or(due, |earliest| earliest.min(due)));
                false
            },
            |number, sent, starts_run| {
                if starts_run {
                    run_start = sent.time;
                }
                let silence = sent.time.saturating_duration_since(run_start);
                outcome.is_persistent |= rtt.has_sample() && silence > persistent;
                outcome.lost.push((number, sent));
            },
        );
        self.loss_deadline = deadline;
        self.count_episode(now, &outcome);
        self.packets.forget_traces(now, rtt.pto_base() * 2);
        outcome
    }

    /// After enough episodes of loss without reordering the window returns to its first size (T-4.3).
    fn count_episode(&mut self, now: Instant, outcome: &LossOutcome<F>) {
        let Some((_, newest)) = outcome.lost.last() else { return };
        if self.episode_end.is_some_and(|end| newest.time <= end) {
            return;
        }
        self.episode_end = Some(now);
        self.quiet_episodes += 1;
        if self.quiet_episodes >= PERSIST_EPISODES {
            self.quiet_episodes = 0;
            self.packet_threshold = PACKET_THRESHOLD;
            self.time_eighths = TIME_EIGHTHS;
        }
    }

    /// When [`detect`](Self::detect) must be called, because time alone may make a packet lost.
    pub fn loss_deadline(&self) -> Option<Instant> {
        self.loss_deadline
    }

    /// When a probe must be sent (T-5.1), unless a loss deadline comes first; `None` while nothing is outstanding.
    pub fn pto_deadline(&self, rtt: &Rtt, max_ack_delay: Duration) -> Option<Instant> {
        if self.packets.outstanding() == 0 || self.loss_deadline.is_some() {
            return None;
        }
        let timeout =
            (rtt.pto_base() + max_ack_delay).saturating_mul(1 << self.pto_count.min(MAX_BACKOFF));
        self.last_sent.map(|sent| sent + timeout.min(MAX_PTO))
    }

    /// The probe deadline passed: doubles the next one. Send frames of [`probes`](Self::probes), or new ones, at once.
    pub fn on_pto(&mut self) {
        self.pto_count = self.pto_count.saturating_add(1);
    }

    /// How many probe timeouts passed since the last acknowledgement.
    pub fn pto_count(&self) -> u32 {
        self.pto_count
    }

    /// The outstanding packets to probe with, best first (T-5.3): the oldest, then those behind it.
    pub fn probes(&self) -> impl Iterator<Item = (u64, &Sent<F>)> + '_ {
        self.packets.iter()
    }

    /// How many packets are neither acknowledged nor lost.
    pub fn outstanding(&self) -> usize {
        self.packets.outstanding()
    }

    /// Packets go elsewhere from now on (T-17): the silence of the old way says nothing about the new one, and what comes
    /// late by the old one says nothing about the order of the new one.
    pub fn on_moved(&mut self) {
        self.pto_count = 0;
        self.packets.clear_traces();
    }

    /// Forgets all packets and returns the outstanding ones: the space's keys are gone, or the peer asked for another
    /// start (a cookie).
    pub fn discard(&mut self) -> Vec<(u64, Sent<F>)> {
        self.loss_deadline = None;
        self.pto_count = 0;
        self.packets.drain().collect()
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "an acknowledgement of one range is meant")]
#[path = "loss_tests.rs"]
mod tests;
