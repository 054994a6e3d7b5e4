//! What came for a client and waits to be taken.
//!
//! Neighbours: `client` takes it out; a conversation puts it in, and reads no further while the inbox is full.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::{Closed, Message, Peer};
use crate::carrier;

/// Bytes that wait, and what each message counts for besides its own; nothing more is read beyond it.
const FULL_BYTES: usize = 1024 * 1024;
const MESSAGE_BYTES: usize = 128;

/// See the module.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    messages: VecDeque<Message>,
    bytes: usize,
    reader: Option<Waker>,
    is_abandoned: bool,
    is_held: bool,
    end: Option<Closed>,
}

fn weight(message: &Message) -> usize {
    message.bytes().len() + MESSAGE_BYTES
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a message of `peer`; nobody is there for it where the inbox was abandoned. A datagram is lost while the inbox
    /// is full, as datagrams may be: nothing holds up whoever sends them.
    pub(super) fn put(&self, message: Message, peer: &Peer) {
        let is_datagram = !peer.is_cabo() && matches!(peer.from(), carrier::Peer::Udp(_));
        let mut state = self.lock();
        if state.is_abandoned || (is_datagram && state.is_held) {
            return;
        }
        state.bytes += weight(&message);
        state.messages.push_back(message);
        if state.bytes > FULL_BYTES && !std::mem::replace(&mut state.is_held, true) {
            peer.hold(true);
        }
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    /// Nothing more comes.
    pub(super) fn end(&self, closed: Closed) {
        let mut state = self.lock();
        state.end = Some(closed);
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    /// The next message, or the end; why it came is told once.
    pub(super) fn poll_take(&self, cx: &Context<'_>, peer: &Peer) -> Poll<Result<Message, Closed>> {
        let mut state = self.lock();
        let Some(message) = state.messages.pop_front() else {
            if let Some(end) = &mut state.end {
                return Poll::Ready(Err(std::mem::replace(end, Closed::Ended)));
            }
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        state.bytes -= weight(&message);
        if state.is_held && state.bytes < FULL_BYTES / 2 {
            state.is_held = false;
            peer.hold(false);
        }
        if state.messages.is_empty() {
            state.messages = VecDeque::new(); // an idle client holds no buffer
        }
        Poll::Ready(Ok(message))
    }

    /// Nobody takes messages any more.
    pub(super) fn abandon(&self, peer: &Peer) {
        let mut state = self.lock();
        state.is_abandoned = true;
        let waiting = std::mem::take(&mut state.messages);
        drop(state);
        drop(waiting); // requests among them fail, which takes other locks
        peer.hold(false);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::talk::Settings;

    #[test]
    fn datagrams_that_nobody_takes_are_lost_once_there_are_enough() {
        let settings = Arc::new(Settings::default());
        let from = carrier::Peer::udp(([127, 0, 0, 1], 9).into());
        let (inbox, peer) = (Inbox::default(), Peer::new(1, from, "udp", settings.clone()));
        let datagram = Bytes::from_static(&[7; 65_000]);
        let put = || inbox.put(Message::new(datagram.clone(), &settings.dialect), &peer);
        (0..1000).for_each(|_| put());
        assert!(inbox.lock().bytes < 2 * FULL_BYTES, "{}", inbox.lock().bytes);
        let cx = Context::from_waker(Waker::noop());
        while inbox.poll_take(&cx, &peer).is_ready() {}
        put();
        assert!(inbox.poll_take(&cx, &peer).is_ready(), "there is room again");
    }
}
