//! The relay of the demo's cable: `cabo relay`, as a process of its own between the two hosts.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use cabo::lab::Host;
use cabo::relay::RelayConfig;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cmd::relay::flags;

/// Always there, whatever became of the file since we were started.
const OURSELVES: &str = "/proc/self/exe";
const READY_TIME: Duration = Duration::from_secs(5);

/// A running relay; killed when it is dropped.
pub(super) struct BadCable(Child);

impl BadCable {
    /// Starts a relay between two interfaces of `room`, and waits until it has opened them.
    pub(super) fn lay(
        room: &Host,
        ends: (&str, &str),
        config: &RelayConfig,
    ) -> anyhow::Result<Self> {
        let child = room
            .command(OURSELVES)
            .args(["relay", ends.0, ends.1, "--json"])
            .args(flags::arguments(config))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start the relay")?;
        let mut cable = Self(child);
        cable.wait_until_ready()?;
        Ok(cable)
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let stderr = self.0.stderr.as_mut().context("the relay has no stderr")?;
        let patience = Timespec::try_from(READY_TIME)?;
        let mut said = String::new();
        // A Ctrl-C interrupts it, and is heard as soon as there is a stage to leave.
        let mut ready = [PollFd::new(stderr, PollFlags::IN)];
        if retry_on_intr(|| poll(&mut ready, Some(&patience)))? > 0 {
            BufReader::new(stderr).read_line(&mut said)?;
        }
        if !said.starts_with("cabo relay:") {
            bail!("the relay does not start: {}", said.trim());
        }
        Ok(())
    }

    /// Takes it away; its own account of what it did.
    pub(super) fn remove(mut self) -> anyhow::Result<Value> {
        // After a Ctrl-C on the terminal it has ended already, and its account waits in the pipe.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let mut said = String::new();
        if let Some(stdout) = &mut self.0.stdout {
            stdout.read_to_string(&mut said)?;
        }
        serde_json::from_str(&said).context("the relay did not say what it did")
    }
}

impl Drop for BadCable {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
