//! One conversation with stdin and stdout, as `connect` has it and `listen --once`: what is typed goes, what comes is
//! shown, and rules say when it ends.
//!
//! Neighbours: `exec` puts a program in the place of stdin and stdout, `view` shows what comes, `watch` sees what crosses
//! the wire.

use std::io::{IsTerminal as _, Read as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use cabo::address::{Address, Place};
use cabo::proto::dialect::Dialect;
use cabo::proto::dialect::cut::Cut;
use cabo::talk::client::{Receiver, Sender};
use cabo::talk::{Client, ClientError, Progress};
use rustix::fs::FileType;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::config::Gathered;
use super::failed;
use super::headway::not_taken;
use super::line::{Line, line_max, next_line, too_long};
use super::view::View;
use super::watch::Activity;
use super::{Typed, typed, words};
use crate::cmd::Globals;
use crate::exit::{self, Failure};
use crate::show::human::escaped;
use crate::show::{stderr, stdout};

const READ_BYTES: usize = 64 * 1024;
/// The largest datagram: a longer piece of stdin could not be sent.
const DATAGRAM_BYTES: usize = 65_507;
/// The other side is done, and a pipe into stdin is open: it has so long to say more.
const PIPE_TIME: Duration = Duration::from_millis(500);
/// A side that has ended its half has so long to take what waits for it, where nobody gave it another time.
const TAKING_TIME: Duration = Duration::from_secs(10);
/// Datagrams have no end: when all of stdin is sent, answers are shown until none has come for so long.
const SILENCE_TIME: Duration = Duration::from_secs(1);
/// Pieces of stdin that wait to be sent.
const PIECES_MAX: usize = 4;

/// How it goes, and when it ends.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    pub(crate) dialect: Arc<Dialect>,
    pub(crate) is_datagrams: bool,
    /// Ends when nothing has crossed the wire for so long.
    pub(crate) idle: Option<Duration>,
    /// Ends when all of stdin is sent and nothing has come for so long.
    pub(crate) wait: Option<Duration>,
    /// The end of stdin does not end our half.
    pub(crate) keep_open: bool,
    pub(crate) view: View,
    pub(crate) globals: Globals,
}

impl Manner {
    fn silence(&self) -> Option<Duration> {
        self.wait.or_else(|| self.is_datagrams.then_some(SILENCE_TIME))
    }
}

/// What is said beside what is typed.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) opening: Option<Typed>,
    pub(crate) gathering: Option<Gathered>,
}

/// Whether an address leads to datagrams.
pub(crate) fn is_datagrams(address: &Address) -> bool {
    matches!(address.place, Place::Udp(_))
}

/// Goes on until one of the rules ends it.
pub(crate) async fn converse(
    client: Client,
    manner: &Manner,
    script: Script,
    activity: &Activity,
) -> anyhow::Result<()> {
    let (receiver, sender) = client.split();
    let outgoing = Outgoing { progress: sender.progress(), read_bytes: Arc::default() };
    let mut typing = tokio::spawn(type_all(sender, script, manner.clone(), outgoing.clone()));
    let typed = tokio::select! {
        typed = show_all(receiver, &mut typing, manner) => typed?,
        () = activity.rests_for(manner.idle, &outgoing.progress) => {
            return Ok(outgoing.all_taken(manner.idle)?);
        }
    };
    if let Some(typed) = typed {
        return Ok(typed?);
    }
    // The other side has ended its half, and may read on: what stdin has at hand still goes.
    let (patience, taking) = match Stdin::look() {
        Stdin::File => (manner.idle, manner.idle),
        Stdin::Pipe => (Some(PIPE_TIME), Some(manner.idle.unwrap_or(TAKING_TIME))),
        Stdin::Terminal => return Ok(()),
    };
    let resting = async {
        activity.rests_for(patience, &outgoing.progress).await;
        if outgoing.progress.waiting_bytes() > 0 {
            activity.rests_for(taking, &outgoing.progress).await; // it is not stdin that is silent
        }
    };
    tokio::select! {
        typed = &mut typing => typed.unwrap_or(Ok(()))?,
        () = resting => outgoing.all_taken(taking)?,
    }
    Ok(())
}

/// What was read from stdin, and what became of it.
#[derive(Clone)]
struct Outgoing {
    progress: Progress,
    /// Bytes that wait between stdin and the sender.
    read_bytes: Arc<AtomicU64>,
}

impl Outgoing {
    /// Fails where something waits, after so long.
    fn all_taken(&self, within: Option<Duration>) -> Result<(), Failure> {
        match self.progress.waiting_bytes() {
            0 => Ok(()), // and what was read meanwhile will go
            waiting => {
                let bytes = waiting + self.read_bytes.load(Relaxed);
                Err(not_taken(bytes, within.unwrap_or_default()))
            }
        }
    }
}

enum Stdin {
    /// Ends by itself.
    File,
    /// May end, or have nothing to say for hours.
    Pipe,
    /// Somebody who sees that it is over.
    Terminal,
}

impl Stdin {
    fn look() -> Self {
        let stdin = std::io::stdin();
        let kind = rustix::fs::fstat(&stdin).map(|stat| FileType::from_raw_mode(stat.st_mode));
        match kind {
            _ if stdin.is_terminal() => Self::Terminal,
            Ok(FileType::RegularFile) => Self::File,
            Ok(_) | Err(_) => Self::Pipe,
        }
    }
}

/// Sends what stdin has, then ends our half.
async fn type_all(
    mut sender: Sender,
    script: Script,
    manner: Manner,
    outgoing: Outgoing,
) -> Result<(), Failure> {
    let dialect = &manner.dialect;
    if let Some(opening) = &script.opening {
        say_typed(&mut sender, opening).await?;
    }
    let (mut gathering, mut is_left) = (script.gathering, false);
    let (typed, mut coming) = mpsc::channel(PIECES_MAX);
    let is_raw = dialect.cut == Cut::Raw && dialect.kinds.is_empty() && dialect.leave.is_empty();
    let line_max = line_max(dialect);
    let read_max = if manner.is_datagrams { DATAGRAM_BYTES } else { READ_BYTES };
    // A thread that nobody waits for: reading stdin cannot be given up.
    let read_bytes = outgoing.read_bytes.clone();
    std::thread::spawn(move || read_stdin(&typed, is_raw, read_max, line_max, &read_bytes));
    while let Some(piece) = coming.recv().await {
        let piece = piece?;
        outgoing.read_bytes.fetch_sub(piece.len() as u64, Relaxed);
        if dialect.leave.contains(&piece) {
            is_left = true;
            break;
        }
        if let Some(gathered) = &mut gathering {
            if piece.is_empty() {
                break;
            }
            gathered.add(dialect, &piece)?;
            continue;
        }
        let sent = if is_raw {
            sender.send(&piece).await.map_err(failed)
        } else {
            say(&mut sender, dialect, &piece).await
        };
        match sent {
            // On a terminal it can be typed again; a script has to learn of it.
            Err(failure) if failure.code == exit::USAGE && std::io::stdin().is_terminal() => {
                stderr::say(&escaped(&failure.text));
            }
            sent => sent?,
        }
    }
    if let Some(gathered) = gathering {
        say_typed(&mut sender, &gathered.message()).await?;
    }
    if manner.keep_open && !is_left {
        return Ok(());
    }
    sender.finish().await.map_err(ClientError::from).map_err(failed)
}

/// Reads stdin as it comes, or line by line.
fn read_stdin(
    typed: &mpsc::Sender<Result<Vec<u8>, Failure>>,
    is_raw: bool,
    read_max: usize,
    line_max: u64,
    read_bytes: &AtomicU64,
) {
    let mut stdin = std::io::stdin().lock();
    let is_typed = std::io::stdin().is_terminal(); // and its echo moves the cursor
    let mut buffer = vec![0; read_max];
    loop {
        let piece = if is_raw {
            let read = stdin.read(&mut buffer);
            read.map(|len| Some(buffer.get(..len)?.to_vec()).filter(|piece| !piece.is_empty()))
                .map_err(unread)
        } else {
            match next_line(&mut stdin, line_max) {
                Ok(Line::Whole(line)) => Ok(Some(line)),
                Ok(Line::End) => Ok(None),
                Ok(Line::TooLong(max)) => Err(too_long(max)),
                Err(error) => Err(unread(error)),
            }
        };
        let piece = match piece {
            Ok(Some(piece)) => piece,
            Ok(None) => return,
            Err(failure) => {
                let _ = typed.blocking_send(Err(failure)); // nobody listens any more
                return;
            }
        };
        if is_typed && (!is_raw || piece.ends_with(b"\n")) {
            stdout::stands_in_line(false);
        }
        read_bytes.fetch_add(piece.len() as u64, Relaxed);
        if typed.blocking_send(Ok(piece)).is_err() {
            return;
        }
    }
}

fn unread(error: std::io::Error) -> Failure {
    Failure::new(exit::FAILED, format!("stdin: {error}"))
}

async fn say(sender: &mut Sender, dialect: &Dialect, line: &[u8]) -> Result<(), Failure> {
    let words = if dialect.kinds.is_empty() { vec![line.to_vec()] } else { words(line)? };
    say_typed(sender, &typed(dialect, &words)?).await
}

async fn say_typed(sender: &mut Sender, typed: &Typed) -> Result<(), Failure> {
    sender.send_fields(typed.kind.as_deref(), &typed.fields).await.map_err(failed)
}

/// Shows what comes until the other side ends it, or, where there is a time for that, until all is typed and it is silent
/// for so long. Returns how the typing went, if it has ended.
async fn show_all(
    mut receiver: Receiver,
    typing: &mut JoinHandle<Result<(), Failure>>,
    manner: &Manner,
) -> anyhow::Result<Option<Result<(), Failure>>> {
    let silence = manner.silence();
    let mut typed = None;
    loop {
        let is_typed = typed.is_some();
        tokio::select! {
            biased; // what has come is shown before its absence is looked for
            message = receiver.next() => match message.map_err(failed)? {
                Some(message) => manner.view.message(&message, receiver.from())?,
                None => return Ok(typed),
            },
            done = &mut *typing, if !is_typed => match done.unwrap_or(Ok(())) {
                Ok(()) => typed = Some(Ok(())),
                failed => return Ok(Some(failed)),
            },
            () = sleep(silence.unwrap_or_default()), if is_typed && silence.is_some() => {
                return Ok(typed);
            }
        }
    }
}
