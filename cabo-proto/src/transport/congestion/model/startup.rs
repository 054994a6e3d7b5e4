//! How `model` begins (T-9.4, T-9.7, T-9.8): it doubles each round trip until the path is full, and tells that from a
//! host that pauses, an application with little to say, and a wire that loses packets anyway.

use std::time::{Duration, Instant};

use super::{AckSample, Model, Phase, Round, Streak};

const FULL_ROUNDS: u32 = 3; // without growth
const FULL_TIME: Duration = Duration::from_millis(15); // at least: a host that pauses is no full path
const GROWTH: f64 = 1.25;
const OVERRUN_PACKETS: u64 = 64; // before startup is judged within a round
const OVERRUN_LOSS: f64 = 0.15; // beyond the base

impl Model {
    pub(super) fn end_startup_round(
        &mut self,
        now: Instant,
        round: &Round,
        is_excess: bool,
        weight: Duration,
    ) {
        let best = self.max_rate.get();
        let has_grown = best as f64 >= self.full_rate as f64 * GROWTH;
        let is_judged = !round.app_limited || is_excess || self.queued.rounds > 0;
        if has_grown {
            self.full_rate = best;
            self.full = Streak::default();
            self.quiet.reopen(now);
        } else {
            self.quiet.close(round.start);
        }
        if has_grown || !is_judged {
            return;
        }
        self.full.count(true, weight, best);
        let is_long_enough = !self.is_short() || self.full.time >= FULL_TIME;
        let is_full = self.full.rounds >= FULL_ROUNDS || self.queued.rounds >= 1;
        if is_excess || (is_full && is_long_enough) {
            self.base.doubt(self.mtu); // some of the flood was counted in it
            self.enter(now, Phase::Drain);
        }
    }

    /// On a short path a pause of either host makes the rate look low: the window grows by what arrives instead, as
    /// long as no queue overflows.
    pub(super) fn widen_startup(&mut self, ack: &AckSample) {
        let acked = ack.total_delivered.saturating_sub(self.round.delivered);
        let lost = ack.total_lost.saturating_sub(self.round.lost);
        if !self.base.is_excess(acked, lost, self.mtu) {
            let limit = self.peer_burst.max(self.startup_window);
            self.startup_window = (self.startup_window + ack.acked_bytes).min(limit);
        }
    }

    /// Startup sees more loss and no more growth: does not wait for the round's end, since it sends too much meanwhile.
    pub(super) fn is_overrun(&self, ack: &AckSample) -> bool {
        let acked = ack.total_delivered.saturating_sub(self.round.delivered);
        let lost = ack.total_lost.saturating_sub(self.round.lost);
        let has_grown = self.max_rate.get() as f64 >= self.full_rate as f64 * GROWTH;
        let share = lost as f64 / (acked + lost).max(1) as f64;
        acked + lost > OVERRUN_PACKETS * self.mtu
            && !has_grown
            && share > self.base.share() + OVERRUN_LOSS
    }
}
