//! What was typed: one file a command, each with its arguments, its help and its doing.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod demo;
mod lab;
pub(crate) mod relay;

/// Messages and streams over any wire, and a clear picture of what crosses it.
#[derive(Debug, Parser)]
#[command(name = "cabo", version, about, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    Lab(lab::LabArgs),
    Relay(relay::RelayArgs),
}

impl Cli {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Demo(args) => args.run(),
            Command::Lab(args) => args.run(),
            Command::Relay(args) => args.run(),
        }
    }
}
