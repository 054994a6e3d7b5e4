//! The two halves of a stream, as tokio's `AsyncRead` and `AsyncWrite`.
//!
//! Dropping a [`SendStream`] that was not finished resets it; dropping a [`RecvStream`] tells the peer that nobody
//! reads any more.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use cabo_proto::session::config::Ended;
use cabo_proto::transport::streams::{Read, StreamError};
use cabo_proto::wire::frame::StreamId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connection::Owner;

/// The code of a stream that was dropped without a word.
pub const CANCELLED: u64 = 0;

/// The half that we write.
pub struct SendStream {
    owner: Arc<Owner>,
    id: StreamId,
    is_finished: bool,
}

/// The half that we read.
pub struct RecvStream {
    owner: Arc<Owner>,
    id: StreamId,
    is_ended: bool,
}

impl SendStream {
    pub(crate) fn new(owner: Arc<Owner>, id: StreamId) -> Self {
        Self { owner, id, is_finished: false }
    }

    /// Which stream of the session.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// Streams of higher priority go first; 0 is the default.
    pub fn set_priority(&mut self, priority: i32) {
        self.owner.0.lock().machine.streams().set_priority(self.id, priority);
    }

    /// Takes as much of `data` as there is room for, without copying it.
    pub fn poll_write_bytes(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.owner.0.lock();
        if let Some(ended) = &inner.ended {
            return Poll::Ready(Err(session_error(ended)));
        }
        let room = inner.machine.streams().write_room(self.id).map_err(stream_error)?;
        if room == 0 {
            inner.wait_writable(self.id, cx);
            return Poll::Pending;
        }
        let len = room.min(data.len());
        inner.machine.streams().write(self.id, data.split_to(len));
        self.owner.0.touch(&mut inner);
        Poll::Ready(Ok(len))
    }

    /// Writes all of `data` without copying it.
    pub async fn write_bytes(&mut self, mut data: Bytes) -> io::Result<()> {
        while !data.is_empty() {
            std::future::poll_fn(|cx| self.poll_write_bytes(cx, &mut data)).await?;
        }
        Ok(())
    }

    /// Ends the stream behind what was written.
    pub fn finish(&mut self) -> io::Result<()> {
        let mut inner = self.owner.0.lock();
        if let Some(ended) = &inner.ended {
            return Err(session_error(ended));
        }
        inner.machine.streams().finish(self.id).map_err(stream_error)?;
        self.is_finished = true;
        self.owner.0.touch(&mut inner);
        Ok(())
    }

    /// Gives the stream up; the peer hears `code`.
    pub fn reset(&mut self, code: u64) {
        self.is_finished = true;
        let mut inner = self.owner.0.lock();
        if inner.ended.is_some() {
            return; // the peer hears of the session's end, and should take nothing else for the reason
        }
        inner.machine.streams().reset(self.id, code);
        self.owner.0.touch(&mut inner);
    }
}

impl AsyncWrite for SendStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let this = &mut *self;
        let mut inner = this.owner.0.lock();
        if let Some(ended) = &inner.ended {
            return Poll::Ready(Err(session_error(ended)));
        }
        let room = inner.machine.streams().write_room(this.id).map_err(stream_error)?;
        if room == 0 {
            inner.wait_writable(this.id, cx);
            return Poll::Pending;
        }
        let len = room.min(data.len());
        inner.machine.streams().write(this.id, Bytes::copy_from_slice(&data[..len]));
        this.owner.0.touch(&mut inner);
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // nothing waits for more: what was written leaves as soon as the path allows
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_finished {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(self.finish())
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if !self.is_finished {
            self.reset(CANCELLED);
        }
        self.owner.0.lock().forget_waiters(self.id);
    }
}

impl RecvStream {
    pub(crate) fn new(owner: Arc<Owner>, id: StreamId) -> Self {
        Self { owner, id, is_ended: false }
    }

    /// Which stream of the session.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// Tells the peer that nobody will read any further.
    pub fn stop(&mut self, code: u64) {
        self.is_ended = true;
        let mut inner = self.owner.0.lock();
        if inner.ended.is_some() {
            return; // as above
        }
        inner.machine.streams().stop(Instant::now(), self.id, code);
        self.owner.0.touch(&mut inner);
    }
}

impl AsyncRead for RecvStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_ended || out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let this = &mut *self;
        let mut inner = this.owner.0.lock();
        // No more is initialised than there is to read, or one byte to learn that there is nothing.
        let available = inner.machine.streams().available(this.id).max(1);
        let space = out.initialize_unfilled_to(available.min(out.remaining()));
        match inner.machine.streams().read(Instant::now(), this.id, space) {
            Ok(Read::Bytes(len)) => {
                out.advance(len);
                if inner.machine.streams().has_credit_to_send() {
                    this.owner.0.touch(&mut inner);
                }
                Poll::Ready(Ok(()))
            }
            Ok(Read::End) => {
                this.is_ended = true;
                Poll::Ready(Ok(()))
            }
            Ok(Read::Reset(code)) => {
                this.is_ended = true;
                Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, StreamReset(code))))
            }
            Ok(Read::Blocked) => {
                if let Some(ended) = &inner.ended {
                    return Poll::Ready(Err(session_error(ended)));
                }
                inner.wait_readable(this.id, cx);
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(inner
                .ended
                .as_ref()
                .map_or_else(|| stream_error(error), session_error))),
        }
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        if !self.is_ended {
            self.stop(CANCELLED);
        }
        self.owner.0.lock().forget_waiters(self.id);
    }
}

/// The peer gave the stream up; inside an [`io::Error`].
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the peer gave the stream up (code {0})")]
pub struct StreamReset(pub u64);

/// The session ended under the stream; inside an [`io::Error`].
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct SessionEnded(pub Arc<Ended>);

fn session_error(ended: &Arc<Ended>) -> io::Error {
    let kind = match **ended {
        Ended::Idle { .. } | Ended::HandshakeTimeout { .. } => io::ErrorKind::TimedOut,
        Ended::Truncated => io::ErrorKind::UnexpectedEof,
        Ended::Local { .. } | Ended::Declined { .. } => io::ErrorKind::NotConnected,
        Ended::Peer { .. }
        | Ended::PeerProtocol { .. }
        | Ended::Breach { .. }
        | Ended::Crypto(_)
        | Ended::Version { .. }
        | Ended::Reset => io::ErrorKind::ConnectionAborted,
    };
    io::Error::new(kind, SessionEnded(ended.clone()))
}

fn stream_error(error: StreamError) -> io::Error {
    let kind = match error {
        StreamError::Closed => io::ErrorKind::NotConnected,
        StreamError::Stopped(_) => io::ErrorKind::BrokenPipe,
    };
    io::Error::new(kind, error)
}
