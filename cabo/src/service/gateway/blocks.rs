//! One shelf of verified blocks for all readers: each block is asked for once, and no longer than somebody wants it.
//!
//! `reader` wants blocks; a block that is wanted and not here is on a [`Flight`], which ends when the last reader that
//! wants it lets go: the READ is dropped then, and the server stops sending.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::GatewaySettings;
use super::source::{PlayError, Source, persist};
use crate::service::media::{BlockRange, ItemInfo, ItemPath, MediaClient, MediaError};

/// Items whose description is kept.
const KEPT_ITEMS: usize = 256;

/// What a gateway has done so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct GatewayStats {
    /// HTTP requests with the right token.
    pub requests: u64,
    /// Bytes of items that were handed to readers.
    pub bytes: u64,
    /// Blocks that came from the server.
    pub blocks: u64,
    /// Blocks that a reader wanted and that were here, or on their way, already.
    pub cache_hits: u64,
    /// Times that the server was asked again: lost, busy or senseless.
    pub retries: u64,
    /// Blocks that nobody wanted any more before they had come.
    pub cancelled: u64,
}

/// [`GatewayStats`] as they grow.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) requests: AtomicU64,
    pub(super) bytes: AtomicU64,
    blocks: AtomicU64,
    cache_hits: AtomicU64,
    retries: AtomicU64,
    cancelled: AtomicU64,
}

/// One more, or so many.
pub(super) fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// An item in one of its states.
#[derive(Debug)]
pub(super) struct Item {
    /// Tells apart what bears one name at different times.
    number: u64,
    pub(super) path: ItemPath,
    pub(super) info: ItemInfo,
}

/// The item's number, and the block's.
type Key = (u64, u64);

/// Blocks of one server.
#[derive(Debug)]
pub(super) struct Blocks<S> {
    source: S,
    pub(super) settings: GatewaySettings,
    pub(super) counts: Arc<Counts>,
    shelf: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    items: HashMap<ItemPath, (Arc<Item>, Instant)>,
    blocks: BTreeMap<Key, Kept>,
    flights: HashMap<Key, Weak<Flight>>,
    last_item: u64,
    uses: u64,
}

#[derive(Debug)]
struct Kept {
    bytes: Bytes,
    last_use: u64,
}

/// A block that is being asked for.
#[derive(Debug)]
pub(super) struct Flight {
    landed: watch::Receiver<Option<Result<Bytes, PlayError>>>,
    task: AbortHandle,
    counts: Arc<Counts>,
}

/// A block that a reader wants.
#[derive(Debug)]
pub(super) enum Want {
    Here(Bytes),
    Coming(Arc<Flight>),
}

impl<S: Source> Blocks<S> {
    pub(super) fn new(source: S, settings: GatewaySettings) -> Arc<Self> {
        Arc::new(Self { source, settings, counts: Arc::default(), shelf: Mutex::default() })
    }

    pub(super) fn stats(&self) -> GatewayStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GatewayStats {
            requests: get(&self.counts.requests),
            bytes: get(&self.counts.bytes),
            blocks: get(&self.counts.blocks),
            cache_hits: get(&self.counts.cache_hits),
            retries: get(&self.counts.retries),
            cancelled: get(&self.counts.cancelled),
        }
    }

    /// Asks the server, again and again while it is lost.
    pub(super) async fn ask<T, F, Fut>(&self, ask: F) -> Result<T, PlayError>
    where
        F: Fn(MediaClient) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, MediaError>> + Send,
        T: Send,
    {
        persist(&self.source, &self.settings, || count(&self.counts.retries, 1), ask).await
    }

    /// What stands at `path`, as it was a moment ago at most.
    pub(super) async fn describe(&self, path: &ItemPath) -> Result<Arc<Item>, PlayError> {
        if let Some((item, checked)) = self.shelf().items.get(path)
            && checked.elapsed() < self.settings.fresh
        {
            return Ok(item.clone());
        }
        let info = self.ask(|client| async move { client.describe(path).await }).await?;
        Ok(self.shelf().meet(path, info))
    }

    /// Forgets what is known of `path`: it has changed.
    pub(super) fn forget(&self, path: &ItemPath) {
        self.shelf().items.remove(path);
    }

    /// Has block `index` come, if it is not here; a higher `urgency` goes first.
    pub(super) fn want(self: &Arc<Self>, item: &Arc<Item>, index: u64, urgency: u8) -> Want {
        let key = (item.number, index);
        let mut shelf = self.shelf();
        if let Some(bytes) = shelf.take_down(key) {
            count(&self.counts.cache_hits, 1);
            return Want::Here(bytes);
        }
        if let Some(flight) = shelf.flights.get(&key).and_then(Weak::upgrade) {
            count(&self.counts.cache_hits, 1);
            return Want::Coming(flight);
        }
        let (land, landed) = watch::channel(None);
        let (blocks, item) = (self.clone(), item.clone());
        let task = tokio::spawn(async move { blocks.fly(&item, index, urgency, &land).await });
        let flight = Flight { landed, task: task.abort_handle(), counts: self.counts.clone() };
        let flight = Arc::new(flight);
        shelf.flights.retain(|_, flight| flight.strong_count() > 0);
        shelf.flights.insert(key, Arc::downgrade(&flight));
        Want::Coming(flight)
    }

    /// One block from the server onto the shelf, and to those who wait for it.
    async fn fly(
        &self,
        item: &Item,
        index: u64,
        urgency: u8,
        land: &watch::Sender<Option<Result<Bytes, PlayError>>>,
    ) {
        let range = BlockRange { first: index, count: 1 };
        let read = |client: MediaClient| async move {
            let version = Some(item.info.version);
            let mut reader = client.read(&item.path, version, range, urgency).await?;
            if reader.info().size != item.info.size {
                return Err(MediaError::Malformed("one version of two sizes"));
            }
            match reader.next().await? {
                Some(block) => Ok((block.bytes, reader)),
                None => Err(MediaError::Malformed("a block beyond the end")),
            }
        };
        let (result, rest) = match self.ask(read).await {
            Ok((bytes, rest)) => (Ok(bytes), Some(rest)),
            Err(error) => (Err(error), None),
        };
        {
            let mut shelf = self.shelf();
            shelf.flights.remove(&(item.number, index));
            if let Ok(bytes) = &result {
                count(&self.counts.blocks, 1);
                shelf.put_up((item.number, index), bytes.clone(), self.settings.kept_blocks);
            }
        }
        land.send_replace(Some(result));
        if let Some(mut rest) = rest {
            let _ = rest.next().await; // the end, so that the server sees its answer taken
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    /// The item that `info` describes: the one that is known, if it is still the same.
    fn meet(&mut self, path: &ItemPath, info: ItemInfo) -> Arc<Item> {
        let now = Instant::now();
        if let Some((item, checked)) = self.items.get_mut(path)
            && item.info.version == info.version
            && item.info.size == info.size
        {
            *checked = now;
            return item.clone();
        }
        if self.items.len() >= KEPT_ITEMS {
            self.items.clear(); // a browser through a large catalogue; nothing is lost but questions asked again
        }
        self.last_item += 1;
        let item = Arc::new(Item { number: self.last_item, path: path.clone(), info });
        self.items.insert(path.clone(), (item.clone(), now));
        item
    }

    fn take_down(&mut self, key: Key) -> Option<Bytes> {
        self.uses += 1;
        let kept = self.blocks.get_mut(&key)?;
        kept.last_use = self.uses;
        Some(kept.bytes.clone())
    }

    fn put_up(&mut self, key: Key, bytes: Bytes, most: usize) {
        self.uses += 1;
        self.blocks.insert(key, Kept { bytes, last_use: self.uses });
        while self.blocks.len() > most {
            let oldest = self.blocks.iter().min_by_key(|(_, kept)| kept.last_use);
            let Some(key) = oldest.map(|(key, _)| *key) else { return };
            self.blocks.remove(&key);
        }
    }
}

impl Want {
    /// Whether it was given up.
    pub(super) fn has_failed(&self) -> bool {
        match self {
            Self::Here(_) => false,
            Self::Coming(flight) => matches!(*flight.landed.borrow(), Some(Err(_))),
        }
    }

    /// The block, once it is there. May be dropped and asked again.
    pub(super) async fn block(&self) -> Result<Bytes, PlayError> {
        let flight = match self {
            Self::Here(bytes) => return Ok(bytes.clone()),
            Self::Coming(flight) => flight,
        };
        let mut landed = flight.landed.clone();
        let result = landed.wait_for(Option::is_some).await.map(|result| result.clone());
        let lost =
            || PlayError::Lost { seconds: 0, last: "the gateway is shutting down".to_owned() };
        result.ok().flatten().unwrap_or_else(|| Err(lost()))
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.landed.borrow().is_none() {
            count(&self.counts.cancelled, 1);
            self.task.abort();
        }
    }
}
