//! How what comes is shown, by `connect`, `send`, and `listen --once`: bytes as they are into a pipe, text on a terminal,
//! JSON where that is asked for.
//!
//! Neighbours: `converse`, `record` and `cmd::send` say what came; `show::stdout` knows where the cursor stands.

use std::io::{IsTerminal as _, Write as _};

use cabo::carrier::Peer;
use cabo::proto::dialect::cut::Cut;
use cabo::proto::dialect::{Dialect, PAYLOAD};
use cabo::talk::Message;
use serde_json::json;

use super::{Show, as_json, bytes_json, hex, shown, text};
use crate::cmd::Globals;
use crate::exit::Failure;
use crate::show::log::SHOWN;
use crate::show::{json as json_lines, stdout};

/// How messages are shown.
#[derive(Clone, Debug)]
pub(crate) struct View {
    show: Option<Show>,
    is_json: bool,
    /// Whether the bytes are shown, rather than what they say in the dialect.
    is_bytes: bool,
    /// Whether each piece is a message of its own, which gets its own line on a terminal.
    is_apart: bool,
    is_terminal: bool,
}

impl View {
    /// What suits a dialect and where stdout goes; `show` is what was asked for.
    pub(crate) fn new(
        dialect: &Dialect,
        is_datagrams: bool,
        show: Option<Show>,
        globals: Globals,
    ) -> Result<Self, Failure> {
        let show = one_manner(show, globals)?;
        Ok(Self {
            show,
            is_json: globals.json,
            is_bytes: dialect.cut == Cut::Raw || show.is_some_and(|show| show != Show::Text),
            // A dialect with words to leave by is one whose lines are typed: each piece is what somebody said.
            is_apart: is_datagrams || !dialect.leave.is_empty(),
            is_terminal: std::io::stdout().is_terminal(),
        })
    }

    /// Shows a message.
    pub(crate) fn message(&self, message: &Message, from: Option<Peer>) -> anyhow::Result<()> {
        if tracing::enabled!(target: SHOWN, tracing::Level::INFO) {
            tracing::info!(target: SHOWN, "{}", shown(message));
        }
        if self.is_json {
            let mut object = as_json(message);
            if let Some(from) = from {
                object.insert("from".to_owned(), json!(from.to_string()));
            }
            return Ok(json_lines::line(&object.into())?);
        }
        if self.is_bytes {
            return self.plain(message.bytes());
        }
        let mut out = stdout::raw();
        writeln!(out, "{}", shown(message))?;
        Ok(out.flush()?)
    }

    /// Shows what has no dialect.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> anyhow::Result<()> {
        if self.is_json {
            return Ok(json_lines::line(&json!({ "fields": { PAYLOAD: bytes_json(bytes) } }))?);
        }
        self.plain(bytes)
    }

    /// As it is, where nobody says otherwise and stdout is no terminal.
    fn plain(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut out = stdout::raw();
        match self.show {
            Some(Show::Hex) => writeln!(out, "{}", hex(bytes))?,
            Some(Show::Raw) => out.write_all(bytes)?,
            None if !self.is_terminal => out.write_all(bytes)?,
            Some(Show::Text) | None => {
                let lines = bytes.split(|byte| *byte == b'\n').map(text);
                out.write_all(lines.collect::<Vec<_>>().join("\n").as_bytes())?;
            }
        }
        out.flush()?;
        drop(out);
        if self.is_terminal && self.show != Some(Show::Hex) {
            self.mind_the_line(bytes)?;
        }
        Ok(())
    }

    /// Ends the line of a message that has not done so, and remembers where the cursor of a stream stands.
    fn mind_the_line(&self, bytes: &[u8]) -> anyhow::Result<()> {
        if let Some(last) = bytes.last() {
            stdout::stands_in_line(*last != b'\n');
        } else if self.is_apart {
            stdout::stands_in_line(true); // an empty message is a line, too
        }
        if self.is_apart && self.show != Some(Show::Raw) {
            stdout::end_line()?;
        }
        Ok(())
    }
}

/// JSON has one shape: how else it were to be shown would be forgotten.
pub(crate) fn one_manner(show: Option<Show>, globals: Globals) -> Result<Option<Show>, Failure> {
    match show {
        Some(_) if globals.json => {
            Err(Failure::usage("--show and --json each say how messages are shown: give one"))
        }
        Some(_) | None => Ok(show),
    }
}
