//! What was sent and is not yet settled, in one packet-number space (T-4). `loss.rs` decides what becomes of it.
//!
//! Only ack-eliciting packets are kept, in number order. A lost one leaves a small trace for a while, so that a late
//! acknowledgement is known for what it is: a wrong guess (T-4.3).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::congestion::rate::Snapshot;

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
    pub(super) declared: Instant,
    pub(super) bytes: u32,
}

#[derive(Clone, Debug)]
enum State<F> {
    Outstanding(Sent<F>),
    Lost(Trace),
    Settled,
}

#[derive(Clone, Debug)]
struct Entry<F> {
    number: u64,
    state: State<F>,
}

/// What an acknowledgement of one number meets.
pub(super) enum Settled<F> {
    Acked(Sent<F>),
    Spurious(Trace),
}

/// The packets of one space that are not yet settled, by number.
#[derive(Clone, Debug)]
pub(super) struct SentPackets<F> {
    entries: VecDeque<Entry<F>>,
    outstanding: usize,
    first_outstanding: usize, // no entry below this index is outstanding
}

impl<F> SentPackets<F> {
    pub(super) fn new() -> Self {
        Self { entries: VecDeque::new(), outstanding: 0, first_outstanding: 0 }
    }

    /// Appends; numbers ascend.
    pub(super) fn push(&mut self, number: u64, sent: Sent<F>) {
        self.entries.push_back(Entry { number, state: State::Outstanding(sent) });
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
        self.entries.range(self.first_outstanding..).filter_map(|entry| match &entry.state {
            State::Outstanding(sent) => Some((entry.number, sent)),
            State::Lost(_) | State::Settled => None,
        })
    }

    /// The index of the first entry whose number is at least `number`.
    pub(super) fn index_of(&self, number: u64) -> usize {
        self.entries.partition_point(|entry| entry.number < number)
    }

    /// The number at an index.
    pub(super) fn number_at(&self, index: usize) -> Option<u64> {
        self.entries.get(index).map(|entry| entry.number)
    }

    /// Settles the entry at `index` by an acknowledgement; `None` if it was settled before.
    pub(super) fn settle(&mut self, index: usize) -> Option<Settled<F>> {
        let entry = self.entries.get_mut(index)?;
        let settled = match std::mem::replace(&mut entry.state, State::Settled) {
            State::Outstanding(sent) => {
                self.outstanding -= 1;
                Some(Settled::Acked(sent))
            }
            State::Lost(trace) => Some(Settled::Spurious(trace)),
            State::Settled => None,
        };
        self.advance();
        settled
    }

    /// Calls `judge` for each outstanding packet below `end`, ascending, and takes out those that it calls lost.
    /// `lost` gets them with whether an acknowledged one lay between it and the one before.
    pub(super) fn take_lost(
        &mut self,
        now: Instant,
        end: u64,
        mut judge: impl FnMut(u64, &Sent<F>) -> bool,
        mut lost: impl FnMut(u64, Sent<F>, bool),
    ) {
        let mut is_broken = true; // a run of losses starts
        for entry in self.entries.range_mut(self.first_outstanding..) {
            if entry.number >= end {
                break;
            }
            let is_lost = match &entry.state {
                State::Outstanding(sent) => judge(entry.number, sent),
                State::Lost(_) => continue,
                State::Settled => false,
            };
            if !is_lost {
                is_broken = true;
                continue;
            }
            let State::Outstanding(sent) = std::mem::replace(&mut entry.state, State::Settled)
            else {
                continue;
            };
            entry.state = State::Lost(Trace { sent: sent.time, declared: now, bytes: sent.bytes });
            self.outstanding -= 1;
            lost(entry.number, sent, std::mem::take(&mut is_broken));
        }
        self.advance();
    }

    /// Drops what is settled from the front, and traces older than `age`, or any trace while more than `max` are held.
    pub(super) fn trim(&mut self, now: Instant, age: Duration, max: usize) {
        while let Some(front) = self.entries.front() {
            let is_done = match &front.state {
                State::Settled => true,
                State::Lost(trace) => {
                    self.entries.len() > max || now.saturating_duration_since(trace.declared) > age
                }
                State::Outstanding(_) => false,
            };
            if !is_done {
                return;
            }
            self.entries.pop_front();
            self.first_outstanding = self.first_outstanding.saturating_sub(1);
        }
    }

    /// Takes out everything, for a space whose keys are gone.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = (u64, Sent<F>)> + '_ {
        self.outstanding = 0;
        self.first_outstanding = 0;
        self.entries.drain(..).filter_map(|entry| match entry.state {
            State::Outstanding(sent) => Some((entry.number, sent)),
            State::Lost(_) | State::Settled => None,
        })
    }

    fn advance(&mut self) {
        while let Some(Entry { state: State::Lost(_) | State::Settled, .. }) =
            self.entries.get(self.first_outstanding)
        {
            self.first_outstanding += 1;
        }
    }
}
