//! How many may be inside over stream carriers, and how many of them before they have proved who they are (S-4.5).
//!
//! All listeners of an endpoint share one [`Entrance`]. Where strangers are too many the oldest goes: who is honest has
//! proved itself long before. `records.rs` asks here, and tells who is turned away.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use cabo_proto::session::remote::Remote;
use cabo_proto::wire::code::Code;
use tokio::sync::oneshot;

/// Connections at most, for an endpoint that was told no other.
const CONNECTIONS_MAX: usize = 10_000;
/// Connections at most that have not proved themselves.
const STRANGERS_MAX: usize = 1_000;
/// From so many on, one source (an address without its port) may have no more than a hundred of them: before, nobody is
/// in need of room, and a busy host may well begin hundreds at once.
const CROWD: usize = STRANGERS_MAX / 2;
const STRANGERS_PER_SOURCE: usize = 100;
/// Those who are told why they are turned away, at once; more are cut off without a word.
const LEAVING_MAX: usize = 256;
/// The log hears of it this often.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Why somebody is turned away.
pub(crate) type Reason = (Code, &'static str);

const FULL: Reason = (Code::BUSY, "the server has all the connections that it takes");
const CROWDED: Reason = (Code::BUSY, "too many connections begin at once");
const DRAINING: Reason = (Code::DRAINING, "the server is going down");

/// See the module.
pub(crate) struct Entrance {
    connections_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    inside: usize,
    strangers: BTreeMap<u64, Stranger>, // the oldest first
    by_source: HashMap<Remote, BTreeSet<u64>>,
    leaving: usize,
    is_draining: bool,
    told_at: Option<Instant>,
}

struct Stranger {
    source: Remote,
    evict: oneshot::Sender<()>,
}

/// A place inside; dropping it frees the place.
pub(crate) struct Ticket {
    entrance: Arc<Entrance>,
    number: u64,
    evicted: oneshot::Receiver<()>,
}

/// Leave to tell somebody why it is turned away.
pub(crate) struct Farewell {
    entrance: Arc<Entrance>,
}

impl Entrance {
    /// An entrance to so many connections; 0 for the default.
    pub(crate) fn new(connections_max: usize) -> Arc<Self> {
        let connections_max = if connections_max == 0 { CONNECTIONS_MAX } else { connections_max };
        Arc::new(Self { connections_max, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for somebody from `source`, which may cost the oldest stranger its own.
    pub(crate) fn enter(self: &Arc<Self>, source: Remote) -> Result<Ticket, Reason> {
        let mut state = self.lock();
        if state.is_draining {
            return Err(DRAINING);
        }
        if state.inside >= self.connections_max {
            state.tell("connections are turned away: all that --max-sessions allows are there");
            return Err(FULL);
        }
        let count = state.strangers.len();
        let of_source = state.by_source.get(&source);
        let oldest = match of_source.filter(|own| own.len() >= STRANGERS_PER_SOURCE) {
            Some(own) if count >= CROWD => own.first().copied(),
            _ if count >= STRANGERS_MAX => state.strangers.keys().next().copied(),
            _ => None,
        };
        if let Some(stranger) = oldest.and_then(|oldest| state.forget(oldest)) {
            let _ = stranger.evict.send(()); // it is just leaving by itself
            state.tell("connections that do not say who they are make room for others");
        }
        let (evict, evicted) = oneshot::channel();
        let number = state.next;
        state.next += 1;
        state.inside += 1;
        state.by_source.entry(source).or_default().insert(number);
        state.strangers.insert(number, Stranger { source, evict });
        Ok(Ticket { entrance: self.clone(), number, evicted })
    }

    /// Leave to tell one more that is turned away.
    pub(crate) fn farewell(self: &Arc<Self>) -> Option<Farewell> {
        let mut state = self.lock();
        let has_room = state.leaving < LEAVING_MAX;
        state.leaving += usize::from(has_room);
        has_room.then(|| Farewell { entrance: self.clone() })
    }

    /// Lets nobody in any more.
    pub(crate) fn drain(&self) {
        self.lock().is_draining = true;
    }
}

impl State {
    /// No longer a stranger, or no longer there.
    fn forget(&mut self, number: u64) -> Option<Stranger> {
        let stranger = self.strangers.remove(&number)?;
        if let Some(own) = self.by_source.get_mut(&stranger.source) {
            own.remove(&number);
            if own.is_empty() {
                self.by_source.remove(&stranger.source);
            }
        }
        Some(stranger)
    }

    /// A flood of connections is no flood of lines.
    fn tell(&mut self, what: &str) {
        let now = Instant::now();
        if self.told_at.is_none_or(|at| now.saturating_duration_since(at) >= TOLD_EVERY) {
            self.told_at = Some(now);
            tracing::warn!("{what}");
        }
    }
}

impl Ticket {
    /// Its holder has proved who it is: it no longer has to make room.
    pub(crate) fn prove(&self) {
        self.entrance.lock().forget(self.number);
    }

    /// `Ready` with what the holder is to be told, if it has to make room for others.
    pub(crate) fn poll_evicted(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        if self.evicted.is_terminated() {
            return Poll::Pending;
        }
        match Pin::new(&mut self.evicted).poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(CROWDED),
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending, // proved, and safe
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.entrance.lock();
        state.forget(self.number);
        state.inside -= 1;
    }
}

impl Drop for Farewell {
    fn drop(&mut self) {
        self.entrance.lock().leaving -= 1;
    }
}
