//! Discovery on Ethernet (W-8): asking a link who serves there, and under which name.
//!
//! Neighbours: `packets.rs` answers, and hands answers to who asked; `connect.rs` asks where an address names nobody;
//! `crate::discovery` asks all links and the rest of the world.

use std::sync::Arc;
use std::time::Duration;

use cabo_proto::Chance;
use cabo_proto::wire::discovery::Question;
use cabo_proto::wire::packet::ConnectionId;
use tokio::sync::mpsc;

use super::packets::{Answer, Held};
use super::{Endpoint, Local, SystemChance, ether_peer};
use crate::address::{Address, Interface, Mac, Name, Place};
use crate::carrier::{Peer, ether};
use crate::discovery::{FOUND_MAX, Found};
use crate::error::ConnectError;
use crate::keys::Fingerprint;

/// How long a link is asked who serves, where one answer is enough.
const ASK_TIME: Duration = Duration::from_secs(2);
/// The question is repeated so often: it may get lost.
const ASK_EVERY: Duration = Duration::from_millis(200);

impl Endpoint {
    /// Asks the link of `interface` who serves there, and under which name, for as long as `within`.
    pub async fn who_serves(
        &self,
        interface: &str,
        within: Duration,
    ) -> Result<Vec<Found>, ConnectError> {
        let link = self.link(interface)?;
        let mut found: Vec<Found> = Vec::new();
        let asking = link.ask(None, |answer| {
            if let Some(new) = found_by(&answer)
                && found.len() < FOUND_MAX
                && !found.contains(&new)
            {
                found.push(new);
            }
            false
        });
        let _ = tokio::time::timeout(within, asking).await; // the time is how long we listen
        if found.is_empty() && !ether::is_up(interface) {
            return Err(ConnectError::LinkDown { interface: interface.to_owned() });
        }
        Ok(found)
    }

    /// The link of `interface`, to ask it; opened when first needed.
    pub(crate) fn link(&self, interface: &str) -> Result<Link, ConnectError> {
        Ok(Link {
            held: self.socket_towards(Local::Ether(interface.to_owned()))?,
            interface: interface.to_owned(),
            version: self.settings.session.version(),
        })
    }

    /// The first server that answers, at `port` and with the fingerprint if one is asked for.
    pub(super) async fn ask_one(
        &self,
        address: &Address,
        port: Option<u16>,
        fingerprint: Option<[u8; 32]>,
    ) -> Result<Peer, ConnectError> {
        let Place::Eth { interface, .. } = &address.place else {
            return Err(ConnectError::NoSession {
                place: address.to_string(),
                scheme: address.scheme(),
            });
        };
        let link = self.link(interface.as_str())?;
        let mut wanted = None;
        let asking = link.ask(None, |answer| {
            let is_wanted = port.is_none_or(|port| answer.port == port)
                && fingerprint.is_none_or(|fingerprint| answer.fingerprint == fingerprint);
            if is_wanted {
                wanted = Some(answer);
            }
            is_wanted
        });
        let _ = tokio::time::timeout(ASK_TIME, asking).await; // what came says whether it was too short
        match wanted {
            Some(Answer { from: Peer::Ether { mac, .. }, port, .. }) => {
                Ok(ether_peer(mac, port, interface.as_str()))
            }
            _ if !ether::is_up(interface.as_str()) => {
                Err(ConnectError::LinkDown { interface: interface.as_str().to_owned() })
            }
            _ => Err(ConnectError::NobodyThere {
                place: address.place.to_string(),
                within: ASK_TIME,
            }),
        }
    }
}

/// A link that is open, to ask it.
pub(crate) struct Link {
    held: Arc<Held>,
    interface: String,
    version: u8,
}

impl Link {
    /// Asks who has `name` and sends what was found, until nobody takes it any more or the future is dropped. Without a
    /// name, who serves at all.
    pub(crate) async fn search(self, name: Option<Name>, found: mpsc::Sender<Found>) {
        let hear = |answer: Answer| {
            let is_meant = name.is_none() || answer.name == name;
            match found_by(&answer).filter(|_| is_meant) {
                // A full channel has answers enough; they come again with the next question.
                Some(new) => {
                    matches!(found.try_send(new), Err(mpsc::error::TrySendError::Closed(_)))
                }
                None => false,
            }
        };
        self.ask(name.as_ref(), hear).await;
    }

    /// Asks until `hear` has heard enough.
    async fn ask(&self, name: Option<&Name>, mut hear: impl FnMut(Answer) -> bool) {
        let mut nonce = [0; 8];
        SystemChance.fill(&mut nonce);
        let (sender, mut answers) = mpsc::channel(64);
        let question =
            name.map_or(Question::Names, |name| Question::Named(name.as_str().as_bytes()));
        let question = self.held.ask(self.version, ConnectionId(nonce), question, sender);
        let everybody = ether_peer(Peer::BROADCAST_MAC, 0, &self.interface);
        let mut again = tokio::time::interval(ASK_EVERY);
        loop {
            tokio::select! {
                _ = again.tick() => {
                    self.held.send(everybody, question.clone()); // asked again soon
                }
                Some(answer) = answers.recv() => {
                    if hear(answer) {
                        return;
                    }
                }
            }
        }
    }
}

fn found_by(answer: &Answer) -> Option<Found> {
    let Peer::Ether { mac, interface, .. } = answer.from else { return None };
    let interface = Interface::new(interface.as_str()).ok()?;
    let place = Place::Eth { mac: Some(Mac(mac)), interface, port: Some(answer.port) };
    Some(Found {
        address: place.into(),
        fingerprint: Fingerprint::of_hash(&answer.fingerprint),
        name: answer.name.clone(),
    })
}
