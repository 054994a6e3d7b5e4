//! Many clients of one server at once, and strangers and slow ones among them, over every carrier that needs no
//! privilege.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod flood;
mod full;
mod slow;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cabo::access::Access;
use cabo::address::Address;
use cabo::client::{Client, Session};
use cabo::endpoint::{Endpoint, Settings};
use cabo::keys::Identity;
use cabo::server::{Server, ServerSettings};
use cabo::service::echo::Echo;
use cabo::service::media::{
    BlockRange, BlockReader, Catalogue, ItemPath, Limits, MediaClient, MediaServer,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(crate) const LIMIT: Duration = Duration::from_secs(60);
const CLIENTS: usize = 100;

pub(crate) fn endpoint() -> Endpoint {
    Endpoint::new(&Identity::generate().unwrap(), Settings::default()).unwrap()
}

/// A server of `film.bin` that lets anyone in.
pub(crate) struct Running {
    pub(crate) server: Arc<Server>,
    pub(crate) address: Address,
    pub(crate) hash: blake3::Hash,
    size: u64,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Running {
    pub(crate) async fn start(place: &str, size: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data: Vec<u8> =
            (0..size).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        std::fs::write(folder.path().join("film.bin"), &data).unwrap();
        let endpoint = endpoint();
        let access = Access::new(endpoint.public_key()).open();
        let catalogue = Arc::new(Catalogue::open(folder.path()).unwrap());
        let media = Arc::new(MediaServer::new(catalogue, Limits::default()));
        let (server, _events) = Server::new(
            endpoint,
            access,
            vec![media, Arc::new(Echo)],
            ServerSettings::default(),
            None,
        );
        let address = server.endpoint().listen(&place.parse().unwrap()).await.unwrap().address;
        let server = Arc::new(server);
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn({
            let server = server.clone();
            async move { server.run(async { drop(stopped.await) }).await }
        });
        let hash = blake3::hash(&data);
        Self { server, address, hash, size: size.into(), stop, running, _folder: folder }
    }

    /// It ends, and holds no session any more.
    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        timeout(LIMIT, self.running).await.unwrap().unwrap();
        assert_eq!(self.server.session_count(), 0, "{}", self.address);
    }

    /// One client that reads the film to its end; what it got has the hash that it should have.
    pub(crate) fn spawn_client(&self) -> JoinHandle<()> {
        let (address, size, hash) = (self.address.clone(), self.size, self.hash);
        tokio::spawn(async move {
            let reading = Reading::start(address).await;
            assert_eq!(reading.finish().await, (size, hash));
        })
    }
}

/// A client that reads the film.
pub(crate) struct Reading {
    _client: Client,
    session: Session,
    reader: BlockReader,
    hasher: blake3::Hasher,
    len: u64,
}

impl Reading {
    pub(crate) async fn start(address: Address) -> Self {
        let client = Client::new(endpoint(), None);
        let session = client.connect(&address).await.unwrap();
        let media = MediaClient::new(session.connection.clone());
        let item = ItemPath::new(b"film.bin".as_slice()).unwrap();
        let all = BlockRange { first: 0, count: u64::MAX };
        let reader = media.read(&item, None, all, 0).await.unwrap();
        Self { _client: client, session, reader, hasher: blake3::Hasher::new(), len: 0 }
    }

    /// The next block; false at the end.
    pub(crate) async fn read_block(&mut self) -> bool {
        let Some(block) = self.reader.next().await.unwrap() else { return false };
        self.hasher.update(&block.bytes);
        self.len += block.bytes.len() as u64;
        true
    }

    pub(crate) async fn finish(mut self) -> (u64, blake3::Hash) {
        while self.read_block().await {}
        self.session.connection.close(0, "");
        (self.len, self.hasher.finalize())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_clients_at_once_get_every_byte() {
    let unix = format!("unix:@cabo-crowd-{}", std::process::id());
    for place in ["udp://127.0.0.1:0", "tcp://127.0.0.1:0", &unix] {
        let running = Running::start(place, 2_500_000).await;
        let clients: Vec<_> = (0..CLIENTS).map(|_| running.spawn_client()).collect();
        let started = Instant::now();
        for (index, client) in clients.into_iter().enumerate() {
            timeout(LIMIT, client)
                .await
                .unwrap_or_else(|_| panic!("{place}: client {index} hangs"))
                .unwrap_or_else(|error| panic!("{place}: client {index}: {error}"));
        }
        println!("{place}: {:?} {:?}", started.elapsed(), running.server.endpoint().drops());
        running.stop().await;
    }
}
