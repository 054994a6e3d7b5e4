//! A program in the place of stdin and stdout: what comes is its stdin, what it writes goes, its stderr is ours.
//!
//! The program runs in a process group of its own, which ends with the conversation: asked first, then killed. No shell
//! looks at the command line. Neighbour: `converse` does without a program.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Stdio;
use std::time::Duration;

use cabo::talk::Client;
use cabo::talk::client::{Receiver, Sender};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::failed;
use super::watch::Activity;
use super::words;
use crate::exit::{self, Failure};
use crate::show::human::escaped;

/// The peer is done, and the program says nothing more: it has so long to end by itself.
const LAST_WORDS_TIME: Duration = Duration::from_secs(10);
/// A program that was asked to end has so long to do it.
const GRACE_TIME: Duration = Duration::from_secs(2);
/// After our end the peer's last bytes are read for so long, or a reset might destroy what it has not read yet.
const LINGER_TIME: Duration = Duration::from_secs(2);
const READ_BYTES: usize = 64 * 1024;
/// Names the peer to the program.
const PEER: &str = "CABO_PEER";

/// A command line, in words.
#[derive(Clone, Debug)]
pub(crate) struct Exec {
    words: Vec<Vec<u8>>,
    name: String,
}

impl Exec {
    /// Parts it at blanks, but for what quotes hold together.
    pub(crate) fn parse(line: &OsStr) -> Result<Self, Failure> {
        let words = words(line.as_bytes())?;
        let Some(first) = words.first() else {
            return Err(Failure::usage("--exec names no program"));
        };
        let name = escaped(&String::from_utf8_lossy(first));
        Ok(Self { words, name })
    }

    /// Runs it for this conversation; both end together. Fails where the program did.
    pub(crate) async fn run(
        &self,
        client: Client,
        activity: &Activity,
        idle: Option<Duration>,
    ) -> Result<(), Failure> {
        let mut program = self.start(&client)?;
        let (receiver, sender) = client.split();
        let (stdin, stdout) = (program.child.stdin.take(), program.child.stdout.take());
        let (Some(stdin), Some(stdout)) = (stdin, stdout) else {
            return Err(self.failed("has no pipes"));
        };
        let ended = converse(receiver, sender, stdin, stdout, activity, idle).await;
        if !matches!(ended, Ok(End::OfProgram)) {
            program.ask_to_end();
        }
        let status = program.wait(GRACE_TIME).await;
        match (ended?, status) {
            (End::OfPatience, _) => Ok(()), // it was asked to end, however it did that
            (End::OfProgram, Some(status)) if status.success() => Ok(()),
            (End::OfProgram, Some(status)) => Err(self.failed(&format!("ended with {status}"))),
            (End::OfProgram, None) => {
                Err(self.failed("closed its stdout and did not end; it was killed"))
            }
        }
    }

    fn start(&self, client: &Client) -> Result<Program, Failure> {
        let words: Vec<&OsStr> = self.words.iter().map(|word| OsStr::from_bytes(word)).collect();
        let Some((name, args)) = words.split_first() else {
            return Err(Failure::usage("--exec names no program"));
        };
        let child = Command::new(name)
            .args(args)
            .env(PEER, client.to().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| self.failed(&error.to_string()))?;
        Ok(Program { child })
    }

    fn failed(&self, how: &str) -> Failure {
        Failure::new(exit::FAILED, format!("--exec {}: {how}", self.name))
    }
}

/// What ended a conversation first.
enum End {
    /// The program closed its stdout.
    OfProgram,
    /// Nothing was said for too long.
    OfPatience,
}

/// Both directions at once, until the program has said all or the peer is gone.
async fn converse(
    mut receiver: Receiver,
    mut sender: Sender,
    stdin: ChildStdin,
    stdout: ChildStdout,
    activity: &Activity,
    idle: Option<Duration>,
) -> Result<End, Failure> {
    let mut hearing = Box::pin(hear(&mut receiver, stdin));
    let mut saying = Box::pin(say(&mut sender, stdout));
    let mut patience = idle;
    let mut is_heard = false;
    loop {
        tokio::select! {
            heard = &mut hearing, if !is_heard => {
                heard?;
                is_heard = true;
                patience = Some(idle.unwrap_or(LAST_WORDS_TIME));
            }
            said = &mut saying => {
                said?;
                if !is_heard {
                    let _ = timeout(LINGER_TIME, hearing).await; // what still comes has no reader any more
                }
                return Ok(End::OfProgram);
            }
            () = activity.silent_for(patience) => return Ok(End::OfPatience),
        }
    }
}

/// What comes goes to the program, for as long as it reads.
async fn hear(receiver: &mut Receiver, stdin: ChildStdin) -> Result<(), Failure> {
    let mut stdin = Some(stdin);
    while let Some(message) = receiver.next().await.map_err(failed)? {
        if let Some(open) = &mut stdin
            && open.write_all(message.bytes()).await.is_err()
        {
            stdin = None; // it reads no more, and may go on writing
        }
    }
    Ok(())
}

/// What the program writes goes to the peer; its end is the end of our half.
async fn say(sender: &mut Sender, mut stdout: ChildStdout) -> Result<(), Failure> {
    let broken = |error| Failure::new(exit::FAILED, format!("the program's stdout: {error}"));
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match stdout.read(&mut buffer).await.map_err(broken)? {
            0 => break,
            len => sender.send(buffer.get(..len).unwrap_or_default()).await.map_err(failed)?,
        }
    }
    let _ = sender.finish().await; // a peer that is gone needs no end
    Ok(())
}

/// A program and whatever it started. Dropped, it is killed.
struct Program {
    child: Child,
}

impl Program {
    /// None where it had to be killed.
    async fn wait(&mut self, within: Duration) -> Option<std::process::ExitStatus> {
        match timeout(within, self.child.wait()).await {
            Ok(Ok(status)) => Some(status),
            Ok(Err(_)) | Err(_) => {
                self.signal(Signal::KILL);
                let _ = self.child.wait().await; // reaped: a killed process ends
                None
            }
        }
    }

    fn ask_to_end(&self) {
        self.signal(Signal::TERM);
    }

    /// To its whole group; to nobody once it is reaped, when its number may be another's.
    fn signal(&self, signal: Signal) {
        let group = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(group) = group
            && let Err(error) = kill_process_group(group, signal)
        {
            tracing::debug!(%error, ?group, "cannot signal a program");
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}
