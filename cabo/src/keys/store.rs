//! The identity in its file: `identity.key` in our directory, PKCS#8 in DER, mode 0600, made on first use.

use std::path::PathBuf;

use super::{Identity, KeyError};
use crate::config::{ConfigDir, ConfigError, shell_word};

const FILE: &str = "identity.key";
const MAX_LEN: usize = 4096; // bytes; a key has 48 to 85
const CLOSED_TO_OTHERS: u32 = 0o077;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file holds something else.
    #[error(
        "{} holds no identity ({error}); to get a new one, which peers must allow again, move it away: mv {1} {1}.old",
        path.display(),
        shell_word(path)
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: KeyError,
    },
    /// A new one cannot be made.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl Identity {
    /// The identity that is stored in `dir`; makes and stores one where there is none. When several programs do this at
    /// once, all get the same one.
    pub fn load_or_create(dir: &ConfigDir) -> Result<Self, StoreError> {
        let files = dir.open()?;
        if files.read(FILE, MAX_LEN, CLOSED_TO_OTHERS)?.is_none() {
            files.create(FILE, Self::generate()?.to_pkcs8()?.as_ref())?;
        }
        let der = files.read(FILE, MAX_LEN, CLOSED_TO_OTHERS)?.unwrap_or_default();
        Self::from_pkcs8(&der)
            .map_err(|error| StoreError::Damaged { path: files.path_of(FILE), error })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_first_use_makes_an_identity_that_all_later_ones_have() {
        let temp = tempfile::tempdir().expect("a directory");
        let dir = ConfigDir::at(temp.path().join("cabo"));
        let keys: Vec<_> = std::thread::scope(|scope| {
            let load = || Identity::load_or_create(&dir).expect("works").public_key();
            let runs: Vec<_> = (0..8).map(|_| scope.spawn(load)).collect();
            runs.into_iter().map(|run| run.join().expect("ends")).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
        let mode = fs::metadata(dir.path().join(FILE)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 1);
    }

    #[test]
    fn an_exposed_or_damaged_key_is_refused_and_stays() {
        let temp = tempfile::tempdir().expect("a directory");
        let dir = ConfigDir::at(temp.path().join("cabo"));
        let key = Identity::load_or_create(&dir).expect("works").public_key();
        let path = dir.path().join(FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        let error = Identity::load_or_create(&dir).expect_err("refused").to_string();
        assert!(error.ends_with(&format!("chmod 600 {}", path.display())), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("set");
        assert_eq!(Identity::load_or_create(&dir).expect("works").public_key(), key);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        for damage in [b"".as_slice(), b"-----BEGIN PRIVATE KEY-----"] {
            fs::write(&path, damage).expect("writes");
            let error = Identity::load_or_create(&dir).expect_err("refused").to_string();
            assert!(error.ends_with(&format!("mv {0} {0}.old", path.display())), "{error}");
            assert_eq!(fs::read(&path).expect("there"), damage);
        }
    }
}
