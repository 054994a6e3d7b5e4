//! Bytes and values, both ways. `docs/protocol/wire.md` is the specification; each file names its clauses.

pub mod frame;
pub mod packet;
pub mod params;
pub mod record;
pub mod varint;
