//! Figures for people and for programs: medians, ranges, ratios within one row.

use std::fmt;

use serde::Serialize;

use crate::job::{Peer, Task};
use crate::machine::Machine;
use crate::pair::Outcome;
use crate::paths::{Carrier, Kind, WIRE_BYTES};
use crate::rows::{Entry, Row};

/// What a cabo stream frame takes in a full packet: type, stream, offset.
const STREAM_FRAME_BYTES: u32 = 7;
/// quinn's short header (1 + 8 + 4 or so), tag and stream frame.
const QUINN_BYTES: u32 = 13 + 16 + STREAM_FRAME_BYTES;
/// IP, TCP and its timestamps.
const TCP_BYTES: u32 = 20 + 32;
const UDP_BYTES: u32 = 28;

/// Everything that was measured.
#[derive(Serialize)]
pub struct Report {
    pub machine: Machine,
    pub command: String,
    pub rows: Vec<RowReport>,
}

impl Report {
    pub fn new(machine: Machine) -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        Self { machine, command: format!("./dev bench {}", arguments.join(" ")), rows: Vec::new() }
    }

    pub fn head(&self) -> String {
        format!(
            "{}\ncommand     {}\nmeasured    memory to memory, one stream; the receiver's count from its first byte to \
             its last decides;\n            peers in turn on one path; median of the runs and (range); ratios of \
             medians within a row\n",
            self.machine, self.command
        )
    }
}

/// One row with one placement on cores.
#[derive(Serialize)]
pub struct RowReport {
    pub name: String,
    pub conditions: String,
    pub goal: String,
    pub cores: String,
    pub bytes: u64,
    pub limit_seconds: f64,
    pub peers: Vec<PeerReport>,
    #[serde(skip)]
    against: &'static [&'static str],
    #[serde(skip)]
    task: Task,
    #[serde(skip)]
    kind: Kind,
}

/// One peer's runs.
#[derive(Serialize)]
pub struct PeerReport {
    pub name: String,
    pub runs: Vec<Run>,
    #[serde(skip)]
    entry: Entry,
}

/// One run.
#[derive(Serialize)]
pub struct Run {
    pub bytes: u64,
    pub seconds: f64,
    /// Of the stream, or of whole payloads for a blaster.
    pub megabits_per_second: f64,
    pub sender_cpu_seconds: f64,
    pub receiver_cpu_seconds: f64,
    pub note: String,
}

impl RowReport {
    pub fn new(row: &Row, cores: [Option<usize>; 2], bytes: u64, limit_seconds: f64) -> Self {
        let peers = row.entries.iter().map(|entry| PeerReport {
            name: entry.name.into(),
            runs: Vec::new(),
            entry: entry.clone(),
        });
        Self {
            name: row.name.clone(),
            conditions: row.conditions.clone(),
            goal: row.goal.into(),
            cores: match cores {
                [Some(sender), Some(receiver)] if sender == receiver => "both sides on one core",
                [Some(_), Some(_)] => "each side on a core of its own",
                _ => "not pinned",
            }
            .into(),
            bytes,
            limit_seconds,
            peers: peers.collect(),
            against: row.against,
            task: row.task,
            kind: row.kind,
        }
    }

    pub fn add(&mut self, entry: usize, outcome: Outcome) {
        let Outcome { counted, sent } = outcome;
        let run = Run {
            bytes: counted.bytes,
            seconds: counted.seconds,
            megabits_per_second: counted.bytes as f64 * 8e-6 / counted.seconds.max(1e-9),
            sender_cpu_seconds: sent.cpu_seconds,
            receiver_cpu_seconds: counted.cpu_seconds,
            note: sent.note,
        };
        self.peers[entry].runs.push(run);
    }

    fn rate_of(&self, name: &str) -> Option<f64> {
        self.peers.iter().find(|peer| peer.name == name).map(|peer| median(&peer.rates()))
    }

    /// What the path leaves for payload after 3 % of slack, in Mbit/s, where there is a rate.
    fn goal_rate(&self, entry: &Entry) -> Option<f64> {
        let Kind::Bad { loss, rate_bits_per_second: rate @ 1.., .. } = self.kind else {
            return None;
        };
        Some(0.97 * (1.0 - loss) * payload_share(entry) * rate as f64 * 1e-6)
    }
}

/// Payload of a full frame on the wire, MTU 1500.
fn payload_share(entry: &Entry) -> f64 {
    let overhead = match (entry.peer, entry.carrier) {
        (Peer::Cabo, Carrier::Eth | Carrier::EthAsked) => 24 + 16 + STREAM_FRAME_BYTES,
        (Peer::CaboPlain, Carrier::Eth | Carrier::EthAsked) => 24 + 4 + STREAM_FRAME_BYTES,
        (Peer::Cabo, Carrier::Udp) => UDP_BYTES + 20 + 16 + STREAM_FRAME_BYTES,
        (Peer::CaboPlain, Carrier::Udp) => UDP_BYTES + 20 + 4 + STREAM_FRAME_BYTES,
        (Peer::Quinn | Peer::QuinnBbr, _) => UDP_BYTES + QUINN_BYTES,
        _ => TCP_BYTES,
    };
    f64::from(1500 - overhead) / f64::from(1500 + WIRE_BYTES)
}

impl PeerReport {
    fn rates(&self) -> Vec<f64> {
        self.runs.iter().map(|run| run.megabits_per_second).collect()
    }

    fn nanos_per_byte(&self, of: impl Fn(&Run) -> f64) -> f64 {
        let nanos: Vec<f64> =
            self.runs.iter().map(|run| of(run) * 1e9 / run.bytes.max(1) as f64).collect();
        median(&nanos)
    }
}

impl fmt::Display for RowReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} -- {}", self.name, self.cores)?;
        writeln!(f, "  {}", self.conditions)?;
        if self.task == Task::FirstByte {
            return self.fmt_first_byte(f);
        }
        let runs = self.peers.first().map_or(0, |peer| peer.runs.len());
        writeln!(
            f,
            "  {} MiB or {} s, {runs} runs; aim: {}",
            self.bytes >> 20,
            self.limit_seconds,
            self.goal
        )?;
        for peer in &self.peers {
            let rates = peer.rates();
            let (low, high) = range(&rates);
            write!(
                f,
                "  {:12} {:>8.0} Mbit/s ({low:.0}-{high:.0})  cpu ns/B {:.2} > {:.2} ",
                peer.name,
                median(&rates),
                peer.nanos_per_byte(|run| run.sender_cpu_seconds),
                peer.nanos_per_byte(|run| run.receiver_cpu_seconds)
            )?;
            for other in self.against {
                if let (Some(rate), true) = (self.rate_of(other), *other != peer.name) {
                    write!(f, "  {:.2} of {other}", median(&rates) / rate)?;
                }
            }
            if let Some(goal) = self.goal_rate(&peer.entry) {
                write!(f, "  {:.3} of aim", median(&rates) / goal)?;
            }
            let note = peer.runs.last().map_or("", |run| run.note.as_str());
            writeln!(f, "  {note}")?;
        }
        Ok(())
    }
}

impl RowReport {
    fn fmt_first_byte(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  aim: {}", self.goal)?;
        for peer in &self.peers {
            let times: Vec<f64> = peer.runs.iter().map(|run| run.seconds * 1e3).collect();
            let (low, high) = range(&times);
            let time = median(&times);
            writeln!(
                f,
                "  {:14} {time:>7.1} ms ({low:.1}-{high:.1})  {:.2} round trips",
                peer.name,
                time / 100.0
            )?;
        }
        Ok(())
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn range(values: &[f64]) -> (f64, f64) {
    values
        .iter()
        .fold((f64::INFINITY, 0.0_f64), |(low, high), &value| (low.min(value), high.max(value)))
}
