//! The halves of a client as [`Stream`] and [`Sink`], for who composes conversations of those.
//!
//! They are the same with cabo peers and with foreign programs, of a client and of a server's
//! [guests](super::Server::guests). Neighbours: `client`, whose halves these are.
//!
//! A connection without messages at all is bytes, as [`AsyncRead`](tokio::io::AsyncRead) and
//! [`AsyncWrite`](tokio::io::AsyncWrite): with a foreign program [`Client::stream`], with a cabo peer any number of streams
//! of one session, [`Connection::open`](crate::connection::Connection::open) and `accept`.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use futures_sink::Sink;

use super::client::{Receiver, Sender};
use super::place::Way;
use super::{Client, ClientError, Message, PlaceError};
use crate::address::Address;
use crate::carrier::ByteStream;

/// A connection has this long to be made.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Messages that a [`Sink`] takes before it wants to be flushed.
const READY_MAX: usize = 16;

/// What comes, to the end of the server's stream or the first error.
pub struct Incoming {
    receiver: Option<Receiver>,
}

/// What goes. Messages are written one after the other; an error ends it.
pub struct Outgoing {
    state: State,
    waiting: VecDeque<Bytes>,
}

enum State {
    Idle(Box<Sender>),
    Busy(Sending),
    Over,
}

type Sending = Pin<Box<dyn Future<Output = (Box<Sender>, Result<(), ClientError>)> + Send>>;

impl Client {
    /// Connects for bytes alone: no dialect, no messages. For TCP and Unix sockets.
    pub async fn stream(address: &Address) -> Result<Box<dyn ByteStream>, ClientError> {
        address.check_connect()?;
        match Way::open(address, CONNECT_TIME).await? {
            Way::Stream(stream, _) => Ok(stream),
            Way::Datagrams(..) => Err(PlaceError::Scheme { place: address.to_string() }.into()),
        }
    }
}

impl Receiver {
    /// As a [`Stream`].
    pub fn into_stream(self) -> Incoming {
        Incoming { receiver: Some(self) }
    }
}

impl Sender {
    /// As a [`Sink`] of payloads.
    pub fn into_sink(self) -> Outgoing {
        Outgoing { state: State::Idle(Box::new(self)), waiting: VecDeque::new() }
    }
}

impl Stream for Incoming {
    type Item = Result<Message, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(receiver) = &mut self.receiver else { return Poll::Ready(None) };
        // To drop `next` half-way loses nothing: what was read is in the receiver.
        let next = ready!(pin!(receiver.next()).poll(cx)).transpose();
        if !matches!(next, Some(Ok(_))) {
            self.receiver = None;
        }
        Poll::Ready(next)
    }
}

impl Outgoing {
    /// Sends what waits.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        loop {
            match std::mem::replace(&mut self.state, State::Over) {
                State::Busy(mut sending) => match sending.as_mut().poll(cx) {
                    Poll::Pending => {
                        self.state = State::Busy(sending);
                        return Poll::Pending;
                    }
                    Poll::Ready((sender, Ok(()))) => self.state = State::Idle(sender),
                    Poll::Ready((_, Err(error))) => return Poll::Ready(Err(error)),
                },
                State::Idle(mut sender) => match self.waiting.pop_front() {
                    None => {
                        self.state = State::Idle(sender);
                        return Poll::Ready(Ok(()));
                    }
                    Some(payload) => {
                        self.state = State::Busy(Box::pin(async move {
                            let sent = sender.send(&payload).await;
                            (sender, sent)
                        }));
                    }
                },
                State::Over => return Poll::Ready(Err(gone())),
            }
        }
    }
}

fn gone() -> ClientError {
    super::SendError::Gone.into()
}

impl Sink<Bytes> for Outgoing {
    type Error = ClientError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        if self.waiting.len() < READY_MAX && !matches!(self.state, State::Over) {
            return Poll::Ready(Ok(()));
        }
        self.poll_send(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, payload: Bytes) -> Result<(), ClientError> {
        if matches!(self.state, State::Over) {
            return Err(gone());
        }
        self.waiting.push_back(payload);
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        self.poll_send(cx)
    }

    /// Flushes, then says that nothing more comes from here.
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        if matches!(self.state, State::Over) {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_send(cx))?;
        if let State::Idle(sender) = &mut self.state {
            // To drop `finish` half-way loses nothing: everything is flushed, and a shutdown is asked for again.
            ready!(pin!(sender.finish()).poll(cx))?;
        }
        self.state = State::Over;
        Poll::Ready(Ok(()))
    }
}
