//! How one foreign peer of a UDP socket is called back, in a task of its own.
//!
//! Neighbours: `datagrams` hears the socket, and puts here what its peers are told of.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::server::{Handlers, PlaceTaken};
use super::{Closed, Message, Peer, Settings};

/// Datagrams that wait for the callbacks of their peer; the next one is lost, as datagrams may be.
const INBOX_MAX: usize = 256;
/// Bytes of them.
const INBOX_BYTES_MAX: usize = 1024 * 1024;

/// What a peer is called back about.
pub(super) enum Event {
    Connected,
    Message(Bytes),
    HasRoom,
    Closed(Closed),
}

/// What waits for the callbacks of one peer.
#[derive(Default)]
pub(super) struct Inbox {
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
    pub(super) fn put(&self, event: Event) -> bool {
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

    /// The next event; while the peer is held, what it said waits.
    fn poll(&self, peer: &Peer, cx: &Context<'_>) -> Poll<Event> {
        let is_held = peer.shared().is_held(cx);
        let mut state = self.lock();
        let next = if is_held { None } else { state.events.pop_front() };
        let Some(event) = next else {
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
pub(super) async fn attend(
    peer: Peer,
    inbox: Arc<Inbox>,
    place: PlaceTaken,
    settings: Arc<Settings>,
    handlers: Arc<Handlers>,
) {
    let mut has_panicked = false;
    loop {
        let event = poll_fn(|cx| inbox.poll(&peer, cx)).await;
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
                handlers.received(Message::new(bytes, &settings.dialect), &peer);
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
