//! What a server knows of each peer in numbers.

use std::io::{Read as _, Write as _};
use std::net::UdpSocket;
use std::sync::mpsc;
use std::time::Instant;

use cabo::talk::{Peers, Stats};

use crate::{PATIENCE, Running, bind, settings};

/// An echo that tells the numbers of whoever leaves.
fn echo(dialect: &str) -> (Running, Peers, mpsc::Receiver<Stats>) {
    let (tell, told) = mpsc::channel();
    let server = bind(["tcp://127.0.0.1:0", "udp://127.0.0.1:0"])
        .settings(settings(dialect))
        .on_receive(|message, peer| drop(peer.send_back(&message)))
        .on_close(move |peer, _| {
            let _ = tell.send(peer.stats()); // the test may be over
        });
    let peers = server.peers();
    (Running::start(server, 1), peers, told)
}

fn numbers(stats: Stats) -> [u64; 4] {
    [stats.received_messages, stats.received_bytes, stats.sent_messages, stats.sent_bytes]
}

#[test]
fn messages_and_bytes_of_each_peer_are_counted_both_ways() {
    let begun = Instant::now();
    let (server, peers, told) = echo("lines");
    let (mut one, mut other) = (server.tcp(), server.tcp());
    one.write_all(b"ola\r\nmundo\nunfin").unwrap();
    one.read_exact(&mut [0; 10]).unwrap();
    other.write_all(b"\n").unwrap();
    other.read_exact(&mut [0; 1]).unwrap();
    let all: Vec<Stats> = peers.list().iter().map(|peer| peer.stats()).collect();
    let mut now: Vec<[u64; 4]> = all.iter().map(|stats| numbers(*stats)).collect();
    now.sort_unstable();
    assert_eq!(now, [[1, 1, 1, 1], [2, 16, 2, 10]]);
    for stats in all {
        let heard = stats.last_heard.unwrap();
        assert!(begun <= stats.since && stats.since <= heard && heard <= Instant::now());
    }
    drop(other);
    assert_eq!(numbers(told.recv_timeout(PATIENCE).unwrap()), [1, 1, 1, 1]);
    drop(one); // which ends its last line
    let last = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(numbers(last), [3, 16, 3, 16]);
    assert_eq!(last.refused_messages, 0);
}

#[test]
fn who_has_said_nothing_was_never_heard() {
    let (server, peers, _told) = echo("lines");
    let client = server.tcp();
    while peers.is_empty() {
        std::thread::yield_now(); // until it is there
    }
    assert_eq!(peers.list()[0].stats().last_heard, None);
    drop(client);
}

/// More answers than there are to somebody who says nothing new.
#[test]
fn datagrams_that_are_not_taken_or_answered_are_counted_too() {
    let (server, peers, _told) = echo("lines");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(server.port(1)).unwrap();
    let mut answer = [0; 70];
    for _ in 0..10_001 {
        socket.send(b"same\n").unwrap();
        assert_eq!(socket.recv(&mut answer).unwrap(), 4);
    }
    let refused = loop {
        socket.send(b"same\n").unwrap(); // until more come than are answered in their time
        let stats = peers.list()[0].stats();
        if stats.refused_messages > 0 {
            break stats;
        }
    };
    assert!(refused.received_messages > 10_001, "they are given out all the same");
    assert!(refused.sent_messages >= 10_001);
}
