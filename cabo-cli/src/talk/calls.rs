//! `listen --once` and `listen --exec`: clients that get stdin and stdout, or a program each.
//!
//! Neighbours: `cmd::listen` serves many clients by callbacks instead; `manner` holds each conversation.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use cabo::address::Address;
use cabo::carrier::Peer;
use cabo::talk::{BindError, Call, Callers, Client, ClientError, Closed, PlaceError};
use serde_json::json;
use tokio::task::{AbortHandle, JoinSet};

use super::converse::Script;
use super::manner::Holding;
use super::watch::Watching;
use super::{DialectArgs, failed};
use crate::cmd::Globals;
use crate::exit::{self, Failure};
use crate::show::human::escaped;
use crate::show::log::SHOWN;
use crate::show::{json as json_lines, stderr};

/// What lets in whoever was refused for where he is.
pub(crate) const ELSEWHERE_REMEDY: &str = "; --open lets in anyone, --from a network";

/// Callers whose handshake and first words are awaited at once. One more takes the place of who has been at it longest: who
/// is honest has done it long before.
const ANSWERING_MAX: usize = 64;

/// Whoever calls next, and the door for others.
type Calling = Pin<Box<dyn Future<Output = Result<(Call, Option<Callers>), ClientError>> + Send>>;

/// Serves the first client that gets through its handshake and first words, then ends. Nobody else is let in as soon as it
/// is there.
pub(crate) async fn once(address: &Address, holding: &Holding) -> anyhow::Result<()> {
    let globals = holding.manner.globals;
    holding.create_files()?;
    let mut calling: Calling = Box::pin(listen(address, holding).await?.next());
    let mut answering = Answering::default();
    let mut number = 0;
    loop {
        tokio::select! {
            biased; // whoever is through is served before another is listened to
            Some((number, from, answered)) = answering.next() => match answered {
                Ok((client, watching)) => {
                    drop((calling, answering));
                    tell(globals, "connected", number, &from, None)?;
                    watching.write()?;
                    return holding.hold(client, &watching, Script::default()).await;
                }
                Err(why) => tell(globals, "refused", number, &from, Some(&why))?,
            },
            called = &mut calling => {
                let (call, others) = called.map_err(failed)?;
                number += 1;
                let from = call.from();
                if holding.foreign.admits(&from) {
                    answering.begin(call, number, holding.watching_aside());
                    calling = match others {
                        Some(others) => Box::pin(others.next()),
                        None => Box::pin(std::future::pending()), // it has the socket
                    };
                } else {
                    tell_elsewhere(globals, number, &from)?;
                    let others = match others {
                        Some(others) => others,
                        None => listen(address, holding).await?,
                    };
                    calling = Box::pin(others.next());
                }
            }
        }
    }
}

/// What became of an answer: a conversation and who looks at it, or why there is none.
type Answered = Result<(Client, Watching), String>;

/// Those who are being answered.
#[derive(Default)]
struct Answering {
    tasks: JoinSet<(u64, Peer, Answered)>,
    /// The oldest first; those that are done among them.
    begun: VecDeque<(u64, Peer, AbortHandle)>,
    crowded_out: Option<(u64, Peer)>,
}

impl Answering {
    fn begin(&mut self, call: Call, number: u64, watching: Watching) {
        self.begun.retain(|(_, _, task)| !task.is_finished());
        if self.begun.len() >= ANSWERING_MAX
            && let Some((number, from, task)) = self.begun.pop_front()
        {
            task.abort();
            self.crowded_out = Some((number, from));
        }
        let from = call.from();
        let task = self.tasks.spawn(async move {
            let answered = call.answer(Some(watching.watch())).await;
            let answered = answered.map(|client| (client, watching));
            (number, from, answered.map_err(|error| error.to_string()))
        });
        self.begun.push_back((number, from, task));
    }

    /// The next that is done; none while nobody is answered.
    async fn next(&mut self) -> Option<(u64, Peer, Answered)> {
        if let Some((number, from)) = self.crowded_out.take() {
            return Some((number, from, Err("too many others call at once".to_owned())));
        }
        loop {
            match self.tasks.join_next().await? {
                Ok(answered) => return Some(answered),
                Err(error) => tracing::debug!(%error, "an answer was given up"),
            }
        }
    }
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
                    let why = Closed::TooMany(clients_max).to_string();
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
    let sign = match event {
        "refused" => " refused:",
        "closed" => ":",
        _ => "",
    };
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
