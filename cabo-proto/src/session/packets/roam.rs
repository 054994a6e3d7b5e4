//! Where the peer is by now, whether it is really there, and the move (S-10, T-17).
//!
//! A packet that only the peer can have sealed may come from an address that anybody wrote on it. So the new address is
//! asked whether it gets what we send, with a few small packets and no more than three times what came from there, and
//! everything else goes where it went, until the answer is there.

use std::time::{Duration, Instant};

use super::output::{Batch, Draft};
use super::{FIRST_PACKET_BYTES, PacketConnection};
use crate::Chance;
use crate::session::crypto::Space;
use crate::session::remote::Remote;
use crate::transport::loss::MAX_PTO;
use crate::transport::mtu::Mtu;
use crate::wire::frame::Frame;

/// An attempt lasts as long as three probe timeouts of a path of which nothing is known, at least (RFC 9000 section 8.2.4).
const TRIAL_LEAST: Duration = Duration::from_secs(3);
/// The least time until a challenge is sent again.
const AGAIN_LEAST: Duration = Duration::from_millis(100);
/// Path challenges that wait for their response; more are not answered.
const RESPONSES_MAX: usize = 4;
/// Frame type and data.
const ECHO_BYTES: usize = 9;

/// An address that has to prove that it gets what we send (S-10.3).
struct Trial {
    remote: Remote,
    token: [u8; 8],
    received: u64,
    sent: u64,
    again_after: Duration,
    challenges: u32,
    asked_at: Instant,        // the last time
    next_at: Option<Instant>, // `None` until more bytes have come from there
    until: Instant,
}

impl Trial {
    fn new(now: Instant, remote: Remote, token: [u8; 8], timeout: Duration) -> Self {
        Self {
            remote,
            token,
            received: 0,
            sent: 0,
            again_after: timeout.clamp(AGAIN_LEAST, MAX_PTO),
            challenges: 0,
            asked_at: now,
            next_at: Some(now),
            until: now + (3 * timeout).clamp(TRIAL_LEAST, 3 * MAX_PTO),
        }
    }

    /// Bytes that may still go there (S-10.3).
    fn room(&self) -> usize {
        let room = (3 * self.received).saturating_sub(self.sent);
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    fn on_received(&mut self, now: Instant, bytes: usize) {
        self.received += bytes as u64;
        self.next_at.get_or_insert(now);
    }

    fn on_sent(&mut self, now: Instant, bytes: usize, is_challenge: bool) {
        self.sent += bytes as u64;
        if is_challenge {
            self.challenges += 1;
            self.asked_at = now;
            self.next_at = Some(now + self.again_after);
            self.again_after = (2 * self.again_after).min(MAX_PTO);
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.next_at.is_some_and(|at| at <= now)
    }
}

/// What a connection knows of addresses of its peer other than the one in use.
pub(super) struct Roam {
    newest_from: Remote, // where the packet with the highest number came from
    trial: Option<Trial>,
    quiet_until: Option<Instant>, // no attempt before (S-10.6)
}

impl Roam {
    pub(super) fn new(remote: Remote) -> Self {
        Self { newest_from: remote, trial: None, quiet_until: None }
    }

    /// When there is something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let trial = self.trial.as_ref()?;
        Some(trial.next_at.map_or(trial.until, |next| next.min(trial.until)))
    }
}

impl PacketConnection {
    /// The address that the peer was heard from, and that is asked whether it gets what we send.
    pub fn remote_tried(&self) -> Option<Remote> {
        self.roam.trial.as_ref().map(|trial| trial.remote)
    }

    /// S-10.2: a genuine packet of the data space came from `from`, `is_newest` if none with a higher number came before.
    pub(super) fn on_heard_from(
        &mut self,
        now: Instant,
        from: Remote,
        bytes: usize,
        is_newest: bool,
        chance: &mut dyn Chance,
    ) {
        if self.core.config.is_plain {
            return; // S-10.7
        }
        if is_newest {
            self.roam.newest_from = from;
            if from == self.remote {
                self.on_heard_here(now);
            } else if self.roam.trial.as_ref().is_none_or(|trial| trial.remote != from)
                && self.roam.quiet_until.is_none_or(|until| until <= now)
            {
                self.try_remote(now, from, chance);
            }
        }
        if let Some(trial) = self.roam.trial.as_mut().filter(|trial| trial.remote == from) {
            trial.on_received(now, bytes);
        }
    }

    /// S-10.6: the peer still speaks from where it was. It has not moved, unless what we send there gets lost.
    fn on_heard_here(&mut self, now: Instant) {
        let is_delivering = self.spaces[Space::Data as usize].loss.pto_count() == 0;
        if is_delivering && self.roam.trial.take().is_some() {
            self.stats.moves_failed += 1;
            self.roam.quiet_until = Some(now + self.path.rtt().pto_base().min(MAX_PTO));
        }
    }

    fn try_remote(&mut self, now: Instant, remote: Remote, chance: &mut dyn Chance) {
        let mut token = [0; 8];
        chance.fill(&mut token);
        let trial = Trial::new(now, remote, token, self.path.rtt().pto_base());
        if self.roam.trial.replace(trial).is_some() {
            self.stats.moves_failed += 1;
        }
        // S-10.5: if the peer is still where it was, this makes it say so.
        self.spaces[Space::Data as usize].is_ping_wanted = true;
    }

    /// S-10.4: whoever answers with our data gets what we send there. The peer is there if it was heard there last.
    pub(super) fn on_path_response(&mut self, now: Instant, token: &[u8; 8]) {
        let Some(trial) = self.roam.trial.take_if(|trial| trial.token == *token) else { return };
        if self.roam.newest_from == trial.remote {
            self.move_to(now, &trial);
        } else {
            self.stats.moves_failed += 1;
        }
    }

    /// S-10.8: the peer asks whether we get what it sends, since it hears us from somewhere else than before.
    pub(super) fn on_path_challenge(&mut self, token: [u8; 8], from: Remote) {
        if self.responses.len() < RESPONSES_MAX {
            self.responses.push_back((token, from));
        }
        self.path.on_challenged();
        self.spaces[Space::Data as usize].acks.on_new_path();
    }

    fn move_to(&mut self, now: Instant, trial: &Trial) {
        let is_same_host = trial.remote.host() == self.remote.host();
        self.remote = trial.remote;
        self.roam.quiet_until = None;
        self.stats.moves += 1;
        if is_same_host {
            self.path.on_moved();
        } else {
            self.renew_path(now);
            if trial.challenges == 1 {
                // Not known to be of the first of several challenges, it is no measurement.
                self.path.on_rtt(now.saturating_duration_since(trial.asked_at), Duration::ZERO);
            }
        }
        for space in [Space::Initial, Space::Handshake, Space::Data] {
            self.spaces[space as usize].loss.on_moved();
        }
        self.spaces[Space::Data as usize].acks.on_new_path();
        // What went to the old address may be lost; a probe finds out within a round trip (T-17.4).
        self.probe_with_oldest(Space::Data);
    }

    /// T-17.2: nothing is known of a way to another host.
    fn renew_path(&mut self, now: Instant) {
        self.mtu = Mtu::new(self.limits.largest_packet_bytes, self.limits.overhead_bytes);
        let mut burst = None;
        if let Some(peer) = self.core.peer() {
            self.mtu.on_peer_limit(usize::try_from(peer.largest_packet).unwrap_or(usize::MAX));
            burst = Some(peer.burst);
        }
        let mtu = self.mtu.current() as u64;
        self.path = self.path.replaced(now, self.core.config.congestion, mtu);
        if let Some(burst) = burst {
            self.path.on_peer_burst(burst);
        }
    }

    /// Ends an attempt whose time is over: the peer is taken to be where it was (S-10.4).
    pub(super) fn check_trial(&mut self, now: Instant) {
        if self.roam.trial.take_if(|trial| trial.until <= now).is_some() {
            self.stats.moves_failed += 1;
        }
    }

    /// S-10.3, S-10.8: a packet for another address than the one in use.
    pub(super) fn transmit_elsewhere(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Batch> {
        let owed = self.responses.iter().map(|(_, to)| *to).find(|to| *to != self.remote);
        let due = self.roam.trial.as_ref().filter(|trial| trial.is_due(now));
        let to = owed.or_else(|| due.map(|trial| trial.remote))?;
        let token = due.filter(|trial| trial.remote == to).map(|trial| trial.token);
        let trial = self.roam.trial.as_ref().filter(|trial| trial.remote == to);
        let room = trial.map_or(FIRST_PACKET_BYTES, Trial::room);
        let size = self.mtu.current().min(FIRST_PACKET_BYTES);
        let mut draft = self.begin(Space::Data, out, size.min(room));
        draft.is_elsewhere = true;
        self.write_responses(to, out, &draft);
        let fits = out.len() + ECHO_BYTES <= draft.end;
        if let Some(token) = token.filter(|_| fits) {
            Frame::PathChallenge(token).put(out);
        }
        if out.len() == draft.body {
            // Not a byte of it may go there before more has come from there.
            out.truncate(draft.start);
            self.responses.retain(|(_, asked_from)| *asked_from != to);
            self.roam.trial.iter_mut().for_each(|trial| trial.next_at = None);
            return None;
        }
        draft.is_eliciting = true;
        // Where it may be that large, it proves that the way takes what every way must take.
        let least = if token.is_some() && room >= size { size } else { 0 };
        let built = self.finish(now, out, draft, least, false);
        if let Some(trial) = self.roam.trial.as_mut().filter(|trial| trial.remote == to) {
            trial.on_sent(now, built.len, token.is_some() && fits);
        }
        Some(Batch { to, segment_bytes: built.len, packets: 1 })
    }

    /// S-10.8: answers go to where the question came from.
    pub(super) fn write_responses(&mut self, to: Remote, out: &mut Vec<u8>, draft: &Draft) {
        self.responses.retain(|(token, asked_from)| {
            let is_taken = *asked_from == to && out.len() + ECHO_BYTES <= draft.end;
            if is_taken {
                Frame::PathResponse(*token).put(out);
            }
            !is_taken
        });
    }
}
