//! One run of `cabo get`: what was wished, done over [`Persist`], shown, and summed up in the last line.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cabo::client::Client;
use cabo::service::media::{
    BlockRange, EntryKind, ErrorCode, FetchError, FetchOptions, FetchReport, ItemPath, MediaClient,
    MediaError, Progress, Refusal, Target, Version, fetch, fetch_all, tree,
};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::persist::Persist;
use super::seen::Seen;
use super::told::Failed;
use super::{All, Place, What, Wish};
use crate::cmd::interrupted;
use crate::exit::{self, Failure};
use crate::session;
use crate::show::progress::Bar;
use crate::show::{json, stdout};

/// After Ctrl-C the goodbye has this long to leave.
const LEAVING_TIME: Duration = Duration::from_millis(1500);

/// Entries that are counted before a list is taken for one that never ends.
const ENTRIES_MAX: u64 = 10_000_000;
/// A bar that counts is told so often.
const COUNT_STEP: u64 = 100;
/// Links to folders that are named.
const LINKS_MAX: usize = 100;

/// A wish on its way.
pub(super) struct Transfer {
    pub(super) wish: Wish,
    client: Client,
    pub(super) started: Instant,
    pub(super) seen: Arc<Seen>,
    stop: Notify,
    /// The file that is written, where it is one.
    path: Mutex<Option<PathBuf>>,
}

impl Transfer {
    pub(super) fn new(wish: Wish) -> anyhow::Result<Self> {
        let client = session::client_to(&wish.address, wish.is_plain)?;
        let is_shown = !wish.globals.quiet && !wish.globals.json;
        let name = match &wish.what {
            What::One(item) => item.components().last().map_or_else(String::new, |name| {
                ItemPath::new(name).map_or_else(|_| String::new(), |name| name.to_string())
            }),
            What::All(_) => wish.address.to_string(),
        };
        let bar = Bar::new(name, is_shown);
        let seen = Arc::new(Seen::new(bar, wish.globals.json));
        let (started, stop, path) = (Instant::now(), Notify::new(), Mutex::default());
        Ok(Self { wish, client, started, seen, stop, path })
    }

    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let caught = interrupted()?;
        let mut fetching = pin!(self.fetch());
        let result = tokio::select! {
            result = &mut fetching => result,
            () = caught => {
                self.stop.notify_one();
                let _ = timeout(LEAVING_TIME, fetching).await; // the server hears of it, or notices the silence
                Err(self.interrupted().into())
            }
        };
        self.seen.bar.end();
        if let (Err(error), true) = (&result, self.wish.globals.json)
            && let Some(failure) = error.downcast_ref::<Failure>()
        {
            let event = json!({"event": "error", "code": failure.code, "error": failure.text});
            let _ = json::line(&event); // it is told on stderr as well
        }
        result
    }

    async fn fetch(&self) -> anyhow::Result<ExitCode> {
        match (&self.wish.what, &self.wish.place) {
            (What::All(all), Place::Folder(place)) if all.is_dry => self.compare(all, place).await,
            (What::All(all), Place::Folder(place)) => self.fetch_all(all, place).await,
            (What::One(item), Place::Stdout) => self.print(item).await,
            (What::One(item), Place::Folder(place)) => self.fetch_one(item, place, None).await,
            (What::One(item), Place::File { folder, name }) => {
                self.fetch_one(item, folder, Some(name)).await
            }
            (What::All(_), Place::File { .. } | Place::Stdout) => {
                Err(Failure::usage("--all needs a folder: -o DIR").into())
            }
        }
    }

    pub(super) fn persist(&self) -> Persist<'_> {
        let (wish, bar) = (&self.wish, &self.seen.bar);
        let is_quiet = wish.globals.quiet;
        Persist {
            client: &self.client,
            address: &wish.address,
            patience: wish.patience,
            is_quiet,
            bar,
            stop: &self.stop,
            path: &self.path,
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
        let mut stood = None;
        let work = async |media: &MediaClient| {
            let item = only_item(media, item).await?;
            let name = match name {
                Some(name) => name.clone(),
                None => last_name(&item)?,
            };
            let path = folder_and(folder, &name);
            stood.get_or_insert_with(|| path.symlink_metadata().is_ok());
            *self.path.lock().unwrap_or_else(PoisonError::into_inner) = Some(path);
            let tell = |progress| self.seen.note(&name, progress);
            let options = FetchOptions::default();
            let result = fetch(media, &item, &target, &name, &options, tell).await;
            self.seen.next_session();
            result.map(|report| (item, name, report))
        };
        let result = self.persist().run(|| self.seen.here(), work).await;
        let (item, name, report) = result?;
        self.seen.bar.end();
        let (path, stood) = (folder_and(folder, &name), stood.unwrap_or_default());
        self.print_item(&item, &path, &name, &report, stood)?;
        Ok(ExitCode::from(exit::OK))
    }

    // --- all items --------------------------------------------------------------------------------------------------

    async fn fetch_all(&self, all: &All, place: &Path) -> anyhow::Result<ExitCode> {
        let folder = &all.folder;
        let target = open_target(place, true)?;
        let (mut failed, mut links) = (Failed::default(), Vec::new());
        let mut told = Ok(());
        let work = async |media: &MediaClient| {
            failed = Failed::default();
            self.count(media, all, &mut links).await?;
            let seen = self.seen.clone();
            let tell = move |name: &ItemPath, progress| seen.note(name, progress);
            let on_item = |name: &ItemPath, result: &Result<FetchReport, FetchError>| match result {
                Ok(report) if self.wish.globals.json && told.is_ok() => {
                    let path = folder_and(place, name);
                    let item = folder.join(name).unwrap_or_else(|_| name.clone()); // it was fetched, so it is one
                    told = self.print_item(&item, &path, name, report, false);
                }
                Ok(_) => {}
                Err(error) => failed.add(name, &folder_and(place, name), error),
            };
            let options = all.options();
            let result = fetch_all(media, folder, &target, &options, tell, on_item).await;
            self.seen.next_session();
            result
        };
        let summary = self.persist().run(|| self.seen.here(), work).await?;
        self.seen.bar.end();
        let code = if failed.is_empty() { exit::OK } else { exit::INCOMPLETE };
        exit::with(code, told.and_then(|()| self.print_summary(&summary, &failed, &links)))
    }

    /// Learns how much there is, once, for the progress and the time left; and which `links` to folders there are,
    /// which are not followed.
    async fn count(
        &self,
        media: &MediaClient,
        all: &All,
        links: &mut Vec<ItemPath>,
    ) -> Result<(), FetchError> {
        if self.seen.total_bytes().is_some() {
            return Ok(());
        }
        links.clear();
        let mut listing = media.list(&all.folder, true).await?;
        let (mut total_bytes, mut entries) = (0_u64, 0_u64);
        loop {
            let entry = match listing.next().await {
                Ok(Some(entry)) => entry,
                Ok(None) | Err(MediaError::Refused(_)) => break, // `fetch_all` tells what could not be listed
                Err(error) => return Err(error.into()),
            };
            entries += 1;
            if entries.is_multiple_of(COUNT_STEP) {
                self.seen.bar.count(entries);
            }
            if entries > ENTRIES_MAX {
                let endless = "more than 10,000,000 entries; name one of the folders";
                return Err(MediaError::Malformed(endless).into());
            }
            if all.excluded.fit(&entry.path) {
                continue;
            }
            match entry.kind {
                EntryKind::File => total_bytes = total_bytes.saturating_add(entry.size),
                EntryKind::Folder if entry.is_link && links.len() < LINKS_MAX => {
                    links.push(entry.path);
                }
                EntryKind::Folder | EntryKind::Unknown(_) | _ => {}
            }
        }
        self.seen.set_total_bytes(total_bytes);
        Ok(())
    }

    // --- stdout -----------------------------------------------------------------------------------------------------

    /// Block by block to stdout, each proved before it is written.
    async fn print(&self, item: &ItemPath) -> anyhow::Result<ExitCode> {
        let mut next = 0;
        let mut version: Option<Version> = None;
        let (name, mut whole) = (ItemPath::default(), tree::RootBuilder::default());
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
                whole.push(block.hash);
                self.seen.note(&name, Progress { proved_bytes, resumed_bytes: 0, total_bytes });
            }
            match (blocks.root(), whole.root()) {
                (Some(expected), ours) if expected != ours => {
                    Err(FetchError::WrongRoot { ours, expected })
                }
                _ => Ok(Ok(())),
            }
        };
        self.persist().run(|| self.seen.here(), work).await??;
        Ok(ExitCode::from(exit::OK))
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
            format!("{} `cabo ls` lists them, --all gets them all", exit::WHICH_ITEM),
        ))
        .into()),
    }
}

fn last_name(item: &ItemPath) -> Result<ItemPath, FetchError> {
    Ok(ItemPath::new(item.components().last().unwrap_or_default())?)
}

/// A place in a folder, as a path of this machine.
pub(crate) fn folder_and(folder: &Path, name: &ItemPath) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    folder.join(std::ffi::OsStr::from_bytes(name.as_bytes()))
}

/// Opens the folder that is written to; makes it where that is what was wished.
pub(crate) fn open_target(folder: &Path, may_make: bool) -> Result<Arc<Target>, Failure> {
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
