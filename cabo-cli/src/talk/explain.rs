//! `--explain`: one line a system call, on stderr for a person; one object a call, among the others on stdout, for a
//! machine.
//!
//! What is told is `cabo::carrier::calls`' to know; here it is only set.

use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use cabo::carrier::calls::{self, Call};
use serde_json::{Value, json};

use crate::cmd::Globals;
use crate::show::human::escaped;
use crate::show::{json as json_lines, stderr};

const FAINT: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();
const FAILED: Style = AnsiColor::Red.on_default().bold();
const WIRE: Style = AnsiColor::Cyan.on_default();
/// Columns of most calls; longer ones push the words about the wire to the right.
const CALL_COLUMNS: usize = 42;

#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct ExplainArgs {
    /// Tell of each system call on stderr: its descriptor, its result, and what it put on the wire
    #[arg(long)]
    explain: bool,
}

impl ExplainArgs {
    /// Begins to tell, if that was asked for. Sockets that are open already are not told of.
    pub(crate) fn begin(self, globals: Globals) {
        if !self.explain {
            return;
        }
        let begun = Instant::now();
        calls::watch(move |call| {
            let since = begun.elapsed();
            if globals.json {
                let _ = json_lines::line(&object(call, since)); // the command itself notices that stdout is gone
            } else {
                stderr::say(&line(call, since));
            }
        });
    }
}

/// `  0.000123  bind(4, 127.0.0.1:5005) = 0    nothing on the wire; ..`
fn line(call: &Call, since: Duration) -> String {
    let arguments = escaped(&call.arguments);
    let (result, style) = match (call.result, call.error()) {
        (_, Some(error)) if error == "EINPROGRESS" => (format!(" = {error}"), Style::new()),
        (_, Some(error)) => (format!(" = {error}"), FAILED),
        (Some(Ok(value)), None) => (format!(" = {value}"), Style::new()),
        (Some(Err(_)) | None, None) => (String::new(), Style::new()),
    };
    let columns = call.name.len() + arguments.chars().count() + 2 + result.len();
    format!(
        "{FAINT}{:>10.6}{FAINT:#}  {BOLD}{}{BOLD:#}({arguments}){style}{result}{style:#}{:gap$}  \
         {WIRE}{}{WIRE:#}",
        since.as_secs_f64(),
        call.name,
        "",
        escaped(&call.wire),
        gap = CALL_COLUMNS.saturating_sub(columns),
    )
}

fn object(call: &Call, since: Duration) -> Value {
    json!({
        "event": "call",
        "seconds": since.as_secs_f64(),
        "call": call.name,
        "descriptor": call.descriptor,
        "arguments": call.arguments,
        "result": call.result.and_then(Result::ok),
        "error": call.error(),
        "wire": call.wire,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_a_line_for_people_and_an_object_for_machines() {
        let bind = Call {
            name: "bind",
            descriptor: Some(4),
            arguments: "4, \u{1b}[2J".into(),
            result: Some(Err(98)),
            wire: "nothing on the wire".into(),
        };
        let text =
            anstream::adapter::strip_str(&line(&bind, Duration::from_micros(1250))).to_string();
        let wanted =
            format!("  0.001250  {:<42}  nothing on the wire", "bind(4, \\u{1b}[2J) = EADDRINUSE");
        assert_eq!(text, wanted);
        let object = object(&bind, Duration::ZERO);
        assert_eq!((&object["error"], &object["result"]), (&json!("EADDRINUSE"), &Value::Null));
    }
}
