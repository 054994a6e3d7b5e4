//! Blocks of one READ that are read and hashed before they can be sent (M-7), within the memory that `serve.rs` grants.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use super::catalogue::OpenItem;
use super::error::Refusal;
use super::serve::stopped;
use super::tree::{Hash, RootBuilder, block_count};

/// The root, if the blocks of a request are all that the file has.
pub(super) struct RootOnTheWay(Option<RootBuilder>);

impl RootOnTheWay {
    pub(super) fn new(blocks: &Range<u64>) -> Self {
        Self((blocks.start == 0).then(RootBuilder::default))
    }

    pub(super) fn push(&mut self, hash: Hash) {
        if let Some(builder) = &mut self.0 {
            builder.push(hash);
        }
    }

    pub(super) fn of(&self, size: u64) -> Option<Hash> {
        self.0
            .as_ref()
            .filter(|builder| builder.count() == block_count(size))
            .map(RootBuilder::root)
    }
}

/// A block with its hash, and the memory it takes beside what its request holds.
type ReadBlock = (Hash, Bytes, Option<OwnedSemaphorePermit>);
type BlockJob = JoinHandle<Result<ReadBlock, Refusal>>;

/// Blocks of one READ that are being read, or wait to be sent.
pub(super) struct ReadAhead {
    item: Arc<OpenItem>,
    next: u64,
    end: u64,
    jobs: VecDeque<BlockJob>,
}

impl ReadAhead {
    /// Nothing is read before the first [`Self::fill`].
    pub(super) fn new(item: Arc<OpenItem>, blocks: Range<u64>) -> Self {
        Self { item, next: blocks.start, end: blocks.end, jobs: VecDeque::new() }
    }

    /// Starts jobs up to `most`: the first on the memory that the request holds, others if more is free.
    pub(super) fn fill(&mut self, most: usize, blocks: &Arc<Semaphore>) {
        while self.next < self.end && self.jobs.len() < most {
            let permit = match self.jobs.is_empty() {
                true => None,
                false => match blocks.clone().try_acquire_owned() {
                    Ok(permit) => Some(permit),
                    Err(_) => return,
                },
            };
            let (item, index) = (self.item.clone(), self.next);
            self.jobs.push_back(tokio::task::spawn_blocking(move || {
                let (hash, block) = item.read_block(index)?;
                Ok((hash, block.into(), permit))
            }));
            self.next += 1;
        }
    }

    pub(super) async fn next_block(&mut self) -> Option<Result<ReadBlock, Refusal>> {
        let job = self.jobs.pop_front()?;
        Some(job.await.unwrap_or_else(|_| Err(stopped())))
    }
}
