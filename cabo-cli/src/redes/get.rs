//! `cabo get redes://`: a file of a link, or all of them, one after the other.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cabo::redes::Settings;
use cabo::redes::fetch::{self, Fetched, Link};
use cabo::service::media::{ItemPath, Target};
use serde_json::json;

use super::ls::shown;
use super::{Asked, failure, on_link};
use crate::cmd::Globals;
use crate::cmd::get::{folder_and, open_target};
use crate::exit::{self, Failure};
use crate::show::progress::Bar;
use crate::show::{human, json, stdout};

/// Where files go.
pub(crate) struct Output {
    /// The folder.
    pub(crate) folder: PathBuf,
    /// The name there, where it is another one.
    pub(crate) name: Option<ItemPath>,
    /// Whether the folder may be made.
    pub(crate) may_make: bool,
}

/// Fetches what is asked for; all that there is, one after the other, with `is_all`.
pub(crate) async fn run(
    asked: Asked,
    output: Output,
    is_all: bool,
    globals: Globals,
) -> anyhow::Result<ExitCode> {
    let settings = asked.options.settings;
    let name = asked.name.clone();
    let is_clear = name.is_some() != is_all;
    let name = name.unwrap_or_default();
    if !is_clear {
        let text = format!(
            "{}: {} `cabo ls` lists them, --all gets them all",
            asked.address,
            exit::WHICH_ITEM
        );
        return Err(Failure::usage(text).into());
    }
    let target = open_target(&output.folder, output.may_make)?;
    let link = asked.open()?;
    let bar = Bar::new(
        if is_all { asked.address.to_string() } else { shown(&name) },
        !globals.quiet && !globals.json,
    );
    let bar = Arc::new(bar);
    let job = Job { settings, target, bar: Arc::clone(&bar), output, globals };
    let result = on_link(link, move |link| job.run(link, name, is_all)).await?;
    bar.end();
    let result = result.map_err(|error| {
        error
            .downcast::<fetch::RedesError>()
            .map_or_else(|error| error, |error| failure(&asked.address, &error).into())
    });
    result.map(|()| ExitCode::from(exit::OK))
}

struct Job {
    settings: Settings,
    target: Arc<Target>,
    bar: Arc<Bar>,
    output: Output,
    globals: Globals,
}

impl Job {
    fn run(&self, link: &mut Link, name: Vec<u8>, is_all: bool) -> anyhow::Result<()> {
        let names = if is_all { fetch::list(link, self.settings)? } else { vec![name] };
        names.iter().try_for_each(|name| self.get(link, name))
    }

    fn get(&self, link: &mut Link, name: &[u8]) -> anyhow::Result<()> {
        let bad = |why: &str| Failure::new(exit::FAILED, format!("{}: {why}", shown(name)));
        let own = ItemPath::new(name).map_err(|error| bad(&error.to_string()))?;
        if own.as_bytes().contains(&b'/') {
            return Err(bad("the server names a folder of ours").into());
        }
        let place = self.output.name.as_ref().unwrap_or(&own);
        let started = Instant::now();
        let mut tell = |here, resumed, total| self.bar.set(here, resumed, total);
        let got = fetch::fetch(link, self.settings, name, &self.target, place, &mut tell)?;
        self.print(&own, place, &got, started.elapsed())
    }

    fn print(
        &self,
        name: &ItemPath,
        place: &ItemPath,
        got: &Fetched,
        time: Duration,
    ) -> anyhow::Result<()> {
        let path = folder_and(&self.output.folder, place);
        let modified = human::escaped(&String::from_utf8_lossy(&got.modified));
        let moved = got.size - got.resumed;
        if self.globals.json {
            return Ok(json::line(&json!({
                "event": "fetched",
                "name": name.to_string(),
                "path": path.to_string_lossy(),
                "bytes": got.size,
                "resumed_bytes": got.resumed,
                "modified": modified,
                "seconds": time.as_secs_f64(),
            }))?);
        }
        if self.globals.quiet {
            return Ok(());
        }
        self.bar.end();
        let resumed = match got.resumed {
            0 => String::new(),
            bytes => format!(", {} of it were here", human::size(bytes)),
        };
        let modified =
            if modified.is_empty() { modified } else { format!(", modified {modified}") };
        let mut out = stdout::styled();
        writeln!(
            out,
            "{}: {} in {} ({}){modified}{resumed}",
            human::escaped(&path.to_string_lossy()),
            human::size(got.size),
            human::duration(time),
            human::rate(moved, time),
        )?;
        Ok(out.flush()?)
    }
}
