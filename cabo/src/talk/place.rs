//! From a URL to a socket for foreign programs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cabo_proto::dialect::Dialect;

use super::query::{
    TCP_CONNECT, TCP_LISTEN, TLS_CONNECT, TLS_LISTEN, UDP_CONNECT, UDP_LISTEN, UNIX, Wishes,
};
use crate::address::{Address, AddressError, Host, HostPort, Place};
use crate::carrier::open_udp::OpenUdp;
use crate::carrier::tcp::{self, Tcp};
use crate::carrier::tls::{self, ConnectSettings, Connector, ListenSettings, Tls};
use crate::carrier::unix::{self, Unix};
use crate::carrier::{
    self, ByteStream, Connected, Datagrams, Listener, OpenError, udp_packets, udp_packets_anywhere,
};
use crate::error::ResolveError;

/// Why a URL leads to no socket.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The socket cannot be opened or connected.
    #[error(transparent)]
    Carrier(#[from] OpenError),
    /// The host has no address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// What the query of a `tls://` URL says cannot be.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The scheme carries no foreign programs.
    #[error("{place}: foreign programs are spoken to over tcp://, tls://, udp:// and unix:")]
    Scheme {
        /// As it was written.
        place: String,
    },
    /// A word in the query that means nothing, or has no such value.
    #[error("{place}: {problem}")]
    Query {
        /// As it was written.
        place: String,
        /// What is wrong.
        problem: String,
    },
}

/// A listening socket.
pub(super) enum Door {
    Streams(Arc<dyn Listener>, &'static str),
    Datagrams(OpenUdp),
}

impl Door {
    /// Listens at `address`.
    pub(super) async fn open(address: &Address) -> Result<Self, PlaceError> {
        match &address.place {
            Place::Tcp(host) => {
                let listener = listen_tcp(host, &Wishes::of(address, TCP_LISTEN)?).await?;
                Ok(Self::Streams(Arc::new(listener), "tcp"))
            }
            Place::Tls(host) => {
                let wishes = Wishes::of(address, TLS_LISTEN)?;
                let settings = ListenSettings::of(address)?;
                let below = listen_tcp(host, &wishes).await?;
                Ok(Self::Streams(Arc::new(Tls::over(below, &settings, tls::FOREIGN)?), "tls"))
            }
            Place::Unix(name) => {
                Wishes::of(address, UNIX)?;
                Ok(Self::Streams(Arc::new(Unix::listen(name)?), "unix"))
            }
            Place::Udp(host) => {
                let wishes = Wishes::of(address, UDP_LISTEN)?;
                Ok(Self::Datagrams(match host.host {
                    Host::Any => OpenUdp::listen_anywhere(host.port_or_default(), &wishes.reach)?,
                    Host::Ip4(_) | Host::Ip6(..) | Host::Name(_) => {
                        OpenUdp::listen(first(wishes.resolve(host).await?)?, &wishes.reach)?
                    }
                }))
            }
            Place::Eth { .. } | Place::Redes { .. } | Place::Name(_) => {
                Err(PlaceError::Scheme { place: address.to_string() })
            }
        }
    }

    /// Where it is bound.
    pub(super) fn local(&self) -> carrier::Peer {
        match self {
            Self::Streams(listener, _) => listener.local(),
            Self::Datagrams(socket) => carrier::Peer::udp(socket.local()),
        }
    }
}

/// A UDP socket to which cabo peers can come, too; none where it would be that of a group or of everybody on a link, for
/// a session is with one.
pub(super) async fn open_shared(
    host: &HostPort,
    address: &Address,
) -> Result<Option<Box<dyn Datagrams>>, PlaceError> {
    let wishes = Wishes::of(address, UDP_LISTEN)?;
    if host.host == Host::Any {
        return Ok(Some(udp_packets_anywhere(host.port_or_default(), &wishes.reach)?));
    }
    let at = first(wishes.resolve(host).await?)?;
    if at.ip().is_multicast() || host.host == Host::Ip4(Ipv4Addr::BROADCAST) {
        return Ok(None);
    }
    Ok(Some(udp_packets(at, &wishes.reach)?))
}

/// Whether an address leads to more than one host.
pub(super) fn is_many(to: SocketAddr) -> bool {
    match to.ip() {
        // The broadcast address of a network looks like any other; its last byte is 255 in all but odd ones.
        IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast() || ip.octets()[3] == u8::MAX,
        IpAddr::V6(ip) => ip.is_multicast(),
    }
}

/// A socket that leads to somebody.
pub(super) enum Way {
    Stream(Box<dyn ByteStream>, carrier::Peer),
    Datagrams(OpenUdp, SocketAddr),
}

impl Way {
    /// Connects to `address`.
    pub(super) async fn open(address: &Address, within: Duration) -> Result<Self, PlaceError> {
        match &address.place {
            Place::Tcp(host) => {
                let wishes = Wishes::of(address, TCP_CONNECT)?;
                let connected = to_any(wishes.resolve(host).await?, &wishes, within).await?;
                Ok(Self::Stream(connected.stream, connected.to))
            }
            Place::Tls(host) => {
                let wishes = Wishes::of(address, TLS_CONNECT)?;
                let connector = Connector::new(&ConnectSettings::of(address)?, tls::FOREIGN)?;
                let below = to_any(wishes.resolve(host).await?, &wishes, within).await;
                let below = below.map_err(OpenError::under_tls)?;
                let connected = connector.secure(below, within).await?;
                Ok(Self::Stream(connected.stream, connected.to))
            }
            Place::Unix(name) => {
                Wishes::of(address, UNIX)?;
                let connected = unix::connect(name, within).await?;
                Ok(Self::Stream(connected.stream, connected.to))
            }
            Place::Udp(host) => {
                let wishes = Wishes::of(address, UDP_CONNECT)?;
                let to = first(wishes.resolve(host).await?)?;
                let is_one_host = !is_many(to) && host.host != Host::Ip4(Ipv4Addr::BROADCAST);
                let (from, reach) = (wishes.from(to), &wishes.reach);
                let socket = OpenUdp::towards(to, from, reach, is_one_host)?;
                Ok(Self::Datagrams(socket, to))
            }
            Place::Eth { .. } | Place::Redes { .. } | Place::Name(_) => {
                Err(PlaceError::Scheme { place: address.to_string() })
            }
        }
    }
}

async fn listen_tcp(host: &HostPort, wishes: &Wishes) -> Result<Tcp, PlaceError> {
    Ok(match host.host {
        Host::Any => Tcp::listen_anywhere(host.port_or_default())?,
        Host::Ip4(_) | Host::Ip6(..) | Host::Name(_) => {
            Tcp::listen(first(wishes.resolve(host).await?)?)?
        }
    })
}

/// A dialect's port where the URL names none.
pub(super) fn with_port_of(address: &Address, dialect: &Dialect) -> Address {
    let mut address = address.clone();
    if let Place::Tcp(host) | Place::Udp(host) | Place::Tls(host) = &mut address.place {
        host.port = host.port.or(dialect.port);
    }
    address
}

/// Connects to the first address that answers: a name may lead to several.
async fn to_any(
    addresses: Vec<SocketAddr>,
    wishes: &Wishes,
    within: Duration,
) -> Result<Connected, OpenError> {
    let mut failed = nowhere();
    for to in addresses {
        match tcp::connect_from(wishes.from(to), to, within).await {
            Ok(connected) => return Ok(connected),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn first(addresses: Vec<SocketAddr>) -> Result<SocketAddr, OpenError> {
    addresses.into_iter().next().ok_or_else(nowhere)
}

/// What stands for an error where a host has no address.
fn nowhere() -> OpenError {
    let source = io::ErrorKind::AddrNotAvailable.into();
    OpenError::Io { what: "the host".to_owned(), operation: "find an address", source }
}
