//! A packet socket that reads and writes whole frames of one interface, and finds the interface again when it went.
//!
//! Traps B 1 to 11 of packet sockets: own echoes are ignored by the kernel, a VLAN tag that was stripped is put back,
//! unfinished checksums and segments are finished ([`super::offload`]), a downed interface is waited for.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::RelayError;
use super::offload::{self, VNET_HEADER_BYTES};
use crate::lab::interface;

/// Frames read or written by one system call.
pub(super) const BATCH: usize = 64;

const FRAME_MAX_BYTES: usize = VNET_HEADER_BYTES + (64 << 10) + 64; // a full segment bundle with its headers
const SOCKET_BUFFER_BYTES: usize = 32 << 20;
const RETRY: Duration = Duration::from_millis(100);
const ETH_P_ALL_WIRE: u16 = (libc::ETH_P_ALL as u16).to_be();

/// Room for the auxiliary data of one frame, aligned as control messages must be.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

/// One end of the cable.
pub(super) struct Frames {
    name: String,
    socket: Socket,
    index: i32,
    down_since: Option<Instant>, // or the last try to find it
    buffer: Vec<u8>,
}

impl Frames {
    pub(super) fn open(name: &str) -> Result<Self, RelayError> {
        let failed = |what: &str| RelayError::system(format!("{what} for {name}"));
        let socket =
            Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0))).map_err(|error| {
                if error.kind() == io::ErrorKind::PermissionDenied {
                    RelayError::Privilege(name.to_owned())
                } else {
                    failed("a packet socket")(error)
                }
            })?;
        let index = interface::index(socket.as_fd(), name)
            .map_err(|_| RelayError::NoInterface(name.to_owned()))?;
        socket.set_nonblocking(true).map_err(failed("a socket that does not block"))?;
        for option in [libc::PACKET_VNET_HDR, libc::PACKET_AUXDATA, libc::PACKET_IGNORE_OUTGOING] {
            set_option(&socket, libc::SOL_PACKET, option, &1i32)
                .map_err(failed("a packet option"))?;
        }
        for (forced, plain) in
            [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
        {
            let bytes = SOCKET_BUFFER_BYTES as i32;
            // The forced one needs CAP_NET_ADMIN outside; the plain one gives what the system allows.
            if set_option(&socket, libc::SOL_SOCKET, forced, &bytes).is_err() {
                set_option(&socket, libc::SOL_SOCKET, plain, &bytes)
                    .map_err(failed("a socket buffer"))?;
            }
        }
        let mut frames = Self {
            name: name.to_owned(),
            socket,
            index: 0,
            down_since: None,
            buffer: vec![0; BATCH * FRAME_MAX_BYTES],
        };
        frames.bind(index).map_err(failed("binding a packet socket"))?;
        Ok(frames)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// False while the interface is away; then it must not be polled.
    pub(super) fn is_up(&self) -> bool {
        self.down_since.is_none()
    }

    /// Looks for an interface that went away, at most every 100 ms; true when it is back.
    pub(super) fn revive(&mut self, now: Instant) -> bool {
        let Some(since) = self.down_since else { return false };
        if now.saturating_duration_since(since) < RETRY {
            return false;
        }
        self.down_since = Some(now);
        let found = interface::is_up(self.socket.as_fd(), &self.name).and_then(|is_up| {
            if is_up { interface::index(self.socket.as_fd(), &self.name) } else { Ok(0) }
        });
        match found {
            Ok(index) if index > 0 && self.bind(index).is_ok() => {
                self.down_since = None;
                true
            }
            Ok(_) | Err(_) => false,
        }
    }

    /// Reads what is there, at most a batch, and hands each finished frame to `sink`.
    pub(super) fn receive(&mut self, now: Instant, mut sink: impl FnMut(Vec<u8>)) {
        let mut controls = [Control([0; 64]); BATCH];
        // SAFETY: zeroed iovecs and message headers are valid: null pointers with zero lengths.
        let mut iovecs: [libc::iovec; BATCH] = unsafe { mem::zeroed() };
        // SAFETY: as above.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
        let rooms =
            self.buffer.chunks_exact_mut(FRAME_MAX_BYTES).zip(&mut controls).zip(&mut iovecs);
        for (message, ((room, control), iovec)) in messages.iter_mut().zip(rooms) {
            *iovec = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
            message.msg_hdr.msg_iov = iovec;
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            message.msg_hdr.msg_controllen = control.0.len() as _;
        }
        let flags = libc::MSG_DONTWAIT;
        // SAFETY: every header points to an iovec, a room and a control buffer that live to the end of this function.
        let count = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                messages.as_mut_ptr(),
                BATCH as _,
                flags as _,
                std::ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(count) else {
            self.note_error(now, &io::Error::last_os_error());
            return;
        };
        for (message, room) in
            messages.iter().zip(self.buffer.chunks_exact(FRAME_MAX_BYTES)).take(count)
        {
            let (len, is_cut) =
                (message.msg_len as usize, message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0);
            if is_cut {
                continue; // larger than any frame we could send
            }
            let tag = vlan_tag(&message.msg_hdr);
            if let Some((header, frame)) =
                room.get(..len).and_then(|bytes| bytes.split_first_chunk())
            {
                offload::finish(header, frame, tag, &mut sink);
            }
        }
    }

    /// Writes frames from the front of `frames`; returns how many of them, also counting what no try will ever send,
    /// and how many those were. The rest waits for room.
    pub(super) fn send(&mut self, now: Instant, frames: &[Vec<u8>]) -> (usize, u64) {
        let no_header = [0u8; VNET_HEADER_BYTES];
        // SAFETY: zeroed iovecs and message headers are valid: null pointers with zero lengths.
        let mut iovecs: [[libc::iovec; 2]; BATCH] = unsafe { mem::zeroed() };
        // SAFETY: as above.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
        let total = frames.len().min(BATCH);
        for ((message, parts), frame) in messages.iter_mut().zip(&mut iovecs).zip(frames) {
            // The kernel only reads through these, though the type says otherwise.
            parts[0] = libc::iovec {
                iov_base: no_header.as_ptr().cast_mut().cast(),
                iov_len: no_header.len(),
            };
            parts[1] =
                libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() };
            message.msg_hdr.msg_iov = parts.as_mut_ptr();
            message.msg_hdr.msg_iovlen = parts.len() as _;
        }
        let (mut done, mut unsent) = (0, 0);
        while done < total {
            let rest = &mut messages[done..total];
            // SAFETY: every header points to iovecs, the empty header and frames that outlive the call.
            let sent = unsafe {
                libc::sendmmsg(
                    self.socket.as_raw_fd(),
                    rest.as_mut_ptr(),
                    rest.len() as _,
                    libc::MSG_DONTWAIT as _,
                )
            };
            if let Ok(sent) = usize::try_from(sent) {
                done += sent;
                continue;
            }
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::WouldBlock {
                break;
            }
            if self.note_error(now, &error) {
                unsent += (total - done) as u64; // nobody is there: the rest of the batch is lost as on a dead wire
                done = total;
            } else {
                unsent += 1; // too long for this interface, or its queue is full
                done += 1;
            }
        }
        (done, unsent)
    }

    /// Frames that the kernel dropped since the last call because they were not read in time.
    pub(super) fn missed(&self) -> u64 {
        // SAFETY: zeroed integers are valid.
        let mut stats: libc::tpacket_stats = unsafe { mem::zeroed() };
        let mut len = size_of_val(&stats) as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes to `stats`.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut len,
            )
        };
        if result == 0 { stats.tp_drops.into() } else { 0 }
    }

    /// True if `error` says that the interface is away, which is then waited for.
    fn note_error(&mut self, now: Instant, error: &io::Error) -> bool {
        let is_away = matches!(
            error.raw_os_error(),
            Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV | libc::EBADFD)
        );
        if is_away && self.down_since.is_none() {
            self.down_since = Some(now);
        }
        is_away
    }

    fn bind(&mut self, index: i32) -> io::Result<()> {
        // SAFETY: a zeroed address is a valid one.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as _;
        address.sll_protocol = ETH_P_ALL_WIRE;
        address.sll_ifindex = index;
        // SAFETY: the pointer and the length describe `address`.
        let result = unsafe {
            libc::bind(
                self.socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        if index != self.index {
            let member = libc::packet_mreq {
                mr_ifindex: index,
                mr_type: libc::PACKET_MR_PROMISC as _,
                mr_alen: 0,
                mr_address: [0; 8],
            };
            set_option(&self.socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &member)?;
            self.index = index;
        }
        Ok(())
    }
}

impl AsFd for Frames {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The four bytes that the kernel took out of a tagged frame.
fn vlan_tag(header: &libc::msghdr) -> Option<[u8; 4]> {
    // SAFETY: the kernel filled the control buffer that `header` describes; CMSG_* stay within it.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: not null, so it points to a whole control header.
        let control = unsafe { &*message };
        if (control.cmsg_level, control.cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
            // SAFETY: this kind carries a tpacket_auxdata; it may lie unaligned.
            let data = unsafe {
                libc::CMSG_DATA(message).cast::<libc::tpacket_auxdata>().read_unaligned()
            };
            if data.tp_status & libc::TP_STATUS_VLAN_VALID == 0 {
                return None;
            }
            let has_type = data.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
            let kind = if has_type { data.tp_vlan_tpid } else { libc::ETH_P_8021Q as u16 };
            let ([a, b], [c, d]) = (kind.to_be_bytes(), data.tp_vlan_tci.to_be_bytes());
            return Some([a, b, c, d]);
        }
        // SAFETY: both pointers come from the same filled header.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    None
}

fn set_option<T>(
    socket: &Socket,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const *value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
