//! Stream ids (W-3.4) and the headers of the frames that carry bulk (W-3.1, W-3.3).

use std::fmt;

use super::super::varint;

/// How many streams of one opener and direction there can be, since their ids are varints.
pub const MOST_STREAMS: u64 = 1 << 60;

/// Type bit of STREAM: the offset is present.
pub(super) const OFFSET: u64 = 0x04;
/// Type bit of STREAM: the length is present.
pub(super) const LENGTH: u64 = 0x02;
/// Type bit of STREAM: the last byte of the frame is the last of the stream.
pub(super) const FIN: u64 = 0x01;

/// Who opened a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub enum Opener {
    /// The side that sent the first packet.
    Client = 0,
    /// The side that listens.
    Server = 1,
}

/// Which ways a stream carries bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub enum Direction {
    /// Both ways.
    Both = 0,
    /// From its opener only.
    One = 1,
}

/// A stream's number on its connection. Any value up to [`varint::MAX`] is one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct StreamId(pub u64);

impl StreamId {
    /// The stream with this `index`, below [`MOST_STREAMS`], of those of the same opener and direction.
    pub const fn new(opener: Opener, direction: Direction, index: u64) -> Self {
        debug_assert!(index < MOST_STREAMS, "no such stream");
        Self((index & (MOST_STREAMS - 1)) << 2 | (direction as u64) << 1 | opener as u64)
    }

    /// Who opened it.
    pub const fn opener(self) -> Opener {
        if self.0 & 0x01 == 0 { Opener::Client } else { Opener::Server }
    }

    /// Which ways it carries bytes.
    pub const fn direction(self) -> Direction {
        if self.0 & 0x02 == 0 { Direction::Both } else { Direction::One }
    }

    /// Its place among the streams of the same opener and direction, from 0.
    pub const fn index(self) -> u64 {
        self.0 >> 2
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let opener = match self.opener() {
            Opener::Client => "client",
            Opener::Server => "server",
        };
        let direction = match self.direction() {
            Direction::Both => "both-ways",
            Direction::One => "one-way",
        };
        write!(f, "{opener} {direction} {}", self.index())
    }
}

/// Appends the header of a STREAM frame; `data_len` bytes must follow, or with `None` all the rest of the body.
pub fn put_stream_header(
    out: &mut Vec<u8>,
    stream: StreamId,
    offset: u64,
    data_len: Option<usize>,
    fin: bool,
) {
    let mut kind = super::STREAM;
    kind |= if offset > 0 { OFFSET } else { 0 };
    kind |= if data_len.is_some() { LENGTH } else { 0 };
    kind |= if fin { FIN } else { 0 };
    varint::put(out, kind);
    varint::put(out, stream.0);
    if offset > 0 {
        varint::put(out, offset);
    }
    if let Some(length) = data_len {
        varint::put(out, length as u64);
    }
}

/// Bytes that [`put_stream_header`] appends.
pub const fn stream_header_len(stream: StreamId, offset: u64, data_len: Option<usize>) -> usize {
    let offset_len = if offset > 0 { varint::len(offset) } else { 0 };
    let length_len = match data_len {
        Some(length) => varint::len(length as u64),
        None => 0,
    };
    1 + varint::len(stream.0) + offset_len + length_len
}

/// Appends the header of a CRYPTO frame; `data_len` bytes must follow.
pub fn put_crypto_header(out: &mut Vec<u8>, offset: u64, data_len: usize) {
    varint::put(out, super::CRYPTO);
    varint::put(out, offset);
    varint::put(out, data_len as u64);
}

/// Bytes that [`put_crypto_header`] appends.
pub const fn crypto_header_len(offset: u64, data_len: usize) -> usize {
    1 + varint::len(offset) + varint::len(data_len as u64)
}

/// Appends the header of a DATAGRAM frame; `data_len` bytes must follow.
pub fn put_datagram_header(out: &mut Vec<u8>, data_len: usize) {
    varint::put(out, super::DATAGRAM);
    varint::put(out, data_len as u64);
}

/// Bytes that [`put_datagram_header`] appends.
pub const fn datagram_header_len(data_len: usize) -> usize {
    1 + varint::len(data_len as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_opener_direction_and_index() {
        for (id, opener, direction, index, text) in [
            (0, Opener::Client, Direction::Both, 0, "client both-ways 0"),
            (1, Opener::Server, Direction::Both, 0, "server both-ways 0"),
            (6, Opener::Client, Direction::One, 1, "client one-way 1"),
            (15, Opener::Server, Direction::One, 3, "server one-way 3"),
            (
                varint::MAX,
                Opener::Server,
                Direction::One,
                MOST_STREAMS - 1,
                "server one-way 1152921504606846975",
            ),
        ] {
            let stream = StreamId::new(opener, direction, index);
            assert_eq!(stream, StreamId(id));
            assert_eq!(
                (stream.opener(), stream.direction(), stream.index()),
                (opener, direction, index)
            );
            assert_eq!(stream.to_string(), text);
        }
    }

    #[test]
    fn headers_of_bulk_are_the_fewest_bytes() {
        let mut out = vec![0xDD];
        put_stream_header(&mut out, StreamId(4), 0, None, false);
        put_stream_header(&mut out, StreamId(4), 1000, Some(1400), true);
        put_crypto_header(&mut out, 0, 5);
        put_datagram_header(&mut out, 70);
        assert_eq!(out, [0xDD, 0x10, 4, 0x17, 4, 0x43, 0xE8, 0x45, 0x78, 3, 0, 5, 15, 0x40, 70]);
    }
}
