//! What happened, on its way to whoever shows it.
//!
//! Callbacks put events here and never wait, for a client that is quiet would wait with them. A client that says more than
//! is shown is read no further until that is shown, and nothing of it is lost. What may be forged without end, datagrams
//! and who was turned away, is lost instead when there is too much, and counted.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use cabo::address::Address;
use cabo::talk::{Message, Peer};

/// Bytes that wait of one client before it is read no further, until half of them are shown;
const OWN_BYTES_MAX: usize = 64 * 1024;
/// the same where all together have so many, and who talks waits for those who say little: one large read has as many;
const OWN_BYTES_IN_A_CROWD: usize = 16 * 1024;
const CROWD_BYTES: usize = 4 * 1024 * 1024;
/// and where all have so many, nobody is read.
const ALL_BYTES_MAX: usize = 256 * 1024 * 1024;
/// For each event that is shown, so many others are looked at that are not read.
const LOOKED_AT: usize = 2;
/// What an event counts without the bytes of its message.
const EVENT_BYTES: usize = 256;

/// What happened, for whoever watches.
pub(super) enum Event {
    Listening(Vec<Address>),
    Connected(Peer),
    Message(Message, Peer),
    NotAnswered(Peer, String),
    Closed(Peer, String),
    Refused(Peer, String),
    /// So many were not kept.
    Lost(u64),
}

/// Where events are put. Clones are the same place.
#[derive(Clone)]
pub(super) struct Teller(Arc<Queue>);

/// Where they are taken. Without it they go nowhere.
pub(super) struct Told(Arc<Queue>);

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    came: Condvar,
}

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    bytes: usize,
    /// Bytes of each client.
    own: BTreeMap<u64, usize>,
    /// Who is read no further.
    held: BTreeMap<u64, Peer>,
    /// Who of them was last to be looked at in turn.
    looked_at: u64,
    lost: u64,
    /// Nothing more comes, or nothing more is taken.
    is_over: bool,
}

pub(super) fn queue() -> (Teller, Told) {
    let queue = Arc::new(Queue::default());
    (Teller(queue.clone()), Told(queue))
}

impl Event {
    fn peer(&self) -> Option<&Peer> {
        match self {
            Self::Connected(peer)
            | Self::Message(_, peer)
            | Self::NotAnswered(peer, _)
            | Self::Closed(peer, _)
            | Self::Refused(peer, _) => Some(peer),
            Self::Listening(_) | Self::Lost(_) => None,
        }
    }

    fn bytes(&self) -> usize {
        let message = if let Self::Message(message, _) = self { message.bytes().len() } else { 0 };
        message + EVENT_BYTES
    }

    /// Whether there may be events like this without end, though nobody says anything more.
    fn may_be_lost(&self) -> bool {
        let is_datagram = |peer: &Peer| peer.scheme() == "udp" && !peer.is_cabo();
        matches!(self, Self::Refused(..)) || self.peer().is_some_and(is_datagram)
    }
}

impl Teller {
    pub(super) fn tell(&self, event: Event) {
        let mut state = self.0.lock();
        if state.is_over {
            return;
        }
        if state.bytes >= CROWD_BYTES && event.may_be_lost() {
            state.lost += 1;
            return;
        }
        let bytes = event.bytes();
        state.bytes += bytes;
        if let Some(peer) = event.peer() {
            let own = state.own.entry(peer.number()).or_default();
            *own += bytes;
            if *own >= own_max(state.bytes) {
                peer.hold(true);
                state.held.insert(peer.number(), peer.clone());
            }
        }
        state.events.push_back(event);
        drop(state);
        self.0.came.notify_one();
    }

    /// Nothing more comes.
    pub(super) fn end(&self) {
        self.0.lock().is_over = true;
        self.0.came.notify_one();
    }
}

impl Told {
    /// The next event; none when there are no more.
    pub(super) fn next(&self) -> Option<Event> {
        let is_to_wait = |state: &mut State| state.events.is_empty() && !state.is_over;
        let waited = self.0.came.wait_while(self.0.lock(), is_to_wait);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        if state.lost > 0 && state.bytes < CROWD_BYTES {
            return Some(Event::Lost(std::mem::take(&mut state.lost)));
        }
        let event = state.events.pop_front()?;
        state.shown(&event);
        Some(event)
    }
}

/// Bytes of one client from which on it is read no further, where all have so many.
fn own_max(all_bytes: usize) -> usize {
    match all_bytes {
        ..CROWD_BYTES => OWN_BYTES_MAX,
        CROWD_BYTES..ALL_BYTES_MAX => OWN_BYTES_IN_A_CROWD,
        ALL_BYTES_MAX.. => 0,
    }
}

impl State {
    /// One that was shown makes room, first of all for its own client, then for others in turn: not for all at once, who
    /// would come before those who say little.
    fn shown(&mut self, event: &Event) {
        self.bytes = self.bytes.saturating_sub(event.bytes());
        if let Some(number) = event.peer().map(Peer::number) {
            let left = self.own.remove(&number).unwrap_or(0).saturating_sub(event.bytes());
            if left > 0 {
                self.own.insert(number, left);
            }
            self.let_go_on(number);
        }
        if self.bytes >= CROWD_BYTES {
            return;
        }
        let others = if self.events.is_empty() { self.held.len() } else { LOOKED_AT };
        for _ in 0..others {
            let after = (Bound::Excluded(self.looked_at), Bound::Unbounded);
            let next = self.held.range(after).next().or_else(|| self.held.iter().next());
            let Some((&number, _)) = next else { return };
            self.looked_at = number;
            self.let_go_on(number);
        }
    }

    fn let_go_on(&mut self, number: u64) {
        if self.own.get(&number).is_none_or(|own| *own <= own_max(self.bytes) / 2)
            && let Some(peer) = self.held.remove(&number)
        {
            peer.hold(false);
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        let held = std::mem::take(&mut state.held);
        *state = State { is_over: true, ..State::default() };
        held.into_values().for_each(|peer| peer.hold(false));
    }
}
