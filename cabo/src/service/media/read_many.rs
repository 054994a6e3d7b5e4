//! Answers to READ MANY (M-12): files read and hashed in parts of about a block, the next part while one is sent.
//!
//! `serve.rs` grants the memory and minds the client's pace, `catalogue.rs` opens the files.

use std::iter::Peekable;
use std::vec::IntoIter;

use tokio::io::AsyncWrite;

use super::catalogue::{Catalogue, OpenItem};
use super::error::{ErrorCode, Refusal};
use super::many::Wanted;
use super::serve::{Answers, MediaServer, ServeError, stopped};
use super::tree::{self, BLOCK_BYTES, Hash};
use super::wire::{Answer, ItemInfo, block_head};

/// A part is sent once it has so many bytes; it has at most a block's bytes of files, and the heads of these.
const PART_BYTES: usize = 256 * 1024;

impl MediaServer {
    /// M-12: each file's ITEM with its block, or why there is none; then END.
    pub(super) async fn read_many<W>(
        &self,
        wanted: Vec<Wanted>,
        has_blocks: bool,
        answers: &mut Answers<W>,
    ) -> Result<(), ServeError>
    where
        W: AsyncWrite + Unpin + Send,
    {
        let _permit = self.memory(2).await?; // a part that is sent, and one that is read
        answers.pressure = Some(self.pressure());
        let mut left = wanted.into_iter().peekable();
        let read = |mut left: Peekable<IntoIter<Wanted>>| {
            let catalogue = self.catalogue.clone();
            tokio::task::spawn_blocking(move || {
                let part = read_part(&catalogue, &mut left, has_blocks);
                (part, left)
            })
        };
        let mut reading = read(left);
        loop {
            let part;
            (part, left) = reading.await.map_err(|_| stopped())?;
            if left.peek().is_none() {
                answers.write_all(&part).await?;
                return Ok(answers.write(&Answer::End { root: None }).await?);
            }
            reading = read(left);
            answers.write_all(&part).await?;
        }
    }
}

/// Answers for as many files as make a part.
fn read_part(
    catalogue: &Catalogue,
    left: &mut Peekable<IntoIter<Wanted>>,
    has_blocks: bool,
) -> Vec<u8> {
    let mut part = Vec::new();
    let mut read_bytes = 0; // also what is read only for its hash
    while let Some(wanted) = left.peek() {
        let answer = match Answered::new(catalogue, wanted, has_blocks) {
            Ok(answer) if read_bytes > 0 && read_bytes + answer.to_read() > BLOCK_BYTES => break,
            Ok(answer) => {
                read_bytes += answer.to_read();
                answer.write(catalogue, &mut part)
            }
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = answer {
            part.extend_from_slice(&Answer::Miss(refusal).encode());
        }
        left.next();
        if part.len() >= PART_BYTES {
            break;
        }
    }
    part
}

/// What one file is answered with.
struct Answered {
    item: OpenItem,
    info: ItemInfo,
    /// What the client has.
    known: Option<Hash>,
    has_block: bool,
}

impl Answered {
    fn new(catalogue: &Catalogue, wanted: &Wanted, has_blocks: bool) -> Result<Self, Refusal> {
        let item = catalogue.open_item(&wanted.item)?;
        let mut info = item.info.clone();
        if info.size == 0 {
            info.root = Some(tree::root([]));
        }
        Ok(Self { item, info, known: wanted.known, has_block: has_blocks })
    }

    /// Bytes of the disk that the answer takes: none of a file that has to be asked for alone.
    fn to_read(&self) -> u64 {
        let is_sent = self.has_block && self.info.root != self.known;
        match self.info.size {
            0 => 0,
            size if size > BLOCK_BYTES => 0,
            _ if self.info.root.is_some() && !is_sent => 0,
            size => size,
        }
    }

    /// Appends the ITEM, and the BLOCK where there is one to send; or nothing.
    fn write(mut self, catalogue: &Catalogue, part: &mut Vec<u8>) -> Result<(), Refusal> {
        let mut block = None;
        if self.to_read() > 0 {
            let (hash, bytes) = self.item.read_block(0)?;
            let kept = catalogue.hashes.file(self.info.version, self.info.size);
            if kept.is_some_and(|kept| !kept.keep(0, hash)) {
                catalogue.hashes.forget(self.info.version);
                return Err(ErrorCode::Changed.into());
            }
            self.info.root = Some(hash);
            let is_sent = self.has_block && self.known != Some(hash);
            block = is_sent.then_some((hash, bytes));
        }
        part.extend_from_slice(&Answer::Item(self.info).encode());
        if let Some((hash, bytes)) = block {
            part.extend_from_slice(&block_head(0, hash, bytes.len()));
            part.extend_from_slice(&bytes);
        }
        Ok(())
    }
}
