//! | udp | framed | reliable | ordered | secure | largest datagram |
//! |---|---|---|---|---|---|
//! | | yes | no | no | no | 65,507 (IPv4), 65,487 (IPv6) |
//!
//! Packets over UDP, merged and split by the kernel where it can (GSO, GRO; by `quinn-udp`). Fragmentation is forbidden,
//! so what is too large for the link is an error and what is too large for the path is a loss: the MTU search sees both.
//! Neighbours: `mod.rs` (the trait), `resume.rs`, `sockopt.rs`.

use std::array;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use quinn_udp::{RecvMeta, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::error::{too_big, wrong_peer};
use super::resume::Resume;
use super::sockopt::{self, ReceiveBuffer};
use super::{Datagrams, OpenError, Peer, Promises, Received, SLOTS, Transmit};

const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
const SEND_BUFFER_BYTES: usize = 1 << 20; // sixteen of the largest batches; pacing keeps it near empty
const LARGEST_IP_BYTES: usize = 65_535;
const MTU: usize = 1500;
const UDP_HEADER_BYTES: usize = 8;

/// A UDP socket as a carrier.
#[derive(Debug)]
pub struct Udp {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    receive_buffer: ReceiveBuffer,
    max_segments: AtomicUsize,
    resume: Resume,
}

impl Udp {
    /// Opens the carrier at exactly `address`: IPv6 never takes IPv4 along; port 0 takes a free one. Must be called
    /// inside a tokio runtime.
    pub fn open(address: SocketAddr) -> Result<Self, OpenError> {
        let what = format!("udp://{address}");
        let socket = bound(address).map_err(|e| OpenError::of(&what, "bind", e))?;
        Self::from_socket(socket).map_err(|e| OpenError::of(&what, "set up the socket", e))
    }

    fn from_socket(socket: Socket) -> io::Result<Self> {
        let receive_buffer = ReceiveBuffer::raise(&socket, RECEIVE_BUFFER_BYTES)?;
        socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
        let socket = UdpSocket::from_std(socket.into())?;
        let state = UdpSocketState::new((&socket).into())?;
        let local = socket.local_addr()?;
        let max_segments = AtomicUsize::new(state.max_gso_segments());
        Ok(Self { socket, state, local, receive_buffer, max_segments, resume: Resume::default() })
    }

    /// Bytes of the IP and UDP headers.
    fn header_bytes(&self) -> usize {
        UDP_HEADER_BYTES + if self.local.is_ipv4() { 20 } else { 40 }
    }

    fn largest_datagram(&self) -> usize {
        LARGEST_IP_BYTES - self.header_bytes()
    }

    /// Sends `transmit` from byte `sent` on, and moves `sent` past what has left.
    fn send_rest(
        &self,
        to: SocketAddr,
        transmit: &Transmit<'_>,
        sent: &mut usize,
    ) -> io::Result<()> {
        let stride = transmit.stride();
        while *sent < transmit.contents.len() {
            let batch = self.next_batch(transmit.contents.len(), stride, *sent);
            let contents = transmit.contents.get(batch.clone()).unwrap_or_default();
            match self.send_once(to, contents, stride) {
                Ok(()) => *sent = batch.end,
                Err(error) if contents.len() > stride && may_be_gso(&error) => {
                    // Some cards claim to split batches and cannot; nothing short of trying tells.
                    let one = contents.get(..stride).unwrap_or_default();
                    self.send_once(to, one, stride)?;
                    self.max_segments.store(1, Relaxed);
                    *sent += stride;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The most that the kernel takes at once.
    fn next_batch(&self, len: usize, stride: usize, sent: usize) -> Range<usize> {
        let fit = (self.largest_datagram() / stride).clamp(1, self.max_segments());
        sent..len.min(sent + fit * stride)
    }

    fn send_once(&self, destination: SocketAddr, contents: &[u8], stride: usize) -> io::Result<()> {
        let segment_size = Some(stride);
        let transmit =
            quinn_udp::Transmit { destination, ecn: None, contents, segment_size, src_ip: None };
        self.socket
            .try_io(Interest::WRITABLE, || self.state.try_send((&self.socket).into(), &transmit))
    }
}

/// A new socket at `address`.
fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn may_be_gso(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL))
}

impl Datagrams for Udp {
    fn promises(&self) -> Promises {
        Promises::datagrams(self.largest_datagram(), MTU - self.header_bytes())
    }

    fn local(&self) -> Peer {
        Peer::udp(self.local)
    }

    fn max_segments(&self) -> usize {
        self.max_segments.load(Relaxed)
    }

    fn receive_burst_bytes(&self) -> usize {
        self.receive_buffer.burst_bytes()
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        slots: &mut [BytesMut],
        received: &mut [Received],
    ) -> Poll<io::Result<usize>> {
        let mut buffers: [IoSliceMut<'_>; SLOTS] = array::from_fn(|_| IoSliceMut::new(&mut []));
        let mut accounts = [RecvMeta::default(); SLOTS];
        let mut room = 0;
        for ((buffer, slot), _) in buffers.iter_mut().zip(slots).zip(received.iter()) {
            *buffer = IoSliceMut::new(slot);
            room += 1;
        }
        let buffers = buffers.get_mut(..room).unwrap_or_default();
        loop {
            ready!(self.socket.poll_recv_ready(cx))?;
            let recv = || self.state.recv((&self.socket).into(), buffers, &mut accounts);
            match self.socket.try_io(Interest::READABLE, recv) {
                Ok(count) => {
                    for (account, meta) in received.iter_mut().zip(accounts.iter().take(count)) {
                        *account = account_of(meta);
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {} // the next look waits
                Err(error) if is_passing(&error) => {} // each error is told once, so this ends
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<()>> {
        let Peer::Udp(to) = transmit.to else { return Poll::Ready(Err(wrong_peer())) };
        if transmit.stride() > self.largest_datagram() {
            return Poll::Ready(Err(too_big()));
        }
        let mut sent = self.resume.take(transmit);
        loop {
            match self.socket.poll_send_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => {
                    self.resume.keep(transmit, sent);
                    return Poll::Pending;
                }
            }
            match self.send_rest(to, transmit, &mut sent) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {} // the next look waits
                result => return Poll::Ready(result),
            }
        }
    }

    fn kernel_drops(&self) -> u64 {
        sockopt::drops(&self.socket)
    }

    fn advice(&self) -> Option<String> {
        self.receive_buffer.advice()
    }
}

fn account_of(meta: &RecvMeta) -> Received {
    Received {
        from: Peer::udp(meta.addr),
        len: meta.len,
        stride: meta.stride.max(1),
        is_broadcast: false,
        local_ip: meta.dst_ip,
    }
}

/// Errors that tell of an earlier send or of a route, not of this socket.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ENETDOWN
                | libc::EHOSTDOWN
                | libc::EPROTO
                | libc::EMSGSIZE
        )
    )
}
