//! The gateway over in-memory sessions and real files: what the tests share. Players are plain sockets here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf, duplex, split};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};

use super::*;
use crate::request::read_opening;
use crate::service::media::tree::BLOCK_BYTES;
use crate::service::media::{
    Catalogue, Limits, MediaServer, OpenStream, Opening, RecvHalf, SendHalf,
};

mod play;
mod requests;

const MIB: usize = BLOCK_BYTES as usize;
const LIMIT: Duration = Duration::from_secs(20);

/// Bytes that differ in every block, the same each time.
fn content(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index % 251) as u8 ^ (index >> 20) as u8).collect()
}

fn path(bytes: impl AsRef<[u8]>) -> ItemPath {
    ItemPath::new(bytes.as_ref()).unwrap()
}

/// A served folder behind a cable that can be pulled, with a gateway in front.
struct Stage {
    folder: TempDir,
    cable: Cable,
    gateway: Arc<Gateway<Cable>>,
}

impl Stage {
    async fn new() -> Self {
        let settings = GatewaySettings {
            patience: Duration::from_secs(5),
            back_off: Duration::from_millis(5),
            fresh: Duration::from_secs(60),
            ..GatewaySettings::default()
        };
        Self::with(settings, Limits::default()).await
    }

    async fn with(settings: GatewaySettings, limits: Limits) -> Self {
        let folder = TempDir::new().unwrap();
        let server = MediaServer::new(Arc::new(Catalogue::open(folder.path()).unwrap()), limits);
        let cable = Cable(Arc::new(CableState {
            server,
            is_pulled: AtomicBool::new(false),
            is_stuck: AtomicBool::new(false),
            is_noisy: AtomicBool::new(false),
            open_streams: AtomicU64::new(0),
            opened_streams: AtomicU64::new(0),
        }));
        let here = "127.0.0.1:0".parse().unwrap();
        let gateway = Arc::new(Gateway::bind(here, cable.clone(), settings).await.unwrap());
        let running = gateway.clone();
        tokio::spawn(async move { running.run(std::future::pending()).await });
        Self { folder, cable, gateway }
    }

    fn write(&self, name: impl AsRef<[u8]>, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(std::ffi::OsStr::from_bytes(name.as_ref()));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// The path of an item's URL, as it stands in a request.
    fn target(&self, item: impl AsRef<[u8]>) -> String {
        let url = self.gateway.item_url(&path(item));
        url.strip_prefix(&self.origin()).unwrap().to_owned()
    }

    fn host(&self) -> String {
        self.gateway.site.here.to_string()
    }

    fn origin(&self) -> String {
        format!("http://{}", self.host())
    }

    /// Sends a request and leaves its answer unread.
    async fn send(&self, method: &str, target: &str, more: &[&str]) -> TcpStream {
        let mut lines = vec![format!("{method} {target} HTTP/1.1"), "Connection: close".to_owned()];
        if !more.iter().any(|line| line.starts_with("Host")) {
            lines.push(format!("Host: {}", self.host()));
        }
        lines.extend(more.iter().map(|line| (*line).to_owned()));
        let mut stream = TcpStream::connect(self.gateway.site.here).await.unwrap();
        stream.write_all(format!("{}\r\n\r\n", lines.join("\r\n")).as_bytes()).await.unwrap();
        stream
    }

    async fn ask(&self, method: &str, target: &str, more: &[&str]) -> Reply {
        let stream = self.send(method, target, more).await;
        timeout(LIMIT, Reply::read(stream)).await.expect("an answer in time")
    }

    async fn get(&self, item: impl AsRef<[u8]>, more: &[&str]) -> Reply {
        self.ask("GET", &self.target(item), more).await
    }
}

/// An answer, as far as it came.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Reply {
    async fn read(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await; // an answer that breaks off is an answer
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| line.split_once(": ").unwrap_or((line, "")))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        Self { status, headers, body: bytes[end + 4..].to_vec() }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// Sessions in memory that can be lost.
#[derive(Clone, Debug)]
struct Cable(Arc<CableState>);

#[derive(Debug)]
struct CableState {
    server: MediaServer,
    /// There is no session, and those that were are broken.
    is_pulled: AtomicBool,
    /// Nothing arrives.
    is_stuck: AtomicBool,
    /// What arrives is not what was sent.
    is_noisy: AtomicBool,
    open_streams: AtomicU64,
    opened_streams: AtomicU64,
}

impl Cable {
    fn set(&self, flag: impl Fn(&CableState) -> &AtomicBool, value: bool) {
        flag(&self.0).store(value, Ordering::SeqCst);
    }

    fn open_streams(&self) -> u64 {
        self.0.open_streams.load(Ordering::SeqCst)
    }

    fn opened_streams(&self) -> u64 {
        self.0.opened_streams.load(Ordering::SeqCst)
    }
}

impl Source for Cable {
    async fn client(&self) -> Result<MediaClient, SourceError> {
        match self.0.is_pulled.load(Ordering::SeqCst) {
            true => Err(SourceError { is_final: false, text: "no route to host".to_owned() }),
            false => Ok(MediaClient::new(self.clone()).with_stall(LIMIT)),
        }
    }
}

impl OpenStream for Cable {
    fn open(&self) -> Opening<'_> {
        let (near, far) = duplex(64 * 1024);
        let state = self.0.clone();
        state.opened_streams.fetch_add(1, Ordering::SeqCst);
        state.open_streams.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            let (mut recv, send) = split(far);
            if read_opening(&mut recv).await.is_ok() {
                let _ = state.server.serve(send, recv).await;
            }
            state.open_streams.fetch_sub(1, Ordering::SeqCst);
        });
        let (recv, send) = split(near);
        let look = Box::pin(sleep(Duration::ZERO));
        let recv = Faulty { recv, state: self.0.clone(), look, received: 0 };
        Box::pin(async move { Ok((Box::new(send) as SendHalf, Box::new(recv) as RecvHalf)) })
    }
}

/// The receiving end of a cable that looks at its state every few milliseconds.
struct Faulty<R> {
    recv: R,
    state: Arc<CableState>,
    look: Pin<Box<Sleep>>,
    received: usize,
}

impl<R: AsyncRead + Unpin> AsyncRead for Faulty<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.look.as_mut().poll(cx).is_ready() {
            this.look.as_mut().reset(tokio::time::Instant::now() + Duration::from_millis(3));
        }
        if this.state.is_pulled.load(Ordering::SeqCst) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if this.state.is_stuck.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        let before = out.filled().len();
        let poll = Pin::new(&mut this.recv).poll_read(cx, out);
        let is_noisy = this.state.is_noisy.load(Ordering::SeqCst);
        for byte in &mut out.filled_mut()[before..] {
            this.received += 1;
            if is_noisy && this.received.is_multiple_of(100_000) {
                *byte ^= 1;
            }
        }
        poll
    }
}

/// Waits until something is so.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(LIMIT, waiting).await.unwrap_or_else(|_| panic!("never {what}"));
}
