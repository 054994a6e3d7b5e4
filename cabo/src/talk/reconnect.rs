//! A client that finds its server again, and keeps meanwhile what is to be sent.
//!
//! What is promised: messages that wait go out in the order in which they were sent, each at most once. What is not: a
//! message that was on its way when the connection broke may be lost, for nobody but the server knows whether it came;
//! who has to know asks for an answer, of a cabo peer by [`Link::request`]. Neighbours: `client` is one connection,
//! `link` the handle, `cabo_proto::retry` says the pauses and keeps the queue, `engine` has the threads.
//!
//! ```no_run
//! use std::time::Duration;
//! use cabo::talk::Reconnecting;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let link = Reconnecting::to_cabo("eth://enp3s0")? // or to(url, dialect): a foreign program
//!     .on_receive(|message, _| println!("{message:?}"))
//!     .start()?;
//! link.send_as("lamp", "on")?; // now, or when somebody is there
//! let state = link.request_blocking("state", "lamp", Duration::from_secs(60))?;
//! # drop(state);
//! # Ok(()) }
//! ```

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::time::Duration;

use cabo_proto::dialect::Dialect;
use cabo_proto::retry::{BackOff, Full};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::callback::Kind;
use super::client::Sender;
use super::engine::Engine;
use super::house::own_client;
use super::link::{LINGER_TIME, LastLink, Link, Shared, Speech, Waiting, What};
use super::place::with_port_of;
use super::{Client, ClientError, Message, SendError, Settings};
use crate::address::{Address, AddressError};
use crate::client;

pub use super::link::{Answering, LinkError};

/// Bytes that a cabo peer's connection takes ahead of its stream; the rest waits, and is not lost with it.
const AHEAD_BYTES: usize = 64 * 1024;

type Connecting = Pin<Box<dyn Future<Output = Result<Client, ClientError>> + Send>>;
type OnLink = Box<dyn Fn(&Link) + Send + Sync>;
type OnLost = Box<dyn Fn(&Lost) + Send + Sync>;
type OnReceive = Box<dyn Fn(Message, &Link) + Send + Sync>;

/// How long is waited, and how much may wait.
#[derive(Clone, Debug)]
pub struct Perseverance {
    /// The pause after the first loss; each one after it doubles, less its jitter.
    pub first_pause: Duration,
    /// No pause is longer.
    pub longest_pause: Duration,
    /// Bytes that may wait; each message counts as 64 more than it has.
    pub waiting_bytes_max: usize,
    /// What becomes of a message for which there is no room.
    pub full: Full,
    /// What waits has this long to go out when the client is closed.
    pub drain_time: Duration,
}

impl Default for Perseverance {
    fn default() -> Self {
        Self {
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(30),
            waiting_bytes_max: 1024 * 1024,
            full: Full::Refuse,
            drain_time: Duration::from_secs(5),
        }
    }
}

/// There is no connection, or no longer.
#[derive(Debug)]
pub struct Lost {
    /// Why; none where the server ended its stream.
    pub why: Option<ClientError>,
    /// The next attempt begins after this.
    pub pause: Duration,
}

/// A client that connects again, before it starts.
pub struct Reconnecting {
    connect: Box<dyn Fn() -> Connecting + Send + Sync>,
    speech: Speech,
    settings: Perseverance,
    on_connected: Option<OnLink>,
    on_receive: Option<OnReceive>,
    on_lost: Option<OnLost>,
}

impl Reconnecting {
    /// Connects to this URL, speaking this dialect.
    pub fn to(
        url: impl AsRef<str>,
        dialect: impl Into<Arc<Dialect>>,
    ) -> Result<Self, AddressError> {
        let address: Address = url.as_ref().parse()?;
        address.check_connect()?;
        let dialect = dialect.into();
        let speech = Speech::Foreign(dialect.clone());
        let reconnecting = Self::by(move || {
            let (address, dialect) = (address.clone(), dialect.clone());
            async move { Client::connect(&address, dialect).await }
        });
        Ok(Self { speech, ..reconnecting })
    }

    /// Connects to a cabo peer at a URL of any carrier, as the user that this is, and knows it again by its key.
    pub fn to_cabo(url: impl AsRef<str>) -> Result<Self, ClientError> {
        let address: Address = url.as_ref().parse()?;
        let settings = Settings { outgoing_bytes_max: AHEAD_BYTES, ..Settings::default() };
        Self::to_cabo_over(own_client()?, &address, settings)
    }

    /// Connects to a cabo peer by a client of sessions, which has an identity and knows servers. The dialect of the
    /// settings says what payloads hold; the less `outgoing_bytes_max` is, the less is lost with a connection.
    pub fn to_cabo_over(
        over: client::Client,
        address: &Address,
        settings: Settings,
    ) -> Result<Self, ClientError> {
        address.check_connect()?;
        let engine = Engine::of_clients()?;
        let over = Arc::new(over.spawning(engine.spawner()));
        let speech = Speech::Cabo { limit_bytes: settings.dialect.limit_bytes };
        let address = with_port_of(address, &settings.dialect);
        let reconnecting = Self::by(move || {
            let (engine, over) = (engine.clone(), over.clone());
            let (address, settings) = (address.clone(), settings.clone());
            async move {
                let connection = over.connect(&address).await?.connection;
                // Who asks its owner about us may say no, and nothing is to be lost by that.
                connection.admitted().await.map_err(ClientError::Ended)?;
                Client::begin(connection, settings, engine.spawner()).await
            }
        });
        Ok(Self { speech, ..reconnecting })
    }

    /// Connects as `connect` does. Whether a message can be sent at all shows when it is its turn: one that cannot costs the
    /// connection, and is why that is [lost](Self::on_lost).
    pub fn by<F>(connect: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Client, ClientError>> + Send + 'static,
    {
        Self {
            connect: Box::new(move || Box::pin(connect())),
            speech: Speech::Unknown,
            settings: Perseverance::default(),
            on_connected: None,
            on_receive: None,
            on_lost: None,
        }
    }

    /// How long is waited, and how much may wait.
    #[must_use]
    pub fn settings(mut self, settings: Perseverance) -> Self {
        self.settings = settings;
        self
    }

    /// Calls this whenever there is a connection. What it sends goes behind what waits.
    #[must_use]
    pub fn on_connected(mut self, call: impl Fn(&Link) + Send + Sync + 'static) -> Self {
        self.on_connected = Some(Box::new(call));
        self
    }

    /// Calls this for every message.
    #[must_use]
    pub fn on_receive(mut self, call: impl Fn(Message, &Link) + Send + Sync + 'static) -> Self {
        self.on_receive = Some(Box::new(call));
        self
    }

    /// Calls this whenever a connection is lost, or could not be made.
    #[must_use]
    pub fn on_lost(mut self, call: impl Fn(&Lost) + Send + Sync + 'static) -> Self {
        self.on_lost = Some(Box::new(call));
        self
    }

    /// Starts, on threads that all such clients of the process share; callbacks may block there. It goes on until the
    /// last [`Link`] is dropped or [`Link::close`] is called.
    pub fn start(self) -> io::Result<Link> {
        let engine = Engine::of_clients()?;
        let shared = Shared::new(&self.settings, self.speech.clone());
        let last = Arc::new(LastLink(shared.clone()));
        let running = Running {
            is: self,
            shared: shared.clone(),
            last: Arc::downgrade(&last),
            engine: engine.clone(),
        };
        engine.spawn(async move { running.run().await });
        Ok(Link::new(shared, Some(last)))
    }
}

/// The client, as it runs.
struct Running {
    is: Reconnecting,
    shared: Arc<Shared>,
    last: Weak<LastLink>,
    engine: Arc<Engine>,
}

impl Running {
    async fn run(&self) {
        let closed = async {
            self.shared.closed().await;
            sleep(self.is.settings.drain_time).await;
        };
        tokio::select! {
            () = self.persevere() => {}
            () = closed => {}
        }
        self.shared.ended();
    }

    /// Connects again and again, until all that was to be sent has been.
    async fn persevere(&self) {
        let Perseverance { first_pause, longest_pause, .. } = self.is.settings;
        let mut back_off = BackOff::new(first_pause, longest_pause);
        while !self.shared.is_done() {
            let why = match (self.is.connect)().await {
                Ok(client) => {
                    let since = Instant::now();
                    let why = self.converse(client).await;
                    self.shared.disconnected();
                    back_off.lost(since.elapsed());
                    why
                }
                Err(error) => Some(error),
            };
            if self.shared.is_done() {
                return;
            }
            let pause = back_off.next_pause(chance());
            if let Some(call) = &self.is.on_lost {
                let lost = Lost { why, pause };
                self.call(Kind::Close, || call(&lost)).await;
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = self.shared.closed(), if !self.shared.is_closing() => {}
            }
        }
    }

    /// One connection, to its end: why it ended, where that was not the end of the server's stream.
    async fn converse(&self, client: Client) -> Option<ClientError> {
        let (mut receiver, mut sender) = client.split();
        self.shared.connected(sender.peer());
        if let Some(call) = &self.is.on_connected {
            self.call(Kind::Connect, || call(&self.link())).await;
        }
        let mut receiving = pin!(async {
            loop {
                match receiver.next().await {
                    Ok(Some(message)) => self.receive(message).await,
                    Ok(None) => return None,
                    Err(error) => return Some(error),
                }
            }
        });
        let sending = async {
            while let Some(waiting) = self.shared.next().await {
                send(&self.shared, &mut sender, waiting).await?;
            }
            sender.finish().await?;
            Ok::<(), ClientError>(())
        };
        tokio::select! {
            why = &mut receiving => return why,
            sent = sending => if let Err(error) = sent { return Some(error) },
        }
        let why = timeout(LINGER_TIME, receiving).await.unwrap_or(None);
        why.or(sender.close().await.err()) // a cabo peer may have more to take
    }

    async fn receive(&self, message: Message) {
        if let Some(call) = &self.is.on_receive {
            self.call(Kind::Receive, || call(message, &self.link())).await;
        }
    }

    /// A callback that panics is reported as any panic is, and ends nothing.
    async fn call(&self, kind: Kind, work: impl FnOnce()) {
        let callbacks = self.engine.callbacks();
        callbacks.admit().await;
        let _ = catch_unwind(AssertUnwindSafe(|| callbacks.call(kind, work)));
    }

    fn link(&self) -> Link {
        Link::new(self.shared.clone(), self.last.upgrade())
    }
}

/// Sends what has waited. What a cabo peer did not take goes back to where it waited; a foreign program may have a part.
async fn send(shared: &Shared, sender: &mut Sender, waiting: Waiting) -> Result<(), ClientError> {
    if sender.peer().is_none() {
        return send_foreign(sender, waiting).await;
    }
    let mut held = Held { shared, waiting: Some(waiting) };
    let sent = held.send(sender).await;
    if !matches!(sent, Err(ClientError::Send(SendError::Gone))) {
        held.waiting = None;
    }
    sent
}

async fn send_foreign(sender: &mut Sender, waiting: Waiting) -> Result<(), ClientError> {
    match waiting.what {
        What::Plain => sender.send(&waiting.payload).await,
        What::OfKind | What::Request { .. } => sender.send_as(&waiting.kind, b"").await, // says why not
    }
}

/// A message that was taken to be sent.
struct Held<'a> {
    shared: &'a Shared,
    waiting: Option<Waiting>,
}

impl Held<'_> {
    /// Sends it. A request whose time is over, or that nobody awaits any more, is not sent.
    async fn send(&mut self, sender: &mut Sender) -> Result<(), ClientError> {
        let Some(Waiting { kind, payload, what }) = &mut self.waiting else { return Ok(()) };
        let (until, answer) = match what {
            What::Plain => return sender.send(payload).await,
            What::OfKind => return sender.send_as(kind, payload).await,
            What::Request { until, answer } => (until, answer),
        };
        let within = until.saturating_duration_since(std::time::Instant::now());
        if within.is_zero() || answer.as_ref().is_none_or(oneshot::Sender::is_closed) {
            return Ok(());
        }
        let asked = sender.asking(kind, payload, within).await?;
        if asked.refusal() == Some(&SendError::Gone) {
            return Err(SendError::Gone.into());
        }
        if let Some(answer) = answer.take() {
            let _ = answer.send(asked); // dropped, it is cancelled
        }
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            self.shared.put_back(waiting);
        }
    }
}

/// Any number. Without one all clients would come back together, and no worse.
fn chance() -> u64 {
    let mut bytes = [0; 8];
    let _ = aws_lc_rs::rand::fill(&mut bytes); // it stays zero
    u64::from_be_bytes(bytes)
}
