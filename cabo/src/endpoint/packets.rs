//! The task behind one datagram carrier: it alone receives, sends and keeps time for all connections on it.
//!
//! A packet goes straight from the carrier into its connection's state machine, and what that wants to send straight to
//! the carrier; no channel lies between. Locks are taken in one order: the door, then a connection.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use cabo_proto::session::crypto::{Crypto, CryptoError};
use cabo_proto::session::endpoint::{Dropped, Endpoint as Door, EndpointConfig, Handle, Routed};
use cabo_proto::session::remote::Remote;
use cabo_proto::wire::discovery::{Here, Question};
use cabo_proto::wire::packet::{ConnectionId, Kind, Packet};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio::time::Sleep;

use super::others::{self, Others};
use super::{Spawn, SystemChance, remote, source};
use crate::address::Name;
use crate::carrier::{
    Datagrams, Peer, Received, SLOT_BYTES, SLOTS, SendFailure, Transmit, send_failure,
};
use crate::connection::{Connection, Driver, Machine, Shared};

/// Rounds of receiving or sending before other tasks of the runtime get their turn.
const ROUNDS: usize = 16;
/// Batches of one connection before the next gets its turn.
const BATCHES: usize = 4;
/// Answers to discovery a second, of all askers and of each (W-8.2).
const ANSWERS_PER_SECOND: u32 = 1_000;
const ANSWERS_PER_ASKER: u32 = 10;

/// One datagram carrier and its connections.
pub(crate) struct PacketEndpoint {
    carrier: Box<dyn Datagrams>,
    scheme: &'static str,
    state: Mutex<State>,
    pokes: Arc<Pokes>,
    is_closing: AtomicBool,
    incoming: mpsc::Sender<Connection>,
    closed_ports: broadcast::Sender<Peer>,
    presence: Arc<()>, // behind the carrier, and so dropped after it
}

/// A handle whose end tells the driver to look whether anybody is left.
pub(crate) struct Held(Option<Arc<PacketEndpoint>>);

impl Deref for Held {
    type Target = PacketEndpoint;

    fn deref(&self) -> &PacketEndpoint {
        match &self.0 {
            Some(endpoint) => endpoint,
            None => unreachable!("empty only inside drop"),
        }
    }
}

impl Held {
    /// Ends the carrier with all that is on it. What is returned is gone when the socket is.
    pub(crate) fn close(self) -> Weak<()> {
        self.is_closing.store(true, Release);
        Arc::downgrade(&self.presence)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(endpoint) = self.0.take() {
            let pokes = endpoint.pokes.clone();
            drop(endpoint);
            pokes.poke(None);
        }
    }
}

struct State {
    door: Door,
    connections: HashMap<Handle, Arc<Shared>>,
    discovery: Option<Discovery>, // `None`: hidden
    askers: Vec<(ConnectionId, mpsc::Sender<Answer>)>,
}

/// What the link may know.
struct Discovery {
    answer: Answer,
    versions: Vec<u8>,
    given: Given,
}

/// Answers of this second.
struct Given {
    since: Instant,
    all: u32,
    by_asker: HashMap<Remote, u32>, // no more than `ANSWERS_PER_SECOND`
}

impl Given {
    fn new(now: Instant) -> Self {
        Self { since: now, all: 0, by_asker: HashMap::new() }
    }

    /// Whether `asker` may have one more.
    fn take(&mut self, now: Instant, asker: Remote) -> bool {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        let own = self.by_asker.get(&asker).copied().unwrap_or(0);
        let is_left = self.all < ANSWERS_PER_SECOND && own < ANSWERS_PER_ASKER;
        if is_left {
            self.all += 1;
            self.by_asker.insert(asker, own + 1);
        }
        is_left
    }
}

/// Who serves on a link, as it says itself.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) from: Peer,
    pub(crate) port: u16,
    pub(crate) fingerprint: [u8; 32],
    pub(crate) name: Option<Name>,
}

/// Connections that have something to do, and the driver's waker.
#[derive(Default)]
struct Pokes {
    state: Mutex<Poked>,
}

#[derive(Default)]
struct Poked {
    handles: Vec<Handle>,
    unasked: Vec<(Peer, Vec<u8>)>,
    waker: Option<Waker>,
}

impl Pokes {
    fn lock(&self) -> MutexGuard<'_, Poked> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poke(&self, handle: Option<Handle>) {
        let waker = {
            let mut state = self.lock();
            state.handles.extend(handle);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

struct Poke {
    pokes: Arc<Pokes>,
    handle: Handle,
}

impl Driver for Poke {
    fn wake(&self) {
        self.pokes.poke(Some(self.handle));
    }
}

impl PacketEndpoint {
    /// Opens the door of `carrier` and starts its task, which lives as long as the endpoint or any of its connections.
    pub(crate) fn start(
        carrier: Box<dyn Datagrams>,
        scheme: &'static str,
        config: EndpointConfig,
        crypto: Arc<dyn Crypto>,
        incoming: mpsc::Sender<Connection>,
        others: Option<Box<dyn Others>>,
        spawn: &Spawn,
    ) -> Held {
        let door = Door::new(Instant::now(), config, crypto, Box::new(SystemChance));
        let state =
            State { door, connections: HashMap::new(), discovery: None, askers: Vec::new() };
        let endpoint = Arc::new(Self {
            carrier,
            scheme,
            state: Mutex::new(state),
            pokes: Arc::default(),
            is_closing: AtomicBool::new(false),
            incoming,
            closed_ports: broadcast::Sender::new(CLOSED_PORTS_MAX),
            presence: Arc::default(),
        });
        spawn(Box::pin(PacketDriver::new(endpoint.clone(), others)));
        Held(Some(endpoint))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn local(&self) -> Peer {
        self.carrier.local()
    }

    pub(crate) fn advice(&self) -> Option<String> {
        self.carrier.advice()
    }

    pub(crate) fn kernel_drops(&self) -> u64 {
        self.carrier.kernel_drops()
    }

    pub(crate) fn dropped(&self) -> Vec<(Dropped, u64)> {
        let mut dropped = self.lock().door.dropped().clone();
        *dropped.entry(Dropped::Malformed).or_default() += self.carrier.refused();
        dropped.into_iter().collect()
    }

    /// Starts a connection to `to`.
    pub(crate) fn connect(&self, to: Peer, crypto: &dyn Crypto) -> Result<Connection, CryptoError> {
        let mut state = self.lock();
        let (handle, machine) = state.door.connect(Instant::now(), remote(&to), crypto)?;
        let shared = self.share(handle, Machine::Packets(Box::new(machine)), to, false);
        state.connections.insert(handle, shared.clone());
        drop(state);
        self.pokes.poke(Some(handle));
        Ok(Connection::new(shared))
    }

    fn share(&self, handle: Handle, machine: Machine, peer: Peer, is_server: bool) -> Arc<Shared> {
        let driver = Box::new(Poke { pokes: self.pokes.clone(), handle });
        Shared::new(machine, driver, self.scheme, peer, None, is_server)
    }

    /// Answers who asks the link who serves.
    pub(crate) fn answer_discovery(&self, answer: Answer, versions: Vec<u8>) {
        let discovery = Discovery { answer, versions, given: Given::new(Instant::now()) };
        self.lock().discovery = Some(discovery);
    }

    /// Asks the link who serves; answers come through the channel until it is dropped.
    pub(crate) fn ask(
        &self,
        version: u8,
        nonce: ConnectionId,
        question: Question<'_>,
        answers: mpsc::Sender<Answer>,
    ) -> Vec<u8> {
        self.lock().askers.push((nonce, answers));
        question.packet(version, nonce)
    }

    /// Sends one datagram outside any connection. The driver does it: a carrier has one sender (see `carrier`).
    pub(crate) fn send(&self, to: Peer, contents: Vec<u8>) {
        self.pokes.lock().unasked.push((to, contents));
        self.pokes.poke(None);
    }

    /// Waits until a host answers that nobody listens at `peer`, from the call on.
    pub(crate) fn closed_port(&self, peer: Peer) -> impl Future<Output = ()> + use<> {
        let mut told = self.closed_ports.subscribe();
        let place = |peer: &Peer| peer.socket_addr().map(|at| (at.ip(), at.port()));
        async move {
            loop {
                match told.recv().await {
                    Ok(closed) if place(&closed) == place(&peer) => return,
                    Ok(_) | Err(RecvError::Lagged(_)) => {} // it is told again when we ask again
                    Err(RecvError::Closed) => return std::future::pending().await,
                }
            }
        }
    }

    /// Takes no more connections.
    pub(crate) fn drain(&self) {
        self.lock().door.drain();
    }
}

/// The future that drives one carrier.
struct PacketDriver {
    endpoint: Arc<PacketEndpoint>,
    others: Option<Box<dyn Others>>, // `None`: what is not cabo's is dropped
    slots: Vec<BytesMut>,
    received: Vec<Received>,
    out: Vec<u8>,
    unsent: Option<(Handle, Peer, usize)>, // what is in `out`: whose, where to, bytes of a segment
    answers: VecDeque<(Peer, Vec<u8>)>,
    active: VecDeque<Handle>,
    timers: BTreeSet<(Instant, Handle)>,
    deadlines: HashMap<Handle, Instant>,
    sleep: Pin<Box<Sleep>>,
    sleeping_until: Option<Instant>,
}

/// Closed ports that those who connect have not looked at yet; more push out the oldest.
const CLOSED_PORTS_MAX: usize = 16;
/// Answers to strangers that wait for the carrier.
const ANSWERS_MAX: usize = 256;

impl PacketDriver {
    fn new(endpoint: Arc<PacketEndpoint>, others: Option<Box<dyn Others>>) -> Self {
        Self {
            endpoint,
            others,
            slots: (0..SLOTS).map(|_| BytesMut::zeroed(SLOT_BYTES)).collect(),
            received: vec![Received::default(); SLOTS],
            out: Vec::with_capacity(SLOT_BYTES),
            unsent: None,
            answers: VecDeque::new(),
            active: VecDeque::new(),
            timers: BTreeSet::new(),
            deadlines: HashMap::new(),
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            sleeping_until: None,
        }
    }

    /// Receives once; false when there is nothing.
    fn receive(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let endpoint = self.endpoint.clone();
        let count = match endpoint.carrier.poll_recv(cx, &mut self.slots, &mut self.received) {
            Poll::Ready(Ok(count)) => count,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        };
        self.give_to_others(count);
        let now = Instant::now();
        let mut state = endpoint.lock();
        for index in 0..count {
            let account = self.received[index];
            let mut slot = std::mem::take(&mut self.slots[index]);
            for datagram in account.packets(&mut slot) {
                if self.others.is_some() && others::is_foreign(datagram) {
                    continue; // they have it already
                }
                self.route(now, &mut state, &account, datagram);
            }
            self.slots[index] = slot;
        }
        Poll::Ready(Ok(()))
    }

    /// Gives out what is not cabo's, if anybody takes it.
    fn give_to_others(&mut self, count: usize) {
        let Some(others) = &mut self.others else { return };
        for (slot, account) in self.slots.iter_mut().zip(&self.received).take(count) {
            if account.len == 0 {
                others.receive(account.from, &[]);
            }
            for datagram in account.packets(slot) {
                if others::is_foreign(datagram) {
                    others.receive(account.from, datagram);
                }
            }
        }
    }

    fn route(&mut self, now: Instant, state: &mut State, account: &Received, datagram: &mut [u8]) {
        let from = account.from;
        match state.door.route(now, remote(&from), source(&from), datagram) {
            Routed::To(handle, packet) => {
                let Some(shared) = state.connections.get(&handle) else { return };
                let mut inner = shared.lock();
                if let Machine::Packets(machine) = &mut inner.machine {
                    let chance = state.door.chance();
                    machine.handle_packet(now, remote(&from), &packet, datagram, chance);
                }
                if !std::mem::replace(&mut inner.is_due, true) {
                    self.active.push_back(handle);
                }
            }
            Routed::New(handle, machine) => {
                let shared = self.endpoint.share(handle, Machine::Packets(machine), from, true);
                state.connections.insert(handle, shared);
                self.active.push_back(handle);
            }
            Routed::Answer(answer) => self.answer(from, answer),
            Routed::Discovery(packet) => self.on_discovery(now, state, from, &packet, datagram),
            Routed::Dropped(_) => {}
        }
    }

    fn answer(&mut self, to: Peer, answer: Vec<u8>) {
        if self.answers.len() < ANSWERS_MAX {
            self.answers.push_back((to, answer));
        }
    }

    fn on_discovery(
        &mut self,
        now: Instant,
        state: &mut State,
        from: Peer,
        packet: &Packet,
        datagram: &[u8],
    ) {
        match packet.kind {
            Kind::Discover { sender, body } => {
                let Some(discovery) = &mut state.discovery else { return };
                let body = datagram.get(body..packet.length).unwrap_or_default();
                let Ok(question) = Question::decode(body) else { return };
                let Answer { port, fingerprint, name, .. } = &discovery.answer;
                let (port, fingerprint) = (*port, *fingerprint);
                let name = name.as_ref().map(|name| name.as_str().as_bytes());
                if question.is_for(name) && discovery.given.take(now, source(&from)) {
                    let (versions, name) = (&discovery.versions, question.told(name));
                    let here = Here { port, fingerprint, versions, name };
                    self.answer(from, here.answer(packet.version, sender));
                }
            }
            Kind::Here { body, .. } => {
                let here =
                    datagram.get(body..packet.length).and_then(|body| Here::decode(body).ok());
                state.askers.retain(|(_, answers)| !answers.is_closed());
                if let (Some(here), Some((_, answers))) =
                    (here, state.askers.iter().find(|(nonce, _)| *nonce == packet.receiver))
                {
                    let _ = answers.try_send(Answer {
                        from,
                        port: here.port,
                        fingerprint: here.fingerprint,
                        name: here.name.and_then(|name| Name::from_bytes(name).ok()),
                    }); // a full channel has answers enough
                }
            }
            Kind::Initial { .. }
            | Kind::Handshake { .. }
            | Kind::Data { .. }
            | Kind::Cookie { .. }
            | Kind::Reset { .. }
            | Kind::VersionAnswer { .. }
            | Kind::UnknownVersion { .. } => {}
        }
    }

    /// Lets connections whose time has come do what time brings.
    fn handle_timers(&mut self, now: Instant) {
        while let Some((_, handle)) =
            self.timers.first().copied().filter(|(deadline, _)| *deadline <= now)
        {
            self.timers.pop_first();
            self.deadlines.remove(&handle);
            let shared = self.endpoint.lock().connections.get(&handle).cloned();
            if let Some(shared) = shared {
                if let Machine::Packets(machine) = &mut shared.lock().machine {
                    machine.handle_timeout(now);
                }
                self.active.push_back(handle);
            }
        }
    }

    fn set_timer(&mut self, handle: Handle, deadline: Option<Instant>) {
        let old = match deadline {
            Some(deadline) => self.deadlines.insert(handle, deadline),
            None => self.deadlines.remove(&handle),
        };
        if old == deadline {
            return;
        }
        if let Some(old) = old {
            self.timers.remove(&(old, handle));
        }
        if let Some(deadline) = deadline {
            self.timers.insert((deadline, handle));
        }
    }

    /// Sends what waits. `Pending`: the carrier takes no more now.
    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some((to, answer)) = self.answers.front() {
            let transmit = Transmit { to: *to, contents: answer, segment: answer.len() };
            if self.endpoint.carrier.poll_send(cx, &transmit).is_pending() {
                return Poll::Pending;
            }
            self.answers.pop_front(); // an answer that fails is one that got lost
        }
        if let Some(others) = &mut self.others
            && others::flush(&mut **others, &*self.endpoint.carrier, cx).is_pending()
        {
            return Poll::Pending;
        }
        let Some((handle, to, segment)) = self.unsent else { return Poll::Ready(()) };
        let transmit = Transmit { to, contents: &self.out, segment };
        match self.endpoint.carrier.poll_send(cx, &transmit) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => self.on_send_failure(handle, segment, &error),
        }
        self.unsent = None;
        self.out.clear();
        Poll::Ready(())
    }

    fn on_send_failure(&mut self, handle: Handle, segment: usize, error: &std::io::Error) {
        match send_failure(error) {
            SendFailure::TooBig => {
                let shared = self.endpoint.lock().connections.get(&handle).cloned();
                if let Some(shared) = shared
                    && let Machine::Packets(machine) = &mut shared.lock().machine
                {
                    machine.on_packet_refused(Instant::now(), segment);
                }
            }
            failure @ (SendFailure::Lost | SendFailure::Fatal) => {
                tracing::debug!(%error, ?failure, "a batch counts as lost");
            }
        }
    }

    /// Serves one connection: events, packets, timer. True if it may have more to send at once.
    fn serve(&mut self, cx: &mut Context<'_>, handle: Handle) -> Poll<bool> {
        let Some(shared) = self.endpoint.lock().connections.get(&handle).cloned() else {
            return Poll::Ready(false);
        };
        let max_packets = self.endpoint.carrier.max_segments();
        for _ in 0..BATCHES {
            let mut inner = shared.lock();
            inner.on_served();
            let news = inner.pump();
            let Machine::Packets(machine) = &mut inner.machine else { return Poll::Ready(false) };
            let peer_id = machine.peer_id();
            let batch = machine.poll_transmit(Instant::now(), &mut self.out, max_packets);
            let (deadline, is_gone) = (machine.deadline(), machine.is_gone());
            if batch.is_none() && !machine.is_open() {
                inner.on_flushed();
            }
            inner.pump();
            drop(inner);
            if news.is_handshaken {
                self.on_handshaken(handle, peer_id, &shared);
            }
            self.set_timer(handle, deadline.filter(|_| !is_gone));
            if is_gone {
                self.forget(handle);
            }
            let Some(batch) = batch else { return Poll::Ready(false) };
            let to = super::peer_at(&batch.to, shared.first_peer());
            self.unsent = Some((handle, to, batch.segment_bytes));
            if self.flush(cx).is_pending() {
                self.active.push_front(handle);
                return Poll::Pending;
            }
        }
        Poll::Ready(true)
    }

    fn on_handshaken(&self, handle: Handle, peer_id: ConnectionId, shared: &Arc<Shared>) {
        self.endpoint.lock().door.on_handshaken(handle, peer_id);
        if shared.is_server() {
            super::announce(&self.endpoint.incoming, Connection::new(shared.clone()));
        }
    }

    fn forget(&mut self, handle: Handle) {
        let mut state = self.endpoint.lock();
        state.door.remove(handle);
        state.connections.remove(&handle);
    }

    /// True when nobody can reach this carrier any more.
    fn is_abandoned(&self) -> bool {
        // One reference is ours; each connection's driver holds the pokes, not the endpoint.
        Arc::strong_count(&self.endpoint) == 1 && self.endpoint.lock().connections.is_empty()
    }
}

impl Future for PacketDriver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        for _ in 0..ROUNDS {
            {
                let mut pokes = this.endpoint.pokes.lock();
                this.active.extend(pokes.handles.drain(..));
                this.answers.extend(pokes.unasked.drain(..));
                pokes.waker = Some(cx.waker().clone());
            }
            let mut is_idle = true;
            match this.receive(cx) {
                Poll::Ready(Ok(())) => is_idle = false,
                Poll::Ready(Err(error)) => {
                    tracing::error!(%error, "the carrier is gone");
                    return Poll::Ready(());
                }
                Poll::Pending => {}
            }
            while let Some(peer) = this.endpoint.carrier.take_closed_port() {
                let _ = this.endpoint.closed_ports.send(peer); // most of the time nobody connects
            }
            if let Some(others) = &mut this.others
                && others.poll_work(cx)
            {
                is_idle = false;
            }
            this.handle_timers(Instant::now());
            let is_writable = this.flush(cx).is_ready();
            for _ in 0..this.active.len() {
                if !is_writable {
                    break;
                }
                let Some(handle) = this.active.pop_front() else { break };
                match this.serve(cx, handle) {
                    Poll::Ready(true) => {
                        this.active.push_back(handle);
                        is_idle = false;
                    }
                    Poll::Ready(false) => {}
                    Poll::Pending => break,
                }
            }
            if this.is_abandoned() || this.endpoint.is_closing.load(Acquire) {
                return Poll::Ready(());
            }
            if is_idle && this.arm(cx).is_pending() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl PacketDriver {
    /// Sets the clock to the next deadline. `Ready` if it has passed already.
    fn arm(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some((deadline, _)) = self.timers.first().copied() else { return Poll::Pending };
        if self.sleeping_until != Some(deadline) {
            self.sleeping_until = Some(deadline);
            self.sleep.as_mut().reset(deadline.into());
        }
        let polled = self.sleep.as_mut().poll(cx);
        if polled.is_ready() {
            self.sleeping_until = None;
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_who_asks_without_end_does_not_hide_us_from_others() {
        let now = Instant::now();
        let asker = |number: u32| Remote::new(&number.to_be_bytes()).expect("short");
        let mut given = Given::new(now);
        let answered = (0..100).filter(|_| given.take(now, asker(1))).count();
        assert_eq!(answered as u32, ANSWERS_PER_ASKER);
        assert!(given.take(now, asker(2)));
        let more = (0..10_000).filter(|number| given.take(now, asker(10 + number))).count();
        assert_eq!(more as u32, ANSWERS_PER_SECOND - ANSWERS_PER_ASKER - 1);
        assert!(given.take(now + Duration::from_secs(1), asker(1)), "a second later there is more");
    }
}
