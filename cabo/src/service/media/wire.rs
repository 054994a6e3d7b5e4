//! Messages of media/1 <-> bytes (M-4 to M-9), and a reader that a peer cannot make wait or allocate without end.
//!
//! ```text
//!   +-------------+---------------+----------------------------------------------+
//!   | type varint | length varint | body, `length` bytes                         |   a message (M-4.1)
//!   +-------------+---------------+----------------------------------------------+
//!                                 | field varint | length varint | value | ...   |   all but HASHES and BLOCK (M-4.2)
//! ```
//!
//! `serve.rs` writes answers and reads requests, `client.rs` the other way round.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use cabo_proto::wire::varint::{self, Malformed, Reader};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use super::error::{ErrorCode, Refusal};
use super::fields::Fields;
use super::many::{self, Wanted};
use super::path::ItemPath;
use super::tree::{BLOCK_BYTES, Hash};

/// The longest body of any message but BLOCK (M-4.3).
pub(super) const MAX_MESSAGE_BYTES: u64 = 64 * 1024;
/// What a BLOCK has before the bytes of the block: its index and its hash (M-7.3).
const BLOCK_HEAD_BYTES: usize = 8 + 32;
/// Most hashes in one HASHES message (M-8.2).
pub(crate) const HASHES_PER_MESSAGE: usize = 1024;
/// Messages of unknown type that are skipped on one stream before the peer is called senseless (M-4.3).
const MAX_UNKNOWN: u32 = 64;
/// What is written or read before the deadline starts again.
pub(super) const PROGRESS_BYTES: usize = 64 * 1024;

mod kind {
    pub(super) const LIST: u64 = 0x01;
    pub(super) const DESCRIBE: u64 = 0x02;
    pub(super) const GET_HASHES: u64 = 0x03;
    pub(super) const READ: u64 = 0x04;
    pub(super) const READ_MANY: u64 = 0x05;
    pub(super) const ENTRY: u64 = 0x10;
    pub(super) const ITEM: u64 = 0x11;
    pub(super) const HASHES: u64 = 0x12;
    pub(super) const BLOCK: u64 = 0x13;
    pub(super) const END: u64 = 0x14;
    pub(super) const ERROR: u64 = 0x15;
    pub(super) const MISS: u64 = 0x16;
}

/// Why messages cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The stream broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer neither sent nor took anything for the whole of the deadline.
    #[error("nothing moved for {seconds} s")]
    Stalled {
        /// The deadline, in seconds.
        seconds: u64,
    },
    /// The bytes are no message that may come here.
    #[error("{0}")]
    Malformed(&'static str),
}

impl From<Malformed> for WireError {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error.what)
    }
}

/// An opaque name of one state of one file (M-6.2): other bytes under the same path have another version.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Version(pub [u8; 16]);

/// When an item was modified, in Unix time.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Modified {
    /// Seconds since 1970; negative before.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, below 10^9.
    pub nanos: u32,
}

/// What an entry of a folder is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum EntryKind {
    /// A regular file: an item that can be read.
    File,
    /// A folder that can be listed.
    Folder,
    /// Something that this version does not know; clients leave it out.
    Unknown(u8),
}

/// One entry of a listed folder (M-5.2).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The path from the folder that was listed.
    pub path: ItemPath,
    /// File or folder.
    pub kind: EntryKind,
    /// Whether it is a symlink (to something inside); a recursive listing does not follow it.
    pub is_link: bool,
    /// Bytes of the file; 0 for a folder.
    pub size: u64,
    /// When it was last modified.
    pub modified: Modified,
    /// Who may read, write and execute it (`0o777` at most), where the server says so (M-12.7).
    pub mode: Option<u16>,
    /// The media type, guessed from the name; empty for a folder.
    pub media_type: String,
}

/// What a server says about a file (M-6.1).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ItemInfo {
    /// Its bytes.
    pub size: u64,
    /// When it was last modified.
    pub modified: Modified,
    /// Who may read, write and execute it (`0o777` at most), where the server says so (M-12.7).
    pub mode: Option<u16>,
    /// Its media type, guessed from the name.
    pub media_type: String,
    /// The state that is described.
    pub version: Version,
    /// What `b3sum` prints, if the server knows it by now.
    pub root: Option<Hash>,
}

/// Blocks of a file: `count` of them from `first` on, or fewer if it ends before (M-7.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BlockRange {
    /// The first block.
    pub first: u64,
    /// How many; `u64::MAX` for all to the end.
    pub count: u64,
}

impl BlockRange {
    /// Every block of a file.
    pub const ALL: Self = Self { first: 0, count: u64::MAX };

    /// The blocks that a file of `size` bytes has of these.
    pub fn within(self, size: u64) -> std::ops::Range<u64> {
        let blocks = super::tree::block_count(size);
        self.first.min(blocks)..self.first.saturating_add(self.count).min(blocks)
    }
}

/// What a client asks for, once on a stream (M-4.4).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Request {
    List { folder: ItemPath, is_recursive: bool },
    Describe { item: ItemPath },
    Hashes { item: ItemPath, version: Option<Version>, range: BlockRange },
    Read { item: ItemPath, version: Option<Version>, range: BlockRange, priority: u8 },
    ReadMany { wanted: Vec<Wanted>, has_blocks: bool, priority: u8 },
}

/// What a server answers with: any number of them, END or ERROR last (M-4.5).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    Entry(Entry),
    Item(ItemInfo),
    Hashes { first: u64, hashes: Vec<Hash> },
    Block { index: u64, hash: Hash, bytes: Bytes },
    End { root: Option<Hash> },
    Error(Refusal),
    Miss(Refusal),
}

impl Request {
    /// The whole message.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut fields = Fields::default();
        let (kind, item) = match self {
            Self::List { folder, is_recursive } => {
                fields.recursive = is_recursive.then_some(1);
                (kind::LIST, folder)
            }
            Self::Describe { item } => (kind::DESCRIBE, item),
            Self::Hashes { item, version, range } => {
                fields.set_range(*version, *range);
                (kind::GET_HASHES, item)
            }
            Self::Read { item, version, range, priority } => {
                fields.set_range(*version, *range);
                fields.priority = Some(*priority);
                (kind::READ, item)
            }
            Self::ReadMany { wanted, has_blocks, priority } => {
                fields.paths = Some(many::encode(wanted));
                fields.block_count = (!has_blocks).then_some(0);
                fields.priority = Some(*priority);
                return message(kind::READ_MANY, &fields.encode());
            }
        };
        fields.path = Some(item.as_bytes().to_vec());
        message(kind, &fields.encode())
    }

    fn decode(kind: u64, body: &[u8]) -> Result<Self, WireError> {
        let mut fields = Fields::decode(body)?;
        if kind == kind::READ_MANY {
            let paths = fields.paths.ok_or(WireError::Malformed("a request without paths"))?;
            return Ok(Self::ReadMany {
                wanted: many::decode(&paths)?,
                has_blocks: fields.block_count != Some(0),
                priority: fields.priority.unwrap_or_default(),
            });
        }
        let path = fields.path.take().ok_or(WireError::Malformed("a request without a path"))?;
        let item = ItemPath::new(path)
            .map_err(|_| WireError::Malformed("a path that no item can have"))?;
        let (version, range) = (fields.version.map(Version), fields.range());
        Ok(match kind {
            kind::LIST => Self::List {
                folder: item,
                is_recursive: fields.recursive.is_some_and(|byte| byte != 0),
            },
            kind::DESCRIBE => Self::Describe { item },
            kind::GET_HASHES => Self::Hashes { item, version, range },
            kind::READ => {
                Self::Read { item, version, range, priority: fields.priority.unwrap_or_default() }
            }
            _ => return Err(WireError::Malformed("a request of unknown type")),
        })
    }
}

impl Answer {
    /// The whole message. For a BLOCK see [`block_head`], which copies no block.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Entry(entry) => message(kind::ENTRY, &Fields::from(entry).encode()),
            Self::Item(info) => message(kind::ITEM, &Fields::from(info).encode()),
            Self::End { root } => {
                let fields = Fields { root: root.map(|root| root.0), ..Fields::default() };
                message(kind::END, &fields.encode())
            }
            Self::Error(refusal) => message(kind::ERROR, &Fields::from(refusal).encode()),
            Self::Miss(refusal) => message(kind::MISS, &Fields::from(refusal).encode()),
            Self::Hashes { first, hashes } => {
                let mut body = first.to_be_bytes().to_vec();
                hashes.iter().for_each(|hash| body.extend_from_slice(&hash.0));
                message(kind::HASHES, &body)
            }
            Self::Block { index, hash, bytes } => {
                [&block_head(*index, *hash, bytes.len()), bytes.as_ref()].concat()
            }
        }
    }

    fn decode(kind: u64, body: Bytes) -> Result<Self, WireError> {
        match kind {
            kind::ENTRY => Ok(Self::Entry(Fields::decode(&body)?.try_into()?)),
            kind::ITEM => Ok(Self::Item(Fields::decode(&body)?.try_into()?)),
            kind::END => Ok(Self::End { root: Fields::decode(&body)?.root.map(Hash) }),
            kind::ERROR => Ok(Self::Error(Fields::decode(&body)?.into())),
            kind::MISS => Ok(Self::Miss(Fields::decode(&body)?.into())),
            kind::HASHES => {
                decode_hashes(&body).ok_or(WireError::Malformed("a list of hashes of odd length"))
            }
            kind::BLOCK => {
                decode_block(&body).ok_or(WireError::Malformed("a block without a head"))
            }
            _ => Err(WireError::Malformed("an answer of unknown type")),
        }
    }
}

fn decode_hashes(body: &[u8]) -> Option<Answer> {
    let (first, hashes) = body.split_first_chunk::<8>()?;
    let (hashes, rest) = hashes.as_chunks::<32>();
    let hashes = hashes.iter().copied().map(Hash).collect();
    rest.is_empty().then_some(Answer::Hashes { first: u64::from_be_bytes(*first), hashes })
}

fn decode_block(body: &Bytes) -> Option<Answer> {
    let (index, rest) = body.split_first_chunk::<8>()?;
    let (hash, _) = rest.split_first_chunk::<32>()?;
    Some(Answer::Block {
        index: u64::from_be_bytes(*index),
        hash: Hash(*hash),
        bytes: body.slice(BLOCK_HEAD_BYTES..),
    })
}

/// All of a BLOCK message but the `length` bytes of the block, which follow (M-7.3).
pub(crate) fn block_head(index: u64, hash: Hash, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BLOCK_HEAD_BYTES + 9);
    varint::put(&mut bytes, kind::BLOCK);
    varint::put(&mut bytes, (BLOCK_HEAD_BYTES + length) as u64);
    bytes.extend_from_slice(&index.to_be_bytes());
    bytes.extend_from_slice(&hash.0);
    bytes
}

fn message(kind: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 9);
    varint::put(&mut bytes, kind);
    varint::put(&mut bytes, body.len() as u64);
    bytes.extend_from_slice(body);
    bytes
}

/// Reads messages off a stream, each step under a deadline (M-4.3).
pub(crate) struct MessageReader<R> {
    recv: BufReader<R>,
    stall: Duration,
    unknown: u32,
}

impl<R: AsyncRead + Unpin> MessageReader<R> {
    pub(crate) fn new(recv: R, stall: Duration) -> Self {
        Self { recv: BufReader::with_capacity(4096, recv), stall, unknown: 0 }
    }

    pub(crate) async fn request(&mut self) -> Result<Request, WireError> {
        let (kind, body) = self.next(|_| true).await?;
        Request::decode(kind, &body)
    }

    pub(crate) async fn answer(&mut self) -> Result<Answer, WireError> {
        let (kind, body) = self.next(|kind| (kind::ENTRY..=kind::MISS).contains(&kind)).await?;
        Answer::decode(kind, body)
    }

    async fn next(&mut self, is_known: impl Fn(u64) -> bool) -> Result<(u64, Bytes), WireError> {
        loop {
            let kind = self.varint().await?;
            let length = self.varint().await?;
            let longest = if kind == kind::BLOCK {
                BLOCK_BYTES + BLOCK_HEAD_BYTES as u64
            } else {
                MAX_MESSAGE_BYTES
            };
            if length > longest {
                return Err(WireError::Malformed("a message that is too long"));
            }
            let body = self.body(length).await?;
            if is_known(kind) {
                return Ok((kind, body));
            }
            self.unknown += 1;
            if self.unknown > MAX_UNKNOWN {
                return Err(WireError::Malformed("too many messages of unknown type"));
            }
        }
    }

    async fn varint(&mut self) -> Result<u64, WireError> {
        let mut bytes = [0; 8];
        bytes[0] = moving(self.stall, self.recv.read_u8()).await?;
        let length = 1usize << (bytes[0] >> 6);
        for byte in bytes.iter_mut().take(length).skip(1) {
            *byte = moving(self.stall, self.recv.read_u8()).await?;
        }
        Ok(Reader::new(&bytes).varint()?)
    }

    async fn body(&mut self, length: u64) -> Result<Bytes, WireError> {
        let mut body = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        let mut left = length;
        while left > 0 {
            let step =
                moving(self.stall, async { (&mut self.recv).take(left).read_buf(&mut body).await })
                    .await?;
            if step == 0 {
                return Err(WireError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            left = left.saturating_sub(step as u64);
        }
        Ok(body.into())
    }
}

/// Writes all of `bytes`; the peer has to take a part of 64 KiB within each `stall`.
pub(crate) async fn write_moving<W>(
    send: &mut W,
    bytes: &[u8],
    stall: Duration,
) -> Result<(), WireError>
where
    W: AsyncWrite + Unpin,
{
    for part in bytes.chunks(PROGRESS_BYTES) {
        moving(stall, send.write_all(part)).await?;
    }
    Ok(())
}

/// One step of reading or writing, under a deadline.
pub(crate) async fn moving<T>(
    stall: Duration,
    step: impl Future<Output = io::Result<T>>,
) -> Result<T, WireError> {
    match tokio::time::timeout(stall, step).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(WireError::Stalled { seconds: stall.as_secs() }),
    }
}

impl From<&Refusal> for Fields {
    fn from(refusal: &Refusal) -> Self {
        let text = refusal.text.chars().take(200).collect::<String>();
        Self {
            code: Some(refusal.code.to_wire()),
            text: Some(text.into_bytes()),
            ..Self::default()
        }
    }
}

impl From<Fields> for Refusal {
    fn from(fields: Fields) -> Self {
        let text = String::from_utf8_lossy(&fields.text.unwrap_or_default())
            .chars()
            .take(200)
            .collect::<String>();
        let text = text
            .chars()
            .map(|letter| if letter.is_control() { '\u{fffd}' } else { letter })
            .collect();
        Self { code: ErrorCode::from_wire(fields.code.unwrap_or_default()), text }
    }
}
