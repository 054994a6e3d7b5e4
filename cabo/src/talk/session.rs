//! Cabo peers: sessions whose one stream carries messages (M-11).
//!
//! Neighbours: `stream` drives the conversation, as with foreign programs; `server` and `line` begin it.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use cabo_proto::wire::code::Code;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use super::server::Handlers;
use super::stream::Conversation;
use super::{Closed, Peer, Settings};
use crate::carrier::ByteStream;
use crate::connection::Connection;
use crate::gate::Gate;
use crate::request::read_opening;
use crate::server::UNKNOWN_SERVICE;
use crate::stream::{RecvStream, SendStream, SessionEnded};

/// Its name on the wire.
pub(super) const SERVICE: &str = "messages/1";
/// The code of a second stream of messages (M-11.1).
const ONE_STREAM: u64 = 2;
/// The code of a session whose messages are none (M-11.3).
const NO_MESSAGE: u64 = 3;
/// A session has to open its stream of messages within this.
const OPENING_TIME: Duration = Duration::from_secs(30);
/// When all is said, the other side has this long to hear it and to leave.
const LEAVING_TIME: Duration = Duration::from_secs(10);

/// Both halves of a stream, as one.
pub(super) struct Both {
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
}

/// One session at a server, from its handshake to its end.
pub(super) async fn welcome(
    connection: Connection,
    gate: Arc<Gate>,
    settings: Arc<Settings>,
    handlers: Arc<Handlers>,
) {
    let peer = Peer::of_session(handlers.next_number(), &connection, settings.clone(), false);
    let refused = async |why: Closed| {
        handlers.admit().await;
        handlers.refused(&peer, &why);
    };
    let _place = match handlers.place(&settings) {
        Ok(place) => place,
        Err(full) => {
            connection.close_protocol(Code::BUSY, "the server has all the peers that it takes");
            return refused(full).await;
        }
    };
    if let Err(refusal) = gate.judge(&connection).await {
        connection.refuse(&refusal.to_string());
        return refused(Closed::Refused(refusal)).await;
    }
    connection.admit();
    let stream = match timeout(OPENING_TIME, messages_of(&connection)).await {
        Ok(Some(stream)) => stream,
        Ok(None) => return,
        Err(_) => {
            connection.close_protocol(Code::NONE, "no stream of messages/1 was opened");
            return refused(Closed::NoMessages(OPENING_TIME)).await;
        }
    };
    let others = tokio::spawn(refuse_others(connection.clone()));
    let closed =
        Box::pin(Conversation::new(Box::new(stream), peer, settings, handlers).run()).await;
    leave(&connection, &closed).await;
    others.abort();
}

/// Ends a session when all is said; nothing that is still under way is lost while the other side hears it.
async fn leave(connection: &Connection, closed: &Closed) {
    let is_over = matches!(
        closed,
        Closed::Broken(_)
            | Closed::TooSlow
            | Closed::NoRoom(_)
            | Closed::Unfinished(_)
            | Closed::Dripping(..)
            | Closed::Panicked
    );
    if !is_over {
        let _ = timeout(LEAVING_TIME, connection.closed()).await; // who does not leave is left
    }
    let (code, why) = last_words(closed);
    connection.say_goodbye(code, &why).await;
}

/// What the other side is told at the end of a session.
pub(super) fn last_words(closed: &Closed) -> (u64, String) {
    if let Closed::Broken(error) = closed {
        return (NO_MESSAGE, error.to_string());
    }
    let is_told = matches!(
        closed,
        Closed::TooSlow
            | Closed::Idle(_)
            | Closed::NoRoom(_)
            | Closed::Unfinished(_)
            | Closed::Dripping(..)
    );
    (0, if is_told { closed.to_string() } else { String::new() })
}

/// The stream of messages that the peer opens; none when the session ends before. Other services it is refused.
async fn messages_of(connection: &Connection) -> Option<Both> {
    loop {
        let (mut send, mut recv) = tokio::select! {
            streams = connection.accept() => streams.ok()?,
            one_way = connection.accept_one_way() => {
                one_way.ok()?.stop(UNKNOWN_SERVICE);
                continue;
            }
        };
        match read_opening(&mut recv).await {
            Ok(name) if name == SERVICE => return Some(Both { send, recv }),
            Ok(_) | Err(_) => {
                send.reset(UNKNOWN_SERVICE);
                recv.stop(UNKNOWN_SERVICE);
            }
        }
    }
}

/// Refuses what else the peer opens, until the session is over.
async fn refuse_others(connection: Connection) {
    loop {
        tokio::select! {
            streams = connection.accept() => {
                let Ok((mut send, mut recv)) = streams else { return };
                let opening = timeout(OPENING_TIME, read_opening(&mut recv)).await;
                let is_second = matches!(opening, Ok(Ok(name)) if name == SERVICE);
                let code = if is_second { ONE_STREAM } else { UNKNOWN_SERVICE };
                send.reset(code);
                recv.stop(code);
            }
            one_way = connection.accept_one_way() => {
                let Ok(mut recv) = one_way else { return };
                recv.stop(UNKNOWN_SERVICE);
            }
        }
    }
}

impl ByteStream for Both {}

impl AsyncRead for Both {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.recv).poll_read(cx, out)) {
            Err(error) if is_clean(&error) => Poll::Ready(Ok(())), // the session was ended: so was the stream
            result => Poll::Ready(result),
        }
    }
}

fn is_clean(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<SessionEnded>());
    inner.is_some_and(|SessionEnded(ended)| ended.is_clean())
}

impl AsyncWrite for Both {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_shutdown(cx)
    }
}

impl fmt::Debug for Both {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {:?}", self.send.id())
    }
}
