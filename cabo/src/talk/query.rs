//! What the query of a URL says about a socket for foreign programs: from where, by which family, by which interface.
//!
//! Neighbours: `place` opens the sockets. A word that means nothing for a scheme is an error, never ignored.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::place::PlaceError;
use crate::address::{Address, Host, HostPort, Place};
use crate::carrier::open_udp::{Interface, Reach, broadcast_address};
use crate::endpoint::resolve_all;

/// Words for whoever connects over TCP.
pub(super) const TCP_CONNECT: &[&str] = &["from", "ip"];
/// Words for whoever connects over TLS.
pub(super) const TLS_CONNECT: &[&str] = &["from", "ip", "ca", "name", "verify", "cert", "key"];
/// Words for whoever connects over UDP.
pub(super) const UDP_CONNECT: &[&str] = &["from", "ip", "if", "ttl", "loop"];
/// Words for whoever listens over TCP.
pub(super) const TCP_LISTEN: &[&str] = &["ip"];
/// Words for whoever listens over TLS.
pub(super) const TLS_LISTEN: &[&str] = &["ip", "cert", "key", "ca"];
/// Words for whoever listens over UDP.
pub(super) const UDP_LISTEN: &[&str] = &["ip", "if", "ttl", "loop"];

/// A Unix socket has nothing to choose.
pub(super) const UNIX: &[&str] = &[];

/// A query, understood.
#[derive(Debug)]
pub(super) struct Wishes {
    from: Option<From>,
    is_ipv6: Option<bool>,
    pub(super) reach: Reach,
}

/// Our own end of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct From {
    ip: Option<IpAddr>,
    port: u16,
}

impl Wishes {
    /// Understands the query of `address`, which may say what is `known`.
    pub(super) fn of(address: &Address, known: &[&str]) -> Result<Self, PlaceError> {
        let wrong = |problem: &str| PlaceError::Query {
            place: address.to_string(),
            problem: problem.to_owned(),
        };
        address.query.check(known).map_err(|problem| wrong(&problem.to_string()))?;
        let text = |key| address.query.get(key).map(String::from_utf8_lossy);
        let from = match text("from") {
            Some(text) => Some(From::parse(&text).ok_or_else(|| {
                wrong("from is an address of this machine, a port, or both: from=10.0.0.2:4000, from=:4000")
            })?),
            None => None,
        };
        let is_ipv6 = match text("ip").as_deref() {
            None => None,
            Some("4") => Some(false),
            Some("6") => Some(true),
            Some(_) => return Err(wrong("ip is 4 or 6")),
        };
        if let (
            Some(_),
            Place::Tcp(HostPort { host: Host::Any, .. })
            | Place::Tls(HostPort { host: Host::Any, .. })
            | Place::Udp(HostPort { host: Host::Any, .. }),
        ) = (is_ipv6, &address.place)
        {
            return Err(wrong(
                "ip chooses among the addresses of a host; for all of ours write 0.0.0.0 or [::]",
            ));
        }
        let interface = text("if").map(|name| Interface::named(&name)).transpose()?;
        let ttl = match text("ttl").map(|ttl| ttl.parse()) {
            None => None,
            Some(Ok(ttl @ 0..256)) => Some(ttl),
            Some(_) => return Err(wrong("ttl is 0 to 255")),
        };
        let is_looped = match text("loop").as_deref() {
            None => None,
            Some("1" | "on" | "") => Some(true),
            Some("0" | "off") => Some(false),
            Some(_) => return Err(wrong("loop is on or off")),
        };
        Ok(Self { from, is_ipv6, reach: Reach { interface, ttl, is_looped } })
    }

    /// All addresses of a host that are of the families wanted; at least one. 255.255.255.255 by an interface is the
    /// broadcast address that this interface has.
    pub(super) async fn resolve(&self, host: &HostPort) -> Result<Vec<SocketAddr>, PlaceError> {
        if let (Host::Ip4(Ipv4Addr::BROADCAST), Some(interface)) =
            (&host.host, self.reach.interface)
        {
            let ip = broadcast_address(interface.name)?;
            return Ok(vec![(ip, host.port_or_default()).into()]);
        }
        let mut found = resolve_all(host).await?;
        found.iter_mut().for_each(|address| self.set_scope(address));
        let source = self.from.and_then(|from| from.ip).map(|ip| ip.is_ipv6());
        found.retain(|address| {
            let is = |wanted: Option<bool>| wanted.is_none_or(|ipv6| ipv6 == address.is_ipv6());
            is(self.is_ipv6) && is(source)
        });
        if found.is_empty() {
            let problem = "the host has no address of the family that is asked for".to_owned();
            return Err(PlaceError::Query { place: host.to_string(), problem });
        }
        Ok(found)
    }

    /// An IPv6 address that each link has anew is meant at the interface that was named, unless it names one itself.
    fn set_scope(&self, address: &mut SocketAddr) {
        if let SocketAddr::V6(address) = address
            && address.scope_id() == 0
            && is_of_link(address.ip())
        {
            address.set_scope_id(self.reach.interface.map_or(0, |interface| interface.index));
        }
    }

    /// Our own end towards `to`, where one is asked for.
    pub(super) fn from(&self, to: SocketAddr) -> Option<SocketAddr> {
        self.from.map(|from| {
            let any = || match to {
                SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            (from.ip.unwrap_or_else(any), from.port).into()
        })
    }
}

/// Link-local addresses, and groups of a link or of this machine's one interface (RFC 4291 2.7).
fn is_of_link(ip: &Ipv6Addr) -> bool {
    ip.is_unicast_link_local() || (ip.is_multicast() && matches!(ip.octets()[1] & 0xF, 1 | 2))
}

impl From {
    /// `ADDRESS`, `:PORT`, `ADDRESS:PORT`; an IPv6 address with a port stands in brackets.
    fn parse(text: &str) -> Option<Self> {
        if let Some(port) = text.strip_prefix(':').and_then(|port| port.parse().ok()) {
            return Some(Self { ip: None, port });
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Some(Self { ip: Some(address.ip()), port: address.port() });
        }
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        bare.parse().ok().map(|ip| Self { ip: Some(ip), port: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(url: &str) -> Result<Wishes, PlaceError> {
        Wishes::of(&url.parse().unwrap(), UDP_CONNECT)
    }

    #[test]
    fn our_own_end_is_an_address_a_port_or_both() {
        for (text, ip, port) in [
            ("10.0.0.2", Some("10.0.0.2"), 0),
            (":4000", None, 4000),
            ("10.0.0.2:4000", Some("10.0.0.2"), 4000),
            ("::1", Some("::1"), 0),
            ("[::1]", Some("::1"), 0),
            ("[::1]:9", Some("::1"), 9),
        ] {
            let ip = ip.map(|ip| ip.parse().unwrap());
            assert_eq!(From::parse(text), Some(From { ip, port }), "{text}");
        }
        for bad in ["", ":", "host", "10.0.0.2:", "10.0.0.2:99999", "::1:x", "[::1", ":-1"] {
            assert_eq!(From::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_means_nothing_is_an_error() {
        for bad in ["from=x", "ip=5", "ttl=256", "ttl=-1", "loop=maybe", "hops=3", "if=nope-0"] {
            assert!(wishes(&format!("udp://239.1.2.3:5005?{bad}")).is_err(), "{bad}");
        }
        assert!(Wishes::of(&"udp://:5005?ip=6".parse().unwrap(), UDP_LISTEN).is_err());
        let unix = Wishes::of(&"unix:here?from=there".parse().unwrap(), UNIX).unwrap_err();
        assert!(unix.to_string().contains("known are: none"), "{unix}");
        assert!(Wishes::of(&"tcp://h:1?ttl=3".parse().unwrap(), TCP_CONNECT).is_err());
    }

    #[tokio::test]
    async fn a_host_is_taken_at_the_family_asked_for() {
        let host = |host| HostPort { host, port: Some(7) };
        let four = host(Host::Ip4(Ipv4Addr::LOCALHOST));
        assert!(wishes("udp://h?ip=6").unwrap().resolve(&four).await.is_err());
        assert!(wishes("udp://h?from=[::1]:9").unwrap().resolve(&four).await.is_err());
        let found = wishes("udp://h?ip=4&from=:9").unwrap();
        let to = found.resolve(&four).await.unwrap();
        assert_eq!(to, ["127.0.0.1:7".parse().unwrap()]);
        assert_eq!(found.from(to[0]), Some("0.0.0.0:9".parse().unwrap()));
    }
}
