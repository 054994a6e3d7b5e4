//! What a server weighs: idle sessions, steady streams, and what is left when all have gone.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use cabo::lab::Lab;
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::job::{Job, Peer, Side, Task};
use crate::machine::Machine;
use crate::pair::Running;
use crate::paths::{Carrier, Kind, Path};

/// How many, and for how long.
#[derive(Args)]
pub struct Load {
    /// Sessions that do nothing.
    #[arg(long, default_value_t = 3000)]
    idle: usize,
    /// Clients that each receive 1 Mbit/s.
    #[arg(long, default_value_t = 300)]
    streams: usize,
    /// How long they do.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Clients that come, receive a little and leave.
    #[arg(long, default_value_t = 1000)]
    leave: usize,
    /// Only this carrier: udp, eth or tcp.
    #[arg(long)]
    carrier: Option<String>,
    /// Writes the figures there too.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Bytes a second that a streaming client asks for.
pub const STREAM_BYTES_PER_SECOND: u64 = 125_000;

/// What a load process is told, one JSON line each.
#[derive(Debug, Deserialize, Serialize)]
pub enum Order {
    /// Client: opens so many sessions, and has each stream at this rate (0: idle).
    Open { sessions: usize, bytes_per_second: u64 },
    /// Client: counts since the last time.
    Count,
    /// Client: closes all sessions.
    Close,
    /// Server: what it weighs.
    Weigh,
}

/// What it answers.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Answer {
    /// Sessions open now; of a client: those that still live.
    pub sessions: usize,
    /// Bytes received since the last count.
    pub bytes: u64,
    /// The session that received least since the last count.
    pub least: u64,
    /// Resident set.
    pub resident_bytes: u64,
    /// Live allocations.
    pub heap_bytes: u64,
    /// Time on a core so far.
    pub cpu_seconds: f64,
}

#[derive(Serialize)]
struct Figures {
    machine: Machine,
    phases: Vec<Phase>,
}

#[derive(Serialize)]
struct Phase {
    carrier: &'static str,
    name: String,
    server: Answer,
    client: Answer,
    seconds: f64,
}

pub fn run(arguments: &Load) -> Result<()> {
    raise_descriptors()?;
    let lab = Lab::enter()?;
    let machine = Machine::look();
    println!(
        "{machine}\nmeasured    the server's process alone; heap: live allocations as the allocator counts them\n"
    );
    let mut phases = Vec::new();
    for (name, carrier) in [("udp", Carrier::Udp), ("eth", Carrier::Eth), ("tcp", Carrier::Tcp)] {
        if arguments.carrier.as_deref().is_none_or(|only| only == name) {
            measure(&lab, arguments, name, carrier, &mut phases)?;
        }
    }
    if let Some(file) = &arguments.json {
        std::fs::write(file, serde_json::to_string_pretty(&Figures { machine, phases })?)?;
    }
    Ok(())
}

/// Three servers, so that what one phase leaves does not weigh on the next.
fn measure(
    lab: &Lab,
    arguments: &Load,
    name: &'static str,
    carrier: Carrier,
    phases: &mut Vec<Phase>,
) -> Result<()> {
    let mut tell = |phase: String, server: Answer, client: Answer, since: Instant| {
        println!(
            "{name:4} {phase:42} resident {:>7.1} MB, heap {:>7.1} MB, cpu {:>6.2} s, {} sessions",
            server.resident_bytes as f64 / 1e6,
            server.heap_bytes as f64 / 1e6,
            server.cpu_seconds,
            server.sessions
        );
        let seconds = since.elapsed().as_secs_f64();
        phases.push(Phase { carrier: name, name: phase, server, client, seconds });
    };
    let since = Instant::now();
    let mut both = Both::start(lab, carrier)?;
    tell("before anybody came".into(), both.weigh()?, Answer::default(), since);
    let client = both.open(arguments.idle, 0)?;
    std::thread::sleep(Duration::from_secs(2));
    tell(format!("{} idle sessions", arguments.idle), both.weigh()?, client, since);
    let client = both.count()?;
    anyhow::ensure!(
        client.sessions == arguments.idle,
        "{} idle sessions are left",
        client.sessions
    );
    drop(both);

    let mut both = Both::start(lab, carrier)?;
    both.open(arguments.streams, STREAM_BYTES_PER_SECOND)?;
    both.count()?;
    std::thread::sleep(Duration::from_secs(arguments.seconds));
    let client = both.count()?;
    let wanted = STREAM_BYTES_PER_SECOND * arguments.seconds;
    let phase = format!("{} clients at 1 Mbit/s for {} s", arguments.streams, arguments.seconds);
    tell(phase, both.weigh()?, client, since);
    println!(
        "     received {:.3} of it in all, the slowest client {:.3}, {} dropped",
        client.bytes as f64 / (wanted * arguments.streams as u64) as f64,
        client.least as f64 / wanted as f64,
        arguments.streams - client.sessions
    );
    drop(both);

    let mut both = Both::start(lab, carrier)?;
    both.open(10, STREAM_BYTES_PER_SECOND / 10)?; // what is made once, is made now
    std::thread::sleep(Duration::from_secs(1));
    both.close()?;
    tell("after 10 clients came and left".into(), both.weigh()?, Answer::default(), since);
    let client = both.open(arguments.leave, STREAM_BYTES_PER_SECOND / 10)?;
    std::thread::sleep(Duration::from_secs(2));
    tell(
        format!("while {} clients receive 0.1 Mbit/s", arguments.leave),
        both.weigh()?,
        client,
        since,
    );
    both.close()?;
    tell(
        format!("after {} clients left", arguments.leave),
        both.weigh()?,
        Answer::default(),
        since,
    );
    Ok(())
}

/// A server and the process of its clients.
struct Both {
    client: Running,
    server: Running,
}

impl Both {
    fn start(lab: &Lab, carrier: Carrier) -> Result<Self> {
        let path = Path::build(lab, Kind::Veth { mtu_bytes: 1500 }, None)?;
        let (listen, connect) = path.cabo_places(carrier);
        let job = Job {
            peer: Peer::Cabo,
            task: Task::Load,
            side: Side::Receiver,
            core: Some(1),
            listen,
            connect,
            bytes: 0,
            connections: 1,
            dialect: String::new(),
            limit_seconds: 600.0,
            datagram_bytes: 0,
            congestion: None,
        };
        let mut server = Running::start(&path.receiver, &job, None)?;
        if server.line()?.trim() != "ready" {
            bail!("the server is not ready");
        }
        let job = Job { side: Side::Sender, core: Some(0), ..job };
        let client = Running::start(&path.sender, &job, None)?;
        Ok(Self { client, server })
    }

    fn open(&mut self, sessions: usize, bytes_per_second: u64) -> Result<Answer> {
        ask(&mut self.client, &Order::Open { sessions, bytes_per_second })
    }

    fn count(&mut self) -> Result<Answer> {
        ask(&mut self.client, &Order::Count)
    }

    /// Until the server has seen everybody go, or not in time.
    fn close(&mut self) -> Result<()> {
        ask(&mut self.client, &Order::Close)?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.weigh()?.sessions > 0 {
            anyhow::ensure!(
                Instant::now() < deadline,
                "sessions are left 20 s after their clients"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        std::thread::sleep(Duration::from_secs(5)); // connections that are over linger for a few round trips
        Ok(())
    }

    fn weigh(&mut self) -> Result<Answer> {
        ask(&mut self.server, &Order::Weigh)
    }
}

fn ask(whom: &mut Running, order: &Order) -> Result<Answer> {
    whom.tell(&serde_json::to_string(order)?)?;
    whom.read().with_context(|| format!("{order:?} of process {}", whom.process()))
}

/// Thousands of TCP sessions are thousands of descriptors; children inherit the limit. Returns what it is now.
pub fn raise_descriptors() -> Result<usize> {
    // SAFETY: all bits zero is a valid `rlimit`; the kernel fills it, then reads it.
    let (code, limit) = unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max;
        (libc::setrlimit(libc::RLIMIT_NOFILE, &limit), limit.rlim_cur)
    };
    anyhow::ensure!(code == 0, "the limit of descriptors: {}", std::io::Error::last_os_error());
    Ok(usize::try_from(limit).unwrap_or(usize::MAX))
}
