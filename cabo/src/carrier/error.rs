//! What can go wrong at a carrier: opening it, and sending on it.
//!
//! Each open error is one line that says what, which, and what to do. Neighbours: every carrier's `open` returns
//! [`OpenError`]; the driver above asks [`send_failure`] about what `poll_send` returned.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::ether::device::names;

/// Why a carrier could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another socket has this address.
    #[error("{what} is in use; stop the process that has it, or choose another")]
    InUse {
        /// The carrier and the address.
        what: String,
    },
    /// The address belongs to no interface of this machine.
    #[error(
        "{what}: no interface of this machine has that address; `ip address` lists those that exist"
    )]
    NotOurs {
        /// The carrier and the address.
        what: String,
    },
    /// Raw frames need a capability.
    #[error("{what} needs CAP_NET_RAW; run: sudo setcap cap_net_raw+ep {}", .program.display())]
    NoPrivilege {
        /// The carrier and the interface.
        what: String,
        /// The running program.
        program: PathBuf,
    },
    /// Something else forbids it: a port below 1024, a directory, a security module.
    #[error("{what}: permission denied; {remedy}")]
    Denied {
        /// The carrier and the address.
        what: String,
        /// What would allow it.
        remedy: &'static str,
    },
    /// No interface has this name.
    #[error("there is no interface {name:?} here; there are: {}", .existing.join(", "))]
    NoInterface {
        /// The name asked for.
        name: String,
        /// The names that exist.
        existing: Vec<String>,
    },
    /// The interface has no address that all hear.
    #[error(
        "interface {name} has no IPv4 network whose stations all hear a broadcast; give it one: ip address add"
    )]
    NoBroadcast {
        /// The interface.
        name: String,
    },
    /// The interface does not speak Ethernet.
    #[error("interface {name} is no Ethernet link (hardware type {hardware})")]
    NotEthernet {
        /// The interface.
        name: String,
        /// Its ARPHRD number.
        hardware: u16,
    },
    /// The path of a Unix socket is longer than the kernel takes.
    #[error(
        "the socket path {path} has {bytes} bytes; the kernel takes at most {limit}: choose a shorter one"
    )]
    PathTooLong {
        /// The path as text.
        path: String,
        /// Its length.
        bytes: usize,
        /// The longest that fits.
        limit: usize,
    },
    /// The path of a Unix socket holds something that is no socket; it is left alone.
    #[error("{path} exists and is no socket; it is left alone: choose another path")]
    NotASocket {
        /// The path as text.
        path: String,
    },
    /// The peer did not answer in time.
    #[error("{what} did not answer within {seconds} s")]
    Timeout {
        /// The carrier and the address.
        what: String,
        /// The deadline.
        seconds: u64,
    },
    /// Nobody listens there.
    #[error("{what}: connection refused; is a server listening there?")]
    Refused {
        /// The carrier and the address.
        what: String,
    },
    /// No socket is at this path.
    #[error("{what}: there is no such socket; does a server listen there?")]
    NoSocket {
        /// The carrier and the path.
        what: String,
    },
    /// The certificates and keys that an address names cannot be used.
    #[error("{what}: {problem}")]
    TlsSetup {
        /// The carrier and the address.
        what: String,
        /// Which file, and what is wrong with it.
        problem: String,
    },
    /// The TLS handshake failed: one side refused the other, or it does not speak TLS.
    #[error("{what}: {problem}")]
    TlsRefused {
        /// The carrier and the address.
        what: String,
        /// Who refused whom, and why.
        problem: String,
    },
    /// The system knows no interface for a group or for everybody, and none was named.
    #[error("{what}: {operation}: {source}; say at which interface: ?if=INTERFACE")]
    NeedsInterface {
        /// The carrier and the address.
        what: String,
        /// The call that failed.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Any other failure of a system call.
    #[error("{what}: {operation}: {source}")]
    Io {
        /// The carrier and the address.
        what: String,
        /// The call that failed.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl OpenError {
    /// There is no interface of this name; says which there are.
    pub(crate) fn no_interface(name: &str) -> Self {
        Self::NoInterface { name: name.to_owned(), existing: names() }
    }

    /// The typed error for what `operation` on `what` returned.
    pub(crate) fn of(what: &str, operation: &'static str, source: io::Error) -> Self {
        let what = what.to_owned();
        match source.raw_os_error() {
            Some(libc::EADDRINUSE) => Self::InUse { what },
            Some(libc::EADDRNOTAVAIL) => Self::NotOurs { what },
            Some(libc::ECONNREFUSED) => Self::Refused { what },
            Some(libc::EACCES | libc::EPERM) => Self::Denied {
                what,
                remedy: "choose a port above 1023, or a place that you may write to",
            },
            _ => Self::Io { what, operation, source },
        }
    }

    /// The same of the TLS connection whose TCP connection this is about.
    pub(crate) fn under_tls(mut self) -> Self {
        match &mut self {
            Self::InUse { what }
            | Self::NotOurs { what }
            | Self::NoPrivilege { what, .. }
            | Self::Denied { what, .. }
            | Self::Timeout { what, .. }
            | Self::Refused { what }
            | Self::NoSocket { what }
            | Self::TlsSetup { what, .. }
            | Self::TlsRefused { what, .. }
            | Self::NeedsInterface { what, .. }
            | Self::Io { what, .. } => {
                if let Some(at) = what.strip_prefix("tcp://") {
                    *what = format!("tls://{at}");
                }
            }
            Self::NoInterface { .. }
            | Self::NoBroadcast { .. }
            | Self::NotEthernet { .. }
            | Self::PathTooLong { .. }
            | Self::NotASocket { .. } => {}
        }
        self
    }

    /// The kind of I/O error that it is nearest to.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::InUse { .. } => io::ErrorKind::AddrInUse,
            Self::NotOurs { .. } | Self::NoBroadcast { .. } => io::ErrorKind::AddrNotAvailable,
            Self::NoPrivilege { .. } | Self::Denied { .. } => io::ErrorKind::PermissionDenied,
            Self::NoInterface { .. } | Self::NoSocket { .. } => io::ErrorKind::NotFound,
            Self::NotEthernet { .. } => io::ErrorKind::Unsupported,
            Self::PathTooLong { .. } | Self::NotASocket { .. } | Self::TlsSetup { .. } => {
                io::ErrorKind::InvalidInput
            }
            Self::TlsRefused { .. } => io::ErrorKind::ConnectionAborted,
            Self::Timeout { .. } => io::ErrorKind::TimedOut,
            Self::Refused { .. } => io::ErrorKind::ConnectionRefused,
            Self::NeedsInterface { source, .. } | Self::Io { source, .. } => source.kind(),
        }
    }
}

/// What an error of `poll_send` means to the driver.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SendFailure {
    /// A packet is larger than the link takes now: a probe of the MTU that failed, or an MTU that fell.
    TooBig,
    /// The packets are lost as on a bad cable; later ones may pass.
    Lost,
    /// The carrier is of no use any more.
    Fatal,
}

/// Sorts an error of [`super::Datagrams::poll_send`].
pub fn send_failure(error: &io::Error) -> SendFailure {
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => SendFailure::TooBig,
        Some(libc::EBADF | libc::ENOTSOCK | libc::EFAULT | libc::EOPNOTSUPP) => SendFailure::Fatal,
        _ => SendFailure::Lost,
    }
}

/// What every carrier returns for a packet that it cannot take for its size.
pub(crate) fn too_big() -> io::Error {
    io::Error::from_raw_os_error(libc::EMSGSIZE)
}

/// What every carrier returns for a peer of another carrier: it leads nowhere from here.
pub(crate) fn wrong_peer() -> io::Error {
    io::Error::from_raw_os_error(libc::EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_privilege_prints_the_exact_command() {
        let error =
            OpenError::NoPrivilege { what: "eth://enp3s0".into(), program: "/usr/bin/cabo".into() };
        let line = "eth://enp3s0 needs CAP_NET_RAW; run: sudo setcap cap_net_raw+ep /usr/bin/cabo";
        assert_eq!(error.to_string(), line);
    }

    #[test]
    fn only_a_broken_socket_is_fatal() {
        let failure = |code| send_failure(&io::Error::from_raw_os_error(code));
        assert_eq!(failure(libc::EMSGSIZE), SendFailure::TooBig);
        assert_eq!(failure(libc::ENETDOWN), SendFailure::Lost);
        assert_eq!(failure(libc::EPERM), SendFailure::Lost);
        assert_eq!(failure(libc::EBADF), SendFailure::Fatal);
        assert_eq!(send_failure(&wrong_peer()), SendFailure::Lost);
    }
}
