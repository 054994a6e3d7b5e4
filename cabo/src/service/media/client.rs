//! The asking side of media/1: one request a stream, every block verified before it is handed out.
//!
//! Rules: M-4 to M-9. `fetch.rs` builds whole files from it, a gateway builds ranges.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::SERVICE;
use super::error::MediaError;
use super::path::ItemPath;
use super::tree::{Hash, block_hash, block_len};
use super::wire::{
    Answer, BlockRange, Entry, EntryKind, ItemInfo, MessageReader, Request, Version, write_moving,
};
use crate::request::opening;

/// The half of a stream that a request is written to.
pub type SendHalf = Box<dyn AsyncWrite + Send + Unpin>;
/// The half of a stream that an answer is read from.
pub type RecvHalf = Box<dyn AsyncRead + Send + Unpin>;
/// A stream that is being opened.
pub type Opening<'a> = Pin<Box<dyn Future<Output = io::Result<(SendHalf, RecvHalf)>> + Send + 'a>>;

/// Something that opens bidirectional streams to a server: a session, or a test.
///
/// Dropping both halves has to cancel the request.
pub trait OpenStream: Send + Sync {
    /// Opens one stream.
    fn open(&self) -> Opening<'_>;
}

/// Asks a server. Cheap to clone; any number of requests may be under way.
#[derive(Clone)]
pub struct MediaClient {
    opener: Arc<dyn OpenStream>,
    stall: Duration,
}

impl MediaClient {
    /// A client over streams of `opener`, which gives a silent server up after 60 s.
    pub fn new(opener: impl OpenStream + 'static) -> Self {
        Self { opener: Arc::new(opener), stall: Duration::from_secs(60) }
    }

    /// The same with another deadline for a server that sends nothing.
    pub fn with_stall(self, stall: Duration) -> Self {
        Self { stall, ..self }
    }

    /// Lists a folder; with everything beneath it if `is_recursive` (M-5).
    pub async fn list(&self, folder: &ItemPath, is_recursive: bool) -> Result<Listing, MediaError> {
        let request = Request::List { folder: folder.clone(), is_recursive };
        Ok(Listing { answers: self.ask(&request).await?, is_recursive, is_ended: false })
    }

    /// Describes an item (M-6).
    pub async fn describe(&self, item: &ItemPath) -> Result<ItemInfo, MediaError> {
        let mut answers = self.ask(&Request::Describe { item: item.clone() }).await?;
        let mut info = answers.item(None).await?;
        info.root = answers.end().await?.or(info.root);
        Ok(info)
    }

    /// Asks for block hashes (M-8); refused if the item is no longer of `version`.
    pub async fn hashes(
        &self,
        item: &ItemPath,
        version: Option<Version>,
        range: BlockRange,
    ) -> Result<HashReader, MediaError> {
        let mut answers = self.ask(&Request::Hashes { item: item.clone(), version, range }).await?;
        let info = answers.item(version).await?;
        let range = range.within(info.size);
        Ok(HashReader { answers, info, range, page: Vec::new().into_iter(), end: None })
    }

    /// Reads blocks (M-7); refused if the item is no longer of `version`. A higher `priority` is more urgent.
    pub async fn read(
        &self,
        item: &ItemPath,
        version: Option<Version>,
        range: BlockRange,
        priority: u8,
    ) -> Result<BlockReader, MediaError> {
        let mut answers =
            self.ask(&Request::Read { item: item.clone(), version, range, priority }).await?;
        let info = answers.item(version).await?;
        let range = range.within(info.size);
        Ok(BlockReader { answers, info, range, end: None })
    }

    pub(super) async fn ask(&self, request: &Request) -> Result<Answers, MediaError> {
        let opened = tokio::time::timeout(self.stall, self.opener.open()).await;
        let stalled = |_| MediaError::Stalled { seconds: self.stall.as_secs() };
        let (mut send, recv) = opened.map_err(stalled)??;
        let mut bytes = opening(SERVICE).map_err(|_| MediaError::Malformed("our own opening"))?;
        bytes.extend_from_slice(&request.encode());
        write_moving(&mut send, &bytes, self.stall).await?;
        // A server that has read the request may close its side of it first; what else there is, reading tells.
        let _ = super::wire::moving(self.stall, send.shutdown()).await;
        Ok(Answers { reader: MessageReader::new(recv, self.stall), _send: send })
    }
}

/// The answers to one request.
pub(super) struct Answers {
    reader: MessageReader<RecvHalf>,
    /// Some carriers take a dropped half for a cancelled request.
    _send: SendHalf,
}

impl Answers {
    pub(super) async fn next(&mut self) -> Result<Answer, MediaError> {
        match self.reader.answer().await {
            Ok(Answer::Error(refusal)) => Err(refusal.into()),
            Ok(answer) => Ok(answer),
            Err(error) => Err(error.into()),
        }
    }

    async fn item(&mut self, version: Option<Version>) -> Result<ItemInfo, MediaError> {
        let Answer::Item(info) = self.next().await? else {
            return Err(MediaError::Malformed("an answer that does not begin with the item"));
        };
        if version.is_some_and(|version| version != info.version) {
            return Err(MediaError::Malformed("another version than was asked for"));
        }
        Ok(info)
    }

    pub(super) async fn end(&mut self) -> Result<Option<Hash>, MediaError> {
        let Answer::End { root } = self.next().await? else {
            return Err(MediaError::Malformed("more than was asked for"));
        };
        Ok(root)
    }
}

/// A listing under way. Entries come in no particular order, a folder before what is in it.
pub struct Listing {
    answers: Answers,
    is_recursive: bool,
    is_ended: bool,
}

impl Listing {
    /// The next entry; none at the end. Not to be polled again after an error, nor cancelled and taken up again.
    pub async fn next(&mut self) -> Result<Option<Entry>, MediaError> {
        while !self.is_ended {
            let entry = match self.answers.next().await? {
                Answer::Entry(entry) => entry,
                Answer::End { .. } => {
                    self.is_ended = true;
                    break;
                }
                Answer::Item(_)
                | Answer::Hashes { .. }
                | Answer::Block { .. }
                | Answer::Miss(_)
                | Answer::Error(_) => {
                    return Err(MediaError::Malformed("something else than an entry"));
                }
            };
            if !self.is_recursive && entry.path.components().count() != 1 {
                return Err(MediaError::Malformed("an entry of another folder"));
            }
            if !matches!(entry.kind, EntryKind::Unknown(_)) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}

/// Block hashes under way, in order.
pub struct HashReader {
    answers: Answers,
    info: ItemInfo,
    range: std::ops::Range<u64>,
    page: std::vec::IntoIter<Hash>,
    end: Option<Option<Hash>>,
}

impl HashReader {
    /// The item that they are of.
    pub fn info(&self) -> &ItemInfo {
        &self.info
    }

    /// The hash of the next block; none after the last that was asked for.
    pub async fn next(&mut self) -> Result<Option<Hash>, MediaError> {
        loop {
            if let Some(hash) = self.page.next() {
                self.range.start += 1;
                return Ok(Some(hash));
            }
            if self.end.is_some() {
                return Ok(None);
            }
            if self.range.is_empty() {
                self.end = Some(self.answers.end().await?);
                return Ok(None);
            }
            let Answer::Hashes { first, hashes } = self.answers.next().await? else {
                return Err(MediaError::Malformed("something else than hashes"));
            };
            let wanted = self.range.end - self.range.start;
            if first != self.range.start || hashes.is_empty() || hashes.len() as u64 > wanted {
                return Err(MediaError::Malformed("hashes of other blocks"));
            }
            self.page = hashes.into_iter();
        }
    }

    /// The root as the server knows it, once [`Self::next`] gave none.
    pub fn root(&self) -> Option<Hash> {
        self.end.flatten().or(self.info.root)
    }
}

/// One block whose bytes match its hash.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Block {
    /// Its place in the file, counted in blocks.
    pub index: u64,
    /// Its hash, as sent before it.
    pub hash: Hash,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Block {
    /// Whether the bytes are those that the hash promises, in a file of `size` bytes.
    pub(super) fn is_right(&self, size: u64) -> bool {
        block_hash(size, self.index, &self.bytes) == self.hash
    }
}

/// Blocks under way, in order.
pub struct BlockReader {
    answers: Answers,
    info: ItemInfo,
    range: std::ops::Range<u64>,
    end: Option<Option<Hash>>,
}

impl BlockReader {
    /// The item that is read.
    pub fn info(&self) -> &ItemInfo {
        &self.info
    }

    /// The next block, verified; none after the last that was asked for. Dropping the reader cancels the request.
    pub async fn next(&mut self) -> Result<Option<Block>, MediaError> {
        let size = self.info.size;
        match self.next_unverified().await? {
            Some(block) if !block.is_right(size) => {
                Err(MediaError::WrongBlock { index: block.index })
            }
            block => Ok(block),
        }
    }

    /// As [`Self::next`], for a caller that verifies the block on another thread.
    pub(super) async fn next_unverified(&mut self) -> Result<Option<Block>, MediaError> {
        if self.range.is_empty() {
            if self.end.is_none() {
                self.end = Some(self.answers.end().await?);
            }
            return Ok(None);
        }
        let Answer::Block { index, hash, bytes } = self.answers.next().await? else {
            return Err(MediaError::Malformed("something else than a block"));
        };
        if index != self.range.start || bytes.len() != block_len(self.info.size, index) {
            return Err(MediaError::Malformed("another block than was asked for"));
        }
        self.range.start += 1;
        Ok(Some(Block { index, hash, bytes }))
    }

    /// The root as the server knows it, once [`Self::next`] gave none.
    pub fn root(&self) -> Option<Hash> {
        self.end.flatten().or(self.info.root)
    }
}
