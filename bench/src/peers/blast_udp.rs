//! Datagrams as fast as the kernel takes them, in the largest GSO and GRO batches: no protocol can be faster here.

use std::io::{self, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};

use super::Tally;
use crate::job::Job;

const LARGEST_BATCH_BYTES: usize = 65_507;
const RECEIVE_BUFFER_BYTES: libc::c_int = 4 << 20;

static DATAGRAMS: AtomicU64 = AtomicU64::new(0);

pub(super) fn run(job: &Job) -> Result<()> {
    if super::is_sender(job) { send(job) } else { receive(job) }
}

fn send(job: &Job) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let state = UdpSocketState::new((&socket).into())?;
    super::tell_at_end(|| format!("sent {} datagrams", DATAGRAMS.load(Ordering::Relaxed)));
    let block = super::block();
    let segments = (LARGEST_BATCH_BYTES / job.datagram_bytes).min(state.max_gso_segments()).max(1);
    let transmit = Transmit {
        destination: job.connect.parse()?,
        ecn: None,
        contents: &block[..segments * job.datagram_bytes],
        segment_size: Some(job.datagram_bytes),
        src_ip: None,
    };
    loop {
        match state.try_send((&socket).into(), &transmit) {
            Ok(()) => {
                DATAGRAMS.fetch_add(segments as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait(&socket, libc::POLLOUT)?
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn receive(job: &Job) -> Result<()> {
    let socket = UdpSocket::bind(&job.listen)?;
    set_receive_buffer(&socket, RECEIVE_BUFFER_BYTES)?;
    let state = UdpSocketState::new((&socket).into())?;
    super::say_ready();
    let mut tally = Tally::new(job);
    let mut slots = vec![vec![0; 65_536]; BATCH_SIZE];
    let mut metas = [RecvMeta::default(); BATCH_SIZE];
    loop {
        let mut buffers: Vec<IoSliceMut<'_>> =
            slots.iter_mut().map(|slot| IoSliceMut::new(slot)).collect();
        match state.recv((&socket).into(), &mut buffers, &mut metas) {
            Ok(count) => metas.iter().take(count).for_each(|meta| tally.add(meta.len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait(&socket, libc::POLLIN)?,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sleeps until the socket can be read or written.
pub(super) fn wait(socket: &impl AsRawFd, events: libc::c_short) -> io::Result<()> {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events, revents: 0 };
    // SAFETY: one valid `pollfd`, for the length of the call.
    if unsafe { libc::poll(&mut poll, 1, -1) } < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// As cabo raises its own: past the machine's limit where that is allowed.
pub(super) fn set_receive_buffer(socket: &impl AsRawFd, bytes: libc::c_int) -> io::Result<()> {
    for option in [libc::SO_RCVBUFFORCE, libc::SO_RCVBUF] {
        let len = size_of_val(&bytes) as libc::socklen_t;
        // SAFETY: the kernel reads `len` bytes of `bytes`.
        let code = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const bytes).cast(),
                len,
            )
        };
        if code == 0 {
            return Ok(());
        }
    }
    Err(io::Error::last_os_error())
}
