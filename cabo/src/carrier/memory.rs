//! | memory | framed | reliable | ordered | secure | largest datagram |
//! |---|---|---|---|---|---|
//! | datagrams | yes | no | yes, not promised | no | as asked, 65,535 at most |
//! | streams | no | yes | yes | no | - |
//!
//! Datagrams and streams inside one process, for tests and examples: no kernel, no privilege, nothing to clean up.
//! A full queue drops, as a socket buffer does. Neighbours: `mod.rs` (the traits).

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use super::error::{too_big, wrong_peer};
use super::{
    Accepted, Datagrams, Listener, OpenError, Peer, Promises, Received, SLOT_BYTES, SLOTS, Transmit,
};

const QUEUE_BYTES: usize = 1 << 20;
const MTU: usize = 1500;
const BACKLOG: usize = 128; // connections that nobody accepted yet
const STREAM_BUFFER_BYTES: usize = 64 << 10;

/// A link in memory: every carrier opened on it reaches every other.
#[derive(Clone, Debug)]
pub struct Hub {
    link: Arc<Link>,
}

#[derive(Debug)]
struct Link {
    largest_datagram: usize,
    queue_bytes: usize,
    places: Mutex<BTreeMap<u64, Arc<Queue>>>,
}

impl Default for Hub {
    fn default() -> Self {
        Self::new(SLOT_BYTES - 1, QUEUE_BYTES)
    }
}

impl Hub {
    /// A link that takes packets of up to `largest_datagram` bytes, with `queue_bytes` of room at each receiver.
    pub fn new(largest_datagram: usize, queue_bytes: usize) -> Self {
        let largest_datagram = largest_datagram.clamp(1, SLOT_BYTES - 1);
        let queue_bytes = queue_bytes.max(largest_datagram);
        Self { link: Arc::new(Link { largest_datagram, queue_bytes, places: Mutex::default() }) }
    }

    /// Opens the carrier at `place`; 0 takes the lowest free one.
    pub fn open(&self, place: u64) -> Result<Memory, OpenError> {
        let mut places = lock(&self.link.places);
        let place = match place {
            0 => (1..).find(|place| !places.contains_key(place)).unwrap_or(u64::MAX),
            asked => asked,
        };
        if places.contains_key(&place) {
            return Err(OpenError::InUse { what: Peer::Memory(place).to_string() });
        }
        let queue = Arc::new(Queue::default());
        places.insert(place, queue.clone());
        Ok(Memory { place, queue, link: self.link.clone() })
    }
}

/// Two carriers on a link of their own.
pub fn pair() -> Result<(Memory, Memory), OpenError> {
    let hub = Hub::default();
    Ok((hub.open(1)?, hub.open(2)?))
}

/// A datagram carrier in memory.
#[derive(Debug)]
pub struct Memory {
    place: u64,
    queue: Arc<Queue>,
    link: Arc<Link>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    drops: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    packets: VecDeque<(u64, Box<[u8]>)>,
    bytes: usize,
    reader: Option<Waker>,
}

impl Queue {
    fn push(&self, from: u64, packet: &[u8], room_bytes: usize) {
        let mut waiting = lock(&self.waiting);
        if waiting.bytes + packet.len() > room_bytes {
            self.drops.fetch_add(1, Relaxed);
            return;
        }
        waiting.bytes += packet.len();
        waiting.packets.push_back((from, packet.into()));
        let reader = waiting.reader.take();
        drop(waiting);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl Datagrams for Memory {
    fn promises(&self) -> Promises {
        let largest = self.link.largest_datagram;
        Promises::datagrams(largest, largest.min(MTU))
    }

    fn local(&self) -> Peer {
        Peer::Memory(self.place)
    }

    fn max_segments(&self) -> usize {
        SLOTS
    }

    fn receive_burst_bytes(&self) -> usize {
        self.link.queue_bytes
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        slots: &mut [BytesMut],
        received: &mut [Received],
    ) -> Poll<io::Result<usize>> {
        let mut waiting = lock(&self.queue.waiting);
        let mut count = 0;
        for (slot, account) in slots.iter_mut().zip(received) {
            let Some((from, packet)) = waiting.packets.pop_front() else { break };
            waiting.bytes -= packet.len();
            let len = packet.len().min(slot.len());
            for (to, from) in slot.iter_mut().zip(&packet) {
                *to = *from;
            }
            *account = Received {
                from: Peer::Memory(from),
                len,
                stride: len.max(1),
                ..Received::default()
            };
            count += 1;
        }
        if count == 0 {
            waiting.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(count))
    }

    fn poll_send(&self, _: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<()>> {
        let Peer::Memory(place) = transmit.to else { return Poll::Ready(Err(wrong_peer())) };
        let stride = transmit.stride();
        if stride > self.link.largest_datagram {
            return Poll::Ready(Err(too_big()));
        }
        let queue = lock(&self.link.places).get(&place).cloned();
        if let Some(queue) = queue {
            for packet in transmit.contents.chunks(stride) {
                queue.push(self.place, packet, self.link.queue_bytes);
            }
        }
        Poll::Ready(Ok(()))
    }

    fn kernel_drops(&self) -> u64 {
        self.queue.drops.load(Relaxed)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        lock(&self.link.places).remove(&self.place);
    }
}

/// Opens a listener for streams in memory, and the door by which clients of this process reach it.
pub fn listen() -> (MemoryListener, Door) {
    let (sender, arrivals) = mpsc::channel(BACKLOG);
    (MemoryListener { arrivals: Mutex::new(arrivals) }, Door { sender, next_place: Arc::default() })
}

/// Accepts streams in memory.
#[derive(Debug)]
pub struct MemoryListener {
    arrivals: Mutex<mpsc::Receiver<Accepted>>,
}

impl Listener for MemoryListener {
    fn promises(&self) -> Promises {
        Promises::STREAM
    }

    fn local(&self) -> Peer {
        Peer::Memory(0)
    }

    /// Ends with `BrokenPipe` when the last [`Door`] is gone.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        let arrival = std::task::ready!(lock(&self.arrivals).poll_recv(cx));
        Poll::Ready(arrival.ok_or_else(|| io::ErrorKind::BrokenPipe.into()))
    }
}

/// The way in to a [`MemoryListener`].
#[derive(Clone, Debug)]
pub struct Door {
    sender: mpsc::Sender<Accepted>,
    next_place: Arc<AtomicU64>,
}

impl Door {
    /// Connects a new stream; refused when the listener is gone or its backlog is full.
    pub fn connect(&self) -> io::Result<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(STREAM_BUFFER_BYTES);
        let from = Peer::Memory(self.next_place.fetch_add(1, Relaxed) + 1);
        let accepted = Accepted::new(Box::new(theirs), from, None);
        self.sender
            .try_send(accepted)
            .map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        Ok(ours)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
