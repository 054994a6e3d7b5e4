//! The fields of a message: type-length-value, what is unknown is skipped (M-4.2).
//!
//! One number means one thing in every message, so one struct holds them all; `wire.rs` says which message has which.

use cabo_proto::wire::varint::{self, Reader};

use super::path::{ItemPath, PathError};
use super::tree::Hash;
use super::wire::{BlockRange, Entry, EntryKind, ItemInfo, Modified, Version, WireError};

/// Every field that media/1 knows, by the numbers of M-4.6.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Fields {
    pub(super) path: Option<Vec<u8>>,
    pub(super) recursive: Option<u8>,
    pub(super) version: Option<[u8; 16]>,
    pub(super) first_block: Option<u64>,
    pub(super) block_count: Option<u64>,
    pub(super) priority: Option<u8>,
    pub(super) kind: Option<u8>,
    pub(super) size: Option<u64>,
    pub(super) modified: Option<[u8; 12]>,
    pub(super) media_type: Option<Vec<u8>>,
    pub(super) root: Option<[u8; 32]>,
    pub(super) code: Option<u16>,
    pub(super) text: Option<Vec<u8>>,
    pub(super) link: Option<u8>,
    pub(super) paths: Option<Vec<u8>>,
    pub(super) mode: Option<u16>,
}

impl Fields {
    pub(super) fn set_range(&mut self, version: Option<Version>, range: BlockRange) {
        self.version = version.map(|version| version.0);
        self.first_block = (range.first != 0).then_some(range.first);
        self.block_count = (range.count != u64::MAX).then_some(range.count);
    }

    pub(super) fn range(&self) -> BlockRange {
        BlockRange {
            first: self.first_block.unwrap_or_default(),
            count: self.block_count.unwrap_or(u64::MAX),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let mut put = |number: u64, value: Option<&[u8]>| {
            if let Some(value) = value {
                varint::put(&mut body, number);
                varint::put(&mut body, value.len() as u64);
                body.extend_from_slice(value);
            }
        };
        put(0x01, self.path.as_deref());
        put(0x02, self.recursive.map(|byte| [byte]).as_ref().map(|value| value.as_slice()));
        put(0x03, self.version.as_ref().map(|value| value.as_slice()));
        put(0x04, self.first_block.map(u64::to_be_bytes).as_ref().map(|value| value.as_slice()));
        put(0x05, self.block_count.map(u64::to_be_bytes).as_ref().map(|value| value.as_slice()));
        put(0x06, self.priority.map(|byte| [byte]).as_ref().map(|value| value.as_slice()));
        put(0x07, self.kind.map(|byte| [byte]).as_ref().map(|value| value.as_slice()));
        put(0x08, self.size.map(u64::to_be_bytes).as_ref().map(|value| value.as_slice()));
        put(0x09, self.modified.as_ref().map(|value| value.as_slice()));
        put(0x0a, self.media_type.as_deref());
        put(0x0b, self.root.as_ref().map(|value| value.as_slice()));
        put(0x0c, self.code.map(u16::to_be_bytes).as_ref().map(|value| value.as_slice()));
        put(0x0d, self.text.as_deref());
        put(0x0e, self.link.map(|byte| [byte]).as_ref().map(|value| value.as_slice()));
        put(0x0f, self.paths.as_deref());
        put(0x10, self.mode.map(u16::to_be_bytes).as_ref().map(|value| value.as_slice()));
        body
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut fields = Self::default();
        let mut reader = Reader::new(body);
        while !reader.is_empty() {
            let number = reader.varint()?;
            let value = reader.with_length()?;
            match number {
                0x01 => set(&mut fields.path, value.to_vec())?,
                0x02 => set(&mut fields.recursive, u8::from_be_bytes(exact(value)?))?,
                0x03 => set(&mut fields.version, exact(value)?)?,
                0x04 => set(&mut fields.first_block, u64::from_be_bytes(exact(value)?))?,
                0x05 => set(&mut fields.block_count, u64::from_be_bytes(exact(value)?))?,
                0x06 => set(&mut fields.priority, u8::from_be_bytes(exact(value)?))?,
                0x07 => set(&mut fields.kind, u8::from_be_bytes(exact(value)?))?,
                0x08 => set(&mut fields.size, u64::from_be_bytes(exact(value)?))?,
                0x09 => set(&mut fields.modified, exact(value)?)?,
                0x0a => set(&mut fields.media_type, value.to_vec())?,
                0x0b => set(&mut fields.root, exact(value)?)?,
                0x0c => set(&mut fields.code, u16::from_be_bytes(exact(value)?))?,
                0x0d => set(&mut fields.text, value.to_vec())?,
                0x0e => set(&mut fields.link, u8::from_be_bytes(exact(value)?))?,
                0x0f => set(&mut fields.paths, value.to_vec())?,
                0x10 => set(&mut fields.mode, u16::from_be_bytes(exact(value)?))?,
                _ => {} // M-4.2
            }
        }
        Ok(fields)
    }

    fn modified(&self) -> Result<Modified, WireError> {
        let bytes = self.modified.ok_or(WireError::Malformed("no modified time"))?;
        let [s0, s1, s2, s3, s4, s5, s6, s7, nanos @ ..] = bytes;
        let seconds = i64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let nanos = u32::from_be_bytes(nanos);
        match nanos {
            0..1_000_000_000 => Ok(Modified { seconds, nanos }),
            _ => {
                Err(WireError::Malformed("a modified time with more than a second of nanoseconds"))
            }
        }
    }

    fn media_type(&mut self) -> String {
        let bytes = self.media_type.take().unwrap_or_default();
        // It ends up in HTTP headers and on terminals.
        let is_plain =
            bytes.len() <= 127 && bytes.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
        String::from_utf8(bytes).ok().filter(|_| is_plain).unwrap_or_default()
    }
}

/// What a mode may say (M-12.7): who may read, write and execute, and nothing that lends an owner's rights.
pub(super) fn permissions(mode: u16) -> u16 {
    mode & 0o777
}

fn modified_bytes(modified: Modified) -> [u8; 12] {
    let mut bytes = [0; 12];
    let (seconds, nanos) = bytes.split_at_mut(8);
    seconds.copy_from_slice(&modified.seconds.to_be_bytes());
    nanos.copy_from_slice(&modified.nanos.to_be_bytes());
    bytes
}

fn set<T>(field: &mut Option<T>, value: T) -> Result<(), WireError> {
    match field.replace(value) {
        Some(_) => Err(WireError::Malformed("a field that stands twice")),
        None => Ok(()),
    }
}

fn exact<const N: usize>(value: &[u8]) -> Result<[u8; N], WireError> {
    value.try_into().map_err(|_| WireError::Malformed("a field of the wrong length"))
}

impl From<&Entry> for Fields {
    fn from(entry: &Entry) -> Self {
        Self {
            path: Some(entry.path.as_bytes().to_vec()),
            kind: Some(match entry.kind {
                EntryKind::File => 1,
                EntryKind::Folder => 2,
                EntryKind::Unknown(kind) => kind,
            }),
            size: Some(entry.size),
            modified: Some(modified_bytes(entry.modified)),
            media_type: Some(entry.media_type.clone().into_bytes())
                .filter(|bytes| !bytes.is_empty()),
            link: entry.is_link.then_some(1),
            mode: entry.mode,
            ..Self::default()
        }
    }
}

impl TryFrom<Fields> for Entry {
    type Error = WireError;

    fn try_from(mut fields: Fields) -> Result<Self, WireError> {
        let path = ItemPath::new(fields.path.take().unwrap_or_default());
        let path =
            path.and_then(|path| if path.is_root() { Err(PathError::Empty) } else { Ok(path) });
        Ok(Self {
            path: path
                .map_err(|_| WireError::Malformed("an entry with a name that no item can have"))?,
            kind: match fields.kind {
                Some(1) => EntryKind::File,
                Some(2) => EntryKind::Folder,
                kind => EntryKind::Unknown(kind.unwrap_or_default()),
            },
            is_link: fields.link.is_some_and(|byte| byte != 0),
            size: fields.size.unwrap_or_default(),
            modified: fields.modified()?,
            mode: fields.mode.map(permissions),
            media_type: fields.media_type(),
        })
    }
}

impl From<&ItemInfo> for Fields {
    fn from(info: &ItemInfo) -> Self {
        Self {
            size: Some(info.size),
            modified: Some(modified_bytes(info.modified)),
            media_type: Some(info.media_type.clone().into_bytes()),
            version: Some(info.version.0),
            root: info.root.map(|root| root.0),
            mode: info.mode,
            ..Self::default()
        }
    }
}

impl TryFrom<Fields> for ItemInfo {
    type Error = WireError;

    fn try_from(mut fields: Fields) -> Result<Self, WireError> {
        Ok(Self {
            size: fields.size.ok_or(WireError::Malformed("an item without a size"))?,
            modified: fields.modified()?,
            version: Version(
                fields.version.ok_or(WireError::Malformed("an item without a version"))?,
            ),
            root: fields.root.map(Hash),
            mode: fields.mode.map(permissions),
            media_type: fields.media_type(),
        })
    }
}
