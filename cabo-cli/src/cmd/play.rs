//! `cabo play`: an item in a player of this machine, through a local gateway that verifies every byte.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;
use std::time::Duration;

use cabo::address::{Address, Place};
use cabo::client::Client;
use cabo::discovery::{self, Wanted};
use cabo::service::gateway::{
    CopyError, Gateway, GatewaySettings, PlayError, SessionSource, copy, describe,
};
use cabo::service::media::{ErrorCode, ItemInfo, ItemPath};
use serde_json::json;
use tokio::task::{JoinError, JoinHandle};
use tracing_subscriber::filter::LevelFilter;

use self::player::Player;
use super::{Globals, block_on, give_up_raw_sockets, interrupted, ls};
use crate::exit::{self, Failure};
use crate::session;
use crate::show::human;
use crate::show::json;
use crate::show::{stderr, stdout};

mod player;

/// How long a player has to end after it was asked to.
const END_TIME: Duration = Duration::from_secs(2);

/// Play an item, from any place in it, while it arrives
///
/// The player gets the address of a gateway on this machine, which asks the server for no more than is played and
/// proves every byte. Any player that opens http:// does; mpv, VLC, ffplay or the browser is found by itself. Without
/// an item, or with a folder, the browser shows what is there. A server that is lost is looked for until the patience
/// ends; the player waits for so long.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cabo play                                      the whole catalogue of the only server here
  cabo play udp://host/film.mp4                  in the first player that is found
  cabo play //kitchen/film.mp4                   from whoever has that name here, by any carrier
  cabo play eth://enp3s0/film.mp4 --player vlc   in this one
  cabo play tcp://host                           the whole catalogue in the browser
  cabo play udp://host/film.mp4 --url            prints the address and serves it until Ctrl-C
  cabo play udp://host/film.mp4 --stdout | mpv -")]
pub(crate) struct Args {
    /// The server and the item: //NAME/ITEM, udp://HOST/ITEM, tcp://, tls://, eth://INTERFACE/ITEM, unix:///PATH
    /// without it, the only one that serves here
    #[arg(value_name = "URL")]
    url: Option<OsString>,
    /// The item, as its name is and not percent-encoded
    #[arg(value_name = "ITEM")]
    item: Option<OsString>,
    /// This player; words are parted by spaces, the address comes last
    #[arg(long, value_name = "CMD", env = "CABO_PLAYER")]
    player: Option<OsString>,
    /// Write the item to stdout, every byte proved, instead of playing it
    #[arg(long, conflicts_with = "url_only")]
    stdout: bool,
    /// Print the gateway's address and serve it until Ctrl-C
    #[arg(long = "url")]
    url_only: bool,
    /// How long to look for a server that was lost: 90s, 5m, 0s
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = super::get::parse_time)]
    patience: Duration,
    /// Say at the end what was asked for and sent
    #[arg(long)]
    stats: bool,
    /// Without identities and encryption; the server has to be plain too
    #[arg(long)]
    plain: bool,
}

/// What the arguments mean.
struct Wish {
    address: Address,
    item: ItemPath,
    how: How,
    patience: Duration,
    is_counting: bool,
    globals: Globals,
}

enum How {
    Stdout,
    Url,
    Player(Option<Player>),
}

/// What stands at the item's place.
enum What {
    File(ItemInfo),
    Folder,
}

impl Args {
    pub(crate) fn run(self, globals: Globals) -> anyhow::Result<ExitCode> {
        globals.log(LevelFilter::WARN);
        block_on(async move {
            let (client, address, item) = match &self.url {
                Some(url) => self.asked_for(url)?,
                None => self.only_one().await?,
            };
            self.mean(address, item, globals)?.run(client).await
        })
    }

    fn asked_for(&self, url: &OsStr) -> anyhow::Result<(Client, Address, ItemPath)> {
        let item = self.item.as_ref().map(|item| item.as_bytes());
        let (address, item) = session::address_and_item(url.as_bytes(), item)?;
        address.check_connect().map_err(|error| Failure::usage(error.to_string()))?;
        Ok((session::client_to(&address, self.plain)?, address, item))
    }

    /// The only server that is here, by its name where it has one.
    async fn only_one(&self) -> anyhow::Result<(Client, Address, ItemPath)> {
        let client = session::client(self.plain)?;
        session::open_links(&client);
        give_up_raw_sockets();
        let survey =
            discovery::search(client.endpoint(), &Wanted::Everybody, ls::SEARCH_TIME).await;
        let mut urls = survey.heard.into_iter().filter_map(|heard| match heard.name {
            Some(name) => Some(Place::Name(name).into()),
            None => heard.ways.into_iter().next(),
        });
        match (urls.next(), urls.next()) {
            (Some(address), None) => Ok((client, address, ItemPath::default())),
            (Some(first), Some(second)) => {
                let text = format!(
                    "more than one serves here, {first} and {second} among them; name one of `cabo ls`: cabo play {first}"
                );
                Err(Failure::usage(text).into())
            }
            (None, _) => Err(ls::nobody().into()),
        }
    }

    fn mean(self, address: Address, item: ItemPath, globals: Globals) -> anyhow::Result<Wish> {
        let how = match (self.stdout, self.url_only, self.player) {
            (true, _, _) => How::Stdout,
            (_, true, _) => How::Url,
            (_, _, Some(command)) => How::Player(Some(Player::from_words(&command)?)),
            (_, _, None) => How::Player(None),
        };
        let (patience, is_counting) = (self.patience, self.stats);
        Ok(Wish { address, item, how, patience, is_counting, globals })
    }
}

/// Ctrl-C or SIGTERM, being waited for.
type Caught = JoinHandle<()>;

fn interrupted_by(caught: Result<(), JoinError>) -> anyhow::Result<ExitCode> {
    caught?;
    Ok(ExitCode::from(exit::INTERRUPTED))
}

impl Wish {
    async fn run(&self, client: Client) -> anyhow::Result<ExitCode> {
        let mut caught = tokio::spawn(interrupted()?); // from now on, whatever is under way
        let settings = GatewaySettings { patience: self.patience, ..GatewaySettings::default() };
        let (source, what) = tokio::select! {
            connected = self.connect(client, &settings) => connected?,
            caught = &mut caught => return interrupted_by(caught),
        };
        if matches!(self.how, How::Stdout) {
            return tokio::select! {
                copied = self.copy(source, settings) => copied,
                caught = &mut caught => interrupted_by(caught),
            };
        }
        let here = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0));
        let gateway = Gateway::bind(here, source, settings).await.map_err(|error| {
            Failure::new(exit::FAILED, format!("the gateway cannot listen: {error}"))
        })?;
        let code = self.serve(&gateway, &what, caught).await;
        self.tell_stats(&gateway)?;
        code
    }

    /// A session, and what the server says stands there: errors come before any player starts.
    async fn connect(
        &self,
        client: Client,
        settings: &GatewaySettings,
    ) -> anyhow::Result<(SessionSource, What)> {
        let is_quiet = self.globals.quiet;
        let tell = move |text: &str| {
            if !is_quiet {
                stderr::say(&format!("cabo: {text}"));
            }
        };
        let session = session::connect(&client, &self.address, tell).await?;
        let source = SessionSource::new(client, self.address.clone(), Some(session.connection));
        let what = match describe(&source, settings, &self.item).await {
            Ok(info) => What::File(info),
            Err(PlayError::Refused(refusal)) if refusal.code == ErrorCode::NotAFile => What::Folder,
            // A server of a single file has nothing but that.
            Err(PlayError::Refused(_)) if self.item.is_root() => What::Folder,
            Err(error) => return Err(self.failure(&error).into()),
        };
        Ok((source, what))
    }

    async fn copy(
        &self,
        source: SessionSource,
        settings: GatewaySettings,
    ) -> anyhow::Result<ExitCode> {
        let out = std::io::stdout().as_fd().try_clone_to_owned()?;
        let mut out = tokio::fs::File::from_std(out.into());
        match copy(source, settings, &self.item, &mut out).await {
            Ok(_) => Ok(ExitCode::from(exit::OK)),
            Err(CopyError::Write(error)) => Err(stdout::named(error).into()), // a closed pipe is success
            Err(CopyError::Play(error)) => Err(self.failure(&error).into()),
        }
    }

    fn failure(&self, error: &PlayError) -> Failure {
        let code = match error {
            PlayError::Refused(refusal) if refusal.code == ErrorCode::AccessDenied => exit::REFUSED,
            PlayError::Refused(refusal) if refusal.code == ErrorCode::Changed => exit::INCOMPLETE,
            PlayError::Refused(_) | PlayError::Senseless(_) => exit::FAILED,
            PlayError::Source(_) => exit::REFUSED,
            PlayError::Lost { .. } => exit::UNREACHABLE,
        };
        Failure::new(code, format!("{}: {error}", self.address))
    }

    async fn serve(
        &self,
        gateway: &Gateway<SessionSource>,
        what: &What,
        caught: Caught,
    ) -> anyhow::Result<ExitCode> {
        let url = match what {
            What::File(_) => gateway.item_url(&self.item),
            What::Folder if self.item.is_root() => gateway.url(),
            What::Folder => format!("{}/", gateway.item_url(&self.item)),
        };
        let player = match (&self.how, what) {
            (How::Player(Some(player)), _) => Some(player.clone()),
            (How::Player(None), What::File(info)) => Player::find(&info.media_type),
            (How::Player(None), What::Folder) => Player::browser(),
            (How::Url | How::Stdout, _) => None,
        };
        let stop = std::sync::Arc::new(tokio::sync::Notify::new());
        let serving = gateway.run(stop.notified());
        let playing = async {
            let ended = self.play(player, &url, what, caught).await;
            stop.notify_one();
            ended
        };
        tokio::join!(serving, playing).1
    }

    /// Starts the player and ends with it; where there is none, or one that hands the address on and ends at once,
    /// serves until Ctrl-C.
    async fn play(
        &self,
        player: Option<Player>,
        url: &str,
        what: &What,
        mut caught: Caught,
    ) -> anyhow::Result<ExitCode> {
        let Some(player) = player else {
            self.tell(None, url, what)?;
            caught.await?;
            return Ok(ExitCode::from(exit::OK));
        };
        let mut child = player.start(url, self.globals.json)?;
        self.tell(Some(&player), url, what)?;
        let status = tokio::select! {
            status = child.wait() => status?,
            caught = &mut caught => {
                // A terminal has told the player too; a `kill` has not.
                let _ = child.start_kill();
                let _ = tokio::time::timeout(END_TIME, child.wait()).await;
                return interrupted_by(caught);
            }
        };
        if !status.success() {
            let text = format!("{player} ended with {status}");
            return Err(Failure::new(exit::FAILED, text).into());
        }
        if player.hands_on {
            if !self.globals.quiet {
                stderr::say(&format!("{player} has it; Ctrl-C ends the gateway"));
            }
            caught.await?;
        }
        Ok(ExitCode::from(exit::OK))
    }

    fn tell(&self, player: Option<&Player>, url: &str, what: &What) -> anyhow::Result<()> {
        if self.globals.json {
            let (size, media_type) = match what {
                What::File(info) => (Some(info.size), Some(info.media_type.as_str())),
                What::Folder => (None, None),
            };
            json::line(&json!({
                "type": "gateway",
                "url": url,
                "item": self.item.to_string(),
                "size": size,
                "media_type": media_type,
                "player": player.map(ToString::to_string),
            }))?;
        } else if player.is_none() {
            use std::io::Write as _;
            let mut out = stdout::raw();
            writeln!(out, "{url}")?;
            out.flush()?;
            if matches!(self.how, How::Player(_)) {
                stderr::say(
                    "no player was found; open this address in one, or name it: --player CMD. Ctrl-C ends",
                );
            }
        } else if let (Some(player), What::File(info), false) = (player, what, self.globals.quiet) {
            stderr::say(&format!("{} ({}) in {player}", self.item, human::size(info.size)));
        }
        Ok(())
    }

    fn tell_stats(&self, gateway: &Gateway<SessionSource>) -> anyhow::Result<()> {
        if !self.is_counting {
            return Ok(());
        }
        let stats = gateway.stats();
        if self.globals.json {
            return Ok(json::line(&json!({
                "type": "stats",
                "requests": stats.requests,
                "bytes": stats.bytes,
                "blocks": stats.blocks,
                "cache_hits": stats.cache_hits,
                "retries": stats.retries,
                "cancelled": stats.cancelled,
            }))?);
        }
        stderr::say(&format!(
            "{} requests, {} to the player; {} blocks of 1 MiB from the server, {} used again, {} cancelled, \
             {} retries",
            stats.requests,
            human::size(stats.bytes),
            stats.blocks,
            stats.cache_hits,
            stats.cancelled,
            stats.retries
        ));
        Ok(())
    }
}
