//! Cabo peers for who does not await: on threads without a runtime, and in callbacks.

use std::sync::mpsc;
use std::time::Duration;

use cabo::address::Address;
use cabo::talk::blocking::{BlockingError, Client};
use cabo::talk::{Peer, RequestError};
use tokio::task::spawn_blocking;

use crate::{PATIENCE, Running, echo, open_at, settings, soon, stranger, urls};

fn connect(address: &Address) -> Client {
    Client::connect_over(stranger(), address, settings("raw"))
        .unwrap_or_else(|error| panic!("{address}: {error}"))
}

/// Runs it on a thread of its own, where there is no runtime.
async fn on_a_thread(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(work);
    soon("the end of a thread", spawn_blocking(|| thread.join())).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_messages_block_until_they_are_done_on_every_carrier() {
    let (_dir, urls) = urls();
    let (tell, told) = mpsc::channel();
    let gone = tell.clone();
    let server = open_at(urls, "raw")
        .on_receive(move |message, peer| match message.kind() {
            "keep" => tell.send(message.bytes().len().to_string()).unwrap(),
            "never" => {
                peer.send_as("now", "and then").unwrap();
                std::mem::forget(message); // unanswered, and not known to be
            }
            _ => echo(message, peer),
        })
        .on_close(move |_, why| gone.send(why.to_string()).unwrap());
    let server = Running::start(server).await;
    let at = server.at.clone();
    on_a_thread(move || {
        for address in &at {
            let mut client = connect(address);
            assert!(client.peer().is_some_and(Peer::is_cabo));
            assert_eq!(client.request("hola", PATIENCE).unwrap().bytes(), "hola", "{address}");
            let large = vec![7; 3_000_000];
            let answer = client.request_as("large", &large, PATIENCE).unwrap();
            assert!(answer.kind() == "large" && answer.bytes() == &large);
            let short = Duration::from_millis(50);
            let error = client.request_as("never", "", short).unwrap_err();
            let BlockingError::Request(RequestError::Deadline(within)) = error else {
                panic!("{error}")
            };
            assert_eq!(within, short);
            assert_eq!(client.recv(PATIENCE).unwrap().kind(), "now", "it waited");
            client.send_as("told", "one way").unwrap();
            assert_eq!(client.recv(PATIENCE).unwrap().bytes(), "one way");
            for _ in 0..30 {
                client.send_as("keep", [7; 100_000]).unwrap();
            }
            client.close().unwrap();
            let heard: Vec<_> = (0..31).map(|_| told.recv_timeout(PATIENCE).unwrap()).collect();
            assert!(heard[..30].iter().all(|len| len == "100000"), "{address}: {heard:?}");
            assert_eq!(heard[30], "closed", "{address}");
        }
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_finished_still_hears_and_sends_no_more() {
    let server = open_at(["tcp://127.0.0.1:0"], "raw").on_receive(echo);
    let server = Running::start(server).await;
    let at = server.at[0].clone();
    on_a_thread(move || {
        let mut client = connect(&at);
        client.send("last").unwrap();
        client.finish().unwrap();
        assert!(matches!(client.send("more"), Err(BlockingError::Ended)));
        assert_eq!(client.recv(PATIENCE).unwrap().bytes(), "last");
        assert!(matches!(client.recv(PATIENCE), Err(BlockingError::Ended)));
    })
    .await;
    server.stop().await;
}

/// A server that is a client of another in its callback, and of no runtime's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_asks_another_server() {
    let far = Running::start(open_at(["udp://127.0.0.1:0"], "raw").on_receive(echo)).await;
    let next = far.at[0].clone();
    let near = open_at(["tcp://127.0.0.1:0"], "raw").on_receive(move |message, peer| {
        let answer = connect(&next).request(message.bytes(), PATIENCE).unwrap();
        peer.reply(&message, [b"b:", &answer.bytes()[..]].concat()).unwrap();
    });
    let near = Running::start(near).await;
    let client = crate::connect(&near.at[0]).await;
    let answer = client.sender.request("", "hola", PATIENCE).unwrap();
    assert_eq!(soon("the answer", answer).await.unwrap().bytes()[..], *b"b:hola");
    near.stop().await;
    far.stop().await;
}
