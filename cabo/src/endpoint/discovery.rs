//! Discovery (W-8): asking a link who serves there.
//!
//! Neighbours: `packets.rs` answers, and hands answers to who asked; `connect.rs` asks where an address names nobody.

use std::time::Duration;

use cabo_proto::Chance;
use cabo_proto::wire::packet::ConnectionId;
use tokio::sync::mpsc;

use super::packets::{Answer, Held};
use super::{Endpoint, Local, SystemChance, ether_peer};
use crate::address::{Address, Interface, Mac, Place};
use crate::carrier::{Peer, ether};
use crate::error::ConnectError;

/// How long a link is asked who serves, where one answer is enough.
const ASK_TIME: Duration = Duration::from_secs(2);
/// The question is repeated so often: it may get lost.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Who answered on a link.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where it serves.
    pub address: Address,
    /// The hash of its key, as it says.
    pub fingerprint: [u8; 32],
}

impl Endpoint {
    /// Asks the link of `interface` who serves there, for as long as `within`.
    pub async fn who_serves(
        &self,
        interface: &str,
        within: Duration,
    ) -> Result<Vec<Found>, ConnectError> {
        let endpoint = self.socket_towards(Local::Ether(interface.to_owned()))?;
        let answers = self.ask(&endpoint, interface, within, |_| false).await;
        if answers.is_empty() && !ether::is_up(interface) {
            return Err(ConnectError::LinkDown { interface: interface.to_owned() });
        }
        let mut found: Vec<Found> = Vec::new();
        for answer in answers {
            let Some(address) = address_of(&answer) else { continue };
            if !found.iter().any(|known| known.address == address) {
                found.push(Found { address, fingerprint: answer.fingerprint });
            }
        }
        Ok(found)
    }

    /// The first server that answers, at `port` and with the fingerprint if one is asked for.
    pub(super) async fn ask_one(
        &self,
        endpoint: &Held,
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
        let is_wanted = |answer: &Answer| {
            port.is_none_or(|port| answer.port == port)
                && fingerprint.is_none_or(|fingerprint| answer.fingerprint == fingerprint)
        };
        let answers = self.ask(endpoint, interface.as_str(), ASK_TIME, is_wanted).await;
        match answers.into_iter().find(|answer| is_wanted(answer)) {
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

    async fn ask(
        &self,
        endpoint: &Held,
        interface: &str,
        within: Duration,
        is_enough: impl Fn(&Answer) -> bool,
    ) -> Vec<Answer> {
        let mut nonce = [0; 8];
        SystemChance.fill(&mut nonce);
        let (sender, mut answers) = mpsc::channel(64);
        let question = endpoint.ask(self.settings.session.version(), ConnectionId(nonce), sender);
        let everybody = ether_peer(Peer::BROADCAST_MAC, 0, interface);
        let mut found = Vec::new();
        let asking = async {
            let mut again = tokio::time::interval(ASK_EVERY);
            loop {
                tokio::select! {
                    _ = again.tick() => {
                        endpoint.send(everybody, question.clone()); // asked again soon
                    }
                    Some(answer) = answers.recv() => {
                        let is_last = is_enough(&answer);
                        found.push(answer);
                        if is_last {
                            return;
                        }
                    }
                }
            }
        };
        let _ = tokio::time::timeout(within, asking).await; // the time is how long we listen
        found
    }
}

fn address_of(answer: &Answer) -> Option<Address> {
    let Peer::Ether { mac, interface, .. } = answer.from else { return None };
    let interface = Interface::new(interface.as_str()).ok()?;
    Some(Place::Eth { mac: Some(Mac(mac)), interface, port: Some(answer.port) }.into())
}
