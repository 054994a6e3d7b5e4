//! Tells of every system call that a socket for foreign programs makes: its descriptor, its result, and what that put on
//! the wire.
//!
//! The carriers make their calls by way of this file (`socket`, `bind`, `listen`, `connect`) or show it what came of
//! them (`accept`, datagrams); `stream` puts a connection behind a wrapper. Nothing is made for show: a call that is told
//! of was made just then, with that result. What is not told of: a call that found nothing to do (`EAGAIN`), and looks at
//! the kernel: those that the telling itself needs, how large a buffer became, and which links there are.
//!
//! Neighbours: `frames` is for raw Ethernet, `records` for what crosses inside TLS. `wire` knows what a call means on the
//! wire, from what the kernel's own counters say of the connection.
//! Where nobody [watches](watch), that costs a look at a cell when a socket is opened or accepted, and one for each datagram
//! and each call below TLS.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::OnceLock;
use std::task::Poll;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

pub(in crate::carrier) use records::{Phase, below_tls};
pub(in crate::carrier) use stream::stream;

mod errno;
pub(in crate::carrier) mod frames;
mod records;
mod stream;
mod tcp_info;
mod wire;

/// What kind of socket it is, which decides what its calls do on the wire.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::carrier) enum Kind {
    Tcp,
    Udp,
    Unix,
    /// Raw Ethernet.
    Ether,
    /// A Unix socket whose name claims a port of an Ethernet link.
    Claim,
}

/// Which end of a connection a socket is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::carrier) enum Side {
    Accepted,
    Connected,
}

/// One system call as it was made.
#[derive(Clone, Debug)]
pub struct Call {
    /// As programs call it: `recv`, where the kernel's name is `recvfrom`.
    pub name: &'static str,
    /// The descriptor that it was made on; that of the new socket for `socket`, where there is one.
    pub descriptor: Option<i32>,
    /// Its arguments as text, the descriptor first where it has one.
    pub arguments: String,
    /// What it returned, or the error's number; none for `close`, which is told of just before it is made.
    pub result: Option<Result<i64, i32>>,
    /// What it put on the wire or took from it, in words.
    pub wire: String,
}

impl Call {
    /// The error's name as `errno.h` has it, where the call failed.
    pub fn error(&self) -> Option<String> {
        self.result.and_then(Result::err).map(errno::name)
    }
}

/// As `strace` writes it: `bind(4, 127.0.0.1:5005) = 0`.
impl fmt::Display for Call {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}({})", self.name, self.arguments)?;
        match self.result {
            Some(Ok(value)) => write!(out, " = {value}"),
            Some(Err(code)) => write!(out, " = {}", errno::name(code)),
            None => Ok(()),
        }
    }
}

type Watcher = Box<dyn Fn(&Call) + Send + Sync>;

static WATCHER: OnceLock<Watcher> = OnceLock::new();

/// Shows `watcher` every call that is made on sockets opened from now on, on the thread that makes it and right after it;
/// those of one descriptor in their order. One watcher a process; false if there is one already.
pub fn watch(watcher: impl Fn(&Call) + Send + Sync + 'static) -> bool {
    WATCHER.set(Box::new(watcher)).is_ok()
}

pub(crate) fn is_watched() -> bool {
    WATCHER.get().is_some()
}

fn tell(
    name: &'static str,
    descriptor: Option<RawFd>,
    arguments: String,
    result: Option<Result<i64, i32>>,
    wire: String,
) {
    if let Some(watcher) = WATCHER.get() {
        watcher(&Call { name, descriptor, arguments, result, wire });
    }
}

/// The outcome as a call returns it.
fn outcome<T>(result: &io::Result<T>, value: impl FnOnce(&T) -> i64) -> Result<i64, i32> {
    match result {
        Ok(got) => Ok(value(got)),
        Err(error) => Err(error.raw_os_error().unwrap_or_default()),
    }
}

/// Tells of the close of a descriptor when it is dropped: it stands before its socket in a struct, and after it on a
/// stack.
#[derive(Debug, Default)]
pub(in crate::carrier) struct Closing(Option<(RawFd, wire::Ending)>);

impl Closing {
    fn of(descriptor: RawFd, ending: wire::Ending) -> Self {
        Self(is_watched().then_some((descriptor, ending)))
    }

    /// What is told by somebody else from now on.
    pub(in crate::carrier) fn disarm(mut self) {
        self.0 = None;
    }

    /// The socket is in a multicast group.
    pub(in crate::carrier) fn joined(&mut self) {
        self.now_of(|ending| ending.is_member = true);
    }

    /// More is known of the connection.
    fn now_of(&mut self, change: impl FnOnce(&mut wire::Ending)) {
        if let Some((_, ending)) = &mut self.0 {
            change(ending);
        }
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        if let Some((descriptor, ending)) = self.0.take() {
            let wire = ending.at_close(descriptor);
            tell("close", Some(descriptor), descriptor.to_string(), None, wire);
        }
    }
}

/// A new socket, and what tells of its close.
pub(in crate::carrier) fn socket(
    domain: Domain,
    ty: Type,
    protocol: Option<Protocol>,
    kind: Kind,
) -> io::Result<(Socket, Closing)> {
    let socket = Socket::new(domain, ty, protocol);
    if is_watched() {
        let descriptor = socket.as_ref().ok().map(AsRawFd::as_raw_fd);
        let result = outcome(&socket, |socket| socket.as_raw_fd().into());
        let family = match domain {
            Domain::IPV4 => "AF_INET",
            Domain::IPV6 => "AF_INET6",
            Domain::PACKET => "AF_PACKET",
            _ => "AF_UNIX",
        };
        let arguments = match kind {
            Kind::Tcp => format!("{family}, SOCK_STREAM, IPPROTO_TCP"),
            Kind::Udp => format!("{family}, SOCK_DGRAM, IPPROTO_UDP"),
            Kind::Unix => format!("{family}, SOCK_STREAM, 0"),
            Kind::Ether => format!("{family}, SOCK_RAW, 0"),
            Kind::Claim => format!("{family}, SOCK_DGRAM, 0"),
        };
        tell("socket", descriptor, arguments, Some(result), wire::socket(kind, result));
    }
    let socket = socket?;
    let closing = Closing::of(socket.as_raw_fd(), wire::Ending::unconnected(kind));
    Ok((socket, closing))
}

/// Tells of an option that was set.
pub(in crate::carrier) fn option(
    socket: &impl AsRawFd,
    what: impl fmt::Display,
    meaning: &str,
    set: io::Result<()>,
) -> io::Result<()> {
    if is_watched() {
        let (descriptor, result) = (socket.as_raw_fd(), outcome(&set, |()| 0));
        let wire = result.map_or_else(wire::failed, |_| meaning.to_owned());
        let arguments = format!("{descriptor}, {what}");
        tell("setsockopt", Some(descriptor), arguments, Some(result), wire);
    }
    set
}

/// Binds.
pub(in crate::carrier) fn bind(socket: &Socket, address: &SockAddr) -> io::Result<()> {
    let bound = socket.bind(address);
    if is_watched() {
        let (descriptor, result) = (socket.as_raw_fd(), outcome(&bound, |()| 0));
        let local = socket.local_addr().ok().filter(|_| bound.is_ok());
        let arguments = format!("{descriptor}, {}", wire::address(address));
        let wire = wire::bind(address, local.as_ref(), result);
        tell("bind", Some(descriptor), arguments, Some(result), wire);
    }
    bound
}

/// Listens.
pub(in crate::carrier) fn listen(socket: &Socket, backlog: i32, kind: Kind) -> io::Result<()> {
    let listening = socket.listen(backlog);
    if is_watched() {
        let (descriptor, result) = (socket.as_raw_fd(), outcome(&listening, |()| 0));
        let wire = wire::listen(descriptor, kind, result);
        let arguments = format!("{descriptor}, {backlog}");
        tell("listen", Some(descriptor), arguments, Some(result), wire);
    }
    listening
}

/// Tells of a connection that was accepted, or why none was. `from` says who connected.
pub(in crate::carrier) fn accepted<S: AsRawFd, A>(
    listener: &impl AsRawFd,
    kind: Kind,
    accepted: Poll<io::Result<(S, A)>>,
    from: impl FnOnce(&S, &A) -> String,
) -> Poll<io::Result<(S, A)>> {
    if is_watched()
        && let Poll::Ready(answer) = &accepted
    {
        let (descriptor, result) =
            (listener.as_raw_fd(), outcome(answer, |(s, _)| s.as_raw_fd().into()));
        let wire = match answer {
            Ok((stream, address)) => {
                wire::accepted(stream.as_raw_fd(), kind, &from(stream, address))
            }
            Err(_) => result.err().map(wire::failed).unwrap_or_default(),
        };
        tell("accept", Some(descriptor), descriptor.to_string(), Some(result), wire);
    }
    accepted
}

/// Starts to connect. A socket that does not block says `EINPROGRESS`: [`connected`] hears how that went.
pub(in crate::carrier) fn connect(
    socket: &Socket,
    address: &SockAddr,
    kind: Kind,
) -> io::Result<()> {
    let had = if is_watched() { socket.local_addr().ok() } else { None };
    let connecting = socket.connect(address);
    if is_watched() {
        let (descriptor, result) = (socket.as_raw_fd(), outcome(&connecting, |()| 0));
        let wire = wire::connect(socket, had.as_ref(), kind, result);
        let arguments = format!("{descriptor}, {}", wire::address(address));
        tell("connect", Some(descriptor), arguments, Some(result), wire);
    }
    connecting
}

/// Asks how connecting went, once the socket can be written to.
pub(in crate::carrier) fn connected(
    socket: &impl AsRawFd,
    ask: impl FnOnce() -> io::Result<Option<io::Error>>,
) -> io::Result<()> {
    let error = ask()?;
    if is_watched() {
        let descriptor = socket.as_raw_fd();
        let code = error.as_ref().map(|error| error.raw_os_error().unwrap_or_default());
        let result = code.map_or(Ok(0), Err);
        let wire = wire::connected(descriptor, code);
        let arguments = format!("{descriptor}, SO_ERROR");
        tell("getsockopt", Some(descriptor), arguments, Some(result), wire);
    }
    error.map_or(Ok(()), Err)
}

/// Tells of a datagram that came.
pub(in crate::carrier) fn received(
    socket: &impl AsRawFd,
    asked: usize,
    len: usize,
    from: &Poll<io::Result<SocketAddr>>,
) {
    if let (true, Poll::Ready(answer)) = (is_watched(), from) {
        let (descriptor, result) = (socket.as_raw_fd(), outcome(answer, |_| len as i64));
        let from = answer.as_ref().ok().copied();
        let wire = wire::datagram_in(from, result);
        tell("recvfrom", Some(descriptor), format!("{descriptor}, {asked}"), Some(result), wire);
    }
}

/// Tells of a datagram that went.
pub(in crate::carrier) fn sent(
    socket: &impl AsRawFd,
    bytes: usize,
    to: SocketAddr,
    sent: &Poll<io::Result<usize>>,
) {
    if let (true, Poll::Ready(answer)) = (is_watched(), sent) {
        let (descriptor, result) = (socket.as_raw_fd(), outcome(answer, |len| *len as i64));
        let wire = wire::datagram_out(bytes, to, result);
        let arguments = format!("{descriptor}, {}, {to}", wire::bytes(bytes));
        tell("sendto", Some(descriptor), arguments, Some(result), wire);
    }
}
