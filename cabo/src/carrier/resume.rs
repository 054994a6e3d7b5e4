//! How much of a transmit has left when its carrier had to wait in the middle of it.
//!
//! Neighbours: `udp` and `ether`, whose batches the kernel may take in part; `fault`, whose link may have taken all of it.

use std::sync::{Mutex, PoisonError};

use super::{Peer, Transmit};

/// The transmit that last returned `Pending` half-sent, known by its peer and length: by contract it is offered next.
#[derive(Debug, Default)]
pub(super) struct Resume {
    half_sent: Mutex<Option<HalfSent>>,
}

#[derive(Debug)]
struct HalfSent {
    to: Peer,
    len: usize,
    sent: usize, // bytes from the start that have left
}

impl Resume {
    /// Bytes of `transmit` that have already left. Forgets them.
    pub(super) fn take(&self, transmit: &Transmit<'_>) -> usize {
        let half_sent = self.half_sent.lock().unwrap_or_else(PoisonError::into_inner).take();
        half_sent
            .filter(|h| h.to == transmit.to && h.len == transmit.contents.len())
            .map_or(0, |h| h.sent)
    }

    /// Keeps that `sent` bytes of `transmit` have left, until it is offered again.
    pub(super) fn keep(&self, transmit: &Transmit<'_>, sent: usize) {
        if sent > 0 {
            let half_sent = HalfSent { to: transmit.to, len: transmit.contents.len(), sent };
            *self.half_sent.lock().unwrap_or_else(PoisonError::into_inner) = Some(half_sent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_transmit_goes_on_where_it_stopped() {
        let resume = Resume::default();
        let first = Transmit { to: Peer::Memory(1), contents: &[0; 40], segment: 10 };
        let other = Transmit { to: Peer::Memory(2), contents: &[0; 40], segment: 10 };
        resume.keep(&first, 20);
        assert_eq!(resume.take(&first), 20);
        assert_eq!(resume.take(&first), 0, "it is told once");
        resume.keep(&first, 20);
        assert_eq!(resume.take(&other), 0);
    }
}
