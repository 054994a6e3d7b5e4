//! How what happened is shown: on stdout, on stderr, and in the log.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use cabo::carrier::tls::begins_tls;
use cabo::talk::{Peer, Stats};
use serde_json::{Map, Value, json};

use super::told::{Event, Told};
use crate::cmd::Globals;
use crate::show::human::duration;
use crate::show::log::SHOWN;
use crate::show::{json as json_lines, stderr, stdout};
use crate::talk::{self, Show};

/// Shows what happens until stdout is gone.
pub(super) fn show_all(told: &Told, show_as: Option<Show>, globals: Globals) -> anyhow::Result<()> {
    while let Some(event) = told.next() {
        log(&event);
        let is_for_stdout = globals.json || matches!(event, Event::Message(..));
        let shown = || match globals.json {
            true => show_json(&event),
            false => show(&event, show_as, globals),
        };
        if is_for_stdout { stderr::above(shown)? } else { shown()? }
    }
    Ok(())
}

/// The same for the log file.
fn log(event: &Event) {
    match event {
        Event::Listening(addresses) => {
            let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            tracing::info!(target: SHOWN, "listening on {}", all.join(", "));
        }
        Event::Connected(peer) => {
            tracing::info!(target: SHOWN, "@{} {} is here", peer.number(), peer.from());
        }
        Event::Message(message, peer) => {
            if tracing::enabled!(target: SHOWN, tracing::Level::INFO) {
                let shown = talk::shown(message);
                tracing::info!(target: SHOWN, "@{} {}  {shown}", peer.number(), peer.from());
            }
        }
        Event::NotAnswered(..) => {} // a warning, which goes there anyway
        Event::Closed(peer, why) => {
            let numbers = numbers(&peer.stats());
            tracing::info!(target: SHOWN, "@{} {}: {why}; {numbers}", peer.number(), peer.from());
        }
        Event::Refused(peer, why) => {
            tracing::warn!(target: SHOWN, "@{} {} refused: {why}", peer.number(), peer.from());
        }
        Event::Lost(count) => tracing::warn!(target: SHOWN, "{}", lost(*count)),
    }
}

/// Messages go to stdout; who comes and goes is said beside it.
fn show(event: &Event, show_as: Option<Show>, globals: Globals) -> anyhow::Result<()> {
    let say = |text: String| {
        if !globals.quiet {
            stderr::say(&text);
        }
    };
    match event {
        Event::Listening(addresses) => {
            addresses
                .iter()
                .for_each(|address| say(format!("listening on {address}; Ctrl-C ends")));
        }
        Event::Connected(peer) => {
            let who = peer.fingerprint().map(|print| format!(" {print}")).unwrap_or_default();
            say(format!("@{} {}{who} is here", peer.number(), peer.from()));
        }
        Event::Message(message, peer) if show_as == Some(Show::Raw) => {
            let is_terminal = std::io::stdout().is_terminal();
            let mut out = stdout::raw();
            if is_terminal {
                write!(out, "@{} {}  ", peer.number(), peer.from())?;
            }
            out.write_all(message.bytes())?;
            if is_terminal && !message.bytes().ends_with(b"\n") {
                out.write_all(b"\n")?;
            }
            out.flush()?;
        }
        Event::Message(message, peer) => {
            if begins_tls(message.bytes()) {
                let port = "listen at tls://:PORT?cert=FILE&key=FILE to hear what it says";
                say(format!("@{} {} speaks TLS; {port}", peer.number(), peer.from()));
            }
            let mut out = stdout::styled();
            let text = match show_as {
                Some(Show::Hex) => talk::hex(message.bytes()),
                Some(Show::Text | Show::Raw) | None => talk::shown(message),
            };
            writeln!(out, "@{} {}  {text}", peer.number(), peer.from())?;
            out.flush()?;
        }
        Event::NotAnswered(peer, error) => not_answered(peer, error),
        Event::Closed(peer, why) if globals.verbose > 0 => {
            let numbers = numbers(&peer.stats());
            say(format!("@{} {}: {why}; {numbers}", peer.number(), peer.from()));
        }
        Event::Closed(peer, why) => say(format!("@{} {}: {why}", peer.number(), peer.from())),
        Event::Refused(peer, why) => {
            say(format!("@{} {} refused: {why}", peer.number(), peer.from()))
        }
        Event::Lost(count) => say(lost(*count)),
    }
    Ok(())
}

fn show_json(event: &Event) -> anyhow::Result<()> {
    let of = |name: &str, peer: &Peer| {
        let mut object = Map::new();
        object.insert("event".to_owned(), json!(name));
        object.insert("peer".to_owned(), json!(peer.number()));
        object.insert("from".to_owned(), json!(peer.from().to_string()));
        object.insert("carrier".to_owned(), json!(peer.scheme()));
        if let Some(fingerprint) = peer.fingerprint() {
            object.insert("fingerprint".to_owned(), json!(fingerprint.to_string()));
        }
        object
    };
    let because = |mut object: Map<String, Value>, why: &str| {
        object.insert("why".to_owned(), json!(why));
        object
    };
    match event {
        Event::Listening(addresses) => {
            for address in addresses {
                json_lines::line(&json!({ "event": "listening", "url": address.to_string() }))?;
            }
            return Ok(());
        }
        Event::Connected(peer) => json_lines::line(&of("connected", peer).into())?,
        Event::Message(message, peer) => {
            let mut object = of("message", peer);
            object.extend(talk::as_json(message));
            json_lines::line(&object.into())?;
        }
        Event::NotAnswered(peer, error) => not_answered(peer, error),
        Event::Closed(peer, why) => {
            let mut object = because(of("closed", peer), why);
            object.extend(numbers_json(&peer.stats()));
            json_lines::line(&object.into())?;
        }
        Event::Lost(count) => json_lines::line(&json!({ "event": "lost", "count": count }))?,
        Event::Refused(peer, why) => json_lines::line(&because(of("refused", peer), why).into())?,
    }
    Ok(())
}

fn not_answered(peer: &Peer, error: &str) {
    tracing::warn!("@{} {} was not answered: {error}", peer.number(), peer.from());
}

fn lost(count: u64) -> String {
    format!(
        "{count} times somebody came, spoke by a datagram, left or was refused that are not shown: too many at once"
    )
}

/// What was said both ways, and when.
pub(super) fn numbers(stats: &Stats) -> String {
    let ago = |at: Instant| duration(at.elapsed());
    let said = |messages: u64, bytes: u64| format!("{messages} messages, {bytes} bytes");
    let from_it = said(stats.received_messages, stats.received_bytes);
    let to_it = said(stats.sent_messages, stats.sent_bytes);
    let refused = match stats.refused_messages {
        0 => String::new(),
        count => format!(", {count} messages not taken or not answered"),
    };
    let heard = stats.last_heard.map(|at| format!(", heard {} ago", ago(at))).unwrap_or_default();
    format!("from it {from_it}{refused}; to it {to_it}; came {} ago{heard}", ago(stats.since))
}

fn numbers_json(stats: &Stats) -> Map<String, Value> {
    let seconds = |time: Duration| (time.as_secs_f64() * 1000.0).round() / 1000.0;
    let numbers = [
        ("received_messages", json!(stats.received_messages)),
        ("received_bytes", json!(stats.received_bytes)),
        ("sent_messages", json!(stats.sent_messages)),
        ("sent_bytes", json!(stats.sent_bytes)),
        ("refused_messages", json!(stats.refused_messages)),
        ("seconds", json!(seconds(stats.since.elapsed()))),
        ("silent_seconds", json!(stats.last_heard.map(|at| seconds(at.elapsed())))),
    ];
    numbers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
