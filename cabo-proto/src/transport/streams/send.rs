//! The sending half of one stream (T-16): what the application wrote, until the peer has it.
//!
//! Bytes are held by reference and copied once, into the packet that carries them. They stay here until they are
//! acknowledged, so that a lost packet never sends anyone back to a file that may have changed.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use crate::transport::ranges::RangeSet;

/// Writes shorter than this are gathered, so that a million one-byte writes do not become a million chunks.
const GATHER_BYTES: usize = 16 * 1024;

/// What may wait beyond the peer's credit of the stream, so that it goes out as soon as the credit comes.
const BEYOND_CREDIT_BYTES: u64 = 16 * 1024;

/// Where the end of the stream stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fin {
    Open,
    Wanted,
    Sent,
    Acked,
}

/// An abrupt end, ours or asked for by the peer.
#[derive(Clone, Copy, Debug)]
struct Reset {
    code: u64,
    is_acked: bool,
}

/// A piece of the stream that goes into one frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Piece {
    pub(crate) offset: u64,
    pub(crate) len: usize,
    pub(crate) fin: bool,
}

/// The sending half of one stream.
#[derive(Debug)]
pub(crate) struct SendHalf {
    chunks: VecDeque<(u64, Bytes)>, // (offset of its first byte, bytes), without gaps
    tail: Vec<u8>,                  // gathered small writes, behind the chunks
    base: u64,                      // all before it is acknowledged and gone
    end: u64,                       // all before it was written
    next: u64,                      // all before it was sent at least once
    acked: RangeSet,                // acknowledged beyond `base`
    lost: RangeSet,                 // to be sent again
    limit: u64,                     // the peer's credit
    fin: Fin,
    reset: Option<Reset>,
    stopped: Option<u64>, // the peer asked us to stop, with this code
    blocked_at: Option<u64>,
    pub(crate) priority: i32,
    pub(crate) is_queued: bool,
}

impl SendHalf {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            chunks: VecDeque::new(),
            tail: Vec::new(),
            base: 0,
            end: 0,
            next: 0,
            acked: RangeSet::new(),
            lost: RangeSet::new(),
            limit,
            fin: Fin::Open,
            reset: None,
            stopped: None,
            blocked_at: None,
            priority: 0,
            is_queued: false,
        }
    }

    /// Bytes that may still be written before far more waits than the peer gives credit for (T-16.4).
    pub(crate) fn room(&self) -> u64 {
        self.limit.saturating_add(BEYOND_CREDIT_BYTES).saturating_sub(self.end)
    }

    /// Bytes beyond the peer's credit: they wait for its reader, not for the path.
    pub(crate) fn parked(&self) -> u64 {
        self.end.saturating_sub(self.limit.max(self.base))
    }

    /// Bytes held: written and not yet acknowledged.
    pub(crate) fn held(&self) -> u64 {
        self.end - self.base
    }

    pub(crate) fn is_open(&self) -> bool {
        self.fin == Fin::Open && self.reset.is_none()
    }

    pub(crate) fn stopped(&self) -> Option<u64> {
        self.stopped
    }

    /// Takes `data` behind all that was written before. The caller has checked that there is room.
    pub(crate) fn write(&mut self, data: Bytes) {
        let at = self.end;
        self.end += data.len() as u64;
        if data.len() < GATHER_BYTES / 4 && self.tail.len() + data.len() <= GATHER_BYTES {
            self.tail.extend_from_slice(&data);
            return;
        }
        self.flush_tail(at);
        self.chunks.push_back((at, data));
    }

    /// Turns the gathered small writes, which end at `end`, into a chunk.
    fn flush_tail(&mut self, end: u64) {
        if !self.tail.is_empty() {
            let tail = std::mem::take(&mut self.tail);
            self.chunks.push_back((end - tail.len() as u64, tail.into()));
        }
    }

    pub(crate) fn finish(&mut self) {
        if self.is_open() {
            self.fin = Fin::Wanted;
        }
    }

    /// Ends the stream abruptly; what was not sent never will be (T-16.5). False if it had ended already.
    pub(crate) fn reset(&mut self, code: u64) -> bool {
        if self.reset.is_some() || self.is_done() {
            return false;
        }
        self.reset = Some(Reset { code, is_acked: false });
        (self.chunks, self.tail) = Default::default();
        (self.lost, self.acked) = (RangeSet::new(), RangeSet::new());
        self.base = self.end;
        true
    }

    /// The code and final size of a RESET_STREAM frame.
    pub(crate) fn reset_frame(&self) -> Option<(u64, u64)> {
        self.reset.map(|reset| (reset.code, self.next))
    }

    pub(crate) fn on_reset_acked(&mut self) {
        if let Some(reset) = &mut self.reset {
            reset.is_acked = true;
        }
    }

    /// The peer wants no more of this stream. True the first time.
    pub(crate) fn on_stop(&mut self, code: u64) -> bool {
        self.stopped.replace(code).is_none()
    }

    /// The peer raised its credit; true if that helps.
    pub(crate) fn on_credit(&mut self, limit: u64) -> bool {
        let is_more = limit > self.limit;
        self.limit = self.limit.max(limit);
        is_more
    }

    /// The limit to name in a STREAM_BLOCKED frame, once for each limit.
    pub(crate) fn blocked(&mut self) -> Option<u64> {
        let is_blocked =
            self.next == self.limit && self.next < self.end && self.blocked_at != Some(self.limit);
        is_blocked.then(|| *self.blocked_at.insert(self.limit))
    }

    /// True if a frame could be sent now, given `credit` bytes of the connection for what was never sent.
    pub(crate) fn has_work(&self, credit: u64) -> bool {
        if self.reset.is_some() {
            return false; // RESET_STREAM goes out as a control frame
        }
        let is_fresh = self.next < self.end.min(self.limit) && credit > 0;
        !self.lost.is_empty() || is_fresh || (self.fin == Fin::Wanted && self.next == self.end)
    }

    /// Chooses the next piece of at most `room` bytes, lost ones first; `credit` limits what was never sent.
    pub(crate) fn next_piece(&mut self, room: usize, credit: u64) -> Option<Piece> {
        if self.reset.is_some() {
            return None;
        }
        if let Some(range) = self.lost.first() {
            let end = range.end.min(range.start + room as u64);
            if end == range.start {
                return None;
            }
            self.lost.remove_range(range.start..end);
            let fin = end == self.end
                && self.next == self.end
                && matches!(self.fin, Fin::Wanted | Fin::Sent);
            if fin {
                self.fin = Fin::Sent;
            }
            return Some(Piece { offset: range.start, len: (end - range.start) as usize, fin });
        }
        let fresh = self.end.min(self.limit).saturating_sub(self.next).min(credit).min(room as u64);
        let fin = self.fin == Fin::Wanted && self.next + fresh == self.end;
        if fresh == 0 && !fin {
            return None;
        }
        let piece = Piece { offset: self.next, len: fresh as usize, fin };
        self.next += fresh;
        if fin {
            self.fin = Fin::Sent;
        }
        Some(piece)
    }

    /// Bytes of `piece` that were never sent before; they count against the connection's credit.
    pub(crate) fn sent_end(&self) -> u64 {
        self.next
    }

    /// Appends the bytes of a piece to `out`.
    pub(crate) fn copy(&self, piece: &Piece, out: &mut Vec<u8>) {
        let (mut at, end) = (piece.offset, piece.offset + piece.len as u64);
        let mut index = self.chunks.partition_point(|(start, _)| *start <= at).saturating_sub(1);
        while at < end {
            let Some((start, chunk)) = self.chunks.get(index) else { break };
            let from = (at - start) as usize;
            let to = chunk.len().min((end - start) as usize);
            if from < to {
                out.extend_from_slice(&chunk[from..to]);
                at += (to - from) as u64;
            }
            index += 1;
        }
        if at < end {
            let start = self.end - self.tail.len() as u64;
            out.extend_from_slice(&self.tail[(at - start) as usize..(end - start) as usize]);
        }
    }

    /// The peer has this piece. Returns how many held bytes became free.
    pub(crate) fn on_acked(&mut self, piece: &Piece) -> u64 {
        if self.reset.is_some() {
            return 0;
        }
        if piece.fin {
            self.fin = Fin::Acked;
        }
        let (before, end) = (self.base, piece.offset + piece.len as u64);
        if piece.len > 0 {
            self.lost.remove_range(piece.offset..end);
            if piece.offset <= self.base && self.acked.is_empty() {
                self.base = self.base.max(end);
            } else if end > self.base {
                self.acked.insert_range(piece.offset.max(self.base)..end);
                if let Some(range) = self.acked.first().filter(|range| range.start <= self.base) {
                    self.acked.remove_below(range.end);
                    self.base = range.end;
                }
            }
        }
        self.drop_acked();
        self.base - before
    }

    fn drop_acked(&mut self) {
        while let Some((start, chunk)) = self.chunks.front() {
            if start + chunk.len() as u64 > self.base {
                return;
            }
            self.chunks.pop_front();
        }
        let tail_start = self.end - self.tail.len() as u64;
        if self.base > tail_start {
            self.tail.drain(..(self.base - tail_start) as usize);
            if self.tail.is_empty() {
                self.tail = Vec::new(); // a stream that waits holds no buffer
            }
        }
    }

    /// The packet that carried this piece was lost; true if something has to be sent again.
    pub(crate) fn on_lost(&mut self, piece: &Piece) -> bool {
        if self.reset.is_some() {
            return false;
        }
        let (start, end) = (piece.offset.max(self.base), piece.offset + piece.len as u64);
        if start < end {
            self.lost.insert_range(start..end);
            self.forget_acked(start..end);
        }
        if piece.fin && self.fin == Fin::Sent {
            self.fin = Fin::Wanted; // it travels with the last byte when that goes again, else alone
        }
        !self.lost.is_empty() || self.fin == Fin::Wanted
    }

    /// Takes out of `lost` what was acknowledged by another packet meanwhile.
    fn forget_acked(&mut self, within: Range<u64>) {
        if self.acked.is_empty() {
            return;
        }
        let acked: Vec<Range<u64>> = self
            .acked
            .iter()
            .filter(|range| range.start < within.end && range.end > within.start)
            .collect();
        for range in acked {
            self.lost.remove_range(range);
        }
    }

    /// True when nothing more will ever be sent: all acknowledged, or the reset was.
    pub(crate) fn is_done(&self) -> bool {
        self.reset.map_or(self.fin == Fin::Acked && self.base == self.end, |reset| reset.is_acked)
    }
}
