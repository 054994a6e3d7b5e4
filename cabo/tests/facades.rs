//! The same client for who blocks, and for who composes streams and sinks.
#![allow(clippy::unwrap_used, reason = "a test stops where it is surprised")]

use std::future::poll_fn;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use cabo::address::Address;
use cabo::proto::dialect::Dialect;
use cabo::talk::blocking::{self, BlockingError};
use cabo::talk::{Client, Server, Settings};
use futures_core::Stream as _;
use futures_sink::Sink as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PATIENCE: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_millis(20);

/// A foreign server for one client, and its URL: answers each line when it is told to.
fn answering() -> (String, mpsc::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    let (go, going) = mpsc::channel();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        while let (Some(line), Ok(())) = (lines.next(), going.recv()) {
            { &stream }.write_all(format!("{}!\n", line.unwrap()).as_bytes()).unwrap();
        }
    });
    (url, go)
}

fn lines() -> Dialect {
    Dialect::parse("lines").unwrap()
}

fn a_blocking_conversation() {
    let (url, go) = answering();
    let mut client = blocking::Client::connect(&url, lines()).unwrap();
    assert_eq!(format!("tcp://{}", client.to()), url);
    go.send(()).unwrap();
    let answer = client.request("hola", PATIENCE).unwrap();
    assert_eq!(answer.payload(), "hola!");
    client.send("mundo").unwrap();
    let nothing = client.recv(SOON).unwrap_err();
    assert_eq!(nothing.to_string(), "nothing came within 20ms");
    go.send(()).unwrap();
    assert_eq!(client.recv(PATIENCE).unwrap().payload(), "mundo!", "the conversation goes on");
    client.finish().unwrap();
    assert!(matches!(client.send("more"), Err(BlockingError::Ended)));
    drop(go);
    assert!(matches!(client.recv(PATIENCE), Err(BlockingError::Ended)));
}

#[test]
fn a_client_that_blocks_needs_no_runtime() {
    a_blocking_conversation();
    let nobody = blocking::Client::connect("unix:///nowhere/at/all", lines()).err().unwrap();
    assert!(nobody.to_string().contains("/nowhere/at/all"), "{nobody}");
}

#[test]
fn a_client_that_blocks_does_not_mind_the_runtime_around_it() {
    let one = tokio::runtime::Builder::new_current_thread().build().unwrap();
    one.block_on(async { a_blocking_conversation() });
    let many = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    many.block_on(many.spawn(async { a_blocking_conversation() })).unwrap();
}

#[test]
fn a_server_asks_another_one_in_its_callback_and_others_do_not_wait_for_it() {
    let (url, go) = answering();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let server = Server::bind([format!("unix://{}", path.display())]).unwrap().foreign_only();
    let server = server
        .settings(Settings { dialect: lines().into(), ..Settings::default() })
        .on_receive(move |message, peer| {
            let answer = if message.payload() == "ask" {
                let mut client = blocking::Client::connect(&url, lines()).unwrap();
                client.request("b", PATIENCE).unwrap().payload()
            } else {
                message.payload()
            };
            peer.send(answer).unwrap();
        });
    thread::spawn(move || server.run().unwrap()); // goes with the process
    let connect = || {
        let url = format!("unix://{}", path.display());
        let begun = std::time::Instant::now();
        loop {
            match blocking::Client::connect(&url, lines()) {
                Ok(client) => return client,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
            }
            thread::sleep(SOON); // it is starting
        }
    };
    let (mut asking, mut other) = (connect(), connect());
    asking.send("ask").unwrap();
    for _ in 0..100 {
        assert_eq!(other.request("hola", PATIENCE).unwrap().payload(), "hola");
    }
    go.send(()).unwrap();
    assert_eq!(asking.recv(PATIENCE).unwrap().payload(), "b!");
}

#[tokio::test]
async fn both_halves_are_a_stream_and_a_sink() {
    let (url, go) = answering();
    let address: Address = url.parse().unwrap();
    let client = Client::connect(&address, lines().into()).await.unwrap();
    let (receiver, sender) = client.split();
    let (mut incoming, mut outgoing) = (receiver.into_stream(), sender.into_sink());
    let (mut incoming, mut outgoing) = (Pin::new(&mut incoming), Pin::new(&mut outgoing));
    for number in 0..100 {
        poll_fn(|cx| outgoing.as_mut().poll_ready(cx)).await.unwrap();
        outgoing.as_mut().start_send(Bytes::from(number.to_string())).unwrap();
        go.send(()).unwrap();
    }
    poll_fn(|cx| outgoing.as_mut().poll_close(cx)).await.unwrap();
    poll_fn(|cx| outgoing.as_mut().poll_close(cx)).await.unwrap();
    assert!(poll_fn(|cx| outgoing.as_mut().poll_ready(cx)).await.is_err(), "it is closed");
    for number in 0..100 {
        let message = poll_fn(|cx| incoming.as_mut().poll_next(cx)).await.unwrap().unwrap();
        assert_eq!(message.payload(), format!("{number}!"));
    }
    drop(go);
    assert!(poll_fn(|cx| incoming.as_mut().poll_next(cx)).await.is_none());
    assert!(poll_fn(|cx| incoming.as_mut().poll_next(cx)).await.is_none());
}

#[tokio::test]
async fn bytes_alone_are_read_and_written() {
    let (url, go) = answering();
    let address: Address = url.parse().unwrap();
    let mut stream = Client::stream(&address).await.unwrap();
    stream.write_all(b"ho").await.unwrap();
    stream.write_all(b"la\n").await.unwrap();
    go.send(()).unwrap();
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"hola!\n");
    let datagrams: Address = "udp://127.0.0.1:9".parse().unwrap();
    assert!(Client::stream(&datagrams).await.is_err());
}
