//! The BLAKE3 tree over blocks of 1 MiB (M-2): what proves a range, a resumed prefix and the whole.
//!
//! ```text
//!                  root            equals plain `b3sum` of the file
//!                /      \
//!            node        \         inner nodes are BLAKE3's own parent nodes
//!           /    \        \
//!         b0      b1      b2       block hashes: chaining values of 1024 chunks, the last may be shorter
//! ```
//!
//! Pure: no file, no clock. `serve.rs` makes hashes, `client.rs` and `fetch.rs` check them.

use std::fmt;

use blake3::Hasher;
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

/// Bytes of every block but the last (M-2.1).
pub const BLOCK_BYTES: u64 = 1 << 20;

/// The hash of a block (M-2.2), or the root over all of them (M-2.3).
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Hash(pub [u8; 32]);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How many blocks a file of `size` bytes has; none if it is empty (M-2.1).
pub fn block_count(size: u64) -> u64 {
    size.div_ceil(BLOCK_BYTES)
}

/// How many bytes block `index` of a file of `size` bytes has; 0 beyond its end (M-2.1).
pub fn block_len(size: u64, index: u64) -> usize {
    let start = index.saturating_mul(BLOCK_BYTES);
    let length = size.saturating_sub(start).min(BLOCK_BYTES);
    usize::try_from(length).unwrap_or(0) // at most 1 MiB
}

/// The hash of block `index` of a file of `size` bytes, whose content is `bytes` (M-2.2).
pub fn block_hash(size: u64, index: u64, bytes: &[u8]) -> Hash {
    if size <= BLOCK_BYTES || bytes.is_empty() {
        return Hash(*blake3::hash(bytes).as_bytes()); // the only block is the root itself
    }
    let mut hasher = Hasher::new();
    hasher.set_input_offset(index.saturating_mul(BLOCK_BYTES));
    // A longer slice than a block would overrun the subtree, which blake3 answers with a panic.
    let length = bytes.len().min(block_len(u64::MAX, 0));
    hasher.update(bytes.get(..length).unwrap_or_default());
    Hash(hasher.finalize_non_root())
}

/// The root over block hashes that come in order, in memory of one hash a tree level (M-2.3).
#[derive(Clone, Debug, Default)]
pub struct RootBuilder {
    /// Whole subtrees waiting for a right sibling, the largest first: one for each set bit of `merged`.
    stack: Vec<[u8; 32]>,
    /// The newest block is held back: only when another follows is it known not to be the last.
    newest: Option<[u8; 32]>,
    merged: u64,
}

impl RootBuilder {
    /// Adds the hash of the next block.
    pub fn push(&mut self, block: Hash) {
        let Some(mut subtree) = self.newest.replace(block.0) else { return };
        self.merged = self.merged.wrapping_add(1);
        for _ in 0..self.merged.trailing_zeros() {
            let Some(left) = self.stack.pop() else { break };
            subtree = merge_subtrees_non_root(&left, &subtree, Mode::Hash);
        }
        self.stack.push(subtree);
    }

    /// How many hashes were added.
    pub fn count(&self) -> u64 {
        self.merged + u64::from(self.newest.is_some())
    }

    /// The root over all hashes that were added; that of the empty file if there was none.
    pub fn root(&self) -> Hash {
        let Some(newest) = self.newest else { return Hash(*blake3::hash(b"").as_bytes()) };
        let Some((first, between)) = self.stack.split_first() else { return Hash(newest) };
        let right = between
            .iter()
            .rev()
            .fold(newest, |right, left| merge_subtrees_non_root(left, &right, Mode::Hash));
        Hash(*merge_subtrees_root(first, &right, Mode::Hash).as_bytes())
    }
}

/// The root over all block hashes of a file (M-2.3).
pub fn root(blocks: impl IntoIterator<Item = Hash>) -> Hash {
    let mut builder = RootBuilder::default();
    blocks.into_iter().for_each(|block| builder.push(block));
    builder.root()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = BLOCK_BYTES as usize;

    fn content(size: usize) -> Vec<u8> {
        (0..size).map(|index| (index % 251) as u8 ^ (index >> 16) as u8).collect()
    }

    fn blocks(content: &[u8]) -> impl Iterator<Item = Hash> {
        let size = content.len() as u64;
        content
            .chunks(MIB)
            .enumerate()
            .map(move |(index, block)| block_hash(size, index as u64, block))
    }

    /// M-2.3: the root is what `b3sum` prints, for every shape of tree.
    #[test]
    fn the_root_equals_the_plain_hash() {
        let small =
            [0, 1, 1023, 1024, 1025, 65_536, MIB - 1, MIB, MIB + 1, MIB + 1024, MIB * 3 + MIB / 2];
        let shapes = (2..=17).flat_map(|count| [MIB * count - 1, MIB * count, MIB * count + 1]);
        let content = content(MIB * 17 + 1);
        for size in small.into_iter().chain(shapes) {
            let content = &content[..size];
            assert_eq!(root(blocks(content)).0, *blake3::hash(content).as_bytes(), "{size} bytes");
        }
    }

    #[test]
    fn a_builder_can_be_asked_at_any_block() {
        let content = content(MIB * 9);
        let mut builder = RootBuilder::default();
        for (index, hash) in blocks(&content).enumerate() {
            builder.push(hash);
            assert_eq!(builder.count(), index as u64 + 1);
            if index > 0 {
                assert_eq!(
                    builder.root().0,
                    *blake3::hash(&content[..MIB * (index + 1)]).as_bytes()
                );
            }
        }
    }

    #[test]
    fn blocks_cover_the_file_and_nothing_more() {
        for size in [0, 1, BLOCK_BYTES, BLOCK_BYTES + 1, 5 * BLOCK_BYTES - 1] {
            let total: u64 =
                (0..block_count(size)).map(|index| block_len(size, index) as u64).sum();
            assert_eq!(total, size);
            assert_eq!(block_len(size, block_count(size)), 0);
        }
        assert_eq!(block_len(u64::MAX, u64::MAX), 0);
    }

    #[test]
    fn swapped_blocks_have_other_hashes() {
        let zeros = vec![0; MIB];
        assert_ne!(
            block_hash(3 * BLOCK_BYTES, 0, &zeros),
            block_hash(3 * BLOCK_BYTES, 1, &zeros),
            "the place counts"
        );
    }
}
