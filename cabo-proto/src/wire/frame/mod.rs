//! Frames (W-3): what the bodies of packets and records are made of.
//!
//! [`Frames`] reads a body without copying; [`Frame::put`] writes one frame. The bulk frames have headers of their own
//! ([`put_stream_header`], [`put_crypto_header`], [`put_datagram_header`]), so that a sender copies its bytes once, and
//! [`put_ack`] writes as many ranges as fit.

mod ack;
mod close;
mod stream;

pub use ack::{Ack, MOST_PAIRS, put_ack};
pub(super) use close::cut_text;
pub use close::{Close, LONGEST_REASON, Origin};
pub use stream::{
    Direction, MOST_STREAMS, Opener, StreamId, crypto_header_len, datagram_header_len,
    put_crypto_header, put_datagram_header, put_stream_header, stream_header_len,
};

use super::varint::{self, Malformed, Reader};

/// The first type of an extension (W-3.1).
pub const FIRST_EXTENSION: u64 = 0x40;

const PAD: u64 = 0x00;
const PING: u64 = 0x01;
const ACK: u64 = 0x02;
const CRYPTO: u64 = 0x03;
const RESET_STREAM: u64 = 0x04;
const STOP_SENDING: u64 = 0x05;
const MAX_DATA: u64 = 0x06;
const MAX_STREAM_DATA: u64 = 0x07;
const MAX_STREAMS: u64 = 0x08;
const DATA_BLOCKED: u64 = 0x09;
const STREAM_BLOCKED: u64 = 0x0A;
const PATH_CHALLENGE: u64 = 0x0B;
const PATH_RESPONSE: u64 = 0x0C;
const CLOSE: u64 = 0x0D;
const ADMITTED: u64 = 0x0E;
const DATAGRAM: u64 = 0x0F;
const STREAM: u64 = 0x10;
const LAST_STREAM: u64 = 0x17;

/// A packet-number space (W-2.6), of which records have a likeness (W-4.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub enum Space {
    /// The first flight of each side.
    Initial = 0,
    /// The rest of the handshake.
    Handshake = 1,
    /// Everything after it.
    Data = 2,
}

/// One frame, its bytes still where they were received.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Frame<'a> {
    /// A run of so many PAD frames.
    Pad(usize),
    /// Calls for an acknowledgement and does nothing else.
    Ping,
    /// Which packets arrived.
    Ack(Ack<'a>),
    /// Handshake bytes.
    Crypto {
        /// Of the first byte, in the handshake of this space.
        offset: u64,
        /// The bytes.
        data: &'a [u8],
    },
    /// The sender gives up a stream that it sends.
    ResetStream {
        /// Which.
        stream: StreamId,
        /// Why, in the application's terms.
        code: u64,
        /// How many bytes count against the credit.
        final_size: u64,
    },
    /// The sender no longer wants a stream that it receives.
    StopSending {
        /// Which.
        stream: StreamId,
        /// Why, in the application's terms.
        code: u64,
    },
    /// How many bytes may come in all streams together.
    MaxData(u64),
    /// How many bytes may come in one stream.
    MaxStreamData {
        /// Which.
        stream: StreamId,
        /// The credit, counted from the start of the stream.
        bytes: u64,
    },
    /// How many streams the peer may have opened, at most [`MOST_STREAMS`].
    MaxStreams {
        /// Of which direction.
        direction: Direction,
        /// Counted from the start of the connection.
        count: u64,
    },
    /// The sender has more, and this connection credit holds it back.
    DataBlocked(u64),
    /// The sender has more, and this credit of the stream holds it back.
    StreamBlocked {
        /// Which.
        stream: StreamId,
        /// The credit.
        limit: u64,
    },
    /// Asks for these bytes back, over the same path.
    PathChallenge([u8; 8]),
    /// Brings them.
    PathResponse([u8; 8]),
    /// The end of the connection.
    Close(Close<'a>),
    /// The server let this client in.
    Admitted,
    /// One item that may be lost.
    Datagram(&'a [u8]),
    /// Bytes of a stream.
    Stream {
        /// Which.
        stream: StreamId,
        /// Of the first byte.
        offset: u64,
        /// Whether the stream ends with these bytes.
        fin: bool,
        /// The bytes.
        data: &'a [u8],
    },
    /// An extension that this crate does not know; it is skipped.
    Unknown {
        /// Its type, at least [`FIRST_EXTENSION`].
        kind: u64,
        /// What it holds.
        data: &'a [u8],
    },
}

/// The frames of one body, in order. Nothing follows an error.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    reader: Reader<'a>,
    is_done: bool,
}

impl<'a> Frames<'a> {
    /// The frames of `body`; one without any bytes is malformed (W-2.10).
    pub const fn new(body: &'a [u8]) -> Self {
        Self { reader: Reader::new(body), is_done: false }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let frame = if self.reader.is_empty() {
            Err(self.reader.malformed("no frames"))
        } else {
            read(&mut self.reader)
        };
        self.is_done = frame.is_err() || self.reader.is_empty();
        Some(frame)
    }
}

impl std::iter::FusedIterator for Frames<'_> {}

fn read<'a>(reader: &mut Reader<'a>) -> Result<Frame<'a>, Malformed> {
    let at = reader.position();
    Ok(match reader.varint()? {
        PAD => Frame::Pad(1 + skip_zeros(reader)?),
        PING => Frame::Ping,
        ACK => Frame::Ack(Ack::read(reader)?),
        CRYPTO => {
            let (offset, data) = (reader.varint()?, reader.with_length()?);
            Frame::Crypto { offset: check_end(offset, data, at)?, data }
        }
        RESET_STREAM => Frame::ResetStream {
            stream: read_stream(reader)?,
            code: reader.varint()?,
            final_size: reader.varint()?,
        },
        STOP_SENDING => Frame::StopSending { stream: read_stream(reader)?, code: reader.varint()? },
        MAX_DATA => Frame::MaxData(reader.varint()?),
        MAX_STREAM_DATA => {
            Frame::MaxStreamData { stream: read_stream(reader)?, bytes: reader.varint()? }
        }
        MAX_STREAMS => read_max_streams(reader)?,
        DATA_BLOCKED => Frame::DataBlocked(reader.varint()?),
        STREAM_BLOCKED => {
            Frame::StreamBlocked { stream: read_stream(reader)?, limit: reader.varint()? }
        }
        PATH_CHALLENGE => Frame::PathChallenge(reader.array()?),
        PATH_RESPONSE => Frame::PathResponse(reader.array()?),
        CLOSE => Frame::Close(Close::read(reader)?),
        ADMITTED => Frame::Admitted,
        DATAGRAM => Frame::Datagram(reader.with_length()?),
        kind @ STREAM..=LAST_STREAM => {
            let stream = read_stream(reader)?;
            let offset = if kind & stream::OFFSET != 0 { reader.varint()? } else { 0 };
            let data =
                if kind & stream::LENGTH != 0 { reader.with_length()? } else { reader.rest() };
            Frame::Stream {
                stream,
                offset: check_end(offset, data, at)?,
                fin: kind & stream::FIN != 0,
                data,
            }
        }
        kind @ FIRST_EXTENSION.. => Frame::Unknown { kind, data: reader.with_length()? },
        _ => return Err(Malformed { what: "unknown frame", at }),
    })
}

fn skip_zeros(reader: &mut Reader<'_>) -> Result<usize, Malformed> {
    let zeros = reader.clone().rest().iter().take_while(|byte| **byte == 0).count();
    reader.bytes(zeros).map(<[u8]>::len)
}

fn read_stream(reader: &mut Reader<'_>) -> Result<StreamId, Malformed> {
    reader.varint().map(StreamId)
}

fn read_max_streams<'a>(reader: &mut Reader<'a>) -> Result<Frame<'a>, Malformed> {
    let at = reader.position();
    let direction = match reader.varint()? {
        0 => Direction::Both,
        1 => Direction::One,
        _ => return Err(Malformed { what: "unknown direction", at }),
    };
    let at = reader.position();
    match reader.varint()? {
        count if count > MOST_STREAMS => {
            Err(Malformed { what: "more streams than there are ids", at })
        }
        count => Ok(Frame::MaxStreams { direction, count }),
    }
}

/// `offset`, if the end of `data` stays below 2^62 (W-3.3).
fn check_end(offset: u64, data: &[u8], at: usize) -> Result<u64, Malformed> {
    match offset.checked_add(data.len() as u64) {
        Some(..=varint::MAX) => Ok(offset),
        Some(_) | None => Err(Malformed { what: "offset too large", at }),
    }
}

impl Frame<'_> {
    /// Whether a packet with this frame calls for an acknowledgement. An unknown extension does: its sender counts on
    /// it.
    pub const fn is_ack_eliciting(&self) -> bool {
        !matches!(self, Self::Pad(_) | Self::Ack(_) | Self::Close(_))
    }

    /// Whether the frame may stand in a packet of `space` (the table of W-3.1, W-3.5).
    pub const fn allowed_in(&self, space: Space) -> bool {
        match self {
            Self::Close(close) => {
                matches!(space, Space::Data) || matches!(close.origin, Origin::Protocol)
            }
            Self::Pad(_)
            | Self::Ping
            | Self::Ack(_)
            | Self::Crypto { .. }
            | Self::Unknown { .. } => true,
            Self::ResetStream { .. }
            | Self::StopSending { .. }
            | Self::MaxData(_)
            | Self::MaxStreamData { .. }
            | Self::MaxStreams { .. }
            | Self::DataBlocked(_)
            | Self::StreamBlocked { .. }
            | Self::PathChallenge(_)
            | Self::PathResponse(_)
            | Self::Admitted
            | Self::Datagram(_)
            | Self::Stream { .. } => matches!(space, Space::Data),
        }
    }

    /// Whether the frame may stand in a record of `space` (W-4.4).
    pub const fn allowed_in_record(&self, space: Space) -> bool {
        !matches!(self, Self::Ack(_) | Self::Ping | Self::PathChallenge(_) | Self::PathResponse(_))
            && self.allowed_in(space)
    }

    /// The name in the table of W-3.1.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Pad(_) => "PAD",
            Self::Ping => "PING",
            Self::Ack(_) => "ACK",
            Self::Crypto { .. } => "CRYPTO",
            Self::ResetStream { .. } => "RESET_STREAM",
            Self::StopSending { .. } => "STOP_SENDING",
            Self::MaxData(_) => "MAX_DATA",
            Self::MaxStreamData { .. } => "MAX_STREAM_DATA",
            Self::MaxStreams { .. } => "MAX_STREAMS",
            Self::DataBlocked(_) => "DATA_BLOCKED",
            Self::StreamBlocked { .. } => "STREAM_BLOCKED",
            Self::PathChallenge(_) => "PATH_CHALLENGE",
            Self::PathResponse(_) => "PATH_RESPONSE",
            Self::Close(_) => "CLOSE",
            Self::Admitted => "ADMITTED",
            Self::Datagram(_) => "DATAGRAM",
            Self::Stream { .. } => "STREAM",
            Self::Unknown { .. } => "UNKNOWN",
        }
    }

    /// Appends the frame. A STREAM gets its length written, so that other frames may follow; a reason that is too long
    /// is cut.
    pub fn put(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Pad(run) => out.resize(out.len() + run, 0),
            Self::Ping => put_numbers(out, [PING]),
            Self::Ack(ack) => ack.put(out),
            Self::Crypto { offset, data } => {
                put_crypto_header(out, offset, data.len());
                out.extend_from_slice(data);
            }
            Self::ResetStream { stream, code, final_size } => {
                put_numbers(out, [RESET_STREAM, stream.0, code, final_size]);
            }
            Self::StopSending { stream, code } => put_numbers(out, [STOP_SENDING, stream.0, code]),
            Self::MaxData(bytes) => put_numbers(out, [MAX_DATA, bytes]),
            Self::MaxStreamData { stream, bytes } => {
                put_numbers(out, [MAX_STREAM_DATA, stream.0, bytes])
            }
            Self::MaxStreams { direction, count } => {
                put_numbers(out, [MAX_STREAMS, direction as u64, count.min(MOST_STREAMS)]);
            }
            Self::DataBlocked(limit) => put_numbers(out, [DATA_BLOCKED, limit]),
            Self::StreamBlocked { stream, limit } => {
                put_numbers(out, [STREAM_BLOCKED, stream.0, limit])
            }
            Self::PathChallenge(bytes) => put_echo(out, PATH_CHALLENGE, bytes),
            Self::PathResponse(bytes) => put_echo(out, PATH_RESPONSE, bytes),
            Self::Close(close) => close.put(out),
            Self::Admitted => put_numbers(out, [ADMITTED]),
            Self::Datagram(data) => {
                put_datagram_header(out, data.len());
                out.extend_from_slice(data);
            }
            Self::Stream { stream, offset, fin, data } => {
                put_stream_header(out, stream, offset, Some(data.len()), fin);
                out.extend_from_slice(data);
            }
            Self::Unknown { kind, data } => {
                varint::put(out, kind);
                varint::put_with_length(out, data);
            }
        }
    }
}

fn put_numbers<const N: usize>(out: &mut Vec<u8>, numbers: [u64; N]) {
    for number in numbers {
        varint::put(out, number);
    }
}

fn put_echo(out: &mut Vec<u8>, kind: u64, bytes: [u8; 8]) {
    varint::put(out, kind);
    out.extend_from_slice(&bytes);
}

#[cfg(test)]
mod tests;
