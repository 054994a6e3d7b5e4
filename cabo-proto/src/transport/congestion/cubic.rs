//! CUBIC (T-8): RFC 9438 with fast convergence, and HyStart++ (RFC 9406) to leave slow start before the queue is full.
//!
//! Rounds and recovery periods are told apart by when packets were sent, since packets of several number spaces share
//! the window.

use std::time::{Duration, Instant};

use super::rate::rate;
use super::{AckSample, Controller, INITIAL_PACKETS, LossSample, MAX_WINDOW, MIN_PACKETS};

const C: f64 = 0.4; // RFC 9438 section 4.1.1
const BETA: f64 = 0.7; // section 4.6

const MIN_RTT_THRESHOLD: Duration = Duration::from_millis(4); // RFC 9406 section 4.3
const MAX_RTT_THRESHOLD: Duration = Duration::from_millis(16);
const RTT_DIVISOR: u32 = 8;
const RTT_SAMPLES: u32 = 4; // 8 there; here acknowledgements come as rarely as four times a round trip
const CSS_GROWTH_DIVISOR: u64 = 4;
const CSS_ROUNDS: u32 = 5;

/// The controller `cubic`.
#[derive(Clone, Debug)]
pub struct Cubic {
    mtu: u64,
    smoothed_rtt: Option<Duration>,
    window: u64,
    recovery_start: Option<Instant>,
    curve: Curve,
    slow_start: SlowStart,
    undo: Option<Undo>,
}

/// Where the cubic function stands.
#[derive(Clone, Copy, Debug)]
struct Curve {
    threshold: u64,
    max_window: f64,   // packets, where the last loss was
    prior_window: f64, // packets, before the last reduction
    epoch: Option<Epoch>,
}

/// One stretch of congestion avoidance.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    start: Instant,
    k: f64,        // seconds until the curve is at `max_window` again
    reno: f64,     // packets: what Reno would have (section 4.3)
    fraction: f64, // bytes of growth below one
}

/// What the last reduction changed, and how much of its loss is still believed.
#[derive(Clone, Copy, Debug)]
struct Undo {
    window: u64,
    curve: Curve,
    slow_start: SlowStart,
    lost_bytes: u64,
}

/// HyStart++.
#[derive(Clone, Copy, Debug)]
struct SlowStart {
    round_start: Instant,
    last_min: Option<Duration>,
    current_min: Option<Duration>,
    samples: u32,
    css: Option<(Duration, u32)>, // conservative slow start: its baseline, and the rounds spent in it
}

impl Cubic {
    /// A controller for packets of at most `mtu` bytes.
    pub fn new(now: Instant, mtu: u64) -> Self {
        let slow_start = SlowStart {
            round_start: now,
            last_min: None,
            current_min: None,
            samples: 0,
            css: None,
        };
        let curve = Curve { threshold: u64::MAX, max_window: 0.0, prior_window: 0.0, epoch: None };
        let window = INITIAL_PACKETS * mtu;
        Self {
            mtu,
            smoothed_rtt: None,
            window,
            recovery_start: None,
            curve,
            slow_start,
            undo: None,
        }
    }

    fn grow_slowly(&mut self, now: Instant, ack: &AckSample) {
        let divisor = if self.slow_start.css.is_some() { CSS_GROWTH_DIVISOR } else { 1 };
        self.window += ack.acked_bytes / divisor;
        if let Some(rtt) = ack.rtt {
            self.slow_start.on_rtt(rtt);
        }
        if ack.largest_sent >= self.slow_start.round_start && self.slow_start.end_round(now) {
            self.curve.threshold = self.window;
        }
    }

    fn grow_by_curve(&mut self, now: Instant, ack: &AckSample) {
        let packets = self.window as f64 / self.mtu as f64;
        let curve = &mut self.curve;
        let epoch = curve.epoch.get_or_insert_with(|| {
            curve.max_window = curve.max_window.max(packets);
            let k = ((curve.max_window - packets) / C).cbrt();
            Epoch { start: now, k, reno: packets, fraction: 0.0 }
        });
        let acked = ack.acked_bytes as f64 / self.mtu as f64;
        let alpha =
            if epoch.reno < curve.prior_window { 3.0 * (1.0 - BETA) / (1.0 + BETA) } else { 1.0 };
        epoch.reno += alpha * acked / packets;
        let time = now.saturating_duration_since(epoch.start);
        let at = |time: Duration| C * (time.as_secs_f64() - epoch.k).powi(3) + curve.max_window;
        let growth = if at(time) < epoch.reno {
            (epoch.reno - packets).max(0.0)
        } else {
            (at(time + ack.smoothed_rtt).clamp(packets, 1.5 * packets) - packets) / packets * acked
        };
        epoch.fraction += growth * self.mtu as f64;
        let whole = epoch.fraction.floor();
        epoch.fraction -= whole;
        self.window += whole as u64;
    }

    fn least(&self) -> u64 {
        MIN_PACKETS * self.mtu
    }
}

impl SlowStart {
    fn on_rtt(&mut self, rtt: Duration) {
        self.current_min = Some(self.current_min.map_or(rtt, |min| min.min(rtt)));
        self.samples += 1;
        let (Some(current), true) = (self.current_min, self.samples >= RTT_SAMPLES) else { return };
        match (self.css, self.last_min) {
            (Some((baseline, _)), _) if current < baseline => self.css = None,
            (None, Some(last)) => {
                let threshold = (last / RTT_DIVISOR).clamp(MIN_RTT_THRESHOLD, MAX_RTT_THRESHOLD);
                if current >= last + threshold {
                    self.css = Some((current, 0));
                }
            }
            (Some(_), _) | (None, None) => {}
        }
    }

    /// True if slow start is over.
    fn end_round(&mut self, now: Instant) -> bool {
        self.round_start = now;
        self.last_min = self.current_min.take();
        self.samples = 0;
        let Some((_, rounds)) = &mut self.css else { return false };
        *rounds += 1;
        *rounds >= CSS_ROUNDS
    }
}

impl Controller for Cubic {
    fn on_sent(&mut self, _now: Instant, _bytes: u64, _in_flight_before: u64, _app_limited: bool) {}

    fn on_ack(&mut self, now: Instant, ack: &AckSample) {
        self.smoothed_rtt = Some(ack.smoothed_rtt);
        let is_recovering = self.recovery_start.is_some_and(|start| ack.largest_sent <= start);
        if is_recovering || ack.app_limited {
            return;
        }
        if self.window < self.curve.threshold {
            self.grow_slowly(now, ack);
        } else {
            self.grow_by_curve(now, ack);
        }
        self.window = self.window.clamp(self.least(), MAX_WINDOW);
    }

    fn on_loss(&mut self, now: Instant, loss: &LossSample) {
        if self.recovery_start.is_some_and(|start| loss.largest_sent <= start) {
            if let Some(undo) = &mut self.undo {
                undo.lost_bytes += loss.lost_bytes;
            }
            return;
        }
        self.recovery_start = Some(now);
        self.undo = Some(Undo {
            window: self.window,
            curve: self.curve,
            slow_start: self.slow_start,
            lost_bytes: loss.lost_bytes,
        });
        let packets = self.window as f64 / self.mtu as f64;
        let is_below = packets < self.curve.max_window;
        self.curve.max_window = if is_below { packets * (1.0 + BETA) / 2.0 } else { packets }; // section 4.7
        self.curve.prior_window = packets;
        self.curve.epoch = None;
        self.window = ((self.window as f64 * BETA) as u64).max(self.least());
        self.curve.threshold = self.window;
    }

    fn on_spurious_loss(&mut self, _now: Instant, bytes: u64) {
        let Some(undo) = &mut self.undo else { return };
        undo.lost_bytes = undo.lost_bytes.saturating_sub(bytes);
        if undo.lost_bytes == 0 {
            self.window = self.window.max(undo.window);
            self.curve = undo.curve;
            self.slow_start = undo.slow_start;
            self.recovery_start = None;
            self.undo = None;
        }
    }

    fn on_persistent_congestion(&mut self, _now: Instant) {
        self.window = self.least();
        self.curve.epoch = None;
        self.recovery_start = None;
        self.undo = None;
    }

    fn on_mtu(&mut self, bytes: u64) {
        self.mtu = bytes;
        self.window = self.window.max(self.least());
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn pacing_rate(&self) -> Option<u64> {
        let per_second = rate(self.window, self.smoothed_rtt?);
        let is_slow_start = self.window < self.curve.threshold;
        Some(if is_slow_start {
            per_second.saturating_mul(2)
        } else {
            per_second.saturating_mul(5) / 4
        })
    }

    fn name(&self) -> &'static str {
        "cubic"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::congestion::rate::Sampler;

    const MTU: u64 = 1000;
    const RTT: Duration = Duration::from_millis(100);

    fn ack(sent: Instant, bytes: u64, rtt: Duration) -> AckSample {
        AckSample {
            acked_bytes: bytes,
            lost_bytes: 0,
            prior_in_flight: bytes,
            in_flight: 0,
            oldest_sent: sent,
            largest_sent: sent,
            rtt: Some(rtt),
            min_rtt: rtt,
            smoothed_rtt: rtt,
            rate: None,
            newest: Sampler::new(sent).on_sent(sent, bytes, 0),
            total_delivered: 0,
            total_lost: 0,
            app_limited: false,
        }
    }

    fn loss(sent: Instant, bytes: u64) -> LossSample {
        let snapshot = Sampler::new(sent).on_sent(sent, bytes, 0);
        LossSample {
            lost_bytes: bytes,
            oldest_sent: sent,
            largest_sent: sent,
            snapshot,
            in_flight: 0,
        }
    }

    /// A window of 100 packets that meets a loss.
    fn after_loss(start: Instant) -> Cubic {
        let mut cubic = Cubic::new(start, MTU);
        cubic.on_ack(start, &ack(start, 90 * MTU, RTT));
        assert_eq!(cubic.window(), 100 * MTU);
        cubic.on_loss(start, &loss(start, MTU));
        cubic
    }

    /// RFC 9438: beta is 0.7; K = cbrt(W_max * (1 - beta) / C) = cbrt(75) = 4.217 s; the curve is flat at W_max there.
    #[test]
    fn the_window_follows_the_cubic_curve() {
        let start = crate::sim::origin();
        let mut cubic = after_loss(start);
        assert_eq!(cubic.window(), 70 * MTU);
        let mut at = |seconds: f64| {
            let end = start + Duration::from_secs_f64(seconds);
            let mut now = cubic.curve.epoch.map_or(start, |epoch| epoch.start);
            now = now.max(start) + RTT;
            while now < end {
                if cubic.recovery_start.is_none_or(|recovery| now > recovery) {
                    let window = cubic.window();
                    cubic.on_ack(now, &ack(now, window, RTT));
                }
                now += RTT;
            }
            cubic.window() as f64 / MTU as f64
        };
        let at_k = at(4.3);
        assert!((97.0..104.0).contains(&at_k), "{at_k}");
        let k = cubic.curve.epoch.map(|epoch| epoch.k).unwrap_or_default();
        assert!((k - 4.217).abs() < 0.001, "{k}");
    }

    #[test]
    fn one_round_trip_of_losses_is_one_reduction_and_the_next_converges_fast() {
        let start = crate::sim::origin();
        let mut cubic = after_loss(start);
        cubic.on_loss(start + RTT, &loss(start, MTU));
        assert_eq!(cubic.window(), 70 * MTU);
        cubic.on_loss(start + 2 * RTT, &loss(start + RTT, MTU));
        assert_eq!(cubic.window(), 49 * MTU);
        assert!((cubic.curve.max_window - 70.0 * 0.85).abs() < 1e-9);
    }

    #[test]
    fn a_loss_that_was_none_is_undone() {
        let start = crate::sim::origin();
        let mut cubic = after_loss(start);
        cubic.on_spurious_loss(start + RTT, MTU);
        assert_eq!(cubic.window(), 100 * MTU);
        assert_eq!(cubic.curve.threshold, u64::MAX);
    }

    #[test]
    fn the_window_never_falls_below_four_packets() {
        let start = crate::sim::origin();
        let mut cubic = Cubic::new(start, MTU);
        for round in 1..20 {
            cubic.on_loss(start + round * RTT, &loss(start + round * RTT, MTU));
        }
        assert_eq!(cubic.window(), MIN_PACKETS * MTU);
        cubic.on_persistent_congestion(start);
        assert_eq!(cubic.window(), MIN_PACKETS * MTU);
    }

    #[test]
    fn a_growing_round_trip_ends_slow_start() {
        let mut now = crate::sim::origin();
        let mut cubic = Cubic::new(now, MTU);
        for round in 0..20 {
            let rtt = RTT + Duration::from_millis(if round < 3 { 0 } else { 15 * (round - 2) });
            now += rtt;
            let each = cubic.window() / 8;
            for _ in 0..8 {
                cubic.on_ack(now, &ack(now - rtt, each, rtt));
            }
        }
        assert!(cubic.curve.threshold < u64::MAX, "left slow start");
    }

    #[test]
    fn an_idle_application_does_not_grow_the_window() {
        let start = crate::sim::origin();
        let mut cubic = Cubic::new(start, MTU);
        cubic.on_ack(start, &AckSample { app_limited: true, ..ack(start, 5 * MTU, RTT) });
        assert_eq!(cubic.window(), 10 * MTU);
    }
}
