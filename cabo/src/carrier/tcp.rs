//! | tcp | framed | reliable | ordered | secure | largest datagram |
//! |---|---|---|---|---|---|
//! | | no | yes | yes | no | - |
//!
//! Byte streams over TCP. Nagle is off, for records come whole; the unsent backlog in the kernel is kept small, or
//! priorities and seeks drown in it. Neighbours: `mod.rs` (the traits), `accept.rs`,
//! `anywhere.rs`, `calls` (by which system calls are made, and told of).

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::accept::Patience;
use super::calls::{self, Closing, Kind, Side};
use super::{Accepted, Connected, Listener, OpenError, Peer, Promises, anywhere, sockopt};

const BACKLOG: i32 = 1024;
const UNSENT_BYTES: u32 = 128 << 10;
/// A dead peer is noticed after 30 + 6 * 10 s: later than a cable that is pulled for half a minute.
const KEEP_IDLE_S: u32 = 30;
const KEEP_INTERVAL_S: u32 = 10;
const KEEP_COUNT: u32 = 6;

/// Accepts TCP connections.
#[derive(Debug)]
pub struct Tcp {
    _closing: Closing, // before the listener, which it tells of
    listener: TcpListener,
    local: SocketAddr,
    patience: Patience,
}

impl Tcp {
    /// Listens at exactly `address`: IPv6 never takes IPv4 along; port 0 takes a free one. Must be called inside a
    /// tokio runtime.
    pub fn listen(address: SocketAddr) -> Result<Self, OpenError> {
        Self::of(&format!("tcp://{address}"), listening(address, false))
    }

    /// Listens at `port` of every address of this machine, of IPv6 and of IPv4; of IPv4 alone where IPv6 is off.
    pub fn listen_anywhere(port: u16) -> Result<Self, OpenError> {
        let listener = anywhere::open(port, |address| listening(address, true));
        Self::of(&format!("tcp://:{port}"), listener)
    }

    fn of(what: &str, listener: io::Result<(TcpListener, Closing)>) -> Result<Self, OpenError> {
        let failed = |e| OpenError::of(what, "listen", e);
        let (listener, closing) = listener.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        Ok(Self { _closing: closing, listener, local, patience: Patience::new() })
    }
}

fn listening(address: SocketAddr, is_both: bool) -> io::Result<(TcpListener, Closing)> {
    let (domain, tcp) = (Domain::for_address(address), Some(Protocol::TCP));
    let (socket, closing) = calls::socket(domain, Type::STREAM, tcp, Kind::Tcp)?;
    anywhere::set_families(&socket, address, is_both)?;
    let reused = socket.set_reuse_address(true);
    calls::option(&socket, "SO_REUSEADDR, 1", "past connections do not block a restart", reused)?;
    socket.set_nonblocking(true)?;
    calls::bind(&socket, &address.into())?;
    calls::listen(&socket, BACKLOG, Kind::Tcp)?;
    Ok((TcpListener::from_std(socket.into())?, closing))
}

impl Listener for Tcp {
    fn promises(&self) -> Promises {
        Promises::STREAM
    }

    fn local(&self) -> Peer {
        Peer::tcp(self.local)
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        let accepted = self.patience.poll_accept(cx, |cx| {
            let accepted = self.listener.poll_accept(cx);
            let from = |_: &TcpStream, from: &SocketAddr| Peer::tcp(*from).to_string();
            calls::accepted(&self.listener, Kind::Tcp, accepted, from).map_ok(|(stream, from)| {
                tune(&stream);
                (calls::stream(stream, Kind::Tcp, Side::Accepted), from)
            })
        });
        let (stream, from) = ready!(accepted)?;
        Poll::Ready(Ok(Accepted::new(stream, Peer::tcp(from), None)))
    }
}

/// Connects to `address`, or fails `within` the deadline.
pub async fn connect(address: SocketAddr, within: Duration) -> Result<Connected, OpenError> {
    connect_from(None, address, within).await
}

/// The same with an end of ours that is chosen: port 0 is any.
pub async fn connect_from(
    from: Option<SocketAddr>,
    address: SocketAddr,
    within: Duration,
) -> Result<Connected, OpenError> {
    let what = format!("tcp://{address}");
    let (stream, closing) = match timeout(within, reach(from, address)).await {
        Ok(result) => result?,
        Err(_elapsed) => return Err(OpenError::Timeout { what, seconds: within.as_secs() }),
    };
    if stream.local_addr().is_ok_and(|local| local == address) {
        return Err(OpenError::Refused { what }); // TCP's simultaneous open: nobody listens, and we met ourselves
    }
    tune(&stream);
    closing.disarm();
    let stream = calls::stream(stream, Kind::Tcp, Side::Connected);
    Ok(Connected { stream, to: Peer::tcp(address), peer_user: None, channel: None })
}

/// Connects without waiting in the kernel.
async fn reach(
    from: Option<SocketAddr>,
    address: SocketAddr,
) -> Result<(TcpStream, Closing), OpenError> {
    let failed = |e| OpenError::of(&format!("tcp://{address}"), "connect", e);
    let (domain, tcp) = (Domain::for_address(address), Some(Protocol::TCP));
    let (socket, closing) = calls::socket(domain, Type::STREAM, tcp, Kind::Tcp).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    if let Some(from) = from {
        let bound = bind(&socket, from);
        bound.map_err(|e| OpenError::of(&format!("tcp://{from}"), "bind", e))?;
    }
    match calls::connect(&socket, &address.into(), Kind::Tcp) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let stream = TcpStream::from_std(socket.into()).map_err(failed)?;
    let closing = closing; // dropped before the stream, should nobody wait any more
    stream.writable().await.map_err(failed)?;
    calls::connected(&stream, || stream.take_error()).map_err(failed)?;
    Ok((stream, closing))
}

fn bind(socket: &Socket, from: SocketAddr) -> io::Result<()> {
    let reused = socket.set_reuse_address(true);
    let why = "an earlier conversation from here may still be in TIME_WAIT";
    calls::option(socket, "SO_REUSEADDR, 1", why, reused)?;
    calls::bind(socket, &from.into())
}

/// Fails only on a connection that is already broken, which its first read tells better.
fn tune(stream: &TcpStream) {
    let set = |name, value: u32, what: &str, meaning| {
        let set = sockopt::set(stream, libc::IPPROTO_TCP, name, value);
        let _ = calls::option(stream, format_args!("{what}, {value}"), meaning, set);
    };
    set(libc::TCP_NODELAY, 1, "TCP_NODELAY", "no segment waits to be filled");
    let unsent = "more unsent bytes than that are not taken from us, or they would age here";
    set(libc::TCP_NOTSENT_LOWAT, UNSENT_BYTES, "TCP_NOTSENT_LOWAT", unsent);
    let kept = SockRef::from(stream).set_keepalive(true);
    let _ = calls::option(stream, "SO_KEEPALIVE, 1", "who is silent is asked for a sign", kept);
    set(libc::TCP_KEEPIDLE, KEEP_IDLE_S, "TCP_KEEPIDLE", "seconds of silence before that");
    set(libc::TCP_KEEPINTVL, KEEP_INTERVAL_S, "TCP_KEEPINTVL", "seconds between two such probes");
    set(libc::TCP_KEEPCNT, KEEP_COUNT, "TCP_KEEPCNT", "probes without an answer end it");
}
