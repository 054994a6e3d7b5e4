//! `listen --once` and `listen --exec`: clients that get stdin and stdout, or a program each.
//!
//! Neighbours: `cmd::listen` serves many clients by callbacks instead; `manner` holds each conversation.

use std::sync::Arc;

use cabo::address::Address;
use cabo::carrier::Peer;
use cabo::talk::{BindError, Call, Callers, Closed, PlaceError};
use serde_json::json;
use tokio::task::JoinSet;

use super::converse::Script;
use super::manner::Holding;
use super::{DialectArgs, failed};
use crate::cmd::Globals;
use crate::exit::{self, Failure};
use crate::show::human::escaped;
use crate::show::log::SHOWN;
use crate::show::{json as json_lines, stderr};

/// What lets in whoever was refused for where he is.
pub(crate) const ELSEWHERE_REMEDY: &str = "; --open lets in anyone, --from a network";

/// Serves one client, then ends. Nobody else is let in as soon as it is there.
pub(crate) async fn once(address: &Address, holding: &Holding) -> anyhow::Result<()> {
    let globals = holding.manner.globals;
    let mut callers = listen(address, holding).await?;
    for number in 1.. {
        let watching = holding.watching()?;
        let (call, others) = callers.next().await.map_err(failed)?;
        let from = call.from();
        if !holding.foreign.admits(&from) {
            tell_elsewhere(globals, number, &from)?;
            callers = match others {
                Some(others) => others,
                None => listen(address, holding).await?,
            };
            continue;
        }
        match (call.answer(Some(watching.watch())).await, others) {
            (Ok(client), others) => {
                drop(others);
                tell(globals, "connected", number, &from, None)?;
                return holding.hold(client, &watching, Script::default()).await;
            }
            (Err(error), None) => return Err(failed(error).into()),
            (Err(error), Some(others)) => {
                tell(globals, "refused", number, &from, Some(&error.to_string()))?;
                callers = others;
            }
        }
    }
    Ok(())
}

/// Serves everybody with a program of his own.
pub(crate) async fn each(
    addresses: &[Address],
    holding: Arc<Holding>,
    clients_max: usize,
) -> anyhow::Result<()> {
    let mut doors = JoinSet::new();
    for address in addresses {
        doors.spawn(listen(address, &holding).await?.next());
    }
    let globals = holding.manner.globals;
    let (mut programs, mut number) = (JoinSet::new(), 0);
    loop {
        tokio::select! {
            Some(called) = doors.join_next() => {
                let (call, others) = called?.map_err(failed)?;
                if let Some(others) = others {
                    doors.spawn(others.next());
                }
                number += 1;
                if !holding.foreign.admits(&call.from()) {
                    tell_elsewhere(globals, number, &call.from())?;
                    continue;
                }
                if programs.len() >= clients_max {
                    let why = format!("there are already {clients_max}");
                    tell(globals, "refused", number, &call.from(), Some(&why))?;
                    continue;
                }
                programs.spawn(serve(call, number, holding.clone()));
            }
            Some(ended) = programs.join_next() => ended??,
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

/// Says where no cabo peer can come; an error where nobody else is meant to.
pub(crate) fn tell_foreign_alone(
    places: &[Address],
    dialect: &DialectArgs,
    globals: Globals,
) -> Result<(), Failure> {
    for address in places {
        let text = format!("cabo peers cannot come to {address}: a session is with one host");
        if dialect.is_cabo(address) {
            return Err(Failure::usage(text));
        }
        tracing::info!(target: SHOWN, "{text}");
        if !globals.quiet {
            stderr::say(&text);
        }
    }
    Ok(())
}

/// The failure of a server that cannot listen.
pub(crate) fn cannot_listen(error: BindError) -> Failure {
    let is_usage =
        matches!(error, BindError::Address(_) | BindError::Place(PlaceError::Address(_)));
    let code = if is_usage { exit::USAGE } else { exit::FAILED };
    Failure::new(code, error.to_string())
}

/// Fails where nobody can be told of it any more.
async fn serve(call: Call, number: u64, holding: Arc<Holding>) -> anyhow::Result<()> {
    let (globals, from) = (holding.manner.globals, call.from());
    let watching = holding.watching()?;
    let client = match call.answer(Some(watching.watch())).await {
        Ok(client) => client,
        Err(error) => return tell(globals, "refused", number, &from, Some(&error.to_string())),
    };
    tell(globals, "connected", number, &from, None)?;
    let held = holding.hold(client, &watching, Script::default()).await;
    let why = held.err().map_or_else(|| "closed".to_owned(), |error| error.to_string());
    tell(globals, "closed", number, &from, Some(&why))
}

/// Says who was not let in because of where he is.
fn tell_elsewhere(globals: Globals, number: u64, peer: &Peer) -> anyhow::Result<()> {
    let why = format!("{}{ELSEWHERE_REMEDY}", Closed::Elsewhere);
    tell(globals, "refused", number, peer, Some(&why))
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
