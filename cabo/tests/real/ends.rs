//! A server and its clients, each on its host: runtimes of their own, on threads in that host's namespace.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use cabo::access::Access;
use cabo::address::Address;
use cabo::client::Client;
use cabo::connection::ConnectionStats;
use cabo::endpoint::{Endpoint, Settings};
use cabo::keys::Identity;
use cabo::lab::{Host, LabError, Port};
use cabo::server::{Server, ServerEvent, ServerSettings};
use cabo::service::media::{
    Catalogue, FetchOptions, FetchReport, ItemPath, Limits, MediaClient, MediaServer, Progress,
    Target, fetch,
};
use cabo_proto::session::config::Config;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// The one item that is served.
pub(crate) const ITEM: &str = "film.bin";
const PORT: u16 = 5555;
/// What should take no time at all has this much.
const SOON: Duration = Duration::from_secs(20);

/// Which wire a session takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wire {
    Eth,
    Udp,
    Tcp,
}

impl Wire {
    /// Those on which packets are our own.
    pub(crate) const BOTH: [Self; 2] = [Self::Eth, Self::Udp];

    fn listen(self, server: &Port) -> Address {
        match self {
            Self::Eth => format!("eth://{}:{PORT}", server.name),
            Self::Udp => format!("udp://{}:{PORT}", server.ipv4),
            Self::Tcp => format!("tcp://{}:{PORT}", server.ipv4),
        }
        .parse()
        .unwrap()
    }

    /// Where the interface `from` finds `server`.
    fn towards(self, server: &Port, from: &Port) -> Address {
        let mac = server.mac.map(|byte| format!("{byte:02x}")).join("-");
        match self {
            Self::Eth => format!("eth://{mac}%{}:{PORT}", from.name),
            Self::Udp => format!("udp://{}:{PORT}", server.ipv4),
            Self::Tcp => format!("tcp://{}:{PORT}", server.ipv4),
        }
        .parse()
        .unwrap()
    }
}

fn settings(is_plain: bool) -> Settings {
    Settings { session: Config { is_plain, ..Config::default() }, ..Settings::default() }
}

/// A server that runs until it is asked how it was.
pub(crate) struct Serving {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<usize, LabError>>,
}

impl Serving {
    /// Serves `folder` on `host` over each of `wires`; returns when it listens.
    pub(crate) fn start(
        host: &Host,
        port: &Port,
        wires: &[Wire],
        folder: &Path,
        is_plain: bool,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let places: Vec<Address> = wires.iter().map(|wire| wire.listen(port)).collect();
        let folder = folder.to_owned();
        let serve = move || {
            runtime().block_on(async {
                let endpoint = Endpoint::new(&Identity::generate().unwrap(), settings(is_plain));
                let endpoint = endpoint.unwrap();
                for place in &places {
                    endpoint.listen(place).await.unwrap();
                }
                let catalogue = Arc::new(Catalogue::open(&folder).unwrap());
                let media = Arc::new(MediaServer::new(catalogue, Limits::default()));
                let access = Access::new(endpoint.public_key()).open();
                let (server, mut events) =
                    Server::new(endpoint, access, vec![media], ServerSettings::default(), None);
                ready.send(()).unwrap();
                server.run(async { drop(stopped.await) }).await;
                let mut admitted = 0;
                while let Ok(event) = events.try_recv() {
                    admitted += usize::from(matches!(event, ServerEvent::Admitted(_)));
                }
                admitted
            })
        };
        let thread = host.spawn(serve).unwrap();
        is_ready.recv_timeout(SOON).expect("the server listens");
        Self { stop, thread }
    }

    /// Ends it, and says how many sessions it let in.
    pub(crate) fn stop(self) -> usize {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap().unwrap()
    }
}

/// One client that fetches the item once, over one connection.
pub(crate) struct Fetching<'a> {
    pub(crate) host: &'a Host,
    pub(crate) from: &'a Port,
    pub(crate) server: &'a Port,
    pub(crate) wire: Wire,
    pub(crate) is_plain: bool,
    pub(crate) limit: Duration,
}

impl Fetching<'_> {
    /// Fetches into a folder of its own and compares with `root`; everything that it waits for has to come within the
    /// limit.
    pub(crate) fn run(
        &self,
        root: blake3::Hash,
        on_progress: impl Fn(Progress) + Send + Sync,
    ) -> (FetchReport, ConnectionStats) {
        let address = self.wire.towards(self.server, self.from);
        let item = ItemPath::new(ITEM).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let target = Arc::new(Target::open(folder.path()).unwrap());
        let work = async {
            let endpoint = Endpoint::new(&Identity::generate().unwrap(), settings(self.is_plain));
            let client = Client::new(endpoint.unwrap(), None);
            let session = timeout(SOON, client.connect(&address)).await.expect("in time").unwrap();
            let media = MediaClient::new(session.connection.clone());
            let options = FetchOptions::default();
            let report = fetch(&media, &item, &target, &item, &options, on_progress).await.unwrap();
            let stats = session.connection.stats();
            timeout(SOON, session.connection.say_goodbye(0, "")).await.expect("in time");
            (report, stats)
        };
        let done = self.host.run(|| runtime().block_on(async { timeout(self.limit, work).await }));
        let (report, stats) = done.unwrap().unwrap_or_else(|_| panic!("{:?} hangs", self.wire));
        assert_eq!(report.root.0, *root.as_bytes(), "{:?}", self.wire);
        assert_eq!(report.resumed_bytes, 0, "{:?}", self.wire);
        (report, stats)
    }
}

/// Its helpers are on the host of the thread that builds it.
fn runtime() -> runtime::Runtime {
    runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Writes the item, `len` bytes that look like noise, into `folder`, and returns what `b3sum` would print.
pub(crate) fn write_noise(folder: &Path, len: u64) -> blake3::Hash {
    use std::io::Write;
    let mut noise = blake3::Hasher::new().update(b"a film").finalize_xof();
    let mut hasher = blake3::Hasher::new();
    let mut file = std::fs::File::create(folder.join(ITEM)).unwrap();
    let mut block = vec![0; 1 << 20];
    let mut left = len;
    while left > 0 {
        let count = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        noise.fill(&mut block[..count]);
        hasher.update(&block[..count]);
        file.write_all(&block[..count]).unwrap();
        left -= count as u64;
    }
    hasher.finalize()
}
