//! Messages and streams over any wire: raw Ethernet, UDP, TCP, TLS and Unix sockets, with one server, one client and one
//! protocol.
//!
//! ```no_run
//! use cabo::{address::Address, endpoint::{Endpoint, Settings}, keys::Identity};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let endpoint = Endpoint::new(&Identity::generate()?, Settings::default())?;
//! let address: Address = "udp://192.0.2.1:5555".parse()?; // or eth:// tcp:// unix://
//! let connection = endpoint.connect(&address, None).await?;
//! let (mut send, mut recv) = connection.open().await?;
//! send.write_all(b"\x06echo/1hello").await?; // a stream begins with the service that it is for
//! send.shutdown().await?;
//! let mut answer = String::new();
//! recv.read_to_string(&mut answer).await?;
//! # Ok(()) }
//! ```
//!
//! [`endpoint`] is where to begin; [`server`] and [`client`] add who may enter and who is known; [`service`] holds
//! what is spoken inside a session. `ARCHITECTURE.md` is the map.

pub use cabo_proto as proto;

pub use error::Report;

pub mod access;
pub mod address;
pub mod carrier;
pub mod client;
pub mod config;
pub mod connection;
pub mod crypto;
pub mod discovery;
pub mod endpoint;
pub mod error;
mod gate;
pub mod keys;
pub mod lab;
pub mod local_time;
pub mod redes;
pub mod relay;
pub mod request;
pub mod server;
pub mod service;
pub mod stream;
pub mod talk;

#[cfg(test)]
#[path = "../../tests/needs.rs"]
mod needs;
