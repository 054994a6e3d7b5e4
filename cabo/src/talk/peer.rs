//! The handle of one peer: what callbacks and other tasks send through.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use cabo_proto::dialect::cut::{Cut, WriteError};
use cabo_proto::dialect::kind::Counters;
use cabo_proto::dialect::value::{Fields, Value};
use cabo_proto::dialect::{ComposeError, PAYLOAD};
use cabo_proto::wire::message::{self, Role, Unfit};

use super::answers::Again;
use super::calls::{Answer, Calls};
use super::datagrams::Bell;
use super::stats::{Heard, Said, Stats};
use super::{Message, Settings, Slow, callback};
use crate::access::Origin;
use crate::carrier;
use crate::connection::Connection;
use crate::gate::origin;
use crate::keys::{Fingerprint, PublicKey};

/// One peer of a server. Cheap to clone; what is sent through any clone goes out in order.
#[derive(Clone)]
pub struct Peer {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    number: u64,
    from: carrier::Peer,
    scheme: &'static str,
    settings: Arc<Settings>,
    /// What a cabo peer has besides; none of a foreign program.
    cabo: Option<Box<Cabo>>,
    state: Mutex<State>,
    /// More than half of its room was used when it was last sent something or looked at; read without the lock.
    is_full: AtomicBool,
    heard: Heard,
    /// What callbacks keep for this peer.
    own: Mutex<Option<Box<dyn Any + Send>>>,
}

struct Cabo {
    key: Option<PublicKey>,
    origin: Origin,
    calls: Calls,
    /// We are its client. Whoever is served is heard only as fast as it listens; where both ends did so, each would wait
    /// for the other.
    is_server: bool,
}

#[derive(Default)]
struct State {
    out: Outgoing,
    counters: Counters,
    /// Bytes that the driver took and that the kernel has not taken yet.
    writing_bytes: usize,
    is_closing: bool,
    /// Nothing more is sent; what comes is still heard.
    is_finishing: bool,
    is_gone: bool,
    is_too_slow: bool,
    /// Whoever takes what it says has enough for now.
    is_held: bool,
    dropped_messages: u64,
    said: Said,
    /// What a datagram peer says again, once it was answered.
    again: Option<Box<Again>>,
    waker: Option<Waker>,
    /// The driver is at work, and looks again before it rests: it need not be woken.
    is_in_turn: bool,
    /// Who waits for room.
    waiters: Vec<Waker>,
    /// Where the driver of a datagram peer is told that there is something to do, and whether it has been.
    door: Option<Arc<Bell>>,
    is_announced: bool,
}

/// What waits to be written, in one run.
#[derive(Default)]
pub(super) struct Outgoing {
    pub(super) bytes: BytesMut,
    /// Bytes of each message in it, where anybody has to know.
    lens: VecDeque<usize>,
}

/// Why a message is not on its way.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SendError {
    /// The peer takes too little; it may have room later.
    #[error("the peer has {waiting} bytes to take yet; it may take more later")]
    Full {
        /// Bytes that wait for it.
        waiting: usize,
    },
    /// The peer is gone, or being closed.
    #[error("the peer is gone")]
    Gone,
    /// The values make no message.
    #[error(transparent)]
    Compose(#[from] ComposeError),
    /// The message does not go under the cut.
    #[error(transparent)]
    Cut(#[from] WriteError),
    /// The message is too long for a cabo peer.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// The peer speaks no cabo/1.
    #[error("only cabo peers have {0}; this one speaks the dialect {1:?}")]
    Foreign(&'static str, String),
    /// It was answered already, or nobody waits for the answer any more.
    #[error("nobody waits for this answer: the request was answered or cancelled")]
    NotAsked,
    /// It says again and again the same over UDP, where that may be a round without end, and has had its answers to that:
    /// 10,000 at once, and 100 a second.
    #[error("it says nothing new, and answers to that over UDP are 100 a second at most")]
    NothingNew,
    /// It cannot be written in the compact form of typed messages.
    #[error("the value has no compact form: {0}")]
    Typed(postcard::Error),
}

impl Peer {
    pub(super) fn new(
        number: u64,
        from: carrier::Peer,
        scheme: &'static str,
        settings: Arc<Settings>,
    ) -> Self {
        Self::with(number, from, scheme, settings, None)
    }

    /// The peer of a session.
    pub(super) fn of_session(
        number: u64,
        connection: &Connection,
        settings: Arc<Settings>,
        is_server: bool,
    ) -> Self {
        let (key, origin) = (connection.peer_key(), origin(connection));
        let cabo = Box::new(Cabo { key, origin, calls: Calls::default(), is_server });
        Self::with(number, connection.from(), connection.carrier(), settings, Some(cabo))
    }

    fn with(
        number: u64,
        from: carrier::Peer,
        scheme: &'static str,
        settings: Arc<Settings>,
        cabo: Option<Box<Cabo>>,
    ) -> Self {
        let state = Mutex::default();
        let own = Mutex::default();
        let (is_full, heard) = (AtomicBool::new(false), Heard::new());
        let shared = Shared { number, from, scheme, settings, cabo, state, is_full, heard, own };
        Self { shared: Arc::new(shared) }
    }

    pub(super) fn of(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Counts the peers of a server, from 1.
    pub fn number(&self) -> u64 {
        self.shared.number
    }

    /// Where it is.
    pub fn from(&self) -> carrier::Peer {
        self.shared.from
    }

    /// The scheme of the URL it came by.
    pub fn scheme(&self) -> &'static str {
        self.shared.scheme
    }

    /// Whether it speaks cabo/1, and not a dialect.
    pub fn is_cabo(&self) -> bool {
        self.shared.cabo.is_some()
    }

    /// The identity that it has proved; foreign programs have none, nor has who speaks plain.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.shared.cabo.as_ref()?.key.map(Fingerprint::of)
    }

    /// Who a cabo peer is and from where it comes, for the rules of access.
    pub(super) fn entrant(&self) -> Option<(Option<PublicKey>, Origin)> {
        self.shared.cabo.as_ref().map(|cabo| (cabo.key, cabo.origin))
    }

    /// Sends a message; the cut's header or end mark is added. For a dialect whose messages are layouts, the bytes are
    /// a whole message. To a cabo peer it is a one-way message without a kind.
    pub fn send(&self, payload: impl AsRef<[u8]>) -> Result<(), SendError> {
        if self.is_cabo() {
            return self.put(Role::OneWay, "", payload.as_ref());
        }
        let dialect = &self.shared.settings.dialect;
        self.queue(|_, out| Ok(dialect.write(payload.as_ref(), &Fields::default(), out)?))
    }

    /// Sends a one-way message of a kind to a cabo peer.
    pub fn send_as(&self, kind: &str, payload: impl AsRef<[u8]>) -> Result<(), SendError> {
        self.needs_cabo("kinds of messages")?;
        self.put(Role::OneWay, kind, payload.as_ref())
    }

    /// Answers a message: a request by its reply, anything else by a message.
    pub fn reply(&self, message: &Message, payload: impl AsRef<[u8]>) -> Result<(), SendError> {
        match message.asked() {
            Some(_) => self.answer(message, Role::Reply, message.kind(), payload.as_ref()),
            None => self.may_answer(message).and_then(|()| self.send(payload)),
        }
    }

    /// Whoever sends datagrams may be forged, and answer all that it hears: see `answers`.
    fn may_answer(&self, message: &Message) -> Result<(), SendError> {
        if !self.shared.is_datagram() {
            return Ok(());
        }
        let mut state = self.shared.lock();
        let State { again, door: Some(door), .. } = &mut *state else { return Ok(()) };
        let again = again.get_or_insert_with(|| Box::new(Again::new()));
        if again.may_answer(message.bytes(), &door.answers, Instant::now()) {
            return Ok(());
        }
        self.shared.heard.refuse();
        Err(SendError::NothingNew)
    }

    /// Says that there is no answer to a request: why in a word, and for people.
    pub fn fail(&self, message: &Message, kind: &str, text: &str) -> Result<(), SendError> {
        self.answer(message, Role::Failed, kind, text.as_bytes())
    }

    /// Asks a cabo peer, and awaits the answer for so long. Dropping the answer cancels the request.
    pub fn request(&self, kind: &str, payload: impl AsRef<[u8]>, within: Duration) -> Answer {
        let sent = self.needs_cabo("requests").and_then(|cabo| {
            let (id, answered) = cabo.calls.begin();
            let sent = self.put(Role::Request(id), kind, payload.as_ref());
            let answer = (self.clone(), id, answered);
            sent.map(|()| answer).inspect_err(|_| {
                cabo.calls.answer(id, Err(super::RequestError::Gone)); // it is open no longer
            })
        });
        Answer::new(sent, within)
    }

    fn answer(
        &self,
        message: &Message,
        role: fn(u64) -> Role,
        kind: &str,
        payload: &[u8],
    ) -> Result<(), SendError> {
        let asked = message.asked().ok_or(SendError::NotAsked)?;
        let id = asked.take_answer(&self.shared).ok_or(SendError::NotAsked)?;
        let limit = self.shared.settings.dialect.limit_bytes;
        let sent = self.queue(|_, out| {
            message::put(out, role(id), kind, payload, limit)?;
            asked.release(&self.shared);
            Ok(())
        });
        sent.inspect_err(|_| asked.give_back())
    }

    fn needs_cabo(&self, what: &'static str) -> Result<&Cabo, SendError> {
        let foreign = || SendError::Foreign(what, self.shared.settings.dialect.name.clone());
        self.shared.cabo.as_deref().ok_or_else(foreign)
    }

    /// Queues a message of `messages/1` (M-11).
    fn put(&self, role: Role, kind: &str, payload: &[u8]) -> Result<(), SendError> {
        let limit = self.shared.settings.dialect.limit_bytes;
        self.queue(|_, out| Ok(message::put(out, role, kind, payload, limit)?))
    }

    /// A few bytes about a request, which go out even where the peer has no room: each stands for a request of its own,
    /// and of those there is a limit.
    pub(super) fn tell(&self, role: Role, kind: &str) {
        let mut state = self.shared.lock();
        if !state.is_gone {
            let before = state.out.bytes.len();
            let put = message::put(&mut state.out.bytes, role, kind, b"", 0);
            debug_assert!(put.is_ok(), "it fits");
            if self.shared.settings.slow == Slow::DropOldest {
                let len = state.out.bytes.len() - before;
                state.out.lens.push_back(len);
            }
            state.wake(self.number());
        }
    }

    /// The driver looks again whether there is anything to do.
    pub(super) fn look(&self) {
        self.shared.lock().wake(self.number());
    }

    /// Sends a message as it came: an echo. A request is answered with what it carried.
    pub fn send_back(&self, message: &Message) -> Result<(), SendError> {
        if self.is_cabo() {
            return match message.asked() {
                Some(_) => self.answer(message, Role::Reply, message.kind(), message.bytes()),
                None => self.put(Role::OneWay, message.kind(), message.bytes()),
            };
        }
        self.may_answer(message)?;
        let cut = &self.shared.settings.dialect.cut;
        self.queue(|_, out| {
            if matches!(cut, Cut::Length(_)) {
                out.extend_from_slice(message.bytes()); // its header is part of it
            } else {
                cut.write(message.bytes(), &Fields::default(), out)?;
            }
            Ok(())
        })
    }

    /// Sends a message made of named values. To a cabo peer its kind is the dialect's name for it.
    pub fn send_fields(&self, kind: Option<&str>, fields: &Fields) -> Result<(), SendError> {
        if self.is_cabo() {
            return self.put_fields(Role::OneWay, kind, fields, || {});
        }
        let dialect = &self.shared.settings.dialect;
        self.queue(|counters, out| {
            out.extend_from_slice(&dialect.encode(kind, fields, counters)?);
            Ok(())
        })
    }

    /// Answers a message with one made of named values: a request by its reply.
    pub fn reply_fields(
        &self,
        message: &Message,
        kind: Option<&str>,
        fields: &Fields,
    ) -> Result<(), SendError> {
        let Some(asked) = message.asked() else {
            self.may_answer(message)?;
            return self.send_fields(kind, fields);
        };
        let id = asked.take_answer(&self.shared).ok_or(SendError::NotAsked)?;
        let sent = self.put_fields(Role::Reply(id), kind, fields, || asked.release(&self.shared));
        sent.inspect_err(|_| asked.give_back())
    }

    fn put_fields(
        &self,
        role: Role,
        kind: Option<&str>,
        fields: &Fields,
        then: impl FnOnce(),
    ) -> Result<(), SendError> {
        let dialect = &self.shared.settings.dialect;
        self.queue(|counters, out| {
            let (name, bytes) = match (dialect.kind(kind)?, fields.get(PAYLOAD)) {
                (Some(found), _) => {
                    let bytes = found.encode(fields, counters).map_err(ComposeError::from)?;
                    (found.name.as_deref().unwrap_or_default(), bytes)
                }
                (None, Some(Value::Bytes(payload))) => ("", payload.clone()),
                (None, _) => return Err(ComposeError::NoPayload.into()),
            };
            message::put(out, role, name, &bytes, dialect.limit_bytes)?;
            then();
            Ok(())
        })
    }

    /// Waits until the peer can be sent something again, or is gone.
    pub async fn room(&self) {
        self.fewer_than(self.shared.settings.outgoing_bytes_max).await;
    }

    /// Waits until nothing waits for it any more, or it is gone.
    pub(super) async fn taken(&self) {
        self.fewer_than(1).await;
    }

    async fn fewer_than(&self, most: usize) {
        std::future::poll_fn(|cx| {
            let mut state = self.shared.lock();
            if state.is_gone || state.is_closing || state.waiting_bytes() < most {
                return std::task::Poll::Ready(());
            }
            if !state.waiters.iter().any(|waiter| waiter.will_wake(cx.waker())) {
                state.waiters.push(cx.waker().clone());
            }
            std::task::Poll::Pending
        })
        .await;
    }

    /// Reads it no further, or does so again: for callbacks that hand on what it says to somebody who has enough. What it says
    /// meanwhile waits where it is, and over UDP is lost when that is full. As long a stream is not idle.
    pub fn hold(&self, is_held: bool) {
        let mut state = self.shared.lock();
        state.is_held = is_held;
        self.shared.look_whether_full(&state);
        state.wake(self.number());
    }

    /// Says that nothing more is sent to it, once what was sent is out; what it says is still heard.
    pub(super) fn finish(&self) {
        let mut state = self.shared.lock();
        state.is_finishing = true;
        state.wake(self.number());
    }

    /// Lets what was sent go out, then ends the conversation. What it said meanwhile is no longer given out.
    pub fn close(&self) {
        let mut state = self.shared.lock();
        state.is_closing = true;
        self.shared.is_full.store(true, Relaxed); // as far as it is listened to
        state.wake(self.number());
    }

    /// Bytes that wait for it.
    pub fn waiting_bytes(&self) -> usize {
        self.shared.lock().waiting_bytes()
    }

    /// What it has said and was sent, in numbers.
    pub fn stats(&self) -> Stats {
        let said = self.shared.lock().said;
        self.shared.heard.stats(said)
    }

    /// Messages that were dropped because it was too slow ([`Slow::DropOldest`]).
    pub fn dropped_messages(&self) -> u64 {
        self.shared.lock().dropped_messages
    }

    /// What callbacks keep for this peer; made when it is first asked for.
    pub fn with_state<S: Default + Send + 'static, R>(&self, work: impl FnOnce(&mut S) -> R) -> R {
        let mut own = self.shared.own.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = match own.take().map(Box::<dyn Any + Send>::downcast::<S>) {
            Some(Ok(kept)) => kept,
            Some(Err(_)) | None => Box::default(),
        };
        let result = work(&mut kept);
        *own = Some(kept);
        result
    }

    /// Makes room, writes the message, wakes the driver.
    fn queue(
        &self,
        write: impl FnOnce(&mut Counters, &mut BytesMut) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        let settings = &self.shared.settings;
        let mut state = self.shared.lock();
        if state.is_gone || state.is_closing || state.is_finishing {
            return Err(SendError::Gone);
        }
        let waiting = state.waiting_bytes();
        if waiting >= settings.outgoing_bytes_max {
            match settings.slow {
                Slow::Wait => return Err(SendError::Full { waiting }),
                Slow::DropOldest => state.drop_oldest(settings.outgoing_bytes_max),
                Slow::Disconnect => {
                    state.is_too_slow = true;
                    state.wake(self.number());
                    return Err(SendError::Gone);
                }
            }
        }
        let State { out, counters, said, .. } = &mut *state;
        let before = out.bytes.len();
        write(counters, &mut out.bytes)?;
        if self.shared.is_datagram() {
            let len = out.bytes.len().saturating_sub(settings.dialect.cut.mark_bytes());
            out.bytes.truncate(len.max(before));
        }
        let bytes = out.bytes.len() - before;
        if settings.slow == Slow::DropOldest || self.shared.is_datagram() {
            out.lens.push_back(bytes);
        }
        said.messages += 1;
        said.bytes += bytes as u64;
        self.shared.look_whether_full(&state);
        state.wake(self.number());
        Ok(())
    }

    /// Tells the driver of all datagram peers by number that this one has something to do.
    pub(super) fn announce_at(&mut self, door: Arc<Bell>) {
        self.shared.lock().door = Some(door);
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn shared_arc(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Exchanges what was written for what waits; the driver calls it when it has written all that it had.
    pub(super) fn take_outgoing(&self, written: &mut BytesMut) {
        let mut state = self.lock();
        written.clear();
        state.waiters.drain(..).for_each(Waker::wake);
        std::mem::swap(&mut state.out.bytes, written);
        state.out.lens.clear();
        state.writing_bytes = written.len();
    }

    /// The next datagram that waits.
    pub(super) fn take_datagram(&self) -> Option<Bytes> {
        let mut state = self.lock();
        let Some(len) = state.out.lens.pop_front() else {
            state.is_announced = false; // the next send rings again
            return None;
        };
        let len = len.min(state.out.bytes.len());
        Some(state.out.bytes.split_to(len).freeze())
    }

    /// Whether a callback wants the conversation to end, or what it sends is not taken.
    pub(super) fn is_to_close(&self) -> bool {
        let state = self.lock();
        state.is_closing || state.is_too_slow
    }

    /// Requests of a cabo peer, both ways.
    pub(super) fn calls(&self) -> Option<&Calls> {
        self.cabo.as_ref().map(|cabo| &cabo.calls)
    }

    /// So many bytes have not gone to the kernel yet.
    pub(super) fn set_writing(&self, bytes: usize) {
        self.lock().writing_bytes = bytes;
    }

    /// A driver begins its turn: until it [rests](Self::rest) it looks for itself what there is to do.
    pub(super) fn begin_turn(&self) {
        self.lock().is_in_turn = true;
    }

    fn is_datagram(&self) -> bool {
        self.cabo.is_none() && matches!(self.from, carrier::Peer::Udp(_))
    }

    /// What there is to do.
    pub(super) fn work(&self) -> Work {
        self.work_of(&self.lock())
    }

    /// The same; from here on the next send or close wakes the driver.
    pub(super) fn rest(&self, cx: &Context<'_>) -> Work {
        let mut state = self.lock();
        state.is_in_turn = false;
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        self.work_of(&state)
    }

    fn work_of(&self, state: &State) -> Work {
        Work {
            has_outgoing: !state.out.bytes.is_empty() || !state.out.lens.is_empty(),
            is_closing: state.is_closing,
            is_finishing: state.is_finishing,
            is_too_slow: state.is_too_slow,
            is_full: self.look_whether_full(state),
            is_held: state.is_held,
        }
    }

    fn look_whether_full(&self, state: &State) -> bool {
        let is_full = state.is_held
            || (self.settings.slow == Slow::Wait
                && self.cabo.as_ref().is_none_or(|cabo| !cabo.is_server)
                && state.waiting_bytes() > self.settings.outgoing_bytes_max / 2);
        self.is_full.store(is_full, Relaxed);
        is_full
    }

    /// What it has said, for whoever hears it to count.
    #[inline]
    pub(super) fn heard(&self) -> &Heard {
        &self.heard
    }

    /// Whether it is not to be read now; then `cx` is woken when that ends.
    pub(super) fn is_held(&self, cx: &Context<'_>) -> bool {
        let mut state = self.lock();
        let is_held = state.is_held && !state.is_gone && !state.is_closing;
        if is_held {
            state.waker = Some(cx.waker().clone());
        }
        is_held
    }

    /// Whether it should take what it was sent before it is listened to.
    pub(super) fn is_full(&self) -> bool {
        self.is_full.load(Relaxed)
    }

    /// No more is sent; the peer's state goes with its last handle.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.is_gone = true;
        state.out = Outgoing::default();
        state.waker = None;
        state.door = None;
        state.waiters.drain(..).for_each(Waker::wake);
        drop(state);
        if let Some(calls) = self.calls() {
            calls.end();
        }
    }
}

/// What a driver has to do for its peer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Work {
    pub(super) has_outgoing: bool,
    pub(super) is_closing: bool,
    pub(super) is_finishing: bool,
    pub(super) is_too_slow: bool,
    pub(super) is_full: bool,
    pub(super) is_held: bool,
}

impl State {
    fn waiting_bytes(&self) -> usize {
        self.out.bytes.len() + self.writing_bytes
    }

    fn wake(&mut self, number: u64) {
        if let Some(waker) = &self.waker
            && !self.is_in_turn
        {
            callback::wake(waker);
        }
        if let Some(door) = &self.door
            && !self.is_announced
        {
            self.is_announced = true;
            door.ring(number);
        }
    }

    /// Drops whole messages from the front until half of the room is free.
    fn drop_oldest(&mut self, room: usize) {
        while self.out.bytes.len() > room / 2 {
            let Some(len) = self.out.lens.pop_front() else { return };
            drop(self.out.bytes.split_to(len.min(self.out.bytes.len())));
            self.dropped_messages += 1;
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer {} at {}://{}", self.number(), self.scheme(), self.from())
    }
}
