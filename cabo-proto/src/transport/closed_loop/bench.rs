//! Senders that share a bottleneck with a drop-tail queue and seeded loss, and their receivers, in virtual time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::super::ack::{AckTracker, MAX_ACK_DELAY};
use super::super::congestion::Kind;
use super::super::congestion::rate::{bytes_in, time_for};
use super::super::loss::{AckOutcome, Loss};
use super::super::path::{Path, Permit};
use super::super::sent::Sent;

pub(super) const PACKET: u64 = 1452;
const BURST: u64 = 1 << 22; // the receiver's buffer
const TIMER: Duration = Duration::from_millis(1); // the sender's pacing timer wakes at whole ones

#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) rate: u64, // bytes a second
    pub(super) rtt: Duration,
    pub(super) loss: f64,
    pub(super) queue: f64,       // of the bandwidth-delay product
    pub(super) burst: f64,       // mean packets lost in a row
    pub(super) ack_loss: f64,    // on the way back
    pub(super) jitter: Duration, // uniform, reorders
    pub(super) pauses: Option<Pauses>,
    pub(super) is_late: bool, // timers fire up to 1 ms late, by chance, so that no sender is always before another
    pub(super) seed: u64,
}

/// A busy host takes the processor away from one side, then from the other, at random moments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pauses {
    pub(super) apart: Duration, // at most, from the end of one to the start of the next
    pub(super) length: Duration, // at most
}

impl Link {
    pub(super) fn new(megabits: u64, rtt_ms: u64, loss: f64) -> Self {
        Self {
            rate: megabits * 125_000,
            rtt: Duration::from_millis(rtt_ms),
            loss,
            queue: 1.0,
            burst: 1.0,
            ack_loss: 0.0,
            jitter: Duration::ZERO,
            pauses: None,
            is_late: false,
            seed: 1,
        }
    }

    /// A cable so short that the hosts and their timers are what takes time.
    pub(super) fn short(megabits: u64, rtt_micros: u64) -> Self {
        let rtt = Duration::from_micros(rtt_micros);
        Self { rtt, queue: 1000.0 / rtt_micros as f64, ..Self::new(megabits, 0, 0.0) }
    }

    pub(super) fn bdp(&self) -> u64 {
        bytes_in(self.rate, self.rtt)
    }

    /// Bytes that arrive at best.
    fn ideal(&self, time: Duration) -> f64 {
        bytes_in(self.rate, time) as f64 * (1.0 - self.loss)
    }

    fn queue_limit(&self) -> u64 {
        ((self.bdp() as f64 * self.queue) as u64).max(20 * PACKET)
    }
}

#[derive(Debug)]
enum Event {
    Arrives(u64),
    Acks(Vec<Range<u64>>, Duration),
    Sample,
}

/// What a run showed, after its warm-up.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) utilisation: f64, // of what the wire's loss leaves
    pub(super) mean_queue: Duration,
    pub(super) overflow: f64,  // share of packets that the queue dropped
    pub(super) ramp: Duration, // until nine tenths of the rate are reached
}

/// When one side runs.
#[derive(Clone, Copy, Debug)]
struct Side {
    pause: Instant,  // the next, or the last
    resume: Instant, // from it
}

impl Side {
    fn is_paused(&self, now: Instant) -> bool {
        self.pause <= now && now < self.resume
    }

    /// When something can be done that is due at `at`.
    fn runs(&self, at: Instant) -> Instant {
        if self.is_paused(at) { self.resume } else { at }
    }
}

/// One sender and its receiver.
struct Flow {
    sender: Side,
    receiver: Side,
    path: Path,
    loss: Loss<()>,
    acks: AckTracker,
    wake: Option<Instant>,
    arrived: u64,
}

/// A bottleneck and who sends through it.
pub(super) struct Bench {
    pub(super) link: Link,
    random: fastrand::Rng,
    start: Instant,
    pub(super) now: Instant,
    events: BTreeMap<(Instant, u64), (usize, Event)>, // with the flow
    order: u64,
    flows: Vec<Flow>,
    free_at: Instant, // when the bottleneck has sent its queue
    is_bad: bool,
    sent: u64,
    pub(super) dropped: u64,
}

impl Bench {
    /// One flow.
    pub(super) fn new(kind: Kind, link: Link) -> Self {
        let start = crate::sim::origin();
        let mut bench = Self {
            link,
            random: fastrand::Rng::with_seed(link.seed),
            start,
            now: start,
            events: BTreeMap::new(),
            order: 0,
            flows: Vec::new(),
            free_at: start,
            is_bad: false,
            sent: 0,
            dropped: 0,
        };
        bench.join(kind);
        bench
    }

    /// One more flow, that starts now.
    pub(super) fn join(&mut self, kind: Kind) {
        let mut path = Path::new(self.now, kind, PACKET);
        path.on_peer_burst(BURST);
        // The first flow's handshake is not simulated, nor those of later ones, which know the round trip from it.
        if !self.flows.is_empty() {
            path.on_rtt(self.link.rtt, Duration::ZERO);
        }
        let side = Side { pause: self.start, resume: self.start };
        self.flows.push(Flow {
            sender: side,
            receiver: side,
            path,
            loss: Loss::new(),
            acks: AckTracker::new(),
            wake: None,
            arrived: 0,
        });
        self.schedule(self.now, self.flows.len() - 1, Event::Sample);
    }

    /// Bytes of each flow that arrived so far.
    pub(super) fn arrived(&self) -> Vec<u64> {
        self.flows.iter().map(|flow| flow.arrived).collect()
    }

    fn total_arrived(&self) -> u64 {
        self.flows.iter().map(|flow| flow.arrived).sum()
    }

    fn schedule(&mut self, at: Instant, flow: usize, event: Event) {
        self.order += 1;
        self.events.insert((at, self.order), (flow, event));
    }

    /// Runs for `time` and reports on it.
    pub(super) fn run(&mut self, time: Duration) -> Report {
        let start = self.now;
        let (arrived, sent, dropped) = (self.total_arrived(), self.sent, self.dropped);
        let (mut queue_sum, mut samples, mut ramp) = (0.0, 0u32, None);
        let mut mark = (self.now, arrived);
        while self.now < start + time {
            self.step();
            if self.now - mark.0 >= self.link.rtt.max(Duration::from_millis(10)) {
                let ideal = self.link.ideal(self.now - mark.0);
                if (self.total_arrived() - mark.1) as f64 > 0.9 * ideal {
                    ramp.get_or_insert(self.now - start);
                }
                mark = (self.now, self.total_arrived());
                samples += 1;
                queue_sum += self.free_at.saturating_duration_since(self.now).as_secs_f64();
            }
        }
        Report {
            utilisation: (self.total_arrived() - arrived) as f64
                / self.link.ideal(self.now - start),
            mean_queue: Duration::from_secs_f64(queue_sum / f64::from(samples.max(1))),
            overflow: (self.dropped - dropped) as f64 / (self.sent - sent).max(1) as f64,
            ramp: ramp.unwrap_or(time),
        }
    }

    /// How long so many bytes take to arrive, if no longer than `most`.
    pub(super) fn deliver(&mut self, bytes: u64, most: Duration) -> Duration {
        let (start, arrived) = (self.now, self.total_arrived());
        while self.total_arrived() - arrived < bytes && self.now - start < most {
            self.step();
        }
        self.now - start
    }

    /// Advances to the next thing that happens.
    fn step(&mut self) {
        self.plan_pauses();
        let event = self.events.first_key_value().map(|((at, _), _)| *at);
        let timers = self.flows.iter().filter_map(Flow::deadline);
        let next = timers.chain(event).min().expect("something is always to come");
        self.now = self.now.max(next);
        for index in 0..self.flows.len() {
            self.handle_timers(index);
        }
        if event.is_some_and(|at| at <= self.now)
            && let Some((_, (index, event))) = self.events.pop_first()
        {
            self.handle(index, event);
        }
        for index in 0..self.flows.len() {
            if !self.flows[index].sender.is_paused(self.now) {
                self.send(index);
            }
        }
    }

    fn handle_timers(&mut self, index: usize) {
        let now = self.now;
        let flow = &mut self.flows[index];
        let pto = flow.pto_deadline();
        if flow.acks.due(now) && !flow.receiver.is_paused(now) {
            self.acknowledge(index);
        }
        let flow = &mut self.flows[index];
        if flow.sender.is_paused(now) {
            return;
        }
        if flow.loss.loss_deadline().is_some_and(|at| at <= now) {
            let lost = flow.loss.detect(now, flow.path.rtt(), MAX_ACK_DELAY);
            flow.path.on_lost(now, &lost);
        } else if pto.is_some_and(|at| at <= now) {
            flow.loss.on_pto();
            self.transmit(index);
        }
    }

    fn plan_pauses(&mut self) {
        let Some(pauses) = self.link.pauses else { return };
        for flow in &mut self.flows {
            for side in [&mut flow.sender, &mut flow.receiver] {
                if side.resume <= self.now {
                    side.pause = self.now + pauses.apart.mul_f64(self.random.f64());
                    side.resume = side.pause + pauses.length.mul_f64(self.random.f64());
                }
            }
        }
    }

    /// What came for a side that does not run waits for it.
    fn handle(&mut self, index: usize, event: Event) {
        let side = match event {
            Event::Arrives(_) => self.flows[index].receiver,
            Event::Acks(..) => self.flows[index].sender,
            Event::Sample => return self.schedule(self.now + TIMER, index, Event::Sample),
        };
        if side.is_paused(self.now) {
            return self.schedule(side.resume, index, event);
        }
        self.take(index, event);
    }

    fn take(&mut self, index: usize, event: Event) {
        let now = self.now;
        let flow = &mut self.flows[index];
        match event {
            Event::Arrives(number) => {
                flow.arrived += PACKET;
                flow.acks.on_packet(now, number, true, self.link.rtt);
                if flow.acks.due(now) {
                    self.acknowledge(index);
                }
            }
            Event::Acks(ranges, delay) => {
                let rtt = *flow.path.rtt();
                let acked: AckOutcome<()> =
                    flow.loss.on_ack(now, ranges, &rtt).expect("all were sent");
                if let Some(sample) = acked.rtt_sample {
                    flow.path.on_rtt(sample, delay.min(MAX_ACK_DELAY));
                }
                let lost = flow.loss.detect(now, flow.path.rtt(), MAX_ACK_DELAY);
                flow.path.on_acked(now, &acked, &lost);
            }
            Event::Sample => {}
        }
    }

    fn acknowledge(&mut self, index: usize) {
        let acks = &mut self.flows[index].acks;
        let ranges: Vec<_> = acks.ranges().iter().rev().collect();
        let delay = acks.delay(self.now);
        acks.on_sent();
        // The peer hears of our acknowledgements' acknowledgements by other means; here they are pruned by age.
        let keep = acks.largest().unwrap_or(0).saturating_sub(20_000);
        acks.on_ack_acked(keep);
        if self.random.f64() >= self.link.ack_loss {
            let jitter = self.link.jitter.mul_f64(self.random.f64());
            let at = self.now + self.link.rtt / 2 + jitter;
            self.schedule(at, index, Event::Acks(ranges, delay));
        }
    }

    fn send(&mut self, index: usize) {
        let (start, now) = (self.start, self.now);
        let flow = &mut self.flows[index];
        if flow.wake.is_some_and(|wake| now < wake) {
            return;
        }
        flow.wake = None;
        while self.flows[index].loss.has_room() {
            let flow = &mut self.flows[index];
            match flow.path.permit(now, PACKET) {
                Permit::Now => self.transmit(index),
                Permit::At(at) => {
                    let ticks = (at - start).as_nanos().div_ceil(TIMER.as_nanos());
                    flow.wake = Some(if self.link.is_late {
                        at + TIMER.mul_f64(self.random.f64())
                    } else {
                        start + TIMER * u32::try_from(ticks).expect("a short run")
                    });
                    return;
                }
                Permit::Blocked => return,
            }
        }
    }

    fn transmit(&mut self, index: usize) {
        let flow = &mut self.flows[index];
        let snapshot = flow.path.on_sent(self.now, PACKET, true);
        let sent =
            Sent { time: self.now, bytes: PACKET as u32, in_flight: true, snapshot, frames: () };
        let number = flow.loss.on_sent(Some(sent));
        self.sent += 1;
        let backlog = bytes_in(self.link.rate, self.free_at.saturating_duration_since(self.now));
        if backlog + PACKET > self.link.queue_limit() {
            self.dropped += 1;
            return;
        }
        self.free_at = self.free_at.max(self.now) + time_for(PACKET, self.link.rate);
        if !self.is_lost() {
            let jitter = self.link.jitter.mul_f64(self.random.f64());
            let at = self.free_at + self.link.rtt / 2 + jitter;
            self.schedule(at, index, Event::Arrives(number));
        }
    }

    /// Two states, good and bad, so that losses come in bursts (Gilbert).
    fn is_lost(&mut self) -> bool {
        let Link { loss, burst, .. } = self.link;
        let chance = if self.is_bad { 1.0 - 1.0 / burst } else { loss / burst / (1.0 - loss) };
        self.is_bad =
            if burst > 1.0 { self.random.f64() < chance } else { self.random.f64() < loss };
        self.is_bad
    }
}

impl Flow {
    fn pto_deadline(&self) -> Option<Instant> {
        self.loss.pto_deadline(self.path.rtt(), MAX_ACK_DELAY)
    }

    fn deadline(&self) -> Option<Instant> {
        let of_sender =
            [self.wake, self.loss.loss_deadline(), self.pto_deadline()].into_iter().flatten().min();
        let of_receiver = self.acks.deadline().map(|at| self.receiver.runs(at));
        of_sender.map(|at| self.sender.runs(at)).into_iter().chain(of_receiver).min()
    }
}
