//! How fast the path delivers (T-7.2): draft-cheng-iccrg-delivery-rate, with the loss count of BBRv3.

use std::time::{Duration, Instant};

const NANOS: u64 = 1_000_000_000; // in a second

/// The sampler's state when a packet left; it travels with the packet in [`Sent`](crate::transport::sent::Sent).
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// Bytes delivered until then.
    pub delivered: u64,
    /// When the last of these was acknowledged.
    pub delivered_at: Instant,
    /// When the packet was sent that this count had reached: the start of the send interval.
    pub first_sent_at: Instant,
    /// Bytes lost until then.
    pub lost: u64,
    /// Bytes in flight, this packet included.
    pub in_flight: u64,
    /// True if the application held the sender back.
    pub app_limited: bool,
    /// Which of the paths that the connection has had it left on; `None` where that was not the one in use (T-17).
    pub path: Option<u32>,
}

/// One measurement.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RateSample {
    /// The rate at which the path delivered.
    pub bytes_per_second: u64,
    /// Bytes delivered in the interval.
    pub delivered: u64,
    /// Bytes lost in it.
    pub lost: u64,
    /// How long it was.
    pub interval: Duration,
    /// Bytes in flight when the measured packet left, itself included.
    pub sent_in_flight: u64,
    /// Bytes delivered before the measured packet left: where a round trip ends.
    pub prior_delivered: u64,
    /// Bytes delivered until now.
    pub total_delivered: u64,
    /// True if the application held the sender back then, so that the path may be faster.
    pub app_limited: bool,
}

/// Counts what arrives and when.
#[derive(Clone, Debug)]
pub struct Sampler {
    delivered: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    lost: u64,
    app_limited_until: Option<u64>, // of `delivered`
    newest: Option<(Instant, Snapshot)>,
}

impl Sampler {
    /// A sampler of a path on which nothing was sent.
    pub fn new(now: Instant) -> Self {
        Self {
            delivered: 0,
            delivered_at: now,
            first_sent_at: now,
            lost: 0,
            app_limited_until: None,
            newest: None,
        }
    }

    /// A packet leaves: what to remember with it.
    pub fn on_sent(&mut self, now: Instant, bytes: u64, in_flight_before: u64) -> Snapshot {
        if in_flight_before == 0 {
            self.first_sent_at = now;
            self.delivered_at = now;
        }
        self.snapshot(in_flight_before + bytes)
    }

    /// The state now, with so many bytes in flight.
    pub fn snapshot(&self, in_flight: u64) -> Snapshot {
        Snapshot {
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent_at: self.first_sent_at,
            lost: self.lost,
            in_flight,
            app_limited: self.app_limited_until.is_some(),
            path: None,
        }
    }

    /// The sender has nothing to send though it might: samples of what is now in flight are too low.
    pub fn on_app_limited(&mut self, in_flight: u64) {
        self.app_limited_until = Some(self.delivered + in_flight.max(1));
    }

    /// True while samples are of packets that the application held back.
    pub fn is_app_limited(&self) -> bool {
        self.app_limited_until.is_some()
    }

    /// Bytes were lost.
    pub fn on_lost(&mut self, bytes: u64) {
        self.lost += bytes;
    }

    /// Bytes that were counted as lost were not.
    pub fn on_spurious_loss(&mut self, bytes: u64) {
        self.lost = self.lost.saturating_sub(bytes);
    }

    /// One packet of an acknowledgement arrived. Call [`sample`](Self::sample) after the last.
    pub fn on_acked(&mut self, now: Instant, bytes: u64, sent_at: Instant, snapshot: &Snapshot) {
        self.delivered += bytes;
        self.delivered_at = now;
        let is_newer = self.newest.is_none_or(|(newest_at, newest)| {
            (snapshot.delivered, sent_at) >= (newest.delivered, newest_at)
        });
        if is_newer {
            self.newest = Some((sent_at, *snapshot));
            self.first_sent_at = sent_at;
        }
    }

    /// The measurement that an acknowledgement completes, if it acknowledged anything. `min_rtt` guards against
    /// acknowledgements that were compressed on their way.
    pub fn sample(&mut self, now: Instant, min_rtt: Duration) -> Option<RateSample> {
        let (sent_at, snapshot) = self.newest.take()?;
        if self.app_limited_until.is_some_and(|until| self.delivered > until) {
            self.app_limited_until = None;
        }
        let send_interval = sent_at.saturating_duration_since(snapshot.first_sent_at);
        let ack_interval = now.saturating_duration_since(snapshot.delivered_at);
        let interval = send_interval.max(ack_interval);
        if interval.is_zero() || interval < min_rtt {
            return None;
        }
        let delivered = self.delivered - snapshot.delivered;
        Some(RateSample {
            bytes_per_second: rate(delivered, interval),
            delivered,
            lost: self.lost.saturating_sub(snapshot.lost),
            interval,
            sent_in_flight: snapshot.in_flight,
            prior_delivered: snapshot.delivered,
            total_delivered: self.delivered,
            app_limited: snapshot.app_limited,
        })
    }

    /// Bytes delivered until now.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Bytes lost until now.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

/// Bytes a second.
pub(super) fn rate(bytes: u64, interval: Duration) -> u64 {
    let per_second = u128::from(bytes) * u128::from(NANOS) / interval.as_nanos().max(1);
    u64::try_from(per_second).unwrap_or(u64::MAX)
}

/// What a rate delivers in a time.
pub(crate) fn bytes_in(bytes_per_second: u64, time: Duration) -> u64 {
    // Asked for every packet: the wide division is only for what does not fit.
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    if let Some(product) = bytes_per_second.checked_mul(nanos) {
        return product / NANOS;
    }
    let bytes = u128::from(bytes_per_second).saturating_mul(time.as_nanos()) / u128::from(NANOS);
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// How long a rate takes for some bytes, rounded up.
pub(crate) fn time_for(bytes: u64, bytes_per_second: u64) -> Duration {
    let per_second = bytes_per_second.max(1);
    if let Some(product) = bytes.checked_mul(NANOS) {
        return Duration::from_nanos(product.div_ceil(per_second));
    }
    let nanos = (u128::from(bytes) * u128::from(NANOS)).div_ceil(u128::from(per_second));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// A packet of 1000 bytes each millisecond, acknowledged 10 ms later: a megabyte a second.
    #[test]
    fn a_steady_stream_is_measured_exactly() {
        let start = crate::sim::origin();
        let mut sampler = Sampler::new(start);
        let mut sent = std::collections::VecDeque::new();
        let mut last = None;
        for tick in 0..100 {
            let now = start + ms(tick);
            if tick >= 10
                && let Some((at, snapshot)) = sent.pop_front()
            {
                sampler.on_acked(now, 1000, at, &snapshot);
                last = sampler.sample(now, ms(10));
            }
            let in_flight = 1000 * sent.len() as u64;
            sent.push_back((now, sampler.on_sent(now, 1000, in_flight)));
        }
        let last = last.expect("there was a sample");
        assert_eq!(
            (last.bytes_per_second, last.delivered, last.interval),
            (1_000_000, 10_000, ms(10))
        );
        assert!(!last.app_limited);
    }

    /// The draft's guard: what arrives in less than a round trip was held up on the way back.
    #[test]
    fn compressed_acknowledgements_give_no_sample() {
        let start = crate::sim::origin();
        let mut sampler = Sampler::new(start);
        let snapshot = sampler.on_sent(start, 1000, 0);
        sampler.on_acked(start + ms(5), 1000, start, &snapshot);
        assert_eq!(sampler.sample(start + ms(5), ms(10)), None);
        assert_eq!(sampler.delivered(), 1000);
    }

    #[test]
    fn packets_that_the_application_held_back_are_marked_until_they_are_through() {
        let start = crate::sim::origin();
        let mut sampler = Sampler::new(start);
        let first = sampler.on_sent(start, 1000, 0);
        sampler.on_app_limited(1000);
        let second = sampler.on_sent(start + ms(1), 1000, 1000);
        assert_eq!((first.app_limited, second.app_limited), (false, true));
        sampler.on_acked(start + ms(10), 1000, start, &first);
        assert!(sampler.sample(start + ms(10), ms(1)).is_some_and(|sample| !sample.app_limited));
        sampler.on_acked(start + ms(11), 1000, start + ms(1), &second);
        assert!(sampler.sample(start + ms(11), ms(1)).is_some_and(|sample| sample.app_limited));
        assert!(!sampler.is_app_limited());
    }

    #[test]
    fn losses_are_counted_within_the_interval_and_forgiven() {
        let start = crate::sim::origin();
        let mut sampler = Sampler::new(start);
        sampler.on_lost(5000);
        let snapshot = sampler.on_sent(start, 1000, 0);
        sampler.on_lost(2000);
        sampler.on_spurious_loss(1000);
        sampler.on_acked(start + ms(10), 1000, start, &snapshot);
        assert_eq!(sampler.sample(start + ms(10), ms(10)).map(|sample| sample.lost), Some(1000));
    }

    #[test]
    fn arithmetic_holds_at_the_extremes() {
        assert_eq!(rate(u64::MAX, Duration::from_nanos(1)), u64::MAX);
        assert_eq!(bytes_in(u64::MAX, Duration::MAX), u64::MAX);
        assert_eq!(time_for(u64::MAX, 0), Duration::from_nanos(u64::MAX));
        assert_eq!(time_for(1500, 125_000_000), Duration::from_micros(12));
    }
}
