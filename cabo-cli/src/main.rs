//! The program `cabo`: parse what was typed, do it, and end with an exit code that says how it went.

mod cmd;
mod exit;
mod interfaces;
mod redes;
mod session;
mod show;
mod talk;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cmd::Cli::read();
    let code = match cli.run() {
        Ok(code) => code,
        Err(error) => exit::report(&error),
    };
    let _ = show::stdout::end_line(); // for the prompt; without a terminal there is nothing to end
    code
}
