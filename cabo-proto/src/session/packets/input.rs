//! Packets that came in: opening, acknowledgements, frames (S-3).

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::{PacketConnection, Parts, State};
use crate::Chance;
use crate::session::config::Ended;
use crate::session::core::{Part, breach};
use crate::session::crypto::{Side, Space};
use crate::session::phase::Opened;
use crate::session::remote::Remote;
use crate::transport::ack::Arrival;
use crate::transport::loss::LossOutcome;
use crate::transport::sent::Sent;
use crate::wire::code::Code;
use crate::wire::frame::{Ack, Frame, Frames};
use crate::wire::packet::{ConnectionId, Kind, Packet};

/// Of a packet with a number.
struct Numbered {
    space: Space,
    sender: Option<ConnectionId>,
    phase: bool,
    number: u64,
    body: usize,
    from: Remote,
}

impl PacketConnection {
    /// Takes one packet that came from `from`, whose header is `packet` and whose bytes are `datagram`; they are opened
    /// in place. `chance` is for what an address that is new has to repeat (S-10.3).
    pub fn handle_packet(
        &mut self,
        now: Instant,
        from: Remote,
        packet: &Packet,
        datagram: &mut [u8],
        chance: &mut dyn Chance,
    ) {
        if !self.is_address_proved {
            self.unproved_received += datagram.len() as u64;
        }
        match &packet.kind {
            &Kind::Initial { sender, number, body, .. } => {
                let sender = Some(sender);
                let space = Space::Initial;
                let numbered = Numbered { space, sender, phase: false, number, body, from };
                self.handle_numbered(now, packet, &numbered, datagram, chance);
            }
            &Kind::Handshake { sender, number, body } => {
                let sender = Some(sender);
                let space = Space::Handshake;
                let numbered = Numbered { space, sender, phase: false, number, body, from };
                self.handle_numbered(now, packet, &numbered, datagram, chance);
            }
            &Kind::Data { phase, number, body } => {
                let space = Space::Data;
                let numbered = Numbered { space, sender: None, phase, number, body, from };
                self.handle_numbered(now, packet, &numbered, datagram, chance);
            }
            Kind::Cookie { sender, cookie } => {
                if let Some(cookie) = datagram.get(cookie.clone()) {
                    self.on_cookie(*sender, cookie);
                }
            }
            Kind::VersionAnswer { sender, versions } => {
                if let Some(versions) = datagram.get(versions.clone()) {
                    self.on_version_answer(*sender, versions);
                }
            }
            Kind::Reset { token } => self.on_reset(token),
            Kind::Discover { .. } | Kind::Here { .. } | Kind::UnknownVersion { .. } => {}
        }
        self.settle_end(now);
    }

    /// True until the server has answered with anything but a demand.
    fn is_unanswered_client(&self) -> bool {
        self.core.side == Side::Client && !self.is_peer_id_known
    }

    /// S-4.3: comes back with the cookie, once.
    fn on_cookie(&mut self, sender: ConnectionId, cookie: &[u8]) {
        if self.is_unanswered_client() && !self.is_cookie_used && sender == self.first_id {
            self.is_cookie_used = true;
            self.cookie = cookie.to_vec();
            self.resend_all(Space::Initial);
        }
    }

    /// S-1.2: an answer that lists our own version was not meant for us, or is forged.
    fn on_version_answer(&mut self, sender: ConnectionId, versions: &[u8]) {
        let ours = self.core.config.version();
        if self.is_unanswered_client() && sender == self.first_id && !versions.contains(&ours) {
            self.end(Ended::Version { peer: versions.to_vec(), ours });
        }
    }

    /// S-5.3: only the token that the peer gave us under seal counts.
    fn on_reset(&mut self, token: &[u8; 16]) {
        let known = self.core.peer().and_then(|peer| peer.reset_token);
        let differs =
            known.map(|known| known.iter().zip(token).fold(0, |all, (a, b)| all | (a ^ b)));
        if differs == Some(0) {
            self.end(Ended::Reset);
        }
    }

    /// Queues everything of a space to be sent again and forgets the packets.
    fn resend_all(&mut self, space: Space) {
        let discarded = self.spaces[space as usize].loss.discard();
        self.path.on_discarded(&discarded);
        for (_, sent) in &discarded {
            sent.frames.iter().for_each(|part| self.core.on_lost(part));
        }
    }

    fn handle_numbered(
        &mut self,
        now: Instant,
        packet: &Packet,
        numbered: &Numbered,
        datagram: &mut [u8],
        chance: &mut dyn Chance,
    ) {
        match self.state {
            State::Open => {}
            State::Closing { .. } => return self.on_packet_while_closing(),
            State::Draining { .. } | State::Gone => return,
        }
        let space = numbered.space;
        if numbered.sender.is_some_and(|sender| self.is_peer_id_known && sender != self.peer_id) {
            return;
        }
        if self.spaces[space as usize].acks.is_duplicate(numbered.number) {
            self.stats.packets_duplicate += 1;
            return;
        }
        let Some(datagram) = datagram.get_mut(..packet.length) else { return };
        let Some(len) = self.open(now, numbered, datagram) else { return };
        self.stats.packets_received += 1;
        self.stats.bytes_received += datagram.len() as u64;
        self.on_genuine(now, packet.receiver, numbered);
        if space == Space::Data {
            let largest = self.spaces[space as usize].acks.largest();
            let is_newest = largest.is_none_or(|largest| numbered.number > largest);
            self.on_heard_from(now, numbered.from, datagram.len(), is_newest, chance);
        }
        let body = &datagram[numbered.body..numbered.body + len];
        if let Err(ended) = self.handle_body(now, numbered, body) {
            self.end(ended);
        }
    }

    /// S-8.2: the peer has not heard yet; it is told again, ever more rarely.
    fn on_packet_while_closing(&mut self) {
        let spaces = self.closing_spaces();
        if let State::Closing { heard, answer_at, owed, .. } = &mut self.state {
            *heard = heard.saturating_add(1);
            if *heard >= *answer_at {
                *answer_at = answer_at.saturating_mul(2);
                *owed = spaces;
            }
        }
    }

    /// Opens the body in place and returns its length.
    fn open(&mut self, now: Instant, numbered: &Numbered, datagram: &mut [u8]) -> Option<usize> {
        let (header, body) = datagram.split_at_mut_checked(numbered.body)?;
        let space = &mut self.spaces[numbered.space as usize];
        let opened = match (numbered.space, &mut self.phase) {
            // S-3.7: nothing is heard from a peer that has not proved who it is. It will be sent again.
            (Space::Data, _) if !self.core.is_handshaken() => return None,
            (Space::Data, None) => return None,
            (Space::Data, Some(phase)) => {
                let keep = 3 * self.path.rtt().pto_base();
                let packet = (numbered.phase, numbered.number, &*header);
                let before = phase.is_odd();
                let next = space.loss.next_number();
                let opened = phase.open(now, keep, packet, body, next, self.core.handshake_mut());
                self.stats.key_updates += u64::from(before != phase.is_odd());
                opened
            }
            (Space::Initial | Space::Handshake, _) => match &space.keys {
                Some(keys) => keys
                    .open
                    .open(numbered.number, header, body)
                    .map_or(Opened::Failed, Opened::Body),
                None => return None,
            },
        };
        match opened {
            Opened::Body(len) => Some(len),
            Opened::Failed => {
                self.stats.packets_forged += 1;
                None
            }
            Opened::TooManyFailures => {
                self.end(breach(Code::KEYS, "too many packets that do not open"));
                None
            }
        }
    }

    /// A packet that only the peer can have sent.
    fn on_genuine(&mut self, now: Instant, to: ConnectionId, numbered: &Numbered) {
        self.idle.on_received(now);
        if let (Some(sender), false) = (numbered.sender, self.is_peer_id_known) {
            self.peer_id = sender;
            self.is_peer_id_known = true;
        }
        if self.core.side == Side::Server && to == self.local_id {
            self.is_address_proved = true; // only who received our first flight knows our id (S-3.4)
            self.core.on_address_proved();
        }
        if self.core.side == Side::Server && numbered.space != Space::Initial {
            self.discard(Space::Initial);
        }
    }

    /// Forgets a space whose keys are no longer needed (S-3.6).
    pub(super) fn discard(&mut self, space: Space) {
        let held = &mut self.spaces[space as usize];
        if held.keys.take().is_some() {
            let discarded = held.loss.discard();
            (held.probes, held.is_ping_wanted) = (0, false);
            self.path.on_discarded(&discarded);
        }
    }

    fn handle_body(&mut self, now: Instant, numbered: &Numbered, body: &[u8]) -> Result<(), Ended> {
        let space = numbered.space;
        let mut is_eliciting = false;
        let mut is_handshake_moved = false;
        let rtt = self.path.rtt().smoothed();
        for frame in Frames::new(body) {
            let frame = frame.map_err(|error| breach(Code::FRAME, &error.to_string()))?;
            if !frame.allowed_in(space) {
                return Err(breach(
                    Code::VIOLATION,
                    &format!("{} in the {space:?} space", frame.name()),
                ));
            }
            is_eliciting |= frame.is_ack_eliciting();
            match frame {
                Frame::Pad(_) | Frame::Ping | Frame::Unknown { .. } => {}
                Frame::Ack(ack) => self.on_ack(now, space, &ack)?,
                Frame::Crypto { offset, data } => {
                    is_handshake_moved |= self.core.on_crypto(space, offset, data)?;
                }
                Frame::PathChallenge(token) => self.on_path_challenge(token, numbered.from),
                Frame::PathResponse(token) => self.on_path_response(now, &token),
                Frame::Close(close) => {
                    let ended = Ended::from_peer(close.origin, close.code, close.reason);
                    self.state = State::Draining { until: now + self.drain_time() };
                    self.core.push_event(crate::session::core::Event::Ended(ended));
                    return Ok(());
                }
                Frame::Admitted
                | Frame::Datagram(_)
                | Frame::Stream { .. }
                | Frame::ResetStream { .. }
                | Frame::StopSending { .. }
                | Frame::MaxData(_)
                | Frame::MaxStreamData { .. }
                | Frame::MaxStreams { .. }
                | Frame::DataBlocked(_)
                | Frame::StreamBlocked { .. } => self.core.on_frame(now, &frame)?,
            }
        }
        let acks = &mut self.spaces[space as usize].acks;
        if acks.on_packet(now, numbered.number, is_eliciting, rtt) == Arrival::Duplicate {
            self.stats.packets_duplicate += 1;
        }
        if is_eliciting {
            self.idle.on_news(now);
        }
        if is_handshake_moved {
            self.advance_handshake();
        }
        if self.core.side == Side::Client && self.core.is_admitted() {
            self.discard(Space::Handshake);
        }
        Ok(())
    }

    /// T-3, T-4: what arrived, what therefore is lost, and what the path learns from it.
    fn on_ack(&mut self, now: Instant, space: Space, ack: &Ack<'_>) -> Result<(), Ended> {
        let ranges =
            ack.ranges().map(|range: RangeInclusive<u64>| *range.start()..*range.end() + 1);
        let held = &mut self.spaces[space as usize];
        let mut acked = held
            .loss
            .on_ack(now, ranges, self.path.rtt())
            .map_err(|error| breach(Code::VIOLATION, &error.to_string()))?;
        let newest = acked.acked.iter().max_by_key(|(number, _)| *number);
        let is_of_path = newest.is_some_and(|(_, sent)| self.path.is_of(sent));
        if let Some(sample) = acked.rtt_sample.filter(|_| is_of_path) {
            let cap = self.peer_ack_delay(space);
            self.path.on_rtt(sample, Duration::from_micros(ack.delay_micros).min(cap));
        }
        let delay = self.peer_ack_delay(space);
        let lost = self.spaces[space as usize].loss.detect(now, self.path.rtt(), delay);
        self.path.on_acked(now, &acked, &lost);
        for (number, sent) in acked.acked.drain(..) {
            if space == Space::Data
                && self.path.is_of(&sent)
                && let Some(size) = self.mtu.on_acked(number, sent.bytes as usize)
            {
                self.path.on_mtu(size as u64);
            }
            self.settle_acked(space, &sent.frames);
        }
        self.settle_lost(now, space, lost);
        if space == Space::Data {
            self.core.streams.set_rtt(self.path.rtt().smoothed());
            self.core.streams.set_send_buffer(2 * self.path.controller().window());
            if let Some(phase) = &mut self.phase {
                let loss = &self.spaces[Space::Data as usize].loss;
                let before = phase.is_odd();
                if self.core.is_admitted() {
                    phase.maybe_update(
                        loss.next_number(),
                        loss.largest_acked(),
                        self.core.handshake_mut(),
                    );
                }
                self.stats.key_updates += u64::from(before != phase.is_odd());
                if phase.is_exhausted() {
                    return Err(breach(Code::KEYS, "the peer does not follow to new keys"));
                }
            }
        }
        Ok(())
    }

    fn settle_acked(&mut self, space: Space, parts: &Parts) {
        for part in parts.iter() {
            if let Part::Ack { largest } = part {
                self.spaces[space as usize].acks.on_ack_acked(*largest);
            }
            self.core.on_acked(part);
            if *part == Part::Admitted {
                self.discard(Space::Handshake);
            }
        }
    }

    /// Queues what lost packets carried to be sent again.
    pub(super) fn settle_lost(&mut self, now: Instant, space: Space, mut lost: LossOutcome<Parts>) {
        // A queue that overflows loses many at once. To the search of the MTU that is one sign (T-12.4).
        let counted = |sent: &Sent<Parts>| sent.in_flight && self.path.is_of(sent);
        let largest =
            lost.lost.iter().filter(|(_, sent)| counted(sent)).max_by_key(|(_, sent)| sent.bytes);
        let sign = largest.map(|(number, _)| *number);
        for (number, sent) in lost.lost.drain(..) {
            self.stats.packets_lost += 1;
            if sent.in_flight {
                self.stats.bytes_lost += u64::from(sent.bytes);
            }
            if space == Space::Data
                && self.path.is_of(&sent)
                && (!sent.in_flight || sign == Some(number))
                && let Some(size) = self.mtu.on_lost(now, number, sent.bytes as usize)
            {
                self.path.on_mtu(size as u64);
            }
            sent.frames.iter().for_each(|part| self.core.on_lost(part));
        }
    }

    /// How long the peer may hold back an acknowledgement in `space`.
    pub(super) fn peer_ack_delay(&self, space: Space) -> Duration {
        match (space, self.core.peer()) {
            (Space::Data, Some(peer)) => peer.max_ack_delay.min(Duration::from_secs(1)),
            _ => Duration::ZERO,
        }
    }
}
