//! Discovery: who serves here, over every carrier, all or one by name.
//!
//! All links are asked at once (W-8.3), and whoever hears multicast DNS (W-8.4). What is heard is a claim of anybody: the
//! handshake proves the fingerprint, and [`crate::client`] remembers which one a name had.
//!
//! Neighbours: `mdns` speaks multicast DNS, `endpoint/discovery` asks one link; [`announce`] is the server's side on IP.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::address::{Address, Host, HostPort, Name, Place};
use crate::carrier::{OpenError, ether};
use crate::endpoint::Endpoint;
use crate::error::ConnectError;
use crate::keys::Fingerprint;

pub use self::mdns::{AnnounceError, Announcement, announce};

mod mdns;

/// Answers that one search keeps; more are not looked at.
pub(crate) const FOUND_MAX: usize = 1000;
/// Ways to one server that are kept.
const WAYS_MAX: usize = 16;
/// Who has a name was heard; others that have it, and other ways, may still answer.
const SETTLE_TIME: Duration = Duration::from_millis(600);

/// Who answered, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// Where it serves.
    pub address: Address,
    /// The hash of its key, as it says.
    pub fingerprint: Fingerprint,
    /// Its name, where it has one.
    pub name: Option<Name>,
}

/// One server, as it says, and every way to it that was heard of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Heard {
    /// The hash of its key.
    pub fingerprint: Fingerprint,
    /// Its name, where it has one.
    pub name: Option<Name>,
    /// Where it serves: at least one, the best first.
    pub ways: Vec<Address>,
}

/// Whom a search is for.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// All who answer.
    Everybody,
    /// All who have a name.
    Named(Name),
    /// The server with this key, which has a name.
    Known(Name, Fingerprint),
}

impl Wanted {
    fn name(&self) -> Option<&Name> {
        match self {
            Self::Everybody => None,
            Self::Named(name) | Self::Known(name, _) => Some(name),
        }
    }

    fn is(&self, found: &Found) -> bool {
        match self {
            Self::Everybody => true,
            Self::Named(name) => found.name.as_ref() == Some(name),
            Self::Known(name, print) => {
                found.name.as_ref() == Some(name) && found.fingerprint == *print
            }
        }
    }
}

/// What a search came to.
#[derive(Debug, Default)]
pub struct Survey {
    /// Who was heard, in the order of names and fingerprints.
    pub heard: Vec<Heard>,
    /// Why links could not be asked, where one was not for the want of a privilege.
    pub unasked: Option<String>,
    /// Whether there were more answers than are kept.
    pub is_cut: bool,
}

/// Opens every link of this machine as far as it may, also those that are down: what is opened later, when a cable is
/// plugged, would need the privilege again. Returns what could not be opened for the want of it, one line.
pub fn open_links(endpoint: &Endpoint) -> Option<String> {
    let errors = ether::all_links().into_iter().filter_map(|link| endpoint.open_link(&link).err());
    errors.filter(is_forbidden).map(|error| error.to_string()).last() // one line, also for many links
}

/// Asks every link and multicast DNS for as long as `within`; for a name, until shortly after it was heard.
pub async fn search(endpoint: &Endpoint, wanted: &Wanted, within: Duration) -> Survey {
    let mut survey = Survey::default();
    let (sender, mut answers) = mpsc::channel(64);
    let mut asking = JoinSet::new(); // ends with this function
    for interface in ether::links() {
        match endpoint.link(&interface) {
            Ok(link) => {
                asking.spawn(link.search(wanted.name().cloned(), sender.clone()));
            }
            Err(error) if is_forbidden(&error) => survey.unasked = Some(error.to_string()),
            Err(error) => tracing::debug!("{error}"), // a tunnel is no Ethernet
        }
    }
    asking.spawn(mdns::browse(sender));
    let mut until = Instant::now() + within;
    let mut found: Vec<Found> = Vec::new();
    while let Ok(Some(new)) = timeout_at(until, answers.recv()).await {
        if !wanted.is(&new) || found.contains(&new) {
            continue;
        }
        if found.len() == FOUND_MAX {
            survey.is_cut = true;
            break;
        }
        if found.is_empty() && wanted.name().is_some() {
            until = until.min(Instant::now() + SETTLE_TIME);
        }
        found.push(new);
    }
    survey.heard = group(found);
    survey
}

fn is_forbidden(error: &ConnectError) -> bool {
    matches!(error, ConnectError::Carrier(OpenError::NoPrivilege { .. }))
}

/// One server is one fingerprint with one name, however many ways lead to it.
pub fn group(found: Vec<Found>) -> Vec<Heard> {
    let mut servers: BTreeMap<(Option<Name>, Fingerprint), Vec<Address>> = BTreeMap::new();
    for Found { address, fingerprint, name } in found {
        servers.entry((name, fingerprint)).or_default().push(address);
    }
    let heard = |((name, fingerprint), mut ways): (_, Vec<Address>)| {
        ways.sort_by_cached_key(|way| (rank(way), way.to_string()));
        ways.dedup();
        ways.truncate(WAYS_MAX);
        Heard { fingerprint, name, ways }
    };
    let mut heard: Vec<Heard> = servers.into_iter().map(heard).collect();
    heard.sort_by_key(|heard| heard.name.is_none()); // who has a name comes first; the order stays otherwise
    heard
}

/// Which way is tried first: the same link needs no addresses, datagrams survive more than streams, and a link-local
/// address of IPv6 is the longest to look at.
fn rank(way: &Address) -> (u8, u8) {
    let family = |at: &HostPort| match &at.host {
        Host::Ip4(_) => 0,
        Host::Ip6(_, None) => 1,
        Host::Ip6(_, Some(_)) | Host::Name(_) | Host::Any => 2,
    };
    match &way.place {
        Place::Eth { .. } => (0, 0),
        Place::Udp(at) => (1, family(at)),
        Place::Tcp(at) => (2, family(at)),
        Place::Tls(at) => (3, family(at)),
        Place::Unix(_) | Place::Redes { .. } | Place::Name(_) => (4, 0),
    }
}

/// Why a name leads to no server.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// Nobody answered to it.
    #[error(
        "//{name}: nobody here has this name (asked for {within:?}); `cabo ls` lists who serves, and a server gets its name by \
         `cabo serve --name`"
    )]
    Nobody {
        /// The name.
        name: Name,
        /// How long was asked.
        within: Duration,
    },
    /// Several servers answered to it.
    #[error("//{name}: {} servers have this name: {}; name one by its URL", .heard.len(), list(.heard, *.known))]
    Ambiguous {
        /// The name.
        name: Name,
        /// Who.
        heard: Vec<Heard>,
        /// Which of them was met before under this name.
        known: Option<Fingerprint>,
    },
    /// Who answered proved another identity than it said.
    #[error(
        "//{name}: who answers at {way} says to be {said} and is {proved}; it is not spoken to"
    )]
    Impostor {
        /// The name.
        name: Name,
        /// Where.
        way: String,
        /// What it said.
        said: Fingerprint,
        /// What it is.
        proved: Fingerprint,
    },
}

fn list(heard: &[Heard], known: Option<Fingerprint>) -> String {
    const SHOWN_MAX: usize = 8;
    let one = |server: &Heard| {
        let way = server.ways.first().map(ToString::to_string).unwrap_or_default();
        let known = if known == Some(server.fingerprint) { ", known by it" } else { "" };
        format!("{way} ({}{known})", server.fingerprint)
    };
    let mut shown: Vec<String> = heard.iter().take(SHOWN_MAX).map(one).collect();
    if heard.len() > SHOWN_MAX {
        shown.push("and more".to_owned());
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests;
