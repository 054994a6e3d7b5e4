//! The program as a user meets it: every test starts `cabo` itself, in a world of its own.
//!
//! `world.rs` makes that world: a configuration directory, folders, servers on ports that the system chose.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod access;
mod ask;
mod clients;
mod compat;
mod converse;
mod dialect;
mod disk;
mod errors;
mod ether;
mod explain;
mod folders;
mod get;
mod groups;
mod habits;
mod help;
mod in_process;
mod limits;
mod list;
mod manager;
mod metrics;
mod moments;
mod names;
#[path = "../../../tests/needs.rs"]
mod needs;
mod patience;
mod quiet;
mod reading;
mod redes;
mod resume;
mod screen;
mod starved;
mod strangers;
mod streams;
mod talk;
mod tls;
mod world;
