//! The cabo/1 protocol as pure state machines: bytes in, bytes out.
//!
//! Nothing here opens a socket, reads a clock, draws a random number or spawns a task: time, chance and crypto are
//! arguments. The rooms, bottom up:
//!
//! - [`wire`]: bytes and values, both ways;
//! - [`transport`]: the parts of one reliable connection over a carrier that promises nothing;
//! - [`session`]: who is there, in secret or plain, on which streams;
//! - [`dialect`]: foreign protocols, described;
//! - [`redes`]: the course protocol on raw Ethernet;
//! - [`retry`]: when to try again, and what waits meanwhile;
//! - [`sim`]: a network in a box to try all of it, by seed.

pub mod dialect;
pub mod redes;
pub mod retry;
pub mod session;
pub mod sim;
pub mod transport;
pub mod wire;

/// A source of unpredictable bytes, passed in by the caller: the system's in production, a seed's in the simulator.
pub trait Chance: Send {
    /// Fills `out` with random bytes.
    fn fill(&mut self, out: &mut [u8]);
}
