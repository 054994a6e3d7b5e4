//! A wrap around any datagram carrier that hands on a copy of every packet, in and out, with the time.
//!
//! It promises what is inside. It looks and never touches: a reader that is slow, or gone, costs copies, which are
//! counted, and never a packet. Neighbours: `observe` reads the copies; `mod.rs` (the trait); `fault.rs`, which may
//! stand on either side of it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::{Datagrams, Peer, Promises, Received, Transmit};

/// Which way a packet went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// It arrived here.
    In,
    /// It left from here.
    Out,
}

/// The copy of one packet.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When it passed. All packets of one system call have one time.
    pub at: SystemTime,
    /// Which way.
    pub direction: Direction,
    /// The address of this end.
    pub local: Peer,
    /// The address of the other end.
    pub peer: Peer,
    /// Its bytes.
    pub packet: Bytes,
}

/// Copies of packets on their way to a reader: the sending half, for any number of carriers.
#[derive(Clone, Debug)]
pub struct Copies {
    sender: mpsc::Sender<Seen>,
    missed: Arc<AtomicU64>,
}

impl Copies {
    /// A queue of at most `capacity` copies, and its reader.
    pub fn new(capacity: usize) -> (Self, mpsc::Receiver<Seen>) {
        let (sender, reader) =
            mpsc::channel(capacity.clamp(1, tokio::sync::Semaphore::MAX_PERMITS));
        (Self { sender, missed: Arc::default() }, reader)
    }

    /// Copies that the queue had no room for. Zero once the reader is gone and nobody misses anything.
    pub fn missed(&self) -> u64 {
        self.missed.load(Relaxed)
    }

    fn keep(&self, direction: Direction, local: Peer, peer: Peer, bytes: &[u8], stride: usize) {
        let at = SystemTime::now();
        for packet in bytes.chunks(stride.max(1)) {
            match self.sender.try_reserve() {
                Ok(place) => {
                    let packet = Bytes::copy_from_slice(packet);
                    place.send(Seen { at, direction, local, peer, packet });
                }
                Err(mpsc::error::TrySendError::Full(())) => {
                    self.missed.fetch_add(1, Relaxed);
                }
                Err(mpsc::error::TrySendError::Closed(())) => return,
            }
        }
    }
}

/// A carrier under observation.
#[derive(Debug)]
pub struct Tap {
    inner: Box<dyn Datagrams>,
    copies: Copies,
}

impl Tap {
    /// Wraps `inner`.
    pub fn new(inner: Box<dyn Datagrams>, copies: Copies) -> Self {
        Self { inner, copies }
    }
}

impl Datagrams for Tap {
    fn promises(&self) -> Promises {
        self.inner.promises()
    }

    fn local(&self) -> Peer {
        self.inner.local()
    }

    fn max_segments(&self) -> usize {
        self.inner.max_segments()
    }

    fn receive_burst_bytes(&self) -> usize {
        self.inner.receive_burst_bytes()
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        slots: &mut [BytesMut],
        received: &mut [Received],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.inner.poll_recv(cx, slots, received))?;
        let local = self.inner.local();
        for (slot, account) in slots.iter().zip(received.iter()).take(count) {
            let filled = slot.get(..account.len).unwrap_or_default();
            self.copies.keep(Direction::In, local, account.from, filled, account.stride);
        }
        Poll::Ready(Ok(count))
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<()>> {
        ready!(self.inner.poll_send(cx, transmit))?;
        let (local, stride) = (self.inner.local(), transmit.stride());
        self.copies.keep(Direction::Out, local, transmit.to, transmit.contents, stride);
        Poll::Ready(Ok(()))
    }

    fn kernel_drops(&self) -> u64 {
        self.inner.kernel_drops()
    }

    fn refused(&self) -> u64 {
        self.inner.refused()
    }

    fn advice(&self) -> Option<String> {
        self.inner.advice()
    }

    fn take_closed_port(&self) -> Option<Peer> {
        self.inner.take_closed_port()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::carrier::memory;

    #[tokio::test]
    async fn every_packet_is_seen_once_each_way_and_a_full_queue_is_counted() {
        let (near, far) = memory::pair().unwrap();
        let (copies, mut reader) = Copies::new(4);
        let near = Tap::new(Box::new(near), copies.clone());
        let transmit = Transmit { to: far.local(), contents: b"aaabbbc", segment: 3 };
        poll_fn(|cx| near.poll_send(cx, &transmit)).await.unwrap();
        let answer = Transmit { to: near.local(), contents: b"dd", segment: 2 };
        poll_fn(|cx| far.poll_send(cx, &answer)).await.unwrap();
        let (mut slots, mut received) = ([BytesMut::zeroed(100)], [Received::default()]);
        poll_fn(|cx| near.poll_recv(cx, &mut slots, &mut received)).await.unwrap();
        poll_fn(|cx| near.poll_send(cx, &transmit)).await.unwrap();

        let mut seen = Vec::new();
        while let Ok(copy) = reader.try_recv() {
            assert_eq!((copy.local, copy.peer), (near.local(), far.local()));
            seen.push((copy.direction, copy.packet));
        }
        let out = |packet: &'static str| (Direction::Out, Bytes::from(packet));
        assert_eq!(seen, [out("aaa"), out("bbb"), out("c"), (Direction::In, "dd".into())]);
        assert_eq!(copies.missed(), 3);
        drop(reader);
        poll_fn(|cx| near.poll_send(cx, &transmit))
            .await
            .expect("a reader that is gone harms nobody");
        assert_eq!(copies.missed(), 3);
    }
}
