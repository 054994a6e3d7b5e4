//! The request: asked with an offer and without, numbered and renumbered, until an answer to it begins.

use std::time::Instant;

use super::{Ask, Client, Error, Phase};
use crate::redes::frame::{DATA_MAX, Frame, Type};
use crate::redes::words::{self, Offer};
use crate::redes::{Refusal, Sequence, Settings, after, ahead};

/// A request that is not answered gets other numbers from this try on.
const RENUMBERED: u32 = 3;
/// A server that answers so often with the same frame of another exchange is held up in it.
const STUCK: u32 = 3;
/// How often such a server is told to give that up: the programs want to hear it twice.
const EXCUSES: u32 = 2;

/// What speaks for a server that still waits for a client that vanished.
#[derive(Debug, Default)]
pub(super) struct Stuck {
    frame: Option<(u8, u32)>, // its number, and how often it came
    excuses: u32,             // still to be said
    has_ended: bool,          // they were said before
}

impl Client {
    /// While asking: a confirmation, a refusal, or in `rss` the answer itself, whose confirmation was lost.
    pub(super) fn handle_answer(&mut self, now: Instant, frame: Frame) {
        let is_rss = self.settings.sequence == Sequence::Rss;
        match frame.kind {
            Type::Ack if self.number(&frame) == Some(self.request.sequence) => {
                self.timer.answered(now);
                let is_wired = self.settings.sequence == Sequence::Wired;
                self.take_from(now, if is_wired { 0 } else { after(frame.sequence) });
            }
            Type::Nack => self.handle_asked_again(now, &frame),
            Type::Ack if is_rss => self.counter = Some(frame.sequence),
            Type::Error if !is_rss || ahead(frame.sequence, self.request.sequence) <= 1 => {
                self.take_from(now, frame.sequence);
                self.handle_numbered(now, frame);
            }
            // Other answers may be left over from an exchange before this one.
            Type::Describe if is_rss && frame.sequence == self.expected => {
                if self.makes_sense(&frame) {
                    self.take_from(now, frame.sequence);
                    self.handle_numbered(now, frame);
                }
            }
            Type::Describe | Type::Data | Type::Error if is_rss && self.is_counted(&frame) => {
                self.take_from(now, frame.sequence);
                self.handle_numbered(now, frame);
            }
            Type::Data | Type::Describe | Type::End if is_rss => self.note_stuck(now, &frame),
            // Its confirmation was lost; a name is nobody's file.
            Type::Describe
                if self.settings.sequence == Sequence::Wired && self.ask == Ask::List =>
            {
                if frame.sequence == 0 {
                    self.take_from(now, 0);
                    self.handle_numbered(now, frame);
                }
            }
            Type::Ack | Type::List | Type::Download | Type::Show => {}
            Type::Describe | Type::Data | Type::End | Type::Error => {}
        }
    }

    /// NACK in place of the answer: the request was garbled, or has another number than the server waits for.
    fn handle_asked_again(&mut self, now: Instant, frame: &Frame) {
        match (self.settings.sequence, self.number(frame)) {
            (Sequence::Streaming, None) => {}
            (Sequence::Streaming, Some(wanted)) => self.renumber(wanted),
            (Sequence::Rss | Sequence::Wired, number) => {
                if number != Some(self.request.sequence) {
                    return;
                }
            }
        }
        self.due = Some(self.request.clone());
        if self.timer.again(now).is_err() {
            self.end(Err(Error::NoAnswer));
        }
    }

    /// Servers of `streaming` drop what they heard before; another number makes them say which one they wait for.
    pub(super) fn ask_again(&mut self) {
        if let (Some((number, _)), 1..) = (self.stuck.frame, self.stuck.excuses) {
            self.stuck.excuses -= 1;
            let data = words::refusal(Sequence::Rss, Refusal::DiskFull);
            let sequence = after(after(number));
            self.due = Some(Frame { sequence, kind: Type::Error, data });
            return;
        }
        self.tries += 1;
        if self.settings.sequence == Sequence::Streaming && self.tries >= RENUMBERED {
            self.renumber(after(self.request.sequence));
        }
        self.due = Some(self.request.clone());
    }

    fn renumber(&mut self, number: u8) {
        self.request.sequence = number;
        self.own = after(number);
    }

    /// the same frame again and again, each time behind a confirmation that our request made it repeat.
    fn note_stuck(&mut self, now: Instant, frame: &Frame) {
        let is_next = self.counter.take().is_some_and(|number| frame.sequence == after(number));
        if !is_next || self.has_company || self.stuck.has_ended {
            return;
        }
        let count = match self.stuck.frame {
            Some((number, count)) if number == frame.sequence => count + 1,
            _ => 1,
        };
        self.stuck.frame = Some((frame.sequence, count));
        if count == STUCK {
            self.stuck.has_ended = true;
            self.stuck.excuses = EXCUSES;
            self.timer.start(now);
        }
    }

    /// Whether a server that goes on counting from an exchange before this one begins its answer here.
    fn is_counted(&mut self, frame: &Frame) -> bool {
        let is_next = self.counter.is_some_and(|number| frame.sequence == after(number));
        let can_begin = match (&self.ask, frame.kind) {
            (Ask::List, Type::Data) => words::is_name(&frame.data),
            (Ask::Download { .. }, Type::Describe | Type::Error) => true,
            _ => false,
        };
        is_next && can_begin && !self.has_company && self.makes_sense(frame)
    }

    /// A server that reads a name by its size finds nothing of the name with our offer: it is asked without.
    pub(super) fn handle_refusal(&mut self, refusal: Refusal) {
        if !self.has_offer || refusal != Refusal::NotFound || self.size.is_some() {
            return self.end(Err(Error::Refused(refusal)));
        }
        let (request, _) = request(self.settings, &self.ask, self.expected, false);
        self.has_offer = false;
        self.due = Some(request.clone()); // behind the confirmation of its ERRO
        self.request = request;
        self.expected = after(self.expected);
        self.phase = Phase::Asking;
        self.timer.stop();
    }
}

/// The request, and whether it has our offer.
pub(super) fn request(settings: Settings, ask: &Ask, number: u8, may_offer: bool) -> (Frame, bool) {
    let frame = |kind, data| Frame { sequence: number, kind, data };
    let Ask::Download { name, offset } = ask else {
        return (frame(Type::List, Vec::new()), false);
    };
    let is_plain = settings.window <= 1 && *offset == 0;
    let offer = Offer { window: settings.window, offset: *offset };
    let data = words::request(name, Some(offer));
    let has_offer =
        may_offer && !is_plain && settings.sequence == Sequence::Rss && data.len() <= DATA_MAX;
    let data = if has_offer { data } else { name.clone() };
    (frame(Type::Download, data), has_offer)
}
