//! Listens for foreign programs and tells callbacks what happens.
//!
//! Every peer is a task with its own deadlines and its own room for what is sent to it: none holds up another, and a
//! callback that panics costs its own peer the conversation alone. A callback that never returns keeps one thread.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use super::datagrams;
use super::place::{Door, PlaceError, with_port_of};
use super::stream::Conversation;
use super::{Closed, Message, Peer, Settings};
use crate::address::{Address, AddressError};
use crate::carrier::{Accepted, ByteStream, Listener};
use crate::endpoint::listen::with_port;

/// Conversations have this long to end when the server goes down.
const DRAIN_TIME: Duration = Duration::from_secs(5);

type OnPeer = Box<dyn Fn(&Peer) + Send + Sync>;
type OnReceive = Box<dyn Fn(Message, &Peer) + Send + Sync>;
type OnSend = Box<dyn Fn(&Peer) -> Option<Bytes> + Send + Sync>;
type OnClose = Box<dyn Fn(&Peer, &Closed) + Send + Sync>;

/// What to call. Nothing is required.
#[derive(Default)]
pub(super) struct Handlers {
    on_connect: Option<OnPeer>,
    on_receive: Option<OnReceive>,
    on_send: Option<OnSend>,
    on_close: Option<OnClose>,
    on_refuse: Option<OnClose>,
    /// Peers now, and peers ever.
    count: AtomicUsize,
    numbers: AtomicU64,
    peers: Mutex<BTreeMap<u64, Peer>>,
}

/// A server for foreign programs; see the module.
pub struct Server {
    addresses: Vec<Address>,
    settings: Settings,
    handlers: Handlers,
    opened: Vec<Door>,
}

/// Why a server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A URL that is none.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// No socket.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// No runtime.
    #[error("the server's threads cannot be started: {0}")]
    Runtime(#[from] std::io::Error),
}

impl Server {
    /// A server at these URLs; it listens when it runs.
    pub fn bind<U: AsRef<str>>(urls: impl IntoIterator<Item = U>) -> Result<Self, AddressError> {
        let addresses: Result<Vec<Address>, _> =
            urls.into_iter().map(|url| url.as_ref().parse()).collect();
        Ok(Self::at(addresses?))
    }

    /// A server at these addresses.
    pub fn at(addresses: Vec<Address>) -> Self {
        Self {
            addresses,
            settings: Settings::default(),
            handlers: Handlers::default(),
            opened: Vec::new(),
        }
    }

    /// What peers are held to.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Calls this for every peer that is there and has said the first words.
    #[must_use]
    pub fn on_connect(mut self, call: impl Fn(&Peer) + Send + Sync + 'static) -> Self {
        self.handlers.on_connect = Some(Box::new(call));
        self
    }

    /// Calls this for every whole message.
    #[must_use]
    pub fn on_receive(mut self, call: impl Fn(Message, &Peer) + Send + Sync + 'static) -> Self {
        self.handlers.on_receive = Some(Box::new(call));
        self
    }

    /// Calls this when a peer has taken all that was sent to it: what it returns is sent next.
    #[must_use]
    pub fn on_send(
        mut self,
        call: impl Fn(&Peer) -> Option<Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.handlers.on_send = Some(Box::new(call));
        self
    }

    /// Calls this when a peer that was told of is gone.
    #[must_use]
    pub fn on_close(mut self, call: impl Fn(&Peer, &Closed) + Send + Sync + 'static) -> Self {
        self.handlers.on_close = Some(Box::new(call));
        self
    }

    /// Calls this when somebody was turned away, of whom nothing was processed.
    #[must_use]
    pub fn on_refuse(mut self, call: impl Fn(&Peer, &Closed) + Send + Sync + 'static) -> Self {
        self.handlers.on_refuse = Some(Box::new(call));
        self
    }

    /// Listens and serves on threads of its own until the process ends.
    pub fn run(self) -> Result<(), BindError> {
        let mut builder = Builder::new_multi_thread();
        if let Some(threads) = self.settings.threads {
            builder.worker_threads(threads.max(1));
        }
        let runtime = builder.enable_all().build()?;
        runtime.block_on(async move {
            let mut server = self;
            server.listen().await?;
            server.serve(std::future::pending()).await;
            Ok(())
        })
    }

    /// Opens all sockets, inside a runtime of the caller's. Returns where it listens, with the ports that it really got.
    pub async fn listen(&mut self) -> Result<Vec<Address>, BindError> {
        let mut got = Vec::new();
        for address in &self.addresses {
            address.check_listen()?;
            let address = with_port_of(address, &self.settings.dialect);
            let door = Door::open(&address).await?;
            got.push(with_port(&address, door.local().port()));
            self.opened.push(door);
        }
        Ok(got)
    }

    /// Serves until `shutdown`, then lets what was sent go out.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let (settings, handlers) = (Arc::new(self.settings), Arc::new(self.handlers));
        let mut doors = JoinSet::new();
        for opened in self.opened {
            let (settings, handlers) = (settings.clone(), handlers.clone());
            match opened {
                Door::Streams(listener, scheme) => {
                    doors.spawn(accept(listener, scheme, settings, handlers));
                }
                Door::Datagrams(socket) => {
                    doors.spawn(datagrams::serve(socket, settings, handlers));
                }
            }
        }
        shutdown.await;
        doors.abort_all();
        handlers.lock().values().for_each(Peer::close);
        let gone = async {
            while handlers.count.load(Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(DRAIN_TIME, gone).await; // who has not gone by then is cut off
    }
}

/// Accepts for as long as the listener lives.
async fn accept(
    listener: Arc<dyn Listener>,
    scheme: &'static str,
    settings: Arc<Settings>,
    handlers: Arc<Handlers>,
) {
    loop {
        match poll_fn(|cx| listener.poll_accept(cx)).await {
            Ok(Accepted { stream, from, .. }) => {
                let peer = Peer::new(handlers.next_number(), from, scheme, settings.clone());
                converse(stream, peer, &settings, &handlers);
            }
            Err(error) => {
                tracing::error!(%error, "the listener is gone");
                return;
            }
        }
    }
}

fn converse(
    stream: Box<dyn ByteStream>,
    peer: Peer,
    settings: &Arc<Settings>,
    handlers: &Arc<Handlers>,
) {
    let Some(place) = handlers.place(settings) else {
        return handlers.refused(&peer, &Closed::TooMany(settings.peers_max));
    };
    let conversation = Conversation::new(stream, peer, settings.clone(), handlers.clone());
    tokio::spawn(async move {
        conversation.run().await;
        drop(place);
    });
}

/// One of the peers that there may be at once; free again when it is dropped.
pub(super) struct PlaceTaken {
    handlers: Arc<Handlers>,
}

impl Drop for PlaceTaken {
    fn drop(&mut self) {
        self.handlers.count.fetch_sub(1, Relaxed);
    }
}

impl Handlers {
    pub(super) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Relaxed) + 1
    }

    /// A place for one more peer, if there is one.
    pub(super) fn place(self: &Arc<Self>, settings: &Settings) -> Option<PlaceTaken> {
        let add = |count| (count < settings.peers_max).then_some(count + 1);
        self.count.fetch_update(Relaxed, Relaxed, add).ok()?;
        Some(PlaceTaken { handlers: self.clone() })
    }

    pub(super) fn connected(&self, peer: &Peer) {
        self.lock().insert(peer.number(), peer.clone());
        if let Some(call) = &self.on_connect {
            call(peer);
        }
        self.has_room(peer);
    }

    pub(super) fn received(&self, message: Message, peer: &Peer) {
        if let Some(call) = &self.on_receive {
            call(message, peer);
        }
    }

    /// The peer has taken all: more, if there is more.
    pub(super) fn has_room(&self, peer: &Peer) {
        if let Some(call) = &self.on_send
            && peer.waiting_bytes() == 0
            && let Some(bytes) = call(peer)
            && let Err(error) = peer.send(bytes)
        {
            tracing::debug!(%error, ?peer, "what on_send gave cannot be sent");
        }
    }

    pub(super) fn closed(&self, peer: &Peer, closed: &Closed) {
        self.lock().remove(&peer.number());
        if let Some(call) = &self.on_close {
            let called = std::panic::AssertUnwindSafe(|| call(peer, closed));
            let _ = std::panic::catch_unwind(called); // its peer is gone anyway
        }
    }

    pub(super) fn refused(&self, peer: &Peer, closed: &Closed) {
        if let Some(call) = &self.on_refuse {
            let called = std::panic::AssertUnwindSafe(|| call(peer, closed));
            let _ = std::panic::catch_unwind(called); // it was turned away anyway
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
