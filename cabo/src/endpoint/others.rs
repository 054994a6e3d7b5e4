//! What comes to a datagram door and is not cabo's, and who takes it.
//!
//! A carrier has one receiver and one sender (`packets`), so whoever shares a port with cabo is driven by it, too.

use std::io;
use std::task::{Context, Poll};

use cabo_proto::wire::packet;

use crate::carrier::{Datagrams, Peer};

/// Takes the datagrams of a door that are no packets of cabo's, and sends others.
pub(crate) trait Others: Send {
    /// One came; the door is not locked meanwhile.
    fn receive(&mut self, from: Peer, datagram: &[u8]);

    /// Does what is due, and has `cx` woken when there is more. True if anything was done.
    fn poll_work(&mut self, cx: &mut Context<'_>) -> bool;

    /// The next one to send.
    fn next(&mut self) -> Option<(Peer, &[u8])>;

    /// That one is sent, or lost.
    fn sent(&mut self, result: io::Result<()>);
}

/// Whether a datagram is nothing that cabo has to do with.
pub(crate) fn is_foreign(datagram: &[u8]) -> bool {
    datagram.first() != Some(&packet::MARKER) || packet::parse(datagram).is_err()
}

/// Sends what waits. `Pending`: the carrier takes no more now.
pub(super) fn flush(
    others: &mut dyn Others,
    carrier: &dyn Datagrams,
    cx: &mut Context<'_>,
) -> Poll<()> {
    while let Some((to, datagram)) = others.next() {
        match carrier.poll_send_whole(cx, to, datagram) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(result) => others.sent(result),
        }
    }
    Poll::Ready(())
}
