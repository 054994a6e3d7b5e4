//! A whole folder of items onto a disk, several at once (M-10.6). Each goes through `fetch.rs`.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::client::MediaClient;
use super::error::{ErrorCode, MediaError};
use super::fetch::{FetchOptions, FetchReport, Progress, blocking, fetch};
use super::path::ItemPath;
use super::target::{FetchError, Target};
use super::wire::EntryKind;

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

/// Fetches everything beneath `folder` into `target`, `parallel` items at once (M-10.6).
///
/// `on_item` is told of each item when it is done or has failed, and of `folder` where a part of it could not be listed.
/// An item that failed does not stop the others, a connection that broke does. Symlinked folders are left out: what they
/// lead to is listed at its own place.
pub async fn fetch_all(
    client: &MediaClient,
    folder: &ItemPath,
    target: &Arc<Target>,
    parallel: usize,
    options: &FetchOptions,
    on_progress: impl Fn(&ItemPath, Progress) + Send + Sync + 'static,
    mut on_item: impl FnMut(&ItemPath, &Result<FetchReport, FetchError>) + Send,
) -> Result<FetchSummary, FetchError> {
    let on_progress = Arc::new(on_progress);
    let mut listing = client.list(folder, true).await?;
    let mut running = JoinSet::new();
    let mut summary = FetchSummary::default();
    let mut broken = None;
    loop {
        let entry = match &broken {
            None => match listing.next().await {
                Ok(entry) => entry,
                Err(error) if is_of_a_part(&error) => {
                    let result = Err(FetchError::Media(error));
                    on_item(folder, &result);
                    summary.add(&result);
                    None
                }
                Err(error) => {
                    broken = Some(FetchError::Media(error));
                    None
                }
            },
            Some(_) => None,
        };
        // As many as may run; with nothing left to list, wait for all.
        while running.len() >= if entry.is_some() { parallel.max(1) } else { 1 } {
            let Some(Ok((name, result))) = running.join_next().await else { break };
            on_item(&name, &result);
            summary.add(&result);
            if let Err(error @ FetchError::Media(MediaError::Broken(_))) = result {
                broken.get_or_insert(error); // whole, with the end of the session inside
            }
        }
        let Some(entry) = entry else { break };
        match entry.kind {
            EntryKind::Folder if !entry.is_link => {
                let (target, path) = (target.clone(), entry.path.clone());
                if let Err(error) = blocking(move || target.folder(&path).map(drop)).await {
                    let result = Err(error);
                    on_item(&entry.path, &result);
                    summary.add(&result);
                }
            }
            EntryKind::File => {
                let (client, target, options) = (client.clone(), target.clone(), options.clone());
                let (item, on_progress) = (folder.join(&entry.path)?, on_progress.clone());
                running.spawn(async move {
                    let tell = |progress| on_progress(&entry.path, progress);
                    let result = fetch(&client, &item, &target, &entry.path, &options, tell).await;
                    (entry.path, result)
                });
            }
            EntryKind::Folder | EntryKind::Unknown(_) => {}
        }
    }
    broken.map_or(Ok(summary), Err)
}

/// Whether a listing ended with what could not be listed, after all that could (M-5.4).
fn is_of_a_part(error: &MediaError) -> bool {
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
