//! All streams of one connection (T-16): opening, credit, priorities, and which frame goes next.
//!
//! `send` and `recv` hold one half of one stream each. This table decides among them and never looks into bytes.

mod recv;
mod send;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use self::recv::Read;
pub(crate) use self::recv::RecvHalf;
use self::recv::Refused;
pub(crate) use self::send::{Piece, SendHalf};
use crate::transport::flow::{Budget, RecvCredit, SendCredit};
use crate::wire::code::Code;
use crate::wire::frame::{self, Direction, Frame, Opener, StreamId};
use crate::wire::params::Params;

/// How much a connection may hold and how many streams the peer may open.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Two-way streams that the peer may have open.
    pub streams_both: u64,
    /// One-way streams that the peer may have open.
    pub streams_one: u64,
    /// Credit of a stream at the start, bytes.
    pub stream_window_bytes: u64,
    /// Credit of the connection at the start, bytes.
    pub window_bytes: u64,
    /// Neither credit grows beyond this, bytes.
    pub window_max_bytes: u64,
    /// Written and not yet acknowledged, all streams together, bytes; writes wait beyond it.
    pub send_buffer_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams_both: 256,
            streams_one: 256,
            stream_window_bytes: 1 << 20,
            window_bytes: 2 << 20,
            window_max_bytes: 32 << 20,
            send_buffer_bytes: 16 << 20,
        }
    }
}

/// How many times what is left of the send buffer one stream may hold.
const SHARE_OF_LEFT: u64 = 8;
/// A writer that waits is told when there is room for so much.
const WORTH_WRITING_BYTES: u64 = 16 * 1024;

/// Something that happened to a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StreamEvent {
    /// The peer opened it.
    Opened(StreamId),
    /// There is something to read, or its end. Told once until somebody reads.
    Readable(StreamId),
    /// There is room to write again.
    Writable(StreamId),
    /// The peer wants no more of it; the code says why.
    Stopped(StreamId, u64),
    /// The peer has all of it.
    Finished(StreamId),
    /// Streams of this direction can be opened again.
    Available(Direction),
}

/// A breach of the rules by the peer; it ends the connection (W-6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Breach(pub(crate) Code, pub(crate) &'static str);

/// Why a call on a stream failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StreamError {
    /// No such stream, or it ended.
    #[error("the stream is closed")]
    Closed,
    /// The peer asked us to stop sending.
    #[error("the peer wants no more of this stream (code {0})")]
    Stopped(u64),
}

/// Frames about streams that are wanted, and come back here when the packet that carried them is lost.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub(crate) enum Control {
    Reset(StreamId),
    Stop(StreamId),
    MaxData,
    MaxStreams(Direction),
    MaxStreamData(StreamId),
    DataBlocked,
    StreamBlocked(StreamId),
}

/// What a packet carried of a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SentPart {
    Piece(StreamId, Piece),
    Control(Control),
}

/// The receiving half and its credit.
#[derive(Debug)]
struct Recv {
    half: RecvHalf,
    credit: RecvCredit,
    is_told: bool, // that it is readable, and nobody has read since
}

/// Counts of one direction of streams.
#[derive(Debug, Default)]
struct Counts {
    opened: u64,      // by us
    may_open: u64,    // the peer lets us
    peer_opened: u64, // by the peer
    peer_may: u64,    // we let it
    peer_ended: u64,
    was_short: bool, // an open failed since the last Available
}

/// All streams of one connection.
#[derive(Debug)]
pub struct Streams {
    us: Opener,
    rtt: Duration,
    is_ordered: bool,
    limits: Limits,
    peer: Params,
    send: BTreeMap<StreamId, Box<SendHalf>>, // in boxes: a map has room for eleven as soon as it has one
    recv: BTreeMap<StreamId, Box<Recv>>,
    counts: [Counts; 2],
    out_credit: SendCredit, // of the connection
    in_credit: RecvCredit,
    stuck: u64, // behind holes, of all streams
    budget: Arc<Budget>,
    held: u64,   // written and not acknowledged, of all streams
    parked: u64, // of these, what waits for credit of its stream
    send_buffer_bytes: u64,
    waiting_to_write: BTreeSet<StreamId>,
    queue: BTreeMap<Reverse<i32>, VecDeque<StreamId>>,
    control: BTreeSet<Control>,
    events: VecDeque<StreamEvent>,
}

impl Streams {
    pub(crate) fn new(us: Opener, limits: Limits, budget: Arc<Budget>) -> Self {
        let counts = [
            Counts { peer_may: limits.streams_both, ..Counts::default() },
            Counts { peer_may: limits.streams_one, ..Counts::default() },
        ];
        Self {
            us,
            rtt: Duration::ZERO,
            is_ordered: false,
            peer: Params::default(),
            send: BTreeMap::new(),
            recv: BTreeMap::new(),
            counts,
            out_credit: SendCredit::new(0),
            in_credit: RecvCredit::new(
                limits.window_bytes,
                limits.window_max_bytes,
                budget.clone(),
            ),
            stuck: 0,
            budget,
            held: 0,
            parked: 0,
            send_buffer_bytes: limits.send_buffer_bytes.min(1 << 20),
            waiting_to_write: BTreeSet::new(),
            queue: BTreeMap::new(),
            control: BTreeSet::new(),
            events: VecDeque::new(),
            limits,
        }
    }

    /// The peer's parameters, once known: its credit.
    pub(crate) fn on_params(&mut self, peer: &Params) {
        self.peer = peer.clone();
        self.out_credit.raise(peer.max_data);
        self.counts[Direction::Both as usize].may_open = peer.max_streams_both;
        self.counts[Direction::One as usize].may_open = peer.max_streams_one;
    }

    /// Lets the send buffer follow the congestion window, so that a fast path is kept full and a slow one not stuffed.
    pub(crate) fn set_send_buffer(&mut self, bytes: u64) {
        self.send_buffer_bytes = bytes.clamp(1 << 20, self.limits.send_buffer_bytes.max(1 << 20));
    }

    /// The time that credit takes to come back; windows grow by it.
    pub(crate) fn set_rtt(&mut self, rtt: Duration) {
        self.rtt = rtt;
    }

    /// The carrier keeps order and tells no round trip: windows grow when the peer waits for credit (T-13.5).
    pub(crate) fn set_ordered(&mut self) {
        self.is_ordered = true;
    }

    pub(crate) fn poll_event(&mut self) -> Option<StreamEvent> {
        self.events.pop_front()
    }

    /// True while any stream is open.
    pub fn any_open(&self) -> bool {
        !self.send.is_empty() || !self.recv.is_empty()
    }

    /// Opens a stream; `None` when the peer allows no more now (an [`StreamEvent::Available`] follows).
    pub fn open(&mut self, direction: Direction) -> Option<StreamId> {
        let counts = &mut self.counts[direction as usize];
        if counts.opened >= counts.may_open {
            counts.was_short = true;
            return None;
        }
        let id = StreamId::new(self.us, direction, counts.opened);
        counts.opened += 1;
        let limit = self.peer.max_stream_data;
        self.send.insert(id, Box::new(SendHalf::new(limit)));
        if direction == Direction::Both {
            self.insert_recv(id);
        }
        Some(id)
    }

    fn insert_recv(&mut self, id: StreamId) {
        let (first, max) = (self.limits.stream_window_bytes, self.limits.window_max_bytes);
        let credit = RecvCredit::new(first, max, self.budget.clone());
        let half = RecvHalf::new();
        self.recv.insert(id, Box::new(Recv { half, credit, is_told: false }));
    }

    // --- the application's side -------------------------------------------------------------------------------------

    /// Room for a write now, bytes; 0 asks for a [`StreamEvent::Writable`].
    pub fn write_room(&mut self, id: StreamId) -> Result<usize, StreamError> {
        let half = self.send.get(&id).ok_or(StreamError::Closed)?;
        if let Some(code) = half.stopped() {
            return Err(StreamError::Stopped(code));
        }
        if !half.is_open() {
            return Err(StreamError::Closed);
        }
        let room = self.buffer_room(half).min(half.room()) as usize;
        if room == 0 {
            self.waiting_to_write.insert(id);
        }
        Ok(room)
    }

    /// T-16.4: each stream may hold a large multiple of what is left, so that one has nearly all the buffer, and yet
    /// there is something for the next, which may be urgent.
    fn buffer_room(&self, half: &SendHalf) -> u64 {
        let left = self.send_buffer_bytes.saturating_sub(self.held - self.parked);
        (left * SHARE_OF_LEFT).saturating_sub(half.held() - half.parked()) / (SHARE_OF_LEFT + 1)
    }

    /// True if it is worth to tell a writer that waits.
    fn is_writable(&self, half: &SendHalf) -> bool {
        let room = self.buffer_room(half);
        half.room() > 0
            && (room >= WORTH_WRITING_BYTES || (room > 0 && half.held() == half.parked()))
    }

    /// Writes all of `data`, for which [`write_room`](Self::write_room) has said that there is room.
    pub fn write(&mut self, id: StreamId, data: Bytes) {
        if let Some(half) = self.send.get_mut(&id).filter(|half| half.is_open()) {
            let parked = half.parked();
            self.held += data.len() as u64;
            half.write(data);
            self.parked += half.parked() - parked;
            self.enqueue(id);
        }
    }

    /// Ends the stream behind what was written.
    pub fn finish(&mut self, id: StreamId) -> Result<(), StreamError> {
        let half = self.send.get_mut(&id).ok_or(StreamError::Closed)?;
        half.finish();
        self.enqueue(id);
        Ok(())
    }

    /// Ends the stream abruptly: what was not delivered may never be.
    pub fn reset(&mut self, id: StreamId, code: u64) {
        if let Some(half) = self.send.get_mut(&id) {
            let (held, parked) = (half.held(), half.parked());
            if half.reset(code) {
                self.parked -= parked;
                self.release(held);
                self.control.insert(Control::Reset(id));
            }
        }
    }

    /// Streams of higher priority go first; 0 is the default.
    pub fn set_priority(&mut self, id: StreamId, priority: i32) {
        let Some(half) = self.send.get_mut(&id) else { return };
        let before = std::mem::replace(&mut half.priority, priority);
        if half.is_queued && before != priority {
            // It may wait behind streams that never let its old priority have a turn.
            if let Some(queue) = self.queue.get_mut(&Reverse(before)) {
                queue.retain(|queued| *queued != id);
            }
            self.queue.entry(Reverse(priority)).or_default().push_back(id);
        }
    }

    /// True if frames about streams wait to be sent, such as credit that a read has freed.
    pub fn has_credit_to_send(&self) -> bool {
        !self.control.is_empty()
    }

    /// Bytes that a read could give now.
    pub fn available(&self, id: StreamId) -> usize {
        let available = self.recv.get(&id).map_or(0, |recv| recv.half.available());
        usize::try_from(available).unwrap_or(usize::MAX)
    }

    /// Reads into `out`. Credit that this frees goes to the peer.
    pub fn read(
        &mut self,
        now: Instant,
        id: StreamId,
        out: &mut [u8],
    ) -> Result<Read, StreamError> {
        let recv = self.recv.get_mut(&id).ok_or(StreamError::Closed)?;
        recv.is_told = false;
        let before = recv.half.consumed();
        let read = recv.half.read(out);
        let consumed = recv.half.consumed() - before;
        if consumed > 0 {
            let is_due = recv.credit.on_consumed(now, consumed, self.rtt).is_some();
            let is_grown = recv.credit.grow_for_blocked().is_some();
            if (is_due || is_grown) && recv.half.wants_credit() {
                self.control.insert(Control::MaxStreamData(id));
            }
        }
        let is_done = recv.half.is_done();
        self.on_consumed(now, consumed);
        if is_done {
            self.drop_recv(id);
        }
        Ok(read)
    }

    /// Tells the peer that nobody will read this stream any further.
    pub fn stop(&mut self, now: Instant, id: StreamId, code: u64) {
        let Some(recv) = self.recv.get_mut(&id) else { return };
        let before = recv.half.consumed();
        self.stuck -= recv.half.stuck();
        if recv.half.stop(code) {
            self.control.insert(Control::Stop(id));
        }
        self.stuck += recv.half.stuck();
        let freed = recv.half.consumed() - before;
        let is_done = recv.half.is_done();
        self.on_consumed(now, freed);
        if is_done {
            self.drop_recv(id);
        }
    }

    fn on_consumed(&mut self, now: Instant, bytes: u64) {
        if bytes > 0 {
            let is_due = self.in_credit.on_consumed(now, bytes, self.rtt).is_some();
            let is_grown = self.in_credit.grow_for_blocked().is_some();
            if is_due || is_grown {
                self.control.insert(Control::MaxData);
            }
        }
    }

    // --- frames that came in ----------------------------------------------------------------------------------------

    /// Takes one frame about streams; frames about other things are not for here.
    pub(crate) fn on_frame(&mut self, now: Instant, frame: &Frame<'_>) -> Result<(), Breach> {
        match *frame {
            Frame::Stream { stream, offset, fin, data } => {
                self.on_recv(now, stream, |half, limit| half.insert(offset, data, fin, limit))
            }
            Frame::ResetStream { stream, code, final_size } => {
                self.on_recv(now, stream, |half, limit| half.on_reset(code, final_size, limit))
            }
            Frame::StopSending { stream, code } => self.on_stop_sending(stream, code),
            Frame::MaxData(bytes) => {
                self.out_credit.raise(bytes);
                Ok(())
            }
            Frame::MaxStreamData { stream, bytes } => self.on_max_stream_data(stream, bytes),
            Frame::MaxStreams { direction, count } => {
                let counts = &mut self.counts[direction as usize];
                counts.may_open = counts.may_open.max(count);
                if std::mem::take(&mut counts.was_short) {
                    self.events.push_back(StreamEvent::Available(direction));
                }
                Ok(())
            }
            Frame::DataBlocked(limit) => {
                self.on_data_blocked(limit);
                Ok(())
            }
            Frame::StreamBlocked { stream, limit } => {
                self.on_stream_blocked(stream, limit);
                Ok(())
            }
            Frame::Pad(_)
            | Frame::Ping
            | Frame::Ack(_)
            | Frame::Crypto { .. }
            | Frame::PathChallenge(_)
            | Frame::PathResponse(_)
            | Frame::Close(_)
            | Frame::Admitted
            | Frame::Datagram(_)
            | Frame::Unknown { .. } => Ok(()),
        }
    }

    /// Where packets overtake each other this says little, and the round trip is known.
    fn on_data_blocked(&mut self, limit: u64) {
        if self.is_ordered {
            self.in_credit.on_blocked(limit);
            if self.in_credit.grow_for_blocked().is_some() {
                self.control.insert(Control::MaxData);
            }
        }
    }

    fn on_stream_blocked(&mut self, id: StreamId, limit: u64) {
        if self.is_ordered
            && let Some(recv) = self.recv.get_mut(&id)
        {
            recv.credit.on_blocked(limit);
            if recv.credit.grow_for_blocked().is_some() && recv.half.wants_credit() {
                self.control.insert(Control::MaxStreamData(id));
            }
        }
    }

    /// Opens what the peer opened, up to and including `id`. True if the stream is, or was, a valid one.
    fn on_peer_stream(&mut self, id: StreamId) -> Result<(), Breach> {
        let direction = id.direction();
        if id.opener() == self.us {
            let is_known = id.index() < self.counts[direction as usize].opened;
            return if is_known {
                Ok(())
            } else {
                Err(Breach(Code::STREAM_STATE, "a stream that we never opened"))
            };
        }
        let counts = &mut self.counts[direction as usize];
        if id.index() >= counts.peer_may {
            return Err(Breach(Code::STREAM_LIMIT, "more streams than allowed"));
        }
        let first = counts.peer_opened;
        counts.peer_opened = first.max(id.index() + 1);
        for index in first..=id.index() {
            let opened = StreamId::new(id.opener(), direction, index);
            self.insert_recv(opened);
            if direction == Direction::Both {
                self.send.insert(opened, Box::new(SendHalf::new(self.peer.max_stream_data)));
            }
            self.events.push_back(StreamEvent::Opened(opened));
        }
        Ok(())
    }

    fn on_recv(
        &mut self,
        now: Instant,
        id: StreamId,
        take: impl FnOnce(&mut RecvHalf, u64) -> Result<u64, Refused>,
    ) -> Result<(), Breach> {
        if id.opener() == self.us && id.direction() == Direction::One {
            return Err(Breach(Code::STREAM_STATE, "bytes on a stream that only we send on"));
        }
        self.on_peer_stream(id)?;
        let Some(recv) = self.recv.get_mut(&id) else { return Ok(()) }; // ended already
        let was_readable = recv.half.is_readable();
        let (before, was_stuck) = (recv.half.consumed(), recv.half.stuck());
        let moved = take(&mut recv.half, recv.credit.limit()).map_err(|refused| match refused {
            Refused::Flow => Breach(Code::FLOW, "more than the stream's credit"),
            Refused::FinalSize => Breach(Code::FINAL_SIZE, "the stream's length changed"),
            Refused::Buffer => Breach(Code::BUFFER, "too many holes in one stream"),
        })?;
        let is_readable = recv.half.is_readable();
        let freed = recv.half.consumed() - before;
        let is_done = recv.half.is_done();
        let highest = recv.half.highest();
        recv.credit
            .on_received(highest)
            .map_err(|_| Breach(Code::FLOW, "more than the stream's credit"))?;
        self.in_credit
            .on_received_more(moved)
            .map_err(|_| Breach(Code::FLOW, "more than the connection's credit"))?;
        let stuck = recv.half.stuck();
        self.stuck = self.stuck + stuck - was_stuck;
        if recv.credit.on_stuck(stuck).is_some() && recv.half.wants_credit() {
            self.control.insert(Control::MaxStreamData(id));
        }
        if self.in_credit.on_stuck(self.stuck).is_some() {
            self.control.insert(Control::MaxData);
        }
        if is_readable && (!was_readable || moved > 0) && !recv.is_told {
            recv.is_told = true;
            self.events.push_back(StreamEvent::Readable(id));
        }
        self.on_consumed(now, freed);
        if is_done {
            self.drop_recv(id);
        }
        Ok(())
    }

    fn on_stop_sending(&mut self, id: StreamId, code: u64) -> Result<(), Breach> {
        if id.opener() != self.us && id.direction() == Direction::One {
            return Err(Breach(
                Code::STREAM_STATE,
                "STOP_SENDING for a stream that we only receive on",
            ));
        }
        self.on_peer_stream(id)?;
        if self.send.get_mut(&id).is_some_and(|half| half.on_stop(code)) {
            self.events.push_back(StreamEvent::Stopped(id, code));
            self.reset(id, code);
        }
        Ok(())
    }

    fn on_max_stream_data(&mut self, id: StreamId, bytes: u64) -> Result<(), Breach> {
        if id.opener() != self.us && id.direction() == Direction::One {
            return Err(Breach(
                Code::STREAM_STATE,
                "MAX_STREAM_DATA for a stream that we only receive on",
            ));
        }
        self.on_peer_stream(id)?;
        let Some(half) = self.send.get_mut(&id) else { return Ok(()) };
        let parked = half.parked();
        let is_more = half.on_credit(bytes);
        self.parked -= parked - half.parked();
        if is_more {
            let is_writable = self.send.get(&id).is_some_and(|half| self.is_writable(half));
            if is_writable && self.waiting_to_write.remove(&id) {
                self.events.push_back(StreamEvent::Writable(id));
            }
            self.enqueue(id);
        }
        Ok(())
    }

    // --- frames that go out -----------------------------------------------------------------------------------------

    /// True if a packet could carry something of ours now.
    pub(crate) fn has_work(&self) -> bool {
        let credit = self.out_credit.available();
        !self.control.is_empty()
            || self
                .queue
                .values()
                .flatten()
                .any(|id| self.send.get(id).is_some_and(|half| half.has_work(credit)))
    }

    fn enqueue(&mut self, id: StreamId) {
        if let Some(half) = self.send.get_mut(&id)
            && !half.is_queued
        {
            half.is_queued = true;
            self.queue.entry(Reverse(half.priority)).or_default().push_back(id);
        }
    }

    /// Appends frames to `out` while they fit into `room` bytes, and calls `sent` for each.
    pub(crate) fn write_frames(
        &mut self,
        out: &mut Vec<u8>,
        room: usize,
        sent: &mut impl FnMut(SentPart),
    ) {
        let end = out.len() + room;
        self.write_control(out, end, sent);
        self.write_pieces(out, end, sent);
    }

    fn write_control(&mut self, out: &mut Vec<u8>, end: usize, sent: &mut impl FnMut(SentPart)) {
        const LONGEST_BYTES: usize = 1 + 3 * 8;
        while out.len() + LONGEST_BYTES <= end {
            let Some(control) = self.control.pop_first() else { return };
            let Some(frame) = self.control_frame(control) else { continue };
            frame.put(out);
            sent(SentPart::Control(control));
        }
    }

    /// The frame for `control` as things stand now; `None` if it is no longer of use.
    fn control_frame(&self, control: Control) -> Option<Frame<'static>> {
        Some(match control {
            Control::Reset(stream) => {
                let (code, final_size) = self.send.get(&stream)?.reset_frame()?;
                Frame::ResetStream { stream, code, final_size }
            }
            Control::Stop(stream) => {
                Frame::StopSending { stream, code: self.recv.get(&stream)?.half.stop_frame()? }
            }
            Control::MaxData => Frame::MaxData(self.in_credit.limit()),
            Control::MaxStreams(direction) => {
                Frame::MaxStreams { direction, count: self.counts[direction as usize].peer_may }
            }
            Control::MaxStreamData(stream) => {
                let recv = self.recv.get(&stream)?;
                Frame::MaxStreamData {
                    stream,
                    bytes: recv.half.wants_credit().then(|| recv.credit.limit())?,
                }
            }
            Control::DataBlocked => Frame::DataBlocked(self.out_credit.used()),
            Control::StreamBlocked(stream) => {
                Frame::StreamBlocked { stream, limit: self.send.get(&stream)?.sent_end() }
            }
        })
    }

    fn write_pieces(&mut self, out: &mut Vec<u8>, end: usize, sent: &mut impl FnMut(SentPart)) {
        let mut held_back = Vec::new(); // by the connection's credit; others may have lost bytes to send again
        while let Some(mut entry) = self.queue.first_entry() {
            let Some(id) = entry.get_mut().pop_front() else {
                entry.remove();
                continue;
            };
            let Some(half) = self.send.get_mut(&id) else { continue };
            half.is_queued = false;
            let header =
                frame::stream_header_len(id, half.sent_end(), Some(end - out.len().min(end)));
            let room = end.saturating_sub(out.len() + header);
            if room == 0 {
                self.enqueue_front(id);
                break;
            }
            let credit = self.out_credit.available();
            let fresh_from = half.sent_end();
            let piece = half.next_piece(room, credit);
            self.out_credit.take(half.sent_end() - fresh_from);
            if let Some(limit) = half.blocked() {
                debug_assert_eq!(limit, half.sent_end());
                self.control.insert(Control::StreamBlocked(id));
            }
            if let Some(piece) = piece {
                frame::put_stream_header(out, id, piece.offset, Some(piece.len), piece.fin);
                half.copy(&piece, out);
                sent(SentPart::Piece(id, piece));
            }
            if half.has_work(1) && self.out_credit.blocked().is_some() {
                self.control.insert(Control::DataBlocked);
            }
            if half.has_work(1) {
                match piece {
                    Some(_) => self.enqueue(id),
                    None => held_back.push(id),
                }
            }
        }
        for id in held_back.into_iter().rev() {
            self.enqueue_front(id);
        }
    }

    fn enqueue_front(&mut self, id: StreamId) {
        if let Some(half) = self.send.get_mut(&id) {
            half.is_queued = true;
            self.queue.entry(Reverse(half.priority)).or_default().push_front(id);
        }
    }

    /// The peer has what a packet carried.
    pub(crate) fn on_acked(&mut self, part: SentPart) {
        match part {
            SentPart::Piece(id, piece) => {
                let Some(half) = self.send.get_mut(&id) else { return };
                let freed = half.on_acked(&piece);
                let is_done = half.is_done();
                self.release(freed);
                if is_done {
                    self.events.push_back(StreamEvent::Finished(id));
                    self.drop_send(id);
                }
            }
            SentPart::Control(Control::Reset(id)) => {
                if let Some(half) = self.send.get_mut(&id) {
                    half.on_reset_acked();
                    self.drop_send(id);
                }
            }
            SentPart::Control(Control::Stop(id)) => {
                if let Some(recv) = self.recv.get_mut(&id) {
                    recv.half.on_stop_acked();
                }
            }
            SentPart::Control(
                Control::MaxData
                | Control::MaxStreams(_)
                | Control::MaxStreamData(_)
                | Control::DataBlocked
                | Control::StreamBlocked(_),
            ) => {}
        }
    }

    /// The packet that carried it was lost.
    pub(crate) fn on_lost(&mut self, part: SentPart) {
        match part {
            SentPart::Piece(id, piece) => {
                if self.send.get_mut(&id).is_some_and(|half| half.on_lost(&piece)) {
                    self.enqueue(id);
                }
            }
            SentPart::Control(control) => {
                self.control.insert(control);
            }
        }
    }

    fn release(&mut self, bytes: u64) {
        self.held -= bytes;
        if bytes > 0 && !self.waiting_to_write.is_empty() {
            let mut waiting = std::mem::take(&mut self.waiting_to_write);
            waiting.retain(|id| {
                let is_ready = self.send.get(id).is_none_or(|half| self.is_writable(half));
                if is_ready {
                    self.events.push_back(StreamEvent::Writable(*id));
                }
                !is_ready
            });
            self.waiting_to_write = waiting;
        }
    }

    fn drop_send(&mut self, id: StreamId) {
        self.send.remove(&id);
        self.waiting_to_write.remove(&id);
        self.on_half_ended(id);
    }

    fn drop_recv(&mut self, id: StreamId) {
        self.recv.remove(&id);
        self.on_half_ended(id);
    }

    /// Lets the peer open another stream when one of its own has ended both ways.
    fn on_half_ended(&mut self, id: StreamId) {
        if id.opener() == self.us || self.send.contains_key(&id) || self.recv.contains_key(&id) {
            return;
        }
        let direction = id.direction();
        let room = match direction {
            Direction::Both => self.limits.streams_both,
            Direction::One => self.limits.streams_one,
        };
        let counts = &mut self.counts[direction as usize];
        counts.peer_ended += 1;
        if counts.peer_ended + room >= counts.peer_may + (room / 2).max(1) {
            counts.peer_may = counts.peer_ended + room;
            self.control.insert(Control::MaxStreams(direction));
        }
    }
}
