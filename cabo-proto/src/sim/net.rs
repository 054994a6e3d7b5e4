//! Two hosts and a cable, in virtual time.
//!
//! Host 0 connects, host 1 listens. Each step takes the earliest thing that is due anywhere: a packet that arrives or a
//! timer. Nothing sleeps; a day of silence is one step. Hosts that keep each other busy without any time passing are a
//! fault: the net panics and names its seed. A host may change its address; what goes to one that nobody has is counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::link::{Link, LinkConfig};
use super::{Seeded, origin};
use crate::session::config::{Config, PathLimits};
use crate::session::core::Event;
use crate::session::crypto::Crypto;
use crate::session::endpoint::{Endpoint, EndpointConfig, Handle, Routed};
use crate::session::packets::PacketConnection;
use crate::session::remote::Remote;

/// Packets of one call of the simulated carrier.
const BATCH_PACKETS: usize = 32;
/// Steps and calls for packets at one instant that an honest exchange, even over a cable without delay, never needs.
const STEPS_AT_ONCE_MAX: u32 = 200_000;

/// Sees each packet that a host puts on the cable, by the index of the host; it may change it, and `false` loses it.
pub type Filter = Box<dyn FnMut(usize, &mut Vec<u8>) -> bool>;

/// What is on the cable.
#[derive(Clone, Debug)]
pub struct Datagram {
    from: Remote,
    to: Remote,
    bytes: Vec<u8>,
}

impl AsRef<[u8]> for Datagram {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsMut<[u8]> for Datagram {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// One host: its door, its connections, and what happened on them.
pub struct Host {
    /// The door.
    pub endpoint: Endpoint,
    /// Its connections.
    pub connections: BTreeMap<Handle, PacketConnection>,
    /// Events that nobody took yet.
    pub events: Vec<(Handle, Event)>,
    /// Whether a listening host lets everybody in at once.
    pub is_admitting: bool,
    crypto: Arc<dyn Crypto>,
    addresses: Vec<Remote>, // all that lead to it
    sources: Vec<Remote>,   // written on what it sends, each in turn
    sent: usize,
}

/// Two hosts and a cable.
pub struct Net {
    /// Virtual time.
    pub now: Instant,
    /// Host 0 connects, host 1 listens.
    pub hosts: [Host; 2],
    /// From host 0 to host 1, and back.
    pub links: [Link<Datagram>; 2],
    /// Packets and their bytes that came to addresses that nobody has.
    pub astray: BTreeMap<Remote, (u64, u64)>,
    /// Stands between the hosts and the cable.
    pub filter: Option<Filter>,
    started: Instant,
    seed: u64,
    steps: (Instant, u32), // how many at this instant
    chance: fastrand::Rng,
}

/// What both hosts and the cable are like.
pub struct NetConfig {
    /// Of the connections.
    pub connection: Config,
    /// Of the carrier.
    pub limits: PathLimits,
    /// Of each direction.
    pub links: [LinkConfig; 2],
    /// Of everything.
    pub seed: u64,
}

impl NetConfig {
    /// An Ethernet cable without faults, alike both ways.
    pub fn new(seed: u64, link: LinkConfig) -> Self {
        let limits =
            PathLimits { largest_packet_bytes: 1496, overhead_bytes: 4, burst_bytes: 1 << 20 };
        Self { connection: Config::default(), limits, links: [link.clone(), link], seed }
    }
}

impl Net {
    /// Builds the net; `crypto` is for host 0 and host 1.
    pub fn new(config: NetConfig, crypto: [Arc<dyn Crypto>; 2]) -> Self {
        let now = origin();
        let NetConfig { connection, limits, links, seed } = config;
        let host = |index: u8, crypto: Arc<dyn Crypto>| {
            let mut endpoint = EndpointConfig::new(connection.clone(), limits, vec![index]);
            endpoint.is_listening = index == 1;
            let chance = Box::new(Seeded::new(seed.wrapping_mul(2) + u64::from(index)));
            Host {
                endpoint: Endpoint::new(now, endpoint, crypto.clone(), chance),
                connections: BTreeMap::new(),
                events: Vec::new(),
                is_admitting: true,
                crypto,
                addresses: vec![remote(index)],
                sources: vec![remote(index)],
                sent: 0,
            }
        };
        let [client, server] = crypto;
        let [forward, backward] = links;
        Self {
            now,
            hosts: [host(0, client), host(1, server)],
            links: [Link::new(forward, seed), Link::new(backward, !seed)],
            astray: BTreeMap::new(),
            filter: None,
            started: now,
            seed,
            steps: (now, 0),
            chance: fastrand::Rng::with_seed(seed),
        }
    }

    /// Virtual time since the start.
    pub fn elapsed(&self) -> Duration {
        self.now.saturating_duration_since(self.started)
    }

    /// Starts a connection from host 0 to host 1.
    pub fn connect(&mut self) -> Option<Handle> {
        let to = self.hosts[1].address();
        let host = &mut self.hosts[0];
        let (handle, connection) = host.endpoint.connect(self.now, to, &*host.crypto).ok()?;
        host.connections.insert(handle, connection);
        Some(handle)
    }

    /// Puts a datagram on the cable as if `from` had sent it.
    pub fn inject(&mut self, from: usize, datagram: Vec<u8>) {
        self.inject_as(from, self.hosts[from].address(), datagram);
    }

    /// The same with another address written on it.
    pub fn inject_as(&mut self, from: usize, address: Remote, bytes: Vec<u8>) {
        let to = self.hosts[1 - from].address();
        let _ = self.links[from].send(self.now, Datagram { from: address, to, bytes });
    }

    /// Runs until `is_done` or until `limit` of virtual time has passed; true if done.
    pub fn run(&mut self, limit: Duration, mut is_done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            self.transmit();
            if is_done(self) {
                return true;
            }
            self.transmit();
            let Some(next) = self.next_instant().filter(|next| *next <= end) else {
                self.now = end;
                return is_done(self);
            };
            self.now = self.now.max(next);
            self.count_step();
            self.deliver();
            self.handle_timeouts();
        }
    }

    fn count_step(&mut self) {
        if self.steps.0 != self.now {
            self.steps = (self.now, 0);
        }
        self.steps.1 += 1;
        let (seed, at) = (self.seed, self.elapsed());
        assert!(
            self.steps.1 < STEPS_AT_ONCE_MAX,
            "livelock {at:?} after the start; replay with ./dev sim {seed}"
        );
    }

    fn next_instant(&self) -> Option<Instant> {
        let links = self.links.iter().filter_map(Link::next_deadline);
        let timers = self
            .hosts
            .iter()
            .flat_map(|host| host.connections.values())
            .filter_map(PacketConnection::deadline);
        links.chain(timers).min()
    }

    fn transmit(&mut self) {
        let mut out = Vec::new();
        for (from, host) in self.hosts.iter_mut().enumerate() {
            // Nobody is always first: where the cable's queue is full, that one would get all of it.
            let turn = self.chance.usize(..host.connections.len().max(1));
            let (early, late): (Vec<_>, Vec<_>) =
                host.connections.values_mut().enumerate().partition(|(index, _)| *index < turn);
            for (_, connection) in late.into_iter().chain(early) {
                out.clear();
                let mut calls = 0;
                while let Some(batch) = connection.poll_transmit(self.now, &mut out, BATCH_PACKETS)
                {
                    for packet in out.chunks(batch.segment_bytes) {
                        host.sent += 1;
                        let source = host.sources[host.sent % host.sources.len()];
                        let datagram =
                            Datagram { from: source, to: batch.to, bytes: packet.to_vec() };
                        put(self.now, &mut self.links[from], &mut self.filter, from, datagram);
                    }
                    out.clear();
                    calls += 1;
                    assert!(
                        calls < STEPS_AT_ONCE_MAX,
                        "no end of packets; replay with ./dev sim {}",
                        self.seed
                    );
                }
            }
        }
    }

    fn deliver(&mut self) {
        for from in 0..2 {
            while let Some(datagram) = self.links[from].poll(self.now) {
                self.receive(1 - from, datagram);
            }
        }
        for host in &mut self.hosts {
            host.collect();
        }
    }

    fn receive(&mut self, to: usize, datagram: Datagram) {
        let now = self.now;
        let Datagram { from, to: address, mut bytes } = datagram;
        let host = &mut self.hosts[to];
        if !host.addresses.contains(&address) {
            let (packets, total) = self.astray.entry(address).or_default();
            *packets += 1;
            *total += bytes.len() as u64;
            return;
        }
        let source = Remote::new(from.host()).unwrap_or(from);
        match host.endpoint.route(now, from, source, &mut bytes) {
            Routed::To(handle, packet) => {
                if let Some(connection) = host.connections.get_mut(&handle) {
                    let chance = host.endpoint.chance();
                    connection.handle_packet(now, from, &packet, &mut bytes, chance);
                }
            }
            Routed::New(handle, connection) => {
                host.connections.insert(handle, *connection);
            }
            Routed::Answer(answer) => {
                let answer = Datagram { from: address, to: from, bytes: answer };
                put(now, &mut self.links[to], &mut self.filter, to, answer);
            }
            Routed::Discovery(_) | Routed::Dropped(_) => {}
        }
    }

    fn handle_timeouts(&mut self) {
        let now = self.now;
        for host in &mut self.hosts {
            for connection in host.connections.values_mut() {
                if connection.deadline().is_some_and(|deadline| deadline <= now) {
                    connection.handle_timeout(now);
                }
            }
            host.collect();
        }
    }
}

impl Host {
    /// Takes the events of its connections and forgets those that are gone.
    fn collect(&mut self) {
        for (handle, connection) in &mut self.connections {
            while let Some(event) = connection.poll_event() {
                if event == Event::Handshaken {
                    self.endpoint.on_handshaken(*handle, connection.peer_id());
                    if self.is_admitting {
                        connection.admit();
                    }
                }
                self.events.push((*handle, event));
            }
        }
        let gone: Vec<Handle> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.is_gone())
            .map(|(handle, _)| *handle)
            .collect();
        for handle in gone {
            self.endpoint.remove(handle);
            self.connections.remove(&handle);
        }
    }

    /// The first of its addresses.
    pub fn address(&self) -> Remote {
        self.addresses[0]
    }

    /// From now on it has these addresses and no other, and sends from each of them in turn. At least one.
    pub fn set_addresses(&mut self, addresses: &[Remote]) {
        self.set_sources(addresses);
        self.addresses = addresses.to_vec();
    }

    /// Writes these addresses on what it sends, each in turn, whether they lead to it or not. At least one.
    pub fn set_sources(&mut self, sources: &[Remote]) {
        assert!(!sources.is_empty(), "a packet comes from somewhere");
        self.sources = sources.to_vec();
    }

    /// Loses everything but its identity, as a process that was killed and started again does.
    pub fn restart(&mut self, endpoint: Endpoint) {
        self.endpoint = endpoint;
        self.connections.clear();
        self.events.clear();
    }
}

fn put(
    now: Instant,
    link: &mut Link<Datagram>,
    filter: &mut Option<Filter>,
    from: usize,
    mut datagram: Datagram,
) {
    if filter.as_mut().is_none_or(|filter| filter(from, &mut datagram.bytes)) {
        let _ = link.send(now, datagram); // a cable tells nobody
    }
}

fn remote(index: u8) -> Remote {
    Remote::new(&[index]).unwrap_or_else(|| unreachable!("one byte fits"))
}
