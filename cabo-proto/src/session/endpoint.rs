//! The door of a datagram carrier: which connection a packet belongs to, and what strangers are told (S-3, S-4, S-5).
//!
//! A stranger costs no memory before it has opened a first packet, and little before it has proved its address. Packets
//! go to connections by id alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::{Config, PathLimits};
use super::crypto::{Crypto, CryptoError};
use super::packets::{FIRST_PACKET_BYTES, PacketConnection, Start, reset_token};
use super::remote::Remote;
use crate::Chance;
use crate::transport::flow::Budget;
use crate::wire::packet::{self, ConnectionId, Kind, Packet};

/// A cookie is good for this long (S-4.2).
const COOKIE_LIFE: Duration = Duration::from_secs(30);
/// The budget of a server that was told no other.
pub const BUDGET_BYTES: u64 = 512 << 20;
/// Resets that may be sent at once, and a second.
const RESETS_PER_SECOND: u32 = 100;

/// A connection, as the owner of the endpoint names it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct Handle(pub u64);

/// Settings of an endpoint.
#[derive(Clone)]
pub struct EndpointConfig {
    /// Of each connection.
    pub connection: Config,
    /// Of the carrier.
    pub limits: PathLimits,
    /// Whether strangers may start connections.
    pub is_listening: bool,
    /// Connections at most.
    pub connections_max: usize,
    /// Half-open connections at most (S-4.4).
    pub half_open_max: usize,
    /// Half-open connections of one source at most.
    pub half_open_per_source: usize,
    /// From so many half-open connections on, first packets are answered by a cookie (S-4.1).
    pub cookie_above: usize,
    /// Memory for receive windows beyond their first size, of all connections together; of other carriers' too, where
    /// their endpoints are given the same one (T-13.3).
    pub budget: Arc<Budget>,
    /// What tells this endpoint from others of the same identity (S-5.2).
    pub scope: Vec<u8>,
}

impl EndpointConfig {
    /// Sane settings for a carrier.
    pub fn new(connection: Config, limits: PathLimits, scope: Vec<u8>) -> Self {
        Self {
            connection,
            limits,
            is_listening: false,
            connections_max: 10_000,
            half_open_max: 1_000,
            half_open_per_source: 100,
            cookie_above: 64,
            budget: Budget::new(BUDGET_BYTES),
            scope,
        }
    }
}

/// Why a packet was dropped; each is counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub enum Dropped {
    /// It does not parse.
    Malformed,
    /// Nobody here has this id, and it starts nothing.
    UnknownId,
    /// A first packet that is too small, so that an answer would amplify (S-3.3).
    TooSmall,
    /// A first packet that does not open.
    Forged,
    /// A cookie that is not ours or too old.
    BadCookie,
    /// This endpoint takes no connections.
    NotListening,
    /// A limit of half-open or of all connections.
    Limit,
    /// The answer would exceed the rate of resets.
    ResetRate,
}

/// What is to be done with a datagram.
pub enum Routed {
    /// Give it to this connection.
    To(Handle, Packet),
    /// A new connection, which has taken the packet already.
    New(Handle, Box<PacketConnection>),
    /// Send this back to where it came from.
    Answer(Vec<u8>),
    /// A question or an answer about who serves here (W-8): for whoever does discovery.
    Discovery(Packet),
    /// Nothing.
    Dropped(Dropped),
}

struct Entry {
    local_id: ConnectionId,
    first_id: ConnectionId,
    peer_id: Option<ConnectionId>,
    source: Remote,
    is_half_open: bool,
}

/// See the module.
pub struct Endpoint {
    config: EndpointConfig,
    crypto: Arc<dyn Crypto>,
    chance: Box<dyn Chance>,
    started: Instant,
    next_handle: u64,
    entries: BTreeMap<Handle, Entry>,
    by_local: BTreeMap<ConnectionId, Handle>,
    by_first: BTreeMap<ConnectionId, Handle>,
    by_peer: BTreeMap<ConnectionId, Handle>,
    half_open: usize,
    half_open_by_source: BTreeMap<Remote, usize>,
    resets_left: u32,
    resets_at: Instant,
    dropped: BTreeMap<Dropped, u64>,
    is_draining: bool,
}

impl Endpoint {
    /// An endpoint without connections.
    pub fn new(
        now: Instant,
        config: EndpointConfig,
        crypto: Arc<dyn Crypto>,
        chance: Box<dyn Chance>,
    ) -> Self {
        Self {
            config,
            crypto,
            chance,
            started: now,
            next_handle: 0,
            entries: BTreeMap::new(),
            by_local: BTreeMap::new(),
            by_first: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            half_open: 0,
            half_open_by_source: BTreeMap::new(),
            resets_left: RESETS_PER_SECOND,
            resets_at: now,
            dropped: BTreeMap::new(),
            is_draining: false,
        }
    }

    /// Starts a connection to `remote`; `crypto` may expect a certain peer.
    pub fn connect(
        &mut self,
        now: Instant,
        remote: Remote,
        crypto: &dyn Crypto,
    ) -> Result<(Handle, PacketConnection), CryptoError> {
        let (local_id, first_id) = (self.fresh_id(), self.random_id());
        let start = self.start(crypto, local_id, first_id, remote);
        let connection = PacketConnection::client(now, start)?;
        let handle = self.insert(local_id, first_id, remote, false);
        Ok((handle, connection))
    }

    fn start<'a>(
        &'a self,
        crypto: &'a dyn Crypto,
        local_id: ConnectionId,
        first_id: ConnectionId,
        remote: Remote,
    ) -> Start<'a> {
        Start {
            config: self.config.connection.clone(),
            crypto,
            local_id,
            first_id,
            remote,
            limits: self.config.limits,
            budget: self.config.budget.clone(),
            scope: &self.config.scope,
        }
    }

    fn random_id(&mut self) -> ConnectionId {
        let mut id = [0; 8];
        self.chance.fill(&mut id);
        ConnectionId(id)
    }

    fn fresh_id(&mut self) -> ConnectionId {
        loop {
            let id = self.random_id();
            if id != ConnectionId::ZERO
                && !self.by_local.contains_key(&id)
                && !self.by_first.contains_key(&id)
            {
                return id;
            }
        }
    }

    fn insert(
        &mut self,
        local_id: ConnectionId,
        first_id: ConnectionId,
        source: Remote,
        is_half_open: bool,
    ) -> Handle {
        let handle = Handle(self.next_handle);
        self.next_handle += 1;
        self.by_local.insert(local_id, handle);
        if is_half_open {
            self.by_first.insert(first_id, handle);
            self.half_open += 1;
            *self.half_open_by_source.entry(source).or_default() += 1;
        } else {
            // A client's own made-up id: a version answer, a cookie or a reset may name it.
            self.by_peer.insert(first_id, handle);
        }
        self.entries
            .insert(handle, Entry { local_id, first_id, peer_id: None, source, is_half_open });
        handle
    }

    /// Finds out what is to be done with a datagram from `from`. `source` is `from` without its port, for the limits.
    pub fn route(
        &mut self,
        now: Instant,
        from: Remote,
        source: Remote,
        datagram: &mut [u8],
    ) -> Routed {
        let Ok(packet) = packet::parse(datagram) else { return self.drop(Dropped::Malformed) };
        match &packet.kind {
            Kind::Discover { .. } | Kind::Here { .. } => return Routed::Discovery(packet),
            Kind::Reset { .. } => {
                return match self.by_peer.get(&packet.receiver) {
                    Some(handle) => Routed::To(*handle, packet),
                    None => self.drop(Dropped::UnknownId),
                };
            }
            Kind::UnknownVersion { sender } => {
                return self.answer_version(&packet, *sender, datagram.len());
            }
            Kind::Initial { .. }
            | Kind::Handshake { .. }
            | Kind::Data { .. }
            | Kind::Cookie { .. }
            | Kind::VersionAnswer { .. } => {}
        }
        if let Some(handle) = self.by_local.get(&packet.receiver) {
            return Routed::To(*handle, packet);
        }
        match &packet.kind {
            &Kind::Initial { sender, .. } => match self.by_first.get(&packet.receiver) {
                Some(handle) => Routed::To(*handle, packet),
                None => self.on_stranger(now, from, source, packet, sender, datagram),
            },
            Kind::Data { .. } => self.answer_reset(now, &packet),
            Kind::Handshake { .. }
            | Kind::Cookie { .. }
            | Kind::VersionAnswer { .. }
            | Kind::Discover { .. }
            | Kind::Here { .. }
            | Kind::Reset { .. }
            | Kind::UnknownVersion { .. } => self.drop(Dropped::UnknownId),
        }
    }

    /// W-2.8: which versions we speak, in no more bytes than we were asked with.
    fn answer_version(
        &mut self,
        packet: &Packet,
        sender: Option<ConnectionId>,
        asked_bytes: usize,
    ) -> Routed {
        let Some(sender) = sender.filter(|_| self.config.is_listening) else {
            return self.drop(Dropped::UnknownId);
        };
        let answer =
            packet::version_answer(sender, packet.receiver, &[self.config.connection.version()]);
        if answer.len() > asked_bytes {
            return self.drop(Dropped::TooSmall);
        }
        Routed::Answer(answer)
    }

    /// S-5.1: we do not know this connection (any more), and say so in fewer bytes than we got.
    fn answer_reset(&mut self, now: Instant, packet: &Packet) -> Routed {
        if now.saturating_duration_since(self.resets_at) >= Duration::from_secs(1) {
            (self.resets_at, self.resets_left) = (now, RESETS_PER_SECOND);
        }
        let answer = packet::reset_packet(
            packet.version,
            packet.receiver,
            reset_token(&*self.crypto, &self.config.scope, packet.receiver),
        );
        if answer.len() >= packet.length || !self.config.is_listening {
            return self.drop(Dropped::UnknownId);
        }
        if self.resets_left == 0 {
            return self.drop(Dropped::ResetRate);
        }
        self.resets_left -= 1;
        Routed::Answer(answer)
    }

    fn on_stranger(
        &mut self,
        now: Instant,
        from: Remote,
        source: Remote,
        packet: Packet,
        sender: ConnectionId,
        datagram: &mut [u8],
    ) -> Routed {
        if !self.config.is_listening || self.is_draining {
            return self.drop(Dropped::NotListening);
        }
        if packet.version != self.config.connection.version() {
            return self.answer_version(&packet, Some(sender), datagram.len());
        }
        if datagram.len() < FIRST_PACKET_BYTES {
            return self.drop(Dropped::TooSmall);
        }
        let Kind::Initial { cookie, .. } = &packet.kind else {
            return self.drop(Dropped::UnknownId);
        };
        let cookie = datagram.get(cookie.clone()).unwrap_or_default();
        let is_proved = !cookie.is_empty();
        if is_proved && !self.is_cookie_good(now, from, &packet, sender, cookie) {
            return self.drop(Dropped::BadCookie);
        }
        if !is_proved && self.half_open >= self.config.cookie_above {
            let cookie = self.cookie(now, from, &packet, sender);
            return Routed::Answer(packet::cookie_packet(
                packet.version,
                sender,
                packet.receiver,
                &cookie,
            ));
        }
        let of_source = self.half_open_by_source.get(&source).copied().unwrap_or(0);
        if self.half_open >= self.config.half_open_max
            || of_source >= self.config.half_open_per_source
            || self.entries.len() >= self.config.connections_max
        {
            return self.drop(Dropped::Limit);
        }
        self.accept(now, from, source, &packet, sender, is_proved, datagram)
    }

    #[allow(clippy::too_many_arguments, reason = "the facts of one first packet, used here alone")]
    fn accept(
        &mut self,
        now: Instant,
        from: Remote,
        source: Remote,
        packet: &Packet,
        sender: ConnectionId,
        is_proved: bool,
        datagram: &mut [u8],
    ) -> Routed {
        let local_id = self.fresh_id();
        let crypto = self.crypto.clone();
        let start = self.start(&*crypto, local_id, packet.receiver, from);
        let Ok(mut connection) = PacketConnection::server(now, start, sender, is_proved) else {
            return self.drop(Dropped::Limit);
        };
        connection.handle_packet(now, from, packet, datagram, &mut *self.chance);
        if connection.stats().packets_received == 0 {
            return self.drop(Dropped::Forged);
        }
        let handle = self.insert(local_id, packet.receiver, source, true);
        Routed::New(handle, Box::new(connection))
    }

    /// S-4.2: time and a keyed hash over who asked.
    fn cookie(&self, now: Instant, from: Remote, packet: &Packet, sender: ConnectionId) -> Vec<u8> {
        let seconds = now.saturating_duration_since(self.started).as_secs();
        let data = cookie_data(seconds, from, packet.receiver, sender);
        [&seconds.to_be_bytes()[..], &self.crypto.mac(b"cookie", &data)].concat()
    }

    fn is_cookie_good(
        &self,
        now: Instant,
        from: Remote,
        packet: &Packet,
        sender: ConnectionId,
        cookie: &[u8],
    ) -> bool {
        let Some((seconds, tag)) = cookie.split_first_chunk::<8>() else { return false };
        let seconds = u64::from_be_bytes(*seconds);
        let age = now.saturating_duration_since(self.started).as_secs().checked_sub(seconds);
        let data = cookie_data(seconds, from, packet.receiver, sender);
        age.is_some_and(|age| age <= COOKIE_LIFE.as_secs())
            && self.crypto.mac_matches(b"cookie", &data, tag)
    }

    fn drop(&mut self, why: Dropped) -> Routed {
        *self.dropped.entry(why).or_default() += 1;
        Routed::Dropped(why)
    }

    /// The handshake of a connection is done: it no longer counts as half-open, and resets of its peer are heard.
    pub fn on_handshaken(&mut self, handle: Handle, peer_id: ConnectionId) {
        let Some(entry) = self.entries.get_mut(&handle) else { return };
        entry.peer_id = Some(peer_id);
        self.by_peer.entry(peer_id).or_insert(handle); // the peer chose it; it takes nobody else's place
        if std::mem::take(&mut entry.is_half_open) {
            let source = entry.source;
            self.release_half_open(source);
        }
    }

    fn release_half_open(&mut self, source: Remote) {
        self.half_open = self.half_open.saturating_sub(1);
        if let Some(count) = self.half_open_by_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.half_open_by_source.remove(&source);
            }
        }
    }

    /// Forgets a connection that is gone.
    pub fn remove(&mut self, handle: Handle) {
        let Some(entry) = self.entries.remove(&handle) else { return };
        self.by_local.remove(&entry.local_id);
        for (map, id) in
            [(&mut self.by_first, Some(entry.first_id)), (&mut self.by_peer, Some(entry.first_id))]
        {
            if let Some(id) = id.filter(|id| map.get(id) == Some(&handle)) {
                map.remove(&id);
            }
        }
        if let Some(id) = entry.peer_id.filter(|id| self.by_peer.get(id) == Some(&handle)) {
            self.by_peer.remove(&id);
        }
        if entry.is_half_open {
            self.release_half_open(entry.source);
        }
    }

    /// What connections draw their questions from ([`PacketConnection::handle_packet`]).
    pub fn chance(&mut self) -> &mut dyn Chance {
        &mut *self.chance
    }

    /// Takes no more connections.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// How many packets were dropped, by reason.
    pub fn dropped(&self) -> &BTreeMap<Dropped, u64> {
        &self.dropped
    }

    /// How many connections there are, and how many of them are half-open.
    pub fn counts(&self) -> (usize, usize) {
        (self.entries.len(), self.half_open)
    }
}

fn cookie_data(
    seconds: u64,
    from: Remote,
    first_id: ConnectionId,
    sender: ConnectionId,
) -> Vec<u8> {
    [&seconds.to_be_bytes()[..], from.as_bytes(), &first_id.0, &sender.0].concat()
}
