//! The threads of a server, and its tasks, which no stuck thread can keep.
//!
//! The loop has one thread more than it may have callbacks, so one is always left; it sleeps until it is needed. A task
//! that waits in the queue of a thread whose callback does not return would wait with it: the watch of `callback` then has
//! `Homes::rescue` give every task that is not running to another thread.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;

use super::callback::{self, Callbacks};
use super::{Settings, Threads};
use crate::endpoint::Task;

/// Event loops at most, whatever was asked for.
const LOOPS_MAX: usize = 1024;
/// Stuck callbacks at most, each of which keeps a thread.
const STUCK_MAX: usize = 16_384;
/// Peers at once where each has a thread.
const PER_PEER_MAX: usize = 4096;
/// The stack of such a thread; memory is taken as it is used.
const PEER_STACK_BYTES: usize = 1024 * 1024;
/// Threads for what the runtime itself does aside, such as asking for names.
const ASIDE_THREADS: usize = 16;
/// Turns of tasks before a thread that is never idle looks who is ready, how many it takes then, and how many where it had
/// nothing to do. Taken faster than they have their turn, they would overflow a thread's queue, which has 256 places; and
/// who overflows waits behind all who come later. The kernel keeps the others in order.
const TURNS: u32 = 128;
const READY_BUSY: usize = 96;
const READY_IDLE: usize = 128;
/// How often it is looked whether callbacks have returned that were stuck.
const SPARE_TIME: Duration = Duration::from_millis(100);

/// Threads with tasks. It stops when it is told to or dropped, and waits for no callback.
#[derive(Debug)]
pub(super) struct Engine {
    handle: Handle,
    homes: Arc<Homes>,
    callbacks: Arc<Callbacks>,
    threads: Threads,
    /// Whoever has a thread of its own keeps the runtime alive for its sockets and timers.
    held: Mutex<Option<Arc<Held>>>,
    cut: watch::Sender<bool>,
}

#[derive(Debug)]
struct Held {
    runtime: Option<Runtime>,
    spare: Arc<Spare>,
}

impl Engine {
    pub(super) fn start(settings: &Settings) -> io::Result<Self> {
        let cores = || available_parallelism().map_or(1, usize::from);
        let loops = match settings.threads {
            Threads::Loop(threads) => threads.clamp(1, LOOPS_MAX),
            Threads::Cores | Threads::PerPeer => cores(),
        };
        let stuck_max = settings.stuck_max.clamp(1, STUCK_MAX);
        let aside = Callbacks::apart_max(stuck_max);
        let workers = loops + 1;
        let runtime = Builder::new_multi_thread()
            .worker_threads(workers)
            .event_interval(TURNS)
            .max_io_events_per_tick(READY_IDLE)
            .max_io_events_per_busy_tick(READY_BUSY)
            .max_blocking_threads(aside + 2 * workers + ASIDE_THREADS)
            .thread_name("cabo-loop")
            .enable_all()
            .build()?;
        let callbacks = Arc::new(Callbacks::new(loops, stuck_max, settings.stuck_time));
        let homes = Arc::new(Homes::default());
        let handle = runtime.handle().clone();
        let spare = Arc::new(Spare::default());
        let rescue = {
            let (homes, handle, spare) = (homes.clone(), handle.clone(), spare.clone());
            move || {
                spare.wake(|state| state.is_needed = true);
                homes.rescue(&handle);
            }
        };
        callbacks.start_watch(rescue)?;
        handle.spawn(spare.clone().keep(Arc::downgrade(&callbacks)));
        let held = Mutex::new(Some(Arc::new(Held { runtime: Some(runtime), spare })));
        let (cut, _) = watch::channel(false);
        Ok(Self { handle, homes, callbacks, threads: settings.threads, held, cut })
    }

    /// The one of all clients that are not awaited in a runtime of the caller's. It lasts as long as the process.
    pub(super) fn of_clients() -> io::Result<Arc<Self>> {
        static ENGINE: Mutex<Option<Arc<Engine>>> = Mutex::new(None);
        let mut engine = ENGINE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = &*engine {
            return Ok(engine.clone());
        }
        let settings = Settings { threads: Threads::Loop(1), ..Settings::default() };
        let started = Arc::new(Self::start(&settings)?);
        *engine = Some(started.clone());
        Ok(started)
    }

    /// Awaits it here, with the sockets and timers of the loop.
    pub(super) async fn within<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| self.poll(work.as_mut(), cx)).await
    }

    /// Polls it here, with the sockets and timers of the loop.
    pub(super) fn poll<T>(
        &self,
        work: Pin<&mut impl Future<Output = T>>,
        cx: &mut Context<'_>,
    ) -> Poll<T> {
        let _entered = self.handle.enter();
        work.poll(cx)
    }

    pub(super) fn callbacks(&self) -> &Arc<Callbacks> {
        &self.callbacks
    }

    /// Peers that there may be at once.
    pub(super) fn peers_max(&self, wanted: usize) -> usize {
        if self.threads == Threads::PerPeer { wanted.min(PER_PEER_MAX) } else { wanted }
    }

    /// Runs it on the loop.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.homes.spawn(Box::pin(work), &self.handle);
    }

    /// What does that for others.
    pub(super) fn spawner(self: &Arc<Self>) -> impl Fn(Task) + Send + Sync + 'static + use<> {
        let engine = self.clone();
        move |task| engine.spawn(task)
    }

    /// Runs the conversation with a peer: on the loop, or on a thread of its own.
    pub(super) fn spawn_peer(
        &self,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        if self.threads != Threads::PerPeer {
            self.spawn(work);
            return Ok(());
        }
        let Some(held) = self.lock().clone() else { return Ok(()) }; // it has just stopped
        let mut cut = self.cut.subscribe();
        let thread = std::thread::Builder::new().name("cabo-peer".to_owned());
        let thread = thread.stack_size(PEER_STACK_BYTES).spawn(move || {
            callback::own_thread();
            held.block_on(async {
                tokio::select! {
                    biased;
                    _ = cut.wait_for(|is_cut| *is_cut) => {}
                    () = work => {}
                }
            });
        });
        thread.map(drop)
    }

    /// Ends all tasks. Calls that do not return keep their threads until the process ends.
    pub(super) fn stop(&self) {
        self.cut.send_replace(true);
        drop(self.lock().take());
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn block_on(&self, work: impl Future<Output = ()>) {
        if let Some(runtime) = &self.runtime {
            runtime.handle().block_on(work);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.spare.wake(|state| state.is_over = true);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The thread that is left when callbacks have all others. Awake, it would be woken by the runtime for nearly every
/// message, and find that another thread has it; so it sleeps in a task, where the runtime takes it for busy.
#[derive(Debug, Default)]
struct Spare {
    state: Mutex<SpareState>,
    woken: Condvar,
}

#[derive(Debug, Default)]
struct SpareState {
    is_needed: bool,
    is_over: bool,
}

impl Spare {
    /// Keeps whichever thread polls it asleep, but for as long as a call on the loop is stuck.
    async fn keep(self: Arc<Self>, callbacks: Weak<Callbacks>) {
        loop {
            // What waits behind this task is for others, whom the second of two new tasks wakes to look for it.
            for _ in 0..2 {
                tokio::spawn(async {});
            }
            if self.sleep_until_needed().is_over {
                return;
            }
            loop {
                tokio::time::sleep(SPARE_TIME).await;
                let Some(callbacks) = callbacks.upgrade() else { return };
                if !callbacks.is_any_stuck_on_loop() {
                    break;
                }
            }
        }
    }

    fn sleep_until_needed(&self) -> SpareState {
        let is_unneeded = |state: &mut SpareState| !state.is_needed && !state.is_over;
        let state = self.lock();
        let woken = self.woken.wait_while(state, is_unneeded);
        let mut state = woken.unwrap_or_else(PoisonError::into_inner);
        let is_over = state.is_over;
        std::mem::replace(&mut *state, SpareState { is_needed: false, is_over })
    }

    fn wake(&self, change: impl FnOnce(&mut SpareState)) {
        change(&mut self.lock());
        self.woken.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, SpareState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All tasks of the loop.
#[derive(Debug, Default)]
struct Homes {
    numbers: AtomicU64,
    by_number: Mutex<BTreeMap<u64, Weak<Home>>>,
}

/// A task that can be moved: what it does, and which of its runners is the right one.
struct Home {
    number: u64,
    homes: Weak<Homes>,
    runner: AtomicU64,
    work: Mutex<Option<Work>>,
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A task of the runtime that runs a home, until another one does.
struct Runner {
    home: Arc<Home>,
    number: u64,
}

impl Homes {
    fn spawn(self: &Arc<Self>, work: Work, handle: &Handle) {
        let number = self.numbers.fetch_add(1, Relaxed);
        let (homes, work) = (Arc::downgrade(self), Mutex::new(Some(work)));
        let home = Arc::new(Home { number, homes, runner: AtomicU64::new(0), work });
        self.lock().insert(number, Arc::downgrade(&home));
        handle.spawn(Runner { home, number: 0 });
    }

    /// Gives everything that is not running a new runner, which a living thread will take.
    fn rescue(&self, handle: &Handle) {
        let homes: Vec<Weak<Home>> = self.lock().values().cloned().collect();
        for home in homes.iter().filter_map(Weak::upgrade) {
            let Ok(work) = home.work.try_lock() else { continue }; // it runs, or it is what is stuck
            let number = home.runner.fetch_add(1, AcqRel) + 1;
            drop(work);
            handle.spawn(Runner { home, number });
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Weak<Home>>> {
        self.by_number.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Future for Runner {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Ok(mut kept) = self.home.work.try_lock() else {
            cx.waker().wake_by_ref(); // another runner is about to see that it is no longer the right one
            return if self.is_replaced() { Poll::Ready(()) } else { Poll::Pending };
        };
        if self.is_replaced() {
            return Poll::Ready(());
        }
        let Some(work) = kept.as_mut() else { return Poll::Ready(()) };
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)));
        if !matches!(polled, Ok(Poll::Pending)) {
            *kept = None;
            return Poll::Ready(()); // a panic has been reported, and ends this task alone
        }
        Poll::Pending
    }
}

impl Runner {
    fn is_replaced(&self) -> bool {
        self.home.runner.load(Acquire) != self.number
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(homes) = self.homes.upgrade() {
            homes.lock().remove(&self.number);
        }
    }
}

impl std::fmt::Debug for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Home {}", self.number)
    }
}
