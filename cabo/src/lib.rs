//! Messages and streams over any wire: raw Ethernet, UDP, TCP and Unix sockets, with one server, one client and one
//! protocol.

pub mod access;
pub mod address;
pub mod carrier;
pub mod client;
pub mod config;
pub mod connection;
pub mod crypto;
pub mod endpoint;
pub mod error;
pub mod keys;
pub mod lab;
pub mod relay;
pub mod server;
pub mod service;
pub mod stream;
