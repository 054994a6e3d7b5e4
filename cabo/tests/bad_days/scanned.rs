//! Who looks for open ports, or for another kind of server.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::running::{PATIENCE, Running, THREADS, server};

/// First words of scanners and lost programs: as lengths of messages they are too large, or they are cut.
const PROBES: [&[u8]; 6] = [
    b"",
    b"\0",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", // the head of a TLS hello
    b"GET / HTTP/1.1",
    b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\x03\0\0\0", // a remote desktop's first packet
    b"cabo/1",                                               // the preface, cut
];

/// Closes with a reset, as a scanner does.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

#[test]
fn scans_of_the_port_are_no_messages_leave_nobody_behind_and_hold_up_nobody() {
    for threads in THREADS {
        let here = Arc::new(Mutex::new(HashSet::new()));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (came, left, messages) = (here.clone(), here.clone(), heard.clone());
        let server = server("length:!L", threads)
            .on_connect(move |peer| assert!(came.lock().unwrap().insert(peer.number())))
            .on_receive(move |message, peer| {
                messages.lock().unwrap().push(message.payload());
                peer.send_back(&message).unwrap();
            })
            .on_close(move |peer, _| assert!(left.lock().unwrap().remove(&peer.number())));
        let server = Running::start(server);
        for round in 0..50 {
            for probe in PROBES {
                let mut stream = server.tcp();
                stream.write_all(probe).unwrap();
                if round % 2 == 0 { reset(stream) } else { drop(stream) }
            }
            let mut client = server.tcp();
            client.write_all(b"\0\0\0\x04hola").unwrap();
            let mut answer = [0; 8];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"\0\0\0\x04hola");
            reset(client);
        }
        let begun = Instant::now();
        while !here.lock().unwrap().is_empty() {
            assert!(begun.elapsed() < PATIENCE, "{} are still there", here.lock().unwrap().len());
            std::thread::sleep(Duration::from_millis(1)); // looks again
        }
        let heard = heard.lock().unwrap();
        assert!(heard.iter().all(|message| message == "hola"), "{threads:?}: {heard:?}");
        assert_eq!(heard.len(), 50, "{threads:?}");
    }
}
