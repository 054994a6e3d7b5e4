//! The handle of a client that connects again: what is sent through it waits here for a connection.
//!
//! Neighbours: `reconnect` makes the connections and takes what waits.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use cabo_proto::dialect::Dialect;
use cabo_proto::dialect::value::Fields;
use cabo_proto::retry::{Queue, Refused};
use cabo_proto::wire::message::{self, Role};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Sleep, sleep_until, timeout};

use super::reconnect::Perseverance;
use super::{Answer, Message, Peer, RequestError, SendError, blocking};

/// After our end the server's last bytes are read for this long, so that no reset destroys what it has not read yet.
pub(super) const LINGER_TIME: Duration = Duration::from_secs(2);

/// Why a message does not wait to be sent.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LinkError {
    /// There is no room.
    #[error(transparent)]
    Full(#[from] Refused),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
    /// It never can be sent to that server.
    #[error(transparent)]
    Send(#[from] SendError),
}

impl From<LinkError> for RequestError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Full(full) => SendError::Full { waiting: full.waiting_bytes }.into(),
            LinkError::Closed => SendError::Gone.into(),
            LinkError::Send(error) => error.into(),
        }
    }
}

/// With whom a client speaks, as far as that is known before there is a connection.
#[derive(Clone)]
pub(super) enum Speech {
    Foreign(Arc<Dialect>),
    Cabo { limit_bytes: usize },
    Unknown,
}

/// A message that waits to be sent.
pub(super) struct Waiting {
    pub(super) kind: String,
    pub(super) payload: Bytes,
    pub(super) what: What,
}

pub(super) enum What {
    Plain,
    OfKind,
    Request {
        until: Instant,
        /// Where the answer is to come; none when it was asked.
        answer: Option<oneshot::Sender<Answer>>,
    },
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.payload.len().saturating_add(self.kind.len())
    }
}

/// The handle of a client that connects again. Cheap to clone; what is sent through any clone goes out in order.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
    _last: Option<Arc<LastLink>>,
}

pub(super) struct Shared {
    queue: Mutex<Queue<Waiting>>,
    filled: Notify,
    closing: watch::Sender<bool>,
    /// When all is over: whether all that waited went out.
    ended: watch::Sender<Option<bool>>,
    is_connected: AtomicBool,
    /// Whom it is connected to, or was last, where that is a cabo peer.
    peer: Mutex<Option<Peer>>,
    speech: Speech,
    drain_time: Duration,
}

/// Goes with the last handle.
pub(super) struct LastLink(pub(super) Arc<Shared>);

impl Drop for LastLink {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Link {
    pub(super) fn new(shared: Arc<Shared>, last: Option<Arc<LastLink>>) -> Self {
        Self { shared, _last: last }
    }

    /// Sends a message, now or when there is a connection again; the cut's header or end mark is added, but for
    /// messages that are layouts. To a cabo peer it is a one-way message without a kind.
    pub fn send(&self, payload: impl Into<Bytes>) -> Result<(), LinkError> {
        let (kind, payload) = (String::new(), payload.into());
        self.shared.push(Waiting { kind, payload, what: What::Plain })
    }

    /// Sends a one-way message of a kind to a cabo peer, now or when there is a connection again.
    pub fn send_as(
        &self,
        kind: impl Into<String>,
        payload: impl Into<Bytes>,
    ) -> Result<(), LinkError> {
        let (kind, payload) = (kind.into(), payload.into());
        self.shared.push(Waiting { kind, payload, what: What::OfKind })
    }

    /// Asks a cabo peer, now or when there is a connection again, and awaits the answer for so long from now on. A request
    /// whose time is over, or whose answer was dropped, is not sent any more; one whose connection breaks before the answer
    /// came fails as [gone](RequestError::Gone), for it may have been done.
    pub fn request(
        &self,
        kind: impl Into<String>,
        payload: impl Into<Bytes>,
        within: Duration,
    ) -> Result<Answering, LinkError> {
        let (answer, answered) = oneshot::channel();
        let now = Instant::now();
        let until = now.checked_add(within).unwrap_or(now);
        let what = What::Request { until, answer: Some(answer) };
        self.shared.push(Waiting { kind: kind.into(), payload: payload.into(), what })?;
        Ok(Answering { state: State::Waiting(answered), within, until, sleep: None })
    }

    /// The same for who does not await; not to be called from its own callbacks, which would wait for what they hold up.
    pub fn request_blocking(
        &self,
        kind: impl Into<String>,
        payload: impl Into<Bytes>,
        within: Duration,
    ) -> Result<Message, RequestError> {
        let answering = self.request(kind, payload, within)?;
        blocking::wait(answering).unwrap_or(Err(RequestError::Gone))
    }

    /// The cabo peer that it is connected to, as far as anybody knows: who it is, and to answer what it asks.
    pub fn peer(&self) -> Option<Peer> {
        let peer = self.shared.peer().clone();
        peer.filter(|_| self.is_connected())
    }

    /// Whether there is a connection, as far as anybody knows.
    pub fn is_connected(&self) -> bool {
        self.shared.is_connected.load(Relaxed)
    }

    /// Bytes that wait, as they are counted.
    pub fn waiting_bytes(&self) -> usize {
        self.shared.lock().bytes()
    }

    /// Messages that were dropped because there was no room ([`Full::DropOldest`](cabo_proto::retry::Full::DropOldest)).
    pub fn dropped_messages(&self) -> u64 {
        self.shared.lock().dropped_messages()
    }

    /// Lets what waits go out, for as long as the settings say, and ends. Returns whether all of it went.
    pub async fn close(self) -> bool {
        let mut ended = self.shared.ended.subscribe();
        self.shared.close();
        let within = self.shared.drain_time.saturating_add(LINGER_TIME);
        let ended = timeout(within, ended.wait_for(|ended| ended.is_some())).await; // a callback may not return
        matches!(ended.as_ref().map(Result::as_deref), Ok(Ok(Some(true))))
    }

    /// The same for who does not await; not to be called from its own callbacks, which it would wait for.
    pub fn close_blocking(self) -> bool {
        blocking::wait(self.close()).unwrap_or(false)
    }
}

impl Shared {
    pub(super) fn new(settings: &Perseverance, speech: Speech) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::new(Queue::new(settings.waiting_bytes_max, settings.full)),
            filled: Notify::new(),
            closing: watch::Sender::new(false),
            ended: watch::Sender::new(None),
            is_connected: AtomicBool::new(false),
            peer: Mutex::default(),
            speech,
            drain_time: settings.drain_time,
        })
    }

    fn close(&self) {
        self.closing.send_replace(true);
        self.filled.notify_one();
    }

    fn push(&self, waiting: Waiting) -> Result<(), LinkError> {
        if self.is_closing() {
            return Err(LinkError::Closed);
        }
        self.speech.check(&waiting)?;
        let bytes = waiting.bytes();
        self.lock().push(waiting, bytes)?;
        self.filled.notify_one();
        Ok(())
    }

    /// It was taken, and not sent.
    pub(super) fn put_back(&self, waiting: Waiting) {
        let bytes = waiting.bytes();
        self.lock().put_back(waiting, bytes);
    }

    fn lock(&self) -> MutexGuard<'_, Queue<Waiting>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn peer(&self) -> MutexGuard<'_, Option<Peer>> {
        self.peer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next message that waits; none when all went out and no more come.
    pub(super) async fn next(&self) -> Option<Waiting> {
        loop {
            if let Some(message) = self.lock().pop() {
                return Some(message);
            }
            if self.is_closing() {
                return None;
            }
            self.filled.notified().await;
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Waits until it is to close.
    pub(super) async fn closed(&self) {
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }

    pub(super) fn is_done(&self) -> bool {
        self.is_closing() && self.lock().is_empty()
    }

    /// Whether nothing waits here, or at a connection that has not ended.
    fn is_all_out(&self) -> bool {
        self.lock().is_empty() && self.peer().as_ref().is_none_or(|peer| peer.waiting_bytes() == 0)
    }

    pub(super) fn connected(&self, peer: Option<&Peer>) {
        *self.peer() = peer.cloned();
        self.is_connected.store(true, Relaxed);
    }

    pub(super) fn disconnected(&self) {
        self.is_connected.store(false, Relaxed);
    }

    pub(super) fn ended(&self) {
        self.disconnected();
        let is_all_out = self.is_all_out();
        while self.lock().pop().is_some() {} // nobody answers requests any more
        self.ended.send_replace(Some(is_all_out));
    }
}

impl Speech {
    /// Whether a message can be sent at all.
    fn check(&self, Waiting { kind, payload, what }: &Waiting) -> Result<(), SendError> {
        match (self, what) {
            (Self::Foreign(dialect), What::Plain) => {
                Ok(dialect.write(payload, &Fields::default(), &mut BytesMut::new())?)
            }
            (Self::Foreign(dialect), What::OfKind) => {
                Err(SendError::Foreign("kinds of messages", dialect.name.clone()))
            }
            (Self::Foreign(dialect), What::Request { .. }) => {
                Err(SendError::Foreign("requests", dialect.name.clone()))
            }
            (Self::Cabo { limit_bytes }, _) => {
                Ok(message::put(&mut BytesMut::new(), Role::OneWay, kind, payload, *limit_bytes)?)
            }
            (Self::Unknown, _) => Ok(()),
        }
    }
}

/// The answer to a request of a client that connects again, to be awaited inside a tokio runtime. Dropped before it came,
/// it cancels the request.
#[must_use = "a request whose answer nobody awaits is cancelled"]
pub struct Answering {
    state: State,
    within: Duration,
    until: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

enum State {
    Waiting(oneshot::Receiver<Answer>),
    Asked(Answer),
    Over,
}

impl Future for Answering {
    type Output = Result<Message, RequestError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let result = loop {
            match &mut this.state {
                State::Waiting(answered) => match Pin::new(answered).poll(cx) {
                    Poll::Ready(Ok(answer)) => this.state = State::Asked(answer),
                    // It was dropped to make room for others, or the client was closed.
                    Poll::Ready(Err(_)) => break Err(RequestError::Gone),
                    Poll::Pending => {
                        let until = this.until.into();
                        let sleep = this.sleep.get_or_insert_with(|| Box::pin(sleep_until(until)));
                        if sleep.as_mut().poll(cx).is_pending() {
                            return Poll::Pending;
                        }
                        break Err(RequestError::Deadline(this.within));
                    }
                },
                State::Asked(answer) => match Pin::new(answer).poll(cx) {
                    Poll::Ready(Err(RequestError::Deadline(_))) => {
                        break Err(RequestError::Deadline(this.within)); // as it was asked for
                    }
                    Poll::Ready(answer) => break answer,
                    Poll::Pending => return Poll::Pending,
                },
                State::Over => break Err(RequestError::Gone),
            }
        };
        this.state = State::Over;
        Poll::Ready(result)
    }
}
