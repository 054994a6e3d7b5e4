//! Packet headers (W-2).

/// The eight random bytes by which a receiver knows its connection (W-2.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct ConnectionId(pub [u8; 8]);
