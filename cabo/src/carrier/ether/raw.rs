//! The packet socket: opened deaf, filtered, then bound; whole batches in one system call.
//!
//! ```text
//!   0                 6                12        14      16      18   byte, big-endian
//!   +-----------------+-----------------+---------+-------+-------+--------
//!   | destination MAC |   source MAC    |  88 B5  | dport | sport | packet ..
//!   +-----------------+-----------------+---------+-------+-------+--------
//! ```
//!
//! Rules: `docs/protocol/wire.md` W-2. Neighbours: `mod.rs`. `unsafe`: `bind` to a `sockaddr_ll`, `sendmmsg` and
//! `recvmmsg` have no safe crate; their arrays live on the frame or in the caller's slots for the length of the call.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use bytes::BytesMut;
use socket2::{Domain, SockFilter, Socket, Type};

use super::device::Device;
use crate::address::Mac;
use crate::carrier::calls::{self, Closing, Kind, frames};
use crate::carrier::{Peer, SLOTS, sockopt};

/// IEEE local experimental EtherType 1.
const ETHERTYPE: u16 = 0x88B5;

/// Bytes before the packet: the Ethernet header and the ports.
pub(super) const HEADER_BYTES: usize = 18;

/// Bytes of the ports, which count for the MTU as the Ethernet header does not.
pub(super) const PORTS_BYTES: usize = 4;

const PACKET_IGNORE_OUTGOING: libc::c_int = 23; // linux/if_packet.h since 4.20

/// The bytes before a packet.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Header {
    pub(super) destination: [u8; 6],
    pub(super) source: [u8; 6],
    pub(super) destination_port: u16,
    pub(super) source_port: u16,
}

impl Header {
    pub(super) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let [d0, d1, d2, d3, d4, d5] = self.destination;
        let [s0, s1, s2, s3, s4, s5] = self.source;
        let [type0, type1] = ETHERTYPE.to_be_bytes();
        let [to0, to1] = self.destination_port.to_be_bytes();
        let [from0, from1] = self.source_port.to_be_bytes();
        [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, type0, type1, to0, to1, from0, from1]
    }

    pub(super) fn from_bytes(bytes: [u8; HEADER_BYTES]) -> Self {
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, _, _, to0, to1, from0, from1] = bytes;
        Self {
            destination: [d0, d1, d2, d3, d4, d5],
            source: [s0, s1, s2, s3, s4, s5],
            destination_port: u16::from_be_bytes([to0, to1]),
            source_port: u16::from_be_bytes([from0, from1]),
        }
    }
}

/// A packet socket that hears nothing yet: protocol 0, with the filter in place, so that nothing foreign is ever
/// queued.
pub(super) fn open(port: u16, hears_anyone: bool) -> io::Result<(Socket, Closing)> {
    let ty = Type::RAW.nonblocking().cloexec();
    let (socket, closing) = calls::socket(Domain::PACKET, ty, None, Kind::Ether)?;
    let filter = filter(port, hears_anyone);
    let what = format_args!("SO_ATTACH_FILTER, {} instructions", filter.len());
    let meaning = "the kernel passes on frames of our EtherType and to our port alone";
    calls::option(&socket, what, meaning, socket.attach_filter(&filter))?;
    let own = sockopt::set(&socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1 as libc::c_int);
    calls::option(&socket, "PACKET_IGNORE_OUTGOING, 1", "what leaves here is not heard here", own)?;
    Ok((socket, closing))
}

/// Only our EtherType, to our port (or to port 0, which asks for any server), to us or to everybody, without a VLAN
/// tag.
fn filter(port: u16, hears_anyone: bool) -> [SockFilter; 11] {
    const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const IF_GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const TAGGED: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_VLAN_TAG_PRESENT) as u32;
    const PACKET_TYPE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;
    let also = if hears_anyone { 0 } else { port };
    let step = SockFilter::new; // operation, steps to skip if true, if false, operand
    [
        step(LOAD_HALF, 0, 0, 12),
        step(IF_EQUAL, 0, 8, ETHERTYPE.into()),
        step(LOAD_HALF, 0, 0, 14),
        step(IF_EQUAL, 1, 0, port.into()),
        step(IF_EQUAL, 0, 5, also.into()),
        step(LOAD_WORD, 0, 0, TAGGED),
        step(IF_EQUAL, 0, 3, 0),
        step(LOAD_WORD, 0, 0, PACKET_TYPE),
        step(IF_GREATER, 1, 0, libc::PACKET_MULTICAST.into()), // host, broadcast, multicast are not above it
        step(RETURN, 0, 0, u32::MAX),
        step(RETURN, 0, 0, 0),
    ]
}

/// Starts to hear our EtherType on an interface; may be called again, for another.
pub(super) fn bind(socket: &impl AsRawFd, device: &Device) -> io::Result<()> {
    // SAFETY: all bits zero is a valid `sockaddr_ll`.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ETHERTYPE.to_be();
    address.sll_ifindex = device.index;
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `address`.
    let code = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
    let bound = if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    frames::bound(socket, device.name, ETHERTYPE, bound)
}

/// Sends packets of `stride` bytes behind one header, as many as the kernel takes at once, and says how many.
pub(super) fn send(
    socket: &OwnedFd,
    header: &[u8; HEADER_BYTES],
    contents: &[u8],
    stride: usize,
) -> io::Result<usize> {
    // SAFETY: all bits zero is a valid `iovec` and a valid `mmsghdr`.
    let (mut parts, mut messages) = unsafe {
        (mem::zeroed::<[[libc::iovec; 2]; SLOTS]>(), mem::zeroed::<[libc::mmsghdr; SLOTS]>())
    };
    let mut count = 0;
    for ((packet, parts), message) in
        contents.chunks(stride.max(1)).zip(&mut parts).zip(&mut messages)
    {
        *parts = [part(header), part(packet)];
        message.msg_hdr.msg_iov = parts.as_mut_ptr();
        message.msg_hdr.msg_iovlen = parts.len();
        count += 1;
    }
    // SAFETY: `count` messages were filled; what they point to is only read, and outlives the call.
    let code = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count, 0) };
    let sent = usize::try_from(code).map_err(|_| io::Error::last_os_error());
    let to = || {
        let Header { destination, destination_port, .. } = Header::from_bytes(*header);
        station(destination, destination_port)
    };
    frames::sent(socket, (count as usize, stride.min(contents.len())), to, sent)
}

/// A station and its port in words.
fn station(mac: [u8; 6], port: u16) -> String {
    match (mac, port) {
        (Peer::BROADCAST_MAC, _) => "everybody on the link".into(),
        (mac, port) => format!("{}, port {port}", Mac(mac)),
    }
}

fn part(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

/// One received frame: its header, and how many bytes of its slot the packet filled.
pub(super) type Frame = (Header, usize);

/// Fills slots from the first on and says how many. A frame that cannot be ours, or was larger than its slot, is
/// `None`.
pub(super) fn receive(
    socket: &OwnedFd,
    slots: &mut [BytesMut],
) -> io::Result<(usize, [Option<Frame>; SLOTS])> {
    let mut headers = [[0u8; HEADER_BYTES]; SLOTS];
    // SAFETY: all bits zero is a valid `iovec` and a valid `mmsghdr`.
    let (mut parts, mut messages) = unsafe {
        (mem::zeroed::<[[libc::iovec; 2]; SLOTS]>(), mem::zeroed::<[libc::mmsghdr; SLOTS]>())
    };
    let mut count = 0;
    let rows = slots.iter_mut().zip(&mut headers).zip(&mut parts).zip(&mut messages);
    for (((slot, header), parts), message) in rows {
        *parts = [
            libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: header.len() },
            libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() },
        ];
        message.msg_hdr.msg_iov = parts.as_mut_ptr();
        message.msg_hdr.msg_iovlen = parts.len();
        count += 1;
    }
    // SAFETY: `count` messages were filled; each points to a header and a slot of its own, which outlive the call.
    let code = unsafe {
        libc::recvmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count, 0, ptr::null_mut())
    };
    let filled = usize::try_from(code).map_err(|_| io::Error::last_os_error());
    let from = || {
        let first = headers.first().copied().unwrap_or([0; HEADER_BYTES]);
        let Header { source, source_port, .. } = Header::from_bytes(first);
        station(source, source_port)
    };
    frames::received(socket, count as usize, &filled, from);
    let filled = filled?;
    let mut frames = [None; SLOTS];
    for ((frame, message), header) in frames.iter_mut().zip(&messages).zip(&headers).take(filled) {
        let is_whole = message.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
        let len = (message.msg_len as usize).checked_sub(HEADER_BYTES).filter(|_| is_whole);
        *frame = len.map(|len| (Header::from_bytes(*header), len));
    }
    Ok((filled, frames))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_eighteen_bytes_both_ways() {
        let header = Header {
            destination: [0xff; 6],
            source: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
            destination_port: 0,
            source_port: 5555,
        };
        let bytes = *b"\xff\xff\xff\xff\xff\xff\x52\x54\x00\x12\x34\x56\x88\xb5\x00\x00\x15\xb3";
        assert_eq!(header.to_bytes(), bytes);
        assert_eq!(Header::from_bytes(bytes), header);
    }
}
