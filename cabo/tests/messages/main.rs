//! Cabo peers of `talk`: messages, requests and their ends on every carrier, beside foreign programs on the same port.
#![allow(clippy::unwrap_used, reason = "a test stops where it is surprised")]

mod again;
mod blocking;
mod ether;
mod guests;
mod hostile;
#[path = "../../../tests/needs.rs"]
mod needs;
mod requests;
mod same_port;
mod tls;

use std::time::Duration;

use cabo::address::{Address, Place};
use cabo::client;
use cabo::endpoint::{self, Endpoint};
use cabo::keys::Identity;
use cabo::keys::certificate::self_signed;
use cabo::proto::dialect::Dialect;
use cabo::talk::{Client, Message, Peer, Peers, Server, Settings};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// No test waits longer for what should be there at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server that runs until it is told to stop.
struct Running {
    at: Vec<Address>,
    peers: Peers,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(mut server: Server) -> Self {
        let (peers, mut at) = (server.peers(), server.listen().await.unwrap());
        for address in at.iter_mut().filter(|address| matches!(address.place, Place::Tls(_))) {
            address.query.set("verify", b"no"); // `tls` looks at certificates
        }
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(server.serve(async { stopped.await.unwrap_or_default() }));
        Self { at, peers, stop, task }
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        soon("the server's end", self.task).await.unwrap();
    }
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} does not come"))
}

/// A server with an identity of its own, which anyone may enter.
fn open_at<U: AsRef<str>>(urls: impl IntoIterator<Item = U>, dialect: &str) -> Server {
    let server = Server::bind(urls).unwrap().identity(Identity::generate().unwrap());
    server.access(|access| access.open()).settings(settings(dialect))
}

fn settings(dialect: &str) -> Settings {
    Settings { dialect: Dialect::parse(dialect).unwrap().into(), ..Settings::default() }
}

fn echo(message: Message, peer: &Peer) {
    peer.send_back(&message).unwrap();
}

/// A client with an identity of its own, which knows nobody.
fn stranger() -> client::Client {
    let mut settings = endpoint::Settings::default();
    settings.session.keep_alive = true;
    let identity = Identity::generate().unwrap();
    client::Client::new(Endpoint::new(&identity, settings).unwrap(), None)
}

async fn connect(address: &Address) -> Client {
    let over = stranger();
    let client = Client::connect_over(&over, address, Settings::default());
    soon("the connection", client).await.unwrap_or_else(|error| panic!("{address}: {error}"))
}

/// URLs of every carrier that needs no privilege; inside a namespace of one's own, of the one that does.
fn urls() -> (tempfile::TempDir, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    if std::env::var_os(ether::INSIDE).is_some() {
        return (dir, vec!["eth://lo:5999".into()]);
    }
    let unix = format!("unix://{}", dir.path().join("s").display());
    let (made, file) = (self_signed(&["127.0.0.1"], 1).unwrap(), dir.path().join("c.pem"));
    std::fs::write(&file, made.certificate + &made.key).unwrap();
    let tls = format!("tls://127.0.0.1:0?cert={}", file.display());
    (dir, vec!["tcp://127.0.0.1:0".into(), "udp://127.0.0.1:0".into(), unix, tls])
}

async fn next(client: &mut Client) -> Message {
    soon("a message", client.receiver.next()).await.unwrap().expect("a message before the end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_every_size_come_back_in_order_on_every_carrier() {
    let (_dir, urls) = urls();
    let server = Running::start(open_at(urls, "raw").on_receive(echo)).await;
    for address in &server.at {
        let mut client = connect(address).await;
        for len in [0_usize, 1, 63, 64, 1000, 16_384, 300_000, 3_000_000] {
            let payload: Vec<u8> = (0..len).map(|at| ((at * 31) >> 7) as u8).collect();
            client.sender.send_as("size", &payload).await.unwrap();
            let back = next(&mut client).await;
            assert!(back.bytes() == &payload, "{address}: {len} bytes");
            assert_eq!(back.kind(), "size");
        }
        for number in 0..10_000_u32 {
            client.sender.send(&number.to_be_bytes()).await.unwrap();
            if number % 100 == 99 {
                for wanted in number - 99..=number {
                    assert_eq!(next(&mut client).await.bytes()[..], wanted.to_be_bytes());
                }
            }
        }
        client.close().await.unwrap();
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_before_the_end_arrives() {
    let (_dir, urls) = urls();
    let (tell, told) = std::sync::mpsc::channel();
    let gone = tell.clone();
    let server = open_at(urls, "raw")
        .on_receive(move |message, _| tell.send(message.bytes().len().to_string()).unwrap())
        .on_close(move |_, why| gone.send(why.to_string()).unwrap());
    let server = Running::start(server).await;
    for address in &server.at {
        let mut client = connect(address).await;
        for _ in 0..30 {
            client.sender.send(&[7; 100_000]).await.unwrap();
        }
        soon("the end", client.close()).await.unwrap();
        let heard: Vec<String> = (0..31).map(|_| told.recv_timeout(PATIENCE).unwrap()).collect();
        assert!(heard[..30].iter().all(|len| len == "100000"), "{address}: {heard:?}");
        assert_eq!(heard[30], "closed", "{address}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_some_and_all_are_sent_to() {
    let (_dir, urls) = urls();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let server = open_at(urls, "raw").on_connect(move |peer| {
        assert!(peer.is_cabo() && peer.fingerprint().is_some());
        tell.send(peer.number()).unwrap();
    });
    let server = Running::start(server).await;
    let mut clients = Vec::new();
    for address in server.at.iter().cycle().take(6) {
        let client = connect(address).await;
        let number = soon("the peer", told.recv()).await.unwrap();
        clients.push((number, client));
    }
    assert_eq!(server.peers.len(), 6);
    assert!(server.peers.send_all("all").is_empty());
    let (third, odd) = (clients[2].0, |peer: &Peer| peer.number() % 2 == 1);
    assert!(server.peers.send_some(odd, |peer| peer.send_as("odd", "some")).is_empty());
    server.peers.get(third).unwrap().send("one").unwrap();
    server.peers.list().iter().for_each(|peer| peer.send("end").unwrap());
    for (number, client) in &mut clients {
        let mut heard = Vec::new();
        while heard.last().is_none_or(|last| last != "end") {
            heard.push(String::from_utf8(next(client).await.bytes().to_vec()).unwrap());
        }
        let mut wanted = vec!["all"];
        wanted.extend((*number % 2 == 1).then_some("some"));
        wanted.extend((*number == third).then_some("one"));
        wanted.push("end");
        assert_eq!(heard, wanted, "{number}");
    }
    server.stop().await;
    for (_, client) in &mut clients {
        assert!(soon("the end", client.receiver.next()).await.unwrap().is_none());
    }
}
