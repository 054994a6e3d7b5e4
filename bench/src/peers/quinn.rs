//! quinn, one stream, with what makes it fast: windows that never limit, socket buffers as large as cabo's, blocks
//! handed over without a copy on both sides.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, MtuDiscoveryConfig, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
};

use super::Tally;
use crate::job::{Job, Peer, Task};

/// Larger than any path here needs.
const WINDOW_BYTES: u32 = 32 << 20;
/// What Ethernet carries over IPv4; quinn's own limit is 1452.
const LARGEST_DATAGRAM_BYTES: u16 = 1472;
/// What cabo asks for.
const RECEIVE_BUFFER_BYTES: libc::c_int = 4 << 20;
const SEND_BUFFER_BYTES: usize = 1 << 20;

pub(super) fn run(job: &Job) -> Result<()> {
    super::runtime()?.block_on(async {
        match (super::is_sender(job), job.task) {
            (true, Task::FirstByte) => ask(job).await,
            (true, _) => send(job).await,
            (false, _) => receive(job).await,
        }
    })
}

pub(super) fn listen(job: &Job) -> Result<Endpoint> {
    let crypto = QuicServerConfig::try_from(super::tls::server_config()?)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport(job));
    endpoint(job.listen.parse()?, Some(config))
}

async fn receive(job: &Job) -> Result<()> {
    let endpoint = listen(job)?;
    super::say_ready();
    let connection = endpoint.accept().await.context("an endpoint that ended")?.await?;
    let (mut send, mut recv) = connection.accept_bi().await?;
    if job.task == Task::FirstByte {
        let chunk = recv.read_chunk(1, true).await?.context("the first byte")?;
        send.write_chunk(chunk.bytes).await?;
        connection.closed().await;
        return Ok(());
    }
    let mut tally = Tally::new(job);
    while let Some(chunk) = recv.read_chunk(usize::MAX, true).await? {
        tally.add(chunk.bytes.len());
    }
    anyhow::bail!("the stream ended early")
}

async fn send(job: &Job) -> Result<()> {
    let (_endpoint, connection) = connect(job).await?;
    let told = connection.clone();
    super::tell_at_end(move || {
        let path = told.stats().path;
        format!(
            "mtu {} sent {} lost {} rtt {:?} window {}",
            path.current_mtu, path.sent_packets, path.lost_packets, path.rtt, path.cwnd
        )
    });
    let (mut send, _recv) = connection.open_bi().await?;
    let block = super::block();
    while send.write_chunk(block.clone()).await.is_ok() {}
    std::future::pending().await
}

async fn ask(job: &Job) -> Result<()> {
    let since = Instant::now();
    let (_endpoint, connection) = connect(job).await?;
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(&[1]).await?;
    recv.read_chunk(1, true).await?.context("the first byte")?;
    super::tell_first_byte(since);
    connection.close(VarInt::from_u32(0), b"");
    super::tell_at_end(String::new);
    std::future::pending().await
}

pub(super) async fn connect(job: &Job) -> Result<(Endpoint, Connection)> {
    let crypto = QuicClientConfig::try_from(super::tls::client_config()?)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport(job));
    let endpoint = endpoint(([0, 0, 0, 0], 0).into(), None)?;
    let connection = endpoint.connect_with(config, job.connect.parse()?, "bench")?.await?;
    Ok((endpoint, connection))
}

fn transport(job: &Job) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    let mut search = MtuDiscoveryConfig::default();
    search.upper_bound(LARGEST_DATAGRAM_BYTES);
    transport
        .mtu_discovery_config(Some(search))
        .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(WINDOW_BYTES.into());
    if job.peer == Peer::QuinnBbr {
        transport.congestion_controller_factory(Arc::new(quinn::congestion::BbrConfig::default()));
    }
    Arc::new(transport)
}

fn endpoint(address: SocketAddr, server: Option<ServerConfig>) -> Result<Endpoint> {
    let socket = UdpSocket::bind(address)?;
    super::blast_udp::set_receive_buffer(&socket, RECEIVE_BUFFER_BYTES)?;
    socket2::SockRef::from(&socket).set_send_buffer_size(SEND_BUFFER_BYTES)?;
    Ok(Endpoint::new(EndpointConfig::default(), server, socket, Arc::new(TokioRuntime))?)
}
