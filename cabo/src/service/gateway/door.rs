//! Connections of players: how many at once, how long they may say nothing, how much waits in their buffers.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::answer::{Site, answer};
use super::source::Source;

/// A connection has to send the head of a request within this, the first one and each further one.
const HEAD_TIME: Duration = Duration::from_secs(60);
/// What waits for a player, in our memory and in the kernel's: little, because a player that looks at the head of a
/// film and goes on to its tail has all of it sent in vain.
const BUFFER_BYTES: usize = 128 * 1024;
/// The pause after the system had no room for one more connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves connections until it is dropped, which drops them all.
pub(super) async fn serve<S: Source>(listener: &TcpListener, site: &Arc<Site<S>>) {
    let router = Router::new().fallback(answer::<S>).with_state(site.clone());
    let room = Arc::new(Semaphore::new(site.readers.clamp(1, Semaphore::MAX_PERMITS)));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a player");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let router = router.clone();
        connections.spawn(async move {
            talk(stream, router).await;
            drop(permit);
        });
    }
}

async fn talk(stream: TcpStream, router: Router) {
    // Where these fail, playing is a little slower and no worse.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_send_buffer_size(BUFFER_BYTES);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(BUFFER_BYTES);
    let service = TowerToHyperService::new(router);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a player's connection ended early"); // as it does with every seek
    }
}
