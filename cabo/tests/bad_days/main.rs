//! Bad days of the talking library: callbacks that block or panic, machines that run out of something, peers that vanish.
#![allow(clippy::unwrap_used, reason = "a test stops where it is surprised")]

mod callbacks;
mod limits;
mod running;
mod scanned;
mod unfinished;
mod vanished;
