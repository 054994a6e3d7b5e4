//! The cable between two interfaces: frames in at one side, through a link, out at the other.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};

use super::duplex::Duplex;
use super::frames::{BATCH, Frames};
use super::{RelayError, TICK};

/// The two ends: what is read on end `d` goes out on end `1 - d`, in direction `d`.
pub(super) struct Ether {
    ends: [Frames; 2],
    leaving: [Vec<Vec<u8>>; 2], // by direction: due, and not yet taken by the far end
}

impl Ether {
    pub(super) fn open(a: &str, b: &str) -> Result<Self, RelayError> {
        if a == b {
            return Err(RelayError::SameInterface(a.to_owned()));
        }
        Ok(Self { ends: [Frames::open(a)?, Frames::open(b)?], leaving: [const { Vec::new() }; 2] })
    }

    pub(super) fn run(
        mut self,
        mut cable: Duplex<Vec<u8>>,
        stop: &AtomicBool,
    ) -> Result<(), RelayError> {
        let mut now = Instant::now();
        let mut counted = now;
        while cable.tick(now, stop) {
            if now.saturating_duration_since(counted) >= TICK {
                counted = now;
                for (missed, end) in cable.stats.missed.iter_mut().zip(&self.ends) {
                    *missed += end.missed();
                }
            }
            self.wait(&cable)?;
            now = Instant::now();
            cable.follow_down();
            for direction in [0, 1] {
                let end = &mut self.ends[direction];
                if end.is_up() {
                    end.receive(now, |frame| {
                        let _ = cable.send(direction, now, frame); // the link counts it
                    });
                } else if end.revive(now) {
                    cable.stats.returns += 1;
                    tracing::info!(interface = end.name(), "interface is back");
                }
            }
            now = Instant::now();
            for direction in [0, 1] {
                self.deliver(&mut cable, direction, now);
            }
        }
        Ok(())
    }

    fn deliver(&mut self, cable: &mut Duplex<Vec<u8>>, direction: usize, now: Instant) {
        let (leaving, far) = (&mut self.leaving[direction], &mut self.ends[1 - direction]);
        while leaving.len() < BATCH {
            let Some(frame) = cable.poll(direction, now) else { break };
            leaving.push(frame);
        }
        if leaving.is_empty() {
            return;
        }
        let (done, unsent) = if far.is_up() {
            far.send(now, leaving)
        } else {
            (leaving.len(), leaving.len() as u64)
        };
        leaving.drain(..done);
        cable.stats.unsent[direction] += unsent;
    }

    fn wait(&self, cable: &Duplex<Vec<u8>>) -> Result<(), RelayError> {
        let mut fds = Vec::with_capacity(2);
        for (end, backlog) in self.ends.iter().zip(self.leaving.iter().rev()) {
            if end.is_up() {
                let flags =
                    if backlog.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
                fds.push(PollFd::new(end, flags));
            }
        }
        // While the far end has no room, what is due cannot leave: waking for it would spin.
        let deadline = |direction: usize| {
            self.leaving[direction].is_empty().then(|| cable.next_deadline(direction)).flatten()
        };
        cable
            .wait(&mut fds, [deadline(0), deadline(1)])
            .map_err(RelayError::system("waiting for frames"))
    }
}
