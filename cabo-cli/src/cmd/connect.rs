//! `cabo connect`: a conversation with a program that knows nothing of cabo.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cabo::address::{Address, Place};
use cabo::proto::dialect::Dialect;
use cabo::proto::dialect::cut::Cut;
use cabo::talk::client::{Receiver, Sender};
use cabo::talk::{Client, ClientError, Message};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing_subscriber::filter::LevelFilter;

use super::send::failed;
use super::{Globals, block_on};
use crate::exit::{self, Failure};
use crate::show::log::{LogArgs, SHOWN};
use crate::show::{json, stderr, stdout};
use crate::talk::config::{ConfigArgs, Gathered};
use crate::talk::explain::ExplainArgs;
use crate::talk::{self, DialectArgs, Typed};

const READ_BYTES: usize = 64 * 1024;
/// What names and quotes may add to a message that is typed.
const NAMES_BYTES: usize = 64 * 1024;
/// Datagrams have no end: when all of stdin is sent, answers are shown until none has come for so long.
const SILENCE_TIME: Duration = Duration::from_secs(1);
/// Pieces of stdin that wait to be sent.
const PIECES_MAX: usize = 4;

/// Talk with a program that knows nothing of cabo: from the keyboard, or in a pipe
///
/// What is typed is sent, what comes is shown. The end of stdin ends our half of the stream; the command ends when the
/// other side ends its own, over UDP when it has been silent for 1 s. Raw bytes go through as they are, other dialects
/// line by line.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cabo connect tcp://host:5005
  printf 'hola\\n' | cabo connect tcp://host:5005
  cabo connect tcp://host --as chat                   line by line, until Ctrl-D, Ctrl+X or /sair
  cabo connect tcp://host --as tp0                    then type: MENSAJE text=hola
  cabo connect tcp://host:5005 --explain              each system call, and what it put on the wire
  cabo connect --as tp0 --config cliente.config       CLAVE, then all lines up to an empty one, as its own client")]
pub(crate) struct Args {
    /// Whom to talk with: tcp://HOST:PORT, udp://HOST:PORT, unix:///PATH
    #[arg(value_name = "URL", required_unless_present = "config")]
    url: Option<String>,
    #[command(flatten)]
    dialect: DialectArgs,
    #[command(flatten)]
    explain: ExplainArgs,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    log: LogArgs,
}

/// What is said beside what is typed.
struct Script {
    opening: Option<Typed>,
    gathering: Option<Gathered>,
}

impl Args {
    pub(crate) fn run(self, globals: Globals) -> anyhow::Result<ExitCode> {
        globals.log_to(LevelFilter::WARN, &self.log)?;
        self.explain.begin(globals);
        let dialect = self.dialect.dialect()?;
        let configured = self.config.read(&dialect)?;
        let address: Address = match (&self.url, &configured) {
            (None, Some(configured)) => configured.server()?,
            (url, _) => url.as_deref().unwrap_or_default().parse().map_err(Failure::from)?,
        };
        let script = Script {
            opening: configured.as_ref().map(|file| file.opening()).transpose()?.flatten(),
            gathering: configured.and_then(|file| file.gathering()),
        };
        block_on(async move {
            let client = Client::connect(&address, dialect.clone()).await.map_err(failed)?;
            if !globals.quiet && (globals.verbose > 0 || std::io::stderr().is_terminal()) {
                stderr::say(&format!("connected to {}; Ctrl-D ends", client.to()));
            }
            tracing::info!(target: SHOWN, "connected to {}", client.to());
            let (receiver, sender) = client.split();
            let mut typing = tokio::spawn(type_all(sender, script, dialect.clone()));
            let silence = matches!(address.place, Place::Udp(_)).then_some(SILENCE_TIME);
            let typed = show_all(receiver, &mut typing, silence, &dialect, globals).await?;
            // The other side is done; what stdin still has would go nowhere.
            typing.abort();
            match typed {
                Some(typed) => typed?,
                None => typing.await.unwrap_or(Ok(()))?,
            }
            Ok(ExitCode::from(exit::OK))
        })
    }
}

/// Sends what stdin has, then ends our half.
async fn type_all(
    mut sender: Sender,
    script: Script,
    dialect: Arc<Dialect>,
) -> Result<(), Failure> {
    if let Some(opening) = &script.opening {
        say_typed(&mut sender, opening).await?;
    }
    let mut gathering = script.gathering;
    let (typed, mut coming) = mpsc::channel(PIECES_MAX);
    let is_raw = dialect.cut == Cut::Raw && dialect.kinds.is_empty() && dialect.leave.is_empty();
    let line_max = dialect.limit_bytes.saturating_add(NAMES_BYTES) as u64;
    // A thread that nobody waits for: reading stdin cannot be given up.
    std::thread::spawn(move || read_stdin(&typed, is_raw, line_max));
    while let Some(piece) = coming.recv().await {
        let piece = piece?;
        if dialect.leave.contains(&piece) {
            break;
        }
        if let Some(gathered) = &mut gathering {
            if piece.is_empty() {
                break;
            }
            gathered.add(&dialect, &piece)?;
            continue;
        }
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
    if let Some(gathered) = gathering {
        say_typed(&mut sender, &gathered.message()).await?;
    }
    sender.finish().await.map_err(ClientError::from).map_err(failed)
}

/// Reads stdin as it comes, or line by line.
fn read_stdin(typed: &mpsc::Sender<Result<Vec<u8>, Failure>>, is_raw: bool, line_max: u64) {
    let mut stdin = std::io::stdin().lock();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let piece = if is_raw {
            stdin.read(&mut buffer).map(|len| buffer.get(..len).unwrap_or_default().to_vec())
        } else {
            let mut line = Vec::new();
            (&mut stdin).take(line_max + 1).read_until(b'\n', &mut line).map(|_| line)
        };
        let failure = match piece {
            Ok(piece) if piece.is_empty() => return,
            Ok(line) if !is_raw && line.len() as u64 > line_max => {
                Failure::usage(format!("a line of stdin is longer than {line_max} bytes"))
            }
            Ok(mut piece) => {
                if !is_raw && piece.last() == Some(&b'\n') {
                    piece.pop();
                }
                if typed.blocking_send(Ok(piece)).is_err() {
                    return;
                }
                continue;
            }
            Err(error) => Failure::new(exit::FAILED, format!("stdin: {error}")),
        };
        let _ = typed.blocking_send(Err(failure)); // nobody listens any more
        return;
    }
}

async fn say(sender: &mut Sender, dialect: &Dialect, line: &[u8]) -> Result<(), Failure> {
    let words = if dialect.kinds.is_empty() { vec![line.to_vec()] } else { talk::words(line)? };
    say_typed(sender, &talk::typed(dialect, &words)?).await
}

async fn say_typed(sender: &mut Sender, typed: &Typed) -> Result<(), Failure> {
    sender.send_fields(typed.kind.as_deref(), &typed.fields).await.map_err(failed)
}

/// Shows what comes until the other side ends it, or, where nothing ends it, until all is typed and it is silent for so
/// long. Returns how the typing went, if it has ended.
async fn show_all(
    mut receiver: Receiver,
    typing: &mut JoinHandle<Result<(), Failure>>,
    silence: Option<Duration>,
    dialect: &Dialect,
    globals: Globals,
) -> anyhow::Result<Option<Result<(), Failure>>> {
    let mut typed = None;
    loop {
        let is_typed = typed.is_some();
        tokio::select! {
            message = receiver.next() => match message.map_err(failed)? {
                Some(message) => show(&message, dialect, globals)?,
                None => return Ok(typed),
            },
            done = &mut *typing, if !is_typed => typed = Some(done.unwrap_or(Ok(()))),
            () = sleep(silence.unwrap_or_default()), if is_typed && silence.is_some() => {
                return Ok(typed);
            }
        }
    }
}

fn show(message: &Message, dialect: &Dialect, globals: Globals) -> anyhow::Result<()> {
    if tracing::enabled!(target: SHOWN, tracing::Level::INFO) {
        tracing::info!(target: SHOWN, "{}", talk::shown(message));
    }
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
