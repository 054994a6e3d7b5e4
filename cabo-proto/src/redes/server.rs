//! The side that has the files: one exchange at a time, begun by LISTA or BAIXAR.
//!
//! Names, descriptions and bytes come from the owner, who is asked by [`Server::poll_want`]. Neighbours: `client.rs` is
//! the other side, `sender.rs` has what is on its way.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::frame::{DATA_MAX, Frame, Malformed, SEQUENCES, Type};
use super::sender::Sender;
use super::{Description, Refusal, Sequence, Settings, after, words};

/// A client that confirmed something within this is there; others wait until it is done or silent.
const LIVE: Duration = Duration::from_millis(200);
/// A request that comes again within this is a copy: on loopback the programs of `streaming` send three at once.
const COPIES: Duration = Duration::from_millis(10);
/// Confirmations and events that wait to be taken at most.
const WAITING_MAX: usize = 64;

/// What the machine needs from its owner.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Want {
    /// The names of the catalogue: [`Server::supply_names`].
    Names,
    /// A file, from a byte on: [`Server::supply_file`], or [`Server::refuse`].
    File {
        /// As the client wrote it.
        name: Vec<u8>,
        /// Bytes that the client has.
        offset: u64,
    },
    /// The next bytes of the file: [`Server::supply_bytes`], or [`Server::refuse`].
    Bytes,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// All of it was confirmed.
    Done,
    /// We refused it, and the client knows.
    Refused(Refusal),
    /// The client has no room.
    ClientRefused(Refusal),
    /// The client confirms nothing any more.
    Vanished,
    /// The client, or another one, began anew.
    Replaced,
}

/// Frames that were not taken, by reason.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Drops {
    /// They are no frames of this layout.
    pub malformed: u64,
    /// Their CRC was wrong.
    pub garbled: u64,
    /// Nothing of that kind or number was expected.
    pub unexpected: u64,
}

/// The server.
#[derive(Debug)]
pub struct Server {
    settings: Settings,
    own: u8, // the next number of our own counter, in `streaming`
    exchange: Option<Exchange>,
    replies: VecDeque<Frame>,
    outcomes: VecDeque<Outcome>,
    drops: Drops,
}

#[derive(Debug)]
struct Exchange {
    request: Frame,
    ack: Frame,
    acked: Instant, // when that was said last
    wants: Option<Want>,
    window: u8,
    is_offer: bool,
    /// What comes before the bytes of the file.
    first: VecDeque<(Type, Vec<u8>)>,
    bytes: Bytes,
    /// What ends it, until it is on its way.
    last: Option<(Type, Vec<u8>)>,
    outcome: Outcome,
    sender: Sender,
    progress: Option<Instant>, // when something was confirmed last
}

/// Bytes of the file: those that are here, and how many are still to be asked for.
#[derive(Debug, Default)]
struct Bytes {
    here: Vec<u8>,
    at: usize,
    left: u64,
}

impl Server {
    /// A server that waits for a request.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            own: 0,
            exchange: None,
            replies: VecDeque::new(),
            outcomes: VecDeque::new(),
            drops: Drops::default(),
        }
    }

    /// Frames that were not taken.
    pub fn drops(&self) -> Drops {
        self.drops
    }

    /// Takes what arrived.
    pub fn handle_frame(&mut self, now: Instant, bytes: &[u8]) {
        let frame = match self.settings.form.decode(bytes) {
            Ok(frame) => frame,
            Err(Malformed::Crc { kind: Type::List | Type::Download, sequence, .. })
                if self.exchange.is_none() =>
            {
                self.drops.garbled += 1;
                let nack = words::nack(self.settings.sequence, sequence, &mut self.own);
                return self.reply(nack);
            }
            Err(Malformed::Crc { .. }) => return self.drops.garbled += 1,
            Err(_) => return self.drops.malformed += 1,
        };
        match frame.kind {
            Type::List | Type::Download => self.request(now, frame),
            Type::Ack => self.acked(now, &frame),
            Type::Nack => self.nacked(now, &frame),
            Type::Error => self.client_refused(&frame),
            // during an exchange it can only be our own echo.
            Type::End
                if self.exchange.is_none() && self.settings.sequence == Sequence::Streaming =>
            {
                let ack = words::ack(self.settings.sequence, frame.sequence, &mut self.own);
                self.reply(ack);
            }
            Type::End | Type::Show | Type::Describe | Type::Data => self.drops.unexpected += 1,
        }
    }

    /// Takes note of the time.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some(exchange) = &mut self.exchange else { return };
        if exchange.sender.handle_timeout(now).is_err() {
            self.end(Outcome::Vanished);
        }
    }

    /// When to be told of the time.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.exchange.as_ref().and_then(|exchange| exchange.sender.deadline())
    }

    /// The next frame to send.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        if let Some(reply) = self.replies.pop_front() {
            return Some(self.settings.form.encode(&reply));
        }
        let exchange = self.exchange.as_mut()?;
        exchange.sender.poll(now).map(|frame| self.settings.form.encode(frame))
    }

    /// What the owner has to give, each once.
    pub fn poll_want(&mut self) -> Option<Want> {
        self.exchange.as_mut()?.wants.take()
    }

    /// How exchanges ended, each once.
    pub fn poll_outcome(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }

    /// Whether somebody is being served.
    pub fn is_busy(&self) -> bool {
        self.exchange.is_some()
    }

    /// Answers [`Want::Names`]; a name that fits no frame is left out.
    pub fn supply_names(&mut self, names: impl IntoIterator<Item = Vec<u8>>) {
        let kind = match self.settings.sequence {
            Sequence::Rss => Type::Data,
            Sequence::Streaming => Type::Show,
            Sequence::Wired => Type::Describe,
        };
        let Some(exchange) = &mut self.exchange else { return };
        let fits = |name: &Vec<u8>| (1..=DATA_MAX).contains(&name.len());
        exchange.first = names.into_iter().filter(fits).map(|name| (kind, name)).collect();
        self.fill();
    }

    /// Answers [`Want::File`]. The bytes from `offset` on are wanted next.
    pub fn supply_file(&mut self, about: &Description) {
        let sequence = self.settings.sequence;
        let Some(exchange) = &mut self.exchange else { return };
        let window = exchange.is_offer.then_some(exchange.window);
        let frames = words::describe(sequence, about, window);
        exchange.first = frames.into_iter().map(|data| (Type::Describe, data)).collect();
        exchange.bytes = Bytes {
            left: about.size.unwrap_or_default().saturating_sub(about.offset),
            ..Bytes::default()
        };
        self.fill();
    }

    /// Answers [`Want::Bytes`]; what is more than the file has is left out.
    pub fn supply_bytes(&mut self, bytes: &[u8]) {
        let Some(exchange) = &mut self.exchange else { return };
        let source = &mut exchange.bytes;
        source.here.drain(..source.at);
        source.at = 0;
        let count = bytes.len().min(usize::try_from(source.left).unwrap_or(usize::MAX));
        source.here.extend_from_slice(bytes.get(..count).unwrap_or_default());
        source.left -= count as u64;
        self.fill();
    }

    /// Answers any want with ERRO; what is on its way already goes before it.
    pub fn refuse(&mut self, refusal: Refusal) {
        let data = words::refusal(self.settings.sequence, refusal);
        let Some(exchange) = &mut self.exchange else { return };
        exchange.first.clear();
        exchange.bytes = Bytes::default();
        exchange.last = Some((Type::Error, data));
        exchange.outcome = Outcome::Refused(refusal);
        self.fill();
    }

    fn request(&mut self, now: Instant, frame: Frame) {
        if let Some(exchange) = &mut self.exchange {
            let is_over = exchange.last.is_none(); // who asks anew has it all
            if exchange.request == frame && exchange.progress.is_none() {
                let is_copy = now.saturating_duration_since(exchange.acked) < COPIES;
                if is_copy && self.settings.sequence == Sequence::Streaming {
                    return self.drops.unexpected += 1;
                }
                exchange.acked = now;
                let ack = exchange.ack.clone();
                return self.reply(ack); // it was lost
            }
            let is_live = exchange
                .progress
                .is_some_and(|progress| now.saturating_duration_since(progress) < LIVE);
            if is_live && (!is_over || exchange.request == frame) {
                return self.drops.unexpected += 1;
            }
            let outcome = if is_over { exchange.outcome } else { Outcome::Replaced };
            self.end(outcome);
        }
        let sequence = self.settings.sequence;
        if frame.sequence == 0 {
            self.own = 0; // a client that was started anew
        }
        let ack = words::ack(sequence, frame.sequence, &mut self.own);
        self.reply(ack.clone());
        let is_list = frame.kind == Type::List;
        let asked = if is_list { None } else { words::request_of(&frame.data) };
        let (offer, wants) = match asked {
            None if is_list => (None, Some(Want::Names)),
            Some((name, offer)) if !name.is_empty() => {
                let offer = offer.filter(|_| sequence == Sequence::Rss);
                let offset = offer.map_or(0, |offer| offer.offset);
                (offer, Some(Want::File { name, offset }))
            }
            Some(_) | None => (None, None),
        };
        let window = match (sequence, offer) {
            (Sequence::Streaming | Sequence::Wired, _) => self.settings.window,
            (Sequence::Rss, Some(offer)) => offer.window.min(self.settings.window).max(1),
            (Sequence::Rss, None) => 1,
        };
        let first_number = match sequence {
            Sequence::Rss => after(frame.sequence),
            Sequence::Streaming => self.own,
            Sequence::Wired => 0,
        };
        let is_senseless = wants.is_none();
        self.exchange = Some(Exchange {
            request: frame,
            ack,
            acked: now,
            wants,
            window,
            is_offer: offer.is_some(),
            first: VecDeque::new(),
            bytes: Bytes::default(),
            last: Some((Type::End, Vec::new())),
            outcome: Outcome::Done,
            sender: Sender::new(first_number),
            progress: None,
        });
        if is_senseless {
            self.refuse(Refusal::NotFound);
        }
    }

    fn acked(&mut self, now: Instant, frame: &Frame) {
        let number = words::number_of(self.settings.sequence, frame);
        let (Some(exchange), Some(number)) = (&mut self.exchange, number) else {
            return self.drops.unexpected += 1;
        };
        if !exchange.sender.acked(now, number) {
            return self.drops.unexpected += 1;
        }
        exchange.progress = Some(now);
        if exchange.sender.is_empty() && exchange.last.is_none() {
            let outcome = exchange.outcome;
            return self.end(outcome);
        }
        self.fill();
    }

    fn nacked(&mut self, now: Instant, frame: &Frame) {
        let number = words::number_of(self.settings.sequence, frame);
        let (Some(exchange), Some(number)) = (&mut self.exchange, number) else {
            return self.drops.unexpected += 1;
        };
        // who had the whole window already asks for what comes after it.
        if self.settings.sequence == Sequence::Wired && number == exchange.sender.next() {
            let last = Frame { sequence: number.wrapping_sub(1) % SEQUENCES, ..frame.clone() };
            return self.acked(now, &last);
        }
        if exchange.sender.nacked(now, number).is_err() {
            return self.end(Outcome::Vanished);
        }
        self.fill();
    }

    /// No server sends a client that its own disk is full, so this is no echo.
    fn client_refused(&mut self, frame: &Frame) {
        let sequence = self.settings.sequence;
        let refusal = words::refusal_of(sequence, &frame.data);
        let is_full = refusal == Some(Refusal::DiskFull) || sequence == Sequence::Wired;
        if !is_full {
            return self.drops.unexpected += 1;
        }
        self.end(Outcome::ClientRefused(Refusal::DiskFull));
        let ack = words::ack(sequence, frame.sequence % SEQUENCES, &mut self.own);
        self.reply(ack); // also when its first ACK was lost and the exchange is over
    }

    /// Puts on its way what may go.
    fn fill(&mut self) {
        let settings = self.settings;
        let Some(exchange) = &mut self.exchange else { return };
        loop {
            if exchange.wants.is_some() {
                return;
            }
            let is_alone = exchange.sender.is_empty();
            if !exchange.first.is_empty() && !is_alone {
                return;
            } else if let Some((kind, data)) = exchange.first.pop_front() {
                exchange.sender.push(kind, data);
            } else if let Some(chunk) = exchange.bytes.chunk(settings) {
                if !exchange.sender.takes_data(exchange.window) {
                    return;
                }
                let data = exchange.bytes.take(chunk);
                exchange.sender.push(Type::Data, data);
            } else if exchange.bytes.left > 0 {
                exchange.wants = Some(Want::Bytes);
                return;
            } else {
                // the end goes with the last window.
                let is_in_window = settings.sequence == Sequence::Wired
                    && exchange.sender.takes_data(exchange.window);
                let may_end = is_alone || is_in_window;
                let Some((kind, data)) = exchange.last.take_if(|_| may_end) else { return };
                exchange.sender.push(kind, data);
            }
        }
    }

    fn end(&mut self, outcome: Outcome) {
        let Some(exchange) = self.exchange.take() else { return };
        if self.settings.sequence == Sequence::Streaming {
            self.own = exchange.sender.next();
        }
        if self.outcomes.len() < WAITING_MAX {
            self.outcomes.push_back(outcome);
        }
    }

    fn reply(&mut self, frame: Frame) {
        if self.replies.len() < WAITING_MAX {
            self.replies.push_back(frame);
        }
    }
}

impl Bytes {
    /// How many bytes the next frame takes; none while it cannot be a whole one.
    fn chunk(&self, settings: Settings) -> Option<usize> {
        let here = self.here.get(self.at..).unwrap_or_default();
        if here.is_empty() || (here.len() < DATA_MAX && self.left > 0) {
            return None;
        }
        let most = here.get(..DATA_MAX).unwrap_or(here);
        Some(if settings.is_cut { settings.form.untagged_len(most) } else { most.len() })
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let data = self.here.get(self.at..self.at + count).unwrap_or_default().to_vec();
        self.at += data.len();
        data
    }
}
