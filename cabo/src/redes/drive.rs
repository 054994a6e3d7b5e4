//! Frames and time for one machine: waits on the socket until something is due.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::carrier::redes::{Redes, Waker};

/// Frames that are sent at once at most.
const BURST: usize = 64;

/// Ends what runs on another thread.
#[derive(Clone, Debug)]
pub struct Stop {
    is_set: Arc<AtomicBool>,
    waker: Waker,
}

impl Stop {
    /// Ends it soon.
    pub fn stop(&self) {
        self.is_set.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// A link that is open, with what ends the waits on it.
#[derive(Debug)]
pub struct Link {
    socket: Redes,
    stop: Stop,
    frames: Vec<Vec<u8>>, // that leave together
}

impl Link {
    /// Drives a machine over this socket.
    pub fn new(socket: Redes) -> Self {
        let stop = Stop { is_set: Arc::default(), waker: socket.waker() };
        Self { socket, stop, frames: Vec::new() }
    }

    /// What ends it from another thread.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.is_set.load(Ordering::Acquire)
    }

    /// Waits until `deadline`, and hands over what came.
    pub(super) fn receive(
        &mut self,
        deadline: Option<Instant>,
        mut sink: impl FnMut(Instant, &[u8]),
    ) -> io::Result<()> {
        let wait = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // The kernel counts in steps of its own; to be too early would be to ask again at once.
        let wait =
            wait.map(|wait| if wait.is_zero() { wait } else { wait + Duration::from_micros(50) });
        let mut now = None;
        self.socket.receive(wait, &mut |frame| {
            sink(*now.get_or_insert_with(Instant::now), frame);
        })?;
        Ok(())
    }

    /// Sends all that `next` has.
    pub(super) fn transmit(&mut self, mut next: impl FnMut() -> Option<Vec<u8>>) -> io::Result<()> {
        loop {
            self.frames.clear();
            self.frames.extend(std::iter::from_fn(&mut next).take(BURST));
            if self.frames.is_empty() {
                return Ok(());
            }
            self.socket.send(&self.frames)?;
        }
    }
}
