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

#[cfg(test)]
mod tests {
    use super::super::{Frame, Frames};
    use super::*;

    fn put_all(ranges: &[RangeInclusive<u64>], max_bytes: usize) -> (usize, Vec<u8>) {
        let mut out = vec![0xDD];
        let written = put_ack(&mut out, 250, ranges.iter().cloned(), max_bytes);
        assert_eq!(out.remove(0), 0xDD);
        (written, out)
    }

    fn ranges_of(body: &[u8]) -> Vec<RangeInclusive<u64>> {
        match Frames::new(body).next() {
            Some(Ok(Frame::Ack(ack))) => ack.ranges().collect(),
            other => panic!("{other:?}"),
        }
    }

    fn refusal(body: &[u8]) -> &'static str {
        match Frames::new(body).next() {
            Some(Err(error)) => error.what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_account_is_the_bytes_of_the_drawing() {
        let (written, bytes) = put_all(&[90..=100, 87..=87, 0..=85], usize::MAX);
        assert_eq!(bytes, [0x02, 0x40, 100, 0x40, 0xFA, 2, 10, 1, 0, 0, 0x40, 85]);
        assert_eq!((written, ranges_of(&bytes)), (3, vec![90..=100, 87..=87, 0..=85]));
    }

    #[test]
    fn sixty_four_ranges_fit_and_the_oldest_of_more_are_left_out() {
        let ranges: Vec<_> = (0..70).rev().map(|place| place * 10..=place * 10 + 7).collect();
        let (written, bytes) = put_all(&ranges, usize::MAX);
        assert_eq!((written, ranges_of(&bytes)), (64, ranges[..64].to_vec()));
        assert_eq!(bytes[5], 63, "pairs beside the first range");
    }

    #[test]
    fn a_peer_may_send_sixty_four_pairs_and_not_one_more() {
        let body = |pairs: u8| [&[2, 0x41, 0, 0, 0x40, pairs, 0][..], &[0; 130][..]].concat();
        assert_eq!(ranges_of(&body(64)).len(), 65);
        assert_eq!(ranges_of(&body(64)).last(), Some(&(128..=128)));
        assert_eq!(refusal(&body(65)), "too many ranges");
        let mut again = Vec::new();
        match Frames::new(&body(64)).next() {
            Some(Ok(frame)) => frame.put(&mut again),
            other => panic!("{other:?}"),
        }
        assert_eq!(ranges_of(&again), ranges_of(&body(64)));
    }

    #[test]
    fn no_room_is_ever_exceeded_and_none_is_wasted() {
        let ranges: Vec<_> =
            (0..64).rev().map(|place| place * 1000..=place * 1000 + place).collect();
        let whole = put_all(&ranges, usize::MAX);
        let mut before = 0;
        for room in 0..=whole.1.len() {
            let (written, bytes) = put_all(&ranges, room);
            assert!(bytes.len() <= room, "{} of {room} bytes", bytes.len());
            assert!(
                (before..=before + 1).contains(&written),
                "{written} after {before} with {room} bytes"
            );
            assert_eq!(if written == 0 { vec![] } else { ranges_of(&bytes) }, ranges[..written]);
            before = written;
        }
        assert_eq!(put_all(&ranges, whole.1.len()), whole);
    }

    #[test]
    fn ranges_in_disorder_end_the_account_before_them() {
        for bad in [99..=99, 101..=102, 89..=89, 80..=95, RangeInclusive::new(70, 60), 90..=100] {
            let (written, bytes) = put_all(&[90..=100, bad.clone(), 1..=2], usize::MAX);
            assert_eq!((written, ranges_of(&bytes)), (1, vec![90..=100]), "{bad:?}");
        }
        assert_eq!(put_all(&[RangeInclusive::new(7, 6)], usize::MAX), (0, vec![]));
        assert_eq!(put_all(&[], usize::MAX), (0, vec![]));
    }

    #[test]
    fn no_range_passes_below_zero() {
        let body = |largest, first, gap, length| [2, largest, 0, 1, first, gap, length];
        for largest in 0..8 {
            for first in 0..10 {
                for (gap, length) in
                    (0..10).flat_map(|gap| (0..10).map(move |length| (gap, length)))
                {
                    let body = body(largest, first, gap, length);
                    let lowest = i32::from(largest)
                        - i32::from(first)
                        - i32::from(gap)
                        - 2
                        - i32::from(length);
                    if lowest < 0 {
                        assert_eq!(refusal(&body), "range below zero", "{body:?}");
                    } else {
                        let ranges = ranges_of(&body);
                        assert_eq!(
                            ranges.last().map(|range| *range.start() as i32),
                            Some(lowest),
                            "{body:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn huge_numbers_neither_wrap_nor_loop() {
        let huge = [0xFF; 8];
        let whole = [&[2][..], &huge, &[0, 0], &huge].concat(); // all packets that there can be
        assert_eq!(ranges_of(&whole), [0..=varint::MAX]);
        let beyond = [&[2][..], &huge, &[0, 1, 0], &huge, &huge].concat();
        assert_eq!(refusal(&beyond), "range below zero");
    }
}
