//! By which of our addresses a peer knows us: an answer comes from the address that was asked.
//!
//! A socket bound to no address in particular would let the routing table choose, and a firewall or NAT on the way
//! drops what comes from an address that nobody asked. Neighbours: `udp`.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

const PEERS_MAX: usize = 16_384; // forgotten together when there are more; each is known again with its next packet

/// The addresses of ours that recent peers sent to.
#[derive(Debug, Default)]
pub(in crate::carrier) struct Asked {
    ours: Mutex<HashMap<SocketAddr, IpAddr>>,
}

impl Asked {
    /// `peer` sent to `ours`.
    pub(in crate::carrier) fn keep(&self, peer: SocketAddr, ours: IpAddr) {
        let mut known = self.lock();
        if known.len() >= PEERS_MAX && !known.contains_key(&peer) {
            known.clear();
        }
        known.insert(peer, ours);
    }

    /// Where `peer` expects us, if it ever sent.
    pub(in crate::carrier) fn of(&self, peer: SocketAddr) -> Option<IpAddr> {
        self.lock().get(&peer).copied()
    }

    /// That address of ours is of no use any more.
    pub(in crate::carrier) fn forget(&self, peer: SocketAddr) {
        self.lock().remove(&peer);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, IpAddr>> {
        self.ours.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_peers_takes_bounded_memory() {
        let (asked, ours) = (Asked::default(), IpAddr::from([127, 0, 0, 1]));
        for n in 0..2 * PEERS_MAX as u32 + 9 {
            asked.keep((n.to_be_bytes(), 9).into(), ours);
        }
        assert!(asked.lock().len() <= PEERS_MAX);
        assert_eq!(asked.of((0u32.to_be_bytes(), 9).into()), None);
        let last = 2 * PEERS_MAX as u32 + 8;
        assert_eq!(asked.of((last.to_be_bytes(), 9).into()), Some(ours));
    }
}
