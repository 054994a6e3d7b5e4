//! What the kernel says of a TCP connection (`TCP_INFO`).
//!
//! ```text
//! words of 4 bytes, Linux 4.6 and later
//!   0  state, in the first byte              34  segments out
//!   6  of a listener: connections that wait  35  segments in
//!   7  of a listener: how many may           36  bytes that were never sent
//!  17  round trip, in microseconds           38  segments with data in
//!  25  segments sent again                   39  segments with data out
//! ```
//!
//! Neighbour: `wire` finds the words for it.

use std::os::fd::RawFd;

use super::{Kind, Side};
use crate::carrier::sockopt;

/// A connection's state, as RFC 9293 names it and as the kernel numbers it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    Established,
    SynSent,
    FinWait1,
    FinWait2,
    TimeWait,
    Closed,
    CloseWait,
    LastAck,
    Listen,
    Closing,
}

impl State {
    fn of(number: u8) -> Self {
        match number {
            1 | 3 => Self::Established,
            2 => Self::SynSent,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            _ => Self::Closed,
        }
    }

    /// Its name, with what leads up to it; nothing for the end, which the kernel keeps apart as TIME_WAIT or not at all.
    pub(super) fn told(self, before: &str) -> String {
        let name = match self {
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::FinWait1 => "FIN_WAIT1",
            Self::FinWait2 => "FIN_WAIT2",
            Self::TimeWait => "TIME_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::Closing => "CLOSING",
            Self::Closed => return String::new(),
        };
        format!("{before}{name}")
    }
}

/// What the kernel says of a TCP socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct TcpInfo {
    pub(super) state: State,
    pub(super) round_trip_us: u32,
    pub(super) segments_out: u32,
    pub(super) segments_in: u32,
    pub(super) sent_again: u32,
    pub(super) unsent_bytes: u32,
    pub(super) data_segments_out: u32,
    pub(super) data_segments_in: u32,
    pub(super) queued: u32,
    pub(super) queue_max: u32,
}

impl TcpInfo {
    /// Asks; none for other sockets.
    pub(super) fn of(descriptor: RawFd, kind: Kind) -> Option<Self> {
        if kind != Kind::Tcp {
            return None;
        }
        let words: [u32; 40] = sockopt::get(&descriptor, libc::IPPROTO_TCP, libc::TCP_INFO).ok()?;
        let word = |at: usize| words.get(at).copied().unwrap_or_default();
        Some(Self {
            state: State::of(word(0).to_ne_bytes().first().copied().unwrap_or_default()),
            round_trip_us: word(17),
            segments_out: word(34),
            segments_in: word(35),
            sent_again: word(25),
            unsent_bytes: word(36),
            data_segments_out: word(39),
            data_segments_in: word(38),
            queued: word(6),
            queue_max: word(7),
        })
    }

    pub(super) fn round_trip(&self) -> String {
        format!("round trip {:.3} ms", f64::from(self.round_trip_us) / 1e3)
    }

    pub(super) fn totals(&self, side: Option<Side>) -> String {
        let Self { segments_out, segments_in, sent_again, .. } = self;
        // That one the listener sent, and no connection counts it.
        let after = if side == Some(Side::Accepted) { " after the SYN+ACK" } else { "" };
        let s = if *segments_out == 1 { "" } else { "s" };
        format!(
            "so far {segments_out} segment{s} out{after}, {segments_in} in, {sent_again} sent again, {}",
            self.round_trip()
        )
    }
}
