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

/// Bytes that every peer has of its own: who sends no longer messages costs the others nothing, not even an atomic.
const FREE_BYTES: usize = 64 * 1024;

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
    /// Since when more of a long message has been waited for.
    awaited: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Unfinished {
    pub(super) fn of(budget: &Arc<Budget>) -> Self {
        Self { budget: budget.clone(), taken: 0, awaited: None, timer: None }
    }

    /// Something came, and so many bytes are no whole message yet.
    #[inline]
    pub(super) fn heard(&mut self, bytes: usize, max: usize) -> Result<(), Closed> {
        let counted = bytes.saturating_sub(FREE_BYTES);
        if counted == 0 && self.taken == 0 { Ok(()) } else { self.count(counted, max) }
    }

    fn count(&mut self, counted: usize, max: usize) -> Result<(), Closed> {
        self.awaited = None;
        if counted == 0 {
            self.forget();
            return Ok(());
        }
        if counted < self.taken {
            self.budget.give_back(self.taken - counted);
        } else if !self.budget.take(counted - self.taken, max) {
            self.forget(); // at once, so that it is not in the way of another
            return Err(Closed::NoRoom(max));
        }
        self.taken = counted;
        Ok(())
    }

    /// There is nothing unfinished any more.
    pub(super) fn forget(&mut self) {
        self.budget.give_back(std::mem::take(&mut self.taken));
        (self.awaited, self.timer) = (None, None);
    }

    /// Ready when a long message has been waited for that long, and nothing came.
    pub(super) fn poll_stalled(&mut self, cx: &mut Context<'_>, time: Duration) -> Poll<()> {
        if self.taken == 0 {
            return Poll::Pending;
        }
        let since = *self.awaited.get_or_insert_with(Instant::now);
        let Some(end) = since.checked_add(time) else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= end {
                return Poll::Ready(());
            }
            timer.as_mut().reset(end);
        }
    }

    /// Nobody waits for more: the peer is not read.
    pub(super) fn is_not_awaited(&mut self) {
        self.awaited = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.forget();
    }
}
