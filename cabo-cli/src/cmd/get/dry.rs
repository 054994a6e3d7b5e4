//! `--dry-run`: what `get --all` would bring, item by item, and how much; nothing is written.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cabo::service::media::{Compared, Difference, Target, compare_all};
use serde_json::json;

use super::All;
use super::persist::Persist;
use super::told::Failed;
use super::transfer::{Transfer, folder_and};
use crate::exit::{self, Failure};
use crate::show::{human, json, stdout};

/// Items and bytes of one kind.
#[derive(Clone, Copy, Default)]
struct Count {
    items: u64,
    bytes: u64,
}

impl Count {
    fn add(&mut self, bytes: u64) {
        self.items += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

#[derive(Default)]
struct Counts {
    new: Count,
    changed: Count,
    same: Count,
}

impl Transfer {
    pub(super) async fn compare(&self, all: &All, place: &Path) -> anyhow::Result<ExitCode> {
        let target = match Target::open(place) {
            Ok(target) => Some(Arc::new(target)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                let text = format!("cannot look into {}: {error}", place.display());
                return Err(Failure::new(exit::FAILED, text).into());
            }
        };
        let (mut counts, mut failed) = (Counts::default(), Failed::default());
        let mut told = Ok(());
        // What was said once cannot be taken back, so a session that is lost ends it.
        let persist = Persist { patience: Duration::ZERO, ..self.persist() };
        let options = all.options();
        let work = async |media: &_| {
            let on_item = |compared: Compared| {
                let shown = self.show(all, place, compared, &mut counts, &mut failed);
                if told.is_ok() {
                    told = shown;
                }
            };
            compare_all(media, &all.folder, target.as_ref(), &options, on_item).await
        };
        persist.run(|| 0, work).await?;
        self.seen.bar.end();
        let code = if failed.is_empty() { exit::OK } else { exit::INCOMPLETE };
        exit::with(code, told.and_then(|()| self.print_counts(&counts, &failed)))
    }

    fn show(
        &self,
        all: &All,
        place: &Path,
        compared: Compared,
        counts: &mut Counts,
        failed: &mut Failed,
    ) -> anyhow::Result<()> {
        let Compared { name, bytes, result } = compared;
        let word = match result {
            Ok(Difference::New) => {
                counts.new.add(bytes);
                "new"
            }
            Ok(Difference::Changed) => {
                counts.changed.add(bytes);
                "changed"
            }
            Ok(Difference::Same) => {
                counts.same.add(bytes);
                return Ok(());
            }
            Err(error) => {
                failed.add(&name, &folder_and(place, &name), &error);
                return Ok(());
            }
        };
        let globals = self.wish.globals;
        if globals.json {
            let item = all.folder.join(&name).unwrap_or_else(|_| name.clone());
            return Ok(json::line(&json!({
                "event": "would_fetch",
                "item": item.to_string(),
                "name": name.to_string(),
                "path": folder_and(place, &name).to_string_lossy(),
                "bytes": bytes,
                "is": word,
            }))?);
        }
        if globals.quiet {
            return Ok(());
        }
        Ok(writeln!(stdout::styled(), "{word:<7}  {:>9}  {name}", human::size(bytes))?)
    }

    fn print_counts(&self, counts: &Counts, failed: &Failed) -> anyhow::Result<()> {
        failed.print(self.wish.globals.json)?;
        let Counts { new, changed, same } = *counts;
        let bytes = new.bytes.saturating_add(changed.bytes);
        if self.wish.globals.json {
            return Ok(json::line(&json!({
                "event": "would_be_done",
                "items": new.items + changed.items,
                "new": new.items,
                "changed": changed.items,
                "same": same.items,
                "failed": failed.count(),
                "bytes": bytes,
            }))?);
        }
        if self.wish.globals.quiet {
            return Ok(());
        }
        let mut text = format!(
            "would fetch {} new and {} changed, {}; {} are here already",
            new.items,
            changed.items,
            human::size(bytes),
            same.items
        );
        if failed.count() > 0 {
            text.push_str(&format!("; {} cannot be compared", failed.count()));
        }
        Ok(writeln!(stdout::styled(), "{text}; nothing was written")?)
    }
}
