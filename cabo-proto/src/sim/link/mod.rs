//! One direction of a cable, made as bad as asked, by seed.
//!
//! The same model serves the simulator in virtual time, the `fault` carrier and the relay of `cabo` in real time. A
//! packet passes four stations:
//!
//! ```text
//!   send --> [ queue, drop-tail ] --> [ rate ] --> [ wire: loss, corrupt, duplicate ] --> [ delay, jitter, reorder ] --> poll
//! ```
//!
//! As on a real wire a packet that is lost behind the bottleneck has used its share of the rate. Every packet that
//! reaches the wire draws the same number of times, so that turning one fault on does not change what the others do.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use fastrand::Rng;

#[cfg(test)]
mod tests;

/// What one link may hold at most, whatever the configuration says; more is [`Verdict::QueueFull`].
pub const HELD_MAX_BYTES: usize = 256 << 20;

/// The longest delay, jitter or extra delay that a link can have.
pub const DELAY_MAX: Duration = Duration::from_secs(3600);

const HELD_PACKET_COST_BYTES: usize = 96; // a rough price of one heap entry, so that empty packets are bounded too
const QUEUE_MIN_BYTES: u64 = 64 << 10;
const REORDER_MIN: Duration = Duration::from_millis(1);

/// How bad one direction is. The default is a perfect cable: no loss, no delay, no limit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinkConfig {
    /// Share of packets lost, 0 to 1.
    pub loss: f64,
    /// Mean length of a run of lost packets. Above what chance alone gives, `1 / (1 - loss)`, losses follow a
    /// Gilbert-Elliott chain; below it (0 and 1 included) they are independent.
    pub burst: f64,
    /// Share of packets that arrive twice.
    pub duplicate: f64,
    /// Share of packets in which one random bit is flipped.
    pub corrupt: f64,
    /// Share of packets held back by [`reorder_delay`](Self::reorder_delay) while later ones pass.
    pub reorder: f64,
    /// How long a reordered packet is held back. `None`: the largest of a quarter of `delay`, `jitter`, 1 ms and the
    /// time that three packets of this size take at `rate_bits_per_second`.
    pub reorder_delay: Option<Duration>,
    /// The least time from the last bit sent to arrival.
    pub delay: Duration,
    /// A random time of up to this much is added to `delay`. It never changes the order.
    pub jitter: Duration,
    /// Rate of the bottleneck; 0 is unlimited.
    pub rate_bits_per_second: u64,
    /// Bytes that may wait for the bottleneck. `None`: the larger of 64 KiB and what the rate carries in a round trip
    /// (twice delay and jitter). An empty queue takes a packet of any size. Without a rate nothing waits.
    pub queue_bytes: Option<u64>,
    /// Longest packet, in bytes as handed to [`Link::send`]; 0 is unlimited.
    pub mtu_bytes: usize,
    /// Bytes that each packet takes on the wire beyond its own (preamble, check sequence, gap): counts for the rate.
    pub per_packet_overhead_bytes: usize,
}

/// A value of a [`LinkConfig`] that means nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LinkConfigError {
    /// A share outside 0 to 1.
    #[error("{name} is {value}: it must be between 0 and 1 (or 0% and 100%)")]
    Share {
        /// Which field.
        name: &'static str,
        /// What it was.
        value: f64,
    },
    /// A burst that is negative, endless or not a number.
    #[error("burst is {0}: it must be a number of packets, 0 or more")]
    Burst(f64),
    /// A delay above [`DELAY_MAX`].
    #[error("{name} is {value:?}: the longest is {DELAY_MAX:?}")]
    Delay {
        /// Which field.
        name: &'static str,
        /// What it was.
        value: Duration,
    },
}

impl LinkConfig {
    /// Says what means nothing. [`Link::new`] takes such values for the nearest that do.
    pub fn check(&self) -> Result<(), LinkConfigError> {
        for (name, value) in [
            ("loss", self.loss),
            ("duplicate", self.duplicate),
            ("corrupt", self.corrupt),
            ("reorder", self.reorder),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return Err(LinkConfigError::Share { name, value });
            }
        }
        if !self.burst.is_finite() || self.burst < 0.0 {
            return Err(LinkConfigError::Burst(self.burst));
        }
        for (name, value) in [
            ("delay", self.delay),
            ("jitter", self.jitter),
            ("reorder_delay", self.reorder_delay.unwrap_or_default()),
        ] {
            if value > DELAY_MAX {
                return Err(LinkConfigError::Delay { name, value });
            }
        }
        Ok(())
    }

    /// What `queue_bytes` is when nothing is said.
    pub fn default_queue_bytes(&self) -> u64 {
        let round_trip_nanos =
            2 * (self.delay.min(DELAY_MAX) + self.jitter.min(DELAY_MAX)).as_nanos();
        let product =
            u128::from(self.rate_bits_per_second) * round_trip_nanos / (8 * NANOS_PER_SECOND);
        u64::try_from(product).unwrap_or(u64::MAX).max(QUEUE_MIN_BYTES)
    }

    fn sane(mut self) -> Self {
        for share in [&mut self.loss, &mut self.duplicate, &mut self.corrupt, &mut self.reorder] {
            *share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
        }
        self.burst = if self.burst.is_finite() { self.burst.max(0.0) } else { 0.0 };
        self.delay = self.delay.min(DELAY_MAX);
        self.jitter = self.jitter.min(DELAY_MAX);
        self.reorder_delay = self.reorder_delay.map(|delay| delay.min(DELAY_MAX));
        self
    }
}

/// What became of one packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use = "a packet may not have been taken"]
pub enum Verdict {
    /// It will arrive.
    Delivered {
        /// When [`Link::poll`] hands it out.
        at: Instant,
        /// A second copy arrives right behind it.
        duplicated: bool,
        /// One bit is flipped.
        corrupted: bool,
        /// It is held back while later packets pass.
        reordered: bool,
    },
    /// Lost on the wire, after it used its share of the rate.
    Lost,
    /// The queue before the bottleneck had no room.
    QueueFull,
    /// Longer than `mtu_bytes`.
    TooBig,
    /// The cable is pulled.
    Down,
}

/// What a link did so far. Every packet is counted in `offered` and in exactly one of `accepted`, `lost`, `queue_full`,
/// `too_big` and `down`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LinkStats {
    /// Packets given to [`Link::send`].
    pub offered: u64,
    /// Their bytes.
    pub offered_bytes: u64,
    /// Packets with the verdict [`Verdict::Delivered`].
    pub accepted: u64,
    /// Packets lost on the wire.
    pub lost: u64,
    /// Packets that found no room.
    pub queue_full: u64,
    /// Packets longer than the MTU.
    pub too_big: u64,
    /// Packets sent while the cable was pulled.
    pub down: u64,
    /// Packets that were on their way when the cable was pulled; they were `accepted` before.
    pub cut: u64,
    /// Accepted packets that arrive twice.
    pub duplicated: u64,
    /// Accepted packets with a flipped bit.
    pub corrupted: u64,
    /// Accepted packets held back.
    pub reordered: u64,
    /// Packets handed out by [`Link::poll`], copies included.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
}

/// One direction of a cable. `P` is a packet, with whatever else its owner wants to find again on the far side.
///
/// Same seed and same calls give the same result, byte for byte.
pub struct Link<P = Vec<u8>> {
    config: LinkConfig,
    rng: Rng,
    in_burst: Option<bool>, // the state of the loss chain; none before the first packet
    busy_until: Option<Instant>,
    carry: u128, // what the last whole nanosecond of the bottleneck left over, in units of bit-nanoseconds per second
    last_at: Option<Instant>,
    held: BinaryHeap<Reverse<Held<P>>>,
    held_cost_bytes: usize,
    order: u64,
    is_down: bool,
    stats: LinkStats,
}

impl<P: AsRef<[u8]> + AsMut<[u8]> + Clone> Link<P> {
    /// A link in the state `config` describes; see [`LinkConfig::check`] for values that mean nothing.
    pub fn new(config: LinkConfig, seed: u64) -> Self {
        Self {
            config: config.sane(),
            rng: Rng::with_seed(seed),
            in_burst: None,
            busy_until: None,
            carry: 0,
            last_at: None,
            held: BinaryHeap::new(),
            held_cost_bytes: 0,
            order: 0,
            is_down: false,
            stats: LinkStats::default(),
        }
    }

    /// Puts a packet on the cable. `now` must not go back between calls.
    pub fn send(&mut self, now: Instant, packet: P) -> Verdict {
        let len = packet.as_ref().len();
        self.stats.offered += 1;
        self.stats.offered_bytes += len as u64;
        let verdict = self.admit(now, packet);
        let count = match verdict {
            Verdict::Delivered { duplicated, corrupted, reordered, .. } => {
                self.stats.duplicated += u64::from(duplicated);
                self.stats.corrupted += u64::from(corrupted);
                self.stats.reordered += u64::from(reordered);
                &mut self.stats.accepted
            }
            Verdict::Lost => &mut self.stats.lost,
            Verdict::QueueFull => &mut self.stats.queue_full,
            Verdict::TooBig => &mut self.stats.too_big,
            Verdict::Down => &mut self.stats.down,
        };
        *count += 1;
        verdict
    }

    /// Hands out the next packet whose time has come. Call until it returns `None`.
    pub fn poll(&mut self, now: Instant) -> Option<P> {
        if self.next_deadline()? > now {
            return None;
        }
        let Reverse(held) = self.held.pop()?;
        let len = held.packet.as_ref().len();
        self.held_cost_bytes -= len + HELD_PACKET_COST_BYTES;
        self.stats.delivered += 1;
        self.stats.delivered_bytes += len as u64;
        Some(held.packet)
    }

    /// When [`poll`](Self::poll) will have something; `None` while the cable is empty.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.held.peek().map(|Reverse(held)| held.at)
    }

    /// Pulls the cable, which loses all that is on its way, or puts it back.
    pub fn set_down(&mut self, is_down: bool) {
        self.is_down = is_down;
        if is_down {
            self.stats.cut += self.held.len() as u64;
            self.held.clear();
            self.held_cost_bytes = 0;
            (self.busy_until, self.last_at, self.carry) = (None, None, 0);
        }
    }

    /// True while the cable is pulled.
    pub fn is_down(&self) -> bool {
        self.is_down
    }

    /// Changes the cable under way. What is on its way arrives as decided; the seed's sequence goes on.
    pub fn set_config(&mut self, config: LinkConfig) {
        self.config = config.sane();
        self.carry = 0;
    }

    /// The configuration, with values that mean something.
    pub fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// What it did so far.
    pub fn stats(&self) -> LinkStats {
        self.stats
    }

    /// Packets on their way.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Bytes that wait for the bottleneck at `now`.
    pub fn backlog_bytes(&self, now: Instant) -> u64 {
        let wait =
            self.busy_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let bytes =
            wait.as_nanos() * u128::from(self.config.rate_bits_per_second) / (8 * NANOS_PER_SECOND);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    fn admit(&mut self, now: Instant, mut packet: P) -> Verdict {
        let len = packet.as_ref().len();
        if self.is_down {
            return Verdict::Down;
        }
        if self.config.mtu_bytes != 0 && len > self.config.mtu_bytes {
            return Verdict::TooBig;
        }
        let cost_bytes = len + HELD_PACKET_COST_BYTES;
        if self.held_cost_bytes + 2 * cost_bytes > HELD_MAX_BYTES {
            return Verdict::QueueFull; // twice: it may be duplicated
        }
        let Some((sent, took)) = self.pass_bottleneck(now, len) else { return Verdict::QueueFull };

        let is_lost = self.draw_loss();
        let mut draw = |share: f64| self.rng.f64() < share;
        let duplicated = draw(self.config.duplicate);
        let corrupted = draw(self.config.corrupt) && len > 0;
        let reordered = draw(self.config.reorder);
        let (bit, wobble) = (self.rng.f64(), self.rng.f64());
        if is_lost {
            return Verdict::Lost;
        }

        if corrupted {
            let bit = ((len * 8) as f64 * bit) as usize;
            if let Some(byte) = packet.as_mut().get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        }
        let mut at = sent + self.config.delay + self.config.jitter.mul_f64(wobble);
        if reordered {
            at += self.reorder_delay(took);
        } else {
            at = self.last_at.map_or(at, |last| at.max(last));
            self.last_at = Some(at);
        }
        if duplicated {
            self.hold(at, packet.clone());
        }
        self.hold(at, packet);
        Verdict::Delivered { at, duplicated, corrupted, reordered }
    }

    /// When the last bit leaves the bottleneck, and how long this packet takes there; `None` where the queue is full.
    fn pass_bottleneck(&mut self, now: Instant, len: usize) -> Option<(Instant, Duration)> {
        let rate = u128::from(self.config.rate_bits_per_second);
        if rate == 0 {
            return Some((now, Duration::ZERO));
        }
        let wire_bytes = (len as u64).saturating_add(self.config.per_packet_overhead_bytes as u64);
        let backlog = self.backlog_bytes(now);
        let limit = self.config.queue_bytes.unwrap_or_else(|| self.config.default_queue_bytes());
        if backlog != 0 && backlog.saturating_add(wire_bytes) > limit {
            return None;
        }
        let start = match self.busy_until {
            Some(until) if until >= now => until,
            Some(_) | None => {
                self.carry = 0;
                now
            }
        };
        let work = u128::from(wire_bytes) * 8 * NANOS_PER_SECOND + self.carry;
        let took =
            Duration::from_nanos(u64::try_from(work / rate).unwrap_or(u64::MAX)).min(DELAY_MAX);
        self.carry = work % rate;
        let sent = start + took;
        self.busy_until = Some(sent);
        Some((sent, took))
    }

    /// One step of the loss chain: always the same single draw.
    fn draw_loss(&mut self) -> bool {
        let (loss, draw) = (self.config.loss, self.rng.f64());
        let burst = self.config.burst.max(1.0);
        let is_chain = loss < 1.0 && burst * (1.0 - loss) > 1.0;
        let enter = match self.in_burst {
            Some(true) if is_chain => 1.0 - 1.0 / burst,
            Some(false) if is_chain => loss / (burst * (1.0 - loss)),
            Some(_) | None => loss,
        };
        let is_lost = draw < enter;
        self.in_burst = Some(is_lost);
        is_lost
    }

    fn reorder_delay(&self, took: Duration) -> Duration {
        self.config.reorder_delay.unwrap_or_else(|| {
            (self.config.delay / 4).max(self.config.jitter).max(REORDER_MIN).max(took * 3)
        })
    }

    fn hold(&mut self, at: Instant, packet: P) {
        self.held_cost_bytes += packet.as_ref().len() + HELD_PACKET_COST_BYTES;
        self.held.push(Reverse(Held { at, order: self.order, packet }));
        self.order += 1;
    }
}

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// A packet on its way. Ordered by time, then by the order of sending.
struct Held<P> {
    at: Instant,
    order: u64,
    packet: P,
}

impl<P> Ord for Held<P> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl<P> PartialOrd for Held<P> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> Eq for Held<P> {}

impl<P> PartialEq for Held<P> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
