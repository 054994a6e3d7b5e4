//! A film that is read from a gateway while the link is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use cabo::access::Access;
use cabo::client::Client;
use cabo::lab::{Host, Lab};
use cabo::request::Service;
use cabo::server::{Server, ServerSettings};
use cabo::service::gateway::{Gateway, GatewaySettings, GatewayStats, SessionSource};
use cabo::service::media::{Catalogue, ItemPath, Limits, MediaServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::place::{LIMIT, Place, byte_at, endpoint, ip, port_of, run};

const FILM_BYTES: u64 = 96 << 20;
/// How long the link is away, in seconds; the environment may say another time.
const AWAY: &str = "CABO_ROAM_AWAY";
const AWAY_SECONDS: u64 = 4;
/// A session outlives so much for sure (transport T-14).
const OUTLIVED: Duration = Duration::from_secs(40);

/// Serves a folder with one film on `host` until the process ends; the port.
fn serve(host: &Host) -> String {
    let (say_port, port) = channel();
    let serving = host.spawn(move || {
        run(async move {
            let folder = tempfile::tempdir().unwrap();
            let film: Vec<u8> = (0..FILM_BYTES).map(byte_at).collect();
            std::fs::write(folder.path().join("film.mp4"), film).unwrap();
            let server = endpoint();
            let listening = server.listen(&"udp://0.0.0.0:0".parse().unwrap()).await.unwrap();
            let catalogue = Catalogue::open(folder.path()).unwrap();
            let media = MediaServer::new(Arc::new(catalogue), Limits::default());
            let access = Access::new(server.public_key()).open();
            let services: Vec<Arc<dyn Service>> = vec![Arc::new(media)];
            let (server, _events) =
                Server::new(server, access, services, ServerSettings::default(), None);
            say_port.send(listening.address.to_string()).unwrap();
            server.run(std::future::pending()).await;
        });
    });
    drop(serving.unwrap()); // it ends with the process
    port_of(&port)
}

/// Plays the film of `server`, counting into `arrived`, and returns what the gateway counted.
async fn play(server: String, arrived: Arc<AtomicU64>) -> GatewayStats {
    let source = SessionSource::new(Client::new(endpoint(), None), server.parse().unwrap(), None);
    let here = "127.0.0.1:0".parse().unwrap();
    let gateway = Arc::new(Gateway::bind(here, source, GatewaySettings::default()).await.unwrap());
    let running = gateway.clone();
    tokio::spawn(async move { running.run(std::future::pending()).await });
    let url = gateway.item_url(&ItemPath::new("film.mp4").unwrap());
    let (host, path) = url.trim_start_matches("http://").split_once('/').unwrap();
    let mut player = TcpStream::connect(host).await.unwrap();
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    player.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(player.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    let mut piece = vec![0; 64 * 1024];
    let mut index = 0;
    while index < FILM_BYTES {
        let len = player.read(&mut piece).await.unwrap();
        assert!(len > 0, "the film ends at {index}");
        for byte in &piece[..len] {
            assert_eq!(*byte, byte_at(index), "byte {index}");
            index += 1;
        }
        arrived.store(index, Relaxed);
    }
    gateway.stats()
}

pub(crate) fn a_film_goes_on_after_the_link_was_gone_for_a_while(lab: &Lab) {
    let away = std::env::var(AWAY).ok().and_then(|text| text.parse().ok());
    let away = Duration::from_secs(away.unwrap_or(AWAY_SECONDS));
    let place = Place::new(lab);
    let bob_is_at = Place::address(&place.bob, "eth0");
    let server = format!("udp://{bob_is_at}:{}", serve(&place.bob));
    let arrived = Arc::<AtomicU64>::default();
    let counts = arrived.clone();
    let player = place.ana.spawn(move || run(play(server, counts))).unwrap();
    let started = Instant::now();
    while arrived.load(Relaxed) < FILM_BYTES / 8 {
        assert!(started.elapsed() < LIMIT && !player.is_finished(), "it does not begin");
        thread::sleep(Duration::from_millis(1));
    }
    ip(&place.ana, "link set eth0 down");
    thread::sleep(away); // the time is what is tried
    assert!(arrived.load(Relaxed) < FILM_BYTES, "it was not over before");
    let network = bob_is_at.rsplit_once('.').unwrap().0;
    ip(&place.ana, "addr flush dev eth0");
    ip(&place.ana, &format!("addr add {network}.77/24 dev eth0"));
    ip(&place.ana, "link set eth0 up");
    let stats = player.join().unwrap().unwrap();
    assert!(stats.retries == 0 || away > OUTLIVED, "in the same session: {stats:?}");
}
