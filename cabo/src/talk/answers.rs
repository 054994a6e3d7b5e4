//! Answers to datagrams that say nothing new, of which there are not too many.
//!
//! The sender of a datagram is what the datagram says it is. One that is forged makes two servers that answer everything
//! answer each other for ever (CERT CA-1996-01), and nothing in a datagram tells who answers everything. But whoever is
//! caught in that says the same again and again, however many datagrams go round: so what comes again costs, and what is
//! new is free. The first answer that is not given ends the round.
//!
//! Neighbours: `peer` asks before it answers, `datagrams` has what all peers of a socket have together.

use std::hash::{DefaultHasher, Hasher as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Answers a second to a peer that says nothing new, when these are used up:
const AGAIN_PER_SECOND: u32 = 100;
/// so many at once.
const AGAIN_BURST: u32 = 10_000;
/// The same for all peers of a socket together.
const ALL_PER_SECOND: u32 = 100 * AGAIN_PER_SECOND;
const ALL_BURST: u32 = 10 * AGAIN_BURST;
/// Datagrams among which one is looked for that came before: more than the buffers of two sockets hold of those that go
/// round between them.
const WINDOW_MAX: u32 = 32_768;
/// So many more than it was expected after, and what was to come again is not expected any more.
const PATIENCE: u32 = 16;

/// A token bucket, as the time at which it is full again.
#[derive(Debug)]
struct Bucket {
    full: Option<Instant>,
    token_time: Duration,
    burst: u32,
}

impl Bucket {
    fn new(per_second: u32, burst: u32) -> Self {
        Self { full: None, token_time: Duration::from_secs(1) / per_second.max(1), burst }
    }

    fn take(&mut self, now: Instant) -> bool {
        let full = self.full.map_or(now, |full| full.max(now)) + self.token_time;
        let is_there = full.saturating_duration_since(now) <= self.token_time * self.burst;
        if is_there {
            self.full = Some(full);
        }
        is_there
    }
}

/// What all peers of a socket have together.
#[derive(Debug)]
pub(super) struct All(Mutex<Bucket>);

impl Default for All {
    fn default() -> Self {
        Self(Mutex::new(Bucket::new(ALL_PER_SECOND, ALL_BURST)))
    }
}

/// What one peer says again. One of its datagrams is remembered, and which one changes ever more rarely: so those that go
/// round are found, be they one or thousands (Brent's way to find a cycle).
#[derive(Debug)]
pub(super) struct Again {
    remembered: u64,
    /// Datagrams since then, and after how many of them another one is remembered.
    age: u32,
    window: u32,
    /// After how many datagrams it came again, while that is so.
    period: Option<u32>,
    bucket: Bucket,
}

impl Again {
    /// Having heard nothing yet.
    pub(super) fn new() -> Self {
        let bucket = Bucket::new(AGAIN_PER_SECOND, AGAIN_BURST);
        Self { remembered: 0, age: 0, window: 0, period: None, bucket }
    }

    /// Whether a datagram may be answered.
    pub(super) fn may_answer(&mut self, datagram: &[u8], all: &All, now: Instant) -> bool {
        let mut hasher = DefaultHasher::new();
        hasher.write(datagram);
        self.note(hasher.finish());
        self.period.is_none()
            || (self.bucket.take(now)
                && all.0.lock().unwrap_or_else(PoisonError::into_inner).take(now))
    }

    fn note(&mut self, hash: u64) {
        self.age = self.age.saturating_add(1);
        if hash == self.remembered && self.window > 0 {
            self.period = Some(self.age);
            self.age = 0;
            return;
        }
        let late = |period: u32| period.saturating_mul(2).saturating_add(PATIENCE);
        if self.period.is_some_and(|period| self.age > late(period)) {
            self.period = None;
        }
        if self.age > self.window {
            self.remembered = hash;
            self.age = 0;
            self.window = (self.window * 2).clamp(1, WINDOW_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of these datagrams are answered, all at the same moment.
    fn answered<D: AsRef<[u8]>>(datagrams: impl Iterator<Item = D>) -> usize {
        let (mut again, all, now) = (Again::new(), All::default(), Instant::now());
        datagrams.filter(|datagram| again.may_answer(datagram.as_ref(), &all, now)).count()
    }

    #[test]
    fn who_says_something_new_is_answered_without_end() {
        let many = 40 * AGAIN_BURST;
        assert_eq!(answered((0..many).map(|n| n.to_be_bytes())), many as usize);
        let counting = (0..many).map(|n| (n as u16).to_be_bytes()); // begins anew six times
        assert_eq!(answered(counting), many as usize);
    }

    #[test]
    fn what_goes_round_is_found_be_it_one_datagram_or_thousands() {
        for going_round in [1, 2, 3, 100, 1000, 5461, 20_000] {
            let first = (0..1000_u32).map(|n| n | 1 << 31); // what came before
            let datagrams = first.chain((0..20 * AGAIN_BURST).map(|n| n % going_round));
            let answered = answered(datagrams.map(|n| n.to_be_bytes()));
            let found_after = 1000 + 4 * going_round as usize + WINDOW_MAX as usize;
            let most = AGAIN_BURST as usize + found_after;
            assert!(answered <= most, "{going_round}: {answered} answers");
        }
    }

    #[test]
    fn a_bucket_fills_with_time() {
        let (mut again, all, now) = (Again::new(), All::default(), Instant::now());
        let mut answered = |after| {
            let now = now + Duration::from_millis(after);
            (0..2 * AGAIN_BURST).filter(|_| again.may_answer(b"ola", &all, now)).count()
        };
        assert_eq!(answered(0), 1 + AGAIN_BURST as usize); // the first one was new
        assert_eq!(answered(500), AGAIN_PER_SECOND as usize / 2);
        assert_eq!(answered(501), 0);
        assert_eq!(answered(3_600_000), AGAIN_BURST as usize, "and is never more than full");
    }

    #[test]
    fn who_goes_on_to_something_new_is_free_again() {
        let same = std::iter::repeat_n(7_u32, 2 * AGAIN_BURST as usize);
        let (mut again, all, now) = (Again::new(), All::default(), Instant::now());
        assert!(!same.map(|n| n.to_be_bytes()).all(|d| again.may_answer(&d, &all, now)));
        let new = (100..1100_u32).filter(|n| again.may_answer(&n.to_be_bytes(), &all, now)).count();
        assert!(new > 900, "{new} of 1000");
    }

    #[test]
    fn all_peers_together_have_no_more_than_the_socket_has() {
        let (all, now) = (All::default(), Instant::now());
        let answered = |_| {
            let mut again = Again::new();
            (0..AGAIN_BURST).filter(|_| again.may_answer(b"ola", &all, now)).count()
        };
        let sum: usize = (0..20).map(answered).sum();
        assert_eq!(sum, 20 + ALL_BURST as usize);
    }
}
