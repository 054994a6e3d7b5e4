//! `cabo ls`: what a server has, and who serves.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use cabo::address::{Address, Interface, Item, Name, Place};
use cabo::carrier::ether;
use cabo::client::{Client, Session};
use cabo::discovery::{self, Found, Heard, Wanted};
use cabo::service::media::{Entry, EntryKind, ItemPath, MediaClient, MediaError};
use serde_json::json;
use tracing_subscriber::filter::LevelFilter;

use super::{Globals, block_on, give_up_raw_sockets, interrupted};
use crate::exit::{self, Failure};
use crate::redes;
use crate::session;
use crate::show::human::{self, escaped};
use crate::show::json;
use crate::show::table::{self, Align, Cell};
use crate::show::{stderr, stdout};

/// How long one link is asked who serves.
const ASKING_TIME: Duration = Duration::from_secs(1);
/// How long everybody is asked: who has just said it by multicast DNS keeps silent for a second (RFC 6762, section 6).
pub(super) const SEARCH_TIME: Duration = Duration::from_millis(2500);
/// Entries that are sorted; a server that never ends its list must not fill our memory.
const ENTRIES_MAX: usize = 1_000_000;
const FOLDER: Style = AnsiColor::Blue.on_default().bold();

/// List what a server has; without a URL: who serves here
///
/// Folders come first. Names are escaped where they could drive a terminal; `--json` gives the URL of each item, which
/// `cabo get` takes as it is. Times are in UTC. Who serves is one object a server: `type` is "server", `name` (or null) and
/// `fingerprint` are what it says, `url` is the best way to it and `urls` are all, the best first.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cabo ls                          who serves on the links and networks of this machine
  cabo ls //kitchen/trip           a server by its name, wherever it is here
  cabo ls eth://enp3s0             asks that link, and lists what is there
  cabo ls udp://host/trip          one folder
  cabo ls -r tcp://host:5555       everything beneath
  cabo ls redes://veth0            the course protocol: what its server has, numbered
  cabo ls unix:///run/cabo.sock 'trip/day 1'")]
pub(crate) struct Args {
    /// Whom to ask, and for which folder: //NAME/FOLDER, udp://HOST/FOLDER, tcp://, tls://, eth://INTERFACE, unix:///PATH,
    /// redes://
    #[arg(value_name = "URL")]
    url: Option<OsString>,
    /// The folder, as its name is and not percent-encoded
    #[arg(value_name = "FOLDER")]
    folder: Option<OsString>,
    /// With everything beneath
    #[arg(short, long)]
    recursive: bool,
    /// Exact sizes and times, and media types
    #[arg(short, long)]
    long: bool,
    /// Without identities and encryption; the server has to be plain too
    #[arg(long)]
    plain: bool,
}

/// What the arguments mean.
struct Wish {
    is_recursive: bool,
    is_long: bool,
    is_plain: bool,
    globals: Globals,
}

impl Args {
    pub(crate) fn run(self, globals: Globals) -> anyhow::Result<ExitCode> {
        globals.log(LevelFilter::WARN);
        let wish = Wish {
            is_recursive: self.recursive,
            is_long: self.long,
            is_plain: self.plain,
            globals,
        };
        let Some(url) = self.url else {
            return block_on(async move { wish.ask_everywhere().await });
        };
        let folder = self.folder.as_ref().map(|folder| folder.as_bytes());
        if let Some(asked) = redes::Asked::of(url.as_bytes(), folder)? {
            return block_on(redes::ls::run(asked, globals));
        }
        let (address, folder) = session::address_and_item(url.as_bytes(), folder)?;
        block_on(async move { wish.list(&address, &folder).await })
    }
}

impl Wish {
    async fn list(&self, address: &Address, folder: &ItemPath) -> anyhow::Result<ExitCode> {
        let client = session::client_to(address, self.is_plain)?;
        match &address.place {
            Place::Eth { mac: None, interface, port } if folder.is_root() => {
                let found = self.found_on(&client, interface, *port).await?;
                self.show_heard(&discovery::group(found.clone()))?;
                for (number, found) in found.iter().enumerate() {
                    if !self.globals.json {
                        let gap = if number == 0 { "" } else { "\n" };
                        writeln!(stdout::styled(), "{gap}{}:", found.address)?;
                    }
                    self.list_one(&client, &found.address, folder).await?;
                }
            }
            Place::Eth { .. }
            | Place::Udp(_)
            | Place::Tcp(_)
            | Place::Tls(_)
            | Place::Unix(_)
            | Place::Redes { .. }
            | Place::Name(_) => self.list_one(&client, address, folder).await?,
        }
        Ok(ExitCode::from(exit::OK))
    }

    /// Who serves on a link, at `port` if one is asked for.
    async fn found_on(
        &self,
        client: &Client,
        interface: &Interface,
        port: Option<u16>,
    ) -> Result<Vec<Found>, Failure> {
        let mut found = client.endpoint().who_serves(interface.as_str(), ASKING_TIME).await?;
        let is_wanted = |found: &Found| matches!(found.address.place, Place::Eth { port: at, .. } if at == port);
        found.retain(|found| port.is_none() || is_wanted(found));
        if found.is_empty() {
            let text = format!(
                "eth://{interface}: nobody serves on this link; start `cabo serve FOLDER` on the other side, \
                 or see `cabo ls` for all links"
            );
            return Err(Failure::new(exit::UNREACHABLE, text));
        }
        Ok(found)
    }

    async fn list_one(
        &self,
        client: &Client,
        address: &Address,
        folder: &ItemPath,
    ) -> anyhow::Result<()> {
        let is_quiet = self.globals.quiet;
        let say = move |text: &str| {
            if !is_quiet {
                stderr::say(text);
            }
        };
        let mut caught = tokio::spawn(interrupted()?); // from now on, whatever is under way
        let stopped = || Failure::new(exit::INTERRUPTED, "interrupted");
        let session = tokio::select! {
            session = session::connect(client, address, say) => session?,
            _ = &mut caught => return Err(stopped().into()),
        };
        let collected = tokio::select! {
            collected = self.collect(&session, address, folder) => collected,
            _ = &mut caught => Err(stopped()),
        };
        session::leave(&session).await;
        let (mut entries, unlisted) = collected?;
        entries.sort_by(|a, b| order(a).cmp(&order(b)));
        if self.globals.json {
            self.print_json(&session.address.place, folder, &entries)?;
        } else {
            self.print_table(&entries)?;
        }
        unlisted.map_or(Ok(()), |failure| Err(failure.into()))
    }

    /// The entries, and what was wrong with a part of them.
    async fn collect(
        &self,
        session: &Session,
        address: &Address,
        folder: &ItemPath,
    ) -> Result<(Vec<Entry>, Option<Failure>), Failure> {
        let media = MediaClient::new(session.connection.clone());
        let failed = |error: MediaError| exit::of_media(&address.to_string(), &error);
        let first = session::ask(session, async || {
            let mut listing = media.list(folder, self.is_recursive).await?;
            match listing.next().await {
                Err(error @ MediaError::Stalled { .. }) => Err(error),
                first => Ok((first, listing)),
            }
        });
        let (mut next, mut listing) = first.await.map_err(failed)?;
        let mut entries = Vec::new();
        loop {
            let entry = match next {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok((entries, None)),
                // A part of it, after all that could be listed (M-5.4).
                Err(error @ MediaError::Refused(_)) if !entries.is_empty() => {
                    return Ok((entries, Some(failed(error))));
                }
                Err(error) => return Err(failed(error)),
            };
            if entries.len() == ENTRIES_MAX {
                let text =
                    format!("{address}: more than {ENTRIES_MAX} entries; name one of its folders");
                return Err(Failure::new(exit::FAILED, text));
            }
            entries.push(entry);
            next = listing.next().await;
        }
    }

    fn print_json(
        &self,
        place: &Place,
        folder: &ItemPath,
        entries: &[Entry],
    ) -> anyhow::Result<()> {
        for entry in entries {
            let path = folder.join(&entry.path)?;
            let item = Item::from_path(path.as_bytes())?;
            let has_items = !matches!(place, Place::Unix(_)); // there the item stands beside the address
            let url = has_items.then(|| Address { item, ..place.clone().into() }.to_string());
            json::line(&json!({
                "name": entry.path.to_string(),
                "item": text_or_null(path.as_bytes()),
                "url": url,
                "type": if entry.kind == EntryKind::Folder { "folder" } else { "file" },
                "is_link": entry.is_link,
                "size": entry.size,
                "modified": entry.modified.seconds,
                "media_type": entry.media_type,
            }))?;
        }
        Ok(())
    }

    fn print_table(&self, entries: &[Entry]) -> anyhow::Result<()> {
        let mut head = vec![("size", Align::Right), ("modified (UTC)", Align::Left)];
        if self.is_long {
            head.push(("type", Align::Left));
        }
        head.push(("name", Align::Left));
        let row = |entry: &Entry| {
            let is_folder = entry.kind == EntryKind::Folder;
            let size = match (is_folder, self.is_long) {
                (true, _) => "-".to_owned(),
                (false, true) => entry.size.to_string(),
                (false, false) => human::size(entry.size),
            };
            let mut row =
                vec![Cell::new(size), Cell::new(human::time(entry.modified, self.is_long))];
            if self.is_long {
                let kind = if is_folder { "folder" } else { entry.media_type.as_str() };
                row.push(Cell::new(escaped(kind)));
            }
            row.push(if is_folder {
                Cell::styled(format!("{}/", entry.path), FOLDER)
            } else {
                Cell::new(entry.path.to_string())
            });
            row
        };
        let rows: Vec<_> = entries.iter().map(row).collect();
        let mut out = stdout::styled();
        if rows.is_empty() {
            stderr::say("nothing is there");
        } else {
            table::write(&mut out, &head, &rows)?;
        }
        Ok(out.flush()?)
    }

    /// Every link of this machine and multicast DNS, all at once.
    async fn ask_everywhere(&self) -> anyhow::Result<ExitCode> {
        let client = session::client(self.is_plain)?;
        session::open_links(&client);
        give_up_raw_sockets();
        let survey = discovery::search(client.endpoint(), &Wanted::Everybody, SEARCH_TIME).await;
        if survey.heard.is_empty() {
            return Err(nobody().into());
        }
        self.show_heard(&survey.heard)?;
        if survey.is_cut {
            stderr::say("there are more; cabo ls //NAME finds one by its name");
        }
        Ok(ExitCode::from(exit::OK))
    }

    fn show_heard(&self, heard: &[Heard]) -> anyhow::Result<()> {
        if self.globals.json {
            for heard in heard {
                let urls: Vec<String> = heard.ways.iter().map(ToString::to_string).collect();
                json::line(&json!({
                    "type": "server",
                    "name": heard.name.as_ref().map(Name::as_str),
                    "fingerprint": heard.fingerprint.to_string(),
                    "url": urls.first(),
                    "urls": urls,
                }))?;
            }
            return Ok(());
        }
        let mut rows = Vec::new();
        for heard in heard {
            let name = heard.name.as_ref().map(|name| escaped(&format!("//{}", name.as_str())));
            let mut first = vec![name.unwrap_or_default(), heard.fingerprint.to_string()];
            for way in &heard.ways {
                first.push(way.to_string());
                rows.push(first.drain(..).map(Cell::new).collect::<Vec<_>>());
                first = vec![String::new(), String::new()]; // the same server by another way
            }
        }
        let head = ["name", "fingerprint (as it says)", "server"].map(|title| (title, Align::Left));
        Ok(table::write(&mut stdout::styled(), &head, &rows)?)
    }
}

/// Nobody has answered.
pub(super) fn nobody() -> Failure {
    let links = ether::links();
    let text = match links.is_empty() {
        true => "no Ethernet interface of this machine is up, so there is no link to ask; name a server: cabo ls udp://HOST".to_owned(),
        false => format!(
            "nobody serves on {}; start `cabo serve FOLDER` on the other side, or name a server: cabo ls udp://HOST",
            links.join(", ")
        ),
    };
    Failure::new(exit::UNREACHABLE, text)
}

/// Folders before files, folder by folder, then by name.
fn order(entry: &Entry) -> Vec<(bool, &[u8])> {
    let count = entry.path.components().count();
    let is_folder = |place: usize| place + 1 < count || entry.kind == EntryKind::Folder;
    entry.path.components().enumerate().map(|(place, name)| (!is_folder(place), name)).collect()
}

fn text_or_null(name: &[u8]) -> Option<&str> {
    str::from_utf8(name).ok()
}

#[cfg(test)]
mod tests {
    use cabo::service::media::Modified;

    use super::*;

    #[test]
    fn folders_come_first_and_what_is_in_them_after_them() {
        let entry = |path: &str, kind| Entry {
            path: ItemPath::new(path).expect("good"),
            kind,
            is_link: false,
            size: 0,
            modified: Modified { seconds: 0, nanos: 0 },
            mode: None,
            media_type: String::new(),
        };
        let mut entries = [
            entry("b", EntryKind::File),
            entry("a", EntryKind::File),
            entry("z/b", EntryKind::File),
            entry("z/c/d", EntryKind::File),
            entry("z/c", EntryKind::Folder),
            entry("z", EntryKind::Folder),
        ];
        entries.sort_by(|a, b| order(a).cmp(&order(b)));
        let names: Vec<_> = entries.iter().map(|entry| entry.path.to_string()).collect();
        assert_eq!(names, ["z", "z/c", "z/c/d", "z/b", "a", "b"]);
    }
}
