//! Messages: servers that echo, count or send them, and the clients of servers that no generator in C can speak to. Both
//! answer the lines of their stdin, as `foreign/common.h` and `foreign/generator.c` do; see `crate::messages`.

use std::io::BufRead as _;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use cabo::talk::{self, Client};
use cabo_proto::dialect::Dialect;
use cabo_proto::dialect::cut::Cut;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::load::weigh;
use crate::job::{Job, Peer, Task};
use crate::messages::process::{Progress, Rounds};

/// Bytes that a source lets wait before it has its peer take them.
const SOURCE_BYTES: usize = 64 * 1024;
/// The first part of an order's time that is not measured, as in `generator.c`.
const WARM_UP: f64 = 0.2;

static MESSAGES: AtomicU64 = AtomicU64::new(0);
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

pub(super) fn run(job: &Job) -> Result<()> {
    if super::is_sender(job) {
        return super::runtime()?.block_on(ask(job));
    }
    std::thread::spawn(answer_lines);
    match job.peer {
        Peer::Talk => serve_talk(job),
        Peer::Tokio => super::runtime()?.block_on(serve_tokio(job)),
        Peer::Quinn => super::runtime()?.block_on(serve_quinn(job)),
        Peer::Cabo | Peer::CaboPlain => super::runtime()?.block_on(serve_session(job)),
        _ => bail!("{:?} has no messages", job.peer),
    }
}

/// Says what was done until now, until the end of stdin ends the process.
fn answer_lines() {
    let start = *START;
    for _ in std::io::stdin().lock().lines().map_while(Result::ok) {
        super::say(&Progress {
            messages: MESSAGES.load(Relaxed),
            nanos: start.elapsed().as_nanos() as u64,
            heap_bytes: weigh().heap_bytes,
        });
    }
    std::process::exit(0)
}

/// There is one thread that counts.
fn count(messages: u64) {
    MESSAGES.store(MESSAGES.load(Relaxed) + messages, Relaxed);
}

/// As its users have it: callbacks on one event loop.
fn serve_talk(job: &Job) -> Result<()> {
    let settings = talk::Settings {
        dialect: Dialect::parse(&job.dialect)?.into(),
        threads: talk::Threads::Loop(1),
        ..talk::Settings::default()
    };
    let server = talk::Server::bind([format!("tcp://{}", job.listen)])?.settings(settings);
    let payload = Bytes::from(vec![7; job.bytes as usize]);
    let server = match job.task {
        Task::Sink => server.on_receive(|_, _| count(1)),
        Task::Source => server.on_send(move |peer| {
            for _ in 0..SOURCE_BYTES / payload.len().max(1) {
                peer.send(&payload).ok()?;
                count(1);
            }
            None
        }),
        _ => server.on_receive(|message, peer| {
            let _ = peer.send_back(&message); // a peer that is gone waits for nothing
        }),
    };
    Ok(server.run()?)
}

/// The echo of tokio's own examples.
async fn serve_tokio(job: &Job) -> Result<()> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(job.listen.parse()?)?;
    let listener: TcpListener = socket.listen(1024)?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut buffer = vec![0; 1024];
            while let Ok(len @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..len]).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn serve_quinn(job: &Job) -> Result<()> {
    let endpoint = super::quinn::listen(job)?;
    super::say_ready();
    let connection = endpoint.accept().await.context("an endpoint that ended")?.await?;
    let (mut send, mut recv) = connection.accept_bi().await?;
    while let Some(chunk) = recv.read_chunk(usize::MAX, true).await? {
        send.write_chunk(chunk.bytes).await?;
    }
    Ok(())
}

/// One stream of a session, sealed or in plain.
async fn serve_session(job: &Job) -> Result<()> {
    let endpoint = super::cabo::listen(job).await?;
    super::say_ready();
    let connection = endpoint.accept().await;
    connection.admit();
    let (mut send, mut recv) = connection.accept().await.map_err(|ended| anyhow!("{ended}"))?;
    let mut block = vec![0; 64 * 1024];
    while let Ok(len @ 1..) = recv.read(&mut block).await {
        send.write_all(&block[..len]).await?;
    }
    Ok(())
}

/// One connection that asks, and asks again when it is answered.
async fn ask(job: &Job) -> Result<()> {
    let payload = vec![7; job.bytes as usize];
    let mut answer = vec![0; payload.len()];
    match job.peer {
        Peer::Talk => {
            let dialect = Dialect::parse(&job.dialect)?;
            let is_raw = matches!(dialect.cut, Cut::Raw);
            let url = format!("tcp://{}", job.connect).parse()?;
            let mut client = Client::connect(&url, dialect.into()).await?;
            obey(async || {
                client.sender.send(&payload).await?;
                let mut len = 0;
                while len == 0 || (is_raw && len < payload.len()) {
                    let message = client.receiver.next().await?.context("the server ended it")?;
                    len += message.bytes().len();
                }
                Ok(())
            })
            .await
        }
        Peer::Quinn => {
            let (_endpoint, connection) = super::quinn::connect(job).await?;
            let (mut send, mut recv) = connection.open_bi().await?;
            obey(async || {
                send.write_all(&payload).await?;
                Ok(recv.read_exact(&mut answer).await?)
            })
            .await
        }
        Peer::Tokio => {
            let mut stream = TcpStream::connect(&job.connect).await?;
            stream.set_nodelay(true)?;
            obey(async || {
                stream.write_all(&payload).await?;
                stream.read_exact(&mut answer).await?;
                Ok(())
            })
            .await
        }
        Peer::Cabo | Peer::CaboPlain => {
            let endpoint = super::cabo::endpoint(job)?;
            let connection = super::cabo::connect(job, &endpoint).await?;
            let (mut send, mut recv) =
                connection.open().await.map_err(|ended| anyhow!("{ended}"))?;
            obey(async || {
                send.write_all(&payload).await?;
                recv.read_exact(&mut answer).await?;
                Ok(())
            })
            .await
        }
        _ => bail!("{:?} has no client for messages", job.peer),
    }
}

/// Obeys `echo 1 SECONDS`, line after line.
async fn obey(mut round: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    round().await?; // a connection that works
    super::say(&"ready");
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while let Some(order) = orders.next_line().await? {
        let words: Vec<&str> = order.split(' ').collect();
        let ["echo", "1", seconds] = words[..] else { bail!("no such order: {order}") };
        let time = Duration::from_secs_f64(seconds.parse()?);
        let mut nanos: Vec<u64> = Vec::new();
        let begin = Instant::now();
        let (from, until) = (begin + time.mul_f64(WARM_UP), begin + time);
        let mut now = begin;
        while now < until {
            round().await?;
            let answered = Instant::now();
            if now >= from {
                nanos.push((answered - now).as_nanos() as u64);
            }
            now = answered;
        }
        nanos.sort_unstable();
        let at = |part: f64| nanos.get((nanos.len() as f64 * part) as usize).copied();
        super::say(&Rounds {
            requests: nanos.len() as u64,
            seconds: (until - from).as_secs_f64(),
            p50_nanos: at(0.5).unwrap_or_default(),
            p99_nanos: at(0.99).unwrap_or_default(),
        });
    }
    Ok(())
}
