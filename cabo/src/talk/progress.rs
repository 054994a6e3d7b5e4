//! How much of what a client sends has left, for who looks on.
//!
//! Neighbour: `client` counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Peer;

/// What a [`Sender`](super::client::Sender) was given, and what of it the system or the session has taken.
#[derive(Clone)]
pub struct Progress {
    pub(super) counts: Arc<Counts>,
    /// A cabo peer, in whose queue more may wait.
    pub(super) peer: Option<Peer>,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    given_bytes: AtomicU64,
    taken_bytes: AtomicU64,
}

impl Counts {
    pub(super) fn give(&self, bytes: usize) {
        self.given_bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn take(&self, bytes: usize) {
        self.taken_bytes.fetch_add(bytes as u64, Relaxed);
    }
}

impl Progress {
    /// Bytes that were given to the sender and that nobody has taken yet.
    pub fn waiting_bytes(&self) -> u64 {
        let taken = self.counts.taken_bytes.load(Relaxed); // first: it never passes the other
        let queued = self.peer.as_ref().map_or(0, |peer| peer.waiting_bytes() as u64);
        self.counts.given_bytes.load(Relaxed).saturating_sub(taken) + queued
    }

    /// Bytes that were taken, which only grow while something moves.
    pub fn taken_bytes(&self) -> u64 {
        let given = self.counts.given_bytes.load(Relaxed);
        given.saturating_sub(self.waiting_bytes())
    }
}
