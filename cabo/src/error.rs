//! What can go wrong between an endpoint URL and a session, in words that say what, where, why and what next.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use cabo_proto::session::config::Ended;

use crate::address::AddressError;
use crate::carrier::OpenError;
use crate::crypto::SetupError;

/// Whatever went wrong, for `main` to return: what is printed is its words and those of its causes, not its fields.
///
/// ```no_run
/// use cabo::talk::Server;
///
/// fn main() -> Result<(), cabo::Report> {
///     Server::bind(["tcp://:5005"])?.run()?;
///     Ok(()) // else: Error: tcp://[::]:5005 is in use ..., and exit code 1
/// }
/// ```
pub struct Report(Box<dyn Error>);

impl<E: Error + 'static> From<E> for Report {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let words = error.to_string();
            if !said.contains(&words) {
                write!(f, ": {words}")?;
                said = words;
            }
            cause = error.source();
        }
        Ok(())
    }
}

/// A host that has no address.
#[derive(Debug, thiserror::Error)]
#[error("cannot find the host {host}: {source}")]
pub struct ResolveError {
    /// As it was written.
    pub host: String,
    /// What the resolver said.
    pub source: std::io::Error,
}

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL cannot be connected to.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The socket could not be opened or connected.
    #[error(transparent)]
    Carrier(#[from] OpenError),
    /// The host has no address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// Cryptography could not be set up.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The connection ended before it was one.
    #[error("{place}: {ended}")]
    Ended {
        /// Where it led.
        place: String,
        /// How it ended.
        ended: Arc<Ended>,
    },
    /// Nobody listens at the port of a host.
    #[error("nobody listens at {place}: the host answered that the port is closed")]
    NobodyListens {
        /// Where it led.
        place: String,
    },
    /// The scheme has no cabo/1.
    #[error("{place}: cabo/1 does not run over {scheme}")]
    NoSession {
        /// As it was written.
        place: String,
        /// The scheme.
        scheme: &'static str,
    },
    /// Nobody can answer on the link.
    #[error("eth://{interface}: the interface is down; run: sudo ip link set {interface} up")]
    LinkDown {
        /// Its name.
        interface: String,
    },
    /// Nobody answered on the link.
    #[error(
        "{place}: nobody serves on this link (asked for {within:?}); start \
         `cabo serve FOLDER` there, or `cabo listen` for messages"
    )]
    NobodyThere {
        /// As it was written.
        place: String,
        /// How long was waited.
        within: std::time::Duration,
    },
}

/// Why an endpoint could not listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The URL cannot be listened on.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The socket could not be opened.
    #[error(transparent)]
    Carrier(#[from] OpenError),
    /// The host has no address here.
    #[error("cannot find the address {host} to listen on: {source}")]
    Resolve {
        /// As it was written.
        host: String,
        /// What the resolver said.
        source: std::io::Error,
    },
    /// Cryptography could not be set up.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The scheme has no cabo/1.
    #[error("{place}: cabo/1 does not listen on {scheme}")]
    NoSession {
        /// As it was written.
        place: String,
        /// The scheme.
        scheme: &'static str,
    },
}
