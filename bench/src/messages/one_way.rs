//! Messages of 64 bytes in one direction, as many as go.

use std::time::Duration;

use anyhow::Result;

use super::peers::Entry;
use super::table::{Aim, Bound, Column};
use super::{Bench, Placement, Row};
use crate::job::{Peer, Task};

const PAYLOAD_BYTES: usize = 64;
const RATE: &str = "M messages/s";
/// The generator's time before the server's counter is read first, and after it is read last.
const MARGIN: Duration = Duration::from_millis(150);

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            name: "in-64",
            conditions: "64 bytes each, in large writes of the generator; a callback, or a call, for each; counted by the \
                         server; epoll reads 64 KiB at once and looks at nothing"
                .into(),
            columns: columns(),
            entries: vec![
                Entry::foreign("epoll", "echo_epoll", "raw"),
                Entry::talk("cabo struct", "struct:!64s", "raw"),
                Entry::talk("cabo length", "length:!H", "length"),
                Entry::foreign("libzmq", "echo_zmq", "zmq-sink"),
                Entry::foreign("nng", "echo_nng", "nng-sink"),
                Entry::own("cabo messages*", Peer::Messages, "raw"),
            ],
            // Everybody hears the same batched writer here, and epoll is a reader that looks at nothing.
            aims: |_| aims(&["cabo struct", "cabo length"], Bound::Stated),
            measure: Box::new(measure_in),
            only: None,
        },
        Row {
            name: "out-64",
            conditions: "64 bytes each, sent one by one from on_send, or by a call for each; counted by the generator; \
                         epoll writes 64 KiB at once"
                .into(),
            columns: columns(),
            entries: vec![
                Entry::foreign("epoll", "echo_epoll", "raw"),
                Entry::talk("cabo raw", "raw", "raw"),
                Entry::talk("cabo length", "length:!H", "length"),
                Entry::foreign("libzmq", "echo_zmq", "zmq-source"),
                Entry::foreign("nng", "echo_nng", "nng-source"),
            ],
            aims: |_| aims(&["cabo raw", "cabo length"], Bound::AtLeast(0.3)),
            measure: Box::new(measure_out),
            only: None,
        },
    ]
}

fn columns() -> Vec<Column> {
    vec![Column { name: RATE, digits: 2 }, Column { name: "server cpu ns/message", digits: 0 }]
}

fn aims(peers: &[&'static str], of_bare: Bound) -> Vec<Aim> {
    let bounds =
        [("epoll", of_bare), ("libzmq", Bound::AtLeast(2.0)), ("nng", Bound::AtLeast(3.0))];
    let of_all = peers
        .iter()
        .flat_map(|who| bounds.map(|(of, bound)| Aim { who, column: RATE, of: Some(of), bound }));
    of_all.collect()
}

/// The server's own count between two instants of its own clock.
fn measure_in(bench: &Bench, entry: &Entry, placement: Placement) -> Result<Vec<f64>> {
    let (mut server, mut load) = entry.start(bench, placement, Task::Sink, PAYLOAD_BYTES, 1)?;
    load.begin(&format!("pump {}", bench.seconds + 2.0 * MARGIN.as_secs_f64()))?;
    std::thread::sleep(MARGIN);
    let (first, cpu) = (server.progress()?, server.cpu_seconds());
    std::thread::sleep(Duration::from_secs_f64(bench.seconds));
    let (last, spent) = (server.progress()?, server.cpu_seconds() - cpu);
    load.finish()?;
    let messages = last.messages.saturating_sub(first.messages).max(1) as f64;
    let nanos = last.nanos.saturating_sub(first.nanos).max(1) as f64;
    Ok(vec![messages / nanos * 1e3, spent * 1e9 / messages])
}

fn measure_out(bench: &Bench, entry: &Entry, placement: Placement) -> Result<Vec<f64>> {
    let (server, mut load) = entry.start(bench, placement, Task::Source, PAYLOAD_BYTES, 1)?;
    let cpu = server.cpu_seconds();
    let rounds = load.order(&format!("drink {}", bench.seconds))?;
    let spent = server.cpu_seconds() - cpu;
    let rate = rounds.requests as f64 / rounds.seconds;
    Ok(vec![rate * 1e-6, spent * 1e9 / (rate * bench.seconds).max(1.0)])
}
