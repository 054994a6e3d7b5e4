//! The operations on our private directory: everything is relative to its open descriptor, and whole or not at all.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use rustix::fs::{
    AtFlags, FlockOperation, Mode, OFlags, flock, linkat, openat, renameat, unlinkat,
};
use rustix::io::Errno;

use super::{ConfigDir, ConfigError, Owner};

const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(10);

/// Our directory, opened and found to be private.
#[derive(Debug)]
pub struct Files {
    dir: File,
    path: PathBuf,
    owner: Owner,
}

/// A lock among programs; it ends when this is dropped, or with the program.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl ConfigDir {
    /// Opens the directory, and makes it (mode 0700) with what is missing above it. Refuses one that others can write.
    pub fn open(&self) -> Result<Files, ConfigError> {
        make_dirs(&self.path, self.owner)?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&self.path, flags, Mode::empty())
            .map_err(|error| io_error("open", &self.path, error.into()))?;
        let files = Files { dir: dir.into(), path: self.path.clone(), owner: self.owner };
        files.check(&files.dir, &self.path, 0o022, 0o700)?;
        Ok(files)
    }
}

impl Files {
    /// The full name of a file here, for messages.
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Reads a whole file of at most `max` bytes; `None` where there is none. Refuses one whose mode has any of the
    /// bits
    /// `forbidden`, or that belongs to others.
    pub fn read(
        &self,
        name: &str,
        max: usize,
        forbidden: u32,
    ) -> Result<Option<Vec<u8>>, ConfigError> {
        let path = self.path_of(name);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match openat(&self.dir, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(io_error("open", &path, error.into())),
        };
        let meta = file.metadata().map_err(|error| io_error("read", &path, error))?;
        let mut bytes = Vec::new();
        if meta.is_file() {
            self.check(&file, &path, forbidden, 0o600)?;
            let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
            file.take(limit)
                .read_to_end(&mut bytes)
                .map_err(|error| io_error("read", &path, error))?;
        }
        match meta.is_file() && bytes.len() <= max {
            true => Ok(Some(bytes)),
            false => Err(ConfigError::Strange { path, max }),
        }
    }

    /// Makes a file (mode 0600) with this content, whole or not at all; false where there is one already, which stays.
    pub fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, ConfigError> {
        let draft = self.draft(name, bytes)?;
        let outcome = linkat(&self.dir, &draft, &self.dir, name, AtFlags::empty());
        let removed = unlinkat(&self.dir, &draft, AtFlags::empty());
        match (outcome, removed) {
            (Ok(()), Ok(())) => self.sync().map(|()| true),
            (Err(Errno::EXIST), Ok(())) => Ok(false),
            (Err(error), _) | (_, Err(error)) => {
                Err(io_error("make", &self.path_of(name), error.into()))
            }
        }
    }

    /// Puts this content in the place of a file, whole or not at all.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), ConfigError> {
        let draft = self.draft(name, bytes)?;
        if let Err(error) = renameat(&self.dir, &draft, &self.dir, name) {
            let _ = unlinkat(&self.dir, &draft, AtFlags::empty()); // the first error is the one to tell
            return Err(io_error("write", &self.path_of(name), error.into()));
        }
        self.sync()
    }

    /// Waits, some seconds at most, until no other program holds the lock of this name.
    pub fn lock(&self, name: &str) -> Result<Lock, ConfigError> {
        let path = self.path_of(name);
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file: File = openat(&self.dir, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| io_error("open", &path, error.into()))?
            .into();
        self.give(&file, &path)?;
        let start = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(Errno::WOULDBLOCK | Errno::INTR) if start.elapsed() < LOCK_WAIT => {
                    std::thread::sleep(LOCK_POLL);
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) => {
                    return Err(ConfigError::Busy { path, seconds: LOCK_WAIT.as_secs() });
                }
                Err(error) => return Err(io_error("lock", &path, error.into())),
            }
        }
    }

    /// Writes a file under a name of its own, synced, and returns the name.
    fn draft(&self, name: &str, bytes: &[u8]) -> Result<String, ConfigError> {
        let mut chance = [0; 8];
        rand::fill(&mut chance).map_err(|_| {
            io_error(
                "make",
                &self.path_of(name),
                io::Error::other("the system gave no random bytes"),
            )
        })?;
        let draft = format!(".{name}.{:016x}", u64::from_be_bytes(chance));
        let path = self.path_of(&draft);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file: File = openat(&self.dir, &draft, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| io_error("make", &path, error.into()))?
            .into();
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        let given = written
            .map_err(|error| io_error("write", &path, error))
            .and_then(|()| self.give(&file, &path));
        if let Err(error) = given {
            let _ = unlinkat(&self.dir, &draft, AtFlags::empty()); // the first error is the one to tell
            return Err(error);
        }
        Ok(draft)
    }

    /// Hands a file that we made as root to the user who typed `sudo`.
    fn give(&self, file: &File, path: &Path) -> Result<(), ConfigError> {
        give(file, path, self.owner)
    }

    fn check(&self, file: &File, path: &Path, forbidden: u32, fix: u32) -> Result<(), ConfigError> {
        let meta = file.metadata().map_err(|error| io_error("read", path, error))?;
        let mode = meta.permissions().mode() & 0o777;
        if meta.uid() != self.owner.uid {
            return Err(ConfigError::Foreign {
                path: path.to_owned(),
                owner: meta.uid(),
                wanted: self.owner.uid,
            });
        }
        if mode & forbidden != 0 {
            return Err(ConfigError::Exposed { path: path.to_owned(), mode, fix });
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), ConfigError> {
        self.dir.sync_all().map_err(|error| io_error("write", &self.path, error))
    }
}

/// Makes a directory and what is missing above it, each mode 0700 and the owner's.
fn make_dirs(path: &Path, owner: Owner) -> Result<(), ConfigError> {
    let missing: Vec<&Path> = path.ancestors().take_while(|dir| !dir.exists()).collect();
    for dir in missing.into_iter().rev() {
        match std::fs::DirBuilder::new().mode(0o700).create(dir) {
            Ok(()) => {
                let made = File::open(dir).map_err(|error| io_error("open", dir, error))?;
                give(&made, dir, owner)?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {} // by another program just now
            Err(error) => return Err(io_error("make", dir, error)),
        }
    }
    Ok(())
}

fn give(file: &File, path: &Path, owner: Owner) -> Result<(), ConfigError> {
    let meta = file.metadata().map_err(|error| io_error("read", path, error))?;
    if meta.uid() == owner.uid {
        return Ok(());
    }
    std::os::unix::fs::fchown(file, Some(owner.uid), owner.gid)
        .map_err(|error| io_error("give away", path, error))
}

fn io_error(action: &'static str, path: &Path, error: io::Error) -> ConfigError {
    ConfigError::Io { action, path: path.to_owned(), error }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    }

    #[test]
    fn directories_and_files_are_private_and_files_are_whole() {
        let temp = tempfile::tempdir().expect("a directory");
        let dir = ConfigDir::at(temp.path().join("a/b/cabo"));
        let files = dir.open().expect("opens");
        assert_eq!((mode(&temp.path().join("a")), mode(dir.path())), (0o700, 0o700));
        assert!(files.read("f", 9, 0o077).expect("reads").is_none());
        assert!(files.create("f", b"one").expect("works"));
        assert!(!files.create("f", b"two").expect("works"), "the first one stays");
        assert_eq!(files.read("f", 3, 0o077).expect("reads").as_deref(), Some(&b"one"[..]));
        files.replace("f", b"three").expect("works");
        assert_eq!(files.read("f", 5, 0o077).expect("reads").as_deref(), Some(&b"three"[..]));
        assert_eq!(mode(&files.path_of("f")), 0o600);
        assert!(matches!(files.read("f", 4, 0), Err(ConfigError::Strange { max: 4, .. })));
        assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 1, "no draft is left");
    }

    #[test]
    fn what_others_can_reach_is_refused_with_the_command_that_closes_it() {
        let temp = tempfile::tempdir().expect("a directory");
        let dir = ConfigDir::at(temp.path().join("cabo"));
        let files = dir.open().expect("opens");
        files.create("f", b"x").expect("works");
        for bad in [0o640, 0o604, 0o620, 0o777] {
            chmod(&files.path_of("f"), bad);
            let error = files.read("f", 9, 0o077).expect_err("refused").to_string();
            assert!(
                error.ends_with(&format!("chmod 600 {}", files.path_of("f").display())),
                "{error}"
            );
        }
        for bad in [0o720, 0o702] {
            chmod(dir.path(), bad);
            let error = dir.open().expect_err("refused").to_string();
            assert!(error.ends_with(&format!("chmod 700 {}", dir.path().display())), "{error}");
        }
    }

    #[test]
    fn links_directories_and_pipes_are_not_read() {
        let temp = tempfile::tempdir().expect("a directory");
        let files = ConfigDir::at(temp.path().join("cabo")).open().expect("opens");
        std::os::unix::fs::symlink("/etc/passwd", files.path_of("link")).expect("works");
        fs::create_dir(files.path_of("dir")).expect("works");
        rustix::fs::mknodat(
            &files.dir,
            "pipe",
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .expect("works");
        assert!(matches!(files.read("link", 9, 0), Err(ConfigError::Io { .. })));
        assert!(matches!(files.read("dir", 9, 0), Err(ConfigError::Strange { .. })));
        assert!(matches!(files.read("pipe", 9, 0), Err(ConfigError::Strange { .. })));
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused() {
        let temp = tempfile::tempdir().expect("a directory");
        let theirs =
            ConfigDir { path: temp.path().to_owned(), owner: Owner { uid: 4242, gid: Some(4242) } };
        assert!(matches!(theirs.open(), Err(ConfigError::Foreign { wanted: 4242, .. })));
    }

    #[test]
    fn what_root_makes_under_sudo_belongs_to_the_user() {
        if super::super::euid() != 0 {
            return crate::needs::skip("giving files away needs root");
        }
        let temp = tempfile::tempdir().expect("a directory");
        let dir = ConfigDir {
            path: temp.path().join("x/cabo"),
            owner: Owner { uid: 4242, gid: Some(4243) },
        };
        let files = dir.open().expect("opens");
        files.create("f", b"x").expect("works");
        let _lock = files.lock("l").expect("locks");
        for path in
            [temp.path().join("x"), dir.path().to_owned(), files.path_of("f"), files.path_of("l")]
        {
            let meta = fs::metadata(&path).expect("there");
            assert_eq!((meta.uid(), meta.gid()), (4242, 4243), "{}", path.display());
        }
    }

    #[test]
    fn a_lock_is_held_by_one_at_a_time() {
        let temp = tempfile::tempdir().expect("a directory");
        let dir = ConfigDir::at(temp.path().join("cabo"));
        let files = dir.open().expect("opens");
        let counter = temp.path().join("counter");
        fs::write(&counter, "0").expect("writes");
        drop(files.lock("l").expect("locks"));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let _lock = files.lock("l").expect("locks");
                        let count: u32 =
                            fs::read_to_string(&counter).expect("reads").parse().expect("a number");
                        fs::write(&counter, (count + 1).to_string()).expect("writes");
                    }
                });
            }
        });
        assert_eq!(fs::read_to_string(&counter).expect("reads"), "100");
    }
}
