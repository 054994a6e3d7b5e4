//! Where a server is watched over HTTP (`--metrics`).

use std::net::SocketAddr;

use cabo::server::metrics::Metrics;

use crate::exit::{self, Failure};

/// Listens where it was wished, and says so if others than this machine can look there.
pub(super) async fn open(at: Option<SocketAddr>) -> Result<Option<Metrics>, Failure> {
    let Some(at) = at else { return Ok(None) };
    let metrics = Metrics::bind(at).await.map_err(|error| {
        Failure::new(exit::FAILED, format!("cannot listen on {at} for --metrics: {error}"))
    })?;
    if !at.ip().is_loopback() {
        tracing::warn!("whoever reaches {} can read the metrics", metrics.address());
    }
    Ok(Some(metrics))
}
