//! Clients that begin long messages and do not end them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use cabo::talk::{Settings, Threads};

use crate::running::{PATIENCE, Running, echo, server, settings};

const KIB: usize = 1024;
/// Bytes of a message, and those of it that are left out at first.
const LONG_BYTES: usize = 1024 * KIB;
const LEFT_BYTES: usize = 64 * KIB;
/// What unfinished messages may have together, and how many of these messages that is: 64 KiB of each are free.
const BUDGET_BYTES: usize = 10 * 1024 * KIB;
const FITTING: usize = 11;
const NO_ROOM: &str = "the unfinished messages of all peers may have 10485760 bytes together, and there was no room for \
                       its own";

/// An echo with the limits, whose ends of conversations are told.
fn echoing(dialect: &str, limits: Settings) -> (Running, Receiver<String>) {
    let (tell, told) = mpsc::channel();
    let server = server(dialect, limits.threads)
        .settings(limits)
        .on_receive(|message, peer| peer.send_back(&message).unwrap())
        .on_close(move |_, why| {
            let _ = tell.send(why.to_string()); // the test may be over
        });
    (Running::start(server), told)
}

/// A client that has said its message but for the end. One that is closed meanwhile cannot say all.
fn begin(server: &Running, first: &[u8]) -> TcpStream {
    let mut client = server.tcp();
    let _ =
        client.write_all(first).and_then(|()| client.write_all(&[b'x'; LONG_BYTES - LEFT_BYTES]));
    client
}

/// Whether the client says the rest, and hears all of it again.
fn ends(mut client: &TcpStream, last: &[u8], size: usize) -> bool {
    let mut answer = vec![0; size];
    client.write_all(&[b'x'; LEFT_BYTES]).is_ok()
        && client.write_all(last).is_ok()
        && client.read_exact(&mut answer).is_ok()
}

#[test]
fn unfinished_messages_of_all_clients_have_one_budget_and_give_back_what_they_took() {
    for (dialect, first, last) in [
        ("length:!L", &(LONG_BYTES as u32).to_be_bytes()[..], &b""[..]),
        ("lines", b"", b"\n"),
        ("nul", b"", b"\0"),
        ("any", b"", b"\n"),
    ] {
        let limits = Settings {
            unfinished_bytes_max: BUDGET_BYTES,
            threads: Threads::Loop(1),
            ..settings(dialect)
        };
        let (server, closed) = echoing(dialect, limits);
        let clients: Vec<TcpStream> = (0..40).map(|_| begin(&server, first)).collect();
        for _ in FITTING..40 {
            assert_eq!(closed.recv_timeout(PATIENCE).unwrap(), NO_ROOM, "{dialect}");
        }
        let size = first.len() + LONG_BYTES + last.len();
        let mut short = server.tcp();
        short.write_all(if first.is_empty() { b"hola\n\0" } else { b"\0\0\0\x02ab" }).unwrap();
        short.read_exact(&mut [0; 5]).unwrap(); // who sends no long messages has no part in it
        drop(short);
        closed.recv_timeout(PATIENCE).unwrap();
        let ended = clients.iter().filter(|client| ends(client, last, size)).count();
        assert_eq!(ended, FITTING, "{dialect}");
        drop(clients);
        (0..FITTING).for_each(|_| drop(closed.recv_timeout(PATIENCE).unwrap()));
        // Those that leave in the midst of a message give back, too.
        for round in 0..3 {
            let clients: Vec<TcpStream> = (0..FITTING).map(|_| begin(&server, first)).collect();
            if round == 2 {
                assert!(clients.iter().all(|client| ends(client, last, size)), "{dialect}");
            }
            drop(clients);
            for _ in 0..FITTING {
                let why = closed.recv_timeout(PATIENCE).unwrap();
                assert_ne!(why, NO_ROOM, "{dialect}, round {round}");
            }
        }
    }
}

/// The time goes by while nothing comes, however long the whole takes; short messages have no such time.
#[test]
fn a_long_message_that_is_left_has_its_time_and_one_that_goes_on_is_not_hurried() {
    let time = Duration::from_secs(3); // more than a loaded machine holds the slow one up
    let limits = Settings { message_time: time, threads: Threads::Loop(1), ..settings("lines") };
    let (server, closed) = echoing("lines", limits);
    let mut short = server.tcp();
    short.write_all(b"begun").unwrap();
    let (left, mut slow) = (begin(&server, b""), begin(&server, b""));
    let mut said = LONG_BYTES - LEFT_BYTES;
    let why = loop {
        slow.write_all(b"x").unwrap();
        said += 1;
        if let Ok(why) = closed.recv_timeout(Duration::from_millis(50)) {
            break why;
        }
    };
    assert_eq!(why, "left a message unfinished and said nothing for 3s");
    assert!(!ends(&left, b"\n", 1), "it is gone");
    slow.write_all(b"\n").unwrap();
    slow.read_exact(&mut vec![0; said + 1]).unwrap();
    echo(&slow, "and goes on");
    short.write_all(b" and ended\n").unwrap();
    let mut answer = [0; 16];
    short.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"begun and ended\n");
}

/// A byte now and then is a message that goes on, and would have its room for ever.
#[test]
fn a_long_message_that_goes_on_by_drops_is_not_waited_for() {
    let limits = Settings {
        message_time: Duration::from_secs(3), // more than a loaded machine holds the brisk one up
        message_bytes_min: 1000,
        threads: Threads::Loop(1),
        ..settings("lines")
    };
    let (server, closed) = echoing("lines", limits);
    let (mut dripping, mut brisk) = (begin(&server, b""), begin(&server, b""));
    let mut said = LONG_BYTES - LEFT_BYTES;
    let why = loop {
        let _ = dripping.write_all(b"x"); // it is about to be closed
        brisk.write_all(&[b'x'; 1000]).unwrap();
        said += 1000;
        if let Ok(why) = closed.recv_timeout(Duration::from_millis(50)) {
            break why;
        }
    };
    assert_eq!(why, "of its unfinished message fewer than 1000 bytes came within 3s");
    brisk.write_all(b"\n").unwrap();
    brisk.read_exact(&mut vec![0; said + 1]).unwrap();
    echo(&brisk, "and goes on");
}

/// What each has for nothing is little where there are many: else many have much.
#[test]
fn many_short_messages_that_are_left_unfinished_count_too() {
    const CLIENTS: usize = 100;
    const BYTES: usize = 40 * KIB;
    let limits = Settings {
        unfinished_bytes_max: 1024 * KIB,
        threads: Threads::Loop(1),
        ..settings("lines")
    };
    let (server, closed) = echoing("lines", limits);
    let clients: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let mut client = server.tcp();
            let _ = client.write_all(&[b'x'; BYTES]); // some are closed meanwhile
            client
        })
        .collect();
    for _ in 0..CLIENTS / 3 {
        let why = closed.recv_timeout(PATIENCE).unwrap();
        assert!(why.contains("there was no room for its own"), "{why}");
    }
    drop(clients);
}
