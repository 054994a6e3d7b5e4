//! What a link has, and a file of it onto a disk: beside its place until it is whole, from where it was.

use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::time::{Duration, Instant};

use cabo_proto::redes::client::{Ask, Client, Event};
use cabo_proto::redes::{Description, Refusal, Settings};
use rustix::fs::{Timespec, Timestamps};

use super::ClientError;
pub use super::drive::{Link, Stop};
use crate::local_time;
use crate::service::media::{FetchError, ItemPath, Modified, Partial, Target};

/// How long the end is confirmed to a server that did not hear it.
const LINGER: Duration = Duration::from_millis(100);
/// Bytes that are written together.
const WRITE_BYTES: usize = 256 << 10;

/// Why it did not work.
#[derive(Debug, thiserror::Error)]
pub enum RedesError {
    /// The server, or what it says.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// The link.
    #[error("the link: {0}")]
    Link(#[from] io::Error),
    /// The file here.
    #[error("{0}")]
    File(#[from] FetchError),
    /// It was told to stop.
    #[error("interrupted")]
    Stopped,
}

/// A file that is here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fetched {
    /// Its size.
    pub size: u64,
    /// Bytes that were here before.
    pub resumed: u64,
    /// The time that the server said, in its own words; empty if it said none.
    pub modified: Vec<u8>,
}

/// The names that the server of a link has.
pub fn list(link: &mut Link, settings: Settings) -> Result<Vec<Vec<u8>>, RedesError> {
    let mut client = Client::new(settings, Ask::List, 0)?;
    let mut names = Vec::new();
    let mut result = None;
    while result.is_none() {
        turn(link, &mut client, None)?;
        while let Some(event) = client.poll_event() {
            match event {
                Event::Name(name) => names.push(name),
                Event::Ended(ended) => result = Some(ended),
                Event::Described(_) | Event::Bytes(_) => {}
            }
        }
    }
    linger(link, &mut client)?;
    result.unwrap_or(Ok(()))?;
    Ok(names)
}

/// Fetches `name` to `place` beneath `target`; `tell` hears what is here, what was before, and how much there is.
pub fn fetch(
    link: &mut Link,
    settings: Settings,
    name: &[u8],
    target: &Target,
    place: &ItemPath,
    tell: &mut dyn FnMut(u64, u64, u64),
) -> Result<Fetched, RedesError> {
    let partial = Partial::open(target, place)?;
    let mut copy = Copy { partial, about: None, here: 0, waiting: Vec::new() };
    let result = copy.fetch(link, settings, name, tell);
    match &result {
        Ok(_) => {}
        // It can go on from here: the server was lost, or we are stopped.
        Err(
            RedesError::Stopped
            | RedesError::Link(_)
            | RedesError::Client(ClientError::Silent | ClientError::NoAnswer),
        ) => {
            copy.mark();
            copy.partial.remove_if_empty();
        }
        Err(_) => copy.partial.remove(),
    }
    result
}

/// A file on its way.
struct Copy {
    partial: Partial,
    about: Option<Description>,
    here: u64, // bytes written
    waiting: Vec<u8>,
}

impl Copy {
    fn fetch(
        &mut self,
        link: &mut Link,
        settings: Settings,
        name: &[u8],
        tell: &mut dyn FnMut(u64, u64, u64),
    ) -> Result<Fetched, RedesError> {
        let (mut offset, mut first) = (self.partial.len()?.0, 0);
        loop {
            let ask = Ask::Download { name: name.to_vec(), offset };
            let mut client = Client::new(settings, ask, first)?;
            if self.run(link, &mut client, tell)? {
                break;
            }
            // What is here is of another file.
            (offset, first) = (0, client.next());
        }
        let about = self.about.clone().unwrap_or_default();
        let modified = match local_time::seconds(&about.modified) {
            Some(seconds) => Modified { seconds, nanos: 0 },
            None => self.partial.modified()?,
        };
        let size = about.size.unwrap_or(self.here); // all that came, where nobody said how much
        self.partial.finish(size, modified)?;
        Ok(Fetched { size, resumed: about.offset, modified: about.modified })
    }

    /// One request to its end; false if the file has to be asked for from its beginning.
    fn run(
        &mut self,
        link: &mut Link,
        client: &mut Client,
        tell: &mut dyn FnMut(u64, u64, u64),
    ) -> Result<bool, RedesError> {
        let mut problem = None; // of our own, while the server hears of it
        loop {
            turn(link, client, None)?;
            while let Some(event) = client.poll_event() {
                let done = match event {
                    Event::Name(_) => Ok(()),
                    Event::Described(about) => {
                        if about.offset > 0 && !self.goes_on(&about)? {
                            return Ok(false);
                        }
                        let done = self.begin(about);
                        if done.is_ok() {
                            client.accept();
                        }
                        done
                    }
                    Event::Bytes(bytes) if problem.is_none() => self.write(&bytes),
                    Event::Bytes(_) => Ok(()),
                    Event::Ended(result) => {
                        let written = self.flush();
                        linger(link, client)?;
                        if let Some(problem) = problem {
                            return Err(problem);
                        }
                        result?;
                        written?;
                        return Ok(true);
                    }
                };
                if let Err(error) = done {
                    let is_full = matches!(error, FetchError::NoRoom { .. } | FetchError::DiskFull);
                    client.refuse(if is_full { Refusal::DiskFull } else { Refusal::Denied });
                    problem = Some(error.into());
                }
            }
            if let Some(about) = &self.about {
                let here = self.here + self.waiting.len() as u64;
                tell(here, about.offset, about.size.unwrap_or(here));
            }
        }
    }

    /// Whether the unfinished file is the beginning of this one: what its own time says.
    fn goes_on(&self, about: &Description) -> Result<bool, FetchError> {
        let seconds = local_time::seconds(&about.modified);
        let is_same = seconds == Some(self.partial.modified()?.seconds);
        Ok(is_same && self.partial.len()?.0 == about.offset)
    }

    fn begin(&mut self, about: Description) -> Result<(), FetchError> {
        self.partial.check_room(about.size.unwrap_or_default())?;
        let failed = |source| FetchError::Local { doing: "write the file", source };
        self.partial.file.set_len(about.offset).map_err(failed)?;
        self.partial.file.seek(SeekFrom::Start(about.offset)).map_err(failed)?;
        self.here = about.offset;
        self.about = Some(about);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), FetchError> {
        let written = self.partial.file.write_all(&self.waiting);
        written.map_err(crate::service::media::local("write the file"))?;
        self.here += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }

    /// Gives the unfinished file the time of the whole one, by which the next run knows it again.
    fn mark(&mut self) {
        let about = self.about.as_ref();
        let seconds = about.and_then(|about| local_time::seconds(&about.modified));
        let Some(seconds) = seconds else { return };
        if self.flush().is_ok() {
            let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            let _ = rustix::fs::futimens(&self.partial.file, &times); // or it begins anew
        }
    }
}

/// Sends what is due, waits, and hands over what came.
fn turn(link: &mut Link, client: &mut Client, until: Option<Instant>) -> Result<(), RedesError> {
    if link.is_stopped() {
        return Err(RedesError::Stopped);
    }
    let now = Instant::now();
    client.handle_timeout(now);
    link.transmit(|| client.poll_transmit(now))?;
    if client.is_over() && until.is_none() {
        return Ok(());
    }
    let deadline = [client.poll_timeout(), until].into_iter().flatten().min();
    link.receive(deadline, |now, frame| client.handle_frame(now, frame))?;
    let now = Instant::now();
    link.transmit(|| client.poll_transmit(now))?;
    Ok(())
}

/// Goes on confirming for a moment: the last confirmation may be lost.
fn linger(link: &mut Link, client: &mut Client) -> Result<(), RedesError> {
    let until = Instant::now() + LINGER;
    while Instant::now() < until {
        turn(link, client, Some(until))?;
    }
    Ok(())
}
