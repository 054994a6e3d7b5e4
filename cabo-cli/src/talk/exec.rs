//! A program in the place of stdin and stdout: what comes is its stdin, what it writes goes, its stderr is ours.
//!
//! The program runs in a process group of its own, which ends with the conversation: asked first, then killed. No shell
//! looks at the command line. Neighbour: `converse` does without a program.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use cabo::carrier::HangUp;
use cabo::talk::client::{Receiver, Sender};
use cabo::talk::{Client, Progress};
use rustix::fs::{Access, access};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use super::failed;
use super::headway::all_taken;
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
/// Where programs are where nobody says so, as in execvp(3).
const DEFAULT_PATH: &str = "/bin:/usr/bin";
/// Names the peer to the program.
const PEER: &str = "CABO_PEER";

/// A command line, in words.
#[derive(Clone, Debug)]
pub(crate) struct Exec {
    words: Vec<Vec<u8>>,
    name: String,
}

impl Exec {
    /// Parts it at blanks, but for what quotes hold together. A program that is not there is told of now, and not to the
    /// first client.
    pub(crate) fn parse(line: &OsStr) -> Result<Self, Failure> {
        let words = words(line.as_bytes())?;
        let Some(first) = words.first() else {
            return Err(Failure::usage("--exec names no program"));
        };
        let name = escaped(&String::from_utf8_lossy(first));
        let exec = Self { words, name };
        exec.find().map_err(|error| exec.failed(&error.to_string()))?;
        Ok(exec)
    }

    /// Whether the program can be run, as far as one can see: the error is that of the last place where it was looked for.
    fn find(&self) -> io::Result<()> {
        let name = Path::new(OsStr::from_bytes(self.words.first().map_or(b"", Vec::as_slice)));
        let places: Vec<PathBuf> = if name.as_os_str().as_bytes().contains(&b'/') {
            vec![name.to_owned()]
        } else {
            let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
            std::env::split_paths(&path).map(|folder| folder.join(name)).collect()
        };
        let mut found = Err(io::Error::from_raw_os_error(rustix::io::Errno::NOENT.raw_os_error()));
        for place in places {
            match access(&place, Access::EXEC_OK) {
                Ok(()) if place.is_file() => return Ok(()),
                Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {}
                Err(error) => found = Err(error.into()),
            }
        }
        found
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
        let progress = sender.progress();
        let (stdin, stdout) = (program.child.stdin.take(), program.child.stdout.take());
        let (Some(stdin), Some(stdout)) = (stdin, stdout) else {
            return Err(self.failed("has no pipes"));
        };
        let ended = converse(receiver, sender, (stdin, stdout), activity, &progress, idle).await;
        if !matches!(ended, Ok(End::OfProgram)) {
            program.ask_to_end();
        }
        let status = program.end(GRACE_TIME).await;
        match (ended?, status) {
            // It was asked to end, however it did that.
            (End::OfPatience, _) => all_taken(&progress, idle),
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
    (stdin, stdout): (ChildStdin, ChildStdout),
    activity: &Activity,
    progress: &Progress,
    idle: Option<Duration>,
) -> Result<End, Failure> {
    let hang_up = receiver.hang_up();
    let mut hearing = Box::pin(hear(&mut receiver, stdin, activity));
    let mut saying = Box::pin(say(&mut sender, stdout));
    let mut leaving = Box::pin(seen(hang_up));
    let mut patience = idle;
    let (mut is_heard, mut is_left) = (false, false);
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
            // It says nothing more, whatever of it the program has not read yet.
            () = &mut leaving, if !is_left => {
                is_left = true;
                patience = Some(idle.unwrap_or(LAST_WORDS_TIME));
            }
            () = activity.rests_for(patience, progress) => return Ok(End::OfPatience),
        }
    }
}

/// Waits until the peer has hung up; for ever where nothing tells of that.
async fn seen(hang_up: Option<HangUp>) {
    match hang_up {
        Some(hang_up) => hang_up.seen().await,
        None => std::future::pending().await,
    }
}

/// What comes goes to the program, for as long as it reads.
async fn hear(
    receiver: &mut Receiver,
    stdin: ChildStdin,
    activity: &Activity,
) -> Result<(), Failure> {
    let mut stdin = Some(stdin);
    while let Some(message) = receiver.next().await.map_err(failed)? {
        let mut rest = message.bytes().as_ref();
        while let (Some(open), false) = (&mut stdin, rest.is_empty()) {
            match open.write(rest).await {
                Ok(len @ 1..) => rest = rest.get(len..).unwrap_or_default(),
                Ok(0) | Err(_) => stdin = None, // it reads no more, and may go on writing
            }
            activity.touch(); // a slow reader is not a silent one
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

/// A program and whatever it started. Dropped, all of it is killed.
struct Program {
    child: Child,
}

impl Program {
    /// Waits for its end, and kills what it leaves behind; it, too, where it takes longer: there is no status then.
    async fn end(&mut self, within: Duration) -> Option<ExitStatus> {
        let is_over = timeout(within, self.is_over()).await.is_ok();
        self.signal(Signal::KILL); // before it is reaped: until then the group's number is nobody else's
        let status = self.child.wait().await; // a killed process ends
        status.ok().filter(|_| is_over)
    }

    /// Waits until it has ended, and leaves it to be reaped.
    async fn is_over(&self) -> io::Result<()> {
        let mut children = signal(SignalKind::child())?;
        loop {
            let Some(process) = self.process() else { return Ok(()) };
            let asked = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            if waitid(WaitId::Pid(process), asked)?.is_some() {
                return Ok(());
            }
            children.recv().await;
        }
    }

    fn ask_to_end(&self) {
        self.signal(Signal::TERM);
    }

    /// To its whole group; to nobody once it is reaped, when its number may be another's.
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.process()
            && let Err(error) = kill_process_group(group, signal)
        {
            tracing::debug!(%error, ?group, "cannot signal a program");
        }
    }

    fn process(&self) -> Option<Pid> {
        self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}
