//! How much may be on the wire (T-7): the controllers, and what they are told.
//!
//! A controller hears of every packet that counts as in flight and answers with a window and a rate. `path.rs` calls
//! it, `rate.rs` measures for it. None of them draws a number, reads a clock or knows a packet-number space.

use std::fmt::Debug;
use std::time::{Duration, Instant};

pub mod cubic;
mod filter;
pub mod fixed;
pub mod model;
pub mod rate;

/// The first window in packets (RFC 9002 section 7.2 allows ten).
pub const INITIAL_PACKETS: u64 = 10;

/// The lowest window in packets: enough for the peer to acknowledge at once.
pub const MIN_PACKETS: u64 = 4;

/// No window grows beyond this (T-15).
pub const MAX_WINDOW: u64 = 1 << 32;

/// Which controller to use.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Kind {
    /// RFC 9438, for wires where loss means congestion.
    Cubic,
    /// A stated rate, for a wire that is ours alone.
    Fixed {
        /// The rate.
        bytes_per_second: u64,
    },
    /// A model of the path, for wires that lose packets on their own.
    #[default]
    Model,
}

impl Kind {
    /// Builds the controller for packets of at most `mtu` bytes.
    pub fn build(self, now: Instant, mtu: u64) -> Box<dyn Controller> {
        match self {
            Self::Cubic => Box::new(cubic::Cubic::new(now, mtu)),
            Self::Fixed { bytes_per_second } => Box::new(fixed::Fixed::new(bytes_per_second, mtu)),
            Self::Model => Box::new(model::Model::new(now, mtu)),
        }
    }
}

/// What one acknowledgement said.
#[derive(Clone, Copy, Debug)]
pub struct AckSample {
    /// Bytes that left the path by arriving.
    pub acked_bytes: u64,
    /// Bytes that this acknowledgement showed to be lost.
    pub lost_bytes: u64,
    /// Bytes in flight before it.
    pub prior_in_flight: u64,
    /// Bytes in flight after it.
    pub in_flight: u64,
    /// When the oldest of the acknowledged packets was sent.
    pub oldest_sent: Instant,
    /// When the newest of them was sent.
    pub largest_sent: Instant,
    /// The round-trip sample, where it gave one.
    pub rtt: Option<Duration>,
    /// The lowest round trip of this path so far.
    pub min_rtt: Duration,
    /// The smoothed round trip.
    pub smoothed_rtt: Duration,
    /// The delivery rate, where it gave a sample.
    pub rate: Option<rate::RateSample>,
    /// What the sampler noted when the newest of the acknowledged packets was sent.
    pub newest: rate::Snapshot,
    /// Bytes delivered since the start.
    pub total_delivered: u64,
    /// Bytes lost since the start.
    pub total_lost: u64,
    /// True if the application, not the window, held the sender back when these packets were sent.
    pub app_limited: bool,
}

/// What was found lost at once.
#[derive(Clone, Copy, Debug)]
pub struct LossSample {
    /// The bytes.
    pub lost_bytes: u64,
    /// When the oldest of the lost packets was sent.
    pub oldest_sent: Instant,
    /// When the newest of them was sent.
    pub largest_sent: Instant,
    /// What the sampler noted when that packet was sent.
    pub snapshot: rate::Snapshot,
    /// Bytes in flight after the loss was taken off.
    pub in_flight: u64,
}

/// A congestion controller. Bytes are those on the wire, of packets that count as in flight.
pub trait Controller: Send + Debug {
    /// A packet of `bytes` left; before it, `in_flight_before` were on the wire.
    fn on_sent(&mut self, now: Instant, bytes: u64, in_flight_before: u64, app_limited: bool);
    /// Packets arrived. Comes after `on_loss` for what the same acknowledgement showed to be lost.
    fn on_ack(&mut self, now: Instant, ack: &AckSample);
    /// Packets were lost.
    fn on_loss(&mut self, now: Instant, loss: &LossSample);
    /// A loss of `bytes` was none (T-4.3): what it did may be undone.
    fn on_spurious_loss(&mut self, now: Instant, bytes: u64);
    /// Nothing got through for a long time (T-6).
    fn on_persistent_congestion(&mut self, now: Instant);
    /// Packets may now have up to `bytes`.
    fn on_mtu(&mut self, bytes: u64);
    /// The receiver can take this many bytes at once (T-11.2).
    fn on_peer_burst(&mut self, _bytes: u64) {}
    /// Bytes that may be in flight.
    fn window(&self) -> u64;
    /// Bytes a second at which to send, where the controller has an opinion.
    fn pacing_rate(&self) -> Option<u64>;
    /// Its name, as people type it.
    fn name(&self) -> &'static str;
}
