//! Items onto a disk: resumed from proved blocks, proved as a whole, renamed and synced before it is called done.
//!
//! Rules: M-10. There is no file beside the unfinished one: what it holds is hashed anew and compared with the server's
//! hashes, so nothing that another item, another version or a failing disk left in it is ever trusted.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::client::{Block, HashReader, MediaClient};
use super::error::MediaError;
use super::path::ItemPath;
use super::target::{FetchError, Partial, Target, local};
use super::tree::{self, BLOCK_BYTES, Hash, block_count, block_hash, block_len};
use super::wire::{BlockRange, ItemInfo};

/// How an item is fetched.
#[derive(Clone, Debug, Default)]
pub struct FetchOptions {
    /// What the server is told about the urgency of its blocks (M-7.2).
    pub priority: u8,
    /// The root that the item must have, if the caller knows it from elsewhere.
    pub expected_root: Option<Hash>,
}

/// How far a fetch is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Progress {
    /// Bytes that are proved and in the file, those of an earlier run included.
    pub proved_bytes: u64,
    /// Of these, what an earlier run had left.
    pub resumed_bytes: u64,
    /// Bytes of the item.
    pub total_bytes: u64,
}

/// What came of a fetch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FetchReport {
    /// Bytes of the item.
    pub bytes: u64,
    /// Of these, bytes that were here already and did not have to be sent.
    pub resumed_bytes: u64,
    /// Blocks that were sent.
    pub blocks: u64,
    /// What `b3sum` prints for it.
    pub root: Hash,
    /// How long it took.
    pub elapsed: Duration,
}

/// Fetches `item` as `name` beneath `target` (M-10). Dropping the future leaves an unfinished file that a later call
/// takes up again.
pub async fn fetch(
    client: &MediaClient,
    item: &ItemPath,
    target: &Arc<Target>,
    name: &ItemPath,
    options: &FetchOptions,
    on_progress: impl Fn(Progress) + Send + Sync,
) -> Result<FetchReport, FetchError> {
    fetch_if(client, item, target, name, options, on_progress, |_| Ok(())).await
}

/// The same, if `accept` takes the unfinished file and what stands at the item's place.
pub(super) async fn fetch_if(
    client: &MediaClient,
    item: &ItemPath,
    target: &Arc<Target>,
    name: &ItemPath,
    options: &FetchOptions,
    on_progress: impl Fn(Progress) + Send + Sync,
    accept: impl FnOnce(&Partial) -> Result<(), FetchError> + Send + 'static,
) -> Result<FetchReport, FetchError> {
    let (opened_target, opened_name) = (target.clone(), name.clone());
    let opened = blocking(move || {
        let partial = Partial::open(&opened_target, &opened_name)?;
        accept(&partial).inspect_err(|_| partial.remove_if_empty())?;
        Ok(partial)
    });
    let partial = opened.await?;
    let mut fetch = Fetch {
        client,
        item,
        options,
        on_progress,
        partial: Arc::new(partial),
        hashes: Vec::new(),
        root: None,
        blocks: 0,
        progress: Progress { proved_bytes: 0, resumed_bytes: 0, total_bytes: 0 },
    };
    let started = Instant::now();
    let result = fetch.run(started).await;
    let partial = fetch.partial;
    blocking(move || {
        partial.remove_if_empty();
        Ok(())
    })
    .await?;
    result
}

struct Fetch<'a, F> {
    client: &'a MediaClient,
    item: &'a ItemPath,
    options: &'a FetchOptions,
    on_progress: F,
    partial: Arc<Partial>,
    /// Of the blocks that are in the file so far; grows only with the file.
    hashes: Vec<Hash>,
    /// The root, as soon as the server tells it.
    root: Option<Hash>,
    blocks: u64,
    progress: Progress,
}

impl<F: Fn(Progress) + Send + Sync> Fetch<'_, F> {
    async fn run(&mut self, started: Instant) -> Result<FetchReport, FetchError> {
        if let Some(root) = self.compare_existing().await? {
            let partial = self.partial.clone();
            blocking(move || {
                partial.remove(); // a leftover: the item is complete
                Ok(())
            })
            .await?;
            return Ok(self.report(root, started));
        }
        let info = self.fetch_missing().await?;
        let root = self.prove(&info).await?;
        let partial = self.partial.clone();
        blocking(move || {
            partial.set_mode(info.mode)?;
            partial.finish(info.size, info.modified)
        })
        .await?;
        Ok(self.report(root, started))
    }

    /// The root of the complete file that stands at the item's place, if it is the item.
    async fn compare_existing(&mut self) -> Result<Option<Hash>, FetchError> {
        let Some(existing) = &self.partial.existing else { return Ok(None) };
        let existing = existing.try_clone().map_err(local("open the existing file"))?;
        let Some((info, root, servers)) =
            compare(self.client, self.item, Arc::new(existing)).await?
        else {
            return Ok(None);
        };
        if self.expected(servers).is_some_and(|expected| expected != root) {
            return Ok(None);
        }
        let (here, partial) = (info.size, self.partial.clone());
        blocking(move || partial.dress_existing(info.modified, info.mode)).await?;
        self.progress = Progress { proved_bytes: here, resumed_bytes: here, total_bytes: here };
        (self.on_progress)(self.progress);
        Ok(Some(root))
    }

    /// Brings every block into the file that is not there yet.
    async fn fetch_missing(&mut self) -> Result<ItemInfo, FetchError> {
        let partial = self.partial.clone();
        let (here, _) = blocking(move || partial.len()).await?;
        if here == 0 {
            return self.fetch_range(None, BlockRange::ALL).await;
        }
        let (info, missing) = self.compare_partial(here).await?;
        for blocks in missing {
            let range = BlockRange { first: blocks.start, count: blocks.end - blocks.start };
            self.fetch_range(Some(&info), range).await?;
        }
        Ok(info)
    }

    /// Proves what an earlier run left; tells which blocks are missing or wrong.
    async fn compare_partial(
        &mut self,
        here: u64,
    ) -> Result<(ItemInfo, Vec<Range<u64>>), FetchError> {
        let most = BlockRange { first: 0, count: block_count(here) };
        let mut hashes = self.client.hashes(self.item, None, most).await?;
        let info = hashes.info().clone();
        self.start(&info).await?;
        let file =
            Arc::new(self.partial.file.try_clone().map_err(local("open the unfinished file"))?);
        let mut missing: Vec<Range<u64>> = Vec::new();
        let mut miss = |block: u64, end: u64| match missing.last_mut() {
            Some(last) if last.end == block => last.end = end,
            Some(_) | None => missing.push(block..end),
        };
        while let Some((index, theirs)) =
            next_hash(&mut hashes, 0, self.hashes.len() as u64).await?
        {
            let length = block_len(info.size, index) as u64;
            let is_whole = here >= index.saturating_mul(BLOCK_BYTES).saturating_add(length);
            if is_whole && hash_here(file.clone(), info.size, index).await? == theirs {
                self.progress.resumed_bytes += length;
                self.progress.proved_bytes += length;
                (self.on_progress)(self.progress);
            } else {
                miss(index, index + 1);
            }
            self.hashes.push(theirs);
        }
        self.root = hashes.root();
        let (seen, all) = (self.hashes.len() as u64, block_count(info.size));
        if seen < all {
            miss(seen, all);
        }
        Ok((info, missing))
    }

    /// Checks the room for an item before any of it is written.
    async fn start(&mut self, info: &ItemInfo) -> Result<(), FetchError> {
        let (partial, size) = (self.partial.clone(), info.size);
        blocking(move || partial.check_room(size)).await?;
        self.progress.total_bytes = info.size;
        Ok(())
    }

    /// Reads blocks into the file; while one is verified and written, the next is received.
    async fn fetch_range(
        &mut self,
        known: Option<&ItemInfo>,
        range: BlockRange,
    ) -> Result<ItemInfo, FetchError> {
        let version = known.map(|info| info.version);
        let mut blocks = self.client.read(self.item, version, range, self.options.priority).await?;
        let info = blocks.info().clone();
        if known.is_some_and(|known| known.size != info.size) {
            return Err(MediaError::Malformed("two sizes of one version").into());
        }
        if known.is_none() {
            self.start(&info).await?;
        }
        let mut writing: Option<WriteJob> = None;
        let received = loop {
            let block = match blocks.next_unverified().await {
                Ok(Some(block)) => block,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.into()),
            };
            if let Err(error) = self.written(writing.take()).await {
                break Err(error);
            }
            let (partial, size) = (self.partial.clone(), info.size);
            writing =
                Some(tokio::task::spawn_blocking(move || write_block(&partial.file, size, &block)));
        };
        // What was received whole is kept, even if the connection broke after it.
        self.written(writing.take()).await?;
        received?;
        self.root = blocks.root().or(self.root);
        Ok(info)
    }

    async fn written(&mut self, job: Option<WriteJob>) -> Result<(), FetchError> {
        let Some(job) = job else { return Ok(()) };
        let (index, hash, bytes) = job.await.unwrap_or_else(|_| Err(stopped()))?;
        match usize::try_from(index).ok().and_then(|index| self.hashes.get_mut(index)) {
            // The list that the file is compared with and the block itself have to tell the same.
            Some(known) if *known != hash => return Err(MediaError::WrongBlock { index }.into()),
            Some(_) => {}
            None => self.hashes.push(hash),
        }
        self.blocks += 1;
        self.progress.proved_bytes += bytes;
        (self.on_progress)(self.progress);
        Ok(())
    }

    /// The root over all blocks, equal to the server's and to the caller's.
    async fn prove(&mut self, info: &ItemInfo) -> Result<Hash, FetchError> {
        let ours = tree::root(self.hashes.iter().copied());
        if self.root.is_none() {
            // It read only a part and knew no more; now it has to read the rest.
            let mut hashes =
                self.client.hashes(self.item, Some(info.version), BlockRange::ALL).await?;
            while hashes.next().await?.is_some() {}
            self.root = hashes.root();
        }
        for expected in [self.root, self.options.expected_root].into_iter().flatten() {
            if expected != ours {
                return Err(FetchError::WrongRoot { ours, expected });
            }
        }
        match self.root {
            Some(root) => Ok(root),
            None => Err(MediaError::Malformed("no root after all hashes").into()),
        }
    }

    fn expected(&self, servers: Option<Hash>) -> Option<Hash> {
        self.options.expected_root.or(servers)
    }

    fn report(&self, root: Hash, started: Instant) -> FetchReport {
        FetchReport {
            bytes: self.progress.total_bytes,
            resumed_bytes: self.progress.resumed_bytes,
            blocks: self.blocks,
            root,
            elapsed: started.elapsed(),
        }
    }
}

/// Compares a file with an item by all block hashes: what the item is, the root over them, and the server's if it knows
/// it; none if they differ.
pub(super) async fn compare(
    client: &MediaClient,
    item: &ItemPath,
    file: Arc<File>,
) -> Result<Option<(ItemInfo, Hash, Option<Hash>)>, FetchError> {
    let here = file.metadata().map_err(local("look at the existing file"))?.len();
    let info = client.describe(item).await?;
    if info.size != here {
        return Ok(None);
    }
    let mut hashes = client.hashes(item, Some(info.version), BlockRange::ALL).await?;
    let mut builder = tree::RootBuilder::default();
    while let Some((index, theirs)) = next_hash(&mut hashes, 0, builder.count()).await? {
        if hash_here(file.clone(), info.size, index).await? != theirs {
            return Ok(None);
        }
        builder.push(theirs);
    }
    let servers = hashes.root();
    Ok(Some((info, builder.root(), servers)))
}

type WriteJob = JoinHandle<Result<(u64, Hash, u64), FetchError>>;

fn write_block(file: &File, size: u64, block: &Block) -> Result<(u64, Hash, u64), FetchError> {
    if !block.is_right(size) {
        return Err(MediaError::WrongBlock { index: block.index }.into());
    }
    let offset = block.index.saturating_mul(BLOCK_BYTES);
    file.write_all_at(&block.bytes, offset).map_err(local("write the unfinished file"))?;
    Ok((block.index, block.hash, block.bytes.len() as u64))
}

/// The next hash of a reader with the index of its block.
async fn next_hash(
    hashes: &mut HashReader,
    first: u64,
    seen: u64,
) -> Result<Option<(u64, Hash)>, FetchError> {
    Ok(hashes.next().await?.map(|hash| (first + seen, hash)))
}

/// The hash of a block as the local file has it.
async fn hash_here(file: Arc<File>, size: u64, index: u64) -> Result<Hash, FetchError> {
    blocking(move || {
        let mut block = vec![0; block_len(size, index)];
        match file.read_exact_at(&mut block, index.saturating_mul(BLOCK_BYTES)) {
            Ok(()) => Ok(block_hash(size, index, &block)),
            Err(error) => Err(local("read the local file")(error)),
        }
    })
    .await
}

pub(super) async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, FetchError> + Send + 'static,
) -> Result<T, FetchError> {
    tokio::task::spawn_blocking(job).await.unwrap_or_else(|_| Err(stopped()))
}

fn stopped() -> FetchError {
    FetchError::Local { doing: "go on", source: io::Error::other("the program is stopping") }
}
