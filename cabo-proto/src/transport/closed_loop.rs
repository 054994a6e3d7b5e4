//! Tests of the parts together (T-9.6): a sender, a bottleneck with a drop-tail queue and seeded loss, a receiver, in
//! virtual time. It is the place to tune `congestion/model`; `sim` tries whole connections.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::ack::{AckTracker, MAX_ACK_DELAY};
use super::congestion::Kind;
use super::congestion::rate::{bytes_in, time_for};
use super::loss::{AckOutcome, Loss};
use super::path::{Path, Permit};
use super::sent::Sent;

const PACKET: u64 = 1452;
const BURST: u64 = 1 << 22; // the receiver's buffer
const TIMER: Duration = Duration::from_millis(1); // the sender's pacing timer wakes at whole ones

#[derive(Clone, Copy, Debug)]
struct Link {
    rate: u64, // bytes a second
    rtt: Duration,
    loss: f64,
    queue: f64,       // of the bandwidth-delay product
    burst: f64,       // mean packets lost in a row
    ack_loss: f64,    // on the way back
    jitter: Duration, // uniform, reorders
    pauses: Option<Pauses>,
    seed: u64,
}

/// A busy host takes the processor away from one side, then from the other, at random moments.
#[derive(Clone, Copy, Debug)]
struct Pauses {
    apart: Duration,  // at most, from the end of one to the start of the next
    length: Duration, // at most
}

impl Link {
    fn new(megabits: u64, rtt_ms: u64, loss: f64) -> Self {
        Self {
            rate: megabits * 125_000,
            rtt: Duration::from_millis(rtt_ms),
            loss,
            queue: 1.0,
            burst: 1.0,
            ack_loss: 0.0,
            jitter: Duration::ZERO,
            pauses: None,
            seed: 1,
        }
    }

    /// A cable so short that the hosts and their timers are what takes time.
    fn short(megabits: u64, rtt_micros: u64) -> Self {
        let rtt = Duration::from_micros(rtt_micros);
        Self { rtt, queue: 1000.0 / rtt_micros as f64, ..Self::new(megabits, 0, 0.0) }
    }

    fn bdp(&self) -> u64 {
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
struct Report {
    utilisation: f64, // of what the wire's loss leaves
    mean_queue: Duration,
    overflow: f64,  // share of packets that the queue dropped
    ramp: Duration, // until nine tenths of the rate are reached
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

struct Bench {
    link: Link,
    random: fastrand::Rng,
    start: Instant,
    now: Instant,
    events: BTreeMap<(Instant, u64), Event>,
    order: u64,
    sender: Side,
    receiver: Side,
    path: Path,
    loss: Loss<()>,
    acks: AckTracker,
    free_at: Instant, // when the bottleneck has sent its queue
    wake: Option<Instant>,
    is_bad: bool,
    sent: u64,
    dropped: u64,
    arrived: u64,
}

impl Bench {
    fn new(kind: Kind, link: Link) -> Self {
        let start = crate::sim::origin();
        let mut path = Path::new(start, kind, PACKET);
        path.on_peer_burst(BURST);
        Self {
            link,
            random: fastrand::Rng::with_seed(link.seed),
            start,
            now: start,
            events: BTreeMap::new(),
            order: 0,
            sender: Side { pause: start, resume: start },
            receiver: Side { pause: start, resume: start },
            path,
            loss: Loss::new(),
            acks: AckTracker::new(),
            free_at: start,
            wake: None,
            is_bad: false,
            sent: 0,
            dropped: 0,
            arrived: 0,
        }
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.order += 1;
        self.events.insert((at, self.order), event);
    }

    /// Runs for `time` and reports on it.
    fn run(&mut self, time: Duration) -> Report {
        let start = self.now;
        let (arrived, sent, dropped) = (self.arrived, self.sent, self.dropped);
        let (mut queue_sum, mut samples, mut ramp) = (0.0, 0u32, None);
        let mut mark = (self.now, self.arrived);
        if self.events.is_empty() {
            self.schedule(self.now, Event::Sample);
        }
        while self.now < start + time {
            self.step();
            if self.now - mark.0 >= self.link.rtt.max(Duration::from_millis(10)) {
                let ideal = self.link.ideal(self.now - mark.0);
                if (self.arrived - mark.1) as f64 > 0.9 * ideal {
                    ramp.get_or_insert(self.now - start);
                }
                mark = (self.now, self.arrived);
                samples += 1;
                queue_sum += self.free_at.saturating_duration_since(self.now).as_secs_f64();
            }
        }
        Report {
            utilisation: (self.arrived - arrived) as f64 / self.link.ideal(self.now - start),
            mean_queue: Duration::from_secs_f64(queue_sum / f64::from(samples.max(1))),
            overflow: (self.dropped - dropped) as f64 / (self.sent - sent).max(1) as f64,
            ramp: ramp.unwrap_or(time),
        }
    }

    /// How long so many bytes take to arrive, if no longer than `most`.
    fn deliver(&mut self, bytes: u64, most: Duration) -> Duration {
        let (start, arrived) = (self.now, self.arrived);
        self.schedule(self.now, Event::Sample);
        while self.arrived - arrived < bytes && self.now - start < most {
            self.step();
        }
        self.now - start
    }

    /// Advances to the next thing that happens.
    fn step(&mut self) {
        self.plan_pauses();
        let pto = self.loss.pto_deadline(self.path.rtt(), MAX_ACK_DELAY);
        let of_sender = [self.wake, self.loss.loss_deadline(), pto].into_iter().flatten().min();
        let of_receiver = self.acks.deadline().map(|at| self.receiver.runs(at));
        let event = self.events.first_key_value().map(|((at, _), _)| *at);
        let timers = [of_sender.map(|at| self.sender.runs(at)), of_receiver, event];
        let next = timers.into_iter().flatten().min().expect("something is always to come");
        self.now = self.now.max(next);
        let is_sending = !self.sender.is_paused(self.now);
        if self.acks.due(self.now) && !self.receiver.is_paused(self.now) {
            self.acknowledge();
        }
        if is_sending && self.loss.loss_deadline().is_some_and(|at| at <= self.now) {
            let lost = self.loss.detect(self.now, self.path.rtt(), MAX_ACK_DELAY);
            self.path.on_lost(self.now, &lost);
        } else if is_sending && pto.is_some_and(|at| at <= self.now) {
            self.loss.on_pto();
            self.transmit();
        }
        if event.is_some_and(|at| at <= self.now)
            && let Some((_, event)) = self.events.pop_first()
        {
            self.handle(event);
        }
        if !self.sender.is_paused(self.now) {
            self.send();
        }
    }

    fn plan_pauses(&mut self) {
        let Some(pauses) = self.link.pauses else { return };
        for side in [&mut self.sender, &mut self.receiver] {
            if side.resume <= self.now {
                side.pause = self.now + pauses.apart.mul_f64(self.random.f64());
                side.resume = side.pause + pauses.length.mul_f64(self.random.f64());
            }
        }
    }

    /// What came for a side that does not run waits for it.
    fn handle(&mut self, event: Event) {
        let side = match event {
            Event::Arrives(_) => self.receiver,
            Event::Acks(..) => self.sender,
            Event::Sample => return self.schedule(self.now + TIMER, Event::Sample),
        };
        if side.is_paused(self.now) {
            return self.schedule(side.resume, event);
        }
        self.take(event);
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Arrives(number) => {
                self.arrived += PACKET;
                self.acks.on_packet(self.now, number, true, self.link.rtt);
                if self.acks.due(self.now) {
                    self.acknowledge();
                }
            }
            Event::Acks(ranges, delay) => {
                let rtt = *self.path.rtt();
                let acked: AckOutcome<()> =
                    self.loss.on_ack(self.now, ranges, &rtt).expect("all were sent");
                if let Some(sample) = acked.rtt_sample {
                    self.path.on_rtt(sample, delay.min(MAX_ACK_DELAY));
                }
                let lost = self.loss.detect(self.now, self.path.rtt(), MAX_ACK_DELAY);
                self.path.on_acked(self.now, &acked, &lost);
            }
            Event::Sample => {}
        }
    }

    fn acknowledge(&mut self) {
        let ranges: Vec<_> = self.acks.ranges().iter().rev().collect();
        let delay = self.acks.delay(self.now);
        self.acks.on_sent();
        // The peer hears of our acknowledgements' acknowledgements by other means; here they are pruned by age.
        let keep = self.acks.largest().unwrap_or(0).saturating_sub(20_000);
        self.acks.on_ack_acked(keep);
        if self.random.f64() >= self.link.ack_loss {
            let jitter = self.link.jitter.mul_f64(self.random.f64());
            self.schedule(self.now + self.link.rtt / 2 + jitter, Event::Acks(ranges, delay));
        }
    }

    fn send(&mut self) {
        if self.wake.is_some_and(|wake| self.now < wake) {
            return;
        }
        self.wake = None;
        while self.loss.has_room() {
            match self.path.permit(self.now, PACKET) {
                Permit::Now => self.transmit(),
                Permit::At(at) => {
                    let since = at - self.start;
                    let ticks = since.as_nanos().div_ceil(TIMER.as_nanos());
                    self.wake =
                        Some(self.start + TIMER * u32::try_from(ticks).expect("a short run"));
                    return;
                }
                Permit::Blocked => return,
            }
        }
    }

    fn transmit(&mut self) {
        let snapshot = self.path.on_sent(self.now, PACKET, true);
        let sent =
            Sent { time: self.now, bytes: PACKET as u32, in_flight: true, snapshot, frames: () };
        let number = self.loss.on_sent(Some(sent));
        self.sent += 1;
        let backlog = bytes_in(self.link.rate, self.free_at.saturating_duration_since(self.now));
        if backlog + PACKET > self.link.queue_limit() {
            self.dropped += 1;
            return;
        }
        self.free_at = self.free_at.max(self.now) + time_for(PACKET, self.link.rate);
        if !self.is_lost() {
            let jitter = self.link.jitter.mul_f64(self.random.f64());
            self.schedule(self.free_at + self.link.rtt / 2 + jitter, Event::Arrives(number));
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

/// What a controller reaches once it is warm, and how long that took.
fn run(kind: Kind, link: Link) -> Report {
    let time = (link.rtt * 110).clamp(Duration::from_secs(3), Duration::from_secs(9));
    let mut bench = Bench::new(kind, link);
    let ramp = bench.run(time / 3).ramp;
    Report { ramp, ..bench.run(time) }
}

/// T-9.7: a host that has other things to do is no slow path.
#[test]
fn sides_that_pause_do_not_make_a_short_cable_look_slow() {
    let ms = Duration::from_millis;
    let cases = [
        (10_000, 100, ms(50), ms(20), ms(200)),
        (10_000, 100, ms(5), ms(5), ms(250)),
        (3_000, 50, ms(5), ms(5), ms(500)), // 80 ms without pauses, 320 if both sides must run at once
        (3_000, 2000, ms(5), ms(5), ms(500)),
    ];
    for (megabits, rtt_micros, apart, length, most) in cases {
        for seed in 0..20 {
            let pauses = Some(Pauses { apart, length });
            let link = Link { pauses, seed, ..Link::short(megabits, rtt_micros) };
            let mut bench = Bench::new(Kind::Model, link);
            let took = bench.deliver(30_000_000, 10 * most);
            assert!(took <= most, "{link:?}: {took:?}");
        }
    }
}

#[test]
fn a_rate_ten_times_too_low_is_found_out_soon_on_a_short_path() {
    let ms = Duration::from_millis;
    for seed in 0..10 {
        let mut bench = Bench::new(Kind::Model, Link { seed, ..Link::short(100, 200) });
        bench.run(ms(500 + 17 * seed));
        bench.link = Link { seed, ..Link::short(1000, 200) };
        bench.run(ms(200)); // a cycle until the next probe, and the climb
        let report = bench.run(ms(100));
        assert!(report.utilisation > 0.9, "seed {seed}: {report:?}");
    }
}

/// T-9.6: nearly all that the wire's own loss leaves, with little waiting.
#[test]
fn the_model_fills_a_lossy_wire_and_not_its_queue() {
    for (loss, least) in [(0.0, 0.97), (0.001, 0.97), (0.01, 0.97), (0.05, 0.97), (0.2, 0.9)] {
        let report = run(Kind::Model, Link::new(200, 20, loss));
        assert!(report.utilisation > least, "loss {loss}: {report:?}");
        assert!(report.mean_queue < Duration::from_millis(5), "loss {loss}: {report:?}");
    }
}

#[test]
fn the_model_needs_no_deep_queue() {
    for queue in [0.1, 0.25] {
        let report = run(Kind::Model, Link { queue, ..Link::new(200, 20, 0.01) });
        assert!(report.utilisation > 0.95 && report.overflow < 0.02, "queue {queue}: {report:?}");
    }
}

#[test]
fn the_model_survives_bursts_jitter_and_lost_acknowledgements() {
    let link = Link::new(100, 20, 0.05);
    let bad = Link { loss: 0.2, ack_loss: 0.2, ..link };
    for link in
        [Link { burst: 5.0, ..link }, Link { jitter: Duration::from_millis(5), ..link }, bad]
    {
        let report = run(Kind::Model, link);
        assert!(report.utilisation > 0.9, "{link:?}: {report:?}");
    }
}

#[test]
fn the_model_follows_a_path_that_changes() {
    let second = Duration::from_secs(1);
    let fast = Link::new(100, 20, 0.01);
    let mut bench = Bench::new(Kind::Model, fast);
    bench.run(second);
    for link in [
        Link::new(10, 20, 0.01),
        fast,
        Link::new(100, 60, 0.01),
        fast,
        Link::new(100, 20, 0.2),
        fast,
    ] {
        bench.link = link;
        bench.run(2 * second);
        let report = bench.run(second);
        assert!(report.utilisation > 0.9, "{link:?}: {report:?}");
    }
    bench.link = Link { loss: 1.0, ..fast };
    bench.run(8 * second);
    bench.link = fast;
    bench.run(3 * second); // a probe timeout comes every two seconds
    let report = bench.run(second);
    assert!(report.utilisation > 0.9, "after the cable was pulled: {report:?}");
}

#[test]
fn the_model_finds_a_path_that_is_two_hundred_times_as_fast_and_lossy() {
    let mut bench = Bench::new(Kind::Model, Link::new(1, 20, 0.0));
    bench.run(Duration::from_secs(2));
    bench.link = Link::new(200, 20, 0.2);
    bench.run(Duration::from_secs(4));
    let report = bench.run(Duration::from_secs(1));
    assert!(report.utilisation > 0.9, "{report:?}");
}

/// A queue too short for startup's flood loses about what the path holds, and not for long.
#[test]
fn startup_does_not_flood_a_short_queue_for_long() {
    for loss in [0.0, 0.05] {
        let link = Link { queue: 0.25, ..Link::new(200, 20, loss) };
        let mut bench = Bench::new(Kind::Model, link);
        bench.run(link.rtt * 25);
        assert!(bench.dropped * PACKET < 3 * link.bdp(), "loss {loss}: {} packets", bench.dropped);
    }
}

#[test]
fn cubic_fills_a_wire_that_loses_nothing() {
    for (megabits, rtt) in [(10, 20), (200, 20), (200, 2)] {
        let report = run(Kind::Cubic, Link::new(megabits, rtt, 0.0));
        assert!(report.utilisation > 0.95, "{megabits} Mbit/s {rtt} ms: {report:?}");
    }
}

#[test]
fn fixed_keeps_its_rate_whatever_is_lost() {
    for loss in [0.0, 0.05, 0.2] {
        let link = Link::new(200, 20, loss);
        let report = run(Kind::Fixed { bytes_per_second: link.rate / 100 * 95 }, link);
        assert!(report.utilisation > 0.94, "loss {loss}: {report:?}");
        assert!(report.mean_queue < Duration::from_millis(2), "loss {loss}: {report:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let link = Link { jitter: Duration::from_millis(3), ..Link::new(20, 20, 0.05) };
    let reports = [(); 2].map(|()| format!("{:?}", run(Kind::Model, link)));
    assert_eq!(reports[0], reports[1]);
}

/// `CONTROLLER=cubic QUEUE=0.25 cargo test -p cabo-proto closed_loop::table -- --ignored --nocapture`.
#[test]
#[ignore = "prints a table, for tuning"]
fn table() {
    let kinds = [("model", Kind::Model), ("cubic", Kind::Cubic)];
    let wanted = std::env::var("CONTROLLER").unwrap_or_else(|_| "model".into());
    let queue = std::env::var("QUEUE").ok().and_then(|text| text.parse().ok()).unwrap_or(1.0);
    let (_, kind) = kinds.into_iter().find(|(name, _)| *name == wanted).expect("a controller");
    println!("{wanted}, queue {queue} bdp; cells: utilisation%  mean queue ms  overflow%  ramp ms");
    for megabits in [10, 200, 1000] {
        for rtt in [2, 20, 100] {
            print!("{megabits:>5} Mbit/s {rtt:>4} ms |");
            for loss in [0.0, 0.001, 0.01, 0.05, 0.2] {
                let link = Link { queue, ..Link::new(megabits, rtt, loss) };
                let report = run(kind, link);
                print!(
                    " {:>5.1} {:>5.1} {:>4.1} {:>4} |",
                    report.utilisation * 100.0,
                    report.mean_queue.as_secs_f64() * 1e3,
                    report.overflow * 100.0,
                    report.ramp.as_millis()
                );
            }
            println!();
        }
    }
}

#[test]
#[ignore = "prints a table, for tuning"]
fn troubles() {
    let base = Link::new(200, 20, 0.01);
    let ms = Duration::from_millis;
    let cases = [
        ("bursts of 5, 5 %", Link { burst: 5.0, loss: 0.05, ..base }),
        ("bursts of 20, 5 %", Link { burst: 20.0, loss: 0.05, ..base }),
        ("acks lost 20 %", Link { ack_loss: 0.2, ..base }),
        ("both ways 20 %", Link { ack_loss: 0.2, loss: 0.2, ..base }),
        ("jitter 1 ms", Link { jitter: ms(1), ..base }),
        ("jitter 5 ms", Link { jitter: ms(5), ..base }),
        ("jitter 15 ms", Link { jitter: ms(15), ..base }),
        ("jitter 5 ms, 20 %", Link { jitter: ms(5), loss: 0.2, ..base }),
        (
            "lan 1 G 0.2 ms",
            Link { rate: 125_000_000, rtt: Duration::from_micros(200), queue: 10.0, ..base },
        ),
        (
            "lan 1 G 0.2 ms 20 %",
            Link {
                rate: 125_000_000,
                rtt: Duration::from_micros(200),
                queue: 10.0,
                loss: 0.2,
                ..base
            },
        ),
        (
            "lan 10 G 0.1 ms",
            Link {
                rate: 1_250_000_000,
                rtt: Duration::from_micros(100),
                queue: 30.0,
                loss: 0.0,
                ..base
            },
        ),
        ("slow 0.5 M 50 ms", Link { rate: 62_500, rtt: ms(50), ..base }),
        ("slow 0.5 M 50 ms 20 %", Link { rate: 62_500, rtt: ms(50), loss: 0.2, ..base }),
        ("30 % loss", Link { loss: 0.3, ..base }),
        ("40 % loss", Link { loss: 0.4, ..base }),
        ("satellite 50 M 600 ms 1 %", Link { rate: 6_250_000, rtt: ms(600), ..base }),
    ];
    for (name, link) in cases {
        println!("{name:>26} {:?}", run(Kind::Model, link));
    }
    println!("rate 200 -> 20 -> 200 -> blackout 8 s -> 200 -> rtt 60 ms -> 20 ms");
    let mut bench = Bench::new(Kind::Model, base);
    println!("{:?}", bench.run(ms(3000)));
    for (rate, loss, rtt, time) in [
        (2_500_000, 0.01, 20, 1000),
        (2_500_000, 0.01, 20, 3000),
        (25_000_000, 0.01, 20, 1000),
        (25_000_000, 0.01, 20, 3000),
        (25_000_000, 1.0, 20, 8000),
        (25_000_000, 0.01, 20, 1000),
        (25_000_000, 0.01, 20, 2000),
        (25_000_000, 0.01, 60, 5000),
        (25_000_000, 0.01, 60, 15000),
        (25_000_000, 0.01, 20, 5000),
        (25_000_000, 0.2, 20, 2000),
        (25_000_000, 0.0, 20, 2000),
    ] {
        bench.link = Link { rate, loss, rtt: ms(rtt), ..base };
        println!("{rate:>10} {loss} {rtt} {:?}", bench.run(ms(time)));
    }
}
