//! A port on an interface belongs to one process: whoever holds the abstract Unix socket with its name.
//!
//! Abstract names live in the network namespace, as interfaces do, and die with their owner: nothing is left behind by
//! a kill. Neighbours: `mod.rs`.

use std::hash::{BuildHasher, RandomState};
use std::io;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::carrier::calls::{self, Closing, Kind};
use crate::carrier::{InterfaceName, OpenError};

const FIRST_FREE_PORT: u16 = 49_152; // RFC 6335: below are registered ones

/// A held port.
#[derive(Debug)]
pub(super) struct Claim {
    /// The port.
    pub(super) port: u16,
    _socket: (Closing, Socket), // in this order: the first tells of the other
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

fn claim(interface: InterfaceName, port: u16) -> io::Result<(Closing, Socket)> {
    let (socket, closing) = calls::socket(Domain::UNIX, Type::DGRAM.cloexec(), None, Kind::Claim)?;
    let name = SockAddr::unix(format!("\0cabo/eth/{interface}/{port}"))?;
    calls::bind(&socket, &name)?;
    Ok((closing, socket))
}
