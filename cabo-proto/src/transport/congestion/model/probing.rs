//! When `model` looks for more and what it makes of the answer, alone on a path or not (T-9.4, T-9.5, T-9.9).

use std::time::Instant;

use super::{CAREFUL_UP_GAIN, Model, Phase, Round, SLOWER_TIME, UP_GAIN};

const CYCLE_ROUNDS: u32 = 8;
const CAREFUL_CYCLE_ROUNDS: u32 = 16;
const EXCESS_ROUNDS: u32 = 2; // in a row; losses come in bursts
const SHARED_CYCLE_ROUNDS: u32 = 4;
const SHARED_CYCLES: u32 = 4; // after the last sign of somebody else
const YIELD: f64 = 0.85; // what is left of the rate on a crowded path
const PROBE_YIELD: f64 = 0.9; // and after a probe that crowded it
const GROWN_SHARE: f64 = 0.4; // of what a probe added: enough arrived to try again at once

impl Model {
    pub(super) fn end_cruise_round(&mut self, now: Instant, round: &Round, is_crowded: bool) {
        let limit = match (self.is_shared(), self.is_careful) {
            (true, _) => SHARED_CYCLE_ROUNDS,
            (false, true) => CAREFUL_CYCLE_ROUNDS,
            (false, false) => CYCLE_ROUNDS,
        };
        let is_judged = self.phase_rounds > 1 && !round.app_limited;
        if is_judged && self.slower.time >= SLOWER_TIME {
            self.shared_cycles = SHARED_CYCLES;
            self.start_probe_rtt(now, Some(self.slower.best));
        } else if is_judged && is_crowded {
            // Not our doing, since our probe is long over. All who see it give way by the same share, so that the
            // largest flow gives most.
            self.shared_cycles = SHARED_CYCLES;
            let is_row = self.excess.rounds >= EXCESS_ROUNDS && self.excess.time >= SLOWER_TIME;
            let rate = if is_row { self.excess.best } else { self.max_rate.get() };
            self.max_rate.reset((rate as f64 * YIELD) as u64);
            self.base.doubt(self.mtu);
            self.enter(now, Phase::Down);
        } else if self.cycle_rounds >= limit {
            self.shared_cycles = self.shared_cycles.saturating_sub(1);
            self.enter(now, Phase::Up);
        }
    }

    /// Others seem to use the path too (T-9.9).
    fn is_shared(&self) -> bool {
        self.shared_cycles > 0
    }

    /// The packets of the last probe are acknowledged or lost: was there more to have?
    pub(super) fn judge_probe(&mut self, now: Instant) {
        let gain = if self.is_careful { CAREFUL_UP_GAIN } else { UP_GAIN };
        if self.phase == Phase::Up {
            self.enter(now, Phase::Down);
        }
        let Some(before) = self.rate_before_up.take() else { return };
        let grown = before as f64 * (1.0 + (gain - 1.0) * GROWN_SHARE);
        let grew = self.max_rate.get() as f64 > grown;
        let is_excess = self.base.is_excess(self.up.acked, self.up.lost, self.mtu);
        // Who has little of a full path is answered, although all lose something; who has most of it only loses.
        if is_excess && !(grew && self.is_shared()) {
            if self.is_shared() {
                self.max_rate.reset((before as f64 * PROBE_YIELD) as u64);
            } else {
                self.is_careful = true;
            }
            self.grown_probes = 0;
            return;
        }
        self.is_careful &= !grew;
        self.grown_probes = if grew && !is_excess { self.grown_probes + 1 } else { 0 };
        if grew {
            self.enter(now, Phase::Up);
        }
    }
}
