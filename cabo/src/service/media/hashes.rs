//! Block hashes that are known by now, in memory, per version of a file (M-8.3).
//!
//! A READ fills in what it hashes anyway, a HASHES request what is missing; both are in `serve.rs`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::tree::{self, Hash};
use super::wire::Version;

/// What an entry costs beside its hashes, in units of one hash.
const ENTRY_COST: usize = 8;

/// The hashes of the files that were asked for last, within a bound.
#[derive(Debug)]
pub(super) struct HashCache {
    limit: usize,
    state: Mutex<CacheState>,
}

#[derive(Debug, Default)]
struct CacheState {
    files: HashMap<Version, (u64, Arc<FileHashes>)>,
    /// Versions by when they were last asked for; the same counter stands in `files`.
    by_use: BTreeMap<u64, Version>,
    uses: u64,
    cost: usize,
}

/// The hashes of one version of one file.
#[derive(Debug)]
pub(super) struct FileHashes {
    state: Mutex<FileState>,
    /// Held while a missing block is read only for its hash, so that two requests never hash the same block.
    pub(super) filling: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct FileState {
    blocks: Vec<Option<Hash>>,
    missing: usize,
    root: Option<Hash>,
}

impl HashCache {
    /// A cache of at most `limit` block hashes, about 40 bytes each.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default() }
    }

    /// The place for the hashes of `version`; none if the file alone is beyond the bound.
    pub(super) fn file(&self, version: Version, size: u64) -> Option<Arc<FileHashes>> {
        let count = usize::try_from(tree::block_count(size)).ok()?;
        let cost = count.checked_add(ENTRY_COST).filter(|cost| *cost <= self.limit)?;
        let mut state = lock(&self.state);
        let state = &mut *state;
        state.uses += 1;
        if let Some((last_use, file)) = state.files.get_mut(&version) {
            state.by_use.remove(last_use);
            state.by_use.insert(state.uses, version);
            *last_use = state.uses;
            return Some(file.clone());
        }
        while state.cost + cost > self.limit && state.forget_oldest() {}
        let file = Arc::new(FileHashes::new(count));
        state.files.insert(version, (state.uses, file.clone()));
        state.by_use.insert(state.uses, version);
        state.cost += cost;
        Some(file)
    }

    /// The root of `version`, if all its hashes are known.
    pub(super) fn root(&self, version: Version) -> Option<Hash> {
        lock(&self.state).files.get(&version).and_then(|(_, file)| file.root())
    }

    /// Drops what was known of `version`: it turned out wrong.
    pub(super) fn forget(&self, version: Version) {
        lock(&self.state).forget(version);
    }
}

impl CacheState {
    fn forget_oldest(&mut self) -> bool {
        let oldest = self.by_use.first_key_value().map(|(_, version)| *version);
        oldest.inspect(|version| self.forget(*version)).is_some()
    }

    fn forget(&mut self, version: Version) {
        if let Some((last_use, file)) = self.files.remove(&version) {
            self.by_use.remove(&last_use);
            self.cost -= lock(&file.state).blocks.len() + ENTRY_COST;
        }
    }
}

impl FileHashes {
    fn new(count: usize) -> Self {
        let root = (count == 0).then(|| tree::root([]));
        let state = FileState { blocks: vec![None; count], missing: count, root };
        Self { state: Mutex::new(state), filling: tokio::sync::Mutex::default() }
    }

    /// The hash of a block, if it is known.
    pub(super) fn block(&self, index: u64) -> Option<Hash> {
        let index = usize::try_from(index).ok()?;
        lock(&self.state).blocks.get(index).copied().flatten()
    }

    /// Keeps the hash of a block; false if another one was known.
    pub(super) fn keep(&self, index: u64, hash: Hash) -> bool {
        let mut state = lock(&self.state);
        let Some(block) = usize::try_from(index).ok().and_then(|index| state.blocks.get_mut(index))
        else {
            return true;
        };
        if let Some(known) = block.replace(hash) {
            return known == hash;
        }
        state.missing -= 1;
        if state.missing == 0 {
            state.root = Some(tree::root(state.blocks.iter().flatten().copied()));
        }
        true
    }

    /// The root, once all blocks are known.
    pub(super) fn root(&self) -> Option<Hash> {
        lock(&self.state).root
    }
}

/// Each change under these locks is whole before anything can panic, so a poisoned one is still sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::media::tree::BLOCK_BYTES;

    fn version(number: u8) -> Version {
        Version([number; 16])
    }

    #[test]
    fn the_cache_stays_within_its_bound_and_forgets_the_oldest() {
        let cache = HashCache::new(3 * (ENTRY_COST + 4));
        for number in 0..3 {
            cache.file(version(number), 4 * BLOCK_BYTES).unwrap().keep(0, Hash([number; 32]));
        }
        cache.file(version(0), 4 * BLOCK_BYTES).unwrap();
        cache.file(version(3), 4 * BLOCK_BYTES).unwrap();
        let is_known =
            |number| cache.file(version(number), 4 * BLOCK_BYTES).unwrap().block(0).is_some();
        assert!(is_known(0), "it was asked for");
        assert!(!is_known(1), "it was the oldest");
        assert!(lock(&cache.state).cost <= cache.limit);
    }

    #[test]
    fn a_file_that_only_claims_to_be_huge_allocates_nothing() {
        assert!(HashCache::new(1000).file(version(0), u64::MAX).is_none());
    }

    #[test]
    fn the_root_is_known_with_the_last_block_in_any_order() {
        let cache = HashCache::new(1000);
        let file = cache.file(version(0), 3 * BLOCK_BYTES).unwrap();
        for index in [2, 0, 1] {
            assert_eq!(cache.root(version(0)), None);
            assert!(file.keep(index, Hash([index as u8; 32])));
        }
        let expected = tree::root((0..3).map(|index| Hash([index; 32])));
        assert_eq!(cache.root(version(0)), Some(expected));
        assert!(!file.keep(1, Hash([9; 32])), "another hash for the same version");
        cache.forget(version(0));
        assert_eq!((cache.root(version(0)), lock(&cache.state).cost), (None, 0));
    }
}
