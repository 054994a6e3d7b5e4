//! What a server says while it runs: its first lines, then one log line or one JSON object an event.

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anstyle::Style;
use cabo::access::{AllowError, Refusal};
use cabo::address::{Address, Host, Name, Place};
use cabo::carrier::{OpenError, Peer};
use cabo::connection::Ended;
use cabo::endpoint::Drops;
use cabo::keys::Fingerprint;
use cabo::redes::Outcome;
use cabo::redes::serve::Told;
use cabo::server::metrics::Metrics;
use cabo::server::{ServerEvent, SessionInfo};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::PROGRAM;
use crate::cmd::Globals;
use crate::interfaces;
use crate::show::human::{self, escaped};
use crate::show::json;
use crate::show::stdout;

const ADDRESSES_SHOWN: usize = 4;

/// What there is to say at the start.
pub(super) struct Opening {
    pub(super) what: PathBuf,
    pub(super) addresses: Vec<Address>,
    pub(super) fingerprint: Fingerprint,
    pub(super) name: Option<Name>,
    pub(super) is_plain: bool,
    pub(super) who: String,
}

pub(super) struct Teller {
    is_json: bool,
    is_quiet: bool,
    allow: Option<PathBuf>,
}

impl Teller {
    pub(super) fn new(globals: Globals, allow: Option<PathBuf>) -> Self {
        Self { is_json: globals.json, is_quiet: globals.quiet, allow }
    }

    pub(super) fn ready(&self, opening: &Opening, metrics: Option<&Metrics>) -> io::Result<()> {
        let metrics = metrics.map(|metrics| format!("http://{}/metrics", metrics.address()));
        if self.is_json {
            for address in &opening.addresses {
                json::line(&json!({"event": "listening", "url": address.to_string()}))?;
            }
            return json::line(&json!({
                "event": "ready",
                "fingerprint": opening.fingerprint.to_string(),
                "name": opening.name.as_ref().map(Name::as_str),
                "is_plain": opening.is_plain,
                "metrics": metrics,
            }));
        }
        if self.is_quiet {
            return Ok(());
        }
        let mut out = stdout::styled();
        let bold = Style::new().bold();
        let label = |label: &str| format!("{bold}{label:13}{bold:#}");
        writeln!(out, "{}{}", label("serving"), escaped(&opening.what.to_string_lossy()))?;
        for (number, address) in opening.addresses.iter().enumerate() {
            writeln!(out, "{}{address}", label(if number == 0 { "on" } else { "" }))?;
        }
        match opening.is_plain {
            true => {
                writeln!(out, "{}everybody on the wire can read and change it", label("plain"))?
            }
            false => writeln!(out, "{}{}", label("fingerprint"), opening.fingerprint)?,
        }
        writeln!(out, "{}{}", label("who gets in"), opening.who)?;
        if let Some(metrics) = metrics {
            writeln!(out, "{}{metrics}", label("watched at"))?;
        }
        let plain = if opening.is_plain { " --plain" } else { "" };
        let by_name = opening.name.iter().map(|name| format!("//{name}"));
        let lines = by_name.chain(reached_by(&opening.addresses));
        for (number, line) in lines.enumerate() {
            writeln!(
                out,
                "{}cabo ls{plain} {line}",
                label(if number == 0 { "reached by" } else { "" })
            )?;
        }
        out.flush()
    }

    pub(super) fn event(&self, event: &ServerEvent) -> io::Result<()> {
        match event {
            ServerEvent::Admitted(info) => self.session("admitted", info, &[]),
            ServerEvent::Refused(info, refusal @ Refusal::Denied(_)) => {
                self.session("refused", info, &[("why", refusal.to_string())])
            }
            ServerEvent::Refused(info, refusal) => {
                let remedy = refusal.remedy(PROGRAM, self.allow.as_deref());
                self.session("refused", info, &[("why", refusal.to_string()), ("remedy", remedy)])
            }
            ServerEvent::TurnedAway(info) => {
                let remedy = "raise --max-sessions".to_owned();
                let why = "all sessions are taken".to_owned();
                self.session("turned_away", info, &[("why", why), ("remedy", remedy)])
            }
            ServerEvent::Ended(info, ended) => {
                let has_left =
                    matches!(&**ended, Ended::Peer { code: 0, reason } if reason.is_empty());
                let why = if has_left { "it left".to_owned() } else { escaped(&ended.to_string()) };
                self.session("ended", info, &[("why", why)])
            }
        }
    }

    /// What happened on a link of the course protocol, whose peers have no name.
    pub(super) fn redes(&self, address: &Address, told: &Told) -> io::Result<()> {
        let what = told.name.as_deref().map(|name| name.escape_ascii().to_string());
        let outcome = match told.outcome {
            Outcome::Done => "done".to_owned(),
            Outcome::Refused(refusal) => format!("refused: {refusal}"),
            Outcome::ClientRefused(refusal) => format!("refused by the client: {refusal}"),
            Outcome::Vanished => "the client vanished".to_owned(),
            Outcome::Replaced => "another request came".to_owned(),
        };
        if self.is_json {
            return json::line(&json!({
                "event": "redes",
                "url": address.to_string(),
                "name": what,
                "outcome": outcome,
                "names_left_out": told.names_left_out,
            }));
        }
        let what = what.as_deref().unwrap_or("the catalogue");
        tracing::info!("{address}: {what}: {outcome}");
        if told.name.is_none() && told.names_left_out > 0 {
            let count = told.names_left_out;
            tracing::warn!("{address}: {count} names are longer than 63 bytes and cannot be told");
        }
        Ok(())
    }

    /// What waits to be told at the end.
    pub(super) fn rest(
        &self,
        events: &mut mpsc::Receiver<ServerEvent>,
        told: &mut mpsc::Receiver<(Address, Told)>,
    ) -> io::Result<()> {
        while let Ok(event) = events.try_recv() {
            self.event(&event)?;
        }
        while let Ok((address, told)) = told.try_recv() {
            self.redes(&address, &told)?;
        }
        Ok(())
    }

    pub(super) fn reloaded(&self, result: Result<usize, AllowError>) -> io::Result<()> {
        match result {
            Ok(ended) if self.is_json => json::line(&json!({"event": "reloaded", "ended": ended})),
            Ok(ended) => {
                tracing::info!(ended, "read the list of allowed peers again");
                Ok(())
            }
            Err(error) => {
                tracing::error!("the old list of allowed peers stays in force: {error}");
                if self.is_json {
                    json::line(&json!({"event": "reload_failed", "why": error.to_string()}))?;
                }
                Ok(())
            }
        }
    }

    pub(super) fn renewed(&self, doors: Vec<Result<Peer, OpenError>>) -> io::Result<()> {
        for door in doors {
            match door {
                Ok(at) if self.is_json => {
                    json::line(&json!({"event": "renewed", "url": format!("tls://{at}")}))?;
                }
                Ok(at) => tracing::info!("read the certificate of tls://{at} again"),
                Err(error) => {
                    tracing::error!("the old certificate stays in force: {error}");
                    if self.is_json {
                        json::line(&json!({"event": "renew_failed", "why": error.to_string()}))?;
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn draining(&self, sessions: usize, within: Duration) -> io::Result<()> {
        if self.is_json {
            return json::line(&json!({"event": "draining", "sessions": sessions}));
        }
        let within = human::duration(within);
        tracing::info!(
            sessions,
            "going down when requests under way have ended, within {within}; once more ends at once"
        );
        Ok(())
    }

    /// The last word, with what came in and made no sense.
    pub(super) fn stopped(&self, drops: &Drops) -> io::Result<()> {
        let counts = drops.by_reason.iter().filter(|(_, count)| *count > 0);
        let counts: Map<String, Value> =
            counts.map(|(why, count)| (words(&format!("{why:?}")), json!(count))).collect();
        if self.is_json {
            return json::line(&json!({
                "event": "stopped",
                "dropped": counts,
                "dropped_by_kernel": drops.kernel,
            }));
        }
        if !counts.is_empty() || drops.kernel > 0 {
            let (reasons, kernel) = (Value::Object(counts), drops.kernel);
            tracing::info!(%reasons, kernel, "packets that were dropped");
        }
        Ok(())
    }

    fn session(&self, event: &str, info: &SessionInfo, more: &[(&str, String)]) -> io::Result<()> {
        let peer = info.fingerprint.map(|fingerprint| fingerprint.to_string());
        if self.is_json {
            let mut object = json!({
                "event": event,
                "session": info.number,
                "fingerprint": peer,
                "carrier": info.carrier,
                "from": info.from.to_string(),
            });
            for (key, value) in more {
                object[key] = Value::String(value.clone());
            }
            return json::line(&object);
        }
        let field =
            |name| more.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str());
        let peer = peer.as_deref().unwrap_or("-");
        let (session, carrier, from) = (info.number, info.carrier, &info.from);
        match field("remedy") {
            Some(remedy) => {
                tracing::warn!(session, peer, carrier, %from, "{event}; to let it in: {remedy}");
            }
            None => {
                let why = field("why").unwrap_or_default();
                let gap = if why.is_empty() { "" } else { ": " };
                tracing::info!(session, peer, carrier, %from, "{event}{gap}{why}");
            }
        }
        Ok(())
    }
}

/// `UnknownId` as `unknown_id`.
fn words(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !words.is_empty() {
            words.push('_');
        }
        words.push(letter.to_ascii_lowercase());
    }
    words
}

/// What others may type to get here.
fn reached_by(addresses: &[Address]) -> Vec<String> {
    let own = interfaces::own_addresses();
    let mut lines = Vec::new();
    for address in addresses {
        let mut address = address.clone();
        match &mut address.place {
            Place::Udp(at) | Place::Tcp(at) | Place::Tls(at) => {
                if at.port == Some(cabo::address::DEFAULT_PORT) {
                    at.port = None;
                }
                let (hears_v4, hears_v6) = match &at.host {
                    Host::Any => (true, true),
                    Host::Ip4(ip) if ip.is_unspecified() => (true, false),
                    Host::Ip6(ip, _) if ip.is_unspecified() => (false, true),
                    Host::Ip4(_) | Host::Ip6(..) | Host::Name(_) => {
                        lines.push(address.to_string());
                        continue;
                    }
                };
                let v4 = own.iter().filter(|ip| hears_v4 && ip.is_ipv4()).take(ADDRESSES_SHOWN);
                let v6 = own.iter().filter(|ip| hears_v6 && ip.is_ipv6()).take(ADDRESSES_SHOWN);
                for ip in v4.chain(v6) {
                    let mut address = address.clone();
                    if let Place::Udp(at) | Place::Tcp(at) | Place::Tls(at) = &mut address.place {
                        at.host = match ip {
                            IpAddr::V4(ip) => Host::Ip4(*ip),
                            IpAddr::V6(ip) => Host::Ip6(*ip, None),
                        };
                    }
                    lines.push(address.to_string());
                }
            }
            Place::Eth { interface, .. } => {
                lines.push(format!("eth://INTERFACE  (theirs, on the link of {interface} here)"));
            }
            Place::Redes { interface } => {
                let query = &address.query;
                lines.push(format!(
                    "redes://INTERFACE{query}  (theirs, on the link of {interface} here)"
                ));
            }
            Place::Unix(_) | Place::Name(_) => lines.push(address.to_string()),
        }
    }
    lines
}
