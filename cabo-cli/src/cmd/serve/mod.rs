//! `cabo serve`: a folder or a file, on any number of endpoints.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cabo::access::{Access, AllowFile, Cidr};
use cabo::address::{Address, DEFAULT_PORT, Host, HostPort, Interface, Name, Place};
use cabo::carrier::tls::ListenSettings;
use cabo::carrier::{OpenError, ether};
use cabo::discovery::{self, Announcement};
use cabo::endpoint::{Endpoint, Listening};
use cabo::error::ListenError;
use cabo::keys::{Fingerprint, PublicKey};
use cabo::server::{self, Question, Server, ServerEvent, ServerSettings};
use cabo::service::media::{Catalogue, Limits, MediaServer};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing_subscriber::filter::LevelFilter;

use self::manager::Manager;
use self::tell::Teller;
use super::relay::amount;
use super::{Globals, block_on, give_up_raw_sockets, is_terminal_gone, raise_descriptor_limit};
use crate::exit::{self, Failure};
use crate::redes::serve as redes;
use crate::session;
use crate::show::ask::Asker;

mod manager;
mod tell;
mod watch;

/// Peers beyond the sessions that we take who can be told so at once; the door drops more without a word.
const TURNED_AWAY_MAX: usize = 256;
/// What was typed to run it, in commands that let somebody in.
const PROGRAM: &str = "cabo serve";

/// Serve a folder or a file
///
/// Without --on: UDP and TCP on port 5555 of all addresses, and raw Ethernet on every link that is up, where that is
/// permitted. Who has your identity gets in; about anybody else you are asked on the terminal, and the answer holds
/// until the server ends: for good, a friend's fingerprint stands in the --allow file. SIGTERM and Ctrl-C let
/// transfers under way end, for --drain-time at most, and a second one ends at once; SIGHUP rereads the --allow file, and
/// the certificates of tls:// endpoints.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cabo serve ~/Videos                                     and answer on the terminal who gets in
  cabo serve ~/Videos --allow friends.txt                 one line of `cabo keys` a friend
  cabo serve film.mp4 --on eth://enp3s0 --on tcp://:5555  on these endpoints alone
  cabo serve . --on unix:///run/cabo.sock --open          anybody who can reach it gets in
  cabo serve ~/Videos --name kitchen                      found as //kitchen
  cabo serve ~/Videos --metrics 127.0.0.1:9100            watched by Prometheus
  cabo serve . --on redes://veth0 --open                  the course protocol on raw Ethernet")]
pub(crate) struct Args {
    /// What to serve
    #[arg(value_name = "FOLDER|FILE")]
    what: PathBuf,
    /// Listen here: udp://ADDRESS:PORT, tcp://:PORT, tls://:PORT?cert=FILE&key=FILE, eth://INTERFACE, unix:///PATH,
    /// redes://INTERFACE; may be repeated
    #[arg(long, value_name = "URL")]
    on: Vec<OsString>,
    /// Let in whose fingerprint stands in this file
    #[arg(long, value_name = "FILE")]
    allow: Option<PathBuf>,
    /// Let anyone in
    #[arg(long)]
    open: bool,
    /// Let in peers without an identity from this network, as in 192.168.1.0/24; may be repeated
    #[arg(long, value_name = "CIDR")]
    from: Vec<String>,
    /// Without identities and encryption: everybody on the wire can read and change what is served
    #[arg(long)]
    plain: bool,
    /// Do not answer who asks who serves here, and announce nothing
    #[arg(long)]
    hidden: bool,
    /// Be found as //NAME, on raw Ethernet and by multicast DNS; whoever is near learns this name
    #[arg(long, value_name = "NAME", conflicts_with = "hidden", value_parser = parse_name)]
    name: Option<Name>,
    /// Sessions at most
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_sessions: u32,
    /// How long transfers under way may go on after SIGTERM or Ctrl-C
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = amount::time)]
    drain_time: Duration,
    /// Answer over HTTP there: /metrics for Prometheus, /health, and /ready until it goes down
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<SocketAddr>,
}

/// What the arguments mean.
struct Wish {
    what: PathBuf,
    listen: Vec<Listen>,
    allow: Option<PathBuf>,
    is_open: bool,
    from: Vec<Cidr>,
    is_plain: bool,
    is_hidden: bool,
    name: Option<Name>,
    sessions_max: usize,
    drain_time: Duration,
    metrics: Option<SocketAddr>,
    globals: Globals,
}

/// An address to listen on, and what it means that it does not work.
struct Listen {
    address: Address,
    is_needed: bool,
}

impl Args {
    pub(crate) fn run(self, globals: Globals) -> anyhow::Result<ExitCode> {
        globals.log(LevelFilter::INFO);
        let wish = self.mean(globals)?;
        block_on(async move { wish.serve().await })
    }

    fn mean(self, globals: Globals) -> anyhow::Result<Wish> {
        if self.plain && self.allow.is_some() {
            let text = "--plain proves nobody's identity, so --allow cannot hold; leave one of them out, or use --from";
            return Err(Failure::usage(text).into());
        }
        let network = |text: &String| {
            text.parse().map_err(|error| Failure::usage(format!("--from {text}: {error}")))
        };
        Ok(Wish {
            from: self.from.iter().map(network).collect::<Result<_, _>>()?,
            listen: if self.on.is_empty() { usual_places() } else { named_places(&self.on)? },
            what: self.what,
            allow: self.allow,
            is_open: self.open,
            is_plain: self.plain,
            is_hidden: self.hidden,
            name: self.name,
            sessions_max: usize::try_from(self.max_sessions).unwrap_or(usize::MAX),
            drain_time: self.drain_time,
            metrics: self.metrics,
            globals,
        })
    }
}

fn parse_name(name: &str) -> Result<Name, String> {
    Name::new(name).map_err(|problem| problem.to_string())
}

/// UDP and TCP on all addresses, and every link that is up.
fn usual_places() -> Vec<Listen> {
    let anywhere = || HostPort { host: Host::Any, port: Some(DEFAULT_PORT) };
    let ip = [Place::Udp(anywhere()), Place::Tcp(anywhere())]
        .map(|place| Listen { address: place.into(), is_needed: true });
    let links = ether::links();
    let links = links.iter().filter_map(|name| Interface::new(name).ok()).map(|interface| {
        let address = Place::Eth { mac: None, interface, port: Some(DEFAULT_PORT) }.into();
        Listen { address, is_needed: false }
    });
    ip.into_iter().chain(links).collect()
}

fn named_places(urls: &[OsString]) -> anyhow::Result<Vec<Listen>> {
    let mut places = Vec::new();
    for url in urls {
        let address = Address::parse(url.as_bytes()).map_err(Failure::from)?;
        address.check_listen().map_err(Failure::from)?;
        if matches!(address.place, Place::Tls(_)) {
            ListenSettings::all_of(&address).map_err(Failure::from)?;
        } else if redes::options(&address)?.is_none() {
            address
                .query
                .check(&[])
                .map_err(|problem| Failure::usage(format!("{address}: {problem}")))?;
        }
        places.push(Listen { address, is_needed: true });
    }
    Ok(places)
}

impl Wish {
    async fn serve(self) -> anyhow::Result<ExitCode> {
        raise_descriptor_limit();
        let had_terminal = std::io::stdin().is_terminal();
        let mut signals = Signals::new()?; // before there is anything that a signal could leave behind
        let own = session::Own::load()?;
        let catalogue = self.catalogue()?;
        let public = own.identity.public_key();
        let is_needless = self.is_open || self.is_plain;
        let asker = Asker::if_possible(PROGRAM, is_needless, self.allow.clone());
        let access = self.access(public, asker.is_some())?;
        let mut settings = session::settings(self.is_plain)?;
        settings.connections_max = self.sessions_max.saturating_add(TURNED_AWAY_MAX);
        let endpoint = Endpoint::new(&own.identity, settings)?;
        let listening = self.listen(&endpoint).await?;
        let links = self.open_links()?;
        let metrics = watch::open(self.metrics).await?;
        give_up_raw_sockets();
        let announcement = self.announce(&endpoint, &listening, public).await;
        let (questions, asked) = server::questions();
        let questions = asker.is_some().then_some(questions);
        let (server, mut events) = self.server(endpoint, access, catalogue.clone(), questions);
        let teller = Teller::new(self.globals, self.allow.clone());
        let opening = self.opening(&listening, &links, public, asker.is_some());
        unless_closed(teller.ready(&opening, metrics.as_ref()), self.globals)?;
        let _watched: JoinSet<()> =
            metrics.into_iter().map(|metrics| metrics.run(server.watch())).collect();
        let (links, mut told) = redes::start(links, &catalogue);
        if let Some(asker) = asker {
            tokio::spawn(asker.run(asked));
        }

        let mut manager = Manager::from_environment();
        manager.ready(&self.what);
        let (stop, stopped) = oneshot::channel();
        let mut stop = Some(stop);
        let running = links.run_beside(&server, stopped, self.drain_time);
        tokio::pin!(running);
        loop {
            tokio::select! {
                ended = &mut running => break ended?,
                Some(event) = events.recv() => teller.event(&event)?,
                Some((address, told)) = told.recv() => teller.redes(&address, &told)?,
                () = manager.beat() => {}
                signal = signals.next() => match signal {
                    Signal::Reload if manager.is_there() || self.rereads(had_terminal) => {
                        manager.reloading();
                        self.reread(&server, &teller)?;
                        manager.ready(&self.what);
                    }
                    // The terminal is gone, and nothing is there to be read again.
                    Signal::Reload | Signal::Stop => match stop.take() {
                        Some(stop) => {
                            let _ = stop.send(()); // the server has ended already
                            manager.stopping(server.session_count());
                            teller.draining(server.session_count(), self.drain_time)?;
                        }
                        None => return Ok(ExitCode::from(exit::INTERRUPTED)),
                    },
                },
            }
        }
        teller.rest(&mut events, &mut told)?;
        if let Some(announcement) = announcement {
            announcement.end().await;
        }
        teller.stopped(&server.endpoint().drops())?;
        Ok(ExitCode::from(exit::OK))
    }

    fn catalogue(&self) -> Result<Arc<Catalogue>, Failure> {
        Catalogue::open(&self.what).map(Arc::new).map_err(|error| {
            let text = format!("cannot serve {}: {error}", self.what.display());
            Failure::new(exit::FAILED, text)
        })
    }

    /// Unless we are hidden, answers who asks a link, and announces us by multicast DNS where we listen on IP. That is a help,
    /// and no need.
    async fn announce(
        &self,
        endpoint: &Endpoint,
        listening: &[Listening],
        public: PublicKey,
    ) -> Option<Announcement> {
        if self.is_hidden {
            return None;
        }
        let name = self.name.as_ref();
        endpoint.answer_discovery_as(Fingerprint::hash(public), name);
        let addresses: Vec<Address> = listening.iter().map(|got| got.address.clone()).collect();
        let print = Fingerprint::of(public);
        match discovery::announce(&addresses, print, name, endpoint.version()).await {
            Ok(announcement) => announcement,
            Err(error) => {
                tracing::warn!("{error}");
                None
            }
        }
    }

    /// Whether there is something to be read again at a SIGHUP.
    fn rereads(&self, had_terminal: bool) -> bool {
        let has_tls = self.listen.iter().any(|wish| matches!(wish.address.place, Place::Tls(_)));
        self.allow.is_some() || (has_tls && !is_terminal_gone(had_terminal))
    }

    fn reread(&self, server: &Server, teller: &Teller) -> std::io::Result<()> {
        if self.allow.is_some() {
            teller.reloaded(server.reload_access())?;
        }
        teller.renewed(server.endpoint().renew())
    }

    fn server(
        &self,
        endpoint: Endpoint,
        access: Access,
        catalogue: Arc<Catalogue>,
        questions: Option<mpsc::Sender<Question>>,
    ) -> (Server, mpsc::Receiver<ServerEvent>) {
        let media = MediaServer::new(catalogue, Limits::default());
        let settings = ServerSettings {
            sessions_max: self.sessions_max,
            drain_time: self.drain_time,
            ..ServerSettings::default()
        };
        Server::new(endpoint, access, vec![Arc::new(media)], settings, questions)
    }

    fn access(&self, own: PublicKey, can_ask: bool) -> anyhow::Result<Access> {
        let mut access = Access::new(own).from(self.from.clone());
        if let Some(path) = &self.allow {
            access = access.with_allow(AllowFile::load(path)?);
        }
        if self.is_open {
            access = access.open();
        }
        Ok(if can_ask { access.asking() } else { access })
    }

    /// Listens on all that was wished; says once what does not work and need not.
    async fn listen(&self, endpoint: &Endpoint) -> Result<Vec<Listening>, Failure> {
        let mut listening: Vec<Listening> = Vec::new();
        let mut advice: Vec<String> = Vec::new();
        let is_session = |wish: &&Listen| !matches!(wish.address.place, Place::Redes { .. });
        for wish in self.listen.iter().filter(is_session) {
            match endpoint.listen(&wish.address).await {
                Ok(got) => listening.push(got),
                Err(error) if wish.is_needed || is_taken(&error) => return Err(error.into()),
                Err(ListenError::Carrier(error @ OpenError::NoPrivilege { .. })) => {
                    advice.push(format!("not on raw Ethernet: {error}"));
                }
                Err(error) => tracing::debug!("{error}"),
            }
        }
        advice.truncate(1); // one line, also for many links
        advice.extend(listening.iter().filter_map(|got| got.advice.clone()).take(1));
        advice.iter().for_each(|advice| tracing::warn!("{advice}"));
        Ok(listening)
    }

    /// Opens the links of the course protocol, which has no sessions.
    fn open_links(&self) -> Result<Vec<redes::Opened>, Failure> {
        let opened = self.listen.iter().map(|wish| redes::open(&wish.address, self.is_open));
        opened.filter_map(Result::transpose).collect()
    }

    fn opening(
        &self,
        listening: &[Listening],
        links: &[redes::Opened],
        public: PublicKey,
        can_ask: bool,
    ) -> tell::Opening {
        let who = match (self.is_open, &self.allow, self.is_plain, can_ask) {
            (true, ..) => "anyone".to_owned(),
            (_, _, true, _) if self.from.is_empty() => {
                "this machine alone; for others: --from CIDR, or --open".to_owned()
            }
            (_, _, true, _) => "this machine and the networks of --from".to_owned(),
            (_, Some(path), _, true) => {
                format!("you, whom {} lists, and whom you say yes to here", path.display())
            }
            (_, Some(path), _, false) => format!("you, and whom {} lists", path.display()),
            (_, None, _, true) => "you, and whom you say yes to here".to_owned(),
            (_, None, _, false) => "you alone; for others: --allow FILE, or --open".to_owned(),
        };
        tell::Opening {
            what: self.what.clone(),
            addresses: listening
                .iter()
                .map(|got| &got.address)
                .chain(links.iter().map(|link| &link.address))
                .cloned()
                .collect(),
            fingerprint: Fingerprint::of(public),
            name: self.name.clone(),
            is_plain: self.is_plain,
            who,
        }
    }
}

/// Whoever has seen enough of the first lines wants it to serve.
fn unless_closed(told: std::io::Result<()>, globals: Globals) -> std::io::Result<()> {
    match told {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe && !globals.json => Ok(()),
        told => told,
    }
}

fn is_taken(error: &ListenError) -> bool {
    matches!(error, ListenError::Carrier(OpenError::InUse { .. }))
}

enum Signal {
    Stop,
    Reload,
}

struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.hang_up.recv() => Signal::Reload,
        }
    }
}
