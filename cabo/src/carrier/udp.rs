//! | udp | framed | reliable | ordered | secure | largest datagram |
//! |---|---|---|---|---|---|
//! | | yes | no | no | no | 65,507 (IPv4), 65,487 (IPv6) |
//!
//! Packets over UDP, merged and split by the kernel where it can (GSO, GRO; by `quinn-udp`). Fragmentation is
//! forbidden, so what is too large for the link is an error and what is too large for the path is a loss: the MTU
//! search sees both. Neighbours: `mod.rs` (the trait), `answer.rs`, `anywhere.rs`, `closed_port.rs`, `resume.rs`,
//! `sockopt.rs`.

use std::array;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use quinn_udp::{RecvMeta, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::answer::Asked;
use super::closed_port::ClosedPorts;
use super::error::{too_big, wrong_peer};
use super::resume::Resume;
use super::sockopt::{self, ReceiveBuffer};
use super::{
    Datagrams, InterfaceName, OpenError, Peer, Promises, Received, SLOTS, Transmit, anywhere,
    open_udp,
};

const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
const SEND_BUFFER_BYTES: usize = 1 << 20; // sixteen of the largest batches; pacing keeps it near empty
const LARGEST_IP_BYTES: usize = 65_535;
const MTU: usize = 1500;
const UDP_HEADER_BYTES: usize = 8;
const PASSES_BYTES: usize = 1200; // every path that cabo runs over takes so much in one piece

/// A UDP socket as a carrier.
#[derive(Debug)]
pub struct Udp {
    socket: Arc<UdpSocket>,
    state: UdpSocketState,
    local: SocketAddr,
    receive_buffer: ReceiveBuffer,
    max_segments: AtomicUsize,
    asked: Option<Asked>, // none when bound to one address, where there is nothing to choose, and of who only calls
    closed_ports: Option<ClosedPorts>, // of a socket that only calls others
    resume: Resume,
}

impl Udp {
    /// Opens the carrier at exactly `address`: IPv6 never takes IPv4 along; port 0 takes a free one. Must be called
    /// inside a tokio runtime.
    pub fn open(address: SocketAddr) -> Result<Self, OpenError> {
        Self::open_by(None, address)
    }

    /// The same by one interface alone, where one is named.
    pub fn open_by(
        interface: Option<InterfaceName>,
        address: SocketAddr,
    ) -> Result<Self, OpenError> {
        Self::from_socket(&format!("udp://{address}"), bound(interface, address, false))
    }

    /// Opens a carrier to call others from, on the family of `any`, an unspecified address. It learns where nobody listens.
    /// Which address of ours it sends from is the routing table's choice, each time: it may be another one tomorrow.
    pub(crate) fn open_to_call(any: IpAddr) -> Result<Self, OpenError> {
        let mut udp = Self::open((any, 0).into())?;
        udp.asked = None;
        // Without it one waits, as where an answer is lost.
        udp.closed_ports = ClosedPorts::of(&udp.socket).ok();
        Ok(udp)
    }

    /// Opens the carrier at `port` of every address of this machine, of IPv6 and of IPv4; of IPv4 alone where IPv6 is
    /// off. By one interface alone, where one is named.
    pub fn open_anywhere(interface: Option<InterfaceName>, port: u16) -> Result<Self, OpenError> {
        let socket = anywhere::open(port, |address| bound(interface, address, true));
        Self::from_socket(&format!("udp://:{port}"), socket)
    }

    fn from_socket(what: &str, socket: io::Result<Socket>) -> Result<Self, OpenError> {
        let socket = socket.map_err(|e| OpenError::of(what, "bind", e))?;
        Self::set_up(socket).map_err(|e| OpenError::of(what, "set up the socket", e))
    }

    fn set_up(socket: Socket) -> io::Result<Self> {
        let receive_buffer = ReceiveBuffer::raise(&socket, RECEIVE_BUFFER_BYTES)?;
        sockopt::set_send_buffer(&socket, SEND_BUFFER_BYTES)?;
        let socket = Arc::new(UdpSocket::from_std(socket.into())?);
        let state = UdpSocketState::new((&*socket).into())?;
        let local = socket.local_addr()?;
        let max_segments = AtomicUsize::new(state.max_gso_segments());
        Ok(Self {
            socket,
            state,
            local,
            receive_buffer,
            max_segments,
            asked: local.ip().is_unspecified().then(Asked::default),
            closed_ports: None,
            resume: Resume::default(),
        })
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

    /// Lets the kernel cut what no path takes in one piece. The driver of a carrier is its only sender, so nothing else
    /// goes out meanwhile.
    fn send_whole(&self, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        if datagram.len() <= PASSES_BYTES {
            return self.send_once(to, datagram, datagram.len().max(1));
        }
        self.set_cutting(true)?;
        let sent = self.send_once(to, datagram, datagram.len());
        self.set_cutting(false)?;
        sent
    }

    fn set_cutting(&self, may_cut: bool) -> io::Result<()> {
        let ip4 = if may_cut { libc::IP_PMTUDISC_DONT } else { libc::IP_PMTUDISC_PROBE };
        if self.local.is_ipv4() {
            return sockopt::set(&*self.socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, ip4);
        }
        let _ = sockopt::set(&*self.socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, ip4); // of no use where IPv4 is off
        let ip6 = if may_cut { libc::IPV6_PMTUDISC_DONT } else { libc::IPV6_PMTUDISC_PROBE };
        sockopt::set(&*self.socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, ip6)
    }

    fn send_once(&self, to: SocketAddr, contents: &[u8], stride: usize) -> io::Result<()> {
        let Some(ours) = self.asked.as_ref().and_then(|asked| asked.of(to)) else {
            return self.send_from(None, to, contents, stride);
        };
        match self.send_from(Some(ours), to, contents, stride) {
            Err(error) if may_be_source(&error) => {
                self.send_from(None, to, contents, stride)?;
                self.asked.iter().for_each(|asked| asked.forget(to));
                Ok(())
            }
            result => result,
        }
    }

    fn send_from(
        &self,
        src_ip: Option<IpAddr>,
        destination: SocketAddr,
        contents: &[u8],
        stride: usize,
    ) -> io::Result<()> {
        let (destination, segment_size) =
            (anywhere::destination(self.local, destination), Some(stride));
        let transmit =
            quinn_udp::Transmit { destination, ecn: None, contents, segment_size, src_ip };
        let send = || self.state.try_send((&*self.socket).into(), &transmit);
        self.socket.try_io(Interest::WRITABLE, || match send() {
            // It may be of a packet before this one, and is told once.
            Err(error) if self.closed_ports.is_some() && is_passing(&error) => send(),
            sent => sent,
        })
    }

    /// What the layers above should know about a slot.
    fn account_of(&self, meta: &RecvMeta) -> Received {
        let local_ip = meta.dst_ip.map(|ip| ip.to_canonical());
        let is_broadcast = local_ip.is_some_and(|ip| match ip {
            IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_multicast(),
        });
        let from = Peer::udp(meta.addr);
        if let (Some(asked), Some(ours), Some(peer), false) =
            (&self.asked, local_ip, from.socket_addr(), is_broadcast)
        {
            asked.keep(peer, ours);
        }
        Received { from, len: meta.len, stride: meta.stride.max(1), is_broadcast, local_ip }
    }
}

/// A new socket at `address`; where that is of IPv6, for `is_both` families or for its own.
fn bound(
    interface: Option<InterfaceName>,
    address: SocketAddr,
    is_both: bool,
) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    anywhere::set_families(&socket, address, is_both)?;
    socket.set_nonblocking(true)?;
    if let Some(interface) = interface {
        open_udp::bind_to(&socket, interface)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn may_be_gso(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL))
}

/// The address that the peer asked is gone, or never was one to send from (the broadcast address of a network).
fn may_be_source(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EADDRNOTAVAIL | libc::ENETUNREACH))
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
            if let Some(closed_ports) = &self.closed_ports {
                closed_ports.poll(&self.socket, cx);
            }
            ready!(self.socket.poll_recv_ready(cx))?;
            let recv = || self.state.recv((&*self.socket).into(), buffers, &mut accounts);
            match self.socket.try_io(Interest::READABLE, recv) {
                Ok(count) => {
                    for (account, meta) in received.iter_mut().zip(accounts.iter().take(count)) {
                        *account = self.account_of(meta);
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

    fn poll_send_whole(
        &self,
        cx: &mut Context<'_>,
        to: Peer,
        datagram: &[u8],
    ) -> Poll<io::Result<()>> {
        let Peer::Udp(to) = to else { return Poll::Ready(Err(wrong_peer())) };
        loop {
            ready!(self.socket.poll_send_ready(cx))?;
            match self.send_whole(to, datagram) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {} // the next look waits
                result => return Poll::Ready(result),
            }
        }
    }

    fn kernel_drops(&self) -> u64 {
        sockopt::drops(&*self.socket)
    }

    fn advice(&self) -> Option<String> {
        self.receive_buffer.advice()
    }

    fn take_closed_port(&self) -> Option<Peer> {
        self.closed_ports.as_ref().and_then(ClosedPorts::take).map(Peer::udp)
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::carrier::SLOT_BYTES;

    #[tokio::test]
    async fn a_card_that_cannot_split_batches_gets_single_packets() {
        let (near, far) = (open("127.0.0.1:0"), open("127.0.0.1:0"));
        // a socket without checksums cannot split, and says so with the error of a bad card
        sockopt::set(&*near.socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1 as libc::c_int).unwrap();
        assert!(near.max_segments() > 1);
        let contents: Vec<u8> = (0..1950).map(|i| (i / 100) as u8).collect();
        for _ in 0..2 {
            let transmit = Transmit { to: far.local(), contents: &contents, segment: 100 };
            poll_fn(|cx| near.poll_send(cx, &transmit)).await.unwrap();
            assert_eq!(near.max_segments(), 1);
            assert!(receive(&far, 20).await.into_iter().eq(contents.chunks(100)));
        }
    }

    #[tokio::test]
    async fn an_answer_comes_from_the_address_that_was_asked() {
        let (server, client) = (open("0.0.0.0:0"), open("127.0.0.1:0"));
        let port = server.local.port();
        for asked in ["127.0.0.2", "127.0.0.1", "127.9.9.9"].map(|ip| ip.parse::<IpAddr>().unwrap())
        {
            let to = Peer::udp((asked, port).into());
            poll_fn(|cx| client.poll_send(cx, &Transmit { to, contents: b"hm?", segment: 3 }))
                .await
                .unwrap();
            receive(&server, 1).await;
            let answer = Transmit { to: client.local(), contents: b"yes", segment: 3 };
            poll_fn(|cx| server.poll_send(cx, &answer)).await.unwrap();
            let (mut slots, mut received) = ([BytesMut::zeroed(100)], [Received::default()]);
            poll_fn(|cx| client.poll_recv(cx, &mut slots, &mut received)).await.unwrap();
            assert_eq!(received[0].from, to);
        }
    }

    #[tokio::test]
    async fn an_address_that_cannot_send_is_forgotten() {
        let (server, client) = (open("0.0.0.0:0"), open("127.0.0.1:0"));
        for useless in ["127.255.255.255", "192.0.2.1", "224.0.0.1"] {
            let asked = server.asked.as_ref().unwrap();
            asked.keep(client.local, useless.parse().unwrap());
            let answer = Transmit { to: client.local(), contents: b"aabb", segment: 2 };
            poll_fn(|cx| server.poll_send(cx, &answer)).await.unwrap();
            assert_eq!(receive(&client, 2).await, [b"aa", b"bb"], "{useless}");
            assert_eq!(asked.of(client.local), None, "{useless}");
        }
        assert!(server.max_segments() > 1, "that was no fault of batching");
    }

    #[tokio::test]
    async fn a_closed_port_is_told_of_and_costs_nobody_else_a_packet() {
        for (any, ours) in [("0.0.0.0", "127.0.0.1:0"), ("::", "[::1]:0")] {
            let near = Udp::open_to_call(any.parse().unwrap()).unwrap();
            let far = open(ours);
            let closed = Peer::udp((far.local.ip(), 1).into());
            for _ in 0..3 {
                // What came of the first one waits at the socket for whoever calls it next.
                for to in [closed, far.local()] {
                    let transmit = Transmit { to, contents: b"hm?", segment: 3 };
                    poll_fn(|cx| near.poll_send(cx, &transmit)).await.unwrap();
                }
                assert_eq!(receive(&far, 1).await, [b"hm?"], "{ours}");
            }
            let (mut slots, mut received) = ([BytesMut::zeroed(100)], [Received::default()]);
            let told = poll_fn(|cx| {
                let came = near.poll_recv(cx, &mut slots, &mut received);
                assert!(came.is_pending(), "nobody answers");
                near.take_closed_port().map_or(Poll::Pending, Poll::Ready)
            });
            assert_eq!(told.await, closed);
        }
    }

    fn open(address: &str) -> Udp {
        Udp::open(address.parse().unwrap()).unwrap()
    }

    async fn receive(carrier: &Udp, count: usize) -> Vec<Vec<u8>> {
        let mut slots: Vec<_> = (0..SLOTS).map(|_| BytesMut::zeroed(SLOT_BYTES)).collect();
        let mut received = [Received::default(); SLOTS];
        let mut all = Vec::new();
        while all.len() < count {
            let next = poll_fn(|cx| carrier.poll_recv(cx, &mut slots, &mut received));
            let filled = next.await.unwrap();
            for (slot, account) in slots.iter_mut().zip(&received).take(filled) {
                all.extend(account.packets(slot).map(|packet| packet.to_vec()));
            }
        }
        all
    }
}
