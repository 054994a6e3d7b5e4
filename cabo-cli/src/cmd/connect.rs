//! `cabo connect`: a conversation with a program that knows nothing of cabo.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use cabo::address::Address;
use cabo::proto::dialect::Dialect;
use cabo::proto::dialect::cut::Cut;
use cabo::talk::client::{Receiver, Sender};
use cabo::talk::{Client, ClientError, Message};
use tokio::sync::mpsc;
use tracing_subscriber::filter::LevelFilter;

use super::send::failed;
use super::{Globals, block_on};
use crate::exit::{self, Failure};
use crate::show::{json, stderr, stdout};
use crate::talk::{self, DialectArgs};

const READ_BYTES: usize = 64 * 1024;
/// Pieces of stdin that wait to be sent.
const PIECES_MAX: usize = 4;

/// Talk with a program that knows nothing of cabo: from the keyboard, or in a pipe
///
/// What is typed is sent, what comes is shown. The end of stdin ends our half of the stream; the command ends when the
/// other side ends its own. Raw bytes go through as they are, other dialects line by line.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cabo connect tcp://host:5005
  printf 'hola\\n' | cabo connect tcp://host:5005
  cabo connect tcp://host --as tp0                    then type: MENSAJE text=hola")]
pub(crate) struct Args {
    /// Whom to talk with: tcp://HOST:PORT, udp://HOST:PORT, unix:///PATH
    #[arg(value_name = "URL")]
    url: String,
    #[command(flatten)]
    dialect: DialectArgs,
}

impl Args {
    pub(crate) fn run(self, globals: Globals) -> anyhow::Result<ExitCode> {
        globals.log(LevelFilter::WARN);
        let dialect = self.dialect.dialect()?;
        let address: Address = self
            .url
            .parse()
            .map_err(|error: cabo::address::AddressError| Failure::usage(error.to_string()))?;
        block_on(async move {
            let client = Client::connect(&address, dialect.clone()).await.map_err(failed)?;
            if !globals.quiet && std::io::stderr().is_terminal() {
                stderr::say(&format!("connected to {}; Ctrl-D ends", client.to()));
            }
            let (receiver, sender) = client.split();
            let typing = tokio::spawn(type_all(sender, dialect.clone()));
            show_all(receiver, &dialect, globals).await?;
            // The other side is done; what stdin still has would go nowhere.
            typing.abort();
            match typing.await {
                Ok(Err(failure)) => Err(failure.into()),
                Ok(Ok(())) | Err(_) => Ok(ExitCode::from(exit::OK)),
            }
        })
    }
}

/// Sends what stdin has, then ends our half.
async fn type_all(mut sender: Sender, dialect: Arc<Dialect>) -> Result<(), Failure> {
    let (typed, mut coming) = mpsc::channel(PIECES_MAX);
    let (is_raw, limit) = (dialect.cut == Cut::Raw, dialect.limit_bytes as u64);
    // A thread that nobody waits for: reading stdin cannot be given up.
    std::thread::spawn(move || read_stdin(&typed, is_raw, limit));
    while let Some(piece) = coming.recv().await {
        let piece = piece.map_err(ClientError::from).map_err(failed)?;
        let sent = if is_raw {
            sender.send(&piece).await.map_err(failed)
        } else {
            say(&mut sender, &dialect, &piece).await
        };
        match sent {
            Err(failure) if failure.code == exit::USAGE => stderr::say(&failure.text), // it can be typed again
            sent => sent?,
        }
    }
    sender.finish().await.map_err(ClientError::from).map_err(failed)
}

/// Reads stdin as it comes, or line by line.
fn read_stdin(typed: &mpsc::Sender<std::io::Result<Vec<u8>>>, is_raw: bool, limit: u64) {
    let mut stdin = std::io::stdin().lock();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let piece = if is_raw {
            stdin.read(&mut buffer).map(|len| buffer.get(..len).unwrap_or_default().to_vec())
        } else {
            let mut line = Vec::new();
            (&mut stdin).take(limit + 2).read_until(b'\n', &mut line).map(|_| line)
        };
        match piece {
            Ok(piece) if piece.is_empty() => return,
            Ok(mut piece) => {
                if !is_raw && piece.last() == Some(&b'\n') {
                    piece.pop();
                }
                if typed.blocking_send(Ok(piece)).is_err() {
                    return;
                }
            }
            Err(error) => {
                let _ = typed.blocking_send(Err(error)); // nobody listens any more
                return;
            }
        }
    }
}

async fn say(sender: &mut Sender, dialect: &Dialect, line: &[u8]) -> Result<(), Failure> {
    let words = if dialect.kinds.is_empty() { vec![line.to_vec()] } else { talk::words(line)? };
    let typed = talk::typed(dialect, &words)?;
    sender.send_fields(typed.kind.as_deref(), &typed.fields).await.map_err(failed)
}

/// Shows what comes until the other side ends it.
async fn show_all(
    mut receiver: Receiver,
    dialect: &Dialect,
    globals: Globals,
) -> anyhow::Result<()> {
    while let Some(message) = receiver.next().await.map_err(failed)? {
        show(&message, dialect, globals)?;
    }
    Ok(())
}

fn show(message: &Message, dialect: &Dialect, globals: Globals) -> anyhow::Result<()> {
    if globals.json {
        return Ok(json::line(&talk::as_json(message).into())?);
    }
    let mut out = stdout::raw();
    if dialect.cut == Cut::Raw && !std::io::stdout().is_terminal() {
        out.write_all(message.bytes())?;
    } else if dialect.cut == Cut::Raw {
        let lines = message.bytes().split(|byte| *byte == b'\n').map(talk::text);
        out.write_all(lines.collect::<Vec<_>>().join("\n").as_bytes())?;
    } else {
        writeln!(out, "{}", talk::shown(message))?;
    }
    out.flush()?;
    Ok(())
}
