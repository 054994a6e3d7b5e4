//! The keys of the data space and their update (S-6).
//!
//! Each side may move to the next phase; the other follows when it sees the phase bit change. The keys of the phase
//! before stay for packets that were under way.

use std::time::{Duration, Instant};

use super::crypto::{Handshake, Keys, PacketKey};

/// The open key of the phase before.
struct Previous {
    open: Box<dyn PacketKey>,
    until: Option<Instant>, // set when the first packet of the current phase arrives
    first_current: Option<u64>, // lowest number seen in the current phase
}

/// Leaves everything as it is, for a channel around it seals.
struct Unsealed;

impl PacketKey for Unsealed {
    fn tag_len(&self) -> usize {
        0
    }

    fn seal(&self, _number: u64, _header: &[u8], _body: &mut [u8]) {}

    fn open(&self, _number: u64, _header: &[u8], body: &mut [u8]) -> Option<usize> {
        Some(body.len())
    }

    fn seal_limit(&self) -> u64 {
        u64::MAX
    }

    fn failure_limit(&self) -> u64 {
        0
    }
}

/// See the module.
pub(crate) struct PhaseKeys {
    is_odd: bool,
    current: Keys,
    next: Option<Keys>,
    previous: Option<Previous>,
    sealed: u64,
    first_sealed: u64, // the first number under the current keys
    failures: u64,
    update_after: u64,
}

/// What opening a packet came to.
pub(crate) enum Opened {
    /// It holds this many bytes.
    Body(usize),
    /// It was not sealed by the peer.
    Failed,
    /// So many failed that the connection must end (S-6.3).
    TooManyFailures,
}

impl PhaseKeys {
    pub(crate) fn new(keys: Keys, handshake: &mut dyn Handshake, update_after: u64) -> Self {
        // A margin below what the cipher allows: the peer may lag behind by a window.
        let update_after = update_after.min(keys.seal.seal_limit() / 2).max(1);
        let next = handshake.next_keys();
        Self {
            is_odd: false,
            current: keys,
            next,
            previous: None,
            sealed: 0,
            first_sealed: 0,
            failures: 0,
            update_after,
        }
    }

    /// The keys of a session inside a channel that seals (S-7.7): nothing is sealed, and there is no next phase.
    pub(crate) fn unsealed() -> Self {
        Self {
            is_odd: false,
            current: Keys { seal: Box::new(Unsealed), open: Box::new(Unsealed) },
            next: None,
            previous: None,
            sealed: 0,
            first_sealed: 0,
            failures: 0,
            update_after: u64::MAX,
        }
    }

    pub(crate) fn is_odd(&self) -> bool {
        self.is_odd
    }

    pub(crate) fn tag_len(&self) -> usize {
        self.current.seal.tag_len()
    }

    pub(crate) fn seal(&mut self, number: u64, header: &[u8], body: &mut [u8]) {
        self.sealed += 1;
        self.current.seal.seal(number, header, body);
    }

    /// True when the cipher allows no further packet, because the peer never followed to the next phase (S-6.4).
    pub(crate) fn is_exhausted(&self) -> bool {
        self.next.is_some() && self.sealed >= self.current.seal.seal_limit()
    }

    /// Starts the next phase if enough was sealed under this one and the peer is known to have followed to it.
    pub(crate) fn maybe_update(
        &mut self,
        next_number: u64,
        largest_acked: Option<u64>,
        handshake: &mut dyn Handshake,
    ) {
        let is_confirmed = largest_acked.is_some_and(|acked| acked >= self.first_sealed)
            && self.previous.is_none();
        if self.sealed >= self.update_after && is_confirmed {
            self.rotate(next_number, None, handshake);
        }
    }

    fn rotate(
        &mut self,
        next_number: u64,
        first_current: Option<u64>,
        handshake: &mut dyn Handshake,
    ) {
        let Some(next) = self.next.take() else { return };
        let old = std::mem::replace(&mut self.current, next);
        self.previous = Some(Previous { open: old.open, until: None, first_current });
        self.next = handshake.next_keys();
        self.is_odd = !self.is_odd;
        self.sealed = 0;
        self.first_sealed = next_number;
    }

    /// Opens a packet in place. `keep` is how long the phase before stays readable.
    pub(crate) fn open(
        &mut self,
        now: Instant,
        keep: Duration,
        packet: (bool, u64, &[u8]), // phase, number, header
        body: &mut [u8],
        next_number: u64,
        handshake: &mut dyn Handshake,
    ) -> Opened {
        let (is_odd, number, header) = packet;
        if self
            .previous
            .as_ref()
            .is_some_and(|previous| previous.until.is_some_and(|until| until <= now))
        {
            self.previous = None;
        }
        let opened = if is_odd == self.is_odd {
            let opened = self.current.open.open(number, header, body);
            if let (Some(_), Some(previous)) = (opened, &mut self.previous) {
                previous.until.get_or_insert(now + keep);
                previous.first_current =
                    Some(previous.first_current.map_or(number, |first| first.min(number)));
            }
            opened
        } else {
            match &self.previous {
                Some(previous) if previous.first_current.is_none_or(|first| number < first) => {
                    previous.open.open(number, header, body)
                }
                // A peer with a shorter round trip may be two phases ahead of what we keep.
                Some(_) | None => {
                    let opened =
                        self.next.as_ref().and_then(|next| next.open.open(number, header, body));
                    if opened.is_some() {
                        self.rotate(next_number, Some(number), handshake);
                        if let Some(previous) = &mut self.previous {
                            previous.until = Some(now + keep);
                        }
                    }
                    opened
                }
            }
        };
        match opened {
            Some(len) => Opened::Body(len),
            None => {
                self.failures += 1;
                let is_over = self.failures > self.current.open.failure_limit();
                if is_over { Opened::TooManyFailures } else { Opened::Failed }
            }
        }
    }
}
