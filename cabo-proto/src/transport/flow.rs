//! Credit (T-13): how much the peer may send us, and how much it lets us send.
//!
//! Credit is an absolute count of bytes, of one stream or of a connection. The receiver's window doubles while the
//! application keeps up, within a [`Budget`] that the whole server shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Memory for receive windows beyond their first size, shared by all connections of an endpoint.
#[derive(Debug)]
pub struct Budget {
    left: AtomicU64, // bytes
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Self { left: AtomicU64::new(bytes) })
    }

    /// What is left.
    pub fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> bool {
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        taken.is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The peer sent more than it was allowed to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{received} bytes received where {limit} were allowed")]
pub struct OverLimit {
    /// What it sent up to.
    pub received: u64,
    /// What it was told.
    pub limit: u64,
}

/// The receiving side.
#[derive(Debug)]
pub struct RecvCredit {
    window: u64,
    first_window: u64,
    max_window: u64,
    received: u64,
    consumed: u64,
    announced: u64,
    last_update: Option<Instant>,
    blocked_at: Option<u64>, // the limit at which the peer says that it waits
    budget: Arc<Budget>,
}

impl RecvCredit {
    /// Lets the peer send `first_window` bytes ahead of the application at first, `max_window` at most.
    pub fn new(first_window: u64, max_window: u64, budget: Arc<Budget>) -> Self {
        Self {
            window: first_window,
            first_window,
            max_window: max_window.max(first_window),
            received: 0,
            consumed: 0,
            announced: first_window,
            last_update: None,
            blocked_at: None,
            budget,
        }
    }

    /// The limit that the peer knows.
    pub fn limit(&self) -> u64 {
        self.announced
    }

    /// How far ahead of the application the peer may be.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// The peer's bytes now reach up to `end`. Returns how many of these are new (T-13.1).
    pub fn on_received(&mut self, end: u64) -> Result<u64, OverLimit> {
        if end > self.announced {
            return Err(OverLimit { received: end, limit: self.announced });
        }
        let new = end.saturating_sub(self.received);
        self.received += new;
        Ok(new)
    }

    /// The peer sent `bytes` more, of whichever stream: for a connection's credit.
    pub fn on_received_more(&mut self, bytes: u64) -> Result<(), OverLimit> {
        self.on_received(self.received.saturating_add(bytes)).map(drop)
    }

    /// The application took `bytes`. Returns the limit to announce, once half the window is used up (T-13.2).
    pub fn on_consumed(&mut self, now: Instant, bytes: u64, rtt: Duration) -> Option<u64> {
        self.consumed = self.consumed.saturating_add(bytes).min(self.received);
        let ahead = self.announced - self.consumed;
        if ahead > self.window / 2 {
            return None;
        }
        self.tune(now, rtt);
        self.last_update = Some(now);
        self.announce()
    }

    fn announce(&mut self) -> Option<u64> {
        self.announced = self.announced.max(self.consumed.saturating_add(self.window));
        Some(self.announced)
    }

    /// So many bytes came that nobody can read, because something before them was lost. Returns the limit to announce,
    /// if they are a quarter of the window and the application has read nearly all that it could: then the path needs
    /// more (T-13.3).
    pub fn on_stuck(&mut self, bytes: u64) -> Option<u64> {
        let unread = (self.received - self.consumed).saturating_sub(bytes);
        if bytes <= self.window / 4 || unread > self.window / 16 || !self.grow() {
            return None;
        }
        self.announce()
    }

    /// The peer had something to send and no credit beyond `limit`, on a carrier that keeps order: all up to there is
    /// here. What is remembered is looked at by [`grow_for_blocked`](Self::grow_for_blocked).
    pub fn on_blocked(&mut self, limit: u64) {
        self.blocked_at = Some(limit);
    }

    /// Doubles the window if the peer waits while little is left for the application: then it is credit that is under
    /// way for too long, whatever the round trip is (T-13.5). Returns the limit to announce.
    pub fn grow_for_blocked(&mut self) -> Option<u64> {
        let is_waiting = self.blocked_at.is_some_and(|limit| limit == self.received);
        if !is_waiting || self.received - self.consumed > self.window / 4 {
            return None;
        }
        self.blocked_at = None; // once for each limit
        self.grow().then(|| self.announce()).flatten()
    }

    /// Half a window in less than two round trips: the window, not the application, may be what limits (T-13.3).
    fn tune(&mut self, now: Instant, rtt: Duration) {
        let since = self.last_update.map(|last| now.saturating_duration_since(last));
        if since.is_some_and(|since| since < 2 * rtt) {
            self.grow();
        }
    }

    /// Doubles the window if its limit and the budget allow; true if it grew.
    fn grow(&mut self) -> bool {
        let grown = self.window.saturating_mul(2).min(self.max_window);
        let may = grown > self.window && self.budget.take(grown - self.window);
        if may {
            self.window = grown;
        }
        may
    }
}

impl Drop for RecvCredit {
    fn drop(&mut self) {
        self.budget.give_back(self.window - self.first_window);
    }
}

/// The sending side.
#[derive(Clone, Debug)]
pub struct SendCredit {
    limit: u64,
    used: u64,
    told_blocked_at: Option<u64>,
}

impl SendCredit {
    /// The peer lets us send `limit` bytes at first.
    pub fn new(limit: u64) -> Self {
        Self { limit, used: 0, told_blocked_at: None }
    }

    /// The peer raised the limit; a lower one is old news. True if it is higher than before.
    pub fn raise(&mut self, limit: u64) -> bool {
        let is_higher = limit > self.limit;
        self.limit = self.limit.max(limit);
        is_higher
    }

    /// How many more bytes may be sent.
    pub fn available(&self) -> u64 {
        self.limit - self.used
    }

    /// Uses up to `bytes` of the credit and returns how many that were.
    pub fn take(&mut self, bytes: u64) -> u64 {
        let taken = bytes.min(self.available());
        self.used += taken;
        taken
    }

    /// The limit to complain about, once for each limit that holds us back (T-13.4). Call with something to send.
    pub fn blocked(&mut self) -> Option<u64> {
        if self.available() > 0 || self.told_blocked_at == Some(self.limit) {
            return None;
        }
        self.told_blocked_at = Some(self.limit);
        Some(self.limit)
    }

    /// Bytes sent under this credit.
    pub fn used(&self) -> u64 {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(20);

    #[test]
    fn credit_is_renewed_when_half_of_it_is_used() {
        let now = crate::sim::origin();
        let mut credit = RecvCredit::new(1000, 1000, Budget::new(0));
        assert_eq!(credit.on_received(600), Ok(600));
        assert_eq!(credit.on_consumed(now, 400, RTT), None);
        assert_eq!(credit.on_consumed(now, 100, RTT), Some(1500));
        assert_eq!(credit.limit(), 1500);
        assert_eq!(credit.on_received(500), Ok(0), "what came before is not new");
    }

    #[test]
    fn more_than_was_allowed_is_an_error() {
        let mut credit = RecvCredit::new(1000, 1000, Budget::new(0));
        assert_eq!(credit.on_received(1001), Err(OverLimit { received: 1001, limit: 1000 }));
        assert_eq!(credit.on_received(1000), Ok(1000));
        assert!(credit.on_received_more(u64::MAX).is_err());
    }

    #[test]
    fn the_window_grows_with_a_fast_reader_within_its_budget_and_gives_it_back() {
        let start = crate::sim::origin();
        let budget = Budget::new(5000);
        let mut credit = RecvCredit::new(1000, 16_000, budget.clone());
        for round in 0..20 {
            let bytes = credit.limit() - credit.received;
            credit.on_received_more(bytes).expect("within the limit");
            credit.on_consumed(start + round * RTT, bytes, RTT);
        }
        assert_eq!((credit.window(), budget.left()), (4000, 2000), "8000 would need 4000 more");
        drop(credit);
        assert_eq!(budget.left(), 5000);
    }

    #[test]
    fn a_slow_reader_keeps_a_small_window() {
        let start = crate::sim::origin();
        let mut credit = RecvCredit::new(1000, 16_000, Budget::new(1 << 20));
        for round in 0..20 {
            credit.on_received_more(credit.limit() - credit.received).expect("within the limit");
            credit.on_consumed(start + round * 10 * RTT, 500, RTT);
        }
        assert_eq!(credit.window(), 1000);
    }

    #[test]
    fn bytes_behind_a_loss_make_the_window_grow_though_nothing_is_read() {
        let budget = Budget::new(5000);
        let mut credit = RecvCredit::new(1000, 16_000, budget.clone());
        assert_eq!((credit.on_received(250), credit.on_stuck(250)), (Ok(250), None));
        assert_eq!((credit.on_received(251), credit.on_stuck(251)), (Ok(1), Some(2000)));
        assert_eq!(credit.on_stuck(500), None, "no more than a quarter any more");
        assert_eq!(credit.on_stuck(1000), Some(4000));
        assert_eq!(
            (credit.on_stuck(2000), budget.left()),
            (None, 2000),
            "8000 would need 4000 more"
        );
    }

    #[test]
    fn bytes_behind_a_loss_are_no_reason_where_the_application_does_not_read() {
        let mut credit = RecvCredit::new(1000, 16_000, Budget::new(5000));
        assert_eq!((credit.on_received(900), credit.on_stuck(500)), (Ok(900), None));
    }

    #[test]
    fn the_window_grows_when_the_peer_waits_and_nothing_is_left_to_read() {
        let now = crate::sim::origin();
        let mut credit = RecvCredit::new(1000, 4000, Budget::new(1 << 20));
        credit.on_received_more(1000).expect("within the limit");
        credit.on_blocked(1000);
        assert_eq!(credit.grow_for_blocked(), None, "the application is what holds it up");
        assert_eq!(credit.on_consumed(now, 700, Duration::ZERO), Some(1700));
        assert_eq!(credit.grow_for_blocked(), None);
        assert_eq!(credit.on_consumed(now, 100, Duration::ZERO), None);
        assert_eq!((credit.grow_for_blocked(), credit.window()), (Some(2800), 2000));
        assert_eq!(credit.grow_for_blocked(), None, "once for what was said once");
        credit.on_received_more(100).expect("within the limit");
        credit.on_blocked(1000);
        assert_eq!(credit.grow_for_blocked(), None, "it has more credit by now");
    }

    #[test]
    fn the_sender_uses_what_it_has_and_complains_once() {
        let mut credit = SendCredit::new(100);
        assert_eq!((credit.take(70), credit.blocked(), credit.take(70)), (70, None, 30));
        assert_eq!((credit.blocked(), credit.blocked()), (Some(100), None));
        assert!(!credit.raise(90));
        assert!(credit.raise(150));
        assert_eq!(
            (credit.available(), credit.take(u64::MAX), credit.blocked()),
            (50, 50, Some(150))
        );
    }
}
