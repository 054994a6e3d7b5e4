//! Both halves of a stream for two tasks, each of which can still ask the whole.
//!
//! Neighbour: `client` reads one and writes the other.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::carrier::{ByteStream, HangUp};

/// One half: the one that reads, or the one that writes.
#[derive(Debug)]
pub(super) struct Half(Arc<Mutex<Box<dyn ByteStream>>>);

/// Parts a stream.
pub(super) fn halves(stream: Box<dyn ByteStream>) -> (Half, Half) {
    let whole = Arc::new(Mutex::new(stream));
    (Half(whole.clone()), Half(whole))
}

impl Half {
    /// What sees the other side hang up; none where no socket tells of that.
    pub(super) fn hang_up(&self) -> Option<HangUp> {
        self.lock().socket().and_then(|socket| HangUp::of(socket).ok())
    }

    fn lock(&self) -> MutexGuard<'_, Box<dyn ByteStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for Half {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_read(cx, into)
    }
}

impl AsyncWrite for Half {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.lock()).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_shutdown(cx)
    }
}
