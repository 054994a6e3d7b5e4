//! Small files get their names: synced together, renamed, and reported when that is on the disk too (M-12.8).
//!
//! ```text
//!   batch.rs -> staged -> [ sync | rename ] -> renamed -> [ sync | rename of the next ] -> complete
//! ```
//!
//! One sync serves the bytes of one round and the names of the round before it.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::syncfs;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::{Instant, sleep_until};

use super::batch::Run;
use super::fetch::{FetchReport, blocking};
use super::folders::{Folder, Inode};
use super::path::ItemPath;
use super::staging::Staged;
use super::target::{FetchError, failed};

/// A round begins with so many files, or so many bytes, or after so long.
const ROUND_FILES: usize = 4096;
const ROUND_BYTES: u64 = 64 << 20;
const ROUND_TIME: Duration = Duration::from_secs(1);

/// What came of one item.
pub(super) type Outcome = (ItemPath, Result<FetchReport, FetchError>);

/// What is true but not yet on the disk for sure.
pub(super) enum Unsynced {
    /// A file without its name.
    Staged(Box<ToPlace>),
    /// An item that has its name, in a folder that may be new.
    Named(ItemPath, FetchReport, Arc<Folder>),
}

/// A staged file and where it belongs.
pub(super) struct ToPlace {
    pub(super) name: ItemPath,
    pub(super) report: FetchReport,
    pub(super) staged: Staged,
    pub(super) folder: Arc<Folder>,
    pub(super) existing: Option<Inode>,
}

/// Files that are synced together, and one folder of each disk.
#[derive(Default)]
struct Round {
    staged: Vec<ToPlace>,
    named: Vec<(ItemPath, FetchReport)>,
    disks: BTreeMap<u64, Arc<Folder>>,
    bytes: u64,
}

impl Round {
    fn push(&mut self, unsynced: Unsynced) {
        let folder = match unsynced {
            Unsynced::Staged(staged) => {
                self.bytes += staged.report.bytes;
                let folder = staged.folder.clone();
                self.staged.push(*staged);
                folder
            }
            Unsynced::Named(name, report, folder) => {
                self.named.push((name, report));
                folder
            }
        };
        self.disks.entry(folder.device).or_insert(folder);
    }

    fn len(&self) -> usize {
        self.staged.len() + self.named.len()
    }

    fn is_full(&self) -> bool {
        self.len() >= ROUND_FILES || self.bytes >= ROUND_BYTES
    }

    /// Syncs, and renames what was staged: what is complete now, and what is after the next sync.
    fn commit(self, run: &Run) -> (Vec<Outcome>, Self) {
        let synced = self.disks.values().try_for_each(|folder| sync(&folder.dir));
        if let Err(error) = synced {
            let text = error.to_string();
            let staged = self.staged.into_iter().map(|staged| (staged.name, staged.report));
            let failed = staged.chain(self.named).map(|(name, _)| (name, Err(unsynced(&text))));
            return (failed.collect(), Self::default());
        }
        let mut outcomes: Vec<Outcome> =
            self.named.into_iter().map(|(name, report)| (name, Ok(report))).collect();
        let mut next = Self::default();
        for to_place in self.staged {
            match place(run, &to_place) {
                Ok(()) => {
                    next.push(Unsynced::Named(to_place.name, to_place.report, to_place.folder));
                }
                Err(error) => outcomes.push((to_place.name, Err(error))),
            }
        }
        (outcomes, next)
    }
}

fn place(run: &Run, to_place: &ToPlace) -> Result<(), FetchError> {
    let ToPlace { name: item, staged, folder, existing, .. } = to_place;
    let staging = run.staging()?;
    let (_, name) = item.split_last().ok_or(super::path::PathError::Empty)?;
    let mut folders = run.folders();
    match staging.place(*staged, folder, name, *existing) {
        Ok(()) => {
            folders.note_new(item, staged.inode);
            Ok(())
        }
        Err(error) => Err(folders.in_the_way(folder, name, error)),
    }
}

/// Everything on the disk that has this folder.
pub(super) fn sync(dir: &OwnedFd) -> Result<(), FetchError> {
    syncfs(dir).map_err(failed("sync the disk"))
}

fn unsynced(text: &str) -> FetchError {
    FetchError::Local { doing: "keep it", source: std::io::Error::other(text.to_owned()) }
}

/// Commits what comes, in rounds, until nothing more does.
pub(super) async fn commit(run: Arc<Run>, mut steps: Receiver<Unsynced>, done: Sender<Outcome>) {
    let mut round = Round::default();
    let mut is_open = true;
    while is_open || round.len() > 0 {
        let until = Instant::now() + ROUND_TIME;
        while is_open && !round.is_full() {
            let step = if round.len() == 0 {
                steps.recv().await
            } else {
                tokio::select! {
                    step = steps.recv() => step,
                    () = sleep_until(until) => break,
                }
            };
            match step {
                Some(step) => round.push(step),
                None => is_open = false,
            }
        }
        let (run, full) = (run.clone(), std::mem::take(&mut round));
        let outcomes;
        match blocking(move || Ok(full.commit(&run))).await {
            Ok(committed) => (outcomes, round) = committed,
            Err(_) => return, // the program is stopping
        }
        for outcome in outcomes {
            if done.send(outcome).await.is_err() {
                return;
            }
        }
    }
}
