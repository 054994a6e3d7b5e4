//! A server's peers awaited one by one: cabo peers and foreign programs alike, as streams and as sinks.

use std::future::poll_fn;
use std::net::{SocketAddr, UdpSocket};
use std::pin::{Pin, pin};

use bytes::Bytes;
use cabo::address::{Address, Host, Place};
use cabo::talk::{Client, ClientError, Guests, Peer};
use futures_core::Stream as _;
use futures_sink::Sink as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{PATIENCE, next, open_at, settings, soon, stranger, urls};

fn socket(address: &Address) -> SocketAddr {
    let (Place::Tcp(host) | Place::Udp(host)) = &address.place else { panic!("a port") };
    let Host::Ip4(ip) = host.host else { panic!("an address") };
    (ip, host.port.unwrap()).into()
}

async fn taken(guests: &mut Guests) -> Client {
    soon("a guest", guests.next()).await.expect("a guest before the end")
}

/// A cabo peer that has come, and what it is to the server.
async fn come(guests: &mut Guests, number: usize, dialect: &str) -> (Client, Client) {
    let mut address = guests.at()[number].clone();
    if matches!(address.place, Place::Tls(_)) {
        address.query.set("verify", b"no");
    }
    let over = stranger();
    let connecting = Client::connect_over(&over, &address, settings(dialect));
    let client = soon("the connection", connecting).await.unwrap();
    (client, taken(guests).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cabo_peers_of_every_carrier_are_conversations_both_ways() {
    let (_dir, urls) = urls();
    let mut guests = open_at(urls, "raw").guests().await.unwrap();
    for number in 0..guests.at().len() {
        let (mut client, mut guest) = come(&mut guests, number, "raw").await;
        assert!(guest.peer().is_some_and(Peer::is_cabo));
        let large = vec![7; 3_000_000];
        let (asked, told) = (client.sender.request("k", &large, PATIENCE).unwrap(), b"told");
        client.sender.send(told).await.unwrap();
        let request = next(&mut guest).await;
        assert!(request.is_request() && request.bytes() == &large);
        guest.peer().unwrap().reply(&request, "yes").unwrap();
        assert_eq!(soon("the answer", asked).await.unwrap().bytes()[..], *b"yes");
        assert_eq!(next(&mut guest).await.bytes()[..], *told);
        let asked = guest.sender.request("who", "", PATIENCE).unwrap();
        let request = next(&mut client).await;
        client.peer().unwrap().reply(&request, "ana").unwrap();
        assert_eq!(soon("the answer", asked).await.unwrap().bytes()[..], *b"ana");
        soon("the end", client.close()).await.unwrap();
        assert!(soon("the end", guest.receiver.next()).await.unwrap().is_none());
    }
    soon("the server's end", guests.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_programs_are_guests_too_and_are_closed_when_they_are_dropped() {
    let urls = ["tcp://127.0.0.1:0", "udp://127.0.0.1:0"];
    let mut guests = open_at(urls, "lines").guests().await.unwrap();
    let (tcp, udp) = (socket(&guests.at()[0]), socket(&guests.at()[1]));
    let mut stream = tokio::net::TcpStream::connect(tcp).await.unwrap();
    stream.write_all(b"ho").await.unwrap();
    stream.write_all(b"la\nmundo\n").await.unwrap();
    let mut guest = taken(&mut guests).await;
    assert_eq!(guest.to(), cabo::carrier::Peer::Tcp(stream.local_addr().unwrap()));
    for wanted in ["hola", "mundo"] {
        assert_eq!(next(&mut guest).await.payload(), wanted);
    }
    guest.sender.send(b"bom dia").await.unwrap();
    let error = guest.sender.send_as("kind", b"").await.unwrap_err();
    assert!(matches!(error, ClientError::Send(_)), "{error}");
    drop(guest);
    let mut said = String::new();
    soon("the end", stream.read_to_string(&mut said)).await.unwrap();
    assert_eq!(said, "bom dia\n", "what was sent goes out first");

    let foreign = UdpSocket::bind("127.0.0.1:0").unwrap();
    foreign.set_read_timeout(Some(PATIENCE)).unwrap();
    for round in ["first", "again"] {
        foreign.send_to(round.as_bytes(), udp).unwrap();
        let mut guest = taken(&mut guests).await; // a new one, for the one before was dropped
        assert_eq!(next(&mut guest).await.payload(), round);
        guest.sender.send(b"answer").await.unwrap();
        let mut answer = [0; 9];
        assert_eq!(foreign.recv(&mut answer).unwrap(), 6);
        soon("the end", guest.close()).await.unwrap();
    }
    soon("the server's end", guests.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_message_is_an_error_and_an_end_is_none() {
    let mut guests = open_at(["tcp://127.0.0.1:0"], "length:!L:size").guests().await.unwrap();
    let mut stream = tokio::net::TcpStream::connect(socket(&guests.at()[0])).await.unwrap();
    stream.write_all(b"\xff\xff\xff\xff").await.unwrap();
    let mut guest = taken(&mut guests).await;
    let error = soon("the error", guest.receiver.next()).await.unwrap_err();
    assert!(matches!(error, ClientError::Malformed(_)), "{error}");
    assert!(soon("the end", guest.receiver.next()).await.unwrap().is_none());
    soon("the server's end", guests.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_are_a_stream_of_streams_and_sinks() {
    let mut guests = open_at(["tcp://127.0.0.1:0"], "lines").guests().await.unwrap();
    let address = guests.at()[0].clone();
    let over = stranger();
    let mut cabo = Client::connect_over(&over, &address, settings("lines")).await.unwrap();
    let mut foreign = Client::connect(&address, settings("lines").dialect).await.unwrap();
    let serving = tokio::spawn(async move {
        for _ in 0..2 {
            let guest = poll_fn(|cx| Pin::new(&mut guests).poll_next(cx)).await.unwrap();
            tokio::spawn(async move {
                let (receiver, sender) = guest.split();
                let (mut incoming, mut outgoing) =
                    (pin!(receiver.into_stream()), pin!(sender.into_sink()));
                while let Some(message) = poll_fn(|cx| incoming.as_mut().poll_next(cx)).await {
                    poll_fn(|cx| outgoing.as_mut().poll_ready(cx)).await.unwrap();
                    let answer = Bytes::from([&message.unwrap().payload()[..], b"!"].concat());
                    outgoing.as_mut().start_send(answer).unwrap();
                    poll_fn(|cx| outgoing.as_mut().poll_flush(cx)).await.unwrap();
                }
                poll_fn(|cx| outgoing.as_mut().poll_close(cx)).await.unwrap();
            });
        }
        guests
    });
    for client in [&mut cabo, &mut foreign] {
        for number in 0..100 {
            client.sender.send(number.to_string().as_bytes()).await.unwrap();
            assert_eq!(next(client).await.payload(), format!("{number}!"));
        }
        client.sender.finish().await.unwrap();
        assert!(soon("the end", client.receiver.next()).await.unwrap().is_none());
    }
    soon("the server's end", serving.await.unwrap().close()).await;
}
