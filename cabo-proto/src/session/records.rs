//! A connection over a carrier that promises delivery and order: records (W-4, S-7).
//!
//! The same frames and handshake as over packets; acknowledgement, recovery, pacing and MTU rest, because the carrier
//! does that work. Bytes go in by [`RecordConnection::handle_bytes`] and come out by
//! [`RecordConnection::poll_output`], in any portions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::config::{Config, Ended};
use super::core::{Core, Event, Part, breach, close_frame};
use super::crypto::{Crypto, CryptoError, Keys, PublicKey, Side, Space};
use super::phase::{Opened, PhaseKeys};
use crate::transport::flow::Budget;
use crate::transport::streams::Streams;
use crate::wire::code::Code;
use crate::wire::frame::{Close, Frame, Frames, Origin};
use crate::wire::params::Params;
use crate::wire::record::{self, Form, RecordHeader, RecordKind};

/// Bytes of a record that we make. Large enough to be cheap, small enough that an urgent stream soon gets its turn.
const RECORD_BODY_BYTES: usize = 32 * 1024;
/// What the round trip of a stream carrier is taken for, where windows grow by it; where it is longer they grow by what
/// the peer says (T-13.5).
const ASSUMED_RTT: Duration = Duration::from_millis(20);

/// Whose bytes open a stream (W-4.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Opening {
    /// A cabo peer, which wants this form.
    Cabo(Form),
    /// Too little to tell.
    Unknown,
    /// Somebody else.
    Stranger,
}

impl Opening {
    /// Looks at the first bytes of a stream.
    pub fn of(bytes: &[u8]) -> Self {
        if let Some(form) = Form::ALL.into_iter().find(|form| bytes.starts_with(&form.preface())) {
            return Self::Cabo(form);
        }
        let is_beginning = Form::ALL.iter().any(|form| form.preface().starts_with(bytes));
        if is_beginning { Self::Unknown } else { Self::Stranger }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Open,
    /// CLOSE has to be sent, then the carrier ends.
    Closing,
    /// Nothing more goes either way.
    Gone,
}

/// One connection over records.
pub struct RecordConnection {
    core: Core,
    state: State,
    partial: Vec<u8>, // the beginning of a record whose rest has not come
    is_preface_owed: bool,
    preface_at: usize, // so much of the peer's preface has come
    handshake_keys: Option<Keys>,
    handshake_numbers: [u64; 2], // sealed, opened
    opened: Space,               // the highest space of a record that came; none below it follows
    phase: Option<PhaseKeys>,
    data_numbers: [u64; 2],
    started: Instant,
    ended: Option<Ended>,
    bytes_out: u64,
    bytes_in: u64,
}

impl RecordConnection {
    /// The client's end; it starts with the preface.
    pub fn client(
        now: Instant,
        config: Config,
        crypto: &dyn Crypto,
        budget: Arc<Budget>,
    ) -> Result<Self, CryptoError> {
        let mut connection = Self::new(now, Side::Client, config, crypto, budget)?;
        connection.advance_handshake();
        Ok(connection)
    }

    /// The server's end, after the client's preface was read by whoever looked who it is ([`Opening`]).
    pub fn server(
        now: Instant,
        config: Config,
        crypto: &dyn Crypto,
        budget: Arc<Budget>,
    ) -> Result<Self, CryptoError> {
        Self::new(now, Side::Server, config, crypto, budget)
    }

    fn new(
        now: Instant,
        side: Side,
        config: Config,
        crypto: &dyn Crypto,
        budget: Arc<Budget>,
    ) -> Result<Self, CryptoError> {
        let params = Core::params(&config);
        let mut core = Core::new(side, config, &params, crypto, budget)?;
        core.streams.set_rtt(ASSUMED_RTT);
        core.streams.set_ordered();
        Ok(Self {
            core,
            state: State::Open,
            partial: Vec::new(),
            is_preface_owed: true,
            preface_at: match side {
                Side::Client => 0,
                Side::Server => Form::Sealed.preface().len(), // see `server`
            },
            handshake_keys: None,
            handshake_numbers: [0; 2],
            opened: Space::Initial,
            phase: None,
            data_numbers: [0; 2],
            started: now,
            ended: None,
            bytes_out: 0,
            bytes_in: 0,
        })
    }

    /// All that a server says to a client for which it has no room: its preface, and a CLOSE in the clear (S-4.5).
    pub fn refusal(form: Form, code: Code, reason: &str) -> Vec<u8> {
        let mut out = form.preface().to_vec();
        let start = record::put(&mut out, RecordKind::Initial);
        Frame::Close(Close { origin: Origin::Protocol, code: code.0, reason: reason.as_bytes() })
            .put(&mut out);
        record::set_length(&mut out[start..]);
        out
    }

    fn advance_handshake(&mut self) {
        let mut installed = Vec::new();
        self.core.write_handshake(&mut |space, keys| installed.push((space, keys)));
        for (space, keys) in installed {
            if space == Space::Data && self.core.config.form() == Form::Bound {
                self.phase = Some(PhaseKeys::unsealed());
            } else if space == Space::Data {
                let after = self.core.config.key_update_after;
                self.phase = Some(PhaseKeys::new(keys, self.core.handshake_mut(), after));
            } else {
                self.handshake_keys = Some(keys);
            }
        }
        if let Err(ended) = self.core.check_handshake() {
            self.end(ended);
        }
    }

    // --- bytes that come in -----------------------------------------------------------------------------------------

    /// Takes bytes from the carrier, cut anywhere. Records are opened where they lie; only one that is cut is kept.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &mut [u8]) {
        if self.state != State::Open {
            return;
        }
        self.bytes_in += bytes.len() as u64;
        let mut rest = self.take_preface(bytes);
        if !self.partial.is_empty() {
            rest = self.complete(now, rest);
        }
        while let Some(header) = self.header_of(rest)
            && header.record_len() <= rest.len()
        {
            let (record, behind) = rest.split_at_mut(header.record_len());
            self.handle_record(now, &header, record);
            rest = behind;
        }
        self.partial.extend_from_slice(rest);
        if self.partial.is_empty() || self.state != State::Open {
            self.partial = Vec::new(); // an idle connection holds no buffer
        }
    }

    /// Takes what `bytes` has of the peer's preface and returns the rest.
    fn take_preface<'b>(&mut self, bytes: &'b mut [u8]) -> &'b mut [u8] {
        let ours = self.core.config.form().preface();
        let wanted = &ours[self.preface_at..];
        let (first, rest) = bytes.split_at_mut(bytes.len().min(wanted.len()));
        self.preface_at += first.len();
        if *first != wanted[..first.len()] {
            self.end(breach(Code::VERSION, "it does not speak cabo/1 in this form"));
        }
        rest
    }

    /// Adds to the record that was cut what has come of it, handles it if that is all, and returns the rest.
    fn complete<'b>(&mut self, now: Instant, mut rest: &'b mut [u8]) -> &'b mut [u8] {
        let mut partial = std::mem::take(&mut self.partial);
        rest = fill(&mut partial, record::HEADER, rest);
        if let Some(header) = self.header_of(&partial) {
            rest = fill(&mut partial, header.record_len(), rest);
            if partial.len() == header.record_len() {
                self.handle_record(now, &header, &mut partial);
                partial.clear();
            }
        }
        self.partial = partial;
        rest
    }

    /// The header of the record that begins with `bytes`, if all of it has come to an open connection.
    fn header_of(&mut self, bytes: &[u8]) -> Option<RecordHeader> {
        if self.state != State::Open {
            return None;
        }
        match record::parse(bytes.first_chunk()?) {
            Ok(header) => Some(header),
            Err(error) => {
                self.end(breach(Code::FRAME, &error.to_string()));
                None
            }
        }
    }

    fn handle_record(&mut self, now: Instant, header: &RecordHeader, record: &mut [u8]) {
        let result = self.open(now, header, record).and_then(|len| {
            let body = &record[record::HEADER..record::HEADER + len];
            self.handle_body(now, header.kind.space(), body)
        });
        if let Err(ended) = result {
            self.end(ended);
        }
    }

    fn open(
        &mut self,
        now: Instant,
        header: &RecordHeader,
        record: &mut [u8],
    ) -> Result<usize, Ended> {
        let (associated, body) = record.split_at_mut(record::HEADER);
        let associated = &*associated;
        let space = header.kind.space();
        // S-7.3: what is not sealed, or not by a peer that has proved itself, is not heard once it could be forged.
        let is_late_hello = space == Space::Initial
            && self.core.side == Side::Client
            && self.handshake_keys.is_some();
        if space < self.opened
            || is_late_hello
            || (space == Space::Data && !self.core.is_handshaken())
        {
            return Err(breach(Code::VIOLATION, "a record out of its turn"));
        }
        self.opened = space;
        if space == Space::Data && !self.core.has_crypto(Space::Handshake) {
            self.handshake_keys = None; // neither side has any more use for them
        }
        let opened = match header.kind {
            RecordKind::Initial => Some(body.len()),
            RecordKind::Handshake => {
                let number = self.handshake_numbers[1];
                self.handshake_numbers[1] += 1;
                self.handshake_keys
                    .as_ref()
                    .and_then(|keys| keys.open.open(number, associated, body))
            }
            RecordKind::Data { phase: is_odd } => {
                let number = self.data_numbers[1];
                self.data_numbers[1] += 1;
                let next = self.data_numbers[0];
                let packet = (is_odd, number, associated);
                self.phase.as_mut().and_then(|phase| {
                    match phase.open(
                        now,
                        Duration::ZERO,
                        packet,
                        body,
                        next,
                        self.core.handshake_mut(),
                    ) {
                        Opened::Body(len) => Some(len),
                        Opened::Failed | Opened::TooManyFailures => None,
                    }
                })
            }
        };
        // On a carrier that promises order, one record that does not open is an attack or a broken carrier.
        opened.ok_or_else(|| breach(Code::KEYS, "a record that does not open"))
    }

    fn handle_body(&mut self, now: Instant, space: Space, body: &[u8]) -> Result<(), Ended> {
        let mut is_moved = false;
        for frame in Frames::new(body) {
            let frame = frame.map_err(|error| breach(Code::FRAME, &error.to_string()))?;
            if !frame.allowed_in_record(space) {
                return Err(breach(
                    Code::VIOLATION,
                    &format!("{} in a record of the {space:?} space", frame.name()),
                ));
            }
            match frame {
                Frame::Crypto { offset, data } => {
                    is_moved |= self.core.on_crypto(space, offset, data)?
                }
                Frame::Close(close) => {
                    self.state = State::Gone;
                    self.core.push_event(Event::Ended(Ended::from_peer(
                        close.origin,
                        close.code,
                        close.reason,
                    )));
                    return Ok(());
                }
                Frame::Pad(_)
                | Frame::Unknown { .. }
                | Frame::Ping
                | Frame::Ack(_)
                | Frame::PathChallenge(_)
                | Frame::PathResponse(_) => {}
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
        if is_moved {
            self.advance_handshake();
        }
        Ok(())
    }

    /// The carrier failed, and said why: a channel around us that was refused or forged.
    pub fn handle_failure(&mut self, error: CryptoError) {
        if self.state == State::Open {
            self.state = State::Gone;
            self.core.push_event(Event::Ended(Ended::Crypto(error.clone())));
            self.ended = Some(Ended::Crypto(error));
        }
    }

    /// The carrier ended. Without a CLOSE that is a truncation (W-4.5).
    pub fn handle_end(&mut self) {
        if self.state != State::Gone {
            self.state = State::Gone;
            if self.ended.is_none() {
                self.core.push_event(Event::Ended(Ended::Truncated));
            }
        }
    }

    // --- bytes that go out ------------------------------------------------------------------------------------------

    /// Appends records to `out` until it holds about `out_max` bytes or there is nothing to send.
    pub fn poll_output(&mut self, now: Instant, out: &mut Vec<u8>, out_max: usize) {
        if self.state == State::Gone {
            return;
        }
        let before = out.len();
        if std::mem::take(&mut self.is_preface_owed) {
            out.extend_from_slice(&self.core.config.form().preface());
        }
        // A client that ends it before it is done does not say who it is.
        let is_silent = self.core.side == Side::Client
            && self.state == State::Closing
            && !self.core.is_handshaken();
        for space in [Space::Initial, Space::Handshake, Space::Data] {
            if space == Space::Handshake && is_silent {
                continue;
            }
            while out.len() < out_max && self.write_record(now, space, out) {}
        }
        if self.state == State::Closing {
            self.write_close(out);
            self.state = State::Gone;
        }
        self.bytes_out += (out.len() - before) as u64;
    }

    fn can_seal(&self, space: Space) -> bool {
        match space {
            Space::Initial => true,
            Space::Handshake => self.handshake_keys.is_some(),
            Space::Data => self.phase.is_some() && self.core.is_handshaken(),
        }
    }

    fn write_record(&mut self, now: Instant, space: Space, out: &mut Vec<u8>) -> bool {
        let has_work = match space {
            Space::Initial | Space::Handshake => self.core.has_crypto(space),
            Space::Data => self.core.has_data_work(),
        };
        if !has_work || !self.can_seal(space) {
            return false;
        }
        if space == Space::Data {
            let largest = self.largest_datagram();
            self.core.drop_oversized_datagram(largest);
        }
        let start = record::put(out, self.kind(space));
        let mut parts = Vec::new();
        let mut push = |part: Part| parts.push(part);
        match space {
            Space::Initial | Space::Handshake => {
                self.core.write_crypto(space, out, RECORD_BODY_BYTES, &mut push)
            }
            Space::Data => self.core.write_data(now, out, RECORD_BODY_BYTES, &mut push),
        }
        if out.len() == start + record::HEADER {
            out.truncate(start);
            return false;
        }
        // The carrier promises delivery: what it is handed is as good as acknowledged (S-7.2).
        parts.iter().for_each(|part| self.core.on_acked(part));
        self.seal(space, out, start);
        true
    }

    fn kind(&self, space: Space) -> RecordKind {
        match space {
            Space::Initial => RecordKind::Initial,
            Space::Handshake => RecordKind::Handshake,
            Space::Data => {
                RecordKind::Data { phase: self.phase.as_ref().is_some_and(PhaseKeys::is_odd) }
            }
        }
    }

    fn seal(&mut self, space: Space, out: &mut Vec<u8>, start: usize) {
        let tag = match (space, &self.phase, &self.handshake_keys) {
            (Space::Data, Some(phase), _) => phase.tag_len(),
            (Space::Handshake, _, Some(keys)) => keys.seal.tag_len(),
            _ => 0,
        };
        out.resize(out.len() + tag, 0);
        let record = &mut out[start..];
        record::set_length(record);
        let (header, body) = record.split_at_mut(record::HEADER);
        match (space, &mut self.phase, &self.handshake_keys) {
            (Space::Data, Some(phase), _) => {
                phase.seal(self.data_numbers[0], header, body);
                self.data_numbers[0] += 1;
                let next = self.data_numbers[0];
                if self.core.is_admitted() {
                    phase.maybe_update(next, Some(u64::MAX), self.core.handshake_mut());
                }
            }
            (Space::Handshake, _, Some(keys)) => {
                keys.seal.seal(self.handshake_numbers[0], header, body);
                self.handshake_numbers[0] += 1;
            }
            _ => {}
        }
    }

    fn write_close(&mut self, out: &mut Vec<u8>) {
        let Some((origin, code, reason)) = self.ended.as_ref().and_then(close_frame) else {
            return;
        };
        let spaces = [Space::Data, Space::Handshake, Space::Initial];
        let Some(space) = spaces.into_iter().find(|space| self.can_seal(*space)) else { return };
        let origin = if space == Space::Data { origin } else { Origin::Protocol };
        let mut cut = reason.len().min(1024);
        while !reason.is_char_boundary(cut) {
            cut -= 1;
        }
        let start = record::put(out, self.kind(space));
        Frame::Close(Close { origin, code, reason: &reason.as_bytes()[..cut] }).put(out);
        self.seal(space, out, start);
    }

    // --- the application's side -------------------------------------------------------------------------------------

    /// The table of streams.
    pub fn streams(&mut self) -> &mut Streams {
        &mut self.core.streams
    }

    /// Queues a datagram that is worth nothing after `deadline`.
    pub fn send_datagram(&mut self, data: Bytes, deadline: Option<Instant>) {
        self.core.send_datagram(data, deadline);
    }

    /// The largest datagram that one record holds and the peer takes.
    pub fn largest_datagram(&self) -> usize {
        let peer = self.core.peer().map_or(0, |peer| peer.largest_datagram);
        (RECORD_BODY_BYTES - 5).min(usize::try_from(peer).unwrap_or(usize::MAX))
    }

    /// Lets the peer in (server, after [`Event::Handshaken`]).
    pub fn admit(&mut self) {
        self.core.admit();
    }

    /// Ends the connection and tells the peer why.
    pub fn close(&mut self, ended: Ended) {
        self.end(ended);
    }

    fn end(&mut self, ended: Ended) {
        if self.state == State::Open {
            self.state = if close_frame(&ended).is_some() { State::Closing } else { State::Gone };
            self.core.push_event(Event::Ended(ended.clone()));
            self.ended = Some(ended);
        }
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.core.poll_event()
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called: the handshake has a limit, silence has none of
    /// ours.
    pub fn deadline(&self) -> Option<Instant> {
        let is_waiting = self.state == State::Open && !self.core.is_handshaken();
        is_waiting.then(|| self.started + self.core.config.handshake_timeout)
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.end(Ended::HandshakeTimeout { after: self.core.config.handshake_timeout });
        }
    }

    // --- questions --------------------------------------------------------------------------------------------------

    /// The peer's proved identity.
    pub fn peer_key(&self) -> Option<PublicKey> {
        self.core.peer_key()
    }

    /// The peer's parameters, once known.
    pub fn peer_params(&self) -> Option<&Params> {
        self.core.peer()
    }

    /// True once the handshake is done.
    pub fn is_handshaken(&self) -> bool {
        self.core.is_handshaken()
    }

    /// True once the server let the client in, and the client knows.
    pub fn is_admitted(&self) -> bool {
        self.core.is_admitted()
    }

    /// True when the carrier can be closed.
    pub fn is_gone(&self) -> bool {
        self.state == State::Gone
    }

    /// Bytes sent and received, records and all.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes_out, self.bytes_in)
    }
}

/// Moves bytes from `rest` to `to` until that holds `len`, and returns what is left.
fn fill<'b>(to: &mut Vec<u8>, len: usize, rest: &'b mut [u8]) -> &'b mut [u8] {
    let missing = len.saturating_sub(to.len()).min(rest.len());
    let (first, rest) = rest.split_at_mut(missing);
    to.extend_from_slice(first);
    rest
}
