//! Connecting: where an address leads, by which socket of ours, and until the server has proved itself.
//!
//! Neighbours: `discovery.rs` asks a link who serves, `listen.rs` is the other side.

use std::future::{Future, pending};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cabo_proto::session::crypto::{Crypto, PublicKey};
use tokio::net::lookup_host;

use super::packets::Held;
use super::records::start_client;
use super::{Endpoint, Local, ether_peer, lock, lookup};
use crate::address::{Address, DEFAULT_PORT, Host, HostPort, Mac, Place};
use crate::carrier::ether::Ether;
use crate::carrier::tls::{self, ConnectSettings};
use crate::carrier::{Datagrams, Peer, tcp, udp_packets_to_call, unix};
use crate::connection::Connection;
use crate::error::{ConnectError, ResolveError};

/// A stream carrier has to connect within this.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// A connection that has not shaken hands yet.
struct Started {
    connection: Connection,
    /// A host answers that nobody listens there. Afterwards that is no end: only the peer can prove one.
    closed_port: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Endpoint {
    /// Opens our socket on a link. All that goes over that link later uses it, so the privilege that this takes can be
    /// given up before the first byte of a stranger is read.
    pub fn open_link(&self, interface: &str) -> Result<(), ConnectError> {
        self.socket_towards(Local::Ether(interface.to_owned())).map(drop)
    }

    /// Where `address` leads: the link is asked where it names nobody. Of several servers there the one with this
    /// fingerprint is taken, where one is given.
    pub async fn locate(
        &self,
        address: &Address,
        fingerprint: Option<[u8; 32]>,
    ) -> Result<Address, ConnectError> {
        let Place::Eth { mac: None, interface, port } = &address.place else {
            return Ok(address.clone());
        };
        let mut located = address.clone();
        if let Peer::Ether { mac, port, .. } = self.ask_one(address, *port, fingerprint).await? {
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
        let place = || address.place.to_string();
        let Started { connection, closed_port } = self.start_connection(address, crypto).await?;
        tokio::select! {
            biased; // who has answered is there
            done = connection.handshaken() => {
                done.map_err(|ended| ConnectError::Ended { place: place(), ended })?;
            }
            () = closed_port => return Err(ConnectError::NobodyListens { place: place() }),
        }
        Ok(connection)
    }

    async fn start_connection(
        &self,
        address: &Address,
        crypto: &dyn Crypto,
    ) -> Result<Started, ConnectError> {
        let failed = |error| ConnectError::Ended {
            place: address.place.to_string(),
            ended: Arc::new(cabo_proto::session::config::Ended::Crypto(error)),
        };
        let started = match &address.place {
            Place::Udp(host) => {
                let to = resolve(host).await?;
                let endpoint =
                    self.socket_towards(if to.is_ipv4() { Local::V4 } else { Local::V6 })?;
                let closed_port = Box::pin(endpoint.closed_port(Peer::udp(to)));
                let connection = endpoint.connect(Peer::udp(to), crypto).map_err(failed)?;
                return Ok(Started { connection, closed_port });
            }
            Place::Eth { mac, interface, port } => {
                let endpoint = self.socket_towards(Local::Ether(interface.as_str().to_owned()))?;
                let to = match mac {
                    Some(mac) => {
                        ether_peer(mac.0, port.unwrap_or(DEFAULT_PORT), interface.as_str())
                    }
                    None => self.ask_one(address, *port, None).await?,
                };
                endpoint.connect(to, crypto).map_err(failed)
            }
            Place::Tcp(host) => {
                let connected = tcp::connect(resolve(host).await?, CONNECT_TIME).await?;
                let settings = self.record_settings("tcp", false);
                start_client(&settings, connected, crypto).map_err(failed)
            }
            Place::Tls(host) => {
                let settings = ConnectSettings::all_of(address)?;
                let to = resolve(host).await?;
                let connected = tls::connect(to, &settings, tls::CABO, CONNECT_TIME).await?;
                let settings = self.record_settings("tls", true);
                start_client(&settings, connected, crypto).map_err(failed)
            }
            Place::Unix(name) => {
                let connected = unix::connect(name, CONNECT_TIME).await?;
                let settings = self.record_settings("unix", false);
                start_client(&settings, connected, crypto).map_err(failed)
            }
            Place::Redes { .. } | Place::Name(_) => Err(ConnectError::NoSession {
                place: address.place.to_string(),
                scheme: address.scheme(),
            }),
        };
        Ok(Started { connection: started?, closed_port: Box::pin(pending()) })
    }

    /// The socket that leads there; opened when first needed, then shared by all connections that way.
    pub(super) fn socket_towards(&self, local: Local) -> Result<Arc<Held>, ConnectError> {
        let mut outgoing = lock(&self.outgoing);
        if let Some(endpoint) = outgoing.get(&local) {
            return Ok(endpoint.clone());
        }
        let (carrier, scheme) = match &local {
            Local::V4 => (udp_packets_to_call(Ipv4Addr::UNSPECIFIED.into())?, "udp"),
            Local::V6 => (udp_packets_to_call(Ipv6Addr::UNSPECIFIED.into())?, "udp"),
            Local::Ether(interface) => {
                (Box::new(Ether::open(interface, 0, false)?) as Box<dyn Datagrams>, "eth")
            }
        };
        let endpoint = Arc::new(self.start_packets(carrier, scheme, false, None));
        outgoing.insert(local, endpoint.clone());
        Ok(endpoint)
    }
}

/// The address of a host to connect to.
async fn resolve(host: &HostPort) -> Result<SocketAddr, ResolveError> {
    lookup(host).await.map_err(|source| ResolveError { host: host.to_string(), source })
}

/// All addresses of a host, in the order in which they are to be tried; at least one.
pub(crate) async fn resolve_all(host: &HostPort) -> Result<Vec<SocketAddr>, ResolveError> {
    let failed = |source| ResolveError { host: host.to_string(), source };
    let Host::Name(name) = &host.host else { return Ok(vec![resolve(host).await?]) };
    let found = lookup_host((name.as_str(), host.port_or_default())).await.map_err(failed)?;
    let found: Vec<SocketAddr> = found.collect();
    if found.is_empty() {
        return Err(failed(std::io::ErrorKind::NotFound.into()));
    }
    Ok(found)
}
