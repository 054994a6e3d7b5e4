//! Sets of numbers kept as ranges: packets that arrived (T-2), bytes acknowledged or to be sent again (T-4).
//!
//! Ranges are half-open, disjoint and never adjacent, in ascending order. No clock, no peer bytes.

use std::collections::VecDeque;
use std::ops::Range;

/// A set of `u64` below `u64::MAX`, as ranges.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RangeSet {
    ranges: VecDeque<Range<u64>>,
    limit: usize, // ranges; beyond it the lowest is dropped
}

impl Default for RangeSet {
    fn default() -> Self {
        Self::new()
    }
}

impl RangeSet {
    /// A set without a limit of its own: what is inserted bounds it.
    pub fn new() -> Self {
        Self::with_limit(usize::MAX)
    }

    /// A set of at most `limit` ranges (at least one), which forgets the lowest numbers first.
    pub fn with_limit(limit: usize) -> Self {
        Self { ranges: VecDeque::new(), limit: limit.max(1) }
    }

    /// Adds one number; false if it was there, or is `u64::MAX`, which no set can hold.
    pub fn insert(&mut self, number: u64) -> bool {
        self.insert_range(number..number.saturating_add(1))
    }

    /// Adds a range; false if all of it was there already.
    pub fn insert_range(&mut self, new: Range<u64>) -> bool {
        if new.is_empty() {
            return false;
        }
        let first = self.ranges.partition_point(|held| held.end < new.start);
        let Some(held) = self.ranges.get_mut(first).filter(|held| held.start <= new.end) else {
            self.ranges.insert(first, new);
            if self.ranges.len() > self.limit {
                self.ranges.pop_front();
            }
            return true;
        };
        if held.start <= new.start && new.end <= held.end {
            return false;
        }
        held.start = held.start.min(new.start);
        held.end = held.end.max(new.end);
        let end = held.end;
        let behind = self.ranges.range(first + 1..).take_while(|next| next.start <= end).count();
        let mut merged = end;
        for range in self.ranges.drain(first + 1..first + 1 + behind) {
            merged = merged.max(range.end);
        }
        if let Some(held) = self.ranges.get_mut(first) {
            held.end = merged;
        }
        true
    }

    /// Takes a range out.
    pub fn remove_range(&mut self, gone: Range<u64>) {
        if gone.is_empty() {
            return;
        }
        let first = self.ranges.partition_point(|held| held.end <= gone.start);
        let touched = self.ranges.range(first..).take_while(|held| held.start < gone.end).count();
        let mut rest: [Option<Range<u64>>; 2] = [None, None];
        for held in self.ranges.drain(first..first + touched) {
            if held.start < gone.start {
                rest[0] = Some(held.start..gone.start);
            }
            if held.end > gone.end {
                rest[1] = Some(gone.end..held.end);
            }
        }
        for range in rest.into_iter().flatten().rev() {
            self.ranges.insert(first, range);
        }
    }

    /// Forgets all numbers below `floor`.
    pub fn remove_below(&mut self, floor: u64) {
        self.remove_range(0..floor);
    }

    /// Takes out and returns the lowest range, or the first `max_len` numbers of it.
    pub fn pop_first(&mut self, max_len: u64) -> Option<Range<u64>> {
        let held = self.ranges.front_mut()?;
        let cut = held.start.saturating_add(max_len);
        if cut >= held.end {
            return self.ranges.pop_front();
        }
        let taken = held.start..cut;
        held.start = cut;
        (!taken.is_empty()).then_some(taken)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.ranges.clear();
    }

    /// True if `number` is in the set.
    pub fn contains(&self, number: u64) -> bool {
        let at = self.ranges.partition_point(|held| held.end <= number);
        self.ranges.get(at).is_some_and(|held| held.start <= number)
    }

    /// The lowest number.
    pub fn min(&self) -> Option<u64> {
        self.ranges.front().map(|range| range.start)
    }

    /// The highest number.
    pub fn max(&self) -> Option<u64> {
        self.ranges.back().map(|range| range.end - 1)
    }

    /// The lowest range.
    pub fn first(&self) -> Option<Range<u64>> {
        self.ranges.front().cloned()
    }

    /// The ranges, ascending; `.rev()` is the order of an acknowledgement.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Range<u64>> + ExactSizeIterator + '_ {
        self.ranges.iter().cloned()
    }

    /// How many ranges there are.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// True if no number is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many numbers there are.
    pub fn total(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[Range<u64>]) -> RangeSet {
        let mut set = RangeSet::new();
        for range in ranges {
            set.insert_range(range.clone());
        }
        set
    }

    fn ranges(set: &RangeSet) -> Vec<Range<u64>> {
        set.iter().collect()
    }

    #[test]
    fn all_operations_agree_with_a_naive_set() {
        let mut random = fastrand::Rng::with_seed(7);
        for round in 0..200 {
            let mut model = std::collections::BTreeSet::new();
            let mut tested = RangeSet::new();
            for step in 0..60 {
                let start = random.u64(0..64);
                let range = start..start + random.u64(0..9);
                if random.u8(0..3) == 0 {
                    tested.remove_range(range.clone());
                    model.retain(|number| !range.contains(number));
                } else {
                    let fresh = range.clone().filter(|&number| model.insert(number)).count() > 0;
                    assert_eq!(tested.insert_range(range), fresh, "round {round} step {step}");
                }
                let held: Vec<u64> = tested.iter().flatten().collect();
                assert_eq!(
                    held,
                    model.iter().copied().collect::<Vec<_>>(),
                    "round {round} step {step}"
                );
                let pairs = ranges(&tested);
                assert!(
                    pairs.windows(2).all(|pair| pair[0].end < pair[1].start),
                    "adjacent ranges are one: {pairs:?}"
                );
                assert_eq!(tested.total() as usize, model.len());
                assert_eq!(
                    (tested.min(), tested.max()),
                    (model.first().copied(), model.last().copied())
                );
                for number in 0..75 {
                    assert_eq!(tested.contains(number), model.contains(&number));
                }
            }
        }
    }

    #[test]
    fn the_lowest_range_goes_when_there_are_too_many() {
        let mut set = RangeSet::with_limit(2);
        for number in [10, 20, 30] {
            assert!(set.insert(number));
        }
        assert_eq!(ranges(&set), [20..21, 30..31]);
        assert!(set.insert(5), "below all others: it is dropped at once");
        assert_eq!(ranges(&set), [20..21, 30..31]);
    }

    #[test]
    fn the_first_range_is_taken_in_pieces() {
        let mut set = set(&[3..10, 12..14]);
        assert_eq!(set.pop_first(4), Some(3..7));
        assert_eq!(set.pop_first(0), None);
        assert_eq!(set.pop_first(4), Some(7..10));
        assert_eq!(set.pop_first(u64::MAX), Some(12..14));
        assert_eq!(set.pop_first(1), None);
    }

    #[test]
    fn the_highest_number_of_all_is_not_held() {
        let mut set = RangeSet::new();
        assert!(!set.insert(u64::MAX));
        assert!(set.insert(u64::MAX - 1));
        assert_eq!(set.max(), Some(u64::MAX - 1));
    }
}
