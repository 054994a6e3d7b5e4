//! All foreign peers of one UDP socket: every datagram is a message, and whoever sends one is a peer for a while.
//!
//! One task has the socket and the hall: where cabo peers use it, too, that is the endpoint's, which gives the hall what
//! is not cabo's. Every peer has a task of its own, in which it is called back: the hall goes on
//! whatever a callback does. Neighbours: `peer` holds what waits to go out, and rings where there is something; `server`
//! starts one hall a socket.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::ReadBuf;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::callback;
use super::engine::Engine;
use super::server::{Handlers, PlaceTaken};
use super::{Closed, Message, Peer, Settings};
use crate::carrier;
use crate::carrier::open_udp::{LARGEST_BYTES, OpenUdp};
use crate::endpoint::others::{Others, is_foreign};

/// A peer that has been silent for so long is forgotten, unless the settings say otherwise.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// How often it is looked who is silent.
const SWEEP_TIME: Duration = Duration::from_secs(1);
/// Datagrams read before anything else gets its turn.
const TURN: usize = 256;
/// Hosts that may send nothing, each told of once; of more nobody is told.
const ELSEWHERE_MAX: usize = 1024;
/// Datagrams that wait for the callbacks of their peer; the next one is lost, as datagrams may be.
const INBOX_MAX: usize = 256;
/// Bytes of them.
const INBOX_BYTES_MAX: usize = 1024 * 1024;

/// Serves a socket for as long as it works. Where the server takes cabo peers elsewhere, a packet of theirs that comes
/// here is no message either.
pub(super) async fn serve(socket: OpenUdp, hall: Hall, is_without_packets: bool) {
    let mut alone = Alone { socket, hall, buffer: vec![0; LARGEST_BYTES], is_without_packets };
    let error = poll_fn(|cx| alone.poll(cx)).await;
    tracing::error!(%error, "the socket is gone");
}

/// Where peers say that they have something to send or are to be closed.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: Mutex<Rung>,
}

#[derive(Debug, Default)]
struct Rung {
    /// Each peer stands here once at most.
    numbers: VecDeque<u64>,
    waker: Option<Waker>,
}

impl Bell {
    pub(super) fn ring(&self, number: u64) {
        let mut rung = self.lock();
        rung.numbers.push_back(number);
        if let Some(waker) = rung.waker.take() {
            drop(rung);
            callback::wake(&waker);
        }
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<u64> {
        let mut rung = self.lock();
        if let Some(number) = rung.numbers.pop_front() {
            return Poll::Ready(number);
        }
        rung.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Rung> {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a peer is called back about.
enum Event {
    Connected,
    Message(Bytes),
    HasRoom,
    Closed(Closed),
}

/// What waits for the callbacks of one peer.
#[derive(Default)]
struct Inbox {
    state: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<Event>,
    bytes: usize,
    waker: Option<Waker>,
    /// A message is lost while it has panicked, and is about to be forgotten.
    is_over: bool,
}

impl Inbox {
    /// False where there is no room for a message.
    fn put(&self, event: Event) -> bool {
        let mut state = self.lock();
        if let Event::Message(bytes) = &event {
            let is_full = state.events.len() >= INBOX_MAX || state.bytes >= INBOX_BYTES_MAX;
            if is_full || state.is_over {
                return false;
            }
            state.bytes += bytes.len();
        }
        if matches!(event, Event::HasRoom) && matches!(state.events.back(), Some(Event::HasRoom)) {
            return true;
        }
        state.events.push_back(event);
        if let Some(waker) = state.waker.take() {
            drop(state);
            waker.wake();
        }
        true
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Event> {
        let mut state = self.lock();
        let Some(event) = state.events.pop_front() else {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        if let Event::Message(bytes) = &event {
            state.bytes = state.bytes.saturating_sub(bytes.len());
        }
        Poll::Ready(event)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls one peer back until it is closed. A panic closes it.
async fn attend(
    peer: Peer,
    inbox: Arc<Inbox>,
    place: PlaceTaken,
    settings: Arc<Settings>,
    handlers: Arc<Handlers>,
) {
    let mut has_panicked = false;
    loop {
        let event = poll_fn(|cx| inbox.poll(cx)).await;
        handlers.admit().await;
        let called = catch_unwind(AssertUnwindSafe(|| match event {
            Event::Closed(closed) => {
                let closed = if has_panicked { Closed::Panicked } else { closed };
                handlers.closed(&peer, &closed);
                true
            }
            _ if has_panicked || peer.shared().is_to_close() => false,
            Event::Connected => {
                handlers.connected(&peer);
                false
            }
            Event::Message(bytes) => {
                handlers.received(Message::new(bytes, settings.dialect.clone()), &peer);
                false
            }
            Event::HasRoom => {
                handlers.has_room(&peer);
                false
            }
        }));
        match called {
            Ok(true) => break,
            Ok(false) => {}
            Err(_) => {
                has_panicked = true;
                inbox.lock().is_over = true;
                peer.close(); // the hall forgets it
            }
        }
    }
    drop(place);
}

struct Known {
    peer: Peer,
    heard: Instant,
    inbox: Arc<Inbox>,
}

/// Whoever speaks to a UDP socket.
pub(super) struct Hall {
    settings: Arc<Settings>,
    handlers: Arc<Handlers>,
    engine: Arc<Engine>,
    peers: BTreeMap<SocketAddr, Known>,
    addresses: BTreeMap<u64, SocketAddr>,
    bell: Arc<Bell>,
    /// Peers with something to send, each once; what it is waits in their own room.
    sending: VecDeque<u64>,
    /// What the socket did not take yet.
    unsent: Option<(SocketAddr, Bytes)>,
    sweep: Interval,
    /// Hosts of which nothing is heard, and of whom was told.
    elsewhere: BTreeSet<IpAddr>,
    /// Packets of cabo peers that lead nowhere.
    strays: u64,
}

/// A hall with a socket of its own.
struct Alone {
    socket: OpenUdp,
    hall: Hall,
    buffer: Vec<u8>,
    is_without_packets: bool,
}

impl Alone {
    /// Never ready but with an error of the socket.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        for _ in 0..TURN {
            let mut is_idle = !self.hall.poll_work(cx);
            if self.poll_send(cx).is_ready() && !self.hall.sending.is_empty() {
                is_idle = false;
            }
            let mut part = ReadBuf::new(&mut self.buffer);
            match self.socket.poll_recv(cx, &mut part) {
                Poll::Ready(Ok(from)) if self.is_without_packets && !is_foreign(part.filled()) => {
                    self.hall.stray(carrier::Peer::udp(from));
                }
                Poll::Ready(Ok(from)) => {
                    self.hall.receive(carrier::Peer::udp(from), part.filled());
                }
                // An ICMP message about an earlier datagram: not about the socket.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Pending if is_idle => return Poll::Pending,
                Poll::Pending => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends what waits for one turn: ready where the socket took it.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURN {
            let Some((to, datagram)) = self.hall.next_datagram() else { break };
            match self.socket.poll_send(cx, datagram, to) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(result) => self.hall.sent(result),
            }
        }
        Poll::Ready(())
    }
}

impl Others for Hall {
    fn receive(&mut self, from: carrier::Peer, datagram: &[u8]) {
        let Some(address) = from.socket_addr() else { return };
        if !self.peers.contains_key(&address) && !self.welcome(address, from) {
            return;
        }
        let Some(known) = self.peers.get_mut(&address) else { return };
        known.heard = Instant::now();
        if datagram.len() > self.settings.dialect.limit_bytes {
            tracing::debug!(%from, bytes = datagram.len(), "a datagram over the limit");
            return;
        }
        let bytes = Bytes::copy_from_slice(self.settings.dialect.cut.trim(datagram));
        if !known.inbox.put(Event::Message(bytes)) {
            tracing::debug!(%from, "its callbacks take too long: a datagram is lost");
        }
    }

    fn poll_work(&mut self, cx: &mut Context<'_>) -> bool {
        while let Poll::Ready(number) = self.bell.poll(cx) {
            self.sending.push_back(number);
        }
        let is_time = self.sweep.poll_tick(cx).is_ready();
        if is_time {
            self.forget_silent();
        }
        is_time
    }

    fn next(&mut self) -> Option<(carrier::Peer, &[u8])> {
        let (to, datagram) = self.next_datagram()?;
        Some((carrier::Peer::udp(to), datagram))
    }

    fn sent(&mut self, result: io::Result<()>) {
        if let (Some((to, datagram)), Err(error)) = (self.unsent.take(), result) {
            tracing::debug!(%to, %error, bytes = datagram.len(), "a datagram is lost");
        }
    }
}

impl Hall {
    pub(super) fn new(
        settings: Arc<Settings>,
        handlers: Arc<Handlers>,
        engine: Arc<Engine>,
    ) -> Self {
        let mut sweep = interval(SWEEP_TIME);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (peers, addresses, bell, sending) = Default::default();
        let elsewhere = BTreeSet::new();
        Self {
            settings,
            handlers,
            engine,
            peers,
            addresses,
            bell,
            sending,
            unsent: None,
            sweep,
            elsewhere,
            strays: 0,
        }
    }

    /// Somebody new; false if there is no room.
    fn welcome(&mut self, address: SocketAddr, from: carrier::Peer) -> bool {
        let number = self.handlers.next_number();
        let mut peer = Peer::new(number, from, "udp", self.settings.clone());
        peer.announce_at(self.bell.clone());
        if !self.settings.foreign.admits(&from) {
            if self.is_news(address) {
                self.handlers.turned_away(peer, Closed::Elsewhere, &self.engine);
            }
            return false;
        }
        let place = match self.handlers.place(&self.settings) {
            Ok(place) => place,
            Err(full) => {
                self.handlers.turned_away(peer, full, &self.engine);
                return false;
            }
        };
        let inbox = Arc::new(Inbox::default());
        inbox.put(Event::Connected);
        let known = Known { peer: peer.clone(), heard: Instant::now(), inbox: inbox.clone() };
        self.peers.insert(address, known);
        self.addresses.insert(number, address);
        let (settings, handlers) = (self.settings.clone(), self.handlers.clone());
        self.engine.spawn(attend(peer, inbox, place, settings, handlers));
        true
    }

    /// A packet of a cabo peer, where none can come.
    fn stray(&mut self, from: carrier::Peer) {
        self.strays = self.strays.saturating_add(1);
        tracing::debug!(%from, strays = self.strays, "a packet of a cabo peer is dropped");
        if from.socket_addr().is_some_and(|address| self.is_news(address)) {
            let peer = Peer::new(self.handlers.next_number(), from, "udp", self.settings.clone());
            self.handlers.turned_away(peer, Closed::Astray, &self.engine);
        }
    }

    /// Whether it is to be told that nothing is heard of this host: once.
    fn is_news(&mut self, address: SocketAddr) -> bool {
        self.elsewhere.len() < ELSEWHERE_MAX && self.elsewhere.insert(address.ip())
    }

    /// What is to be sent next: a datagram of each peer in turn.
    fn next_datagram(&mut self) -> Option<(SocketAddr, &[u8])> {
        while self.unsent.is_none() {
            let number = self.sending.pop_front()?;
            let Some(address) = self.addresses.get(&number).copied() else { continue };
            let Some(known) = self.peers.get(&address) else { continue };
            match known.peer.shared().take_datagram() {
                Some(datagram) => {
                    self.unsent = Some((address, datagram));
                    self.sending.push_back(number); // its next one is after the others'
                }
                None if known.peer.shared().is_to_close() => self.forget(address, Closed::Ended),
                None if self.handlers.has_on_send() => {
                    known.inbox.put(Event::HasRoom);
                }
                None => {}
            }
        }
        self.unsent.as_ref().map(|(to, datagram)| (*to, &datagram[..]))
    }

    fn forget_silent(&mut self) {
        let time = self.settings.idle_time.unwrap_or(IDLE_TIME);
        let is_silent = |(address, known): (&SocketAddr, &Known)| {
            (known.heard.elapsed() >= time).then_some(*address)
        };
        let silent: Vec<SocketAddr> = self.peers.iter().filter_map(is_silent).collect();
        for address in silent {
            self.forget(address, Closed::Idle(time));
        }
    }

    fn forget(&mut self, address: SocketAddr, closed: Closed) {
        if let Some(known) = self.peers.remove(&address) {
            self.addresses.remove(&known.peer.number());
            known.peer.shared().end();
            known.inbox.put(Event::Closed(closed));
        }
    }
}

impl Drop for Hall {
    /// The server goes down, and everybody is told of. What waits is lost, as datagrams may be.
    fn drop(&mut self) {
        let addresses: Vec<SocketAddr> = self.peers.keys().copied().collect();
        for address in addresses {
            self.forget(address, Closed::GoingDown);
        }
    }
}
