//! Reading an address: from bytes that anybody may have typed, to a value or to an error that names the byte.

use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use percent_encoding::percent_decode;

use super::{
    Address, AddressError, Host, HostName, HostPort, Interface, Item, Mac, Name, Place, Problem,
    Query, UnixName,
};

const MAX_LEN: usize = 16 * 1024; // bytes
const MAX_UNIX_LEN: usize = 107; // bytes of `sun_path`, without the NUL that begins or ends it
const MAC_LEN: usize = 17; // characters

/// A piece of the text, and the byte at which it begins.
#[derive(Clone, Copy)]
struct Piece<'a> {
    text: &'a [u8],
    at: usize,
}

/// A problem and the byte that has it.
type Fault = (usize, Problem);

pub(super) fn parse(text: &[u8]) -> Result<Address, AddressError> {
    if text.len() > MAX_LEN {
        return Err(AddressError::new(text, None, Problem::TooLong));
    }
    address(Piece { text, at: 0 })
        .map_err(|(at, problem)| AddressError::new(text, Some(at), problem))
}

fn address(whole: Piece<'_>) -> Result<Address, Fault> {
    let (rest, query) = match whole.split(b'?') {
        Some((rest, query)) => (rest, self::query(query)?),
        None => (whole, Query::default()),
    };
    if rest.text.starts_with(b"//") {
        let (name, item) = rest.skip(2).cut_item();
        return Ok(Address {
            place: Place::Name(self::name(name)?),
            item: self::item(item)?,
            query,
        });
    }
    let (scheme, rest) = scheme(rest)?;
    if scheme == "unix" {
        return Ok(Address { place: Place::Unix(unix(rest)?), item: Item::default(), query });
    }
    if !rest.text.starts_with(b"//") {
        return Err((rest.at, Problem::Slashes(scheme)));
    }
    let (authority, path) = rest.skip(2).cut_item();
    let place = match scheme.as_str() {
        "eth" => eth(authority)?,
        "udp" => Place::Udp(host_port(authority)?),
        "tcp" => Place::Tcp(host_port(authority)?),
        "tls" => Place::Tls(host_port(authority)?),
        "redes" => Place::Redes { interface: interface(authority)? },
        _ => return Err((0, Problem::Scheme(scheme))),
    };
    Ok(Address { place, item: item(path)?, query })
}

/// The scheme in lower case, and what follows its colon.
fn scheme(rest: Piece<'_>) -> Result<(String, Piece<'_>), Fault> {
    let no_scheme = || (rest.at, Problem::NoScheme);
    let (scheme, after) = rest.split(b':').ok_or_else(no_scheme)?;
    let is_word = scheme.text.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
    if !is_word {
        return Err(no_scheme());
    }
    let word: String =
        scheme.text.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect();
    let is_ours = ["eth", "udp", "tcp", "tls", "unix", "redes"].contains(&word.as_str());
    match is_ours || after.text.starts_with(b"//") {
        true => Ok((word, after)),
        false => Err(no_scheme()), // `host:5555`
    }
}

fn eth(authority: Piece<'_>) -> Result<Place, Fault> {
    let (station, link) = authority.split_at(MAC_LEN);
    let (mac, link) = match (mac(station.text), link.text.first()) {
        (Some(mac), Some(b'%')) => (Some(mac), link.skip(1).without_25()),
        (Some(_), _) => return Err((authority.at, Problem::LoneStation)),
        (None, _) => (None, authority),
    };
    let (interface, port) =
        cut_port(link).and_then(|(link, port)| Ok((interface(link)?, port))).map_err(|fault| {
            let is_station = mac.is_none() && authority.text.contains(&b'%');
            if is_station { (authority.at, Problem::Mac) } else { fault }
        })?;
    Ok(Place::Eth { mac, interface, port })
}

/// Six pairs of hexadecimal digits with one kind of sign between them.
fn mac(text: &[u8]) -> Option<Mac> {
    let sign = *text.get(2)?;
    if text.len() != MAC_LEN || !b"-:".contains(&sign) {
        return None;
    }
    let mut bytes = [0; 6];
    for (place, (byte, pair)) in bytes.iter_mut().zip(text.chunks(3)).enumerate() {
        let (high, low) = (hex_digit(pair.first())?, hex_digit(pair.get(1))?);
        *byte = high << 4 | low;
        if place < 5 && pair.get(2) != Some(&sign) {
            return None;
        }
    }
    Some(Mac(bytes))
}

fn hex_digit(byte: Option<&u8>) -> Option<u8> {
    u8::try_from(char::from(*byte?).to_digit(16)?).ok()
}

fn interface(piece: Piece<'_>) -> Result<Interface, Fault> {
    Interface::new(&piece.decoded_text()?).map_err(|problem| (piece.at, problem))
}

fn host_port(authority: Piece<'_>) -> Result<HostPort, Fault> {
    if let Some(inner) = authority.text.strip_prefix(b"[") {
        let inner = Piece { text: inner, at: authority.at + 1 };
        let (inner, after) = inner.split(b']').ok_or((authority.at, Problem::Host))?;
        let port = match after.text.strip_prefix(b":") {
            Some(_) => Some(port(after.skip(1))?),
            None if after.text.is_empty() => None,
            None => return Err((after.at, Problem::Port)),
        };
        return Ok(HostPort { host: ip6(inner)?, port });
    }
    let (host, port) = cut_port(authority)?;
    if host.text.is_empty() {
        return Ok(HostPort { host: Host::Any, port });
    }
    let text = host.decoded_text()?;
    let host = match text.parse::<Ipv4Addr>() {
        Ok(ip) => Host::Ip4(ip),
        Err(_) => Host::Name(HostName::new(&text).map_err(|problem| (host.at, problem))?),
    };
    Ok(HostPort { host, port })
}

fn ip6(inner: Piece<'_>) -> Result<Host, Fault> {
    let (ip, zone) = match inner.split(b'%') {
        Some((ip, zone)) => (ip, Some(interface(zone.without_25())?)),
        None => (inner, None),
    };
    let parsed = std::str::from_utf8(ip.text).ok().and_then(|text| text.parse::<Ipv6Addr>().ok());
    Ok(Host::Ip6(parsed.ok_or((ip.at, Problem::Host))?, zone))
}

/// What stands before the last colon, and the port after it.
fn cut_port(piece: Piece<'_>) -> Result<(Piece<'_>, Option<u16>), Fault> {
    let Some(colon) = piece.text.iter().rposition(|byte| *byte == b':') else {
        return Ok((piece, None));
    };
    let (before, after) = piece.split_at(colon);
    if before.text.contains(&b':') {
        return Err((piece.at, Problem::Host)); // an IPv6 address without brackets
    }
    Ok((before, Some(port(after.skip(1))?)))
}

fn port(piece: Piece<'_>) -> Result<u16, Fault> {
    let digits = std::str::from_utf8(piece.text)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or((piece.at, Problem::Port))
}

fn unix(rest: Piece<'_>) -> Result<UnixName, Fault> {
    let (path, is_abstract) = match rest.text {
        [b'@', ..] => (rest.skip(1), true),
        [b'/', b'/', b'/', ..] => (rest.skip(2), false),
        [b'/', b'/', ..] => return Err((rest.at, Problem::UnixHost)),
        _ => (rest, false),
    };
    let bytes = path.decoded()?;
    if bytes.is_empty() || bytes.len() > MAX_UNIX_LEN || bytes.contains(&0) {
        return Err((path.at, Problem::Unix));
    }
    Ok(match is_abstract {
        true => UnixName::Abstract(bytes),
        false => UnixName::Path(PathBuf::from(OsString::from_vec(bytes))),
    })
}

fn name(piece: Piece<'_>) -> Result<Name, Fault> {
    Name::from_bytes(&piece.decoded()?).map_err(|problem| (piece.at, problem))
}

fn item(path: Piece<'_>) -> Result<Item, Fault> {
    let mut item = Item::default();
    for name in path.split_all(b'/').filter(|name| !name.text.is_empty()) {
        item.push(name.decoded()?).map_err(|problem| (name.at, problem))?;
    }
    Ok(item)
}

fn query(text: Piece<'_>) -> Result<Query, Fault> {
    let mut query = Query::default();
    for part in text.split_all(b'&').filter(|part| !part.text.is_empty()) {
        let (key, value) = match part.split(b'=') {
            Some((key, value)) => (key, value.decoded()?),
            None => (part, Vec::new()),
        };
        let is_good = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
        if key.text.is_empty() || !key.text.iter().all(is_good) {
            return Err((key.at, Problem::ParameterName));
        }
        let word: String = key.text.iter().map(|byte| char::from(*byte)).collect();
        if query.get(&word).is_some() {
            return Err((key.at, Problem::DoubleParameter(word)));
        }
        query.0.push((word, value));
    }
    Ok(query)
}

impl<'a> Piece<'a> {
    fn split_at(self, len: usize) -> (Self, Self) {
        let (before, after) = self.text.split_at_checked(len).unwrap_or((self.text, b""));
        (Self { text: before, at: self.at }, Self { text: after, at: self.at + before.len() })
    }

    fn skip(self, len: usize) -> Self {
        self.split_at(len).1
    }

    /// What stands before and after the first `sign`.
    fn split(self, sign: u8) -> Option<(Self, Self)> {
        let (before, after) = self.split_at(self.text.iter().position(|byte| *byte == sign)?);
        Some((before, after.skip(1)))
    }

    fn split_all(self, sign: u8) -> impl Iterator<Item = Self> {
        let mut at = self.at;
        self.text.split(move |byte| *byte == sign).map(move |text| {
            let piece = Self { text, at };
            at += text.len() + 1;
            piece
        })
    }

    /// What stands before the first slash, and the path from it on.
    fn cut_item(self) -> (Self, Self) {
        self.split_at(self.text.iter().position(|byte| *byte == b'/').unwrap_or(self.text.len()))
    }

    /// The zone after a percent sign that was itself written as `%25`, or bare.
    fn without_25(self) -> Self {
        if self.text.starts_with(b"25") && self.text.len() > 2 { self.skip(2) } else { self }
    }

    fn decoded(self) -> Result<Vec<u8>, Fault> {
        for (at, _) in self.text.iter().enumerate().filter(|(_, byte)| **byte == b'%') {
            let digits =
                self.text.iter().skip(at + 1).take(2).filter(|digit| digit.is_ascii_hexdigit());
            if digits.count() < 2 {
                return Err((self.at + at, Problem::Percent));
            }
        }
        Ok(percent_decode(self.text).collect())
    }

    fn decoded_text(self) -> Result<String, Fault> {
        String::from_utf8(self.decoded()?).map_err(|_| (self.at, Problem::Utf8))
    }
}
