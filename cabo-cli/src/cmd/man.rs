//! `cabo man`: a manual page for each command.

use std::path::PathBuf;
use std::process::ExitCode;

use super::Cli;
use crate::exit::{self, Failure};

/// Write manual pages into a folder
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cabo man ~/.local/share/man/man1 && man cabo-get")]
pub(crate) struct Args {
    /// The folder; it is made if it is not there
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

impl Args {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let dir = self.dir;
        let written = std::fs::create_dir_all(&dir).and_then(|()| {
            clap_mangen::generate_to(Cli::description().after_long_help(exit::TABLE), &dir)
        });
        written.map_err(|error| {
            let text = format!("cannot write manual pages into {}: {error}", dir.display());
            Failure::new(exit::FAILED, text)
        })?;
        Ok(ExitCode::from(exit::OK))
    }
}
