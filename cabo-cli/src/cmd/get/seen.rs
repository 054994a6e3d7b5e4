//! How far a run is, over all items and sessions: for the bar, for machines, and for the last line.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cabo::service::media::{ItemPath, Progress};
use serde_json::json;

use crate::show::json;
use crate::show::progress::Bar;

/// Machines hear so often.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Seen {
    pub(super) bar: Bar,
    is_json: bool,
    inner: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    items: BTreeMap<ItemPath, Progress>,
    /// Bytes of all items together, where that is known beforehand.
    total_bytes: Option<u64>,
    /// What was here before this run, by item.
    resumed: BTreeMap<ItemPath, u64>,
    sums: Sums,
    /// A session was lost: from now on what is resumed is our own.
    is_again: bool,
    /// When a machine heard of it last.
    told: Option<Instant>,
}

/// Over all items; kept, since there may be very many.
#[derive(Default)]
struct Sums {
    here: u64,
    total: u64,
    resumed: u64,
}

impl Counts {
    fn add(&mut self, name: &ItemPath, progress: Progress) {
        if !self.is_again {
            let old = self.resumed.insert(name.clone(), progress.resumed_bytes);
            replace(&mut self.sums.resumed, old, progress.resumed_bytes);
        }
        let old = self.items.insert(name.clone(), progress);
        replace(&mut self.sums.here, old.map(|old| old.proved_bytes), progress.proved_bytes);
        replace(&mut self.sums.total, old.map(|old| old.total_bytes), progress.total_bytes);
    }
}

/// Takes `old` out of a sum and `new` in.
fn replace(sum: &mut u64, old: Option<u64>, new: u64) {
    *sum = sum.saturating_sub(old.unwrap_or_default()).saturating_add(new);
}

impl Seen {
    pub(super) fn new(bar: Bar, is_json: bool) -> Self {
        Self { bar, is_json, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An item has got so far.
    pub(super) fn note(&self, name: &ItemPath, progress: Progress) {
        let mut counts = self.lock();
        counts.add(name, progress);
        let (here, resumed) = (counts.sums.here, counts.sums.resumed);
        let total = counts.total_bytes.unwrap_or(counts.sums.total);
        let is_due = counts.told.is_none_or(|told| told.elapsed() >= TELL_EVERY);
        if self.is_json && is_due {
            counts.told = Some(Instant::now());
            let event = json!({
                "event": "progress",
                "bytes": here,
                "resumed_bytes": resumed,
                "total_bytes": total,
            });
            let _ = json::line(&event); // the last line tells of a stdout that is closed
        }
        drop(counts);
        self.bar.set(here, resumed, total);
    }

    /// What a next session finds here is of this run.
    pub(super) fn next_session(&self) {
        self.lock().is_again = true;
    }

    /// Bytes of all items that are here.
    pub(super) fn here(&self) -> u64 {
        self.lock().sums.here
    }

    /// Of one item, what was here before.
    pub(super) fn resumed(&self, name: &ItemPath) -> u64 {
        self.lock().resumed.get(name).copied().unwrap_or_default()
    }

    /// Of all items, what was here before.
    pub(super) fn all_resumed(&self) -> u64 {
        self.lock().sums.resumed
    }

    pub(super) fn total_bytes(&self) -> Option<u64> {
        self.lock().total_bytes
    }

    pub(super) fn set_total_bytes(&self, bytes: u64) {
        self.lock().total_bytes = Some(bytes);
    }
}
