//! Foreign programs at our servers: plain sockets of the standard library, which know nothing of cabo.
#![allow(clippy::unwrap_used, reason = "a test stops where it is surprised")]

mod callers;
mod held;
mod numbers;
mod places;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use cabo::address::{Address, Host, Place};
use cabo::keys::Identity;
use cabo::proto::dialect::Dialect;
use cabo::talk::{BindError, Client, Closed, SendError, Server, Settings, Slow, Threads};
use tokio::sync::oneshot;

/// No test waits longer for what should be there at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that runs until it is dropped.
struct Running {
    at: Vec<Address>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(server: Server, threads: usize) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_time().build().unwrap();
            runtime.block_on(async move {
                let mut server = server.threads(Threads::Loop(threads));
                tell.send(server.listen().await.unwrap()).unwrap();
                server.serve(async { stopped.await.unwrap_or_default() }).await;
            });
        });
        let at = told.recv_timeout(PATIENCE).unwrap();
        Self { at, stop: Some(stop), thread: Some(thread) }
    }

    fn port(&self, number: usize) -> SocketAddr {
        let (Place::Tcp(host) | Place::Udp(host)) = &self.at[number].place else {
            panic!("a port")
        };
        let Host::Ip4(ip) = host.host else { panic!("an address") };
        (ip, host.port.unwrap()).into()
    }

    fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.port(0)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A server that touches no files of whoever runs the test.
fn bind<U: AsRef<str>>(urls: impl IntoIterator<Item = U>) -> Server {
    Server::bind(urls).unwrap().identity(Identity::generate().unwrap())
}

fn settings(dialect: &str) -> Settings {
    Settings { dialect: Dialect::parse(dialect).unwrap().into(), ..Settings::default() }
}

fn echo(dialect: &str) -> Server {
    let server = bind(["tcp://127.0.0.1:0", "udp://127.0.0.1:0"]);
    server.settings(settings(dialect)).on_receive(|message, peer| {
        peer.send_back(&message).unwrap();
    })
}

fn read_all(mut stream: &TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

#[test]
fn every_client_of_many_has_its_own_answers_on_one_loop_and_on_several() {
    for threads in [1, 4] {
        let server = Running::start(echo("lines"), threads);
        let clients: Vec<TcpStream> = (0..100).map(|_| server.tcp()).collect();
        for (number, mut client) in clients.iter().enumerate() {
            client.write_all(format!("hola {number}\r\nmundo").as_bytes()).unwrap();
        }
        for (number, client) in clients.iter().enumerate() {
            client.shutdown(Shutdown::Write).unwrap(); // ends the last line
            let answer = String::from_utf8(read_all(client)).unwrap();
            assert_eq!(answer, format!("hola {number}\nmundo\n"));
        }
    }
}

#[test]
fn messages_are_the_same_byte_by_byte_and_glued() {
    let server = Running::start(echo("length:!B:version L:size"), 1);
    let wire = b"\x00\0\0\0\x03abc\x00\0\0\0\0\x00\0\0\0\x01d";
    for step in [1, 2, wire.len()] {
        let mut client = server.tcp();
        client.set_nodelay(true).unwrap();
        for part in wire.chunks(step) {
            client.write_all(part).unwrap();
        }
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&client), wire, "in steps of {step}");
    }
}

#[test]
fn payloads_of_any_size_come_back_whole() {
    let server = Running::start(echo("length:!L"), 2);
    let payload: Vec<u8> = (0..8_000_000_u32).map(|at| ((at * 31) >> 7) as u8).collect();
    let client = server.tcp();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut out = &client;
            out.write_all(&8_000_000_u32.to_be_bytes()).unwrap();
            out.write_all(&payload).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        });
        let back = read_all(&client);
        assert_eq!(back.len(), payload.len() + 4);
        assert!(back[4..] == payload);
    });
}

#[test]
fn what_is_no_message_ends_that_conversation_alone() {
    let (tell, told) = mpsc::channel();
    let server = echo("length:!L").on_close(move |peer, closed| {
        tell.send((peer.number(), closed.to_string())).unwrap();
    });
    let server = Running::start(server, 1);
    let mut honest = server.tcp();
    let mut liar = server.tcp();
    liar.write_all(b"\xff\xff\xff\xff").unwrap();
    assert_eq!(read_all(&liar), b"");
    let (_, why) = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(why, "a message of 4294967299 bytes or more is over the limit of 16777216");
    let mut cut = server.tcp();
    cut.write_all(b"\0\0\0\x05ab").unwrap();
    cut.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&cut), b"");
    let (_, why) = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(why, "the stream ended inside a message, after 6 of at least 9 bytes");
    honest.write_all(b"\0\0\0\x02ok").unwrap();
    let mut answer = [0; 6];
    honest.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"\0\0\0\x02ok");
}

#[test]
fn strangers_are_turned_away_before_anything_of_them_is_processed() {
    let (tell, told) = mpsc::channel();
    let received = tell.clone();
    let server = bind(["tcp://127.0.0.1:0"]).settings(settings("tp0"));
    let server = server
        .on_receive(move |message, _| {
            received.send(format!("{:?}", message.decode().unwrap().kind)).unwrap();
        })
        .on_refuse(move |_, why| tell.send(why.to_string()).unwrap());
    let server = Running::start(server, 1);
    let message = b"\0\0\0\0\x02\0\0\0a\0";
    for first in [b"\x02\0\0\0".as_slice(), b"\0\0\0\x01", b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stranger = server.tcp();
        stranger.write_all(first).unwrap();
        let _ = stranger.write_all(message); // it may be closed already
        assert_eq!(read_all(&stranger), b"\xff\xff\xff\xff", "{first:x?}");
        let why = told.recv_timeout(PATIENCE).unwrap();
        assert_eq!(why, "does not speak tp0: its first words were others");
    }
    let mut friend = server.tcp();
    friend.write_all(&[b"\x01\0\0\0", message.as_slice()].concat()).unwrap(); // in one piece
    let mut answer = [1; 4];
    friend.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0; 4]);
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "Some(\"MENSAJE\")");
}

#[test]
fn a_callback_that_panics_costs_its_own_client_alone() {
    let (tell, told) = mpsc::channel();
    let server = bind(["tcp://127.0.0.1:0", "udp://127.0.0.1:0"]);
    let server = server
        .settings(settings("lines"))
        .on_receive(|message, peer| {
            assert_ne!(message.payload(), "panic", "as it was told to");
            peer.send(message.payload()).unwrap();
        })
        .on_close(move |_, closed| tell.send(closed.to_string()).unwrap());
    let server = Running::start(server, 1);
    let (mut bad, mut good) = (server.tcp(), server.tcp());
    bad.write_all(b"panic\n").unwrap();
    assert_eq!(read_all(&bad), b"");
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "a callback for it panicked");
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(PATIENCE)).unwrap();
    udp.send_to(b"panic", server.port(1)).unwrap();
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "a callback for it panicked");
    udp.send_to(b"hola", server.port(1)).unwrap();
    let mut answer = [0; 16];
    assert_eq!(udp.recv(&mut answer).unwrap(), 4, "a datagram has no end mark");
    good.write_all(b"hola\n").unwrap();
    good.read_exact(&mut answer[..5]).unwrap();
    assert_eq!(&answer[..5], b"hola\n");
}

/// One read of the server holds thousands of lines, and their answers are many times what may wait for a client.
#[test]
fn answers_larger_than_their_questions_all_arrive() {
    const LINES: usize = 20_000;
    let server = bind(["tcp://127.0.0.1:0"]);
    let server = server
        .settings(settings("lines"))
        .on_receive(|_, peer| peer.send(vec![b'x'; 1000]).unwrap());
    let server = Running::start(server, 1);
    let mut client = server.tcp();
    client.write_all(&vec![b'\n'; LINES]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let answers = read_all(&client);
    assert_eq!(answers.len(), LINES * 1001);
}

#[test]
fn a_client_that_never_reads_meets_the_policy_and_harms_nobody() {
    for slow in [Slow::Wait, Slow::DropOldest, Slow::Disconnect] {
        let (tell, told) = mpsc::channel();
        let closed = tell.clone();
        let server = bind(["tcp://127.0.0.1:0"]);
        let server = server
            .settings(Settings { slow, outgoing_bytes_max: 64 * 1024, ..settings("lines") })
            .on_receive(move |message, peer| {
                if message.payload() == "flood" {
                    let line = Bytes::from(vec![b'x'; 10_000]);
                    let first = (0..10_000).find_map(|_| peer.send(&line).err());
                    tell.send(format!("{first:?} {}", peer.dropped_messages() > 0)).unwrap();
                } else {
                    peer.send(message.payload()).unwrap();
                }
            })
            .on_close(move |_, why| {
                let _ = closed.send(why.to_string()); // the test may be over
            });
        let server = Running::start(server, 1);
        let mut flooded = server.tcp();
        flooded.write_all(b"flood\n").unwrap();
        let seen = told.recv_timeout(PATIENCE).unwrap();
        match slow {
            Slow::Wait => assert_eq!(seen, "Some(Full { waiting: 70007 }) false"),
            Slow::DropOldest => assert_eq!(seen, "None true"),
            Slow::Disconnect => {
                assert_eq!(seen, "Some(Gone) false");
                assert_eq!(told.recv_timeout(PATIENCE).unwrap(), Closed::TooSlow.to_string());
            }
        }
        let mut other = server.tcp();
        other.write_all(b"hola\n").unwrap();
        let mut answer = [0; 5];
        other.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hola\n", "{slow:?}");
    }
}

/// An echo to a client that writes and does not read stops being read itself: nothing grows.
#[test]
fn an_echo_is_not_read_faster_than_it_is_taken() {
    let server = bind(["tcp://127.0.0.1:0"]);
    let server = server
        .settings(Settings { outgoing_bytes_max: 256 * 1024, ..settings("raw") })
        .on_receive(|message, peer| peer.send(message.payload()).unwrap());
    let server = Running::start(server, 1);
    let mut client = server.tcp();
    client.set_nonblocking(true).unwrap();
    let mut written = 0_usize;
    let mut still = 0;
    while still < 20 {
        match client.write(&[b'x'; 65_536]) {
            Ok(len) => (written, still) = (written + len, 0),
            Err(_) => {
                still += 1;
                std::thread::sleep(Duration::from_millis(10)); // the kernel's buffers settle
            }
        }
        assert!(written < 256 << 20, "it is read without end");
    }
    client.set_nonblocking(false).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&client).len(), written, "and nothing is lost");
}

#[test]
fn bytes_are_sent_as_fast_as_they_are_taken() {
    let server = bind(["tcp://127.0.0.1:0"]);
    let server = server.settings(settings("raw")).on_send(|peer| {
        let sent = peer.with_state(|sent: &mut usize| {
            *sent += 1;
            *sent
        });
        if sent == 101 {
            peer.close();
        }
        (sent <= 100).then(|| Bytes::from(vec![sent as u8; 50_000]))
    });
    let server = Running::start(server, 1);
    let all = read_all(&server.tcp());
    assert_eq!(all.len(), 5_000_000);
    assert!(
        all.chunks(50_000).zip(1..).all(|(part, number)| part.iter().all(|byte| *byte == number))
    );
}

#[test]
fn datagrams_of_every_size_come_back_to_who_sent_them() {
    let server = Running::start(echo("raw"), 1);
    let clients: Vec<UdpSocket> =
        (0..10).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let mut answer = vec![0; 70_000];
    for (number, client) in clients.iter().enumerate() {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        for len in [0, 1, 1472, 65_507] {
            client.send_to(&vec![number as u8; len], server.port(1)).unwrap();
            let (got, from) = client.recv_from(&mut answer).unwrap();
            assert_eq!((got, from), (len, server.port(1)));
            assert!(answer[..got].iter().all(|byte| *byte == number as u8));
        }
    }
}

#[test]
fn silent_clients_are_left_after_their_time_and_one_too_many_is_turned_away() {
    let (tell, told) = mpsc::channel();
    let refused = tell.clone();
    let server = bind(["tcp://127.0.0.1:0"]);
    let server = server
        .settings(Settings {
            idle_time: Some(Duration::from_millis(300)),
            peers_max: 1,
            ..settings("lines")
        })
        .on_close(move |_, closed| tell.send(closed.to_string()).unwrap())
        .on_refuse(move |_, closed| refused.send(closed.to_string()).unwrap());
    let server = Running::start(server, 1);
    let silent = server.tcp();
    let many = server.tcp();
    assert_eq!(read_all(&many), b"");
    assert_eq!(
        told.recv_timeout(PATIENCE).unwrap(),
        "there are already as many peers as may be at once: 1"
    );
    assert_eq!(read_all(&silent), b"");
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "said nothing for 300ms");
}

#[test]
fn a_server_goes_down_with_what_it_sent_and_listens_again_at_once() {
    let server = Running::start(echo("lines"), 1);
    let at = server.port(0);
    let mut client = server.tcp();
    client.write_all(b"hola\n").unwrap();
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    drop(server);
    assert_eq!(read_all(&client), b"", "the end, and no reset");
    let again = bind([format!("tcp://{at}")]);
    let again = Running::start(again.settings(settings("lines")), 1);
    assert_eq!(again.port(0), at, "in spite of TIME_WAIT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_that_awaits_speaks_the_same() {
    let server = tokio::task::spawn_blocking(|| Running::start(echo("tp0-bare"), 1)).await.unwrap();
    let address: Address = format!("tcp://{}", server.port(0)).parse().unwrap();
    let dialect = std::sync::Arc::new(Dialect::parse("tp0-bare").unwrap());
    let mut client = Client::connect(&address, dialect.clone()).await.unwrap();
    let fields = cabo::proto::dialect::value::Fields::from([("text", "hola".into())]);
    client.sender.send_fields(Some("MENSAJE"), &fields).await.unwrap();
    client.sender.finish().await.unwrap();
    let message = client.receiver.next().await.unwrap().unwrap();
    let decoded = message.decode().unwrap();
    assert_eq!(decoded.kind.as_deref(), Some("MENSAJE"));
    assert_eq!(decoded.fields.get("text"), fields.get("text"));
    assert!(client.receiver.next().await.unwrap().is_none());
    let unfit = client.sender.send_fields(Some("NADA"), &fields).await.unwrap_err();
    assert_eq!(unfit.to_string(), "there is no message \"NADA\" here; there are: MENSAJE, PAQUETE");
    let strict = std::sync::Arc::new(Dialect::parse("tp0").unwrap());
    let refused = Client::connect(&address, strict).await.err().unwrap();
    assert!(
        refused.to_string().contains("turned us away") || refused.to_string().contains("no answer"),
        "{refused}"
    );
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
}

#[test]
fn what_cannot_be_sent_is_said() {
    let error = SendError::Full { waiting: 3 };
    assert_eq!(error.to_string(), "the peer has 3 bytes to take yet; it may take more later");
    let error = Server::bind(["tcp//x"]).err().unwrap();
    assert!(error.to_string().contains("tcp//x"), "{error}");
    let nowhere = Server::bind([""; 0]).unwrap().run().unwrap_err();
    assert!(matches!(nowhere, BindError::Nowhere), "{nowhere}");
}
