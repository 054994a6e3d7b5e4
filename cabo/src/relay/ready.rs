//! Which of many sockets have something to say: an epoll set that the exact wait of `duplex` can wait on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{Timespec, epoll};

pub(super) use rustix::event::epoll::EventFlags;

const EVENTS: usize = 64; // taken by one call; the rest comes with the next

/// An epoll set. Each socket has a number of its owner's choice.
pub(super) struct Ready(OwnedFd);

impl Ready {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Adds a socket; it leaves the set when it is closed.
    pub(super) fn add(&self, socket: impl AsFd, number: u64, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.0, socket, epoll::EventData::new_u64(number), flags)?)
    }

    /// The sockets that are ready now.
    pub(super) fn take(&self) -> io::Result<Vec<(u64, EventFlags)>> {
        let mut events = Vec::with_capacity(EVENTS);
        let no_wait = Timespec { tv_sec: 0, tv_nsec: 0 };
        match epoll::wait(&self.0, rustix::buffer::spare_capacity(&mut events), Some(&no_wait)) {
            // The fields are of a packed structure: copied, not borrowed.
            Ok(_) | Err(rustix::io::Errno::INTR) => {
                Ok(events.iter().map(|e| (e.data.u64(), e.flags)).collect())
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Ready {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
