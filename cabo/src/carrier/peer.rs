//! Who is at the other end of a carrier: an address that can be copied, compared and printed.
//!
//! Neighbours: `mod.rs` uses it in every send and receive; `address.rs` parses what this prints inside endpoint URLs.

use std::fmt;
use std::net::{SocketAddr, SocketAddrV6};

/// Where a packet came from or goes to, or who opened a stream. A key for lookups of half-open state, never a
/// connection's identity: that is its id.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Peer {
    /// Nobody: what an unfilled [`super::Received`] holds.
    None,
    /// A place in a memory hub of this process.
    Memory(u64),
    /// A UDP address. IPv6 keeps its scope; the flow label is always zero.
    Udp(SocketAddr),
    /// A TCP address, likewise.
    Tcp(SocketAddr),
    /// A port on an Ethernet link.
    Ether {
        /// The hardware address; all ones for everybody on the link.
        mac: [u8; 6],
        /// Our port field on the link; zero asks for any server.
        port: u16,
        /// The interface of ours that leads there, by name: an index changes when an interface goes and returns.
        interface: InterfaceName,
    },
    /// A process on this machine.
    Unix {
        /// Its process id as the kernel saw it when it connected or listened.
        process: u32,
    },
}

impl Peer {
    /// Everybody on an Ethernet link.
    pub const BROADCAST_MAC: [u8; 6] = [0xff; 6];

    /// The UDP peer at `address`, without what does not belong to an identity: an IPv6 flow label, and how a socket of
    /// both families writes an IPv4 address.
    pub fn udp(address: SocketAddr) -> Self {
        Self::Udp(identity(address))
    }

    /// The TCP peer at `address`, likewise.
    pub fn tcp(address: SocketAddr) -> Self {
        Self::Tcp(identity(address))
    }

    /// Its socket address, where it has one.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match *self {
            Self::Udp(address) | Self::Tcp(address) => Some(address),
            Self::None | Self::Memory(_) | Self::Ether { .. } | Self::Unix { .. } => None,
        }
    }

    /// Its port, where it has one.
    pub fn port(&self) -> Option<u16> {
        match *self {
            Self::Udp(address) | Self::Tcp(address) => Some(address.port()),
            Self::Ether { port, .. } => Some(port),
            Self::None | Self::Memory(_) | Self::Unix { .. } => None,
        }
    }

    /// A packet from here could only have come from this machine: loopback addresses, memory, Unix.
    pub fn is_loopback(&self) -> bool {
        match *self {
            Self::Udp(address) | Self::Tcp(address) => address.ip().is_loopback(),
            Self::Ether { mac, .. } => mac == [0; 6],
            Self::Memory(_) | Self::Unix { .. } => true,
            Self::None => false,
        }
    }
}

fn identity(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => address,
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(ip) => (ip, v6.port()).into(),
            None => SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into(),
        },
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => out.write_str("nobody"),
            Self::Memory(place) => write!(out, "memory:{place}"),
            Self::Udp(address) | Self::Tcp(address) => write!(out, "{address}"),
            Self::Ether { mac: [a, b, c, d, e, f], port, interface } => {
                write!(out, "{a:02x}-{b:02x}-{c:02x}-{d:02x}-{e:02x}-{f:02x}%{interface}:{port}")
            }
            Self::Unix { process } => write!(out, "process {process}"),
        }
    }
}

/// The name of a network interface: 1 to 15 bytes, no slash, no space, as the kernel wants it.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct InterfaceName {
    bytes: [u8; 16], // NUL-padded, the last is always NUL: what the kernel's `ifreq` holds
}

impl InterfaceName {
    /// The name in `text`; none if the kernel could have no such interface.
    pub fn new(text: &str) -> Option<Self> {
        let is_bad =
            |c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace() || c.is_control();
        if text.is_empty()
            || text.len() > 15
            || text == "."
            || text == ".."
            || text.contains(is_bad)
        {
            return None;
        }
        let mut bytes = [0; 16];
        for (to, from) in bytes.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        Some(Self { bytes })
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        let len = self.bytes.iter().position(|&b| b == 0).unwrap_or(self.bytes.len());
        str::from_utf8(self.bytes.get(..len).unwrap_or_default()).unwrap_or_default()
    }

    /// As the kernel's NUL-padded field.
    pub(crate) fn padded(&self) -> [u8; 16] {
        self.bytes
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl fmt::Debug for InterfaceName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn an_ethernet_peer_prints_as_an_ipv6_zone_does() {
        let interface = InterfaceName::new("eth0").unwrap();
        let peer = Peer::Ether { mac: [0x52, 0x54, 0, 0x12, 0x34, 0xab], port: 5555, interface };
        assert_eq!(peer.to_string(), "52-54-00-12-34-ab%eth0:5555");
    }

    #[test]
    fn a_scope_is_part_of_who_one_is_and_a_flow_label_is_not() {
        let ip: Ipv6Addr = "fe80::1".parse().unwrap();
        let at = |flow, scope| Peer::udp(SocketAddrV6::new(ip, 7, flow, scope).into());
        assert_eq!(at(9, 2), at(0, 2));
        assert_ne!(at(0, 2), at(0, 3));
        assert_eq!(at(0, 2).to_string(), "[fe80::1%2]:7");
    }

    #[test]
    fn an_ipv4_peer_is_the_same_at_a_socket_of_both_families() {
        let mapped = Peer::tcp("[::ffff:127.0.0.1]:7".parse().unwrap());
        assert_eq!(mapped, Peer::tcp("127.0.0.1:7".parse().unwrap()));
        assert!(mapped.is_loopback());
    }

    #[test]
    fn names_that_no_interface_can_have_are_refused() {
        for bad in ["", ".", "..", "a/b", "a b", "a:b", "a%b", "sixteen-bytes-xx", "a\n"] {
            assert_eq!(InterfaceName::new(bad), None, "{bad:?}");
        }
        assert_eq!(InterfaceName::new("fifteen-bytes-x").unwrap().as_str(), "fifteen-bytes-x");
    }
}
