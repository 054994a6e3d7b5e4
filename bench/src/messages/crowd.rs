//! Many clients at once: what an idle one weighs, and how fast the active ones are answered.

use std::time::Duration;

use anyhow::Result;

use super::echo::WARM_UP;
use super::peers::Entry;
use super::process::Process;
use super::table::{Aim, Bound, Column};
use super::{Bench, Placement, Row};
use crate::job::{Peer, Task};

const PAYLOAD_BYTES: usize = 64;
/// Clients have been silent for so long when they are weighed.
const SILENCE: Duration = Duration::from_secs(1);
/// All of them take longer to be answered once, and so are measured for longer, than other loads.
const LONGER: f64 = 3.0;

const RATE: &str = "all: requests/s";
const SLOWEST: &str = "all: p99 ms";
const SLOWEST_OF_TENTH: &str = "tenth: p99 ms";
const RESIDENT: &str = "idle: resident KiB each";
const HEAP: &str = "idle: heap KiB each";

pub fn rows(clients: usize) -> Vec<Row> {
    vec![
        Row {
            name: "crowd",
            conditions: format!(
                "{clients} clients over TCP, 64 bytes, each asks again when answered: all of them, and a tenth while the \
                 others are silent; weighed before that, when each has been answered once"
            ),
            columns: vec![
                Column { name: RATE, digits: 0 },
                Column { name: SLOWEST, digits: 1 },
                Column { name: "all: server cpu us", digits: 2 },
                Column { name: "tenth: requests/s", digits: 0 },
                Column { name: SLOWEST_OF_TENTH, digits: 2 },
                Column { name: RESIDENT, digits: 2 },
                Column { name: HEAP, digits: 2 },
            ],
            entries: vec![
                Entry::foreign("epoll", "echo_epoll", "raw"),
                Entry::tokio(),
                Entry::talk("cabo raw", "raw", "raw"),
            ],
            aims: |_| {
                let (who, of) = ("cabo raw", Some("tokio"));
                let rate = Aim { who, column: RATE, of, bound: Bound::AtLeast(0.95) };
                let slowest = |column| Aim { who, column, of, bound: Bound::Stated };
                vec![
                    rate,
                    slowest(SLOWEST),
                    slowest(SLOWEST_OF_TENTH),
                    at_most(who, RESIDENT, 8.0),
                    at_most(who, HEAP, 8.0),
                ]
            },
            measure: Box::new(measure),
            only: None,
        },
        Row {
            name: "crowd-sealed",
            conditions: format!(
                "{clients} cabo peers with messages/1 in sealed sessions over TCP, each answered once and silent then"
            ),
            columns: vec![Column { name: RESIDENT, digits: 2 }, Column { name: HEAP, digits: 2 }],
            entries: vec![Entry::own("cabo messages*", Peer::Messages, "raw")],
            aims: |_| {
                let who = "cabo messages*";
                vec![at_most(who, RESIDENT, 16.0), at_most(who, HEAP, 16.0)]
            },
            measure: Box::new(|bench, entry, placement| {
                weigh(bench, entry, placement).map(|weighed| weighed.each.to_vec())
            }),
            only: Some(super::APART),
        },
    ]
}

fn at_most(who: &'static str, column: &'static str, bound: f64) -> Aim {
    Aim { who, column, of: None, bound: Bound::AtMost(bound) }
}

fn measure(bench: &Bench, entry: &Entry, placement: Placement) -> Result<Vec<f64>> {
    let Weighed { server, mut load, each: [resident, heap] } = weigh(bench, entry, placement)?;
    let clients = bench.clients;
    let tenth = load.order(&format!("echo {} {}", clients / 10, bench.seconds))?;
    let before = server.cpu_seconds();
    let all = load.order(&format!("echo {clients} {}", LONGER * bench.seconds))?;
    let spent = server.cpu_seconds() - before;
    Ok(vec![
        all.requests as f64 / all.seconds,
        all.p99_nanos as f64 * 1e-6,
        spent * 1e6 * (1.0 - WARM_UP) / all.requests.max(1) as f64,
        tenth.requests as f64 / tenth.seconds,
        tenth.p99_nanos as f64 * 1e-6,
        resident,
        heap,
    ])
}

/// A server and its silent clients.
struct Weighed {
    server: Process,
    load: Process,
    /// KiB of resident memory and of heap for each client.
    each: [f64; 2],
}

fn weigh(bench: &Bench, entry: &Entry, placement: Placement) -> Result<Weighed> {
    let mut server = entry.serve(bench, placement, Task::Echo, PAYLOAD_BYTES)?;
    let before = bytes(&mut server.process)?;
    let clients = bench.clients;
    let load = entry.load(bench, &server, placement, Task::Echo, PAYLOAD_BYTES, clients)?;
    std::thread::sleep(SILENCE);
    let after = bytes(&mut server.process)?;
    let each = |of: usize| (after[of] - before[of]) / 1024.0 / clients as f64;
    Ok(Weighed { server: server.process, load, each: [each(0), each(1)] })
}

/// Resident memory and heap of a server.
fn bytes(server: &mut Process) -> Result<[f64; 2]> {
    let heap = server.progress()?.heap_bytes;
    Ok([server.resident_bytes() as f64, heap as f64])
}
