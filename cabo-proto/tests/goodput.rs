//! What a file gets through wires of all kinds, as a table that is compared line by line (`golden/goodput.txt`).
//!
//! Virtual time only: the same on every machine. `CABO_BLESS=1 cargo test -p cabo-proto --test goodput` writes the
//! table anew; the difference in the commit says what a change of the transport did.
#![allow(
    clippy::type_complexity,
    clippy::unnecessary_fold,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test stops where it is surprised"
)]

mod support;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use cabo_proto::sim::link::LinkConfig;
use cabo_proto::sim::net::Net;
use support::{CLIENT, Flow, SERVER, connected, deliver, ms, net_with, secs};

const LOSSES: [f64; 6] = [0.0, 0.001, 0.01, 0.05, 0.1, 0.2];
const ROUND_TRIPS_MICROS: [u64; 5] = [100, 2_000, 20_000, 100_000, 300_000];
const RATES_MBITS: [u64; 3] = [10, 200, 1000];

/// Enough that the start does not decide, little enough for a debug build.
fn total_bytes(rate_mbits: u64, round_trip: Duration) -> u64 {
    let product = (rate_mbits as f64 * 125_000.0 * round_trip.as_secs_f64()) as u64;
    (4 * product).clamp(1_000_000, 6_000_000)
}

fn link(rate_mbits: u64, round_trip: Duration, loss: f64) -> LinkConfig {
    LinkConfig {
        loss,
        delay: round_trip / 2,
        rate_bits_per_second: rate_mbits * 1_000_000,
        ..LinkConfig::default()
    }
}

/// One file from the client to the server, the handshake apart; Mbit/s and the share of packets sent in vain.
fn measure(rate_mbits: u64, round_trip: Duration, loss: f64, total: u64) -> String {
    let mut net = net_with(7, link(rate_mbits, round_trip, loss), |config| {
        config.connection.handshake_timeout = secs(60);
    });
    connected(&mut net);
    let took = deliver(&mut net, &mut [Flow::new(CLIENT, total)], secs(3600));
    let Some(took) = took else { return "stuck".to_owned() };
    let stats = support::connection(&mut net, CLIENT).stats();
    let wire = net.links[CLIENT].stats();
    format!(
        "{:9.2} Mbit/s  {:6} sent  {:5.1} % called lost  {:5.1} % dropped by the queue",
        total as f64 * 8.0 / 1e6 / took.as_secs_f64(),
        stats.packets_sent,
        100.0 * stats.packets_lost as f64 / stats.packets_sent as f64,
        100.0 * wire.queue_full as f64 / wire.offered as f64,
    )
}

fn table() -> String {
    let mut text = String::from("rate  round trip   loss       goodput\n");
    for rate in RATES_MBITS {
        for micros in ROUND_TRIPS_MICROS {
            for loss in LOSSES {
                let round_trip = Duration::from_micros(micros);
                let cell = measure(rate, round_trip, loss, total_bytes(rate, round_trip));
                let _ = writeln!(
                    text,
                    "{rate:4}  {:7.1} ms  {:4.1} %  {cell}",
                    micros as f64 / 1000.0,
                    loss * 100.0
                );
            }
        }
    }
    let _ = writeln!(text, "\n48 MiB over 200 Mbit/s, 20 ms, its start included");
    for loss in LOSSES {
        let cell = measure(200, ms(20), loss, 48 << 20);
        let _ = writeln!(text, "{:4.1} %  {cell}", loss * 100.0);
    }
    let _ = writeln!(
        text,
        "\ntwo flows on 40 Mbit/s, 0.2 ms, the second 500 ms later: Mbit/s of each in every half second\n{}",
        late_start()
    );
    let _ = writeln!(
        text,
        "\ntwo flows of one kind share 100 Mbit/s, 20 ms: Jain index over ten seconds\n{}",
        fairness()
    );
    text
}

/// Two connections over one cable, the second a second later; what each got in the ten seconds after.
fn fairness() -> String {
    let mut net = net_with(7, link(100, ms(20), 0.0), |_| {});
    let first = net.connect().unwrap();
    net.run(secs(1), |_| false);
    let second = net.connect().unwrap();
    net.run(secs(1), |_| false);
    let mut flows = [(first, SharedFlow::default()), (second, SharedFlow::default())];
    run_both(&mut net, &mut flows[..1], secs(1));
    let before = flows.each_ref().map(|(_, flow)| flow.read);
    run_both(&mut net, &mut flows, secs(10));
    let got = [0, 1].map(|index| (flows[index].1.read - before[index]) as f64);
    let jain = (got[0] + got[1]).powi(2) / (2.0 * (got[0].powi(2) + got[1].powi(2)));
    assert!(jain > 0.6, "{got:?}");
    format!("{jain:.3}: {:.1} and {:.1} Mbit/s", got[0] * 8.0 / 1e7, got[1] * 8.0 / 1e7)
}

/// T-9.9, of a path with a queue of `queue_bytes`: the later flow's share of its half at first, and Jain's index then.
fn late_share(rate_mbits: u64, round_trip: Duration, queue_bytes: u64, seed: u64) -> [f64; 2] {
    let queue_bytes = Some(queue_bytes);
    let link = LinkConfig { queue_bytes, ..link(rate_mbits, round_trip, 0.0) };
    let mut net = net_with(seed, link, |_| {});
    let first = net.connect().unwrap();
    net.run(ms(150), |_| false);
    let mut flows = [(first, SharedFlow::default())];
    run_both(&mut net, &mut flows, ms(1000 + 23 * seed));
    let second = net.connect().unwrap();
    let [first] = flows;
    let mut flows = [first, (second, SharedFlow::default())];
    let mut got = |time: Duration| {
        let before = flows.each_ref().map(|(_, flow)| flow.read);
        run_both(&mut net, &mut flows, time);
        [0, 1].map(|index| (flows[index].1.read - before[index]) as f64)
    };
    while got(ms(10))[1] == 0.0 {} // its handshake is not what is asked for
    got(secs(1));
    let [early, late] = got(ms(300));
    let [one, other] = got(ms(3000));
    let jain = (one + other).powi(2) / (2.0 * (one * one + other * other));
    [2.0 * late / (early + late), jain]
}

#[test]
fn a_later_flow_gets_its_part_though_the_queue_is_short() {
    let cases = [(200, 20, 250_000), (100, 20, 250_000), (100, 20, 125_000), (40, 10, 25_000)];
    for (rate, round_trip, queue) in cases {
        let shares = [0, 1, 2, 3].map(|seed| late_share(rate, ms(round_trip), queue, seed));
        let what = format!("{rate} Mbit/s, {round_trip} ms, queue {queue}: {shares:.2?}");
        assert!(shares.iter().all(|[early, jain]| *early > 0.25 && *jain > 0.8), "{what}");
        let mean = |part: usize| shares.iter().map(|share| share[part]).sum::<f64>() / 4.0;
        assert!(mean(0) > 0.4 && mean(1) > 0.9, "{what}");
    }
}

/// What the later of two flows gets of a short cable that the first one fills.
fn late_start() -> String {
    let mut net = net_with(7, link(40, Duration::from_micros(200), 0.0), |_| {});
    let first = net.connect().unwrap();
    net.run(ms(100), |_| false);
    let mut flows = [(first, SharedFlow::default())];
    run_both(&mut net, &mut flows, ms(500));
    let second = net.connect().unwrap();
    let [first] = flows;
    let mut flows = [first, (second, SharedFlow::default())];
    let half_seconds = (0..6).map(|_| {
        let before = flows.each_ref().map(|(_, flow)| flow.read);
        run_both(&mut net, &mut flows, ms(500));
        let got = [0, 1].map(|index| (flows[index].1.read - before[index]) as f64 * 8.0 / 5e5);
        format!("{:.1} and {:.1}", got[0], got[1])
    });
    half_seconds.collect::<Vec<_>>().join(", ")
}

#[derive(Default)]
struct SharedFlow {
    stream: Option<cabo_proto::wire::frame::StreamId>,
    read: u64,
}

fn run_both(
    net: &mut Net,
    flows: &mut [(cabo_proto::session::endpoint::Handle, SharedFlow)],
    time: Duration,
) {
    use cabo_proto::transport::streams::Read;
    use cabo_proto::wire::frame::Direction;
    let mut buffer = vec![0; 64 * 1024];
    net.run(time, |net| {
        let now = net.now;
        for (handle, flow) in flows.iter_mut() {
            let streams = net.hosts[CLIENT].connections.get_mut(handle).expect("open").streams();
            flow.stream = flow.stream.or_else(|| streams.open(Direction::One));
            let Some(id) = flow.stream else { continue }; // still shaking hands
            let room = streams.write_room(id).unwrap().min(64 * 1024);
            streams.write(id, vec![0; room].into());
            // Handles count alike on both hosts: one each a connection.
            let Some(receiver) = net.hosts[SERVER].connections.get_mut(handle) else { continue };
            while let Ok(Read::Bytes(len)) = receiver.streams().read(now, id, &mut buffer) {
                flow.read += len as u64;
            }
        }
        false
    });
}

#[test]
fn the_table_is_as_it_was() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/goodput.txt");
    let now = table();
    if std::env::var_os("CABO_BLESS").is_some() {
        std::fs::write(&path, &now).unwrap();
        return;
    }
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    if now == before {
        return;
    }
    let lines = now.lines().zip(before.lines().chain(std::iter::repeat("")));
    for (now, before) in lines.filter(|(now, before)| now != before) {
        eprintln!("- {before}\n+ {now}");
    }
    panic!(
        "the table changed; if that is meant: CABO_BLESS=1 cargo test -p cabo-proto --test goodput"
    );
}
