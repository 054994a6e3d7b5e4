//! Who is there, in secret or plain, on which streams. `docs/protocol/session.md` is the specification.
//!
//! [`packets`] is a connection over a carrier that promises nothing, [`records`] one over a carrier that promises
//! delivery and order; [`endpoint`] finds the connection to which a packet belongs and guards the door.

pub mod config;
pub mod core;
pub mod crypto;
pub mod endpoint;
pub mod packets;
mod phase;
pub mod plain;
pub mod records;
pub mod remote;
pub mod standin;
