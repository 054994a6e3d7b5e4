//! A port on an interface belongs to one process: whoever holds the abstract Unix socket with its name.
//!
//! Abstract names live in the network namespace, as interfaces do, and die with their owner: nothing is left behind by
//! a kill. Neighbours: `mod.rs`.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::carrier::{InterfaceName, OpenError};

const FIRST_FREE_PORT: u16 = 49_152; // RFC 6335: below are registered ones

/// A held port.
#[derive(Debug)]
pub(super) struct Claim {
    /// The port.
    pub(super) port: u16,
    _socket: UnixDatagram,
}

impl Claim {
    /// Claims `port` on `interface`; 0 takes a free one.
    pub(super) fn new(interface: InterfaceName, port: u16) -> Result<Self, OpenError> {
        let what = |port| format!("port {port} on eth://{interface}");
        let claim = |port| claim(interface, port).map(|_socket| Self { port, _socket });
        if port != 0 {
            return claim(port).map_err(|e| OpenError::of(&what(port), "claim the port", e));
        }
        let count = u16::MAX - FIRST_FREE_PORT;
        let start = RandomState::new().hash_one(interface) as u16 % count;
        for step in 0..count {
            let port = FIRST_FREE_PORT + (start + step) % count; // below 2 * 16,383: no overflow
            match claim(port) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                result => {
                    return result.map_err(|e| OpenError::of(&what(port), "claim the port", e));
                }
            }
        }
        Err(OpenError::InUse { what: format!("every free port on eth://{interface}") })
    }
}

fn claim(interface: InterfaceName, port: u16) -> io::Result<UnixDatagram> {
    let name = format!("cabo/eth/{interface}/{port}");
    UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)
}
