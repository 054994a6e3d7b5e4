//! One side of one measurement, alone in its process.
//!
//! A receiver says `ready`, counts, and prints what it counted; the sender sends until its stdin ends. Nobody verifies
//! and nobody touches a disk: all peers send the same block of memory again and again and drop what they read.

mod blast_eth;
mod blast_udp;
mod cabo;
mod load;
mod messages;
mod quinn;
mod redes;
mod streams;
mod tls;

use std::io::{self, Read as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;

use crate::job::{Counted, Job, Peer, Sent, Side, Task};

/// Bytes that a peer writes and reads at once.
const BLOCK_BYTES: usize = 256 * 1024;
/// No side outlives its measurement by more than this.
const PATIENCE: Duration = Duration::from_secs(60);

/// Does what `job` says.
pub fn run(job: &Job) -> Result<()> {
    if let Some(core) = job.core {
        pin(core).with_context(|| format!("core {core}"))?;
    }
    let limit = Duration::from_secs_f64(job.limit_seconds);
    std::thread::spawn(move || {
        std::thread::sleep(limit + PATIENCE);
        eprintln!("a peer took too long");
        std::process::exit(3);
    });
    match (job.peer, job.task) {
        (_, Task::Load) => load::run(job),
        (_, Task::Echo | Task::Sink | Task::Source) => messages::run(job),
        (Peer::Talk | Peer::Messages | Peer::Tokio, _) => {
            anyhow::bail!("{:?} has messages alone", job.peer)
        }
        (Peer::Cabo | Peer::CaboPlain, _) => cabo::run(job),
        (Peer::EthBlast, _) => blast_eth::run(job),
        (Peer::UdpBlast, _) => blast_udp::run(job),
        (Peer::Quinn | Peer::QuinnBbr, _) => quinn::run(job),
        (Peer::Tcp | Peer::Unix, _) => streams::run(job),
        (Peer::Redes, _) => redes::run(job),
        (Peer::Tls, _) => tls::run(job),
    }
}

/// Keeps this thread, and all that it starts, on one core.
pub fn pin(core: usize) -> io::Result<()> {
    // SAFETY: all bits zero is the empty set, and CPU_SET checks its bounds.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        set
    };
    // SAFETY: the kernel reads `set`, whose size is passed beside it.
    if unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Time on a core so far, user and kernel.
fn cpu_seconds() -> f64 {
    // SAFETY: all bits zero is a valid `rusage`, and the kernel fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// The bytes that everybody sends: not all alike, in case anything on the way cares.
fn block() -> Bytes {
    (0..BLOCK_BYTES as u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn say(line: &impl serde::Serialize) {
    println!("{}", serde_json::to_string(line).unwrap_or_default());
}

fn say_ready() {
    println!("ready");
}

/// What a receiver has counted. It is one a process, so that a clock beside it can end a measurement that nothing moves.
struct Tally {
    goal: u64,
}

static COUNT: AtomicU64 = AtomicU64::new(0);
static FIRST: OnceLock<Instant> = OnceLock::new();
static IS_TOLD: AtomicBool = AtomicBool::new(false);

impl Tally {
    fn new(job: &Job) -> Self {
        let limit = Duration::from_secs_f64(job.limit_seconds);
        std::thread::spawn(move || {
            let first = FIRST.wait();
            std::thread::sleep(limit.saturating_sub(first.elapsed()));
            tell_and_exit();
        });
        Self { goal: job.bytes }
    }

    /// Counts what arrived; ends the process with a report when that is all.
    fn add(&mut self, len: usize) {
        FIRST.get_or_init(Instant::now);
        let count = COUNT.fetch_add(len as u64, Ordering::Relaxed) + len as u64;
        if count >= self.goal {
            tell_and_exit();
        }
    }
}

fn tell_and_exit() -> ! {
    if IS_TOLD.swap(true, Ordering::Relaxed) {
        loop {
            std::thread::park(); // another thread tells, and ends us
        }
    }
    let seconds = FIRST.get().map_or(0.0, |first| first.elapsed().as_secs_f64());
    let bytes = COUNT.load(Ordering::Relaxed);
    say(&Counted { bytes, seconds, cpu_seconds: cpu_seconds() });
    std::process::exit(0)
}

/// Ends the process when its stdin ends, with what `note` says.
fn tell_at_end(note: impl FnOnce() -> String + Send + 'static) {
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        say(&Sent { cpu_seconds: cpu_seconds(), note: note() });
        std::process::exit(0)
    });
}

/// What the connecting side says of the time to the first byte.
fn tell_first_byte(since: Instant) {
    let seconds = since.elapsed().as_secs_f64();
    say(&Counted { bytes: 1, seconds, cpu_seconds: cpu_seconds() });
}

/// A runtime on this thread alone: a side has one core.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn is_sender(job: &Job) -> bool {
    job.side == Side::Sender
}
