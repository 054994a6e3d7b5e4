//! Hosts that answer that nobody listens at the port where a packet of ours went (ICMP), at a socket that is not connected:
//! its packets may come from and go to anybody.
//!
//! Neighbour: `udp` asks while it receives. `unsafe`: a plain `recvmsg` on an open descriptor, into buffers on the frame.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, RawFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Context;

use socket2::SockAddr;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::sockopt;

/// Answers that nobody has asked for yet; more push out the oldest.
const TOLD_MAX: usize = 16;
/// Room for `sock_extended_err`, the address of who answered, and their headers.
const CONTROL_BYTES: usize = 256;

/// What the error queue of a socket has told.
pub(super) struct ClosedPorts {
    state: Mutex<State>,
}

struct State {
    erring: Erring,
    told: VecDeque<SocketAddr>,
}

/// Waits for the next error.
type Erring = Pin<Box<dyn Future<Output = ()> + Send>>;

impl ClosedPorts {
    /// Asks the system to tell.
    pub(super) fn of(socket: &Arc<UdpSocket>) -> io::Result<Self> {
        let (level, name) = match socket.local_addr()? {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_RECVERR),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
        };
        sockopt::set(&**socket, level, name, 1 as libc::c_int)?;
        let state = State { erring: erring(socket), told: VecDeque::new() };
        Ok(Self { state: Mutex::new(state) })
    }

    /// Takes what the socket tells, and wakes for more.
    pub(super) fn poll(&self, socket: &Arc<UdpSocket>, cx: &mut Context<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.erring.as_mut().poll(cx).is_ready() {
            let all: io::Result<()> = socket.try_io(Interest::ERROR, || {
                loop {
                    let Some(at) = next_closed(socket.as_raw_fd())? else { continue };
                    if state.told.len() == TOLD_MAX {
                        state.told.pop_front();
                    }
                    state.told.push_back(at);
                }
            });
            drop(all); // it ends when the queue is empty, and the next look waits
            state.erring = erring(socket);
        }
    }

    /// The next port that was told of.
    pub(super) fn take(&self) -> Option<SocketAddr> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).told.pop_front()
    }
}

impl fmt::Debug for ClosedPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClosedPorts")
    }
}

fn erring(socket: &Arc<UdpSocket>) -> Erring {
    let socket = socket.clone();
    Box::pin(async move {
        let _ = socket.ready(Interest::ERROR).await; // a runtime that goes down polls nobody any more
    })
}

/// Takes the next error; the port where our packet went, if that is closed. `WouldBlock` where there is no error any more.
fn next_closed(socket: RawFd) -> io::Result<Option<SocketAddr>> {
    let mut control = MaybeUninit::<[u64; CONTROL_BYTES / 8]>::uninit(); // aligned as its headers want it
    let (mut byte, mut errno) = ([0u8; 1], 0);
    // SAFETY: an all-zero `msghdr` is an empty one.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: byte.len() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_BYTES as _;
    // SAFETY: `try_init` passes room for any address and its size, which the kernel fills as it does the other buffers;
    // each of them outlives the call, and `CMSG_*` walk over what the kernel says that it filled.
    let ((), at) = unsafe {
        SockAddr::try_init(|address, len| {
            message.msg_name = address.cast();
            message.msg_namelen = *len;
            let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
            if libc::recvmsg(socket, &raw mut message, flags) < 0 {
                return Err(io::Error::last_os_error());
            }
            *len = message.msg_namelen;
            let mut header = libc::CMSG_FIRSTHDR(&raw const message);
            while !header.is_null() {
                let is_error = matches!(
                    ((*header).cmsg_level, (*header).cmsg_type),
                    (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
                );
                if is_error {
                    let told = libc::CMSG_DATA(header).cast::<libc::sock_extended_err>();
                    errno = std::ptr::read_unaligned(told).ee_errno;
                }
                header = libc::CMSG_NXTHDR(&raw const message, header);
            }
            Ok(())
        })?
    };
    let is_closed = i32::try_from(errno) == Ok(libc::ECONNREFUSED);
    Ok(at.as_socket().filter(|_| is_closed))
}
