//! The program `cabo`: parse what was typed, do it, and end with an exit code that says how it went.

mod cmd;
mod exit;
mod show;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = cmd::Cli::parse();
    match cli.run() {
        Ok(code) => code,
        Err(error) => exit::report(&error),
    }
}
