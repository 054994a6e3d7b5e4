//! What is measured against what, and the loop that does it: all peers of a row in turn on one path, run after run.

use std::time::Duration;

use anyhow::{Context as _, Result};
use cabo::lab::Lab;

use crate::job::{Job, Peer, Side, Task};
use crate::machine::Machine;
use crate::paths::{Carrier, Kind, Path};
use crate::report::{Report, RowReport};
use crate::{Cores, Transfer, pair};

/// Rate, delay each way and losses of the bad path.
const BAD_RATE: u64 = 200_000_000;
const BAD_DELAY: Duration = Duration::from_millis(10);
const LOSSES: [f64; 3] = [0.001, 0.01, 0.05];
/// Delay each way of the clean cable on which the first byte is waited for.
const FAR: Duration = Duration::from_millis(50);
/// MTU of the rows where everybody's datagram has to be equally large, and that datagram over IPv4.
const EQUAL_MTU: u32 = 1500;
const EQUAL_DATAGRAM_BYTES: usize = 1472;
/// Receivers stop counting here.
const CLEAN_LIMIT_SECONDS: f64 = 30.0;
const BAD_LIMIT_SECONDS: f64 = 15.0;

/// Peers that share a path, and are measured in turn.
pub struct Row {
    pub name: String,
    /// What the figures depend on, in words.
    pub conditions: String,
    pub kind: Kind,
    pub task: Task,
    /// TCP congestion control of the host's `lo`; `None`: the machine's.
    congestion: Option<&'static str>,
    pub entries: Vec<Entry>,
    /// Entries that the others are compared with.
    pub against: &'static [&'static str],
    /// What issue and design aim for.
    pub goal: &'static str,
}

/// One peer of a row.
#[derive(Clone)]
pub struct Entry {
    pub name: &'static str,
    pub peer: Peer,
    pub carrier: Carrier,
    datagram_bytes: usize,
    congestion: Option<&'static str>,
}

const fn entry(name: &'static str, peer: Peer, carrier: Carrier) -> Entry {
    Entry { name, peer, carrier, datagram_bytes: 0, congestion: None }
}

impl Entry {
    const fn of(self, datagram_bytes: usize) -> Self {
        Self { datagram_bytes, ..self }
    }

    const fn under(self, congestion: &'static str) -> Self {
        Self { congestion: Some(congestion), ..self }
    }
}

/// All rows, in the order in which they are measured.
fn rows() -> Vec<Row> {
    let mut rows = vec![
        ethernet(
            Kind::Veth { mtu_bytes: 1500 },
            "eth-veth-1500",
            1500,
            "sealed 0.65 of the limit, later 0.75",
        ),
        ethernet(Kind::Veth { mtu_bytes: 9000 }, "eth-veth-9000", 9000, "sealed 0.6 of the limit"),
        ethernet(
            Kind::Lo { mtu_bytes: None },
            "eth-lo-65536",
            65_535,
            "sealed 1.0 of kernel TCP on lo",
        ),
        udp(Kind::Lo { mtu_bytes: Some(EQUAL_MTU) }, "udp-lo-1472", "sealed 2 x quinn"),
        udp(Kind::Veth { mtu_bytes: EQUAL_MTU }, "udp-veth-1472", "sealed 1.3 x quinn"),
        tcp("tcp-lo-bbr", "bbr"),
        tcp("tcp-lo-cubic", "cubic"),
        Row {
            name: "unix".into(),
            conditions: "stream socket".into(),
            kind: Kind::Lo { mtu_bytes: None },
            task: Task::Transfer,
            congestion: None,
            entries: vec![
                entry("unix bare", Peer::Unix, Carrier::Unix),
                entry("cabo plain", Peer::CaboPlain, Carrier::Unix),
                entry("cabo sealed", Peer::Cabo, Carrier::Unix),
            ],
            against: &["unix bare"],
            goal: "plain 0.8 of the bare socket",
        },
    ];
    rows.extend(LOSSES.map(bad));
    rows.push(first_byte());
    rows
}

fn ethernet(kind: Kind, name: &str, payload_bytes: usize, goal: &'static str) -> Row {
    let mut entries = vec![
        entry("eth blast", Peer::EthBlast, Carrier::Eth).of(payload_bytes),
        entry("cabo plain", Peer::CaboPlain, Carrier::Eth),
        entry("cabo sealed", Peer::Cabo, Carrier::Eth),
    ];
    let is_lo = matches!(kind, Kind::Lo { .. });
    if is_lo {
        entries.push(entry("tcp bbr", Peer::Tcp, Carrier::Tcp).under("bbr"));
        entries.push(entry("tcp cubic", Peer::Tcp, Carrier::Tcp).under("cubic"));
    }
    Row {
        name: name.into(),
        conditions: format!(
            "raw Ethernet, {payload_bytes} bytes in a frame of the limit, offloads off"
        ),
        kind,
        task: Task::Transfer,
        congestion: None,
        entries,
        against: if is_lo { &["eth blast", "tcp bbr", "tcp cubic"] } else { &["eth blast"] },
        goal,
    }
}

fn udp(kind: Kind, name: &str, goal: &'static str) -> Row {
    Row {
        name: name.into(),
        conditions: format!(
            "IPv4, MTU {EQUAL_MTU} and so {EQUAL_DATAGRAM_BYTES} bytes in everybody's datagram{}",
            if matches!(kind, Kind::Veth { .. }) { ", offloads of the interface off" } else { "" }
        ),
        kind,
        task: Task::Transfer,
        congestion: None,
        entries: vec![
            entry("udp blast", Peer::UdpBlast, Carrier::Udp).of(EQUAL_DATAGRAM_BYTES),
            entry("quinn", Peer::Quinn, Carrier::Udp),
            entry("cabo plain", Peer::CaboPlain, Carrier::Udp),
            entry("cabo sealed", Peer::Cabo, Carrier::Udp),
        ],
        against: &["udp blast", "quinn"],
        goal,
    }
}

fn tcp(name: &str, congestion: &'static str) -> Row {
    Row {
        name: name.into(),
        conditions: format!("IPv4 on lo, MTU 65,536, {congestion} for all"),
        kind: Kind::Lo { mtu_bytes: None },
        task: Task::Transfer,
        congestion: Some(congestion),
        entries: vec![
            entry("tcp bare", Peer::Tcp, Carrier::Tcp),
            entry("rustls bare", Peer::Tls, Carrier::Tcp),
            entry("cabo plain", Peer::CaboPlain, Carrier::Tcp),
            entry("cabo sealed", Peer::Cabo, Carrier::Tcp),
        ],
        against: &["tcp bare", "rustls bare"],
        goal: "plain 0.8 of the bare kernel, sealed 0.95 of bare rustls",
    }
}

fn bad(loss: f64) -> Row {
    Row {
        name: format!("bad-{}%", loss * 100.0),
        conditions: format!(
            "200 Mbit/s of the wire (MTU 1500 is 1538 there), 10 ms each way, {} % loss each way, queue of one \
             bandwidth-delay product",
            loss * 100.0
        ),
        kind: Kind::Bad { loss, delay: BAD_DELAY, rate_bits_per_second: BAD_RATE },
        task: Task::Transfer,
        congestion: None,
        entries: vec![
            entry("cabo eth", Peer::Cabo, Carrier::Eth),
            entry("cabo udp", Peer::Cabo, Carrier::Udp),
            entry("tcp bbr", Peer::Tcp, Carrier::Tcp).under("bbr"),
            entry("tcp cubic", Peer::Tcp, Carrier::Tcp).under("cubic"),
            entry("quinn", Peer::Quinn, Carrier::Udp),
            entry("quinn bbr", Peer::QuinnBbr, Carrier::Udp),
        ],
        against: &["tcp bbr"],
        goal: "1.0 of 0.97 x (1 - loss) x payload share; 0.98 of kernel bbr; ahead of cubic and quinn",
    }
}

fn first_byte() -> Row {
    Row {
        name: "first-byte".into(),
        conditions:
            "clean cable, round trip 100 ms; from before connecting to the first byte of the answer"
                .into(),
        kind: Kind::Bad { loss: 0.0, delay: FAR, rate_bits_per_second: 0 },
        task: Task::FirstByte,
        congestion: None,
        entries: vec![
            entry("cabo eth", Peer::Cabo, Carrier::Eth),
            entry("cabo eth asked", Peer::Cabo, Carrier::EthAsked),
            entry("cabo udp", Peer::Cabo, Carrier::Udp),
            entry("cabo tcp", Peer::Cabo, Carrier::Tcp),
            entry("quinn", Peer::Quinn, Carrier::Udp),
            entry("tcp bare", Peer::Tcp, Carrier::Tcp),
        ],
        against: &[],
        goal: "Ethernet and UDP 2 round trips, TCP 3, discovery one more",
    }
}

/// Measures what was asked for and prints it row by row.
pub fn run(arguments: &Transfer) -> Result<()> {
    let is_wanted = |name: &str| {
        arguments.rows.is_empty() || arguments.rows.iter().any(|part| name.contains(part.as_str()))
    };
    let mut rows: Vec<Row> = rows().into_iter().filter(|row| is_wanted(&row.name)).collect();
    anyhow::ensure!(!rows.is_empty(), "no such row; --list names them");
    if arguments.list {
        rows.iter().for_each(|row| println!("{:16} {}", row.name, row.conditions));
        return Ok(());
    }
    if !arguments.peers.is_empty() {
        let is_chosen =
            |name: &str| arguments.peers.iter().any(|part| name.contains(part.as_str()));
        rows.iter_mut().for_each(|row| row.entries.retain(|entry| is_chosen(entry.name)));
    }
    if let Some(folder) = &arguments.perf {
        std::fs::create_dir_all(folder)?;
    }
    let lab = Lab::enter()?; // before any thread starts
    let mut report = Report::new(Machine::look());
    println!("{}", report.head());
    for row in &rows {
        for cores in core_pairs(arguments.cores, row) {
            let measured = measure(&lab, row, cores, arguments)
                .with_context(|| format!("row {}", row.name))?;
            println!("{measured}");
            report.rows.push(measured);
        }
    }
    if let Some(file) = &arguments.json {
        std::fs::write(file, serde_json::to_string_pretty(&report)?)?;
    }
    Ok(())
}

/// The cores of sender and receiver. On a relayed path the relay needs its share, so nobody is pinned there.
fn core_pairs(cores: Cores, row: &Row) -> Vec<[Option<usize>; 2]> {
    if matches!(row.kind, Kind::Bad { .. }) {
        return vec![[None, None]];
    }
    let (apart, same) = ([Some(0), Some(1)], [Some(0), Some(0)]);
    match cores {
        Cores::Apart => vec![apart],
        Cores::Same => vec![same],
        Cores::Both => vec![apart, same],
    }
}

fn measure(
    lab: &Lab,
    row: &Row,
    cores: [Option<usize>; 2],
    arguments: &Transfer,
) -> Result<RowReport> {
    let path = Path::build(lab, row.kind, row.congestion)?;
    let (runs, mib, bad_mib) = if arguments.quick {
        (3, 256, 48)
    } else {
        (arguments.runs, arguments.mib, arguments.bad_mib)
    };
    let (mib, limit_seconds) =
        if path.is_relayed() { (bad_mib, BAD_LIMIT_SECONDS) } else { (mib, CLEAN_LIMIT_SECONDS) };
    let mut report = RowReport::new(row, cores, mib << 20, limit_seconds);
    for run in 0..runs {
        for (index, entry) in row.entries.iter().enumerate() {
            let is_cabo = matches!(entry.peer, Peer::Cabo | Peer::CaboPlain);
            let (listen, connect) = if is_cabo {
                path.cabo_places(entry.carrier)
            } else {
                path.peer_places(entry.carrier)
            };
            let job = Job {
                peer: entry.peer,
                task: row.task,
                side: Side::Sender,
                core: None,
                listen,
                connect,
                bytes: mib << 20,
                connections: 1,
                dialect: String::new(),
                limit_seconds,
                datagram_bytes: entry.datagram_bytes,
                congestion: if is_cabo {
                    arguments.controller.clone()
                } else {
                    entry.congestion.map(str::to_owned)
                },
            };
            let name = format!("{}-{}-{run}", row.name, entry.name.replace(' ', "-"));
            let perf = arguments.perf.as_deref().map(|folder| (folder, name.as_str()));
            let outcome = pair::measure(&path, &job, cores, perf)
                .with_context(|| format!("{} in run {run}", entry.name))?;
            report.add(index, outcome);
        }
    }
    Ok(report)
}
