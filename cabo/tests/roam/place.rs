//! Two hosts, and bytes that flow between them over one session while something happens to the hosts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cabo::carrier::Peer;
use cabo::connection::Connection;
use cabo::endpoint::{Endpoint, Settings};
use cabo::keys::Identity;
use cabo::lab::{Cable, CableConfig, Host, Lab, LabError};
use cabo::stream::{RecvStream, SendStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// For everything that should take a moment.
pub(crate) const LIMIT: Duration = Duration::from_secs(40);
const PIECE_BYTES: usize = 64 * 1024;
/// What has to arrive before something happens, and again after it.
const SOME_BYTES: u64 = 8 << 20;

/// The lab, if there is a program to change addresses with.
pub(crate) fn with_ip(lab: Lab) -> Result<Lab, String> {
    let is_there = std::process::Command::new("ip").arg("-V").output().is_ok();
    if is_there { Ok(lab) } else { Err("ip is not installed".to_owned()) }
}

/// Does what `ip` does with these words on `host`, and returns what it says.
pub(crate) fn ip(host: &Host, words: &str) -> String {
    let output = host.command("ip").args(words.split(' ')).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ip {words}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Ana, who connects, and bob, who listens, with cables `eth0` and `eth1` between them.
pub(crate) struct Place {
    pub(crate) ana: Host,
    pub(crate) bob: Host,
    _cables: [Cable; 2],
}

impl Place {
    pub(crate) fn new(lab: &Lab) -> Self {
        let (ana, bob) = (lab.host("ana").unwrap(), lab.host("bob").unwrap());
        let cable = |name| lab.cable(&ana, name, &bob, name, &CableConfig::default()).unwrap();
        let cables = [cable("eth0"), cable("eth1")];
        Self { ana, bob, _cables: cables }
    }

    /// The address of `host` on an interface.
    pub(crate) fn address(host: &Host, interface: &str) -> String {
        let said = ip(host, &format!("-4 -o addr show {interface}"));
        let address = said.split_whitespace().nth(3).unwrap();
        address.split('/').next().unwrap().to_owned()
    }
}

/// Which way the bytes flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    /// To ana.
    Down,
    /// To bob.
    Up,
}

/// What one end saw.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Times that it followed the other end.
    pub(crate) moves: u64,
    /// Where that was in the end.
    pub(crate) peer: Peer,
}

type End = JoinHandle<Result<Seen, LabError>>;

/// A session over which bytes flow until it is told to stop.
pub(crate) struct Flow {
    arrived: Arc<AtomicU64>,
    is_enough: Arc<AtomicBool>,
    ends: [End; 2],
}

impl Flow {
    /// Bob listens at `listen`, and ana connects to what `known` makes of his port.
    pub(crate) fn start(
        place: &Place,
        way: Way,
        listen: &str,
        known: impl FnOnce(&str) -> String,
    ) -> Self {
        let (arrived, is_enough) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (say_port, port) = channel();
        let (address, counts) = (listen.to_owned(), (arrived.clone(), is_enough.clone()));
        let server = place.bob.spawn(move || {
            run(async move {
                let server = endpoint();
                let listening = server.listen(&address.parse().unwrap()).await.unwrap();
                say_port.send(listening.address.to_string()).unwrap();
                let session = server.accept().await;
                session.admit();
                let (send, recv) = session.accept().await.unwrap();
                flow((way == Way::Down).then_some(0), send, recv, counts).await;
                session.closed().await;
                seen(&session)
            })
        });
        let address = known(port_of(&port).as_str());
        let counts = (arrived.clone(), is_enough.clone());
        let client = place.ana.spawn(move || {
            run(async move {
                let client = endpoint();
                let session = client.connect(&address.parse().unwrap(), None).await.unwrap();
                session.admitted().await.unwrap();
                let (mut send, recv) = session.open().await.unwrap();
                send.write_all(&[byte_at(0)]).await.unwrap(); // or the other end would not know of the stream
                flow((way == Way::Up).then_some(1), send, recv, counts).await;
                session.say_goodbye(0, "").await;
                seen(&session)
            })
        });
        let flow = Self { arrived, is_enough, ends: [client.unwrap(), server.unwrap()] };
        flow.wait_for_some();
        flow
    }

    /// Waits until bytes go on arriving.
    pub(crate) fn wait_for_some(&self) {
        let (started, before) = (Instant::now(), self.arrived.load(Relaxed));
        while self.arrived.load(Relaxed) < before + SOME_BYTES {
            assert!(started.elapsed() < LIMIT, "stuck at {}", self.arrived.load(Relaxed));
            assert!(!self.ends.iter().any(JoinHandle::is_finished), "an end is over");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until nothing arrives any more.
    pub(crate) fn wait_for_silence(&self) {
        let mut before = u64::MAX;
        while std::mem::replace(&mut before, self.arrived.load(Relaxed))
            != self.arrived.load(Relaxed)
        {
            thread::sleep(Duration::from_millis(300));
        }
    }

    /// Ends it, and returns what ana and bob saw.
    pub(crate) fn finish(self) -> [Seen; 2] {
        self.is_enough.store(true, Relaxed);
        self.ends.map(|end| end.join().unwrap().unwrap())
    }
}

pub(crate) fn port_of(said: &Receiver<String>) -> String {
    let address = said.recv_timeout(LIMIT).unwrap();
    address.rsplit(':').next().unwrap().to_owned()
}

pub(crate) fn endpoint() -> Endpoint {
    let mut settings = Settings::default();
    settings.session.keep_alive = true;
    Endpoint::new(&Identity::generate().unwrap(), settings).unwrap()
}

pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn seen(session: &Connection) -> Seen {
    Seen { moves: session.stats().packets.unwrap().moves, peer: session.from() }
}

pub(crate) fn byte_at(index: u64) -> u8 {
    (index >> 10).wrapping_mul(31) as u8
}

/// Writes from a byte on until it is enough, or reads and checks until the end.
async fn flow(
    writes_from: Option<u64>,
    mut send: SendStream,
    mut recv: RecvStream,
    (arrived, is_enough): (Arc<AtomicU64>, Arc<AtomicBool>),
) {
    let mut piece = vec![0; PIECE_BYTES];
    if let Some(mut index) = writes_from {
        while !is_enough.load(Relaxed) {
            for (byte, at) in piece.iter_mut().zip(index..) {
                *byte = byte_at(at);
            }
            send.write_all(&piece).await.unwrap();
            index += piece.len() as u64;
        }
        send.shutdown().await.unwrap();
        let _ = recv.read_to_end(&mut Vec::new()).await; // the other end has all: it says so, or is over
        return;
    }
    let mut index = 0;
    loop {
        let len = recv.read(&mut piece).await.unwrap();
        if len == 0 {
            break;
        }
        for byte in &piece[..len] {
            assert_eq!(*byte, byte_at(index), "byte {index}");
            index += 1;
        }
        arrived.store(index, Relaxed);
    }
    send.shutdown().await.unwrap();
}
