//! Requests of one cabo peer, both ways: those that it asked, and those that it was asked (M-11.6).
//!
//! Neighbours: `peer` sends the messages, `words` reads them and tells of replies and cancellations here.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering::AcqRel, Ordering::Acquire};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use cabo_proto::wire::message::Role;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Sleep, sleep_until};

use super::peer::Shared;
use super::{Message, Peer, SendError};

/// Kinds of a failure that are nobody's own (M-11.7).
pub(super) const UNANSWERED: &str = "unanswered";
pub(super) const BUSY: &str = "busy";

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// The answer did not come in time; the other side was told that nobody waits any more.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// The other side says that there is no answer.
    #[error("the request failed: {kind}{}", colon(.text))]
    Failed {
        /// Why, in a word: `unanswered`, `busy`, or one of the application's own.
        kind: String,
        /// Why, for people; the other side's words.
        text: String,
    },
    /// The peer left before it answered.
    #[error("the peer left before it answered")]
    Gone,
    /// The request could not be sent.
    #[error(transparent)]
    Send(#[from] SendError),
}

fn colon(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// How a request ends.
type Answered = Result<Message, RequestError>;

/// What is open with one peer.
#[derive(Default)]
pub(super) struct Calls {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next_id: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Answered>>,
    asked: BTreeMap<u64, Weak<Asked>>,
    is_gone: bool,
}

impl Calls {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An id for a request of ours, and where its answer will come.
    pub(super) fn begin(&self) -> (u64, oneshot::Receiver<Answered>) {
        let mut state = self.lock();
        let id = state.next_id;
        state.next_id += 1;
        let (answer, answered) = oneshot::channel();
        if !state.is_gone {
            state.waiting.insert(id, answer);
        }
        (id, answered)
    }

    /// The answer to a request of ours. One that nobody waits for is ignored.
    pub(super) fn answer(&self, id: u64, answer: Answered) {
        let waiting = self.lock().waiting.remove(&id);
        if let Some(waiting) = waiting {
            let _ = waiting.send(answer); // nobody waits any more
        }
    }

    /// Gives up all requests of ours, and says which they were.
    pub(super) fn give_up(&self) -> Vec<u64> {
        std::mem::take(&mut self.lock().waiting).into_keys().collect()
    }

    /// Nobody waits for this answer any more; true if it had not come.
    fn forget(&self, id: u64) -> bool {
        self.lock().waiting.remove(&id).is_some()
    }

    /// A request of the peer; none where its id is in use or too many are open.
    pub(super) fn open(&self, id: u64, shared: &Arc<Shared>, most: usize) -> Opened {
        let mut state = self.lock();
        if state.asked.contains_key(&id) {
            return Opened::Twice;
        }
        if state.asked.len() >= most {
            return Opened::TooMany;
        }
        let asked = Arc::new(Asked {
            id,
            state: AtomicU8::new(OPEN),
            cancelled: Notify::new(),
            peer: Arc::downgrade(shared),
        });
        state.asked.insert(id, Arc::downgrade(&asked));
        Opened::New(asked)
    }

    /// The peer no longer wants an answer.
    pub(super) fn cancel(&self, id: u64) {
        let asked = self.lock().asked.remove(&id).and_then(|asked| asked.upgrade());
        if let Some(asked) = asked {
            asked.cancel();
        }
    }

    /// This request is open no longer; its id may be used again.
    fn release(&self, asked: &Asked) {
        let mut state = self.lock();
        if state.asked.get(&asked.id).is_some_and(|known| std::ptr::eq(known.as_ptr(), asked)) {
            state.asked.remove(&asked.id);
        }
    }

    /// Whether the peer still waits for answers.
    pub(super) fn has_asked(&self) -> bool {
        !self.lock().asked.is_empty()
    }

    /// The peer has left: nothing will be answered, either way.
    pub(super) fn end(&self) {
        let (waiting, asked) = {
            let mut state = self.lock();
            state.is_gone = true;
            (std::mem::take(&mut state.waiting), std::mem::take(&mut state.asked))
        };
        drop(waiting);
        asked.into_values().filter_map(|asked| asked.upgrade()).for_each(|asked| asked.cancel());
    }
}

/// What became of a request that came.
pub(super) enum Opened {
    New(Arc<Asked>),
    Twice,
    TooMany,
}

const OPEN: u8 = 0;
const ANSWERED: u8 = 1;
const CANCELLED: u8 = 2;

/// A request that a peer made. When its last message is dropped unanswered, the peer hears so.
pub(super) struct Asked {
    id: u64,
    state: AtomicU8,
    cancelled: Notify,
    peer: Weak<Shared>,
}

impl Asked {
    pub(super) fn is_cancelled(&self) -> bool {
        self.state.load(Acquire) == CANCELLED
    }

    fn cancel(&self) {
        if self.take(OPEN, CANCELLED) {
            self.cancelled.notify_waiters();
        }
    }

    /// Its id, for whoever answers it, which there is once; of a request of another peer there is none. What could not be
    /// sent is [given back](Self::give_back), what was is [released](Self::release).
    pub(super) fn take_answer(&self, shared: &Arc<Shared>) -> Option<u64> {
        let is_of_peer = std::ptr::eq(self.peer.as_ptr(), Arc::as_ptr(shared));
        (is_of_peer && self.take(OPEN, ANSWERED)).then_some(self.id)
    }

    pub(super) fn give_back(&self) {
        self.take(ANSWERED, OPEN);
    }

    fn take(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, AcqRel, Acquire).is_ok()
    }

    /// It is open no longer; called before the peer can have the answer, and use the id again.
    pub(super) fn release(&self, shared: &Shared) {
        if let Some(calls) = shared.calls() {
            calls.release(self);
        }
    }

    /// Waits until nobody wants the answer any more.
    pub(super) async fn cancelled(&self) {
        let notified = self.cancelled.notified();
        tokio::pin!(notified);
        notified.as_mut().enable(); // before the look, so that nothing falls between
        if !self.is_cancelled() {
            notified.await;
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let Some(shared) = self.peer.upgrade() else { return };
        self.release(&shared);
        let peer = Peer::of(shared);
        if self.take(OPEN, ANSWERED) {
            peer.tell(Role::Failed(self.id), UNANSWERED);
        } else {
            peer.look(); // it may have been all that the peer waited for
        }
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {}", self.id)
    }
}

/// The answer to a request, to be awaited inside a tokio runtime. Dropped before it came, it cancels the request.
#[must_use = "a request whose answer nobody awaits is cancelled"]
pub struct Answer {
    state: Awaited,
    within: Duration,
    until: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

enum Awaited {
    Open { peer: Peer, id: u64, answered: oneshot::Receiver<Answered> },
    Unsent(SendError),
    Over,
}

impl Answer {
    pub(super) fn new(
        sent: Result<(Peer, u64, oneshot::Receiver<Answered>), SendError>,
        within: Duration,
    ) -> Self {
        let state = match sent {
            Ok((peer, id, answered)) => Awaited::Open { peer, id, answered },
            Err(error) => Awaited::Unsent(error),
        };
        let now = Instant::now();
        let until = now.checked_add(within).unwrap_or(now);
        Self { state, within, until, sleep: None }
    }
}

impl Answer {
    /// The answer to what could not be sent.
    pub(super) fn unsent(error: SendError, within: Duration) -> Self {
        Self::new(Err(error), within)
    }

    /// Why the request was not sent, where it was not.
    pub(super) fn refusal(&self) -> Option<&SendError> {
        match &self.state {
            Awaited::Unsent(error) => Some(error),
            Awaited::Open { .. } | Awaited::Over => None,
        }
    }
}

impl Future for Answer {
    type Output = Answered;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answered> {
        let this = &mut *self;
        let result = match &mut this.state {
            Awaited::Unsent(error) => Err(error.clone().into()),
            Awaited::Over => Err(RequestError::Gone),
            Awaited::Open { answered, .. } => match Pin::new(answered).poll(cx) {
                Poll::Ready(answer) => answer.unwrap_or(Err(RequestError::Gone)),
                Poll::Pending => {
                    let until = this.until.into();
                    let sleep = this.sleep.get_or_insert_with(|| Box::pin(sleep_until(until)));
                    if sleep.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    this.cancel();
                    Err(RequestError::Deadline(this.within))
                }
            },
        };
        this.state = Awaited::Over;
        Poll::Ready(result)
    }
}

impl Answer {
    fn cancel(&mut self) {
        if let Awaited::Open { peer, id, .. } = &self.state
            && peer.shared().calls().is_some_and(|calls| calls.forget(*id))
        {
            peer.tell(Role::Cancel(*id), "");
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.cancel();
    }
}
