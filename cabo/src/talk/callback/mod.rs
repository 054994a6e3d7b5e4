//! Where callbacks are called: on the event loop while they are quick, beside it where they are not.
//!
//! A call on the loop costs nothing, and one that never returns there would keep a thread of the loop. A call beside
//! the loop (`block_in_place`) first hands everything else that the thread had to do to another thread, which costs
//! some microseconds. So each kind of callback earns calls on the loop by being quick beside it, and loses them by
//! being slow or stuck. Calls on the loop are fewer than its threads: one thread is always left to go on with, whatever
//! callbacks do.
//!
//! Neighbours: `engine` has the threads and the tasks, `server` calls.

mod watch;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU8, AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, SeqCst},
};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// So many quick calls beside the loop earn calls on it.
const EARNING_CALLS: i64 = 64;
/// So many it takes after one that was slow.
const PENANCE_CALLS: i64 = 256;
/// A call beside the loop is quick when it takes no longer than this,
const QUICK: Duration = Duration::from_millis(1);
/// and slow when it takes longer than this. Calls on the loop are looked at twice as rarely, see `watch`.
const SLOW: Duration = Duration::from_millis(10);
/// Calls beside the loop at once, besides those that may be stuck: more wait for a thread.
const APART_MAX: usize = 256;
/// Looks at slots that are all taken, before the call is made beside the loop.
const SPINS: usize = 64;
/// The same, while others have the processor: whoever has the slot may need it.
const YIELDS: usize = 4;

/// Which callback; each earns trust for itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Kind {
    Connect,
    Receive,
    Send,
    Close,
    Refuse,
}

const KINDS: usize = 5;

/// The callbacks of one server, and how they behave.
#[derive(Debug)]
pub(super) struct Callbacks {
    trust: [Trust; KINDS],
    /// As many as there may be calls on the loop.
    slots: Box<[Arc<Slot>]>,
    stuck_time: Duration,
    stuck_max: usize,
    numbers: AtomicU64,
    /// Calls beside the loop.
    apart: AtomicUsize,
    room: Arc<Notify>,
    watch: OnceLock<Thread>,
    is_watch_asleep: AtomicBool,
}

#[derive(Debug)]
struct Trust {
    /// Calls are made on the loop from 0 on.
    credit: AtomicI64,
    /// Calls beside the loop by number, which is also by age.
    apart: Mutex<BTreeMap<u64, Instant>>,
}

/// A place for a call on the loop. Aligned, so that threads do not take the cache line from each other.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Slot {
    /// Odd while a call is made; every call has numbers of its own.
    turn: AtomicU64,
    kind: AtomicU8,
    /// The call that is made here has not returned for too long.
    is_stuck: AtomicBool,
    /// Whom a stuck call wanted to wake: the queue of its own thread is dead, and the watch has to do it.
    later: Mutex<Vec<Waker>>,
    watch: OnceLock<Thread>,
}

thread_local! {
    /// A callback runs here, or may: what it calls runs in its place.
    static IS_INSIDE: Cell<bool> = const { Cell::new(false) };
    /// The slot of the call on this thread.
    static HERE: RefCell<Option<Arc<Slot>>> = const { RefCell::new(None) };
    /// The slot that this thread had last.
    static LAST: Cell<usize> = const { Cell::new(0) };
}

impl Default for Callbacks {
    /// Without slots: each call is made beside the loop.
    fn default() -> Self {
        Self::new(0, usize::MAX, Duration::MAX)
    }
}

impl Callbacks {
    /// Calls of which at most `slots` are made on the loop. One that has not returned for `stuck_time` is stuck, of
    /// which there should be no more than `stuck_max`.
    pub(super) fn new(slots: usize, stuck_max: usize, stuck_time: Duration) -> Self {
        Self {
            trust: [const { Trust::new() }; KINDS],
            slots: (0..slots).map(|_| Arc::default()).collect(),
            stuck_time,
            stuck_max,
            numbers: AtomicU64::new(0),
            apart: AtomicUsize::new(0),
            room: Arc::default(),
            watch: OnceLock::new(),
            is_watch_asleep: AtomicBool::new(false),
        }
    }

    /// Threads that calls beside the loop may take.
    pub(super) fn apart_max(stuck_max: usize) -> usize {
        stuck_max.saturating_add(APART_MAX)
    }

    /// Calls. What panics in `work` panics here.
    pub(super) fn call<R>(&self, kind: Kind, work: impl FnOnce() -> R) -> R {
        if IS_INSIDE.get() {
            return work();
        }
        if let Some(_on_loop) = self.on_loop(kind) {
            return work();
        }
        let _apart = Apart::begin(self, kind);
        let flavor = Handle::try_current().map(|handle| handle.runtime_flavor());
        if matches!(flavor, Ok(RuntimeFlavor::CurrentThread)) {
            return work(); // there is nobody to hand anything to
        }
        tokio::task::block_in_place(work)
    }

    /// Waits, where hundreds of callbacks are slow at the same time, until there are threads for more.
    pub(super) async fn admit(&self) {
        let mut gate = Gate::default();
        poll_fn(|cx| gate.poll(self, cx)).await;
    }

    /// Stuck callbacks, where there are so many that nobody new should be let in.
    pub(super) fn too_many_stuck(&self) -> Option<usize> {
        if self.apart.load(Relaxed) < self.stuck_max {
            return None;
        }
        let stuck = |trust: &Trust| trust.older_than(self.stuck_time);
        let stuck: usize = self.trust.iter().map(stuck).sum();
        (stuck >= self.stuck_max).then_some(stuck)
    }

    fn on_loop(&self, kind: Kind) -> Option<OnLoop> {
        if self.trust(kind).credit.load(Relaxed) < 0 {
            return None;
        }
        let slot = self.free_slot()?;
        slot.kind.store(kind as u8, Relaxed);
        if self.is_watch_asleep.load(SeqCst) {
            self.wake_watch();
        }
        IS_INSIDE.set(true);
        HERE.set(Some(slot.clone()));
        Some(OnLoop)
    }

    fn free_slot(&self) -> Option<&Arc<Slot>> {
        for attempt in 0..SPINS + YIELDS {
            let last = LAST.get();
            for (at, slot) in
                self.slots.iter().enumerate().cycle().skip(last).take(self.slots.len())
            {
                if slot.take() {
                    LAST.set(at);
                    return Some(slot);
                }
            }
            if self.slots.iter().all(|slot| slot.is_stuck.load(Relaxed)) {
                return None;
            }
            if attempt < SPINS { std::hint::spin_loop() } else { thread::yield_now() }
        }
        None
    }

    fn trust(&self, kind: Kind) -> &Trust {
        let [connect, receive, send, close, refuse] = &self.trust;
        match kind {
            Kind::Connect => connect,
            Kind::Receive => receive,
            Kind::Send => send,
            Kind::Close => close,
            Kind::Refuse => refuse,
        }
    }

    pub(super) fn is_any_stuck_on_loop(&self) -> bool {
        self.slots.iter().any(|slot| slot.is_stuck.load(Relaxed))
    }

    fn wake_watch(&self) {
        if let Some(watch) = self.watch.get() {
            watch.unpark();
        }
    }
}

impl Drop for Callbacks {
    fn drop(&mut self) {
        self.wake_watch(); // it ends
    }
}

impl Trust {
    const fn new() -> Self {
        Self { credit: AtomicI64::new(-EARNING_CALLS), apart: Mutex::new(BTreeMap::new()) }
    }

    fn lose(&self) {
        self.credit.store(-PENANCE_CALLS, Relaxed);
    }

    /// A quick call; it counts while none of its kind is slow.
    fn earn(&self) {
        if self.credit.load(Relaxed) < 0 && self.older_than(SLOW) == 0 {
            self.credit.fetch_add(1, Relaxed);
        }
    }

    fn older_than(&self, age: Duration) -> usize {
        self.lock().values().take_while(|begun| begun.elapsed() >= age).count()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.apart.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn take(&self) -> bool {
        let turn = self.turn.load(Relaxed);
        turn.is_multiple_of(2)
            && self.turn.compare_exchange(turn, turn + 1, SeqCst, Relaxed).is_ok()
    }

    fn wake_later(&self) {
        let wakers = std::mem::take(&mut *self.lock());
        wakers.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.later.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call on the loop, for as long as it lasts.
struct OnLoop;

impl Drop for OnLoop {
    fn drop(&mut self) {
        IS_INSIDE.set(false);
        if let Some(slot) = HERE.take() {
            if slot.is_stuck.swap(false, AcqRel) {
                slot.wake_later();
            }
            slot.turn.fetch_add(1, SeqCst);
        }
    }
}

/// A call beside the loop, for as long as it lasts.
struct Apart<'a> {
    callbacks: &'a Callbacks,
    kind: Kind,
    number: u64,
    begun: Instant,
}

impl<'a> Apart<'a> {
    fn begin(callbacks: &'a Callbacks, kind: Kind) -> Self {
        let (number, begun) = (callbacks.numbers.fetch_add(1, Relaxed), Instant::now());
        callbacks.apart.fetch_add(1, AcqRel);
        callbacks.trust(kind).lock().insert(number, begun);
        IS_INSIDE.set(true);
        Self { callbacks, kind, number, begun }
    }
}

impl Drop for Apart<'_> {
    fn drop(&mut self) {
        IS_INSIDE.set(false);
        let trust = self.callbacks.trust(self.kind);
        trust.lock().remove(&self.number);
        let took = self.begun.elapsed();
        if took > SLOW {
            trust.lose();
        } else if took <= QUICK && !self.callbacks.is_any_stuck_on_loop() {
            trust.earn();
        }
        self.callbacks.apart.fetch_sub(1, AcqRel);
        self.callbacks.room.notify_one();
    }
}

/// This thread serves one peer alone: a callback here holds up nobody else.
pub(super) fn own_thread() {
    IS_INSIDE.set(true);
}

/// Wakes; where a stuck callback does it, the watch wakes for it.
pub(super) fn wake(waker: &Waker) {
    let stuck = HERE.with_borrow(|here| here.clone().filter(|slot| slot.is_stuck.load(Acquire)));
    match stuck {
        Some(slot) => {
            slot.lock().push(waker.clone());
            slot.watch.get().inspect(|watch| watch.unpark());
        }
        None => waker.wake_by_ref(),
    }
}

/// Where a task waits until there are threads for calls beside the loop.
#[derive(Default)]
pub(super) struct Gate {
    waiting: Option<Pin<Box<OwnedNotified>>>,
}

impl Gate {
    /// Ready when callbacks may be called: at once, but for hundreds that are slow at the same time.
    pub(super) fn poll(&mut self, callbacks: &Callbacks, cx: &mut Context<'_>) -> Poll<()> {
        let is_open = || callbacks.apart.load(Acquire) < Callbacks::apart_max(callbacks.stuck_max);
        loop {
            if let Some(waiting) = &mut self.waiting {
                ready!(waiting.as_mut().poll(cx));
                self.waiting = None;
            }
            if is_open() {
                return Poll::Ready(());
            }
            let mut waiting = Box::pin(callbacks.room.clone().notified_owned());
            if waiting.as_mut().enable() || is_open() {
                return Poll::Ready(());
            }
            self.waiting = Some(waiting);
        }
    }
}

#[cfg(test)]
mod tests;
