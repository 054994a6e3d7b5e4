//! Records of stream carriers (W-4) and the preface before them.
//!
//! ```text
//!  0        1        2        4
//!  +--------+--------+--------+---------------------+-----+
//!  |  kind  |   00   | length |        body         | tag |
//!  +--------+--------+--------+---------------------+-----+
//! ```

use super::frame::Space;
use super::varint::Malformed;

/// Bytes before the body.
pub const HEADER: usize = 4;
/// The most bytes of body and tag.
pub const LARGEST: usize = 65_535;

/// In which form the records of a session come; what each side sends first says which (W-4.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// Sealed one by one.
    Sealed,
    /// With a checksum alone.
    Plain,
    /// Inside a channel that seals, to which the handshake is bound (S-7.5).
    Bound,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sealed, Self::Plain, Self::Bound];

    /// What each side sends first.
    pub const fn preface(self) -> [u8; 8] {
        match self {
            Self::Sealed => *b"cabo/1s\n",
            Self::Plain => *b"cabo/1p\n",
            Self::Bound => *b"cabo/1t\n",
        }
    }
}

/// What kind of record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RecordKind {
    /// The first handshake messages, in the clear.
    Initial,
    /// The rest of the handshake.
    Handshake,
    /// Everything after it.
    Data {
        /// The key phase.
        phase: bool,
    },
}

impl RecordKind {
    /// The space whose rules and numbers hold.
    pub const fn space(self) -> Space {
        match self {
            Self::Initial => Space::Initial,
            Self::Handshake => Space::Handshake,
            Self::Data { .. } => Space::Data,
        }
    }

    const fn byte(self) -> u8 {
        match self {
            Self::Initial => 0,
            Self::Handshake => 1,
            Self::Data { phase } => 2 + phase as u8,
        }
    }
}

/// The four bytes before a body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RecordHeader {
    /// What kind of record.
    pub kind: RecordKind,
    /// Bytes of body and tag, at least 1.
    pub length: usize,
}

impl RecordHeader {
    /// Bytes of the whole record.
    pub const fn record_len(&self) -> usize {
        HEADER + self.length
    }
}

/// Reads a header.
pub fn parse(header: &[u8; HEADER]) -> Result<RecordHeader, Malformed> {
    let [kind, zero, high, low] = *header;
    let kind = match kind {
        0 => RecordKind::Initial,
        1 => RecordKind::Handshake,
        2 | 3 => RecordKind::Data { phase: kind == 3 },
        _ => return Err(Malformed { what: "unknown kind of record", at: 0 }),
    };
    if zero != 0 {
        return Err(Malformed { what: "second byte not zero", at: 1 });
    }
    match usize::from(u16::from_be_bytes([high, low])) {
        0 => Err(Malformed { what: "empty record", at: 2 }),
        length => Ok(RecordHeader { kind, length }),
    }
}

/// Appends a header and returns where it starts. [`set_length`] completes it.
pub fn put(out: &mut Vec<u8>, kind: RecordKind) -> usize {
    let start = out.len();
    out.extend_from_slice(&[kind.byte(), 0, 0, 0]);
    start
}

/// Writes the length of `record`, which is header, body and tag, into its header. This comes before sealing, since the
/// header is associated data. Body and tag are at most [`LARGEST`] bytes; that is the caller's duty.
pub fn set_length(record: &mut [u8]) {
    let length = record.len().saturating_sub(HEADER);
    debug_assert!(length <= LARGEST, "{length} bytes are too long for a record");
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    if let Some(field) = record.get_mut(2..HEADER) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sixty_four_thousand_lengths_and_four_kinds_come_back() {
        for byte in 0..=255 {
            for length in 0..=u16::MAX {
                let [high, low] = length.to_be_bytes();
                match parse(&[byte, 0, high, low]) {
                    Ok(header) => {
                        assert_eq!((header.kind.byte(), header.length), (byte, usize::from(length)))
                    }
                    Err(error) => assert!(byte > 3 || length == 0, "{error}"),
                }
            }
        }
    }

    #[test]
    fn a_header_is_put_behind_what_is_there() {
        let mut out = vec![0xDD];
        let start = put(&mut out, RecordKind::Data { phase: true });
        out.extend_from_slice(&[1; 300]);
        set_length(&mut out[start..]);
        assert_eq!(out[..6], [0xDD, 3, 0, 1, 44, 1]);
        set_length(&mut [0; 3]); // too short for the field: nothing happens
    }

    #[test]
    fn no_preface_looks_like_a_record_or_a_packet() {
        for preface in Form::ALL.map(Form::preface) {
            let [a, b, c, d, ..] = preface;
            assert!(
                parse(&[a, b, c, d]).is_err() && super::super::packet::parse(&preface).is_err()
            );
        }
    }
}
