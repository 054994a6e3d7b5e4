//! The scene `sockets`: the same numbered messages over TCP, UDP and to a multicast group, through one bad cable, at the
//! same time.
//!
//! `traffic` sends and receives, `account` says what that comes to, `show::sockets` shows it. Nothing here knows what
//! should come out: every number is of what arrived.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cabo::relay::{LinkConfig, RelayConfig};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout_at};

use self::account::{Account, Window};
use self::traffic::{Board, INTERVAL, MEMBERS, MESSAGES, Receiving, Sending, Sent, Way};
use super::stage::Place;
use super::{Ending, Signals, of_cable, place};
use crate::cmd::Globals;
use crate::cmd::relay::flags::{CableFlags, describe};
use crate::exit;
use crate::show::sockets::{COLUMNS, Row, Scene};
use crate::show::{json as json_lines, stderr, stdout};

pub(crate) mod account;
mod traffic;

const SEED: u64 = 7;
/// TCP has this long to connect.
const CONNECT_TIME: Duration = Duration::from_secs(12);
/// And this long until its last message has come.
const SCENE_TIME: Duration = Duration::from_secs(27);
/// Beyond what the cable takes, a message that comes still has this long after the last one was sent.
const GRACE: Duration = Duration::from_millis(500);
/// Beyond what the cable takes, a message is late after this.
const LATE: Duration = Duration::from_millis(20);

/// Plays it.
pub(super) fn play(flags: &CableFlags, globals: Globals) -> anyhow::Result<ExitCode> {
    let mtu_bytes = flags.mtu_of_lab()?;
    let started = Instant::now();
    // Of a single thread, or the lab could not be entered.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let config = flags.config(&bad_cable(), SEED);
    let place = place(&config, mtu_bytes, globals)?;
    let is_told = !globals.json && !globals.quiet;
    if is_told {
        introduce(&place, &config)?;
    }
    let board = Arc::new(Board::new());
    let receiving = Receiving::start(&place, &board)?;
    let mut sending = Sending::start(&place, &receiving, &board, started + CONNECT_TIME)?;
    let takes = match place {
        Place::Lan(_) => config.forward.delay + config.forward.jitter,
        Place::Loopback => Duration::ZERO,
    };
    let all = wait(&board, &mut sending, started + SCENE_TIME, GRACE + takes * 2);
    let (sent, ending) = runtime.block_on(async {
        tokio::select! {
            () = signals.any() => (Sent::new(), Ending::Interrupted),
            all = all => all,
        }
    });
    let resent = place.segments_resent();
    let is_on_cable = matches!(place, Place::Lan(_));
    let rows = rows(&board, &sent, LATE + takes);
    drop((sending, receiving));
    let cable = match place {
        Place::Lan(lan) => Some(lan.take_down()?),
        Place::Loopback => None,
    };
    let window = Window::around_silence(&board.of(Way::Tcp, 0), INTERVAL, COLUMNS);
    let late_after = LATE + takes;
    let scene = Scene { rows, window, resent, late_after, is_on_cable };
    let is_good = scene.rows.iter().all(|row| row.error.is_none()) && scene.is_tcp_whole();
    let text = conclusion(&scene, started.elapsed(), ending, cable.as_ref());
    if globals.json {
        tell_json(&scene, started.elapsed(), cable.as_ref())?;
    } else if is_told {
        let mut out = stdout::styled();
        scene.write(&mut out)?;
        writeln!(out, "{text}")?;
    } else if !is_good {
        stderr::say(&format!("cabo: {text}"));
    }
    Ok(ExitCode::from(match (ending, is_good) {
        (Ending::Interrupted, _) => exit::INTERRUPTED,
        (Ending::Over | Ending::Late, true) => exit::OK,
        (Ending::Over | Ending::Late, false) => exit::INCOMPLETE,
    }))
}

/// Bad enough that all of it can be seen in two seconds. The delay is long for the messages' interval, or what the cable
/// holds back would not be overtaken.
fn bad_cable() -> LinkConfig {
    LinkConfig {
        loss: 0.05,
        reorder: 0.03,
        duplicate: 0.02,
        delay: Duration::from_millis(40),
        jitter: Duration::from_millis(1),
        rate_bits_per_second: 50_000_000,
        ..LinkConfig::default()
    }
}

fn introduce(place: &Place, config: &RelayConfig) -> io::Result<()> {
    let mut out = stdout::styled();
    match place {
        Place::Lan(lan) => {
            let [ana, bob] = lan.describe();
            writeln!(out, "{ana}  receives")?;
            writeln!(out, "{bob}  sends")?;
            writeln!(out, "cable     {}", describe(config))?;
        }
        Place::Loopback => {
            writeln!(out, "both sides are this machine: no cable, and nothing lost")?
        }
    }
    writeln!(
        out,
        "messages  {MESSAGES} of 64 bytes, one every {INTERVAL:?}, each way: over TCP, over UDP, and to a group of \
         {MEMBERS}\n"
    )?;
    out.flush()
}

/// Waits until all is sent, TCP has delivered it, and nothing more can come.
async fn wait(
    board: &Board,
    sending: &mut Sending,
    deadline: Instant,
    grace: Duration,
) -> (Sent, Ending) {
    let Ok(Ok(sent)) = timeout_at(deadline, &mut sending.sent).await else {
        return (Sent::new(), Ending::Late);
    };
    let quiet = Instant::now() + grace;
    let is_tcp_sent = sent.get(&Way::Tcp).is_some_and(|(count, _)| *count == MESSAGES);
    let mut ending = Ending::Over;
    if is_tcp_sent && timeout_at(deadline, board.is_tcp_done.notified()).await.is_err() {
        ending = Ending::Late;
    }
    sleep_until(quiet).await;
    (sent, ending)
}

/// What came each way, for those of which it is known what was sent.
fn rows(board: &Board, sent: &Sent, late_after: Duration) -> Vec<Row> {
    let mut rows = Vec::new();
    for (way, (count, error)) in sent {
        let (name, members) = match way {
            Way::Tcp => ("tcp", 1),
            Way::Udp => ("udp", 1),
            Way::Group => ("group", MEMBERS),
        };
        for member in 0..members {
            let arrivals = board.of(*way, member);
            let account = Account::of(*count, &arrivals, late_after);
            let receiver = (members > 1).then_some(member + 1);
            rows.push(Row { name, receiver, account, arrivals, error: error.clone() });
        }
    }
    rows
}

/// How it went, in one line.
fn conclusion(scene: &Scene, elapsed: Duration, ending: Ending, cable: Option<&Value>) -> String {
    let mut text = format!("{:.1} s", elapsed.as_secs_f64());
    match ending {
        Ending::Over => {}
        Ending::Late => text.push_str("; the scene was cut off"),
        Ending::Interrupted => text.push_str("; interrupted"),
    }
    if let Some(error) = scene.rows.iter().find_map(|row| row.error.as_deref()) {
        text.push_str(&format!("; {error}"));
    }
    if let Some(cable) = cable {
        text.push_str(&format!(". {}", of_cable(cable)));
    }
    text
}

fn tell_json(scene: &Scene, elapsed: Duration, cable: Option<&Value>) -> io::Result<()> {
    for row in &scene.rows {
        json_lines::line(&scene.json(row))?;
    }
    json_lines::line(&json!({
        "summary": true,
        "messages": MESSAGES,
        "interval_milliseconds": INTERVAL.as_secs_f64() * 1e3,
        "seconds": elapsed.as_secs_f64(),
        "tcp_segments_resent": scene.resent,
        "cable": cable,
    }))
}
