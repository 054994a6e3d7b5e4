//! Who looks at what crosses the wire of one conversation: its silence, a dump of it, a record of it.
//!
//! Neighbours: `dump` and `record` say how a file of theirs looks.

use std::fs::File;
use std::future::pending;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cabo::talk::{Progress, Seen, Watch};

use super::{dump, record};
use crate::exit::{self, Failure};
use crate::show::human::escaped;

/// When something last crossed the wire.
#[derive(Debug)]
pub(crate) struct Activity {
    started: Instant,
    last_micros: AtomicU64,
}

impl Activity {
    /// Something moves, on the wire or behind it.
    pub(super) fn touch(&self) {
        let micros = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.last_micros.store(micros, Relaxed);
    }

    /// Waits until nothing has crossed the wire for `time`, nor more of what is being sent was taken; forever where there is
    /// no time.
    pub(crate) async fn rests_for(&self, time: Option<Duration>, sent: &Progress) {
        loop {
            let before_bytes = sent.taken_bytes();
            self.silent_for(time).await;
            if sent.taken_bytes() == before_bytes {
                return;
            }
            self.touch();
        }
    }

    async fn silent_for(&self, time: Option<Duration>) {
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

impl Files {
    /// Makes them anew, to see whether that can be done.
    pub(crate) fn create(&self) -> Result<(), Failure> {
        let named = [named("--dump", &self.dump), named("--record", &self.record)];
        named.into_iter().flatten().try_for_each(|named| Out::create(&named).map(drop))
    }
}

/// A file, and the flag that named it.
struct Named {
    flag: &'static str,
    path: PathBuf,
}

fn named(flag: &'static str, path: &Option<PathBuf>) -> Option<Named> {
    path.clone().map(|path| Named { flag, path })
}

impl Named {
    fn failed(&self, code: u8, error: &io::Error) -> Failure {
        let path = escaped(&self.path.display().to_string());
        Failure::new(code, format!("{} {path}: {error}", self.flag))
    }
}

/// Everybody who looks.
pub(crate) struct Watching {
    pub(crate) activity: Arc<Activity>,
    notes: Vec<Arc<Notes>>,
}

impl Watching {
    /// Begins to look; the files are made anew.
    pub(crate) fn start(files: &Files) -> Result<Self, Failure> {
        let watching = Self::aside(files);
        watching.write()?;
        Ok(watching)
    }

    /// Begins to look at what may become the conversation: what is noted is kept until [`Self::write`].
    pub(crate) fn aside(files: &Files) -> Self {
        let mut notes = Vec::new();
        if let Some(file) = named("--dump", &files.dump) {
            notes.push(Arc::new(Notes::kept(file, "", dump::note)));
        }
        if let Some(file) = named("--record", &files.record) {
            notes.push(Arc::new(Notes::kept(file, record::HEAD, record::note)));
        }
        let activity = Activity { started: Instant::now(), last_micros: AtomicU64::new(0) };
        Self { activity: Arc::new(activity), notes }
    }

    /// This is the conversation: makes the files anew, with all that was noted.
    pub(crate) fn write(&self) -> Result<(), Failure> {
        self.notes.iter().try_for_each(|notes| notes.write())
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
    file: Named,
    note: Note,
    state: Mutex<(Page, Out, Option<io::Error>)>,
}

/// Where notes go.
enum Out {
    /// Nowhere yet. Whoever is not let in says no more than first words.
    Kept(Vec<u8>),
    File(Box<dyn Write + Send>),
}

impl Out {
    fn create(named: &Named) -> Result<Self, Failure> {
        let failed = |error| named.failed(exit::USAGE, &error);
        Ok(Self::File(match named.path.as_os_str().as_encoded_bytes() {
            b"-" => Box::new(io::stdout()),
            _ => Box::new(File::create(&named.path).map_err(failed)?),
        }))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Kept(kept) => kept.extend_from_slice(bytes),
            Self::File(file) => {
                file.write_all(bytes)?;
                file.flush()?;
            }
        }
        Ok(())
    }
}

impl Notes {
    fn kept(file: Named, head: &str, note: Note) -> Self {
        let page = Page { started: None, sent_bytes: 0, received_bytes: 0 };
        let state = (page, Out::Kept(head.into()), None);
        Self { file, note, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, (Page, Out, Option<io::Error>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> Result<(), Failure> {
        let mut state = self.lock();
        let out = std::mem::replace(&mut state.1, Out::create(&self.file)?);
        match out {
            Out::Kept(kept) => {
                state.1.write(&kept).map_err(|error| self.file.failed(exit::FAILED, &error))
            }
            Out::File(_) => Ok(()),
        }
    }

    fn take(&self, seen: Seen<'_>) {
        let mut state = self.lock();
        let (page, out, failed) = &mut *state;
        if failed.is_none() {
            let note = (self.note)(page, seen);
            *failed = out.write(note.as_bytes()).err();
        }
    }

    fn finish(&self) -> Result<(), Failure> {
        self.lock().2.as_ref().map_or(Ok(()), |error| Err(self.file.failed(exit::FAILED, error)))
    }
}
