//! Messages: servers that echo, count or send them, and the clients of servers that no generator in C can speak to. Both
//! answer the lines of their stdin, as `foreign/common.h` and `foreign/generator.c` do; see `crate::messages`.

use std::io::BufRead as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use cabo::address::Address;
use cabo::endpoint::{self, Endpoint};
use cabo::keys::Identity;
use cabo::talk::{self, Client};
use cabo_proto::dialect::Dialect;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::load::weigh;
use crate::job::{Job, Peer, Task};
use crate::messages::process::{Progress, Rounds};

/// Bytes that a source lets wait before it has its peer take them.
const SOURCE_BYTES: usize = 64 * 1024;
/// The first part of an order's time that is not measured, as in `generator.c`.
const WARM_UP: f64 = 0.2;
/// Handshakes under way at once.
const AT_ONCE: usize = 50;
/// Messages sent between two looks at the clock.
const PUMPED: u64 = 64;

static MESSAGES: AtomicU64 = AtomicU64::new(0);
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

pub(super) fn run(job: &Job) -> Result<()> {
    if super::is_sender(job) {
        return super::runtime()?.block_on(ask(job));
    }
    std::thread::spawn(answer_lines);
    match job.peer {
        Peer::Talk | Peer::Messages => serve_talk(job),
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
    let server = server.identity(Identity::generate()?).access(|access| access.open());
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

/// The client of a server that no generator speaks to.
async fn ask(job: &Job) -> Result<()> {
    let payload = vec![7; job.bytes as usize];
    match job.peer {
        Peer::Talk => {
            let url = format!("tcp://{}", job.connect).parse()?;
            let client = Client::connect(&url, Dialect::parse(&job.dialect)?.into()).await?;
            obey(Talking { client, payload }, Vec::new()).await
        }
        Peer::Messages => ask_cabo(job, payload).await,
        Peer::Quinn => {
            let (_endpoint, connection) = super::quinn::connect(job).await?;
            let (send, recv) = connection.open_bi().await?;
            obey(Bare::new(send, recv, payload), Vec::new()).await
        }
        Peer::Cabo | Peer::CaboPlain => {
            let endpoint = super::cabo::endpoint(job)?;
            let connection = super::cabo::connect(job, &endpoint).await?;
            let (send, recv) = connection.open().await.map_err(|ended| anyhow!("{ended}"))?;
            obey(Bare::new(send, recv, payload), Vec::new()).await
        }
        _ => bail!("{:?} has no client for messages", job.peer),
    }
}

/// Cabo peers with `messages/1`, as many as are wanted; the first obeys.
async fn ask_cabo(job: &Job, payload: Vec<u8>) -> Result<()> {
    let mut settings = endpoint::Settings::default();
    settings.session.keep_alive = true;
    let endpoint = Endpoint::new(&Identity::generate()?, settings)?;
    let over = Arc::new(cabo::client::Client::new(endpoint, None));
    let address: Address = format!("tcp://{}", job.connect).parse()?;
    let is_answered = job.task == Task::Echo;
    let mut opening = JoinSet::new();
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    for _ in 0..job.connections.max(1) {
        let (over, address, payload) = (over.clone(), address.clone(), payload.clone());
        let at_once = at_once.clone();
        opening.spawn(async move {
            let _turn = at_once.acquire().await;
            let client = Client::connect_over(&over, &address, talk::Settings::default()).await?;
            let mut talking = Talking { client, payload };
            if is_answered {
                talking.round().await?;
            }
            Ok::<_, anyhow::Error>(talking)
        });
    }
    let mut all = opening.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    let first = all.pop().context("a connection")?;
    obey(first, all).await
}

/// Somebody who can ask.
trait Ask {
    /// Sends a message and awaits its answer.
    async fn round(&mut self) -> Result<()>;

    /// Sends a message.
    async fn send(&mut self) -> Result<()>;
}

struct Talking {
    client: Client,
    payload: Vec<u8>,
}

impl Ask for Talking {
    async fn round(&mut self) -> Result<()> {
        self.send().await?;
        self.client.receiver.next().await?.context("the server ended it")?;
        Ok(())
    }

    async fn send(&mut self) -> Result<()> {
        Ok(self.client.sender.send(&self.payload).await?)
    }
}

/// Bytes both ways.
struct Bare<S, R> {
    send: S,
    recv: R,
    payload: Vec<u8>,
    answer: Vec<u8>,
}

impl<S, R> Bare<S, R> {
    fn new(send: S, recv: R, payload: Vec<u8>) -> Self {
        Self { send, recv, answer: payload.clone(), payload }
    }
}

impl<S: AsyncWrite + Unpin, R: AsyncRead + Unpin> Ask for Bare<S, R> {
    async fn round(&mut self) -> Result<()> {
        self.send().await?;
        self.recv.read_exact(&mut self.answer).await?;
        Ok(())
    }

    async fn send(&mut self) -> Result<()> {
        Ok(self.send.write_all(&self.payload).await?)
    }
}

/// Obeys `echo 1 SECONDS` and `pump SECONDS`, line after line, beside others that are silent.
async fn obey<A: Ask>(mut asking: A, silent: Vec<A>) -> Result<()> {
    super::say(&"ready");
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while let Some(order) = orders.next_line().await? {
        let words: Vec<&str> = order.split(' ').collect();
        match words[..] {
            ["echo", "1", seconds] => super::say(&echo(&mut asking, seconds.parse()?).await?),
            ["pump", seconds] => super::say(&pump(&mut asking, seconds.parse()?).await?),
            _ => bail!("no such order: {order}"),
        }
    }
    drop(silent);
    Ok(())
}

async fn echo(asking: &mut impl Ask, seconds: f64) -> Result<Rounds> {
    let time = Duration::from_secs_f64(seconds);
    let mut nanos: Vec<u64> = Vec::new();
    let begin = Instant::now();
    let (from, until) = (begin + time.mul_f64(WARM_UP), begin + time);
    let mut now = begin;
    while now < until {
        asking.round().await?;
        let answered = Instant::now();
        if now >= from {
            nanos.push((answered - now).as_nanos() as u64);
        }
        now = answered;
    }
    nanos.sort_unstable();
    let at = |part: f64| nanos.get((nanos.len() as f64 * part) as usize).copied();
    Ok(Rounds {
        requests: nanos.len() as u64,
        seconds: (until - from).as_secs_f64(),
        p50_nanos: at(0.5).unwrap_or_default(),
        p99_nanos: at(0.99).unwrap_or_default(),
    })
}

async fn pump(asking: &mut impl Ask, seconds: f64) -> Result<Rounds> {
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let mut requests = 0;
    while Instant::now() < until {
        for _ in 0..PUMPED {
            asking.send().await?;
        }
        requests += PUMPED;
    }
    Ok(Rounds { requests, seconds, ..Rounds::default() })
}
