//! How a conversation is held, as `connect` and `listen` are told on the command line.
//!
//! Neighbours: `converse` holds it with stdin and stdout, `exec` with a program, `record` by a file.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cabo::proto::dialect::Dialect;
use cabo::talk::{Client, Foreign};

use super::Show;
use super::converse::{Manner, Script, converse};
use super::exec::Exec;
use super::record::Record;
use super::view::View;
use super::watch::{Files, Watching};
use crate::cmd::{Globals, relay::amount};
use crate::exit::Failure;

/// A step of a replay is waited for so long, unless said otherwise.
const REPLAY_WAIT: Duration = Duration::from_secs(5);

/// What `connect` and `listen` have in common.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ConverseArgs {
    /// How what comes is shown: raw bytes, text with escapes, or hexadecimal
    #[arg(long, value_name = "HOW")]
    pub(crate) show: Option<Show>,
    /// Run this program in the place of stdin and stdout; its words are parted at blanks, no shell looks at them
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["dialect", "config", "show", "keep_open", "wait", "replay"])]
    pub(crate) exec: Option<OsString>,
    /// The end of stdin does not end our half of the stream
    #[arg(long)]
    keep_open: bool,
    /// Leave when stdin has ended and nothing has come for so long; else when the other side ends, over UDP after 1 s
    #[arg(long, value_name = "TIME", value_parser = amount::time)]
    wait: Option<Duration>,
    /// Write what crosses the wire into a file: directions, times, hexadecimal and ASCII
    #[arg(long, value_name = "FILE")]
    dump: Option<PathBuf>,
    /// Write the conversation into a file that --replay plays
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Say what our side said in a recorded conversation, and fail where the other side answers something else
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dialect", "config", "keep_open", "idle"])]
    replay: Option<PathBuf>,
}

impl ConverseArgs {
    /// What is meant.
    pub(crate) fn meant(
        &self,
        dialect: &Arc<Dialect>,
        is_datagrams: bool,
        idle: Option<Duration>,
        globals: Globals,
    ) -> Result<Holding, Failure> {
        let exec = self.exec.as_deref().map(Exec::parse).transpose()?;
        if exec.is_some() && is_datagrams {
            let text = "--exec: a program has no way to tell datagrams apart; take tcp:// or unix:";
            return Err(Failure::usage(text));
        }
        Ok(Holding {
            manner: Manner {
                dialect: dialect.clone(),
                is_datagrams,
                idle,
                wait: self.wait,
                keep_open: self.keep_open,
                view: View::new(dialect, is_datagrams, self.show, globals)?,
                globals,
            },
            exec,
            foreign: Foreign::Here,
            replay: self.replay.as_deref().map(Record::read).transpose()?,
            files: Files { dump: self.dump.clone(), record: self.record.clone() },
        })
    }

    /// What makes no sense with many clients at once.
    pub(crate) fn needs_one(&self) -> Option<&'static str> {
        let given = [
            (self.keep_open, "--keep-open"),
            (self.wait.is_some(), "--wait"),
            (self.dump.is_some(), "--dump"),
            (self.record.is_some(), "--record"),
            (self.replay.is_some(), "--replay"),
        ];
        given.into_iter().find_map(|(is_given, name)| is_given.then_some(name))
    }
}

/// A conversation to be held.
pub(crate) struct Holding {
    pub(crate) manner: Manner,
    pub(crate) exec: Option<Exec>,
    /// Where foreign programs may come from.
    pub(crate) foreign: Foreign,
    replay: Option<Record>,
    files: Files,
}

impl Holding {
    /// Begins to look at what will cross the wire.
    pub(crate) fn watching(&self) -> Result<Watching, Failure> {
        Watching::start(&self.files)
    }

    /// The same for what may become the conversation.
    pub(crate) fn watching_aside(&self) -> Watching {
        Watching::aside(&self.files)
    }

    /// Makes the files that will be written, to see whether that can be done.
    pub(crate) fn create_files(&self) -> Result<(), Failure> {
        self.files.create()
    }

    /// Holds it to its end.
    pub(crate) async fn hold(
        &self,
        client: Client,
        watching: &Watching,
        script: Script,
    ) -> anyhow::Result<()> {
        let (manner, activity) = (&self.manner, &watching.activity);
        if let Some(exec) = &self.exec {
            exec.run(client, activity, manner.idle).await?;
        } else if let Some(record) = &self.replay {
            let wait = manner.wait.unwrap_or(REPLAY_WAIT);
            let is_quiet = manner.globals.quiet;
            let hear = |bytes: &[u8]| if is_quiet { Ok(()) } else { manner.view.bytes(bytes) };
            record.play(client, manner.is_datagrams, wait, hear).await?;
        } else {
            converse(client, manner, script, activity).await?;
        }
        Ok(watching.finish()?)
    }
}
