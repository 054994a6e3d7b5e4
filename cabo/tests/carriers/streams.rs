//! What every stream carrier must do.

use std::fs;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use cabo::address::{Address, Query, UnixName};
use cabo::carrier::tcp::{self, Tcp};
use cabo::carrier::tls::{self, ConnectSettings, ListenSettings, Tls};
use cabo::carrier::unix::{self, Unix};
use cabo::carrier::{Accepted, Connected, Listener, OpenError, Peer};
use cabo::keys::certificate::self_signed;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

type Check = for<'k> fn(&'k Kind) -> Pin<Box<dyn Future<Output = ()> + 'k>>;
type OwnCheck = fn() -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! checks {
    ($($name:ident)*) => { &[$((stringify!($name), |kind| Box::pin($name(kind)))),*] };
}
macro_rules! own_checks {
    ($($name:ident)*) => { &[$((stringify!($name), || Box::pin($name()))),*] };
}

/// By name, for every kind.
pub(crate) const ALL: &[(&str, Check)] = checks! {
    bytes_go_both_ways_and_each_way_ends_alone
    a_second_listener_is_refused_by_type
    a_dropped_listener_frees_its_address_and_refuses
    the_other_end_is_known
    running_out_of_descriptors_is_ridden_out
    both_ends_of_a_sealed_channel_know_the_same_of_it
};

/// By name, for one kind.
pub(crate) const OWN: &[(&str, OwnCheck)] = own_checks! {
    a_stale_socket_file_is_replaced
    a_file_that_is_no_socket_is_left_alone
    a_socket_file_of_another_server_is_not_removed_at_the_end
    nobody_connects_to_himself
    a_silent_host_is_given_up_at_the_deadline
};

const DEADLINE: Duration = Duration::from_secs(5);

/// One kind of stream carrier.
pub(crate) enum Kind {
    Tcp(&'static str),
    Tls(Address),
    Unix(UnixName),
}

pub(crate) fn all() -> Vec<(&'static str, Kind)> {
    let path = scratch("all");
    vec![
        ("tcp4", Kind::Tcp("127.0.0.1:0")),
        ("tcp6", Kind::Tcp("[::1]:0")),
        ("tls", Kind::Tls(certified())),
        ("unix_path", Kind::Unix(UnixName::Path(path))),
        ("unix_abstract", Kind::Unix(UnixName::Abstract(b"cabo-carriers-test".to_vec()))),
    ]
}

/// An address with a certificate for this machine, in a file of its own.
fn certified() -> Address {
    let made = self_signed(&["127.0.0.1"], 1).unwrap();
    let path = scratch("certificate");
    fs::write(&path, made.certificate + &made.key).unwrap();
    let mut address: Address = "tls://127.0.0.1".parse().unwrap();
    address.query.set("cert", path.as_os_str().as_bytes());
    address
}

fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("cabo-carriers-{}-{name}", std::process::id()))
}

impl Kind {
    fn listen(&self) -> Result<Box<dyn Listener>, OpenError> {
        match self {
            Self::Tcp(address) => Ok(Box::new(Tcp::listen(address.parse().unwrap())?)),
            Self::Tls(address) => Self::listen_tls(address, ([127, 0, 0, 1], 0).into()),
            Self::Unix(name) => Ok(Box::new(Unix::listen(name)?)),
        }
    }

    fn listen_tls(address: &Address, at: SocketAddr) -> Result<Box<dyn Listener>, OpenError> {
        let settings = ListenSettings::of(address).unwrap();
        Ok(Box::new(Tls::over(Tcp::listen(at)?, &settings, tls::FOREIGN)?))
    }

    /// Another listener at the place of `first`.
    fn listen_again(&self, first: Peer) -> Result<Box<dyn Listener>, OpenError> {
        match self {
            Self::Tcp(_) => Ok(Box::new(Tcp::listen(first.socket_addr().unwrap())?)),
            Self::Tls(address) => Self::listen_tls(address, first.socket_addr().unwrap()),
            Self::Unix(_) => self.listen(),
        }
    }

    async fn connect(&self, listener: Peer) -> Result<Connected, OpenError> {
        match self {
            Self::Tcp(_) => tcp::connect(listener.socket_addr().unwrap(), DEADLINE).await,
            Self::Tls(address) => {
                let mut address = address.clone();
                let certificate = address.query.get("cert").unwrap().to_vec();
                address.query = Query::default();
                address.query.set("ca", &certificate);
                let settings = ConnectSettings::of(&address).unwrap();
                let at = listener.socket_addr().unwrap();
                tls::connect(at, &settings, tls::FOREIGN, DEADLINE).await
            }
            Self::Unix(name) => unix::connect(name, DEADLINE).await,
        }
    }

    /// Connects without what the carrier does before the first byte: to somebody who does not accept yet.
    async fn knock(&self, listener: Peer) -> Result<Connected, OpenError> {
        match self {
            Self::Tls(_) => tcp::connect(listener.socket_addr().unwrap(), DEADLINE).await,
            Self::Tcp(_) | Self::Unix(_) => self.connect(listener).await,
        }
    }

    /// Both ends of a connection with this listener.
    async fn meet(&self, listener: &dyn Listener) -> (Accepted, Connected) {
        let accepting = async { accept(listener).await.secured().await.unwrap() };
        let (accepted, connected) = tokio::join!(accepting, self.connect(listener.local()));
        (accepted, connected.unwrap())
    }

    async fn pair(&self) -> (Accepted, Connected) {
        let listener = self.listen().unwrap();
        self.meet(&*listener).await
    }
}

async fn accept(listener: &dyn Listener) -> Accepted {
    let next = poll_fn(|cx| listener.poll_accept(cx));
    timeout(DEADLINE, next).await.expect("nobody was accepted").unwrap()
}

async fn bytes_go_both_ways_and_each_way_ends_alone(kind: &Kind) {
    let (mut server, mut client) = kind.pair().await;
    let sent: Vec<u8> = (0..3 << 20).map(|i: u32| (i.wrapping_mul(i) >> 7) as u8).collect();
    let expected = sent.clone();
    let (mut arrived, mut answer) = (Vec::new(), Vec::new());
    let asking = async {
        client.stream.write_all(&sent).await.unwrap();
        client.stream.shutdown().await.unwrap();
        client.stream.read_to_end(&mut answer).await.unwrap();
    };
    let answering = async {
        server.stream.read_to_end(&mut arrived).await.unwrap();
        server.stream.write_all(b"after your end").await.unwrap();
        server.stream.shutdown().await.unwrap();
    };
    timeout(DEADLINE, async { tokio::join!(asking, answering) }).await.expect("it hung");
    assert!(arrived == expected);
    assert_eq!(answer, b"after your end");
}

async fn a_second_listener_is_refused_by_type(kind: &Kind) {
    let first = kind.listen().unwrap();
    let error = kind.listen_again(first.local()).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}");
    kind.meet(&*first).await; // which still listens
}

async fn a_dropped_listener_frees_its_address_and_refuses(kind: &Kind) {
    let first = kind.listen().unwrap();
    let local = first.local();
    let (accepted, connected) = kind.meet(&*first).await;
    drop(first);
    let error = kind.connect(local).await.map(|_| ()).unwrap_err();
    let is_gone =
        matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound);
    assert!(is_gone, "{error}"); // the name of a Unix socket goes with it
    drop((accepted, connected)); // the server's side first: it is the one that stays in TIME_WAIT
    kind.listen_again(local).expect("free at once");
}

async fn the_other_end_is_known(kind: &Kind) {
    let (server, client) = kind.pair().await;
    match kind {
        Kind::Tcp(_) | Kind::Tls(_) => {
            assert!(server.from.is_loopback() && server.from.port() != client.to.port());
            assert_eq!((server.peer_user, client.peer_user), (None, None));
        }
        Kind::Unix(_) => {
            let us = (
                Peer::Unix { process: std::process::id() },
                Some(rustix::process::getuid().as_raw()),
            );
            assert_eq!((server.from, server.peer_user), us);
            assert_eq!((client.to, client.peer_user), us);
        }
    }
}

async fn running_out_of_descriptors_is_ridden_out(kind: &Kind) {
    let listener = kind.listen().unwrap();
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(kind.knock(listener.local()).await.unwrap());
    }
    let had = getrlimit(Resource::Nofile);
    let free = fs::File::open("/dev/null").unwrap();
    let lowest_free = std::os::fd::AsRawFd::as_raw_fd(&free) as u64;
    drop(free);
    setrlimit(Resource::Nofile, Rlimit { current: Some(lowest_free), ..had }).unwrap();
    let mut polls = 0;
    let nobody = poll_fn(|cx| {
        polls += 1;
        listener.poll_accept(cx)
    });
    let starved = timeout(Duration::from_millis(120), nobody).await;
    setrlimit(Resource::Nofile, had).unwrap();
    assert!(starved.is_err(), "accepted without a descriptor: {starved:?}");
    assert!(polls < 20, "{polls} polls: it spins");
    let mut shed = [0];
    let end = timeout(DEADLINE, clients[0].stream.read(&mut shed)).await.expect("a client hangs");
    assert_eq!(end.unwrap_or(0), 0, "the first client was closed");
    let late = kind.knock(listener.local()).await.unwrap();
    clients.push(late);
    accept(&*listener).await;
}

async fn both_ends_of_a_sealed_channel_know_the_same_of_it(kind: &Kind) {
    let promises = kind.listen().unwrap().promises();
    let ((one, its), (other, _)) = (kind.pair().await, kind.pair().await);
    assert_eq!(one.channel, its.channel);
    assert_eq!(one.channel.is_some(), promises.secure);
    assert!(one.channel != other.channel || !promises.secure, "no two are alike");
}

async fn a_stale_socket_file_is_replaced() {
    let name = UnixName::Path(scratch("stale"));
    let UnixName::Path(path) = &name else { return };
    drop(std::os::unix::net::UnixListener::bind(path).unwrap()); // as a kill leaves it
    assert!(path.exists());
    let listener = Unix::listen(&name).unwrap();
    unix::connect(&name, DEADLINE).await.unwrap();
    drop(listener);
    assert!(!path.exists(), "a listener leaves nothing behind");
}

async fn a_file_that_is_no_socket_is_left_alone() {
    let name = UnixName::Path(scratch("file"));
    let UnixName::Path(path) = &name else { return };
    fs::write(path, "dear").unwrap();
    let error = Unix::listen(&name).unwrap_err();
    assert!(matches!(error, OpenError::NotASocket { .. }), "{error}");
    assert_eq!(fs::read_to_string(path).unwrap(), "dear");
    fs::remove_file(path).unwrap();
}

async fn a_socket_file_of_another_server_is_not_removed_at_the_end() {
    let name = UnixName::Path(scratch("other"));
    let UnixName::Path(path) = &name else { return };
    let first = Unix::listen(&name).unwrap();
    fs::remove_file(path).unwrap(); // somebody cleaned up, and a second server came
    let second = Unix::listen(&name).unwrap();
    drop(first);
    unix::connect(&name, DEADLINE).await.expect("the second is still there");
    drop(second);
    assert!(!path.exists());
}

async fn nobody_connects_to_himself() {
    // TCP lets a socket meet itself when its own free port is the one that it asks for
    for port in 32_768..32_868 {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let result = tcp::connect(address, DEADLINE).await;
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ConnectionRefused, "{port}");
    }
}

async fn a_silent_host_is_given_up_at_the_deadline() {
    let name = UnixName::Abstract(b"cabo-carriers-full".to_vec());
    let _silent = Unix::listen(&name).unwrap();
    let had = getrlimit(Resource::Nofile); // its backlog holds as many as a process may usually open
    setrlimit(Resource::Nofile, Rlimit { current: had.maximum, ..had }).unwrap();
    let mut waiting = Vec::new();
    let within = Duration::from_millis(100);
    let error = loop {
        match unix::connect(&name, within).await {
            Ok(connected) => waiting.push(connected),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "after {}: {error}", waiting.len());
}
