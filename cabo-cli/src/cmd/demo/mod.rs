//! `cabo demo`: scenes on two hosts that it builds on this machine without root.
//!
//! `stage` has the hosts and the server, `bad_cable` what is between them; `film` and `sockets` are scenes; `samples` is
//! what the first one plays.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cabo::keys::{Fingerprint, Identity};
use cabo::lab::{Lab, LabError};
use cabo::relay::{LinkConfig, RelayConfig};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use self::film::{Client, Shown};
use self::samples::{Folder, SAMPLES};
use self::stage::{Lan, Place, Serving};
use super::Globals;
use super::relay::flags::{CableFlags, describe};
use crate::exit;
use crate::show::demo::{Row, Table};
use crate::show::{stderr, stdout};

mod bad_cable;
mod film;
mod samples;
pub(crate) mod sockets;
mod stage;

/// The client gives up before this.
const PLAY_TIME: Duration = Duration::from_millis(27_500);
/// Nothing takes longer, whatever hangs.
const SCENE_TIME: Duration = Duration::from_millis(28_500);
const SEED: u64 = 7;

/// Scenes on two hosts with a bad cable between them: film, sockets
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  cabo demo
  cabo demo --loss 2% --delay 30ms --seed 3
  cabo demo --json
  cabo demo sockets
  cabo demo sockets --loss 20%

film: each row is one item of the sample catalogue, streamed over one carrier and compared byte for \
byte. `resent` counts packets that the server sent again (for TCP the kernel did). The exit code is \
0 only if every row is verified; on a much worse cable kernel TCP may not be done in its time.

sockets: the same numbered messages over plain TCP, plain UDP and to a multicast group; the exit code \
is 0 if all were sent and TCP delivered all of its own.")]
pub(crate) struct DemoArgs {
    /// What to show
    #[arg(value_enum, default_value_t = Scene::Film)]
    scene: Scene,
    #[command(flatten)]
    cable: CableFlags,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Scene {
    /// Every item of a catalogue over every carrier
    Film,
    /// TCP and UDP sockets side by side: what arrives, in which order, how late
    Sockets,
}

/// How a scene ended.
#[derive(Clone, Copy)]
enum Ending {
    Over,
    Late,
    Interrupted,
}

impl DemoArgs {
    pub(crate) fn run(self, globals: Globals) -> anyhow::Result<ExitCode> {
        match self.scene {
            Scene::Film => self.film(globals),
            Scene::Sockets => sockets::play(&self.cable, globals),
        }
    }

    fn film(self, globals: Globals) -> anyhow::Result<ExitCode> {
        let mtu_bytes = self.cable.mtu_of_lab()?;
        let start = Instant::now();
        // Of a single thread, or the lab could not be entered; before the folder, which no signal may leave behind.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut signals = runtime.block_on(async { Signals::new() })?;
        let folder = Folder::lay_out()?;
        let config = self.cable.config(&bad_cable(), SEED);
        let items = SAMPLES.iter().map(|sample| sample.path);
        let out: Box<dyn io::Write> = match globals.quiet && !globals.json {
            true => Box::new(io::sink()),
            false => Box::new(stdout::styled()),
        };
        let mut table = Table::new(out, globals.json, items);
        let place = place(&config, mtu_bytes, globals)?;
        let (server, client) = (Arc::new(Identity::generate()?), Identity::generate()?);
        let serving = Serving::start(&place, &folder, Arc::clone(&server), client.fingerprint())?;
        let keys = [server.fingerprint(), client.fingerprint()];
        introduce(&mut table, &place, &describe(&config), keys)?;

        let started = Instant::now();
        let expected = serving.addresses.len() * SAMPLES.len();
        let (sender, mut scenes) = mpsc::unbounded_channel();
        let addresses = serving.addresses.clone();
        let resent = serving.resent.clone();
        let deadline = start + PLAY_TIME;
        let client =
            Client { identity: client, server, addresses, resent, deadline, shown: sender };
        place.spawn_client(move || client.run())?;
        let showing = show(&mut table, &mut scenes, &mut signals, start + SCENE_TIME);
        let (rows, ending) = runtime.block_on(showing)?;

        let elapsed = started.elapsed();
        let cable = match place {
            Place::Lan(lan) => Some(lan.take_down()?),
            Place::Loopback => None,
        };
        let verified = rows.iter().filter(|row| row.error.is_none()).count();
        let is_good = verified == expected;
        let text = conclusion(verified, expected, elapsed, ending, cable.as_ref());
        let object = json!({
            "summary": true,
            "rows": expected,
            "verified": verified,
            "seconds": elapsed.as_secs_f64(),
            "cable": cable,
        });
        table.end(is_good, &text, &object)?;
        if globals.quiet && !is_good {
            stderr::say(&format!("cabo: {text}"));
        }
        Ok(match (ending, is_good) {
            (Ending::Interrupted, _) => ExitCode::from(exit::INTERRUPTED),
            (Ending::Over | Ending::Late, true) => ExitCode::SUCCESS,
            (Ending::Over | Ending::Late, false) => ExitCode::from(exit::INCOMPLETE),
        })
    }
}

/// Two hosts and a cable; this machine alone where namespaces are forbidden, which is said.
fn place(config: &RelayConfig, mtu_bytes: u32, globals: Globals) -> anyhow::Result<Place> {
    match Lab::enter() {
        Ok(lab) => Ok(Place::Lan(Box::new(Lan::build(&lab, config, mtu_bytes)?))),
        Err(error @ LabError::Forbidden { .. }) => {
            if !globals.quiet {
                stderr::say(&format!("cabo: {error}"));
            }
            Ok(Place::Loopback)
        }
        Err(error) => Err(error.into()),
    }
}

/// Who plays, and where.
fn introduce(
    table: &mut Table<impl io::Write>,
    place: &Place,
    cable: &str,
    [server, client]: [Fingerprint; 2],
) -> io::Result<()> {
    match place {
        Place::Lan(lan) => {
            let [ana, bob] = lan.describe();
            table.line(&format!("{ana}  serves, as {}", server.short()))?;
            table.line(&format!("{bob}  asks, as {}", client.short()))?;
            table.line(&format!("cable     {cable}"))?;
        }
        Place::Loopback => {
            table.line("both sides are this machine: no cable, and no raw Ethernet")?;
            let keys = format!("{} serves, {} asks", server.short(), client.short());
            table.line(&format!("keys      {keys}"))?;
        }
    }
    table.line("sealed    each side takes exactly the other's key")?;
    table.line("")?;
    table.head()
}

/// How it went, in one line.
fn conclusion(
    verified: usize,
    expected: usize,
    elapsed: Duration,
    ending: Ending,
    cable: Option<&Value>,
) -> String {
    let seconds = elapsed.as_secs_f64();
    let mut text = format!("{verified} of {expected} rows verified in {seconds:.1} s");
    match ending {
        Ending::Over => {}
        Ending::Late => text.push_str("; the scene was cut off"),
        Ending::Interrupted => text.push_str("; interrupted"),
    }
    if let Some(cable) = cable {
        text.push_str(&format!(". {}", of_cable(cable)));
    }
    text
}

/// What the cable did, in one sentence.
fn of_cable(cable: &Value) -> String {
    let both = |name: &str| {
        let count = |direction: &str| cable[direction][name].as_u64().unwrap_or_default();
        count("forward") + count("backward")
    };
    format!(
        "Of {} frames the cable lost {}, had no room for {}, broke {}, doubled {} and reordered {}",
        both("offered"),
        both("lost"),
        both("queue_full"),
        both("corrupted"),
        both("duplicated"),
        both("reordered"),
    )
}

/// Bad enough to see it at work, good enough for a quick look.
fn bad_cable() -> LinkConfig {
    LinkConfig {
        loss: 0.01,
        burst: 3.0,
        corrupt: 0.002,
        reorder: 0.005,
        duplicate: 0.005,
        delay: Duration::from_millis(10),
        jitter: Duration::from_millis(1),
        rate_bits_per_second: 50_000_000,
        ..LinkConfig::default()
    }
}

/// What ends the program early.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> io::Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn any(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Writes rows as they come, until the client is through, the time is over, or somebody has seen enough.
async fn show(
    table: &mut Table<impl io::Write>,
    shown: &mut mpsc::UnboundedReceiver<Shown>,
    signals: &mut Signals,
    deadline: Instant,
) -> io::Result<(Vec<Row>, Ending)> {
    let mut rows: Vec<Row> = Vec::new();
    let mut first = 0; // of the carrier that plays
    let ending = loop {
        let next = tokio::select! {
            next = timeout_at(deadline, shown.recv()) => match next {
                Ok(Some(next)) => next,
                Ok(None) => break Ending::Over,
                Err(_) => break Ending::Late,
            },
            () = signals.any() => break Ending::Interrupted,
        };
        if rows.last().is_some_and(|last| first < rows.len() && last.carrier != next.carrier()) {
            table.subtotal(&rows[first..])?;
            first = rows.len();
        }
        match next {
            Shown::Listed { carrier, items, elapsed } => table.listed(carrier, items, elapsed)?,
            Shown::Row(row) => {
                table.row(&row)?;
                rows.push(row);
            }
        }
    };
    table.subtotal(&rows[first..])?;
    table.line("")?;
    Ok((rows, ending))
}
