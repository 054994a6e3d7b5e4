//! Endpoints: listen on any number of URLs, connect to any, and get sessions that are alike.
//!
//! `listen` and `connect` turn addresses into carriers, `discovery` asks a link who serves. `packets` drives a datagram
//! carrier, and with it `others` that share its port; `records` a stream carrier behind its `entrance`. What
//! differs between carriers ends here: above is [`Connection`] alone.

mod connect;
mod discovery;
mod entrance;
pub(crate) mod listen;
pub(crate) mod others;
mod packets;
mod records;

use std::collections::HashMap;
use std::net::{SocketAddr, SocketAddrV6};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use cabo_proto::Chance;
use cabo_proto::session::config::{Config, PathLimits};
use cabo_proto::session::crypto::{Crypto, PublicKey};
use cabo_proto::session::endpoint::{BUDGET_BYTES, EndpointConfig};
use cabo_proto::session::remote::Remote;
use cabo_proto::transport::flow::Budget;
use cabo_proto::wire::code::Code;
use cabo_proto::wire::record::Form;
use tokio::sync::{Mutex as AsyncMutex, mpsc};

pub(crate) use self::connect::resolve_all;
use self::entrance::Entrance;
pub use self::listen::{Drops, Listening};
use self::others::Others;
use self::packets::{Held, PacketEndpoint};
use self::records::RecordSettings;
use crate::address::{Host, HostPort};
use crate::carrier::{Accepted, Datagrams, InterfaceName, Listener, Peer, interface_index};
use crate::connection::Connection;
use crate::crypto::{KeyLogFile, Sealed, SetupError};
use crate::keys::Identity;

/// Sessions that wait for [`Endpoint::accept`]; more are told that we are busy.
const INCOMING_MAX: usize = 1024;

/// What an endpoint is made of.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Of every session.
    pub session: Config,
    /// Where secrets are written down, if anywhere.
    pub key_log: Option<Arc<KeyLogFile>>,
    /// Sessions at most; 0 for the default.
    pub connections_max: usize,
    /// Memory for receive windows beyond their first size, of all sessions over all carriers together, bytes; 0 for the
    /// default of 512 MiB.
    pub budget_bytes: u64,
}

/// A task of an endpoint, and what starts it.
pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;
pub(crate) type Spawn = Arc<dyn Fn(Task) + Send + Sync>;

/// One's own side of any number of sessions.
pub struct Endpoint {
    settings: Settings,
    public_key: PublicKey,
    sealed: Option<Sealed>, // `None`: plain
    crypto: Arc<dyn Crypto>,
    budget: Arc<Budget>,
    spawn: Spawn,
    outgoing: Mutex<HashMap<Local, Arc<Held>>>,
    listening: Mutex<Vec<Held>>,
    /// Of stream carriers; who accepts holds them.
    listeners: Mutex<Vec<Weak<dyn Listener>>>,
    entrance: Arc<Entrance>,
    incoming: mpsc::Sender<Connection>,
    accepted: AsyncMutex<mpsc::Receiver<Connection>>,
}

/// Which socket of ours leads somewhere.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Local {
    V4,
    V6,
    Ether(String),
}

impl Endpoint {
    /// An endpoint with this identity. In plain it has none to show; the key still guards its cookies.
    pub fn new(identity: &Identity, settings: Settings) -> Result<Self, SetupError> {
        let sealed = Sealed::new(identity, settings.key_log.clone())?;
        let crypto: Arc<dyn Crypto> = if settings.session.is_plain {
            Arc::new(sealed.to_plain())
        } else {
            Arc::new(sealed.clone())
        };
        let budget_bytes =
            if settings.budget_bytes == 0 { BUDGET_BYTES } else { settings.budget_bytes };
        let (incoming, accepted) = mpsc::channel(INCOMING_MAX);
        Ok(Self {
            public_key: identity.public_key(),
            sealed: (!settings.session.is_plain).then_some(sealed),
            crypto,
            budget: Budget::new(budget_bytes),
            spawn: Arc::new(|task| {
                tokio::spawn(task);
            }),
            entrance: Entrance::new(settings.connections_max),
            settings,
            outgoing: Mutex::default(),
            listening: Mutex::default(),
            listeners: Mutex::default(),
            incoming,
            accepted: AsyncMutex::new(accepted),
        })
    }

    /// Has its tasks run elsewhere than in the runtime where it is used.
    pub(crate) fn spawning(mut self, spawn: impl Fn(Task) + Send + Sync + 'static) -> Self {
        self.spawn = Arc::new(spawn);
        self.outgoing = Mutex::default(); // a socket belongs to the runtime in which it was opened
        self
    }

    /// Our own key.
    pub fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// Whether peers prove who they are.
    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed.is_some()
    }

    /// The version of packets and records that it speaks.
    pub fn version(&self) -> u8 {
        self.settings.session.version()
    }

    /// The next session whose peer has proved itself. It has to be [admitted](Connection::admit) or
    /// [refused](Connection::refuse).
    pub async fn accept(&self) -> Connection {
        match self.accepted.lock().await.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await, // cannot be: we hold a sender ourselves
        }
    }

    /// Takes a secured stream that opened with cabo's preface, which was read, and what was read behind it; drives the session
    /// until its end. For doors where others than cabo's peers come in, too.
    pub(crate) fn adopt(
        &self,
        accepted: Accepted,
        form: Form,
        said: Vec<u8>,
        (scheme, is_secure): (&'static str, bool),
    ) {
        let settings = self.record_settings(scheme, is_secure);
        let (entrance, incoming) = (&self.entrance, self.incoming.clone());
        records::adopt(accepted, form, said, settings, entrance, incoming);
    }

    /// Listens on a socket whose port others share: what is no packet of cabo's is theirs.
    pub(crate) fn share(
        &self,
        carrier: Box<dyn Datagrams>,
        scheme: &'static str,
        others: Box<dyn Others>,
    ) {
        let endpoint = self.start_packets(carrier, scheme, true, Some(others));
        lock(&self.listening).push(endpoint);
    }

    fn start_packets(
        &self,
        carrier: Box<dyn Datagrams>,
        scheme: &'static str,
        is_listening: bool,
        others: Option<Box<dyn Others>>,
    ) -> Held {
        let promises = carrier.promises();
        let limits = PathLimits {
            largest_packet_bytes: promises.largest_datagram.min(usize::from(u16::MAX)),
            overhead_bytes: 1500_usize.saturating_sub(promises.first_datagram),
            burst_bytes: carrier.receive_burst_bytes() as u64,
        };
        let scope = format!("{scheme} {}", carrier.local()).into_bytes();
        let mut config = EndpointConfig::new(self.settings.session.clone(), limits, scope);
        config.is_listening = is_listening;
        if self.settings.connections_max > 0 {
            config.connections_max = self.settings.connections_max;
        }
        config.budget = self.budget.clone();
        let (crypto, incoming) = (self.crypto.clone(), self.incoming.clone());
        PacketEndpoint::start(carrier, scheme, config, crypto, incoming, others, &self.spawn)
    }

    fn record_settings(&self, scheme: &'static str, is_secure: bool) -> RecordSettings {
        RecordSettings {
            config: self.settings.session.clone(),
            crypto: self.crypto.clone(),
            budget: self.budget.clone(),
            scheme,
            is_secure,
            spawn: self.spawn.clone(),
        }
    }
}

/// Hands a session to whoever accepts; one too many is told that we are busy.
fn announce(incoming: &mpsc::Sender<Connection>, connection: Connection) {
    if let Err(error) = incoming.try_send(connection) {
        error.into_inner().close_protocol(Code::BUSY, "too many sessions wait to be accepted");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The system's random bytes.
struct SystemChance;

impl Chance for SystemChance {
    fn fill(&mut self, out: &mut [u8]) {
        // Without random bytes nothing may go on: ids would be guessable.
        assert!(SystemRandom::new().fill(out).is_ok(), "the system has no random bytes");
    }
}

/// A peer as the pure crate sees it.
fn remote(peer: &Peer) -> Remote {
    let port = peer.port().unwrap_or(0);
    let remote = match peer {
        Peer::Udp(address) | Peer::Tcp(address) => match address {
            SocketAddr::V4(v4) => Remote::with_port(&v4.ip().octets(), port),
            SocketAddr::V6(v6) => {
                let host = [&v6.ip().octets()[..], &v6.scope_id().to_be_bytes()].concat();
                Remote::with_port(&host, port)
            }
        },
        Peer::Ether { mac, .. } => Remote::with_port(mac, port),
        Peer::Memory(place) => Remote::new(&place.to_be_bytes()),
        Peer::Unix { process } => Remote::new(&process.to_be_bytes()),
        Peer::None => Remote::new(&[]),
    };
    short_enough(remote)
}

/// The peer that the pure crate means, on the carrier of a peer `like` it.
pub(crate) fn peer_at(remote: &Remote, like: Peer) -> Peer {
    let (host, port) = (remote.host(), remote.port().unwrap_or(0));
    match like {
        Peer::Udp(_) => udp_peer(host, port).unwrap_or(like),
        Peer::Ether { interface, .. } => {
            host.try_into().map_or(like, |mac| Peer::Ether { mac, port, interface })
        }
        Peer::Memory(_) => {
            host.try_into().map_or(like, |place| Peer::Memory(u64::from_be_bytes(place)))
        }
        Peer::Tcp(_) | Peer::Unix { .. } | Peer::None => like,
    }
}

fn udp_peer(host: &[u8], port: u16) -> Option<Peer> {
    if let Ok(ip) = <[u8; 4]>::try_from(host) {
        return Some(Peer::udp((ip, port).into()));
    }
    let (ip, scope) = host.split_first_chunk::<16>()?;
    let scope = u32::from_be_bytes(scope.try_into().ok()?);
    Some(Peer::udp(SocketAddrV6::new((*ip).into(), port, 0, scope).into()))
}

/// A peer without its port, to count by source.
fn source(peer: &Peer) -> Remote {
    let host = match peer {
        // One host of IPv6 has a whole /64 to speak from.
        Peer::Udp(SocketAddr::V6(v6)) | Peer::Tcp(SocketAddr::V6(v6)) => {
            Remote::new(&v6.ip().octets()[..8])
        }
        Peer::Udp(_)
        | Peer::Tcp(_)
        | Peer::Ether { .. }
        | Peer::Memory(_)
        | Peer::Unix { .. }
        | Peer::None => Remote::new(remote(peer).host()),
    };
    short_enough(host)
}

fn short_enough(remote: Option<Remote>) -> Remote {
    remote.unwrap_or_else(|| unreachable!("no address has more than 22 bytes"))
}

fn ether_peer(mac: [u8; 6], port: u16, interface: &str) -> Peer {
    InterfaceName::new(interface).map_or(Peer::None, |interface| Peer::Ether {
        mac,
        port,
        interface,
    })
}

async fn lookup(host: &HostPort) -> std::io::Result<SocketAddr> {
    let port = host.port_or_default();
    match &host.host {
        Host::Any => Ok(([0, 0, 0, 0], port).into()),
        Host::Ip4(ip) => Ok((*ip, port).into()),
        Host::Ip6(ip, zone) => {
            let scope = match zone {
                Some(zone) => interface_index(zone.as_str())?,
                None => 0,
            };
            Ok(SocketAddrV6::new(*ip, port, 0, scope).into())
        }
        Host::Name(name) => {
            let mut found = tokio::net::lookup_host((name.as_str(), port)).await?;
            found.next().ok_or_else(|| {
                std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address")
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_the_same_after_it_went_through_the_pure_crate() {
        let interface = InterfaceName::new("eth0").unwrap();
        let other = |peer| match peer {
            Peer::Udp(_) => Peer::udp("127.0.0.1:1".parse().unwrap()),
            Peer::Ether { .. } => Peer::Ether { mac: [0; 6], port: 1, interface },
            Peer::Tcp(_) | Peer::Unix { .. } | Peer::Memory(_) | Peer::None => Peer::Memory(0),
        };
        for peer in [
            Peer::udp("192.0.2.7:5555".parse().unwrap()),
            Peer::udp("[2001:db8::1]:5555".parse().unwrap()),
            Peer::udp(SocketAddrV6::new("fe80::1".parse().unwrap(), 7, 0, 3).into()),
            Peer::Ether { mac: [0x52, 0x54, 0, 1, 2, 3], port: 5555, interface },
            Peer::Memory(u64::MAX),
        ] {
            assert_eq!(peer_at(&remote(&peer), other(peer)), peer);
        }
        let at = |text: &str| source(&Peer::udp(text.parse().unwrap()));
        assert_eq!(at("192.0.2.7:1"), at("192.0.2.7:2"));
        assert_eq!(at("[2001:db8::1]:1"), at("[2001:db8::2:1]:2"));
        assert_ne!(at("192.0.2.7:1"), at("192.0.2.8:1"));
    }
}
