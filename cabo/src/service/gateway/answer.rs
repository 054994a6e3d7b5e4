//! Requests of players and browsers, and what they are answered with.
//!
//! Who is asked for (Host) comes first, then the token, then the item. A page of another site that had its name lead
//! here (DNS rebinding) fails at the first; it could not guess the second.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header};

use tokio::sync::Semaphore;

use super::blocks::{Blocks, Item, count};
use super::page;
use super::range::{Decision, decide};
use super::reader::{Reader, ReaderBody};
use super::source::{PlayError, Source};
use crate::service::media::{Entry, ErrorCode, ItemPath, MediaClient};

/// Entries of a folder that a page shows.
const ENTRIES_MAX: usize = 10_000;
/// An item is the server's: it may be looked at and played, and run nothing, even if it is a page with scripts.
const ITEM_POLICY: &str =
    "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox";
/// A browser that opens a film makes a page around it, which asks for it again: from a sandbox that would be a stranger's
/// request, and refused.
const FILM_POLICY: &str =
    "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'";
const PAGE_POLICY: &str = "default-src 'none'; img-src 'self'; media-src 'self'; base-uri 'none'; form-action 'none'; \
                           frame-ancestors 'none'";

/// Whether a connection has shown the token.
#[derive(Clone, Debug, Default)]
pub(super) struct Known(Arc<AtomicBool>);

impl Known {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the gateway serves, and where.
#[derive(Debug)]
pub(super) struct Site<S> {
    pub(super) here: SocketAddr,
    pub(super) token: String,
    pub(super) readers: Arc<Semaphore>, // one permit for each item that is read
    pub(super) blocks: Arc<Blocks<S>>,
}

/// Answers one request. Every answer forbids to be kept, to be taken for another type, and to be shown elsewhere.
pub(super) async fn answer<S: Source>(
    State(site): State<Arc<Site<S>>>,
    request: Request,
) -> Response<Body> {
    let mut response = match route(&site, &request.into_parts().0).await {
        Ok(response) => response,
        Err(failure) => failure.into_response(),
    };
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// An answer that is one line of text.
struct Failure {
    status: StatusCode,
    text: String,
}

impl Failure {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    /// A wrong token, a path that cannot be and an item that is not there look alike.
    fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not found")
    }

    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(format!("{}\n", self.text)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }
}

impl From<PlayError> for Failure {
    fn from(error: PlayError) -> Self {
        let status = match &error {
            PlayError::Refused(refusal) => match refusal.code {
                ErrorCode::NotFound | ErrorCode::NotAFile | ErrorCode::NotAFolder => {
                    return Self::not_found();
                }
                ErrorCode::AccessDenied => StatusCode::FORBIDDEN,
                ErrorCode::Busy | ErrorCode::Changed => StatusCode::SERVICE_UNAVAILABLE,
                ErrorCode::DiskFull
                | ErrorCode::BadRequest
                | ErrorCode::Io
                | ErrorCode::Unknown(_) => StatusCode::BAD_GATEWAY,
            },
            PlayError::Source(_) | PlayError::Senseless(_) => StatusCode::BAD_GATEWAY,
            PlayError::Lost { .. } => StatusCode::GATEWAY_TIMEOUT,
        };
        Self::new(status, error.to_string())
    }
}

async fn route<S: Source>(site: &Site<S>, request: &Parts) -> Result<Response<Body>, Failure> {
    if !is_asked_for(site.here, &request.uri, &request.headers) {
        let text = format!("this is http://{}/", site.here);
        return Err(Failure::new(StatusCode::MISDIRECTED_REQUEST, text));
    }
    let path = request.uri.path().strip_prefix('/').unwrap_or_default();
    let (token, path) = path.split_once('/').ok_or_else(Failure::not_found)?;
    verify_slices_are_equal(token.as_bytes(), site.token.as_bytes())
        .map_err(|_| Failure::not_found())?;
    if let Some(Known(known)) = request.extensions.get() {
        known.store(true, Ordering::Relaxed);
    }
    count(&site.blocks.counts.requests, 1);
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD alone"));
    }
    let (path, is_folder) = match path.strip_suffix('/') {
        Some(path) => (path, true),
        None => (path, path.is_empty()),
    };
    let path = page::decode_path(path).ok_or_else(Failure::not_found)?;
    if is_folder {
        return folder(site, &path).await;
    }
    if request.uri.query() == Some("watch") {
        let item = site.blocks.describe(&path).await?;
        return Ok(html(page::watch(&item.path, &item.info)));
    }
    match item(site, request, &path).await {
        Err(PlayError::Refused(refusal)) if refusal.code == ErrorCode::NotAFile => {
            Ok(to_folder(&path))
        }
        // It changed since it was described, which happens now and then; once is enough.
        Err(PlayError::Refused(refusal)) if refusal.code == ErrorCode::Changed => {
            site.blocks.forget(&path);
            Ok(item(site, request, &path).await?)
        }
        result => Ok(result?),
    }
}

/// Whether the request was meant for this place and no other name that leads here.
fn is_asked_for(here: SocketAddr, uri: &Uri, headers: &HeaderMap) -> bool {
    let port = here.port();
    let names = [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("[::1]:{port}"),
        here.to_string(),
    ];
    let is_ours = |host: &str| names.iter().any(|name| name.eq_ignore_ascii_case(host));
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    host.to_str().is_ok_and(is_ours)
        && uri.authority().is_none_or(|authority| is_ours(authority.as_str()))
}

async fn item<S: Source>(
    site: &Site<S>,
    request: &Parts,
    path: &ItemPath,
) -> Result<Response<Body>, PlayError> {
    let item = site.blocks.describe(path).await?;
    let size = item.info.size;
    // The version, not the root: a root becomes known while a film plays, and a tag must not change then.
    let etag = format!("\"{:032x}\"", u128::from_be_bytes(item.info.version.0));
    let decision = decide(&request.method, &request.headers, &etag, size);
    let (status, range) = match &decision {
        Decision::Whole => (StatusCode::OK, 0..size),
        Decision::Part(range) => (StatusCode::PARTIAL_CONTENT, range.clone()),
        Decision::NotModified => (StatusCode::NOT_MODIFIED, 0..0),
        Decision::Failed => (StatusCode::PRECONDITION_FAILED, 0..0),
        Decision::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, 0..0),
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::ETAG, value(&etag));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy(&item)));
    match &decision {
        Decision::Whole => {}
        Decision::Part(range) => {
            let text = format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1));
            headers.insert(header::CONTENT_RANGE, value(&text));
        }
        Decision::Unsatisfiable => {
            headers.insert(header::CONTENT_RANGE, value(&format!("bytes */{size}")));
            return Ok(response);
        }
        Decision::NotModified | Decision::Failed => return Ok(response),
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    headers.insert(header::CONTENT_TYPE, content_type(&item));
    if request.method == Method::GET {
        let permit = site.readers.clone().acquire_owned().await.ok(); // never closed
        let mut reader = Reader::new(site.blocks.clone(), item, range, permit);
        reader.begin().await?;
        *response.body_mut() = Body::from_stream(ReaderBody::Waiting(reader));
    }
    Ok(response)
}

fn content_type(item: &Item) -> HeaderValue {
    HeaderValue::from_str(&item.info.media_type)
        .ok()
        .filter(|value| !value.is_empty())
        .unwrap_or(HeaderValue::from_static("application/octet-stream"))
}

/// Our own numbers and names, which a header always takes.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

async fn folder<S: Source>(site: &Site<S>, path: &ItemPath) -> Result<Response<Body>, Failure> {
    let list = |client: MediaClient| async move {
        let mut listing = client.list(path, false).await?;
        let mut entries = Vec::<Entry>::new();
        while let Some(entry) = listing.next().await? {
            if entries.len() == ENTRIES_MAX {
                return Ok((entries, true));
            }
            entries.push(entry);
        }
        Ok((entries, false))
    };
    let (mut entries, is_cut) = site.blocks.ask(list).await?;
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(html(page::folder(path, &entries, is_cut)))
}

/// What a browser may do with an item: a film or a sound runs nothing by its nature.
fn policy(item: &Item) -> &'static str {
    let kind = item.info.media_type.split('/').next().unwrap_or_default();
    if matches!(kind, "video" | "audio") { FILM_POLICY } else { ITEM_POLICY }
}

fn html(text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    response
}

/// The same place with a slash behind it, so that the links of its page lead beneath it.
fn to_folder(path: &ItemPath) -> Response<Body> {
    let name = path.components().last().unwrap_or_default();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(header::LOCATION, value(&format!("./{}/", page::encode(name))));
    response
}
