//! Who looks at what crosses the wire of one conversation: its silence, a dump of it, a record of it.
//!
//! Neighbours: `dump` and `record` say how a file of theirs looks.

use std::fs::File;
use std::future::pending;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cabo::talk::{Seen, Watch};

use super::{dump, record};
use crate::exit::{self, Failure};

/// When something last crossed the wire.
#[derive(Debug)]
pub(crate) struct Activity {
    started: Instant,
    last_micros: AtomicU64,
}

impl Activity {
    fn touch(&self) {
        let micros = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.last_micros.store(micros, Relaxed);
    }

    /// Waits until nothing has crossed the wire for `time`; forever where there is none.
    pub(crate) async fn silent_for(&self, time: Option<Duration>) {
        let Some(time) = time else { return pending().await };
        loop {
            let last = self.started + Duration::from_micros(self.last_micros.load(Relaxed));
            let Some(left) = time.checked_sub(last.elapsed()) else { return };
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}

/// The files that are written along.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    pub(crate) dump: Option<PathBuf>,
    pub(crate) record: Option<PathBuf>,
}

/// Everybody who looks.
pub(crate) struct Watching {
    pub(crate) activity: Arc<Activity>,
    notes: Vec<Arc<Notes>>,
}

impl Watching {
    /// Begins to look; the files are made anew.
    pub(crate) fn start(files: &Files) -> Result<Self, Failure> {
        let mut notes = Vec::new();
        if let Some(path) = &files.dump {
            notes.push(Arc::new(Notes::create(path, "", dump::note)?));
        }
        if let Some(path) = &files.record {
            notes.push(Arc::new(Notes::create(path, record::HEAD, record::note)?));
        }
        let activity = Activity { started: Instant::now(), last_micros: AtomicU64::new(0) };
        Ok(Self { activity: Arc::new(activity), notes })
    }

    /// What the conversation is to tell.
    pub(crate) fn watch(&self) -> Watch {
        let (activity, notes) = (self.activity.clone(), self.notes.clone());
        Arc::new(move |seen| {
            activity.touch();
            notes.iter().for_each(|notes| notes.take(seen));
        })
    }

    /// Whether everything could be written.
    pub(crate) fn finish(&self) -> Result<(), Failure> {
        self.notes.iter().try_for_each(|notes| notes.finish())
    }
}

/// What a kind of file remembers between two notes.
#[derive(Debug)]
pub(crate) struct Page {
    started: Option<Instant>,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
}

impl Page {
    /// Since the first note.
    pub(crate) fn elapsed(&mut self) -> Duration {
        self.started.get_or_insert_with(Instant::now).elapsed()
    }
}

type Note = fn(&mut Page, Seen<'_>) -> String;

/// A file with a note on everything that crosses the wire.
struct Notes {
    path: PathBuf,
    note: Note,
    state: Mutex<(Page, Box<dyn Write + Send>, Option<io::Error>)>,
}

impl Notes {
    fn create(path: &Path, head: &str, note: Note) -> Result<Self, Failure> {
        let failed = |error| failed(path, &error);
        let mut file: Box<dyn Write + Send> = match path.as_os_str().as_encoded_bytes() {
            b"-" => Box::new(io::stdout()),
            _ => Box::new(File::create(path).map_err(failed)?),
        };
        file.write_all(head.as_bytes()).map_err(failed)?;
        let page = Page { started: None, sent_bytes: 0, received_bytes: 0 };
        Ok(Self { path: path.to_owned(), note, state: Mutex::new((page, file, None)) })
    }

    fn take(&self, seen: Seen<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (page, file, failed) = &mut *state;
        if failed.is_none() {
            let note = (self.note)(page, seen);
            *failed = file.write_all(note.as_bytes()).and_then(|()| file.flush()).err();
        }
    }

    fn finish(&self) -> Result<(), Failure> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.2.as_ref().map_or(Ok(()), |error| Err(failed(&self.path, error)))
    }
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::new(exit::FAILED, format!("{}: {error}", path.display()))
}
