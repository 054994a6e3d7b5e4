//! The folders that a whole catalogue goes into: made, kept open for a while, and told apart where the disk takes two
//! names for one (M-12.9). Beneath the target as `target.rs` has it.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use rustix::fs::{AtFlags, Dir, Mode};

use super::path::ItemPath;
use super::staging::times;
use super::target::{FetchError, Target, failed};
use super::wire::Modified;

/// Folders that are kept open.
const OPEN_MAX: usize = 64;
/// Folders whose times are kept until all is in them; more than these get theirs from the copying.
const DRESSED_MAX: usize = 1 << 20;

/// Device and number of what stands under a name.
pub(super) type Inode = (u64, u64);

/// What is said of a second name that the disk takes for the first.
const ONE_NAME: &str = "this disk takes its name for that of another item (upper and lower case, or another \
    spelling of one letter); the first of them was kept";

/// A folder that is open.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) dir: OwnedFd,
    pub(super) device: u64,
}

impl Folder {
    /// What stands under `name`, and whether it has more names.
    pub(super) fn inode(&self, name: &[u8]) -> Option<(Inode, bool)> {
        let stat = rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(((stat.st_dev, stat.st_ino), stat.st_nlink > 1))
    }

    /// Whether an entry has just this name, and not only one that the disk takes for it.
    fn has_exactly(&self, name: &[u8]) -> bool {
        let Ok(mut dir) = Dir::read_from(&self.dir) else { return false };
        dir.any(|entry| entry.is_ok_and(|entry| entry.file_name().to_bytes() == name))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Folders {
    open: VecDeque<(ItemPath, Arc<Folder>)>, // what was asked for last at the front
    paths: HashMap<Inode, ItemPath>,
    /// Files that this run has looked at or made, each with a hash of its item's path.
    files: HashMap<Inode, u64>,
    hashing: RandomState,
    dresses: Vec<(ItemPath, Modified, Option<u16>)>,
}

impl Folders {
    /// A folder that was listed: made if need be. It gets its time and mode by [`Self::dress`], once all is in it.
    pub(super) fn make(
        &mut self,
        target: &Target,
        path: &ItemPath,
        modified: Modified,
        mode: Option<u16>,
    ) -> Result<(), FetchError> {
        self.open(target, path, folder_mode(mode))?;
        if self.dresses.len() < DRESSED_MAX {
            self.dresses.push((path.clone(), modified, mode));
        }
        Ok(())
    }

    /// The folder of `path`, made if need be.
    pub(super) fn get(
        &mut self,
        target: &Target,
        path: &ItemPath,
    ) -> Result<Arc<Folder>, FetchError> {
        self.open(target, path, folder_mode(None))
    }

    fn open(
        &mut self,
        target: &Target,
        path: &ItemPath,
        mode: u32,
    ) -> Result<Arc<Folder>, FetchError> {
        let place = self.open.iter().position(|(open, _)| open == path);
        if let Some(found) = place.and_then(|place| self.open.remove(place)) {
            self.open.push_front(found.clone());
            return Ok(found.1);
        }
        let dir = target.folder_unsynced(path, mode)?;
        let stat = rustix::fs::fstat(&dir).map_err(failed("look at a folder"))?;
        let first = self.paths.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| path.clone());
        if first != path {
            return Err(FetchError::Occupied(ONE_NAME));
        }
        let folder = Arc::new(Folder { dir, device: stat.st_dev });
        self.open.truncate(OPEN_MAX - 1);
        self.open.push_front((path.clone(), folder.clone()));
        Ok(folder)
    }

    /// Notes a file that stands at the place of `item`; refuses one that stands for another item.
    pub(super) fn note(
        &mut self,
        folder: &Folder,
        item: &ItemPath,
        inode: Inode,
        has_more_names: bool,
    ) -> Result<(), FetchError> {
        let mark = self.hashing.hash_one(item);
        if *self.files.entry(inode).or_insert(mark) == mark {
            return Ok(());
        }
        let (_, name) = item.split_last().ok_or(super::path::PathError::Empty)?;
        if has_more_names && folder.has_exactly(name) {
            return Ok(()); // a file with two names, each of them exact
        }
        Err(FetchError::Occupied(ONE_NAME))
    }

    /// Notes a file that was made for `item`. Its number may have been that of a file that is gone.
    pub(super) fn note_new(&mut self, item: &ItemPath, inode: Inode) {
        self.files.insert(inode, self.hashing.hash_one(item));
    }

    /// What stands in the way of a new file is another item of this run, or is not.
    pub(super) fn in_the_way(&self, folder: &Folder, name: &[u8], error: FetchError) -> FetchError {
        match folder.inode(name) {
            Some((inode, _)) if self.files.contains_key(&inode) => FetchError::Occupied(ONE_NAME),
            Some(_) | None => error,
        }
    }

    pub(super) fn has_dresses(&self) -> bool {
        !self.dresses.is_empty()
    }

    /// Gives the folders their times and modes, the inner ones first.
    pub(super) fn dress(&mut self, target: &Target) -> Result<(), (ItemPath, FetchError)> {
        self.open.clear();
        let mut first = Ok(());
        for (path, modified, mode) in std::mem::take(&mut self.dresses).into_iter().rev() {
            let opened = target.folder_unsynced(&path, folder_mode(mode));
            let dressed = opened.and_then(|dir| dress(&dir, modified, mode));
            if let (Err(error), Ok(())) = (dressed, &first) {
                first = Err((path, error));
            }
        }
        first
    }
}

fn dress(dir: &OwnedFd, modified: Modified, mode: Option<u16>) -> Result<(), FetchError> {
    let stat = rustix::fs::fstat(dir).map_err(failed("look at a folder"))?;
    if let Some(mode) = changed_mode(stat.st_mode, folder_mode(mode)) {
        rustix::fs::fchmod(dir, mode).map_err(failed("set the mode of a folder"))?;
    }
    if super::catalogue::modified(&stat) != modified {
        rustix::fs::futimens(dir, &times(modified)).map_err(failed("set the time of a folder"))?;
    }
    Ok(())
}

/// The mode that a copy of a folder is made with (M-12.10): the owner has to get in again.
fn folder_mode(mode: Option<u16>) -> u32 {
    mode.map_or(0o777, |mode| u32::from(mode & 0o777) | 0o700)
}

/// What has to be set where a thing of mode `old` stands, so that it is as if made with `new`.
pub(super) fn changed_mode(old: u32, new: u32) -> Option<Mode> {
    let new = new & !umask()?;
    (old & 0o777 != new).then(|| Mode::from_raw_mode(old & 0o7000 | new))
}

/// What the process takes from the modes of what it makes; none where that cannot be learnt without changing it.
fn umask() -> Option<u32> {
    static UMASK: OnceLock<Option<u32>> = OnceLock::new();
    *UMASK.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let text = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
        u32::from_str_radix(text.trim(), 8).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// M-12.9, as a disk without upper and lower case would show it.
    #[test]
    fn one_file_under_two_names_is_one_item_unless_both_names_are_there() {
        let place = tempfile::TempDir::new().unwrap();
        std::fs::write(place.path().join("Read"), b"first").unwrap();
        let target = Target::open(place.path()).unwrap();
        let mut folders = Folders::default();
        let folder = folders.get(&target, &ItemPath::default()).unwrap();
        let (inode, has_more_names) = folder.inode(b"Read").unwrap();
        let (first, second) = (ItemPath::new("Read").unwrap(), ItemPath::new("read").unwrap());
        for _ in 0..2 {
            folders.note(&folder, &first, inode, has_more_names).unwrap();
            let refused = folders.note(&folder, &second, inode, has_more_names);
            assert!(matches!(refused, Err(FetchError::Occupied(ONE_NAME))), "{refused:?}");
        }
        std::fs::hard_link(place.path().join("Read"), place.path().join("read")).unwrap();
        folders.note(&folder, &second, inode, true).unwrap();
        // A number that was given to a new file says nothing about the file that had it before.
        folders.note_new(&second, inode);
        folders.note(&folder, &second, inode, false).unwrap();
    }
}
