//! The serving side of media/1: one request a stream, bounded in memory and in time whatever the client does.
//!
//! Rules: M-4 (the exchange), M-7 (READ), M-8 (HASHES), M-9 (errors). `catalogue.rs` opens files, `hashes.rs` keeps
//! what is known; here blocks are read ahead on the blocking pool, hashed there, and written in order.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::catalogue::{Catalogue, OpenItem};
use super::error::{ErrorCode, Refusal};
use super::hashes::FileHashes;
use super::path::ItemPath;
use super::read_ahead::{ReadAhead, RootOnTheWay};
use super::tree::Hash;
use super::wire::{
    Answer, BlockRange, HASHES_PER_MESSAGE, MessageReader, PROGRESS_BYTES, Request, Version,
    WireError, block_head, moving,
};

/// Entries that a listing reads at once.
const ENTRIES_PER_PAGE: usize = 64;

/// What a server does at most at once.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Requests under way, of all clients; a further one is told that the server is busy.
    pub requests: usize,
    /// Blocks of 1 MiB in memory, of all requests. Each READ has two for sure, or waits for them; HASHES has one.
    pub blocks: usize,
    /// Blocks in memory for one READ while others leave room, the one that is sent included.
    pub blocks_per_read: usize,
    /// How long a request may wait for its first block of memory before the server says that it is busy.
    pub busy: Duration,
    /// How long the client of an answer that holds memory may take none of it while another request waits for memory.
    pub yielding: Duration,
    /// How long a client may send none of its request, or take none of the answer.
    pub stall: Duration,
}

impl Default for Limits {
    /// 4,096 requests, 1,024 blocks, 3 a READ, 10 s of waiting, 5 s without progress while others wait, else 60 s.
    fn default() -> Self {
        Self {
            requests: 4096,
            blocks: 1024,
            blocks_per_read: 3,
            busy: Duration::from_secs(10),
            yielding: Duration::from_secs(5),
            stall: Duration::from_secs(60),
        }
    }
}

/// How a request ended, if not well. The client was told, where it could be.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The server refused, or stopped.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The client went away, stood still, or made no sense.
    #[error("{0}")]
    Wire(#[from] WireError),
}

/// A catalogue on offer. Cheap to clone; clones share their limits.
#[derive(Clone, Debug)]
pub struct MediaServer {
    pub(super) catalogue: Arc<Catalogue>,
    limits: Arc<Limits>,
    requests: Arc<Semaphore>,
    blocks: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>, // requests that wait for memory
}

impl MediaServer {
    /// Offers `catalogue` within `limits`.
    pub fn new(catalogue: Arc<Catalogue>, limits: Limits) -> Self {
        let requests = Arc::new(Semaphore::new(limits.requests.min(Semaphore::MAX_PERMITS)));
        let blocks = Arc::new(Semaphore::new(limits.blocks.clamp(2, Semaphore::MAX_PERMITS)));
        Self { catalogue, limits: Arc::new(limits), requests, blocks, waiting: Arc::default() }
    }

    /// Answers the one request of a stream whose opening (`media/1`) was already read.
    pub async fn serve<W, R>(&self, send: W, recv: R) -> Result<(), ServeError>
    where
        W: AsyncWrite + Unpin + Send,
        R: AsyncRead + Unpin + Send,
    {
        self.serve_prioritised(send, recv, |_, _| ()).await
    }

    /// As [`Self::serve`]; `prioritise` is told how urgent a READ is (M-7.2), before any of its answer is written.
    pub async fn serve_prioritised<W, R>(
        &self,
        send: W,
        recv: R,
        prioritise: impl FnOnce(&mut W, u8) + Send,
    ) -> Result<(), ServeError>
    where
        W: AsyncWrite + Unpin + Send,
        R: AsyncRead + Unpin + Send,
    {
        let permit = self.requests.try_acquire();
        let mut reader = MessageReader::new(recv, self.limits.stall);
        let mut answers = Answers { send, stall: self.limits.stall, pressure: None };
        let result = match (&permit, reader.request().await) {
            (Err(_), Ok(_)) => {
                Err(Refusal::new(ErrorCode::Busy, "too many requests at once").into())
            }
            (Ok(_), Ok(request)) => {
                if let Request::Read { priority, .. } | Request::ReadMany { priority, .. } =
                    &request
                {
                    prioritise(&mut answers.send, *priority);
                }
                self.answer(request, &mut answers).await
            }
            (_, Err(WireError::Malformed(what))) => {
                Err(Refusal::new(ErrorCode::BadRequest, what).into())
            }
            (_, Err(error)) => Err(error.into()),
        };
        if let Err(ServeError::Refused(refusal)) = &result {
            answers.write(&Answer::Error(refusal.clone())).await?;
        }
        moving(self.limits.stall, answers.send.shutdown()).await?;
        result
    }

    async fn answer<W>(&self, request: Request, answers: &mut Answers<W>) -> Result<(), ServeError>
    where
        W: AsyncWrite + Unpin + Send,
    {
        match request {
            Request::List { folder, is_recursive } => {
                self.list(folder, is_recursive, answers).await
            }
            Request::Describe { item } => {
                let catalogue = self.catalogue.clone();
                let info = blocking(move || catalogue.describe(&item)).await?;
                answers.write(&Answer::Item(info.clone())).await?;
                Ok(answers.write(&Answer::End { root: info.root }).await?)
            }
            Request::Hashes { item, version, range } => {
                self.hashes(item, version, range, answers).await
            }
            Request::Read { item, version, range, priority: _ } => {
                self.read(item, version, range, answers).await
            }
            Request::ReadMany { wanted, has_blocks, priority: _ } => {
                self.read_many(wanted, has_blocks, answers).await
            }
        }
    }

    async fn list<W>(
        &self,
        folder: ItemPath,
        is_recursive: bool,
        answers: &mut Answers<W>,
    ) -> Result<(), ServeError>
    where
        W: AsyncWrite + Unpin + Send,
    {
        let catalogue = self.catalogue.clone();
        let mut walk = blocking(move || catalogue.walk(&folder, is_recursive)).await?;
        loop {
            let catalogue = self.catalogue.clone();
            // The walk travels, so that no thread of the pool waits while the client is slow.
            let (page, travelled) = blocking(move || {
                let page = walk.next_page(&catalogue, ENTRIES_PER_PAGE);
                Ok((page, walk))
            })
            .await?;
            walk = travelled;
            let page = page?;
            if page.is_empty() {
                return Ok(answers.write(&Answer::End { root: None }).await?);
            }
            let messages = page
                .into_iter()
                .flat_map(|entry| Answer::Entry(entry).encode())
                .collect::<Vec<u8>>();
            answers.write_all(&messages).await?;
        }
    }

    /// M-8: hashes as they become known; one that is not is made by reading its block.
    async fn hashes<W>(
        &self,
        item: ItemPath,
        version: Option<Version>,
        range: BlockRange,
        answers: &mut Answers<W>,
    ) -> Result<(), ServeError>
    where
        W: AsyncWrite + Unpin + Send,
    {
        let _permit = self.memory(1).await?;
        answers.pressure = Some(self.pressure());
        let item = self.open(item, version).await?;
        let known = self.catalogue.hashes.file(item.info.version, item.info.size);
        answers.write(&Answer::Item(item.info.clone())).await?;
        let blocks = range.within(item.info.size);
        let mut root = RootOnTheWay::new(&blocks);
        let mut page = Vec::new();
        let mut first = blocks.start;
        for index in blocks {
            let hash = match known.as_ref().and_then(|known| known.block(index)) {
                Some(hash) => hash,
                None => {
                    answers.write_hashes(&mut first, &mut page).await?;
                    self.make_hash(&item, known.as_ref(), index).await?
                }
            };
            root.push(hash);
            page.push(hash);
            if page.len() == HASHES_PER_MESSAGE {
                answers.write_hashes(&mut first, &mut page).await?;
            }
        }
        answers.write_hashes(&mut first, &mut page).await?;
        let root = root.of(item.info.size).or_else(|| known.and_then(|known| known.root()));
        Ok(answers.write(&Answer::End { root }).await?)
    }

    async fn make_hash(
        &self,
        item: &Arc<OpenItem>,
        known: Option<&Arc<FileHashes>>,
        index: u64,
    ) -> Result<Hash, Refusal> {
        let _filling = match known {
            Some(known) => Some(known.filling.lock().await),
            None => None,
        };
        if let Some(hash) = known.and_then(|known| known.block(index)) {
            return Ok(hash); // another request made it meanwhile
        }
        let reading = item.clone();
        let (hash, _) = blocking(move || reading.read_block(index)).await?;
        self.keep(item, known, index, hash)?;
        Ok(hash)
    }

    /// M-7: the item, its blocks each after its hash, and the root if it is known by then.
    async fn read<W>(
        &self,
        item: ItemPath,
        version: Option<Version>,
        range: BlockRange,
        answers: &mut Answers<W>,
    ) -> Result<(), ServeError>
    where
        W: AsyncWrite + Unpin + Send,
    {
        let _permit = self.memory(2).await?; // a block that is sent, and one that is read
        answers.pressure = Some(self.pressure());
        let item = self.open(item, version).await?;
        let known = self.catalogue.hashes.file(item.info.version, item.info.size);
        let blocks = range.within(item.info.size);
        let mut ahead = ReadAhead::new(item.clone(), blocks.clone());
        ahead.fill(1, &self.blocks);
        answers.write(&Answer::Item(item.info.clone())).await?;
        let mut root = RootOnTheWay::new(&blocks);
        let mut index = blocks.start;
        while let Some(block) = ahead.next_block().await {
            let (hash, bytes, _permit) = block?;
            ahead.fill(self.limits.blocks_per_read.saturating_sub(1), &self.blocks);
            self.keep(&item, known.as_ref(), index, hash)?;
            root.push(hash);
            answers.write_all(&block_head(index, hash, bytes.len())).await?;
            answers.write_all(&bytes).await?;
            ahead.fill(1, &self.blocks);
            index += 1;
        }
        let root = root.of(item.info.size).or_else(|| known.and_then(|known| known.root()));
        Ok(answers.write(&Answer::End { root }).await?)
    }

    /// The memory, in blocks, that a request holds to its end.
    pub(super) async fn memory(&self, blocks: u32) -> Result<OwnedSemaphorePermit, Refusal> {
        let _waiting = Waiting::new(&self.waiting);
        match timeout(self.limits.busy, self.blocks.clone().acquire_many_owned(blocks)).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(Refusal::new(ErrorCode::Busy, "too many reads at once")),
        }
    }

    pub(super) fn pressure(&self) -> Pressure {
        Pressure { waiting: self.waiting.clone(), patience: self.limits.yielding }
    }

    async fn open(
        &self,
        item: ItemPath,
        version: Option<Version>,
    ) -> Result<Arc<OpenItem>, Refusal> {
        let catalogue = self.catalogue.clone();
        let item = blocking(move || catalogue.open_item(&item)).await?;
        match version {
            Some(version) if version != item.info.version => {
                Err(Refusal::new(ErrorCode::Changed, "it is another version now"))
            }
            Some(_) | None => Ok(Arc::new(item)),
        }
    }

    pub(super) fn keep(
        &self,
        item: &OpenItem,
        known: Option<&Arc<FileHashes>>,
        index: u64,
        hash: Hash,
    ) -> Result<(), Refusal> {
        if known.is_none_or(|known| known.keep(index, hash)) {
            return Ok(());
        }
        // The clock of the file system was too coarse to show the change.
        self.catalogue.hashes.forget(item.info.version);
        Err(ErrorCode::Changed.into())
    }
}

/// Counts one request that waits for memory, while it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether others wait for the memory that an answer holds, and how long its client may take nothing while they do.
pub(super) struct Pressure {
    waiting: Arc<AtomicUsize>,
    patience: Duration,
}

impl Pressure {
    /// Waits for `step`, but not for ever while others wait.
    async fn wait(
        &self,
        step: impl Future<Output = Result<(), WireError>>,
    ) -> Result<(), WireError> {
        let mut step = pin!(step);
        let started = Instant::now();
        let look_every = (self.patience / 4).max(Duration::from_millis(1));
        loop {
            if let Ok(result) = timeout(look_every, step.as_mut()).await {
                return result;
            }
            let waited = started.elapsed();
            if waited >= self.patience && self.waiting.load(Ordering::Relaxed) > 0 {
                return Err(WireError::Stalled { seconds: waited.as_secs() });
            }
        }
    }
}

/// The sending half, under the deadline.
pub(super) struct Answers<W> {
    send: W,
    stall: Duration,
    pub(super) pressure: Option<Pressure>, // `None` while it holds no memory
}

impl<W: AsyncWrite + Unpin> Answers<W> {
    pub(super) async fn write(&mut self, answer: &Answer) -> Result<(), WireError> {
        self.write_all(&answer.encode()).await
    }

    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        for part in bytes.chunks(PROGRESS_BYTES) {
            let writing = moving(self.stall, self.send.write_all(part));
            match &self.pressure {
                None => writing.await?,
                Some(pressure) => pressure.wait(writing).await?,
            }
        }
        moving(self.stall, self.send.flush()).await
    }

    /// Sends the hashes from block `first` on that wait in `page`, if there are any.
    async fn write_hashes(
        &mut self,
        first: &mut u64,
        page: &mut Vec<Hash>,
    ) -> Result<(), WireError> {
        if page.is_empty() {
            return Ok(());
        }
        let hashes = std::mem::take(page);
        let next = *first + hashes.len() as u64;
        self.write(&Answer::Hashes { first: *first, hashes }).await?;
        *first = next;
        Ok(())
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(job).await.unwrap_or_else(|_| Err(stopped()))
}

pub(super) fn stopped() -> Refusal {
    Refusal::new(ErrorCode::Io, "the server is shutting down")
}
