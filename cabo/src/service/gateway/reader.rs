//! The bytes of one answer in order, with blocks asked for ahead, but only of a reader that has shown that it goes on:
//! players look into the head and the tail of a film before they settle, and what is sent in vain delays the picture.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use tokio::sync::OwnedSemaphorePermit;

use super::blocks::{Blocks, Item, Want, count};
use super::source::{PlayError, Source};
use crate::service::media::tree::{BLOCK_BYTES, block_count};

/// What is handed on at once: little, so that what waits in buffers for a player that stands still is little too.
const SLICE_BYTES: usize = 64 * 1024;
/// The urgency of a block that a reader waits for; each one ahead of it is less urgent by one.
const URGENT: u8 = 200;

/// Reads a range of an item.
#[derive(Debug)]
pub(super) struct Reader<S> {
    blocks: Arc<Blocks<S>>,
    item: Arc<Item>,
    /// Bytes of the item that are still to be handed on.
    left: Range<u64>,
    start: u64,
    /// The block that is handed on, and its number.
    current: Option<(u64, Bytes)>,
    /// The blocks from `next_ahead - ahead.len()` on.
    ahead: VecDeque<Want>,
    next_ahead: u64,
    _permit: Option<OwnedSemaphorePermit>,
}

impl<S: Source> Reader<S> {
    /// Reads `range` of `item`; asks for nothing yet. Holds `permit` as long as it lives.
    pub(super) fn new(
        blocks: Arc<Blocks<S>>,
        item: Arc<Item>,
        range: Range<u64>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let end = range.end.min(item.info.size);
        let start = range.start.min(end);
        let next_ahead = start / BLOCK_BYTES;
        Self {
            blocks,
            item,
            left: start..end,
            start,
            current: None,
            ahead: VecDeque::new(),
            next_ahead,
            _permit: permit,
        }
    }

    /// Waits for the first block, so that what is wrong shows before an answer begins.
    pub(super) async fn begin(&mut self) -> Result<(), PlayError> {
        if self.left.is_empty() { Ok(()) } else { self.turn().await.map(drop) }
    }

    /// The next bytes; none at the end. Not to be called again after an error.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, PlayError>> {
        if self.left.is_empty() {
            return None;
        }
        let block = match self.turn().await {
            Ok(block) => block,
            Err(error) => return Some(Err(error)),
        };
        let offset = usize::try_from(self.left.start % BLOCK_BYTES).unwrap_or_default();
        let left = usize::try_from(self.left.end - self.left.start).unwrap_or(usize::MAX);
        let end = block.len().min(offset.saturating_add(left.min(SLICE_BYTES)));
        if offset >= end {
            // The client checks the length of every block; a short one never gets here.
            return Some(Err(PlayError::Senseless(
                "a block is shorter than it has to be".to_owned(),
            )));
        }
        let slice = block.slice(offset..end);
        self.left.start += slice.len() as u64;
        count(&self.blocks.counts.bytes, slice.len() as u64);
        Some(Ok(slice))
    }

    /// The block in which the next byte lies.
    async fn turn(&mut self) -> Result<Bytes, PlayError> {
        let index = self.left.start / BLOCK_BYTES;
        if let Some((_, bytes)) = self.current.as_ref().filter(|(current, _)| *current == index) {
            return Ok(bytes.clone());
        }
        self.current = None;
        self.reach(index);
        let want = match self.ahead.pop_front() {
            // What was asked ahead may have failed long ago, while the player paused.
            Some(want) if !want.has_failed() => want,
            Some(_) | None => self.blocks.want(&self.item, index, URGENT),
        };
        let bytes = want.block().await?;
        self.current = Some((index, bytes.clone()));
        Ok(bytes)
    }

    /// Has `index` come, and as many blocks behind it as this reader has read before, within bounds.
    fn reach(&mut self, index: u64) {
        let read = (self.left.start - self.start).div_ceil(BLOCK_BYTES);
        let far = index.saturating_add(read.min(self.blocks.settings.ahead_blocks));
        let last = block_count(self.left.end).saturating_sub(1);
        while self.next_ahead <= far.min(last) {
            let distance = u8::try_from(self.next_ahead.saturating_sub(index)).unwrap_or(u8::MAX);
            let want =
                self.blocks.want(&self.item, self.next_ahead, URGENT.saturating_sub(distance));
            self.ahead.push_back(want);
            self.next_ahead += 1;
        }
    }
}

/// A reader that is getting its next bytes.
type Step<S> = Pin<Box<dyn Future<Output = (Reader<S>, Option<Result<Bytes, PlayError>>)> + Send>>;

/// A reader as the body of an answer; dropping it cancels what it waits for.
pub(super) enum ReaderBody<S> {
    Waiting(Reader<S>),
    Busy(Step<S>),
    Ended,
}

impl<S: Source> Stream for ReaderBody<S> {
    type Item = Result<Bytes, PlayError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut step: Step<S> = match std::mem::replace(&mut *self, Self::Ended) {
            Self::Waiting(mut reader) => Box::pin(async move {
                let result = reader.next().await;
                (reader, result)
            }),
            Self::Busy(step) => step,
            Self::Ended => return Poll::Ready(None),
        };
        let Poll::Ready((reader, result)) = step.as_mut().poll(cx) else {
            *self = Self::Busy(step);
            return Poll::Pending;
        };
        if matches!(result, Some(Ok(_))) {
            *self = Self::Waiting(reader);
        }
        Poll::Ready(result)
    }
}
