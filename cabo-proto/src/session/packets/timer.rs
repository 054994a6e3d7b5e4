//! What time alone brings: acknowledgements that are due, losses, probes, silence, the end (T-2, T-4, T-5, T-14).

use std::time::Instant;

use super::{PacketConnection, State};
use crate::session::config::Ended;
use crate::session::core::{Event, Part};
use crate::session::crypto::{Side, Space};

const SPACES: [Space; 3] = [Space::Initial, Space::Handshake, Space::Data];
/// Packets of a probe: two, so that one loss more does not cost another timeout (T-5.3).
const PROBES: u8 = 2;

/// A probe with nothing but PING or an acknowledgement would hide the data behind it.
fn is_sent_again(part: &Part) -> bool {
    !matches!(part, Part::Ack { .. } | Part::Datagram)
}

impl PacketConnection {
    /// When [`handle_timeout`](Self::handle_timeout) must be called, if nothing else happens before.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Gone => return None,
            State::Closing { until, .. } | State::Draining { until } => return Some(until),
            State::Open => {}
        }
        let idle = self.idle.deadline(self.path.rtt().pto_base());
        let mut earliest = self.handshake_deadline().map_or(idle, |deadline| deadline.min(idle));
        let mut consider = |deadline: Option<Instant>| {
            if let Some(deadline) = deadline {
                earliest = earliest.min(deadline);
            }
        };
        consider(self.paced_until);
        consider(self.roam.deadline());
        consider(self.probe_deadline());
        let is_blocked = self.is_amplification_blocked();
        for space in SPACES {
            let held = &self.spaces[space as usize];
            consider(held.loss.loss_deadline());
            // What cannot be said now is no reason to wake up.
            consider(held.acks.deadline().filter(|_| self.can_seal(space) && !is_blocked));
        }
        if self.core.is_handshaken() {
            let is_ping_waiting = self.spaces[Space::Data as usize].is_ping_wanted;
            consider(self.idle.keep_alive_deadline().filter(|_| !is_ping_waiting));
            consider(self.question_deadline().filter(|_| !is_ping_waiting));
        }
        if self.core.is_admitted() {
            consider(self.mtu.deadline());
        }
        Some(earliest)
    }

    /// T-14.3: what is outstanding asks by itself.
    fn question_deadline(&self) -> Option<Instant> {
        let is_silent = self.spaces[Space::Data as usize].loss.outstanding() == 0;
        let is_waiting = self.core.is_admitted() && self.core.streams.any_open();
        let pto = self.path.rtt().pto_base();
        if is_silent && is_waiting { self.idle.question_deadline(pto) } else { None }
    }

    fn handshake_deadline(&self) -> Option<Instant> {
        (!self.core.is_proved()).then(|| self.started + self.core.config.handshake_timeout)
    }

    /// The earliest probe timeout of the spaces that may have one.
    fn probe_deadline(&self) -> Option<Instant> {
        if self.is_amplification_blocked() {
            return None; // armed again by what comes in (RFC 9002 section 6.2.2.1)
        }
        let of_spaces = SPACES
            .into_iter()
            .filter(|space| *space != Space::Data || self.core.is_handshaken())
            .filter_map(|space| {
                let delay = self.peer_ack_delay(space);
                self.spaces[space as usize].loss.pto_deadline(self.path.rtt(), delay)
            })
            .min();
        of_spaces.or_else(|| self.anti_deadlock_deadline())
    }

    /// S-3.5: a server that may not send more waits for us, although nothing of ours is outstanding.
    fn anti_deadlock_deadline(&self) -> Option<Instant> {
        let is_waiting = self.core.side == Side::Client && !self.core.is_handshaken();
        let count = self.spaces[Space::Initial as usize].loss.pto_count().min(6);
        is_waiting.then(|| self.idle.last_heard() + self.path.rtt().pto_base() * (1 << count))
    }

    /// Does what is due at `now`; ask the outputs afterwards.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::Gone => return,
            State::Closing { until, .. } | State::Draining { until } => {
                if until <= now {
                    self.state = State::Gone;
                }
                return;
            }
            State::Open => {}
        }
        self.paced_until = self.paced_until.filter(|until| *until > now);
        self.check_trial(now);
        if self.idle.deadline(self.path.rtt().pto_base()) <= now {
            return self.give_up(Ended::Idle { after: self.idle.timeout() });
        }
        if self.handshake_deadline().is_some_and(|deadline| deadline <= now) {
            return self
                .give_up(Ended::HandshakeTimeout { after: self.core.config.handshake_timeout });
        }
        for space in SPACES {
            if self.spaces[space as usize]
                .loss
                .loss_deadline()
                .is_some_and(|deadline| deadline <= now)
            {
                let delay = self.peer_ack_delay(space);
                let lost = self.spaces[space as usize].loss.detect(now, self.path.rtt(), delay);
                self.path.on_lost(now, &lost);
                self.settle_lost(now, space, lost);
            }
        }
        if self.probe_deadline().is_some_and(|deadline| deadline <= now) {
            self.probe(now);
        }
        if self.core.is_handshaken()
            && self.idle.keep_alive_deadline().is_some_and(|deadline| deadline <= now)
        {
            self.spaces[Space::Data as usize].is_ping_wanted = true;
        }
        if self.question_deadline().is_some_and(|deadline| deadline <= now) {
            self.idle.on_question(now);
            self.spaces[Space::Data as usize].is_ping_wanted = true;
        }
        self.settle_end(now);
    }

    /// Nobody is there to be told.
    fn give_up(&mut self, ended: Ended) {
        self.state = State::Gone;
        self.core.push_event(Event::Ended(ended));
    }

    /// T-5.3: sends the oldest outstanding bytes again, past the window, in every space that waits.
    fn probe(&mut self, now: Instant) {
        self.stats.probe_timeouts += 1;
        let mut is_any = false;
        for space in SPACES {
            let index = space as usize;
            // A lost proof may wait for a window that is full of data, which only the proof lets the peer acknowledge.
            let is_proof_waiting =
                space != Space::Data && self.can_seal(space) && self.core.has_crypto(space);
            let is_outstanding = self.spaces[index].loss.outstanding() > 0;
            if !(is_outstanding || is_proof_waiting)
                || (space == Space::Data && !self.core.is_handshaken())
            {
                continue;
            }
            is_any = true;
            self.spaces[index].loss.on_pto();
            self.probe_with_oldest(space);
        }
        if !is_any {
            let space = if self.spaces[Space::Handshake as usize].keys.is_some() {
                Space::Handshake
            } else {
                Space::Initial
            };
            self.spaces[Space::Initial as usize].loss.on_pto();
            self.spaces[space as usize].probes = 1;
            self.spaces[space as usize].is_ping_wanted = true;
        }
        let count = self.spaces.iter().map(|space| space.loss.pto_count()).max().unwrap_or(0);
        // Before anything has passed, one silence is sign enough (T-12.6).
        let count = count + u32::from(!self.core.is_handshaken());
        if let Some(size) = self.mtu.on_pto(now, count) {
            self.path.on_mtu(size as u64);
        }
    }

    /// Sends what is outstanding for longest again, past the window.
    pub(super) fn probe_with_oldest(&mut self, space: Space) {
        let held = &mut self.spaces[space as usize];
        held.probes = PROBES;
        held.is_ping_wanted = true;
        let again: Vec<_> = held
            .loss
            .probes()
            .filter(|(_, sent)| sent.frames.iter().any(is_sent_again))
            .take(usize::from(PROBES))
            .map(|(_, sent)| sent.frames.clone())
            .collect();
        for parts in &again {
            parts.iter().for_each(|part| self.core.on_lost(part));
        }
    }
}
