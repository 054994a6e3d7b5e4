//! Carriers: the kinds of socket that move bytes, one file each, and what they promise.
//!
//! A datagram carrier moves packets and promises nothing ([`Datagrams`]: `memory`, `udp`, `told_udp`, `ether`); a stream
//! carrier moves bytes in order ([`Listener`] and [`ByteStream`]: `memory`, `tcp`, `tls`, `unix`). `fault` and
//! `tap` wrap any datagram
//! carrier and are carriers. The endpoint above drives them; only this room and the lab name a socket (R3), and what is
//! above asks for [`Promises`], never for a carrier's name (R4). `tests/carriers/` is the suite that all of them
//! pass.

use std::fmt::Debug;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::slice::ChunksMut;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use bytes::BytesMut;
use cabo_proto::wire::params::Channel;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpStream, UnixStream};

pub mod calls;
pub mod error;
pub mod ether;
pub mod fault;
pub mod memory;
pub mod open_udp;
pub mod peer;
pub mod redes;
pub mod tap;
pub mod tcp;
pub mod tls;
pub mod udp;
pub mod unix;

mod accept;
mod answer;
mod anywhere;
mod closed_port;
mod hang_up;
mod resume;
mod sockopt;
mod told_udp;

pub(crate) use anywhere::is_own;
pub use error::{OpenError, SendFailure, send_failure};
pub(crate) use ether::device::interface_index;
pub use hang_up::HangUp;
pub use peer::{InterfaceName, Peer};
pub(crate) use told_udp::{
    packets as udp_packets, packets_anywhere as udp_packets_anywhere,
    packets_to_call as udp_packets_to_call,
};

/// Bytes that one receive slot must hold: a whole batch that the kernel merged (GRO), or the largest frame of `lo`.
pub const SLOT_BYTES: usize = 65_536;

/// Slots that are worth offering to one [`Datagrams::poll_recv`]; more are left unused.
pub const SLOTS: usize = 32;

/// What a carrier promises; the layers above switch on this, never on a name (R4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Promises {
    /// Boundaries are kept: what is sent as one arrives as one.
    pub framed: bool,
    /// Nothing is lost while the carrier lives.
    pub reliable: bool,
    /// Nothing overtakes.
    pub ordered: bool,
    /// Outsiders can neither read nor forge (TLS).
    pub secure: bool,
    /// Bytes of the largest cabo packet that the carrier may take, the top of the search for a path's MTU. Changes when
    /// an interface returns with another MTU. Zero on stream carriers.
    pub largest_datagram: usize,
    /// Bytes of a cabo packet that fits a 1500-byte link under this carrier's own headers, or less where our own link
    /// is smaller: where the search for a path's MTU starts. Zero on stream carriers.
    pub first_datagram: usize,
}

impl Promises {
    /// What every stream carrier on this machine promises.
    pub(crate) const STREAM: Self = Self {
        framed: false,
        reliable: true,
        ordered: true,
        secure: false,
        largest_datagram: 0,
        first_datagram: 0,
    };

    /// What every datagram carrier promises: boundaries, and nothing else.
    pub(crate) const fn datagrams(largest_datagram: usize, first_datagram: usize) -> Self {
        Self {
            framed: true,
            reliable: false,
            ordered: false,
            secure: false,
            largest_datagram,
            first_datagram,
        }
    }
}

/// One send to one peer: a packet, or several of `segment` bytes each of which the last may be shorter.
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    /// Where it goes.
    pub to: Peer,
    /// The bytes of all packets, end to end. Not empty.
    pub contents: &'a [u8],
    /// Bytes of each packet but the last; `contents.len()` or more for a single one.
    pub segment: usize,
}

impl Transmit<'_> {
    /// Bytes of each packet but the last, at least one.
    fn stride(&self) -> usize {
        self.segment.clamp(1, self.contents.len().max(1))
    }
}

/// One filled receive slot: `len` bytes at its start, cut every `stride` bytes into packets.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Who sent it. All packets of a slot have one sender.
    pub from: Peer,
    /// Bytes filled.
    pub len: usize,
    /// Bytes of each packet but the last, which may be shorter. Never zero.
    pub stride: usize,
    /// It was sent to everybody on the link: a question of discovery, not a packet of a connection.
    pub is_broadcast: bool,
    /// The address of ours that it was sent to, where the carrier knows it.
    pub local_ip: Option<IpAddr>,
}

impl Default for Received {
    fn default() -> Self {
        Self { from: Peer::None, len: 0, stride: 1, is_broadcast: false, local_ip: None }
    }
}

impl Received {
    /// The packets in `slot`, the slot that this account belongs to.
    pub fn packets<'s>(&self, slot: &'s mut [u8]) -> ChunksMut<'s, u8> {
        let len = self.len.min(slot.len());
        let (filled, _) = slot.split_at_mut(len);
        filled.chunks_mut(self.stride.max(1))
    }
}

/// A carrier of packets. One task drives it: each direction has a single waker slot, by contract.
pub trait Datagrams: Send + Sync + Debug {
    /// What it promises now.
    fn promises(&self) -> Promises;

    /// The address it is bound to, with the port that it really got.
    fn local(&self) -> Peer;

    /// How many packets one [`Transmit`] should hold now. Falls to 1 when segmentation turned out broken here; a larger
    /// transmit is still sent, only slower.
    fn max_segments(&self) -> usize;

    /// Bytes of packets that arrive at once without loss while the driver sleeps: advertised to peers, who keep their
    /// bursts below it.
    fn receive_burst_bytes(&self) -> usize;

    /// Fills slots from the first on and says how many: `received[i]` is the account of `slots[i]`. All `len()` bytes
    /// of a slot may be written, and that length should be [`SLOT_BYTES`]. Never returns `Ready(Ok(0))` for a
    /// non-empty offer. An error means that the carrier is of no use any more: what passes (an interface down, an
    /// ICMP message) is kept inside.
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        slots: &mut [BytesMut],
        received: &mut [Received],
    ) -> Poll<io::Result<usize>>;

    /// Sends. After `Pending` the same transmit should be offered again, unchanged: its first packets may have
    /// left. An error is judged by [`send_failure`]; few of them end the carrier.
    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<()>>;

    /// Sends one datagram whole, which may be empty, and where the carrier can in pieces that the other side's kernel
    /// joins: for programs that know no MTU. After `Pending` it should be offered again.
    fn poll_send_whole(
        &self,
        cx: &mut Context<'_>,
        to: Peer,
        datagram: &[u8],
    ) -> Poll<io::Result<()>> {
        self.poll_send(cx, &Transmit { to, contents: datagram, segment: datagram.len() })
    }

    /// Packets that arrived and that the kernel dropped because our buffer was full, since the carrier was opened.
    fn kernel_drops(&self) -> u64;

    /// Datagrams that nobody can have sent as they came, and that were dropped for it.
    fn refused(&self) -> u64 {
        0
    }

    /// One line for the operator about a limit of this machine that costs speed, and what raises it.
    fn advice(&self) -> Option<String> {
        None
    }

    /// Where packets of ours went and a host answered that nobody listens, as far as the carrier can know. To be asked after
    /// each [`poll_recv`](Self::poll_recv), which wakes for it. Anybody on the way can say so: it proves nothing.
    fn take_closed_port(&self) -> Option<Peer> {
        None
    }
}

/// The two directions of one stream connection.
pub trait ByteStream: AsyncRead + AsyncWrite + Debug + Send + Unpin {
    /// The socket below, where there is one: what becomes of the connection shows there before anything is read.
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl ByteStream for DuplexStream {}

impl ByteStream for TcpStream {
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }
}

impl ByteStream for UnixStream {
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }
}

/// One accepted stream connection.
#[derive(Debug)]
pub struct Accepted {
    /// Its bytes.
    pub stream: Box<dyn ByteStream>,
    /// Who connected.
    pub from: Peer,
    /// The user id of the process that connected, where the kernel vouches for it (Unix).
    pub peer_user: Option<u32>,
    /// What tells the sealed channel around these bytes from every other one, where there is one.
    pub channel: Option<Channel>,
    securing: Option<tls::Securing>,
}

impl Accepted {
    fn new(stream: Box<dyn ByteStream>, from: Peer, peer_user: Option<u32>) -> Self {
        Self { stream, from, peer_user, channel: None, securing: None }
    }

    /// Does what the carrier needs before the first byte of its user: over TLS the handshake, which has a deadline,
    /// elsewhere nothing. It belongs into the task that serves this connection: who accepts must not wait for a client.
    /// The error is one line about the client.
    pub async fn secured(mut self) -> io::Result<Self> {
        if let Some(securing) = self.securing.take() {
            // In a box: its future is large, and the one that it is part of lives as long as the connection.
            (self.stream, self.channel) = Box::pin(securing.secure(self.stream)).await?;
        }
        Ok(self)
    }
}

/// One stream connection that we opened.
#[derive(Debug)]
pub struct Connected {
    /// Its bytes.
    pub stream: Box<dyn ByteStream>,
    /// Whom we reached.
    pub to: Peer,
    /// The user id of the process that listens, where the kernel vouches for it (Unix).
    pub peer_user: Option<u32>,
    /// What tells the sealed channel around these bytes from every other one, where there is one.
    pub channel: Option<Channel>,
}

/// Has each of these [renewed](Listener::renew) that has files: where it listens, or why its files are no good.
pub(crate) fn renew_all(listeners: &[Weak<dyn Listener>]) -> Vec<Result<Peer, OpenError>> {
    let living = listeners.iter().filter_map(Weak::upgrade);
    let renewed = |listener: Arc<dyn Listener>| {
        listener.renew().map(|renewed| renewed.map(|()| listener.local()))
    };
    living.filter_map(renewed).collect()
}

/// A carrier that accepts stream connections. One task drives it.
pub trait Listener: Send + Sync + Debug {
    /// What its connections promise.
    fn promises(&self) -> Promises;

    /// The address it is bound to, with the port that it really got.
    fn local(&self) -> Peer;

    /// The next connection, to be [secured](Accepted::secured) by who serves it. Running out of descriptors is ridden out
    /// inside, without spinning; an error means that the listener is of no use any more.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>>;

    /// Reads the files that its address names again, for connections that come from now on; where they are bad, what was
    /// read before stays in force. None where there are no files.
    fn renew(&self) -> Option<Result<(), OpenError>> {
        None
    }
}
