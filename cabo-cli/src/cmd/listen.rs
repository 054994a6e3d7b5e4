//! `cabo listen`: a server for cabo peers and programs that know nothing of cabo.
//!
//! `told` takes what happens from callbacks to the thread that shows it, as `shown` says.

mod shown;
mod told;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cabo::access::{Access, AllowFile, Cidr, Refusal};
use cabo::address::{Address, Place};
use cabo::proto::dialect::Dialect;
use cabo::server;
use cabo::talk::{Closed, Foreign, Peer, Rules, SendError, Server, Settings};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing_subscriber::filter::LevelFilter;

use self::told::{Event, Teller};
use super::{
    Globals, block_on, give_up_raw_sockets, interrupted, is_terminal_gone, raise_descriptor_limit,
};
use crate::exit::{self, Failure};
use crate::session;
use crate::show::ask::{Asker, Keyboard};
use crate::show::log::LogArgs;
use crate::show::stderr;
use crate::talk::calls::{self, ELSEWHERE_REMEDY, cannot_listen};
use crate::talk::config::ConfigArgs;
use crate::talk::converse::is_datagrams;
use crate::talk::explain::ExplainArgs;
use crate::talk::manner::{ConverseArgs, Holding};
use crate::talk::reply::Reply;
use crate::talk::room::{Room, is_in_background};
use crate::talk::view::one_manner;
use crate::talk::{DialectArgs, Show};

/// What was typed to run it, in commands that let somebody in.
const PROGRAM: &str = "cabo listen";
/// What was said is shown for so long when the server has gone down.
const LAST_LINES_TIME: Duration = Duration::from_secs(2);

/// Take what foreign programs and cabo peers say, and show it
///
/// Any number of clients at once, over TCP, UDP and Unix sockets, cabo peers also over raw Ethernet; both sorts come to
/// the same port. Of cabo peers your own identity gets in; about others you are asked on the terminal, unless --allow or
/// --open say more. What is typed goes to whoever spoke last; `@2 text` goes to client 2, `@* text` to all;
/// `@?` shows who is here and how much was said, which -v tells of each client that leaves. SIGHUP rereads the --allow
/// file, and the certificates of tls:// URLs.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cabo listen tcp://:5005 --reply echo                an echo server for thousands of clients
  cabo listen tcp://:5005 --reply 'ECHO: {}'          the same with a text before it
  cabo listen udp://:5005                             who said what, as it comes
  cabo listen tcp://:5005 --as labs-header --json     header and payload, decoded, one JSON object a message
  cabo listen tcp:// --as tp0                         greets, refuses strangers; the port is the dialect's
  cabo listen 'udp://239.192.1.1:1234?if=eth0'        a multicast group
  cabo listen 'tls://:5006?cert=host.pem&key=host.key'  over TLS; `cabo keys certificate` makes both files
  cabo listen tcp://:5005 --reply echo --explain      each system call, and what it put on the wire
  cabo listen tcp://:5005 --once < answer > question  one client, as `nc -l`
  cabo listen tcp://:5005 --exec 'wc -c'              a program for each client
  cabo listen eth://enp3s0 --open                     cabo peers on a cable without addresses")]
pub(crate) struct Args {
    /// Where to listen: tcp://:PORT, tls://:PORT?cert=FILE&key=FILE, udp://:PORT, udp://GROUP:PORT?if=INTERFACE,
    /// unix:///PATH, eth://INTERFACE
    #[arg(value_name = "URL", required_unless_present = "config")]
    urls: Vec<String>,
    #[command(flatten)]
    dialect: DialectArgs,
    #[command(flatten)]
    explain: ExplainArgs,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    log: LogArgs,
    /// What every message is answered with: `echo`, a text in which each {} stands for what came, or, where messages
    /// have fields, always the same one: `KIND name=value ..`. Over UDP who says nothing new has 10,000 answers at once, and
    /// 100 a second
    #[arg(long, value_name = "echo|TEXT", conflicts_with = "exec")]
    reply: Option<String>,
    /// Leave a client that says nothing for so long
    #[arg(long, value_name = "TIME", value_parser = super::relay::amount::time)]
    idle: Option<Duration>,
    /// Clients at once; one more is turned away. Over UDP, where senders may be forged, the one that was silent for longest
    /// makes room
    #[arg(long, value_name = "COUNT", default_value_t = 100_000)]
    max_clients: usize,
    /// Serve one client with stdin and stdout as they are, then end; no cabo peers. --dump, --keep-open, --record,
    /// --replay and --wait need it
    #[arg(long, conflicts_with_all = ["reply", "max_clients"])]
    once: bool,
    #[command(flatten)]
    converse: ConverseArgs,
    /// Let in the cabo peers whose fingerprints stand in this file, one a line
    #[arg(long, value_name = "FILE", conflicts_with_all = ["once", "exec"])]
    allow: Option<PathBuf>,
    /// Let in anyone: foreign programs on other hosts, and any cabo peer
    #[arg(long, conflicts_with = "allow")]
    open: bool,
    /// Let in foreign programs from this network, as in 192.168.1.0/24; may be repeated. Without it and --open those
    /// that come from loopback alone are let in: a group of another interface needs it even on one host
    #[arg(long, value_name = "CIDR")]
    from: Vec<Cidr>,
}

impl Args {
    pub(crate) fn run(self, globals: Globals) -> anyhow::Result<ExitCode> {
        globals.log_to(LevelFilter::WARN, &self.log)?;
        self.explain.begin(globals);
        let dialect = self.dialect.dialect()?;
        let reply = self.reply.map(|text| Reply::parse(&text, &dialect)).transpose()?;
        let foreign = if self.open { Foreign::Anyone } else { Foreign::From(self.from) };
        let settings = Settings {
            dialect: dialect.clone(),
            idle_time: self.idle,
            peers_max: self.max_clients,
            foreign: foreign.clone(),
            ..Settings::default()
        };
        let addresses = addresses(&self.urls, &self.config, &dialect)?;
        let show_as = one_manner(self.converse.show, globals)?;
        if !self.once
            && let Some(flag) = self.converse.needs_one()
        {
            return Err(Failure::usage(format!("{flag} is for one client: add --once")).into());
        }
        if self.once || self.converse.exec.is_some() {
            foreign_alone(&addresses, &self.dialect)?;
            let is_datagrams = addresses.iter().any(is_datagrams);
            let mut holding = self.converse.meant(&dialect, is_datagrams, self.idle, globals)?;
            holding.foreign = foreign;
            return serve_in_person(addresses, holding, (!self.once).then_some(self.max_clients));
        }
        let wish = Wish {
            addresses,
            settings,
            reply,
            allow: self.allow,
            is_open: self.open,
            dialect: self.dialect,
            show_as,
            globals,
        };
        raise_descriptor_limit();
        block_on(wish.serve())
    }
}

/// What the arguments mean, where many clients are served at once.
struct Wish {
    addresses: Vec<Address>,
    settings: Settings,
    reply: Option<Reply>,
    allow: Option<PathBuf>,
    is_open: bool,
    dialect: DialectArgs,
    show_as: Option<Show>,
    globals: Globals,
}

impl Wish {
    async fn serve(self) -> anyhow::Result<ExitCode> {
        let caught = interrupted()?;
        let mut reloading = Reloading::of(&self)?;
        let (events, told) = told::queue();
        let (dialect, room, keyboard) =
            (self.settings.dialect.clone(), Room::default(), Arc::<Keyboard>::default());
        let asker = Asker::if_possible(PROGRAM, self.is_open, self.allow.clone());
        let mut server = self.server(asker, &keyboard)?;
        server = with_callbacks(server, self.reply, &events, &room, self.allow);
        let listening = server.listen().await.map_err(cannot_listen)?;
        let rules = server.rules();
        calls::tell_foreign_alone(server.foreign_alone(), &self.dialect, self.globals)?;
        give_up_raw_sockets();
        let (gone, mut stdout_gone) = oneshot::channel();
        std::thread::spawn(move || {
            let shown = shown::show_all(&told, self.show_as, self.globals);
            let _ = gone.send(shown); // the server is down already
        });
        events.tell(Event::Listening(listening));
        std::thread::spawn(move || room.operate(&dialect, &keyboard, &shown::numbers));
        let mut outcome = None;
        server
            .serve(async {
                tokio::select! {
                    () = caught => {}
                    shown = &mut stdout_gone => outcome = shown.ok(),
                    () = reloading.run(&rules) => {}
                }
            })
            .await;
        events.end();
        last_lines(outcome, stdout_gone).await.map(|()| ExitCode::from(exit::OK))
    }

    /// The server, with its rules for cabo peers, and whoever is asked about new ones.
    fn server(&self, asker: Option<Asker>, keyboard: &Arc<Keyboard>) -> anyhow::Result<Server> {
        let allow = self.allow.as_deref().map(AllowFile::load).transpose()?;
        let server = Server::at(self.addresses.clone()).settings(self.settings.clone());
        let mut server = server.sessions(session::settings(false)?);
        let (is_open, can_ask) = (self.is_open, asker.is_some());
        if let Some(asker) = asker {
            let (questions, asked) = server::questions();
            server = server.questions(questions);
            // From the background nobody operates, and stdin is read when there is a question.
            let is_shared = !is_in_background();
            let asker = if is_shared { asker.sharing(keyboard.clone()) } else { asker };
            tokio::spawn(asker.run(asked));
        }
        Ok(server.access(move |access| {
            let access = if is_open { access.open() } else { access };
            let access = if can_ask { access.asking() } else { access };
            allow.into_iter().fold(access, Access::with_allow)
        }))
    }
}

/// How showing ended, once all is shown; who does not read it in time never may.
async fn last_lines(
    outcome: Option<anyhow::Result<()>>,
    gone: oneshot::Receiver<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    if let Some(outcome) = outcome {
        return outcome;
    }
    let last = timeout(LAST_LINES_TIME, gone).await;
    last.ok().and_then(Result::ok).unwrap_or(Ok(()))
}

/// What serves in person has no sessions.
fn foreign_alone(addresses: &[Address], dialect: &DialectArgs) -> Result<(), Failure> {
    if addresses.iter().any(|address| dialect.is_cabo(address)) {
        return Err(Failure::usage(
            "--once and --exec serve foreign programs alone; cabo peers come to listen without them",
        ));
    }
    Ok(())
}

/// Where to listen: as typed, or where the settings file says.
fn addresses(
    urls: &[String],
    config: &ConfigArgs,
    dialect: &Dialect,
) -> anyhow::Result<Vec<Address>> {
    let addresses: Result<Vec<Address>, _> = urls.iter().map(|url| url.parse()).collect();
    let mut addresses = addresses.map_err(Failure::from)?;
    if let (true, Some(configured)) = (addresses.is_empty(), config.read(dialect)?) {
        addresses.push(configured.anywhere()?);
    }
    Ok(addresses)
}

/// What is read again at each SIGHUP; without any of it SIGHUP ends the server.
struct Reloading {
    hang_up: Option<Signal>,
    has_allow: bool,
    had_terminal: bool,
}

impl Reloading {
    fn of(wish: &Wish) -> anyhow::Result<Self> {
        let has_allow = wish.allow.is_some();
        let has_tls = wish.addresses.iter().any(|at| matches!(at.place, Place::Tls(_)));
        let hang_up = (has_allow || has_tls).then(|| signal(SignalKind::hangup())).transpose()?;
        Ok(Self { hang_up, has_allow, had_terminal: std::io::stdin().is_terminal() })
    }

    /// Goes on for ever, or until the terminal of a server that has no list is gone.
    async fn run(&mut self, rules: &Rules) {
        let Some(hang_up) = &mut self.hang_up else { return std::future::pending().await };
        while hang_up.recv().await.is_some() {
            if !self.has_allow && is_terminal_gone(self.had_terminal) {
                return;
            }
            if self.has_allow {
                stderr::say(&match rules.reload() {
                    Ok(ended) => {
                        format!("the --allow file was read again; {ended} sessions ended")
                    }
                    Err(error) => format!("{error}; the old list stays in force"),
                });
            }
            for renewed in rules.renew() {
                stderr::say(&match renewed {
                    Ok(at) => format!("the certificate of tls://{at} was read again"),
                    Err(error) => format!("{error}; the old certificate stays in force"),
                });
            }
        }
    }
}

/// One client with stdin and stdout, or each of so many with a program.
fn serve_in_person(
    addresses: Vec<Address>,
    holding: Holding,
    clients_max: Option<usize>,
) -> anyhow::Result<ExitCode> {
    let [address, others @ ..] = addresses.as_slice() else { return Ok(ExitCode::from(exit::OK)) };
    if clients_max.is_none() && !others.is_empty() {
        return Err(Failure::usage("--once listens on one URL").into());
    }
    block_on(async {
        let caught = interrupted()?; // no program is to outlive us, nor the file of a socket
        let serving = async {
            match clients_max {
                Some(most) => calls::each(&addresses, Arc::new(holding), most).await,
                None => calls::once(address, &holding).await,
            }
        };
        let is_server = clients_max.is_some();
        tokio::select! {
            served = serving => served?,
            () = caught => if !is_server { return Ok(ExitCode::from(exit::INTERRUPTED)) },
        }
        Ok(ExitCode::from(exit::OK))
    })
}

fn with_callbacks(
    server: Server,
    reply: Option<Reply>,
    events: &Teller,
    room: &Room,
    allow: Option<PathBuf>,
) -> Server {
    let (on_connect, on_receive) = (events.clone(), events.clone());
    let (on_close, on_refuse) = (events.clone(), events.clone());
    let (joined, spoke, left) = (room.clone(), room.clone(), room.clone());
    server
        .never_waiting() // see `told`
        .on_connect(move |peer| {
            joined.enter(peer);
            on_connect.tell(Event::Connected(peer.clone()));
        })
        .on_receive(move |message, peer| {
            spoke.hear(peer);
            if let Some(reply) = &reply
                && let Err(error) = reply.answer(&message, peer)
                && is_news(peer, &error)
            {
                on_receive.tell(Event::NotAnswered(peer.clone(), error.to_string()));
            }
            on_receive.tell(Event::Message(message, peer.clone()));
        })
        .on_close(move |peer, why| {
            left.leave(peer);
            on_close.tell(Event::Closed(peer.clone(), why.to_string()));
        })
        .on_refuse(move |peer, why| {
            on_refuse.tell(Event::Refused(peer.clone(), refusal(why, allow.as_deref())));
        })
}

/// Who says nothing new does so thousands of times: that is told of once.
fn is_news(peer: &Peer, error: &SendError) -> bool {
    !matches!(error, SendError::NothingNew) || peer.stats().refused_messages == 1
}

/// Why somebody was refused, and what its operator can do about that.
fn refusal(why: &Closed, allow: Option<&Path>) -> String {
    if let Closed::Refused(Refusal::Unknown(print)) = why {
        let remedy = Refusal::Unknown(*print).remedy(PROGRAM, allow);
        return format!("this server does not know {print}; to let it in: {remedy}");
    }
    let remedy = if matches!(why, Closed::Elsewhere) { ELSEWHERE_REMEDY } else { "" };
    format!("{why}{remedy}")
}
