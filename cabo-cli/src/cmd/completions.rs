//! `cabo completions`: what a shell needs to complete our commands.

use std::io::Write as _;
use std::process::ExitCode;

use cabo::proto::dialect::Dialect;
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
        let text = with_dialects(self.shell, &String::from_utf8_lossy(&text));
        crate::show::stdout::raw().write_all(text.as_bytes())?;
        Ok(ExitCode::from(exit::OK))
    }
}

/// What `--as` takes beside files and layouts.
fn dialects() -> String {
    let cuts = ["raw", "lines", "nul", "any", "cabo"];
    cuts.into_iter().chain(Dialect::built_in()).collect::<Vec<_>>().join(" ")
}

/// Adds the names of dialects to the files that a shell offers behind `--as`: clap knows either files or a list of names.
fn with_dialects(shell: Shell, text: &str) -> String {
    let names = dialects();
    match shell {
        Shell::Bash => {
            let files = "--as)\n                    COMPREPLY=($(compgen -f \"${cur}\"))";
            let both = format!(
                "--as)\n                    COMPREPLY=($(compgen -W \"{names}\" -f -- \"${{cur}}\"))"
            );
            text.replace(files, &both)
        }
        Shell::Zsh => {
            text.replace(":DIALECT:_default", &format!(":DIALECT:{{compadd {names}; _default}}"))
        }
        Shell::Fish => {
            let named = |line: &str| match line.contains(" -l as ") && line.ends_with(" -r") {
                true => format!("{line} -a \"{names}\"\n"),
                false => format!("{line}\n"),
            };
            text.lines().map(named).collect()
        }
        Shell::Elvish | Shell::PowerShell | _ => text.to_owned(),
    }
}
