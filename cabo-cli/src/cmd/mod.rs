//! What was typed: one file a command, each with its arguments, its help and its doing.
//!
//! A command has two steps: `Args` is what was typed, and what it means is a plain struct without clap. A new one is a
//! file, a line in [`Command`], a line in [`Cli::run`], and its place in `help::GROUPS`.

use std::future::Future;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tokio::runtime::Builder;
use tracing_subscriber::filter::LevelFilter;

use crate::exit::Failure;
use crate::show::log::{self, LogArgs};

mod completions;
mod connect;
pub(crate) mod demo;
mod dialect;
pub(crate) mod get;
mod help;
mod keys;
mod lab;
mod listen;
mod ls;
mod man;
mod play;
pub(crate) mod relay;
pub(crate) mod send;
mod serve;

/// Messages and streams over any wire: raw Ethernet, UDP, TCP, TLS, Unix sockets
#[derive(Debug, Parser)]
#[command(name = "cabo", version, propagate_version = true, max_term_width = 100)]
#[command(
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Globals {
    /// Write one JSON object a line on stdout
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(crate) json: bool,
    /// Say only what went wrong
    #[arg(short, long, global = true, help_heading = "Everywhere")]
    pub(crate) quiet: bool,
    /// Say more on stderr; twice for every detail
    #[arg(short, long, global = true, help_heading = "Everywhere", action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    Serve(serve::Args),
    Ls(ls::Args),
    Get(get::Args),
    Play(play::Args),
    Listen(listen::Args),
    Connect(connect::Args),
    Send(send::Args),
    Dialect(dialect::Args),
    Keys(keys::Args),
    Completions(completions::Args),
    Man(man::Args),
    Relay(relay::RelayArgs),
    Lab(lab::LabArgs),
    Help(help::Args),
}

impl Cli {
    /// The command line as clap knows it, with our first page.
    pub(crate) fn description() -> clap::Command {
        help::with_first_page(<Self as clap::CommandFactory>::command())
    }

    /// Reads the command line; ends the program where it is wrong or help was asked for.
    pub(crate) fn read() -> Self {
        let mut matches = Self::description().get_matches();
        <Self as clap::FromArgMatches>::from_arg_matches_mut(&mut matches)
            .unwrap_or_else(|error| error.format(&mut Self::description()).exit())
    }

    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let globals = self.globals;
        match self.command {
            Command::Serve(args) => args.run(globals),
            Command::Ls(args) => args.run(globals),
            Command::Get(args) => args.run(globals),
            Command::Play(args) => args.run(globals),
            Command::Listen(args) => args.run(globals),
            Command::Connect(args) => args.run(globals),
            Command::Send(args) => args.run(globals),
            Command::Dialect(args) => args.run(globals),
            Command::Keys(args) => args.run(globals),
            Command::Completions(args) => args.run(),
            Command::Man(args) => args.run(),
            Command::Demo(args) => args.run(globals),
            Command::Relay(args) => args.run(globals),
            Command::Lab(args) => args.run(globals),
            Command::Help(args) => args.run(),
        }
    }
}

impl Globals {
    /// Sends our log to stderr, from `usual` on or from what `-q` and `-v` say.
    pub(crate) fn log(self, usual: LevelFilter) {
        log::start(self.level(usual), None);
    }

    /// The same, and to a file where one was named.
    pub(crate) fn log_to(self, usual: LevelFilter, file: &LogArgs) -> Result<(), Failure> {
        log::start(self.level(usual), file.open()?);
        Ok(())
    }

    fn level(self, usual: LevelFilter) -> LevelFilter {
        match (self.quiet, self.verbose) {
            (true, _) => LevelFilter::ERROR,
            (false, 0) => usual,
            (false, 1) => LevelFilter::INFO.max(usual),
            (false, 2) => LevelFilter::DEBUG,
            (false, _) => LevelFilter::TRACE,
        }
    }
}

/// Runs a command that waits for sockets. What still blocks on a disk at its end is left behind. Only the thread that
/// waits has the privilege to open raw sockets, until it gives that up.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime =
        Builder::new_multi_thread().on_thread_start(give_up_raw_sockets).enable_all().build()?;
    let result = runtime.block_on(work);
    runtime.block_on(crate::session::leave_all());
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

/// What waits for Ctrl-C or SIGTERM. They are caught from the call on, not from the first look: whoever sees our first line
/// may send one at once.
pub(crate) fn interrupted() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Whether a SIGHUP says that the terminal is gone, which there was, and not that there is something to be read again.
pub(crate) fn is_terminal_gone(had_terminal: bool) -> bool {
    had_terminal && !std::io::stdin().is_terminal()
}

/// Gives up CAP_NET_RAW on this thread and those that it starts, as soon as what needs it is open. A socket that is open
/// can be bound again without it.
pub(crate) fn give_up_raw_sockets() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let Ok(mut sets) = capabilities(None) else { return };
    if sets.permitted.contains(CapabilitySet::NET_RAW) {
        sets.effective.remove(CapabilitySet::NET_RAW);
        sets.permitted.remove(CapabilitySet::NET_RAW);
        sets.inheritable.remove(CapabilitySet::NET_RAW);
        if let Err(error) = set_capabilities(None, sets) {
            tracing::debug!(%error, "cannot give up CAP_NET_RAW");
        }
    }
}

/// As many descriptors as the system lets us have: each session over a stream carrier and each open item has one.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let had = getrlimit(Resource::Nofile);
    if had.current != had.maximum {
        let most = Rlimit { current: had.maximum, maximum: had.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, most) {
            tracing::debug!(%error, "the limit of descriptors stays");
        }
    }
}
