//! `cabo man`: a manual page for each command.
//!
//! `clap_mangen` writes the page; what stands at the end of a help has lines of its own, so its sections are ours, and so is
//! the synopsis, for options have values.

use std::fmt::Write as _;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cabo::local_time::date_of;
use clap::{Arg, ArgAction};
use clap_mangen::Man;

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
        let mut root = Cli::description().after_long_help(exit::TABLE);
        root.build();
        let written = std::fs::create_dir_all(&dir).and_then(|()| write(&root, &[], &dir));
        written.map_err(|error| {
            let text = format!("cannot write manual pages into {}: {error}", dir.display());
            Failure::new(exit::FAILED, text)
        })?;
        Ok(ExitCode::from(exit::OK))
    }
}

/// Writes the page of `command` and those of its parts; `above` are the names of the pages that lead to it.
fn write(command: &clap::Command, above: &[String], dir: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let parts = command.get_subcommands().filter(|part| !part.is_hide_set());
    // `cabo help` is a command of ours; those below are made by clap.
    let parts: Vec<_> =
        parts.filter(|part| above.is_empty() || part.get_name() != "help").collect();
    let end = command.get_after_long_help().or_else(|| command.get_after_help());
    let mut sections = end.map(|end| sections(&end.to_string())).unwrap_or_default();
    let below = parts.iter().filter_map(|part| part.get_display_name().map(str::to_owned));
    let others: Vec<String> = above.iter().cloned().chain(below).collect();
    let others: Vec<String> =
        others.iter().map(|name| format!("\\fB{}\\fR(1)", escaped(name))).collect();
    let _ = write!(sections, ".SH SEE ALSO\n{}\n", others.join(", ")); // to a string

    let mut page = Vec::new();
    let man = Man::new(command.clone()).title(name.clone()).manual("Manual of cabo");
    let version = concat!("cabo ", env!("CARGO_PKG_VERSION"));
    man.source(version).date(date().unwrap_or_default()).render(&mut page)?;
    let page = String::from_utf8_lossy(&page);
    let (head, tail) = page.split_at(page.find(".SH VERSION").unwrap_or(page.len()));
    let head = head.split(".SH EXTRA").next().unwrap_or_default();
    let (title, rest) = head.split_once(".SH SYNOPSIS\n").unwrap_or((head, ""));
    let rest = rest.find(".SH").and_then(|at| rest.get(at..)).unwrap_or_default();
    let head = format!("{title}.SH SYNOPSIS\n{}\n{rest}", synopsis(command));
    std::fs::write(dir.join(format!("{name}.1")), format!("{head}{sections}{tail}"))?;
    let above: Vec<String> = above.iter().cloned().chain([name]).collect();
    parts.into_iter().try_for_each(|part| write(part, &above, dir))
}

/// The day on which this program was made, or put where it is.
fn date() -> Option<String> {
    let made = std::env::current_exe().and_then(std::fs::metadata).ok()?.mtime();
    let [year, month, day] = date_of(made);
    Some(format!("{year:04}-{month:02}-{day:02}"))
}

/// The command line with a name for each value; what every command understands stands last.
fn synopsis(command: &clap::Command) -> String {
    let is_own =
        |arg: &&Arg| !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str());
    let (everywhere, own): (Vec<_>, Vec<_>) = command
        .get_arguments()
        .filter(is_own)
        .filter(|arg| !arg.is_positional())
        .partition(|arg| arg.is_global_set());
    let (required, own): (Vec<_>, Vec<_>) = own.into_iter().partition(|arg| arg.is_required_set());
    let options = own.into_iter().chain(everywhere).chain(required);
    let mut words: Vec<String> =
        options.chain(command.get_positionals().filter(is_own)).map(word).collect();
    if command.get_subcommands().any(|part| !part.is_hide_set()) {
        let name = "\\fICOMMAND\\fR";
        words.push(if command.is_subcommand_required_set() {
            name.into()
        } else {
            format!("[{name}]")
        });
    }
    format!(
        "\\fB{}\\fR {}",
        escaped(command.get_bin_name().unwrap_or_else(|| command.get_name())),
        words.join(" ")
    )
}

/// One argument: `[--idle TIME]`, `[URL]...`.
fn word(arg: &Arg) -> String {
    let flag = match (arg.get_long(), arg.get_short()) {
        (Some(long), _) => Some(format!("--{long}")),
        (None, short) => short.map(|short| format!("-{short}")),
    };
    let names = arg.get_value_names().filter(|_| arg.get_action().takes_values());
    let values = names.into_iter().flatten().map(|name| format!("\\fI{}\\fR", escaped(name)));
    let flag = flag.map(|flag| format!("\\fB{}\\fR", escaped(&flag)));
    let all = flag.into_iter().chain(values).collect::<Vec<_>>().join(" ");
    let is_many = matches!(arg.get_action(), ArgAction::Append | ArgAction::Count)
        || arg.get_num_args().is_some_and(|count| count.max_values() > 1);
    let (open, close) = if arg.is_required_set() { ("", "") } else { ("[", "]") };
    format!("{open}{all}{close}{}", if is_many { "..." } else { "" })
}

/// The end of a help as sections: lines below a title stay lines, anything else is filled.
fn sections(text: &str) -> String {
    let mut roff = String::new();
    let mut is_among_notes = false;
    for paragraph in text.split("\n\n") {
        let (first, rest) = paragraph.split_once('\n').unwrap_or((paragraph, ""));
        let title = match first {
            "Examples:" => Some("EXAMPLES"),
            "Exit codes:" => Some("EXIT STATUS"),
            _ => None,
        };
        let lines = title.map_or(paragraph, |_| rest).lines().map(escaped);
        let lines = lines.collect::<Vec<_>>().join("\n");
        // Writing to a string cannot fail.
        let _ = match title {
            Some(title) => writeln!(roff, ".SH {title}\n.nf\n{lines}\n.fi"),
            None if is_among_notes => writeln!(roff, ".PP\n{lines}"),
            None => writeln!(roff, ".SH NOTES\n{lines}"),
        };
        is_among_notes = title.is_none();
    }
    roff
}

/// A line of text that roff takes for nothing else.
fn escaped(line: &str) -> String {
    let text = line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_lines_and_prose_is_filled() {
        let text = "Examples:\n  cabo get --all 'a b'   it's\n  .x\\y\n\nSome prose.\n\nMore.";
        let expected = ".SH EXAMPLES\n.nf\n  cabo get \\-\\-all \\(aqa b\\(aq   it\\(aqs\n  .x\\ey\n.fi\n\
                        .SH NOTES\nSome prose.\n.PP\nMore.\n";
        assert_eq!(sections(text), expected);
    }
}
