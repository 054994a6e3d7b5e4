//! Packet headers of datagram carriers (W-2): found, checked and written.
//!
//! A header is read before anything of the packet is proved, so nothing here believes a length. What the body holds is
//! in [`frame`](super::frame); sealing it is the session's work.
//!
//! ```text
//!  0        1        2        4                12              20
//!  +--------+--------+--------+----------------+---------------+
//!  |   CB   | vvvvlkkk | length | receiver id    | [sender id]   |
//!  +--------+--------+--------+----------------+---------------+
//! ```

use std::fmt;
use std::ops::Range;

use super::varint::{self, Malformed, Reader};

/// The first byte of every packet.
pub const MARKER: u8 = 0xCB;
/// The version byte that marks a version answer (W-2.8).
pub const ANSWER: u8 = 0;
/// cabo/1 sealed.
pub const SEALED: u8 = 1;
/// cabo/1 plain.
pub const PLAIN: u8 = 2;
/// Bytes of a Data header (W-2.7).
pub const SHORT_HEADER: usize = 20;
/// Bytes of the common part of the long form.
pub const LONG_COMMON: usize = 20;
/// The smallest Discover packet (W-8.1), in bytes.
pub const SMALLEST_DISCOVER: usize = 256;

const COMMON: usize = 12; // bytes, without the sender id
const LONG: u8 = 0x08; // the form bit
const LENGTH: Range<usize> = 2..4;

const INITIAL: u8 = 0;
const HANDSHAKE: u8 = 1;
const COOKIE: u8 = 2;
const DISCOVER: u8 = 3;
const HERE: u8 = 4;
const RESET: u8 = 2; // of the short form, where 0 and 1 are Data

/// The eight random bytes by which a receiver knows its connection (W-2.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct ConnectionId(pub [u8; 8]);

impl ConnectionId {
    /// The id that nobody receives under: the receiver of a question to everybody, the sender of its answer (W-8).
    pub const ZERO: Self = Self([0; 8]);
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A packet's header. Offsets and ranges count from the first byte of the datagram.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Packet {
    /// The version, as it stands.
    pub version: u8,
    /// Bytes of the whole packet, at most those of the datagram.
    pub length: usize,
    /// Whom it is for.
    pub receiver: ConnectionId,
    /// All that depends on version, form and kind.
    pub kind: Kind,
}

/// What kind of packet, and the fields that only this kind has (W-2.5). Every `body` is followed by at least one byte
/// of frames and the tag.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Kind {
    /// The first flight of each side.
    Initial {
        /// Under which id the sender receives.
        sender: ConnectionId,
        /// The packet number.
        number: u64,
        /// Where the cookie stands; empty without one.
        cookie: Range<usize>,
        /// Where the body starts.
        body: usize,
    },
    /// The rest of the handshake.
    Handshake {
        /// Under which id the sender receives.
        sender: ConnectionId,
        /// The packet number.
        number: u64,
        /// Where the body starts.
        body: usize,
    },
    /// Everything after the handshake.
    Data {
        /// The key phase.
        phase: bool,
        /// The packet number.
        number: u64,
        /// Where the body starts.
        body: usize,
    },
    /// A server's demand to come back with this cookie.
    Cookie {
        /// Under which id the sender receives.
        sender: ConnectionId,
        /// Where the cookie stands; never empty.
        cookie: Range<usize>,
    },
    /// The question who serves on this link (W-8.1).
    Discover {
        /// The nonce of the question.
        sender: ConnectionId,
        /// Where the parameters start.
        body: usize,
    },
    /// The answer to it (W-8.2).
    Here {
        /// Zero.
        sender: ConnectionId,
        /// Where the parameters start.
        body: usize,
    },
    /// The sender lost the state of this connection.
    Reset {
        /// What proves it.
        token: [u8; 16],
    },
    /// The versions that the sender speaks (W-2.8).
    VersionAnswer {
        /// The receiver id of the question.
        sender: ConnectionId,
        /// Where the versions stand, one byte each; never empty.
        versions: Range<usize>,
    },
    /// A version that this crate does not speak: nothing beyond the common part is known (W-2.2).
    UnknownVersion {
        /// The sender id, in the long form.
        sender: Option<ConnectionId>,
    },
}

/// Bytes of the tag behind the body in `version` (W-2.9); zero for those we do not speak.
pub const fn tag_len(version: u8) -> usize {
    match version {
        SEALED => 16,
        PLAIN => 4,
        _ => 0,
    }
}

/// Reads the header of the packet at the start of `datagram`.
pub fn parse(datagram: &[u8]) -> Result<Packet, Malformed> {
    let mut common = Reader::new(datagram);
    if common.u8()? != MARKER {
        return Err(Malformed { what: "no start marker", at: 0 });
    }
    let (version, is_long, kind) = split(common.u8()?);
    let length = usize::from(common.u16()?);
    let Some(packet) = datagram.get(..length) else {
        return Err(Malformed { what: "longer than its datagram", at: LENGTH.start });
    };
    let mut reader = Reader::new(packet);
    reader.bytes(LENGTH.end)?;
    let receiver = ConnectionId(reader.array()?);
    let sender = if is_long { Some(ConnectionId(reader.array()?)) } else { None };
    let kind = match (version, sender) {
        (ANSWER, Some(sender)) if kind == 0 => version_answer_kind(sender, &mut reader)?,
        (ANSWER, _) => return Err(Malformed { what: "unknown kind", at: 1 }),
        (SEALED | PLAIN, Some(sender)) => long_kind(version, kind, receiver, sender, &mut reader)?,
        (SEALED | PLAIN, None) => short_kind(version, kind, &mut reader)?,
        (_, sender) => Kind::UnknownVersion { sender },
    };
    Ok(Packet { version, length, receiver, kind })
}

fn split(byte: u8) -> (u8, bool, u8) {
    (byte >> 4, byte & LONG != 0, byte & 0x07)
}

fn version_answer_kind(sender: ConnectionId, reader: &mut Reader<'_>) -> Result<Kind, Malformed> {
    Ok(Kind::VersionAnswer { sender, versions: rest_range(reader, "no versions")? })
}

fn long_kind(
    version: u8,
    kind: u8,
    receiver: ConnectionId,
    sender: ConnectionId,
    reader: &mut Reader<'_>,
) -> Result<Kind, Malformed> {
    match kind {
        INITIAL => {
            let number = number(reader)?;
            let length = reader.with_length()?.len();
            let body = body(version, reader)?;
            Ok(Kind::Initial { sender, number, cookie: body - length..body, body })
        }
        HANDSHAKE => {
            let number = number(reader)?;
            Ok(Kind::Handshake { sender, number, body: body(version, reader)? })
        }
        COOKIE => Ok(Kind::Cookie { sender, cookie: rest_range(reader, "no cookie")? }),
        DISCOVER if reader.position() + reader.remaining() < SMALLEST_DISCOVER => {
            Err(Malformed { what: "question too short", at: LENGTH.start })
        }
        DISCOVER if receiver != ConnectionId::ZERO => {
            Err(Malformed { what: "receiver id not zero", at: LENGTH.end })
        }
        DISCOVER => Ok(Kind::Discover { sender, body: reader.position() }),
        HERE if sender != ConnectionId::ZERO => {
            Err(Malformed { what: "sender id not zero", at: COMMON })
        }
        HERE => Ok(Kind::Here { sender, body: reader.position() }),
        _ => Err(Malformed { what: "unknown kind", at: 1 }),
    }
}

fn short_kind(version: u8, kind: u8, reader: &mut Reader<'_>) -> Result<Kind, Malformed> {
    match kind {
        0 | 1 => {
            let number = number(reader)?;
            Ok(Kind::Data { phase: kind == 1, number, body: body(version, reader)? })
        }
        RESET => {
            let token = reader.array()?;
            if !reader.is_empty() {
                return Err(reader.malformed("bytes after the reset token"));
            }
            Ok(Kind::Reset { token })
        }
        _ => Err(Malformed { what: "unknown kind", at: 1 }),
    }
}

/// A packet number (W-2.6).
fn number(reader: &mut Reader<'_>) -> Result<u64, Malformed> {
    let at = reader.position();
    match reader.u64()? {
        number if number > varint::MAX => Err(Malformed { what: "packet number too large", at }),
        number => Ok(number),
    }
}

/// Where the body starts, if there is a byte of frames in it beside the tag (W-2.10).
fn body(version: u8, reader: &Reader<'_>) -> Result<usize, Malformed> {
    if reader.remaining() > tag_len(version) {
        Ok(reader.position())
    } else {
        Err(reader.malformed("no body"))
    }
}

fn rest_range(reader: &mut Reader<'_>, if_empty: &'static str) -> Result<Range<usize>, Malformed> {
    let start = reader.position();
    match reader.rest().len() {
        0 => Err(Malformed { what: if_empty, at: start }),
        length => Ok(start..start + length),
    }
}

/// Appends an Initial header up to the body and returns where it starts. [`set_length`] completes it.
pub fn put_initial(
    out: &mut Vec<u8>,
    version: u8,
    receiver: ConnectionId,
    sender: ConnectionId,
    number: u64,
    cookie: &[u8],
) -> usize {
    let start = put_long(out, version, INITIAL, receiver, sender);
    out.extend_from_slice(&number.to_be_bytes());
    varint::put_with_length(out, cookie);
    start
}

/// Appends a Handshake header and returns where it starts. [`set_length`] completes it.
pub fn put_handshake(
    out: &mut Vec<u8>,
    version: u8,
    receiver: ConnectionId,
    sender: ConnectionId,
    number: u64,
) -> usize {
    let start = put_long(out, version, HANDSHAKE, receiver, sender);
    out.extend_from_slice(&number.to_be_bytes());
    start
}

/// Appends a Data header and returns where it starts. [`set_length`] completes it.
pub fn put_data(
    out: &mut Vec<u8>,
    version: u8,
    receiver: ConnectionId,
    phase: bool,
    number: u64,
) -> usize {
    let start = put_common(out, version, u8::from(phase), receiver);
    out.extend_from_slice(&number.to_be_bytes());
    start
}

/// Writes the length of `packet`, from its start marker to the end of its tag, into its header. This comes before
/// sealing, since the length is associated data. A packet is at most 65,535 bytes; that is the caller's duty.
pub fn set_length(packet: &mut [u8]) {
    debug_assert!(
        u16::try_from(packet.len()).is_ok(),
        "{} bytes are too long for a packet",
        packet.len()
    );
    let length = u16::try_from(packet.len()).unwrap_or(u16::MAX);
    if let Some(field) = packet.get_mut(LENGTH) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

/// A whole Cookie packet.
pub fn cookie_packet(
    version: u8,
    receiver: ConnectionId,
    sender: ConnectionId,
    cookie: &[u8],
) -> Vec<u8> {
    whole_long(version, COOKIE, receiver, sender, cookie)
}

/// A whole Discover packet around a body of [`discovery`](super::discovery).
pub fn discover_packet(version: u8, nonce: ConnectionId, body: &[u8]) -> Vec<u8> {
    whole_long(version, DISCOVER, ConnectionId::ZERO, nonce, body)
}

/// A whole Here packet around a body of [`discovery`](super::discovery).
pub fn here_packet(version: u8, nonce: ConnectionId, body: &[u8]) -> Vec<u8> {
    whole_long(version, HERE, nonce, ConnectionId::ZERO, body)
}

/// A whole version answer (W-2.8): `receiver` is the sender id of the question, `sender` its receiver id.
pub fn version_answer(receiver: ConnectionId, sender: ConnectionId, versions: &[u8]) -> Vec<u8> {
    whole_long(ANSWER, 0, receiver, sender, versions)
}

/// A whole Reset packet.
pub fn reset_packet(version: u8, receiver: ConnectionId, token: [u8; 16]) -> Vec<u8> {
    let mut out = Vec::with_capacity(COMMON + token.len());
    put_common(&mut out, version, RESET, receiver);
    out.extend_from_slice(&token);
    set_length(&mut out);
    out
}

fn whole_long(
    version: u8,
    kind: u8,
    receiver: ConnectionId,
    sender: ConnectionId,
    rest: &[u8],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(LONG_COMMON + rest.len());
    put_long(&mut out, version, kind, receiver, sender);
    out.extend_from_slice(rest);
    set_length(&mut out);
    out
}

fn put_long(
    out: &mut Vec<u8>,
    version: u8,
    kind: u8,
    receiver: ConnectionId,
    sender: ConnectionId,
) -> usize {
    let start = put_common(out, version, LONG | kind, receiver);
    out.extend_from_slice(&sender.0);
    start
}

fn put_common(out: &mut Vec<u8>, version: u8, form_and_kind: u8, receiver: ConnectionId) -> usize {
    let start = out.len();
    out.extend_from_slice(&[MARKER, version << 4 | form_and_kind, 0, 0]);
    out.extend_from_slice(&receiver.0);
    start
}

#[cfg(test)]
mod tests;
