//! The bytes of a TLS connection, as every stream carrier gives them.
//!
//! Neighbours: `mod.rs` shakes hands over a [`Buffered`] and returns a [`TlsStream`].

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};

use tokio::io::{AsyncBufRead as _, AsyncRead, AsyncWrite, ReadBuf};

use super::words;
use crate::carrier::ByteStream;
use crate::carrier::calls::{Phase, below_tls};

/// Bytes read from the carrier below at once: several records, where rustls alone would take 4 KiB a system call.
const READ_BYTES: usize = 64 * 1024;

thread_local! {
    /// Where reads land: one for a thread, so that an idle connection holds none.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// The carrier below, read in large pieces, and its first byte before anything is taken.
#[derive(Debug)]
pub(super) struct Buffered {
    below: Box<dyn ByteStream>,
    waiting: Vec<u8>, // what was read and not taken; empty and without room most of the time
    at: usize,        // so much of it was taken
    phase: Phase,
}

impl Buffered {
    pub(super) fn new(below: Box<dyn ByteStream>) -> Self {
        Self { below, waiting: Vec::new(), at: 0, phase: Phase::Handshake }
    }

    /// What has come first, without taking it; empty at the end.
    pub(super) async fn first(&mut self) -> io::Result<&[u8]> {
        poll_fn(|cx| self.poll_fill(cx)).await?;
        Ok(self.rest())
    }

    fn rest(&self) -> &[u8] {
        self.waiting.get(self.at..).unwrap_or_default()
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.rest().is_empty() {
            return Poll::Ready(Ok(()));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut part = ReadBuf::new(scratch);
            let below = Pin::new(&mut self.below);
            ready!(below_tls(self.phase.heard(), || below.poll_read(cx, &mut part)))?;
            self.waiting = part.filled().to_vec();
            self.at = 0;
            Poll::Ready(Ok(()))
        })
    }
}

impl AsyncRead for Buffered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_fill(cx))?;
        let part = self.rest();
        let part = part.get(..part.len().min(out.remaining())).unwrap_or_default();
        out.put_slice(part);
        self.at += part.len();
        if self.rest().is_empty() {
            (self.waiting, self.at) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Buffered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        below_tls(self.phase, || Pin::new(&mut self.below).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        below_tls(self.phase, || Pin::new(&mut self.below).poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        self.below.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.below).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.below).poll_shutdown(cx)
    }
}

/// A TLS connection after its handshake.
///
/// rustls takes bytes before they have left; what is held back leaves whenever the stream is polled in any way, for not
/// every driver flushes. An end without a close_notify is an error, `UnexpectedEof`; a broken or refused channel is
/// `InvalidData`.
#[derive(Debug)]
pub(super) struct TlsStream {
    inner: tokio_rustls::TlsStream<Buffered>,
    writer: Option<Waker>, // who waits for room, if another task reads
}

/// The carrier below wakes one task when it has room: with this, the one that reads and the one that writes.
struct Both {
    reader: Waker,
    writer: Waker,
}

impl Wake for Both {
    fn wake(self: Arc<Self>) {
        self.reader.wake_by_ref();
        self.writer.wake_by_ref();
    }
}

impl TlsStream {
    pub(super) fn new(mut inner: tokio_rustls::TlsStream<Buffered>) -> Self {
        inner.get_mut().0.phase = Phase::Open;
        Self { inner, writer: None }
    }

    /// Sends on what is held back, for a task that reads.
    fn flush_beside(&mut self, cx: &Context<'_>) {
        if !self.inner.get_ref().1.wants_write() {
            return;
        }
        let waker = match &self.writer {
            Some(writer) if !writer.will_wake(cx.waker()) => {
                let both = Both { reader: cx.waker().clone(), writer: writer.clone() };
                Waker::from(Arc::new(both))
            }
            Some(_) | None => cx.waker().clone(),
        };
        // Its failure is the writer's, and reading tells why: an alert may have come.
        let _ = Pin::new(&mut self.inner).poll_flush(&mut Context::from_waker(&waker));
    }

    /// Remembers who waits for room.
    fn keep_writer<T>(&mut self, cx: &Context<'_>, polled: Poll<T>) -> Poll<T> {
        self.writer = polled.is_pending().then(|| cx.waker().clone());
        polled
    }

    /// Why writing failed: an alert that came before, if one did.
    fn reason(&mut self, cx: &mut Context<'_>, error: io::Error) -> io::Error {
        match Pin::new(&mut self.inner).poll_fill_buf(cx) {
            Poll::Ready(Err(alert)) if alert.kind() == io::ErrorKind::InvalidData => {
                explained(alert)
            }
            Poll::Ready(_) | Poll::Pending => explained(error),
        }
    }
}

impl ByteStream for TlsStream {
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.inner.get_ref().0.below.socket()
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.flush_beside(cx);
        Pin::new(&mut self.inner).poll_read(cx, out).map_err(explained)
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.as_mut().poll_flush(cx))?;
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        let written = ready!(self.keep_writer(cx, written));
        Poll::Ready(written.map_err(|error| self.reason(cx, error)))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        let flushed = ready!(self.keep_writer(cx, flushed));
        Poll::Ready(flushed.map_err(|error| self.reason(cx, error)))
    }

    /// Says close_notify, then ends our half below; the other half goes on.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.inner.get_ref().0.phase == Phase::Open {
            ready!(self.as_mut().poll_flush(cx))?;
            self.inner.get_mut().0.phase = Phase::Ending;
        }
        let ended = Pin::new(&mut self.inner).poll_shutdown(cx);
        let ended = ready!(self.keep_writer(cx, ended));
        Poll::Ready(ended.map_err(|error| self.reason(cx, error)))
    }
}

fn explained(error: io::Error) -> io::Error {
    let kind = error.kind();
    if kind == io::ErrorKind::UnexpectedEof {
        let text = "truncated: the TLS stream was cut, without the close_notify that ends it";
        io::Error::new(kind, text)
    } else if kind == io::ErrorKind::InvalidData {
        io::Error::new(kind, words::of_io(&error))
    } else {
        error
    }
}
