//! Messages: with cabo peers over every carrier, and with programs that know nothing of cabo over TCP, TLS, UDP and Unix
//! sockets, at the same ports.
//!
//! A [`Server`] has many peers at once and tells callbacks what happens; a [`Client`] is the other end, for who prefers
//! to await. With cabo peers, messages have kinds and may be requests (`messages/1`, services M-11). With foreign
//! programs a [`Dialect`] says what a message is (`cabo_proto::dialect`): how a stream is cut, what is said first, which
//! bytes a message has.
//!
//! ```no_run
//! use cabo::talk::{Server, Settings};
//! use cabo::proto::dialect::Dialect;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! Server::bind(["tcp://:5005", "udp://:5005", "eth://enp3s0"])?
//!     .settings(Settings { dialect: Dialect::parse("lines")?.into(), ..Settings::default() })
//!     .on_receive(|message, peer| {
//!         let _ = peer.send_back(&message); // an echo; a peer that reads too slowly is not read either
//!     })
//!     .run()?;
//! # Ok(()) }
//! ```
//!
//! [`Guests`] are whoever comes to a [`Server`], awaited one after another: each is a conversation as a [`Client`] has it,
//! with cabo peers and foreign programs alike. [`Callers`] are the same for foreign programs that come to one socket.
//!
//! ```no_run
//! use std::time::Duration;
//! use cabo::talk::Client;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let mut client = Client::connect_cabo("udp://192.0.2.1:5555").await?; // or eth:// tcp:// unix:
//! client.sender.send_as("lamp", b"on").await?; // one way
//! let answer = client.sender.request("state", b"lamp", Duration::from_secs(2))?.await?;
//! println!("{}", answer.bytes().escape_ascii()); // peer.reply(&message, "on") at the server
//! client.close().await?;
//! # Ok(()) }
//! ```
//!
//! `peer` is the handle that callbacks get, `peers` all of them. `server` listens, `sniff` looks who comes, `house` is what
//! cabo peers are shown. `stream` drives one conversation, whose bytes `words` reads and `unfinished` counts; `session`
//! begins those of cabo peers, `line` is a client's end of one, `calls` holds their requests, `typed` their
//! structs; `datagrams` has all foreign peers of a UDP socket, `attend` calls them back, and `answers` says which of them
//! are answered. `stats` counts. `engine` has the threads and `callback` says on which one is called; `client` awaits, with
//! `halves` of its stream and `progress` of what it sends; `reconnect`, `blocking` and `streams` are the client in other
//! shapes, `guests` the server. Only `carrier` names a socket.

pub mod blocking;
pub mod callers;
pub mod calls;
pub mod client;
pub mod guests;
pub mod link;
pub mod peer;
pub mod peers;
pub mod reconnect;
pub mod server;
pub mod stats;
pub mod streams;

mod answers;
mod attend;
mod callback;
mod datagrams;
mod engine;
mod halves;
mod house;
mod inbox;
mod line;
mod place;
mod progress;
mod query;
mod session;
mod sniff;
mod stream;
mod tongue;
mod typed;
mod unfinished;
mod words;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cabo_proto::dialect::cut::{Cut, CutError};
use cabo_proto::dialect::value::{Fields, Value};
use cabo_proto::dialect::{Decoded, Dialect, NoKind, PAYLOAD};
use cabo_proto::wire::message::{self, MessageError};

use self::calls::Asked;
use self::tongue::Tongue;
use crate::access::{Cidr, Origin, Refusal};
use crate::carrier;
use crate::gate::origin_of;
pub use callers::{Call, Callers};
pub use calls::{Answer, RequestError};
pub use client::{Client, ClientError, Seen, Watch};
pub use guests::Guests;
pub use house::HouseError;
pub use link::Link;
pub use peer::{Peer, SendError};
pub use peers::Peers;
pub use place::PlaceError;
pub use progress::Progress;
pub use reconnect::Reconnecting;
pub use server::{BindError, Rules, Server};
pub use stats::Stats;
pub use typed::TypedError;

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
    /// Bytes of messages that are not whole yet, of all peers of a server together; a peer whose message would take them
    /// over it is closed. The first 64 KiB of a message are not counted; where there are many peers, fewer: a quarter of
    /// this is shared alike by all, which with 256 MiB and 10,000 peers is 6.7 KB for each.
    pub unfinished_bytes_max: usize,
    /// A peer that has begun a message of more bytes than those, and of which not one byte more has come for so long, is
    /// closed.
    pub message_time: Duration,
    /// So is one that goes on, but by fewer bytes than this in that time: else a byte a minute would hold its part of
    /// `unfinished_bytes_max` for ever.
    pub message_bytes_min: usize,
    /// Peers at once; one more is turned away. Foreign peers of UDP, who may be forged, have what all others leave, alike at
    /// each socket: the one that was silent for longest makes room for a new one, and for any other peer.
    pub peers_max: usize,
    /// Requests of one cabo peer that wait for an answer at once; one more fails as `busy`.
    pub requests_max: usize,
    /// Which foreign programs may come.
    pub foreign: Foreign,
    /// What runs on which thread. Results are alike.
    pub threads: Threads,
    /// A callback that has not returned for so long is stuck: it has cost a thread.
    pub stuck_time: Duration,
    /// Stuck callbacks, each with its thread; while there are so many, nobody new is let in. From 1 to 16,384. As many as
    /// that and 256 more may block at once; the callbacks of other peers wait for one of them to return.
    pub stuck_max: usize,
}

/// Foreign programs that may come. They prove nothing about themselves, so it is where they are that counts.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Foreign {
    /// Those on this host, by loopback addresses and Unix sockets.
    Here,
    /// These, and those in the networks.
    From(Vec<Cidr>),
    /// Whoever reaches us.
    #[default]
    Anyone,
}

impl Foreign {
    /// Whether a program there may come.
    pub fn admits(&self, from: &carrier::Peer) -> bool {
        let networks = match self {
            Self::Here => &[],
            Self::From(networks) => networks.as_slice(),
            Self::Anyone => return true,
        };
        // Whoever reaches a Unix socket was let in by its file.
        match origin_of(*from, || None) {
            Origin::Unix { .. } => from.is_loopback(),
            origin @ (Origin::Ip(_) | Origin::Link { .. }) => origin.is_near(networks),
        }
    }
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
            unfinished_bytes_max: 256 * 1024 * 1024,
            message_time: Duration::from_secs(60),
            message_bytes_min: 6000, // 100 a second
            peers_max: 100_000,
            requests_max: 1024,
            foreign: Foreign::default(),
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
    dialect: Tongue,
    is_of_cabo: bool,
    /// What some messages of cabo peers have besides, aside, so that all others are small.
    besides: Option<Box<Besides>>,
}

#[derive(Clone, Debug)]
struct Besides {
    /// It may be empty.
    kind: Bytes,
    asked: Option<Arc<Asked>>,
}

impl Message {
    #[inline]
    pub(crate) fn new(bytes: Bytes, dialect: &Arc<Dialect>) -> Self {
        Self { bytes, dialect: Tongue::of(dialect), is_of_cabo: false, besides: None }
    }

    fn of_cabo(
        message: message::Message,
        dialect: &Arc<Dialect>,
        asked: Option<Arc<Asked>>,
    ) -> Self {
        let message::Message { kind, payload: bytes, .. } = message;
        let has_besides = asked.is_some() || !kind.is_empty();
        let besides = has_besides.then(|| Box::new(Besides { kind, asked }));
        Self { bytes, dialect: Tongue::of(dialect), is_of_cabo: true, besides }
    }

    /// All of it, as the cut gave it; of a cabo peer the payload.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What [`Peer::send`] takes to send the same: without a header that announces its length.
    pub fn payload(&self) -> Bytes {
        match &self.dialect.cut {
            Cut::Length(header) if self.dialect.kinds.is_empty() && !self.is_of_cabo => {
                self.bytes.slice(header.size().min(self.bytes.len())..)
            }
            Cut::Length(_) | Cut::Raw | Cut::Lines | Cut::Nul | Cut::Any | Cut::Struct(_) => {
                self.bytes.clone()
            }
        }
    }

    /// Its name among messages, as a cabo peer gave it; empty where there is none.
    pub fn kind(&self) -> &str {
        let kind = self.besides.as_ref().map(|besides| std::str::from_utf8(&besides.kind));
        kind.unwrap_or(Ok("")).unwrap_or_default() // no other than UTF-8 is let in
    }

    /// Whether its sender waits for an answer ([`Peer::reply`], [`Peer::fail`]). Dropped unanswered, it fails there.
    pub fn is_request(&self) -> bool {
        self.asked().is_some()
    }

    /// Whether its sender no longer waits for the answer, or is gone.
    pub fn is_cancelled(&self) -> bool {
        self.asked().is_some_and(|asked| asked.is_cancelled())
    }

    /// Waits until its sender no longer waits for the answer; for ever where nobody waits for one.
    pub async fn cancelled(&self) {
        match self.asked() {
            Some(asked) => asked.cancelled().await,
            None => std::future::pending().await,
        }
    }

    fn asked(&self) -> Option<&Arc<Asked>> {
        self.besides.as_ref()?.asked.as_ref()
    }

    /// Its values, by name.
    pub fn decode(&self) -> Result<Decoded, NoKind> {
        if !self.is_of_cabo {
            return self.dialect.decode(&self.bytes);
        }
        if self.dialect.kinds.is_empty() {
            let mut fields = Fields::default();
            fields.set(PAYLOAD, Value::Bytes(self.bytes.to_vec()));
            let kind = Some(self.kind().to_owned()).filter(|kind| !kind.is_empty());
            return Ok(Decoded { kind, fields });
        }
        match self.dialect.kinds.iter().find(|kind| kind.name.as_deref() == Some(self.kind())) {
            Some(kind) => match kind.decode(&self.bytes) {
                Ok(fields) => Ok(Decoded { kind: kind.name.clone(), fields }),
                Err(error) => Err(NoKind(vec![(kind.name.clone(), error)])),
            },
            None => self.dialect.decode(&self.bytes),
        }
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
    /// What a cabo peer sent is no message.
    #[error(transparent)]
    Broken(#[from] MessageError),
    /// A cabo peer who may not enter.
    #[error("{0}")]
    Refused(Refusal),
    /// It said nothing for a while, was told of as a foreign program, and is a cabo peer: it is told of again as one.
    #[error("is a cabo peer, and no foreign program")]
    Cabo,
    /// A foreign program from where none may come.
    #[error("foreign programs may not come from there")]
    Elsewhere,
    /// A cabo peer that came to a group, or to what everybody hears: no session can begin there.
    #[error("is a cabo peer, and those cannot come to a group; its packets are dropped")]
    Astray,
    /// A cabo peer that opened no stream of messages in time.
    #[error("opened no stream of messages/1 within {0:?}")]
    NoMessages(Duration),
    /// It took too little of what was sent to it.
    #[error("took too little of what was sent to it")]
    TooSlow,
    /// It said nothing for the time that it had.
    #[error("said nothing for {0:?}")]
    Idle(Duration),
    /// It was silent for longer than all other foreign peers of its UDP socket, and there was no place left for another one.
    #[error("silent for longest, and made room for somebody else")]
    MadeRoom,
    /// Its unfinished message would have taken those of all peers over what they may have together.
    #[error(
        "the unfinished messages of all peers may have {0} bytes together, and there was no room for its own"
    )]
    NoRoom(usize),
    /// It began a long message, and then no more of it came.
    #[error("left a message unfinished and said nothing for {0:?}")]
    Unfinished(Duration),
    /// It began a long message, and went on too slowly.
    #[error("of its unfinished message fewer than {0} bytes came within {1:?}")]
    Dripping(usize, Duration),
    /// Its socket failed.
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    /// A callback for it panicked.
    #[error("a callback for it panicked")]
    Panicked,
    /// There are too many peers.
    #[error("there are already as many peers as may be at once: {0}")]
    TooMany(usize),
    /// Callbacks of earlier peers keep too many threads.
    #[error("{0} callbacks have not returned, and nobody new is let in")]
    Stuck(usize),
}
