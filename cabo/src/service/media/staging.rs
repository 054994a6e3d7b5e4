//! Small files on their way to their places: written into one hidden folder of the target, synced together, renamed.
//!
//! Rules: M-12.8. The folder is locked while it is in use, so what a run that died has left is told from what is being
//! written, and is removed. `commit.rs` calls for the sync between [`Staging::put`] and [`Staging::place`].

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags, Timespec,
    Timestamps,
};
use rustix::io::Errno;

use super::catalogue::open_beneath;
use super::folders::{Folder, Inode};
use super::path::PARTIAL_SUFFIX;
use super::target::{FetchError, failed, local};
use super::wire::Modified;

/// So many runs may write into one target at once.
const SLOTS: usize = 8;

/// The hidden folder. Its leftovers are removed with it.
#[derive(Debug)]
pub(super) struct Staging {
    target: OwnedFd,
    name: Vec<u8>,
    dir: OwnedFd,
    next: AtomicU64,
}

/// A file that is whole, has its time and mode, and waits for its name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Staged {
    number: u64,
    pub(super) inode: Inode,
}

impl Staging {
    /// Makes the folder in `target`, or takes over that of a run that died.
    pub(super) fn open(target: impl AsFd) -> Result<Self, FetchError> {
        for slot in 1..=SLOTS {
            let name = PARTIAL_SUFFIX.repeat(slot); // no item's unfinished file has this name, since no item is ""
            match rustix::fs::mkdirat(&target, &name, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed("make a folder for unfinished files")(errno)),
            }
            let Some(dir) = lock(&target, &name)? else { continue };
            if !is_emptied(&dir)? {
                continue; // nothing that a run has left
            }
            let target = target.as_fd().try_clone_to_owned();
            let target = target.map_err(local("open the target folder"))?;
            return Ok(Self { target, name, dir, next: AtomicU64::new(0) });
        }
        Err(FetchError::Locked)
    }

    /// Writes a whole file.
    pub(super) fn put(
        &self,
        bytes: &[u8],
        modified: Modified,
        mode: Option<u16>,
    ) -> Result<Staged, FetchError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = number.to_string();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(file_mode(mode)); // less what the umask takes
        let file = rustix::fs::openat(&self.dir, &name, flags | OFlags::CLOEXEC, mode)
            .map_err(failed("make an unfinished file"))?;
        let written = write(File::from(file), bytes, modified);
        if written.is_err() {
            self.discard(number);
        }
        Ok(Staged { number, inode: written? })
    }

    /// Gives a staged file its name. `existing` is what stood there when it was looked at.
    pub(super) fn place(
        &self,
        staged: Staged,
        folder: &Folder,
        name: &[u8],
        existing: Option<Inode>,
    ) -> Result<(), FetchError> {
        let from = staged.number.to_string();
        let rename = |flags| rustix::fs::renameat_with(&self.dir, &from, &folder.dir, name, flags);
        let is_as_seen = || folder.inode(name).map(|(inode, _)| inode) == existing;
        let result = match existing {
            Some(_) if !is_as_seen() => Err(Errno::EXIST),
            Some(_) => rename(RenameFlags::empty()),
            None => match rename(RenameFlags::NOREPLACE) {
                Err(Errno::INVAL) if is_as_seen() => rename(RenameFlags::empty()), // not every disk knows it
                result => result,
            },
        };
        if result.is_err() {
            self.discard(staged.number);
        }
        match result {
            Err(Errno::EXIST) => Err(FetchError::Occupied("another file came into its place")),
            result => result.map_err(failed("rename the finished file")),
        }
    }

    /// It is only a leftover, so a failure does not matter.
    fn discard(&self, number: u64) {
        let _ = rustix::fs::unlinkat(&self.dir, number.to_string(), AtFlags::empty());
    }
}

impl Drop for Staging {
    /// A failure leaves a folder that the next run takes over.
    fn drop(&mut self) {
        if matches!(is_emptied(&self.dir), Ok(true)) {
            let _ = rustix::fs::unlinkat(&self.target, &self.name, AtFlags::REMOVEDIR);
        }
    }
}

/// The mode that a copy of a file is made with (M-12.10).
pub(super) fn file_mode(mode: Option<u16>) -> u32 {
    mode.map_or(0o666, |mode| u32::from(mode & 0o777) | 0o400) // what was copied can be compared
}

fn write(mut file: File, bytes: &[u8], modified: Modified) -> Result<Inode, FetchError> {
    file.write_all(bytes).map_err(local("write an unfinished file"))?;
    rustix::fs::futimens(&file, &times(modified)).map_err(failed("set the modified time"))?;
    let stat = rustix::fs::fstat(&file).map_err(failed("look at the unfinished file"))?;
    Ok((stat.st_dev, stat.st_ino))
}

pub(super) fn times(modified: Modified) -> Timestamps {
    let time = Timespec { tv_sec: modified.seconds, tv_nsec: modified.nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Opens and locks the folder `name`; none if a run uses it, or if it is not such a folder.
fn lock(target: impl AsFd, name: &[u8]) -> Result<Option<OwnedFd>, FetchError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let dir = match open_beneath(&target, name, flags, ResolveFlags::NO_SYMLINKS) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => return Ok(None),
        opened => opened.map_err(failed("open the folder for unfinished files"))?,
    };
    match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::AGAIN) => return Ok(None),
        result => result.map_err(failed("lock the folder for unfinished files"))?,
    }
    let ours = rustix::fs::fstat(&dir).map_err(failed("look at a folder"))?;
    let there = rustix::fs::statat(&target, name, AtFlags::SYMLINK_NOFOLLOW);
    // Its former owner may have removed it before the lock; nobody else may write into it after.
    let is_there =
        there.is_ok_and(|there| (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino));
    let is_private =
        ours.st_mode & 0o022 == 0 && ours.st_uid == rustix::process::geteuid().as_raw();
    Ok((is_there && is_private).then_some(dir))
}

/// Removes what runs leave; whether nothing else was there.
fn is_emptied(dir: &OwnedFd) -> Result<bool, FetchError> {
    let mut is_empty = true;
    for entry in Dir::read_from(dir).map_err(failed("read the folder for unfinished files"))? {
        let entry = entry.map_err(failed("read the folder for unfinished files"))?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let is_ours = name.iter().all(u8::is_ascii_digit)
            && matches!(entry.file_type(), FileType::RegularFile | FileType::Unknown);
        is_empty &= is_ours && rustix::fs::unlinkat(dir, name, AtFlags::empty()).is_ok();
    }
    Ok(is_empty)
}
