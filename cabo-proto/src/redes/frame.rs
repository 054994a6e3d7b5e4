//! Frames of the course protocol, in the four layouts that are on the wire (R-1, R-2).
//!
//! ```text
//!   0        1        2        3        4                    68     byte
//!   +--------+--------+--------+--------+--------------------+-----+
//!   |   7E   |  size  |sequence|  type  | data, then zeros   | CRC |   c69; c68 has one byte less of data
//!   +--------+--------+--------+--------+--------------------+-----+
//!
//!   0        1                 3             3 + size              byte
//!   +--------+-----------------+--------------+-----+-------
//!   |   7E   |  16 bits (R-2)  |     data     | CRC | zeros           lsb, msb; 14 bytes at least
//!   +--------+-----------------+--------------+-----+-------
//! ```

use crc::{Algorithm, CRC_8_SMBUS, Crc};

/// Bytes of data that a frame takes at most: its size has six bits.
pub const DATA_MAX: usize = 63;
/// Sequence numbers are modulo this.
pub const SEQUENCES: u8 = 32;
/// The first byte of every frame.
pub const MARKER: u8 = 0x7E;
/// A socket takes no shorter frame than an Ethernet header.
const SHORTEST: usize = 14;

/// What a frame is (R-1.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Type {
    /// Takes the frame of this number.
    Ack,
    /// Asks for the frame of this number again.
    Nack,
    /// Asks for the catalogue.
    List,
    /// Asks for a file.
    Download,
    /// A name of the catalogue.
    Show,
    /// Size or time of the file.
    Describe,
    /// Bytes of the file, or a name of the catalogue.
    Data,
    /// The answer is whole.
    End,
    /// Why there is no answer.
    Error,
}

/// All types with their numbers on the wire.
const TYPES: [(Type, u8); 9] = [
    (Type::Ack, 0x00),
    (Type::Nack, 0x01),
    (Type::List, 0x0A),
    (Type::Download, 0x0B),
    (Type::Show, 0x10),
    (Type::Describe, 0x11),
    (Type::Data, 0x12),
    (Type::End, 0x1E),
    (Type::Error, 0x1F),
];

impl Type {
    /// The type of that number.
    pub fn of(number: u8) -> Option<Self> {
        TYPES.iter().find(|(_, own)| *own == number & 0x1F).map(|(kind, _)| *kind)
    }

    /// Its number.
    pub fn number(self) -> u8 {
        TYPES.iter().find(|(kind, _)| *kind == self).map_or(0, |(_, number)| *number)
    }
}

/// Where the fields stand (R-2).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Layout {
    /// A byte a field, 69 bytes.
    #[default]
    C69,
    /// A byte a field, 68 bytes.
    C68,
    /// 16 bits from the lowest on, little-endian.
    Lsb,
    /// 16 bits as in the drawing, from the highest on.
    Msb,
}

/// Which bytes the CRC is of (R-2.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Coverage {
    /// The data alone.
    Data,
    /// Size, sequence and type as they stand in the layout, and the data.
    Header,
    /// From the marker to the byte before the CRC.
    Frame,
}

/// How frames look between two sides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Form {
    /// Where the fields stand.
    pub layout: Layout,
    /// What the CRC is of.
    pub coverage: Coverage,
}

/// One frame. Data beyond [`DATA_MAX`] bytes is never written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    /// Its number, modulo [`SEQUENCES`].
    pub sequence: u8,
    /// What it is.
    pub kind: Type,
    /// Its data.
    pub data: Vec<u8>,
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// The first byte is no marker: the frame is somebody else's.
    #[error("no start marker")]
    Marker,
    /// It ends before its CRC.
    #[error("cut short")]
    Short,
    /// A type that there is not.
    #[error("unknown type {0:#04x}")]
    Type(u8),
    /// The CRC is of other bytes. The number is what the frame says, and may be wrong as well.
    #[error("CRC {found:#04x} where {expected:#04x} was right, in {kind:?} {sequence}")]
    Crc {
        /// As it stands there.
        found: u8,
        /// As it should be.
        expected: u8,
        /// What the frame says it is.
        kind: Type,
        /// The number that it says.
        sequence: u8,
    },
}

impl Form {
    /// The form that programs of a layout have.
    pub fn of(layout: Layout) -> Self {
        let coverage = match layout {
            Layout::C69 | Layout::Msb => Coverage::Data,
            Layout::C68 => Coverage::Frame,
            Layout::Lsb => Coverage::Header,
        };
        Self { layout, coverage }
    }

    /// Bytes before the data.
    fn header_len(self) -> usize {
        match self.layout {
            Layout::C69 | Layout::C68 => 4,
            Layout::Lsb | Layout::Msb => 3,
        }
    }

    /// Where the CRC stands, for so many bytes of data.
    fn crc_at(self, size: usize) -> usize {
        match self.layout {
            Layout::C69 => 68,
            Layout::C68 => 67,
            Layout::Lsb | Layout::Msb => 3 + size,
        }
    }

    /// Bytes of data that can be sent without a VLAN tag in bytes 12 and 13, whatever the data is (R-2.3).
    pub fn untagged_len(self, data: &[u8]) -> usize {
        let at = self.cut_len();
        let is_tag = matches!(data.get(at..at + 2), Some([0x81, 0x00] | [0x88, 0xA8]));
        // One byte of the two may also meet what follows the data: the CRC, or zeros.
        let is_half = data.len() == at + 1 && matches!(data.last(), Some(0x81 | 0x88));
        if is_tag || is_half { at } else { data.len().min(DATA_MAX) }
    }

    /// Bytes of data before the place where the kernel looks for a VLAN tag.
    pub fn cut_len(self) -> usize {
        12 - self.header_len()
    }

    /// The bytes of a frame.
    pub fn encode(self, frame: &Frame) -> Vec<u8> {
        let data = frame.data.get(..DATA_MAX).unwrap_or(&frame.data);
        let (size, sequence) = (data.len() as u8, frame.sequence % SEQUENCES);
        let kind = frame.kind.number();
        let mut bytes = match self.layout {
            Layout::C69 | Layout::C68 => vec![MARKER, size, sequence, kind],
            Layout::Lsb => {
                let word = u16::from(size) | u16::from(sequence) << 6 | u16::from(kind) << 11;
                let [low, high] = word.to_le_bytes();
                vec![MARKER, low, high]
            }
            Layout::Msb => vec![MARKER, size << 2 | sequence >> 3, (sequence & 7) << 5 | kind],
        };
        bytes.extend_from_slice(data);
        let crc_at = self.crc_at(data.len());
        bytes.resize(crc_at, 0);
        bytes.push(self.crc(&bytes, data.len(), crc_at));
        bytes.resize(bytes.len().max(SHORTEST), 0);
        bytes
    }

    /// The frame that `bytes` begin with; what stands behind it is padding.
    pub fn decode(self, bytes: &[u8]) -> Result<Frame, Malformed> {
        if bytes.first() != Some(&MARKER) {
            return Err(Malformed::Marker);
        }
        let (Some(&first), Some(&second)) = (bytes.get(1), bytes.get(2)) else {
            return Err(Malformed::Short);
        };
        let (size, sequence, kind) = match self.layout {
            Layout::C69 | Layout::C68 => {
                let kind = bytes.get(3).ok_or(Malformed::Short)?;
                (first & 0x3F, second & 0x1F, kind & 0x1F)
            }
            Layout::Lsb => {
                let word = u16::from_le_bytes([first, second]);
                (word as u8 & 0x3F, (word >> 6) as u8 & 0x1F, (word >> 11) as u8)
            }
            Layout::Msb => (first >> 2, (first & 3) << 3 | second >> 5, second & 0x1F),
        };
        let (start, size) = (self.header_len(), usize::from(size));
        let data = bytes.get(start..start + size).ok_or(Malformed::Short)?;
        let crc_at = self.crc_at(size);
        let found = *bytes.get(crc_at).ok_or(Malformed::Short)?;
        let kind = Type::of(kind).ok_or(Malformed::Type(kind))?;
        let expected = self.crc(bytes, size, crc_at);
        // Originals never check frames without data, and write anything there (R-2.2).
        let is_checked = size > 0 || self.coverage != Coverage::Data;
        if is_checked && found != expected {
            return Err(Malformed::Crc { found, expected, kind, sequence });
        }
        Ok(Frame { sequence, kind, data: data.to_vec() })
    }

    fn crc(self, bytes: &[u8], size: usize, crc_at: usize) -> u8 {
        let header = self.header_len();
        let covered = match self.coverage {
            Coverage::Data => bytes.get(header..header + size),
            Coverage::Header => bytes.get(1..header + size),
            Coverage::Frame => bytes.get(..crc_at),
        };
        let covered = covered.unwrap_or_default();
        match self.layout {
            Layout::C68 => crc8_31(covered),
            Layout::C69 | Layout::Lsb | Layout::Msb => crc8(covered),
        }
    }
}

/// CRC-8 with polynomial 07 from 0, as it is (R-1.2).
pub fn crc8(bytes: &[u8]) -> u8 {
    const CRC: Crc<u8> = Crc::<u8>::new(&CRC_8_SMBUS);
    CRC.checksum(bytes)
}

/// CRC-8 with polynomial 31, else the same: that of the programs of layout c68 (R-1.2).
fn crc8_31(bytes: &[u8]) -> u8 {
    const ALGORITHM: Algorithm<u8> = Algorithm {
        width: 8,
        poly: 0x31,
        init: 0,
        refin: false,
        refout: false,
        xorout: 0,
        check: 0xA2,
        residue: 0,
    };
    const CRC: Crc<u8> = Crc::<u8>::new(&ALGORITHM);
    CRC.checksum(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUTS: [Layout; 4] = [Layout::C69, Layout::C68, Layout::Lsb, Layout::Msb];

    fn example() -> Frame {
        Frame { sequence: 3, kind: Type::Data, data: b"hello".to_vec() }
    }

    #[test]
    fn the_crc_is_that_of_the_course() {
        assert_eq!(crc8(b"123456789"), 0xF4);
        assert_eq!(crc8(b"hello"), 0x92);
        assert_eq!(crc8(b""), 0);
        assert_eq!(crc8_31(b"123456789"), 0xA2);
    }

    /// R-2: the bytes that were captured from the programs.
    #[test]
    fn every_layout_has_the_bytes_of_its_programs() {
        let c69 = Form::of(Layout::C69).encode(&example());
        assert_eq!(c69.len(), 69);
        assert_eq!(c69[..9], *b"\x7e\x05\x03\x12hello");
        assert_eq!(c69[68], 0x92);
        assert!(c69[9..68].iter().all(|byte| *byte == 0), "nothing of our memory leaves (R-1.4)");
        let c68 = Form::of(Layout::C68).encode(&example());
        assert_eq!((c68.len(), &c68[..9]), (68, b"\x7e\x05\x03\x12hello".as_slice()));
        let lsb = Form::of(Layout::Lsb).encode(&example());
        assert_eq!((lsb.len(), &lsb[..8]), (14, b"\x7e\xc5\x90hello".as_slice()));
        let msb = Form::of(Layout::Msb).encode(&example());
        assert_eq!((msb.len(), &msb[..9]), (14, b"\x7e\x14\x72hello\x92".as_slice()));
    }

    #[test]
    fn every_frame_survives_in_every_layout_and_every_coverage() {
        for layout in LAYOUTS {
            for coverage in [Coverage::Data, Coverage::Header, Coverage::Frame] {
                let form = Form { layout, coverage };
                for (kind, _) in TYPES {
                    for size in 0..=DATA_MAX {
                        let data: Vec<u8> = (0..size).map(|at| (at * 37) as u8).collect();
                        let frame = Frame { sequence: (size % 32) as u8, kind, data };
                        let mut bytes = form.encode(&frame);
                        bytes.extend_from_slice(&[0xAA; 40]); // padding of the wire
                        assert_eq!(form.decode(&bytes), Ok(frame.clone()), "{form:?} {size}");
                    }
                }
            }
        }
    }

    /// R-1.4: originals leave other bits and bytes as their memory had them.
    #[test]
    fn junk_in_unused_bits_and_bytes_is_ignored() {
        let mut list = b"\x7e\x00\x00\x2a\xc0\x55\x00\x00\xda\xea\x42\x9d\x6a\x7f".to_vec();
        list.resize(69, 0x5A);
        let frame = Form::of(Layout::C69).decode(&list);
        assert_eq!(frame, Ok(Frame { sequence: 0, kind: Type::List, data: Vec::new() }));
    }

    #[test]
    fn every_flipped_bit_that_the_crc_is_of_is_found() {
        for layout in LAYOUTS {
            let form = Form { layout, coverage: Coverage::Header };
            let bytes = form.encode(&example());
            let covered = form.header_len() + 5;
            for bit in 8..covered * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(form.decode(&flipped).is_err(), "{layout:?} bit {bit}");
            }
        }
    }

    #[test]
    fn no_bytes_are_more_than_an_error() {
        for layout in LAYOUTS {
            let form = Form::of(layout);
            let whole = form.encode(&example());
            for len in 0..form.crc_at(5) + 1 {
                let error = form.decode(&whole[..len]).expect_err("cut");
                assert!(matches!(error, Malformed::Marker | Malformed::Short), "{layout:?} {len}");
            }
        }
        assert_eq!(Form::of(Layout::C69).decode(&[0x42; 69]), Err(Malformed::Marker));
    }

    /// R-2.3: no data that is sent puts a VLAN tag where the kernel looks for one.
    #[test]
    fn frames_are_cut_where_the_kernel_would_take_a_tag_out() {
        for layout in LAYOUTS {
            let form = Form::of(layout);
            for tag in [[0x81, 0x00], [0x88, 0xA8]] {
                for at in 0..62 {
                    let mut data = vec![0x11; DATA_MAX];
                    data[at..at + 2].copy_from_slice(&tag);
                    let mut rest = data.as_slice();
                    while !rest.is_empty() {
                        let (now, later) = rest.split_at(form.untagged_len(rest));
                        assert!(!now.is_empty());
                        let frame = Frame { sequence: 0, kind: Type::Data, data: now.to_vec() };
                        let bytes = form.encode(&frame);
                        assert_ne!(bytes[12..14], tag, "{layout:?} {at}");
                        rest = later;
                    }
                }
            }
        }
    }
}
