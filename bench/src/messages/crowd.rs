//! Many clients at once: what an idle one weighs, and how fast the active ones are answered.

use std::time::Duration;

use anyhow::Result;

use super::echo::WARM_UP;
use super::peers::Entry;
use super::table::{Aim, Bound, Column};
use super::{Bench, Placement, Row};
use crate::job::Task;
use crate::load::Both;
use crate::paths::Carrier;

const PAYLOAD_BYTES: usize = 64;
/// Clients have been silent for so long when they are weighed.
const SILENCE: Duration = Duration::from_secs(1);
/// All of them take longer to be answered once, and so are measured for longer, than other loads.
const LONGER: f64 = 3.0;

const RATE: &str = "all: requests/s";
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
                Column { name: "all: p99 ms", digits: 1 },
                Column { name: "all: server cpu us", digits: 2 },
                Column { name: "tenth: requests/s", digits: 0 },
                Column { name: "tenth: p99 ms", digits: 2 },
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
                vec![rate, at_most(who, RESIDENT, 8.0), at_most(who, HEAP, 8.0)]
            },
            measure: Box::new(measure),
            only: None,
        },
        Row {
            name: "crowd-sealed",
            conditions: format!(
                "{clients} idle sealed sessions over TCP on veth, of a client of our own"
            ),
            columns: vec![Column { name: RESIDENT, digits: 2 }, Column { name: HEAP, digits: 2 }],
            entries: vec![Entry::own("cabo sealed*", crate::job::Peer::Cabo, "")],
            aims: |_| {
                vec![at_most("cabo sealed*", RESIDENT, 16.0), at_most("cabo sealed*", HEAP, 16.0)]
            },
            measure: Box::new(measure_sealed),
            only: Some(super::APART),
        },
    ]
}

fn at_most(who: &'static str, column: &'static str, bound: f64) -> Aim {
    Aim { who, column, of: None, bound: Bound::AtMost(bound) }
}

fn measure(bench: &Bench, entry: &Entry, placement: Placement) -> Result<Vec<f64>> {
    let mut server = entry.serve(bench, placement, Task::Echo, PAYLOAD_BYTES)?;
    let heap_before = heap_bytes(&mut server.process)?;
    let resident_before = server.process.resident_bytes() as f64;
    let clients = bench.clients;
    let mut load = entry.load(bench, &server, placement, Task::Echo, PAYLOAD_BYTES, clients)?;
    std::thread::sleep(SILENCE);
    let each = |now: f64, before: f64| (now - before) / 1024.0 / clients as f64;
    let heap = each(heap_bytes(&mut server.process)?, heap_before);
    let resident = each(server.process.resident_bytes() as f64, resident_before);
    let tenth = load.order(&format!("echo {} {}", clients / 10, bench.seconds))?;
    let before = server.process.cpu_seconds();
    let all = load.order(&format!("echo {clients} {}", LONGER * bench.seconds))?;
    let spent = server.process.cpu_seconds() - before;
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

fn heap_bytes(server: &mut super::process::Process) -> Result<f64> {
    Ok(server.progress()?.heap_bytes as f64)
}

fn measure_sealed(bench: &Bench, _: &Entry, _: Placement) -> Result<Vec<f64>> {
    let mut both = Both::start(&bench.lab, Carrier::Tcp)?;
    let before = both.weigh()?;
    both.open(bench.clients, 0)?;
    std::thread::sleep(SILENCE);
    let after = both.weigh()?;
    let each = |now: u64, before: u64| (now as f64 - before as f64) / 1024.0 / bench.clients as f64;
    Ok(vec![
        each(after.resident_bytes, before.resident_bytes),
        each(after.heap_bytes, before.heap_bytes),
    ])
}
