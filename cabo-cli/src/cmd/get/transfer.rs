//! One run of `cabo get`: what was wished, done over [`Persist`], shown, and summed up in the last line.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cabo::client::Client;
use cabo::service::media::{
    BlockRange, EntryKind, ErrorCode, FetchError, FetchOptions, FetchReport, FetchSummary,
    ItemPath, MediaClient, MediaError, Progress, Refusal, Target, Version, fetch, fetch_all,
};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::persist::Persist;
use super::{Place, What, Wish};
use crate::cmd::interrupted;
use crate::exit::{self, Failure};
use crate::session;
use crate::show::progress::Bar;
use crate::show::{human, json, stderr, stdout};

/// After Ctrl-C the goodbye has this long to leave.
const LEAVING_TIME: Duration = Duration::from_millis(1500);

/// A wish on its way.
pub(super) struct Transfer {
    wish: Wish,
    client: Client,
    started: Instant,
    seen: Arc<Seen>,
    stop: Notify,
}

/// How far it is, over all items and sessions.
struct Seen {
    bar: Bar,
    inner: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    items: BTreeMap<ItemPath, Progress>,
    /// Bytes of all items together, where that is known beforehand.
    total_bytes: Option<u64>,
    /// What was here before this run, by item.
    resumed: BTreeMap<ItemPath, u64>,
    /// A session was lost: from now on what is resumed is our own.
    is_again: bool,
}

impl Transfer {
    pub(super) fn new(wish: Wish) -> anyhow::Result<Self> {
        let client = session::client_to(&wish.address, wish.is_plain)?;
        let is_shown = !wish.globals.quiet && !wish.globals.json;
        let name = match &wish.what {
            What::One(item) => item.components().last().map_or_else(String::new, |name| {
                ItemPath::new(name).map_or_else(|_| String::new(), |name| name.to_string())
            }),
            What::All(..) => wish.address.to_string(),
        };
        let bar = Bar::new(name, is_shown);
        let seen = Arc::new(Seen { bar, inner: Mutex::default() });
        Ok(Self { wish, client, started: Instant::now(), seen, stop: Notify::new() })
    }

    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let mut fetching = pin!(self.fetch());
        let result = tokio::select! {
            result = &mut fetching => result,
            stopped = interrupted() => {
                self.stop.notify_one();
                let _ = timeout(LEAVING_TIME, fetching).await; // the server hears of it, or notices the silence
                stopped.and_then(|()| Err(self.interrupted().into()))
            }
        };
        self.seen.bar.end();
        result
    }

    async fn fetch(&self) -> anyhow::Result<ExitCode> {
        match (&self.wish.what, &self.wish.place) {
            (What::All(folder, parallel), Place::Folder(place)) => {
                self.fetch_all(folder, *parallel, place).await
            }
            (What::One(item), Place::Stdout) => self.print(item).await,
            (What::One(item), Place::Folder(place)) => self.fetch_one(item, place, None).await,
            (What::One(item), Place::File { folder, name }) => {
                self.fetch_one(item, folder, Some(name)).await
            }
            (What::All(..), Place::File { .. } | Place::Stdout) => {
                Err(Failure::usage("--all needs a folder: -o DIR").into())
            }
        }
    }

    fn persist(&self) -> Persist<'_> {
        let (wish, bar) = (&self.wish, &self.seen.bar);
        let is_quiet = wish.globals.quiet;
        Persist {
            client: &self.client,
            address: &wish.address,
            patience: wish.patience,
            is_quiet,
            bar,
            stop: &self.stop,
        }
    }

    // --- one item ---------------------------------------------------------------------------------------------------

    async fn fetch_one(
        &self,
        item: &ItemPath,
        folder: &Path,
        name: Option<&ItemPath>,
    ) -> anyhow::Result<ExitCode> {
        let target = open_target(folder, name.is_none())?;
        let work = async |media: &MediaClient| {
            let item = only_item(media, item).await?;
            let name = match name {
                Some(name) => name.clone(),
                None => last_name(&item)?,
            };
            let tell = |progress| self.seen.note(&name, progress);
            let options = FetchOptions::default();
            let result = fetch(media, &item, &target, &name, &options, tell).await;
            self.seen.next_session();
            result.map(|report| (name, report))
        };
        let result = self.persist().run(|| self.seen.here(), work).await;
        let (name, report) = result.map_err(|failure| self.with_advice(failure, item))?;
        self.seen.bar.end();
        self.print_item(&folder_and(folder, &name), &name, &report)?;
        Ok(ExitCode::from(exit::OK))
    }

    fn with_advice(&self, mut failure: Failure, item: &ItemPath) -> Failure {
        let is_folder = failure.text.contains("not a file") && failure.code == exit::FAILED;
        if is_folder {
            failure.text.push_str("; for a folder: cabo get --all");
        } else if item.is_root() && failure.text.contains("which item") {
            failure.code = exit::USAGE;
        }
        failure
    }

    fn print_item(&self, path: &Path, name: &ItemPath, report: &FetchReport) -> anyhow::Result<()> {
        let resumed = self.seen.resumed(name).min(report.bytes);
        let elapsed = self.started.elapsed();
        let globals = self.wish.globals;
        if globals.json {
            return Ok(json::line(&json!({
                "event": "fetched",
                "name": name.to_string(),
                "path": path.to_string_lossy(),
                "bytes": report.bytes,
                "resumed_bytes": resumed,
                "seconds": elapsed.as_secs_f64(),
                "b3sum": report.root.to_string(),
            }))?);
        }
        if globals.quiet {
            return Ok(());
        }
        let text = match (resumed == report.bytes && resumed > 0, resumed) {
            (true, _) => format!("{} was here already, whole", human::size(report.bytes)),
            (false, 0) => self.moved(report.bytes),
            (false, _) => format!(
                "{}, and {} were here before",
                self.moved(report.bytes - resumed),
                human::size(resumed)
            ),
        };
        Ok(writeln!(stdout::styled(), "{name}: {text}; b3sum {}", report.root)?)
    }

    fn moved(&self, bytes: u64) -> String {
        let elapsed = self.started.elapsed();
        let (size, rate) = (human::size(bytes), human::rate(bytes, elapsed));
        format!("{size} in {} ({rate})", human::duration(elapsed))
    }

    // --- all items --------------------------------------------------------------------------------------------------

    async fn fetch_all(
        &self,
        folder: &ItemPath,
        parallel: usize,
        place: &Path,
    ) -> anyhow::Result<ExitCode> {
        let target = open_target(place, true)?;
        let mut failed = BTreeMap::new();
        let mut told = Ok(());
        let work = async |media: &MediaClient| {
            failed.clear();
            self.count(media, folder).await?;
            let seen = self.seen.clone();
            let tell = move |name: &ItemPath, progress| seen.note(name, progress);
            let on_item = |name: &ItemPath, result: &Result<FetchReport, FetchError>| match result {
                Ok(report) if self.wish.globals.json && told.is_ok() => {
                    told = self.print_item(&folder_and(place, name), name, report);
                }
                Ok(_) => {}
                Err(error) => drop(failed.insert(name.clone(), error.to_string())),
            };
            let options = FetchOptions::default();
            let result = fetch_all(media, folder, &target, parallel, &options, tell, on_item).await;
            self.seen.next_session();
            result
        };
        let summary = self.persist().run(|| self.seen.here(), work).await?;
        self.seen.bar.end();
        let code = if failed.is_empty() { exit::OK } else { exit::INCOMPLETE };
        exit::with(code, told.and_then(|()| self.print_summary(&summary, &failed)))
    }

    /// Learns how much there is, once, for the progress and the time left.
    async fn count(&self, media: &MediaClient, folder: &ItemPath) -> Result<(), FetchError> {
        if self.seen.lock().total_bytes.is_some() {
            return Ok(());
        }
        let mut listing = media.list(folder, true).await?;
        let mut total_bytes = 0_u64;
        loop {
            match listing.next().await {
                Ok(Some(entry)) if entry.kind == EntryKind::File => {
                    total_bytes = total_bytes.saturating_add(entry.size);
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(MediaError::Refused(_)) => break, // `fetch_all` tells what could not be listed
                Err(error) => return Err(error.into()),
            }
        }
        self.seen.lock().total_bytes = Some(total_bytes);
        Ok(())
    }

    fn print_summary(
        &self,
        summary: &FetchSummary,
        failed: &BTreeMap<ItemPath, String>,
    ) -> anyhow::Result<()> {
        let resumed: u64 = self.seen.lock().resumed.values().sum();
        let resumed = resumed.min(summary.bytes);
        let globals = self.wish.globals;
        for (name, error) in failed {
            if globals.json {
                json::line(&json!({"event": "failed", "name": name.to_string(), "error": error}))?;
            } else {
                let name = if name.is_root() { String::new() } else { format!("{name}: ") };
                stderr::say(&format!("cabo: {name}{}", human::escaped(error)));
            }
        }
        if globals.json {
            return Ok(json::line(&json!({
                "event": "done",
                "items": summary.items,
                "failed": failed.len(),
                "bytes": summary.bytes,
                "resumed_bytes": resumed,
                "seconds": self.started.elapsed().as_secs_f64(),
            }))?);
        }
        if globals.quiet {
            return Ok(());
        }
        let items = if summary.items == 1 { "item" } else { "items" };
        let moved = self.moved(summary.bytes - resumed);
        let mut text = format!("{} {items}, {moved}", summary.items);
        if resumed > 0 {
            text.push_str(&format!(", and {} were here before", human::size(resumed)));
        }
        match failed.len() {
            0 => text.push_str("; every block proved"),
            count => {
                text.push_str(&format!("; {count} failed, run the same command again for them"))
            }
        }
        Ok(writeln!(stdout::styled(), "{text}")?)
    }

    // --- stdout -----------------------------------------------------------------------------------------------------

    /// Block by block to stdout, each proved before it is written.
    async fn print(&self, item: &ItemPath) -> anyhow::Result<ExitCode> {
        let mut next = 0;
        let mut version: Option<Version> = None;
        let name = ItemPath::default();
        let work = async |media: &MediaClient| {
            let item = only_item(media, item).await?;
            let range = BlockRange { first: next, count: u64::MAX - next };
            let mut blocks = media.read(&item, version, range, 0).await?;
            version = Some(blocks.info().version);
            let total_bytes = blocks.info().size;
            let mut proved_bytes = self.seen.here();
            while let Some(block) = blocks.next().await? {
                let bytes = block.bytes;
                proved_bytes += bytes.len() as u64;
                let written = tokio::task::spawn_blocking(move || {
                    let mut out = stdout::raw();
                    out.write_all(&bytes).and_then(|()| out.flush())
                });
                if let Err(error) = written.await.unwrap_or(Ok(())) {
                    return Ok(Err(error));
                }
                next = block.index + 1;
                self.seen.note(&name, Progress { proved_bytes, resumed_bytes: 0, total_bytes });
            }
            Ok(Ok(()))
        };
        self.persist().run(|| self.seen.here(), work).await??;
        Ok(ExitCode::from(exit::OK))
    }

    fn interrupted(&self) -> Failure {
        let here = human::size(self.seen.here());
        let text = match self.wish.place {
            Place::Stdout => format!("interrupted after {here}"),
            Place::Folder(_) | Place::File { .. } => {
                format!(
                    "interrupted; {here} are here and proved: run the same command again to resume"
                )
            }
        };
        Failure::new(exit::INTERRUPTED, text)
    }
}

impl Seen {
    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, name: &ItemPath, progress: Progress) {
        let mut counts = self.lock();
        if !counts.is_again {
            counts.resumed.insert(name.clone(), progress.resumed_bytes);
        }
        counts.items.insert(name.clone(), progress);
        let all = counts.items.values();
        let (here, total) = all.fold((0, 0), |(here, total), item| {
            (here + item.proved_bytes, total + item.total_bytes)
        });
        let resumed = counts.resumed.values().sum();
        let total = counts.total_bytes.unwrap_or(total);
        drop(counts);
        self.bar.set(here, resumed, total);
    }

    /// What a next session finds here is of this run.
    fn next_session(&self) {
        self.lock().is_again = true;
    }

    fn here(&self) -> u64 {
        self.lock().items.values().map(|item| item.proved_bytes).sum()
    }

    fn resumed(&self, name: &ItemPath) -> u64 {
        self.lock().resumed.get(name).copied().unwrap_or_default()
    }
}

/// The item that is meant: where none was named, the only one that there is.
async fn only_item(media: &MediaClient, item: &ItemPath) -> Result<ItemPath, FetchError> {
    if !item.is_root() {
        return Ok(item.clone());
    }
    let mut listing = media.list(item, false).await?;
    match (listing.next().await?, listing.next().await?) {
        (Some(entry), None) if entry.kind == EntryKind::File => Ok(entry.path),
        _ => Err(MediaError::Refused(Refusal::new(
            ErrorCode::BadRequest,
            "which item? `cabo ls` lists them, --all gets them all",
        ))
        .into()),
    }
}

fn last_name(item: &ItemPath) -> Result<ItemPath, FetchError> {
    Ok(ItemPath::new(item.components().last().unwrap_or_default())?)
}

fn folder_and(folder: &Path, name: &ItemPath) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    folder.join(std::ffi::OsStr::from_bytes(name.as_bytes()))
}

/// Opens the folder that is written to; makes it where that is what was wished.
fn open_target(folder: &Path, may_make: bool) -> Result<Arc<Target>, Failure> {
    let opened = match Target::open(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && may_make => {
            std::fs::create_dir_all(folder).and_then(|()| Target::open(folder))
        }
        opened => opened,
    };
    opened.map(Arc::new).map_err(|error| {
        let text =
            format!("cannot write into {}: {error}; name another place: -o DIR", folder.display());
        Failure::new(exit::FAILED, text)
    })
}
