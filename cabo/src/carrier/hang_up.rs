//! Whether the other side of a stream has ended it or is gone, for who does not read what it said before that.
//!
//! Neighbours: `mod.rs` says which streams have a socket that can be asked.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use tokio::io::unix::AsyncFd;

use super::sockopt;

/// A second look at the socket of a stream. It keeps the connection open while it lives.
#[derive(Debug)]
pub struct HangUp {
    socket: AsyncFd<OwnedFd>,
}

impl HangUp {
    pub(crate) fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self { socket: sockopt::register(socket.try_clone_to_owned()?)? })
    }

    /// Waits for the end of its half, or of the connection. An end behind bytes for which there is no room is not seen.
    pub async fn seen(&self) {
        loop {
            let Ok(mut ready) = self.socket.readable().await else { return }; // the runtime goes down
            if ready.ready().is_read_closed() || ready.ready().is_error() {
                return;
            }
            ready.clear_ready(); // more was said, which is for who reads
        }
    }
}
