//! The folder that items are fetched into: whatever names a server sends, nothing outside it is written (M-3.2).
//!
//! Every step goes through `openat2` beneath the folder and follows no symlink. Calls here may block on a disk:
//! `fetch.rs` keeps them off the runtime's threads.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use super::catalogue::open_beneath;
use super::error::MediaError;
use super::folders::{Inode, changed_mode};
use super::path::{ItemPath, MAX_NAME_BYTES, PARTIAL_SUFFIX};
use super::staging::{file_mode, times};
use super::tree::Hash;
use super::wire::Modified;

/// How often an unfinished file that was finished by another `get` meanwhile is opened anew.
const LOCK_RACES: u32 = 8;

/// Why an item could not be fetched. What was proved so far stays in the unfinished file.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server refused, or the transfer broke.
    #[error("{0}")]
    Media(#[from] MediaError),
    /// It would not fit.
    #[error("disk full: {needed_bytes} bytes are needed, {free_bytes} are free")]
    NoRoom {
        /// Bytes that are still to come.
        needed_bytes: u64,
        /// Bytes that an ordinary user may still write there.
        free_bytes: u64,
    },
    /// The disk filled up under way.
    #[error("disk full")]
    DiskFull,
    /// Another `get` fetches the same item into the same folder.
    #[error("another get is fetching it")]
    Locked,
    /// At its place stands something that is not a file, or its unfinished file was tampered with.
    #[error("{0}")]
    Occupied(&'static str),
    /// A local file or folder cannot be used.
    #[error("cannot {doing}: {source}")]
    Local {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// All blocks came as promised, and still they do not make the file that was promised.
    #[error("the whole is wrong: its root is {ours}, not {expected}")]
    WrongRoot {
        /// The root over what arrived.
        ours: Hash,
        /// The root that the server, or the caller, gave.
        expected: Hash,
    },
    /// The name cannot be used for an item.
    #[error("no name for an item: {0}")]
    Name(#[from] super::path::PathError),
}

pub(crate) fn local(doing: &'static str) -> impl Fn(io::Error) -> FetchError {
    move |source| match Errno::from_io_error(&source) {
        Some(Errno::NOSPC | Errno::DQUOT) => FetchError::DiskFull,
        Some(Errno::LOOP | Errno::XDEV) => {
            FetchError::Occupied("a symlink stands where a file or folder belongs")
        }
        Some(_) | None => FetchError::Local { doing, source },
    }
}

pub(super) fn failed(doing: &'static str) -> impl Fn(Errno) -> FetchError {
    move |errno| local(doing)(errno.into())
}

/// A folder that is written to.
#[derive(Debug)]
pub struct Target {
    pub(super) dir: OwnedFd,
}

impl Target {
    /// Opens an existing folder.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { dir: rustix::fs::open(folder, flags, Mode::empty())? })
    }

    /// The disk that it is on.
    pub(super) fn device(&self) -> Result<u64, FetchError> {
        Ok(rustix::fs::fstat(&self.dir).map_err(failed("look at the target folder"))?.st_dev)
    }

    /// Opens the folder `path` beneath, made if need be.
    pub(super) fn folder(&self, path: &ItemPath) -> Result<OwnedFd, FetchError> {
        self.make_folder(path, 0o777, true)
    }

    /// The same; a new one is of `mode`, and the caller syncs the disk before it promises anything.
    pub(super) fn folder_unsynced(
        &self,
        path: &ItemPath,
        mode: u32,
    ) -> Result<OwnedFd, FetchError> {
        self.make_folder(path, mode, false)
    }

    fn make_folder(
        &self,
        path: &ItemPath,
        mode: u32,
        is_synced: bool,
    ) -> Result<OwnedFd, FetchError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let open =
            |dir: &OwnedFd, name: &[u8]| open_beneath(dir, name, flags, ResolveFlags::NO_SYMLINKS);
        let mut dir = open(&self.dir, b".").map_err(failed("open the target folder"))?;
        for name in path.components() {
            dir = match open(&dir, name) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(mode)) {
                        Ok(()) if !is_synced => {}
                        Ok(()) => rustix::fs::fsync(&dir).map_err(failed("sync a folder"))?,
                        Err(Errno::EXIST) => {} // by a fetch beside this one
                        Err(errno) => return Err(failed("make a folder")(errno)),
                    }
                    open(&dir, name).map_err(failed("open a folder"))?
                }
                Err(Errno::NOTDIR) => {
                    return Err(FetchError::Occupied("a file stands where a folder belongs"));
                }
                opened => opened.map_err(failed("open a folder"))?,
            };
        }
        Ok(dir)
    }
}

/// An unfinished file, locked against any other `get`.
#[derive(Debug)]
pub(crate) struct Partial {
    dir: OwnedFd,
    name: Vec<u8>,
    partial_name: Vec<u8>,
    pub(crate) file: File,
    /// The complete file that stood at the item's place when this began.
    pub(super) existing: Option<File>,
}

impl Partial {
    /// Opens or makes the unfinished file of `item` beneath `target`.
    pub(crate) fn open(target: &Target, item: &ItemPath) -> Result<Self, FetchError> {
        let (folder, name) = item.split_last().ok_or(super::path::PathError::Empty)?;
        let dir = target.folder(&folder)?;
        let existing = open_regular(&dir, name, OFlags::RDONLY)?;
        let partial_name = partial_name(name);
        let flags = OFlags::RDWR | OFlags::CREATE;
        for _ in 0..LOCK_RACES {
            let Some(file) = open_regular(&dir, &partial_name, flags)? else { continue };
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::AGAIN) => return Err(FetchError::Locked),
                result => result.map_err(failed("lock the unfinished file"))?,
            }
            // Between opening and locking, its former owner may have finished it: then it has another name by now.
            if is_in_place(&dir, &partial_name, &file)? {
                return Ok(Self { dir, name: name.to_vec(), partial_name, file, existing });
            }
        }
        Err(FetchError::Locked)
    }

    /// Bytes that the file has by now, and bytes of the disk that it takes.
    pub(crate) fn len(&self) -> Result<(u64, u64), FetchError> {
        let stat = rustix::fs::fstat(&self.file).map_err(failed("look at the unfinished file"))?;
        let unsigned = |number| u64::try_from(number).unwrap_or_default();
        Ok((unsigned(stat.st_size), unsigned(stat.st_blocks).saturating_mul(512)))
    }

    /// When it was written last.
    pub(crate) fn modified(&self) -> Result<Modified, FetchError> {
        let stat = rustix::fs::fstat(&self.file).map_err(failed("look at the unfinished file"))?;
        Ok(super::catalogue::modified(&stat))
    }

    /// Refuses if a file of `size` bytes would not fit.
    pub(crate) fn check_room(&self, size: u64) -> Result<(), FetchError> {
        let disk = rustix::fs::fstatvfs(&self.file).map_err(failed("ask for free space"))?;
        let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
        let needed_bytes = size.saturating_sub(self.len()?.1);
        if needed_bytes > free_bytes {
            Err(FetchError::NoRoom { needed_bytes, free_bytes })
        } else {
            Ok(())
        }
    }

    /// The numbers of the file itself, which it keeps under its name, and of the one that stood there.
    pub(super) fn inodes(&self) -> Result<(Inode, Option<(Inode, bool)>), FetchError> {
        let look = |file: &File| {
            let stat = rustix::fs::fstat(file).map_err(failed("look at the file"))?;
            Ok::<_, FetchError>(((stat.st_dev, stat.st_ino), stat.st_nlink > 1))
        };
        Ok((look(&self.file)?.0, self.existing.as_ref().map(look).transpose()?))
    }

    /// As the item has it, where the server says so (M-12.10).
    pub(super) fn set_mode(&self, mode: Option<u16>) -> Result<(), FetchError> {
        mode.map_or(Ok(()), |mode| set_mode(&self.file, mode))
    }

    /// Gives the complete file at the item's place the item's time and mode, if it has others.
    pub(super) fn dress_existing(
        &self,
        modified: Modified,
        mode: Option<u16>,
    ) -> Result<(), FetchError> {
        self.existing.as_ref().map_or(Ok(()), |file| dress(file, modified, mode))
    }

    /// Makes the proved file the item: its time, its length, on the disk, under its name.
    pub(crate) fn finish(&self, size: u64, modified: Modified) -> Result<(), FetchError> {
        self.file.set_len(size).map_err(local("cut the file to its length"))?;
        rustix::fs::futimens(&self.file, &times(modified))
            .map_err(failed("set the modified time"))?;
        self.file.sync_all().map_err(local("sync the file"))?;
        if !self.is_in_place()? {
            return Err(FetchError::Occupied("the unfinished file was moved away"));
        }
        let flags =
            if self.existing.is_some() { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        match self.rename(flags) {
            Err(Errno::EXIST) => {
                return Err(FetchError::Occupied("another file came into its place"));
            }
            Err(Errno::INVAL) if self.existing.is_none() => self.rename(RenameFlags::empty()), // not every disk knows it
            result => result,
        }
        .map_err(failed("rename the finished file"))?;
        rustix::fs::fsync(&self.dir).map_err(failed("sync the folder"))
    }

    /// Leaves nothing behind if nothing arrived.
    pub(crate) fn remove_if_empty(&self) {
        if matches!(self.len(), Ok((0, _))) {
            self.remove();
        }
    }

    /// Removes the unfinished file; it is only a leftover, so a failure does not matter.
    pub(crate) fn remove(&self) {
        if matches!(self.is_in_place(), Ok(true)) {
            let _ = rustix::fs::unlinkat(&self.dir, &self.partial_name, AtFlags::empty());
        }
    }

    fn rename(&self, flags: RenameFlags) -> Result<(), Errno> {
        rustix::fs::renameat_with(&self.dir, &self.partial_name, &self.dir, &self.name, flags)
    }

    fn is_in_place(&self) -> Result<bool, FetchError> {
        is_in_place(&self.dir, &self.partial_name, &self.file)
    }
}

/// Gives a file with the item's bytes the item's time and mode too, if it has others.
pub(super) fn dress(file: &File, modified: Modified, mode: Option<u16>) -> Result<(), FetchError> {
    if let Some(mode) = mode {
        set_mode(file, mode)?;
    }
    let stat = rustix::fs::fstat(file).map_err(failed("look at the file"))?;
    if super::catalogue::modified(&stat) == modified {
        return Ok(());
    }
    rustix::fs::futimens(file, &times(modified)).map_err(failed("set the modified time"))
}

fn set_mode(file: &File, mode: u16) -> Result<(), FetchError> {
    let stat = rustix::fs::fstat(file).map_err(failed("look at the file"))?;
    match changed_mode(stat.st_mode, file_mode(Some(mode))) {
        Some(mode) => rustix::fs::fchmod(file, mode).map_err(failed("set the mode of the file")),
        None => Ok(()),
    }
}

/// Whether `name` in `dir` still is `file`.
fn is_in_place(dir: &OwnedFd, name: &[u8], file: &File) -> Result<bool, FetchError> {
    let ours = rustix::fs::fstat(file).map_err(failed("look at the unfinished file"))?;
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(there) => Ok((there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(failed("look at the unfinished file")(errno)),
    }
}

/// Opens a regular file that has no second name; none if nothing is there.
pub(super) fn open_regular(
    dir: impl AsFd,
    name: &[u8],
    flags: OFlags,
) -> Result<Option<File>, FetchError> {
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
    // A pipe must not be opened even for a look, and a device must not notice.
    let look = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW);
    let is_regular = |mode| FileType::from_raw_mode(mode) == FileType::RegularFile;
    match look {
        Ok(stat) if !is_regular(stat.st_mode) => {
            return Err(FetchError::Occupied("something that is not a file stands at its place"));
        }
        Err(Errno::NOENT) if !flags.contains(OFlags::CREATE) => return Ok(None),
        Ok(_) | Err(_) => {}
    }
    let file = match open_beneath(&dir, name, flags, ResolveFlags::NO_SYMLINKS) {
        Err(Errno::NOENT) if !flags.contains(OFlags::CREATE) => return Ok(None),
        opened => File::from(opened.map_err(failed("open the file in the target folder"))?),
    };
    let stat = rustix::fs::fstat(&file).map_err(failed("look at the file"))?;
    if !is_regular(stat.st_mode) {
        return Err(FetchError::Occupied("something that is not a file stands at its place"));
    }
    if flags.contains(OFlags::CREATE) && stat.st_nlink > 1 {
        return Err(FetchError::Occupied("the unfinished file has a second name"));
    }
    Ok(Some(file))
}

/// The name under which `name` is unfinished (M-3.3): one that no item can have, at most 255 bytes long.
fn partial_name(name: &[u8]) -> Vec<u8> {
    if name.len() + PARTIAL_SUFFIX.len() <= MAX_NAME_BYTES {
        return [name, PARTIAL_SUFFIX].concat();
    }
    let mark = blake3::hash(name).to_hex();
    let mark = mark.as_bytes().get(..16).unwrap_or_default();
    let mut cut = MAX_NAME_BYTES - PARTIAL_SUFFIX.len() - 1 - mark.len();
    while cut > 0 && name.get(cut).is_some_and(|byte| byte & 0xc0 == 0x80) {
        cut -= 1; // some file systems take only whole letters of UTF-8
    }
    [name.get(..cut).unwrap_or_default(), b"~", mark, PARTIAL_SUFFIX].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_file_has_a_name_that_no_item_can_have() {
        for length in [1, 200, 241, 242, 243, 255] {
            let partial = partial_name(&vec![b'n'; length]);
            assert!(partial.len() <= MAX_NAME_BYTES, "{length}");
            assert_eq!(
                ItemPath::new(partial),
                Err(super::super::path::PathError::Partial),
                "{length}"
            );
        }
        let long = |last: u8| [vec![b'n'; 254], vec![last]].concat();
        assert_ne!(partial_name(&long(b'a')), partial_name(&long(b'b')));
        assert!(str::from_utf8(&partial_name("\u{e9}".repeat(127).as_bytes())).is_ok());
    }
}
