//! A stated rate for a wire that is ours alone (T-10): it sends at that rate whatever is lost.

use std::time::{Duration, Instant};

use super::rate::bytes_in;
use super::{AckSample, Controller, LossSample, MAX_WINDOW, MIN_PACKETS};

const SLACK: Duration = Duration::from_millis(60); // acknowledgement delay, and a peer that is late by a time slice
const FIRST_RTT: Duration = Duration::from_millis(100); // until there is a sample

/// The controller `fixed`.
#[derive(Clone, Debug)]
pub struct Fixed {
    bytes_per_second: u64,
    mtu: u64,
    smoothed_rtt: Duration,
}

impl Fixed {
    /// Sends `bytes_per_second` in packets of at most `mtu` bytes.
    pub fn new(bytes_per_second: u64, mtu: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), mtu, smoothed_rtt: FIRST_RTT }
    }
}

impl Controller for Fixed {
    fn on_sent(&mut self, _now: Instant, _bytes: u64, _in_flight_before: u64, _app_limited: bool) {}

    fn on_ack(&mut self, _now: Instant, ack: &AckSample) {
        self.smoothed_rtt = ack.smoothed_rtt;
    }

    fn on_loss(&mut self, _now: Instant, _loss: &LossSample) {}

    fn on_spurious_loss(&mut self, _now: Instant, _bytes: u64) {}

    fn on_persistent_congestion(&mut self, _now: Instant) {}

    fn on_mtu(&mut self, bytes: u64) {
        self.mtu = bytes;
    }

    fn window(&self) -> u64 {
        // A lost packet stays in flight until it is declared lost, an eighth of a round trip late.
        let time = self.smoothed_rtt + self.smoothed_rtt / 4 + SLACK;
        bytes_in(self.bytes_per_second, time).clamp(MIN_PACKETS * self.mtu, MAX_WINDOW)
    }

    fn pacing_rate(&self) -> Option<u64> {
        Some(self.bytes_per_second)
    }

    fn name(&self) -> &'static str {
        "fixed"
    }
}
