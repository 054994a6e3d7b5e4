//! The parts of one reliable connection over a carrier that promises nothing.
//!
//! Rules: `docs/protocol/transport.md`, clauses T-1 to T-15. Every part is a small state machine that is told what
//! happened and when, and answers what to do; none knows a frame, a socket or another connection. What belongs to one
//! packet-number space ([`ack::AckTracker`], [`loss::Loss`]) exists once a space; the rest once a connection.
//!
//! The order of calls when packets leave and acknowledgements arrive:
//!
//! 1. before a packet: [`loss::Loss::has_room`] and [`path::Path::permit`];
//! 2. after it: [`path::Path::on_sent`], whose snapshot goes with the frames into [`loss::Loss::on_sent`];
//! 3. at an acknowledgement: [`loss::Loss::on_ack`], [`path::Path::on_rtt`], [`loss::Loss::detect`], and at last
//!    [`path::Path::on_acked`] with both outcomes;
//! 4. at [`loss::Loss::loss_deadline`]: `detect` and [`path::Path::on_lost`];
//!    at [`loss::Loss::pto_deadline`]: [`loss::Loss::on_pto`], then a probe past the window.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests need some instant to count from")
)]

pub mod ack;
#[cfg(test)]
mod closed_loop;
pub mod congestion;
pub mod flow;
pub mod idle;
pub mod loss;
pub mod mtu;
pub mod pace;
pub mod path;
pub mod ranges;
pub mod rtt;
pub mod sent;
pub mod streams;
