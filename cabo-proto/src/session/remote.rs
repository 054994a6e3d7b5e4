//! Where a peer is, as the pure crate sees it: a few bytes that mean something to the carrier alone.

use std::fmt;

const BYTES_MAX: usize = 27;

/// A peer's address on some carrier. Never used to find a connection (W-2.4), only to answer and to count by source.
#[derive(Clone, Copy, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct Remote {
    len: u8,
    bytes: [u8; BYTES_MAX],
}

impl Remote {
    /// Wraps a carrier's address; `None` if it has more than 27 bytes.
    pub fn new(address: &[u8]) -> Option<Self> {
        let mut bytes = [0; BYTES_MAX];
        bytes.get_mut(..address.len())?.copy_from_slice(address);
        Some(Self { len: address.len() as u8, bytes })
    }

    /// The carrier's address.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len).min(BYTES_MAX)]
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({:02x?})", self.as_bytes())
    }
}
