//! The [`Crypto`] that seals nothing (S-2): two messages carry the parameters, and a CRC finds accidents.
//!
//! It hides nothing, authenticates nothing and names nobody: whoever is on the wire can read and forge all of it. It
//! exists for teaching and for looking, and only where both sides asked for it. `standin` shares the message form
//! below.
//!
//! ```text
//!   0      1        3                    byte, big-endian
//!   +------+--------+-----------------+
//!   | kind | length | fields          |  kind    1 client hello, 2 server hello, 3 server proof, 4 client proof
//!   +------+--------+-----------------+  length  bytes of the fields that follow
//!
//!   +------+--------+-----------------+
//!   | type | length | value           |  one field; a type that is not known is skipped (plain uses 1 and 2)
//!   +------+--------+-----------------+  type    1 protocol name, 2 parameters (W-5), 3 chance, 4 identity, 5 proof, 6 padding
//! ```
//!
//! The client says kind 1 and the server answers kind 2, both in the Initial space; then both are done. A sealed packet
//! is the body and four bytes of CRC-32C (Castagnoli), big-endian, over header and body.

use std::collections::VecDeque;

use crc_fast::{CrcAlgorithm, Digest};

use super::crypto::{
    Crypto, CryptoError, Handshake, KeyChange, Keys, PacketKey, PublicKey, Side, Space,
};
use crate::wire::packet::ConnectionId;

/// What both sides must name in their first message: the protocol and its version.
pub const PROTOCOL: &[u8] = b"cabo/1";

/// The longest handshake message that is read, in bytes; what claims more ends the handshake before it is stored.
pub const MAX_MESSAGE_LEN: usize = 16 * 1024;

/// Crypto of an endpoint that speaks plain. `mac` is its keyed hash of `(label, data)`, for cookies and reset tokens:
/// these need a real secret although nothing else here has one.
pub struct Plain<M> {
    mac: M,
}

impl<M: Fn(&[u8], &[u8]) -> [u8; 16] + Send + Sync> Plain<M> {
    /// Makes the crypto of one endpoint.
    pub fn new(mac: M) -> Self {
        Self { mac }
    }
}

impl<M: Fn(&[u8], &[u8]) -> [u8; 16] + Send + Sync> Crypto for Plain<M> {
    fn initial_keys(&self, _side: Side, _first_id: ConnectionId) -> Keys {
        crc_keys()
    }

    fn start(&self, side: Side, params: Vec<u8>) -> Result<Box<dyn Handshake>, CryptoError> {
        Ok(Box::new(PlainHandshake::new(side, &params)?))
    }

    fn mac(&self, label: &[u8], data: &[u8]) -> [u8; 16] {
        (self.mac)(label, data)
    }
}

struct PlainHandshake {
    side: Side,
    inbox: Inbox,
    outbox: Outbox,
    hello: Vec<u8>, // the server's, kept until it is asked for
    peer_params: Option<Vec<u8>>,
}

impl PlainHandshake {
    fn new(side: Side, params: &[u8]) -> Result<Self, CryptoError> {
        let kind = match side {
            Side::Client => Kind::ClientHello,
            Side::Server => Kind::ServerHello,
        };
        let mut hello = Message::new(kind);
        hello.put(Field::Protocol, PROTOCOL)?;
        hello.put(Field::Params, params)?;
        let mut shake = Self {
            side,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            hello: hello.encode()?,
            peer_params: None,
        };
        if side == Side::Client {
            let hello = std::mem::take(&mut shake.hello);
            shake.outbox.push(hello, None);
        }
        Ok(shake)
    }
}

impl Handshake for PlainHandshake {
    fn read(&mut self, space: Space, data: &[u8]) -> Result<(), CryptoError> {
        if data.is_empty() {
            return Ok(());
        }
        if space != Space::Initial || self.peer_params.is_some() {
            return Err(unexpected("handshake bytes after the handshake"));
        }
        let Some(message) = self.inbox.push(data)? else { return Ok(()) };
        let wanted = match self.side {
            Side::Client => Kind::ServerHello,
            Side::Server => Kind::ClientHello,
        };
        message.check(wanted)?;
        self.inbox.check_empty()?;
        self.peer_params = Some(message.get(Field::Params)?.to_vec());
        let hello = std::mem::take(&mut self.hello);
        self.outbox.push(hello, Some(KeyChange::Handshake(crc_keys())));
        self.outbox.push(Vec::new(), Some(KeyChange::Data(crc_keys())));
        Ok(())
    }

    fn write(&mut self, out: &mut Vec<u8>) -> Option<KeyChange> {
        self.outbox.write(out)
    }

    fn is_handshaking(&self) -> bool {
        self.peer_params.is_none()
    }

    fn peer_params(&self) -> Option<&[u8]> {
        self.peer_params.as_deref()
    }

    fn peer_key(&self) -> Option<PublicKey> {
        None
    }

    fn next_keys(&mut self) -> Option<Keys> {
        None
    }
}

/// The checksum as a key: the same for both directions, all spaces and everybody.
struct Crc;

const CRC_LEN: usize = 4;

fn crc_keys() -> Keys {
    Keys { seal: Box::new(Crc), open: Box::new(Crc) }
}

impl Crc {
    fn tag(header: &[u8], body: &[u8]) -> [u8; CRC_LEN] {
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        digest.update(header);
        digest.update(body);
        let [_, _, _, _, tag @ ..] = digest.finalize().to_be_bytes(); // a 32-bit sum in the low half
        tag
    }
}

impl PacketKey for Crc {
    fn tag_len(&self) -> usize {
        CRC_LEN
    }

    fn seal(&self, _number: u64, header: &[u8], body: &mut [u8]) {
        if let Some((body, tag)) = body.split_last_chunk_mut::<CRC_LEN>() {
            *tag = Self::tag(header, body);
        }
    }

    fn open(&self, _number: u64, header: &[u8], body: &mut [u8]) -> Option<usize> {
        let (body, tag) = body.split_last_chunk::<CRC_LEN>()?;
        (*tag == Self::tag(header, body)).then_some(body.len())
    }

    fn seal_limit(&self) -> u64 {
        u64::MAX
    }

    fn failure_limit(&self) -> u64 {
        u64::MAX
    }
}

/// What a handshake message is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    ClientHello = 1,
    ServerHello = 2,
    ServerProof = 3,
    ClientProof = 4,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Field {
    Protocol = 1,
    Params = 2,
    Chance = 3,
    Identity = 4,
    Proof = 5,
    Padding = 6,
}

/// One handshake message: its kind and its fields as they stand on the wire.
pub(super) struct Message {
    kind: u8,
    fields: Vec<u8>,
}

const HEAD_LEN: usize = 3;

impl Message {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind: kind as u8, fields: Vec::new() }
    }

    pub(super) fn put(&mut self, field: Field, value: &[u8]) -> Result<(), CryptoError> {
        let len = u16::try_from(value.len()).map_err(|_| own_size(value.len()))?;
        self.fields.push(field as u8);
        self.fields.extend_from_slice(&len.to_be_bytes());
        self.fields.extend_from_slice(value);
        Ok(())
    }

    /// Adds padding so that the encoded message has `len` bytes, where there is room for it.
    pub(super) fn pad_to(&mut self, len: usize) -> Result<(), CryptoError> {
        let spare = len.saturating_sub(2 * HEAD_LEN + self.fields.len());
        if spare == 0 { Ok(()) } else { self.put(Field::Padding, &vec![0; spare]) }
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, CryptoError> {
        let len = match u16::try_from(self.fields.len()) {
            Ok(len) if usize::from(len) <= MAX_MESSAGE_LEN => len,
            Ok(_) | Err(_) => return Err(own_size(self.fields.len())),
        };
        let mut bytes = Vec::with_capacity(HEAD_LEN + self.fields.len());
        bytes.push(self.kind);
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(&self.fields);
        Ok(bytes)
    }

    /// Refuses a message of another kind, one whose fields do not fit, and a hello of another protocol.
    pub(super) fn check(&self, wanted: Kind) -> Result<(), CryptoError> {
        if self.kind != wanted as u8 {
            return Err(unexpected("a handshake message out of turn"));
        }
        let mut rest = self.fields.as_slice();
        while !rest.is_empty() {
            next_field(&mut rest)
                .ok_or_else(|| malformed("a handshake field longer than its message"))?;
        }
        let is_hello = matches!(wanted, Kind::ClientHello | Kind::ServerHello);
        if is_hello && self.get(Field::Protocol)? != PROTOCOL {
            return Err(error(120, "the peer speaks another protocol than cabo/1")); // no_application_protocol
        }
        Ok(())
    }

    /// The value of `field`; it must be there exactly once.
    pub(super) fn get(&self, field: Field) -> Result<&[u8], CryptoError> {
        let mut rest = self.fields.as_slice();
        let mut found = None;
        while let Some((kind, value)) = next_field(&mut rest) {
            if kind == field as u8 && found.replace(value).is_some() {
                return Err(malformed("a handshake field stands twice"));
            }
        }
        found.ok_or_else(|| error(109, "a handshake field is missing")) // missing_extension
    }
}

/// Takes the first field off `rest`, as its type and value; `None` where `rest` holds no whole field.
fn next_field<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let ([kind, high, low], after) = rest.split_first_chunk::<HEAD_LEN>()?;
    let (value, after) = after.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
    *rest = after;
    Some((*kind, value))
}

/// Handshake bytes on their way to being a message; holds at most one message and what came with it.
#[derive(Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
}

impl Inbox {
    /// Takes bytes in order; a message once it is whole.
    pub(super) fn push(&mut self, data: &[u8]) -> Result<Option<Message>, CryptoError> {
        if self.bytes.len() + data.len() > HEAD_LEN + MAX_MESSAGE_LEN {
            return Err(malformed("a handshake message beyond 16 KiB"));
        }
        self.bytes.extend_from_slice(data);
        let Some(([kind, high, low], rest)) = self.bytes.split_first_chunk::<HEAD_LEN>() else {
            return Ok(None);
        };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        if len > MAX_MESSAGE_LEN {
            return Err(malformed("a handshake message beyond 16 KiB"));
        }
        let Some(fields) = rest.get(..len) else { return Ok(None) };
        let message = Message { kind: *kind, fields: fields.to_vec() };
        self.bytes.drain(..HEAD_LEN + len);
        Ok(Some(message))
    }

    /// Refuses bytes beyond the message that ends a flight.
    pub(super) fn check_empty(&self) -> Result<(), CryptoError> {
        if self.bytes.is_empty() {
            Ok(())
        } else {
            Err(unexpected("handshake bytes after a whole flight"))
        }
    }
}

/// Flights to send, each followed by the change of keys after it.
#[derive(Default)]
pub(super) struct Outbox {
    flights: VecDeque<(Vec<u8>, Option<KeyChange>)>,
}

impl Outbox {
    pub(super) fn push(&mut self, bytes: Vec<u8>, change: Option<KeyChange>) {
        self.flights.push_back((bytes, change));
    }

    pub(super) fn write(&mut self, out: &mut Vec<u8>) -> Option<KeyChange> {
        while let Some((bytes, change)) = self.flights.pop_front() {
            out.extend_from_slice(&bytes);
            if change.is_some() {
                return change;
            }
        }
        None
    }
}

pub(super) fn error(alert: u8, text: &str) -> CryptoError {
    CryptoError { alert: Some(alert), text: text.to_owned() }
}

pub(super) fn malformed(text: &str) -> CryptoError {
    error(50, text) // decode_error
}

pub(super) fn unexpected(text: &str) -> CryptoError {
    error(10, text) // unexpected_message
}

fn own_size(len: usize) -> CryptoError {
    CryptoError {
        alert: None,
        text: format!("our own parameters of {len} bytes do not fit a handshake message"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::standin::tests::{
        Shaken, assert_garbage_is_refused, assert_keys_match, shake,
    };

    fn plain() -> impl Crypto {
        Plain::new(|_: &[u8], _: &[u8]| [0; 16])
    }

    fn hello(fields: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, value) in fields {
            bytes.push(*kind);
            bytes.extend_from_slice(&(value.len() as u16).to_be_bytes());
            bytes.extend_from_slice(value);
        }
        let mut message = vec![1];
        message.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
        message.extend(bytes);
        message
    }

    #[test]
    fn both_sides_learn_the_parameters_and_nobody_has_a_name() {
        let Shaken { client, server, client_keys, server_keys, sent } =
            shake(&plain(), &plain(), 1).expect("done");
        assert_eq!(client.peer_params(), Some(&b"of the server"[..]));
        assert_eq!(server.peer_params(), Some(&b"of the client"[..]));
        assert_eq!((client.peer_key(), server.peer_key()), (None, None));
        assert_keys_match(&client_keys, &server_keys);
        assert_eq!(sent, [(Side::Client, Space::Initial, 28), (Side::Server, Space::Initial, 28)]);
    }

    #[test]
    fn the_hello_is_these_bytes() {
        let mut out = Vec::new();
        let change = plain().start(Side::Client, vec![0xaa, 0xbb]).expect("starts").write(&mut out);
        assert!(change.is_none());
        assert_eq!(out, b"\x01\x00\x0e\x01\x00\x06cabo/1\x02\x00\x02\xaa\xbb");
    }

    #[test]
    fn the_tag_is_the_castagnoli_checksum() {
        let mut body = *b"6789\0\0\0\0";
        Crc.seal(7, b"12345", &mut body);
        assert_eq!(body[4..], [0xe3, 0x06, 0x92, 0x83]); // the check value of CRC-32/ISCSI
        assert_eq!(Crc.open(7, b"12345", &mut body), Some(4));
    }

    #[test]
    fn a_body_shorter_than_its_tag_is_left_alone() {
        Crc.seal(0, b"h", &mut [1, 2, 3]);
        assert_eq!(Crc.open(0, b"h", &mut [1, 2, 3]), None);
    }

    #[test]
    fn unknown_fields_are_skipped() {
        let mut server = plain().start(Side::Server, Vec::new()).expect("starts");
        let bytes = hello(&[(99, b"from the future"), (1, PROTOCOL), (2, b"p"), (200, b"")]);
        assert_eq!(server.read(Space::Initial, &bytes), Ok(()));
        assert_eq!(server.peer_params(), Some(&b"p"[..]));
    }

    #[test]
    fn what_is_wrong_with_a_hello_is_said() {
        for (bytes, alert) in [
            (hello(&[(1, b"cabo/2"), (2, b"")]), 120),
            (hello(&[(2, b"")]), 109),
            (hello(&[(1, PROTOCOL)]), 109),
            (hello(&[(1, PROTOCOL), (2, b""), (2, b"")]), 50),
            (vec![1, 0, 3, 1, 0, 9], 50),
            (vec![2, 0, 0], 10),
            (vec![1, 0xff, 0xff], 50),
            ([hello(&[(1, PROTOCOL), (2, b"")]), vec![0]].concat(), 10),
        ] {
            let mut server = plain().start(Side::Server, Vec::new()).expect("starts");
            let refusal = server.read(Space::Initial, &bytes).expect_err("refused");
            assert_eq!(refusal.alert, Some(alert), "{bytes:02x?}: {refusal}");
            assert!(server.is_handshaking());
        }
    }

    #[test]
    fn bytes_in_a_later_space_or_after_the_end_are_refused() {
        let mut server = plain().start(Side::Server, Vec::new()).expect("starts");
        assert!(server.read(Space::Handshake, b"x").is_err());
        assert!(server.read(Space::Initial, &hello(&[(1, PROTOCOL), (2, b"")])).is_ok());
        assert!(server.read(Space::Initial, b"x").is_err());
        assert!(server.read(Space::Initial, b"").is_ok());
    }

    #[test]
    fn parameters_that_do_not_fit_are_an_error_of_ours() {
        for len in [MAX_MESSAGE_LEN, 70_000] {
            let refusal = plain().start(Side::Client, vec![0; len]).err().expect("refused");
            assert_eq!(refusal.alert, None);
        }
    }

    #[test]
    fn garbage_is_an_error_and_never_a_panic() {
        assert_garbage_is_refused(&plain());
    }
}
