//! Who is there: one, some or all peers of a server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Peer, SendError};

/// All peers of a server, by number. Cheap to clone; it sees who comes and goes.
#[derive(Clone, Default)]
pub struct Peers {
    all: Arc<Mutex<BTreeMap<u64, Peer>>>,
}

impl Peers {
    /// Who is there now, in the order in which they came.
    pub fn list(&self) -> Vec<Peer> {
        self.lock().values().cloned().collect()
    }

    /// The peer of that number, if it is there.
    pub fn get(&self, number: u64) -> Option<Peer> {
        self.lock().get(&number).cloned()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Sends a message to all; each in its own form. Returns whom it could not be sent to, and why.
    pub fn send_all(&self, payload: impl AsRef<[u8]>) -> Vec<(Peer, SendError)> {
        self.send_some(|_| true, |peer| peer.send(payload.as_ref()))
    }

    /// Sends to those of whom `is_meant` says so. Returns whom it could not be sent to, and why.
    pub fn send_some(
        &self,
        is_meant: impl Fn(&Peer) -> bool,
        send: impl Fn(&Peer) -> Result<(), SendError>,
    ) -> Vec<(Peer, SendError)> {
        let meant = self.list().into_iter().filter(is_meant);
        meant.filter_map(|peer| send(&peer).err().map(|error| (peer, error))).collect()
    }

    pub(super) fn insert(&self, peer: &Peer) {
        self.lock().insert(peer.number(), peer.clone());
    }

    pub(super) fn remove(&self, peer: &Peer) {
        self.lock().remove(&peer.number());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Peer>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
