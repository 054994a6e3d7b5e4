//! One measurement: two processes on a path, started, listened to and ended.

use std::io::{BufRead as _, BufReader};
use std::path::Path as FilePath;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use cabo::lab::Host;
use serde::de::DeserializeOwned;

use crate::job::{Counted, Job, Sent, Side};
use crate::paths::Path;

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub counted: Counted,
    pub sent: Sent,
}

/// A side that runs. It is ended, and waited for, when this goes.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
}

impl Running {
    /// Starts one side on its host; under `perf record` where a file for that is named.
    pub fn start(host: &Host, job: &Job, perf: Option<&FilePath>) -> Result<Self> {
        let program = std::env::current_exe().context("our own program")?;
        let mut command = match perf {
            None => host.command(&program),
            Some(file) => {
                let mut command = host.command("perf");
                command.args(["record", "--quiet", "--freq", "1999", "--output"]).arg(file);
                command.arg("--").arg(&program);
                command
            }
        };
        command.arg("peer").arg(serde_json::to_string(job)?);
        Self::spawn(command)
    }

    /// Starts any program that speaks in lines.
    pub fn spawn(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("a peer without pipes");
        };
        Ok(Self { child, stdin: Some(stdin), lines: BufReader::new(stdout) })
    }

    /// Its next line.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            bail!("a peer ended without a word");
        }
        Ok(line)
    }

    /// Its next line, as a value.
    pub fn read<T: DeserializeOwned>(&mut self) -> Result<T> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("{line:?}"))
    }

    /// Tells it something.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        use std::io::Write as _;
        let stdin = self.stdin.as_mut().context("it was told to end")?;
        Ok(writeln!(stdin, "{line}")?)
    }

    /// All that it says until its end.
    pub fn rest(&mut self) -> Result<String> {
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.lines, &mut rest)?;
        Ok(rest)
    }

    /// The end of its stdin: a sender now says what it did.
    pub fn finish(&mut self) {
        self.stdin = None;
    }

    /// Ends it at once, where the end of its stdin does not.
    pub fn kill(&mut self) {
        let _ = self.child.kill(); // it has ended by itself, or it is waited for
    }

    pub fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stdin = None;
        let _ = self.child.wait(); // a peer's own watchdog bounds this
    }
}

/// Runs `job` with both sides on `path`; `cores` are the sender's and the receiver's.
pub fn measure(
    path: &Path,
    job: &Job,
    cores: [Option<usize>; 2],
    perf: Option<(&FilePath, &str)>,
) -> Result<Outcome> {
    let [sender_core, receiver_core] = cores;
    let file = |side: &str| perf.map(|(folder, name)| folder.join(format!("{name}-{side}.data")));
    let job = Job { side: Side::Receiver, core: receiver_core, ..job.clone() };
    let mut receiver = Running::start(&path.receiver, &job, file("receiver").as_deref())?;
    let ready = receiver.line()?;
    if ready.trim() != "ready" {
        bail!("the receiver said {ready:?}");
    }
    let job = Job { side: Side::Sender, core: sender_core, ..job };
    let mut sender = Running::start(&path.sender, &job, file("sender").as_deref())?;
    let counted = match job.task {
        crate::job::Task::FirstByte => sender.read()?,
        _ => receiver.read()?,
    };
    sender.finish();
    let sent = sender.read().unwrap_or_default();
    Ok(Outcome { counted, sent })
}
