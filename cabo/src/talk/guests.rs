//! A server's peers for who prefers to await: each is a conversation as a client has it.
//!
//! Both sorts of peers and every carrier are alike here, as they are to callbacks, for callbacks are what is below: they
//! put what comes into the inbox of its peer, which is held back while that is full. Neighbours: `server` listens, `line`
//! is the way to each peer, `callers` takes one foreign program after another by a socket alone.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::inbox::Inbox;
use super::line::Line;
use super::{BindError, Client, Closed, Message, Peer, Server};
use crate::address::Address;

/// Guests that wait to be taken; one more is closed.
const WAITING_MAX: usize = 1024;

/// Whoever comes to a server, one after another. Dropped, the server goes down.
///
/// ```no_run
/// use cabo::proto::dialect::Dialect;
/// use cabo::talk::{Server, Settings};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::bind(["tcp://:5005", "udp://:5005", "eth://enp3s0"])?;
/// let settings = Settings { dialect: Dialect::parse("lines")?.into(), ..Settings::default() };
/// let mut guests = server.settings(settings).guests().await?;
/// while let Some(mut guest) = guests.next().await {
///     tokio::spawn(async move {
///         while let Ok(Some(message)) = guest.receiver.next().await {
///             if guest.sender.send(&message.payload()).await.is_err() {
///                 return; // it is gone
///             }
///         }
///     });
/// }
/// # Ok(()) }
/// ```
pub struct Guests {
    at: Vec<Address>,
    coming: mpsc::Receiver<Client>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

/// Where what each peer says goes, by its number.
#[derive(Clone, Default)]
struct Rooms {
    by_number: Arc<Mutex<BTreeMap<u64, Room>>>,
}

#[derive(Clone)]
struct Room {
    inbox: Arc<Inbox>,
    left: watch::Sender<bool>,
}

impl Server {
    /// Listens, and gives out every peer as a conversation to await, in place of calling
    /// [`on_connect`](Self::on_connect), [`on_receive`](Self::on_receive) and [`on_close`](Self::on_close).
    pub async fn guests(self) -> Result<Guests, BindError> {
        let (come, coming) = mpsc::channel(WAITING_MAX);
        let dialect = self.dialect();
        let rooms = Rooms::default();
        let (into, from) = (rooms.clone(), rooms.clone());
        let mut server = self
            .on_connect(move |peer| {
                let line = rooms.open(peer);
                let guest = Client::of_line(line, peer.from(), dialect.clone());
                if let Err(error) = come.try_send(guest) {
                    tracing::warn!(?peer, %error, "nobody takes one more guest"); // and its drop closes it
                }
            })
            .on_receive(move |message, peer| into.put(message, peer))
            .on_close(move |peer, why| from.close(peer, why));
        let at = server.listen().await?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve(async { stopped.await.unwrap_or_default() }));
        Ok(Guests { at, coming, stop, serving })
    }
}

impl Guests {
    /// Where the server listens, with the ports that it really got.
    pub fn at(&self) -> &[Address] {
        &self.at
    }

    /// The next guest, in the order in which they came; none where the server has ended.
    pub async fn next(&mut self) -> Option<Client> {
        self.coming.recv().await
    }

    /// Takes the server down: what was sent to guests goes out.
    pub async fn close(self) {
        drop(self.stop);
        let _ = self.serving.await; // it is down, too, where its runtime is
    }
}

impl Stream for Guests {
    type Item = Client;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Client>> {
        self.coming.poll_recv(cx)
    }
}

impl Rooms {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Room>> {
        self.by_number.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, peer: &Peer) -> Line {
        let (left, has_left) = watch::channel(false);
        let room = Room { inbox: Arc::default(), left };
        let line = Line::of_guest(peer.clone(), room.inbox.clone(), has_left);
        self.lock().insert(peer.number(), room);
        line
    }

    fn put(&self, message: Message, peer: &Peer) {
        let room = self.lock().get(&peer.number()).cloned();
        if let Some(room) = room {
            room.inbox.put(message, peer);
        }
    }

    fn close(&self, peer: &Peer, why: &Closed) {
        let room = self.lock().remove(&peer.number());
        if let Some(room) = room {
            room.inbox.end(retold(why));
            room.left.send_replace(true);
        }
    }
}

/// How a peer left, for whoever awaits its next message.
fn retold(why: &Closed) -> Closed {
    match why {
        Closed::Io(error) => Closed::Io(io::Error::new(error.kind(), error.to_string())),
        Closed::Malformed(error) => Closed::Malformed(error.clone()),
        Closed::Broken(error) => Closed::Broken(error.clone()),
        Closed::Idle(time) => Closed::Idle(*time),
        Closed::Unfinished(time) => Closed::Unfinished(*time),
        Closed::Dripping(bytes, time) => Closed::Dripping(*bytes, *time),
        Closed::NoRoom(bytes) => Closed::NoRoom(*bytes),
        Closed::TooSlow => Closed::TooSlow,
        Closed::Panicked => Closed::Panicked,
        Closed::GoingDown => Closed::GoingDown,
        Closed::MadeRoom => Closed::MadeRoom,
        Closed::Ended
        | Closed::Stranger(_)
        | Closed::NoGreeting(_)
        | Closed::Refused(_)
        | Closed::Cabo
        | Closed::Elsewhere
        | Closed::Astray
        | Closed::NoMessages(_)
        | Closed::TooMany(_)
        | Closed::Stuck(_)
        | Closed::Unsecured(_) => Closed::Ended,
    }
}
