//! Many clients of one server at once, over every carrier that needs no privilege.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::sync::Arc;
use std::time::Duration;

use cabo::access::Access;
use cabo::address::Address;
use cabo::client::Client;
use cabo::endpoint::{Endpoint, Settings};
use cabo::keys::Identity;
use cabo::server::{Server, ServerSettings};
use cabo::service::echo::Echo;
use cabo::service::media::{BlockRange, Catalogue, ItemPath, Limits, MediaClient, MediaServer};
use tokio::sync::oneshot;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(60);
const CLIENTS: usize = 100;

fn endpoint() -> Endpoint {
    Endpoint::new(&Identity::generate().unwrap(), Settings::default()).unwrap()
}

async fn fetch(address: Address, size: u64) -> blake3::Hash {
    let client = Client::new(endpoint(), None);
    let session = client.connect(&address).await.unwrap();
    let media = MediaClient::new(session.connection.clone());
    let item = ItemPath::new(b"film.bin".as_slice()).unwrap();
    let all = BlockRange { first: 0, count: u64::MAX };
    let mut reader = media.read(&item, None, all, 0).await.unwrap();
    let (mut hasher, mut len) = (blake3::Hasher::new(), 0);
    while let Some(block) = reader.next().await.unwrap() {
        hasher.update(&block.bytes);
        len += block.bytes.len() as u64;
    }
    assert_eq!(len, size);
    session.connection.close(0, "");
    hasher.finalize()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_clients_at_once_get_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let data: Vec<u8> =
        (0..2_500_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(dir.path().join("film.bin"), &data).unwrap();
    let expected = blake3::hash(&data);
    for place in ["udp://127.0.0.1:0", "tcp://127.0.0.1:0", "unix:@cabo-crowd-test"] {
        let endpoint = endpoint();
        let access = Access::new(endpoint.public_key()).open();
        let catalogue = Arc::new(Catalogue::open(dir.path()).unwrap());
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
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| tokio::spawn(fetch(address.clone(), data.len() as u64))).collect();
        let started = std::time::Instant::now();
        for (index, client) in clients.into_iter().enumerate() {
            let hash = timeout(LIMIT, client)
                .await
                .unwrap_or_else(|_| panic!("{place}: client {index} hangs"));
            assert_eq!(hash.unwrap(), expected, "{place}: client {index}");
        }
        println!("{place}: {:?} {:?}", started.elapsed(), server.endpoint().drops());
        stop.send(()).unwrap();
        timeout(LIMIT, running).await.unwrap().unwrap();
        assert_eq!(server.session_count(), 0, "{place}");
    }
}
