//! Where one message ends in a stream of bytes (D-2).

use bytes::{Bytes, BytesMut};

use super::layout::{DecodeError, EncodeError, Extent, Layout, ParseError, Slot};
use super::value::{Fields, Value};

/// Bytes of one message, unless a dialect says otherwise.
pub const LIMIT_BYTES: usize = 16 * 1024 * 1024;
/// A message of so many bytes does not share its room with what comes behind it.
const LARGE_BYTES: usize = 64 * 1024;
/// Names of the field that announces the bytes after a header, by rank.
const ANNOUNCING: [&str; 3] = ["size", "length", "len"];

/// A way to cut a stream into messages.
#[derive(Clone, Debug, PartialEq)]
pub enum Cut {
    /// What one read gave.
    Raw,
    /// Up to LF or CR LF.
    Lines,
    /// Up to NUL.
    Nul,
    /// Up to NUL, LF or CR LF.
    Any,
    /// A header, and the bytes that it announces.
    Length(Header),
    /// What a layout describes.
    Struct(Layout),
}

/// A header that announces how many bytes follow it.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    layout: Layout,
    size: usize,
    announcing: String,
    /// Where that field is, where nothing else in the header has to be looked at.
    slot: Option<Slot>,
    /// Whether the header is that field and no more.
    is_alone: bool,
}

/// Why a text names no cut.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CutSpecError {
    /// None of the words.
    #[error("{0:?} is no cut: raw, lines, nul, any, length:LAYOUT or struct:LAYOUT")]
    Unknown(String),
    /// The layout is none.
    #[error(transparent)]
    Layout(#[from] ParseError),
    /// A header that cannot announce anything.
    #[error("a header of length: has an integer field and no part that a field counts")]
    Header,
    /// Messages without bytes, of which any stream has any number.
    #[error("a layout that cuts a stream has at least one byte in every message")]
    Empty,
}

/// Why a stream cannot be cut any further.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CutError {
    /// A message that is longer than anybody may send.
    #[error("a message of {bytes} bytes or more is over the limit of {limit}")]
    TooLong {
        /// As announced, or as many as there are by now.
        bytes: u64,
        /// The limit.
        limit: usize,
    },
    /// The stream ended inside a message.
    #[error("the stream ended inside a message, after {had} of at least {wanted} bytes")]
    Truncated {
        /// Bytes of it that are there.
        had: usize,
        /// Bytes that it has at least.
        wanted: usize,
    },
    /// A length that is none.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
}

/// Why a message cannot be written under a cut (D-2.4).
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WriteError {
    /// The byte that would end it early.
    #[error("byte {at} is {byte:#04x}, which would end the message there")]
    Ends {
        /// Where it stands.
        at: usize,
        /// What it is.
        byte: u8,
    },
    /// The header does not take it.
    #[error("header: {0}")]
    Header(#[from] EncodeError),
}

impl Cut {
    /// Reads a cut as it is written in a dialect or on the command line.
    pub fn parse(spec: &str) -> Result<Self, CutSpecError> {
        match spec.split_once(':') {
            None => match spec {
                "raw" => Ok(Self::Raw),
                "lines" => Ok(Self::Lines),
                "nul" => Ok(Self::Nul),
                "any" => Ok(Self::Any),
                _ => Err(CutSpecError::Unknown(spec.to_owned())),
            },
            Some(("length", layout)) => Header::new(Layout::parse(layout)?).map(Self::Length),
            Some(("struct", layout)) => match Layout::parse(layout)? {
                layout if layout.least_size() == 0 => Err(CutSpecError::Empty),
                layout => Ok(Self::Struct(layout)),
            },
            Some(_) => Err(CutSpecError::Unknown(spec.to_owned())),
        }
    }

    /// Appends a message. `header` are the header's other fields, where the cut has one.
    pub fn write(
        &self,
        message: &[u8],
        header: &Fields,
        out: &mut BytesMut,
    ) -> Result<(), WriteError> {
        let ends: &[u8] = match self {
            Self::Raw | Self::Struct(_) => {
                out.extend_from_slice(message);
                return Ok(());
            }
            Self::Length(own) => {
                own.write(message.len(), header, out)?;
                out.extend_from_slice(message);
                return Ok(());
            }
            Self::Lines => b"\n",
            Self::Nul => b"\0",
            Self::Any => b"\0\n",
        };
        if let Some(at) = message.iter().position(|byte| ends.contains(byte)) {
            return Err(WriteError::Ends {
                at,
                byte: message.get(at).copied().unwrap_or_default(),
            });
        }
        out.extend_from_slice(message);
        out.extend_from_slice(ends.get(..1).unwrap_or_default());
        Ok(())
    }

    /// Bytes of the mark that ends a message in a stream. A datagram ends by itself and is sent without it.
    pub fn mark_bytes(&self) -> usize {
        match self {
            Self::Lines | Self::Nul | Self::Any => 1,
            Self::Raw | Self::Length(_) | Self::Struct(_) => 0,
        }
    }

    /// What a datagram holds: all of it, without what the cut adds at the end.
    pub fn trim<'a>(&self, datagram: &'a [u8]) -> &'a [u8] {
        let (end, is_line) = match (self, datagram.split_last()) {
            (Self::Lines | Self::Any, Some((b'\n', start))) => (start, true),
            (Self::Nul | Self::Any, Some((0, start))) => (start, false),
            _ => return datagram,
        };
        if is_line { end.strip_suffix(b"\r").unwrap_or(end) } else { end }
    }
}

impl Header {
    fn new(layout: Layout) -> Result<Self, CutSpecError> {
        let size = layout.fixed_size().ok_or(CutSpecError::Header)?;
        let integers = || {
            let items = layout.items().iter();
            items.filter(|item| item.is_integer()).map(|item| item.name.as_str())
        };
        let by_name = ANNOUNCING.into_iter().find(|name| integers().any(|own| own == *name));
        let announcing =
            by_name.or_else(|| integers().next_back()).ok_or(CutSpecError::Header)?.to_owned();
        let slot = layout.slot(&announcing);
        let is_alone = layout.items().len() == 1;
        Ok(Self { layout, size, announcing, slot, is_alone })
    }

    /// Appends a header that announces so many bytes.
    fn write(&self, bytes: usize, given: &Fields, out: &mut BytesMut) -> Result<(), EncodeError> {
        let bytes = i128::try_from(bytes).unwrap_or(i128::MAX);
        if let (true, true, Some(slot)) = (self.is_alone, given.is_empty(), &self.slot)
            && let Ok((header, size)) = slot.bytes(bytes)
        {
            out.extend_from_slice(header.get(..size).unwrap_or_default());
            return Ok(());
        }
        let mut header = given.clone();
        header.set(&self.announcing, Value::Int(bytes));
        out.extend_from_slice(&self.layout.encode(&header)?);
        Ok(())
    }

    /// The layout of the header.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Bytes of the header.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The field that announces the bytes after it.
    pub fn announcing(&self) -> &str {
        &self.announcing
    }

    /// How long a message is that begins so.
    fn extent(&self, bytes: &[u8], limit: usize) -> Result<Extent, CutError> {
        let Some(header) = bytes.get(..self.size) else { return Ok(Extent::AtLeast(self.size)) };
        let announced = match self.slot.and_then(|slot| slot.read(header)) {
            Some(announced) => announced,
            None => match self.layout.decode(header)?.get(&self.announcing) {
                Some(Value::Int(announced)) => *announced,
                _ => 0,
            },
        };
        match usize::try_from(announced) {
            Ok(payload) => Ok(Extent::Whole(self.size.saturating_add(payload))),
            Err(_) if announced < 0 => Err(CutError::Malformed(DecodeError {
                at: self.announcing_at(),
                field: self.announcing.clone(),
                problem: super::layout::Misread::Negative(announced),
            })),
            Err(_) => Err(CutError::TooLong { bytes: u64::MAX, limit }),
        }
    }

    fn announcing_at(&self) -> usize {
        let places = self.layout.places();
        let own =
            places.iter().find(|place| place.depth == 0 && place.item.name == self.announcing);
        own.and_then(|place| place.at).unwrap_or_default()
    }
}

/// Cuts one stream. After each [`Cutter::push`], [`Cutter::next_message`] is called until it has nothing: then no more than one
/// message within the limit is kept.
#[derive(Debug)]
pub struct Cutter {
    cut: Cut,
    limit: usize,
    bytes: BytesMut,
    /// So many bytes have no end in them; or, for a length, have to be there before it is worth another look.
    looked: usize,
}

impl Cutter {
    /// Cuts a stream from its first byte on; a message has at most `limit` bytes.
    pub fn new(cut: Cut, limit: usize) -> Self {
        Self { cut, limit, bytes: BytesMut::new(), looked: 0 }
    }

    /// Takes what one read gave.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes that are kept and were not given out.
    pub fn unfinished_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The next whole message: without its end mark, with its header.
    #[inline]
    pub fn next_message(&mut self) -> Result<Option<Bytes>, CutError> {
        let Some((size, kept)) = self.next_size()? else { return Ok(None) };
        // The last one takes the room along: a stream that is silent has none.
        let rest = self.bytes.get(size..).unwrap_or_default();
        let mut message = if rest.is_empty() {
            std::mem::take(&mut self.bytes)
        } else if size >= LARGE_BYTES && rest.len() < size {
            let rest = BytesMut::from(rest); // which would hold the room of all of it
            std::mem::replace(&mut self.bytes, rest)
        } else {
            self.bytes.split_to(size)
        };
        message.truncate(kept);
        Ok(Some(message.freeze()))
    }

    /// Bytes of the next whole message, and how many of them are left without its end mark.
    fn next_size(&mut self) -> Result<Option<(usize, usize)>, CutError> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let (extent, marks) = match &self.cut {
            Cut::Raw => (Extent::Whole(self.bytes.len().min(self.limit)), 0),
            Cut::Lines => (self.until(b"\n"), 2),
            Cut::Nul => (self.until(b"\0"), 1),
            Cut::Any => (self.until(b"\0\n"), 2),
            Cut::Length(_) | Cut::Struct(_) if self.bytes.len() < self.looked => return Ok(None),
            Cut::Length(header) => (header.extent(&self.bytes, self.limit)?, 0),
            Cut::Struct(layout) => (layout.extent(&self.bytes)?, 0),
        };
        let (Extent::Whole(size) | Extent::AtLeast(size)) = extent;
        if size > self.limit.saturating_add(marks) {
            return Err(self.too_long(size));
        }
        let whole = match (extent, self.bytes.get(..size)) {
            (Extent::Whole(_), Some(whole)) => whole,
            _ => {
                self.looked = size;
                return Ok(None);
            }
        };
        let kept = if marks == 0 { size } else { self.cut.trim(whole).len() };
        if kept > self.limit {
            return Err(self.too_long(kept));
        }
        self.looked = 0;
        Ok(Some((size, kept)))
    }

    /// The stream is over: what was not ended is the last message, where the cut allows that.
    pub fn finish(&mut self) -> Result<Option<Bytes>, CutError> {
        let rest = std::mem::take(&mut self.bytes).freeze();
        let looked = std::mem::take(&mut self.looked);
        if rest.is_empty() {
            return Ok(None);
        }
        match &self.cut {
            Cut::Raw | Cut::Lines | Cut::Nul | Cut::Any if rest.len() > self.limit => {
                Err(self.too_long(rest.len()))
            }
            Cut::Raw | Cut::Lines | Cut::Nul | Cut::Any => Ok(Some(rest)),
            Cut::Length(_) | Cut::Struct(_) => {
                Err(CutError::Truncated { had: rest.len(), wanted: looked.max(rest.len() + 1) })
            }
        }
    }

    /// Up to the first of these bytes, and with it; what was looked at before is not looked at again.
    fn until(&self, ends: &[u8]) -> Extent {
        let fresh = self.bytes.iter().skip(self.looked);
        match fresh.copied().position(|byte| ends.contains(&byte)) {
            Some(at) => Extent::Whole(self.looked + at + 1),
            None => Extent::AtLeast(self.bytes.len()),
        }
    }

    fn too_long(&self, bytes: usize) -> CutError {
        CutError::TooLong { bytes: bytes as u64, limit: self.limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(spec: &str) -> Cut {
        Cut::parse(spec).unwrap_or_else(|error| panic!("{spec}: {error}"))
    }

    /// The messages of a stream that comes in `pieces`, and how it ends.
    fn messages(spec: &str, pieces: &[&[u8]]) -> (Vec<Bytes>, Option<CutError>) {
        let mut cutter = Cutter::new(cut(spec), 16);
        let mut got = Vec::new();
        for piece in pieces {
            cutter.push(piece);
            loop {
                match cutter.next_message() {
                    Ok(Some(message)) => got.push(message),
                    Ok(None) => break,
                    Err(error) => return (got, Some(error)),
                }
            }
        }
        match cutter.finish() {
            Ok(last) => (got.into_iter().chain(last).collect(), None),
            Err(error) => (got, Some(error)),
        }
    }

    /// A cut, a stream, and its messages.
    type Stream = (&'static str, &'static [u8], &'static [&'static [u8]]);

    #[test]
    fn what_follows_a_large_message_does_not_hold_its_room() {
        let mut cutter = Cutter::new(cut("lines"), LIMIT_BYTES);
        cutter.push(&vec![b'x'; LARGE_BYTES]);
        assert_eq!(cutter.next_message(), Ok(None));
        cutter.push(b"\nbe\nhind");
        assert_eq!(cutter.next_message().unwrap().unwrap().len(), LARGE_BYTES);
        assert!(cutter.bytes.capacity() < LARGE_BYTES, "{}", cutter.bytes.capacity());
        assert_eq!(cutter.next_message().unwrap().unwrap(), "be");
        assert_eq!((cutter.next_message(), cutter.unfinished_bytes()), (Ok(None), 4));
    }

    const STREAMS: [Stream; 7] = [
        ("lines", b"ola\nmundo\r\n\n\r\nend\r", &[b"ola", b"mundo", b"", b"", b"end\r"]),
        ("nul", b"ola\0\0a\nb\0", &[b"ola", b"", b"a\nb"]),
        ("any", b"LED ON\0LED OFF\r\nLED ON\nLED", &[b"LED ON", b"LED OFF", b"LED ON", b"LED"]),
        (
            "length:!B:version H:size B:order",
            b"\x01\0\x02\x09hi\x01\0\0\x0a",
            &[b"\x01\0\x02\x09hi", b"\x01\0\0\x0a"],
        ),
        ("length:<I", b"\x03\0\0\0abc\0\0\0\0", &[b"\x03\0\0\0abc", b"\0\0\0\0"]),
        ("struct:!HB", b"\0\x01\x02\0\x03\x04", &[b"\0\x01\x02", b"\0\x03\x04"]),
        (
            "struct:!B:n {n}(B:len {len}s:text)",
            b"\x02\x01a\x00\x00\x01\x02bc",
            &[b"\x02\x01a\x00", b"\x00", b"\x01\x02bc"],
        ),
    ];

    /// D-2.3: however the stream is split, the messages are the same.
    #[test]
    fn every_split_gives_the_same_messages() {
        for (spec, stream, wanted) in STREAMS {
            for first in 0..=stream.len() {
                for second in first..=stream.len() {
                    let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
                    assert_eq!(messages(spec, &pieces).0, wanted, "{spec} {first} {second}");
                }
            }
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            assert_eq!(
                messages(spec, &bytes),
                (wanted.iter().map(|m| Bytes::from_static(m)).collect(), None)
            );
        }
    }

    /// D-2.2: what is too long is refused as soon as that shows, whatever mark would follow.
    #[test]
    fn messages_over_the_limit_are_refused() {
        let long = [b'a'; 17];
        for spec in ["lines", "nul", "any"] {
            let mark: &[u8] = if spec == "nul" { b"\0" } else { b"\r\n" };
            let (got, error) = messages(spec, &[&long[..16], mark]);
            assert_eq!((got.len(), error), (1, None), "{spec}: the mark does not count");
            let (got, error) = messages(spec, &[&long, mark]);
            assert!(got.is_empty(), "{spec}");
            assert!(matches!(error, Some(CutError::TooLong { limit: 16, .. })), "{spec}");
        }
        let announced = messages("length:!L", &[b"\xff\xff\xff\xff"]);
        assert_eq!(announced.1, Some(CutError::TooLong { bytes: 0x1_0000_0003, limit: 16 }));
        let negative = messages("length:!l", &[b"\xff\xff\xff\xff"]);
        assert!(matches!(negative.1, Some(CutError::Malformed(_))));
    }

    /// D-2.2: a length is a promise that the end of the stream can break.
    #[test]
    fn a_stream_that_ends_inside_a_message_is_truncated() {
        let (got, error) = messages("length:!H", &[b"\0\x01a\0\x05bc"]);
        assert_eq!(got, [b"\0\x01a".as_slice()]);
        assert_eq!(error, Some(CutError::Truncated { had: 4, wanted: 7 }));
    }

    /// D-2.4: a message that would be read as two is not written.
    #[test]
    fn what_would_end_a_message_early_is_not_written() {
        let mut out = BytesMut::new();
        let none = Fields::default();
        assert_eq!(
            cut("lines").write(b"a\nb", &none, &mut out),
            Err(WriteError::Ends { at: 1, byte: 10 })
        );
        assert_eq!(
            cut("any").write(b"ab\0", &none, &mut out),
            Err(WriteError::Ends { at: 2, byte: 0 })
        );
        assert!(matches!(
            cut("length:!B").write(&[0; 256], &none, &mut out),
            Err(WriteError::Header(_))
        ));
        assert!(out.is_empty());
        let header = Fields::from([("version", Value::Int(1)), ("order", Value::Int(2))]);
        cut("length:!B:version L:size L:order").write(b"hi", &header, &mut out).expect("fits");
        assert_eq!(*out, *b"\x01\0\0\0\x02\0\0\0\x02hi");
    }

    /// D-2.1: an integer at a known place is read and written without its layout, and no differently.
    #[test]
    fn headers_are_the_same_with_their_layout_and_without() {
        for spec in ["!b", "!B", "<h", ">H", "@i", "=I", "<l", "!L", "@q", "!Q", "@Bl", "!3xHxB"] {
            let Cut::Length(quick) = cut(&format!("length:{spec}")) else { panic!("{spec}") };
            assert!(quick.slot.is_some(), "{spec}");
            let slow = Header { slot: None, ..quick.clone() };
            for power in 0..64 {
                let sizes = [(1_usize << power) - 1, 1 << power];
                for size in sizes.into_iter().filter(|size| isize::try_from(*size).is_ok()) {
                    let (mut out, mut wanted) = (BytesMut::new(), BytesMut::new());
                    let written = quick.write(size, &Fields::default(), &mut out);
                    let expected = slow.write(size, &Fields::default(), &mut wanted);
                    assert_eq!((written, &out), (expected, &wanted), "{spec} {size}");
                }
                for bytes in [[0xFF; 16], (u128::MAX >> power).to_be_bytes()] {
                    let (extent, wanted) = (quick.extent(&bytes, 16), slow.extent(&bytes, 16));
                    assert_eq!(extent, wanted, "{spec} {bytes:?}");
                }
            }
        }
        for spec in ["!B:version=1 H:size", "!4s:magic H", "!4p B"] {
            let Cut::Length(header) = cut(&format!("length:{spec}")) else { panic!("{spec}") };
            assert_eq!(header.slot, None, "{spec}: there is more to look at");
        }
    }

    /// D-2.1: the announcing field has a name that says so, or is the last.
    #[test]
    fn the_announcing_field_is_found() {
        for (spec, wanted) in [
            ("length:!B:version L:size L:order", "size"),
            ("length:!BLL", "2"),
            ("length:!B:length f:x", "length"),
        ] {
            let Cut::Length(header) = cut(spec) else { panic!("{spec}") };
            assert_eq!(header.announcing(), wanted, "{spec}");
        }
        for spec in ["length:!f", "length:!B:n {n}s", "struct:!0s", "packets", "length", "foo:!B"] {
            Cut::parse(spec).expect_err(spec);
        }
    }
}
