//! Listening: an address becomes a carrier, and the carrier a driver; and what all doors together have to say.
//!
//! Neighbours: `mod.rs` starts the drivers, `connect.rs` is the other side.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cabo_proto::session::endpoint::Dropped;
use tokio::time::timeout;

use super::packets::{Answer, Held};
use super::{Endpoint, lock, lookup, records};
use crate::address::{Address, DEFAULT_PORT, Host, HostPort, Name, Place, Query};
use crate::carrier::ether::Ether;
use crate::carrier::tcp::Tcp;
use crate::carrier::tls::{self, ListenSettings, Tls};
use crate::carrier::udp::Udp;
use crate::carrier::unix::Unix;
use crate::carrier::{Datagrams, Listener, OpenError, Peer, renew_all};
use crate::error::ListenError;

/// A carrier has this long to close its socket, and it is looked so often whether it has.
const CLOSE_TIME: Duration = Duration::from_secs(1);
const CLOSE_POLL: Duration = Duration::from_millis(1);

/// What became of an address that was listened on.
#[derive(Clone, Debug)]
pub struct Listening {
    /// The address with the port that it really got.
    pub address: Address,
    /// A limit of this machine that costs speed, and what raises it.
    pub advice: Option<String>,
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
    /// Listens on `address`.
    pub async fn listen(&self, address: &Address) -> Result<Listening, ListenError> {
        address.check_listen()?;
        match &address.place {
            Place::Udp(host) => {
                Ok(self.listen_packets(Box::new(open_udp(host).await?), "udp", address))
            }
            Place::Eth { interface, port, .. } => {
                let carrier = Ether::open(interface.as_str(), port.unwrap_or(DEFAULT_PORT), true)?;
                Ok(self.listen_packets(Box::new(carrier), "eth", address))
            }
            Place::Tcp(host) => {
                let listener = listen_tcp(host).await?;
                Ok(self.listen_records(Arc::new(listener), "tcp", address))
            }
            Place::Tls(host) => {
                let settings = ListenSettings::all_of(address)?;
                let listener = Tls::over(listen_tcp(host).await?, &settings, tls::CABO)?;
                Ok(self.listen_records(Arc::new(listener), "tls", address))
            }
            Place::Unix(name) => {
                Ok(self.listen_records(Arc::new(Unix::listen(name)?), "unix", address))
            }
            Place::Redes { .. } | Place::Name(_) => {
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
        let endpoint = self.start_packets(carrier, scheme, true, None);
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
        let is_secure = listener.promises().secure;
        lock(&self.listeners).push(Arc::downgrade(&listener));
        (self.spawn)(Box::pin(records::accept_loop(
            listener,
            self.record_settings(scheme, is_secure),
            self.entrance.clone(),
            self.incoming.clone(),
        )));
        listening
    }

    /// Answers on every Ethernet link listened on so far who serves there.
    pub fn answer_discovery(&self, fingerprint: [u8; 32]) {
        self.answer_discovery_as(fingerprint, None);
    }

    /// The same, with a name to be found by.
    pub fn answer_discovery_as(&self, fingerprint: [u8; 32], name: Option<&Name>) {
        for endpoint in lock(&self.listening).iter() {
            if let Some(port) = endpoint.local().port() {
                let versions = vec![self.settings.session.version()];
                endpoint.answer_discovery(
                    Answer { from: endpoint.local(), port, fingerprint, name: name.cloned() },
                    versions,
                );
            }
        }
    }

    /// Reads the certificates and keys of all `tls://` doors again, for sessions that come from now on: where each door is,
    /// or why its old ones stay in force.
    pub fn renew(&self) -> Vec<Result<Peer, OpenError>> {
        renew_all(&lock(&self.listeners))
    }

    /// Takes no more sessions.
    pub fn drain(&self) {
        lock(&self.listening).iter().for_each(|endpoint| endpoint.drain());
        self.entrance.drain();
    }

    /// Closes the sockets of datagram carriers that were listened on, whatever is still on them, and waits until they
    /// are: their ports are free then.
    pub(crate) async fn close(&self) {
        let held = std::mem::take(&mut *lock(&self.listening));
        let closing: Vec<_> = held.into_iter().map(Held::close).collect();
        let gone = async {
            while closing.iter().any(|carrier| carrier.strong_count() > 0) {
                tokio::time::sleep(CLOSE_POLL).await;
            }
        };
        let _ = timeout(CLOSE_TIME, gone).await; // its thread is stuck
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
}

async fn listen_tcp(host: &HostPort) -> Result<Tcp, ListenError> {
    Ok(match &host.host {
        Host::Any => Tcp::listen_anywhere(host.port_or_default())?,
        Host::Ip4(_) | Host::Ip6(..) | Host::Name(_) => Tcp::listen(resolve_local(host).await?)?,
    })
}

/// The socket of a `udp://` URL.
async fn open_udp(host: &HostPort) -> Result<Udp, ListenError> {
    Ok(match &host.host {
        Host::Any => Udp::open_anywhere(None, host.port_or_default())?,
        Host::Ip4(_) | Host::Ip6(..) | Host::Name(_) => Udp::open(resolve_local(host).await?)?,
    })
}

/// `address` with the port that it really got, for others to connect to: without the files of ours that a `tls://`
/// address names.
pub(crate) fn with_port(address: &Address, got: Option<u16>) -> Address {
    let mut address = address.clone();
    if matches!(address.place, Place::Tls(_)) {
        address.query = Query::default();
    }
    match &mut address.place {
        Place::Udp(host) | Place::Tcp(host) | Place::Tls(host) => host.port = got.or(host.port),
        Place::Eth { port, .. } => *port = got.or(*port),
        Place::Unix(_) | Place::Redes { .. } | Place::Name(_) => {}
    }
    address
}

pub(crate) async fn resolve_local(host: &HostPort) -> Result<SocketAddr, ListenError> {
    lookup(host).await.map_err(|source| ListenError::Resolve { host: host.to_string(), source })
}
