//! Every address of this machine: one socket that hears both families, or IPv4 alone where IPv6 is off.
//!
//! Neighbours: `udp`, `tcp`. A peer of IPv4 shows at such a socket as an IPv6 address that maps it; [`super::Peer`]
//! knows it as what it is.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::Socket;

use super::{Peer, calls};

/// Opens a socket at `port` of every address, by way of `open`.
pub(in crate::carrier) fn open<T>(
    port: u16,
    open: impl Fn(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    match open((Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(error) if is_without_ipv6(&error) => open((Ipv4Addr::UNSPECIFIED, port).into()),
        result => result,
    }
}

/// Whether a socket that is about to be bound takes IPv4 along; whatever the machine's default is.
pub(in crate::carrier) fn set_families(
    socket: &Socket,
    address: SocketAddr,
    is_both: bool,
) -> io::Result<()> {
    if address.is_ipv4() {
        return Ok(());
    }
    let (what, meaning) = match is_both {
        true => ("IPV6_V6ONLY, 0", "IPv4 comes along"),
        false => ("IPV6_V6ONLY, 1", "IPv6 alone"),
    };
    calls::option(socket, what, meaning, socket.set_only_v6(!is_both))
}

/// How the kernel wants to be told `to` at a socket bound to `local`.
pub(in crate::carrier) fn destination(local: SocketAddr, to: SocketAddr) -> SocketAddr {
    match (local, to.ip()) {
        (SocketAddr::V6(_), IpAddr::V4(ip)) => (ip.to_ipv6_mapped(), to.port()).into(),
        _ => to,
    }
}

/// Whether a datagram that came to a UDP socket bound to `local` says that the same socket sent it. It did not: we send nothing
/// to ourselves.
pub(crate) fn is_own(local: &Peer, from: &Peer) -> bool {
    let (Peer::Udp(bound), Peer::Udp(at)) = (local, from) else { return false };
    bound.port() == at.port()
        && (bound.ip() == at.ip() || (bound.ip().is_unspecified() && is_of_this_machine(*at)))
}

/// What leads to an address of this machine leaves from that address. Nothing is sent to find that out.
fn is_of_this_machine(at: SocketAddr) -> bool {
    let any: IpAddr = match at {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let leaves_from = || {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(at)?;
        socket.local_addr()
    };
    at.ip().is_loopback() || leaves_from().is_ok_and(|ours| ours.ip() == at.ip())
}

/// The kernel was built or started without IPv6, or a sandbox forbids it.
fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_ipv6_there_is_still_ipv4() {
        for off in [libc::EAFNOSUPPORT, libc::EADDRNOTAVAIL] {
            let kernel = |address: SocketAddr| match address {
                SocketAddr::V6(_) => Err(io::Error::from_raw_os_error(off)),
                SocketAddr::V4(_) => Ok(address),
            };
            assert_eq!(open(7, kernel).unwrap(), "0.0.0.0:7".parse().unwrap());
        }
    }

    #[test]
    fn a_socket_knows_its_own_addresses_and_no_others() {
        let udp = |at: &str| Peer::udp(at.parse().unwrap());
        let is_ours = |local, from| is_own(&udp(local), &udp(from));
        assert!(is_ours("10.0.0.1:7", "10.0.0.1:7"));
        assert!(!is_ours("10.0.0.1:7", "10.0.0.1:8"));
        assert!(!is_ours("127.0.0.1:7", "127.0.0.2:7"), "that is another socket");
        for anywhere in ["0.0.0.0:7", "[::]:7"] {
            assert!(is_ours(anywhere, "127.0.0.1:7"));
            assert!(is_ours(anywhere, "127.3.2.1:7"), "all of them are of this machine");
            assert!(!is_ours(anywhere, "127.0.0.1:8"));
            assert!(!is_ours(anywhere, "192.0.2.1:7"), "that is nobody's");
        }
        assert!(is_ours("[::]:7", "[::1]:7"));
        assert!(!is_ours("[::]:7", "[2001:db8::1]:7"));
    }

    #[test]
    fn a_taken_port_is_no_reason_to_leave_a_family_out() {
        let kernel = |address: SocketAddr| match address {
            SocketAddr::V6(_) => Err(io::Error::from_raw_os_error(libc::EADDRINUSE)),
            SocketAddr::V4(_) => Ok(address),
        };
        assert_eq!(open(7, kernel).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
