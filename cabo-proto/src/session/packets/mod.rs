//! A connection over a carrier that promises nothing: packets, their numbers, and what became of each (S-3, T-1..T-15).
//!
//! # The drain rule
//!
//! Everything goes through four kinds of calls. *Inputs*: [`PacketConnection::handle_packet`],
//! [`PacketConnection::handle_timeout`] and the calls on streams. After any of them, ask the *outputs* until they have
//! nothing: [`PacketConnection::poll_transmit`] for packets, [`PacketConnection::poll_event`] for events, and last
//! [`PacketConnection::deadline`] for the time at which to call `handle_timeout`. The rest are *questions*, which
//! change nothing.
//!
//! `input` takes packets apart, `output` puts them together, `timer` holds what time brings, `roam` follows the peer.

mod input;
mod output;
mod roam;
mod timer;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::config::{Config, Ended, PathLimits};
use super::core::{Core, Event, Part, close_frame};
use super::crypto::{Crypto, CryptoError, Keys, PublicKey, Side, Space};
use super::phase::PhaseKeys;
use super::remote::Remote;
use crate::transport::ack::AckTracker;
use crate::transport::flow::Budget;
use crate::transport::idle::Idle;
use crate::transport::loss::Loss;
use crate::transport::mtu::Mtu;
use crate::transport::path::Path;
use crate::transport::streams::Streams;
use crate::wire::packet::ConnectionId;
use crate::wire::params::Params;

pub use self::output::Batch;
use self::roam::Roam;

/// The smallest datagram that opens a connection: an answer three times as long holds a server's first flight (S-3.3).
pub const FIRST_PACKET_BYTES: usize = 1200;

/// What one packet carried. Nearly all carry one part.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    first: Option<Part>,
    more: Vec<Part>,
}

impl Parts {
    fn push(&mut self, part: Part) {
        if self.first.is_none() {
            self.first = Some(part);
        } else {
            self.more.push(part);
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Part> {
        self.first.iter().chain(&self.more)
    }
}

/// One packet-number space.
struct PacketSpace {
    keys: Option<Keys>, // Initial and Handshake only; Data has `PhaseKeys`
    loss: Loss<Parts>,
    acks: AckTracker,
    probes: u8, // packets that may leave past the window (T-5.3)
    is_ping_wanted: bool,
    silent_acks: u32, // packets with nothing but an ACK since the last that asked for one
}

impl PacketSpace {
    fn new(acks: AckTracker) -> Self {
        let loss = Loss::new();
        Self { keys: None, loss, acks, probes: 0, is_ping_wanted: false, silent_acks: 0 }
    }
}

/// How far the end has come (S-8).
enum State {
    Open,
    Closing { until: Instant, owed: Vec<Space>, heard: u32, answer_at: u32 },
    Draining { until: Instant },
    Gone,
}

/// Counts of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Packets sent.
    pub packets_sent: u64,
    /// Bytes of them, without what the carrier adds.
    pub bytes_sent: u64,
    /// Packets received that opened.
    pub packets_received: u64,
    /// Bytes of them.
    pub bytes_received: u64,
    /// Packets found lost.
    pub packets_lost: u64,
    /// Bytes of them, which is what was sent again.
    pub bytes_lost: u64,
    /// Packets received twice.
    pub packets_duplicate: u64,
    /// Packets that did not open.
    pub packets_forged: u64,
    /// Probe timeouts.
    pub probe_timeouts: u64,
    /// Keys updated.
    pub key_updates: u64,
    /// Times that the peer was followed to another address (S-10).
    pub moves: u64,
    /// Times that it was heard from one that did not prove to be its own.
    pub moves_failed: u64,
    /// Datagrams dropped because their deadline had passed.
    pub datagrams_late: u64,
    /// Datagrams dropped because a queue was full.
    pub datagrams_dropped: u64,
}

/// What the path looks like now.
#[derive(Clone, Copy, Debug)]
pub struct PathState {
    /// Smoothed round trip.
    pub rtt: Duration,
    /// Lowest round trip.
    pub rtt_min: Duration,
    /// Congestion window, bytes.
    pub window_bytes: u64,
    /// Bytes in flight.
    pub in_flight_bytes: u64,
    /// Pacing, bytes a second.
    pub pacing_rate: Option<u64>,
    /// The largest packet sent.
    pub mtu_bytes: usize,
    /// The congestion controller's name.
    pub controller: &'static str,
}

/// One connection over packets. See the module for the order of calls.
pub struct PacketConnection {
    pub(super) core: Core,
    local_id: ConnectionId,
    peer_id: ConnectionId, // the first id until the server has answered
    first_id: ConnectionId,
    is_peer_id_known: bool,
    remote: Remote,
    cookie: Vec<u8>,
    is_cookie_used: bool,
    spaces: [PacketSpace; 3],
    phase: Option<PhaseKeys>,
    path: Path,
    mtu: Mtu,
    idle: Idle,
    is_address_proved: bool,
    unproved_received: u64,
    unproved_sent: u64,
    responses: VecDeque<([u8; 8], Remote)>, // with where the challenge came from
    limits: PathLimits,
    roam: Roam,
    started: Instant,
    paced_until: Option<Instant>,
    state: State,
    ended: Option<Ended>,
    stats: Stats,
}

/// S-5.2: the token by which the peer knows that a reset is ours.
pub(super) fn reset_token(crypto: &dyn Crypto, scope: &[u8], id: ConnectionId) -> [u8; 16] {
    crypto.mac(b"reset", &[id.0.as_slice(), scope].concat())
}

/// What a connection is made of.
pub struct Start<'a> {
    /// Settings.
    pub config: Config,
    /// The endpoint's crypto.
    pub crypto: &'a dyn Crypto,
    /// Our id: random.
    pub local_id: ConnectionId,
    /// The client's made-up id of the server: random; on the server what the client sent to.
    pub first_id: ConnectionId,
    /// Where the peer is at first.
    pub remote: Remote,
    /// What the carrier can do.
    pub limits: PathLimits,
    /// Shared receive budget.
    pub budget: Arc<Budget>,
    /// What tells this endpoint from others of the same identity (S-5.2).
    pub scope: &'a [u8],
}

impl PacketConnection {
    /// The client's end of a new connection. Packets are ready at once.
    pub fn client(now: Instant, start: Start<'_>) -> Result<Self, CryptoError> {
        let mut connection = Self::new(now, Side::Client, start, None)?;
        connection.is_address_proved = true;
        connection.advance_handshake();
        Ok(connection)
    }

    /// The server's end, for a first packet from `peer_id`. `is_address_proved` where a cookie has shown it (S-4).
    pub fn server(
        now: Instant,
        start: Start<'_>,
        peer_id: ConnectionId,
        is_address_proved: bool,
    ) -> Result<Self, CryptoError> {
        let mut connection = Self::new(now, Side::Server, start, Some(peer_id))?;
        connection.is_address_proved = is_address_proved;
        if !is_address_proved {
            connection.core.hold_back();
        }
        Ok(connection)
    }

    fn new(
        now: Instant,
        side: Side,
        start: Start<'_>,
        peer_id: Option<ConnectionId>,
    ) -> Result<Self, CryptoError> {
        let Start { config, crypto, local_id, first_id, remote, limits, budget, scope } = start;
        let params = Params {
            largest_packet: limits.largest_packet_bytes as u64,
            burst: limits.burst_bytes,
            reset_token: Some(reset_token(crypto, scope, local_id)),
            own_id: Some(local_id),
            first_id: (side == Side::Server).then_some(first_id),
            ..Core::params(&config)
        };
        let mtu = Mtu::new(limits.largest_packet_bytes, limits.overhead_bytes);
        let path = Path::new(now, config.congestion, mtu.current() as u64);
        let idle = Idle::new(now, config.idle_timeout, config.keep_alive);
        let mut initial = PacketSpace::new(AckTracker::immediate());
        initial.keys = Some(crypto.initial_keys(side, first_id));
        let handshake = PacketSpace::new(AckTracker::immediate());
        Ok(Self {
            core: Core::new(side, config, &params, crypto, budget)?,
            local_id,
            peer_id: peer_id.unwrap_or(first_id),
            first_id,
            is_peer_id_known: peer_id.is_some(),
            remote,
            cookie: Vec::new(),
            is_cookie_used: false,
            spaces: [initial, handshake, PacketSpace::new(AckTracker::new())],
            phase: None,
            path,
            mtu,
            idle,
            is_address_proved: false,
            unproved_received: 0,
            unproved_sent: 0,
            responses: VecDeque::new(),
            limits,
            roam: Roam::new(remote),
            started: now,
            paced_until: None,
            state: State::Open,
            ended: None,
            stats: Stats::default(),
        })
    }

    /// Moves handshake bytes between the handshake and the spaces, and keys to where they are used.
    fn advance_handshake(&mut self) {
        let mut installed = Vec::new();
        self.core.write_handshake(&mut |space, keys| installed.push((space, keys)));
        for (space, keys) in installed {
            match space {
                Space::Data => {
                    let after = self.core.config.key_update_after;
                    self.phase = Some(PhaseKeys::new(keys, self.core.handshake_mut(), after));
                }
                Space::Initial | Space::Handshake => self.spaces[space as usize].keys = Some(keys),
            }
        }
        match self.core.check_handshake() {
            Ok(Some(params)) => self.on_params(&params),
            Ok(None) => {}
            Err(ended) => self.end(ended),
        }
    }

    /// Takes the peer's parameters, after checking that nobody changed the ids on the way (W-5.2).
    fn on_params(&mut self, params: &Params) {
        let is_first_id_right =
            self.core.side == Side::Server || params.first_id == Some(self.first_id);
        if params.own_id != Some(self.peer_id) || !is_first_id_right {
            let what = "the ids in the handshake are not those of the packets".to_owned();
            return self.end(Ended::Breach { code: crate::wire::code::Code::PARAMETER, what });
        }
        self.mtu.on_peer_limit(usize::try_from(params.largest_packet).unwrap_or(usize::MAX));
        self.path.on_peer_burst(params.burst);
        self.path.on_mtu(self.mtu.current() as u64);
        self.idle.on_peer_timeout(params.idle_timeout);
    }

    // --- the application's side -------------------------------------------------------------------------------------

    /// The table of streams, to be read from and written to at `now`.
    pub fn streams(&mut self) -> &mut Streams {
        &mut self.core.streams
    }

    /// Queues a datagram that is worth nothing after `deadline`.
    pub fn send_datagram(&mut self, data: Bytes, deadline: Option<Instant>) {
        self.core.send_datagram(data, deadline);
    }

    /// The largest datagram that one packet holds now, and that the peer takes.
    pub fn largest_datagram(&self) -> usize {
        let room = self.mtu.current().saturating_sub(crate::wire::packet::SHORT_HEADER + 16 + 5);
        let peer = self.core.peer().map_or(0, |peer| peer.largest_datagram);
        room.min(usize::try_from(peer).unwrap_or(usize::MAX))
    }

    /// Lets the peer in (server, after [`Event::Handshaken`]).
    pub fn admit(&mut self) {
        self.core.admit();
    }

    /// Ends the connection and tells the peer why.
    pub fn close(&mut self, now: Instant, ended: Ended) {
        if matches!(self.state, State::Open) {
            let until = now + self.drain_time();
            self.state = match close_frame(&ended) {
                Some(_) => {
                    State::Closing { until, owed: self.closing_spaces(), heard: 0, answer_at: 1 }
                }
                None => State::Draining { until },
            };
            self.core.push_event(Event::Ended(ended.clone()));
            self.ended = Some(ended);
        }
    }

    /// Ends the connection for a reason found inside; the state follows in [`settle_end`](Self::settle_end).
    fn end(&mut self, ended: Ended) {
        if self.ended.is_none() && matches!(self.state, State::Open) {
            self.ended = Some(ended);
        }
    }

    /// Turns an end that was found inside into the state that follows from it.
    fn settle_end(&mut self, now: Instant) {
        if matches!(self.state, State::Open)
            && let Some(ended) = self.ended.take()
        {
            self.close(now, ended);
        }
    }

    fn drain_time(&self) -> Duration {
        3 * self.path.rtt().pto_base().min(Duration::from_secs(2))
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.core.poll_event()
    }

    // --- questions --------------------------------------------------------------------------------------------------

    /// The id under which packets come to us.
    pub fn local_id(&self) -> ConnectionId {
        self.local_id
    }

    /// The id to which we send.
    pub fn peer_id(&self) -> ConnectionId {
        self.peer_id
    }

    /// The id to which the client sent first.
    pub fn first_id(&self) -> ConnectionId {
        self.first_id
    }

    /// Where the peer is now (S-10).
    pub fn remote(&self) -> Remote {
        self.remote
    }

    /// The peer's proved identity.
    pub fn peer_key(&self) -> Option<PublicKey> {
        self.core.peer_key()
    }

    /// The peer's parameters, once known.
    pub fn peer_params(&self) -> Option<&Params> {
        self.core.peer()
    }

    /// True once the handshake is done.
    pub fn is_handshaken(&self) -> bool {
        self.core.is_handshaken()
    }

    /// True once the server let the client in, and the client knows.
    pub fn is_admitted(&self) -> bool {
        self.core.is_admitted()
    }

    /// The smoothed round trip.
    pub fn rtt(&self) -> Duration {
        self.path.rtt().smoothed()
    }

    /// True when it can be forgotten: over, and no packet of it is expected any more.
    pub fn is_gone(&self) -> bool {
        matches!(self.state, State::Gone)
    }

    /// True while it is open.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Counts so far.
    pub fn stats(&self) -> Stats {
        Stats {
            datagrams_late: self.core.datagrams_late,
            datagrams_dropped: self.core.datagrams_dropped,
            ..self.stats
        }
    }

    /// The path now.
    pub fn path_state(&self) -> PathState {
        PathState {
            rtt: self.path.rtt().smoothed(),
            rtt_min: self.path.rtt().min(),
            window_bytes: self.path.controller().window(),
            in_flight_bytes: self.path.in_flight(),
            pacing_rate: self.path.controller().pacing_rate(),
            mtu_bytes: self.mtu.current(),
            controller: self.path.controller().name(),
        }
    }
}
