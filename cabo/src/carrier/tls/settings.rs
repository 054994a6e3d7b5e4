//! What the query of a `tls://` address says.
//!
//! Neighbours: `files` reads what is named here.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustls::pki_types::ServerName;

use crate::address::{Address, AddressError, Host, Place, Problem, Query};

const LISTEN_WORDS: &[&str] = &["cert", "key", "ca"];
const CONNECT_WORDS: &[&str] = &["ca", "name", "verify", "cert", "key"];

/// A certificate of ours with what leads to its CA, and its key. Both may stand in one file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pair {
    /// The file of the certificates.
    pub certificate: PathBuf,
    /// The file of the key.
    pub key: PathBuf,
}

/// How to listen: `?cert=FILE&key=FILE`, and `&ca=FILE` where clients must show a certificate of that CA.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListenSettings {
    /// Where, for errors.
    pub place: String,
    /// What we show.
    pub own: Pair,
    /// Who signs the certificates of clients; without it they need none.
    pub client_ca: Option<PathBuf>,
}

/// How to connect.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConnectSettings {
    /// Where to, for errors.
    pub place: String,
    /// Who signs the server's certificate (`?ca=FILE`); the system's list of CAs where there is none.
    pub ca: Option<PathBuf>,
    /// The name that the certificate must be for: that of the host, or `?name=NAME`.
    pub name: ServerName<'static>,
    /// The server's certificate is not looked at (`?verify=no`).
    pub is_unverified: bool,
    /// What we show where the server asks for it (`?cert=FILE&key=FILE`).
    pub own: Option<Pair>,
}

impl ListenSettings {
    /// What `address` says, and nothing else.
    pub fn all_of(address: &Address) -> Result<Self, AddressError> {
        address.query.check(LISTEN_WORDS).map_err(|problem| address.bad(problem))?;
        Self::of(address)
    }

    /// What `address` says, whose words are checked by whoever knows all of them.
    pub fn of(address: &Address) -> Result<Self, AddressError> {
        let settings = || {
            let own = pair(&address.query)?.ok_or(Problem::NoCertificate)?;
            Ok(Self { place: place(address), own, client_ca: file(&address.query, "ca")? })
        };
        settings().map_err(|problem| address.bad(problem))
    }
}

impl ConnectSettings {
    /// What `address` says, and nothing else.
    pub fn all_of(address: &Address) -> Result<Self, AddressError> {
        address.query.check(CONNECT_WORDS).map_err(|problem| address.bad(problem))?;
        Self::of(address)
    }

    /// What `address` says, whose words are checked by whoever knows all of them.
    pub fn of(address: &Address) -> Result<Self, AddressError> {
        let settings = || {
            let query = &address.query;
            let is_unverified = match query.get("verify") {
                None | Some(b"yes") => false,
                Some(b"no") => true,
                Some(_) => return Err(Problem::Verify),
            };
            let own = pair(query)?;
            let (place, ca, name) = (place(address), file(query, "ca")?, name(address)?);
            Ok(Self { place, ca, name, is_unverified, own })
        };
        settings().map_err(|problem| address.bad(problem))
    }
}

fn place(address: &Address) -> String {
    address.server_words().unwrap_or_else(|| address.place.to_string())
}

fn pair(query: &Query) -> Result<Option<Pair>, Problem> {
    match (file(query, "cert")?, file(query, "key")?) {
        (Some(certificate), key) => {
            let key = key.unwrap_or_else(|| certificate.clone());
            Ok(Some(Pair { certificate, key }))
        }
        (None, Some(_)) => Err(Problem::LoneKey),
        (None, None) => Ok(None),
    }
}

fn file(query: &Query, key: &'static str) -> Result<Option<PathBuf>, Problem> {
    match query.get(key) {
        Some(b"") => Err(Problem::NoFile(key)),
        path => Ok(path.map(|path| PathBuf::from(OsStr::from_bytes(path)))),
    }
}

/// The name that the server must prove.
fn name(address: &Address) -> Result<ServerName<'static>, Problem> {
    if let Some(name) = address.query.get("name") {
        let text = std::str::from_utf8(name).map_err(|_| Problem::ServerName)?;
        return ServerName::try_from(text.to_owned()).map_err(|_| Problem::ServerName);
    }
    match &address.place {
        Place::Tls(at) => match &at.host {
            Host::Name(name) => {
                let name = name.as_str().trim_end_matches('.').to_owned();
                ServerName::try_from(name).map_err(|_| Problem::ServerName)
            }
            Host::Ip4(ip) => Ok(ServerName::from(IpAddr::V4(*ip))),
            Host::Ip6(ip, _) => Ok(ServerName::from(IpAddr::V6(*ip))),
            Host::Any => Err(Problem::ConnectNowhere),
        },
        Place::Eth { .. }
        | Place::Udp(_)
        | Place::Tcp(_)
        | Place::Unix(_)
        | Place::Redes { .. }
        | Place::Name(_) => Err(Problem::ServerName),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(text: &str) -> Result<ConnectSettings, Problem> {
        let address: Address = text.parse().expect("an address");
        ConnectSettings::all_of(&address).map_err(|error| error.problem)
    }

    fn listen(text: &str) -> Result<ListenSettings, Problem> {
        let address: Address = text.parse().expect("an address");
        ListenSettings::all_of(&address).map_err(|error| error.problem)
    }

    #[test]
    fn the_name_to_prove_is_the_host_unless_another_is_given() {
        for (text, wanted) in [
            ("tls://Host.example.:7", "host.example"),
            ("tls://192.0.2.1", "192.0.2.1"),
            ("tls://[::1]", "::1"),
            ("tls://192.0.2.1?name=host.example", "host.example"),
        ] {
            let name = connect(text).expect("good").name;
            assert_eq!(name.to_str(), wanted, "{text}");
        }
        for bad in ["tls://a_b?name=", "tls://h?name=a%20b", "tls://h?name=%ff"] {
            assert_eq!(connect(bad), Err(Problem::ServerName), "{bad}");
        }
    }

    #[test]
    fn a_certificate_may_hold_its_key_and_a_key_needs_its_certificate() {
        let own = |certificate: &str, key: &str| Pair {
            certificate: certificate.into(),
            key: key.into(),
        };
        assert_eq!(listen("tls://:1?cert=a.pem").map(|it| it.own), Ok(own("a.pem", "a.pem")));
        let both = listen("tls://:1?cert=/x/a.pem&key=b&ca=c").expect("good");
        assert_eq!((both.own, both.client_ca), (own("/x/a.pem", "b"), Some("c".into())));
        assert_eq!(listen("tls://:1"), Err(Problem::NoCertificate));
        assert_eq!(listen("tls://:1?key=b"), Err(Problem::LoneKey));
        assert_eq!(listen("tls://:1?cert="), Err(Problem::NoFile("cert")));
        assert!(matches!(listen("tls://:1?cert=a&verify=no"), Err(Problem::Parameter { .. })));
        assert_eq!(connect("tls://h?key=b"), Err(Problem::LoneKey));
    }

    #[test]
    fn verification_is_left_out_only_by_its_name() {
        let is_unverified = |text| connect(text).map(|it| it.is_unverified);
        assert_eq!(is_unverified("tls://h"), Ok(false));
        assert_eq!(is_unverified("tls://h?verify=yes"), Ok(false));
        assert_eq!(is_unverified("tls://h?verify=no"), Ok(true));
        for bad in ["tls://h?verify", "tls://h?verify=0", "tls://h?verify=NO"] {
            assert_eq!(is_unverified(bad), Err(Problem::Verify), "{bad}");
        }
    }
}
