//! Datagrams whose sender is forged, at servers that answer all that they hear.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use cabo::keys::Identity;
use cabo::lab::{CableConfig, Host, Lab, LabError};
use cabo::talk::{Peer, SendError, Server};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::oneshot;

use crate::Test;

pub(crate) const ALL: &[Test] = &[
    (
        "a_datagram_from_the_servers_own_address_is_not_answered",
        a_datagram_from_the_servers_own_address_is_not_answered,
    ),
    (
        "two_servers_do_not_answer_each_other_for_ever",
        two_servers_do_not_answer_each_other_for_ever,
    ),
];

const PATIENCE: Duration = Duration::from_secs(60);
const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Answers at once to a peer that says nothing new (`talk::answers`).
const BURST: u64 = 10_000;

/// What happened at a server.
enum Told {
    Heard(SocketAddr, Vec<u8>),
    NotAnswered(Peer, SendError),
}

/// An echo that runs until it is dropped.
struct Echo {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), LabError>>>,
}

impl Echo {
    fn start(host: &Host, url: &str, tells_all: bool, tell: Sender<Told>) -> Self {
        let url = url.to_owned();
        let (ready, is_ready) = mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = host.spawn(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_time().build().unwrap().block_on(async move {
                let mut server = echoing(&url, tells_all, tell);
                server.listen().await.unwrap();
                ready.send(()).unwrap();
                server.serve(async { stopped.await.unwrap_or_default() }).await;
            });
        });
        is_ready.recv_timeout(PATIENCE).unwrap();
        Self { stop: Some(stop), thread: Some(running.unwrap()) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

fn echoing(url: &str, tells_all: bool, tell: Sender<Told>) -> Server {
    let server = Server::bind([url]).unwrap().identity(Identity::generate().unwrap());
    server.on_receive(move |message, peer| {
        if tells_all {
            let from = peer.from().socket_addr().unwrap();
            tell.send(Told::Heard(from, message.bytes().to_vec())).unwrap();
        }
        if let Err(error) = peer.send_back(&message) {
            let _ = tell.send(Told::NotAnswered(peer.clone(), error)); // the test may be over
        }
    })
}

/// Sends a datagram that says it comes from there; on the host of this thread.
fn forge(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) {
    let len = 28 + payload.len() as u16;
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&len.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0]); // the kernel writes the checksum of the header
    packet.extend_from_slice(&from.ip().octets());
    packet.extend_from_slice(&to.ip().octets());
    for half in [from.port(), to.port(), len - 20, 0] {
        packet.extend_from_slice(&half.to_be_bytes());
    }
    packet.extend_from_slice(payload);
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)));
    raw.unwrap().send_to(&packet, &SocketAddr::V4(to).into()).unwrap();
}

fn at(ip: Ipv4Addr, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(ip, port)
}

/// A client at another host may well have the same port.
fn a_datagram_from_the_servers_own_address_is_not_answered(lab: &Lab) {
    let (ana, bob) = (lab.host("ana").unwrap(), lab.host("bob").unwrap());
    let cable = lab.cable(&ana, "eth0", &bob, "eth0", &CableConfig::default()).unwrap();
    let (ana_ip, bob_ip) = (cable.a.ipv4, cable.b.ipv4);
    for (url, to, own) in [
        ("udp://127.0.0.1:7", HERE, vec![HERE]),
        ("udp://0.0.0.0:7", HERE, vec![HERE, Ipv4Addr::new(127, 9, 9, 9), ana_ip]),
        ("udp://:7", HERE, vec![HERE, ana_ip]),
        ("udp://:7", ana_ip, vec![HERE, ana_ip]),
    ] {
        let (tell, told) = mpsc::channel();
        let _echo = Echo::start(&ana, url, true, tell);
        let other = ana.run(move || {
            own.iter().for_each(|own| forge(at(*own, 7), at(to, 7), b"again"));
            let other = UdpSocket::bind((HERE, 0)).unwrap();
            other.set_read_timeout(Some(PATIENCE)).unwrap();
            for n in 0..100_u8 {
                other.send_to(&[n], (HERE, 7)).unwrap(); // behind them in the same queue
                assert_eq!(other.recv(&mut [0; 9]).unwrap(), 1);
            }
            other.local_addr().unwrap()
        });
        let other = other.unwrap();
        for n in 0..100 {
            match told.recv_timeout(PATIENCE).unwrap() {
                Told::Heard(from, said) => assert_eq!((from, said), (other, vec![n]), "{url}"),
                Told::NotAnswered(..) => panic!("{url}: not answered"),
            }
        }
        if to == ana_ip {
            let heard = bob.run(move || {
                let client = UdpSocket::bind((bob_ip, 7)).unwrap();
                client.set_read_timeout(Some(PATIENCE)).unwrap();
                client.send_to(b"hola", (ana_ip, 7)).unwrap();
                let mut answer = [0; 9];
                client.recv_from(&mut answer).unwrap()
            });
            assert_eq!(heard.unwrap(), (4, (ana_ip, 7).into()));
        }
    }
}

fn two_servers_do_not_answer_each_other_for_ever(lab: &Lab) {
    for going_round in [1, 40] {
        let host = lab.host("ana").unwrap();
        let (tell, told) = mpsc::channel();
        let echo =
            |port| Echo::start(&host, &format!("udp://127.0.0.1:{port}"), false, tell.clone());
        let _both = (echo(7), echo(8));
        let forged = host.run(move || {
            (0..going_round).for_each(|n: u8| forge(at(HERE, 7), at(HERE, 8), &[n]));
        });
        forged.unwrap();
        // The datagrams go round until one of the two has had enough.
        let Told::NotAnswered(peer, why) = told.recv_timeout(PATIENCE).unwrap() else {
            panic!("what is heard is not told");
        };
        assert_eq!(why, SendError::NothingNew);
        let answered = peer.stats().sent_messages;
        assert!(answered >= BURST, "{answered} answers");
        let honest = host.run(|| {
            let client = UdpSocket::bind((HERE, 0)).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.send_to(b"hola", (HERE, 7)).unwrap();
            client.recv(&mut [0; 9]).unwrap()
        });
        assert_eq!(honest.unwrap(), 4);
    }
}
