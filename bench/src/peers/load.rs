//! A server that is weighed, and the many clients that come to it; see `crate::load`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow};
use cabo::connection::Connection;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::job::Job;
use crate::load::{Answer, Order};

/// Handshakes under way at once.
const AT_ONCE: usize = 50;
/// A stream of steady rate is written so often.
const STEP: Duration = Duration::from_millis(100);

pub(super) fn run(job: &Job) -> Result<()> {
    super::runtime()?.block_on(async {
        if super::is_sender(job) { clients(job).await } else { server(job).await }
    })
}

/// Streams to each client at the rate that it asks for, in the first eight bytes of its stream.
async fn server(job: &Job) -> Result<()> {
    let endpoint = super::cabo::listen(job).await?;
    let sessions = Arc::new(AtomicUsize::new(0));
    let counted = sessions.clone();
    tokio::spawn(async move {
        loop {
            let connection = endpoint.accept().await;
            connection.admit();
            let sessions = counted.clone();
            tokio::spawn(async move {
                sessions.fetch_add(1, Ordering::Relaxed);
                tokio::select! {
                    _ = stream_to(&connection) => {}
                    _ = connection.closed() => {}
                }
                sessions.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    super::say_ready();
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while orders.next_line().await?.is_some() {
        let sessions = sessions.load(Ordering::Relaxed);
        super::say(&Answer { sessions, ..weigh() });
    }
    Ok(())
}

async fn stream_to(connection: &Connection) -> Result<()> {
    let (mut send, mut recv) = connection.accept().await.map_err(|ended| anyhow!("{ended}"))?;
    let rate = recv.read_u64().await?;
    let step = super::block().slice(..(rate as usize / 10).min(super::BLOCK_BYTES));
    let mut clock = tokio::time::interval(STEP);
    loop {
        clock.tick().await;
        send.write_bytes(step.clone()).await?;
    }
}

async fn clients(job: &Job) -> Result<()> {
    let endpoint = Arc::new(super::cabo::endpoint(job)?);
    let mut sessions: Vec<Connection> = Vec::new();
    let mut counts: Vec<Arc<AtomicU64>> = Vec::new();
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while let Some(order) = orders.next_line().await? {
        let mut answer = Answer::default();
        match serde_json::from_str(&order)? {
            Order::Open { sessions: wanted, bytes_per_second } => {
                let at_once = Arc::new(Semaphore::new(AT_ONCE));
                let mut opening = JoinSet::new();
                for _ in 0..wanted {
                    let (endpoint, job, at_once) = (endpoint.clone(), job.clone(), at_once.clone());
                    opening.spawn(async move {
                        let _turn = at_once.acquire().await;
                        super::cabo::connect(&job, &endpoint).await
                    });
                }
                while let Some(connection) = opening.join_next().await {
                    let connection = connection??;
                    let count = Arc::new(AtomicU64::new(0));
                    if bytes_per_second > 0 {
                        tokio::spawn(drink(connection.clone(), bytes_per_second, count.clone()));
                    }
                    sessions.push(connection);
                    counts.push(count);
                }
            }
            Order::Count => {
                let taken: Vec<u64> =
                    counts.iter().map(|count| count.swap(0, Ordering::Relaxed)).collect();
                answer.bytes = taken.iter().sum();
                answer.least = taken.iter().copied().min().unwrap_or_default();
            }
            Order::Close => {
                sessions.drain(..).for_each(|connection| connection.close(0, "enough"));
                counts.clear();
            }
            Order::Weigh => {}
        }
        let living = sessions.iter().filter(|session| session.ended().is_none()).count();
        super::say(&Answer {
            sessions: living,
            bytes: answer.bytes,
            least: answer.least,
            ..weigh()
        });
    }
    Ok(())
}

/// Asks for a stream and counts what comes.
async fn drink(connection: Connection, rate: u64, count: Arc<AtomicU64>) -> Result<()> {
    let (mut send, mut recv) = connection.open().await.map_err(|ended| anyhow!("{ended}"))?;
    send.write_u64(rate).await?;
    let mut block = vec![0; 16 * 1024];
    loop {
        match recv.read(&mut block).await? {
            0 => return Ok(()),
            len => count.fetch_add(len as u64, Ordering::Relaxed),
        };
    }
}

pub(super) fn weigh() -> Answer {
    let pages: u64 = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1)?.parse().ok())
        .unwrap_or_default();
    // SAFETY: a plain call that returns a struct of numbers.
    let heap = unsafe { libc::mallinfo2() };
    Answer {
        resident_bytes: pages * 4096,
        heap_bytes: (heap.uordblks + heap.hblkhd) as u64,
        cpu_seconds: super::cpu_seconds(),
        ..Answer::default()
    }
}
