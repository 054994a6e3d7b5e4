//! The course protocol on raw Ethernet: frames, and both sides of its exchanges as state machines.
//!
//! Rules: `docs/redes.md`. Imports no sibling room; time comes in as an argument, frames go in and out as
//! bytes.

pub mod frame;
