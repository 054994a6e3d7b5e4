//! A model of the path (T-9), in the family of BBR, for wires that lose packets on their own.
//!
//! It measures how much the path takes (`MaxRate`), how long an empty path is (`MinRtt`), and what it loses when it
//! is not full (`BaseLoss`); it sends at the first, keeps about one round trip in flight, and treats as congestion
//! only what the third does not explain.
//!
//! ```text
//!   startup --full--> drain --empty--> cruise --8 rounds--> up --1 round--> down --empty--> cruise
//!                                        |                  ^                |
//!                                        |                  +---- it grew ---+
//!                                        +-- a queue, or unexplained loss --> down
//!   cruise --slower and queued, or no low round trip for 10 s--> probe-rtt --> cruise
//! ```

use std::time::{Duration, Instant};

use super::filter::{BaseLoss, MaxRate, MinRtt, Span, Streak};
use super::rate::{bytes_in, rate};
use super::{AckSample, Controller, INITIAL_PACKETS, LossSample, MAX_WINDOW, MIN_PACKETS};

mod probing;
mod startup;

const STARTUP_GAIN: f64 = 2.77; // 4 ln 2: doubles each round
const DRAIN_GAIN: f64 = 0.5;
const UP_GAIN: f64 = 1.25;
const FAST_UP_GAIN: f64 = 2.0; // after some probes in a row that found more
const FAST_PROBES: u32 = 2;
const CAREFUL_UP_GAIN: f64 = 1.1; // after a probe that overran the queue
const DOWN_GAIN: f64 = 0.8;
const WINDOW_GAIN: f64 = 2.0;
const STARTUP_WINDOW_GAIN: f64 = 2.25; // acknowledgements wait for up to a quarter of a round trip

const DOWN_ROUNDS: u32 = 4; // at most
const SLOWER_TIME: Duration = Duration::from_millis(20); // likewise of rounds that show a slower path

const SHORT_RTT: Duration = Duration::from_millis(8); // below it the hosts, not the path, are what takes time
const LEAST_ROUND: Duration = Duration::from_millis(5); // shorter ones measure the sender's timers
const LEAST_SHORT_ROUND: Duration = Duration::from_millis(10); // and on a short path either side's pauses
const LEAST_STARTUP_ROUND: Duration = Duration::from_millis(2); // on a short path
const LEAST_FIRST_RTT: Duration = Duration::from_millis(1); // for the first rate
const LONGEST_ROUND: Duration = Duration::from_millis(100); // of too few packets
const LEAST_ROUND_PACKETS: u64 = 16;
const TIMER_SLACK: Duration = Duration::from_millis(2); // a late sender, and a receiver that is late too
const PAUSE_SLACK: Duration = Duration::from_millis(10); // on a short path, where hosts that pause are most of a round trip
const QUEUE_SLACK: Duration = Duration::from_millis(1); // a receiver that acknowledges late
const LEAST_QUEUE: Duration = Duration::from_millis(3); // less is the hosts' doing
const MIN_RTT_AGE: Duration = Duration::from_secs(10);
const PROBE_RTT_TIME: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Startup,
    Drain,
    Cruise,
    Up,
    Down,
    ProbeRtt,
}

/// From when a packet leaves until it is acknowledged, or a little longer.
#[derive(Clone, Copy, Debug)]
struct Round {
    start: Instant,
    delivered: u64, // totals at its start
    lost: u64,
    min_rtt: Option<Duration>,
    app_limited: bool,
}

/// The controller `model`.
#[derive(Clone, Debug)]
pub struct Model {
    mtu: u64,
    peer_burst: u64,
    startup_window: u64,
    phase: Phase,
    phase_rounds: u32,
    cycle_rounds: u32,
    round: Round,
    max_rate: MaxRate,
    min_rtt: MinRtt,
    base: BaseLoss,
    quiet: Span,                 // the last stretch below the path's rate
    up: Span,                    // the last stretch above it
    rate_before_up: Option<u64>, // until the probe is judged
    is_careful: bool,
    full_rate: u64,
    full: Streak,
    queued: Streak,
    slower: Streak,
    excess: Streak,
    grown_probes: u32,  // in a row
    shared_cycles: u32, // for which the path is still taken for shared
    probe_rtt: ProbeRtt,
}

/// What the phase of that name is for and what it found.
#[derive(Clone, Copy, Debug, Default)]
struct ProbeRtt {
    slower: Option<u64>,
    end: Option<Instant>, // once the path is empty
    min: Option<Duration>,
}

impl Model {
    /// A controller for packets of at most `mtu` bytes.
    pub fn new(now: Instant, mtu: u64) -> Self {
        Self {
            mtu,
            peer_burst: 0,
            startup_window: INITIAL_PACKETS * mtu,
            phase: Phase::Startup,
            phase_rounds: 0,
            cycle_rounds: 0,
            round: Round { start: now, delivered: 0, lost: 0, min_rtt: None, app_limited: false },
            max_rate: MaxRate::default(),
            min_rtt: MinRtt { value: None, seen_at: now },
            base: BaseLoss::default(),
            quiet: Span::new(now), // startup is below the path's rate for all but its last round
            up: Span::empty(now),
            rate_before_up: None,
            is_careful: false,
            full_rate: 0,
            full: Streak::default(),
            queued: Streak::default(),
            slower: Streak::default(),
            excess: Streak::default(),
            grown_probes: 0,
            shared_cycles: 0,
            probe_rtt: ProbeRtt::default(),
        }
    }

    fn enter(&mut self, now: Instant, phase: Phase) {
        let is_quiet = matches!(phase, Phase::Drain | Phase::Down);
        self.quiet.close(now);
        self.up.close(now);
        if is_quiet {
            self.quiet = Span::new(now);
        }
        if phase == Phase::Up {
            self.up = Span::new(now);
            self.rate_before_up = Some(self.max_rate.get());
            self.max_rate.advance();
            self.cycle_rounds = 0;
        }
        self.phase = phase;
        self.phase_rounds = 0;
    }

    fn count(&mut self, oldest: Instant, newest: Instant, acked: u64, lost: u64) {
        if self.quiet.has(oldest, newest) && !self.is_queued(self.round.min_rtt) {
            self.base.count(acked, lost, self.mtu);
        }
        if self.up.has(oldest, newest) {
            self.up.acked += acked;
            self.up.lost += lost;
        }
    }

    /// A round is over when a packet that was sent in it is acknowledged; short ones are drawn together.
    fn is_round_over(&self, now: Instant, ack: &AckSample) -> bool {
        if ack.newest.delivered < self.round.delivered {
            return false;
        }
        let elapsed = now.saturating_duration_since(self.round.start);
        let packets = ack.total_delivered.saturating_sub(self.round.delivered) / self.mtu;
        let least = match (self.phase, self.is_short()) {
            (Phase::Startup, false) => return true,
            (Phase::Startup, true) => LEAST_STARTUP_ROUND,
            (_, false) => LEAST_ROUND,
            (_, true) => LEAST_SHORT_ROUND,
        };
        (elapsed >= least && packets >= LEAST_ROUND_PACKETS) || elapsed >= LONGEST_ROUND
    }

    fn is_short(&self) -> bool {
        self.min_rtt.value.is_some_and(|low| low < SHORT_RTT)
    }

    fn end_round(&mut self, now: Instant, ack: &AckSample) {
        let round = self.round;
        let delivered = ack.total_delivered.saturating_sub(round.delivered);
        let lost = ack.total_lost.saturating_sub(round.lost);
        self.round = Round {
            start: now,
            delivered: ack.total_delivered,
            lost: ack.total_lost,
            min_rtt: None,
            app_limited: false,
        };
        self.phase_rounds += 1;
        self.cycle_rounds += 1;
        let elapsed = now.saturating_duration_since(round.start);
        let is_startup = self.phase == Phase::Startup;
        let taken = if is_startup { delivered } else { self.base.offered(delivered, lost) };
        let sample = rate(taken, elapsed);
        let is_flood = self.phase == Phase::Drain; // what startup sent too much says nothing new
        if !is_flood && (!round.app_limited || sample > self.max_rate.get()) {
            self.max_rate.update(sample);
        }
        let is_telling = delivered + lost >= LEAST_ROUND_PACKETS * self.mtu;
        let is_excess =
            (is_telling || !is_startup) && self.base.is_excess(delivered, lost, self.mtu);
        let is_queued = self.is_queued(round.min_rtt);
        let is_slower = self.phase == Phase::Cruise
            && !round.app_limited
            && is_queued
            && sample < self.max_rate.get() / 10 * 9;
        // A round that a pause made long says no more than a short one.
        let weight = if self.is_short() { elapsed.min(LEAST_ROUND) } else { elapsed };
        self.excess.count(is_excess, weight, sample);
        self.queued.count(is_queued, weight, rate(delivered, elapsed));
        self.slower.count(is_slower, weight, sample);
        match self.phase {
            Phase::Startup => self.end_startup_round(now, &round, is_excess, weight),
            Phase::Up if self.is_short() => self.judge_probe(now),
            Phase::Up => self.enter(now, Phase::Down),
            Phase::Down if self.phase_rounds == 1 => self.judge_probe(now),
            Phase::Down if self.phase_rounds >= DOWN_ROUNDS && self.queued.time >= SLOWER_TIME => {
                self.start_probe_rtt(now, Some(self.queued.best));
            }
            Phase::Cruise => {
                let is_crowded = is_queued || (is_excess && is_telling);
                self.end_cruise_round(now, &round, is_crowded);
            }
            Phase::Drain | Phase::Down | Phase::ProbeRtt => {}
        }
    }

    /// A whole round saw no round trip near the lowest.
    fn is_queued(&self, round_min: Option<Duration>) -> bool {
        let (Some(low), Some(seen)) = (self.min_rtt.value, round_min) else { return false };
        seen > low + (low / 4 + QUEUE_SLACK).max(LEAST_QUEUE)
    }

    fn check_phase(&mut self, now: Instant, ack: &AckSample) {
        let slack = bytes_in(self.max_rate.get(), QUEUE_SLACK);
        let is_drained = ack.in_flight <= self.bdp().saturating_add(slack);
        match self.phase {
            Phase::Drain if is_drained || self.phase_rounds >= DOWN_ROUNDS => {
                self.enter(now, Phase::Cruise)
            }
            Phase::Down
                if (is_drained && self.phase_rounds >= 1) || self.phase_rounds >= DOWN_ROUNDS =>
            {
                self.enter(now, Phase::Cruise);
            }
            Phase::Cruise if now.saturating_duration_since(self.min_rtt.seen_at) > MIN_RTT_AGE => {
                if let (true, Some(rtt)) = (ack.app_limited, ack.rtt) {
                    self.min_rtt = MinRtt { value: Some(rtt), seen_at: now }; // the path was empty anyway
                    return;
                }
                self.start_probe_rtt(now, None);
            }
            Phase::ProbeRtt => self.probe_rtt(now, ack),
            Phase::Startup | Phase::Drain | Phase::Cruise | Phase::Up | Phase::Down => {}
        }
    }

    /// Empties the path to see how long it is. `slower` is what it delivered, if that is why: either it became slower,
    /// or it became longer and the window too small.
    fn start_probe_rtt(&mut self, now: Instant, slower: Option<u64>) {
        self.probe_rtt = ProbeRtt { slower, end: None, min: None };
        self.enter(now, Phase::ProbeRtt);
    }

    fn probe_rtt(&mut self, now: Instant, ack: &AckSample) {
        if ack.in_flight > self.window() && self.probe_rtt.end.is_none() {
            return;
        }
        let end =
            *self.probe_rtt.end.get_or_insert_with(|| now + PROBE_RTT_TIME.max(ack.smoothed_rtt));
        if let Some(rtt) = ack.rtt {
            self.probe_rtt.min = Some(self.probe_rtt.min.map_or(rtt, |min| min.min(rtt)));
        }
        if now < end {
            return;
        }
        let before = self.min_rtt.value;
        self.min_rtt = MinRtt { value: self.probe_rtt.min.or(before), seen_at: now };
        let is_longer = self.min_rtt.value > before.map(|before| before + before / 4);
        if let (Some(slower), false) = (self.probe_rtt.slower, is_longer) {
            self.max_rate.reset(slower);
        }
        self.enter(now, Phase::Cruise);
    }

    /// Bytes that fill the path and no queue.
    fn bdp(&self) -> u64 {
        self.min_rtt.value.map_or(0, |rtt| bytes_in(self.max_rate.get(), rtt))
    }

    /// The path is thought to hold less than everybody may send at first.
    fn is_tiny(&self) -> bool {
        self.bdp() < INITIAL_PACKETS * self.mtu
    }

    /// What late timers and busy hosts keep on the path, and in the receiver's buffer, beside what fills it.
    fn window_slack(&self) -> u64 {
        let least = bytes_in(self.max_rate.get(), TIMER_SLACK);
        if !self.is_short() || matches!(self.phase, Phase::Startup | Phase::Drain) {
            return least;
        }
        self.peer_burst.min(bytes_in(self.max_rate.get(), PAUSE_SLACK)).max(least)
    }

    fn gain(&self) -> f64 {
        let arriving = 1.0 - self.base.share();
        match self.phase {
            Phase::Startup => STARTUP_GAIN / arriving,
            Phase::Drain => DRAIN_GAIN,
            Phase::Up if self.grown_probes >= FAST_PROBES || self.is_tiny() => FAST_UP_GAIN,
            Phase::Up if self.is_careful => CAREFUL_UP_GAIN,
            Phase::Up => UP_GAIN,
            // Below what arrives, not what is offered: even a wrong base comes right here.
            Phase::Down => DOWN_GAIN * arriving,
            Phase::Cruise | Phase::ProbeRtt => 1.0,
        }
    }
}

impl Controller for Model {
    fn on_sent(&mut self, _now: Instant, _bytes: u64, _in_flight_before: u64, _app_limited: bool) {}

    fn on_ack(&mut self, now: Instant, ack: &AckSample) {
        self.count(ack.oldest_sent, ack.largest_sent, ack.acked_bytes, 0);
        if self.phase == Phase::Startup && self.is_short() && !ack.app_limited {
            self.widen_startup(ack);
        }
        self.round.app_limited |= ack.app_limited;
        if let Some(rtt) = ack.rtt {
            self.min_rtt.update(now, rtt);
            self.round.min_rtt = Some(self.round.min_rtt.map_or(rtt, |min| min.min(rtt)));
        }
        if let (Phase::Startup, Some(sample), false) = (self.phase, ack.rate, self.is_short()) {
            self.max_rate.update(sample.bytes_per_second);
        }
        if self.phase == Phase::Startup && self.is_overrun(ack) {
            self.base.doubt(self.mtu);
            self.enter(now, Phase::Drain);
        }
        if self.is_round_over(now, ack) {
            self.end_round(now, ack);
        }
        self.check_phase(now, ack);
    }

    fn on_loss(&mut self, _now: Instant, loss: &LossSample) {
        self.count(loss.oldest_sent, loss.largest_sent, 0, loss.lost_bytes);
    }

    fn on_spurious_loss(&mut self, _now: Instant, bytes: u64) {
        self.round.lost = self.round.lost.saturating_sub(bytes);
        self.up.lost = self.up.lost.saturating_sub(bytes);
    }

    fn on_persistent_congestion(&mut self, now: Instant) {
        *self = Self {
            min_rtt: self.min_rtt,
            round: self.round,
            peer_burst: self.peer_burst,
            ..Self::new(now, self.mtu)
        };
    }

    fn on_mtu(&mut self, bytes: u64) {
        self.mtu = bytes;
    }

    fn on_peer_burst(&mut self, bytes: u64) {
        self.peer_burst = bytes;
    }

    fn window(&self) -> u64 {
        let least = MIN_PACKETS * self.mtu;
        let bdp = self.bdp();
        let slack = self.window_slack();
        let window = match self.phase {
            Phase::Startup => {
                let offered = STARTUP_WINDOW_GAIN * bdp as f64 / (1.0 - self.base.share());
                (offered as u64).saturating_add(slack).max(self.startup_window)
            }
            Phase::ProbeRtt => {
                let rate = self.probe_rtt.slower.unwrap_or_else(|| self.max_rate.get());
                self.min_rtt.value.map_or(0, |rtt| bytes_in(rate, rtt) / 2)
            }
            Phase::Drain | Phase::Cruise | Phase::Up | Phase::Down => {
                ((WINDOW_GAIN * bdp as f64) as u64).saturating_add(slack)
            }
        };
        window.clamp(least, MAX_WINDOW)
    }

    fn pacing_rate(&self) -> Option<u64> {
        // In startup what was measured is a lower bound, and of a sender with little to say a very low one.
        let first = |rtt: Duration| rate(INITIAL_PACKETS * self.mtu, rtt.max(LEAST_FIRST_RTT));
        let first = self.min_rtt.value.map(first);
        let base = match (self.max_rate.get(), self.phase) {
            (0, _) => first?,
            (known, Phase::Startup) => first.map_or(known, |first| known.max(first)),
            (known, _) => known,
        };
        Some((base as f64 * self.gain()) as u64)
    }

    fn name(&self) -> &'static str {
        "model"
    }
}
