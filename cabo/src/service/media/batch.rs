//! Small files of a folder, many in one READ MANY (M-12): looked at, asked for together, proved, and staged.
//!
//! `fetch_all.rs` decides what goes together, `commit.rs` gives the staged files their names.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::fs::OFlags;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;

use super::client::MediaClient;
use super::commit::{Outcome, ToPlace, Unsynced};
use super::compare::hash_of;
use super::error::{ErrorCode, MediaError};
use super::fetch::{FetchOptions, FetchReport, Progress, blocking, fetch_if};
use super::folders::{Folder, Folders, Inode, changed_mode};
use super::many::{ManyItem, Wanted};
use super::path::ItemPath;
use super::staging::{Staging, file_mode};
use super::target::{FetchError, Partial, Target, dress, failed, open_regular};
use super::tree::BLOCK_BYTES;
use super::wire::{Entry, ItemInfo, Modified};

/// Files up to so many bytes are asked for together.
pub(super) const SMALL_BYTES: u64 = 256 * 1024;
/// Groups of files that are written at once at most.
pub(super) const WRITERS: u32 = 16;
/// Files that are proved and written in one go.
const GROUP_FILES: usize = 64;
const GROUP_BYTES: u64 = 1 << 20;

pub(super) type OnProgress = Box<dyn Fn(&ItemPath, Progress) + Send + Sync>;

/// What all parts of one run share.
pub(super) struct Run {
    pub(super) client: MediaClient,
    pub(super) folder: ItemPath,
    pub(super) target: Arc<Target>,
    /// The disk of the target; one may be mounted beneath it.
    pub(super) device: u64,
    pub(super) options: FetchOptions,
    pub(super) on_progress: OnProgress,
    /// The server knows READ MANY, as far as is known (M-12.1).
    pub(super) has_many: AtomicBool,
    pub(super) folders: Mutex<Folders>,
    pub(super) staging: Mutex<Option<Arc<Staging>>>,
    /// Groups that may be written at once.
    pub(super) writers: Arc<Semaphore>,
}

/// Where outcomes go: at once, or after a sync.
#[derive(Clone)]
pub(super) struct Reports {
    pub(super) done: Sender<Outcome>,
    pub(super) unsynced: Sender<Unsynced>,
}

/// A small file that may have to be fetched.
#[derive(Debug)]
pub(super) struct Small {
    pub(super) name: ItemPath,
    pub(super) wanted: Wanted,
    pub(super) bytes: u64,
    folder: Arc<Folder>,
    existing: Option<Existing>,
}

/// A file that stands at an item's place.
#[derive(Clone, Copy, Debug)]
struct Existing {
    inode: Inode,
    modified: Modified,
    mode: u32,
}

/// What is to be done about an entry.
pub(super) enum Plan {
    Small(Small),
    Alone(ItemPath),
    Failed(ItemPath, FetchError),
}

impl Run {
    pub(super) fn folders(&self) -> MutexGuard<'_, Folders> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder for unfinished files, made with the first of them.
    pub(super) fn staging(&self) -> Result<Arc<Staging>, FetchError> {
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(staging) = staging.as_ref() {
            return Ok(staging.clone());
        }
        Ok(staging.insert(Arc::new(Staging::open(&self.target.dir)?)).clone())
    }

    /// Looks at what stands at the place of a listed file.
    pub(super) fn look(&self, entry: &Entry) -> Plan {
        let is_small = entry.size <= SMALL_BYTES && self.has_many.load(Ordering::Relaxed);
        if !is_small {
            return Plan::Alone(entry.path.clone());
        }
        match self.look_at_small(entry) {
            Ok(small) if small.folder.device != self.device => Plan::Alone(small.name), // no rename leads there
            Ok(small) => Plan::Small(small),
            Err(error) => Plan::Failed(entry.path.clone(), error),
        }
    }

    fn look_at_small(&self, entry: &Entry) -> Result<Small, FetchError> {
        let item = self.folder.join(&entry.path)?;
        let (above, name) = entry.path.split_last().ok_or(super::path::PathError::Empty)?;
        let folder = self.folders().get(&self.target, &above)?;
        let mut known = None;
        let mut existing = None;
        if let Some(file) = open_regular(&folder.dir, name, OFlags::RDONLY)? {
            let stat = rustix::fs::fstat(&file).map_err(failed("look at the existing file"))?;
            let inode = (stat.st_dev, stat.st_ino);
            self.folders().note(&folder, &entry.path, inode, stat.st_nlink > 1)?;
            if super::catalogue::size(&stat) == entry.size {
                known = Some(hash_of(&file)?);
            }
            let modified = super::catalogue::modified(&stat);
            existing = Some(Existing { inode, modified, mode: stat.st_mode });
        }
        let wanted = Wanted { item, known };
        Ok(Small { name: entry.path.clone(), wanted, bytes: entry.size, folder, existing })
    }

    /// Fetches one item through `fetch.rs`.
    pub(super) async fn fetch_alone(
        self: Arc<Self>,
        name: ItemPath,
        reports: Reports,
    ) -> Result<(), FetchError> {
        let item = match self.folder.join(&name) {
            Ok(item) => item,
            Err(error) => return reports.done(name, Err(error.into())).await,
        };
        let tell = |progress| (self.on_progress)(&name, progress);
        let (run, its_name) = (self.clone(), name.clone());
        let accept = move |partial: &Partial| run.accept(partial, &its_name);
        let result =
            fetch_if(&self.client, &item, &self.target, &name, &self.options, tell, accept).await;
        match result {
            Ok(report) => {
                let run = self.clone();
                let above = name.split_last().map(|(above, _)| above).unwrap_or_default();
                match blocking(move || run.folders().get(&run.target, &above)).await {
                    Ok(folder) => reports.unsynced(Unsynced::Named(name, report, folder)).await,
                    Err(error) => reports.done(name, Err(error)).await,
                }
            }
            Err(error @ FetchError::Media(MediaError::Broken(_))) => Err(error),
            Err(error) => reports.done(name, Err(error)).await,
        }
    }

    /// Whether the place is not already that of another item of this run.
    fn accept(&self, partial: &Partial, name: &ItemPath) -> Result<(), FetchError> {
        let (above, _) = name.split_last().ok_or(super::path::PathError::Empty)?;
        let mut folders = self.folders();
        let folder = folders.get(&self.target, &above)?;
        let (ours, existing) = partial.inodes()?;
        if let Some((inode, has_more_names)) = existing {
            folders.note(&folder, name, inode, has_more_names)?;
        }
        folders.note_new(name, ours);
        Ok(())
    }

    /// Fetches small files together.
    pub(super) async fn fetch_batch(
        self: Arc<Self>,
        batch: Vec<Small>,
        reports: Reports,
    ) -> Result<(), FetchError> {
        let started = Instant::now();
        let wanted = batch.iter().map(|small| small.wanted.clone()).collect();
        let mut left = batch.into_iter();
        let mut group = Group::default();
        let (mut writing, mut grown) = (None, Vec::new());
        let result = async {
            let mut answers = self.client.read_many(wanted, true, self.options.priority).await?;
            while let Some(answer) = answers.next().await? {
                let Some(small) = left.next() else { break };
                match answer {
                    Ok(item) if item.info.size > BLOCK_BYTES => grown.push(small), // since it was listed
                    Ok(item) => group.push(small, item),
                    Err(refusal) => {
                        let error = MediaError::Refused(refusal);
                        reports.done(small.name, Err(error.into())).await?;
                    }
                }
                if group.is_full() {
                    self.written(writing.take(), &reports).await?;
                    writing = Some(self.write(std::mem::take(&mut group), started).await?);
                }
            }
            Ok(())
        }
        .await;
        // What was received whole is kept, even if the connection broke after it.
        self.written(writing, &reports).await?;
        let last = self.write(group, started).await?;
        self.written(Some(last), &reports).await?;
        match result {
            Err(FetchError::Media(error)) => self.clone().give_up(error, left, &reports).await?,
            result => result?,
        }
        for small in grown {
            self.clone().fetch_alone(small.name, reports.clone()).await?;
        }
        Ok(())
    }

    /// The answer ended too early: what it did not bring is fetched otherwise, or has failed.
    async fn give_up(
        self: Arc<Self>,
        error: MediaError,
        left: impl Iterator<Item = Small>,
        reports: &Reports,
    ) -> Result<(), FetchError> {
        match error {
            MediaError::Refused(refusal) if refusal.code == ErrorCode::BadRequest => {
                self.has_many.store(false, Ordering::Relaxed); // an older server (M-12.1)
                for small in left {
                    self.clone().fetch_alone(small.name, reports.clone()).await?;
                }
                Ok(())
            }
            MediaError::Refused(refusal) => {
                for small in left {
                    let error = MediaError::Refused(refusal.clone());
                    reports.done(small.name, Err(error.into())).await?;
                }
                Ok(())
            }
            error @ (MediaError::Broken(_)
            | MediaError::Stalled { .. }
            | MediaError::Malformed(_)
            | MediaError::WrongBlock { .. }) => Err(error.into()),
        }
    }

    async fn write(
        self: &Arc<Self>,
        group: Group,
        started: Instant,
    ) -> Result<WriteJob, FetchError> {
        let permit = self.writers.clone().acquire_owned().await.map_err(|_| stopped())?;
        let run = self.clone();
        Ok(tokio::task::spawn_blocking(move || {
            let each = group.files.into_iter();
            let written = each.map(|(small, item)| {
                let name = small.name.clone();
                run.write_one(small, item, started).map_err(|error| (name, error))
            });
            let written = written.collect();
            drop((run, permit)); // in this order: who has all permits is the last
            written
        }))
    }

    /// Waits for what is being written still, and removes the folder for unfinished files.
    pub(super) async fn close(&self) {
        let _all = self.writers.acquire_many(WRITERS).await;
        self.writers.close();
        self.staging.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Reports what a group came to.
    async fn written(&self, job: Option<WriteJob>, reports: &Reports) -> Result<(), FetchError> {
        let Some(job) = job else { return Ok(()) };
        for written in job.await.unwrap_or_default() {
            match written {
                Ok(Written::Done(name, report)) => {
                    self.tell(&name, &report);
                    reports.done(name, Ok(report)).await?;
                }
                Ok(Written::Staged(to_place)) => {
                    self.tell(&to_place.name, &to_place.report);
                    reports.unsynced(Unsynced::Staged(to_place)).await?;
                }
                Err((name, error)) => reports.done(name, Err(error)).await?,
            }
        }
        Ok(())
    }

    fn tell(&self, name: &ItemPath, report: &FetchReport) {
        let (proved_bytes, total_bytes) = (report.bytes, report.bytes);
        let resumed_bytes = report.resumed_bytes;
        (self.on_progress)(name, Progress { proved_bytes, resumed_bytes, total_bytes });
    }

    fn write_one(
        &self,
        small: Small,
        item: ManyItem,
        started: Instant,
    ) -> Result<Written, FetchError> {
        let Small { name, folder, existing, wanted, .. } = small;
        let (info, bytes) = item.verified()?;
        let root = info.root.ok_or(MediaError::Malformed("a file without its root"))?;
        let elapsed = started.elapsed();
        let report = |resumed_bytes, blocks| FetchReport {
            bytes: info.size,
            resumed_bytes,
            blocks,
            root,
            elapsed,
        };
        let existing = match (bytes, existing) {
            (Some(bytes), existing) => {
                let staged = self.staging()?.put(&bytes, info.modified, info.mode)?;
                let report = report(0, u64::from(info.size > 0));
                let existing = existing.map(|existing| existing.inode);
                let to_place = ToPlace { name, report, staged, folder, existing };
                return Ok(Written::Staged(Box::new(to_place)));
            }
            (None, Some(existing)) if wanted.known == Some(root) => existing,
            (None, _) => return Err(MediaError::Malformed("a file without its bytes").into()),
        };
        dress_existing(&folder, &name, existing, &info)?;
        Ok(Written::Done(name, report(info.size, 0)))
    }
}

/// Gives a file that has the item's bytes its time and mode too; opens it only if these are others.
fn dress_existing(
    folder: &Folder,
    name: &ItemPath,
    existing: Existing,
    info: &ItemInfo,
) -> Result<(), FetchError> {
    let mode = info.mode.and_then(|mode| changed_mode(existing.mode, file_mode(Some(mode))));
    if existing.modified == info.modified && mode.is_none() {
        return Ok(());
    }
    let (_, name) = name.split_last().ok_or(super::path::PathError::Empty)?;
    match open_regular(&folder.dir, name, OFlags::RDONLY)? {
        Some(file) => dress(&file, info.modified, info.mode),
        None => Err(FetchError::Occupied("the existing file was moved away")),
    }
}

type WriteJob = JoinHandle<Vec<Result<Written, (ItemPath, FetchError)>>>;

enum Written {
    Done(ItemPath, FetchReport),
    Staged(Box<ToPlace>),
}

/// Files that were received and are proved and written together.
#[derive(Default)]
struct Group {
    files: Vec<(Small, ManyItem)>,
    bytes: u64,
}

impl Group {
    fn push(&mut self, small: Small, item: ManyItem) {
        self.bytes += item.info.size;
        self.files.push((small, item));
    }

    fn is_full(&self) -> bool {
        self.files.len() >= GROUP_FILES || self.bytes >= GROUP_BYTES
    }
}

impl Reports {
    /// An item whose state cannot be lost any more.
    pub(super) async fn done(
        &self,
        name: ItemPath,
        result: Result<FetchReport, FetchError>,
    ) -> Result<(), FetchError> {
        self.done.send((name, result)).await.map_err(|_| stopped())
    }

    async fn unsynced(&self, unsynced: Unsynced) -> Result<(), FetchError> {
        self.unsynced.send(unsynced).await.map_err(|_| stopped())
    }
}

fn stopped() -> FetchError {
    FetchError::Local { doing: "go on", source: std::io::Error::other("nobody waits for it") }
}
