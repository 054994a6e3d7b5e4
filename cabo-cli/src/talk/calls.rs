//! `listen --once` and `listen --exec`: clients that get stdin and stdout, or a program each.
//!
//! Neighbours: `cmd::listen` serves many clients by callbacks instead; `manner` holds each conversation.

use std::sync::Arc;

use cabo::address::Address;
use cabo::carrier::Peer;
use cabo::talk::{BindError, Callers, Client};
use serde_json::json;
use tokio::task::JoinSet;

use super::converse::Script;
use super::manner::Holding;
use super::watch::Watching;
use crate::cmd::{Globals, send::failed};
use crate::exit::{self, Failure};
use crate::show::human::escaped;
use crate::show::log::SHOWN;
use crate::show::{json as json_lines, stderr};

/// Serves one client, then ends. Nobody else is let in as soon as it is there.
pub(crate) async fn once(address: &Address, holding: &Holding) -> anyhow::Result<()> {
    let globals = holding.manner.globals;
    let callers = listen(address, holding).await?;
    let watching = holding.watching()?;
    let (client, others) = callers.next(Some(watching.watch())).await.map_err(failed)?;
    drop(others);
    tell(globals, "connected", 1, &client.to(), None)?;
    holding.hold(client, &watching, Script::default()).await
}

/// Serves everybody with a program of his own.
pub(crate) async fn each(
    addresses: &[Address],
    holding: Arc<Holding>,
    clients_max: usize,
) -> anyhow::Result<()> {
    let mut doors = JoinSet::new();
    for address in addresses {
        let callers = listen(address, &holding).await?;
        doors.spawn(next(callers, holding.watching()?));
    }
    let globals = holding.manner.globals;
    let (mut programs, mut number) = (JoinSet::new(), 0);
    loop {
        tokio::select! {
            Some(called) = doors.join_next() => {
                let (client, watching, others) = called??;
                if let Some(others) = others {
                    doors.spawn(next(others, holding.watching()?));
                }
                number += 1;
                if programs.len() >= clients_max {
                    let why = format!("there are already {clients_max}");
                    tell(globals, "refused", number, &client.to(), Some(&why))?;
                    continue;
                }
                tell(globals, "connected", number, &client.to(), None)?;
                programs.spawn(serve(client, watching, number, holding.clone()));
            }
            Some(ended) = programs.join_next() => {
                let (number, peer, why) = ended?;
                tell(globals, "closed", number, &peer, Some(&why))?;
            }
        }
    }
}

async fn listen(address: &Address, holding: &Holding) -> anyhow::Result<Callers> {
    let callers = Callers::listen(address, holding.manner.dialect.clone()).await;
    let callers = callers.map_err(cannot_listen)?;
    let globals = holding.manner.globals;
    tracing::info!(target: SHOWN, "listening on {}", callers.at());
    if globals.json {
        json_lines::line(&json!({ "event": "listening", "url": callers.at().to_string() }))?;
    } else if !globals.quiet {
        stderr::say(&format!("listening on {}; Ctrl-C ends", callers.at()));
    }
    Ok(callers)
}

/// The failure of a server that cannot listen.
pub(crate) fn cannot_listen(error: BindError) -> Failure {
    let code = if matches!(error, BindError::Address(_)) { exit::USAGE } else { exit::FAILED };
    Failure::new(code, error.to_string())
}

async fn next(
    callers: Callers,
    watching: Watching,
) -> Result<(Client, Watching, Option<Callers>), Failure> {
    let (client, others) = callers.next(Some(watching.watch())).await.map_err(failed)?;
    Ok((client, watching, others))
}

async fn serve(
    client: Client,
    watching: Watching,
    number: u64,
    holding: Arc<Holding>,
) -> (u64, Peer, String) {
    let peer = client.to();
    let held = holding.hold(client, &watching, Script::default()).await;
    (number, peer, held.err().map_or_else(|| "closed".to_owned(), |error| error.to_string()))
}

/// Says who comes and goes, as `listen` does for its other clients.
fn tell(
    globals: Globals,
    event: &str,
    number: u64,
    peer: &Peer,
    why: Option<&str>,
) -> anyhow::Result<()> {
    let sign = if event == "refused" { " refused:" } else { "" };
    let text = format!("@{number} {peer}{sign} {}", escaped(why.unwrap_or("is here")));
    tracing::info!(target: SHOWN, "{text}");
    if globals.json {
        let mut object = json!({ "event": event, "peer": number, "from": peer.to_string() });
        if let (Some(why), Some(object)) = (why, object.as_object_mut()) {
            object.insert("why".to_owned(), json!(why));
        }
        return Ok(json_lines::line(&object)?);
    }
    if !globals.quiet {
        stderr::say(&text);
    }
    Ok(())
}
