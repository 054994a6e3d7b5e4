//! Where an item stands in a catalogue (M-3): components of bytes, never a way out.
//!
//! Neighbours: `catalogue.rs` opens one beneath a served folder, `target.rs` beneath a folder that is written to.

use std::fmt::{self, Write as _};

/// The longest path on the wire, separators included (M-3.1).
pub const MAX_PATH_BYTES: usize = 4096;
/// The longest component of a path (M-3.1), which is also Linux's.
pub const MAX_NAME_BYTES: usize = 255;
/// Names that end so are unfinished files of `get`; they are never items (M-3.3).
pub const PARTIAL_SUFFIX: &[u8] = b".cabo-partial";

/// A path inside a catalogue: any bytes but NUL, cut by `/`, no empty part, no `.`, no `..` (M-3.1).
/// The catalogue itself is the empty path.
#[derive(Clone, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ItemPath(Vec<u8>);

/// What is wrong with a path (M-3.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PathError {
    /// A component is empty: a leading, trailing or doubled `/`.
    #[error("it has an empty part")]
    Empty,
    /// A component is `.` or `..`.
    #[error("it has a part that is . or ..")]
    Dots,
    /// It has a NUL byte.
    #[error("it has a NUL byte")]
    Nul,
    /// A component ends with [`PARTIAL_SUFFIX`].
    #[error("it names an unfinished file")]
    Partial,
    /// A component or the whole is too long.
    #[error("it is too long")]
    TooLong,
}

impl ItemPath {
    /// Takes over bytes that a peer or a user named.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        if bytes.len() > MAX_PATH_BYTES {
            return Err(PathError::TooLong);
        }
        if !bytes.is_empty() {
            bytes.split(|byte| *byte == b'/').try_for_each(check_name)?;
        }
        Ok(Self(bytes))
    }

    /// The bytes, as on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the catalogue itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The parts between the separators.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
    }

    /// The folder it stands in, and its last component; none for the catalogue itself.
    pub fn split_last(&self) -> Option<(Self, &[u8])> {
        let name = self.components().last()?;
        let folder =
            self.0.get(..(self.0.len() - name.len()).saturating_sub(1)).unwrap_or_default();
        Some((Self(folder.to_vec()), name))
    }

    /// `inner` beneath this folder.
    pub fn join(&self, inner: &Self) -> Result<Self, PathError> {
        match (self.is_root(), inner.is_root()) {
            (true, _) => Ok(inner.clone()),
            (_, true) => Ok(self.clone()),
            (false, false) => Self::new([self.as_bytes(), b"/", inner.as_bytes()].concat()),
        }
    }
}

fn check_name(name: &[u8]) -> Result<(), PathError> {
    match name {
        b"" => Err(PathError::Empty),
        b"." | b".." => Err(PathError::Dots),
        _ if name.contains(&0) => Err(PathError::Nul),
        _ if name.len() > MAX_NAME_BYTES => Err(PathError::TooLong),
        _ if name.ends_with(PARTIAL_SUFFIX) => Err(PathError::Partial),
        _ => Ok(()),
    }
}

/// Safe on a terminal: text stays text; controls, direction marks and what is not UTF-8 are escaped (M-3.4).
impl fmt::Display for ItemPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for letter in chunk.valid().chars() {
                let is_mark = matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
                match letter {
                    '\\' => f.write_str("\\\\")?,
                    _ if letter.is_control() || is_mark => {
                        write!(f, "{}", letter.escape_default())?
                    }
                    _ => f.write_char(letter)?,
                }
            }
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

impl fmt::Debug for ItemPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_out_is_no_path() {
        let long = vec![b'a'; MAX_NAME_BYTES + 1];
        let cases: [(&[u8], PathError); 12] = [
            (b"/etc/passwd", PathError::Empty),
            (b"a//b", PathError::Empty),
            (b"a/", PathError::Empty),
            (b"/", PathError::Empty),
            (b"..", PathError::Dots),
            (b"a/../b", PathError::Dots),
            (b"./a", PathError::Dots),
            (b"a/..", PathError::Dots),
            (b"a\0b", PathError::Nul),
            (b"a.cabo-partial", PathError::Partial),
            (&long, PathError::TooLong),
            (&[b"a/".repeat(MAX_PATH_BYTES / 2).as_slice(), b"b"].concat(), PathError::TooLong),
        ];
        for (bytes, error) in cases {
            assert_eq!(ItemPath::new(bytes), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn every_name_that_linux_allows_is_a_path() {
        for name in
            [b"...".as_slice(), b" ", b"\n", b"\xff\xfe", b"-rf", b"\\", &[b'x'; MAX_NAME_BYTES]]
        {
            let path = ItemPath::new([b"folder/".as_slice(), name].concat()).unwrap();
            let (folder, last) = path.split_last().unwrap();
            assert_eq!((folder.as_bytes(), last), (b"folder".as_slice(), name));
            assert_eq!(folder.join(&ItemPath::new(name).unwrap()), Ok(path));
        }
        assert_eq!(ItemPath::new("a").unwrap().split_last().unwrap().0, ItemPath::default());
        assert!(ItemPath::default().split_last().is_none());
    }

    #[test]
    fn a_name_cannot_drive_the_terminal() {
        let path = ItemPath::new(b"caf\xc3\xa9\x1b[2J\n\xff\\\xe2\x80\xae".as_slice()).unwrap();
        assert_eq!(path.to_string(), "caf\u{e9}\\u{1b}[2J\\n\\xff\\\\\\u{202e}");
    }
}
