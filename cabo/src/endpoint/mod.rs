//! Endpoints: listen on any number of URLs, connect to any, and get sessions that are alike.
//!
//! `packets` drives a datagram carrier, `records` a stream carrier. What differs between carriers ends here: above
//! is [`Connection`] alone.

mod packets;
mod records;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use cabo_proto::Chance;
use cabo_proto::session::config::{Config, PathLimits};
use cabo_proto::session::crypto::{Crypto, PublicKey};
use cabo_proto::session::endpoint::{Dropped, EndpointConfig};
use cabo_proto::session::remote::Remote;
use cabo_proto::transport::flow::Budget;
use cabo_proto::wire::code::Code;
use cabo_proto::wire::packet::ConnectionId;
use tokio::sync::{Mutex as AsyncMutex, mpsc};

use self::packets::{Answer, Held, PacketEndpoint};
use self::records::{RecordSettings, start_client};
use crate::address::{Address, DEFAULT_PORT, Host, HostPort, Mac, Place};
use crate::carrier::ether::{self, Ether};
use crate::carrier::tcp::{self, Tcp};
use crate::carrier::udp::Udp;
use crate::carrier::unix::{self, Unix};
use crate::carrier::{Datagrams, InterfaceName, Listener, Peer};
use crate::connection::Connection;
use crate::crypto::{KeyLogFile, Sealed, SetupError};
use crate::error::{ConnectError, ListenError};
use crate::keys::Identity;

/// Sessions that wait for [`Endpoint::accept`]; more are told that we are busy.
const INCOMING_MAX: usize = 1024;
/// A stream carrier has to connect within this.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long a link is asked who serves, where one answer is enough.
const ASK_TIME: Duration = Duration::from_secs(2);
/// The question is repeated so often: it may get lost.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// What an endpoint is made of.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Of every session.
    pub session: Config,
    /// Where secrets are written down, if anywhere.
    pub key_log: Option<Arc<KeyLogFile>>,
    /// Sessions at most; 0 for the default.
    pub connections_max: usize,
    /// Memory for receive windows beyond their first size, bytes; 0 for the default.
    pub budget_bytes: u64,
}

/// One's own side of any number of sessions.
pub struct Endpoint {
    settings: Settings,
    public_key: PublicKey,
    sealed: Option<Sealed>, // `None`: plain
    crypto: Arc<dyn Crypto>,
    budget: Arc<Budget>,
    outgoing: Mutex<HashMap<Local, Arc<Held>>>,
    listening: Mutex<Vec<Held>>,
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

/// What became of an address that was listened on.
#[derive(Clone, Debug)]
pub struct Listening {
    /// The address with the port that it really got.
    pub address: Address,
    /// A limit of this machine that costs speed, and what raises it.
    pub advice: Option<String>,
}

/// Who answered on a link.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where it serves.
    pub address: Address,
    /// The hash of its key, as it says.
    pub fingerprint: [u8; 32],
}

/// Counts of what the doors dropped.
#[derive(Clone, Debug, Default)]
pub struct Drops {
    /// Packets, by reason.
    pub by_reason: Vec<(Dropped, u64)>,
    /// Packets that the kernel dropped because our buffers were full.
    pub kernel: u64,
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
            if settings.budget_bytes == 0 { 512 << 20 } else { settings.budget_bytes };
        let (incoming, accepted) = mpsc::channel(INCOMING_MAX);
        Ok(Self {
            public_key: identity.public_key(),
            sealed: (!settings.session.is_plain).then_some(sealed),
            crypto,
            budget: Budget::new(budget_bytes),
            settings,
            outgoing: Mutex::default(),
            listening: Mutex::default(),
            incoming,
            accepted: AsyncMutex::new(accepted),
        })
    }

    /// Our own key.
    pub fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// The next session whose peer has proved itself. It has to be [admitted](Connection::admit) or
    /// [refused](Connection::refuse).
    pub async fn accept(&self) -> Connection {
        match self.accepted.lock().await.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await, // cannot be: we hold a sender ourselves
        }
    }

    // --- listening --------------------------------------------------------------------------------------------------

    /// Listens on `address`.
    pub async fn listen(&self, address: &Address) -> Result<Listening, ListenError> {
        address.check_listen()?;
        match &address.place {
            Place::Udp(host) => {
                let carrier = Udp::open(resolve_local(host).await?)?;
                Ok(self.listen_packets(Box::new(carrier), "udp", address))
            }
            Place::Eth { interface, port, .. } => {
                let carrier = Ether::open(interface.as_str(), port.unwrap_or(DEFAULT_PORT), true)?;
                Ok(self.listen_packets(Box::new(carrier), "eth", address))
            }
            Place::Tcp(host) => {
                let listener = Tcp::listen(resolve_local(host).await?)?;
                Ok(self.listen_records(Arc::new(listener), "tcp", address))
            }
            Place::Unix(name) => {
                Ok(self.listen_records(Arc::new(Unix::listen(name)?), "unix", address))
            }
            Place::Tls(_) | Place::Redes { .. } | Place::Name(_) => {
                Err(ListenError::NoSession { place: address.to_string(), scheme: address.scheme() })
            }
        }
    }

    fn listen_packets(
        &self,
        carrier: Box<dyn Datagrams>,
        scheme: &'static str,
        address: &Address,
    ) -> Listening {
        let endpoint = self.start_packets(carrier, scheme, true);
        let listening = Listening {
            address: with_port(address, endpoint.local().port()),
            advice: endpoint.advice(),
        };
        lock(&self.listening).push(endpoint);
        listening
    }

    fn listen_records(
        &self,
        listener: Arc<dyn Listener>,
        scheme: &'static str,
        address: &Address,
    ) -> Listening {
        let listening =
            Listening { address: with_port(address, listener.local().port()), advice: None };
        tokio::spawn(records::accept_loop(
            listener,
            self.record_settings(scheme),
            self.incoming.clone(),
        ));
        listening
    }

    fn start_packets(
        &self,
        carrier: Box<dyn Datagrams>,
        scheme: &'static str,
        is_listening: bool,
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
        if self.settings.budget_bytes > 0 {
            config.budget_bytes = self.settings.budget_bytes;
        }
        PacketEndpoint::start(carrier, scheme, config, self.crypto.clone(), self.incoming.clone())
    }

    fn record_settings(&self, scheme: &'static str) -> RecordSettings {
        RecordSettings {
            config: self.settings.session.clone(),
            crypto: self.crypto.clone(),
            budget: self.budget.clone(),
            scheme,
        }
    }

    /// Answers on every Ethernet link listened on so far who serves there.
    pub fn answer_discovery(&self, fingerprint: [u8; 32]) {
        for endpoint in lock(&self.listening).iter() {
            if let Some(port) = endpoint.local().port() {
                let versions = vec![self.settings.session.version()];
                endpoint.answer_discovery(
                    Answer { from: endpoint.local(), port, fingerprint },
                    versions,
                );
            }
        }
    }

    /// Takes no more sessions.
    pub fn drain(&self) {
        lock(&self.listening).iter().for_each(|endpoint| endpoint.drain());
    }

    /// What the doors dropped so far.
    pub fn drops(&self) -> Drops {
        let mut drops = Drops::default();
        for endpoint in lock(&self.listening).iter() {
            drops.kernel += endpoint.kernel_drops();
            for (why, count) in endpoint.dropped() {
                match drops.by_reason.iter_mut().find(|(known, _)| *known == why) {
                    Some((_, total)) => *total += count,
                    None => drops.by_reason.push((why, count)),
                }
            }
        }
        drops
    }

    // --- connecting -------------------------------------------------------------------------------------------------

    /// Where `address` leads: the link is asked where it names nobody.
    pub async fn locate(&self, address: &Address) -> Result<Address, ConnectError> {
        let Place::Eth { mac: None, interface, port } = &address.place else {
            return Ok(address.clone());
        };
        let endpoint = self.socket_towards(Local::Ether(interface.as_str().to_owned()))?;
        let mut located = address.clone();
        if let Peer::Ether { mac, port, .. } = self.ask_one(&endpoint, address, *port).await? {
            located.place =
                Place::Eth { mac: Some(Mac(mac)), interface: interface.clone(), port: Some(port) };
        }
        Ok(located)
    }

    /// Connects to `address` and waits until the server has proved who it is: `expected`, where that is given.
    pub async fn connect(
        &self,
        address: &Address,
        expected: Option<PublicKey>,
    ) -> Result<Connection, ConnectError> {
        address.check_connect()?;
        let expecting = match (&self.sealed, expected) {
            (Some(sealed), Some(key)) => Some(sealed.expecting(key)?),
            _ => None,
        };
        let crypto: &dyn Crypto = match &expecting {
            Some(sealed) => sealed,
            None => &*self.crypto,
        };
        let connection = self.start_connection(address, crypto).await?;
        connection
            .handshaken()
            .await
            .map_err(|ended| ConnectError::Ended { place: address.place.to_string(), ended })?;
        Ok(connection)
    }

    async fn start_connection(
        &self,
        address: &Address,
        crypto: &dyn Crypto,
    ) -> Result<Connection, ConnectError> {
        let failed = |error| ConnectError::Ended {
            place: address.place.to_string(),
            ended: Arc::new(cabo_proto::session::config::Ended::Crypto(error)),
        };
        match &address.place {
            Place::Udp(host) => {
                let to = resolve(host).await?;
                let endpoint =
                    self.socket_towards(if to.is_ipv4() { Local::V4 } else { Local::V6 })?;
                endpoint.connect(Peer::udp(to), crypto).map_err(failed)
            }
            Place::Eth { mac, interface, port } => {
                let endpoint = self.socket_towards(Local::Ether(interface.as_str().to_owned()))?;
                let to = match mac {
                    Some(mac) => {
                        ether_peer(mac.0, port.unwrap_or(DEFAULT_PORT), interface.as_str())
                    }
                    None => self.ask_one(&endpoint, address, *port).await?,
                };
                endpoint.connect(to, crypto).map_err(failed)
            }
            Place::Tcp(host) => {
                let connected = tcp::connect(resolve(host).await?, CONNECT_TIME).await?;
                let settings = self.record_settings("tcp");
                start_client(&settings, connected.stream, connected.to, None, crypto)
                    .map_err(failed)
            }
            Place::Unix(name) => {
                let connected = unix::connect(name, CONNECT_TIME).await?;
                let settings = self.record_settings("unix");
                start_client(&settings, connected.stream, connected.to, connected.peer_user, crypto)
                    .map_err(failed)
            }
            Place::Tls(_) | Place::Redes { .. } | Place::Name(_) => Err(ConnectError::NoSession {
                place: address.place.to_string(),
                scheme: address.scheme(),
            }),
        }
    }

    /// The socket that leads there; opened when first needed, then shared by all connections that way.
    fn socket_towards(&self, local: Local) -> Result<Arc<Held>, ConnectError> {
        let mut outgoing = lock(&self.outgoing);
        if let Some(endpoint) = outgoing.get(&local) {
            return Ok(endpoint.clone());
        }
        let endpoint = match &local {
            Local::V4 => {
                self.start_packets(Box::new(Udp::open(([0, 0, 0, 0], 0).into())?), "udp", false)
            }
            Local::V6 => {
                self.start_packets(Box::new(Udp::open(([0_u16; 8], 0).into())?), "udp", false)
            }
            Local::Ether(interface) => {
                self.start_packets(Box::new(Ether::open(interface, 0, false)?), "eth", false)
            }
        };
        let endpoint = Arc::new(endpoint);
        outgoing.insert(local, endpoint.clone());
        Ok(endpoint)
    }

    // --- discovery --------------------------------------------------------------------------------------------------

    /// Asks the link of `interface` who serves there, for as long as `within`.
    pub async fn who_serves(
        &self,
        interface: &str,
        within: Duration,
    ) -> Result<Vec<Found>, ConnectError> {
        let endpoint = self.socket_towards(Local::Ether(interface.to_owned()))?;
        let answers = self.ask(&endpoint, interface, within, |_| false).await;
        if answers.is_empty() && !ether::is_up(interface) {
            return Err(ConnectError::LinkDown { interface: interface.to_owned() });
        }
        let mut found: Vec<Found> = Vec::new();
        for answer in answers {
            let Some(address) = address_of(&answer) else { continue };
            if !found.iter().any(|known| known.address == address) {
                found.push(Found { address, fingerprint: answer.fingerprint });
            }
        }
        Ok(found)
    }

    /// The first server that answers, at `port` if one is asked for.
    async fn ask_one(
        &self,
        endpoint: &Held,
        address: &Address,
        port: Option<u16>,
    ) -> Result<Peer, ConnectError> {
        let Place::Eth { interface, .. } = &address.place else {
            return Err(ConnectError::NoSession {
                place: address.to_string(),
                scheme: address.scheme(),
            });
        };
        let is_wanted = |answer: &Answer| port.is_none_or(|port| answer.port == port);
        let answers = self.ask(endpoint, interface.as_str(), ASK_TIME, is_wanted).await;
        match answers.into_iter().find(|answer| is_wanted(answer)) {
            Some(Answer { from: Peer::Ether { mac, .. }, port, .. }) => {
                Ok(ether_peer(mac, port, interface.as_str()))
            }
            _ if !ether::is_up(interface.as_str()) => {
                Err(ConnectError::LinkDown { interface: interface.as_str().to_owned() })
            }
            _ => Err(ConnectError::NobodyThere {
                place: address.place.to_string(),
                within: ASK_TIME,
            }),
        }
    }

    async fn ask(
        &self,
        endpoint: &Held,
        interface: &str,
        within: Duration,
        is_enough: impl Fn(&Answer) -> bool,
    ) -> Vec<Answer> {
        let mut nonce = [0; 8];
        SystemChance.fill(&mut nonce);
        let (sender, mut answers) = mpsc::channel(64);
        let question = endpoint.ask(self.settings.session.version(), ConnectionId(nonce), sender);
        let everybody = ether_peer(Peer::BROADCAST_MAC, 0, interface);
        let mut found = Vec::new();
        let asking = async {
            let mut again = tokio::time::interval(ASK_EVERY);
            loop {
                tokio::select! {
                    _ = again.tick() => {
                        endpoint.send(everybody, question.clone()); // asked again soon
                    }
                    Some(answer) = answers.recv() => {
                        let is_last = is_enough(&answer);
                        found.push(answer);
                        if is_last {
                            return;
                        }
                    }
                }
            }
        };
        let _ = tokio::time::timeout(within, asking).await; // the time is how long we listen
        found
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
    remote_of(peer, true)
}

/// The same without its port, to count by source.
fn source(peer: &Peer) -> Remote {
    remote_of(peer, false)
}

fn remote_of(peer: &Peer, with_port: bool) -> Remote {
    let mut bytes = Vec::with_capacity(24);
    match peer {
        Peer::Udp(address) | Peer::Tcp(address) => match address.ip() {
            IpAddr::V4(ip) => bytes.extend_from_slice(&ip.octets()),
            // One host of IPv6 has a whole /64 to speak from.
            IpAddr::V6(ip) => {
                bytes.extend_from_slice(&ip.octets()[..if with_port { 16 } else { 8 }])
            }
        },
        Peer::Ether { mac, .. } => bytes.extend_from_slice(mac),
        Peer::Memory(place) => bytes.extend_from_slice(&place.to_be_bytes()),
        Peer::Unix { process } => bytes.extend_from_slice(&process.to_be_bytes()),
        Peer::None => {}
    }
    if with_port {
        bytes.extend_from_slice(&peer.port().unwrap_or(0).to_be_bytes());
    }
    Remote::new(&bytes).unwrap_or_else(|| unreachable!("no address has more than 18 bytes"))
}

fn ether_peer(mac: [u8; 6], port: u16, interface: &str) -> Peer {
    InterfaceName::new(interface).map_or(Peer::None, |interface| Peer::Ether {
        mac,
        port,
        interface,
    })
}

fn address_of(answer: &Answer) -> Option<Address> {
    let Peer::Ether { mac, interface, .. } = answer.from else { return None };
    let interface = crate::address::Interface::new(interface.as_str()).ok()?;
    Some(Place::Eth { mac: Some(Mac(mac)), interface, port: Some(answer.port) }.into())
}

/// `address` with the port that it really got.
fn with_port(address: &Address, got: Option<u16>) -> Address {
    let mut address = address.clone();
    match &mut address.place {
        Place::Udp(host) | Place::Tcp(host) | Place::Tls(host) => host.port = got.or(host.port),
        Place::Eth { port, .. } => *port = got.or(*port),
        Place::Unix(_) | Place::Redes { .. } | Place::Name(_) => {}
    }
    address
}

async fn resolve_local(host: &HostPort) -> Result<SocketAddr, ListenError> {
    lookup(host).await.map_err(|source| ListenError::Resolve { host: host.to_string(), source })
}

async fn resolve(host: &HostPort) -> Result<SocketAddr, ConnectError> {
    lookup(host).await.map_err(|source| ConnectError::Resolve { host: host.to_string(), source })
}

async fn lookup(host: &HostPort) -> std::io::Result<SocketAddr> {
    let port = host.port_or_default();
    match &host.host {
        Host::Any => Ok(([0, 0, 0, 0], port).into()),
        Host::Ip4(ip) => Ok((*ip, port).into()),
        Host::Ip6(ip, zone) => {
            let scope = match zone {
                Some(zone) => rustix::net::netdevice::name_to_index(
                    rustix::net::socket(
                        rustix::net::AddressFamily::INET6,
                        rustix::net::SocketType::DGRAM,
                        None,
                    )?,
                    zone.as_str(),
                )?,
                None => 0,
            };
            Ok(std::net::SocketAddrV6::new(*ip, port, 0, scope).into())
        }
        Host::Name(name) => {
            let mut found = tokio::net::lookup_host((name.as_str(), port)).await?;
            found.next().ok_or_else(|| {
                std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address")
            })
        }
    }
}
