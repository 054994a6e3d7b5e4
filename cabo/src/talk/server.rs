//! Listens for foreign programs and tells callbacks what happens.
//!
//! Every peer is a task with its own deadlines and its own room for what is sent to it: none holds up another. A
//! callback that panics costs its own peer the conversation alone, and so does one that blocks or never returns, whose
//! thread is taken from no other (`callback`).

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Builder;
use tokio::sync::watch;

use super::callback::{Callbacks, Kind};
use super::datagrams;
use super::engine::Engine;
use super::place::{Door, PlaceError, with_port_of};
use super::stream::Conversation;
use super::{Closed, Message, Peer, Settings, Threads};
use crate::address::{Address, AddressError};
use crate::carrier::{Accepted, Listener};
use crate::endpoint::listen::with_port;

/// Conversations have this long to end when the server goes down.
const DRAIN_TIME: Duration = Duration::from_secs(5);
/// Who was turned away and is not told of yet; of more nobody is told.
const REFUSED_MAX: usize = 1024;

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
    callbacks: Arc<Callbacks>,
    /// Calls of on_refuse that wait or go on.
    refusing: AtomicUsize,
    refused: AtomicU64,
}

/// A server for foreign programs; see the module.
pub struct Server {
    addresses: Vec<Address>,
    settings: Settings,
    handlers: Handlers,
    opened: Vec<Door>,
    engine: Option<Running>,
}

/// The threads of a server that listens; with it they stop.
struct Running(Arc<Engine>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.stop();
    }
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
            engine: None,
        }
    }

    /// What peers are held to.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// What runs on which thread: [`Settings::threads`] alone.
    #[must_use]
    pub fn threads(mut self, threads: Threads) -> Self {
        self.settings.threads = threads;
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

    /// Listens and serves until the process ends.
    pub fn run(self) -> Result<(), BindError> {
        let runtime = Builder::new_current_thread().enable_time().build()?;
        runtime.block_on(async move {
            let mut server = self;
            server.listen().await?;
            server.serve(std::future::pending()).await;
            Ok(())
        })
    }

    /// Opens all sockets. Returns where it listens, with the ports that it really got.
    ///
    /// The server has threads of its own ([`Settings::threads`]): the runtime in which this is awaited, of whatever
    /// kind, does none of its work.
    pub async fn listen(&mut self) -> Result<Vec<Address>, BindError> {
        let running = Running(Arc::new(Engine::start(&self.settings)?));
        let mut got = Vec::new();
        for address in &self.addresses {
            address.check_listen()?;
            let address = with_port_of(address, &self.settings.dialect);
            let door = running.0.within(Door::open(&address)).await?;
            got.push(with_port(&address, door.local().port()));
            self.opened.push(door);
        }
        self.settings.peers_max = running.0.peers_max(self.settings.peers_max);
        self.handlers.callbacks = running.0.callbacks().clone();
        self.engine = Some(running);
        Ok(got)
    }

    /// Serves until `shutdown`, then lets what was sent go out; a callback that does not return keeps it for
    /// seconds only. Serves nobody before [`Self::listen`].
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let Some(Running(engine)) = &self.engine else { return };
        let (settings, handlers) = (Arc::new(self.settings), Arc::new(self.handlers));
        let (down, is_down) = watch::channel(());
        for opened in self.opened {
            let (settings, handlers) = (settings.clone(), handlers.clone());
            let mut is_down = is_down.clone();
            let serving = engine.clone();
            engine.spawn(async move {
                let door = async {
                    match opened {
                        Door::Streams(listener, scheme) => {
                            accept(listener, scheme, settings, handlers, serving).await;
                        }
                        Door::Datagrams(socket) => {
                            datagrams::serve(socket, settings, handlers, serving).await;
                        }
                    }
                };
                tokio::select! {
                    () = door => {}
                    _ = is_down.changed() => {}
                }
            });
        }
        drop(is_down);
        shutdown.await;
        down.send_replace(());
        down.closed().await; // the doors are, and the place is free for the next server
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
    engine: Arc<Engine>,
) {
    loop {
        match poll_fn(|cx| listener.poll_accept(cx)).await {
            Ok(accepted) => {
                let number = handlers.next_number();
                let peer = Peer::new(number, accepted.from, scheme, settings.clone());
                converse(accepted, peer, &settings, &handlers, &engine);
            }
            Err(error) => {
                tracing::error!(%error, "the listener is gone");
                return;
            }
        }
    }
}

fn converse(
    accepted: Accepted,
    peer: Peer,
    settings: &Arc<Settings>,
    handlers: &Arc<Handlers>,
    engine: &Engine,
) {
    let place = match handlers.place(settings) {
        Ok(place) => place,
        Err(full) => return handlers.turned_away(peer, full, engine),
    };
    let (told, settings, its_handlers) = (peer.clone(), settings.clone(), handlers.clone());
    let begun = engine.spawn_peer(async move {
        match accepted.secured().await {
            Ok(accepted) => {
                Conversation::new(accepted.stream, told, settings, its_handlers).run().await;
            }
            Err(error) => {
                its_handlers.admit().await;
                its_handlers.refused(&told, &Closed::Unsecured(error));
            }
        }
        drop(place);
    });
    if let Err(error) = begun {
        handlers.turned_away(peer, error.into(), engine);
    }
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

    pub(super) fn callbacks(&self) -> &Callbacks {
        &self.callbacks
    }

    /// See [`Callbacks::admit`].
    pub(super) async fn admit(&self) {
        self.callbacks.admit().await;
    }

    /// A place for one more peer, or why there is none.
    pub(super) fn place(self: &Arc<Self>, settings: &Settings) -> Result<PlaceTaken, Closed> {
        if let Some(stuck) = self.callbacks.too_many_stuck() {
            return Err(Closed::Stuck(stuck));
        }
        let add = |count| (count < settings.peers_max).then_some(count + 1);
        let added = self.count.fetch_update(Relaxed, Relaxed, add);
        added.map_err(|_| Closed::TooMany(settings.peers_max))?;
        Ok(PlaceTaken { handlers: self.clone() })
    }

    pub(super) fn connected(&self, peer: &Peer) {
        self.lock().insert(peer.number(), peer.clone());
        if let Some(call) = &self.on_connect {
            self.callbacks.call(Kind::Connect, || call(peer));
        }
        self.has_room(peer);
    }

    pub(super) fn received(&self, message: Message, peer: &Peer) {
        if let Some(call) = &self.on_receive {
            self.callbacks.call(Kind::Receive, || call(message, peer));
        }
    }

    pub(super) fn has_on_send(&self) -> bool {
        self.on_send.is_some()
    }

    /// The peer has taken all: more, if there is more.
    pub(super) fn has_room(&self, peer: &Peer) {
        if let Some(call) = &self.on_send
            && peer.waiting_bytes() == 0
            && let Some(bytes) = self.callbacks.call(Kind::Send, || call(peer))
            && let Err(error) = peer.send(bytes)
        {
            tracing::debug!(%error, ?peer, "what on_send gave cannot be sent");
        }
    }

    pub(super) fn closed(&self, peer: &Peer, closed: &Closed) {
        self.lock().remove(&peer.number());
        if let Some(call) = &self.on_close {
            let called =
                AssertUnwindSafe(|| self.callbacks.call(Kind::Close, || call(peer, closed)));
            let _ = catch_unwind(called); // its peer is gone anyway
        }
    }

    pub(super) fn refused(&self, peer: &Peer, closed: &Closed) {
        self.refused.fetch_add(1, Relaxed);
        if let Some(call) = &self.on_refuse {
            let called =
                AssertUnwindSafe(|| self.callbacks.call(Kind::Refuse, || call(peer, closed)));
            let _ = catch_unwind(called); // it was turned away anyway
        }
    }

    /// Tells of who was turned away at the door, which goes on meanwhile.
    pub(super) fn turned_away(self: &Arc<Self>, peer: Peer, closed: Closed, engine: &Engine) {
        tracing::debug!(?peer, %closed, "turned away");
        if self.refusing.fetch_add(1, Relaxed) >= REFUSED_MAX {
            self.refusing.fetch_sub(1, Relaxed);
            self.refused.fetch_add(1, Relaxed);
            return;
        }
        let handlers = self.clone();
        engine.spawn(async move {
            handlers.admit().await;
            handlers.refused(&peer, &closed);
            handlers.refusing.fetch_sub(1, Relaxed);
        });
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
