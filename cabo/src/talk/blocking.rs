//! The client for who does not await: each call returns when it is done, or when its time is over.
//!
//! Nothing asynchronous shows, and it works on any thread: in a program without a runtime, in callbacks, in tasks of a
//! runtime (which it holds up). Sockets and timers are those of the threads that all clients of the process share
//! (`engine`). A server blocks by itself: [`Server::run`](super::Server::run).
//!
//! ```no_run
//! use std::time::Duration;
//! use cabo::{proto::dialect::Dialect, talk::blocking::Client};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut client = Client::connect("tcp://localhost:5005", Dialect::parse("lines")?)?;
//! let answer = client.request("hola", Duration::from_secs(5))?;
//! println!("{:?}", answer.payload());
//! client.close()?;
//!
//! let mut client = Client::connect_cabo("udp://192.0.2.1:5555")?; // a cabo peer: sealed, over eth:// too
//! let answer = client.request_as("state", "lamp", Duration::from_secs(5))?;
//! # drop(answer);
//! # Ok(()) }
//! ```

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use cabo_proto::dialect::Dialect;
use cabo_proto::dialect::value::Fields;

use super::engine::Engine;
use super::house::own_client;
use super::{ClientError, Message, Peer, RequestError, Settings, client};
use crate::address::Address;
use crate::{carrier, client as sessions};

/// What is sent has this long to be taken; a server that reads nothing for so long is given up.
const SEND_TIME: Duration = Duration::from_secs(30);

/// Why a call did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum BlockingError {
    /// The conversation does not begin or go on.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Nothing came; the conversation goes on.
    #[error("nothing came within {0:?}")]
    NothingCame(Duration),
    /// The server ended its stream.
    #[error("the server has ended the conversation")]
    Ended,
    /// A request has no answer; the conversation goes on.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A message could not be sent in time, or only a part of it: the conversation is over.
    #[error("the server took too little within {0:?}")]
    NotTaken(Duration),
    /// No threads for sockets.
    #[error("the threads of clients cannot be started: {0}")]
    Threads(#[source] io::Error),
}

/// A conversation with a server, by calls that block. [`Client::close`] waits until a cabo peer has all that was sent;
/// where it is dropped instead, what was sent last goes out if the process lives on.
pub struct Client {
    receiver: client::Receiver,
    sender: client::Sender,
    /// Nothing more is sent.
    is_over: bool,
    to: carrier::Peer,
}

impl Client {
    /// Connects and says the first words of the dialect, whose port is taken where the URL names none.
    pub fn connect(
        url: impl AsRef<str>,
        dialect: impl Into<Arc<Dialect>>,
    ) -> Result<Self, BlockingError> {
        let address: Address = url.as_ref().parse().map_err(ClientError::from)?;
        let dialect = dialect.into();
        let client = wait(client::Client::connect(&address, dialect));
        Ok(Self::of(client.map_err(BlockingError::Threads)??))
    }

    /// Connects to a cabo peer at a URL of any carrier, as the user that this is, and knows it again by its key.
    pub fn connect_cabo(url: impl AsRef<str>) -> Result<Self, BlockingError> {
        let address: Address = url.as_ref().parse().map_err(ClientError::from)?;
        let over = own_client().map_err(ClientError::from)?;
        Self::connect_over(over, &address, Settings::default())
    }

    /// Connects to a cabo peer by a client of sessions, which has an identity and knows servers. The dialect of the
    /// settings says what payloads hold.
    pub fn connect_over(
        over: sessions::Client,
        address: &Address,
        settings: Settings,
    ) -> Result<Self, BlockingError> {
        let engine = Engine::of_clients().map_err(BlockingError::Threads)?;
        let over = over.spawning(engine.spawner());
        let client = wait(client::Client::connect_on(engine, &over, address, settings));
        Ok(Self::of(client.map_err(BlockingError::Threads)??))
    }

    /// A conversation that was begun otherwise. One with a cabo peer lasts as long as the runtime in which it was begun.
    pub fn of(client: client::Client) -> Self {
        let to = client.to();
        let (receiver, sender) = client.split();
        Self { receiver, sender, is_over: false, to }
    }

    /// Whom we reached.
    pub fn to(&self) -> carrier::Peer {
        self.to
    }

    /// The other side, where it is a cabo peer: to answer its requests, among others.
    pub fn peer(&self) -> Option<&Peer> {
        self.sender.peer()
    }

    /// Sends a message; the cut's header or end mark is added, but for messages that are layouts.
    pub fn send(&mut self, payload: impl AsRef<[u8]>) -> Result<(), BlockingError> {
        self.send_by(async |sender| sender.send(payload.as_ref()).await)
    }

    /// Sends a one-way message of a kind to a cabo peer.
    pub fn send_as(&mut self, kind: &str, payload: impl AsRef<[u8]>) -> Result<(), BlockingError> {
        self.send_by(async |sender| sender.send_as(kind, payload.as_ref()).await)
    }

    /// Sends a message made of named values.
    pub fn send_fields(
        &mut self,
        kind: Option<&str>,
        fields: &Fields,
    ) -> Result<(), BlockingError> {
        self.send_by(async |sender| sender.send_fields(kind, fields).await)
    }

    /// The next message.
    pub fn recv(&mut self, within: Duration) -> Result<Message, BlockingError> {
        match wait_for(self.receiver.next(), within).map_err(BlockingError::Threads)? {
            Some(next) => next?.ok_or(BlockingError::Ended),
            None => Err(BlockingError::NothingCame(within)),
        }
    }

    /// Asks a cabo peer and returns its answer. Of a foreign program the next message is returned, for protocols in which
    /// that is the answer.
    pub fn request(
        &mut self,
        payload: impl AsRef<[u8]>,
        within: Duration,
    ) -> Result<Message, BlockingError> {
        if self.peer().is_some() {
            return self.request_as("", payload, within);
        }
        self.send(payload)?;
        self.recv(within)
    }

    /// Asks a cabo peer by a message of a kind. Messages that come meanwhile wait for [`Self::recv`].
    pub fn request_as(
        &mut self,
        kind: &str,
        payload: impl AsRef<[u8]>,
        within: Duration,
    ) -> Result<Message, BlockingError> {
        let asking = self.sender.ask(kind, payload.as_ref(), within);
        match wait_for(asking, within).map_err(BlockingError::Threads)? {
            Some(answer) => Ok(answer?),
            None => Err(RequestError::Deadline(within).into()),
        }
    }

    /// Says that nothing more comes from here; the server may go on.
    pub fn finish(&mut self) -> Result<(), BlockingError> {
        self.send_by(async |sender| Ok(sender.finish().await?))?;
        self.is_over = true;
        Ok(())
    }

    /// Ends the conversation, and waits until a cabo peer has all that was sent.
    pub fn close(self) -> Result<(), BlockingError> {
        let Self { receiver, mut sender, .. } = self;
        drop(receiver);
        let closed = wait_for(sender.close(), SEND_TIME).map_err(BlockingError::Threads)?;
        Ok(closed.ok_or(BlockingError::NotTaken(SEND_TIME))??)
    }

    fn send_by(
        &mut self,
        send: impl AsyncFnOnce(&mut client::Sender) -> Result<(), ClientError>,
    ) -> Result<(), BlockingError> {
        if self.is_over {
            return Err(BlockingError::Ended);
        }
        match wait_for(send(&mut self.sender), SEND_TIME).map_err(BlockingError::Threads)? {
            Some(sent) => Ok(sent?),
            None => {
                self.is_over = true; // a part of a message may have gone
                Err(BlockingError::NotTaken(SEND_TIME))
            }
        }
    }
}

/// Waits on this thread.
pub(super) fn wait<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let engine = Engine::of_clients()?;
    let mut work = pin!(work);
    let waker = waker();
    loop {
        if let Poll::Ready(done) = engine.poll(work.as_mut(), &mut Context::from_waker(&waker)) {
            return Ok(done);
        }
        thread::park();
    }
}

/// Waits on this thread until the time is over, which drops the work.
fn wait_for<T>(work: impl Future<Output = T>, within: Duration) -> io::Result<Option<T>> {
    let engine = Engine::of_clients()?;
    let until = Instant::now().checked_add(within);
    let mut work = pin!(work);
    let waker = waker();
    loop {
        if let Poll::Ready(done) = engine.poll(work.as_mut(), &mut Context::from_waker(&waker)) {
            return Ok(Some(done));
        }
        match until.map(|until| until.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => return Ok(None),
            Some(left) => thread::park_timeout(left),
            None => thread::park(),
        }
    }
}

struct Parked(Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn waker() -> Waker {
    Waker::from(Arc::new(Parked(thread::current())))
}
