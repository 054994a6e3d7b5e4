//! The course protocol on raw Ethernet: frames, and both sides of its exchanges as state machines.
//!
//! Rules: `docs/redes.md` R-1 to R-7. Imports no sibling room; time comes in as an argument, frames go in and out as
//! bytes. The owner of a machine hands it what arrives, asks it what to send, for how long to wait and what it wants,
//! until all of that is nothing:
//!
//! ```text
//!   frames in --> handle_frame   --> poll_transmit --> frames out
//!   deadline  --> handle_timeout --> poll_timeout  --> the next deadline
//!   files     --> supply ..      <-- poll_want, poll_event
//! ```
//!
//! - [`frame`]: bytes of a frame in the four layouts, CRC, the cut before a VLAN tag
//! - `words`: what the three sequences say with them
//! - `timer`, `sender`, `confirm`: patience, a window of numbered frames, and when such a window is confirmed
//! - [`server`], [`client`]: the two sides

use std::time::Duration;

pub mod client;
mod confirm;
pub mod frame;
mod sender;
pub mod server;
mod timer;
mod words;

#[cfg(test)]
mod programs;
#[cfg(test)]
mod tests;

pub use words::Description;

/// Frames on their way at most: half of the numbers, so that old and new ones are told apart.
pub const WINDOW_MAX: u8 = 15;
/// Frames on their way where nothing else is said (R-5.2, R-6.1).
pub const WINDOW: u8 = 5;
/// How often something is sent that is not answered (R-3.1).
pub const TRIES: u32 = 10;
/// The first wait for an answer, before anything was measured (R-3.1).
const FIRST_WAIT: Duration = Duration::from_millis(40);

/// Who counts what, and how answers are written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Sequence {
    /// One counter for both sides (R-4).
    #[default]
    Rss,
    /// A counter for each side, numbers and times as decimal text (R-5).
    Streaming,
    /// A counter for each answer, files without size and time (R-7).
    Wired,
}

/// How two sides talk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Settings {
    /// How frames look.
    pub form: frame::Form,
    /// Who counts what.
    pub sequence: Sequence,
    /// Frames of data on their way, 1 to [`WINDOW_MAX`].
    pub window: u8,
    /// Whether data ends before it looks like a VLAN tag (R-2.3).
    pub is_cut: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            form: frame::Form::of(frame::Layout::default()),
            sequence: Sequence::default(),
            window: WINDOW,
            is_cut: true,
        }
    }
}

/// Why there is no answer (R-1.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// The file may not be read, or changes.
    Denied,
    /// There is no such file.
    NotFound,
    /// The client has no room for it.
    DiskFull,
    /// A code that there is not.
    Unknown(u32),
}

impl Refusal {
    /// What a code means.
    pub fn of(code: u32) -> Self {
        match code {
            1 => Self::Denied,
            2 => Self::NotFound,
            3 => Self::DiskFull,
            code => Self::Unknown(code),
        }
    }

    /// Its code.
    pub fn code(self) -> u32 {
        match self {
            Self::Denied => 1,
            Self::NotFound => 2,
            Self::DiskFull => 3,
            Self::Unknown(code) => code,
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Denied => f.write_str("access denied"),
            Self::NotFound => f.write_str("not found"),
            Self::DiskFull => f.write_str("disk full"),
            Self::Unknown(code) => write!(f, "error {code}"),
        }
    }
}

/// How far `number` is ahead of `from`, on the ring of numbers.
fn ahead(number: u8, from: u8) -> u8 {
    number.wrapping_sub(from) % frame::SEQUENCES
}

/// The number after this one.
fn after(number: u8) -> u8 {
    (number + 1) % frame::SEQUENCES
}
