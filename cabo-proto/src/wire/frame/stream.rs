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
