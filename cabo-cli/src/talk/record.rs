//! A conversation in a file, one line a piece, and its replay: our side is said again, theirs is compared.
//!
//! ```text
//! # bytes that are no printable ASCII are \n \r \t \0 \\ \" \' or \xNN; the seconds may be left out
//! > 0.000131 "hola\n"
//! < 0.000984 "ECHO: hola\n"
//! # the ends of both halves
//! > 0.001022 end
//! < 0.001313 end
//! ```
//!
//! Over a stream their pieces are compared joined, for a stream has no pieces; datagrams one by one. Neighbour: `watch`
//! writes the file.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use cabo::config::read_named;
use cabo::talk::client::Receiver;
use cabo::talk::{Client, ClientError, Seen};
use tokio::time::timeout;

use super::failed;
use super::watch::Page;
use crate::exit::{self, Failure};
use crate::show::human::escaped;

/// The first line of a file.
pub(super) const HEAD: &str = "# a conversation: > we said, < they said, in seconds since its first piece; \
                              `cabo connect --replay` plays it\n";
/// A file that is played is held in memory.
const FILE_MAX_BYTES: u64 = 64 << 20;
/// Bytes of a piece that an error shows.
const SHOWN_BYTES: usize = 60;

/// What stands in the record of one piece.
pub(super) fn note(page: &mut Page, seen: Seen<'_>) -> String {
    let seconds = page.elapsed().as_secs_f64();
    match seen {
        Seen::Sent(bytes) => format!("> {seconds:.6} \"{}\"\n", bytes.escape_ascii()),
        Seen::Received(bytes) => format!("< {seconds:.6} \"{}\"\n", bytes.escape_ascii()),
        Seen::SentEnd => format!("> {seconds:.6} end\n"),
        Seen::ReceivedEnd => format!("< {seconds:.6} end\n"),
    }
}

/// What a line says.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Step {
    Say(Vec<u8>),
    Hear(Vec<u8>),
    End,
    HearEnd,
}

/// A record to be played, each step with its line.
#[derive(Debug)]
pub(crate) struct Record {
    name: String,
    steps: Vec<(usize, Step)>,
}

impl Record {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let name = escaped(&path.display().to_string());
        let failed = |error: &dyn Display| Failure::usage(format!("--replay {name}: {error}"));
        let bytes = read_named(path, FILE_MAX_BYTES).map_err(|error| failed(&error))?;
        let text = String::from_utf8(bytes).map_err(|_| failed(&"is not text in UTF-8"))?;
        let steps = parse(&text).map_err(|(line, problem)| {
            Failure::usage(format!("--replay {name}, line {line}: {problem}"))
        })?;
        Ok(Self { name, steps })
    }

    /// Says our side and compares theirs; each piece of theirs is waited for so long. `hear` is given what comes.
    pub(crate) async fn play(
        &self,
        client: Client,
        is_datagrams: bool,
        wait: Duration,
        mut hear: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (mut receiver, mut sender) = client.split();
        let mut heard = Heard::default();
        for (line, step) in &self.steps {
            let wrong = |code, problem: String| {
                Failure::new(code, format!("{}, line {line}: {problem}", self.name))
            };
            match step {
                Step::Say(bytes) => match timeout(wait, sender.send(bytes)).await {
                    Ok(sent) => sent.map_err(failed)?,
                    Err(_) => {
                        let problem = format!("this was not taken within {wait:?}");
                        return Err(wrong(exit::UNREACHABLE, problem).into());
                    }
                },
                Step::End => sender.finish().await.map_err(ClientError::from).map_err(failed)?,
                Step::Hear(wanted) => {
                    while heard.needs_more(wanted, is_datagrams) {
                        let came = heard.more(&mut receiver, wait).await;
                        hear(came.map_err(|(code, why)| {
                            wrong(code, format!("expected {}, and {why}", quoted(wanted)))
                        })?)?;
                    }
                    heard
                        .take(wanted, is_datagrams)
                        .map_err(|problem| wrong(exit::FAILED, problem))?;
                }
                Step::HearEnd if is_datagrams => {}
                Step::HearEnd => {
                    if let Ok(more) = heard.more(&mut receiver, wait).await {
                        hear(more)?;
                    }
                    if !heard.is_ended {
                        let problem = match heard.bytes.as_slice() {
                            [] => format!("expected the end, which did not come within {wait:?}"),
                            more => format!("expected the end, and got {}", quoted(more)),
                        };
                        return Err(wrong(exit::FAILED, problem).into());
                    }
                }
            }
        }
        Ok(())
    }
}

/// What has come and was not compared yet.
#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    pieces: usize,
    is_ended: bool,
}

impl Heard {
    fn needs_more(&self, wanted: &[u8], is_datagrams: bool) -> bool {
        if is_datagrams {
            return self.pieces == 0;
        }
        self.bytes.len() < wanted.len() && wanted.starts_with(&self.bytes)
    }

    /// The next piece.
    async fn more(
        &mut self,
        receiver: &mut Receiver,
        wait: Duration,
    ) -> Result<&[u8], (u8, String)> {
        match timeout(wait, receiver.next()).await {
            Ok(Ok(Some(message))) => {
                let before = self.bytes.len();
                self.bytes.extend_from_slice(message.bytes());
                self.pieces += 1;
                Ok(self.bytes.get(before..).unwrap_or_default())
            }
            Ok(Ok(None)) => {
                self.is_ended = true;
                Err((exit::FAILED, "the other side ended".to_owned()))
            }
            Ok(Err(error)) => Err((exit::UNREACHABLE, error.to_string())),
            Err(_) => Err((exit::UNREACHABLE, format!("nothing came within {wait:?}"))),
        }
    }

    /// Takes what was wanted, if that is what came.
    fn take(&mut self, wanted: &[u8], is_datagrams: bool) -> Result<(), String> {
        let is_right =
            if is_datagrams { self.bytes == wanted } else { self.bytes.starts_with(wanted) };
        if !is_right {
            return Err(format!("expected {}, got {}", quoted(wanted), quoted(&self.bytes)));
        }
        self.bytes.drain(..wanted.len());
        self.pieces = 0;
        Ok(())
    }
}

fn quoted(bytes: &[u8]) -> String {
    let dots = if bytes.len() > SHOWN_BYTES { ".." } else { "" };
    let begin = bytes.get(..SHOWN_BYTES).unwrap_or(bytes);
    format!("\"{}{dots}\"", begin.escape_ascii())
}

fn parse(text: &str) -> Result<Vec<(usize, Step)>, (usize, &'static str)> {
    let mut steps = Vec::new();
    let (mut is_said, mut is_heard) = (false, false);
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let step = parse_line(line).map_err(|problem| (line_number, problem))?;
        let is_over = match &step {
            Step::Say(_) => is_said,
            Step::End => std::mem::replace(&mut is_said, true),
            Step::Hear(_) => is_heard,
            Step::HearEnd => std::mem::replace(&mut is_heard, true),
        };
        if is_over {
            return Err((line_number, "that side has ended its half in a line above"));
        }
        steps.push((line_number, step));
    }
    Ok(steps)
}

fn parse_line(line: &str) -> Result<Step, &'static str> {
    let (is_ours, rest) = match line.split_at_checked(1) {
        Some((">", rest)) => (true, rest.trim_start()),
        Some(("<", rest)) => (false, rest.trim_start()),
        Some(_) | None => return Err("a line begins with >, < or #"),
    };
    let (word, behind) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let rest = match word.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds >= 0.0 => behind.trim_start(),
        Ok(_) => return Err("a time is a number of seconds, from 0 on"),
        Err(_) => rest,
    };
    if rest == "end" {
        return Ok(if is_ours { Step::End } else { Step::HearEnd });
    }
    let inner = rest.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let bytes =
        unescape(inner.ok_or("what was said stands in double quotes, or is the word end")?)?;
    Ok(if is_ours { Step::Say(bytes) } else { Step::Hear(bytes) })
}

fn unescape(text: &str) -> Result<Vec<u8>, &'static str> {
    const UNKNOWN: &str = "a backslash begins \\n \\r \\t \\0 \\\\ \\\" \\' or \\xNN";
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'\\' => match rest.next() {
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(b'0') => 0,
                Some(sign @ (b'\\' | b'"' | b'\'')) => sign,
                Some(b'x') => {
                    let mut digit = || char::from(rest.next()?).to_digit(16);
                    let (high, low) = (digit().ok_or(UNKNOWN)?, digit().ok_or(UNKNOWN)?);
                    u8::try_from(high << 4 | low).map_err(|_| UNKNOWN)?
                }
                Some(_) | None => return Err(UNKNOWN),
            },
            b'"' => return Err("a double quote inside is written \\\""),
            byte => byte,
        };
        bytes.push(byte);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_comes_back_from_a_line() {
        let all: Vec<u8> = (0..=255).collect();
        let line = format!("> 0.000131 \"{}\"", all.escape_ascii());
        assert_eq!(parse_line(&line), Ok(Step::Say(all)));
        assert_eq!(parse_line("< \"ol\u{e1}\""), Ok(Step::Hear("ol\u{e1}".into())));
        assert_eq!(parse_line("<  1.5  end"), Ok(Step::HearEnd));
        assert_eq!(parse_line(">end"), Ok(Step::End));
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        for bad in
            ["hola", "> hola", "> \"a", "> \"\\q\"", "> \"\\x4\"", "> \"a\"b\"", ">", "\u{e1}"]
        {
            let text = format!("# remark\n\n{bad}\n");
            assert!(matches!(parse(&text), Err((3, _))), "{bad}");
        }
        for bad in ["> -1 \"a\"", "< nan end", "> inf end"] {
            let problem = "a time is a number of seconds, from 0 on";
            assert_eq!(parse(bad), Err((1, problem)), "{bad}");
        }
        for bad in ["> end\n< \"b\"\n> \"a\"", "> end\n< end\n> end", "< end\n\n< \"a\""] {
            assert!(matches!(parse(bad), Err((3, _))), "{bad}");
        }
    }
}
