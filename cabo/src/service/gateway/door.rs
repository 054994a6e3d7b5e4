//! Connections of players: how many at once, how long they may say and take nothing, how much waits in their buffers.
//!
//! Anything on this machine can connect, token or not, so connections are many and cost little; how many items are read
//! at once is for `answer.rs`, which has seen the token.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, Sleep};

use super::answer::{Known, Site, answer};
use super::source::Source;

/// A connection has to send the head of a request within this, the first one and each further one.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// A player that takes nothing of its answer for so long is cut off: one that is paused asks again where it was.
const WRITE_TIME: Duration = Duration::from_secs(10 * 60);
/// Connections at once; beyond them the oldest goes that has not shown the token.
const CONNECTIONS_MAX: usize = 512;
/// What waits for a player, in our memory and in the kernel's: little, because a player that looks at the head of a
/// film and goes on to its tail has all of it sent in vain.
const BUFFER_BYTES: usize = 128 * 1024;
/// The pause after the system had no room for one more connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves connections until it is dropped, which drops them all.
pub(super) async fn serve<S: Source>(listener: &TcpListener, site: &Arc<Site<S>>) {
    let router = Router::new().fallback(answer::<S>).with_state(site.clone());
    let mut connections = JoinSet::new();
    let mut oldest_first: VecDeque<(AbortHandle, Known)> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a player");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        oldest_first.retain(|(connection, _)| !connection.is_finished());
        if oldest_first.len() >= CONNECTIONS_MAX {
            let stranger = oldest_first.iter().position(|(_, known)| !known.is_set());
            match stranger.and_then(|stranger| oldest_first.remove(stranger)) {
                Some((stranger, _)) => stranger.abort(),
                None => continue, // all of them play
            }
        }
        let known = Known::default();
        let router = router.clone().layer(Extension(known.clone()));
        oldest_first.push_back((connections.spawn(talk(stream, router)), known));
    }
}

async fn talk(stream: TcpStream, router: Router) {
    // Where these fail, playing is a little slower and no worse.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_send_buffer_size(BUFFER_BYTES);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(BUFFER_BYTES);
    let service = TowerToHyperService::new(router);
    if let Err(error) = http.serve_connection(TokioIo::new(Taken::new(stream)), service).await {
        tracing::debug!(%error, "a player's connection ended early"); // as it does with every seek
    }
}

/// A connection that ends where nothing is taken of what is written.
struct Taken {
    stream: TcpStream,
    until: Option<Pin<Box<Sleep>>>, // while a write waits
}

impl Taken {
    fn new(stream: TcpStream) -> Self {
        Self { stream, until: None }
    }

    fn watch(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.until = None;
            return written;
        }
        let sleep = || Box::pin(tokio::time::sleep_until(Instant::now() + WRITE_TIME));
        match self.until.get_or_insert_with(sleep).as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Taken {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Taken {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
