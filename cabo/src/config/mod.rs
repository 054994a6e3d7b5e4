//! Where our own files are, and how they are kept: the identity and the known servers.
//!
//! They stand in `$XDG_CONFIG_HOME/cabo`, or in `.config/cabo` of the home directory. Under `sudo` that is the home of
//! the user who typed it, and what is made there is that user's. `files` holds the operations; they never follow a
//! symbolic link in that directory, for root may be working in a place that somebody else can write.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

pub use files::Files;

mod files;

/// Reads a whole file that a user named, of at most `max_bytes`. A pipe without a writer, which nothing could wake, and a
/// device without an end are refused as no files.
pub fn read_named(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("is no file"));
    }
    let mut bytes = Vec::new();
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(io::Error::other(format!("is larger than {max_bytes} bytes")));
    }
    Ok(bytes)
}

/// Why one of our own files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Another program holds the lock.
    #[error("{} has been locked by another program for {seconds} s; wait for it or end it", path.display())]
    Busy {
        /// The lock.
        path: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
    /// Others could read or write what must be private.
    #[error(
        "{} is open to others (mode {mode:03o}); close it with: chmod {fix:03o} {}",
        path.display(),
        shell_word(path)
    )]
    Exposed {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they should be.
        fix: u32,
    },
    /// It belongs to somebody else.
    #[error(
        "{} belongs to user {owner}, not to {wanted}; correct it with: chown {wanted} {}",
        path.display(), shell_word(path)
    )]
    Foreign {
        /// The file or directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose it should be.
        wanted: u32,
    },
    /// There is no place for it.
    #[error(
        "there is no home directory for user {uid}; name a directory: XDG_CONFIG_HOME=/PATH cabo ..."
    )]
    Homeless {
        /// The user.
        uid: u32,
    },
    /// The system refused.
    #[error("cannot {action} {}: {error}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It is no plain file, or too large to be ours.
    #[error("{} is not a plain file of at most {max} bytes; move it away", path.display())]
    Strange {
        /// The file.
        path: PathBuf,
        /// The largest that is read.
        max: usize,
    },
}

/// Whose files they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group, where files must be given to it (under `sudo`).
    pub gid: Option<u32>,
}

/// Our directory: where it is, and whose.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigDir {
    path: PathBuf,
    owner: Owner,
}

impl ConfigDir {
    /// The directory of the user who runs this, or who typed `sudo`.
    pub fn of_user() -> Result<Self, ConfigError> {
        Surroundings::now().config_dir()
    }

    /// Another directory, of the user who runs this.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), owner: Owner { uid: euid(), gid: None } }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is.
    pub fn owner(&self) -> Owner {
        self.owner
    }
}

fn euid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// What the place of the directory follows from.
struct Surroundings {
    euid: u32,
    xdg_config_home: Option<OsString>,
    home: Option<OsString>,
    sudo_uid: Option<OsString>,
    passwd: Vec<u8>,
}

impl Surroundings {
    fn now() -> Self {
        Self {
            euid: euid(),
            xdg_config_home: std::env::var_os("XDG_CONFIG_HOME"),
            home: std::env::var_os("HOME"),
            sudo_uid: std::env::var_os("SUDO_UID"),
            // The file and not getpwuid: a static binary has no name service, and the file is enough for the usual.
            passwd: std::fs::read("/etc/passwd").unwrap_or_default(),
        }
    }

    fn config_dir(&self) -> Result<ConfigDir, ConfigError> {
        let sudo_uid = self.sudo_uid.as_ref().and_then(|uid| uid.to_str()?.parse::<u32>().ok());
        let sudo_uid = sudo_uid.filter(|uid| self.euid == 0 && *uid != 0);
        let uid = sudo_uid.unwrap_or(self.euid);
        let entry = self.passwd_entry(uid);
        let gid = sudo_uid.and(entry.as_ref()).map(|(gid, _)| *gid);
        let home = match sudo_uid {
            None => self.home.clone().filter(|home| !home.is_empty()).map(PathBuf::from),
            Some(_) => None, // HOME may be root's
        };
        let base = match &self.xdg_config_home {
            Some(xdg) if Path::new(xdg).is_absolute() => PathBuf::from(xdg),
            Some(_) | None => home
                .or_else(|| entry.map(|(_, home)| home))
                .filter(|home| home.is_absolute())
                .ok_or(ConfigError::Homeless { uid })?
                .join(".config"),
        };
        Ok(ConfigDir { path: base.join("cabo"), owner: Owner { uid, gid } })
    }

    /// Group and home of a user.
    fn passwd_entry(&self, uid: u32) -> Option<(u32, PathBuf)> {
        use std::os::unix::ffi::OsStringExt as _;
        self.passwd.split(|byte| *byte == b'\n').find_map(|line| {
            let mut fields = line.split(|byte| *byte == b':').skip(2);
            let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse::<u32>().ok();
            let (found, gid) = (number()?, number()?);
            let home = fields.nth(1)?;
            (found == uid).then(|| (gid, OsString::from_vec(home.to_vec()).into()))
        })
    }
}

/// `path` as one word of a shell command, for the commands that errors suggest.
pub(crate) fn shell_word(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+=:,@%".contains(letter);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Surroundings {
        Surroundings {
            euid: 1000,
            xdg_config_home: None,
            home: Some("/home/ana".into()),
            sudo_uid: None,
            passwd: b"root:x:0:0:root:/root:/bin/sh\n\nbad line\nana:x:1000:100:Ana,,,:/home/ana:/bin/sh\n".to_vec(),
        }
    }

    fn dir(path: &str, uid: u32, gid: Option<u32>) -> ConfigDir {
        ConfigDir { path: path.into(), owner: Owner { uid, gid } }
    }

    #[test]
    fn the_directory_follows_xdg_then_home_then_passwd() {
        let mut around = plain();
        assert_eq!(around.config_dir().expect("found"), dir("/home/ana/.config/cabo", 1000, None));
        around.xdg_config_home = Some("/x".into());
        assert_eq!(around.config_dir().expect("found"), dir("/x/cabo", 1000, None));
        around.xdg_config_home = Some("relative is ignored".into());
        around.home = None;
        assert_eq!(around.config_dir().expect("found"), dir("/home/ana/.config/cabo", 1000, None));
        around.euid = 7;
        let error = around.config_dir().expect_err("refused").to_string();
        assert!(error.contains("user 7"), "{error}");
    }

    #[test]
    fn under_sudo_it_is_that_of_the_invoking_user() {
        let mut around = Surroundings { euid: 0, home: Some("/root".into()), ..plain() };
        assert_eq!(around.config_dir().expect("found"), dir("/root/.config/cabo", 0, None));
        around.sudo_uid = Some("1000".into());
        assert_eq!(
            around.config_dir().expect("found"),
            dir("/home/ana/.config/cabo", 1000, Some(100))
        );
        around.sudo_uid = Some("0".into());
        assert_eq!(around.config_dir().expect("found"), dir("/root/.config/cabo", 0, None));
        around.sudo_uid = Some("4242".into());
        assert!(matches!(around.config_dir(), Err(ConfigError::Homeless { uid: 4242 })));
        around.euid = 1000; // set by hand, without root
        assert_eq!(around.config_dir().expect("found"), dir("/root/.config/cabo", 1000, None));
    }

    #[test]
    fn a_suggested_command_can_be_pasted() {
        assert_eq!(shell_word(Path::new("/a/b-c.key")), "/a/b-c.key");
        assert_eq!(shell_word(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
