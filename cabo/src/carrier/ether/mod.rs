//! | eth | framed | reliable | ordered | secure | largest datagram |
//! |---|---|---|---|---|---|
//! | | yes | no | no | no | MTU - 4, 65,535 at most |
//!
//! Packets in raw Ethernet frames of our own EtherType, without IP: `docs/protocol/wire.md` W-2 and W-8. Ports are a
//! field of the frame; a kernel filter on it lets processes share an interface, a claim (`claim.rs`) keeps them
//! apart.
//!
//! The socket outlives its interface: while that is down or gone, sends are lost and receives wait; when an interface
//! of the same name is up, the socket is bound to it, whatever its new index and MTU. The kernel's word of link
//! changes is what wakes us (`device.rs`), so nothing polls. Opening needs `CAP_NET_RAW`; going on does not.
//!
//! Parts: `raw` (the socket and its frames), `device`, `claim`. Neighbours: `../mod.rs` (the trait).

mod claim;
pub(in crate::carrier) mod device;
mod raw;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use socket2::Socket;
use tokio::io::unix::AsyncFd;

use self::claim::Claim;
use self::device::{Changes, Device};
use self::raw::{Frame, HEADER_BYTES, Header, PORTS_BYTES};
use super::calls::Closing;
use super::error::{too_big, wrong_peer};
use super::resume::Resume;
use super::sockopt::{self, ReceiveBuffer};
use super::{
    Datagrams, InterfaceName, OpenError, Peer, Promises, Received, SLOT_BYTES, SLOTS, Transmit,
};

const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
const SEND_BUFFER_BYTES: usize = 1 << 20;
const MTU: usize = 1500;
const LENGTH_FIELD_MIN: usize = 4; // marker, kind and the length field itself

/// A port on an Ethernet link as a carrier.
#[derive(Debug)]
pub struct Ether {
    _closing: Closing, // before the socket, which it tells of
    socket: AsyncFd<OwnedFd>,
    claim: Claim,
    changes: Changes,
    device: Mutex<Device>, // as last looked at; while it is not up we are not heard
    receive_buffer: ReceiveBuffer,
    resume: Resume,
    lost_sends: AtomicU64,
    odd_sources: AtomicU64,
}

impl Ether {
    /// Opens the carrier at `port` of the interface with this name; port 0 takes a free one. With `hears_anyone` it
    /// also hears what is sent to port 0, "any server on this link" (W-8). Must be called inside a tokio runtime.
    pub fn open(interface: &str, port: u16, hears_anyone: bool) -> Result<Self, OpenError> {
        let what = format!("eth://{interface}");
        let failed = |operation| {
            let what = &what;
            move |e| OpenError::of(what, operation, e)
        };
        let asked =
            InterfaceName::new(interface).ok_or_else(|| OpenError::no_interface(interface))?;
        let changes = Changes::new().map_err(failed("watch the links"))?; // first, so that none is missed
        let probe = any_socket().map_err(failed("socket"))?;
        let name = Device::look(&probe, asked)?.canonical_name(&probe);
        let device = Device::look(&probe, name)?;
        let claim = Claim::new(name, port)?;
        let opened = raw::open(claim.port, hears_anyone);
        let (socket, closing) = opened.map_err(|e| match e.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => OpenError::NoPrivilege {
                what: what.clone(),
                program: std::env::current_exe().unwrap_or_else(|_| "cabo".into()),
            },
            _ => OpenError::of(&what, "socket", e),
        })?;
        let receive_buffer =
            ReceiveBuffer::raise(&socket, RECEIVE_BUFFER_BYTES).map_err(failed("set SO_RCVBUF"))?;
        sockopt::set_send_buffer(&socket, SEND_BUFFER_BYTES).map_err(failed("set SO_SNDBUF"))?;
        raw::bind(&socket, &device).map_err(failed("bind"))?;
        let socket = sockopt::register(socket.into()).map_err(failed("register"))?;
        Ok(Self {
            _closing: closing,
            socket,
            claim,
            changes,
            device: Mutex::new(device),
            receive_buffer,
            resume: Resume::default(),
            lost_sends: AtomicU64::new(0),
            odd_sources: AtomicU64::new(0),
        })
    }

    /// The interface is there and up.
    pub fn is_up(&self) -> bool {
        self.device().is_up
    }

    /// Packets that left nowhere because the interface was down or its queue full.
    pub fn lost_sends(&self) -> u64 {
        self.lost_sends.load(Relaxed)
    }

    fn device(&self) -> Device {
        *self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the interface again, and binds to it when it came back or is another one.
    fn look_again(&self) {
        let mut device = self.device.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = Device::look(self.socket.get_ref(), device.name);
        let Ok(mut seen) = seen else {
            if device.is_up {
                tracing::warn!(interface = %device.name, "the interface is gone; waiting for it");
            }
            device.is_up = false;
            return;
        };
        let was_cut = sockopt::pending_error(self.socket.get_ref()); // even if all looks as it was
        let must_bind = seen.is_up && (!device.is_up || seen.index != device.index || was_cut);
        if must_bind && raw::bind(self.socket.get_ref(), &seen).is_err() {
            seen.is_up = false; // it went between the look and the bind; the kernel has more to say
        }
        if seen.is_up != device.is_up {
            tracing::warn!(interface = %seen.name, mtu = seen.mtu, is_up = seen.is_up, "the interface changed");
        }
        *device = seen;
    }

    /// Sends `transmit` from byte `sent` on, and moves `sent` past what has left.
    fn send_rest(
        &self,
        header: &[u8; HEADER_BYTES],
        transmit: &Transmit<'_>,
        sent: &mut usize,
    ) -> io::Result<()> {
        let (len, stride) = (transmit.contents.len(), transmit.stride());
        while *sent < len {
            let rest = transmit.contents.get(*sent..).unwrap_or_default();
            match raw::send(self.socket.get_ref(), header, rest, stride) {
                Ok(count) => *sent += count.max(1) * stride,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::ENOBUFS) => self.lose(1, stride, sent), // the queue of the interface dropped it
                    Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => {
                        self.look_again();
                        self.lose(rest.len().div_ceil(stride), stride, sent);
                    }
                    Some(libc::EMSGSIZE) => {
                        self.look_again();
                        return Err(error);
                    }
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }

    fn lose(&self, count: usize, stride: usize, sent: &mut usize) {
        self.lost_sends.fetch_add(count as u64, Relaxed);
        *sent += count * stride;
    }

    /// What the layers above should know about a frame; none for what they should not hear.
    fn account_of(&self, device: &Device, frame: Option<Frame>, slot: &[u8]) -> Option<Received> {
        let (header, len) = frame?;
        let Header { destination, source, source_port, .. } = header;
        let is_own = source == device.mac && source_port == self.claim.port; // `lo` and some switches echo
        if is_own || source_port == 0 {
            return None;
        }
        if !device.is_source(source) {
            self.odd_sources.fetch_add(1, Relaxed);
            return None; // an answer would go to the whole link, to nobody or to ourselves
        }
        let from = Peer::Ether { mac: source, port: source_port, interface: device.name };
        let len = without_padding(slot.get(..len)?);
        let is_broadcast = destination.first().is_some_and(|first| first & 1 != 0);
        Some(Received { from, len, stride: len.max(1), is_broadcast, local_ip: None })
    }
}

/// The names of the links of this machine that are up, without loopback, sorted; none where the kernel does not tell.
pub fn links() -> Vec<String> {
    any_socket().map_or_else(|_| Vec::new(), |socket| device::links(&socket))
}

/// The same with those that are down.
pub fn all_links() -> Vec<String> {
    any_socket().map_or_else(|_| Vec::new(), |socket| device::all_links(&socket))
}

/// Whether an interface is there and up; true where the kernel does not tell.
pub fn is_up(name: &str) -> bool {
    let Some(name) = InterfaceName::new(name) else { return false };
    any_socket().map_or(true, |socket| Device::look(&socket, name).is_ok_and(|device| device.is_up))
}

/// Any socket at all: what device ioctls want.
pub(super) fn any_socket() -> io::Result<OwnedFd> {
    Ok(Socket::new(socket2::Domain::UNIX, socket2::Type::DGRAM.cloexec(), None)?.into())
}

/// The length of the packet in `frame`: short frames are padded on the wire (W-2.3).
fn without_padding(frame: &[u8]) -> usize {
    match *frame {
        [_, _, high, low, ..] => match usize::from(u16::from_be_bytes([high, low])) {
            said if said >= LENGTH_FIELD_MIN => said.min(frame.len()),
            _senseless => frame.len(),
        },
        _ => frame.len(),
    }
}

impl Datagrams for Ether {
    fn promises(&self) -> Promises {
        let mtu = self.device().mtu;
        let largest = mtu.saturating_sub(PORTS_BYTES).min(SLOT_BYTES - 1);
        Promises::datagrams(largest, largest.min(MTU - PORTS_BYTES))
    }

    fn local(&self) -> Peer {
        let device = self.device();
        Peer::Ether { mac: device.mac, port: self.claim.port, interface: device.name }
    }

    fn max_segments(&self) -> usize {
        SLOTS
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
        let room = slots.len().min(received.len()).min(SLOTS);
        let slots = slots.get_mut(..room).unwrap_or_default();
        loop {
            let Poll::Ready(guard) = self.socket.poll_read_ready(cx) else {
                ready!(self.changes.poll(cx));
                self.look_again();
                continue;
            };
            match guard?.try_io(|socket| raw::receive(socket.get_ref(), slots)) {
                Ok(Ok((count, frames))) => {
                    let device = self.device();
                    let mut kept = 0;
                    for (i, frame) in frames.into_iter().enumerate().take(count) {
                        let account =
                            slots.get(i).and_then(|slot| self.account_of(&device, frame, slot));
                        if let (Some(account), Some(to)) = (account, received.get_mut(kept)) {
                            *to = account;
                            slots.swap(kept, i);
                            kept += 1;
                        }
                    }
                    if kept > 0 {
                        return Poll::Ready(Ok(kept));
                    }
                }
                Ok(Err(error)) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => self.look_again(), // told once
                    _ => return Poll::Ready(Err(error)),
                },
                Err(_would_block) => {} // the next look waits
            }
        }
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<()>> {
        let device = self.device();
        let Peer::Ether { mac, port, interface } = transmit.to else {
            return Poll::Ready(Err(wrong_peer()));
        };
        if interface != device.name {
            return Poll::Ready(Err(wrong_peer()));
        }
        let mut sent = self.resume.take(transmit);
        if !device.is_up {
            let rest = transmit.contents.len().saturating_sub(sent);
            self.lose(rest.div_ceil(transmit.stride()), transmit.stride(), &mut sent);
            return Poll::Ready(Ok(()));
        }
        if transmit.stride() > self.promises().largest_datagram {
            return Poll::Ready(Err(too_big()));
        }
        let header = Header {
            destination: mac,
            source: device.mac,
            destination_port: port,
            source_port: self.claim.port,
        };
        let header = header.to_bytes();
        loop {
            let mut guard = match self.socket.poll_write_ready(cx) {
                Poll::Ready(guard) => guard?,
                Poll::Pending => {
                    self.resume.keep(transmit, sent);
                    return Poll::Pending;
                }
            };
            match guard.try_io(|_| self.send_rest(&header, transmit, &mut sent)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {} // the next look waits
            }
        }
    }

    fn kernel_drops(&self) -> u64 {
        sockopt::drops(self.socket.get_ref())
    }

    fn refused(&self) -> u64 {
        self.odd_sources.load(Relaxed)
    }

    fn advice(&self) -> Option<String> {
        let Device { name, is_up, .. } = self.device();
        let down = (!is_up).then(|| {
            format!(
                "the interface {name} is down, and nobody is heard; run: sudo ip link set {name} up"
            )
        });
        down.or_else(|| self.receive_buffer.advice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_ends_where_the_packet_says() {
        assert_eq!(without_padding(b"\xcb\x18\x00\x06ab\0\0\0\0"), 6);
        assert_eq!(without_padding(b"\xcb\x18\x00\x40ab"), 6, "a cut packet stays as it came");
        assert_eq!(
            without_padding(b"\xcb\x18\x00\x00ab"),
            6,
            "a senseless length is for others to judge"
        );
        assert_eq!(without_padding(b"\xcb"), 1);
    }
}
