//! What every connection has, whatever carries it: handshake bytes, streams, datagrams, admission, the end.
//!
//! `packets` and `records` put a carrier's needs around it. Nothing here knows of packets, numbers or loss.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::config::{Config, Ended};
use super::crypto::{Crypto, CryptoError, Handshake, KeyChange, Keys, PublicKey, Side, Space};
use crate::transport::flow::Budget;
use crate::transport::streams::{
    Breach, Piece, Read, RecvHalf, SendHalf, SentPart, StreamEvent, Streams,
};
use crate::wire::code::Code;
use crate::wire::frame::{self, Frame, Opener, Origin};
use crate::wire::params::Params;

/// Handshake bytes that may wait for earlier ones, per space (W-7.1).
const HANDSHAKE_AHEAD_BYTES: u64 = 64 * 1024;
/// Handshake bytes in all, per space; more than any honest handshake has.
const HANDSHAKE_BYTES: u64 = 256 * 1024;

/// Something that the application should know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// The handshake is done: the peer's identity is proved. A server now decides; a client may already send.
    Handshaken,
    /// The server let us in.
    Admitted,
    /// Something about a stream.
    Stream(StreamEvent),
    /// A datagram came.
    Datagram(Bytes),
    /// It is over. Nothing follows.
    Ended(Ended),
}

/// What a packet or record carried, to be settled when it arrived or was lost.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Part {
    Crypto(Space, Piece),
    Stream(SentPart),
    Admitted,
    Datagram,
    Ack { largest: u64 },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Admission {
    Undecided,
    Wanted, // ADMITTED has to be sent
    Sent,
    Done,
}

struct CryptoStream {
    out: SendHalf,
    input: RecvHalf,
}

/// See the module.
pub(crate) struct Core {
    pub(crate) side: Side,
    pub(crate) config: Config,
    pub(crate) streams: Streams,
    handshake: Box<dyn Handshake>,
    crypto: [CryptoStream; 3],
    writing: Space, // the space to which handshake bytes written now belong
    peer: Option<Params>,
    is_handshaken: bool,
    is_held_back: bool, // nobody is told that the handshake is done, before the peer's address is proved
    admission: Admission,
    datagrams: VecDeque<(Option<Instant>, Bytes)>,
    datagrams_in: usize,
    events: VecDeque<Event>,
    pub(crate) datagrams_late: u64,
    pub(crate) datagrams_dropped: u64,
}

impl Core {
    pub(crate) fn new(
        side: Side,
        config: Config,
        params: &Params,
        crypto: &dyn Crypto,
        budget: Arc<Budget>,
    ) -> Result<Self, CryptoError> {
        let handshake = crypto.start(side, params.encode())?;
        let us = match side {
            Side::Client => Opener::Client,
            Side::Server => Opener::Server,
        };
        let crypto = || CryptoStream { out: SendHalf::new(u64::MAX), input: RecvHalf::new() };
        let crypto = [crypto(), crypto(), crypto()];
        Ok(Self {
            side,
            streams: Streams::new(us, config.limits.clone(), budget),
            handshake,
            crypto,
            writing: Space::Initial,
            peer: None,
            is_handshaken: false,
            is_held_back: false,
            admission: Admission::Undecided,
            datagrams: VecDeque::new(),
            datagrams_in: 0,
            events: VecDeque::new(),
            datagrams_late: 0,
            datagrams_dropped: 0,
            config,
        })
    }

    /// The parameters that every carrier states alike (W-5).
    pub(crate) fn params(config: &Config) -> Params {
        Params {
            idle_timeout: config.idle_timeout,
            max_data: config.limits.window_bytes,
            max_stream_data: config.limits.stream_window_bytes,
            max_streams_both: config.limits.streams_both,
            max_streams_one: config.limits.streams_one,
            largest_datagram: config.largest_datagram_bytes,
            agent: Some(config.agent.clone()).filter(|agent| !agent.is_empty()),
            channel: config.channel.filter(|_| !config.is_plain),
            ..Params::default()
        }
    }

    pub(crate) fn peer(&self) -> Option<&Params> {
        self.peer.as_ref()
    }

    pub(crate) fn peer_key(&self) -> Option<PublicKey> {
        self.handshake.peer_key()
    }

    pub(crate) fn is_handshaken(&self) -> bool {
        self.is_handshaken
    }

    /// Keeps it to itself that the handshake is done, until [`on_address_proved`](Self::on_address_proved): in plain the
    /// hello proves nothing (S-4.4).
    pub(crate) fn hold_back(&mut self) {
        self.is_held_back = true;
    }

    pub(crate) fn on_address_proved(&mut self) {
        if std::mem::take(&mut self.is_held_back) && self.is_handshaken {
            self.events.push_back(Event::Handshaken);
        }
    }

    /// True once the handshake is done and somebody may decide about the peer.
    pub(crate) fn is_proved(&self) -> bool {
        self.is_handshaken && !self.is_held_back
    }

    pub(crate) fn is_admitted(&self) -> bool {
        self.admission == Admission::Done
    }

    pub(crate) fn handshake_mut(&mut self) -> &mut dyn Handshake {
        &mut *self.handshake
    }

    // --- handshake --------------------------------------------------------------------------------------------------

    /// Takes what the handshake wants to say into the spaces; calls `install` for keys that became available.
    pub(crate) fn write_handshake(&mut self, install: &mut impl FnMut(Space, Keys)) {
        loop {
            let mut out = Vec::new();
            let change = self.handshake.write(&mut out);
            let is_end = change.is_none() && out.is_empty();
            if !out.is_empty() {
                self.crypto[self.writing as usize].out.write(out.into());
            }
            match change {
                Some(KeyChange::Handshake(keys)) => {
                    self.writing = Space::Handshake;
                    install(Space::Handshake, keys);
                }
                Some(KeyChange::Data(keys)) => {
                    self.writing = Space::Data;
                    install(Space::Data, keys);
                }
                None if is_end => return,
                None => {}
            }
        }
    }

    /// Takes a CRYPTO frame. True if the handshake moved on and may have more to say.
    pub(crate) fn on_crypto(
        &mut self,
        space: Space,
        offset: u64,
        data: &[u8],
    ) -> Result<bool, Ended> {
        let input = &mut self.crypto[space as usize].input;
        let limit = (input.consumed() + HANDSHAKE_AHEAD_BYTES).min(HANDSHAKE_BYTES);
        if input.insert(offset, data, false, limit).is_err() {
            return Err(breach(Code::BUFFER, "more handshake bytes than any handshake has"));
        }
        let mut moved = false;
        let mut buffer = [0; 4096];
        while let Read::Bytes(len) = self.crypto[space as usize].input.read(&mut buffer) {
            self.handshake.read(space, &buffer[..len]).map_err(Ended::Crypto)?;
            moved = true;
        }
        Ok(moved)
    }

    /// Looks whether the handshake reached its end; returns the peer's parameters the first time they are known.
    pub(crate) fn check_handshake(&mut self) -> Result<Option<Params>, Ended> {
        let mut fresh = None;
        if self.peer.is_none()
            && let Some(bytes) = self.handshake.peer_params()
        {
            let params = Params::decode(bytes)
                .map_err(|error| breach(Code::PARAMETER, &format!("parameters: {error}")))?;
            if params.channel != self.config.channel.filter(|_| !self.config.is_plain) {
                return Err(Ended::Crypto(CryptoError::wrong_channel()));
            }
            self.streams.on_params(&params);
            self.peer = Some(params.clone());
            fresh = Some(params);
        }
        if !self.is_handshaken && self.peer.is_some() && !self.handshake.is_handshaking() {
            self.is_handshaken = true;
            if !self.is_held_back {
                self.events.push_back(Event::Handshaken);
            }
        }
        Ok(fresh)
    }

    /// Lets the peer in (server).
    pub(crate) fn admit(&mut self) {
        if self.side == Side::Server && self.admission == Admission::Undecided {
            self.admission = Admission::Wanted;
        }
    }

    // --- frames that came in ----------------------------------------------------------------------------------------

    /// Takes a frame of the data space that is not about packets.
    #[allow(clippy::wildcard_enum_match_arm, reason = "the streams know their frames")]
    pub(crate) fn on_frame(&mut self, now: Instant, frame: &Frame<'_>) -> Result<(), Ended> {
        match frame {
            Frame::Admitted => {
                if self.side == Side::Server {
                    return Err(breach(Code::VIOLATION, "ADMITTED from a client"));
                }
                if self.admission != Admission::Done {
                    self.admission = Admission::Done;
                    self.events.push_back(Event::Admitted);
                }
                Ok(())
            }
            Frame::Datagram(data) => self.on_datagram(data),
            other => {
                self.streams.on_frame(now, other).map_err(|Breach(code, what)| breach(code, what))
            }
        }
    }

    fn on_datagram(&mut self, data: &[u8]) -> Result<(), Ended> {
        if data.len() as u64 > self.config.largest_datagram_bytes {
            return Err(breach(Code::VIOLATION, "a datagram larger than we take"));
        }
        if self.datagrams_in >= self.config.datagrams_max {
            // The newest is worth most: the oldest that nobody fetched goes.
            if let Some(oldest) =
                self.events.iter().position(|event| matches!(event, Event::Datagram(_)))
            {
                self.events.remove(oldest);
                self.datagrams_in -= 1;
                self.datagrams_dropped += 1;
            }
        }
        self.datagrams_in += 1;
        self.events.push_back(Event::Datagram(Bytes::copy_from_slice(data)));
        Ok(())
    }

    // --- frames that go out -----------------------------------------------------------------------------------------

    /// True if there are handshake bytes to send in `space`.
    pub(crate) fn has_crypto(&self, space: Space) -> bool {
        self.crypto[space as usize].out.has_work(u64::MAX)
    }

    /// True if a packet of the data space could carry something.
    pub(crate) fn has_data_work(&self) -> bool {
        self.has_crypto(Space::Data)
            || self.admission == Admission::Wanted
            || !self.datagrams.is_empty()
            || self.streams.has_work()
    }

    /// Appends CRYPTO frames of `space` while they fit into `room` bytes.
    pub(crate) fn write_crypto(
        &mut self,
        space: Space,
        out: &mut Vec<u8>,
        room: usize,
        parts: &mut impl FnMut(Part),
    ) {
        let end = out.len() + room;
        let stream = &mut self.crypto[space as usize].out;
        while stream.has_work(u64::MAX) {
            let header = frame::crypto_header_len(stream.sent_end(), end.saturating_sub(out.len()));
            let Some(room) = end.checked_sub(out.len() + header).filter(|room| *room > 0) else {
                return;
            };
            let Some(piece) = stream.next_piece(room, u64::MAX) else { return };
            frame::put_crypto_header(out, piece.offset, piece.len);
            stream.copy(&piece, out);
            parts(Part::Crypto(space, piece));
        }
    }

    /// Appends frames of the data space while they fit into `room` bytes.
    pub(crate) fn write_data(
        &mut self,
        now: Instant,
        out: &mut Vec<u8>,
        room: usize,
        parts: &mut impl FnMut(Part),
    ) {
        let end = out.len() + room;
        self.write_crypto(Space::Data, out, room, parts);
        if self.admission == Admission::Wanted && out.len() < end {
            Frame::Admitted.put(out);
            self.admission = Admission::Sent;
            parts(Part::Admitted);
        }
        self.write_datagrams(now, out, end, parts);
        let room = end.saturating_sub(out.len());
        self.streams.write_frames(out, room, &mut |part| parts(Part::Stream(part)));
    }

    fn write_datagrams(
        &mut self,
        now: Instant,
        out: &mut Vec<u8>,
        end: usize,
        parts: &mut impl FnMut(Part),
    ) {
        const HEADER_BYTES: usize = 1 + 4;
        while let Some((deadline, data)) = self.datagrams.front() {
            if deadline.is_some_and(|deadline| deadline < now) {
                self.datagrams_late += 1;
            } else if out.len() + HEADER_BYTES + data.len() <= end {
                Frame::Datagram(data).put(out);
                parts(Part::Datagram);
            } else {
                return;
            }
            self.datagrams.pop_front();
        }
    }

    /// Queues a datagram; beyond the bound the oldest is dropped and counted.
    pub(crate) fn send_datagram(&mut self, data: Bytes, deadline: Option<Instant>) {
        if self.datagrams.len() >= self.config.datagrams_max {
            self.datagrams.pop_front();
            self.datagrams_dropped += 1;
        }
        self.datagrams.push_back((deadline, data));
    }

    /// Drops the datagram in front, which no packet of this path can hold (the path's packets became smaller).
    pub(crate) fn drop_oversized_datagram(&mut self, largest: usize) {
        while self.datagrams.front().is_some_and(|(_, data)| data.len() > largest) {
            self.datagrams.pop_front();
            self.datagrams_dropped += 1;
        }
    }

    // --- what became of them ----------------------------------------------------------------------------------------

    pub(crate) fn on_acked(&mut self, part: &Part) {
        match part {
            Part::Crypto(space, piece) => {
                self.crypto[*space as usize].out.on_acked(piece);
            }
            Part::Stream(part) => self.streams.on_acked(*part),
            Part::Admitted => self.admission = Admission::Done,
            Part::Datagram | Part::Ack { .. } => {}
        }
    }

    pub(crate) fn on_lost(&mut self, part: &Part) {
        match part {
            Part::Crypto(space, piece) => {
                self.crypto[*space as usize].out.on_lost(piece);
            }
            Part::Stream(part) => self.streams.on_lost(*part),
            Part::Admitted if self.admission == Admission::Sent => {
                self.admission = Admission::Wanted
            }
            Part::Admitted | Part::Datagram | Part::Ack { .. } => {}
        }
    }

    // --- events -----------------------------------------------------------------------------------------------------

    pub(crate) fn push_event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        // The end comes last: what the peer sent before it may still be read.
        if self.events.front().is_none_or(|event| matches!(event, Event::Ended(_)))
            && let Some(event) = self.streams.poll_event()
        {
            return Some(Event::Stream(event));
        }
        let event = self.events.pop_front();
        self.datagrams_in -= usize::from(matches!(event, Some(Event::Datagram(_))));
        event
    }
}

/// The end that a breach of the rules makes.
pub(crate) fn breach(code: Code, what: &str) -> Ended {
    Ended::Breach { code, what: what.to_owned() }
}

/// What the peer is told about an end: origin, code, reason. `None` where it must not or need not hear.
pub(crate) fn close_frame(ended: &Ended) -> Option<(Origin, u64, String)> {
    match ended {
        Ended::Local { code, reason } => Some((Origin::Application, *code, reason.clone())),
        Ended::Declined { code, reason } => Some((Origin::Protocol, code.0, reason.clone())),
        Ended::Breach { code, what } => Some((Origin::Protocol, code.0, what.clone())),
        Ended::Crypto(error) => {
            let code = error.alert.map_or(Code::INTERNAL, Code::crypto);
            Some((Origin::Protocol, code.0, error.text.clone()))
        }
        Ended::Peer { .. }
        | Ended::PeerProtocol { .. }
        | Ended::Version { .. }
        | Ended::HandshakeTimeout { .. }
        | Ended::Idle { .. }
        | Ended::Reset
        | Ended::Truncated => None,
    }
}
