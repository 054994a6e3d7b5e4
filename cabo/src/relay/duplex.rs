//! Both directions of a cable in real time: two links, what they did, and when to wake.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use cabo_proto::sim::link::{Link, LinkConfig, Verdict};
use rustix::event::{PollFd, Timespec, poll};

use super::trace::Trace;
use super::{RelayConfig, RelayStats, Shared, TICK};

/// From the first end to the second, or from client to server.
pub(super) const FORWARD: usize = 0;
/// The other way.
pub(super) const BACKWARD: usize = 1;

/// Two links, driven by the real clock. Directions are [`FORWARD`] and [`BACKWARD`].
pub(super) struct Duplex<P> {
    links: [Link<P>; 2],
    shared: Arc<Shared>,
    trace: Option<Trace>,
    start: Instant,
    published: Instant,
    /// What is not the links' business; the run loop counts here.
    pub(super) stats: RelayStats,
}

impl<P: AsRef<[u8]> + AsMut<[u8]> + Clone> Duplex<P> {
    pub(super) fn new(config: RelayConfig, shared: Arc<Shared>, trace: Option<Trace>) -> Self {
        let now = Instant::now();
        let RelayConfig { forward, backward, seed } = config;
        // Any odd constant: the two directions must not draw the same fates.
        let links = [Link::new(forward, seed), Link::new(backward, seed ^ 0x9e37_79b9_7f4a_7c15)];
        Self { links, shared, trace, start: now, published: now, stats: RelayStats::default() }
    }

    pub(super) fn send(&mut self, direction: usize, now: Instant, packet: P) -> Verdict {
        let len = packet.as_ref().len();
        let verdict = self.links[direction].send(now, packet);
        if let Some(trace) = &mut self.trace {
            trace.note(now.saturating_duration_since(self.start), now, direction, len, verdict);
        }
        verdict
    }

    pub(super) fn poll(&mut self, direction: usize, now: Instant) -> Option<P> {
        self.links[direction].poll(now)
    }

    /// When this direction has something to hand out.
    pub(super) fn next_deadline(&self, direction: usize) -> Option<Instant> {
        self.links[direction].next_deadline()
    }

    pub(super) fn config(&self, direction: usize) -> &LinkConfig {
        self.links[direction].config()
    }

    /// True while the cable is pulled.
    pub(super) fn is_down(&self) -> bool {
        self.shared.is_down.load(Ordering::Relaxed)
    }

    /// Carries a pulled or replaced cable to the links, which lose what is on its way.
    pub(super) fn follow_down(&mut self) {
        let is_down = self.is_down();
        for link in &mut self.links {
            if link.is_down() != is_down {
                link.set_down(is_down);
            }
        }
    }

    /// Publishes what happened, about once a tick; false once it is time to stop.
    pub(super) fn tick(&mut self, now: Instant, stop: &AtomicBool) -> bool {
        let is_over = stop.load(Ordering::Relaxed);
        if is_over || now.saturating_duration_since(self.published) >= TICK {
            self.published = now;
            if let Some(trace) = &mut self.trace {
                trace.flush();
                self.stats.is_trace_broken = trace.is_broken();
            }
            self.stats.elapsed = now.saturating_duration_since(self.start);
            self.stats.forward = self.links[FORWARD].stats();
            self.stats.backward = self.links[BACKWARD].stats();
            *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = self.stats;
        }
        !is_over
    }

    /// Sleeps until a descriptor is ready, until the earlier of `deadlines`, or for a tick.
    pub(super) fn wait(
        &self,
        fds: &mut [PollFd<'_>],
        deadlines: [Option<Instant>; 2],
    ) -> io::Result<()> {
        let now = Instant::now();
        let wait = deadlines
            .into_iter()
            .flatten()
            .map(|at| at.saturating_duration_since(now))
            .fold(TICK, Duration::min);
        let timeout = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() }; // a tick is below a second
        match poll(fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
