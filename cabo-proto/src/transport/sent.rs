//! What was sent and is not yet settled, in one packet-number space (T-4). `loss.rs` decides what becomes of it.
//!
//! Only ack-eliciting packets are kept, in number order. A lost one leaves a small trace for a while, so that a late
//! acknowledgement is known for what it is: a wrong guess (T-4.3).

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use super::congestion::rate::Snapshot;

const MAX_TRACES: usize = 1 << 14;

/// One packet that asks for acknowledgement, as it left.
#[derive(Clone, Debug)]
pub struct Sent<F> {
    /// When it left.
    pub time: Instant,
    /// Its size on the wire.
    pub bytes: u32,
    /// False for path probes, whose loss says nothing about congestion (T-12.3).
    pub in_flight: bool,
    /// What [`Path::on_sent`](super::path::Path::on_sent) returned for it.
    pub snapshot: Snapshot,
    /// What it carried, to be sent again or settled.
    pub frames: F,
}

/// A packet that was declared lost, kept to recognise a wrong guess.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trace {
    pub(super) sent: Instant,
    pub(super) bytes: u32,
    declared: Instant,
}

/// The packets of one space that are not yet settled, by number.
#[derive(Clone, Debug)]
pub(super) struct SentPackets<F> {
    entries: VecDeque<(u64, Option<Sent<F>>)>, // `None` is settled; the first entry never is
    outstanding: usize,
    traces: BTreeMap<u64, Trace>,
}

impl<F> SentPackets<F> {
    pub(super) fn new() -> Self {
        Self { entries: VecDeque::new(), outstanding: 0, traces: BTreeMap::new() }
    }

    /// Appends; numbers ascend.
    pub(super) fn push(&mut self, number: u64, sent: Sent<F>) {
        self.entries.push_back((number, Some(sent)));
        self.outstanding += 1;
    }

    /// Entries held, settled ones between others included.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many are neither acknowledged nor lost.
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// The outstanding packets, ascending.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, &Sent<F>)> + '_ {
        self.entries.iter().filter_map(|(number, sent)| sent.as_ref().map(|sent| (*number, sent)))
    }

    /// Takes out the outstanding packets in `range`, ascending.
    pub(super) fn take_acked(&mut self, range: &Range<u64>, mut acked: impl FnMut(u64, Sent<F>)) {
        let first = self.entries.partition_point(|(number, _)| *number < range.start);
        for (number, sent) in self.entries.range_mut(first..) {
            if *number >= range.end {
                break;
            }
            if let Some(sent) = sent.take() {
                self.outstanding -= 1;
                acked(*number, sent);
            }
        }
        self.trim_front();
    }

    /// Takes out the traces in `range`, ascending.
    pub(super) fn take_spurious(
        &mut self,
        range: &Range<u64>,
        mut spurious: impl FnMut(u64, Trace),
    ) {
        while let Some((&number, _)) = self.traces.range(range.clone()).next() {
            if let Some(trace) = self.traces.remove(&number) {
                spurious(number, trace);
            }
        }
    }

    /// Calls `judge` for each outstanding packet below `end`, ascending, and takes out those that it calls lost.
    /// `lost` gets them with whether one that was not lost lay between it and the one before.
    pub(super) fn take_lost(
        &mut self,
        now: Instant,
        end: u64,
        mut judge: impl FnMut(u64, &Sent<F>) -> bool,
        mut lost: impl FnMut(u64, Sent<F>, bool),
    ) {
        let mut starts_run = true;
        for (number, entry) in &mut self.entries {
            if *number >= end {
                break;
            }
            let Some(sent) = entry.take_if(|sent| judge(*number, sent)) else {
                starts_run = true;
                continue;
            };
            self.traces
                .insert(*number, Trace { sent: sent.time, declared: now, bytes: sent.bytes });
            self.outstanding -= 1;
            lost(*number, sent, std::mem::take(&mut starts_run));
        }
        self.trim_front();
    }

    /// Forgets traces older than `age`, and the oldest of too many.
    pub(super) fn forget_traces(&mut self, now: Instant, age: Duration) {
        while let Some(oldest) = self.traces.first_entry() {
            let is_old = now.saturating_duration_since(oldest.get().declared) > age;
            if !is_old && self.traces.len() <= MAX_TRACES {
                return;
            }
            self.traces.pop_first();
        }
    }

    /// Forgets all traces.
    pub(super) fn clear_traces(&mut self) {
        self.traces.clear();
    }

    /// Takes out everything, for a space whose keys are gone.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = (u64, Sent<F>)> + '_ {
        self.outstanding = 0;
        self.traces.clear();
        let entries = std::mem::take(&mut self.entries); // with their memory
        entries.into_iter().filter_map(|(number, sent)| sent.map(|sent| (number, sent)))
    }

    fn trim_front(&mut self) {
        while let Some((_, None)) = self.entries.front() {
            self.entries.pop_front();
        }
    }
}
