//! `cabo completions`: what a shell needs to complete our commands.

use std::io::Write as _;
use std::process::ExitCode;

use clap_complete::Shell;

use super::Cli;
use crate::exit;

/// Write completions for a shell on stdout
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cabo completions bash > ~/.local/share/bash-completion/completions/cabo
  cabo completions zsh > ~/.zfunc/_cabo
  cabo completions fish > ~/.config/fish/completions/cabo.fish")]
pub(crate) struct Args {
    /// For which shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Args {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::description(), "cabo", &mut text);
        crate::show::stdout::raw().write_all(&text)?;
        Ok(ExitCode::from(exit::OK))
    }
}
