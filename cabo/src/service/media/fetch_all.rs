//! A whole folder of items onto a disk, several at once (M-10.6, M-12.8).
//!
//! ```text
//!   listing -> look -> batches of small files -> batch.rs -> commit.rs -> told
//!                  \-> each longer file       -> fetch.rs --/
//! ```

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::Semaphore;
use tokio::sync::mpsc::channel;
use tokio::task::JoinSet;

use super::batch::{Plan, Reports, Run, Small, WRITERS};
use super::client::{Listing, MediaClient};
use super::commit::{commit, sync};
use super::error::{ErrorCode, MediaError};
use super::fetch::{FetchOptions, FetchReport, Progress, blocking};
use super::many::MAX_WANTED_BYTES;
use super::path::ItemPath;
use super::target::{FetchError, Target};
use super::wire::{Entry, EntryKind};

/// Entries that are looked at in one go.
const LOOK_ENTRIES: usize = 256;
/// What is asked for together at most.
const BATCH_FILES: usize = 512;
const BATCH_BYTES: u64 = 4 << 20;
/// Outcomes that wait for who listens.
const OUTCOMES: usize = 1024;

/// Tells of an item, by its path from the folder that is fetched, whether it is left out.
pub type LeftOut = Arc<dyn Fn(&ItemPath) -> bool + Send + Sync>;

/// How a folder is fetched.
#[derive(Clone)]
pub struct FetchAllOptions {
    /// Streams at once: longer files, or batches of small ones.
    pub parallel: usize,
    /// What the server is told about the urgency (M-7.2).
    pub priority: u8,
    /// What is left out, by its path from the folder; with a folder goes what is beneath.
    pub is_left_out: Option<LeftOut>,
}

impl Default for FetchAllOptions {
    /// Four streams, no urgency, nothing left out.
    fn default() -> Self {
        Self { parallel: 4, priority: 0, is_left_out: None }
    }
}

impl FetchAllOptions {
    pub(super) fn leaves_out(&self, name: &ItemPath) -> bool {
        self.is_left_out.as_ref().is_some_and(|is_left_out| is_left_out(name))
    }
}

impl fmt::Debug for FetchAllOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchAllOptions")
            .field("parallel", &self.parallel)
            .field("priority", &self.priority)
            .finish_non_exhaustive()
    }
}

/// What came of fetching a folder.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FetchSummary {
    /// Items that are complete.
    pub items: u64,
    /// Items that are not.
    pub failed: u64,
    /// Bytes of the complete items.
    pub bytes: u64,
    /// Of these, bytes that were here already.
    pub resumed_bytes: u64,
}

/// Fetches everything beneath `folder` into `target` (M-10.6, M-12.8).
///
/// `on_item` is told of each item when it is on the disk or has failed, and of `folder` where a part of it could not be
/// listed. An item that failed does not stop the others, a connection that broke does. Symlinked folders are left out:
/// what they lead to is listed at its own place.
pub async fn fetch_all(
    client: &MediaClient,
    folder: &ItemPath,
    target: &Arc<Target>,
    options: &FetchAllOptions,
    on_progress: impl Fn(&ItemPath, Progress) + Send + Sync + 'static,
    mut on_item: impl FnMut(&ItemPath, &Result<FetchReport, FetchError>) + Send,
) -> Result<FetchSummary, FetchError> {
    let listing = client.list(folder, true).await?;
    let run = Arc::new(Run {
        client: client.clone(),
        folder: folder.clone(),
        target: target.clone(),
        device: target.device()?,
        options: FetchOptions { priority: options.priority, expected_root: None },
        on_progress: Box::new(on_progress),
        has_many: AtomicBool::new(true),
        folders: Default::default(),
        staging: Default::default(),
        writers: Arc::new(Semaphore::new(WRITERS as usize)),
    });
    let (done, mut outcomes) = channel(OUTCOMES);
    let (unsynced, steps) = channel(OUTCOMES);
    let reports = Reports { done: done.clone(), unsynced };
    let feed = Feed {
        run: run.clone(),
        options: options.clone(),
        reports,
        jobs: JoinSet::new(),
        batch: Vec::new(),
        batch_bytes: 0,
        wanted_bytes: 0,
    };
    // Dropped with this future, these end with it.
    let (mut feeding, mut committing) = (JoinSet::new(), JoinSet::new());
    feeding.spawn(feed.all(listing));
    committing.spawn(commit(run.clone(), steps, done));
    let mut summary = FetchSummary::default();
    while let Some((name, result)) = outcomes.recv().await {
        on_item(&name, &result);
        summary.add(&result);
    }
    let result = feeding.join_next().await.and_then(Result::ok).unwrap_or(Ok(()));
    run.close().await;
    if let Err((name, error)) = blocking(move || Ok(finish(&run))).await? {
        let result = Err(error);
        on_item(&name, &result);
        summary.add(&result);
    }
    result.map(|()| summary)
}

/// Folders get their times when all is in them; that is on the disk before the run is called done.
fn finish(run: &Run) -> Result<(), (ItemPath, FetchError)> {
    let mut folders = run.folders();
    let has_folders = folders.has_dresses();
    folders.dress(&run.target)?;
    match has_folders {
        true => sync(&run.target.dir).map_err(|error| (ItemPath::default(), error)),
        false => Ok(()),
    }
}

/// Lists, and starts what fetches.
struct Feed {
    run: Arc<Run>,
    options: FetchAllOptions,
    reports: Reports,
    jobs: JoinSet<Result<(), FetchError>>,
    batch: Vec<Small>,
    batch_bytes: u64,
    wanted_bytes: usize,
}

impl Feed {
    async fn all(mut self, mut listing: Listing) -> Result<(), FetchError> {
        loop {
            let (entries, end) = some_entries(&mut listing).await;
            let entries: Vec<Entry> =
                entries.into_iter().filter(|entry| !self.options.leaves_out(&entry.path)).collect();
            let run = self.run.clone();
            let plans = blocking(move || {
                Ok(entries.iter().filter_map(|entry| plan(&run, entry)).collect())
            });
            let plans: Vec<Plan> = plans.await?;
            for plan in plans {
                match plan {
                    Plan::Small(small) => self.push(small).await?,
                    Plan::Alone(name) => {
                        let job = self.run.clone().fetch_alone(name, self.reports.clone());
                        self.start(job).await?;
                    }
                    Plan::Failed(name, error) => self.reports.done(name, Err(error)).await?,
                }
            }
            let Some(end) = end else { continue };
            self.start_batch().await?;
            self.wait(0).await?;
            return match end {
                Err(error) if is_of_a_part(&error) => {
                    let name = self.run.folder.clone();
                    self.reports.done(name, Err(error.into())).await
                }
                end => Ok(end?),
            };
        }
    }

    async fn push(&mut self, small: Small) -> Result<(), FetchError> {
        if self.wanted_bytes + small.wanted.wire_bytes() > MAX_WANTED_BYTES {
            self.start_batch().await?;
        }
        self.batch_bytes += small.bytes;
        self.wanted_bytes += small.wanted.wire_bytes();
        self.batch.push(small);
        if self.batch.len() >= BATCH_FILES || self.batch_bytes >= BATCH_BYTES {
            self.start_batch().await?;
        }
        Ok(())
    }

    async fn start_batch(&mut self) -> Result<(), FetchError> {
        (self.batch_bytes, self.wanted_bytes) = (0, 0);
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        let job = self.run.clone().fetch_batch(batch, self.reports.clone());
        self.start(job).await
    }

    async fn start(
        &mut self,
        job: impl Future<Output = Result<(), FetchError>> + Send + 'static,
    ) -> Result<(), FetchError> {
        self.wait(self.options.parallel.saturating_sub(1)).await?;
        self.jobs.spawn(job);
        Ok(())
    }

    /// Waits until at most so many are under way.
    async fn wait(&mut self, most: usize) -> Result<(), FetchError> {
        while self.jobs.len() > most {
            if let Some(Ok(result)) = self.jobs.join_next().await {
                result?;
            }
        }
        Ok(())
    }
}

/// The next entries, and how the listing ended if it did.
pub(super) async fn some_entries(
    listing: &mut Listing,
) -> (Vec<Entry>, Option<Result<(), MediaError>>) {
    let mut entries = Vec::new();
    while entries.len() < LOOK_ENTRIES {
        match listing.next().await {
            Ok(Some(entry)) => entries.push(entry),
            Ok(None) => return (entries, Some(Ok(()))),
            Err(error) => return (entries, Some(Err(error))),
        }
    }
    (entries, None)
}

/// What is to be done about an entry; a folder is made at once.
fn plan(run: &Run, entry: &Entry) -> Option<Plan> {
    match entry.kind {
        EntryKind::File => Some(run.look(entry)),
        EntryKind::Folder if !entry.is_link => {
            let made = run.folders().make(&run.target, &entry.path, entry.modified, entry.mode);
            made.err().map(|error| Plan::Failed(entry.path.clone(), error))
        }
        EntryKind::Folder | EntryKind::Unknown(_) => None,
    }
}

/// Whether a listing ended with what could not be listed, after all that could (M-5.4).
pub(super) fn is_of_a_part(error: &MediaError) -> bool {
    matches!(error, MediaError::Refused(refusal) if refusal.code != ErrorCode::Busy)
}

impl FetchSummary {
    fn add(&mut self, result: &Result<FetchReport, FetchError>) {
        match result {
            Ok(report) => {
                self.items += 1;
                self.bytes += report.bytes;
                self.resumed_bytes += report.resumed_bytes;
            }
            Err(_) => self.failed += 1,
        }
    }
}
