//! Socket options that `socket2` lacks, and buffers as large as the machine allows.
//!
//! Neighbours: `udp`, `ether`, `calls`. `unsafe`: plain `getsockopt`, `setsockopt` and `ioctl` on an open descriptor
//! with a value whose size is passed beside it or is the call's own.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use tokio::io::unix::AsyncFd;

use super::calls;

const WAITS_TO_BE_READ: &str = "so much may wait to be read; what comes then is dropped";

/// Sets option `name` of `level` to `value`, a plain C value.
pub(in crate::carrier) fn set<T: Copy>(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: T,
) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `value`, which lives on this frame.
    let code = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), len)
    };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads option `name` of `level` into `value`, an array of plain integers; what the kernel does not fill stays.
pub(in crate::carrier) fn get<const N: usize>(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
) -> io::Result<[u32; N]> {
    let mut value = [0u32; N];
    let mut len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `value`, and any bits are a valid `u32`.
    let code = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut len)
    };
    if code == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Bytes that came on a stream and were not read; none where that cannot be asked.
pub(in crate::carrier) fn unread_bytes(socket: &impl AsRawFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one `int` into `bytes`, which lives on this frame.
    let code = unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    if code == 0 { usize::try_from(bytes).unwrap_or_default() } else { 0 }
}

/// A receive buffer as it was asked for and as it was got, in bytes that the kernel counts with its own overhead.
#[derive(Clone, Copy, Debug)]
pub(in crate::carrier) struct ReceiveBuffer {
    asked: usize,
    got: usize,
}

impl ReceiveBuffer {
    /// Asks for `asked` bytes, past the machine's limit where we may, and looks at what came.
    pub(in crate::carrier) fn raise(socket: &impl AsRawFd, asked: usize) -> io::Result<Self> {
        let want = buffer(asked);
        let forced = set(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, want);
        let what = format_args!("SO_RCVBUFFORCE, {want}");
        if calls::option(socket, what, WAITS_TO_BE_READ, forced).is_err() {
            let raised = set(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, want);
            let what = format_args!("SO_RCVBUF, {want}");
            calls::option(socket, what, WAITS_TO_BE_READ, raised)?;
        }
        let [doubled] = get(socket, libc::SOL_SOCKET, libc::SO_RCVBUF)?;
        Ok(Self { asked, got: doubled as usize / 2 })
    }

    /// Bytes of packets that surely fit. The kernel doubles what is asked, because a packet costs it up to as much
    /// again in overhead; so what was asked is what fits.
    pub(in crate::carrier) fn burst_bytes(&self) -> usize {
        self.got
    }

    /// What to tell the operator when it was clamped.
    pub(in crate::carrier) fn advice(&self) -> Option<String> {
        let Self { asked, got } = *self;
        (got < asked).then(|| {
            format!(
                "the receive buffer is {got} bytes where {asked} were asked; bursts may be lost; \
                 run: sudo sysctl -w net.core.rmem_max={asked}"
            )
        })
    }
}

/// Asks for a send buffer of so many bytes.
pub(in crate::carrier) fn set_send_buffer(socket: &impl AsRawFd, bytes: usize) -> io::Result<()> {
    let want = buffer(bytes);
    let raised = set(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, want);
    let meaning = "so much may wait for the link, and not more than the machine allows";
    calls::option(socket, format_args!("SO_SNDBUF, {want}"), meaning, raised)
}

fn buffer(bytes: usize) -> libc::c_int {
    libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX)
}

/// Packets that the kernel dropped at this socket because its buffer was full.
pub(in crate::carrier) fn drops(socket: &impl AsRawFd) -> u64 {
    const SO_MEMINFO: libc::c_int = 55; // linux/socket.h since 4.12; a read, where SO_RXQ_OVFL rides on each packet
    const DROPS: usize = 8; // SK_MEMINFO_DROPS
    let meminfo: [u32; 9] = get(socket, libc::SOL_SOCKET, SO_MEMINFO).unwrap_or_default();
    meminfo.get(DROPS).copied().unwrap_or_default().into()
}

/// Takes the error that waits at this socket; true if there was one.
pub(in crate::carrier) fn pending_error(socket: &impl AsRawFd) -> bool {
    get(socket, libc::SOL_SOCKET, libc::SO_ERROR).is_ok_and(|[error]| error != 0)
}

/// Puts a socket under the runtime's eye, for reading and writing.
pub(in crate::carrier) fn register(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, and stays the same descriptor until the `AsyncFd` that owns it drops it.
    unsafe { AsyncFd::register(socket) }.map_err(io::Error::from)
}
