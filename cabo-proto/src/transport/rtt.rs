//! How long a round trip takes (T-3): RFC 9002 section 5. No clock of its own.

use std::time::Duration;

/// The finest time that timers are asked for (T-5).
pub const GRANULARITY: Duration = Duration::from_millis(1);

/// What is assumed before the first sample (RFC 9002 section 6.2.2).
pub const INITIAL_RTT: Duration = Duration::from_millis(333);

/// The estimate of the round-trip time of one path.
#[derive(Clone, Copy, Debug)]
pub struct Rtt {
    latest: Duration,
    min: Duration,
    smoothed: Duration,
    var: Duration,
    has_sample: bool,
}

impl Default for Rtt {
    fn default() -> Self {
        Self::new(INITIAL_RTT)
    }
}

impl Rtt {
    /// An estimate without samples that assumes `initial`.
    pub fn new(initial: Duration) -> Self {
        Self {
            latest: initial,
            min: initial,
            smoothed: initial,
            var: initial / 2,
            has_sample: false,
        }
    }

    /// The same estimate, which the next sample replaces.
    #[must_use]
    pub fn restarted(&self) -> Self {
        Self { has_sample: false, ..*self }
    }

    /// Takes a sample; `ack_delay` is what the peer says it waited, already capped by what it promised (T-3.2).
    pub fn on_sample(&mut self, sample: Duration, ack_delay: Duration) {
        self.latest = sample;
        if !self.has_sample {
            *self = Self {
                latest: sample,
                min: sample,
                smoothed: sample,
                var: sample / 2,
                has_sample: true,
            };
            return;
        }
        self.min = self.min.min(sample);
        let adjusted = if sample >= self.min + ack_delay { sample - ack_delay } else { sample };
        self.var = (3 * self.var + self.smoothed.abs_diff(adjusted)) / 4;
        self.smoothed = (7 * self.smoothed + adjusted) / 8;
    }

    /// The last sample, unadjusted.
    pub fn latest(&self) -> Duration {
        self.latest
    }

    /// The lowest sample.
    pub fn min(&self) -> Duration {
        self.min
    }

    /// The smoothed estimate.
    pub fn smoothed(&self) -> Duration {
        self.smoothed
    }

    /// The mean deviation.
    pub fn var(&self) -> Duration {
        self.var
    }

    /// True once a sample was taken.
    pub fn has_sample(&self) -> bool {
        self.has_sample
    }

    /// The probe timeout before the peer's acknowledgement delay and before any back-off (T-5.1).
    pub fn pto_base(&self) -> Duration {
        self.smoothed + (4 * self.var).max(GRANULARITY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// RFC 9002 section 5.3, the first sample; section 6.2.2: the initial timeout is 999 ms.
    #[test]
    fn the_first_sample_replaces_the_assumption() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.pto_base(), Duration::from_micros(999_000));
        rtt.on_sample(ms(100), ms(20));
        assert_eq!(
            (rtt.smoothed(), rtt.var(), rtt.min(), rtt.latest()),
            (ms(100), ms(50), ms(100), ms(100))
        );
    }

    #[test]
    fn later_samples_are_weighted_and_lose_the_stated_delay() {
        let mut rtt = Rtt::default();
        rtt.on_sample(ms(80), ms(0));
        rtt.on_sample(ms(120), ms(24)); // adjusted 96
        assert_eq!(rtt.smoothed(), ms(82));
        assert_eq!(rtt.var(), ms(34)); // (3*40 + 16) / 4
        assert_eq!(rtt.latest(), ms(120));
    }

    #[test]
    fn a_stated_delay_never_takes_the_sample_below_the_minimum() {
        let mut rtt = Rtt::default();
        rtt.on_sample(ms(80), ms(0));
        rtt.on_sample(ms(88), ms(25)); // 63 would be below the minimum: the delay is not believed
        assert_eq!(rtt.smoothed(), ms(81));
    }
}
