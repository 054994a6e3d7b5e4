//! ACK (W-3.2): which packets arrived, from the largest down.

use std::ops::RangeInclusive;

use super::super::varint::{self, Malformed, Reader};

/// The most (gap, length) pairs of one ACK.
pub const MOST_PAIRS: usize = 64;

/// The receiver's account of what arrived. Its ranges were checked when it was read: they descend, with a hole between
/// any two, and none passes below zero.
#[derive(Clone, Copy, Debug)]
pub struct Ack<'a> {
    /// The largest number received.
    pub largest: u64,
    /// Microseconds since it came, by the peer's clock.
    pub delay_micros: u64,
    first: u64,      // packets directly below `largest`
    pairs: &'a [u8], // as they came, proved
}

impl<'a> Ack<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let (largest, delay_micros) = (reader.varint()?, reader.varint()?);
        let at = reader.position();
        let count = reader.varint()?;
        if count > MOST_PAIRS as u64 {
            return Err(Malformed { what: "too many ranges", at });
        }
        let at = reader.position();
        let first = reader.varint()?;
        let Some(mut lowest) = largest.checked_sub(first) else {
            return Err(Malformed { what: "range below zero", at });
        };
        let mut pairs = reader.clone();
        let start = reader.position();
        for _ in 0..count {
            let at = reader.position();
            let next = below(lowest, reader.varint()?, reader.varint()?);
            lowest = *next.ok_or(Malformed { what: "range below zero", at })?.start();
        }
        let pairs = pairs.bytes(reader.position() - start)?;
        Ok(Self { largest, delay_micros, first, pairs })
    }

    /// Appends all of it, the pair included that [`put_ack`] never needs.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let pairs = || self.ranges().zip(self.ranges().skip(1));
        super::put_numbers(
            out,
            [super::ACK, self.largest, self.delay_micros, pairs().count() as u64, self.first],
        );
        for (above, range) in pairs() {
            super::put_numbers(out, [above.start() - range.end() - 2, range.end() - range.start()]);
        }
    }

    /// The ranges, from the largest down.
    pub fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u64>> + use<'a> {
        let mut pairs = Reader::new(self.pairs);
        let first = self.largest.saturating_sub(self.first)..=self.largest;
        std::iter::successors(Some(first), move |above| {
            let (gap, length) = (pairs.varint().ok()?, pairs.varint().ok()?);
            below(*above.start(), gap, length)
        })
    }
}

/// Accounts are equal if they say the same, in whatever form the numbers came.
impl PartialEq for Ack<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.delay_micros == other.delay_micros && self.ranges().eq(other.ranges())
    }
}

impl Eq for Ack<'_> {}

/// The range that a pair means under one whose lowest number is `lowest`.
fn below(lowest: u64, gap: u64, length: u64) -> Option<RangeInclusive<u64>> {
    let high = lowest.checked_sub(gap)?.checked_sub(2)?; // gap + 1 numbers are missing, then comes `high`
    Some(high.checked_sub(length)?..=high)
}

/// Appends an ACK of as many of `ranges` as 64 and `max_bytes` allow, and returns how many; nothing is written if not
/// even the first fits. The ranges must descend with a hole between any two: the first that does not ends the account.
pub fn put_ack(
    out: &mut Vec<u8>,
    delay_micros: u64,
    ranges: impl Iterator<Item = RangeInclusive<u64>>,
    max_bytes: usize,
) -> usize {
    let mut ranges = ranges.take(MOST_PAIRS); // one stands outside the pairs, so that their count is one byte
    let Some((mut lowest, largest)) = ranges.next().map(RangeInclusive::into_inner) else {
        return 0;
    };
    let Some(first) = largest.checked_sub(lowest) else { return 0 };
    let start = out.len();
    varint::put(out, super::ACK);
    varint::put(out, largest);
    varint::put(out, delay_micros.min(varint::MAX));
    let count_at = out.len();
    varint::put(out, 0);
    varint::put(out, first);
    if out.len() - start > max_bytes {
        out.truncate(start);
        return 0;
    }
    let mut written = 1;
    for (low, high) in ranges.map(RangeInclusive::into_inner) {
        let gap = lowest.checked_sub(high).and_then(|distance| distance.checked_sub(2));
        let (Some(gap), Some(length)) = (gap, high.checked_sub(low)) else { break };
        if out.len() - start + varint::len(gap) + varint::len(length) > max_bytes {
            break;
        }
        varint::put(out, gap);
        varint::put(out, length);
        lowest = low;
        written += 1;
        out[count_at] += 1;
    }
    written
}
