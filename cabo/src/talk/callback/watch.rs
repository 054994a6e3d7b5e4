//! Looks at the calls on the loop: one that is still there after several looks is stuck.
//!
//! It is a thread of its own, so that nothing can hold it up, and sleeps while nothing is called. Calls leave no time
//! behind for it, only their number.

use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release, SeqCst};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use super::{Callbacks, Slot};

/// Between two looks.
const LOOK_TIME: Duration = Duration::from_millis(10);
/// Seen at so many looks more than the first, a call is stuck: it has been there for twice the time at least.
const LOOKS: u32 = 2;
/// Looks that saw nothing new before it sleeps.
const IDLE_LOOKS: u32 = 100;

/// What it saw in a slot: the number of the call, and at how many looks.
#[derive(Clone, Copy, Default)]
struct Seen {
    turn: u64,
    looks: u32,
}

impl Callbacks {
    /// Begins to look. `rescue` gets going what waits behind a stuck call.
    pub(in crate::talk) fn start_watch(
        self: &Arc<Self>,
        rescue: impl Fn() + Send + 'static,
    ) -> std::io::Result<()> {
        let callbacks = Arc::downgrade(self);
        let named = thread::Builder::new().name("cabo-watch".to_owned());
        let watch = named.spawn(move || watch(&callbacks, &rescue))?;
        let thread = watch.thread();
        self.slots.iter().for_each(|slot| drop(slot.watch.set(thread.clone())));
        let _ = self.watch.set(thread.clone()); // there is one
        Ok(())
    }

    /// One look: whether anything is new, and whether anything has to be rescued.
    fn look(&self, seen: &mut [Seen]) -> (bool, bool) {
        let (mut is_new, mut is_stuck) = (false, false);
        for (slot, seen) in self.slots.iter().zip(seen) {
            let turn = slot.turn.load(SeqCst);
            if turn != seen.turn {
                *seen = Seen { turn, looks: 0 };
                is_new = true;
                if slot.is_stuck.swap(false, AcqRel) {
                    slot.wake_later();
                }
                continue;
            }
            if turn.is_multiple_of(2) {
                continue;
            }
            seen.looks = seen.looks.saturating_add(1);
            if seen.looks >= LOOKS {
                self.distrust(slot.kind.load(Relaxed));
                slot.is_stuck.store(true, Release); // of the next call, where this one has just returned
                slot.wake_later();
            }
            // Once more after the first time: it may have woken somebody meanwhile, on its own dead thread.
            is_stuck |= seen.looks == LOOKS || seen.looks == LOOKS + 1;
            is_new |= seen.looks <= LOOKS;
        }
        (is_new, is_stuck)
    }

    fn distrust(&self, kind: u8) {
        if let Some(trust) = self.trust.get(usize::from(kind)) {
            trust.lose();
        }
    }
}

fn watch(callbacks: &Weak<Callbacks>, rescue: &dyn Fn()) {
    let mut seen = Vec::new();
    let mut idle_looks = 0;
    while let Some(callbacks) = callbacks.upgrade() {
        callbacks.is_watch_asleep.store(false, SeqCst);
        seen.resize(callbacks.slots.len(), Seen::default());
        let (is_new, is_stuck) = callbacks.look(&mut seen);
        if is_stuck {
            rescue();
        }
        idle_looks = if is_new { 0 } else { idle_looks + 1 };
        if idle_looks < IDLE_LOOKS {
            drop(callbacks);
            thread::park_timeout(LOOK_TIME);
            continue;
        }
        callbacks.is_watch_asleep.store(true, SeqCst);
        let is_new = |(slot, seen): (&Arc<Slot>, &Seen)| slot.turn.load(SeqCst) != seen.turn;
        if !callbacks.slots.iter().zip(&seen).any(is_new) {
            drop(callbacks);
            thread::park(); // a call or the end of the server wakes it
        }
    }
}
