//! Frames of the course protocol on an interface: no header of ours, or one for bridges (`docs/redes.md` R-2).
//!
//! Not a [`super::Datagrams`]: there are no addresses, no packets of cabo/1, and one thread that waits. The kernel keeps
//! away what does not begin with the marker; what left this socket comes back on a loopback device, and is dropped
//! a VLAN tag that the kernel took out is put back.
//!
//! `unsafe`: `bind` to a `sockaddr_ll`, `sendmmsg` and `recvmmsg` with control messages have no safe crate; their arrays
//! live on the frame or in our buffers for the length of the call.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use socket2::{Domain, SockFilter, Socket, Type};

use super::ether::{any_socket, device};
use super::{InterfaceName, OpenError, sockopt};

const MARKER: u32 = 0x7E;
const ETHERTYPE: u16 = 0x88B6; // IEEE local experimental EtherType 2
const HEADER_BYTES: usize = 14;
const BROADCAST: [u8; 6] = [0xFF; 6];
/// A frame and its padding; what is longer is not ours.
const FRAME_MAX_BYTES: usize = 256;
/// Frames of one system call.
const BATCH: usize = 32;
/// Own frames that have not come back yet; a loopback device that loses some must not fill our memory.
const ECHOES_MAX: usize = 256;
const BUFFER_BYTES: usize = 1 << 20;
const TAG_AT: usize = 12;
/// While the interface is away, it is looked for so often.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const PACKET_IGNORE_OUTGOING: libc::c_int = 23; // linux/if_packet.h since 4.20

/// Room for the auxiliary data of one frame, aligned as control messages must be.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

/// A packet socket for the course protocol.
#[derive(Debug)]
pub struct Redes {
    socket: Socket,
    name: InterfaceName,
    is_away: bool,
    waker: Waker,
    header: Option<[u8; HEADER_BYTES]>,
    echoes: Option<VecDeque<Vec<u8>>>, // on loopback devices
    room: Vec<u8>,
}

/// Ends the wait of a [`Redes`] from another thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Ends the wait that is under way, or else the next.
    pub fn wake(&self) {
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes()); // a full counter wakes as well
    }
}

impl Redes {
    /// Opens the interface; `has_header` puts an Ethernet header before each frame.
    pub fn open(interface: &str, has_header: bool) -> Result<Self, OpenError> {
        let what = format!("redes://{interface}");
        let failed = |operation| {
            let what = &what;
            move |e| OpenError::of(what, operation, e)
        };
        let name =
            InterfaceName::new(interface).ok_or_else(|| OpenError::no_interface(interface))?;
        let probe = any_socket().map_err(failed("socket"))?;
        let device = device::Device::look(&probe, name)?;
        let socket =
            Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), None).map_err(|e| {
                match e.raw_os_error() {
                    Some(libc::EPERM | libc::EACCES) => OpenError::NoPrivilege {
                        what: what.clone(),
                        program: std::env::current_exe().unwrap_or_else(|_| "cabo".into()),
                    },
                    _ => OpenError::of(&what, "socket", e),
                }
            })?;
        socket.attach_filter(&filter(has_header)).map_err(failed("set the filter"))?;
        for option in [PACKET_IGNORE_OUTGOING, libc::PACKET_AUXDATA] {
            sockopt::set(&socket, libc::SOL_PACKET, option, 1 as libc::c_int)
                .map_err(failed("set a packet option"))?;
        }
        sockopt::ReceiveBuffer::raise(&socket, BUFFER_BYTES).map_err(failed("set SO_RCVBUF"))?;
        attach(&socket, &device, has_header).map_err(failed("bind"))?;
        let waker = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let waker = waker.map_err(|e| OpenError::of(&what, "eventfd", e.into()))?;
        Ok(Self {
            socket,
            name,
            is_away: false,
            waker: Waker(Arc::new(waker)),
            header: has_header.then(|| header(device.mac)),
            echoes: device.is_loopback.then(VecDeque::new),
            room: vec![0; BATCH * FRAME_MAX_BYTES],
        })
    }

    /// Whether the interface leads back to this host alone.
    pub fn is_loopback(&self) -> bool {
        self.echoes.is_some()
    }

    /// What ends its waits.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Waits for frames, for so long at most, and hands them to `sink`; false if it was woken instead.
    pub fn receive(
        &mut self,
        wait: Option<Duration>,
        sink: &mut dyn FnMut(&[u8]),
    ) -> io::Result<bool> {
        self.look_again();
        let wait = if self.is_away {
            Some(wait.map_or(LOOK_EVERY, |wait| wait.min(LOOK_EVERY)))
        } else {
            wait
        };
        let wait = wait.map(|wait| Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        });
        let mut fds = [
            PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.waker.0.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, wait.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
        let [frames, woken] = fds.map(|fd| !fd.revents().is_empty());
        if woken {
            let _ = rustix::io::read(&*self.waker.0, &mut [0; 8]);
        }
        if frames {
            self.take(sink)?;
        }
        Ok(!woken)
    }

    /// Binds to the interface of our name when there is one again, whatever its index is. Takes no privilege.
    fn look_again(&mut self) {
        if !self.is_away {
            return;
        }
        let seen = device::Device::look(&self.socket, self.name).ok().filter(|seen| seen.is_up);
        if let Some(seen) = seen
            && attach(&self.socket, &seen, self.header.is_some()).is_ok()
        {
            self.is_away = false;
            self.header = self.header.map(|_| header(seen.mac));
        }
    }

    /// Sends frames in order. What the link does not take is lost, as on any wire.
    pub fn send(&mut self, frames: &[Vec<u8>]) -> io::Result<()> {
        for batch in frames.chunks(BATCH) {
            let mut rest = batch;
            while !rest.is_empty() {
                let sent = match self.send_some(rest) {
                    Ok(sent) => sent.max(1),
                    Err(error) => match error.raw_os_error() {
                        Some(libc::EINTR) => 0,
                        // Down, gone, or its queue is full: the timers see to it.
                        Some(
                            libc::ENETDOWN
                            | libc::ENXIO
                            | libc::ENODEV
                            | libc::ENOBUFS
                            | libc::EAGAIN,
                        ) => rest.len(),
                        _ => return Err(error),
                    },
                };
                rest = rest.get(sent..).unwrap_or_default();
            }
        }
        Ok(())
    }

    fn send_some(&mut self, frames: &[Vec<u8>]) -> io::Result<usize> {
        // SAFETY: all bits zero is a valid `iovec` and a valid `mmsghdr`.
        let (mut parts, mut messages) = unsafe {
            (mem::zeroed::<[[libc::iovec; 2]; BATCH]>(), mem::zeroed::<[libc::mmsghdr; BATCH]>())
        };
        let header: &[u8] = self.header.as_ref().map_or(&[], |header| header);
        let mut count = 0;
        for ((frame, parts), message) in frames.iter().zip(&mut parts).zip(&mut messages) {
            *parts = [part(header), part(frame)];
            message.msg_hdr.msg_iov = parts.as_mut_ptr();
            message.msg_hdr.msg_iovlen = parts.len();
            count += 1;
        }
        let socket = self.socket.as_raw_fd();
        // SAFETY: `count` messages were filled; what they point to is only read, and outlives the call.
        let code = unsafe { libc::sendmmsg(socket, messages.as_mut_ptr(), count, 0) };
        let sent = usize::try_from(code).map_err(|_| io::Error::last_os_error())?;
        if let Some(echoes) = &mut self.echoes {
            echoes.extend(frames.iter().take(sent).cloned());
            echoes.drain(..echoes.len().saturating_sub(ECHOES_MAX));
        }
        Ok(sent)
    }

    fn take(&mut self, sink: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let mut controls = [Control([0; 64]); BATCH];
        // SAFETY: all bits zero is a valid `iovec` and a valid `mmsghdr`.
        let (mut parts, mut messages) = unsafe {
            (mem::zeroed::<[libc::iovec; BATCH]>(), mem::zeroed::<[libc::mmsghdr; BATCH]>())
        };
        let rows = self.room.chunks_exact_mut(FRAME_MAX_BYTES).zip(&mut controls).zip(&mut parts);
        for (message, ((room, control), part)) in messages.iter_mut().zip(rows) {
            *part = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            message.msg_hdr.msg_controllen = control.0.len() as _;
        }
        // SAFETY: every message points to a room and a control buffer of its own, which outlive the call.
        let code = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                messages.as_mut_ptr(),
                BATCH as libc::c_uint,
                0,
                ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(code) else {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN) => Ok(()),
                Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => {
                    self.is_away = true;
                    Ok(())
                }
                _ => Err(error),
            };
        };
        let skip = self.header.map_or(0, |header| header.len());
        for (message, room) in
            messages.iter().zip(self.room.chunks_exact(FRAME_MAX_BYTES)).take(count)
        {
            let is_whole = message.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
            let frame = room.get(skip..message.msg_len as usize).filter(|_| is_whole);
            let Some(frame) = frame else { continue };
            match tag_of(&message.msg_hdr).filter(|_| skip == 0) {
                None => deliver(&mut self.echoes, frame, sink),
                Some(tag) => {
                    let (before, after) = frame.split_at(frame.len().min(TAG_AT));
                    let whole = [before, &tag, after].concat();
                    deliver(&mut self.echoes, &whole, sink);
                }
            }
        }
        Ok(())
    }
}

/// Hands a frame on, unless it is one of ours that came back: they come in the order in which they went.
fn deliver(echoes: &mut Option<VecDeque<Vec<u8>>>, frame: &[u8], sink: &mut dyn FnMut(&[u8])) {
    if let Some(echoes) = echoes
        && let Some(at) = echoes.iter().position(|echo| echo == frame)
    {
        echoes.drain(..=at);
        return;
    }
    sink(frame);
}

/// The four bytes that the kernel took out of a frame, if it did.
fn tag_of(message: &libc::msghdr) -> Option<[u8; 4]> {
    // SAFETY: the kernel filled the control buffer of this message, and says how far.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !control.is_null() {
        // SAFETY: it is a header within the control buffer.
        let head = unsafe { *control };
        if (head.cmsg_level, head.cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
            type Data = libc::tpacket_auxdata;
            // SAFETY: what follows such a header is a `tpacket_auxdata`, at any alignment.
            let data: Data = unsafe { ptr::read_unaligned(libc::CMSG_DATA(control).cast()) };
            if data.tp_status & libc::TP_STATUS_VLAN_VALID == 0 {
                return None;
            }
            let has_type = data.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
            let tag_type = if has_type { data.tp_vlan_tpid } else { libc::ETH_P_8021Q as u16 };
            let ([a, b], [c, d]) = (tag_type.to_be_bytes(), data.tp_vlan_tci.to_be_bytes());
            return Some([a, b, c, d]);
        }
        // SAFETY: `control` is a header within the buffer of `message`.
        control = unsafe { libc::CMSG_NXTHDR(message, control) };
    }
    None
}

/// To everybody on the link: no frame of this protocol says who it is for.
fn header(source: [u8; 6]) -> [u8; HEADER_BYTES] {
    let [a, b, c, d, e, f] = BROADCAST;
    let [g, h, i, j, k, l] = source;
    let [high, low] = ETHERTYPE.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l, high, low]
}

/// The marker, behind the header if there is one.
fn filter(has_header: bool) -> [SockFilter; 4] {
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let at = if has_header { HEADER_BYTES as u32 } else { 0 };
    let step = SockFilter::new; // operation, steps to skip if true, if false, operand
    [
        step(LOAD_BYTE, 0, 0, at),
        step(IF_EQUAL, 0, 1, MARKER),
        step(RETURN, 0, 0, u32::MAX),
        step(RETURN, 0, 0, 0),
    ]
}

/// Hears an interface, from now on that one alone.
fn attach(socket: &Socket, device: &device::Device, has_header: bool) -> io::Result<()> {
    if !device.is_loopback {
        hear_all(socket, device.index)?;
    }
    bind(socket, device.index, if has_header { ETHERTYPE } else { libc::ETH_P_ALL as u16 })
}

/// A card keeps what is addressed to others to itself, and the bytes of a frame look like any address.
fn hear_all(socket: &Socket, index: i32) -> io::Result<()> {
    let membership = libc::packet_mreq {
        mr_ifindex: index,
        mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    sockopt::set(socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, membership)
}

fn bind(socket: &Socket, index: i32, protocol: u16) -> io::Result<()> {
    // SAFETY: all bits zero is a valid `sockaddr_ll`.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = index;
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `address`.
    let code = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn part(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_frame_that_comes_back_is_dropped_once() {
        let mut echoes = Some(VecDeque::from([b"one".to_vec(), b"two".to_vec()]));
        let mut heard = Vec::new();
        for frame in [b"one", b"two", b"two"] {
            deliver(&mut echoes, frame, &mut |frame| heard.push(frame.to_vec()));
        }
        assert_eq!(heard, [b"two".to_vec()]);
        deliver(&mut None, b"one", &mut |frame| heard.push(frame.to_vec()));
        assert_eq!(heard.len(), 2);
    }

    #[test]
    fn the_header_is_for_everybody_and_of_our_own_type() {
        let bytes = header([2, 0, 0, 0, 0, 9]);
        assert_eq!(bytes, *b"\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x09\x88\xb6");
    }
}
