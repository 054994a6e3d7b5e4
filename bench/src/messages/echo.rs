//! One connection that asks, and asks again when it is answered.

use anyhow::{Context as _, Result};

use super::peers::Entry;
use super::process::Rounds;
use super::table::{Aim, Bound, Column};
use super::{Bench, Placement, Row};
use crate::job::{Peer, Task};

const P50: &str = "p50 us";
const P99: &str = "p99 us";
/// The part of an order's time that the generator leaves out.
pub const WARM_UP: f64 = 0.2;

pub fn rows() -> Vec<Row> {
    vec![row("echo-64", 64), row("echo-1024", 1024)]
}

fn row(name: &'static str, payload_bytes: usize) -> Row {
    Row {
        name,
        conditions: format!(
            "one connection, {payload_bytes} bytes of payload, asked again when answered; cabo raw and length: callbacks \
             on one event loop"
        ),
        columns: vec![
            Column { name: P50, digits: 1 },
            Column { name: P99, digits: 1 },
            Column { name: "requests/s", digits: 0 },
            Column { name: "server cpu us/request", digits: 2 },
        ],
        entries: vec![
            Entry::foreign("epoll", "echo_epoll", "raw"),
            Entry::talk("cabo raw", "raw", "raw"),
            Entry::talk("cabo length", "length:!H", "length"),
            Entry::tokio(),
            Entry::foreign("libzmq", "echo_zmq", "zmq-echo"),
            Entry::foreign("nng", "echo_nng", "nng-echo"),
            Entry::python(),
            Entry::sockperf(),
            Entry::own("quinn*", Peer::Quinn, ""),
            Entry::own("cabo length*", Peer::Talk, "length:!H"),
            Entry::own("cabo messages*", Peer::Messages, "raw"),
            Entry::own("cabo sealed stream*", Peer::Cabo, ""),
        ],
        aims,
        measure: Box::new(move |bench, entry, placement| {
            measure(bench, entry, placement, payload_bytes)
        }),
        only: None,
    }
}

fn aims(placement: Placement) -> Vec<Aim> {
    let bound = Bound::AtMost(if placement.is_same() { 1.4 } else { 1.1 });
    let mut aims = Vec::new();
    for column in [P50, P99] {
        for who in ["cabo raw", "cabo length"] {
            aims.push(Aim { who, column, of: Some("epoll"), bound });
        }
        let (who, of) = ("cabo messages*", Some("cabo length*"));
        aims.push(Aim { who, column, of, bound: Bound::AtMost(1.25) });
    }
    aims
}

fn measure(
    bench: &Bench,
    entry: &Entry,
    placement: Placement,
    payload_bytes: usize,
) -> Result<Vec<f64>> {
    if entry.is_sockperf() {
        return measure_sockperf(bench, entry, placement, payload_bytes);
    }
    let (server, mut load) = entry.start(bench, placement, Task::Echo, payload_bytes, 1)?;
    let before = server.cpu_seconds();
    let rounds = load.order(&format!("echo 1 {}", bench.seconds))?;
    let spent = server.cpu_seconds() - before;
    let Rounds { requests, seconds, p50_nanos, p99_nanos } = rounds;
    Ok(vec![
        p50_nanos as f64 * 1e-3,
        p99_nanos as f64 * 1e-3,
        requests as f64 / seconds,
        spent * 1e6 * (1.0 - WARM_UP) / requests.max(1) as f64,
    ])
}

/// sockperf counts whole seconds, and says what it measured in words.
fn measure_sockperf(
    bench: &Bench,
    entry: &Entry,
    placement: Placement,
    payload_bytes: usize,
) -> Result<Vec<f64>> {
    let server = entry.serve(bench, placement, Task::Echo, payload_bytes)?;
    let seconds = (bench.seconds.ceil() as u64).max(1);
    let mut load = entry.sockperf_client(&server, placement, payload_bytes, seconds)?;
    let said = load.rest()?;
    let number = |before| number_after(&said, before).with_context(|| format!("{before}: {said}"));
    let valid = said.split_once("[Valid Duration]").map_or("", |(_, valid)| valid);
    let rate = number_after(valid, "ReceivedMessages=")
        .zip(number_after(valid, "RunTime="))
        .map_or(f64::NAN, |(count, time)| count / time);
    Ok(vec![number("percentile 50.000 =")?, number("percentile 99.000 =")?, rate, f64::NAN])
}

fn number_after(text: &str, before: &str) -> Option<f64> {
    let (_, after) = text.split_once(before)?;
    let number = after.trim_start().split(|sign: char| !sign.is_ascii_digit() && sign != '.');
    number.into_iter().next()?.parse().ok()
}
