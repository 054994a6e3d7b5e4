//! Peers that are read no further for a while, because whoever gets what they say has enough.

use std::io::Write as _;
use std::net::UdpSocket;
use std::sync::mpsc;
use std::time::Duration;

use cabo::talk::Settings;

use crate::{PATIENCE, Running, bind, settings};

/// What "hold" says is the last of that peer until it goes on.
#[test]
fn a_held_peer_is_not_heard_and_not_idle_and_nothing_of_it_is_lost() {
    let (tell, told) = mpsc::channel();
    let closed = tell.clone();
    let server = bind(["tcp://127.0.0.1:0", "udp://127.0.0.1:0"])
        .settings(Settings { idle_time: Some(Duration::from_millis(300)), ..settings("lines") })
        .on_receive(move |message, peer| {
            peer.hold(message.bytes() == "hold");
            let said = String::from_utf8(message.bytes().to_vec()).unwrap();
            tell.send((peer.number(), said)).unwrap();
        })
        .on_close(move |peer, why| {
            let _ = closed.send((peer.number(), why.to_string())); // the test may be over
        });
    let peers = server.peers();
    let server = Running::start(server, 1);
    let next = || told.recv_timeout(PATIENCE).unwrap();
    let mut held = server.tcp();
    held.write_all(b"hold\nmore\n").unwrap();
    assert_eq!(next(), (1, "hold".to_owned()));
    let _silent = server.tcp();
    assert_eq!(next(), (2, "said nothing for 300ms".to_owned()), "time enough for it, too");
    held.write_all(b"end\n").unwrap();
    peers.get(1).unwrap().hold(false);
    assert_eq!(next(), (1, "more".to_owned()));
    assert_eq!(next(), (1, "end".to_owned()));
    assert_eq!(next(), (1, "said nothing for 300ms".to_owned()));
}

#[test]
fn datagrams_of_a_held_peer_wait_for_it() {
    let (tell, told) = mpsc::channel();
    let server = bind(["tcp://127.0.0.1:0", "udp://127.0.0.1:0"])
        .settings(settings("raw"))
        .on_receive(move |message, peer| {
            peer.hold(message.bytes() == "hold");
            tell.send((peer.number(), message.bytes().to_vec())).unwrap();
        });
    let peers = server.peers();
    let server = Running::start(server, 1);
    let next = || told.recv_timeout(PATIENCE).unwrap();
    let (held, other) =
        (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    held.send_to(b"hold", server.port(1)).unwrap();
    assert_eq!(next(), (1, b"hold".to_vec()));
    for n in 0..100_u8 {
        held.send_to(&[n], server.port(1)).unwrap();
    }
    other.send_to(b"meanwhile", server.port(1)).unwrap();
    assert_eq!(next(), (2, b"meanwhile".to_vec()));
    peers.get(1).unwrap().hold(false);
    for n in 0..100_u8 {
        assert_eq!(next(), (1, vec![n]));
    }
}
