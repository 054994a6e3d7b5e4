//! Full frames as fast as the kernel takes them: no protocol on AF_PACKET can be faster here.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use socket2::{Domain, Socket, Type};

use super::Tally;
use crate::job::Job;

const HEADER_BYTES: usize = 14;
const ETHERTYPE: u16 = 0x88B6; // IEEE local experimental EtherType 2, so that no cabo hears it
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
const RECEIVE_BUFFER_BYTES: libc::c_int = 4 << 20;
const BATCH: usize = 32;

static FRAMES: AtomicU64 = AtomicU64::new(0);

pub(super) fn run(job: &Job) -> Result<()> {
    if super::is_sender(job) { send(job) } else { receive(job) }
}

fn send(job: &Job) -> Result<()> {
    let (mac, interface) = job.connect.split_once(' ').context("a station and an interface")?;
    let socket = open(interface)?;
    super::tell_at_end(|| format!("sent {} frames", FRAMES.load(Ordering::Relaxed)));
    let mut frame = Vec::new();
    for byte in mac.split(':') {
        frame.push(u8::from_str_radix(byte, 16)?);
    }
    frame.extend([2, 0xca, 0xb0, 0, 0, 1]); // nobody answers it
    frame.extend(ETHERTYPE.to_be_bytes());
    frame.extend(&super::block()[..job.datagram_bytes]);
    let mut part = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
    // SAFETY: all bits zero is a valid `mmsghdr`.
    let mut messages = unsafe { std::mem::zeroed::<[libc::mmsghdr; BATCH]>() };
    for message in &mut messages {
        message.msg_hdr.msg_iov = &raw mut part;
        message.msg_hdr.msg_iovlen = 1;
    }
    loop {
        // SAFETY: every message points to `part` and it to `frame`; both are only read, and outlive the call.
        let sent = unsafe {
            libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), BATCH as libc::c_uint, 0)
        };
        match u64::try_from(sent) {
            Ok(sent) => {
                FRAMES.fetch_add(sent, Ordering::Relaxed);
            }
            Err(_) => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ENOBUFS) => {} // the queue is full; try again
                error => return Err(error.into()),
            },
        }
    }
}

fn receive(job: &Job) -> Result<()> {
    let socket = open(&job.listen)?;
    super::blast_udp::set_receive_buffer(&socket, RECEIVE_BUFFER_BYTES)?;
    super::say_ready();
    let mut tally = Tally::new(job);
    let mut slots = vec![vec![0u8; HEADER_BYTES + job.datagram_bytes]; BATCH];
    let mut parts: Vec<libc::iovec> = slots
        .iter_mut()
        .map(|slot| libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() })
        .collect();
    // SAFETY: all bits zero is a valid `mmsghdr`.
    let mut messages = unsafe { std::mem::zeroed::<[libc::mmsghdr; BATCH]>() };
    for (message, part) in messages.iter_mut().zip(&mut parts) {
        message.msg_hdr.msg_iov = part;
        message.msg_hdr.msg_iovlen = 1;
    }
    loop {
        // SAFETY: each message points to a part of its own, and that to a slot; both outlive the call.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for message in messages.iter().take(count) {
            tally.add((message.msg_len as usize).saturating_sub(HEADER_BYTES));
        }
    }
}

/// A packet socket that hears the EtherType of this bench on `interface`.
fn open(interface: &str) -> Result<Socket> {
    let name = std::ffi::CString::new(interface)?;
    // SAFETY: `name` ends in a zero byte and outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    anyhow::ensure!(index != 0, "no interface {interface}");
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    let one: libc::c_int = 1;
    // SAFETY: all bits zero is a valid `sockaddr_ll`.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ETHERTYPE.to_be();
    address.sll_ifindex = libc::c_int::try_from(index)?;
    // SAFETY: the kernel reads the value and the address, whose sizes are passed beside them.
    let is_ok = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_IGNORE_OUTGOING,
            (&raw const one).cast(),
            size_of_val(&one) as libc::socklen_t,
        ) == 0
            && libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            ) == 0
    };
    if is_ok { Ok(socket) } else { Err(io::Error::last_os_error().into()) }
}
