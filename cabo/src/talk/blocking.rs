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
use super::{ClientError, Message, client};
use crate::address::Address;
use crate::carrier;

/// What is sent has this long to be taken by the kernel; a server that reads nothing for so long is given up.
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
    /// A message could not be sent in time, or only a part of it: the conversation is over.
    #[error("the server took too little within {0:?}")]
    NotTaken(Duration),
    /// No threads for sockets.
    #[error("the threads of clients cannot be started: {0}")]
    Threads(#[source] io::Error),
}

/// A conversation with a server, by calls that block.
pub struct Client {
    receiver: client::Receiver,
    sender: Option<client::Sender>,
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

    /// A conversation that was begun otherwise.
    pub fn of(client: client::Client) -> Self {
        let to = client.to();
        let (receiver, sender) = client.split();
        Self { receiver, sender: Some(sender), to }
    }

    /// Whom we reached.
    pub fn to(&self) -> carrier::Peer {
        self.to
    }

    /// Sends a message; the cut's header or end mark is added, but for messages that are layouts.
    pub fn send(&mut self, payload: impl AsRef<[u8]>) -> Result<(), BlockingError> {
        self.send_by(async |sender| sender.send(payload.as_ref()).await)
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

    /// Sends a message and returns the next one, for protocols in which that is the answer.
    pub fn request(
        &mut self,
        payload: impl AsRef<[u8]>,
        within: Duration,
    ) -> Result<Message, BlockingError> {
        self.send(payload)?;
        self.recv(within)
    }

    /// Says that nothing more comes from here; the server may go on.
    pub fn finish(&mut self) -> Result<(), BlockingError> {
        self.send_by(async |sender| Ok(sender.finish().await?))?;
        self.sender = None;
        Ok(())
    }

    fn send_by(
        &mut self,
        send: impl AsyncFnOnce(&mut client::Sender) -> Result<(), ClientError>,
    ) -> Result<(), BlockingError> {
        let Some(sender) = &mut self.sender else { return Err(BlockingError::Ended) };
        match wait_for(send(sender), SEND_TIME).map_err(BlockingError::Threads)? {
            Some(sent) => Ok(sent?),
            None => {
                self.sender = None; // a part of a message may have gone
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
