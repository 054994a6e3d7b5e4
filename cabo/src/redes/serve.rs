//! A catalogue on a link: the plain names of its top, regular files alone.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use cabo_proto::redes::frame::DATA_MAX;
use cabo_proto::redes::server::{Server, Want};
use cabo_proto::redes::{Description, Refusal, Settings};

pub use super::drive::{Link, Stop};
use super::{Drops, Outcome};
use crate::local_time;
use crate::service::media::tree::BLOCK_BYTES;
use crate::service::media::{Catalogue, EntryKind, ErrorCode, ItemPath, OpenItem};

/// Entries of a folder that are looked at together.
const PAGE: usize = 256;
/// Names that are told; the rest is counted.
const NAMES_MAX: usize = 100_000;

/// What a server has to say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Told {
    /// The file; none for the catalogue.
    pub name: Option<Vec<u8>>,
    /// How it ended.
    pub outcome: Outcome,
    /// Names that no frame takes, of the catalogue that was told last.
    pub names_left_out: usize,
}

/// A server of one link.
#[derive(Debug)]
pub struct Service {
    link: Link,
    machine: Server,
    settings: Settings,
    catalogue: Arc<Catalogue>,
    open: Option<(OpenItem, u64)>, // the file, and where the next bytes are
    name: Option<Vec<u8>>,
    names_left_out: usize,
}

impl Service {
    /// A server that is ready to run.
    pub fn new(link: Link, settings: Settings, catalogue: Arc<Catalogue>) -> Self {
        let machine = Server::new(settings);
        Self { link, machine, settings, catalogue, open: None, name: None, names_left_out: 0 }
    }

    /// Serves until it is stopped and nobody is being served. Waits for disks and for the link.
    pub fn run(mut self, mut tell: impl FnMut(Told)) -> io::Result<Drops> {
        while !self.link.is_stopped() || self.machine.is_busy() {
            let machine = &mut self.machine;
            let deadline = machine.poll_timeout();
            self.link.receive(deadline, |now, frame| machine.handle_frame(now, frame))?;
            let now = Instant::now();
            self.machine.handle_timeout(now);
            loop {
                while let Some(outcome) = self.machine.poll_outcome() {
                    let name = self.name.clone();
                    tell(Told { name, outcome, names_left_out: self.names_left_out });
                }
                let Some(want) = self.machine.poll_want() else { break };
                self.supply(want);
            }
            if !self.machine.is_busy() {
                self.open = None;
            }
            let machine = &mut self.machine;
            self.link.transmit(|| machine.poll_transmit(now))?;
        }
        Ok(self.machine.drops())
    }

    fn supply(&mut self, want: Want) {
        let result = match want {
            Want::Names => self.supply_names(),
            Want::File { name, offset } => self.supply_file(name, offset),
            Want::Bytes => self.supply_bytes(),
        };
        if let Err(refusal) = result {
            self.open = None;
            self.machine.refuse(refusal);
        }
    }

    /// Sorted, so that their numbers are the same on every machine.
    fn supply_names(&mut self) -> Result<(), Refusal> {
        (self.name, self.open, self.names_left_out) = (None, None, 0);
        let mut walk = self.catalogue.walk(&ItemPath::default(), false).map_err(refused)?;
        let mut names = Vec::new();
        loop {
            let page = match walk.next_page(&self.catalogue, PAGE) {
                Ok(page) if page.is_empty() => break,
                Ok(page) => page,
                Err(error) if names.is_empty() => return Err(refused(error)),
                Err(_) => break, // what could be listed is
            };
            let files = page.into_iter().filter(|entry| entry.kind == EntryKind::File);
            for name in files.map(|entry| entry.path.as_bytes().to_vec()) {
                if name.len() > DATA_MAX || names.len() == NAMES_MAX {
                    self.names_left_out += 1;
                } else {
                    names.push(name);
                }
            }
        }
        names.sort_unstable();
        self.machine.supply_names(names);
        Ok(())
    }

    fn supply_file(&mut self, name: Vec<u8>, offset: u64) -> Result<(), Refusal> {
        self.name = Some(name.clone());
        let is_plain = !name.contains(&b'/') && name.len() <= DATA_MAX;
        let path = ItemPath::new(name).ok().filter(|path| is_plain && !path.is_root());
        let item = self.catalogue.open_item(&path.ok_or(Refusal::NotFound)?).map_err(refused)?;
        let size = item.info.size;
        let offset = if offset <= size { offset } else { 0 };
        let modified = local_time::text(item.info.modified.seconds, self.settings.sequence);
        self.open = Some((item, offset));
        self.machine.supply_file(&Description { size: Some(size), modified, offset });
        Ok(())
    }

    /// A file that changes meanwhile is refused, never ended.
    fn supply_bytes(&mut self) -> Result<(), Refusal> {
        let (item, at) = self.open.as_mut().ok_or(Refusal::Denied)?;
        let (index, skipped) = (*at / BLOCK_BYTES, *at % BLOCK_BYTES);
        let (_, block) = item.read_block(index).map_err(|_| Refusal::Denied)?;
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        let bytes = block.get(skipped..).unwrap_or_default();
        if bytes.is_empty() {
            return Err(Refusal::Denied);
        }
        *at += bytes.len() as u64;
        self.machine.supply_bytes(bytes);
        Ok(())
    }
}

/// There are two words for all that can go wrong with a file.
fn refused(refusal: crate::service::media::Refusal) -> Refusal {
    match refusal.code {
        ErrorCode::NotFound | ErrorCode::NotAFile | ErrorCode::NotAFolder => Refusal::NotFound,
        ErrorCode::AccessDenied
        | ErrorCode::Changed
        | ErrorCode::Busy
        | ErrorCode::DiskFull
        | ErrorCode::BadRequest
        | ErrorCode::Io
        | ErrorCode::Unknown(_) => Refusal::Denied,
    }
}
