//! One session, shared by its handles and the task of `endpoint` that drives it, whatever the carrier.
//!
//! The state machine and whoever waits for it are under one lock; `handle` is the session as the application sees it.

mod handle;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Instant;

use bytes::Bytes;
use cabo_proto::session::core::Event;
use cabo_proto::session::crypto::PublicKey;
use cabo_proto::session::packets::PacketConnection;
use cabo_proto::session::records::RecordConnection;
use cabo_proto::transport::streams::{StreamEvent, Streams};
use cabo_proto::wire::frame::StreamId;

pub use cabo_proto::session::config::Ended;
pub use cabo_proto::wire::code::Code;

pub use self::handle::{Connection, ConnectionStats, DatagramError, Farewell};
use crate::carrier::Peer;
use crate::endpoint::peer_at;

/// Datagrams that wait for the application; beyond it the oldest goes.
const DATAGRAMS_MAX: usize = 256;

/// The state machine, by kind of carrier.
pub(crate) enum Machine {
    Packets(Box<PacketConnection>),
    Records(Box<RecordConnection>),
}

impl Machine {
    pub(crate) fn streams(&mut self) -> &mut Streams {
        match self {
            Self::Packets(packets) => packets.streams(),
            Self::Records(records) => records.streams(),
        }
    }

    fn poll_event(&mut self) -> Option<Event> {
        match self {
            Self::Packets(packets) => packets.poll_event(),
            Self::Records(records) => records.poll_event(),
        }
    }

    fn peer_key(&self) -> Option<PublicKey> {
        match self {
            Self::Packets(packets) => packets.peer_key(),
            Self::Records(records) => records.peer_key(),
        }
    }

    fn admit(&mut self) {
        match self {
            Self::Packets(packets) => packets.admit(),
            Self::Records(records) => records.admit(),
        }
    }

    fn close(&mut self, now: Instant, ended: Ended) {
        match self {
            Self::Packets(packets) => packets.close(now, ended),
            Self::Records(records) => records.close(ended),
        }
    }
}

/// How a connection wakes the task that drives it.
pub(crate) trait Driver: Send + Sync {
    /// There is something to send, or to end.
    fn wake(&self);
}

/// What the handles and the driver share.
pub(crate) struct Shared {
    inner: Mutex<Inner>,
    driver: Box<dyn Driver>,
    from: Peer,
    carrier: &'static str,
    peer_user: Option<u32>,
    is_server: bool,
}

#[derive(Default)]
struct Wakers {
    readers: BTreeMap<StreamId, Waker>,
    writers: BTreeMap<StreamId, Waker>,
    accepting: [Vec<Waker>; 2],
    opening: [Vec<Waker>; 2],
    datagram: Option<Waker>,
    state: Vec<Waker>, // whoever waits for the handshake, for admission or for the end
}

/// The state machine and what surrounds it, under one lock.
pub(crate) struct Inner {
    pub(crate) machine: Machine,
    wakers: Wakers,
    opened: [VecDeque<StreamId>; 2],
    datagrams: VecDeque<Bytes>,
    is_handshaken: bool,
    is_admitted: bool,
    is_flushed: bool,        // it is over, and the carrier has the goodbye
    is_dirty: bool,          // the driver was woken and has not come yet
    pub(crate) is_due: bool, // a packet came, and the driver has this connection on its list
    pub(crate) ended: Option<Arc<Ended>>,
}

/// What a look at the events told the driver.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct News {
    pub(crate) is_handshaken: bool,
}

impl Inner {
    /// Takes the machine's events and wakes whoever waited for them.
    pub(crate) fn pump(&mut self) -> News {
        let mut news = News::default();
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::Handshaken => {
                    self.is_handshaken = true;
                    news.is_handshaken = true;
                    wake_all(&mut self.wakers.state);
                }
                Event::Admitted => {
                    self.is_admitted = true;
                    wake_all(&mut self.wakers.state);
                }
                Event::Stream(event) => self.on_stream(event),
                Event::Datagram(data) => {
                    if self.datagrams.len() >= DATAGRAMS_MAX {
                        self.datagrams.pop_front();
                    }
                    self.datagrams.push_back(data);
                    wake(&mut self.wakers.datagram);
                }
                Event::Ended(ended) => self.end(ended),
            }
        }
        news
    }

    fn on_stream(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Opened(id) => {
                self.opened[id.direction() as usize].push_back(id);
                wake_all(&mut self.wakers.accepting[id.direction() as usize]);
            }
            StreamEvent::Readable(id) => wake(&mut self.wakers.readers.remove(&id)),
            StreamEvent::Writable(id) | StreamEvent::Stopped(id, _) | StreamEvent::Finished(id) => {
                wake(&mut self.wakers.writers.remove(&id));
            }
            StreamEvent::Available(direction) => {
                wake_all(&mut self.wakers.opening[direction as usize])
            }
        }
    }

    /// Notes the end and wakes everybody.
    pub(crate) fn end(&mut self, ended: Ended) {
        self.ended.get_or_insert_with(|| Arc::new(ended));
        let wakers = std::mem::take(&mut self.wakers);
        let several =
            wakers.accepting.into_iter().chain(wakers.opening).flatten().chain(wakers.state);
        let single =
            wakers.readers.into_values().chain(wakers.writers.into_values()).chain(wakers.datagram);
        several.chain(single).for_each(Waker::wake);
    }

    /// The driver has come: what is written from now on has to wake it again.
    pub(crate) fn on_served(&mut self) {
        self.is_dirty = false;
        self.is_due = false;
    }

    /// Nothing of this connection waits for the carrier any more, and it is over.
    pub(crate) fn on_flushed(&mut self) {
        self.is_flushed = true;
        wake_all(&mut self.wakers.state);
    }

    pub(crate) fn wait_readable(&mut self, id: StreamId, cx: &Context<'_>) {
        self.wakers.readers.insert(id, cx.waker().clone());
    }

    pub(crate) fn wait_writable(&mut self, id: StreamId, cx: &Context<'_>) {
        self.wakers.writers.insert(id, cx.waker().clone());
    }

    pub(crate) fn forget_waiters(&mut self, id: StreamId) {
        self.wakers.readers.remove(&id);
        self.wakers.writers.remove(&id);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn wake_all(wakers: &mut Vec<Waker>) {
    wakers.drain(..).for_each(Waker::wake);
}

fn register(wakers: &mut Vec<Waker>, cx: &Context<'_>) {
    if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
        wakers.push(cx.waker().clone());
    }
}

impl Shared {
    pub(crate) fn new(
        machine: Machine,
        driver: Box<dyn Driver>,
        carrier: &'static str,
        from: Peer,
        peer_user: Option<u32>,
        is_server: bool,
    ) -> Arc<Self> {
        let inner = Inner {
            machine,
            wakers: Wakers::default(),
            opened: Default::default(),
            datagrams: VecDeque::new(),
            is_handshaken: false,
            is_admitted: false,
            is_flushed: false,
            is_dirty: false,
            is_due: false,
            ended: None,
        };
        Arc::new(Self { inner: Mutex::new(inner), driver, from, carrier, peer_user, is_server })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_server(&self) -> bool {
        self.is_server
    }

    /// Where the peer was at first.
    pub(crate) fn first_peer(&self) -> Peer {
        self.from
    }

    /// Where the peer is.
    pub(crate) fn peer(&self) -> Peer {
        match &self.lock().machine {
            Machine::Packets(packets) => peer_at(&packets.remote(), self.from),
            Machine::Records(_) => self.from,
        }
    }

    /// Wakes the driver, once until it comes.
    pub(crate) fn touch(&self, inner: &mut Inner) {
        if !std::mem::replace(&mut inner.is_dirty, true) {
            self.driver.wake();
        }
    }

    fn close(&self, code: u64, reason: &str) {
        let mut inner = self.lock();
        if inner.ended.is_none() {
            inner.machine.close(Instant::now(), Ended::Local { code, reason: reason.to_owned() });
            inner.pump();
            self.touch(&mut inner);
        }
    }
}

/// Closes the session when the last handle and the last stream are gone.
pub(crate) struct Owner(pub(crate) Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.close(0, "");
    }
}
