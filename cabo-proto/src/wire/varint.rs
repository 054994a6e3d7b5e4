//! Variable-length integers (W-1.2) and the reader that every parser of this room stands on.
//!
//! The form is that of RFC 9000 section 16: the two top bits of the first byte give the length.

/// The largest value that a varint holds.
pub const MAX: u64 = (1 << 62) - 1;

/// Why bytes of a peer could not be read, and where.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct Malformed {
    /// What is wrong, for people.
    pub what: &'static str,
    /// Offset into the bytes that were to be read.
    pub at: usize,
}

/// Bytes of the shortest form of `value`; values beyond [`MAX`] count as [`MAX`].
pub const fn len(value: u64) -> usize {
    match value {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        0x4000..0x4000_0000 => 4,
        _ => 8,
    }
}

/// Appends `value` in its shortest form. It must be at most [`MAX`]; in release a larger one is written as [`MAX`].
pub fn put(out: &mut Vec<u8>, value: u64) {
    debug_assert!(value <= MAX, "{value} does not fit a varint");
    let value = value.min(MAX);
    let bytes = value.to_be_bytes();
    let length = len(value);
    let start = out.len();
    out.extend_from_slice(&bytes[bytes.len() - length..]);
    out[start] |= (length.trailing_zeros() as u8) << 6; // 1, 2, 4, 8 bytes are 0, 1, 2, 3
}

/// Appends `value` with its length before it.
pub(super) fn put_with_length(out: &mut Vec<u8>, value: &[u8]) {
    put(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Reads bytes of a peer from front to back. A read that fails takes nothing.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the first of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// How many bytes were read.
    pub const fn position(&self) -> usize {
        self.position
    }

    /// How many bytes are left.
    pub const fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.position)
    }

    /// Whether nothing is left.
    pub const fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// The next `length` bytes.
    pub fn bytes(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        match self.ahead().get(..length) {
            Some(bytes) => {
                self.position += length;
                Ok(bytes)
            }
            None => Err(self.malformed("cut short")),
        }
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        match self.ahead().first_chunk() {
            Some(bytes) => {
                self.position += N;
                Ok(*bytes)
            }
            None => Err(self.malformed("cut short")),
        }
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// A varint of any form, the shortest or not (W-1.2).
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let Some(first) = self.ahead().first() else {
            return Err(self.malformed("cut short"));
        };
        Ok(match first >> 6 {
            0 => u64::from(self.u8()?),
            1 => u64::from(self.u16()? & 0x3FFF),
            2 => u64::from(self.u32()? & 0x3FFF_FFFF),
            _ => self.u64()? & MAX,
        })
    }

    /// A varint and as many bytes as it says. If there are fewer, the complaint is about the varint.
    pub fn with_length(&mut self) -> Result<&'a [u8], Malformed> {
        let mut ahead = self.clone();
        let length = ahead.varint()?;
        let length = usize::try_from(length).map_err(|_| self.malformed("cut short"))?;
        let bytes = ahead.bytes(length).map_err(|_| self.malformed("cut short"))?;
        self.position = ahead.position;
        Ok(bytes)
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        let rest = self.ahead();
        self.position = self.bytes.len();
        rest
    }

    /// The complaint `what` about the byte that would be read next.
    pub const fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { what, at: self.position }
    }

    fn ahead(&self) -> &'a [u8] {
        self.bytes.get(self.position..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::seeded;

    #[test]
    fn every_length_is_the_shortest_up_to_its_border() {
        for (value, bytes) in [
            (0, &[0x00][..]),
            (63, &[0x3F]),
            (64, &[0x40, 0x40]),
            (16_383, &[0x7F, 0xFF]),
            (16_384, &[0x80, 0x00, 0x40, 0x00]),
            ((1 << 30) - 1, &[0xBF, 0xFF, 0xFF, 0xFF]),
            (1 << 30, &[0xC0, 0, 0, 0, 0x40, 0, 0, 0]),
            (MAX, &[0xFF; 8]),
        ] {
            let mut out = vec![0xDD];
            put(&mut out, value);
            assert_eq!((out[0], &out[1..]), (0xDD, bytes), "{value}");
            assert_eq!(len(value), bytes.len(), "{value}");
            assert_eq!(Reader::new(bytes).varint(), Ok(value));
        }
    }

    #[test]
    fn a_read_that_fails_takes_nothing() {
        let mut reader = Reader::new(&[0xC0, 1, 2]);
        let short = Malformed { what: "cut short", at: 0 };
        assert_eq!(reader.varint(), Err(short));
        assert_eq!(reader.u64(), Err(short));
        assert_eq!(reader.u32(), Err(short));
        assert_eq!(reader.bytes(4), Err(short));
        assert_eq!(reader.bytes(usize::MAX), Err(short));
        assert_eq!(reader.array::<4>(), Err(short));
        assert_eq!(reader.with_length(), Err(short));
        assert_eq!((reader.u8(), reader.position(), reader.remaining()), (Ok(0xC0), 1, 2));
        assert_eq!(reader.with_length(), Ok(&[2][..]));
        assert!(reader.is_empty() && reader.rest().is_empty());
        assert_eq!(reader.u8(), Err(Malformed { what: "cut short", at: 3 }));
    }

    #[test]
    fn fixed_integers_are_big_endian() {
        let mut reader = Reader::new(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
        assert_eq!((reader.u8(), reader.u16()), (Ok(1), Ok(0x0203)));
        assert_eq!((reader.u32(), reader.u64()), (Ok(0x0405_0607), Ok(0x0809_0A0B_0C0D_0E0F)));
        assert_eq!(reader.rest(), [16]);
    }

    proptest! {
        #![proptest_config(seeded())]

        #[test]
        fn what_is_put_is_read(value in 0..=MAX, shift in 0u32..62, dirt: u8) {
            let value = value >> shift;
            let mut out = vec![dirt];
            put(&mut out, value);
            let mut reader = Reader::new(&out[1..]);
            prop_assert_eq!(reader.varint()?, value);
            prop_assert_eq!((reader.is_empty(), reader.position()), (true, len(value)));
        }
    }
}
