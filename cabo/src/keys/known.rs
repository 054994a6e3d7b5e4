//! Servers met before: their keys, by the words under which they were reached (trust on first use).
//!
//! The file `known` in our directory has one server a line: the words (an address with its port, or `//name`), the key
//! in hexadecimal, and its fingerprint for people, which is not read. A line that cannot be read is an error and not
//! skipped: its server would be trusted anew.

use std::fmt::Write as _;
use std::path::PathBuf;

use cabo_proto::session::crypto::PublicKey;

use super::Fingerprint;
use crate::config::{ConfigDir, ConfigError, Files};

const FILE: &str = "known";
const LOCK: &str = "known.lock";
const MAX_LEN: usize = 4 * 1024 * 1024; // bytes
const NOT_WRITTEN_BY_OTHERS: u32 = 0o022;

/// What the list of known servers says to a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Acquaintance {
    /// Nobody was met there before; the key is now remembered.
    FirstUse,
    /// The same server as before.
    Same,
    /// Another key than before. Nothing was written.
    Changed {
        /// The key that is remembered.
        old: PublicKey,
    },
}

/// A server that has another identity than before.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{words} has another identity than before: it was {}, now it is {}. Somebody may stand between, or the server was set up \
     anew; only if you know that it was: cabo keys forget {words}",
    Fingerprint::of(*.old), Fingerprint::of(*.new)
)]
pub struct ChangedServer {
    /// Where it was reached.
    pub words: String,
    /// The key that is remembered.
    pub old: PublicKey,
    /// The key that it has now.
    pub new: PublicKey,
}

/// Why the list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KnownError {
    /// The file cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A line of it is something else.
    #[error("line {line} of {} is not ADDRESS KEY; correct or delete it", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The words cannot stand in a line.
    #[error(
        "{0:?} is not one printable word; servers are known by their address, as it is printed"
    )]
    Words(String),
}

/// The list of known servers.
#[derive(Clone, Debug)]
pub struct Known {
    dir: ConfigDir,
}

/// One line: words and key.
type Entry = (String, PublicKey);

impl Known {
    /// The list in `dir`.
    pub fn new(dir: ConfigDir) -> Self {
        Self { dir }
    }

    /// The key of the server at `words`, if it was met before; a client expects it of whoever answers there.
    pub fn get(&self, words: &str) -> Result<Option<PublicKey>, KnownError> {
        Ok(find(&self.list()?, words))
    }

    /// All known servers, in the order in which they were met.
    pub fn list(&self) -> Result<Vec<(String, PublicKey)>, KnownError> {
        read(&self.dir.open()?)
    }

    /// Compares the key that a server at `words` has proved with the one that is remembered; remembers a first one.
    pub fn check(&self, words: &str, key: PublicKey) -> Result<Acquaintance, KnownError> {
        if words.is_empty()
            || words.starts_with('#')
            || !words.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(KnownError::Words(words.to_owned()));
        }
        let files = self.dir.open()?;
        let verdict =
            |old| if old == key { Acquaintance::Same } else { Acquaintance::Changed { old } };
        if let Some(old) = find(&read(&files)?, words) {
            return Ok(verdict(old)); // the usual case, without a lock
        }
        let _lock = files.lock(LOCK)?;
        let mut entries = read(&files)?;
        if let Some(old) = find(&entries, words) {
            return Ok(verdict(old));
        }
        entries.push((words.to_owned(), key));
        files.replace(FILE, print(&entries).as_bytes())?;
        Ok(Acquaintance::FirstUse)
    }

    /// Forgets the server at `words`; false where none is known.
    pub fn forget(&self, words: &str) -> Result<bool, KnownError> {
        let files = self.dir.open()?;
        let _lock = files.lock(LOCK)?;
        let mut entries = read(&files)?;
        let before = entries.len();
        entries.retain(|(known, _)| known != words);
        if entries.len() == before {
            return Ok(false);
        }
        files.replace(FILE, print(&entries).as_bytes())?;
        Ok(true)
    }
}

fn find(entries: &[Entry], words: &str) -> Option<PublicKey> {
    entries.iter().find(|(known, _)| known == words).map(|(_, key)| *key)
}

fn read(files: &Files) -> Result<Vec<Entry>, KnownError> {
    let bytes = files.read(FILE, MAX_LEN, NOT_WRITTEN_BY_OTHERS)?.unwrap_or_default();
    let mut entries = Vec::new();
    for (line, text) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let text = text.trim_ascii();
        if text.is_empty() || text.starts_with(b"#") {
            continue;
        }
        let entry = std::str::from_utf8(text).ok().and_then(read_line);
        entries.push(
            entry.ok_or_else(|| KnownError::Line { path: files.path_of(FILE), line: line + 1 })?,
        );
    }
    Ok(entries)
}

fn read_line(text: &str) -> Option<Entry> {
    let mut fields = text.split_ascii_whitespace();
    let (words, digits) = (fields.next()?, fields.next()?);
    let mut key = [0; 32];
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if pairs.len() != key.len() || !rest.is_empty() {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(pairs) {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        *byte = u8::try_from(high? << 4 | low?).ok()?;
    }
    Some((words.to_owned(), PublicKey(key)))
}

fn print(entries: &[Entry]) -> String {
    let mut text = String::from("# servers that cabo has met: ADDRESS KEY FINGERPRINT\n");
    for (words, key) in entries {
        let digits: String = key.0.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(text, "{words} {digits} {}", Fingerprint::of(*key)); // to a String: cannot fail
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ANA: PublicKey = PublicKey([1; 32]);
    const BOB: PublicKey = PublicKey([0xbb; 32]);

    #[test]
    fn a_server_is_trusted_at_first_known_later_and_noticed_when_it_changed() {
        let temp = tempfile::tempdir().expect("a directory");
        let known = Known::new(ConfigDir::at(temp.path().join("cabo")));
        assert_eq!(known.get("tcp://h:5555").expect("reads"), None);
        assert_eq!(known.check("tcp://h:5555", ANA).expect("works"), Acquaintance::FirstUse);
        assert_eq!(known.check("tcp://h:5555", ANA).expect("works"), Acquaintance::Same);
        assert_eq!(
            known.check("tcp://h:5555", BOB).expect("works"),
            Acquaintance::Changed { old: ANA }
        );
        assert_eq!(known.get("tcp://h:5555").expect("reads"), Some(ANA));
        assert_eq!(known.check("//kitchen", BOB).expect("works"), Acquaintance::FirstUse);
        assert_eq!(
            known.list().expect("reads"),
            [("tcp://h:5555".to_owned(), ANA), ("//kitchen".to_owned(), BOB)]
        );
        assert!(known.forget("tcp://h:5555").expect("works"));
        assert!(!known.forget("tcp://h:5555").expect("works"));
        assert_eq!(known.check("tcp://h:5555", BOB).expect("works"), Acquaintance::FirstUse);
    }

    #[test]
    fn several_programs_at_once_lose_no_line_and_agree_on_the_first() {
        let temp = tempfile::tempdir().expect("a directory");
        let known = Known::new(ConfigDir::at(temp.path().join("cabo")));
        let first_uses = std::thread::scope(|scope| {
            let meet = |seed: u8| {
                let own = known.check(&format!("tcp://h:{seed}"), ANA).expect("works");
                assert_eq!(own, Acquaintance::FirstUse);
                known.check("tcp://shared:1", PublicKey([seed; 32])).expect("works")
            };
            let runs: Vec<_> = (0..8).map(|seed| scope.spawn(move || meet(seed))).collect();
            let verdicts = runs.into_iter().map(|run| run.join().expect("ends"));
            verdicts.filter(|verdict| *verdict == Acquaintance::FirstUse).count()
        });
        assert_eq!(first_uses, 1);
        assert_eq!(known.list().expect("reads").len(), 9);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_an_error_and_not_skipped() {
        let temp = tempfile::tempdir().expect("a directory");
        let known = Known::new(ConfigDir::at(temp.path().join("cabo")));
        known.check("tcp://h:5555", ANA).expect("works");
        let path = temp.path().join("cabo").join(FILE);
        let good = fs::read_to_string(&path).expect("reads");
        for bad in
            ["tcp://h:5555", "tcp://h:5555 00", "x zz", "\u{e9}", &format!("x {}", "0".repeat(65))]
        {
            fs::write(&path, format!("{good}\n# a comment\n{bad}\n")).expect("writes");
            let error = known.check("tcp://other:1", BOB).expect_err(bad);
            assert!(matches!(error, KnownError::Line { line: 5, .. }), "{bad}: {error}");
        }
        for words in ["", "a b", "#x", "a\nb", "\u{e9}"] {
            assert!(matches!(known.check(words, ANA), Err(KnownError::Words(_))), "{words:?}");
        }
    }

    #[test]
    fn a_changed_server_is_told_with_both_fingerprints_and_the_way_out() {
        let changed = ChangedServer { words: "tcp://h:5555".to_owned(), old: ANA, new: BOB };
        let text = changed.to_string();
        assert!(
            text.contains(&Fingerprint::of(ANA).to_string())
                && text.contains(&Fingerprint::of(BOB).to_string())
        );
        assert!(text.ends_with("cabo keys forget tcp://h:5555"), "{text}");
    }
}
