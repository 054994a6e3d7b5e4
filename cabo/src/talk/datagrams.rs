//! All peers of one UDP socket: every datagram is a message, and whoever sends one is a peer for a while.
//!
//! Neighbours: `peer` holds what waits to go out, and says so through the hall's queue; `server` starts one hall a
//! socket.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::ReadBuf;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::server::{Handlers, PlaceTaken};
use super::{Closed, Message, Peer, Settings};
use crate::carrier;
use crate::carrier::open_udp::{LARGEST_BYTES, OpenUdp};

/// A peer that has been silent for so long is forgotten, unless the settings say otherwise.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// How often it is looked who is silent.
const SWEEP_TIME: Duration = Duration::from_secs(1);
/// Datagrams read before anything else gets its turn.
const TURN: usize = 256;
/// Datagrams that wait for the socket to take them; the next one is lost, as datagrams may be.
const WAITING_MAX: usize = 4096;

/// Serves a socket until the task is aborted.
pub(super) async fn serve(socket: OpenUdp, settings: Arc<Settings>, handlers: Arc<Handlers>) {
    let (door, ready) = mpsc::unbounded_channel();
    let mut sweep = interval(SWEEP_TIME);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut hall = Hall {
        socket,
        settings,
        handlers,
        peers: BTreeMap::new(),
        addresses: BTreeMap::new(),
        door,
        ready,
        waiting: VecDeque::new(),
        sweep,
        buffer: vec![0; LARGEST_BYTES],
    };
    let error = poll_fn(|cx| hall.poll(cx)).await;
    tracing::error!(%error, "the socket is gone");
}

struct Known {
    peer: Peer,
    heard: Instant,
    _place: PlaceTaken,
}

/// A UDP socket and whoever speaks to it.
struct Hall {
    socket: OpenUdp,
    settings: Arc<Settings>,
    handlers: Arc<Handlers>,
    peers: BTreeMap<SocketAddr, Known>,
    addresses: BTreeMap<u64, SocketAddr>,
    /// Numbers of peers that have something to send or are to be closed; each stands there once at most.
    door: mpsc::UnboundedSender<u64>,
    ready: mpsc::UnboundedReceiver<u64>,
    waiting: VecDeque<(SocketAddr, Bytes)>,
    sweep: Interval,
    buffer: Vec<u8>,
}

impl Hall {
    /// Never ready but with an error of the socket.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        for _ in 0..TURN {
            let mut is_idle = self.poll_send(cx).is_pending() || self.waiting.is_empty();
            while let Poll::Ready(Some(number)) = self.ready.poll_recv(cx) {
                self.attend(number);
                is_idle = false;
            }
            if self.sweep.poll_tick(cx).is_ready() {
                self.forget_silent();
                is_idle = false;
            }
            let mut part = ReadBuf::new(&mut self.buffer);
            match self.socket.poll_recv(cx, &mut part) {
                Poll::Ready(Ok(from)) => {
                    let datagram = Bytes::copy_from_slice(part.filled());
                    self.receive(from, datagram);
                    is_idle = false;
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

    fn receive(&mut self, from: SocketAddr, datagram: Bytes) {
        let from = carrier::Peer::udp(from);
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
        let len = self.settings.dialect.cut.trim(&datagram).len();
        let message = Message::new(datagram.slice(..len), self.settings.dialect.clone());
        let called = catch_unwind(AssertUnwindSafe(|| {
            self.handlers.received(message, &known.peer);
        }));
        if called.is_err() {
            self.forget(address, &Closed::Panicked);
        }
    }

    /// Somebody new; false if there is no room.
    fn welcome(&mut self, address: SocketAddr, from: carrier::Peer) -> bool {
        let number = self.handlers.next_number();
        let mut peer = Peer::new(number, from, "udp", self.settings.clone());
        peer.announce_at(self.door.clone());
        let Some(place) = self.handlers.place(&self.settings) else {
            self.handlers.refused(&peer, &Closed::TooMany(self.settings.peers_max));
            return false;
        };
        let known = Known { peer: peer.clone(), heard: Instant::now(), _place: place };
        self.peers.insert(address, known);
        self.addresses.insert(number, address);
        let called = catch_unwind(AssertUnwindSafe(|| self.handlers.connected(&peer)));
        if called.is_err() {
            self.forget(address, &Closed::Panicked);
        }
        called.is_ok()
    }

    /// A peer has something to send, or is to be closed.
    fn attend(&mut self, number: u64) {
        let Some(address) = self.addresses.get(&number).copied() else { return };
        let Some(known) = self.peers.get(&address) else { return };
        let peer = known.peer.clone();
        while let Some(datagram) = peer.shared().take_datagram() {
            if self.waiting.len() >= WAITING_MAX {
                tracing::debug!(?peer, "the socket takes too little: a datagram is lost");
                break;
            }
            self.waiting.push_back((address, datagram));
        }
        if peer.shared().is_to_close() {
            self.forget(address, &Closed::Ended);
            return;
        }
        let called = catch_unwind(AssertUnwindSafe(|| self.handlers.has_room(&peer)));
        if called.is_err() {
            self.forget(address, &Closed::Panicked);
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some((to, datagram)) = self.waiting.front() {
            match self.socket.poll_send(cx, datagram, *to) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%to, %error, bytes = datagram.len(), "a datagram is lost");
                }
            }
            self.waiting.pop_front();
        }
        Poll::Ready(())
    }

    fn forget_silent(&mut self) {
        let time = self.settings.idle_time.unwrap_or(IDLE_TIME);
        let is_silent = |(address, known): (&SocketAddr, &Known)| {
            (known.heard.elapsed() >= time).then_some(*address)
        };
        let silent: Vec<SocketAddr> = self.peers.iter().filter_map(is_silent).collect();
        for address in silent {
            self.forget(address, &Closed::Idle(time));
        }
    }

    fn forget(&mut self, address: SocketAddr, closed: &Closed) {
        if let Some(known) = self.peers.remove(&address) {
            self.addresses.remove(&known.peer.number());
            known.peer.shared().end();
            self.handlers.closed(&known.peer, closed);
        }
    }
}

impl Drop for Hall {
    /// The server goes down, and everybody is told of. What waits is lost, as datagrams may be.
    fn drop(&mut self) {
        let addresses: Vec<SocketAddr> = self.peers.keys().copied().collect();
        for address in addresses {
            self.forget(address, &Closed::GoingDown);
        }
    }
}
