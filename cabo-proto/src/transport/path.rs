//! One path: its round trip, congestion controller, delivery-rate sampler and pacer, told together what happened.
//!
//! All three packet-number spaces share it (T-7.1). `loss.rs` says what became of packets, this says when the next may
//! leave. What left on another path than the one in use says nothing about this one (T-17).

use std::time::{Duration, Instant};

use super::congestion::rate::{Sampler, Snapshot};
use super::congestion::{AckSample, Controller, Kind, LossSample};
use super::loss::{AckOutcome, LossOutcome};
use super::pace::Pacer;
use super::rtt::Rtt;
use super::sent::Sent;

/// Whether a packet may leave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Permit {
    /// It may.
    Now,
    /// The pacer wants it to wait until then.
    At(Instant),
    /// The window is full: wait for an acknowledgement or a loss.
    Blocked,
}

/// The state of one path.
#[derive(Debug)]
pub struct Path {
    rtt: Rtt,
    controller: Box<dyn Controller>,
    sampler: Sampler,
    pacer: Pacer,
    in_flight: u64, // bytes
    number: u32,    // how many paths the connection had before (T-17)
}

impl Path {
    /// A path on which nothing was sent, for packets of at most `mtu` bytes.
    pub fn new(now: Instant, kind: Kind, mtu: u64) -> Self {
        Self {
            rtt: Rtt::default(),
            controller: kind.build(now, mtu),
            sampler: Sampler::new(now),
            pacer: Pacer::new(now, mtu),
            in_flight: 0,
            number: 0,
        }
    }

    /// The path after this one, of which nothing is known (T-17.2).
    #[must_use]
    pub fn replaced(&self, now: Instant, kind: Kind, mtu: u64) -> Self {
        Self { number: self.number.wrapping_add(1), ..Self::new(now, kind, mtu) }
    }

    /// The same path, to another port of the same host (T-17.3): what is known of it stays, what was under way no longer
    /// counts.
    pub fn on_moved(&mut self) {
        self.number = self.number.wrapping_add(1);
        self.in_flight = 0;
    }

    /// We are somewhere else ourselves, says the peer: the round trip is taken anew (T-17.5).
    pub fn on_challenged(&mut self) {
        self.rtt = self.rtt.restarted();
    }

    /// Whether a packet left on this path, and not on one before it or beside it.
    pub fn is_of<F>(&self, sent: &Sent<F>) -> bool {
        sent.snapshot.path == Some(self.number)
    }

    /// The round-trip estimate.
    pub fn rtt(&self) -> &Rtt {
        &self.rtt
    }

    /// The controller, to be looked at.
    pub fn controller(&self) -> &dyn Controller {
        &*self.controller
    }

    /// Bytes in flight, of all spaces.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Bytes delivered, and bytes lost, since the start.
    pub fn delivered_and_lost(&self) -> (u64, u64) {
        (self.sampler.delivered(), self.sampler.lost())
    }

    /// Packets may now have up to `bytes` (T-12).
    pub fn on_mtu(&mut self, bytes: u64) {
        self.controller.on_mtu(bytes);
        self.pacer.on_mtu(bytes);
    }

    /// The receiver can take this many bytes at once (T-11.2).
    pub fn on_peer_burst(&mut self, bytes: u64) {
        self.controller.on_peer_burst(bytes);
        self.pacer.on_peer_burst(bytes);
    }

    /// Whether a packet of `bytes` that counts as in flight may leave. Probes and acknowledgements do not ask (T-5.3).
    pub fn permit(&mut self, now: Instant, bytes: u64) -> Permit {
        if self.in_flight + bytes > self.controller.window() {
            return Permit::Blocked;
        }
        match self.pacer.delay_until(now, bytes, self.controller.pacing_rate()) {
            Some(at) => Permit::At(at),
            None => Permit::Now,
        }
    }

    /// A packet of `bytes` left. The snapshot goes into [`Sent`]; `in_flight` is false for acknowledgements alone and
    /// for MTU probes.
    pub fn on_sent(&mut self, now: Instant, bytes: u64, in_flight: bool) -> Snapshot {
        let snapshot = self.sampler.on_sent(now, bytes, self.in_flight);
        if in_flight {
            self.controller.on_sent(now, bytes, self.in_flight, self.sampler.is_app_limited());
            self.in_flight += bytes;
        }
        self.pacer.on_sent(bytes);
        Snapshot { path: Some(self.number), ..snapshot }
    }

    /// A packet left to where this path does not lead (T-17.1). It has its snapshot, and no part in anything here.
    pub fn on_sent_elsewhere(&self) -> Snapshot {
        self.sampler.snapshot(self.in_flight)
    }

    /// There is nothing to send although [`permit`](Self::permit) would allow it, for whatever reason: no data, no
    /// credit, no room in [`Loss`](super::loss::Loss) (T-7.3). Without this call idle time looks like a slow path.
    pub fn on_app_limited(&mut self) {
        self.sampler.on_app_limited(self.in_flight);
    }

    /// A round-trip sample; `ack_delay` is the peer's, already capped (T-3.2).
    pub fn on_rtt(&mut self, sample: Duration, ack_delay: Duration) {
        self.rtt.on_sample(sample, ack_delay);
    }

    /// An acknowledgement was worked through: what it settled, and what it showed to be lost.
    pub fn on_acked<F>(&mut self, now: Instant, acked: &AckOutcome<F>, lost: &LossOutcome<F>) {
        let prior_in_flight = self.in_flight;
        for &(_, bytes) in &acked.spurious {
            self.sampler.on_spurious_loss(u64::from(bytes));
            self.controller.on_spurious_loss(now, u64::from(bytes));
        }
        self.on_lost(now, lost);
        let mut acked_bytes = 0;
        let mut newest: Option<&Sent<F>> = None;
        let mut oldest_sent = now;
        for (_, sent) in &acked.acked {
            if !self.is_counted(sent) {
                continue;
            }
            acked_bytes += u64::from(sent.bytes);
            self.sampler.on_acked(now, u64::from(sent.bytes), sent.time, &sent.snapshot);
            oldest_sent = oldest_sent.min(sent.time);
            if newest.is_none_or(|newest| newest.time <= sent.time) {
                newest = Some(sent);
            }
        }
        self.in_flight = self.in_flight.saturating_sub(acked_bytes);
        let Some(newest) = newest else { return };
        let rate = self.sampler.sample(now, self.rtt.min());
        let ack = AckSample {
            acked_bytes,
            lost_bytes: self.counted_bytes(&lost.lost),
            prior_in_flight,
            in_flight: self.in_flight,
            oldest_sent,
            largest_sent: newest.time,
            rtt: acked.rtt_sample,
            min_rtt: self.rtt.min(),
            smoothed_rtt: self.rtt.smoothed(),
            rate,
            newest: newest.snapshot,
            total_delivered: self.sampler.delivered(),
            total_lost: self.sampler.lost(),
            app_limited: newest.snapshot.app_limited,
        };
        self.controller.on_ack(now, &ack);
    }

    /// Packets were found lost by time alone.
    pub fn on_lost<F>(&mut self, now: Instant, outcome: &LossOutcome<F>) {
        let lost_bytes = self.counted_bytes(&outcome.lost);
        let Some((_, newest)) = outcome.lost.iter().rfind(|(_, sent)| self.is_counted(sent)) else {
            return;
        };
        self.in_flight = self.in_flight.saturating_sub(lost_bytes);
        self.sampler.on_lost(lost_bytes);
        let oldest = outcome.lost.iter().find(|(_, sent)| self.is_counted(sent));
        let loss = LossSample {
            lost_bytes,
            oldest_sent: oldest.map_or(newest.time, |(_, oldest)| oldest.time),
            largest_sent: newest.time,
            snapshot: newest.snapshot,
            in_flight: self.in_flight,
        };
        self.controller.on_loss(now, &loss);
        // A silence that began on another path is none of this one.
        if outcome.is_persistent && outcome.lost.iter().all(|(_, sent)| self.is_of(sent)) {
            self.controller.on_persistent_congestion(now);
        }
    }

    /// Packets were forgotten without an answer ([`Loss::discard`](super::loss::Loss::discard)).
    pub fn on_discarded<F>(&mut self, discarded: &[(u64, Sent<F>)]) {
        self.in_flight = self.in_flight.saturating_sub(self.counted_bytes(discarded));
    }

    /// Whether a packet has a part in what is in flight here.
    fn is_counted<F>(&self, sent: &Sent<F>) -> bool {
        sent.in_flight && self.is_of(sent)
    }

    fn counted_bytes<F>(&self, packets: &[(u64, Sent<F>)]) -> u64 {
        let counted = packets.iter().filter(|(_, sent)| self.is_counted(sent));
        counted.map(|(_, sent)| u64::from(sent.bytes)).sum()
    }
}
