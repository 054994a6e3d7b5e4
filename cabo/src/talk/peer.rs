//! The handle of one peer: what callbacks and other tasks send through.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use cabo_proto::dialect::ComposeError;
use cabo_proto::dialect::cut::{Cut, WriteError};
use cabo_proto::dialect::kind::Counters;
use cabo_proto::dialect::value::Fields;

use super::datagrams::Bell;
use super::{Message, Settings, Slow, callback};
use crate::carrier;

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
    state: Mutex<State>,
    /// More than half of its room was used when it was last sent something or looked at; read without the lock.
    is_full: AtomicBool,
    /// What callbacks keep for this peer.
    own: Mutex<Option<Box<dyn Any + Send>>>,
}

#[derive(Default)]
struct State {
    out: Outgoing,
    counters: Counters,
    /// Bytes that the driver took and that the kernel has not taken yet.
    writing_bytes: usize,
    is_closing: bool,
    is_gone: bool,
    is_too_slow: bool,
    dropped_messages: u64,
    waker: Option<Waker>,
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
}

impl Peer {
    pub(super) fn new(
        number: u64,
        from: carrier::Peer,
        scheme: &'static str,
        settings: Arc<Settings>,
    ) -> Self {
        let state = Mutex::default();
        let own = Mutex::default();
        let is_full = AtomicBool::new(false);
        Self { shared: Arc::new(Shared { number, from, scheme, settings, state, is_full, own }) }
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

    /// Sends a message; the cut's header or end mark is added. For a dialect whose messages are layouts, the bytes are
    /// a whole message.
    pub fn send(&self, payload: impl AsRef<[u8]>) -> Result<(), SendError> {
        let dialect = &self.shared.settings.dialect;
        self.queue(|_, out| Ok(dialect.write(payload.as_ref(), &Fields::default(), out)?))
    }

    /// Sends a message as it came: an echo.
    pub fn send_back(&self, message: &Message) -> Result<(), SendError> {
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

    /// Sends a message made of named values.
    pub fn send_fields(&self, kind: Option<&str>, fields: &Fields) -> Result<(), SendError> {
        self.queue(|counters, out| {
            let bytes = self.shared.settings.dialect.encode(kind, fields, counters)?;
            out.extend_from_slice(&bytes);
            Ok(())
        })
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
        if state.is_gone || state.is_closing {
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
        let State { out, counters, .. } = &mut *state;
        let before = out.bytes.len();
        write(counters, &mut out.bytes)?;
        if self.shared.is_datagram() {
            let len = out.bytes.len().saturating_sub(settings.dialect.cut.mark_bytes());
            out.bytes.truncate(len.max(before));
        }
        if settings.slow == Slow::DropOldest || self.shared.is_datagram() {
            out.lens.push_back(out.bytes.len() - before);
        }
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
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Exchanges what was written for what waits; the driver calls it when it has written all that it had.
    pub(super) fn take_outgoing(&self, written: &mut BytesMut) {
        let mut state = self.lock();
        written.clear();
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

    /// So many bytes have not gone to the kernel yet.
    pub(super) fn set_writing(&self, bytes: usize) {
        self.lock().writing_bytes = bytes;
    }

    /// A driver begins its turn: until [`Self::poll_work`] it looks for itself what there is to do.
    pub(super) fn begin_turn(&self) {
        self.lock().waker = None;
    }

    fn is_datagram(&self) -> bool {
        matches!(self.from, carrier::Peer::Udp(_))
    }

    /// What there is to do; the next send or close wakes the driver.
    pub(super) fn poll_work(&self, cx: &Context<'_>) -> Work {
        let mut state = self.lock();
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        Work {
            has_outgoing: !state.out.bytes.is_empty() || !state.out.lens.is_empty(),
            is_closing: state.is_closing,
            is_too_slow: state.is_too_slow,
            is_full: self.look_whether_full(&state),
        }
    }

    fn look_whether_full(&self, state: &State) -> bool {
        let is_full = self.settings.slow == Slow::Wait
            && state.waiting_bytes() > self.settings.outgoing_bytes_max / 2;
        self.is_full.store(is_full, Relaxed);
        is_full
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
    }
}

/// What a driver has to do for its peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub(super) has_outgoing: bool,
    pub(super) is_closing: bool,
    pub(super) is_too_slow: bool,
    pub(super) is_full: bool,
}

impl State {
    fn waiting_bytes(&self) -> usize {
        self.out.bytes.len() + self.writing_bytes
    }

    fn wake(&mut self, number: u64) {
        if let Some(waker) = &self.waker {
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
