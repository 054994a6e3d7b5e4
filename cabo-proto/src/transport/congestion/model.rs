//! A model of the path (T-9).

use std::time::{Duration, Instant};

use super::rate::bytes_in;
use super::{AckSample, Controller, INITIAL_PACKETS, LossSample, MAX_WINDOW, MIN_PACKETS};

/// The controller `model`.
#[derive(Clone, Debug)]
pub struct Model {
    mtu: u64,
    max_rate: u64,
    min_rtt: Option<Duration>,
}

impl Model {
    /// A controller for packets of at most `mtu` bytes.
    pub fn new(_now: Instant, mtu: u64) -> Self {
        Self { mtu, max_rate: 0, min_rtt: None }
    }
}

impl Controller for Model {
    fn on_sent(&mut self, _now: Instant, _bytes: u64, _in_flight_before: u64, _app_limited: bool) {}

    fn on_ack(&mut self, _now: Instant, ack: &AckSample) {
        self.min_rtt = Some(ack.min_rtt);
        if let Some(rate) = ack.rate {
            self.max_rate = self.max_rate.max(rate.bytes_per_second);
        }
    }

    fn on_loss(&mut self, _now: Instant, _loss: &LossSample) {}

    fn on_spurious_loss(&mut self, _now: Instant, _bytes: u64) {}

    fn on_persistent_congestion(&mut self, _now: Instant) {}

    fn on_mtu(&mut self, bytes: u64) {
        self.mtu = bytes;
    }

    fn window(&self) -> u64 {
        let bdp = self.min_rtt.map_or(0, |rtt| bytes_in(self.max_rate, rtt));
        (2 * bdp).clamp(INITIAL_PACKETS.max(MIN_PACKETS) * self.mtu, MAX_WINDOW)
    }

    fn pacing_rate(&self) -> Option<u64> {
        (self.max_rate > 0).then_some(self.max_rate + self.max_rate / 4)
    }

    fn name(&self) -> &'static str {
        "model"
    }
}
