//! A network in a box: virtual time and seeded links.
//!
//! [`link`] is one direction of a cable; [`net`] joins two hosts by two of them and lets virtual time run. A seed fixes
//! every byte and every instant.

use std::time::Instant;

use crate::Chance;

pub mod link;
pub mod net;

/// The zero of virtual time. Only differences to it mean anything.
#[allow(
    clippy::disallowed_methods,
    reason = "an Instant cannot be made from nothing; only differences to it are used"
)]
pub fn origin() -> Instant {
    Instant::now()
}

/// Random bytes that follow from a seed.
#[derive(Clone, Debug)]
pub struct Seeded(fastrand::Rng);

impl Seeded {
    /// Starts the sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }
}

impl Chance for Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        self.0.fill(out);
    }
}
