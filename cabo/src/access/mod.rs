//! Who may enter a server: by fingerprint, or, without an identity, by where they come from.
//!
//! One's own identity always may, and over a Unix socket one's own user. Others may when they stand in the `--allow`
//! file, when everybody may (`--open`), or when somebody at the server's terminal said so, who is asked once about
//! each. A peer without an identity (plain, a dialect, `redes`) may from this host, from a `--from` network, or with
//! `--open`.
//!
//! The `--allow` file has one fingerprint a line, and after it a name, if one likes; `#` begins a comment.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

use cabo_proto::session::crypto::PublicKey;

pub use allow::{AllowError, AllowFile};

use crate::config::shell_word;
use crate::keys::Fingerprint;

mod allow;

const MAX_ANSWERS: usize = 1024; // people, so that strangers with ever new keys fill no memory

/// From where a peer came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// An IP address.
    Ip(IpAddr),
    /// An Ethernet link; `is_loopback` where it is this host's own (`lo`).
    Link {
        /// Whether it is the host's own.
        is_loopback: bool,
    },
    /// A Unix socket, and the user at its other end where the system says so.
    Unix {
        /// The user.
        uid: Option<u32>,
    },
}

impl Origin {
    /// Whether who proves nothing about itself may come from there: from this host, or from one of these networks.
    pub(crate) fn is_near(self, networks: &[Cidr]) -> bool {
        let is_within = match self {
            Self::Ip(ip) => networks.iter().any(|network| network.contains(ip)),
            Self::Link { .. } | Self::Unix { .. } => false,
        };
        is_within || self.is_this_host()
    }

    fn is_this_host(self) -> bool {
        match self {
            Self::Ip(ip) => ip.to_canonical().is_loopback(),
            Self::Link { is_loopback } => is_loopback,
            Self::Unix { .. } => false, // the socket names its user: that decides
        }
    }
}

/// A network, as `--from` names it: `192.168.1.0/24`, `fe80::/10`, or one address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cidr {
    base: IpAddr,
    bits: u8,
}

/// Why some text is not a network.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{0:?} is no network; write ADDRESS/BITS, as in 192.168.1.0/24 or fe80::/10, or one address"
)]
pub struct CidrError(String);

impl Cidr {
    /// Whether an address lies in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let shifted =
            |bits: u128, width: u8| bits.checked_shr(u32::from(width - self.bits)).unwrap_or(0);
        match (self.base, ip.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => {
                shifted(base.to_bits().into(), 32) == shifted(ip.to_bits().into(), 32)
            }
            (IpAddr::V6(base), IpAddr::V6(ip)) => {
                shifted(base.to_bits(), 128) == shifted(ip.to_bits(), 128)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let bad = || CidrError(text.to_owned());
        let (base, bits) = match text.split_once('/') {
            Some((base, bits)) => (base, Some(bits)),
            None => (text, None),
        };
        let base: IpAddr = base.parse().map_err(|_| bad())?;
        let width = if base.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(width), |bits| bits.parse().map_err(|_| bad()))?;
        if bits > width { Err(bad()) } else { Ok(Self { base, bits }) }
    }
}

/// What a server does with a peer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decision {
    /// Lets it in.
    Admit,
    /// Asks on the terminal, and then calls [`Access::answer`].
    Ask {
        /// Who wants in.
        fingerprint: Fingerprint,
    },
    /// Sends it away; the text is for it and for the log.
    Refuse(Refusal),
}

/// Why a peer is sent away, in words for the peer: it names no file of the server.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Nobody knows this key.
    #[error(
        "the server does not know {0}; to let it in, its owner runs: echo {0} >> FILE, the FILE of --allow FILE, \
         and sends the server SIGHUP; or starts it with --open"
    )]
    Unknown(Fingerprint),
    /// Somebody at the server said no.
    #[error(
        "the server's owner was asked about {0} and said no; ask again after the server was started anew"
    )]
    Denied(Fingerprint),
    /// Nobody at the server said anything in time.
    #[error(
        "the server's owner was asked about {0} and did not answer; ask again when somebody is there"
    )]
    Unanswered(Fingerprint),
    /// A peer without an identity from elsewhere.
    #[error(
        "the server lets in peers without an identity only from its own host; its owner can start it with --from {} or --open",
        network(.0)
    )]
    Nameless(Origin),
}

impl Refusal {
    /// The command that would let this peer in, for the server's own log; `program` is what runs the server, as
    /// `cabo serve`, and `allow_file` the file that is in use.
    pub fn remedy(&self, program: &str, allow_file: Option<&Path>) -> String {
        match (self, allow_file) {
            (Self::Unknown(print) | Self::Denied(print) | Self::Unanswered(print), Some(path)) => {
                format!("echo {print} >> {}; kill -HUP {}", shell_word(path), std::process::id())
            }
            (Self::Unknown(print) | Self::Denied(print) | Self::Unanswered(print), None) => {
                format!("echo {print} >> friends.txt; {program} --allow friends.txt")
            }
            (Self::Nameless(origin), _) => format!("{program} --from {}", network(origin)),
        }
    }
}

fn network(origin: &Origin) -> String {
    match origin {
        Origin::Ip(ip) => ip.to_canonical().to_string(),
        Origin::Link { .. } | Origin::Unix { .. } => "ADDRESS/BITS".to_owned(),
    }
}

/// A server's rules, and what its owner has answered so far.
#[derive(Debug)]
pub struct Access {
    own: PublicKey,
    own_uid: u32,
    allow: Option<AllowFile>,
    is_open: bool,
    can_ask: bool,
    from: Vec<Cidr>,
    answers: BTreeMap<PublicKey, bool>,
}

impl Access {
    /// The strictest rules: only one's own identity and user.
    pub fn new(own: PublicKey) -> Self {
        Self {
            own,
            own_uid: rustix::process::geteuid().as_raw(),
            allow: None,
            is_open: false,
            can_ask: false,
            from: Vec::new(),
            answers: BTreeMap::new(),
        }
    }

    /// Lets in who stands in this file.
    #[must_use]
    pub fn with_allow(mut self, file: AllowFile) -> Self {
        self.allow = Some(file);
        self
    }

    /// Lets anyone in.
    #[must_use]
    pub fn open(mut self) -> Self {
        self.is_open = true;
        self
    }

    /// Asks about new peers, because somebody sits at a terminal.
    #[must_use]
    pub fn asking(mut self) -> Self {
        self.can_ask = true;
        self
    }

    /// Lets in peers without an identity from these networks.
    #[must_use]
    pub fn from(mut self, networks: Vec<Cidr>) -> Self {
        self.from = networks;
        self
    }

    /// The file of allowed peers, where there is one.
    pub fn allow_file(&self) -> Option<&AllowFile> {
        self.allow.as_ref()
    }

    /// Decides about a peer with the identity `peer`, if it has one. Sessions that live are judged anew after
    /// [`reload`](Self::reload).
    pub fn judge(&self, peer: Option<PublicKey>, origin: Origin) -> Decision {
        let is_own_user =
            matches!(origin, Origin::Unix { uid: Some(uid) } if uid == self.own_uid || uid == 0);
        if self.is_open || is_own_user {
            return Decision::Admit;
        }
        match peer {
            Some(key) => self.judge_key(key),
            None => self.judge_nameless(origin),
        }
    }

    /// Notes what was said on the terminal about a peer, until the server ends.
    pub fn answer(&mut self, peer: PublicKey, is_welcome: bool) {
        if self.answers.len() >= MAX_ANSWERS && !self.answers.contains_key(&peer) {
            let refused =
                self.answers.iter().find(|(_, is_welcome)| !**is_welcome).map(|(key, _)| *key);
            match refused {
                Some(key) => self.answers.remove(&key),
                None => return, // all are friends; this one is asked about again
            };
        }
        self.answers.insert(peer, is_welcome);
    }

    /// Reads the `--allow` file again; where that fails, the old list stays in force.
    pub fn reload(&mut self) -> Result<(), AllowError> {
        if let Some(file) = &mut self.allow {
            *file = AllowFile::load(file.path())?;
        }
        Ok(())
    }

    /// The name that goes with a key: from the `--allow` file, where it gives one.
    pub fn name_of(&self, key: PublicKey) -> Option<&str> {
        self.allow.as_ref()?.name_of(Fingerprint::of(key))
    }

    fn judge_key(&self, key: PublicKey) -> Decision {
        let fingerprint = Fingerprint::of(key);
        let is_allowed = self.allow.as_ref().is_some_and(|file| file.contains(fingerprint));
        if key == self.own || is_allowed {
            return Decision::Admit;
        }
        match self.answers.get(&key) {
            Some(true) => Decision::Admit,
            Some(false) => Decision::Refuse(Refusal::Denied(fingerprint)),
            None if self.can_ask => Decision::Ask { fingerprint },
            None => Decision::Refuse(Refusal::Unknown(fingerprint)),
        }
    }

    fn judge_nameless(&self, origin: Origin) -> Decision {
        if origin.is_near(&self.from) {
            Decision::Admit
        } else {
            Decision::Refuse(Refusal::Nameless(origin))
        }
    }
}

#[cfg(test)]
mod tests;
