//! Listens for cabo peers and for foreign programs, on the same ports, and tells callbacks what happens.
//!
//! Every peer is a task with its own deadlines and its own room for what is sent to it: none holds up another. A
//! callback that panics costs its own peer the conversation alone, and so does one that blocks or never returns, whose
//! thread is taken from no other (`callback`).

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use cabo_proto::dialect::Dialect;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::callback::{Callbacks, Kind};
use super::datagrams::{self, Hall};
use super::engine::Engine;
use super::house::{House, HouseError};
use super::peers::Peers;
use super::place::{Door, PlaceError, open_shared, with_port_of};
use super::sniff::Who;
use super::stream::Conversation;
use super::unfinished::{Budget, Limits, free_bytes};
use super::{Closed, Message, Peer, Settings, Threads, session, sniff};
use crate::access::{Access, AllowError, Decision};
use crate::address::{Address, AddressError, Place};
use crate::carrier::{self, Accepted, Datagrams, Listener, OpenError};
use crate::endpoint::listen::with_port;
use crate::endpoint::{self, Endpoint};
use crate::error::ListenError;
use crate::gate::Gate;
use crate::keys::{Fingerprint, Identity};
use crate::server::Question;

/// Conversations have this long to end when the server goes down.
const DRAIN_TIME: Duration = Duration::from_secs(5);
/// Peers of UDP sockets that have left and whose last callbacks are not over, besides those that are there.
const LEAVING_MAX: usize = 1024;
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
    /// Peers now, without and with those that sent a datagram and proved nothing; and peers ever.
    count: AtomicUsize,
    datagram_count: AtomicUsize,
    /// UDP sockets, which share the places that are left.
    halls: usize,
    numbers: AtomicU64,
    peers: Peers,
    callbacks: Arc<Callbacks>,
    /// What unfinished messages of all peers have.
    budget: Arc<Budget>,
    /// What is called takes no time: it may be called anywhere.
    is_quick: bool,
    /// Calls of on_refuse that wait or go on.
    refusing: AtomicUsize,
    refused: AtomicU64,
}

/// A server for cabo peers and foreign programs; see the module.
pub struct Server {
    addresses: Vec<Address>,
    settings: Settings,
    house: House,
    handlers: Handlers,
    opened: Vec<Door>,
    /// Sockets that cabo peers share with foreign programs.
    shared: Vec<Box<dyn Datagrams>>,
    foreign_alone: Vec<Address>,
    sessions: Option<Sessions>,
    engine: Option<Running>,
}

/// Where cabo peers come in, and who of them may.
#[derive(Clone)]
struct Sessions {
    endpoint: Arc<Endpoint>,
    gate: Arc<Gate>,
}

/// What a server that listens has read from files, to be read again: which cabo peers may enter, and what it shows by TLS.
#[derive(Clone)]
pub struct Rules {
    gate: Option<Arc<Gate>>,
    peers: Peers,
    listeners: Vec<Weak<dyn Listener>>,
}

impl Rules {
    /// Reads the file of allowed peers again, and ends the sessions of those who were removed. Returns how many ended.
    pub fn reload(&self) -> Result<usize, AllowError> {
        let Some(gate) = &self.gate else { return Ok(0) };
        gate.access().reload()?;
        let is_removed = |peer: &Peer| {
            let judge = |(key, origin)| gate.access().judge(key, origin);
            matches!(peer.entrant().map(judge), Some(Decision::Refuse(_)))
        };
        let removed: Vec<Peer> = self.peers.list().into_iter().filter(is_removed).collect();
        removed.iter().for_each(Peer::close);
        Ok(removed.len())
    }

    /// Reads the certificates and keys of all `tls://` doors again, for peers that come from now on: where each door is, or
    /// why its old ones stay in force.
    pub fn renew(&self) -> Vec<Result<carrier::Peer, OpenError>> {
        carrier::renew_all(&self.listeners)
    }
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
    /// No socket for cabo peers.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// No identity to show to cabo peers.
    #[error(transparent)]
    House(#[from] HouseError),
    /// There is no URL at all.
    #[error("a server listens at one URL at least, and was given none")]
    Nowhere,
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
            house: House::default(),
            handlers: Handlers::default(),
            opened: Vec::new(),
            shared: Vec::new(),
            foreign_alone: Vec::new(),
            sessions: None,
            engine: None,
        }
    }

    /// The identity that cabo peers know this server by; the user's own, unless another is given.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.house.identity = Some(identity);
        self
    }

    /// Which cabo peers may enter: `|access| access.open()` lets in anyone. One's own identity always may.
    #[must_use]
    pub fn access(mut self, rules: impl FnOnce(Access) -> Access + Send + 'static) -> Self {
        self.house.rules = Some(Box::new(rules));
        self
    }

    /// Asks about cabo peers that are new, where the rules say so.
    #[must_use]
    pub fn questions(mut self, questions: mpsc::Sender<Question>) -> Self {
        self.house.questions = Some(questions);
        self
    }

    /// What sessions of cabo peers are made of.
    #[must_use]
    pub fn sessions(mut self, settings: endpoint::Settings) -> Self {
        self.house.settings = settings;
        self
    }

    /// Takes no cabo peers: what comes belongs to the dialect, whatever it begins with.
    #[must_use]
    pub fn foreign_only(mut self) -> Self {
        self.house.is_foreign_only = true;
        self
    }

    /// Who is there: for tasks beside the callbacks, to list peers and to send to one, some or all.
    pub fn peers(&self) -> Peers {
        self.handlers.peers.clone()
    }

    /// What it has read from files, from when it listens on: to be read again while it serves.
    pub fn rules(&self) -> Rules {
        let gate = self.sessions.as_ref().map(|sessions| sessions.gate.clone());
        let listener = |door: &Door| match door {
            Door::Streams(listener, _) => Some(Arc::downgrade(listener)),
            Door::Datagrams(_) => None,
        };
        let listeners = self.opened.iter().filter_map(listener).collect();
        Rules { gate, peers: self.peers(), listeners }
    }

    pub(super) fn dialect(&self) -> Arc<Dialect> {
        self.settings.dialect.clone()
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

    /// Promises that nothing that is called ever waits, for a lock that is held for long, a full queue or a file: then all is
    /// called where it happens, whatever load the machine has. One that waits all the same holds up everybody.
    #[must_use]
    pub fn never_waiting(mut self) -> Self {
        self.handlers.is_quick = true;
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
        if self.addresses.is_empty() {
            return Err(BindError::Nowhere);
        }
        let running = Running(Arc::new(Engine::start(&self.settings)?));
        self.open_house(&running.0)?;
        let got = running.0.within(self.open_doors()).await?;
        self.settings.peers_max = running.0.peers_max(self.settings.peers_max);
        self.handlers.callbacks = running.0.callbacks().clone();
        self.engine = Some(running);
        Ok(got)
    }

    /// Makes ready for cabo peers. Without an identity there are none, which only a server that needs them minds.
    fn open_house(&mut self, engine: &Arc<Engine>) -> Result<(), BindError> {
        let house = std::mem::take(&mut self.house);
        if house.is_foreign_only {
            return Ok(());
        }
        let weak = Arc::downgrade(engine);
        match house.open(&self.settings) {
            Ok((endpoint, gate)) => {
                let endpoint = Arc::new(endpoint.spawning(move |task| {
                    if let Some(engine) = weak.upgrade() {
                        engine.spawn(task);
                    }
                }));
                self.sessions = Some(Sessions { endpoint, gate: Arc::new(gate) });
            }
            Err(error) if self.addresses.iter().all(|address| carries_foreign(&address.place)) => {
                tracing::warn!(%error, "no identity, so no cabo peers: foreign programs alone");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn open_doors(&mut self) -> Result<Vec<Address>, BindError> {
        let mut got = Vec::new();
        for address in &self.addresses {
            address.check_listen()?;
            let address = with_port_of(address, &self.settings.dialect);
            match (&address.place, &self.sessions) {
                (Place::Eth { .. }, Some(Sessions { endpoint, .. })) => {
                    got.push(endpoint.listen(&address).await?.address);
                }
                (Place::Udp(host), Some(_)) => {
                    if let Some(socket) = open_shared(host, &address).await? {
                        got.push(with_port(&address, socket.local().port()));
                        self.shared.push(socket);
                        continue;
                    }
                    let door = Door::open(&address).await?;
                    let address = with_port(&address, door.local().port());
                    self.foreign_alone.push(address.clone());
                    got.push(address);
                    self.opened.push(door);
                }
                (_, _) => {
                    let door = Door::open(&address).await?;
                    got.push(with_port(&address, door.local().port()));
                    self.opened.push(door);
                }
            }
        }
        if let Some(Sessions { endpoint, .. }) = &self.sessions {
            endpoint.answer_discovery(Fingerprint::hash(endpoint.public_key()));
        }
        Ok(got)
    }

    /// Of where it listens, the places to which no cabo peer can come, though it takes them: groups, and what everybody on a
    /// link hears. Known once it [listens](Self::listen).
    pub fn foreign_alone(&self) -> &[Address] {
        &self.foreign_alone
    }

    /// Serves until `shutdown`, then lets what was sent go out; a callback that does not return keeps it for
    /// seconds only. Serves nobody before [`Self::listen`].
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let Some(Running(engine)) = &self.engine else { return };
        let is_hall = |door: &&Door| matches!(door, Door::Datagrams(_));
        let halls = self.shared.len() + self.opened.iter().filter(is_hall).count();
        let handlers = Arc::new(Handlers { halls, ..self.handlers });
        let settings = Arc::new(self.settings);
        let (down, is_down) = watch::channel(());
        if let Some(sessions) = &self.sessions {
            for socket in self.shared {
                let local = socket.local();
                let hall = Hall::new(local, settings.clone(), handlers.clone(), engine.clone());
                let share = async { sessions.endpoint.share(socket, "udp", Box::new(hall)) };
                engine.within(share).await;
            }
            let (welcoming, mut is_down) =
                (welcome_all(sessions.clone(), &settings, &handlers, engine), is_down.clone());
            engine.spawn(async move {
                tokio::select! {
                    () = welcoming => {}
                    _ = is_down.changed() => {}
                }
            });
        }
        for opened in self.opened {
            let (settings, handlers) = (settings.clone(), handlers.clone());
            let mut is_down = is_down.clone();
            let (serving, sessions) = (engine.clone(), self.sessions.clone());
            engine.spawn(async move {
                let door = async {
                    match opened {
                        Door::Streams(listener, scheme) => {
                            let inside = Inside { sessions, settings, handlers, engine: serving };
                            accept(listener, scheme, inside).await;
                        }
                        Door::Datagrams(socket) => {
                            let local = carrier::Peer::udp(socket.local());
                            let hall = Hall::new(local, settings, handlers, serving);
                            datagrams::serve(socket, hall, sessions.is_some()).await;
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
        if let Some(sessions) = &self.sessions {
            sessions.endpoint.drain();
        }
        handlers.peers.list().iter().for_each(Peer::close);
        let gone = async {
            while handlers.count.load(Relaxed) + handlers.datagram_count.load(Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(DRAIN_TIME, gone).await; // who has not gone by then is cut off
        if let Some(sessions) = &self.sessions {
            sessions.endpoint.close().await;
        }
    }
}

/// What is behind the doors.
struct Inside {
    sessions: Option<Sessions>,
    settings: Arc<Settings>,
    handlers: Arc<Handlers>,
    engine: Arc<Engine>,
}

/// Whether foreign programs can come there.
fn carries_foreign(place: &Place) -> bool {
    match place {
        Place::Tcp(_) | Place::Udp(_) | Place::Tls(_) | Place::Unix(_) => true,
        Place::Eth { .. } | Place::Redes { .. } | Place::Name(_) => false,
    }
}

/// Lets in sessions for as long as anybody asks.
fn welcome_all(
    Sessions { endpoint, gate }: Sessions,
    settings: &Arc<Settings>,
    handlers: &Arc<Handlers>,
    engine: &Arc<Engine>,
) -> impl Future<Output = ()> + use<> {
    let (settings, handlers, engine) = (settings.clone(), handlers.clone(), engine.clone());
    async move {
        loop {
            let connection = endpoint.accept().await;
            let (gate, settings, handlers) = (gate.clone(), settings.clone(), handlers.clone());
            let coming = session::welcome(connection, gate, settings, handlers);
            if let Err(error) = engine.spawn_peer(coming) {
                tracing::warn!(%error, "no thread for one more session");
            }
        }
    }
}

/// Accepts for as long as the listener lives.
async fn accept(listener: Arc<dyn Listener>, scheme: &'static str, inside: Inside) {
    loop {
        match poll_fn(|cx| listener.poll_accept(cx)).await {
            Ok(accepted) => converse(accepted, scheme, listener.promises().secure, &inside),
            Err(error) => {
                tracing::error!(%error, "the listener is gone");
                return;
            }
        }
    }
}

fn converse(accepted: Accepted, scheme: &'static str, is_secure: bool, inside: &Inside) {
    let Inside { sessions, settings, handlers, engine } = inside;
    let number = handlers.next_number();
    let peer = Peer::new(number, accepted.from, scheme, settings.clone());
    let place = match handlers.place(settings) {
        Ok(place) => place,
        Err(full) => return handlers.turned_away(peer, full, engine),
    };
    let endpoint = sessions.as_ref().map(|sessions| sessions.endpoint.clone());
    let (settings, handlers, foreign) = (settings.clone(), handlers.clone(), peer.clone());
    let begun = engine.spawn_peer(async move {
        let since = Instant::now();
        let mut accepted = match accepted.secured().await {
            Ok(accepted) => accepted,
            Err(error) => {
                handlers.admit().await;
                return handlers.refused(&foreign, &Closed::Unsecured(error));
            }
        };
        let mut said = Vec::new();
        let is_admitted = settings.foreign.admits(&accepted.from);
        let who = match &endpoint {
            Some(_) => {
                sniff::preface(&mut accepted.stream, &mut said, &settings, is_admitted).await
            }
            None => Who::Foreign,
        };
        let form = if let Who::Cabo(form) = who {
            form
        } else {
            let conversation = Conversation::new(accepted.stream, foreign, settings, handlers);
            let conversation = match who {
                Who::Silent => conversation.silent(since),
                Who::Cabo(_) | Who::Foreign => conversation.having_said(said, since),
            };
            let Some(cabo) = conversation.run_or_turn().await else { return drop(place) };
            (accepted.stream, said) = (cabo.stream, cabo.said);
            cabo.form
        };
        drop(place); // it gets one when it has proved who it is
        if let Some(endpoint) = endpoint {
            endpoint.adopt(accepted, form, said, (scheme, is_secure));
        }
    });
    if let Err(error) = begun {
        inside.handlers.turned_away(peer, error.into(), engine);
    }
}

/// One of the peers that there may be at once; free again when it is dropped.
pub(super) struct PlaceTaken {
    handlers: Arc<Handlers>,
    is_datagram: bool,
}

impl Drop for PlaceTaken {
    fn drop(&mut self) {
        self.handlers.count_of(self.is_datagram).fetch_sub(1, Relaxed);
    }
}

impl Handlers {
    pub(super) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Relaxed) + 1
    }

    /// Those of a client: all that comes goes to one place, which takes no time.
    pub(super) fn of_client(call: impl Fn(Message, &Peer) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { on_receive: Some(Box::new(call)), is_quick: true, ..Self::default() })
    }

    /// See [`Callbacks::call`].
    pub(super) fn call<R>(&self, kind: Kind, work: impl FnOnce() -> R) -> R {
        if self.is_quick { work() } else { self.callbacks.call(kind, work) }
    }

    pub(super) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// What a peer's long message is held to, with as many peers as there are.
    pub(super) fn unfinished_limits(&self, settings: &Settings) -> Limits {
        let budget_bytes = settings.unfinished_bytes_max;
        let free_bytes = free_bytes(budget_bytes, self.count.load(Relaxed));
        Limits { budget_bytes, free_bytes }
    }

    pub(super) fn callbacks(&self) -> &Callbacks {
        &self.callbacks
    }

    /// See [`Callbacks::admit`].
    pub(super) async fn admit(&self) {
        self.callbacks.admit().await;
    }

    /// A place for one more peer, or why there is none. Those that sent a datagram are not in its way: they make room.
    pub(super) fn place(self: &Arc<Self>, settings: &Settings) -> Result<PlaceTaken, Closed> {
        self.take_place(false, settings.peers_max, settings)
    }

    /// The same for one that sent a datagram. Its socket has to have room for it.
    pub(super) fn datagram_place(
        self: &Arc<Self>,
        settings: &Settings,
    ) -> Result<PlaceTaken, Closed> {
        self.take_place(true, settings.peers_max.saturating_add(LEAVING_MAX), settings)
    }

    /// How many peers that sent a datagram each UDP socket may have.
    pub(super) fn datagram_room(&self, settings: &Settings) -> usize {
        let left = settings.peers_max.saturating_sub(self.count.load(Relaxed));
        left.div_ceil(self.halls.max(1))
    }

    fn take_place(
        self: &Arc<Self>,
        is_datagram: bool,
        most: usize,
        settings: &Settings,
    ) -> Result<PlaceTaken, Closed> {
        if let Some(stuck) = self.callbacks.too_many_stuck() {
            return Err(Closed::Stuck(stuck));
        }
        let add = |count| (count < most).then_some(count + 1);
        let added = self.count_of(is_datagram).fetch_update(Relaxed, Relaxed, add);
        added.map_err(|_| Closed::TooMany(settings.peers_max))?;
        Ok(PlaceTaken { handlers: self.clone(), is_datagram })
    }

    fn count_of(&self, is_datagram: bool) -> &AtomicUsize {
        if is_datagram { &self.datagram_count } else { &self.count }
    }

    pub(super) fn connected(&self, peer: &Peer) {
        self.peers.insert(peer);
        if let Some(call) = &self.on_connect {
            self.call(Kind::Connect, || call(peer));
        }
        self.has_room(peer);
    }

    pub(super) fn received(&self, message: Message, peer: &Peer) {
        if let Some(call) = &self.on_receive {
            self.call(Kind::Receive, || call(message, peer));
        }
    }

    pub(super) fn has_on_send(&self) -> bool {
        self.on_send.is_some()
    }

    /// The peer has taken all: more, if there is more.
    pub(super) fn has_room(&self, peer: &Peer) {
        if let Some(call) = &self.on_send
            && peer.waiting_bytes() == 0
            && let Some(bytes) = self.call(Kind::Send, || call(peer))
            && let Err(error) = peer.send(bytes)
        {
            tracing::debug!(%error, ?peer, "what on_send gave cannot be sent");
        }
    }

    pub(super) fn closed(&self, peer: &Peer, closed: &Closed) {
        self.peers.remove(peer);
        if let Some(call) = &self.on_close {
            let called = AssertUnwindSafe(|| self.call(Kind::Close, || call(peer, closed)));
            let _ = catch_unwind(called); // its peer is gone anyway
        }
    }

    pub(super) fn refused(&self, peer: &Peer, closed: &Closed) {
        self.refused.fetch_add(1, Relaxed);
        if let Some(call) = &self.on_refuse {
            let called = AssertUnwindSafe(|| self.call(Kind::Refuse, || call(peer, closed)));
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
}
