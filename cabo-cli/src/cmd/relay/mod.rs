//! `cabo relay`: a bad cable between two interfaces, or in front of a `udp://` or `tcp://` endpoint.
//!
//! `flags` says how bad, `amount` reads the numbers; both serve `lab` and `demo` too.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use cabo::address::{Address, Host, HostPort, Place};
use cabo::relay::{LinkStats, Relay, RelayError, RelayHandle, RelayStats};
use clap::Args;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use self::flags::CableFlags;
use super::{Globals, give_up_raw_sockets, interrupted};
use crate::exit::{self, Failure};
use crate::show::{stderr, stdout};

pub(crate) mod amount;
pub(crate) mod flags;

const LIVE_EVERY: Duration = Duration::from_millis(500);
const UDP_HEADER_BYTES: usize = 8;
const TCP_HEADER_BYTES: usize = 32; // with timestamps

/// A bad cable, on purpose: loss, delay, reordering and more
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  cabo relay veth0 veth1 --loss 1% --delay 10ms --seed 7
  cabo relay udp://127.0.0.1:6000 udp://127.0.0.1:5555 --loss 5% --burst 3
  cabo relay tcp://:6000 tcp://server:5555 --delay 100ms --rate 2mbit --for 30s

Two interfaces need CAP_NET_RAW and should have no addresses of their own. Ctrl-C ends it with a \
summary.")]
pub(crate) struct RelayArgs {
    /// An interface, or a udp:// or tcp:// URL to listen on
    a: String,
    /// The other interface, or the URL to forward to
    b: String,
    /// Ends by itself after this long
    #[arg(long = "for", value_name = "TIME", value_parser = amount::time)]
    lasting: Option<Duration>,
    /// Writes one JSON line for each packet: what became of it
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    #[command(flatten)]
    cable: CableFlags,
}

impl RelayArgs {
    pub(crate) fn run(self, globals: Globals) -> anyhow::Result<ExitCode> {
        let mut relay = open(&self.a, &self.b, &self.cable)?;
        give_up_raw_sockets(); // its thread starts later, without it
        if let Some(path) = &self.trace {
            relay = relay.with_trace(create(path)?);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let caught = runtime.block_on(async { interrupted() })?; // before anybody knows that it runs
        let here = relay.local_addr();
        if !globals.quiet {
            let from = here.map_or_else(|| self.a.clone(), |here| format!("{} at {here}", self.a));
            stderr::say(&format!("cabo relay: {from} to {}; Ctrl-C ends it", self.b));
        }
        let running = Running::start(relay)?;
        let is_live = !globals.json && !globals.quiet;
        let stats = runtime.block_on(running.until_over(caught, self.lasting, is_live))?;
        let mut out = stdout::styled();
        if globals.json {
            writeln!(out, "{}", summary_json(&stats))?;
        } else if !globals.quiet {
            write_summary(&mut out, &stats)?;
        }
        if stats.is_trace_broken {
            return Err(
                Failure::new(exit::FAILED, "the trace could not be written to its end").into()
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A relay at work on a thread of its own; it ends when this is dropped.
pub(crate) struct Running {
    handle: RelayHandle,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<Result<RelayStats, RelayError>>>,
    over: Option<oneshot::Receiver<()>>,
}

impl Running {
    pub(crate) fn start(relay: Relay) -> io::Result<Self> {
        let (handle, stop) = (relay.handle(), Arc::new(AtomicBool::new(false)));
        let (guard, over) = oneshot::channel();
        let seen = Arc::clone(&stop);
        let work = move || {
            let _guard: oneshot::Sender<()> = guard; // dropped at the end, however it comes
            relay.run(&seen)
        };
        let thread = thread::Builder::new().name("relay".to_owned()).spawn(work)?;
        Ok(Self { handle, stop, thread: Some(thread), over: Some(over) })
    }

    /// Stops it and says what it did.
    pub(crate) fn stop(mut self) -> Result<RelayStats, RelayError> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(thread::JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(self.handle.stats()),
        }
    }

    /// Runs until a signal, until the time is over, or until the relay cannot go on.
    async fn until_over(
        mut self,
        caught: impl Future<Output = ()>,
        lasting: Option<Duration>,
        is_live: bool,
    ) -> anyhow::Result<RelayStats> {
        let mut live = tokio::time::interval(LIVE_EVERY);
        let is_live = is_live && io::stderr().is_terminal();
        let time_is_over = async {
            match lasting {
                Some(lasting) => tokio::time::sleep(lasting).await,
                None => std::future::pending().await,
            }
        };
        let over = self.over.take();
        let relay_is_over = async {
            if let Some(over) = over {
                let _ = over.await; // the sender only ever goes away
            }
        };
        tokio::pin!(caught, time_is_over, relay_is_over);
        loop {
            tokio::select! {
                () = &mut caught => break,
                () = &mut time_is_over => break,
                () = &mut relay_is_over => break,
                _ = live.tick(), if is_live => write_live(&self.handle.stats()),
            }
        }
        if is_live {
            stderr::overwrite("");
        }
        Ok(self.stop()?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn open(a: &str, b: &str, cable: &CableFlags) -> anyhow::Result<Relay> {
    match (a.contains("://"), b.contains("://")) {
        (false, false) => Ok(Relay::between_interfaces(a, b, cable.config_of_frames())?),
        (true, true) => {
            let (listen, to) = (Address::parse(a.as_bytes())?, Address::parse(b.as_bytes())?);
            match (&listen.place, &to.place) {
                (Place::Udp(listen), Place::Udp(to)) => {
                    let (listen, to) = (resolve_own(listen)?, resolve(to)?);
                    let headers = ip_header_bytes(to) + UDP_HEADER_BYTES;
                    Ok(Relay::udp(listen, to, cable.config_within(headers)).map_err(named)?)
                }
                (Place::Tcp(listen), Place::Tcp(to)) => {
                    let (listen, to) = (resolve_own(listen)?, resolve(to)?);
                    let headers = ip_header_bytes(to) + TCP_HEADER_BYTES;
                    Ok(Relay::tcp(listen, to, cable.config_within(headers)).map_err(named)?)
                }
                _ => Err(misused(format!(
                    "{a} and {b}: a relay joins two udp:// or two tcp:// URLs"
                ))),
            }
        }
        _ => Err(misused(format!(
            "{a} and {b}: a relay joins two interfaces or two URLs, not one of each"
        ))),
    }
}

/// What it means that an address is taken.
fn named(error: RelayError) -> anyhow::Error {
    if let RelayError::System { what, source } = &error
        && source.kind() == io::ErrorKind::AddrInUse
    {
        let text = format!("{what}: it is in use; stop the process that has it, or choose another");
        return Failure::new(exit::FAILED, text).into();
    }
    error.into()
}

fn misused(text: String) -> anyhow::Error {
    Failure::new(exit::USAGE, text).into()
}

/// No host is every address of this machine; of IPv4 alone where IPv6 is off.
fn resolve_own(host: &HostPort) -> anyhow::Result<SocketAddr> {
    let has_ipv6 = || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok();
    match &host.host {
        Host::Any if has_ipv6() => Ok((Ipv6Addr::UNSPECIFIED, host.port_or_default()).into()),
        Host::Any | Host::Ip4(_) | Host::Ip6(..) | Host::Name(_) => resolve(host),
    }
}

fn resolve(host: &HostPort) -> anyhow::Result<SocketAddr> {
    let port = host.port_or_default();
    let name = match &host.host {
        Host::Any => return Ok((IpAddr::from(Ipv4Addr::UNSPECIFIED), port).into()),
        Host::Ip4(ip) => return Ok((IpAddr::from(*ip), port).into()),
        Host::Ip6(ip, None) => return Ok((IpAddr::from(*ip), port).into()),
        Host::Ip6(ip, Some(link)) => format!("{ip}%{}", link.as_str()),
        Host::Name(name) => name.as_str().to_owned(),
    };
    let mut found = (name.as_str(), port)
        .to_socket_addrs()
        .with_context(|| format!("cannot find the host {name}"))?;
    found.next().with_context(|| format!("the host {name} has no address"))
}

fn ip_header_bytes(to: SocketAddr) -> usize {
    if to.is_ipv4() { 20 } else { 40 }
}

fn create(path: &Path) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("cannot write the trace {}", path.display()))
}

fn write_live(stats: &RelayStats) {
    let direction = |link: &LinkStats| {
        format!("{} in, {} out, {} lost", link.offered, link.delivered, link.lost)
    };
    stderr::overwrite(&format!(
        "{:.0} s  forward: {}  backward: {}",
        stats.elapsed.as_secs_f64(),
        direction(&stats.forward),
        direction(&stats.backward)
    ));
}

/// What a person wants to know of a link, in the order in which it happens.
fn counts(link: &LinkStats) -> [(&'static str, u64); 9] {
    [
        ("offered", link.offered),
        ("lost", link.lost),
        ("queue full", link.queue_full),
        ("too big", link.too_big),
        ("cable pulled", link.down + link.cut),
        ("corrupted", link.corrupted),
        ("reordered", link.reordered),
        ("duplicated", link.duplicated),
        ("delivered", link.delivered),
    ]
}

fn write_summary(out: &mut impl Write, stats: &RelayStats) -> io::Result<()> {
    let seconds = stats.elapsed.as_secs_f64();
    writeln!(out, "{:<16}{:>12}{:>12}", format!("{seconds:.1} s"), "forward", "backward")?;
    let write = |out: &mut dyn Write, name: &str, forward: u64, backward: u64| {
        let is_worth_a_line =
            forward + backward > 0 || matches!(name, "offered" | "lost" | "delivered");
        if is_worth_a_line {
            writeln!(out, "{name:<16}{forward:>12}{backward:>12}")
        } else {
            Ok(())
        }
    };
    for ((name, forward), (_, backward)) in
        counts(&stats.forward).into_iter().zip(counts(&stats.backward))
    {
        write(out, name, forward, backward)?;
    }
    write(out, "bytes", stats.forward.delivered_bytes, stats.backward.delivered_bytes)?;
    write(out, "not taken", stats.unsent[0], stats.unsent[1])?;
    write(out, "missed by us", stats.missed[0], stats.missed[1])
}

pub(crate) fn summary_json(stats: &RelayStats) -> Value {
    let direction = |link: &LinkStats, index: usize| {
        let mut object: serde_json::Map<String, Value> = counts(link)
            .into_iter()
            .map(|(name, count)| (name.replace(' ', "_"), json!(count)))
            .collect();
        object.insert("delivered_bytes".to_owned(), json!(link.delivered_bytes));
        object.insert("not_taken".to_owned(), json!(stats.unsent[index]));
        object.insert("missed".to_owned(), json!(stats.missed[index]));
        Value::Object(object)
    };
    json!({
        "seconds": stats.elapsed.as_secs_f64(),
        "forward": direction(&stats.forward, 0),
        "backward": direction(&stats.backward, 1),
        "clients": stats.clients,
        "refused": stats.refused,
        "returns": stats.returns,
    })
}
