//! When to give up on a silent peer, and how not to be silent (T-14).

use std::time::{Duration, Instant};

/// Above the half minute that a cable may be out.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(45);

const PROBES: u32 = 3; // keep-alives that must fail before the timeout
const QUIET_LEAST: Duration = Duration::from_millis(500); // until one asks whether the peer is still there (T-14.3)
const QUIET_PTOS: u32 = 3;

/// The idle timer of one connection.
#[derive(Clone, Debug)]
pub struct Idle {
    timeout: Duration,
    keep_alive: bool,
    heard_at: Instant,
    asked_at: Option<Instant>, // the first packet since then that asks for an answer
    kept_at: Instant,          // the last packet either way that a keep-alive would have replaced
    quiet_since: Instant,      // the last packet that said something new, or our last question
    questions: u32,            // since it said something new
}

impl Idle {
    /// Ends a connection after `timeout` without a word; `keep_alive` asks for one before that.
    pub fn new(now: Instant, timeout: Duration, keep_alive: bool) -> Self {
        Self {
            timeout,
            keep_alive,
            heard_at: now,
            asked_at: None,
            kept_at: now,
            quiet_since: now,
            questions: 0,
        }
    }

    /// The peer's own timeout; the lower of both counts, zero is none.
    pub fn on_peer_timeout(&mut self, timeout: Duration) {
        if !timeout.is_zero() {
            self.timeout = self.timeout.min(timeout);
        }
    }

    /// Turns keep-alives on while there is something to wait for, such as a request without an answer.
    pub fn set_keep_alive(&mut self, keep_alive: bool) {
        self.keep_alive = keep_alive;
    }

    /// A genuine packet arrived.
    pub fn on_received(&mut self, now: Instant) {
        self.heard_at = now;
        self.kept_at = now;
        self.asked_at = None;
    }

    /// What arrived was not only an acknowledgement.
    pub fn on_news(&mut self, now: Instant) {
        self.quiet_since = now;
        self.questions = 0;
    }

    /// When to ask a peer that owes us something, and of which nothing new was heard, whether it is still there (T-14.3).
    /// `None` when it was asked often enough.
    pub fn question_deadline(&self, pto: Duration) -> Option<Instant> {
        let wait = QUIET_LEAST.max(QUIET_PTOS * pto) * (1 << self.questions.min(16));
        (wait < self.timeout / (PROBES + 1)).then(|| self.quiet_since + wait)
    }

    /// It is asked.
    pub fn on_question(&mut self, now: Instant) {
        self.quiet_since = now;
        self.questions += 1;
    }

    /// A packet that asks for an answer left.
    pub fn on_sent(&mut self, now: Instant) {
        self.kept_at = now;
        self.asked_at.get_or_insert(now);
    }

    /// When the connection ends. The first packet sent into a silence restarts the timer, as RFC 9000 section 10.1
    /// has it, so that a peer which slept may answer.
    pub fn deadline(&self, pto: Duration) -> Instant {
        self.asked_at.unwrap_or(self.heard_at).max(self.heard_at) + self.timeout.max(3 * pto)
    }

    /// When a genuine packet arrived last, or the start.
    pub fn last_heard(&self) -> Instant {
        self.heard_at
    }

    /// The timeout that both sides keep.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// When to send a packet that asks for an answer, if nothing else is sent before.
    pub fn keep_alive_deadline(&self) -> Option<Instant> {
        self.keep_alive.then(|| self.kept_at + self.timeout / (PROBES + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const PTO: Duration = Duration::from_millis(100);

    #[test]
    fn a_pull_of_thirty_seconds_is_survived() {
        assert!(DEFAULT_TIMEOUT > 30 * SECOND);
    }

    #[test]
    fn only_the_first_packet_into_a_silence_restarts_the_timer() {
        let start = crate::sim::origin();
        let mut idle = Idle::new(start, 40 * SECOND, false);
        assert_eq!(idle.deadline(PTO), start + 40 * SECOND);
        idle.on_sent(start + 10 * SECOND);
        idle.on_sent(start + 20 * SECOND);
        assert_eq!(idle.deadline(PTO), start + 50 * SECOND);
        idle.on_received(start + 30 * SECOND);
        assert_eq!(idle.deadline(PTO), start + 70 * SECOND);
        assert_eq!(idle.keep_alive_deadline(), None);
    }

    #[test]
    fn the_lower_timeout_of_both_counts_but_leaves_time_for_probes() {
        let start = crate::sim::origin();
        let mut idle = Idle::new(start, 40 * SECOND, false);
        idle.on_peer_timeout(Duration::ZERO);
        assert_eq!(idle.deadline(PTO), start + 40 * SECOND);
        idle.on_peer_timeout(SECOND);
        assert_eq!(idle.deadline(PTO), start + SECOND);
        assert_eq!(idle.deadline(SECOND), start + 3 * SECOND);
    }

    #[test]
    fn a_silent_peer_is_asked_soon_and_then_ever_more_rarely() {
        let start = crate::sim::origin();
        let mut idle = Idle::new(start, 40 * SECOND, false);
        let mut now = start;
        let mut waits = Vec::new();
        while let Some(at) = idle.question_deadline(PTO) {
            waits.push((at - now).as_millis());
            now = at;
            idle.on_question(now);
            idle.on_received(now); // it answers, and has nothing to say
        }
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000]);
        idle.on_news(now);
        assert_eq!(idle.question_deadline(PTO), Some(now + SECOND / 2));
    }

    #[test]
    fn keep_alives_leave_room_for_three_to_fail() {
        let start = crate::sim::origin();
        let mut idle = Idle::new(start, 40 * SECOND, true);
        for expected in [10, 20, 30] {
            let at = start + expected * SECOND;
            assert_eq!(idle.keep_alive_deadline(), Some(at));
            idle.on_sent(at);
        }
        assert!(idle.deadline(PTO) >= start + 40 * SECOND);
    }
}
