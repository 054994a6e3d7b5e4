//! cabo, as its users see it: an endpoint, a session, one stream.

use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use cabo::address::Address;
use cabo::connection::Connection;
use cabo::endpoint::{Endpoint, Settings};
use cabo::keys::Identity;
use cabo_proto::transport::congestion::Kind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{BLOCK_BYTES, Tally};
use crate::job::{Job, Peer, Task};

pub(super) fn run(job: &Job) -> Result<()> {
    super::runtime()?.block_on(async {
        match (super::is_sender(job), job.task) {
            (true, Task::FirstByte) => ask(job).await,
            (true, _) => send(job).await,
            (false, _) => receive(job).await,
        }
    })
}

pub(super) fn endpoint(job: &Job) -> Result<Endpoint> {
    let mut settings = Settings::default();
    settings.session.is_plain = job.peer == Peer::CaboPlain;
    settings.session.congestion = match job.congestion.as_deref() {
        None => settings.session.congestion,
        Some("model") => Kind::Model,
        Some("cubic") => Kind::Cubic,
        Some(rate) => Kind::Fixed { bytes_per_second: rate.parse().context("a rate")? },
    };
    Ok(Endpoint::new(&Identity::generate()?, settings)?)
}

pub(super) async fn listen(job: &Job) -> Result<Endpoint> {
    let endpoint = endpoint(job)?;
    endpoint.listen(&job.listen.parse::<Address>()?).await?;
    endpoint.answer_discovery([7; 32]);
    Ok(endpoint)
}

pub(super) async fn connect(job: &Job, endpoint: &Endpoint) -> Result<Connection> {
    Ok(endpoint.connect(&job.connect.parse::<Address>()?, None).await?)
}

async fn receive(job: &Job) -> Result<()> {
    let endpoint = listen(job).await?;
    super::say_ready();
    let connection = endpoint.accept().await;
    connection.admit();
    let (mut send, mut recv) = connection.accept().await.map_err(|ended| anyhow!("{ended}"))?;
    let mut block = vec![0; BLOCK_BYTES];
    if job.task == Task::FirstByte {
        let len = recv.read(&mut block).await?;
        send.write_all(&block[..len]).await?;
        connection.closed().await;
        return Ok(());
    }
    let mut tally = Tally::new(job);
    loop {
        let len = recv.read(&mut block).await?;
        if len == 0 {
            return Err(anyhow!("the stream ended early"));
        }
        tally.add(len);
    }
}

async fn send(job: &Job) -> Result<()> {
    let endpoint = endpoint(job)?;
    let connection = connect(job, &endpoint).await?;
    let told = connection.clone();
    super::tell_at_end(move || note(&told));
    let (mut send, _recv) = connection.open().await.map_err(|ended| anyhow!("{ended}"))?;
    let block = super::block();
    while send.write_bytes(block.clone()).await.is_ok() {}
    std::future::pending().await
}

async fn ask(job: &Job) -> Result<()> {
    let endpoint = endpoint(job)?;
    let since = Instant::now();
    let connection = connect(job, &endpoint).await?;
    let (mut send, mut recv) = connection.open().await.map_err(|ended| anyhow!("{ended}"))?;
    send.write_all(&[1]).await?;
    recv.read_u8().await.context("the first byte")?;
    super::tell_first_byte(since);
    connection.close(0, "");
    super::tell_at_end(String::new);
    std::future::pending().await
}

fn note(connection: &Connection) -> String {
    let stats = connection.stats();
    match (stats.packets, stats.path) {
        (Some(packets), Some(path)) => format!(
            "mtu {} sent {} lost {} rtt {:?} window {} probes {} {}",
            path.mtu_bytes,
            packets.packets_sent,
            packets.packets_lost,
            path.rtt,
            path.window_bytes,
            packets.probe_timeouts,
            path.controller
        ),
        _ => format!("sent {} bytes", stats.bytes_sent),
    }
}
