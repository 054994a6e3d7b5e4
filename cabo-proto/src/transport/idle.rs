//! When to give up on a silent peer, and how not to be silent (T-14).

use std::time::{Duration, Instant};

/// Above the half minute that a cable may be out.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(45);

const PROBES: u32 = 3; // keep-alives that must fail before the timeout

/// The idle timer of one connection.
#[derive(Clone, Debug)]
pub struct Idle {
    timeout: Duration,
    keep_alive: bool,
    heard_at: Instant,
    asked_at: Option<Instant>, // the first packet since then that asks for an answer
    kept_at: Instant,          // the last packet either way that a keep-alive would have replaced
}

impl Idle {
    /// Ends a connection after `timeout` without a word; `keep_alive` asks for one before that.
    pub fn new(now: Instant, timeout: Duration, keep_alive: bool) -> Self {
        Self { timeout, keep_alive, heard_at: now, asked_at: None, kept_at: now }
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
