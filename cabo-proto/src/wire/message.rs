//! Messages in a stream, both ways (`docs/protocol/services.md` M-11): one-way, request, reply, failure, cancel.
//!
//! ```text
//!  +-------------+---------------+-------------+------------------+----------------
//!  | type varint | length varint | [id varint] | [length | kind]  | payload ..
//!  +-------------+---------------+-------------+------------------+----------------
//!                                 '---------------- length bytes ----------------'
//! ```
//!
//! [`put`] writes, [`Messages`] cuts what came into messages. It holds what has come of one message and no more.

use bytes::{Buf as _, Bytes, BytesMut};

use super::varint::{self, Malformed, Reader};

/// Bytes of a payload at most, where nobody says otherwise (M-11.3).
pub const PAYLOAD_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of a kind at most, so that its length is one byte (M-11.3).
pub const KIND_MAX_BYTES: usize = 63;

/// A message of so many bytes does not share its room with what comes behind it.
const LARGE_BYTES: usize = 64 * 1024;
const ONE_WAY: u64 = 0x01;
const REQUEST: u64 = 0x02;
const REPLY: u64 = 0x03;
const FAILED: u64 = 0x04;
const CANCEL: u64 = 0x05;

/// What a message is for (M-11.4). Ids are chosen by who asks; each side has its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Nobody answers it.
    OneWay,
    /// Wants one reply or failure with this id.
    Request(u64),
    /// Answers the request of that id.
    Reply(u64),
    /// Says that the request of that id has no answer: the kind is why, the payload text for people.
    Failed(u64),
    /// Whoever asked no longer wants the answer.
    Cancel(u64),
}

impl Role {
    const fn wire(self) -> (u64, Option<u64>) {
        match self {
            Self::OneWay => (ONE_WAY, None),
            Self::Request(id) => (REQUEST, Some(id)),
            Self::Reply(id) => (REPLY, Some(id)),
            Self::Failed(id) => (FAILED, Some(id)),
            Self::Cancel(id) => (CANCEL, Some(id)),
        }
    }
}

/// One message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// What it is for.
    pub role: Role,
    /// Its name among messages, UTF-8; empty where it has none.
    pub kind: Bytes,
    /// What it carries.
    pub payload: Bytes,
}

/// Bytes that are no message; the stream is of no use after them.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MessageError {
    /// Announced larger than may be.
    #[error("a message of {bytes} bytes is over the limit of {limit}")]
    TooLong {
        /// Bytes after the length.
        bytes: u64,
        /// How many there may be.
        limit: usize,
    },
    /// Its parts do not fit into it.
    #[error("no message: {0}")]
    Malformed(#[from] Malformed),
    /// The stream ended in the middle.
    #[error("the stream ended inside a message, after {had} bytes of it")]
    Truncated {
        /// Bytes that came.
        had: usize,
    },
}

/// A message that has no form on the wire.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unfit {
    /// The kind is too long.
    #[error("a kind has at most {KIND_MAX_BYTES} bytes, not {0}")]
    Kind(usize),
    /// The payload is too long.
    #[error("a payload of {bytes} bytes is over the limit of {limit}")]
    Payload {
        /// Its bytes.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

/// Appends a message whose payload is within `limit` (M-11.2).
pub fn put(
    out: &mut BytesMut,
    role: Role,
    kind: &str,
    payload: &[u8],
    limit: usize,
) -> Result<(), Unfit> {
    let kind_len = u8::try_from(kind.len()).ok().filter(|len| usize::from(*len) <= KIND_MAX_BYTES);
    let Some(kind_len) = kind_len else { return Err(Unfit::Kind(kind.len())) };
    if payload.len() > limit {
        return Err(Unfit::Payload { bytes: payload.len(), limit });
    }
    let (number, id) = role.wire();
    let is_bare = matches!(role, Role::Cancel(_));
    let inner = if is_bare { 0 } else { 1 + kind.len() + payload.len() };
    let length = id.map_or(0, varint::len) + inner;
    out.reserve(varint::len(number) + varint::len(length as u64) + length);
    put_varint(out, number);
    put_varint(out, length as u64);
    if let Some(id) = id {
        put_varint(out, id);
    }
    if !is_bare {
        out.extend_from_slice(&[kind_len]); // below 64 a varint is its one byte
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(payload);
    }
    Ok(())
}

fn put_varint(out: &mut BytesMut, value: u64) {
    let value = value.min(varint::MAX);
    let length = varint::len(value);
    let mut bytes = value.to_be_bytes();
    let start = bytes.len() - length;
    bytes[start] |= (length.trailing_zeros() as u8) << 6; // 1, 2, 4, 8 bytes are 0, 1, 2, 3
    out.extend_from_slice(&bytes[start..]);
}

/// Cuts a stream into messages.
#[derive(Debug)]
pub struct Messages {
    bytes: BytesMut,
    limit: usize,
    wanted: usize, // so many bytes the next message has, where that is known
}

impl Messages {
    /// A stream from its first message on; a payload has at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { bytes: BytesMut::new(), limit, wanted: 0 }
    }

    /// Takes what one read gave.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes that are kept and were not given out.
    pub fn unfinished_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The next whole message. One of unknown type is skipped (M-11.5).
    pub fn next_message(&mut self) -> Result<Option<Message>, MessageError> {
        while !self.bytes.is_empty() && self.bytes.len() >= self.wanted {
            let Some((number, start, end)) = self.header()? else { return Ok(None) };
            self.wanted = end;
            let Some(body) = self.bytes.get(start..end) else { return Ok(None) };
            let parts = Parts::of(number, body)?;
            self.wanted = 0;
            let Some(Parts { role, kind_at, kind_len }) = parts else {
                self.bytes.advance(end);
                self.leave_room(end);
                continue;
            };
            let head = start + kind_at;
            self.bytes.advance(head);
            let kind = self.take(kind_len);
            let payload = self.take(end - head - kind_len);
            self.leave_room(end);
            return Ok(Some(Message { role, kind, payload }));
        }
        if self.bytes.is_empty() && self.bytes.capacity() > 0 {
            self.bytes = BytesMut::new(); // an idle stream holds no buffer
        }
        Ok(None)
    }

    /// The stream is over: it must not be in the middle of a message.
    pub fn finish(&self) -> Result<(), MessageError> {
        match self.bytes.len() {
            0 => Ok(()),
            had => Err(MessageError::Truncated { had }),
        }
    }

    /// Type of the next message, where its body starts and where it ends; none while too little has come.
    fn header(&self) -> Result<Option<(u64, usize, usize)>, MessageError> {
        let mut reader = Reader::new(&self.bytes);
        let (Ok(number), Ok(length)) = (reader.varint(), reader.varint()) else { return Ok(None) };
        let limit = self.limit.saturating_add(KIND_MAX_BYTES + 9); // an id and the length of a kind
        match usize::try_from(length) {
            Ok(len) if len <= limit => {
                let start = reader.position();
                Ok(Some((number, start, start + len)))
            }
            Ok(_) | Err(_) => Err(MessageError::TooLong { bytes: length, limit }),
        }
    }

    /// What follows a large message would hold the room of all of it.
    fn leave_room(&mut self, taken: usize) {
        if taken >= LARGE_BYTES && self.bytes.len() < taken {
            self.bytes = BytesMut::from(&self.bytes[..]);
        }
    }

    fn take(&mut self, len: usize) -> Bytes {
        if len == 0 { Bytes::new() } else { self.bytes.split_to(len).freeze() }
    }
}

/// Where the parts of a body are.
struct Parts {
    role: Role,
    kind_at: usize,
    kind_len: usize,
}

impl Parts {
    /// Those of a body; none of a type that is not known.
    fn of(number: u64, body: &[u8]) -> Result<Option<Self>, MessageError> {
        let mut reader = Reader::new(body);
        let role = match number {
            ONE_WAY => Role::OneWay,
            REQUEST => Role::Request(reader.varint()?),
            REPLY => Role::Reply(reader.varint()?),
            FAILED => Role::Failed(reader.varint()?),
            CANCEL => {
                let role = Role::Cancel(reader.varint()?);
                if !reader.is_empty() {
                    return Err(reader.malformed("bytes after the id").into());
                }
                return Ok(Some(Self { role, kind_at: reader.position(), kind_len: 0 }));
            }
            _ => return Ok(None),
        };
        let kind_len = usize::from(reader.u8()?);
        if kind_len > KIND_MAX_BYTES {
            return Err(reader.malformed("a kind too long").into());
        }
        let kind_at = reader.position();
        if std::str::from_utf8(reader.bytes(kind_len)?).is_err() {
            return Err(Malformed { what: "a kind that is not UTF-8", at: kind_at }.into());
        }
        Ok(Some(Self { role, kind_at, kind_len }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::seeded;

    const LIMIT: usize = 1000;

    /// Everything in a stream that comes in `pieces`, and how it ends.
    fn read(pieces: &[&[u8]]) -> (Vec<Message>, Result<(), MessageError>) {
        let mut messages = Messages::new(LIMIT);
        let mut got = Vec::new();
        for piece in pieces {
            messages.push(piece);
            loop {
                match messages.next_message() {
                    Ok(Some(message)) => got.push(message),
                    Ok(None) => break,
                    Err(error) => return (got, Err(error)),
                }
            }
        }
        let end = messages.finish();
        (got, end)
    }

    fn written(role: Role, kind: &str, payload: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::from(&b"dirt"[..]);
        put(&mut out, role, kind, payload, LIMIT).expect("fits");
        out.split_off(4).to_vec()
    }

    fn shown(message: &Message) -> String {
        let (kind, payload) = (message.kind.escape_ascii(), message.payload.escape_ascii());
        match message.role {
            Role::OneWay => format!("ONE-WAY \"{kind}\" \"{payload}\""),
            Role::Request(id) => format!("REQUEST {id} \"{kind}\" \"{payload}\""),
            Role::Reply(id) => format!("REPLY {id} \"{kind}\" \"{payload}\""),
            Role::Failed(id) => format!("FAILED {id} \"{kind}\" \"{payload}\""),
            Role::Cancel(id) => format!("CANCEL {id}"),
        }
    }

    #[test]
    fn the_examples_of_the_specification_mean_what_they_say() {
        let page = include_str!("../../../docs/protocol/services.md");
        let mut count = 0;
        for vector in page.split("message both\n").skip(1) {
            let vector = vector.split("\n\n").next().expect("its lines");
            let (lines, rest) = vector.split_once("\n= ").expect("a meaning");
            let meaning = rest.lines().next().expect("a line");
            let hex = lines.lines().map(|line| line.trim_start().split("  ").next().expect("hex"));
            let bytes: Vec<u8> = hex
                .flat_map(|line| line.split(' '))
                .map(|byte| u8::from_str_radix(byte, 16).expect("hex"))
                .collect();
            let (messages, end) = read(&[&bytes]);
            assert_eq!(end, Ok(()), "{meaning}");
            assert_eq!(messages.iter().map(shown).collect::<Vec<_>>(), [meaning]);
            let kind = std::str::from_utf8(&messages[0].kind).expect("UTF-8");
            assert_eq!(written(messages[0].role, kind, &messages[0].payload), bytes, "{meaning}");
            count += 1;
        }
        assert_eq!(count, 5, "one of each");
    }

    #[test]
    fn what_is_no_message_is_refused_with_its_place() {
        let cases: [(&[u8], &str); 7] = [
            (&[1, 0], "no message: cut short at byte 0"),
            (&[1, 2, 2, b'a'], "no message: cut short at byte 1"),
            (&[1, 2, 1, 0xff], "no message: a kind that is not UTF-8 at byte 1"),
            (&[1, 65, 64, 0], "the stream ended inside a message, after 4 bytes of it"),
            (&[1, 1, 64], "no message: a kind too long at byte 1"),
            (&[5, 2, 1, 0], "no message: bytes after the id at byte 1"),
            (&[9, 0xff, 0, 0, 0, 0, 0, 0, 9], "over the limit of 1072"),
        ];
        for (bytes, wanted) in cases {
            let error = read(&[bytes]).1.expect_err("refused").to_string();
            assert!(error.contains(wanted), "{bytes:x?}: {error}");
        }
        let mut out = BytesMut::new();
        let long = "k".repeat(64);
        assert_eq!(put(&mut out, Role::OneWay, &long, b"", LIMIT), Err(Unfit::Kind(64)));
        let unfit = Unfit::Payload { bytes: 1001, limit: LIMIT };
        assert_eq!(put(&mut out, Role::OneWay, "", &[0; 1001], LIMIT), Err(unfit));
        assert!(out.is_empty(), "what does not fit leaves nothing behind");
    }

    #[test]
    fn the_largest_message_passes_and_unknown_types_are_skipped() {
        let largest = written(Role::Reply(varint::MAX), &"k".repeat(63), &[7; LIMIT]);
        let stream = [&[0x40, 9, 3, 1, 2, 3], &*largest, &[0x06, 0], &[5, 1, 9]].concat();
        let (messages, end) = read(&[&stream]);
        assert_eq!((messages.len(), end), (2, Ok(())));
        assert_eq!((messages[0].payload.len(), messages[1].role), (LIMIT, Role::Cancel(9)));
    }

    fn roles() -> impl Strategy<Value = Role> {
        (0..5, 0..=varint::MAX, 0u32..62).prop_map(|(role, id, shift)| match role {
            0 => Role::OneWay,
            1 => Role::Request(id >> shift),
            2 => Role::Reply(id >> shift),
            3 => Role::Failed(id >> shift),
            _ => Role::Cancel(id >> shift),
        })
    }

    proptest! {
        #![proptest_config(seeded())]

        #[test]
        fn what_is_put_is_read_however_it_is_cut(
            given in prop::collection::vec((roles(), "\\PC{0,15}", prop::collection::vec(any::<u8>(), 0..200)), 0..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut stream = BytesMut::new();
            let mut wanted = Vec::new();
            for (role, kind, payload) in given {
                put(&mut stream, role, &kind, &payload, LIMIT)?;
                let is_bare = matches!(role, Role::Cancel(_));
                let (kind, payload) = if is_bare { Default::default() } else { (kind, payload) };
                wanted.push(Message { role, kind: kind.into(), payload: payload.into() });
            }
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            at.extend([0, stream.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
            prop_assert_eq!(read(&pieces), (wanted, Ok(())));
        }

        #[test]
        fn any_bytes_mean_the_same_however_they_are_cut(
            bytes in prop::collection::vec(prop_oneof![0u8..8, any::<u8>()], 0..60),
            cut in any::<prop::sample::Index>(),
        ) {
            let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
            prop_assert_eq!(read(&[head, tail]), read(&[&bytes]));
        }
    }
}
