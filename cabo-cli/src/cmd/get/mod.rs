//! `cabo get`: items onto a disk, proved and resumed, also when the session is lost under way.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use cabo::address::Address;
use cabo::service::media::ItemPath;
use tracing_subscriber::filter::LevelFilter;

use self::exclude::Globs;
use self::transfer::Transfer;
use super::{Globals, block_on};
use crate::exit::Failure;
use crate::redes;
use crate::session;

mod dry;
mod exclude;
mod persist;
mod seen;
mod told;
mod transfer;

pub(crate) use self::transfer::{folder_and, open_target};

/// Fetch an item, or all of them, and prove every byte
///
/// What arrives is written to a file beside the target and renamed when all of it is proved. Run the same command again
/// after anything went wrong: it goes on where it was. A server that is lost is looked for until the patience ends.
/// What stands at the target's place stays until then: the same file is not fetched again, another one is replaced. With
/// --all, folders that are empty come too, and times and modes are kept.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cabo get tcp://host/trip/day1.mp4            into this folder
  cabo get udp://host/film.mp4 -o copy.mp4     under another name
  cabo get //kitchen/film.mp4                  from whoever has that name here, by any carrier
  cabo get eth://enp3s0 --all -o ./copy        everything, several items at once
  cabo get udp://host --all -n -x '*.iso'      what that would bring without images
  cabo get unix:///run/cabo.sock 'a b.txt'     names beside an address need no percent signs
  cabo get redes://veth0/video.mp4             from a server of the course protocol
  cabo get udp://host/notes.txt -o - | less    to stdout")]
pub(crate) struct Args {
    /// The server and the item: //NAME/ITEM, udp://HOST/ITEM, tcp://, tls://, eth://INTERFACE/ITEM, unix:///PATH, redes://
    #[arg(value_name = "URL")]
    url: OsString,
    /// The item, as its name is and not percent-encoded
    #[arg(value_name = "ITEM")]
    item: Option<OsString>,
    /// Into this folder, under this name, or - for stdout
    #[arg(short, long, value_name = "DIR|FILE", default_value = ".")]
    output: OsString,
    /// Everything in the folder that is named, or in the whole catalogue
    #[arg(short, long)]
    all: bool,
    /// Streams at once, with --all: long items, or batches of small ones
    #[arg(short, long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// Leave out what this pattern fits, with --all: '*.tmp' is a name at any depth, 'sub/*.log' a path
    #[arg(short = 'x', long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Say what would be fetched, and write nothing, with --all
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// How long to look for a server that was lost: 90s, 5m, 0s
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_time)]
    patience: Duration,
    /// Without identities and encryption; the server has to be plain too
    #[arg(long)]
    plain: bool,
}

/// What the arguments mean.
struct Wish {
    address: Address,
    what: What,
    place: Place,
    patience: Duration,
    is_plain: bool,
    globals: Globals,
}

/// What is fetched.
enum What {
    /// One item; the empty path is the only one that there is.
    One(ItemPath),
    /// All beneath a folder.
    All(All),
}

/// A wish for all beneath a folder.
struct All {
    folder: ItemPath,
    /// Streams at once.
    parallel: usize,
    excluded: Globs,
    /// Only what it would bring.
    is_dry: bool,
}

/// Where it goes.
#[derive(Debug, PartialEq)]
enum Place {
    /// Under its own name into a folder.
    Folder(PathBuf),
    /// Under another name.
    File {
        folder: PathBuf,
        name: ItemPath,
    },
    Stdout,
}

impl Args {
    pub(crate) fn run(self, globals: Globals) -> anyhow::Result<ExitCode> {
        globals.log(LevelFilter::WARN);
        let item = self.item.as_ref().map(|item| item.as_bytes());
        if let Some(asked) = redes::Asked::of(self.url.as_bytes(), item)? {
            if self.dry_run || !self.exclude.is_empty() {
                let text = "a redes link does not tell what it has: leave --exclude and --dry-run";
                return Err(Failure::usage(text).into());
            }
            let output = redes_output(place(Path::new(&self.output), self.all)?)?;
            return block_on(redes::get::run(asked, output, self.all, globals));
        }
        let wish = self.mean(globals)?;
        block_on(async move { Transfer::new(wish)?.run().await })
    }

    fn mean(self, globals: Globals) -> anyhow::Result<Wish> {
        let item = self.item.as_ref().map(|item| item.as_bytes());
        let (address, item) = session::address_and_item(self.url.as_bytes(), item)?;
        address.check_connect().map_err(|error| Failure::usage(error.to_string()))?;
        let place = place(Path::new(&self.output), self.all)?;
        if !self.all && (self.dry_run || !self.exclude.is_empty()) {
            let text = "--exclude and --dry-run are for folders: add --all";
            return Err(Failure::usage(text).into());
        }
        let what = match self.all {
            true => What::All(All {
                folder: item,
                parallel: self.jobs.into(),
                excluded: Globs::new(&self.exclude)?,
                is_dry: self.dry_run,
            }),
            false => What::One(item),
        };
        let (patience, is_plain) = (self.patience, self.plain);
        Ok(Wish { address, what, place, patience, is_plain, globals })
    }
}

/// What `-o` means: a folder if it is one or ends with a slash, or with `--all`.
fn place(output: &Path, is_all: bool) -> anyhow::Result<Place> {
    let bytes = output.as_os_str().as_bytes();
    if bytes == b"-" {
        return match is_all {
            true => Err(Failure::usage("--all makes files; name a folder: -o DIR").into()),
            false => Ok(Place::Stdout),
        };
    }
    if is_all || bytes.ends_with(b"/") || output.is_dir() {
        return Ok(Place::Folder(output.to_owned()));
    }
    let name = output.file_name().unwrap_or_default().as_bytes();
    let name = ItemPath::new(name).ok().filter(|name| !name.is_root()).ok_or_else(|| {
        Failure::usage(format!("-o {}: this is no name for a file", output.display()))
    })?;
    let folder = match output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    };
    Ok(Place::File { folder, name })
}

/// The same for the course protocol, which proves nothing before the end.
fn redes_output(place: Place) -> Result<redes::get::Output, Failure> {
    match place {
        Place::Folder(folder) => Ok(redes::get::Output { folder, name: None, may_make: true }),
        Place::File { folder, name } => {
            Ok(redes::get::Output { folder, name: Some(name), may_make: false })
        }
        Place::Stdout => Err(Failure::usage("a redes link writes files; name one: -o DIR|FILE")),
    }
}

/// Reads `90s`, `5m`, `1h`, `500ms`; a day at most.
pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit_ms: u64 = match text.get(digits.len()..) {
        Some("ms") => 1,
        Some("s") => 1000,
        Some("") if digits == "0" => 1000,
        Some("m" | "min") => 60_000,
        Some("h") => 3_600_000,
        Some(_) | None => return Err("write a number and a unit: 500ms, 90s, 5m, 1h".to_owned()),
    };
    let number: u64 =
        digits.parse().map_err(|_| "write a number and a unit: 500ms, 90s, 5m, 1h".to_owned())?;
    match number.checked_mul(unit_ms).map(Duration::from_millis) {
        Some(time) if time <= Duration::from_secs(86_400) => Ok(time),
        Some(_) | None => Err("a day (24h) is the most".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_a_folder_a_name_or_stdout() {
        let place = |text: &str, is_all| place(Path::new(text), is_all).ok();
        let file = |folder: &str, name| {
            let name = ItemPath::new(name).expect("good");
            Some(Place::File { folder: folder.into(), name })
        };
        assert_eq!(place(".", false), Some(Place::Folder(".".into())));
        assert_eq!(place("/tmp", false), Some(Place::Folder("/tmp".into())));
        assert_eq!(place("not-there/", false), Some(Place::Folder("not-there/".into())));
        assert_eq!(place("not-there", true), Some(Place::Folder("not-there".into())));
        assert_eq!(place("not-there", false), file(".", "not-there"));
        assert_eq!(place("a/b.mp4", false), file("a", "b.mp4"));
        assert_eq!(place("-", false), Some(Place::Stdout));
        assert_eq!(place("-", true), None);
        assert_eq!(place("", false), None);
        assert_eq!(place("a/..", false), None);
    }

    #[test]
    fn times_have_a_unit_and_an_end() {
        assert_eq!(parse_time("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_time("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_time("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_time("0"), Ok(Duration::ZERO));
        for bad in ["", "5", "s", "-1s", "1.5s", "1d", "25h", "99999999999999999999s"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }
}
