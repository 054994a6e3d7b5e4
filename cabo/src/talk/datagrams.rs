//! All foreign peers of one UDP socket: every datagram is a message, and whoever sends one is a peer for a while.
//!
//! One task has the socket and the hall: where cabo peers use it, too, that is the endpoint's, which gives the hall what
//! is not cabo's. Every peer has a task of its own, in which it is called back (`attend`): the hall goes on
//! whatever a callback does. Neighbours: `peer` holds what waits to go out, and rings where there is something; `server`
//! starts one hall a socket.
//!
//! A sender is who it says it is, and may be forged. So these peers have the places that others leave, the one that was
//! silent for longest makes room for a new one, and what seems to come from the socket itself is dropped.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::ReadBuf;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::answers;
use super::attend::{Event, Inbox, attend};
use super::callback;
use super::engine::Engine;
use super::server::Handlers;
use super::{Closed, Peer, Settings};
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
    /// Answers to peers that say nothing new.
    pub(super) answers: answers::All,
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

struct Known {
    peer: Peer,
    heard: Instant,
    inbox: Arc<Inbox>,
}

/// Whoever speaks to a UDP socket.
pub(super) struct Hall {
    /// Where the socket is bound.
    local: carrier::Peer,
    settings: Arc<Settings>,
    handlers: Arc<Handlers>,
    engine: Arc<Engine>,
    peers: BTreeMap<SocketAddr, Known>,
    addresses: BTreeMap<u64, SocketAddr>,
    /// Peers in the order in which they came or were looked at last, and when they had been heard then.
    by_silence: VecDeque<(SocketAddr, u64, Instant)>,
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
    /// Datagrams that seem to come from the socket itself: answered, they would come again for ever.
    own: u64,
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
        let now = Instant::now();
        if !self.peers.contains_key(&address) && !self.welcome(address, from, now) {
            return;
        }
        let Some(known) = self.peers.get_mut(&address) else { return };
        known.heard = now;
        let heard = known.peer.shared().heard();
        heard.bytes(datagram.len(), known.heard.into_std());
        if datagram.len() > self.settings.dialect.limit_bytes {
            tracing::debug!(%from, bytes = datagram.len(), "a datagram over the limit");
            heard.refuse();
            return;
        }
        let bytes = Bytes::copy_from_slice(self.settings.dialect.cut.trim(datagram));
        if known.inbox.put(Event::Message(bytes)) {
            heard.message();
        } else {
            tracing::debug!(%from, "its callbacks take too long: a datagram is lost");
            heard.refuse();
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
        local: carrier::Peer,
        settings: Arc<Settings>,
        handlers: Arc<Handlers>,
        engine: Arc<Engine>,
    ) -> Self {
        let mut sweep = interval(SWEEP_TIME);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (peers, addresses, by_silence, bell, sending) = Default::default();
        let elsewhere = BTreeSet::new();
        Self {
            local,
            settings,
            handlers,
            engine,
            peers,
            addresses,
            by_silence,
            bell,
            sending,
            unsent: None,
            sweep,
            elsewhere,
            strays: 0,
            own: 0,
        }
    }

    /// Somebody new; false if there is no room.
    fn welcome(&mut self, address: SocketAddr, from: carrier::Peer, heard: Instant) -> bool {
        if carrier::is_own(&self.local, &from) {
            self.own = self.own.saturating_add(1);
            tracing::debug!(%from, own = self.own, "a datagram from our own address is dropped");
            return false;
        }
        let number = self.handlers.next_number();
        let mut peer = Peer::new(number, from, "udp", self.settings.clone());
        peer.announce_at(self.bell.clone());
        if !self.settings.foreign.admits(&from) {
            if self.is_news(address) {
                self.handlers.turned_away(peer, Closed::Elsewhere, &self.engine);
            }
            return false;
        }
        let room = self.handlers.datagram_room(&self.settings);
        if self.peers.len() >= room {
            self.make_room();
        }
        let place = match self.handlers.datagram_place(&self.settings) {
            Ok(place) if self.peers.len() < room => place,
            Ok(_) => return self.turn_away(peer, Closed::TooMany(self.settings.peers_max)),
            Err(full) => return self.turn_away(peer, full),
        };
        let inbox = Arc::new(Inbox::default());
        inbox.put(Event::Connected);
        let known = Known { peer: peer.clone(), heard, inbox: inbox.clone() };
        self.by_silence.push_back((address, number, heard));
        self.peers.insert(address, known);
        self.addresses.insert(number, address);
        let (settings, handlers) = (self.settings.clone(), self.handlers.clone());
        self.engine.spawn(attend(peer, inbox, place, settings, handlers));
        true
    }

    fn turn_away(&self, peer: Peer, why: Closed) -> bool {
        self.handlers.turned_away(peer, why, &self.engine);
        false
    }

    /// The peer that was silent for longest leaves. Who was heard since it was looked at is looked at again after all
    /// others: for each datagram that is done once at most.
    fn make_room(&mut self) {
        while let Some((address, number, looked_at)) = self.by_silence.pop_front() {
            let known = self.peers.get(&address).filter(|known| known.peer.number() == number);
            match known.map(|known| known.heard) {
                Some(heard) if heard > looked_at => {
                    self.by_silence.push_back((address, number, heard));
                }
                Some(_) => return self.forget(address, Closed::MadeRoom),
                None => {} // it has left
            }
        }
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
        if !silent.is_empty() {
            silent.into_iter().for_each(|address| self.forget(address, Closed::Idle(time)));
            let addresses = &self.addresses;
            self.by_silence.retain(|(_, number, _)| addresses.contains_key(number));
        }
        // Others have come meanwhile, for whom these make room.
        let room = self.handlers.datagram_room(&self.settings);
        (room..self.peers.len()).for_each(|_| self.make_room());
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
