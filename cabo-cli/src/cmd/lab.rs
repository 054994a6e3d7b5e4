//! `cabo lab`: hosts on this machine for one's own experiments, without root, joined by cables as bad as asked.
//!
//! Host 1 is the middle of a star. The other hosts are entered by `cabo lab exec`, which finds the lab's process and
//! its descriptors of the hosts in `CABO_LAB`, so it works from every process below the lab, whatever shell is between.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::Context as _;
use cabo::lab::{Cable, CableConfig, Host, Lab};
use clap::{Args, Subcommand};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::signal::unix::{SignalKind, signal};

use super::Globals;
use super::relay::Running;
use super::relay::flags::{CableFlags, describe, is_perfect};
use crate::exit::{self, Failure};
use crate::show::stderr;

mod leftovers;

/// Tells those inside where the lab is: `PID:FD,FD,..`, one descriptor a host.
const LAB: &str = "CABO_LAB";
/// Tells those inside on which host they are.
const HERE: &str = "CABO_LAB_HERE";

/// Hosts on this machine for experiments, without root
#[derive(Args, Clone, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  cabo lab                                        a shell on host 1 of two
  cabo lab --loss 1% --delay 10ms -- ping -c3 10.0.1.2
  cabo lab --hosts 3 -- sh -c 'cabo lab exec 2 -- ip address; ping -c1 $CABO_LAB_HOST3'

Host 1 has a cable to each other host: eth0 to host 2 (10.0.1.1 to 10.0.1.2), eth1 to host 3 \
(10.0.2.1 to 10.0.2.2), and so on; the others have eth0. Inside, CABO_LAB_HOST1, CABO_LAB_HOST2 .. \
are addresses that host 1 and the host itself know, CABO_LAB_MAC1 .. the hardware addresses of the \
same ends, and CABO_LAB_HERE says which host it is. `cabo lab exec N -- CMD` runs CMD on host N. All \
of it is gone when CMD ends, background processes included; its exit code is the lab's."
)]
pub(crate) struct LabArgs {
    #[command(subcommand)]
    inside: Option<Inside>,
    /// How many hosts
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=64))]
    hosts: u8,
    /// What to run on host 1 [default: your shell]
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
    #[command(flatten)]
    cable: CableFlags,
}

#[derive(Clone, Debug, Subcommand)]
enum Inside {
    /// Runs a command on another host; from inside a lab
    Exec {
        /// The host's number
        host: u8,
        /// What to run there
        #[arg(
            required = true,
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "CMD"
        )]
        command: Vec<OsString>,
    },
}

impl LabArgs {
    pub(crate) fn run(self, globals: Globals) -> anyhow::Result<ExitCode> {
        match self.inside {
            Some(Inside::Exec { host, command }) => Err(exec(host, &command)),
            None => build(self.hosts, &self.cable, &self.command, globals.quiet),
        }
    }
}

fn build(
    count: u8,
    flags: &CableFlags,
    command: &[OsString],
    is_quiet: bool,
) -> anyhow::Result<ExitCode> {
    let mtu_bytes = flags.mtu_of_lab()?;
    let lab = Lab::enter()?;
    let hosts = (1..=count)
        .map(|number| lab.host(&format!("host {number}")))
        .collect::<Result<Vec<_>, _>>()?;
    let config = flags.config(&Default::default(), 0);
    let laying =
        CableConfig { is_relayed: !is_perfect(&config.forward), mtu_bytes, offloads: None };
    let (mut cables, mut relays) = (Vec::new(), Vec::new());
    for (index, host) in hosts.iter().enumerate().skip(1) {
        let cable = lab.cable(&hosts[0], &format!("eth{}", index - 1), host, "eth0", &laying)?;
        if laying.is_relayed {
            let mut config = config.clone();
            config.seed = config.seed.wrapping_add(index as u64 - 1); // no two cables have the same bad luck
            relays.push(Running::start(lab.relay(&cable, config)?)?);
        }
        cables.push(cable);
    }
    if !is_quiet {
        write_legend(&cables, &describe(&config));
    }
    let (program, arguments) = match command.split_first() {
        Some((program, arguments)) => (program.clone(), arguments),
        None => (std::env::var_os("SHELL").unwrap_or_else(|| "sh".into()), &[][..]),
    };
    let mut child = hosts[0].command(&program);
    child.args(arguments).envs(environment(&hosts, &cables));
    leftovers::adopt()?;
    let status = wait(child).with_context(|| format!("cannot run {}", program.display()));
    leftovers::end();
    let status = status?;
    for relay in relays {
        relay.stop()?;
    }
    Ok(exit_code(status))
}

/// Runs it to its end. Ctrl-C is the command's to decide about: a shell lives on.
fn wait(command: Command) -> anyhow::Result<ExitStatus> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupted = signal(SignalKind::interrupt())?;
        let mut terminated = signal(SignalKind::terminate())?;
        let mut child_ended = signal(SignalKind::child())?;
        let mut child = tokio::process::Command::from(command).spawn()?;
        loop {
            tokio::select! {
                status = child.wait() => return Ok(status?),
                _ = interrupted.recv() => {}
                _ = child_ended.recv() => leftovers::reap(child.id()),
                _ = terminated.recv() => child.start_kill()?,
            }
        }
    })
}

/// As a shell reports it: 128 and the signal for who was killed.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::FAILED))
}

fn environment(hosts: &[Host], cables: &[Cable]) -> Vec<(String, String)> {
    let fds: Vec<String> = hosts.iter().map(|host| host.as_fd().as_raw_fd().to_string()).collect();
    let mut variables = vec![
        (LAB.to_owned(), format!("{}:{}", std::process::id(), fds.join(","))),
        (HERE.to_owned(), "1".to_owned()),
    ];
    let first = cables.first().map(|cable| &cable.a);
    let ports = first.into_iter().chain(cables.iter().map(|cable| &cable.b));
    for (number, port) in (1..).zip(ports) {
        variables.push((format!("CABO_LAB_HOST{number}"), port.ipv4.to_string()));
        variables.push((format!("CABO_LAB_MAC{number}"), cabo::address::Mac(port.mac).to_string()));
    }
    variables
}

fn write_legend(cables: &[Cable], words: &str) {
    for (number, cable) in (2..).zip(cables) {
        stderr::say(&format!(
            "cabo lab: host 1 {} {}  --  host {number} {} {}",
            cable.a.name, cable.a.ipv4, cable.b.name, cable.b.ipv4
        ));
    }
    stderr::say(&format!("cabo lab: cable: {words}"));
    stderr::say(
        "cabo lab: this is host 1; `cabo lab exec 2 -- CMD` runs on host 2; the end of CMD ends the lab",
    );
}

/// Becomes the command, on another host; returns only if that fails.
fn exec(number: u8, command: &[OsString]) -> anyhow::Error {
    let Some((program, arguments)) = command.split_first() else {
        return Failure::new(exit::USAGE, "nothing to run").into();
    };
    if let Err(error) = enter(number) {
        return error;
    }
    let error = Command::new(program).args(arguments).env(HERE, number.to_string()).exec();
    anyhow::Error::new(error).context(format!("cannot run {}", program.display()))
}

fn enter(number: u8) -> anyhow::Result<()> {
    let lab = std::env::var(LAB).map_err(|_| {
        Failure::new(
            exit::USAGE,
            "this is not inside a lab: `cabo lab -- sh` makes one, with a shell on its host 1",
        )
    })?;
    let strange = || Failure::new(exit::USAGE, format!("{LAB} is {lab:?}, which no lab has set"));
    let (process, fds) = lab.split_once(':').ok_or_else(strange)?;
    let process: u32 = process.parse().map_err(|_| strange())?;
    let fds: Vec<u32> =
        fds.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|_| strange())?;
    let fd =
        usize::from(number).checked_sub(1).and_then(|index| fds.get(index)).ok_or_else(|| {
            Failure::new(
                exit::USAGE,
                format!("there is no host {number}: this lab has hosts 1 to {}", fds.len()),
            )
        })?;
    let network = File::open(format!("/proc/{process}/fd/{fd}")).with_context(|| {
        format!("cannot reach the lab of process {process}: is it still running?")
    })?;
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("cannot move to host {number}"))
}
