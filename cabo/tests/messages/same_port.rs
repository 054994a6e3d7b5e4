//! One port for cabo peers and foreign programs: each is who it is, and strangers stay outside.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc;
use std::time::Duration;

use cabo::access::AllowFile;
use cabo::address::{Address, Host, Place};
use cabo::keys::Identity;
use cabo::talk::{Client, ClientError, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{PATIENCE, Running, connect, echo, next, open_at, settings, soon, stranger, urls};

fn socket(server: &Running, number: usize) -> SocketAddr {
    let (Place::Tcp(host) | Place::Udp(host)) = &server.at[number].place else { panic!("a port") };
    let Host::Ip4(ip) = host.host else { panic!("an address") };
    (ip, host.port.unwrap()).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cabo_peers_and_foreign_programs_speak_at_one_port_at_once() {
    let (tell, told) = mpsc::channel();
    let server = open_at(["tcp://127.0.0.1:0"], "lines").on_connect(move |peer| {
        tell.send((peer.is_cabo(), peer.fingerprint().is_some())).unwrap();
    });
    let server = Running::start(server.on_receive(echo)).await;
    let mut cabo = Vec::new();
    let mut foreign = Vec::new();
    for _ in 0..20 {
        cabo.push(connect(&server.at[0]).await);
        let stream = TcpStream::connect(socket(&server, 0)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        (&stream).write_all(b"ca").unwrap(); // as the preface begins
        foreign.push(stream);
    }
    for (number, (client, mut stream)) in cabo.iter_mut().zip(&foreign).enumerate() {
        stream.write_all(format!("bo/1 {number}\nmore\n").as_bytes()).unwrap();
        client.sender.send(number.to_string().as_bytes()).await.unwrap();
    }
    for (number, (client, mut stream)) in cabo.iter_mut().zip(&foreign).enumerate() {
        assert_eq!(next(client).await.bytes()[..], *number.to_string().as_bytes());
        stream.shutdown(Shutdown::Write).unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        assert_eq!(all, format!("cabo/1 {number}\nmore\n"));
    }
    let heard: Vec<_> = told.try_iter().collect();
    let count = |who| heard.iter().filter(|heard| **heard == who).count();
    assert_eq!((count((true, true)), count((false, false))), (20, 20));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_of_any_size_and_sessions_share_a_socket() {
    let server = Running::start(open_at(["udp://127.0.0.1:0"], "raw").on_receive(echo)).await;
    let mut cabo = connect(&server.at[0]).await;
    let foreign = UdpSocket::bind("127.0.0.1:0").unwrap();
    foreign.connect(socket(&server, 0)).unwrap();
    foreign.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = vec![0; 65_536];
    for len in [0, 1, 12, 1200, 1201, 9000, 65_507] {
        for first in [0xCB, 0x00] {
            let mut datagram = vec![7; len];
            datagram.iter_mut().take(1).for_each(|byte| *byte = first);
            foreign.send(&datagram).unwrap();
            let got = foreign.recv(&mut buffer).unwrap();
            assert!(buffer[..got] == datagram, "{len} bytes beginning with {first:x}");
        }
        cabo.sender.send(&vec![1; len]).await.unwrap();
        assert_eq!(next(&mut cabo).await.bytes().len(), len);
    }
    let numbers: Vec<u64> = server.peers.list().iter().map(|peer| peer.number()).collect();
    assert_eq!(numbers.len(), 2, "one of each sort");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_keeps_no_cabo_peer_from_a_port() {
    for query in ["ip=4", "if=lo", "if=lo&ttl=3&loop=off"] {
        let url = format!("udp://127.0.0.1:0?{query}");
        let server = Running::start(open_at([url], "raw").on_receive(echo)).await;
        let mut bare = server.at[0].clone();
        bare.query = Default::default();
        let mut cabo = connect(&bare).await;
        cabo.sender.send(b"sealed").await.unwrap();
        assert_eq!(next(&mut cabo).await.bytes()[..], *b"sealed", "{query}");
        let foreign = UdpSocket::bind("127.0.0.1:0").unwrap();
        foreign.set_read_timeout(Some(PATIENCE)).unwrap();
        foreign.send_to(b"bare", socket(&server, 0)).unwrap();
        let mut buffer = [0; 9];
        let got = foreign.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..got], *b"bare", "{query}");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_packet_of_cabo_is_no_message_to_a_group() {
    let packets = UdpSocket::bind("127.0.0.1:0").unwrap();
    packets.set_read_timeout(Some(PATIENCE)).unwrap();
    let (over, to) = (stranger(), format!("udp://{}", packets.local_addr().unwrap()));
    let asking = tokio::spawn(async move {
        let to = to.parse().unwrap();
        Client::connect_over(&over, &to, settings("raw")).await.map(drop)
    });
    let mut packet = vec![0; 65_536];
    let len = tokio::task::block_in_place(|| packets.recv(&mut packet)).unwrap();
    packet.truncate(len);
    asking.abort();

    let (heard, refused) = (mpsc::channel(), mpsc::channel());
    let server = open_at(["udp://239.192.7.7:0?if=lo"], "raw")
        .on_receive(move |message, _| heard.0.send(message.bytes().to_vec()).unwrap())
        .on_refuse(move |_, why| refused.0.send(why.to_string()).unwrap());
    let mut server = server;
    let at = server.listen().await.unwrap();
    assert_eq!(server.foreign_alone(), at, "it is known that no cabo peer can come");
    let Place::Udp(host) = &at[0].place else { panic!("a port") };
    let to = SocketAddr::from(([239, 192, 7, 7], host.port.unwrap()));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(async { stopped.await.unwrap_or_default() }));
    packets.send_to(&packet, to).unwrap();
    packets.send_to(b"\xCB is how it begins", to).unwrap();
    let (first, why) = tokio::task::block_in_place(|| {
        (heard.1.recv_timeout(PATIENCE).unwrap(), refused.1.recv_timeout(PATIENCE).unwrap())
    });
    assert_eq!(first, b"\xCB is how it begins");
    assert!(why.contains("cannot come to a group"), "{why}");
    stop.send(()).unwrap();
    soon("the end", serving).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_is_a_foreign_program_after_a_moment() {
    let server = open_at(["tcp://127.0.0.1:0"], "lines")
        .on_connect(|peer| peer.send(format!("hello, cabo: {}", peer.is_cabo())).unwrap());
    let server = Running::start(server).await;
    let mut silent = tokio::net::TcpStream::connect(socket(&server, 0)).await.unwrap();
    let mut hello = [0; 19];
    soon("the greeting", silent.read_exact(&mut hello)).await.unwrap();
    assert_eq!(&hello, b"hello, cabo: false\n");
    server.stop().await;
}

/// A lost segment lets the first words come later than silence is taken for a foreign program's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cabo_peer_whose_first_words_come_late_is_one_where_nothing_was_sent_to_it() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let gone = tell.clone();
    let server = open_at(["tcp://127.0.0.1:0"], "lines")
        .on_connect(move |peer| tell.send(format!("{}", peer.is_cabo())).unwrap())
        .on_close(move |peer, why| {
            let _ = gone.send(format!("{} {why}", peer.is_cabo())); // the test may be over
        })
        .on_receive(echo);
    let server = Running::start(server).await;
    let relay = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let by: Address = format!("tcp://{}", relay.local_addr().unwrap()).parse().unwrap();
    let at = socket(&server, 0);
    let (hear, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let relaying = tokio::spawn(async move {
        let (mut client, _) = relay.accept().await.unwrap();
        let mut server = tokio::net::TcpStream::connect(at).await.unwrap();
        hear.send(soon("silence", told.recv()).await.unwrap()).unwrap();
        // Even its preface comes in pieces.
        let mut first = [0; 3];
        client.read_exact(&mut first).await.unwrap();
        server.set_nodelay(true).unwrap();
        server.write_all(&first).await.unwrap();
        tokio::spawn(async move {
            while let Some(event) = told.recv().await {
                let _ = hear.send(event); // the test may be over
            }
        });
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await; // until both have left
    });
    let mut cabo = connect(&by).await;
    cabo.sender.send(b"late").await.unwrap();
    assert_eq!(next(&mut cabo).await.bytes()[..], *b"late");
    for wanted in ["false", "false is a cabo peer, and no foreign program", "true"] {
        assert_eq!(soon("an event", heard.recv()).await.unwrap(), wanted);
    }
    assert_eq!(server.peers.list().len(), 1);
    soon("the end", cabo.close()).await.unwrap();
    soon("the relay", relaying).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_first_words_of_a_foreign_program_are_its_own_and_what_was_sent_to_it_settles_that() {
    for greets in [false, true] {
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let server = open_at(["tcp://127.0.0.1:0"], "lines").on_connect(move |peer| {
            if greets {
                peer.send("hi").unwrap();
            }
            tell.send(peer.is_cabo()).unwrap();
        });
        let server = Running::start(server.on_receive(echo)).await;
        for said in [&b"cabo/1s\n"[..], b"ca", b"cabo\n", b"other\n", b""] {
            if !greets && said.ends_with(b"s\n") {
                continue; // which is a cabo peer's
            }
            let mut late = tokio::net::TcpStream::connect(socket(&server, 0)).await.unwrap();
            assert!(!soon("silence", told.recv()).await.unwrap());
            let greeting_len = if greets { 3 } else { 0 };
            let mut greeting = vec![0; greeting_len];
            soon("the greeting", late.read_exact(&mut greeting)).await.unwrap();
            late.write_all(said).await.unwrap();
            late.shutdown().await.unwrap();
            let mut wanted = said.to_vec();
            if said == b"ca" {
                wanted.push(b'\n'); // its end ends the line
            }
            let mut all = Vec::new();
            soon("the echo", late.read_to_end(&mut all)).await.unwrap();
            assert_eq!(all, wanted);
        }
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_begins_late_as_a_cabo_peer_does_and_does_not_go_on_is_answered() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let server = open_at(["tcp://127.0.0.1:0"], "raw")
        .on_connect(move |peer| tell.send(peer.is_cabo()).unwrap())
        .on_receive(echo);
    let server = Running::start(server).await;
    let mut late = tokio::net::TcpStream::connect(socket(&server, 0)).await.unwrap();
    assert!(!soon("silence", told.recv()).await.unwrap());
    late.write_all(b"cab").await.unwrap();
    let mut answer = [0; 3];
    soon("the echo", late.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"cab");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dialect_with_first_words_keeps_its_own_deadline_and_lets_cabo_peers_in() {
    let (tell, told) = mpsc::channel();
    let server = open_at(["tcp://127.0.0.1:0"], "tp0")
        .on_refuse(move |_, why| tell.send(why.to_string()).unwrap())
        .on_receive(echo);
    let server = Running::start(server).await;
    let mut cabo = connect(&server.at[0]).await;
    cabo.sender.send(b"any bytes").await.unwrap();
    assert_eq!(next(&mut cabo).await.bytes()[..], *b"any bytes");
    let mut foreign = TcpStream::connect(socket(&server, 0)).unwrap();
    foreign.set_read_timeout(Some(PATIENCE)).unwrap();
    std::thread::sleep(Duration::from_millis(400)); // longer than silence is taken for a foreign program's
    foreign.write_all(b"\0\0\0\x01\0\0\0\0\x02\0\0\0a\0").unwrap();
    let mut answer = [0; 14];
    foreign.read_exact(&mut answer[..4]).unwrap();
    let mut other = TcpStream::connect(socket(&server, 0)).unwrap();
    other.set_read_timeout(Some(PATIENCE)).unwrap();
    other.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut refusal = Vec::new();
    other.read_to_end(&mut refusal).unwrap();
    assert_eq!(refusal, b"\xff\xff\xff\xff");
    let why = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(why, "does not speak tp0: its first words were others");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_refused_and_hears_why_and_who_is_allowed_is_not() {
    let (_dir, mut urls) = urls();
    urls.truncate(2); // a Unix socket lets in its own user
    let dir = tempfile::tempdir().unwrap();
    let friend = Identity::generate().unwrap();
    let file = dir.path().join("friends");
    std::fs::write(&file, format!("{} ana\n", friend.fingerprint())).unwrap();
    let allow = AllowFile::load(&file).unwrap();
    let (tell, told) = mpsc::channel();
    let server = Server::bind(urls).unwrap().identity(Identity::generate().unwrap());
    let server = server
        .access(|access| access.with_allow(allow))
        .settings(settings("raw"))
        .on_receive(echo)
        .on_refuse(move |peer, why| tell.send((peer.is_cabo(), why.to_string())).unwrap());
    let server = Running::start(server).await;
    for address in &server.at {
        let over = stranger();
        let asked = soon("a session", Client::connect_over(&over, address, settings("raw"))).await;
        let error = match asked {
            Ok(mut client) => soon("the refusal", client.receiver.next()).await.unwrap_err(),
            Err(error) => error, // it was faster than the stream
        };
        assert!(matches!(error, ClientError::Ended(_) | ClientError::Session(_)), "{error:?}");
        assert!(error.to_string().contains("the server does not know"), "{address}: {error}");
        let (is_cabo, why) = told.recv_timeout(PATIENCE).unwrap();
        assert!(is_cabo && why.contains("the server does not know"), "{why}");
    }
    let endpoint = cabo::endpoint::Endpoint::new(&friend, Default::default()).unwrap();
    let over = cabo::client::Client::new(endpoint, None);
    for address in &server.at {
        let mut client = Client::connect_over(&over, address, settings("raw")).await.unwrap();
        client.sender.send(b"it is me").await.unwrap();
        assert_eq!(next(&mut client).await.bytes()[..], *b"it is me", "{address}");
    }
    assert!(
        server.peers.list().iter().all(|peer| peer.fingerprint() == Some(friend.fingerprint()))
    );
    server.stop().await;
}
