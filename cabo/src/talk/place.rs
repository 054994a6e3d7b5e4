//! From a URL to a socket for foreign programs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cabo_proto::dialect::Dialect;

use crate::address::{Address, Host, Place};
use crate::carrier::open_udp::{Multicast, OpenUdp};
use crate::carrier::tcp::{self, Tcp};
use crate::carrier::unix::{self, Unix};
use crate::carrier::{self, ByteStream, Listener, OpenError, interface_index};
use crate::endpoint::resolve;
use crate::error::ResolveError;

/// What the query of a `udp://` URL may say.
const UDP_WORDS: [&str; 3] = ["if", "ttl", "loop"];

/// Why a URL leads to no socket.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The socket cannot be opened or connected.
    #[error(transparent)]
    Carrier(#[from] OpenError),
    /// The host has no address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The scheme carries no foreign programs.
    #[error("{place}: foreign programs are spoken to over tcp://, udp:// and unix:")]
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
                let listener = match host.host {
                    Host::Any => Tcp::listen_anywhere(host.port_or_default())?,
                    Host::Ip4(_) | Host::Ip6(..) | Host::Name(_) => {
                        Tcp::listen(resolve(host).await?)?
                    }
                };
                Ok(Self::Streams(Arc::new(listener), "tcp"))
            }
            Place::Unix(name) => Ok(Self::Streams(Arc::new(Unix::listen(name)?), "unix")),
            Place::Udp(host) => {
                let multicast = multicast(address)?;
                Ok(Self::Datagrams(match host.host {
                    Host::Any => OpenUdp::listen_anywhere(host.port_or_default())?,
                    Host::Ip4(_) | Host::Ip6(..) | Host::Name(_) => {
                        OpenUdp::listen(resolve(host).await?, &multicast)?
                    }
                }))
            }
            Place::Eth { .. } | Place::Tls(_) | Place::Redes { .. } | Place::Name(_) => {
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
                let connected = tcp::connect(resolve(host).await?, within).await?;
                Ok(Self::Stream(connected.stream, connected.to))
            }
            Place::Unix(name) => {
                let connected = unix::connect(name, within).await?;
                Ok(Self::Stream(connected.stream, connected.to))
            }
            Place::Udp(host) => {
                let to = resolve(host).await?;
                Ok(Self::Datagrams(OpenUdp::towards(to, &multicast(address)?)?, to))
            }
            Place::Eth { .. } | Place::Tls(_) | Place::Redes { .. } | Place::Name(_) => {
                Err(PlaceError::Scheme { place: address.to_string() })
            }
        }
    }
}

/// A dialect's port where the URL names none.
pub(super) fn with_port_of(address: &Address, dialect: &Dialect) -> Address {
    let mut address = address.clone();
    if let Place::Tcp(host) | Place::Udp(host) | Place::Tls(host) = &mut address.place {
        host.port = host.port.or(dialect.port);
    }
    address
}

/// What the query says of multicast.
fn multicast(address: &Address) -> Result<Multicast, PlaceError> {
    let wrong = |problem: String| PlaceError::Query { place: address.to_string(), problem };
    address.query.check(&UDP_WORDS).map_err(|problem| wrong(problem.to_string()))?;
    let text = |key| address.query.get(key).map(String::from_utf8_lossy);
    let interface_index = match text("if") {
        Some(name) => interface_index(&name).map_err(|_| OpenError::no_interface(&name))?,
        None => 0,
    };
    let ttl = match text("ttl") {
        Some(ttl) => Some(
            ttl.parse()
                .ok()
                .filter(|ttl| *ttl < 256)
                .ok_or_else(|| wrong("ttl is 0 to 255".into()))?,
        ),
        None => None,
    };
    let is_looped = match text("loop").as_deref() {
        None => None,
        Some("1" | "on" | "") => Some(true),
        Some("0" | "off") => Some(false),
        Some(_) => return Err(wrong("loop is on or off".into())),
    };
    Ok(Multicast { interface_index, ttl, is_looped })
}
