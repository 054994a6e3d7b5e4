//! Who is at `listen`, and what its operator types for them.
//!
//! Neighbours: `cmd::listen` says who comes, speaks and leaves; `line` reads what is typed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cabo::proto::dialect::Dialect;
use cabo::proto::dialect::cut::Cut;
use cabo::talk::{Peer, Stats};

use super::line::{Line, line_max, next_line, too_long};
use super::{typed, words};
use crate::exit::Failure;
use crate::show::ask::Keyboard;
use crate::show::human::escaped;
use crate::show::stderr;

/// Who is there. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Room {
    present: Arc<Mutex<Present>>,
}

#[derive(Default)]
struct Present {
    peers: BTreeMap<u64, Peer>,
    /// Who spoke last, and may have left.
    last: Option<u64>,
}

impl Room {
    pub(crate) fn enter(&self, peer: &Peer) {
        self.lock().peers.insert(peer.number(), peer.clone());
    }

    pub(crate) fn hear(&self, peer: &Peer) {
        self.lock().last = Some(peer.number());
    }

    pub(crate) fn leave(&self, peer: &Peer) {
        self.lock().peers.remove(&peer.number());
    }

    /// Sends what is typed, and answers no question: to whoever spoke last, to `@2`, to `@*`; `@?`
    /// shows who is here, in numbers. The end of stdin ends nothing.
    pub(crate) fn operate(
        &self,
        dialect: &Dialect,
        keyboard: &Keyboard,
        numbers: &dyn Fn(&Stats) -> String,
    ) {
        if is_in_background() {
            return;
        }
        let mut stdin = std::io::stdin().lock();
        loop {
            let line = match next_line(&mut stdin, line_max(dialect)) {
                Ok(Line::Whole(line)) => Ok(line),
                Ok(Line::TooLong(max)) => Err(too_long(max)),
                Ok(Line::End) | Err(_) => break,
            };
            let said = match line.map(|line| keyboard.answer(line)) {
                Ok(Some(line)) if line == b"@?" => {
                    self.show(numbers);
                    Ok(())
                }
                Ok(Some(line)) if !line.is_empty() => self.say(dialect, &line),
                Ok(_) => Ok(()),
                Err(failure) => Err(failure),
            };
            if let Err(failure) = said {
                stderr::say(&escaped(&failure.text));
            }
        }
        keyboard.end();
    }

    fn show(&self, numbers: &dyn Fn(&Stats) -> String) {
        let peers = self.peers(&To::All).unwrap_or_default();
        if peers.is_empty() {
            stderr::say("nobody is here");
        }
        for peer in peers {
            let who = peer.fingerprint().map(|print| format!(" {print}")).unwrap_or_default();
            let numbers = numbers(&peer.stats());
            stderr::say(&format!("@{} {}{who}: {numbers}", peer.number(), peer.from()));
        }
    }

    fn say(&self, dialect: &Dialect, line: &[u8]) -> Result<(), Failure> {
        let (to, text) = To::of(line)?;
        for peer in self.peers(&to)? {
            let words = match (&dialect.cut, dialect.kinds.is_empty()) {
                // As it was typed, for nothing else ends it.
                (Cut::Raw, true) if !peer.is_cabo() => vec![[text, b"\n"].concat()],
                (_, true) => vec![text.to_vec()],
                (_, false) => words(text)?,
            };
            let typed = typed(dialect, &words)?;
            if let Err(error) = peer.send_fields(typed.kind.as_deref(), &typed.fields) {
                return Err(Failure::usage(format!("@{}: {error}", peer.number())));
            }
        }
        Ok(())
    }

    /// Those who are meant, and are here.
    fn peers(&self, to: &To) -> Result<Vec<Peer>, Failure> {
        let present = self.lock();
        let one = |number| present.peers.get(number).cloned().into_iter().collect();
        let (found, why): (Vec<Peer>, String) = match (to, &present.last) {
            (To::All, _) => {
                (present.peers.values().cloned().collect(), "nobody is here".to_owned())
            }
            (To::One(number), _) => (one(number), format!("there is no client @{number}")),
            (To::Last, Some(last)) => {
                (one(last), format!("@{last}, who spoke last, has left; @2 text goes to client 2"))
            }
            (To::Last, None) => {
                (Vec::new(), "nobody has spoken yet; @2 text goes to client 2".to_owned())
            }
        };
        if found.is_empty() { Err(Failure::usage(why)) } else { Ok(found) }
    }

    fn lock(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom what is typed goes to.
enum To {
    Last,
    All,
    One(u64),
}

impl To {
    /// Takes it off a line.
    fn of(line: &[u8]) -> Result<(Self, &[u8]), Failure> {
        let Some(rest) = line.strip_prefix(b"@") else { return Ok((Self::Last, line)) };
        let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
        let (to, text) = rest.split_at(end);
        let text = text.get(1..).unwrap_or_default();
        if to == b"*" {
            return Ok((Self::All, text));
        }
        let number = std::str::from_utf8(to).ok().and_then(|to| to.parse().ok());
        let nobody = || Failure::usage("@ and no number: @2 text goes to client 2, @* text to all");
        Ok((Self::One(number.ok_or_else(nobody)?), text))
    }
}

/// Whoever reads a terminal from the background is stopped by it.
pub(crate) fn is_in_background() -> bool {
    let foreground = rustix::termios::tcgetpgrp(std::io::stdin());
    foreground.is_ok_and(|group| group != rustix::process::getpgrp())
}
