//! What a server counts, for whoever watches it: sessions, refusals, requests, and the traffic of each carrier.
//!
//! Sessions count for themselves. A look adds what they have by now to what those had that are over, so the hot path pays
//! nothing for being watched. Neighbours: `server.rs` calls `Tally` where something happens, `metrics` shows
//! [`ServerStats`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Known, Shared};
use crate::access::Refusal;
use crate::connection::Connection;
use crate::endpoint::{Drops, Endpoint};

/// A server as it is seen by who watches it. It keeps none of its sessions.
#[derive(Clone)]
pub struct Watch {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) shared: Arc<Shared>,
}

/// Counts of a server since it began.
#[derive(Clone, Debug, Default)]
pub struct ServerStats {
    /// Who was sent away, by reason; all reasons there are.
    pub refused: Vec<(&'static str, u64)>,
    /// Requests by service, and those that named none that we have as `unknown`.
    pub requests: Vec<(&'static str, u64)>,
    /// Requests that ended without a whole answer.
    pub requests_failed: u64,
    /// By the carrier's scheme; one that nobody came by is absent.
    pub traffic: BTreeMap<&'static str, Traffic>,
    /// Round trips of the sessions that there are now.
    pub round_trip: Option<RoundTrip>,
    /// What the doors dropped.
    pub drops: Drops,
}

/// What crossed one carrier in sessions that were let in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Sessions that there are now.
    pub sessions: u64,
    /// Sessions that there were.
    pub sessions_ended: u64,
    /// Bytes sent, with our headers and tags.
    pub bytes_sent: u64,
    /// Bytes received, likewise.
    pub bytes_received: u64,
    /// What only a carrier of datagrams counts.
    pub packets: Option<Packets>,
}

/// Packets of a datagram carrier.
#[derive(Clone, Copy, Debug, Default)]
pub struct Packets {
    /// Packets sent.
    pub sent: u64,
    /// Packets received that opened.
    pub received: u64,
    /// Packets found lost.
    pub lost: u64,
    /// Bytes of them, which were sent again.
    pub bytes_resent: u64,
}

/// Round trips of all sessions at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundTrip {
    /// That of the nearest peer.
    pub smallest: Duration,
    /// Half of the peers are nearer.
    pub median: Duration,
    /// That of the farthest peer.
    pub largest: Duration,
}

impl Watch {
    /// Whether it has begun to go down.
    pub fn is_draining(&self) -> bool {
        self.shared.tally.is_draining.load(Ordering::Relaxed)
    }

    /// Counts by now.
    pub fn stats(&self) -> ServerStats {
        let tally = &self.shared.tally;
        let sessions = self.shared.sessions(); // held, so that none is counted twice or left out
        let mut traffic = tally.past().clone();
        let mut round_trips = Vec::with_capacity(sessions.len());
        for Known { connection, .. } in sessions.values() {
            let of_carrier = traffic.entry(connection.carrier()).or_default();
            of_carrier.sessions += 1;
            round_trips.extend(of_carrier.add(connection));
        }
        drop(sessions);
        let services = self.shared.services.iter().map(|service| service.name());
        let requests = services.chain(["unknown"]).zip(tally.requests.iter().map(read));
        ServerStats {
            refused: REASONS.into_iter().zip(tally.refused.iter().map(read)).collect(),
            requests: requests.collect(),
            requests_failed: read(&tally.requests_failed),
            traffic,
            round_trip: RoundTrip::of(&mut round_trips),
            drops: self.endpoint.drops(),
        }
    }
}

impl Traffic {
    /// Adds what a session has sent and received, and says its round trip where it has one.
    fn add(&mut self, connection: &Connection) -> Option<Duration> {
        let stats = connection.stats();
        self.bytes_sent += stats.bytes_sent;
        self.bytes_received += stats.bytes_received;
        if let Some(of_session) = stats.packets {
            let packets = self.packets.get_or_insert_default();
            packets.sent += of_session.packets_sent;
            packets.received += of_session.packets_received;
            packets.lost += of_session.packets_lost;
            packets.bytes_resent += of_session.bytes_lost;
        }
        stats.path.map(|path| path.rtt)
    }
}

impl RoundTrip {
    fn of(round_trips: &mut [Duration]) -> Option<Self> {
        round_trips.sort_unstable();
        let (smallest, largest) = (*round_trips.first()?, *round_trips.last()?);
        Some(Self { smallest, median: round_trips[round_trips.len() / 2], largest })
    }
}

/// Why peers are sent away, as metrics name it, in the order of [`Reason`].
const REASONS: [&str; 6] = ["unknown", "denied", "unanswered", "nameless", "busy", "draining"];

#[derive(Clone, Copy)]
pub(super) enum Reason {
    Unknown,
    Denied,
    Unanswered,
    Nameless,
    Busy,
    Draining,
}

impl From<&Refusal> for Reason {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Unknown(_) => Self::Unknown,
            Refusal::Denied(_) => Self::Denied,
            Refusal::Unanswered(_) => Self::Unanswered,
            Refusal::Nameless(_) => Self::Nameless,
        }
    }
}

/// What no session counts for itself.
pub(super) struct Tally {
    is_draining: AtomicBool,
    refused: [AtomicU64; REASONS.len()],
    requests: Vec<AtomicU64>, // of each service, and of none
    requests_failed: AtomicU64,
    past: Mutex<BTreeMap<&'static str, Traffic>>, // locked after the sessions
}

impl Tally {
    pub(super) fn new(services: usize) -> Self {
        Self {
            is_draining: AtomicBool::new(false),
            refused: Default::default(),
            requests: (0..=services).map(|_| AtomicU64::new(0)).collect(),
            requests_failed: AtomicU64::new(0),
            past: Mutex::default(),
        }
    }

    pub(super) fn on_draining(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    pub(super) fn on_refused(&self, why: Reason) {
        count(&self.refused[why as usize]);
    }

    /// `service` is its place among ours, or none.
    pub(super) fn on_request(&self, service: Option<usize>) {
        let last = self.requests.len() - 1;
        count(&self.requests[service.map_or(last, |place| place.min(last))]);
    }

    pub(super) fn on_request_failed(&self) {
        count(&self.requests_failed);
    }

    /// To be called with the lock of the sessions, when it leaves them.
    pub(super) fn on_ended(&self, connection: &Connection) {
        let mut past = self.past();
        let of_carrier = past.entry(connection.carrier()).or_default();
        of_carrier.sessions_ended += 1;
        of_carrier.add(connection);
    }

    fn past(&self) -> MutexGuard<'_, BTreeMap<&'static str, Traffic>> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_summary_names_the_nearest_the_middle_and_the_farthest() {
        let of = |all: &[u64]| {
            RoundTrip::of(&mut all.iter().copied().map(Duration::from_millis).collect::<Vec<_>>())
        };
        let told = |smallest, median, largest| {
            let [smallest, median, largest] =
                [smallest, median, largest].map(Duration::from_millis);
            Some(RoundTrip { smallest, median, largest })
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[7]), told(7, 7, 7));
        assert_eq!(of(&[9, 1, 80]), told(1, 9, 80));
    }
}
