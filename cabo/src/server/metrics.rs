//! A server watched over HTTP: `/metrics` as Prometheus reads it, `/health` and `/ready` for whoever restarts services or
//! sends them work.
//!
//! Nothing is asked of who comes but where it comes to: the counts name no peer and no item. Connections are few, short
//! and answer one request each, whatever is sent. Neighbours: `stats.rs` counts, `exposition.rs` writes the text.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::exposition;
use super::stats::Watch;

/// A connection is over after this, whatever it does.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// Connections at once; for one more the oldest goes.
const CONNECTIONS_MAX: usize = 32;
/// The head of a request has to fit.
const HEAD_BYTES: usize = 16 * 1024;
/// The pause after the system had no room for one more connection.
const PAUSE: Duration = Duration::from_millis(100);
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Where a server is watched.
#[derive(Debug)]
pub struct Metrics {
    listener: TcpListener,
    here: SocketAddr,
}

impl Metrics {
    /// Listens on `at`; port 0 picks a free one.
    pub async fn bind(at: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(at).await?;
        let here = listener.local_addr()?;
        Ok(Self { listener, here })
    }

    /// The address with the port that it really got.
    pub fn address(&self) -> SocketAddr {
        self.here
    }

    /// Answers about a server until it is dropped.
    pub async fn run(self, watch: Watch) {
        let site = Arc::new(Site { watch, is_local: self.here.ip().is_loopback() });
        let mut connections = JoinSet::new();
        let mut oldest_first: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "cannot accept who asks for metrics");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            while connections.try_join_next().is_some() {}
            oldest_first.retain(|connection| !connection.is_finished());
            if oldest_first.len() >= CONNECTIONS_MAX {
                oldest_first.pop_front().inspect(AbortHandle::abort);
            }
            oldest_first.push_back(connections.spawn(talk(stream, site.clone())));
        }
    }
}

struct Site {
    watch: Watch,
    is_local: bool,
}

async fn talk(stream: TcpStream, site: Arc<Site>) {
    let answer = |request| {
        let response = site.answer(&request);
        async move { Ok::<_, Infallible>(response) }
    };
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(CONNECTION_TIME);
    http.max_buf_size(HEAD_BYTES).keep_alive(false);
    let talking = http.serve_connection(TokioIo::new(stream), service_fn(answer));
    if let Ok(Err(error)) = timeout(CONNECTION_TIME, talking).await {
        tracing::debug!(%error, "who asked for metrics left early");
    }
}

impl Site {
    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let text = |status, text: &'static str| response(status, TEXT, text.to_owned());
        if self.is_local && !is_asked_for(request.headers()) {
            return text(StatusCode::MISDIRECTED_REQUEST, "not the name of this place\n");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD alone\n");
        }
        match request.uri().path() {
            "/metrics" => match exposition::text(self.watch.stats()) {
                Ok(body) => response(StatusCode::OK, OPENMETRICS, body),
                Err(error) => {
                    tracing::debug!(%error, "cannot write metrics");
                    text(StatusCode::INTERNAL_SERVER_ERROR, "cannot write them\n")
                }
            },
            "/health" => text(StatusCode::OK, "ok\n"),
            "/ready" if self.watch.is_draining() => {
                text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
            }
            "/ready" => text(StatusCode::OK, "ready\n"),
            _ => text(StatusCode::NOT_FOUND, "/metrics, /health, /ready\n"),
        }
    }
}

/// On the loopback, whether it was meant for this machine: a page in a browser here whose name was made to lead here (DNS
/// rebinding) has that name in `Host`. Who sends no `Host` is no browser.
fn is_asked_for(headers: &HeaderMap) -> bool {
    headers.get_all(header::HOST).iter().all(|host| {
        let host = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
        host.is_some_and(|host| {
            let host = host.host().trim_start_matches('[').trim_end_matches(']');
            host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok()
        })
    })
}

fn response(status: StatusCode, media_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_the_loopback_a_name_of_elsewhere_is_not_answered() {
        let with = |hosts: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(header::HOST, HeaderValue::from_static(host));
            }
            is_asked_for(&headers)
        };
        for ours in ["127.0.0.1:9100", "localhost", "LOCALHOST:1", "[::1]:9100", "10.0.0.1"] {
            assert!(with(&[ours]), "{ours}");
        }
        assert!(with(&[]), "a probe of HTTP/1.0");
        for foreign in ["rebound.example:9100", "127.0.0.1.example", "", "a b", "localhost.example"]
        {
            assert!(!with(&[foreign]), "{foreign}");
        }
        assert!(!with(&["localhost", "rebound.example"]), "one of two");
    }
}
