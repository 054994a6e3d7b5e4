//! The side that asks: one request, its answer in order, and then confirmations for what is repeated.
//!
//! The owner takes events, says of a described file whether it has room for it, and may refuse later too.
//! Neighbours: `server.rs` is the other side.

mod asking;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use self::asking::{Stuck, request};
use super::confirm::Confirm;
use super::frame::{Coverage, DATA_MAX, Frame, Malformed, SEQUENCES, Type};
use super::timer::Timer;
use super::words;
use super::{Description, Refusal, Sequence, Settings, after, ahead};

/// A frame is asked for again at most once in this time.
const NACK_PAUSE: Duration = Duration::from_millis(10);
/// The server is reminded when nothing came for so long.
const SILENCE_RSS: Duration = Duration::from_millis(25);
const SILENCE_STREAMING: Duration = Duration::from_millis(40);
const SILENCE_WIRED: Duration = Duration::from_millis(100);
/// Where it is not reminded, it is waited for ten times this.
const SILENCE_BEFORE_DATA: Duration = Duration::from_secs(1);
/// A longer list is not taken.
const NAMES_MAX: usize = 100_000;
/// Numbers behind the expected one that were taken before; the others are ahead.
const BEHIND: u8 = SEQUENCES / 2;

/// What is asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ask {
    /// The catalogue.
    List,
    /// A file.
    Download {
        /// Its name: 1 to 63 bytes without NUL.
        name: Vec<u8>,
        /// Bytes of it that are here.
        offset: u64,
    },
}

/// What came of it, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A name of the catalogue.
    Name(Vec<u8>),
    /// The file as the server describes it. Nothing goes on before [`Client::accept`] or [`Client::refuse`].
    Described(Description),
    /// The next bytes of the file.
    Bytes(Vec<u8>),
    /// It is over.
    Ended(Result<(), Error>),
}

/// Why an answer is not whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// A name that no request can carry.
    #[error("a name has 1 to 63 bytes and no NUL here")]
    Name,
    /// Nobody answers the request.
    #[error("no answer")]
    NoAnswer,
    /// The server stopped in the middle.
    #[error("the server is silent")]
    Silent,
    /// The server refuses it.
    #[error("{0}")]
    Refused(Refusal),
    /// We refused it, and the server may know.
    #[error("{0} here")]
    RefusedHere(Refusal),
    /// The server ended before the size that it said.
    #[error("it ended {missing} bytes too early")]
    Short {
        /// Bytes that did not come.
        missing: u64,
    },
    /// The server sends more than it said.
    #[error("it is longer than the server said")]
    Long,
    /// The catalogue has no end.
    #[error("the catalogue has more than {NAMES_MAX} names")]
    Endless,
}

#[derive(Debug)]
enum Phase {
    Asking,
    Taking,
    /// Waits for the owner's word about a described file.
    Described,
    /// Says ERRO until it is confirmed.
    Refusing(Frame, Refusal),
    /// Confirms what the server repeats.
    Over,
}

/// The client.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    ask: Ask,
    request: Frame,
    has_offer: bool,
    phase: Phase,
    expected: u8,
    own: u8, // the next number of our own counter, in `streaming`
    size: Option<(u64, u64)>,
    left: Option<u64>, // bytes to come, once described
    has_data: bool,    // DADOS came
    names: usize,
    confirm: Confirm,
    owes_nack: bool,
    asked_again: Option<(u8, Instant)>,
    suspect: Option<Frame>,
    tries: u32,          // of the request
    counter: Option<u8>, // the number that a server counts from, if it is not ours
    has_company: bool,   // another client asks on this link
    stuck: Stuck,
    first: Option<Frame>, // goes before what is due
    due: Option<Frame>,
    timer: Timer,
    events: VecDeque<Event>,
}

impl Client {
    /// A client that asks with the number `first`.
    pub fn new(settings: Settings, ask: Ask, first: u8) -> Result<Self, Error> {
        if let Ask::Download { name, .. } = &ask
            && (!(1..=DATA_MAX).contains(&name.len()) || name.contains(&0))
        {
            return Err(Error::Name);
        }
        let is_wired = settings.sequence == Sequence::Wired;
        let first = if is_wired { 0 } else { first % SEQUENCES };
        let (request, has_offer) = request(settings, &ask, first, true);
        Ok(Self {
            settings,
            ask,
            first: None,
            due: Some(request.clone()),
            request,
            has_offer,
            phase: Phase::Asking,
            expected: after(first),
            own: after(first),
            size: None,
            left: None,
            has_data: false,
            names: 0,
            confirm: Confirm::new(settings),
            owes_nack: false,
            asked_again: None,
            suspect: None,
            tries: 0,
            counter: None,
            has_company: false,
            stuck: Stuck::default(),
            timer: Timer::default(),
            events: VecDeque::new(),
        })
    }

    /// The number that the next request of the same session has.
    pub fn next(&self) -> u8 {
        match self.settings.sequence {
            Sequence::Rss => self.expected,
            Sequence::Streaming => self.own,
            Sequence::Wired => 0,
        }
    }

    /// Takes what arrived.
    pub fn handle_frame(&mut self, now: Instant, bytes: &[u8]) {
        let frame = match self.settings.form.decode(bytes) {
            Ok(frame) => frame,
            Err(Malformed::Crc { .. }) => {
                self.owes_nack |= matches!(self.phase, Phase::Taking);
                return;
            }
            Err(_) => return,
        };
        match (&self.phase, frame.kind) {
            // What only a client sends: our own echo, or another client.
            (_, Type::List | Type::Download) => self.has_company |= frame != self.request,
            (Phase::Described, _) => {}
            (Phase::Asking, _) => self.handle_answer(now, frame),
            (Phase::Refusing(ours, refusal), Type::Ack) => {
                let is_ours = self.number(&frame) == Some(ours.sequence);
                let refusal = *refusal;
                if is_ours {
                    self.end(Err(Error::RefusedHere(refusal)));
                }
            }
            (Phase::Taking, Type::Ack | Type::Nack) => self.handle_counted(&frame),
            (Phase::Refusing(..), _) | (_, Type::Ack | Type::Nack) => {}
            (Phase::Over, kind) => {
                let is_old = ahead(frame.sequence, self.expected) >= BEHIND;
                // What stands before FIM_TX in its window is confirmed with it.
                if is_old && (self.settings.sequence == Sequence::Rss || kind == Type::End) {
                    self.confirm.now();
                }
            }
            (Phase::Taking, _) => self.handle_numbered(now, frame),
        }
    }

    /// Takes note of the time.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.confirm.handle_timeout(now) {
            self.ask_for_next();
        }
        if !self.timer.is_due(now) {
            return;
        }
        let has_given_up = self.timer.again(now).is_err();
        match &self.phase {
            Phase::Asking if has_given_up => self.end(Err(Error::NoAnswer)),
            Phase::Asking => self.ask_again(),
            Phase::Refusing(_, refusal) if has_given_up => {
                let refusal = *refusal;
                self.end(Err(Error::RefusedHere(refusal)));
            }
            Phase::Refusing(frame, _) => self.due = Some(frame.clone()),
            Phase::Taking if has_given_up => self.end(Err(Error::Silent)),
            Phase::Taking => self.remind(),
            Phase::Described | Phase::Over => self.timer.stop(),
        }
    }

    /// When to be told of the time.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadlines = [self.timer.deadline(), self.confirm.deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// The next frame to send. One confirmation is for all that was handed in before.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        let sequence = self.settings.sequence;
        let form = self.settings.form;
        if self.confirm.take() {
            let is_asking = matches!(self.phase, Phase::Asking);
            let next = if is_asking { self.request.sequence } else { self.expected };
            let last = next.wrapping_sub(1) % SEQUENCES;
            return Some(form.encode(&words::ack(sequence, last, &mut self.own)));
        }
        if let Some(frame) = self.first.take() {
            return Some(form.encode(&frame));
        }
        if let Some(frame) = self.due.take() {
            if self.timer.deadline().is_none() {
                self.timer.start(now);
            }
            return Some(form.encode(&frame));
        }
        if std::mem::take(&mut self.owes_nack) {
            let is_new = self.asked_again.is_none_or(|(number, at)| {
                number != self.expected || now.saturating_duration_since(at) >= NACK_PAUSE
            });
            if is_new {
                self.asked_again = Some((self.expected, now));
                self.confirm.said();
                return Some(form.encode(&words::nack(sequence, self.expected, &mut self.own)));
            }
        }
        None
    }

    /// What came of it.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether it is over, whatever the server repeats.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// There is room for the described file.
    pub fn accept(&mut self) {
        if matches!(self.phase, Phase::Described) {
            self.phase = Phase::Taking;
            if self.settings.sequence == Sequence::Rss {
                self.confirm.now();
            }
        }
    }

    /// There is no room, or none any more.
    pub fn refuse(&mut self, refusal: Refusal) {
        if !matches!(self.phase, Phase::Described | Phase::Taking) {
            return;
        }
        // it listens for a refusal only when its description is confirmed.
        if self.settings.sequence == Sequence::Streaming && self.confirm.take() {
            let last = self.expected.wrapping_sub(1) % SEQUENCES;
            self.first = Some(words::ack(Sequence::Streaming, last, &mut self.own));
        }
        let sequence = match self.settings.sequence {
            Sequence::Rss => after(self.expected),
            Sequence::Streaming => self.own,
            Sequence::Wired => self.expected,
        };
        self.own = after(self.own);
        let data = words::refusal(self.settings.sequence, refusal);
        let frame = Frame { sequence, kind: Type::Error, data };
        self.due = Some(frame.clone());
        self.confirm.said();
        self.timer.stop();
        self.events.retain(|event| !matches!(event, Event::Bytes(_)));
        self.phase = Phase::Refusing(frame, refusal);
    }

    fn number(&self, frame: &Frame) -> Option<u8> {
        words::number_of(self.settings.sequence, frame)
    }

    /// confirmations of the server have numbers as well.
    fn handle_counted(&mut self, frame: &Frame) {
        if self.settings.sequence == Sequence::Streaming && frame.sequence == self.expected {
            self.expected = after(self.expected);
        }
    }

    /// whatever was lost, this is what the server needs, if only to look at its clock.
    fn remind(&mut self) {
        match self.settings.sequence {
            Sequence::Rss => {
                self.confirm.now();
                self.ask_for_next();
            }
            Sequence::Wired => self.ask_for_next(),
            Sequence::Streaming if self.has_data => self.confirm.now(),
            Sequence::Streaming => {} // it would take it for a word about our disk
        }
    }

    fn ask_for_next(&mut self) {
        self.owes_nack = true;
        self.asked_again = None;
    }

    fn silence(&self) -> Duration {
        match self.settings.sequence {
            Sequence::Rss => SILENCE_RSS,
            Sequence::Streaming if self.has_data => SILENCE_STREAMING,
            Sequence::Wired => SILENCE_WIRED,
            Sequence::Streaming => SILENCE_BEFORE_DATA,
        }
    }

    fn take_from(&mut self, now: Instant, expected: u8) {
        self.phase = Phase::Taking;
        if self.settings.sequence == Sequence::Wired && self.ask != Ask::List {
            // nothing is said of the file, and it comes at once.
            self.left = Some(u64::MAX);
            self.events.push_back(Event::Described(Description::default()));
        }
        self.expected = expected;
        self.due = None;
        self.timer.start_for(now, self.silence());
    }

    fn handle_numbered(&mut self, now: Instant, frame: Frame) {
        match ahead(frame.sequence, self.expected) {
            0 if self.makes_sense(&frame) => {
                self.expected = after(self.expected);
                self.confirm.arrived(now, frame.kind);
                self.owes_nack = false;
                self.suspect = None;
                self.has_data |= frame.kind == Type::Data;
                self.timer.start_for(now, self.silence());
                self.take(frame);
            }
            distance if distance >= BEHIND => self.confirm.repeated(now),
            _ => self.owes_nack = true, // a gap, or nonsense
        }
    }

    /// Whether a frame can be what it says: where the CRC is of the data alone, it may have become another one.
    fn makes_sense(&mut self, frame: &Frame) -> bool {
        let is_listing = self.ask == Ask::List;
        match frame.kind {
            Type::Data if is_listing => true,
            Type::Show => is_listing,
            Type::Describe if self.settings.sequence == Sequence::Wired => is_listing,
            Type::Data => self.left.is_some_and(|left| self.fits(frame, left)),
            Type::Describe => !is_listing && self.left.is_none() && self.describes(frame),
            Type::End => {
                let is_due = is_listing || self.left.is_some();
                is_due && (frame.data.is_empty() || self.settings.form.coverage != Coverage::Data)
            }
            Type::Error => words::refusal_of(self.settings.sequence, &frame.data).is_some(),
            Type::Ack | Type::Nack | Type::List | Type::Download => false,
        }
    }

    /// Where the size is flipped, the CRC may be of other bytes and right by chance. A length that is neither that of
    /// all, nor that of the last, nor that of a cut is believed when it comes twice.
    fn fits(&mut self, frame: &Frame, left: u64) -> bool {
        let len = frame.data.len();
        if self.settings.sequence == Sequence::Wired {
            return true; // its last one may be empty
        }
        let is_usual = len == DATA_MAX || len as u64 == left || len == self.settings.form.cut_len();
        if len > 0 && len as u64 <= left && is_usual {
            return true;
        }
        len > 0 && self.suspect.replace(frame.clone()).as_ref() == Some(frame)
    }

    fn describes(&self, frame: &Frame) -> bool {
        match self.settings.sequence {
            Sequence::Rss => self.size.is_some() || words::size_of(&frame.data).is_some(),
            Sequence::Streaming => words::description_of(&frame.data).is_some(),
            Sequence::Wired => false,
        }
    }

    /// Takes the frame that was next.
    fn take(&mut self, frame: Frame) {
        match frame.kind {
            Type::Data | Type::Show | Type::Describe if self.ask == Ask::List => {
                let name = words::text(&frame.data);
                self.names += 1;
                if self.names > NAMES_MAX {
                    self.end(Err(Error::Endless));
                } else if !name.is_empty() {
                    self.events.push_back(Event::Name(name.to_vec()));
                }
            }
            Type::Data => {
                let len = frame.data.len() as u64;
                match self.left.and_then(|left| left.checked_sub(len)) {
                    Some(left) => {
                        self.left = Some(left);
                        if len > 0 {
                            self.events.push_back(Event::Bytes(frame.data));
                        }
                    }
                    None => self.end(Err(Error::Long)),
                }
            }
            Type::Describe => self.take_description(&frame.data),
            Type::End => match self.left {
                Some(missing) if missing > 0 && self.size.is_some() => {
                    self.end(Err(Error::Short { missing }))
                }
                Some(_) | None => self.end(Ok(())),
            },
            Type::Error => {
                let refusal = words::refusal_of(self.settings.sequence, &frame.data);
                self.handle_refusal(refusal.unwrap_or(Refusal::Unknown(0)));
            }
            Type::Ack | Type::Nack | Type::List | Type::Download | Type::Show => {}
        }
    }

    fn take_description(&mut self, data: &[u8]) {
        let about = match (self.settings.sequence, self.size) {
            (Sequence::Rss, None) => {
                self.size = words::size_of(data);
                return;
            }
            (Sequence::Rss, Some((size, offset))) => {
                Some(Description { size: Some(size), modified: words::text(data).to_vec(), offset })
            }
            (Sequence::Streaming | Sequence::Wired, _) => words::description_of(data),
        };
        let Some(about) = about else { return };
        let size = about.size.unwrap_or_default();
        self.size = Some((size, about.offset));
        self.left = Some(size - about.offset);
        self.phase = Phase::Described;
        if self.settings.sequence == Sequence::Rss {
            self.confirm.said(); // by who takes the file; a refusal takes its place
        }
        self.events.push_back(Event::Described(about));
    }

    fn end(&mut self, result: Result<(), Error>) {
        self.phase = Phase::Over;
        self.timer.stop();
        self.due = None;
        self.events.push_back(Event::Ended(result));
    }
}
