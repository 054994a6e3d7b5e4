//! Servers and generators as processes, pinned, started and told what to do.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use cabo::lab::Host;
use serde::{Deserialize, Serialize};

use crate::pair::Running;

/// A server listens within this time, or it does not.
const START_TIME: Duration = Duration::from_secs(10);

/// What a server has done until now.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Progress {
    pub messages: u64,
    /// By its own clock.
    pub nanos: u64,
    pub heap_bytes: u64,
}

/// What a generator measured.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Rounds {
    pub requests: u64,
    pub seconds: f64,
    #[serde(default)]
    pub p50_nanos: u64,
    #[serde(default)]
    pub p99_nanos: u64,
}

/// A process of a measurement, on one core; it is killed with this.
pub struct Process {
    running: Running,
    is_ending: bool,
}

impl Process {
    /// Starts `command` on `core`.
    pub fn start(mut command: Command, core: usize) -> Result<Self> {
        // SAFETY: between fork and exec only a system call is made; nothing allocates or takes a lock.
        unsafe { command.pre_exec(move || crate::peers::pin(core)) };
        Ok(Self { running: Running::spawn(command)?, is_ending: false })
    }

    /// Waits until it listens at `port`, without disturbing it by a connection.
    pub fn wait_until_it_listens(&mut self, port: u16) -> Result<()> {
        let table = format!("/proc/{}/net", self.running.process());
        let wanted = format!(":{port:04X}");
        let deadline = Instant::now() + START_TIME;
        while Instant::now() < deadline {
            for (file, state) in [("tcp", Some("0A")), ("udp", None)] {
                let text = std::fs::read_to_string(format!("{table}/{file}"));
                let is_there = text.context("the server has ended")?.lines().any(|line| {
                    let words: Vec<&str> = line.split_whitespace().collect();
                    words.get(1).is_some_and(|local| local.ends_with(&wanted))
                        && state.is_none_or(|state| words.get(3) == Some(&state))
                });
                if is_there {
                    return Ok(());
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("it does not listen after {START_TIME:?}")
    }

    /// Waits until a generator has its connections.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        match self.running.read::<String>()?.as_str() {
            "ready" => Ok(()),
            other => bail!("a generator said {other:?}"),
        }
    }

    /// Has a generator do something.
    pub fn order(&mut self, line: &str) -> Result<Rounds> {
        self.begin(line)?;
        self.finish()
    }

    /// The same, with something to do meanwhile.
    pub fn begin(&mut self, line: &str) -> Result<()> {
        self.running.tell(line)
    }

    /// What came of it.
    pub fn finish(&mut self) -> Result<Rounds> {
        self.running.read()
    }

    /// What a server has done.
    pub fn progress(&mut self) -> Result<Progress> {
        self.running.tell("")?;
        self.running.read()
    }

    /// All that it says until it ends by itself.
    pub fn rest(&mut self) -> Result<String> {
        self.running.rest()
    }

    /// Lets it end by itself, as the end of its stdin has it; it is waited for when this goes.
    pub fn end(&mut self) {
        self.is_ending = true;
        self.running.finish();
    }

    /// Time on a core so far, of all its threads.
    pub fn cpu_seconds(&self) -> f64 {
        let folder = format!("/proc/{}/task", self.running.process());
        let threads = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let nanos = threads.filter_map(|thread| {
            let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        nanos.sum::<u64>() as f64 * 1e-9
    }

    /// Resident set.
    pub fn resident_bytes(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.running.process()));
        let pages = text.ok().and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
        pages.unwrap_or_default() * 4096
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_ending {
            self.running.kill();
        }
    }
}

/// This same program as one side of a measurement.
pub fn side(host: &Host, job: &crate::job::Job) -> Result<Command> {
    let mut command = host.command(std::env::current_exe().context("our own program")?);
    command.arg("peer").arg(serde_json::to_string(job)?);
    Ok(command)
}
