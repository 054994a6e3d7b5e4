//! What a run says at its end: of each item, of all of them, and of what went wrong on this side.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use cabo::service::media::{
    ErrorCode, FetchError, FetchReport, FetchSummary, ItemPath, MediaError, PARTIAL_SUFFIX,
};
use serde_json::json;

use super::Place;
use super::transfer::Transfer;
use crate::exit::{self, Failure};
use crate::show::{human, json, stderr, stdout};

/// Failed items that are kept by name; a server that never ends its list must not fill our memory.
const FAILED_MAX: usize = 10_000;

/// Items of a folder that did not arrive.
#[derive(Default)]
pub(super) struct Failed {
    by_name: BTreeMap<ItemPath, String>,
    /// More than are kept.
    more: u64,
    /// The same command again may help.
    may_pass: bool,
}

impl Failed {
    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    pub(super) fn add(&mut self, name: &ItemPath, path: &Path, error: &FetchError) {
        self.may_pass |= may_pass(error);
        if self.by_name.len() < FAILED_MAX {
            let text = local_words(path, error).unwrap_or_else(|| error.to_string());
            self.by_name.insert(name.clone(), text);
        } else {
            self.more += 1;
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.by_name.len() as u64 + self.more
    }

    pub(super) fn print(&self, is_json: bool) -> anyhow::Result<()> {
        for (name, error) in &self.by_name {
            if is_json {
                json::line(&json!({"event": "failed", "name": name.to_string(), "error": error}))?;
            } else {
                let name = if name.is_root() { String::new() } else { format!("{name}: ") };
                stderr::say(&format!("cabo: {name}{}", human::escaped(error)));
            }
        }
        Ok(())
    }
}

/// Whether the same may work later although nobody changes anything.
fn may_pass(error: &FetchError) -> bool {
    match error {
        FetchError::Media(MediaError::Refused(refusal)) => {
            !matches!(refusal.code, ErrorCode::AccessDenied | ErrorCode::NotFound)
        }
        FetchError::WrongRoot { .. } | FetchError::Name(_) | FetchError::Occupied(_) => false,
        FetchError::Media(_)
        | FetchError::NoRoom { .. }
        | FetchError::DiskFull
        | FetchError::Locked
        | FetchError::Local { .. } => true,
    }
}

/// What went wrong on this side, with the path where; `path` is that of the item.
pub(super) fn local_words(path: &Path, error: &FetchError) -> Option<String> {
    let place = match error {
        FetchError::Occupied(_) => culprit(path),
        FetchError::Local { .. } | FetchError::Locked => path.to_owned(),
        FetchError::Media(_)
        | FetchError::NoRoom { .. }
        | FetchError::DiskFull
        | FetchError::WrongRoot { .. }
        | FetchError::Name(_) => return None,
    };
    Some(format!("{}: {error}", place.display()))
}

/// What stands in the way of an item at `path`: a folder that is none, the item's place, or that of its unfinished file.
fn culprit(path: &Path) -> PathBuf {
    let is = |path: &Path, is_right: fn(&std::fs::Metadata) -> bool| {
        path.symlink_metadata().is_ok_and(|meta| !is_right(&meta))
    };
    let folders = path.ancestors().skip(1).filter(|folder| is(folder, |meta| meta.is_dir()));
    // A folder above that is a link may well be meant so: what was opened is only the last of them.
    let nearest = folders.filter(|folder| !folder.is_dir()).last();
    let mut partial = path.as_os_str().to_owned();
    partial.push(OsStr::from_bytes(PARTIAL_SUFFIX));
    let partial = PathBuf::from(partial);
    match nearest {
        Some(folder) => folder.to_owned(),
        None if is(&partial, |meta| meta.is_file()) && !is(path, |meta| meta.is_file()) => partial,
        None => path.to_owned(),
    }
}

impl Transfer {
    /// `stood`: another file was at its place.
    pub(super) fn print_item(
        &self,
        item: &ItemPath,
        path: &Path,
        name: &ItemPath,
        report: &FetchReport,
        stood: bool,
    ) -> anyhow::Result<()> {
        let resumed = self.seen.resumed(name).min(report.bytes);
        let elapsed = self.started.elapsed();
        let globals = self.wish.globals;
        if globals.json {
            return Ok(json::line(&json!({
                "event": "fetched",
                "item": item.to_string(),
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
        let is_old = resumed == report.bytes && report.blocks == 0 && stood;
        let text = match (is_old, resumed) {
            (true, _) => format!("{} was here already, whole", human::size(report.bytes)),
            (false, 0) => self.moved(report.bytes),
            (false, _) => format!(
                "{}, and {} were here before",
                self.moved(report.bytes - resumed),
                human::size(resumed)
            ),
        };
        let replaced = if stood && !is_old { ", in place of another file" } else { "" };
        Ok(writeln!(stdout::styled(), "{name}: {text}{replaced}; b3sum {}", report.root)?)
    }

    fn moved(&self, bytes: u64) -> String {
        let elapsed = self.started.elapsed();
        let (size, rate) = (human::size(bytes), human::rate(bytes, elapsed));
        format!("{size} in {} ({rate})", human::duration(elapsed))
    }

    pub(super) fn print_summary(
        &self,
        summary: &FetchSummary,
        failed: &Failed,
        links: &[ItemPath],
    ) -> anyhow::Result<()> {
        let resumed = self.seen.all_resumed().min(summary.bytes);
        let globals = self.wish.globals;
        failed.print(globals.json)?;
        for name in links {
            if globals.json {
                json::line(&json!({"event": "left_out", "name": name.to_string()}))?;
            } else if !globals.quiet {
                stderr::say(&format!("{name}/ was left out: it is a link to a folder"));
            }
        }
        if globals.json {
            return Ok(json::line(&json!({
                "event": "done",
                "items": summary.items,
                "failed": failed.count(),
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
        let again = if failed.may_pass { ", run the same command again for them" } else { "" };
        match failed.count() {
            0 => text.push_str("; every block proved"),
            count => text.push_str(&format!("; {count} failed{again}")),
        }
        Ok(writeln!(stdout::styled(), "{text}")?)
    }

    pub(super) fn interrupted(&self) -> Failure {
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
