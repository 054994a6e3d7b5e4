//! The stage of a scene: two hosts with a bad cable between them, and a server on one of them.
//!
//! Where namespaces are forbidden both ends are this machine, and only carriers that need no privilege play.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use cabo::address::{Address, Mac};
use cabo::connection::Connection;
use cabo::endpoint::{Endpoint, Settings};
use cabo::keys::{Fingerprint, Identity};
use cabo::lab::{Cable, CableConfig, Host, Lab};
use cabo::relay::RelayConfig;
use cabo::request::{Service as _, read_opening};
use cabo::service::media::{Catalogue, Limits, MediaServer, SERVICE};
use serde_json::Value;
use tokio::sync::oneshot;

use super::bad_cable::BadCable;
use super::samples::Folder;

const LISTENING_TIME: Duration = Duration::from_secs(5);
const OPENING_TIME: Duration = Duration::from_secs(5);

/// Two hosts, joined.
pub(super) struct Lan {
    ana: Host,
    bob: Host,
    cable: Cable,
    relay: BadCable,
}

impl Lan {
    /// Builds them and starts the relay.
    pub(super) fn build(lab: &Lab, config: &RelayConfig, mtu_bytes: u32) -> anyhow::Result<Self> {
        let (ana, bob) = (lab.host("ana")?, lab.host("bob")?);
        let laying = CableConfig { mtu_bytes, is_relayed: true, offloads: None };
        let cable = lab.cable(&ana, "eth0", &bob, "eth0", &laying)?;
        let (to_ana, to_bob) = cable.middle.as_ref().context("the cable has no middle")?;
        let relay = BadCable::lay(lab.room(), (to_ana, to_bob), config)?;
        Ok(Self { ana, bob, cable, relay })
    }

    /// Takes the cable away and says what it did.
    pub(super) fn take_down(self) -> anyhow::Result<Value> {
        self.relay.remove()
    }

    pub(super) fn describe(&self) -> [String; 2] {
        let line = |host: &Host, port: &cabo::lab::Port| {
            format!("host {}  {}  {}  {}", host.name(), port.name, port.ipv4, Mac(port.mac))
        };
        [line(&self.ana, &self.cable.a), line(&self.bob, &self.cable.b)]
    }
}

/// Where the two sides are.
pub(super) enum Place {
    /// On two hosts.
    Lan(Box<Lan>),
    /// Both here.
    Loopback,
}

impl Place {
    /// What the server listens on, by carrier.
    fn listens_on(&self, folder: &Folder) -> anyhow::Result<Vec<Address>> {
        let unix = format!("unix://{}", folder.socket().display());
        let places = match self {
            Self::Lan(lan) => {
                let (port, ip) = (&lan.cable.a.name, lan.cable.a.ipv4);
                vec![format!("eth://{port}"), format!("udp://{ip}"), format!("tcp://{ip}"), unix]
            }
            Self::Loopback => {
                vec!["udp://127.0.0.1:0".to_owned(), "tcp://127.0.0.1:0".to_owned(), unix]
            }
        };
        places.iter().map(|place| Ok(Address::parse(place.as_bytes())?)).collect()
    }

    /// How the other side gets to where the server listens.
    fn leads_to(&self, listening: Address) -> anyhow::Result<Address> {
        match self {
            Self::Lan(lan) if listening.scheme() == "eth" => {
                let (mac, port) = (Mac(lan.cable.a.mac), &lan.cable.b.name);
                Ok(Address::parse(format!("eth://{mac}%{port}").as_bytes())?)
            }
            Self::Lan(_) | Self::Loopback => Ok(listening),
        }
    }

    /// The address and the interface of the side of the server.
    pub(super) fn receives_at(&self) -> (String, String) {
        match self {
            Self::Lan(lan) => (lan.cable.a.ipv4.to_string(), lan.cable.a.name.clone()),
            Self::Loopback => ("127.0.0.1".to_owned(), "lo".to_owned()),
        }
    }

    /// The interface by which the other side reaches it.
    pub(super) fn sends_by(&self) -> String {
        match self {
            Self::Lan(lan) => lan.cable.b.name.clone(),
            Self::Loopback => "lo".to_owned(),
        }
    }

    /// Segments that the side of the client sent again, where that can be known.
    pub(super) fn segments_resent(&self) -> Option<u64> {
        match self {
            Self::Lan(lan) => segments_resent(&lan.bob),
            Self::Loopback => None,
        }
    }

    /// Starts a thread on the side of the client.
    pub(super) fn spawn_client(&self, work: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
        match self {
            Self::Lan(lan) => drop(lan.bob.spawn(work)?),
            Self::Loopback => drop(thread::Builder::new().name("client".to_owned()).spawn(work)?),
        }
        Ok(())
    }

    /// Starts a thread on the side of the server.
    pub(super) fn spawn_server(&self, work: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
        match self {
            Self::Lan(lan) => drop(lan.ana.spawn(work)?),
            Self::Loopback => drop(thread::Builder::new().name("server".to_owned()).spawn(work)?),
        }
        Ok(())
    }
}

/// A server on a thread of its own; it ends when this is dropped.
pub(super) struct Serving {
    /// How to get there, by carrier.
    pub(super) addresses: Vec<Address>,
    /// How often it sent something again.
    pub(super) resent: Resent,
    _stop: oneshot::Sender<()>,
}

impl Serving {
    /// Serves `folder` to whoever proves to be `guest`, and to nobody else.
    pub(super) fn start(
        place: &Place,
        folder: &Folder,
        identity: Arc<Identity>,
        guest: Fingerprint,
    ) -> anyhow::Result<Self> {
        let sessions = Arc::new(Sessions::default());
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let job = Job {
            catalogue: folder.catalogue(),
            identity,
            guest,
            listen: place.listens_on(folder)?,
            sessions: Arc::clone(&sessions),
        };
        place.spawn_server(move || job.run(ready, stopped))?;
        let listening =
            is_ready.recv_timeout(LISTENING_TIME).context("the server does not start")??;
        let addresses = listening
            .into_iter()
            .map(|address| place.leads_to(address))
            .collect::<anyhow::Result<_>>()?;
        let host = match place {
            Place::Lan(lan) => Some(lan.ana.clone()),
            Place::Loopback => None,
        };
        Ok(Self { addresses, resent: Resent { sessions, host }, _stop: stop })
    }
}

/// The session of each carrier that was let in last.
#[derive(Default)]
struct Sessions(Mutex<BTreeMap<&'static str, Connection>>);

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Knows how many packets the server sent again.
#[derive(Clone)]
pub(super) struct Resent {
    sessions: Arc<Sessions>,
    host: Option<Host>,
}

impl Resent {
    /// So far, over `carrier`; none where nothing is ever sent again, or where that cannot be known.
    pub(super) fn packets(&self, carrier: &str) -> Option<u64> {
        if carrier == "tcp" {
            return segments_resent(self.host.as_ref()?);
        }
        self.sessions.lock().get(carrier)?.stats().packets.map(|packets| packets.packets_lost)
    }
}

/// Segments that the kernel sent again. It counts for the whole host; on a host of our own that is one connection.
fn segments_resent(host: &Host) -> Option<u64> {
    let snmp = host.run(|| fs::read_to_string("/proc/thread-self/net/snmp")).ok()?.ok()?;
    retransmitted_segments(&snmp)
}

fn retransmitted_segments(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter(|line| line.starts_with("Tcp:")).map(str::split_whitespace);
    let mut columns = lines.next()?.zip(lines.next()?);
    columns.find(|(name, _)| *name == "RetransSegs").and_then(|(_, count)| count.parse().ok())
}

/// What the server's thread needs.
struct Job {
    catalogue: PathBuf,
    identity: Arc<Identity>,
    guest: Fingerprint,
    listen: Vec<Address>,
    sessions: Arc<Sessions>,
}

impl Job {
    fn run(
        self,
        ready: std::sync::mpsc::Sender<anyhow::Result<Vec<Address>>>,
        stopped: oneshot::Receiver<()>,
    ) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(ready.send(Err(error.into()))),
        };
        runtime.block_on(async {
            let (endpoint, media) = match self.prepare().await {
                Ok((endpoint, media, listening)) => {
                    let _ = ready.send(Ok(listening)); // nobody waits any more: we shall be stopped soon
                    (endpoint, media)
                }
                Err(error) => return drop(ready.send(Err(error))),
            };
            tokio::select! {
                () = self.welcome(&endpoint, &media) => {}
                _ = stopped => {}
            }
        });
        runtime.shutdown_timeout(Duration::from_millis(100));
    }

    async fn prepare(&self) -> anyhow::Result<(Endpoint, MediaServer, Vec<Address>)> {
        let catalogue = Arc::new(Catalogue::open(&self.catalogue)?);
        let endpoint = Endpoint::new(&self.identity, Settings::default())?;
        let mut listening = Vec::new();
        for address in &self.listen {
            listening.push(endpoint.listen(address).await?.address);
        }
        Ok((endpoint, MediaServer::new(catalogue, Limits::default()), listening))
    }

    async fn welcome(&self, endpoint: &Endpoint, media: &MediaServer) {
        loop {
            let connection = endpoint.accept().await;
            if connection.peer_key().map(Fingerprint::of) != Some(self.guest) {
                connection.refuse("the demo lets only its own client in");
                continue;
            }
            connection.admit();
            self.sessions.lock().insert(connection.carrier(), connection.clone());
            tokio::spawn(answer_all(connection, media.clone()));
        }
    }
}

/// Answers the requests of one session.
async fn answer_all(connection: Connection, media: MediaServer) {
    while let Ok((send, mut recv)) = connection.accept().await {
        let media = media.clone();
        tokio::spawn(async move {
            let opening = tokio::time::timeout(OPENING_TIME, read_opening(&mut recv)).await;
            if matches!(opening, Ok(Ok(name)) if name == SERVICE) {
                let _ = media.answer(send, recv).await; // the client has heard of it
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_count_is_found_by_its_name() {
        let snmp =
            "Ip: Forwarding\nIp: 1\nTcp: RtoMin InSegs RetransSegs InErrs\nTcp: 200 10 7 0\n";
        assert_eq!(retransmitted_segments(snmp), Some(7));
        assert_eq!(retransmitted_segments("Tcp: RtoMin\nTcp: 200\n"), None);
        assert_eq!(retransmitted_segments(""), None);
    }
}
