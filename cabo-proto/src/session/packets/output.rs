//! Packets that go out: which space, what in it, how large, and when (S-3, T-7, T-11, T-12).

use std::ops::RangeInclusive;
use std::time::Instant;

use super::{FIRST_PACKET_BYTES, PacketConnection, Parts, State};
use crate::session::core::{Part, close_frame};
use crate::session::crypto::{Side, Space};
use crate::session::remote::Remote;
use crate::transport::path::Permit;
use crate::transport::sent::Sent;
use crate::wire::frame::{self, Close, Frame};
use crate::wire::packet;

/// A gap is told even when nothing else asks for an answer: after so many bare ACKs one of them asks, so that the
/// peer's answer lets us forget old ranges (T-2.6).
const SILENT_ACKS_MAX: u32 = 32;
/// The least room in which it is worth to begin a packet.
const LEAST_ROOM_BYTES: usize = 64;

/// Packets for one system call: all of `segment_bytes`, the last may be shorter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Batch {
    /// Where to.
    pub to: Remote,
    /// Bytes of each packet.
    pub segment_bytes: usize,
    /// How many packets.
    pub packets: usize,
}

/// A packet under construction.
pub(super) struct Draft {
    space: Space,
    pub(super) start: usize, // of the packet in the output
    pub(super) body: usize,  // of the body in the output
    number: u64,
    pub(super) end: usize, // one past the last byte that the body may have
    tag: usize,
    parts: Parts,
    pub(super) is_eliciting: bool,
    has_ack: bool,
    pub(super) is_elsewhere: bool, // not to the address in use
}

/// What a finished packet was.
pub(super) struct Built {
    pub(super) len: usize,
    is_alone: bool, // its size must not be taken for that of a batch
}

impl PacketConnection {
    /// Appends packets to `out`, at most `packets_max` for one call of the carrier. `None`: nothing to send now.
    #[must_use]
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        out: &mut Vec<u8>,
        packets_max: usize,
    ) -> Option<Batch> {
        if !matches!(self.state, State::Open) {
            return self.transmit_close(now, out);
        }
        if let Some(batch) = self.transmit_elsewhere(now, out) {
            return Some(batch);
        }
        self.paced_until = None;
        let (start, mut segment_bytes, mut packets) = (out.len(), 0, 0);
        while packets < packets_max && out.len() - start + segment_bytes <= usize::from(u16::MAX) {
            let size_max = if packets == 0 { self.mtu.current() } else { segment_bytes };
            let Some(built) = self.build(now, out, size_max, packets == 0) else { break };
            if packets == 0 {
                segment_bytes = built.len;
            }
            packets += 1;
            if built.is_alone || built.len < size_max {
                break;
            }
        }
        (packets > 0).then_some(Batch { to: self.remote, segment_bytes, packets })
    }

    /// Builds the next packet of at most `size_max` bytes; `is_first` of its batch.
    fn build(
        &mut self,
        now: Instant,
        out: &mut Vec<u8>,
        size_max: usize,
        is_first: bool,
    ) -> Option<Built> {
        let size_max = self.amplification_room(size_max)?;
        let mut permit = None;
        for space in [Space::Initial, Space::Handshake, Space::Data] {
            if !self.can_seal(space) {
                continue;
            }
            let wants_data = self.wants_data(space);
            let may_send = wants_data && {
                let permit = *permit.get_or_insert_with(|| self.path.permit(now, size_max as u64));
                self.spaces[space as usize].probes > 0 || self.is_permitted(permit)
            };
            let held = &self.spaces[space as usize];
            let has_room = held.loss.has_room();
            let is_probing = held.probes > 0; // a probe leaves whatever else waits (T-5.3)
            let with_data = may_send && (has_room || is_probing);
            if held.acks.due(now) || is_probing || with_data {
                let built = self.build_in(now, space, out, size_max, with_data);
                if built.is_some() {
                    return built;
                }
            }
        }
        if is_first { self.build_mtu_probe(now, out) } else { None }
    }

    fn is_permitted(&mut self, permit: Permit) -> bool {
        match permit {
            Permit::Now => true,
            Permit::At(at) => {
                self.paced_until = Some(at);
                false
            }
            Permit::Blocked => false,
        }
    }

    /// True while S-3.4 forbids to send, so that no timer may wait for it.
    pub(super) fn is_amplification_blocked(&self) -> bool {
        self.amplification_room(FIRST_PACKET_BYTES).is_none()
    }

    /// S-3.4: before the address is proved a server sends at most three times what it received.
    fn amplification_room(&self, size_max: usize) -> Option<usize> {
        if self.is_address_proved {
            return Some(size_max);
        }
        let room = (3 * self.unproved_received).saturating_sub(self.unproved_sent);
        let size = size_max.min(usize::try_from(room).unwrap_or(usize::MAX));
        (size >= size_max.min(FIRST_PACKET_BYTES)).then_some(size)
    }

    pub(super) fn can_seal(&self, space: Space) -> bool {
        match space {
            Space::Initial | Space::Handshake => self.spaces[space as usize].keys.is_some(),
            Space::Data => self.phase.is_some() && self.may_send_data(),
        }
    }

    /// S-3.7: a server says nothing in the data space before the client is proved.
    fn may_send_data(&self) -> bool {
        self.core.is_handshaken()
    }

    /// True if more could be sent with the window's leave. A handshake that waits for its peer says nothing about the
    /// path (T-7.3).
    fn has_more(&self) -> bool {
        let spaces = [Space::Initial, Space::Handshake, Space::Data];
        spaces.into_iter().any(|space| self.can_seal(space) && self.wants_data(space))
    }

    /// True if there is something that needs the window's leave.
    fn wants_data(&self, space: Space) -> bool {
        self.spaces[space as usize].is_ping_wanted
            || match space {
                Space::Initial | Space::Handshake => self.core.has_crypto(space),
                Space::Data => self.core.has_data_work() || self.has_responses(),
            }
    }

    fn has_responses(&self) -> bool {
        self.responses.iter().any(|(_, to)| *to == self.remote)
    }

    /// `None` if there turns out to be nothing to say, such as when all that waited is too late.
    fn build_in(
        &mut self,
        now: Instant,
        space: Space,
        out: &mut Vec<u8>,
        size_max: usize,
        with_data: bool,
    ) -> Option<Built> {
        let mut draft = self.begin(space, out, size_max);
        self.write_ack(now, out, &mut draft);
        if with_data {
            self.write_eliciting(now, out, &mut draft);
        } else if self.spaces[space as usize].silent_acks >= SILENT_ACKS_MAX {
            self.write_ping(out, &mut draft);
        }
        if self.spaces[space as usize].probes > 0 && !draft.is_eliciting {
            self.write_ping(out, &mut draft);
        }
        if out.len() == draft.body {
            out.truncate(draft.start);
            return None;
        }
        if with_data && !self.has_more() {
            self.path.on_app_limited();
        }
        let least = if space == Space::Initial && draft.is_eliciting {
            FIRST_PACKET_BYTES.min(size_max)
        } else {
            0
        };
        let built = self.finish(now, out, draft, least, true);
        if space != Space::Initial && self.core.side == Side::Client {
            self.discard(Space::Initial); // S-3.6
        }
        Some(built)
    }

    pub(super) fn begin(&mut self, space: Space, out: &mut Vec<u8>, size_max: usize) -> Draft {
        let held = &self.spaces[space as usize];
        let number = held.loss.next_number();
        let version = self.core.config.version();
        let (peer, own) = (self.peer_id, self.local_id);
        let start = match space {
            Space::Initial => packet::put_initial(out, version, peer, own, number, &self.cookie),
            Space::Handshake => packet::put_handshake(out, version, peer, own, number),
            Space::Data => {
                let is_odd = self.phase.as_ref().is_some_and(|phase| phase.is_odd());
                packet::put_data(out, version, peer, is_odd, number)
            }
        };
        let tag = match (space, &self.phase, &held.keys) {
            (Space::Data, Some(phase), _) => phase.tag_len(),
            (_, _, Some(keys)) => keys.seal.tag_len(),
            _ => 0,
        };
        let end = start + size_max.saturating_sub(tag);
        Draft {
            space,
            start,
            body: out.len(),
            number,
            end,
            tag,
            parts: Parts::default(),
            is_eliciting: false,
            has_ack: false,
            is_elsewhere: false,
        }
    }

    fn write_ack(&mut self, now: Instant, out: &mut Vec<u8>, draft: &mut Draft) {
        let acks = &mut self.spaces[draft.space as usize].acks;
        if !acks.is_pending() {
            return;
        }
        let delay = u64::try_from(acks.delay(now).as_micros()).unwrap_or(u64::MAX);
        let ranges =
            acks.ranges().iter().rev().map(|range| RangeInclusive::new(range.start, range.end - 1));
        let room = draft.end.saturating_sub(out.len());
        if frame::put_ack(out, delay, ranges, room) > 0 {
            if let Some(largest) = acks.largest() {
                draft.parts.push(Part::Ack { largest });
            }
            acks.on_sent();
            draft.has_ack = true;
        }
    }

    fn write_ping(&mut self, out: &mut Vec<u8>, draft: &mut Draft) {
        if out.len() < draft.end {
            Frame::Ping.put(out);
            draft.is_eliciting = true;
            self.spaces[draft.space as usize].is_ping_wanted = false;
        }
    }

    fn write_eliciting(&mut self, now: Instant, out: &mut Vec<u8>, draft: &mut Draft) {
        let before = out.len();
        if draft.space == Space::Data {
            self.write_responses(self.remote, out, draft);
            let largest = self.largest_datagram();
            self.core.drop_oversized_datagram(largest);
        }
        let room = draft.end.saturating_sub(out.len());
        let (parts, space) = (&mut draft.parts, draft.space);
        let mut push = |part: Part| parts.push(part);
        match space {
            Space::Initial | Space::Handshake => {
                self.core.write_crypto(space, out, room, &mut push)
            }
            Space::Data => self.core.write_data(now, out, room, &mut push),
        }
        draft.is_eliciting = out.len() > before;
        if self.spaces[space as usize].is_ping_wanted && !draft.is_eliciting {
            self.write_ping(out, draft);
        }
        if draft.is_eliciting {
            self.spaces[space as usize].is_ping_wanted = false;
        }
    }

    /// Pads to `least` bytes, seals, and tells path and loss detection.
    pub(super) fn finish(
        &mut self,
        now: Instant,
        out: &mut Vec<u8>,
        mut draft: Draft,
        least: usize,
        in_flight: bool,
    ) -> Built {
        // Something of at least one byte has to be there (W-2.10), and enough for the cipher's sample of old habit.
        let padded =
            (draft.start + least).saturating_sub(draft.tag).max(draft.body + 1).max(out.len());
        out.resize(padded.min(draft.end.max(out.len())), 0);
        out.resize(out.len() + draft.tag, 0);
        let packet = &mut out[draft.start..];
        packet::set_length(packet);
        let len = packet.len();
        let (header, body) = packet.split_at_mut(draft.body - draft.start);
        match (draft.space, &mut self.phase, &self.spaces[draft.space as usize].keys) {
            (Space::Data, Some(phase), _) => phase.seal(draft.number, header, body),
            (_, _, Some(keys)) => keys.seal.seal(draft.number, header, body),
            _ => {}
        }
        self.stats.packets_sent += 1;
        self.stats.bytes_sent += len as u64;
        if !self.is_address_proved {
            self.unproved_sent += len as u64;
        }
        let held = &mut self.spaces[draft.space as usize];
        let sent = draft.is_eliciting.then(|| {
            let snapshot = if draft.is_elsewhere {
                self.path.on_sent_elsewhere()
            } else {
                held.probes = held.probes.saturating_sub(1);
                self.path.on_sent(now, len as u64, in_flight)
            };
            self.idle.on_sent(now);
            let frames = std::mem::take(&mut draft.parts);
            Sent { time: now, bytes: len as u32, in_flight, snapshot, frames }
        });
        held.silent_acks =
            if draft.is_eliciting { 0 } else { held.silent_acks + u32::from(draft.has_ack) };
        held.loss.on_sent(sent);
        Built { len, is_alone: draft.space != Space::Data || !in_flight }
    }

    /// T-12: a padded probe for a larger packet, sent alone.
    fn build_mtu_probe(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Built> {
        if !self.core.is_admitted() || !self.can_seal(Space::Data) {
            return None;
        }
        let size = self.mtu.probe_size(now)?;
        let mut draft = self.begin(Space::Data, out, size);
        if draft.end < draft.body + LEAST_ROOM_BYTES {
            out.truncate(draft.start);
            return None;
        }
        self.write_ping(out, &mut draft);
        self.mtu.on_probe_sent(now, draft.number, size);
        Some(self.finish(now, out, draft, size, false))
    }

    /// The carrier refused packets of `bytes` as too long.
    pub fn on_packet_refused(&mut self, now: Instant, bytes: usize) {
        if let Some(size) = self.mtu.on_refused(now, u64::MAX, bytes) {
            self.path.on_mtu(size as u64);
        }
    }

    /// S-8.1: the CLOSE, in the highest space that we can seal, and in those below that the peer may still be in.
    fn transmit_close(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Batch> {
        let State::Closing { owed, .. } = &mut self.state else { return None };
        let mut waiting = std::mem::take(owed);
        let batch = loop {
            let Some(space) = waiting.pop() else { break None };
            if let Some(batch) = self.transmit_close_in(now, space, out) {
                break Some(batch);
            }
        };
        if let State::Closing { owed, .. } = &mut self.state {
            *owed = waiting;
        }
        batch
    }

    /// The spaces in which the peer may be listening, lowest first.
    pub(super) fn closing_spaces(&self) -> Vec<Space> {
        let is_sure = match self.core.side {
            Side::Client => self.core.is_admitted(), // before, the server may not have our proof
            Side::Server => self.core.is_handshaken(),
        };
        let spaces = [Space::Initial, Space::Handshake, Space::Data]
            .into_iter()
            .filter(|space| self.can_seal(*space));
        let mut spaces: Vec<Space> = spaces.collect();
        let highest = spaces.last().copied();
        // Whoever gave a client keys of the handshake has them too.
        let lowest = if self.core.side == Side::Client { Space::Handshake } else { Space::Initial };
        spaces.retain(|space| highest == Some(*space) || (!is_sure && *space >= lowest));
        spaces
    }

    fn transmit_close_in(
        &mut self,
        now: Instant,
        space: Space,
        out: &mut Vec<u8>,
    ) -> Option<Batch> {
        let (origin, code, reason) = close_frame(self.ended.as_ref()?)?;
        let size_max = self.amplification_room(self.mtu.current())?;
        let mut draft = self.begin(space, out, size_max);
        let mut cut = reason.len().min(256);
        while !reason.is_char_boundary(cut) {
            cut -= 1;
        }
        // Before the data space only the protocol closes (W-3.5).
        let origin = if space == Space::Data { origin } else { frame::Origin::Protocol };
        Frame::Close(Close { origin, code, reason: &reason.as_bytes()[..cut] }).put(out);
        let least = if space == Space::Initial { FIRST_PACKET_BYTES.min(size_max) } else { 0 };
        draft.is_eliciting = false;
        let built = self.finish(now, out, draft, least, false);
        Some(Batch { to: self.remote, segment_bytes: built.len, packets: 1 })
    }
}
