//! The `--allow` file: fingerprints, one a line, each with an optional name.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::config::shell_word;
use crate::keys::{Fingerprint, FingerprintError};

const MAX_LEN: u64 = 4 * 1024 * 1024; // bytes

/// Why an `--allow` file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AllowError {
    /// Anybody could let themselves in.
    #[error(
        "everybody can write {}, and so let in whom they like; close it with: chmod o-w {}",
        path.display(), shell_word(path)
    )]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot read {}: {error}; --allow names it", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It is a pipe, a device or a folder, which might never end.
    #[error("{} is no regular file; --allow names a file with one fingerprint a line", path.display())]
    NotAFile {
        /// What stands there.
        path: PathBuf,
    },
    /// A line is no fingerprint.
    #[error("line {line} of {}: {error}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        error: FingerprintError,
    },
    /// It is too long to be such a file.
    #[error("{} has more than 4 MiB; --allow names a file with one fingerprint a line", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
}

/// Who is allowed, as the file said when it was read.
#[derive(Debug)]
pub struct AllowFile {
    path: PathBuf,
    entries: BTreeMap<Fingerprint, String>,
}

impl AllowFile {
    /// Reads the file.
    pub fn load(path: &Path) -> Result<Self, AllowError> {
        let fail = |error| AllowError::Io { path: path.to_owned(), error };
        // A pipe without a writer would hold up the whole server.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(fail)?;
        let meta = file.metadata().map_err(fail)?;
        if !meta.is_file() {
            return Err(AllowError::NotAFile { path: path.to_owned() });
        }
        if meta.permissions().mode() & 0o002 != 0 {
            return Err(AllowError::Exposed { path: path.to_owned() });
        }
        let mut bytes = Vec::new();
        file.take(MAX_LEN + 1).read_to_end(&mut bytes).map_err(fail)?;
        if bytes.len() as u64 > MAX_LEN {
            return Err(AllowError::TooLong { path: path.to_owned() });
        }
        let entries = read(&String::from_utf8_lossy(&bytes))
            .map_err(|(line, error)| AllowError::Line { path: path.to_owned(), line, error })?;
        Ok(Self { path: path.to_owned(), entries })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this peer is allowed.
    pub fn contains(&self, fingerprint: Fingerprint) -> bool {
        self.entries.contains_key(&fingerprint)
    }

    /// The name that stands beside a fingerprint.
    pub fn name_of(&self, fingerprint: Fingerprint) -> Option<&str> {
        self.entries.get(&fingerprint).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// How many are allowed.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The entries; or the line, from 1, that is none.
fn read(text: &str) -> Result<BTreeMap<Fingerprint, String>, (usize, FingerprintError)> {
    let mut entries = BTreeMap::new();
    for (line, text) in text.lines().enumerate() {
        let text = text.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        let (print, name) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let print = print.parse().map_err(|error| (line + 1, error))?;
        entries.insert(print, name.trim().to_owned());
    }
    Ok(entries)
}
