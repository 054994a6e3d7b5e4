//! Who serves on this link (W-8): the question to all and the answer of one.
//!
//! Both bodies are parameters (W-5.1), in the clear and proved by nobody. The question is padded so that no answer is
//! longer; whoever answers counts its answers (W-8.2).

use super::packet::{self, ConnectionId, LONG_COMMON, SMALLEST_DISCOVER};
use super::params::{put_field, read_fields};
use super::varint::Malformed;

/// The id of the parameter that only fills, in a question.
const PADDING: u64 = 0x00;
const PORT: u64 = 0x01;
const FINGERPRINT: u64 = 0x02;
const VERSIONS: u64 = 0x03;

/// A whole Discover packet: one parameter of zeros up to the smallest size.
pub fn question(version: u8, nonce: ConnectionId) -> Vec<u8> {
    const FILL: usize = SMALLEST_DISCOVER - LONG_COMMON - 3; // 1 byte of id, 2 of length
    let mut body = Vec::with_capacity(SMALLEST_DISCOVER - LONG_COMMON);
    put_field(&mut body, PADDING, &[0; FILL]);
    packet::discover_packet(version, nonce, &body)
}

/// Checks the body of a Discover packet. Whatever it states is unknown to cabo/1 and skipped.
pub fn check_question(body: &[u8]) -> Result<(), Malformed> {
    read_fields(body).map(|_| ())
}

/// What a server tells a stranger about itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Here<'a> {
    /// The port that it serves on.
    pub port: u16,
    /// The hash of its public key.
    pub fingerprint: [u8; 32],
    /// The versions that it speaks, one byte each; never empty.
    pub versions: &'a [u8],
}

impl<'a> Here<'a> {
    /// A whole Here packet in answer to the question of `nonce`.
    pub fn answer(&self, version: u8, nonce: ConnectionId) -> Vec<u8> {
        packet::here_packet(version, nonce, &self.encode())
    }

    /// The body.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        put_field(&mut body, PORT, &self.port.to_be_bytes());
        put_field(&mut body, FINGERPRINT, &self.fingerprint);
        put_field(&mut body, VERSIONS, self.versions);
        body
    }

    /// Reads the body of a Here packet.
    pub fn decode(body: &'a [u8]) -> Result<Self, Malformed> {
        let (mut port, mut fingerprint, mut versions) = (None, None, None);
        for field in read_fields(body)? {
            match field.id {
                PORT => port = Some(u16::from_be_bytes(field.array()?)),
                FINGERPRINT => fingerprint = Some(field.array()?),
                VERSIONS => versions = Some(field.value).filter(|versions| !versions.is_empty()),
                _ => {}
            }
        }
        let missing = |what| Malformed { what, at: body.len() };
        Ok(Self {
            port: port.ok_or_else(|| missing("no port"))?,
            fingerprint: fingerprint.ok_or_else(|| missing("no fingerprint"))?,
            versions: versions.ok_or_else(|| missing("no versions"))?,
        })
    }
}
