//! Servers in the test's own process: one that lies about the whole of what it sends, and one whose owner does not
//! answer.

use std::sync::Arc;
use std::time::Duration;

use cabo::access::Access;
use cabo::address::Address;
use cabo::endpoint::{Endpoint, Settings};
use cabo::keys::Identity;
use cabo::request::{Answering, Service};
use cabo::server::{Server, ServerSettings, questions};
use cabo::stream::{RecvStream, SendStream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::World;

/// An item of media/1 whose root is not that of its only block (M-7, M-9.2).
#[derive(Debug)]
struct Liar;

const CONTENT: &[u8] = b"hello world\n";
/// What `b3sum` prints for it.
const HASH: &str = "dc5a4edb8240b018124052c330270696f96771a63b45250a5c17d3000e823355";

/// A field or a message whose parts are short: a varint of one byte each for type and length.
fn tagged(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u8::try_from(body.len()).unwrap();
    let length = if length < 64 { vec![length] } else { vec![0x40, length] };
    [&[tag][..], &length, body].concat()
}

fn answer() -> Vec<u8> {
    let hash: Vec<u8> =
        (0..32).map(|at| u8::from_str_radix(&HASH[2 * at..2 * at + 2], 16).unwrap()).collect();
    let time = [&1000_i64.to_be_bytes()[..], &0_u32.to_be_bytes()].concat();
    let item = [
        tagged(3, b"a version of 16B"),
        tagged(8, &(CONTENT.len() as u64).to_be_bytes()),
        tagged(9, &time),
    ];
    let block = [&0_u64.to_be_bytes()[..], &hash, CONTENT].concat();
    let end = tagged(0x0b, &[b'B'; 32]);
    [tagged(0x11, &item.concat()), tagged(0x13, &block), tagged(0x14, &end)].concat()
}

impl Service for Liar {
    fn name(&self) -> &'static str {
        "media/1"
    }

    fn answer(&self, mut send: SendStream, mut recv: RecvStream) -> Answering<'_> {
        Box::pin(async move {
            let mut request = Vec::new();
            recv.read_to_end(&mut request).await?;
            send.write_all(&answer()).await?;
            send.shutdown().await
        })
    }
}

async fn listening() -> (Endpoint, Access, String) {
    let identity = Identity::generate().unwrap();
    let endpoint = Endpoint::new(&identity, Settings::default()).unwrap();
    let address = Address::parse(b"tcp://127.0.0.1:0").unwrap();
    let url = endpoint.listen(&address).await.unwrap().address.to_string();
    (endpoint, Access::new(identity.public_key()), url)
}

#[test]
fn an_owner_who_does_not_answer_refuses_and_the_peer_hears_why() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = World::new();
    let (url, _unanswered) = runtime.block_on(async {
        let (endpoint, access, url) = listening().await;
        let settings =
            ServerSettings { asking_time: Duration::from_secs(2), ..ServerSettings::default() };
        let (ask, asked) = questions();
        let access = access.asking();
        let (server, _events) =
            Server::new(endpoint, access, vec![Arc::new(Liar)], settings, Some(ask));
        tokio::spawn(async move { server.run(std::future::pending()).await });
        (url, asked)
    });
    let done = world.run(&["ls", &url]);
    let print = world.fingerprint("own");
    assert!(done.err.contains(&format!("lets {print} in")), "{done:?}");
    done.failed(4, &["refused", "did not answer", &print]);
}

#[test]
fn a_whole_that_is_not_what_was_promised_is_never_success() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = World::new();
    let url = runtime.block_on(async {
        let (endpoint, access, url) = listening().await;
        let (access, settings) = (access.open(), ServerSettings::default());
        let (server, _events) = Server::new(endpoint, access, vec![Arc::new(Liar)], settings, None);
        tokio::spawn(async move { server.run(std::future::pending()).await });
        url
    });
    for to in ["-", "a.txt"] {
        let done = world.run(&["get", &url, "a.txt", "-o", to]);
        assert!(!done.err.contains("again"), "{done:?}");
        done.failed(5, &["a.txt", "the whole is wrong", HASH]);
    }
    assert!(!world.path("a.txt").exists());
}
