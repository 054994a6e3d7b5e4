//! The key log: the secrets of one's own sessions, written where `CABO_KEYLOG` says, so that `watch` and Wireshark can
//! read what one sealed oneself. Lines are those of NSS (`SSLKEYLOGFILE`); a comment of ours joins them to packets:
//!
//! ```text
//! # CABO_IDS <client random> <client's id> <server's id>
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use cabo_proto::wire::packet::ConnectionId;
use rustls::KeyLog;

/// Why no key log can be kept.
#[derive(Debug, thiserror::Error)]
pub enum KeyLogError {
    /// The file does not open.
    #[error("cannot open the key log {}: {error}; CABO_KEYLOG names it", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It is a pipe or a device, which might hold everything up.
    #[error("the key log {} is no regular file; CABO_KEYLOG names it", path.display())]
    NotAFile {
        /// What stands there.
        path: PathBuf,
    },
    /// Others could read the secrets.
    #[error(
        "the key log {} is open to others (mode {mode:03o}); close it with: chmod 600 {}",
        path.display(),
        crate::config::shell_word(path)
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// An open key log.
#[derive(Debug)]
pub struct KeyLogFile {
    path: PathBuf,
    file: File,
    has_failed: AtomicBool,
}

impl KeyLogFile {
    /// The key log that `CABO_KEYLOG` names; `None` where it is unset or empty.
    pub fn from_env() -> Result<Option<Self>, KeyLogError> {
        match std::env::var_os("CABO_KEYLOG") {
            Some(path) if !path.is_empty() => Self::open(Path::new(&path)).map(Some),
            Some(_) | None => Ok(None),
        }
    }

    /// Opens a key log to append to, made with mode 0600 where there is none.
    pub fn open(path: &Path) -> Result<Self, KeyLogError> {
        let not_a_file = || KeyLogError::NotAFile { path: path.to_owned() };
        let fail = |error: io::Error| match error.raw_os_error() {
            Some(libc::ENXIO) => not_a_file(), // a pipe that nobody reads
            _ => KeyLogError::Open { path: path.to_owned(), error },
        };
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600).custom_flags(libc::O_NONBLOCK);
        let file = options.open(path).map_err(fail)?;
        let meta = file.metadata().map_err(fail)?;
        if !meta.is_file() {
            return Err(not_a_file());
        }
        let mode = meta.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyLogError::Exposed { path: path.to_owned(), mode });
        }
        Ok(Self { path: path.to_owned(), file, has_failed: AtomicBool::new(false) })
    }
}

impl KeyLogFile {
    fn write(&self, line: &str) {
        // One write of one line: with O_APPEND lines of several processes do not mix.
        if let Err(error) = (&self.file).write_all(line.as_bytes())
            && !self.has_failed.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot write the key log");
        }
    }
}

/// The key log of one connection.
#[derive(Debug)]
pub(super) struct ConnectionLog {
    file: Arc<KeyLogFile>,
    client_random: OnceLock<String>,
}

impl ConnectionLog {
    pub(super) fn new(file: Arc<KeyLogFile>) -> Self {
        Self { file, client_random: OnceLock::new() }
    }

    /// Notes under which ids the two ends receive.
    pub(super) fn note_ids(&self, client: ConnectionId, server: ConnectionId) {
        if let Some(random) = self.client_random.get() {
            self.file.write(&format!(
                "# CABO_IDS {random} {} {}\n",
                hex(&client.0),
                hex(&server.0)
            ));
        }
    }
}

impl KeyLog for ConnectionLog {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let random = self.client_random.get_or_init(|| hex(client_random));
        self.file.write(&format!("{label} {random} {}\n", hex(secret)));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
