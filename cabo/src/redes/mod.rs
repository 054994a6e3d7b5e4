//! The course protocol as a service: a catalogue served, listed and fetched on raw Ethernet (`docs/redes.md`).
//!
//! The machines are pure and stand in `cabo_proto::redes`; here they get a socket ([`crate::carrier::redes`]), a clock and
//! files. One thread drives one machine: a call waits until it is done or told to stop.
//!
//! Parts: `options` (what an address says), `drive` (frames and time), [`serve`], [`fetch`]; `local_time` is beside the room.

mod drive;
pub mod fetch;
mod options;
pub mod serve;

pub use cabo_proto::redes::client::Error as ClientError;
pub use cabo_proto::redes::server::{Drops, Outcome};
pub use cabo_proto::redes::{Refusal, Sequence, Settings};
pub use options::{OptionError, Options};
