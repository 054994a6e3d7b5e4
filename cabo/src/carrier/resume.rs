//! How much of a transmit has left when its carrier had to wait in the middle of it.
//!
//! Neighbours: `udp` and `ether`, whose batches the kernel may take in part; `fault`, whose link may have taken all
//! of it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Peer, Transmit};

const START_BYTES: usize = 24; // the longest packet header: holds a number that no other packet has

/// The transmit that last returned `Pending` half-sent. Others may pass it before it is offered again.
#[derive(Debug, Default)]
pub(super) struct Resume {
    half_sent: Mutex<Option<HalfSent>>,
}

#[derive(Debug)]
struct HalfSent {
    to: Peer,
    len: usize,
    start: [u8; START_BYTES],
    sent: usize, // bytes from the start that have left
}

impl Resume {
    /// Bytes of `transmit` that have already left. Forgets them.
    pub(super) fn take(&self, transmit: &Transmit<'_>) -> usize {
        let (len, start) = (transmit.contents.len(), start_of(transmit));
        let is_same = |h: &mut HalfSent| h.to == transmit.to && h.len == len && h.start == start;
        self.lock().take_if(is_same).map_or(0, |half_sent| half_sent.sent)
    }

    /// Keeps that `sent` bytes of `transmit` have left, until it is offered again.
    pub(super) fn keep(&self, transmit: &Transmit<'_>, sent: usize) {
        if sent > 0 {
            let (len, start) = (transmit.contents.len(), start_of(transmit));
            *self.lock() = Some(HalfSent { to: transmit.to, len, start, sent });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<HalfSent>> {
        self.half_sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start_of(transmit: &Transmit<'_>) -> [u8; START_BYTES] {
    let mut start = [0; START_BYTES];
    for (to, from) in start.iter_mut().zip(transmit.contents) {
        *to = *from;
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_transmit_goes_on_where_it_stopped() {
        let resume = Resume::default();
        let first = Transmit { to: Peer::Memory(1), contents: &[1; 40], segment: 10 };
        let to_another = Transmit { to: Peer::Memory(2), ..first };
        let with_another_number = Transmit { contents: &[2; 40], ..first };
        resume.keep(&first, 20);
        for other in [to_another, with_another_number] {
            assert_eq!(resume.take(&other), 0);
        }
        assert_eq!(resume.take(&first), 20, "others may pass it");
        assert_eq!(resume.take(&first), 0, "it is told once");
    }
}
