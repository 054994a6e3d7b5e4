//! | udp, told | framed | reliable | ordered | secure | largest datagram |
//! |---|---|---|---|---|---|
//! | | yes | no | no | no | 1,472 (IPv4), 1,452 (IPv6) |
//!
//! Packets over UDP by calls that can be told of: one `recvfrom` or `sendto` a datagram, where `udp` has calls that take
//! many. What is larger than a common link is not tried, so no MTU is searched for. Neighbours: `open_udp` is the socket,
//! `calls` tells of what it does, `udp` is the carrier where nobody watches.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::ReadBuf;

use super::calls::is_watched;
use super::error::wrong_peer;
use super::open_udp::{OpenUdp, Reach};
use super::resume::Resume;
use super::udp::Udp;
use super::{Datagrams, OpenError, Peer, Promises, Received, Transmit};

const LARGEST_IPV4_BYTES: usize = 1500 - 20 - 8;
const LARGEST_IPV6_BYTES: usize = 1500 - 40 - 8;

/// Packets over UDP at `address`: by calls that are told of where somebody watches.
pub(crate) fn packets(address: SocketAddr, reach: &Reach) -> Result<Box<dyn Datagrams>, OpenError> {
    Ok(if is_watched() {
        ToldUdp::over(OpenUdp::listen(address, reach)?)
    } else {
        Box::new(Udp::open_by(reach.interface.map(|interface| interface.name), address)?)
    })
}

/// Packets over UDP to call others, on the family of `any`, an unspecified address. Where nobody watches, it learns where
/// nobody listens.
pub(crate) fn packets_to_call(any: IpAddr) -> Result<Box<dyn Datagrams>, OpenError> {
    Ok(if is_watched() {
        ToldUdp::over(OpenUdp::listen((any, 0).into(), &Reach::default())?)
    } else {
        Box::new(Udp::open_to_call(any)?)
    })
}

/// Packets over UDP at `port` of every address of this machine.
pub(crate) fn packets_anywhere(port: u16, reach: &Reach) -> Result<Box<dyn Datagrams>, OpenError> {
    Ok(if is_watched() {
        ToldUdp::over(OpenUdp::listen_anywhere(port, reach)?)
    } else {
        Box::new(Udp::open_anywhere(reach.interface.map(|interface| interface.name), port)?)
    })
}

/// A UDP socket as a carrier whose every call is told of.
#[derive(Debug)]
struct ToldUdp {
    socket: OpenUdp,
    resume: Resume,
}

impl ToldUdp {
    fn over(socket: OpenUdp) -> Box<dyn Datagrams> {
        Box::new(Self { socket, resume: Resume::default() })
    }
}

impl Datagrams for ToldUdp {
    fn promises(&self) -> Promises {
        let is_ipv4 = self.socket.local().is_ipv4();
        let largest = if is_ipv4 { LARGEST_IPV4_BYTES } else { LARGEST_IPV6_BYTES };
        Promises::datagrams(largest, largest)
    }

    fn local(&self) -> Peer {
        Peer::udp(self.socket.local())
    }

    fn max_segments(&self) -> usize {
        1
    }

    fn receive_burst_bytes(&self) -> usize {
        self.socket.burst_bytes()
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        slots: &mut [BytesMut],
        received: &mut [Received],
    ) -> Poll<io::Result<usize>> {
        let (Some(slot), Some(account)) = (slots.first_mut(), received.first_mut()) else {
            return Poll::Ready(Ok(0));
        };
        let mut part = ReadBuf::new(slot);
        let from = ready!(self.socket.poll_recv(cx, &mut part))?;
        let len = part.filled().len();
        *account =
            Received { from: Peer::udp(from), len, stride: len.max(1), ..Received::default() };
        Poll::Ready(Ok(1))
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<()>> {
        let Peer::Udp(to) = transmit.to else { return Poll::Ready(Err(wrong_peer())) };
        let mut sent = self.resume.take(transmit);
        while let Some(rest) = transmit.contents.get(sent..).filter(|rest| !rest.is_empty()) {
            let packet = rest.get(..transmit.stride()).unwrap_or(rest);
            match self.socket.poll_send(cx, packet, to) {
                Poll::Ready(Ok(())) => sent += packet.len(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.resume.keep(transmit, sent);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send_whole(
        &self,
        cx: &mut Context<'_>,
        to: Peer,
        datagram: &[u8],
    ) -> Poll<io::Result<()>> {
        let Peer::Udp(to) = to else { return Poll::Ready(Err(wrong_peer())) };
        self.socket.poll_send(cx, datagram, to)
    }

    fn kernel_drops(&self) -> u64 {
        self.socket.kernel_drops()
    }
}
