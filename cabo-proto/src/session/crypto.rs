//! What the session asks of cryptography (S-2), so that the pure crate needs none.
//!
//! The real body is rustls behind `cabo`; `plain` has one that seals nothing; the simulator has a deterministic
//! stand-in.

pub use crate::wire::frame::Space;
use crate::wire::packet::ConnectionId;

/// Which end of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// The one that sends the first packet.
    Client,
    /// The one that listens.
    Server,
}

/// A peer's static Ed25519 public key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct PublicKey(pub [u8; 32]);

/// Why the handshake or a packet's seal failed. The text is for people; it never holds secrets.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{text}")]
pub struct CryptoError {
    /// The TLS alert to send, where there is one.
    pub alert: Option<u8>,
    /// What went wrong, in words.
    pub text: String,
}

impl CryptoError {
    /// The alert of a peer that has proved another identity than the one expected (TLS: certificate_unknown).
    pub const WRONG_PEER: u8 = 46;

    /// The error of a peer that is not at the other end of the channel around us (TLS: access_denied): whoever is
    /// between us opens that channel and makes another one (S-7.6).
    pub(crate) fn wrong_channel() -> Self {
        let text = "the peer is at the end of another TLS channel than this side: somebody between the two opens it";
        Self { alert: Some(49), text: text.to_owned() }
    }

    /// Whether this is about a peer that proved another identity than the one expected.
    pub fn is_wrong_peer(&self) -> bool {
        self.alert == Some(Self::WRONG_PEER)
    }
}

/// What one endpoint brings to every handshake: its identity, its policy, and a keyed hash of its own.
pub trait Crypto: Send + Sync {
    /// Keys of the Initial space, from the first id that the client sent to (RFC 9001 section 5.2).
    fn initial_keys(&self, side: Side, first_id: ConnectionId) -> Keys;
    /// Starts a handshake that carries `params` (W-5) to the peer.
    fn start(&self, side: Side, params: Vec<u8>) -> Result<Box<dyn Handshake>, CryptoError>;
    /// A keyed hash under a secret of this endpoint: cookies (S-4) and reset tokens (S-5).
    fn mac(&self, label: &[u8], data: &[u8]) -> [u8; 16];
    /// Whether `tag` is the [`mac`](Self::mac) of `data`, in a time that does not tell how nearly it is.
    fn mac_matches(&self, label: &[u8], data: &[u8], tag: &[u8]) -> bool {
        let right = self.mac(label, data);
        right.len() == tag.len() && right.iter().zip(tag).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
    }
}

/// One side of one handshake.
pub trait Handshake: Send {
    /// Takes handshake bytes of `space`, in order. Bytes of one space at a time.
    fn read(&mut self, space: Space, data: &[u8]) -> Result<(), CryptoError>;
    /// Appends bytes to send to `out`. A returned change says: what was appended so far belongs to the current space,
    /// what the next call appends belongs to the next one. Call until it returns `None` and appends nothing.
    fn write(&mut self, out: &mut Vec<u8>) -> Option<KeyChange>;
    /// True until this side has proved the peer and has all keys.
    fn is_handshaking(&self) -> bool;
    /// The peer's parameters (W-5), as soon as they are known.
    fn peer_params(&self) -> Option<&[u8]>;
    /// The peer's identity once proved; `None` where the peer has none (plain).
    fn peer_key(&self) -> Option<PublicKey>;
    /// The keys of the next phase (S-6); `None` where there is no key update (plain).
    fn next_keys(&mut self) -> Option<Keys>;
}

/// Keys that became available.
pub enum KeyChange {
    /// Of the handshake space.
    Handshake(Keys),
    /// Of the data space.
    Data(Keys),
}

/// One key a direction.
pub struct Keys {
    /// For what we send.
    pub seal: Box<dyn PacketKey>,
    /// For what we receive.
    pub open: Box<dyn PacketKey>,
}

/// Seals and opens one packet or record at a time, in place.
pub trait PacketKey: Send + Sync {
    /// Bytes that sealing adds.
    fn tag_len(&self) -> usize;
    /// Seals `body`, whose last [`tag_len`](Self::tag_len) bytes are room for the tag.
    fn seal(&self, number: u64, header: &[u8], body: &mut [u8]);
    /// Opens `body` in place and returns the length of what it held; `None` where it was not sealed by the peer.
    fn open(&self, number: u64, header: &[u8], body: &mut [u8]) -> Option<usize>;
    /// Packets that may be sealed under one key.
    fn seal_limit(&self) -> u64;
    /// Packets that may fail to open under one key before the connection must end.
    fn failure_limit(&self) -> u64;
}
