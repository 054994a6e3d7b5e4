//! Bytes of messages that are not whole yet: what all peers of a server may have of them together, and for how long one
//! peer may leave its own so.
//!
//! Neighbours: `stream` tells what came and asks; `server` has the one budget.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::Closed;

/// Bytes that a peer has of its own at most: who sends no longer messages costs the others nothing, not even an atomic.
const FREE_BYTES_MAX: usize = 64 * 1024;
/// All peers together have this part of the budget besides it, alike.
const FREE_PART: usize = 4;

/// What a peer may have that counts nowhere. It shrinks with the number of peers, or they would have gigabytes together.
pub(super) fn free_bytes(budget_bytes: usize, peers: usize) -> usize {
    (budget_bytes / FREE_PART / peers.max(1)).min(FREE_BYTES_MAX)
}

/// What a long message is held to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) budget_bytes: usize,
    pub(super) free_bytes: usize,
}

/// Bytes that unfinished messages of all peers have, beyond those that are free.
#[derive(Debug, Default)]
pub(super) struct Budget(AtomicUsize);

impl Budget {
    /// Takes so many more, where there is room under the limit.
    fn take(&self, bytes: usize, max: usize) -> bool {
        let add = |taken: usize| taken.checked_add(bytes).filter(|taken| *taken <= max);
        self.0.fetch_update(Relaxed, Relaxed, add).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Relaxed);
    }
}

/// What one peer has of the budget; given back when it is dropped.
pub(super) struct Unfinished {
    budget: Arc<Budget>,
    taken: usize,
    /// Bytes of the message, when something of it came last.
    bytes: usize,
    /// Since when more of a long message has been waited for.
    awaited: Option<Instant>,
    /// Since when it has to make progress again, and what there was of it then.
    measured: Option<(Instant, usize)>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Unfinished {
    pub(super) fn of(budget: &Arc<Budget>) -> Self {
        let budget = budget.clone();
        Self { budget, taken: 0, bytes: 0, awaited: None, measured: None, timer: None }
    }

    /// So many bytes came, and so many are no whole message yet.
    #[inline]
    pub(super) fn heard(
        &mut self,
        came: usize,
        bytes: usize,
        limits: impl FnOnce() -> Limits,
    ) -> Result<(), Closed> {
        if bytes == 0 && self.taken == 0 {
            self.bytes = 0;
            return Ok(());
        }
        self.count(came, bytes, limits())
    }

    fn count(&mut self, came: usize, bytes: usize, limits: Limits) -> Result<(), Closed> {
        self.awaited = None;
        if bytes != self.bytes + came {
            self.measured = None; // it is another message
        }
        self.bytes = bytes;
        let counted = bytes.saturating_sub(limits.free_bytes);
        if counted < self.taken {
            self.budget.give_back(self.taken - counted);
        } else if !self.budget.take(counted - self.taken, limits.budget_bytes) {
            self.forget(); // at once, so that it is not in the way of another
            return Err(Closed::NoRoom(limits.budget_bytes));
        }
        self.taken = counted;
        if counted == 0 {
            self.forget_times();
        }
        Ok(())
    }

    /// There is nothing unfinished any more.
    pub(super) fn forget(&mut self) {
        self.budget.give_back(std::mem::take(&mut self.taken));
        self.bytes = 0;
        self.forget_times();
    }

    fn forget_times(&mut self) {
        (self.awaited, self.measured, self.timer) = (None, None, None);
    }

    /// Ready when a long message has been waited for that long, and nothing came, or fewer bytes than these.
    pub(super) fn poll_stalled(
        &mut self,
        cx: &mut Context<'_>,
        time: Duration,
        bytes_min: usize,
    ) -> Poll<Closed> {
        if self.taken == 0 {
            return Poll::Pending;
        }
        loop {
            let now = Instant::now();
            let awaited = *self.awaited.get_or_insert(now);
            if now.saturating_duration_since(awaited) >= time {
                return Poll::Ready(Closed::Unfinished(time));
            }
            let (mut measured, had) = *self.measured.get_or_insert((now, self.bytes));
            if now.saturating_duration_since(measured) >= time {
                if self.bytes.saturating_sub(had) < bytes_min {
                    return Poll::Ready(Closed::Dripping(bytes_min, time));
                }
                (measured, self.measured) = (now, Some((now, self.bytes)));
            }
            let Some(end) = awaited.min(measured).checked_add(time) else { return Poll::Pending };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
            if timer.deadline() != end {
                timer.as_mut().reset(end);
            }
            ready!(timer.as_mut().poll(cx));
        }
    }

    /// Nobody waits for more: the peer is not read.
    pub(super) fn is_not_awaited(&mut self) {
        (self.awaited, self.measured) = (None, None);
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_is_a_part_of_the_budget_for_all_together() {
        let budget = 256 * 1024 * 1024;
        for (peers, free) in
            [(0, 65_536), (1, 65_536), (1024, 65_536), (10_000, 6710), (100_000, 671)]
        {
            assert_eq!(free_bytes(budget, peers), free, "{peers} peers");
        }
        assert_eq!(free_bytes(100, 1000), 0);
    }
}
