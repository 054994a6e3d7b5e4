//! Fuzz targets as plain functions: any bytes in, a panic out where a promise is broken.
//!
//! `cargo test --manifest-path fuzz/Cargo.toml` replays `corpus/<target>/` and mutates it by seed. `CABO_FUZZ_ROUNDS`
//! and
//! `CABO_FUZZ_SEED` make it longer or other; a failure prints both, and the bytes. An input that broke something once
//! is kept as a file of the corpus. A coverage-guided fuzzer needs no more than `fuzz_target!(|data: &[u8]|
//! frames(data))`.

mod connection;
mod dialect;
mod exchange;
mod forge;
mod frames;
mod handshake;
mod layout;
mod message;
mod mutate;
mod packet;
mod params;
mod record;
mod redes;
mod url;

pub use connection::connection;
pub use dialect::dialect;
pub use exchange::exchange;
pub use frames::frames;
pub use handshake::handshake;
pub use layout::layout;
pub use message::message;
pub use mutate::mutate;
pub use packet::packet;
pub use params::params;
pub use record::record;
pub use redes::redes;
pub use url::url;

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// All targets; the name is also that of the folder in `corpus/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("connection", connection),
    ("dialect", dialect),
    ("exchange", exchange),
    ("frames", frames),
    ("handshake", handshake),
    ("layout", layout),
    ("message", message),
    ("packet", packet),
    ("params", params),
    ("record", record),
    ("redes", redes),
    ("url", url),
];
