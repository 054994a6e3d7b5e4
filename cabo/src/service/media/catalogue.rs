//! A served folder, confined by the kernel (M-3.2): whatever a path says, nothing outside is reachable.
//!
//! Every open goes through `openat2` beneath the folder. Only regular files are items; what else lies there
//! (pipes, devices, sockets) is never opened for reading, so it cannot block either. All calls here may block on a
//! disk: `serve.rs` keeps them off the runtime's threads.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2};
use rustix::io::Errno;

use super::error::{ErrorCode, Refusal};
use super::hashes::HashCache;
use super::path::ItemPath;
use super::tree::{Hash, block_hash, block_len};
use super::walk::Walk;
use super::wire::{ItemInfo, Modified, Version};

/// Block hashes kept in memory: enough for 2 TiB of files.
const KEPT_HASHES: usize = 2 << 20;
/// How often a path is tried again while somebody renames folders under way.
const RENAME_RACES: u32 = 32;

/// A folder that is served, or a single file.
#[derive(Debug)]
pub struct Catalogue {
    root: OwnedFd,
    /// The name and the real name of the only item, if a single file is served.
    only: Option<(ItemPath, ItemPath)>,
    pub(super) hashes: HashCache,
}

/// Why a folder cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// It cannot be opened.
    #[error("cannot open it: {0}")]
    Open(#[from] io::Error),
    /// It is a device, a pipe or a socket.
    #[error("it is neither a folder nor a regular file")]
    NeitherFolderNorFile,
    /// It is a single file whose name cannot be an item's.
    #[error("its name cannot be served: {0}")]
    Name(#[from] super::path::PathError),
    /// The kernel cannot confine paths.
    #[error(
        "this kernel has no openat2 (Linux 5.6 and later have), without which paths cannot be confined"
    )]
    NoOpenat2,
}

impl Catalogue {
    /// Opens a folder, or a single file, to be served. Later renames of it do not matter.
    pub fn open(path: &Path) -> Result<Self, CatalogueError> {
        let metadata = std::fs::metadata(path)?;
        let (folder, only) = if metadata.is_dir() {
            (path.to_owned(), None)
        } else if metadata.is_file() {
            let real = std::fs::canonicalize(path)?;
            let name = path.file_name().or_else(|| real.file_name()).unwrap_or_default();
            let only = (ItemPath::new(name.as_bytes())?, name_of(&real)?);
            (real.parent().unwrap_or_else(|| Path::new("/")).to_owned(), Some(only))
        } else {
            return Err(CatalogueError::NeitherFolderNorFile);
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(folder, flags, Mode::empty()).map_err(io::Error::from)?;
        let catalogue = Self { root, only, hashes: HashCache::new(KEPT_HASHES) };
        match catalogue.open_beneath(b".", OFlags::PATH) {
            Ok(_) => Ok(catalogue),
            Err(Errno::NOSYS) => Err(CatalogueError::NoOpenat2),
            Err(errno) => Err(io::Error::from(errno).into()),
        }
    }

    /// What stands at `item` (M-6).
    pub fn describe(&self, item: &ItemPath) -> Result<ItemInfo, Refusal> {
        let stat = fstat(self.resolve(item, OFlags::PATH)?)?;
        self.info(item, &stat)
    }

    /// Opens `item` for reading.
    pub(crate) fn open_item(&self, item: &ItemPath) -> Result<OpenItem, Refusal> {
        self.describe(item)?; // to open a pipe or a device can have effects, so it is looked at first
        let file =
            File::from(self.resolve(item, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?);
        let info = self.info(item, &fstat(&file)?)?;
        Ok(OpenItem { file, info })
    }

    /// Lists `folder`, entry by entry.
    pub(crate) fn walk(&self, folder: &ItemPath, is_recursive: bool) -> Result<Walk, Refusal> {
        if let Some((name, _)) = &self.only {
            return match folder.is_root() {
                true => Ok(Walk::single(name.clone())),
                false => Err(ErrorCode::NotAFolder.into()),
            };
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let opened = self.resolve(folder, flags).map_err(|errno| match errno {
            Errno::NOTDIR if self.describe(folder).is_ok() => ErrorCode::NotAFolder.into(),
            errno => Refusal::from(errno),
        });
        Walk::new(opened?, folder.clone(), is_recursive)
    }

    /// The status of what stands at `path`, symlinks followed as far as they stay inside.
    pub(super) fn stat(&self, path: &ItemPath) -> Result<Stat, Errno> {
        fstat(self.resolve(path, OFlags::PATH)?)
    }

    fn info(&self, item: &ItemPath, stat: &Stat) -> Result<ItemInfo, Refusal> {
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(ErrorCode::NotAFile.into());
        }
        let version = version(stat);
        Ok(ItemInfo {
            size: size(stat),
            modified: modified(stat),
            mode: Some(mode(stat)),
            media_type: media_type(item),
            version,
            root: self.hashes.root(version),
        })
    }

    fn resolve(&self, path: &ItemPath, flags: OFlags) -> Result<OwnedFd, Errno> {
        let real = match &self.only {
            None => path,
            Some((name, real)) if name == path => real,
            Some(_) => return Err(Errno::NOENT),
        };
        self.open_beneath(if real.is_root() { b"." } else { real.as_bytes() }, flags)
    }

    fn open_beneath(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        open_beneath(&self.root, path, flags, ResolveFlags::empty())
    }
}

/// Opens `path` beneath `folder` without following anything out of it.
pub(super) fn open_beneath(
    folder: impl AsFd,
    path: &[u8],
    flags: OFlags,
    more: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | more;
    let mode =
        if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(0o666) } else { Mode::empty() };
    for _ in 0..RENAME_RACES {
        match openat2(&folder, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

/// A file that is open for reading, in the state that `info` describes.
#[derive(Debug)]
pub(crate) struct OpenItem {
    file: File,
    pub(crate) info: ItemInfo,
}

impl OpenItem {
    /// Reads block `index` and hashes it; refuses if the file is not what it was when it was opened.
    pub(crate) fn read_block(&self, index: u64) -> Result<(Hash, Vec<u8>), Refusal> {
        let mut block = vec![0; block_len(self.info.size, index)];
        self.check_unchanged()?;
        match self.file.read_exact_at(&mut block, index.saturating_mul(super::tree::BLOCK_BYTES)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(ErrorCode::Changed.into());
            }
            result => result?,
        }
        self.check_unchanged()?;
        Ok((block_hash(self.info.size, index, &block), block))
    }

    fn check_unchanged(&self) -> Result<(), Refusal> {
        match version(&fstat(&self.file)?) == self.info.version {
            true => Ok(()),
            false => Err(ErrorCode::Changed.into()),
        }
    }
}

/// Names the state of a file (M-6.2). Renaming a file over it or deleting it changes its `ctime` too.
fn version(stat: &Stat) -> Version {
    let mut hasher = blake3::Hasher::new_derive_key("cabo media/1 version");
    hasher.update(&stat.st_dev.to_be_bytes());
    hasher.update(&stat.st_ino.to_be_bytes());
    hasher.update(&size(stat).to_be_bytes());
    for (seconds, nanos) in
        [(stat.st_mtime, stat.st_mtime_nsec), (stat.st_ctime, stat.st_ctime_nsec)]
    {
        hasher.update(&seconds.to_be_bytes());
        hasher.update(&nanos.to_be_bytes());
    }
    let mut version = Version([0; 16]);
    hasher.finalize_xof().fill(&mut version.0);
    version
}

pub(super) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or_default()
}

pub(super) fn modified(stat: &Stat) -> Modified {
    let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or_default().min(999_999_999);
    Modified { seconds: stat.st_mtime, nanos }
}

pub(super) fn mode(stat: &Stat) -> u16 {
    u16::try_from(stat.st_mode & 0o777).unwrap_or_default()
}

/// The media type that the name suggests (M-5.3).
pub(super) fn media_type(item: &ItemPath) -> String {
    let name = item.components().last().unwrap_or_default();
    let extension =
        Path::new(OsStr::from_bytes(name)).extension().and_then(OsStr::to_str).unwrap_or_default();
    if extension.eq_ignore_ascii_case("ts") {
        return "video/mp2t".to_owned(); // among films it is a transport stream, not TypeScript or DLNA's private name
    }
    mime_guess::from_ext(extension).first_raw().unwrap_or("application/octet-stream").to_owned()
}

fn name_of(path: &Path) -> Result<ItemPath, CatalogueError> {
    Ok(ItemPath::new(path.file_name().unwrap_or_default().as_bytes())?)
}
