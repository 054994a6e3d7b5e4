//! media/1 over in-memory streams and real files: what the tests share.

use std::io::Cursor;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};

use super::tree::{BLOCK_BYTES, Hash};
use super::wire::{Answer, MessageReader, Request};
use super::*;
use crate::request::read_opening;

mod catalogue;
mod fetch;
mod fetch_all;
mod liars;
mod many;
mod serve;
mod wire;

const MIB: usize = BLOCK_BYTES as usize;

/// Bytes that differ in every block, the same each time.
fn content(size: usize, seed: u8) -> Vec<u8> {
    (0..size).map(|index| (index % 251) as u8 ^ (index >> 20) as u8 ^ seed).collect()
}

fn plain_hash(content: &[u8]) -> Hash {
    Hash(*blake3::hash(content).as_bytes())
}

fn path(bytes: impl AsRef<[u8]>) -> ItemPath {
    ItemPath::new(bytes.as_ref()).unwrap()
}

/// A served folder with its client.
struct Stage {
    folder: TempDir,
    server: MediaServer,
    loopback: Arc<Loopback>,
    client: MediaClient,
}

impl Stage {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let folder = TempDir::new().unwrap();
        let server = MediaServer::new(Arc::new(Catalogue::open(folder.path()).unwrap()), limits);
        Self::serving(folder, server)
    }

    fn serving(folder: TempDir, server: MediaServer) -> Self {
        let loopback = Arc::new(Loopback {
            server: server.clone(),
            cut_after_bytes: AtomicU64::new(u64::MAX),
            is_old: AtomicBool::new(false),
            requests: Mutex::default(),
            priorities: Arc::default(),
        });
        let client = MediaClient::new(Shared(loopback.clone())).with_stall(Duration::from_secs(10));
        Self { folder, server, loopback, client }
    }

    fn write(&self, name: impl AsRef<[u8]>, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(std::ffi::OsStr::from_bytes(name.as_ref()));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Everything after so many bytes of the next answers is lost with the connection.
    fn cut_after(&self, bytes: u64) {
        self.loopback.cut_after_bytes.store(bytes, Ordering::Relaxed);
    }

    /// The whole item, read block by block.
    async fn read_all(&self, item: &ItemPath) -> Result<(Vec<u8>, Option<Hash>), MediaError> {
        let mut blocks = self.client.read(item, None, BlockRange::ALL, 0).await?;
        let mut bytes = Vec::new();
        while let Some(block) = blocks.next().await? {
            bytes.extend_from_slice(&block.bytes);
        }
        Ok((bytes, blocks.root()))
    }
}

/// Opens in-memory streams to a server.
struct Loopback {
    server: MediaServer,
    cut_after_bytes: AtomicU64,
    /// It knows no READ MANY.
    is_old: AtomicBool,
    requests: Mutex<u64>,
    priorities: Arc<Mutex<Vec<u8>>>,
}

struct Shared(Arc<Loopback>);

impl OpenStream for Shared {
    fn open(&self) -> Opening<'_> {
        *self.0.requests.lock().unwrap() += 1;
        let (near, far) = duplex(64 * 1024);
        let is_old = self.0.is_old.load(Ordering::Relaxed);
        let (server, priorities) = (self.0.server.clone(), self.0.priorities.clone());
        tokio::spawn(async move {
            let (mut recv, mut send) = split(far);
            assert_eq!(read_opening(&mut recv).await.unwrap(), SERVICE);
            let mut kind = [0];
            recv.read_exact(&mut kind).await.unwrap();
            if is_old && kind == [5] {
                let refusal = Refusal::new(ErrorCode::BadRequest, "a request of unknown type");
                send.write_all(&Answer::Error(refusal).encode()).await.unwrap();
                return;
            }
            let recv = Cursor::new(kind).chain(recv);
            let prioritise = |_: &mut _, priority| priorities.lock().unwrap().push(priority);
            let _ = server.serve_prioritised(send, recv, prioritise).await;
        });
        let (recv, send) = split(near);
        let cut = self.0.cut_after_bytes.load(Ordering::Relaxed);
        Box::pin(
            async move { Ok((Box::new(send) as SendHalf, Box::new(recv.take(cut)) as RecvHalf)) },
        )
    }
}

/// What a server without scruples answers: some bytes, then others again and again.
struct Script {
    bytes: Vec<u8>,
    forever: Vec<u8>,
}

struct Liar<F>(Arc<F>);

impl<F: Fn(Request) -> Script + Send + Sync + 'static> OpenStream for Liar<F> {
    fn open(&self) -> Opening<'_> {
        let (near, far) = duplex(64 * 1024);
        let script = self.0.clone();
        tokio::spawn(async move {
            let (mut recv, mut send) = split(far);
            read_opening(&mut recv).await.unwrap();
            let request =
                MessageReader::new(recv, Duration::from_secs(10)).request().await.unwrap();
            let script = script(request);
            let _ = send.write_all(&script.bytes).await;
            while !script.forever.is_empty() && send.write_all(&script.forever).await.is_ok() {}
        });
        let (recv, send) = split(near);
        Box::pin(async move { Ok((Box::new(send) as SendHalf, Box::new(recv) as RecvHalf)) })
    }
}

fn liar(script: impl Fn(Request) -> Script + Send + Sync + 'static) -> MediaClient {
    MediaClient::new(Liar(Arc::new(script))).with_stall(Duration::from_secs(5))
}

/// Does a job without the privileges by which root reads and writes what it may not.
fn unprivileged<T: Send>(job: impl FnOnce() -> T + Send) -> T {
    let run = || {
        let mut sets = capabilities(None).unwrap();
        sets.effective = CapabilitySet::empty();
        set_capabilities(None, sets).unwrap();
        job()
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// Names in a folder, sorted.
fn names(folder: &Path) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().as_bytes().to_vec()).collect();
    names.sort();
    names
}
