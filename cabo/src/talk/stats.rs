//! What was said to and by one peer, in numbers.
//!
//! Neighbours: `peer` has them, `stream` and `datagrams` count what comes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A peer in numbers, as they were when it was asked ([`Peer::stats`](super::Peer::stats)).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Since when it is there.
    pub since: Instant,
    /// When it last said anything; none where it never did.
    pub last_heard: Option<Instant>,
    /// Whole messages of it.
    pub received_messages: u64,
    /// Bytes of it, with headers, end marks and what is not whole yet; without the first words of a dialect.
    pub received_bytes: u64,
    /// Messages for it, whether it has taken them or not.
    pub sent_messages: u64,
    /// Bytes of them, with headers and end marks.
    pub sent_bytes: u64,
    /// Messages of it that nobody was given or answered: requests beyond their limit, datagrams that were too long, that came
    /// faster than callbacks took them, or that said nothing new too often.
    pub refused_messages: u64,
}

/// What came from a peer. One task counts what it hears, so that is an addition and no more.
#[derive(Debug)]
pub(super) struct Heard {
    since: Instant,
    messages: AtomicU64,
    bytes: AtomicU64,
    /// Milliseconds from `since`, and one more; 0 where nothing came.
    last_ms: AtomicU64,
    refused: AtomicU64,
}

/// What was handed over to be sent to a peer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said {
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

impl Heard {
    pub(super) fn new() -> Self {
        let (messages, bytes, last_ms, refused) = Default::default();
        Self { since: Instant::now(), messages, bytes, last_ms, refused }
    }

    /// So many bytes have come.
    #[inline]
    pub(super) fn bytes(&self, bytes: usize, now: Instant) {
        self.bytes.store(self.bytes.load(Relaxed).wrapping_add(bytes as u64), Relaxed);
        let after = now.saturating_duration_since(self.since).as_millis();
        self.last_ms.store((after as u64).wrapping_add(1), Relaxed);
    }

    /// One more message is whole.
    #[inline]
    pub(super) fn message(&self) {
        self.messages.store(self.messages.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// A message of it is not given out, or not answered. Several tasks may say so.
    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(super) fn stats(&self, said: Said) -> Stats {
        let after = self.last_ms.load(Relaxed).checked_sub(1).map(Duration::from_millis);
        Stats {
            since: self.since,
            last_heard: after.and_then(|after| self.since.checked_add(after)),
            received_messages: self.messages.load(Relaxed),
            received_bytes: self.bytes.load(Relaxed),
            sent_messages: said.messages,
            sent_bytes: said.bytes,
            refused_messages: self.refused.load(Relaxed),
        }
    }
}
