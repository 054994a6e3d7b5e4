//! Messages: how long an echo takes, how many a second go one way, and what many clients cost.
//!
//! One load generator in C drives every server over TCP, so that a difference is the server's; where a server needs a client
//! of its own, its name ends in `*`. Parts: `peers` (who), `echo`, `one_way`, `crowd` and `redes` (what is measured),
//! `process` (one server or generator), `programs` (the C sources in `bench/foreign`), `table` (medians and aims).

mod crowd;
mod echo;
mod one_way;
mod peers;
pub mod process;
mod programs;
mod redes;
mod table;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use cabo::lab::Lab;
use clap::Args;
use serde::Serialize;

use self::peers::Entry;
use self::programs::Programs;
use self::table::{Aim, Column, Measured, Table};
use crate::machine::Machine;
use crate::{Cores, load};

/// What to measure, and how long.
#[derive(Args)]
pub struct Messages {
    /// Only rows whose name contains one of these.
    rows: Vec<String>,
    /// Measurements of each peer; the table shows medians and ranges.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// How long each lasts.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Clients of a crowd; a tenth of them is active where not all are.
    #[arg(long, default_value_t = 10_000)]
    clients: usize,
    /// Both sides on one core, each on its own, or first the one and then the other.
    #[arg(long, value_enum, default_value_t = Cores::Both)]
    cores: Cores,
    /// Three runs of half a second: five minutes at most.
    #[arg(long)]
    quick: bool,
    /// Only peers whose name contains one of these.
    #[arg(long)]
    peers: Vec<String>,
    /// Writes the figures there too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Names the rows and ends.
    #[arg(long)]
    list: bool,
}

/// What every measurement needs.
pub struct Bench {
    pub lab: Lab,
    pub programs: Programs,
    pub runs: usize,
    pub seconds: f64,
    pub clients: usize,
}

/// The cores of generator and server.
#[derive(Clone, Copy)]
pub struct Placement {
    pub words: &'static str,
    pub generator: usize,
    pub server: usize,
}

const SAME: Placement = Placement { words: "both sides on one core", generator: 0, server: 0 };
const APART: Placement =
    Placement { words: "each side on a core of its own", generator: 0, server: 1 };

impl Placement {
    pub fn is_same(&self) -> bool {
        self.generator == self.server
    }
}

/// Peers that are measured in turn, and how one of them is.
pub struct Row {
    pub name: &'static str,
    pub conditions: String,
    pub columns: Vec<Column>,
    pub entries: Vec<Entry>,
    pub aims: fn(Placement) -> Vec<Aim>,
    /// One run of one peer: a value for each column.
    pub measure: Measure,
    /// Measured in this placement alone.
    pub only: Option<Placement>,
}

type Measure = Box<dyn Fn(&Bench, &Entry, Placement) -> Result<Vec<f64>>>;

#[derive(Serialize)]
struct Report {
    machine: Machine,
    command: String,
    rows: Vec<Table>,
}

pub fn run(arguments: &Messages) -> Result<()> {
    let is_wanted = |name: &str, parts: &[String]| {
        parts.is_empty() || parts.iter().any(|part| name.contains(part.as_str()))
    };
    let clients = arguments.clients.min(load::raise_descriptors()?.saturating_sub(100));
    let mut rows = echo::rows();
    rows.extend(one_way::rows());
    rows.extend(crowd::rows(clients));
    rows.push(redes::row());
    rows.retain(|row| is_wanted(row.name, &arguments.rows));
    anyhow::ensure!(!rows.is_empty(), "no such row; --list names them");
    if arguments.list {
        rows.iter().for_each(|row| println!("{:16} {}", row.name, row.conditions));
        return Ok(());
    }
    let (runs, seconds) =
        if arguments.quick { (3, 0.5) } else { (arguments.runs, arguments.seconds) };
    let programs = Programs::build()?;
    let lab = Lab::enter()?; // before any thread starts
    let bench = Bench { lab, programs, runs, seconds, clients };
    let words: Vec<String> = std::env::args().skip(1).collect();
    let command = format!("./dev bench {}", words.join(" "));
    let mut report = Report { machine: Machine::look(), command, rows: Vec::new() };
    println!(
        "{}\ncommand     {}\nmeasured    by one generator in C over TCP on lo, but * by a client of its own; peers in \
         turn; median of {runs}\n            runs and (range); ratios of medians within a row\n",
        report.machine, report.command
    );
    for row in &mut rows {
        row.entries.retain(|entry| is_wanted(entry.name, &arguments.peers));
        for placement in placements(arguments.cores, row) {
            let table = measure(&bench, row, placement)?;
            println!("{table}");
            report.rows.push(table);
        }
    }
    if let Some(file) = &arguments.json {
        std::fs::write(file, serde_json::to_string_pretty(&report)?)?;
    }
    Ok(())
}

fn placements(cores: Cores, row: &Row) -> Vec<Placement> {
    match (row.only, cores) {
        (Some(only), _) => vec![only],
        (None, Cores::Apart) => vec![APART],
        (None, Cores::Same) => vec![SAME],
        (None, Cores::Both) => vec![SAME, APART],
    }
}

fn measure(bench: &Bench, row: &Row, placement: Placement) -> Result<Table> {
    let mut table = Table {
        name: row.name.into(),
        cores: placement.words,
        conditions: row.conditions.clone(),
        columns: row.columns.clone(),
        peers: Vec::new(),
        aims: (row.aims)(placement),
        verdicts: Vec::new(),
    };
    table.peers.extend(row.entries.iter().map(|entry| Measured {
        name: entry.name,
        runs: Vec::new(),
        missing: entry.missing(&bench.programs),
    }));
    for run in 0..bench.runs {
        for (entry, measured) in row.entries.iter().zip(&mut table.peers) {
            if measured.missing.is_none() {
                let values = (row.measure)(bench, entry, placement).with_context(|| {
                    format!("{} in run {run} of {}, {}", entry.name, row.name, placement.words)
                })?;
                measured.runs.push(values);
            }
        }
    }
    table.judge();
    Ok(table)
}
