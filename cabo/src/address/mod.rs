//! Endpoint URLs: what every command and call takes, as a typed [`Address`] and back.
//!
//! ```text
//! eth://enp3s0  eth://lo:7000                    an interface: to listen there, or to ask that link who serves
//! eth://52-54-00-12-34-56%25enp3s0:5555/item     a station on an interface's link
//! udp://host/item  udp://[fe80::1%25eth0]:5555   a host; no host means every address of this machine
//! tcp://:5555  tls://:5556?cert=..&key=..
//! unix:///run/cabo.sock  unix:@abstract          a Unix socket; has no item of its own
//! redes://veth0?layout=c69                       the raw-Ethernet course protocol
//! //kitchen/item                                 a name found by discovery
//! ```
//!
//! What is printed is canonical, and reading it gives the same address back. Items are bytes and
//! names are text, percent-encoded.
//! `parse` holds the reading; what a query parameter means is known to whoever uses the address ([`Query::check`]).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::str::FromStr;

use cabo_proto::wire::discovery::LONGEST_NAME;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

pub use error::{AddressError, Problem};

mod error;
mod parse;

/// The port of cabo/1 where an address names none; a dialect brings its own.
pub const DEFAULT_PORT: u16 = 5555;

const ITEM: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'+')
    .remove(b',')
    .remove(b'=')
    .remove(b'@');
const PATH: &AsciiSet = &ITEM.remove(b'/');
const INTERFACE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');

/// A parsed endpoint URL.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Address {
    /// Where: the scheme and what stands before the item.
    pub place: Place,
    /// What of it; empty where the address names none.
    pub item: Item,
    /// Parameters after the question mark.
    pub query: Query,
}

/// Where an address leads, by scheme.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Place {
    /// Raw Ethernet.
    Eth {
        /// The station to talk to; none to listen, or to ask the link who serves.
        mac: Option<Mac>,
        /// The interface of ours.
        interface: Interface,
        /// The port in our packet header.
        port: Option<u16>,
    },
    /// Datagrams over IP.
    Udp(HostPort),
    /// A TCP stream.
    Tcp(HostPort),
    /// A TLS stream over TCP.
    Tls(HostPort),
    /// A Unix stream socket.
    Unix(UnixName),
    /// The course protocol on raw Ethernet.
    Redes {
        /// The interface of ours.
        interface: Interface,
    },
    /// A name that discovery resolves.
    Name(Name),
}

/// A host and a port, either of which may be left open.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct HostPort {
    /// The host.
    pub host: Host,
    /// The port, where one is named.
    pub port: Option<u16>,
}

impl HostPort {
    /// The port to use for cabo/1.
    pub fn port_or_default(&self) -> u16 {
        self.port.unwrap_or(DEFAULT_PORT)
    }
}

/// The host part.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Host {
    /// None named: every address of this machine, to listen on.
    Any,
    /// An IPv4 address.
    Ip4(Ipv4Addr),
    /// An IPv6 address, and the link that it is on where it needs one.
    Ip6(Ipv6Addr, Option<Interface>),
    /// A name for the resolver.
    Name(HostName),
}

/// The name of a Unix socket.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum UnixName {
    /// In the file system.
    Path(PathBuf),
    /// In the abstract name space (without the leading NUL byte).
    Abstract(Vec<u8>),
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Whether it names a group of stations, or all.
    pub fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}-{b:02x}-{c:02x}-{d:02x}-{e:02x}-{g:02x}")
    }
}

/// The name of a network interface, as Linux allows it: 1 to 15 bytes without slash, colon and white space.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Interface(String);

impl Interface {
    /// Checks a name.
    pub fn new(name: &str) -> Result<Self, Problem> {
        let is_bad =
            |letter: char| letter.is_whitespace() || letter.is_control() || "/:".contains(letter);
        if name.is_empty()
            || name.len() > 15
            || name.contains(is_bad)
            || name == "."
            || name == ".."
        {
            return Err(Problem::Interface);
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A host's name for the resolver: letters, digits, `-`, `_` and dots, in lower case.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct HostName(String);

impl HostName {
    /// Checks a name; one of digits and dots alone would be an IPv4 address, and is none.
    pub fn new(name: &str) -> Result<Self, Problem> {
        let is_good = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        let is_number = name.chars().all(|letter| letter.is_ascii_digit() || letter == '.');
        let has_labels =
            name.trim_end_matches('.').split('.').all(|label| (1..=63).contains(&label.len()));
        if name.len() > 253
            || is_number
            || !has_labels
            || !name.chars().all(is_good)
            || name.ends_with("..")
        {
            return Err(Problem::Host);
        }
        Ok(Self(name.to_ascii_lowercase()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a server, which its owner gave it and by which discovery finds it: 1 to 56 bytes of UTF-8 without control
/// characters, and without white space at its ends. Upper and lower case of ASCII letters are the same (W-8.3).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Name(String);

impl Name {
    /// Checks a name.
    pub fn new(name: &str) -> Result<Self, Problem> {
        let is_length = (1..=LONGEST_NAME).contains(&name.len());
        if !is_length || name.trim() != name || name.contains(char::is_control) {
            return Err(Problem::Name);
        }
        Ok(Self(name.to_ascii_lowercase()))
    }

    /// The same for a name that comes as bytes.
    pub fn from_bytes(name: &[u8]) -> Result<Self, Problem> {
        Self::new(std::str::from_utf8(name).map_err(|_| Problem::Name)?)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    /// As it stands in an address: percent-encoded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", percent_encode(self.0.as_bytes(), ITEM))
    }
}

/// A path in a catalogue: names from the top down. No name is empty, `.` or `..`, or has a slash or a NUL byte.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Item(Vec<Vec<u8>>);

impl Item {
    /// Reads a path as it is typed beside an address: nothing in it is encoded, names are parted by `/`.
    pub fn from_path(path: &[u8]) -> Result<Self, Problem> {
        let mut item = Self::default();
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            item.push(name.to_vec())?;
        }
        Ok(item)
    }

    /// The names, from the top down.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.0.iter().map(Vec::as_slice)
    }

    /// Whether it is the top of the catalogue, or nothing was named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn push(&mut self, name: Vec<u8>) -> Result<(), Problem> {
        if name.is_empty()
            || name == b"."
            || name == b".."
            || name.contains(&b'/')
            || name.contains(&0)
        {
            return Err(Problem::Item);
        }
        self.0.push(name);
        Ok(())
    }
}

impl fmt::Display for Item {
    /// Percent-encoded, each name after a slash; nothing where it is empty.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.names().try_for_each(|name| write!(f, "/{}", percent_encode(name, ITEM)))
    }
}

/// Parameters of an address, in the order in which they stand; no key stands twice.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Query(Vec<(String, Vec<u8>)>);

impl Query {
    /// The value of a key; empty where the key has none.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_slice())
    }

    /// Refuses keys that are not `known` to whoever is going to use the address.
    pub fn check(&self, known: &[&str]) -> Result<(), Problem> {
        match self.0.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some((key, _)) => {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                Err(Problem::Parameter { key: key.clone(), known })
            }
        }
    }

    /// Says `value` for a key of letters, digits, `-` and `_`.
    pub fn set(&mut self, key: &'static str, value: &[u8]) {
        self.0.retain(|(name, _)| name != key);
        self.0.push((key.to_owned(), value.to_vec()));
    }

    /// Keys and values in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_slice()))
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (key, value)) in self.iter().enumerate() {
            write!(f, "{}{key}", if place == 0 { '?' } else { '&' })?;
            if !value.is_empty() {
                write!(f, "={}", percent_encode(value, PATH))?;
            }
        }
        Ok(())
    }
}

impl Address {
    /// Reads an address from bytes, as the command line and files have them.
    pub fn parse(text: &[u8]) -> Result<Self, AddressError> {
        parse::parse(text)
    }

    /// Its scheme; empty for a name.
    pub fn scheme(&self) -> &'static str {
        match &self.place {
            Place::Eth { .. } => "eth",
            Place::Udp(_) => "udp",
            Place::Tcp(_) => "tcp",
            Place::Tls(_) => "tls",
            Place::Unix(_) => "unix",
            Place::Redes { .. } => "redes",
            Place::Name(_) => "",
        }
    }

    /// Refuses what cannot be listened on: a name, a station of others, an item.
    pub fn check_listen(&self) -> Result<(), AddressError> {
        match &self.place {
            Place::Eth { mac: Some(_), .. } => Err(self.bad(Problem::ListenStation)),
            Place::Name(_) => Err(self.bad(Problem::ListenName)),
            _ if !self.item.is_empty() => Err(self.bad(Problem::ListenItem)),
            Place::Eth { .. }
            | Place::Udp(_)
            | Place::Tcp(_)
            | Place::Tls(_)
            | Place::Unix(_)
            | Place::Redes { .. } => Ok(()),
        }
    }

    /// Refuses what cannot be connected to: no host, no port, a group of stations.
    pub fn check_connect(&self) -> Result<(), AddressError> {
        let (is_nowhere, port) = match &self.place {
            Place::Eth { mac: Some(mac), .. } if mac.is_group() => {
                return Err(self.bad(Problem::ConnectGroup));
            }
            Place::Eth { port, .. } => (false, *port),
            Place::Udp(at) | Place::Tcp(at) | Place::Tls(at) => {
                let is_nowhere = match &at.host {
                    Host::Any => true,
                    Host::Ip4(ip) => ip.is_unspecified(),
                    Host::Ip6(ip, _) => ip.is_unspecified(),
                    Host::Name(_) => false,
                };
                (is_nowhere, at.port)
            }
            Place::Unix(_) | Place::Redes { .. } | Place::Name(_) => (false, None),
        };
        if is_nowhere {
            return Err(self.bad(Problem::ConnectNowhere));
        }
        if port == Some(0) {
            return Err(self.bad(Problem::ConnectPort));
        }
        Ok(())
    }

    /// The words under which a client remembers the server here: the place alone, its port spelled out. `None` where it
    /// is not known before somebody answered (an Ethernet link that is asked who serves).
    pub fn server_words(&self) -> Option<String> {
        let mut place = self.place.clone();
        match &mut place {
            Place::Eth { mac: None, .. } => return None,
            Place::Eth { port, .. } => *port = port.or(Some(DEFAULT_PORT)),
            Place::Udp(at) | Place::Tcp(at) | Place::Tls(at) => {
                at.port = Some(at.port_or_default())
            }
            Place::Unix(_) | Place::Redes { .. } | Place::Name(_) => {}
        }
        Some(place.to_string())
    }

    /// The error that this address has `problem`.
    pub(crate) fn bad(&self, problem: Problem) -> AddressError {
        AddressError::new(self.to_string().as_bytes(), None, problem)
    }
}

impl From<Place> for Address {
    fn from(place: Place) -> Self {
        Self { place, item: Item::default(), query: Query::default() }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text.as_bytes())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.place, self.item, self.query)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eth { mac, interface, port } => {
                f.write_str("eth://")?;
                if let Some(mac) = mac {
                    write!(f, "{mac}%25")?;
                }
                write!(f, "{}", encoded(interface))?;
                write_port(f, *port)
            }
            Self::Udp(at) => write!(f, "udp://{at}"),
            Self::Tcp(at) => write!(f, "tcp://{at}"),
            Self::Tls(at) => write!(f, "tls://{at}"),
            Self::Unix(name) => write!(f, "unix:{name}"),
            Self::Redes { interface } => write!(f, "redes://{}", encoded(interface)),
            Self::Name(name) => write!(f, "//{name}"),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Any => {}
            Host::Ip4(ip) => write!(f, "{ip}")?,
            Host::Ip6(ip, None) => write!(f, "[{ip}]")?,
            Host::Ip6(ip, Some(zone)) => write!(f, "[{ip}%25{}]", encoded(zone))?,
            Host::Name(name) => f.write_str(name.as_str())?,
        }
        write_port(f, self.port)
    }
}

impl fmt::Display for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Abstract(name) => write!(f, "@{}", percent_encode(name, PATH)),
            Self::Path(path) => {
                let path = path.as_os_str().as_bytes();
                match path.strip_prefix(b"/") {
                    Some(rest) => write!(f, "///{}", percent_encode(rest, PATH)),
                    None => match path.strip_prefix(b"@") {
                        Some(rest) => write!(f, "%40{}", percent_encode(rest, PATH)),
                        None => write!(f, "{}", percent_encode(path, PATH)),
                    },
                }
            }
        }
    }
}

fn encoded(interface: &Interface) -> impl fmt::Display {
    percent_encode(interface.0.as_bytes(), INTERFACE)
}

fn write_port(f: &mut fmt::Formatter<'_>, port: Option<u16>) -> fmt::Result {
    port.map_or(Ok(()), |port| write!(f, ":{port}"))
}

#[cfg(test)]
mod tests;
