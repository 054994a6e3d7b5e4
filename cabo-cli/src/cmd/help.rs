//! `cabo help`: a first page with the commands by what they are for, and behind `--all` those that are seldom needed.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use super::Cli;
use crate::exit::{self, Failure};
use crate::show::stdout;

/// What the first page shows, in this order. A command that stands nowhere here is shown by `cabo help --all`.
const GROUPS: &[(&str, &[&str])] = &[
    ("Start", &["demo"]),
    ("Files and films", &["serve", "ls", "get", "put", "play", "keys"]),
    ("Talk", &["listen", "connect", "send", "dialect"]),
    ("Devices", &["led", "button", "up"]),
    ("See and test", &["watch", "relay", "lab", "doctor"]),
];
const MORE: &str = "More";
const TEMPLATE: &str = "{about}\n\n{usage-heading} {usage}\n\n{before-help}{options}{after-help}";
const NAME_WIDTH: usize = 12;

/// Show this, or the help of a command
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// With the commands that are seldom needed
    #[arg(long)]
    all: bool,
    /// The command
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
}

impl Args {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let mut description = Cli::description();
        if self.all {
            let page = page(&description, true);
            description = description.before_help(page);
        }
        description.build();
        let mut command = description;
        for name in &self.command {
            let Some(found) = command.find_subcommand(name) else {
                let text = format!("there is no command {name}; `cabo help --all` lists them");
                return Err(Failure::usage(text).into());
            };
            command = found.clone();
        }
        let text = match self.command.is_empty() {
            true => command.render_help(),
            false => command.render_long_help(),
        };
        write!(stdout::styled(), "{}", text.ansi())?;
        Ok(ExitCode::from(exit::OK))
    }
}

/// The description with the commands in groups, and with the exit codes at the end of each command's long help.
pub(super) fn with_first_page(command: clap::Command) -> clap::Command {
    let page = page(&command, false);
    let last = "`cabo help COMMAND` tells more, `cabo help --all` shows all commands.";
    let with_codes = |sub: clap::Command| {
        let examples = sub.get_after_help().map(|help| format!("{help}\n\n")).unwrap_or_default();
        sub.after_long_help(format!("{examples}{}", exit::TABLE))
    };
    command.help_template(TEMPLATE).before_help(page).after_help(last).mut_subcommands(with_codes)
}

fn page(command: &clap::Command, is_whole: bool) -> String {
    let mut text = String::new();
    for (title, names) in GROUPS {
        let known: Vec<_> = names.iter().filter_map(|name| command.find_subcommand(name)).collect();
        write_group(&mut text, title, &known);
    }
    if is_whole {
        let is_grouped =
            |name: &str| GROUPS.iter().any(|(_, names)| names.contains(&name)) || name == "help";
        let rest: Vec<_> =
            command.get_subcommands().filter(|sub| !is_grouped(sub.get_name())).collect();
        write_group(&mut text, MORE, &rest);
    }
    text.trim_end().to_owned()
}

fn write_group(text: &mut String, title: &str, commands: &[&clap::Command]) {
    if commands.is_empty() {
        return;
    }
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{title}:");
    for command in commands {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(text, "  {:NAME_WIDTH$} {about}", command.get_name());
    }
    text.push('\n');
}
