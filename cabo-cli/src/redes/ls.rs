//! `cabo ls redes://`: the names of a link, numbered as its programs number them.

use std::io::Write as _;
use std::process::ExitCode;

use cabo::address::{Address, Item};
use cabo::redes::fetch;
use cabo::service::media::ItemPath;
use serde_json::json;

use super::{Asked, failure, on_link};
use crate::cmd::Globals;
use crate::exit::{self, Failure};
use crate::show::{json, stderr, stdout};

/// Lists what the server of a link has.
pub(crate) async fn run(asked: Asked, globals: Globals) -> anyhow::Result<ExitCode> {
    if asked.name.is_some() {
        let text = format!("{}: there are no folders on a redes link", asked.address);
        return Err(Failure::usage(text).into());
    }
    let (link, settings) = (asked.open()?, asked.options.settings);
    let names = on_link(link, move |link| fetch::list(link, settings)).await?;
    let mut names = names.map_err(|error| failure(&asked.address, &error))?;
    names.sort_unstable();
    if names.is_empty() && !globals.json {
        stderr::say("nothing is there");
    }
    let width = names.len().to_string().len();
    let mut out = stdout::styled();
    for (number, name) in (1..).zip(&names) {
        if globals.json {
            let item = Item::from_path(name).ok();
            let url = item.map(|item| Address { item, ..asked.address.clone() }.to_string());
            let event = json!({"number": number, "name": shown(name), "url": url});
            json::line(&event)?;
        } else {
            writeln!(out, "[{number:>width$}] {}", shown(name))?;
        }
    }
    out.flush()?;
    Ok(ExitCode::from(exit::OK))
}

/// A name that cannot drive a terminal; one that no file here could have, roughly.
pub(super) fn shown(name: &[u8]) -> String {
    match ItemPath::new(name) {
        Ok(path) => path.to_string(),
        Err(_) => name.escape_ascii().to_string(),
    }
}
