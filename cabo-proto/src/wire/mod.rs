//! Bytes and values, both ways. `docs/protocol/wire.md` is the specification; each file names its clauses.
//!
//! Contract: no input makes a reader of this room panic, loop without progress, or allocate more than a small multiple
//! of the bytes it was given. What does not parse is a [`varint::Malformed`] that says what and where. Writers hold for
//! every value; where one has no form on the wire (a varint beyond 2^62, a packet beyond 64 KiB), that is the caller's
//! mistake: it stops a debug build, and in release the nearest value that has a form is written.
//!
//! The room imports no other.

pub mod code;
pub mod discovery;
pub mod frame;
pub mod message;
pub mod packet;
pub mod params;
pub mod print;
pub mod record;
pub mod varint;
#[cfg(test)]
mod vectors;

/// What all random tests here run under. They repeat; an input that fails anywhere becomes a vector.
#[cfg(test)]
fn seeded() -> proptest::test_runner::Config {
    use proptest::test_runner::{Config, RngSeed};
    Config {
        rng_seed: RngSeed::Fixed(0xCAB0),
        failure_persistence: None,
        cases: 512,
        ..Config::default()
    }
}
