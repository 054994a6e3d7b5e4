//! A folder listed entry by entry, in memory that does not grow with it (M-5).
//!
//! Made by `catalogue.rs`; `serve.rs` asks for a page at a time, so that no thread waits for a slow client.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, FileType, OFlags, ResolveFlags, Stat, statat};
use rustix::io::Errno;

use super::catalogue::{Catalogue, media_type, mode, modified, open_beneath, size};
use super::error::{ErrorCode, Refusal};
use super::path::ItemPath;
use super::wire::{Entry, EntryKind};

/// How deep a recursive listing goes (M-5.4): each level keeps a folder open.
const MAX_DEPTH: usize = 128;

/// A listing under way.
#[derive(Debug)]
pub(crate) struct Walk {
    folder: ItemPath,
    is_recursive: bool,
    /// The folders that are open, the innermost last, each with its path from `folder`.
    levels: Vec<(Dir, ItemPath)>,
    single: Option<ItemPath>,
    /// The first thing that could not be listed; said at the end, after everything that could.
    refusal: Option<Refusal>,
}

impl Walk {
    pub(super) fn new(
        opened: OwnedFd,
        folder: ItemPath,
        is_recursive: bool,
    ) -> Result<Self, Refusal> {
        let levels = vec![(Dir::new(opened)?, ItemPath::default())];
        Ok(Self { folder, is_recursive, levels, single: None, refusal: None })
    }

    /// The listing of a catalogue with one item.
    pub(super) fn single(name: ItemPath) -> Self {
        let folder = ItemPath::default();
        Self { folder, is_recursive: false, levels: Vec::new(), single: Some(name), refusal: None }
    }

    /// At most `most` further entries; none at the end, where what could not be listed is told.
    pub(crate) fn next_page(
        &mut self,
        catalogue: &Catalogue,
        most: usize,
    ) -> Result<Vec<Entry>, Refusal> {
        let mut page = Vec::new();
        if let Some(name) = self.single.take() {
            let stat = catalogue.stat(&name)?;
            page.extend(entry(name, &stat, false));
        }
        while page.len() < most {
            let Some((dir, path)) = self.levels.last_mut() else { break };
            let Some(found) = dir.read() else {
                self.levels.pop();
                continue;
            };
            let name = match &found {
                Ok(found) => found.file_name().to_bytes(),
                Err(errno) => {
                    self.refusal.get_or_insert_with(|| (*errno).into());
                    self.levels.pop();
                    continue;
                }
            };
            // Also skips `.`, `..` and unfinished files.
            let Ok(name) = ItemPath::new(name) else { continue };
            let Ok(inner) = path.join(&name) else {
                self.refusal
                    .get_or_insert_with(|| Refusal::new(ErrorCode::Io, "some paths are too long"));
                continue;
            };
            let stat = match dir
                .fd()
                .and_then(|fd| statat(fd, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW))
            {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue, // gone since
                Err(errno) => {
                    self.refusal.get_or_insert_with(|| errno.into());
                    continue;
                }
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                // One that leads out or nowhere is no entry.
                let target =
                    self.folder.join(&inner).ok().and_then(|path| catalogue.stat(&path).ok());
                page.extend(target.and_then(|stat| entry(inner, &stat, true)));
                continue;
            }
            let Some(entry) = entry(inner.clone(), &stat, false) else { continue };
            if self.is_recursive && entry.kind == EntryKind::Folder {
                self.descend(&name, inner);
            }
            page.push(entry);
        }
        match self.refusal.take_if(|_| page.is_empty()) {
            Some(refusal) => Err(refusal),
            None => Ok(page),
        }
    }

    fn descend(&mut self, name: &ItemPath, inner: ItemPath) {
        let Some((dir, _)) = self.levels.last() else { return };
        if self.levels.len() >= MAX_DEPTH {
            self.refusal
                .get_or_insert_with(|| Refusal::new(ErrorCode::Io, "some folders are too deep"));
            return;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let opened = dir
            .fd()
            .and_then(|fd| open_beneath(fd, name.as_bytes(), flags, ResolveFlags::NO_SYMLINKS));
        match opened.and_then(Dir::new) {
            Ok(dir) => self.levels.push((dir, inner)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {} // gone, or replaced since
            Err(errno) => {
                let refusal = Refusal::from(errno);
                self.refusal.get_or_insert_with(|| {
                    Refusal::new(refusal.code, format!("the folder {inner}"))
                });
            }
        }
    }
}

fn entry(path: ItemPath, stat: &Stat, is_link: bool) -> Option<Entry> {
    let (kind, size, media_type) = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => (EntryKind::File, size(stat), media_type(&path)),
        FileType::Directory => (EntryKind::Folder, 0, String::new()),
        FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => return None,
    };
    let (modified, mode) = (modified(stat), Some(mode(stat)));
    Some(Entry { path, kind, is_link, size, modified, mode, media_type })
}
