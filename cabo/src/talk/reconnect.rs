//! A client that finds its server again, and keeps meanwhile what is to be sent.
//!
//! What is promised: messages that wait go out in the order in which they were sent, each at most once. What is not: a
//! message that was on its way when the connection broke may be lost, for nobody but the server knows whether it came;
//! who has to know asks for an answer. Neighbours: `client` is one connection, `cabo_proto::retry` says the pauses and
//! keeps the queue, `engine` has the threads.

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use cabo_proto::dialect::Dialect;
use cabo_proto::retry::{BackOff, Full, Queue, Refused};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::callback::Kind;
use super::engine::Engine;
use super::{Client, ClientError, Message, blocking};
use crate::address::{Address, AddressError};

/// After our end the server's last bytes are read for this long, so that no reset destroys what it has not read yet.
const LINGER_TIME: Duration = Duration::from_secs(2);

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

/// Why a message does not wait to be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LinkError {
    /// There is no room.
    #[error(transparent)]
    Full(#[from] Refused),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

/// A client that connects again, before it starts.
pub struct Reconnecting {
    connect: Box<dyn Fn() -> Connecting + Send + Sync>,
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
        Ok(Self::by(move || {
            let (address, dialect) = (address.clone(), dialect.clone());
            async move { Client::connect(&address, dialect).await }
        }))
    }

    /// Connects as `connect` does.
    pub fn by<F>(connect: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Client, ClientError>> + Send + 'static,
    {
        Self {
            connect: Box::new(move || Box::pin(connect())),
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
        let Perseverance { waiting_bytes_max, full, .. } = self.settings;
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::new(waiting_bytes_max, full)),
            filled: Notify::new(),
            closing: watch::Sender::new(false),
            ended: watch::Sender::new(false),
            is_connected: AtomicBool::new(false),
            drain_time: self.settings.drain_time,
        });
        let last = Arc::new(LastLink(shared.clone()));
        let running = Running {
            is: self,
            shared: shared.clone(),
            last: Arc::downgrade(&last),
            engine: engine.clone(),
        };
        engine.spawn(async move { running.run().await });
        Ok(Link { shared, _last: Some(last) })
    }
}

/// The handle of a client that connects again. Cheap to clone; what is sent through any clone goes out in order.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
    _last: Option<Arc<LastLink>>,
}

struct Shared {
    queue: Mutex<Queue>,
    filled: Notify,
    closing: watch::Sender<bool>,
    ended: watch::Sender<bool>,
    is_connected: AtomicBool,
    drain_time: Duration,
}

/// Goes with the last handle.
struct LastLink(Arc<Shared>);

impl Drop for LastLink {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Link {
    /// Sends a message, now or when there is a connection again; the cut's header or end mark is added, but for
    /// messages that are layouts.
    pub fn send(&self, payload: impl Into<Bytes>) -> Result<(), LinkError> {
        if *self.shared.closing.borrow() {
            return Err(LinkError::Closed);
        }
        self.shared.lock().push(payload.into())?;
        self.shared.filled.notify_one();
        Ok(())
    }

    /// Whether there is a connection, as far as anybody knows.
    pub fn is_connected(&self) -> bool {
        self.shared.is_connected.load(Relaxed)
    }

    /// Bytes that wait, as they are counted.
    pub fn waiting_bytes(&self) -> usize {
        self.shared.lock().bytes()
    }

    /// Messages that were dropped because there was no room ([`Full::DropOldest`]).
    pub fn dropped_messages(&self) -> u64 {
        self.shared.lock().dropped_messages()
    }

    /// Lets what waits go out, for as long as the settings say, and ends. Returns whether all of it went.
    pub async fn close(self) -> bool {
        let mut ended = self.shared.ended.subscribe();
        self.shared.close();
        let within = self.shared.drain_time.saturating_add(LINGER_TIME);
        let has_ended = timeout(within, ended.wait_for(|ended| *ended)).await; // a callback may not return
        has_ended.is_ok() && self.shared.lock().is_empty()
    }

    /// The same for who does not await; not to be called from its own callbacks, which it would wait for.
    pub fn close_blocking(self) -> bool {
        blocking::wait(self.close()).unwrap_or(false)
    }
}

impl Shared {
    fn close(&self) {
        self.closing.send_replace(true);
        self.filled.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next message that waits; none when all went out and no more come.
    async fn next(&self) -> Option<Bytes> {
        loop {
            if let Some(message) = self.lock().pop() {
                return Some(message);
            }
            if *self.closing.borrow() {
                return None;
            }
            self.filled.notified().await;
        }
    }

    fn is_done(&self) -> bool {
        *self.closing.borrow() && self.lock().is_empty()
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
            let _ = self.shared.closing.subscribe().wait_for(|closing| *closing).await;
            sleep(self.shared.drain_time).await;
        };
        tokio::select! {
            () = self.persevere() => {}
            () = closed => {}
        }
        self.shared.is_connected.store(false, Relaxed);
        self.shared.ended.send_replace(true);
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
                    self.shared.is_connected.store(false, Relaxed);
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
            let mut closing = self.shared.closing.subscribe();
            tokio::select! {
                () = sleep(pause) => {}
                _ = closing.wait_for(|closing| *closing), if !*self.shared.closing.borrow() => {}
            }
        }
    }

    /// One connection, to its end: why it ended, where that was not the end of the server's stream.
    async fn converse(&self, client: Client) -> Option<ClientError> {
        let (mut receiver, mut sender) = client.split();
        self.shared.is_connected.store(true, Relaxed);
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
            while let Some(message) = self.shared.next().await {
                sender.send(&message).await?;
            }
            sender.finish().await?;
            Ok::<(), ClientError>(())
        };
        tokio::select! {
            why = &mut receiving => return why,
            sent = sending => if let Err(error) = sent { return Some(error) },
        }
        timeout(LINGER_TIME, receiving).await.unwrap_or(None)
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
        Link { shared: self.shared.clone(), _last: self.last.upgrade() }
    }
}

/// Any number. Without one all clients would come back together, and no worse.
fn chance() -> u64 {
    let mut bytes = [0; 8];
    let _ = aws_lc_rs::rand::fill(&mut bytes); // it stays zero
    u64::from_be_bytes(bytes)
}
