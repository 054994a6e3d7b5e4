//! One session as the application sees it: open and accept streams, send datagrams, close.
//!
//! A [`Connection`] is a handle; clones are the same session, and when the last handle and the last stream are gone it
//! is closed. Neighbours: `connection.rs` above holds what the handles share.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cabo_proto::session::crypto::PublicKey;
use cabo_proto::session::packets::{PathState, Stats};
use cabo_proto::wire::frame::{Direction, StreamId};

use super::{Code, Ended, Inner, Machine, Owner, Shared, register};
use crate::carrier::Peer;
use crate::stream::{RecvStream, SendStream};

/// The carrier has this long to take a goodbye.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// A session with a peer.
#[derive(Clone)]
pub struct Connection {
    owner: Arc<Owner>,
}

/// How a session looks now.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectionStats {
    /// The path, on datagram carriers.
    pub path: Option<PathState>,
    /// Packets, on datagram carriers.
    pub packets: Option<Stats>,
    /// Bytes sent, with our headers and tags.
    pub bytes_sent: u64,
    /// Bytes received, likewise.
    pub bytes_received: u64,
}

impl Connection {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { owner: Arc::new(Owner(shared)) }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.owner.0
    }

    /// Waits until the handshake is done: the peer has proved who it is. What a client then sends is on its way before
    /// the server has decided; a refusal shows on the first use.
    pub async fn handshaken(&self) -> Result<(), Arc<Ended>> {
        self.wait(|inner| inner.is_handshaken).await
    }

    /// Waits until the server let us in (client).
    pub async fn admitted(&self) -> Result<(), Arc<Ended>> {
        self.wait(|inner| inner.is_admitted).await
    }

    /// Whether the server has let us in, even if the session has ended since (client).
    pub(crate) fn was_admitted(&self) -> bool {
        self.shared().lock().is_admitted
    }

    async fn wait(&self, is_done: impl Fn(&Inner) -> bool) -> Result<(), Arc<Ended>> {
        poll_fn(|cx| {
            let mut inner = self.shared().lock();
            if let Some(ended) = &inner.ended {
                return Poll::Ready(Err(ended.clone()));
            }
            if is_done(&inner) {
                return Poll::Ready(Ok(()));
            }
            register(&mut inner.wakers.state, cx);
            Poll::Pending
        })
        .await
    }

    /// Waits for the end and says what it was.
    pub async fn closed(&self) -> Arc<Ended> {
        match self.wait(|_| false).await {
            Err(ended) => ended,
            Ok(()) => unreachable!("waits for nothing but the end"),
        }
    }

    /// The end, if it has come.
    pub fn ended(&self) -> Option<Arc<Ended>> {
        self.shared().lock().ended.clone()
    }

    /// Lets the peer in (server).
    pub fn admit(&self) {
        let mut inner = self.shared().lock();
        inner.machine.admit();
        self.shared().touch(&mut inner);
    }

    /// Sends the peer away; it hears `why` (W-6, code `refused`).
    pub fn refuse(&self, why: &str) {
        self.close_protocol(Code::REFUSED, why);
    }

    /// Ends the session for a reason of the protocol: full, going down.
    pub fn close_protocol(&self, code: Code, why: &str) {
        let mut inner = self.shared().lock();
        inner.machine.close(Instant::now(), Ended::Declined { code, reason: why.to_owned() });
        inner.pump();
        self.shared().touch(&mut inner);
    }

    /// Opens a stream that both sides write to. Waits while the peer allows no more streams.
    pub async fn open(&self) -> Result<(SendStream, RecvStream), Arc<Ended>> {
        let id = self.open_id(Direction::Both).await?;
        Ok((SendStream::new(self.owner.clone(), id), RecvStream::new(self.owner.clone(), id)))
    }

    /// Opens a stream that only we write to.
    pub async fn open_one_way(&self) -> Result<SendStream, Arc<Ended>> {
        Ok(SendStream::new(self.owner.clone(), self.open_id(Direction::One).await?))
    }

    async fn open_id(&self, direction: Direction) -> Result<StreamId, Arc<Ended>> {
        poll_fn(|cx| {
            let mut inner = self.shared().lock();
            if let Some(ended) = &inner.ended {
                return Poll::Ready(Err(ended.clone()));
            }
            if let Some(id) = inner.machine.streams().open(direction) {
                return Poll::Ready(Ok(id));
            }
            register(&mut inner.wakers.opening[direction as usize], cx);
            Poll::Pending
        })
        .await
    }

    /// The next stream that the peer opened for both to write to.
    pub async fn accept(&self) -> Result<(SendStream, RecvStream), Arc<Ended>> {
        let id = self.accept_id(Direction::Both).await?;
        Ok((SendStream::new(self.owner.clone(), id), RecvStream::new(self.owner.clone(), id)))
    }

    /// The next stream that only the peer writes to.
    pub async fn accept_one_way(&self) -> Result<RecvStream, Arc<Ended>> {
        Ok(RecvStream::new(self.owner.clone(), self.accept_id(Direction::One).await?))
    }

    async fn accept_id(&self, direction: Direction) -> Result<StreamId, Arc<Ended>> {
        poll_fn(|cx| {
            let mut inner = self.shared().lock();
            if let Some(id) = inner.opened[direction as usize].pop_front() {
                return Poll::Ready(Ok(id));
            }
            if let Some(ended) = &inner.ended {
                return Poll::Ready(Err(ended.clone()));
            }
            register(&mut inner.wakers.accepting[direction as usize], cx);
            Poll::Pending
        })
        .await
    }

    /// Sends one datagram, which may be lost and is dropped if it could not leave within `worth`.
    pub fn send_datagram(&self, data: Bytes, worth: Option<Duration>) -> Result<(), DatagramError> {
        let mut inner = self.shared().lock();
        if let Some(ended) = &inner.ended {
            return Err(DatagramError::Ended(ended.clone()));
        }
        let largest = match &inner.machine {
            Machine::Packets(packets) => packets.largest_datagram(),
            Machine::Records(records) => records.largest_datagram(),
        };
        if data.len() > largest {
            return Err(DatagramError::TooLarge { len: data.len(), largest });
        }
        let deadline = worth.map(|worth| Instant::now() + worth);
        match &mut inner.machine {
            Machine::Packets(packets) => packets.send_datagram(data, deadline),
            Machine::Records(records) => records.send_datagram(data, deadline),
        }
        self.shared().touch(&mut inner);
        Ok(())
    }

    /// The next datagram of the peer.
    pub async fn recv_datagram(&self) -> Result<Bytes, Arc<Ended>> {
        poll_fn(|cx| {
            let mut inner = self.shared().lock();
            if let Some(data) = inner.datagrams.pop_front() {
                return Poll::Ready(Ok(data));
            }
            if let Some(ended) = &inner.ended {
                return Poll::Ready(Err(ended.clone()));
            }
            inner.wakers.datagram = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Whether something is under way on a stream: not read to its end, or not yet with the peer.
    pub fn has_open_streams(&self) -> bool {
        self.shared().lock().machine.streams().any_open()
    }

    /// Ends the session; the peer hears code and reason. What is still under way on streams may not arrive.
    pub fn close(&self, code: u64, reason: &str) {
        self.shared().close(code, reason);
    }

    /// As [`close`](Self::close), and waits until the carrier has the goodbye: for whoever is about to end the process.
    pub async fn say_goodbye(&self, code: u64, reason: &str) {
        self.close(code, reason);
        let _ = tokio::time::timeout(FLUSH_TIME, self.flushed()).await; // a carrier that takes nothing is not waited for
    }

    /// For whoever ends the process later, and wants the peer to hear of it however things went.
    pub fn farewell(&self) -> Farewell {
        Farewell(self.shared().clone())
    }

    /// Waits until a session that is over has nothing left to send; on stream carriers, until the peer has read it.
    pub(crate) async fn flushed(&self) {
        flushed(self.shared()).await;
    }

    /// Where the peer is. On a datagram carrier that may change (session S-10).
    pub fn from(&self) -> Peer {
        self.shared().peer()
    }

    /// The scheme of the carrier: `eth`, `udp`, `tcp`, `unix`, `memory`.
    pub fn carrier(&self) -> &'static str {
        self.shared().carrier
    }

    /// The user of the peer's process, where the kernel vouches for it.
    pub fn peer_user(&self) -> Option<u32> {
        self.shared().peer_user
    }

    /// The peer's proved identity; none in plain.
    pub fn peer_key(&self) -> Option<PublicKey> {
        self.shared().lock().machine.peer_key()
    }

    /// What the peer calls itself; its own words.
    pub fn peer_agent(&self) -> Option<String> {
        let inner = self.shared().lock();
        let params = match &inner.machine {
            Machine::Packets(packets) => packets.peer_params(),
            Machine::Records(records) => records.peer_params(),
        };
        params?.agent.clone()
    }

    /// Counts, and the path as it looks now.
    pub fn stats(&self) -> ConnectionStats {
        match &self.shared().lock().machine {
            Machine::Packets(packets) => {
                let stats = packets.stats();
                ConnectionStats {
                    path: Some(packets.path_state()),
                    packets: Some(stats),
                    bytes_sent: stats.bytes_sent,
                    bytes_received: stats.bytes_received,
                }
            }
            Machine::Records(records) => {
                let (bytes_sent, bytes_received) = records.bytes();
                ConnectionStats { path: None, packets: None, bytes_sent, bytes_received }
            }
        }
    }
}

/// What is left to do for a session when the process ends. It does not keep the session open.
pub struct Farewell(Arc<Shared>);

impl Farewell {
    /// Ends the session, if it has not ended yet, and waits until the carrier has the goodbye, a second at most.
    pub async fn say(&self) {
        self.0.close(0, "");
        let _ = tokio::time::timeout(FLUSH_TIME, flushed(&self.0)).await; // a carrier that takes nothing is not waited for
    }
}

async fn flushed(shared: &Shared) {
    poll_fn(|cx| {
        let mut inner = shared.lock();
        if inner.is_flushed {
            return Poll::Ready(());
        }
        register(&mut inner.wakers.state, cx);
        Poll::Pending
    })
    .await;
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({} {})", self.carrier(), self.from())
    }
}

/// Why a datagram could not be sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DatagramError {
    /// The session is over.
    #[error("{0}")]
    Ended(Arc<Ended>),
    /// No packet of this path holds it, or the peer takes none so large.
    #[error("a datagram of {len} bytes; this path and peer take up to {largest}")]
    TooLarge {
        /// Its size.
        len: usize,
        /// What would fit now.
        largest: usize,
    },
}
