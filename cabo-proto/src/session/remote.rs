//! Where a peer is, as the pure crate sees it: a few bytes that mean something to the carrier alone.

use std::fmt;

const BYTES_MAX: usize = 27;

/// A peer's address on some carrier. Never used to find a connection (W-2.4), only to answer and to count by source.
#[derive(Clone, Copy, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct Remote {
    len: u8,
    host_len: u8, // the bytes of it that name the host; the rest is a port there
    bytes: [u8; BYTES_MAX],
}

impl Remote {
    /// Wraps a carrier's address that has no ports; `None` if it has more than 27 bytes.
    pub fn new(host: &[u8]) -> Option<Self> {
        let mut bytes = [0; BYTES_MAX];
        bytes.get_mut(..host.len())?.copy_from_slice(host);
        Some(Self { len: host.len() as u8, host_len: host.len() as u8, bytes })
    }

    /// Wraps a host's address and a port there; `None` if together they have more than 27 bytes.
    pub fn with_port(host: &[u8], port: u16) -> Option<Self> {
        let whole = Self::new(&[host, &port.to_be_bytes()].concat())?;
        Some(Self { host_len: host.len() as u8, ..whole })
    }

    /// The carrier's address.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len).min(BYTES_MAX)]
    }

    /// The host's part of it.
    pub fn host(&self) -> &[u8] {
        &self.bytes[..usize::from(self.host_len).min(BYTES_MAX)]
    }

    /// The port, where the address has one.
    pub fn port(&self) -> Option<u16> {
        let port = self.as_bytes().get(self.host().len()..)?;
        port.try_into().ok().map(u16::from_be_bytes)
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({:02x?})", self.as_bytes())
    }
}
