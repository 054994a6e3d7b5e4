//! READ MANY (M-12): many small files in one answer, for whoever fetches a folder.
//!
//! Here are the bytes of the question and the asking side; `read_many.rs` answers.

use bytes::Bytes;
use cabo_proto::wire::varint::{self, Reader};

use super::client::{Answers, MediaClient};
use super::error::{MediaError, Refusal};
use super::path::ItemPath;
use super::tree::{BLOCK_BYTES, Hash};
use super::wire::{Answer, ItemInfo, Request, WireError};

/// Bytes of paths that one request takes, so that it stays within the longest message (M-4.3).
pub const MAX_WANTED_BYTES: usize = 60 * 1024;

/// A file that READ MANY asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wanted {
    /// Where it stands.
    pub item: ItemPath,
    /// The root of what the client has: the same is not sent.
    pub known: Option<Hash>,
}

impl Wanted {
    /// Bytes that it takes in a request, of [`MAX_WANTED_BYTES`].
    pub fn wire_bytes(&self) -> usize {
        let path = self.item.as_bytes().len();
        varint::len(path as u64) + path + 1 + self.known.map_or(0, |known| known.0.len())
    }
}

/// One file of an answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ManyItem {
    /// What the server says about it.
    pub info: ItemInfo,
    /// Its bytes, not yet verified; none if it is what the client has, longer than a block, or was not asked for.
    pub(super) bytes: Option<Bytes>,
}

impl ManyItem {
    /// The bytes, if they came, proved by the root.
    pub fn verified(self) -> Result<(ItemInfo, Option<Bytes>), MediaError> {
        let is_right = |bytes: &Bytes| {
            self.info.root.is_some_and(|root| root.0 == *blake3::hash(bytes).as_bytes())
        };
        match self.bytes.as_ref().is_none_or(is_right) {
            true => Ok((self.info, self.bytes)),
            false => Err(MediaError::WrongBlock { index: 0 }),
        }
    }
}

impl MediaClient {
    /// Asks for many files at once, none longer than a block; without `has_blocks` only for what they are (M-12).
    /// The paths must not take more than [`MAX_WANTED_BYTES`].
    pub async fn read_many(
        &self,
        wanted: Vec<Wanted>,
        has_blocks: bool,
        priority: u8,
    ) -> Result<ManyReader, MediaError> {
        let request = Request::ReadMany { wanted, has_blocks, priority };
        let answers = self.ask(&request).await?;
        let Request::ReadMany { wanted, .. } = request else {
            return Err(MediaError::Malformed("our own request"));
        };
        Ok(ManyReader { answers, wanted: wanted.into_iter(), has_blocks, is_ended: false })
    }
}

/// Files under way, in the order of the request.
pub struct ManyReader {
    answers: Answers,
    wanted: std::vec::IntoIter<Wanted>,
    has_blocks: bool,
    is_ended: bool,
}

impl ManyReader {
    /// The next file, or why the server does not send it; none after the last. Dropping the reader cancels the request.
    pub async fn next(&mut self) -> Result<Option<Result<ManyItem, Refusal>>, MediaError> {
        let Some(wanted) = self.wanted.next() else {
            if !self.is_ended {
                self.answers.end().await?;
                self.is_ended = true;
            }
            return Ok(None);
        };
        let info = match self.answers.next().await? {
            Answer::Item(info) => info,
            Answer::Miss(refusal) => return Ok(Some(Err(refusal))),
            Answer::Entry(_)
            | Answer::Hashes { .. }
            | Answer::Block { .. }
            | Answer::End { .. }
            | Answer::Error(_) => return Err(MediaError::Malformed("a file that is missing")),
        };
        let is_small = info.size <= BLOCK_BYTES;
        if is_small && info.root.is_none() {
            return Err(MediaError::Malformed("a small file without its root"));
        }
        let is_known = info.root.is_some() && info.root == wanted.known;
        if !is_small || is_known || !self.has_blocks {
            return Ok(Some(Ok(ManyItem { info, bytes: None })));
        }
        let bytes = match info.size {
            0 => Bytes::new(), // has no block
            _ => self.block(&info).await?,
        };
        Ok(Some(Ok(ManyItem { info, bytes: Some(bytes) })))
    }

    async fn block(&mut self, info: &ItemInfo) -> Result<Bytes, MediaError> {
        match self.answers.next().await? {
            Answer::Block { index: 0, hash, bytes }
                if Some(hash) == info.root && bytes.len() as u64 == info.size =>
            {
                Ok(bytes)
            }
            Answer::Block { .. } => {
                Err(MediaError::Malformed("another block than the file's only one"))
            }
            Answer::Entry(_)
            | Answer::Item(_)
            | Answer::Hashes { .. }
            | Answer::End { .. }
            | Answer::Miss(_)
            | Answer::Error(_) => Err(MediaError::Malformed("a file without its block")),
        }
    }
}

/// The value of the field `paths` (M-12.2).
pub(super) fn encode(wanted: &[Wanted]) -> Vec<u8> {
    let mut value = Vec::with_capacity(wanted.iter().map(Wanted::wire_bytes).sum());
    for Wanted { item, known } in wanted {
        varint::put(&mut value, item.as_bytes().len() as u64);
        value.extend_from_slice(item.as_bytes());
        let known = known.as_ref().map_or([].as_slice(), |known| &known.0);
        varint::put(&mut value, known.len() as u64);
        value.extend_from_slice(known);
    }
    value
}

pub(super) fn decode(value: &[u8]) -> Result<Vec<Wanted>, WireError> {
    let mut reader = Reader::new(value);
    let mut wanted = Vec::new();
    while !reader.is_empty() {
        let item = ItemPath::new(reader.with_length()?)
            .map_err(|_| WireError::Malformed("a path that no item can have"))?;
        let known = match reader.with_length()? {
            [] => None,
            known => Some(Hash(
                known.try_into().map_err(|_| WireError::Malformed("a root of another length"))?,
            )),
        };
        wanted.push(Wanted { item, known });
    }
    Ok(wanted)
}
