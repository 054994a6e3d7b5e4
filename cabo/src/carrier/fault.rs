//! A wrap around any datagram carrier that makes it as bad as asked, by seed, in real time.
//!
//! It promises what is inside. Each direction is a [`Link`], the model that the simulator runs in virtual time: what is
//! sent passes the outgoing one before the carrier, what arrives passes the incoming one after it. A packet longer
//! than a link's MTU is lost without a word, as behind a router; so is what the carrier refuses after a delay. Times
//! are as fine as the runtime's timer, a millisecond. Neighbours: `mod.rs` (the trait), `tap.rs`, which inside sees
//! what really went and outside what was meant.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::BytesMut;
use cabo_proto::sim::link::{Link, LinkConfig, LinkStats};
use tokio::time::Sleep;

use super::error::too_big;
use super::resume::Resume;
use super::{
    Datagrams, Peer, Promises, Received, SLOT_BYTES, SLOTS, SendFailure, Transmit, send_failure,
};

const ROUNDS: usize = 8; // fillings of the slots before others get their turn

/// A carrier on a bad cable.
pub struct Fault {
    inner: Box<dyn Datagrams>,
    cable: Cable,
    arrivals: Mutex<Arrivals>,
    resume: Resume,
}

/// What the carrier inside fills, before the incoming link takes it.
struct Arrivals {
    slots: Vec<BytesMut>,
    accounts: [Received; SLOTS],
}

/// The two links of a [`Fault`], to be changed and counted while it runs.
#[derive(Clone)]
pub struct Cable {
    links: Arc<Mutex<Links>>,
}

struct Links {
    out: Link<Parcel>,
    into: Link<Parcel>,
    held_back: Option<Parcel>, // left the outgoing link while the carrier could not send
    timer: Option<Pin<Box<Sleep>>>,
}

/// A packet, and of whom it came; one that goes out has only a peer, whom it goes to.
#[derive(Clone)]
struct Parcel {
    packet: Vec<u8>,
    account: Received,
}

impl AsRef<[u8]> for Parcel {
    fn as_ref(&self) -> &[u8] {
        &self.packet
    }
}

impl AsMut<[u8]> for Parcel {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.packet
    }
}

impl Fault {
    /// Wraps `inner` between two links. Must be driven inside a tokio runtime.
    pub fn new(inner: Box<dyn Datagrams>, out: LinkConfig, into: LinkConfig, seed: u64) -> Self {
        let links = Links {
            out: Link::new(out, seed),
            into: Link::new(into, !seed),
            held_back: None,
            timer: None,
        };
        let slots = (0..SLOTS).map(|_| BytesMut::zeroed(SLOT_BYTES)).collect();
        let arrivals = Arrivals { slots, accounts: [Received::default(); SLOTS] };
        Self {
            inner,
            cable: Cable { links: Arc::new(Mutex::new(links)) },
            arrivals: Mutex::new(arrivals),
            resume: Resume::default(),
        }
    }

    /// A handle on its links.
    pub fn cable(&self) -> Cable {
        self.cable.clone()
    }

    /// Takes what the carrier has into the incoming link. True if there may be more.
    fn take_in(&self, cx: &mut Context<'_>, links: &mut Links, now: Instant) -> io::Result<bool> {
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        let Arrivals { slots, accounts } = &mut *arrivals;
        for _ in 0..ROUNDS {
            let Poll::Ready(count) = self.inner.poll_recv(cx, slots, accounts) else {
                return Ok(false);
            };
            for (slot, account) in slots.iter_mut().zip(accounts.iter()).take(count?) {
                for packet in account.packets(slot) {
                    let (packet, account) = (packet.to_vec(), *account);
                    let _counted_there = links.into.send(now, Parcel { packet, account });
                }
            }
        }
        Ok(true)
    }

    /// Gives the carrier what has left the outgoing link.
    fn put_out(
        &self,
        cx: &mut Context<'_>,
        links: &mut Links,
        now: Instant,
    ) -> Poll<io::Result<()>> {
        while let Some(parcel) = links.held_back.take().or_else(|| links.out.poll(now)) {
            let Parcel { packet, account } = &parcel;
            let transmit = Transmit { to: account.from, contents: packet, segment: packet.len() };
            match self.inner.poll_send(cx, &transmit) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) if send_failure(&error) == SendFailure::Fatal => {
                    return Poll::Ready(Err(error));
                }
                Poll::Ready(Err(_)) => {} // lost there: who sent it was told that it left
                Poll::Pending => {
                    links.held_back = Some(parcel);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Cable {
    /// Pulls the cable, which loses all that is on its way, or puts it back.
    pub fn set_down(&self, is_down: bool) {
        let mut links = self.lock();
        links.out.set_down(is_down);
        links.into.set_down(is_down);
    }

    /// Changes both links under way.
    pub fn set_config(&self, out: LinkConfig, into: LinkConfig) {
        let mut links = self.lock();
        links.out.set_config(out);
        links.into.set_config(into);
    }

    /// What the outgoing and the incoming link did so far.
    pub fn stats(&self) -> (LinkStats, LinkStats) {
        let links = self.lock();
        (links.out.stats(), links.into.stats())
    }

    fn lock(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Links {
    /// Hands out what has left the incoming link.
    fn hand_out(
        &mut self,
        slots: &mut [BytesMut],
        received: &mut [Received],
        now: Instant,
    ) -> usize {
        let mut count = 0;
        for (slot, account) in slots.iter_mut().zip(received) {
            let Some(parcel) = self.into.poll(now) else { break };
            let len = parcel.packet.len().min(slot.len());
            let (to, from) = (slot.get_mut(..len), parcel.packet.get(..len));
            to.unwrap_or_default().copy_from_slice(from.unwrap_or_default());
            *account = Received { len, stride: len.max(1), ..parcel.account };
            count += 1;
        }
        count
    }

    /// Sees to it that the task is woken when a link has something next.
    fn set_timer(&mut self, cx: &mut Context<'_>) {
        let out = if self.held_back.is_some() { None } else { self.out.next_deadline() };
        let Some(next) = [out, self.into.next_deadline()].into_iter().flatten().min() else {
            self.timer = None;
            return;
        };
        let next = next.into();
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(next)));
        if timer.deadline() != next {
            timer.as_mut().reset(next);
        }
        if timer.as_mut().poll(cx).is_ready() {
            self.timer = None;
            cx.waker().wake_by_ref();
        }
    }
}

impl Datagrams for Fault {
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
        let mut links = self.cable.lock();
        let links = &mut *links;
        if let Poll::Ready(Err(error)) = self.put_out(cx, links, Instant::now()) {
            return Poll::Ready(Err(error));
        }
        let has_more = self.take_in(cx, links, Instant::now())?;
        let count = links.hand_out(slots, received, Instant::now());
        if count > 0 {
            return Poll::Ready(Ok(count));
        }
        links.set_timer(cx);
        if has_more {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<()>> {
        if transmit.stride() > self.inner.promises().largest_datagram {
            return Poll::Ready(Err(too_big()));
        }
        let mut links = self.cable.lock();
        let links = &mut *links;
        let now = Instant::now();
        ready!(self.put_out(cx, links, now))?;
        if self.resume.take(transmit) == 0 {
            for packet in transmit.contents.chunks(transmit.stride()) {
                let account = Received { from: transmit.to, ..Received::default() };
                let _counted_there =
                    links.out.send(now, Parcel { packet: packet.to_vec(), account });
            }
        }
        let sent = self.put_out(cx, links, now);
        links.set_timer(cx);
        if sent.is_pending() {
            self.resume.keep(transmit, transmit.contents.len()); // the link has all of it
        }
        sent
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

impl fmt::Debug for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Fault").field("inner", &self.inner).field("cable", &self.cable).finish()
    }
}

impl fmt::Debug for Cable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sent, arrived) = self.stats();
        out.debug_struct("Cable").field("out", &sent).field("into", &arrived).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;
    use crate::carrier::memory;

    fn pair(out: LinkConfig, into: LinkConfig) -> (Fault, memory::Memory) {
        let (near, far) = memory::pair().unwrap();
        (Fault::new(Box::new(near), out, into, 7), far)
    }

    async fn send(carrier: &dyn Datagrams, to: Peer, packet: &[u8]) {
        let transmit = Transmit { to, contents: packet, segment: packet.len() };
        poll_fn(|cx| carrier.poll_send(cx, &transmit)).await.unwrap();
    }

    /// How many packets arrive at `carrier` while the wrapped one is kept going, until `count` came or `wait` is over.
    async fn arrivals(
        carrier: &dyn Datagrams,
        fault: &dyn Datagrams,
        count: usize,
        wait: Duration,
    ) -> usize {
        let mut all = 0;
        let end = tokio::time::Instant::now() + wait;
        let mut slots: Vec<_> = (0..SLOTS).map(|_| BytesMut::zeroed(2000)).collect();
        let mut spare = [BytesMut::zeroed(2000)];
        let mut received = [Received::default(); SLOTS];
        let mut nobody = [Received::default()];
        while all < count {
            let next = poll_fn(|cx| {
                let _kept_going = fault.poll_recv(cx, &mut spare, &mut nobody);
                carrier.poll_recv(cx, &mut slots, &mut received)
            });
            match tokio::time::timeout_at(end, next).await {
                Ok(count) => all += count.unwrap(),
                Err(_) => break,
            }
        }
        all
    }

    const LONG: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_delay_holds_packets_for_as_long_as_asked() {
        let delay = Duration::from_millis(30);
        let (near, far) =
            pair(LinkConfig { delay, ..LinkConfig::default() }, LinkConfig::default());
        let start = Instant::now();
        send(&near, far.local(), b"slow").await;
        assert_eq!(arrivals(&far, &near, 1, LONG).await, 1);
        assert!(start.elapsed() >= delay, "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn losses_are_the_seeds_and_each_direction_has_its_own() {
        let loss = LinkConfig { loss: 0.5, ..LinkConfig::default() };
        let (near, far) = pair(loss, LinkConfig::default());
        for _ in 0..1000 {
            send(&near, far.local(), b"maybe").await;
        }
        let (out, into) = near.cable().stats();
        assert!((400..600).contains(&out.accepted), "{out:?}");
        assert_eq!((out.offered, into.offered), (1000, 0));
        let accepted = usize::try_from(out.accepted).unwrap();
        assert_eq!(arrivals(&far, &near, accepted, LONG).await, accepted);

        for _ in 0..100 {
            send(&far, near.local(), b"surely").await;
        }
        let (mut slots, mut received) =
            (vec![BytesMut::zeroed(100); 200], [Received::default(); 200]);
        let count = poll_fn(|cx| near.poll_recv(cx, &mut slots, &mut received)).await.unwrap();
        assert_eq!((count, received[0].from), (100, far.local()));
    }

    #[tokio::test]
    async fn a_pulled_cable_carries_nothing_until_it_is_back() {
        let (near, far) = pair(LinkConfig::default(), LinkConfig::default());
        near.cable().set_down(true);
        send(&near, far.local(), b"lost").await;
        assert_eq!(arrivals(&far, &near, 1, Duration::from_millis(5)).await, 0);
        near.cable().set_down(false);
        send(&near, far.local(), b"heard").await;
        assert_eq!(arrivals(&far, &near, 1, LONG).await, 1);
    }
}
