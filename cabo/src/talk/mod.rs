//! Messages with programs that know nothing of cabo, over TCP, TLS, UDP and Unix sockets.
//!
//! A [`Server`] has many peers at once and tells callbacks what happens; a [`Client`] is the other end, for who prefers
//! to await. What a message is, a [`Dialect`] says (`cabo_proto::dialect`): how a stream is cut, what is said first, which
//! bytes a message has.
//!
//! ```no_run
//! use cabo::talk::{Server, Settings};
//! use cabo::proto::dialect::Dialect;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! Server::bind(["tcp://:5005", "udp://:5005"])?
//!     .settings(Settings { dialect: Dialect::parse("lines")?.into(), ..Settings::default() })
//!     .on_receive(|message, peer| {
//!         let _ = peer.send_back(&message); // an echo; a peer that reads too slowly is not read either
//!     })
//!     .run()?;
//! # Ok(()) }
//! ```
//!
//! [`Callers`] are whoever connects to us, awaited one after another: each is a conversation as a [`Client`] has it.
//! `peer` is the handle that callbacks get, `stream` drives one peer on a stream carrier, `datagrams` all peers of a UDP
//! socket, `server` listens, `engine` has the threads and `callback` says on which one is called; `reconnect`, `blocking`
//! and `streams` are the client in other shapes. Only `carrier` names a socket.

pub mod blocking;
pub mod callers;
pub mod client;
pub mod peer;
pub mod reconnect;
pub mod server;
pub mod streams;

mod callback;
mod datagrams;
mod engine;
mod place;
mod query;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cabo_proto::dialect::cut::{Cut, CutError};
use cabo_proto::dialect::{Decoded, Dialect, NoKind};

pub use callers::{Call, Callers};
pub use client::{Client, ClientError, Seen, Watch};
pub use peer::{Peer, SendError};
pub use place::PlaceError;
pub use reconnect::{Link, Reconnecting};
pub use server::{BindError, Server};

/// What a server or client holds its peers to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What a message is.
    pub dialect: Arc<Dialect>,
    /// Bytes that wait for one peer; what comes then, [`Slow`] says.
    pub outgoing_bytes_max: usize,
    /// What to do with a peer that does not take what is sent to it.
    pub slow: Slow,
    /// A peer that says nothing for so long is left; forever where there is none.
    pub idle_time: Option<Duration>,
    /// Peers at once; one more is turned away.
    pub peers_max: usize,
    /// What runs on which thread. Results are alike.
    pub threads: Threads,
    /// A callback that has not returned for so long is stuck: it has cost a thread.
    pub stuck_time: Duration,
    /// Stuck callbacks, each with its thread; while there are so many, nobody new is let in. From 1 to 16,384. As many as
    /// that and 256 more may block at once; the callbacks of other peers wait for one of them to return.
    pub stuck_max: usize,
}

/// What runs on which thread of a server.
///
/// Callbacks run where the socket was read while they are quick, and beside that where they are not: one that blocks, or
/// never returns, holds up its own peer alone. For that one thread more than there are loops stands by.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Threads {
    /// An event loop a core.
    #[default]
    Cores,
    /// So many event loops for all peers together.
    Loop(usize),
    /// A thread for each peer of a stream carrier, of whom there are 4096 at most. Those of a UDP socket share the loops.
    PerPeer,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            dialect: Arc::new(Dialect::of_cut("raw", Cut::Raw)),
            outgoing_bytes_max: 1024 * 1024,
            slow: Slow::Wait,
            idle_time: None,
            peers_max: 100_000,
            threads: Threads::Cores,
            stuck_time: Duration::from_secs(5),
            stuck_max: 256,
        }
    }
}

/// What happens to a peer that takes less than is sent to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Slow {
    /// [`Peer::send`] says that it is full, and the peer is not read while more than half of its room is used.
    Wait,
    /// The oldest messages that wait are dropped, and counted.
    DropOldest,
    /// It is disconnected.
    Disconnect,
}

/// One whole message of a peer.
#[derive(Clone, Debug)]
pub struct Message {
    bytes: Bytes,
    dialect: Arc<Dialect>,
}

impl Message {
    pub(crate) fn new(bytes: Bytes, dialect: Arc<Dialect>) -> Self {
        Self { bytes, dialect }
    }

    /// All of it, as the cut gave it.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What [`Peer::send`] takes to send the same: without a header that announces its length.
    pub fn payload(&self) -> Bytes {
        match &self.dialect.cut {
            Cut::Length(header) if self.dialect.kinds.is_empty() => {
                self.bytes.slice(header.size().min(self.bytes.len())..)
            }
            Cut::Length(_) | Cut::Raw | Cut::Lines | Cut::Nul | Cut::Any | Cut::Struct(_) => {
                self.bytes.clone()
            }
        }
    }

    /// Its values, by name.
    pub fn decode(&self) -> Result<Decoded, NoKind> {
        self.dialect.decode(&self.bytes)
    }
}

/// How a peer left, or was left.
#[derive(Debug, thiserror::Error)]
pub enum Closed {
    /// The peer ended its stream after a whole message, or a callback closed it.
    #[error("closed")]
    Ended,
    /// We go down.
    #[error("the server is going down")]
    GoingDown,
    /// The first words were not those of the dialect.
    #[error("does not speak {0}: its first words were others")]
    Stranger(String),
    /// The first words did not come in time.
    #[error("said nothing that is a greeting within {0:?}")]
    NoGreeting(Duration),
    /// The handshake of its carrier failed (TLS).
    #[error("not let in by TLS: {0}")]
    Unsecured(std::io::Error),
    /// What it sent is no message.
    #[error(transparent)]
    Malformed(#[from] CutError),
    /// It took too little of what was sent to it.
    #[error("took too little of what was sent to it")]
    TooSlow,
    /// It said nothing for the time that it had.
    #[error("said nothing for {0:?}")]
    Idle(Duration),
    /// Its socket failed.
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    /// A callback for it panicked.
    #[error("a callback for it panicked")]
    Panicked,
    /// There are too many peers.
    #[error("there are already {0} peers")]
    TooMany(usize),
    /// Callbacks of earlier peers keep too many threads.
    #[error("{0} callbacks have not returned, and nobody new is let in")]
    Stuck(usize),
}
