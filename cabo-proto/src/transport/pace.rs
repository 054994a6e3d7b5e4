//! Spreads packets over time (T-11): a bucket of bytes that fills at the controller's rate.
//!
//! The caller's timers fire a millisecond late or more. What accrued meanwhile may leave at once, up to the bucket's
//! size, so that lateness costs no throughput; the bucket is small, so that no burst overruns a queue.

use std::time::{Duration, Instant};

use super::congestion::rate::{bytes_in, time_for};

const BUCKET: Duration = Duration::from_millis(2); // what may leave at once
const QUANTUM: Duration = Duration::from_millis(1); // what is worth waking up for
const MIN_PACKETS: u64 = 2;
const FIRST_PACKETS: u64 = 10; // before the path is known, the first window may leave as a burst

/// The pacer of one path.
#[derive(Clone, Debug)]
pub struct Pacer {
    credit: u64, // bytes
    first: u64,  // what is left of the first burst
    at: Instant, // when `credit` was right
    mtu: u64,
    peer_burst: u64, // bytes that the receiver says it can take at once
}

impl Pacer {
    /// A pacer with its first burst available.
    pub fn new(now: Instant, mtu: u64) -> Self {
        let first = FIRST_PACKETS * mtu;
        Self { credit: first, first, at: now, mtu, peer_burst: u64::MAX }
    }

    /// The receiver can take this many bytes at once.
    pub fn on_peer_burst(&mut self, bytes: u64) {
        self.peer_burst = bytes;
    }

    /// Packets may now have up to `bytes`.
    pub fn on_mtu(&mut self, bytes: u64) {
        self.mtu = bytes;
    }

    /// When `bytes` may leave: `None` is now. `rate` is in bytes a second; `None` is no limit.
    pub fn delay_until(&mut self, now: Instant, bytes: u64, rate: Option<u64>) -> Option<Instant> {
        let rate = rate?;
        let capacity = self.capacity(rate);
        let elapsed = now.saturating_duration_since(self.at);
        let accrued = bytes_in(rate, elapsed);
        let full = self.credit.saturating_add(accrued);
        if full >= capacity {
            self.credit = capacity.max(self.first); // what a higher rate left over is gone
            self.at = now;
        } else {
            self.credit = full;
            self.at = (self.at + time_for(accrued, rate)).min(now); // keeps the fraction of a byte
        }
        if self.credit >= bytes.min(capacity) {
            return None;
        }
        let worth = bytes_in(rate, QUANTUM).clamp(bytes.min(capacity), capacity);
        Some(self.at + time_for(worth - self.credit, rate))
    }

    /// A packet left, with or without permission.
    pub fn on_sent(&mut self, bytes: u64) {
        self.credit = self.credit.saturating_sub(bytes);
        self.first = self.first.saturating_sub(bytes);
    }

    fn capacity(&self, rate: u64) -> u64 {
        let least = MIN_PACKETS * self.mtu;
        bytes_in(rate, BUCKET).min(self.peer_burst).max(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u64 = 1000;

    /// Bytes sent in `time` by a caller whose timers are `late`.
    fn send_for(time: Duration, rate: u64, late: Duration, peer_burst: u64) -> (u64, u64) {
        let start = crate::sim::origin();
        let mut pacer = Pacer::new(start, MTU);
        pacer.on_peer_burst(peer_burst);
        let (mut now, mut total, mut largest) = (start, 0, 0);
        while now < start + time {
            let mut burst = 0;
            let wake = loop {
                if let Some(at) = pacer.delay_until(now, MTU, Some(rate)) {
                    break at;
                }
                pacer.on_sent(MTU);
                burst += MTU;
            };
            assert!(wake > now, "a wait has a length");
            total += burst;
            if total > FIRST_PACKETS * MTU {
                largest = largest.max(burst);
            }
            now = wake + late;
        }
        (total, largest)
    }

    #[test]
    fn the_rate_is_met_although_timers_are_late() {
        for rate in [100_000, 1_250_000, 125_000_000] {
            for late in [0, 300, 1000].map(Duration::from_micros) {
                let (total, _) = send_for(Duration::from_secs(2), rate, late, u64::MAX);
                let share = total as f64 / (2.0 * rate as f64);
                assert!((0.99..1.06).contains(&share), "rate {rate} late {late:?}: {share}");
            }
        }
    }

    #[test]
    fn no_burst_is_larger_than_what_the_receiver_can_take() {
        let (_, largest) =
            send_for(Duration::from_secs(1), 125_000_000, Duration::from_millis(1), 20_000);
        assert!(largest <= 20_000, "{largest}");
        let (_, largest) =
            send_for(Duration::from_secs(1), 125_000_000, Duration::from_millis(30), u64::MAX);
        assert!(largest <= 250_000, "{largest}");
    }

    #[test]
    fn a_very_slow_rate_still_makes_progress() {
        let (total, _) = send_for(Duration::from_secs(100), 100, Duration::ZERO, u64::MAX);
        assert!(total >= 10_000, "{total}");
    }

    #[test]
    fn a_rate_that_falls_leaves_no_burst_behind() {
        let start = crate::sim::origin();
        let mut pacer = Pacer::new(start, MTU);
        for _ in 0..FIRST_PACKETS {
            pacer.on_sent(MTU);
        }
        let later = start + Duration::from_secs(1);
        assert_eq!(pacer.delay_until(later, MTU, Some(1_000_000_000)), None);
        let mut burst = 0;
        while pacer.delay_until(later, MTU, Some(1_000_000)).is_none() {
            pacer.on_sent(MTU);
            burst += MTU;
        }
        assert_eq!(burst, 2 * MTU);
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let now = crate::sim::origin();
        assert_eq!(Pacer::new(now, MTU).delay_until(now, u64::MAX, None), None);
    }
}
