//! Sessions over real sockets: the same list of behaviours on every carrier that needs no privilege.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::time::Duration;

use cabo::address::Address;
use cabo::connection::Connection;
use cabo::endpoint::{Endpoint, Settings};
use cabo::keys::Identity;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(20);

fn endpoint(is_plain: bool) -> Endpoint {
    let mut settings = Settings::default();
    settings.session.is_plain = is_plain;
    Endpoint::new(&Identity::generate().unwrap(), settings).unwrap()
}

fn places() -> (tempfile::TempDir, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let unix = format!("unix://{}", dir.path().join("s").display());
    let places =
        vec!["udp://127.0.0.1:0".into(), "udp://[::1]:0".into(), "tcp://127.0.0.1:0".into(), unix];
    (dir, places)
}

async fn pair(place: &str, is_plain: bool) -> (Endpoint, Endpoint, Connection, Connection) {
    let (server, client) = (endpoint(is_plain), endpoint(is_plain));
    let listening = server.listen(&place.parse().unwrap()).await.unwrap();
    let (near, far) = timeout(LIMIT, async {
        tokio::join!(client.connect(&listening.address, None), server.accept())
    })
    .await
    .unwrap_or_else(|_| panic!("{place}: no session"));
    let near = near.unwrap_or_else(|error| panic!("{place}: {error}"));
    if !is_plain {
        assert_eq!(near.peer_key(), Some(server.public_key()), "{place}");
        assert_eq!(far.peer_key(), Some(client.public_key()), "{place}");
    }
    (server, client, near, far)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn megabytes_cross_whole_both_ways() {
    let (_dir, places) = places();
    for place in places {
        for is_plain in [false, true] {
            let place = if place.starts_with("unix") && is_plain {
                format!("{place}-plain")
            } else {
                place.clone()
            };
            let (_server, _client, near, far) = pair(&place, is_plain).await;
            far.admit();
            let data: Vec<u8> = (0..20_000_000_u32)
                .map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8)
                .collect();
            let echo = tokio::spawn(async move {
                let (mut send, mut recv) = far.accept().await.unwrap();
                tokio::io::copy(&mut recv, &mut send).await.unwrap();
                send.shutdown().await.unwrap();
                far.closed().await
            });
            let (mut send, mut recv) = near.open().await.unwrap();
            let started = std::time::Instant::now();
            let sent = data.clone();
            let writing = tokio::spawn(async move {
                send.write_all(&sent).await.unwrap();
                send.shutdown().await.unwrap();
                send
            });
            let mut back = Vec::new();
            timeout(LIMIT, recv.read_to_end(&mut back))
                .await
                .unwrap_or_else(|_| panic!("{place} plain {is_plain} hangs"))
                .unwrap();
            println!("{place} plain {is_plain}: {:?} {:?}", started.elapsed(), near.stats());
            assert!(
                back == data,
                "{place} plain {is_plain}: {} of {} bytes",
                back.len(),
                data.len()
            );
            writing.await.unwrap();
            near.close(0, "done");
            assert!(timeout(LIMIT, echo).await.unwrap().unwrap().is_clean(), "{place}");
        }
    }
}

#[tokio::test]
async fn an_address_without_a_host_is_heard_on_both_families() {
    for scheme in ["udp", "tcp"] {
        let server = endpoint(false);
        let anywhere = format!("{scheme}://:0").parse().unwrap();
        let listening = server.listen(&anywhere).await.unwrap().address.to_string();
        let port = listening.rsplit(':').next().unwrap();
        for host in ["127.0.0.1", "[::1]", "127.0.0.2"] {
            let client = endpoint(false);
            let address = format!("{scheme}://{host}:{port}").parse().unwrap();
            let both = async { tokio::join!(client.connect(&address, None), server.accept()) };
            let (near, far) = timeout(LIMIT, both).await.unwrap_or_else(|_| panic!("{address}"));
            let from = far.from().socket_addr().unwrap();
            assert_eq!(from.is_ipv4(), host.starts_with("127."), "{address}: {from}");
            assert!(from.ip().is_loopback(), "{address}: {from}");
            far.admit();
            near.unwrap().admitted().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_refused_peer_hears_why() {
    let (_dir, places) = places();
    for place in places {
        let (_server, _client, near, far) = pair(&place, false).await;
        far.refuse("not today");
        let ended = timeout(LIMIT, near.closed()).await.unwrap_or_else(|_| panic!("{place} hangs"));
        assert!(ended.to_string().contains("refused: not today"), "{place}: {ended}");
    }
}

#[tokio::test]
async fn a_stranger_on_tcp_gets_one_readable_line() {
    let server = endpoint(false);
    let listening = server.listen(&"tcp://127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address: Address = listening.address;
    let text = address.to_string();
    let mut stream =
        tokio::net::TcpStream::connect(text.trim_start_matches("tcp://")).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(LIMIT, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.contains("cabo/1") && answer.lines().count() == 1, "{answer:?}");
}
