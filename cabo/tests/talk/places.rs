//! Who has the places that there are: whoever sends a datagram may be forged, and is in nobody's way.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::sync::mpsc::{self, Receiver};

use cabo::talk::{Server, Settings};

use crate::{PATIENCE, Running, bind, settings};

const MADE_ROOM: &str = "silent for longest, and made room for somebody else";

/// An echo for so many that tells of everybody that it lets go or turns away, by number.
fn echo(urls: &[&str], peers_max: usize) -> (Server, Receiver<(u64, String)>) {
    let (tell, told) = mpsc::channel();
    let refused = tell.clone();
    let server = bind(urls).settings(Settings { peers_max, ..settings("lines") });
    let server = server
        .on_receive(|message, peer| peer.send_back(&message).unwrap())
        .on_close(move |peer, why| drop(tell.send((peer.number(), why.to_string()))))
        .on_refuse(move |peer, why| drop(refused.send((peer.number(), why.to_string()))));
    (server, told)
}

fn datagrams(server: &Running, url: usize) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(server.port(url)).unwrap();
    socket
}

fn is_answered(socket: &UdpSocket) {
    socket.send(b"ola").unwrap();
    let mut answer = [0; 9];
    assert_eq!(socket.recv(&mut answer).unwrap(), 3);
}

fn is_served(mut stream: &TcpStream) -> bool {
    stream.write_all(b"ola\n").is_ok() && stream.read_exact(&mut [0; 4]).is_ok()
}

#[test]
fn senders_of_datagrams_take_no_place_from_others_and_leave_for_them() {
    let (server, told) = echo(&["tcp://127.0.0.1:0", "udp://127.0.0.1:0"], 3);
    let server = Running::start(server, 1);
    let senders: Vec<UdpSocket> = (0..10).map(|_| datagrams(&server, 1)).collect();
    for (number, sender) in (1..).zip(&senders) {
        is_answered(sender);
        if number > 3 {
            assert_eq!(told.recv_timeout(PATIENCE).unwrap(), (number - 3, MADE_ROOM.to_owned()));
        }
    }
    let clients: Vec<TcpStream> = (0..3).map(|_| server.tcp()).collect();
    assert!(clients.iter().all(is_served), "there are three places, and they have them");
    let mut left: Vec<_> = (0..3).map(|_| told.recv_timeout(PATIENCE).unwrap()).collect();
    left.sort_unstable();
    assert_eq!(left, [8, 9, 10].map(|number| (number, MADE_ROOM.to_owned())));
    let full = "there are already as many peers as may be at once: 3".to_owned();
    assert!(!is_served(&server.tcp()));
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), (14, full.clone()));
    senders[0].send(b"ola").unwrap();
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), (15, full));
    drop(clients);
    for _ in 0..3 {
        assert_eq!(told.recv_timeout(PATIENCE).unwrap().1, "closed");
    }
}

#[test]
fn of_senders_of_datagrams_the_one_that_was_silent_for_longest_leaves() {
    let (server, told) = echo(&["udp://127.0.0.1:0"], 3);
    let server = Running::start(server, 1);
    let senders: Vec<UdpSocket> = (0..5).map(|_| datagrams(&server, 0)).collect();
    // Who is heard, and which number leaves for it.
    for (sender, leaving) in [
        (0, None),
        (1, None),
        (2, None),
        (0, None),
        (3, Some(2)), // senders[1]
        (0, None),
        (4, Some(3)), // senders[2]
        (1, Some(4)), // senders[3]
        (0, None),
        (2, Some(5)), // senders[4]
    ] {
        is_answered(&senders[sender]);
        if let Some(number) = leaving {
            assert_eq!(told.recv_timeout(PATIENCE).unwrap(), (number, MADE_ROOM.to_owned()));
        }
        assert!(told.try_recv().is_err(), "nobody else leaves");
    }
}

#[test]
fn sockets_for_datagrams_have_alike_what_is_left() {
    let (server, told) = echo(&["udp://127.0.0.1:0", "udp://127.0.0.1:0"], 4);
    let server = Running::start(server, 1);
    let (many, few): (Vec<_>, Vec<_>) =
        (0..8).map(|_| (datagrams(&server, 0), datagrams(&server, 1))).unzip();
    many.iter().for_each(is_answered);
    let mut left: Vec<_> = (0..6).map(|_| told.recv_timeout(PATIENCE).unwrap()).collect();
    left.sort_unstable();
    assert!(left.into_iter().eq((1..=6).map(|number| (number, MADE_ROOM.to_owned()))));
    few.iter().take(2).for_each(is_answered);
    assert!(told.try_recv().is_err(), "they had their places");
}
