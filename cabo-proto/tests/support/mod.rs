//! What the behaviours share: two hosts of fixed identity, and flows of bytes that are checked as they arrive.
#![allow(dead_code, reason = "each behaviour uses a part of it")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cabo_proto::session::config::{Config, Ended};
use cabo_proto::session::core::Event;
use cabo_proto::session::crypto::Crypto;
use cabo_proto::session::endpoint::{Endpoint, EndpointConfig, Handle};
use cabo_proto::session::packets::PacketConnection;
use cabo_proto::session::plain::Plain;
use cabo_proto::session::standin::StandIn;
use cabo_proto::sim::Seeded;
use cabo_proto::sim::link::LinkConfig;
use cabo_proto::sim::net::{Net, NetConfig};
use cabo_proto::transport::streams::{Read, StreamError, Streams};
use cabo_proto::wire::frame::{Direction, StreamId};

pub(crate) const CLIENT: usize = 0;
pub(crate) const SERVER: usize = 1;

pub(crate) const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub(crate) const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// The crypto of a host: the same identity every time.
pub(crate) fn stand_in(host: usize) -> StandIn {
    StandIn::new(host as u64 + 1)
}

pub(crate) fn plain(host: usize) -> Plain<impl Fn(&[u8], &[u8]) -> [u8; 16] + Send + Sync> {
    let secret = stand_in(host);
    Plain::new(move |label: &[u8], data: &[u8]| secret.mac(label, data))
}

/// A cable of 100 Mbit/s and `delay` each way.
pub(crate) fn cable(delay: Duration) -> LinkConfig {
    LinkConfig { delay, rate_bits_per_second: 100_000_000, ..LinkConfig::default() }
}

pub(crate) fn net(config: NetConfig) -> Net {
    if config.connection.is_plain {
        return Net::new(config, [Arc::new(plain(CLIENT)), Arc::new(plain(SERVER))]);
    }
    Net::new(config, [Arc::new(stand_in(CLIENT)), Arc::new(stand_in(SERVER))])
}

/// A net in which `change` has had its way with the settings.
pub(crate) fn net_with(seed: u64, link: LinkConfig, change: impl FnOnce(&mut NetConfig)) -> Net {
    let mut config = NetConfig::new(seed, link);
    change(&mut config);
    net(config)
}

/// A server's door with settings of one's own, on the limits of [`NetConfig::new`].
pub(crate) fn door(
    net: &Net,
    seed: u64,
    connection: Config,
    change: impl FnOnce(&mut EndpointConfig),
) -> Endpoint {
    let limits = NetConfig::new(seed, LinkConfig::default()).limits;
    let mut config = EndpointConfig::new(connection, limits, vec![SERVER as u8]);
    config.is_listening = true;
    change(&mut config);
    Endpoint::new(net.now, config, Arc::new(stand_in(SERVER)), Box::new(Seeded::new(seed ^ 0xD00D)))
}

/// The seeds to run: all of `0..count`, or the one that the environment names.
pub(crate) fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("CABO_SEED").ok().and_then(|text| text.parse().ok()) {
        Some(seed) => vec![seed],
        None => (0..count).collect(),
    }
}

/// A connection that is up on both sides, and admitted.
pub(crate) fn connected(net: &mut Net) -> [Handle; 2] {
    let client = net.connect().unwrap();
    let is_up = net.run(secs(30), |net| {
        net.hosts[CLIENT].connections.get(&client).is_some_and(PacketConnection::is_admitted)
    });
    assert!(is_up, "the handshake does not end");
    [client, newest(net, SERVER).unwrap()]
}

/// The connection that a host got last.
pub(crate) fn newest(net: &Net, host: usize) -> Option<Handle> {
    net.hosts[host].connections.keys().next_back().copied()
}

pub(crate) fn connection(net: &mut Net, host: usize) -> &mut PacketConnection {
    net.hosts[host].connections.values_mut().next_back().expect("a connection")
}

/// How a host's connections ended so far.
pub(crate) fn ends(net: &Net, host: usize) -> Vec<Ended> {
    let ended = |(_, event): &(Handle, Event)| match event {
        Event::Ended(ended) => Some(ended.clone()),
        _ => None,
    };
    net.hosts[host].events.iter().filter_map(ended).collect()
}

pub(crate) fn has_event(net: &Net, host: usize, wanted: &Event) -> bool {
    net.hosts[host].events.iter().any(|(_, event)| event == wanted)
}

/// The byte that a stream has at `index`.
pub(crate) fn byte_at(id: StreamId, index: u64) -> u8 {
    ((index ^ (id.0 << 40)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

/// Bytes that go one way on one stream, checked one by one on arrival.
pub(crate) struct Flow {
    pub(crate) from: usize,
    pub(crate) total: u64,
    pub(crate) written: u64,
    pub(crate) read: u64,
    pub(crate) id: Option<StreamId>,
    pub(crate) priority: i32,
    /// The reader does not read.
    pub(crate) is_paused: bool,
    pub(crate) done_at: Option<Instant>,
}

impl Flow {
    pub(crate) fn new(from: usize, total: u64) -> Self {
        Self {
            from,
            total,
            written: 0,
            read: 0,
            id: None,
            priority: 0,
            is_paused: false,
            done_at: None,
        }
    }

    /// Writes what there is room for and reads what there is; true once the end was read.
    pub(crate) fn step(&mut self, net: &mut Net) -> bool {
        if self.done_at.is_some() {
            return true;
        }
        let now = net.now;
        let sender = net.hosts[self.from].connections.values_mut().next_back();
        if let Some(sender) = sender.filter(|sender| sender.is_handshaken() && sender.is_open()) {
            self.write(sender.streams());
        }
        let receiver = net.hosts[1 - self.from].connections.values_mut().next_back();
        if let Some(receiver) = receiver.filter(|_| !self.is_paused) {
            self.read(now, receiver.streams());
        }
        self.done_at.is_some()
    }

    pub(crate) fn write(&mut self, streams: &mut Streams) {
        if self.id.is_none() {
            self.id = streams.open(Direction::One);
            if let Some(id) = self.id {
                streams.set_priority(id, self.priority);
            }
        }
        let Some(id) = self.id.filter(|_| self.written < self.total) else { return };
        while self.written < self.total {
            let room = streams
                .write_room(id)
                .unwrap()
                .min(32 * 1024)
                .min((self.total - self.written) as usize);
            if room == 0 {
                return;
            }
            let chunk: Vec<u8> = (self.written..self.written + room as u64)
                .map(|index| byte_at(id, index))
                .collect();
            streams.write(id, Bytes::from(chunk));
            self.written += room as u64;
        }
        streams.finish(id).unwrap();
    }

    pub(crate) fn read(&mut self, now: Instant, streams: &mut Streams) {
        let Some(id) = self.id else { return };
        let mut buffer = [0; 16 * 1024];
        loop {
            match streams.read(now, id, &mut buffer) {
                Ok(Read::Bytes(len)) => {
                    for (byte, index) in buffer[..len].iter().zip(self.read..) {
                        assert_eq!(*byte, byte_at(id, index), "byte {index} of {id:?}");
                    }
                    self.read += len as u64;
                }
                Ok(Read::End) => {
                    assert_eq!(self.read, self.total, "{id:?} ended too early");
                    self.done_at = Some(now);
                    return;
                }
                Ok(Read::Blocked) | Err(StreamError::Closed) => return,
                other => panic!("{id:?}: {other:?}"),
            }
        }
    }
}

/// Runs until all flows are done; the virtual time that it took.
pub(crate) fn deliver(net: &mut Net, flows: &mut [Flow], limit: Duration) -> Option<Duration> {
    let started = net.now;
    let is_done =
        net.run(limit, |net| flows.iter_mut().fold(true, |all, flow| flow.step(net) && all));
    is_done.then(|| net.now - started)
}

/// The shortest proof that a net works: bytes both ways.
pub(crate) fn exchange(net: &mut Net, bytes: u64) {
    let mut flows = [Flow::new(CLIENT, bytes), Flow::new(SERVER, bytes)];
    let took = deliver(net, &mut flows, secs(120));
    assert!(
        took.is_some(),
        "stuck: {:?} {:?}",
        flows.each_ref().map(|flow| (flow.written, flow.read)),
        ends(net, CLIENT)
    );
}
