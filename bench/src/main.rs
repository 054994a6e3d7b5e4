//! cabo beside its peers, on paths that this program builds itself in namespaces.
//!
//! `transfer` measures goodput and the time to the first byte, `load` the memory of a server, `messages` echoes and many
//! clients. All start this same program again as `peer`, one process for each side, so that each side can be pinned,
//! profiled and weighed alone.
//! Parts: `rows` (what is measured against what), `paths` (where), `pair` (one measurement), `peers` (who), `report`
//! (the table and the JSON), `load`, `messages`, `machine` (what it ran on).

mod job;
mod load;
mod machine;
mod messages;
mod pair;
mod paths;
mod peers;
mod report;
mod rows;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Measures cabo beside the raw link, kernel TCP, quinn and rustls.
#[derive(Parser)]
#[command(name = "./dev bench", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Goodput from memory to memory, and the time to the first byte.
    Transfer(Transfer),
    /// Memory of a server with many sessions.
    Load(load::Load),
    /// Echoes, messages one way and many clients, beside other servers.
    Messages(messages::Messages),
    /// One side of one measurement; started by the other verbs.
    #[command(hide = true)]
    Peer { job: String },
}

/// What to measure, and how long.
#[derive(Args)]
struct Transfer {
    /// Only rows whose name contains one of these.
    rows: Vec<String>,
    /// Measurements of each peer; the table shows medians and ranges.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// MiB that each peer moves on a clean path.
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// MiB that each peer moves on a bad path.
    #[arg(long, default_value_t = 96)]
    bad_mib: u64,
    /// Both sides on one core, each on its own, or first the one and then the other.
    #[arg(long, value_enum, default_value_t = Cores::Both)]
    cores: Cores,
    /// Three runs of 256 MiB (48 on a bad path): minutes, not a quarter of an hour.
    #[arg(long)]
    quick: bool,
    /// Only peers whose name contains one of these.
    #[arg(long)]
    peers: Vec<String>,
    /// cabo's congestion controller, to tell its share from the rest: model, cubic, or bytes a second.
    #[arg(long)]
    controller: Option<String>,
    /// Writes the figures there too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Runs both sides under `perf record`, and leaves a file for each in this folder. Slower.
    #[arg(long)]
    perf: Option<PathBuf>,
    /// Names the rows and ends.
    #[arg(long)]
    list: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Cores {
    Apart,
    Same,
    Both,
}

fn main() -> Result<()> {
    match Arguments::parse().verb {
        Verb::Transfer(transfer) => rows::run(&transfer),
        Verb::Load(load) => load::run(&load),
        Verb::Messages(messages) => messages::run(&messages),
        Verb::Peer { job } => peers::run(&serde_json::from_str(&job).context("the job")?),
    }
}
