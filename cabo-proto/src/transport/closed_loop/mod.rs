//! Tests of the parts together (T-9.6): a sender, a bottleneck with a drop-tail queue and seeded loss, a receiver, in
//! virtual time (`bench.rs`). It is the place to tune `congestion/model`; `sim` tries whole connections.

use std::time::Duration;

use super::congestion::Kind;
use bench::{Bench, Link, PACKET, Pauses, Report};

mod bench;
mod sharing;

/// What a controller reaches once it is warm, and how long that took.
fn run(kind: Kind, link: Link) -> Report {
    let time = (link.rtt * 110).clamp(Duration::from_secs(3), Duration::from_secs(9));
    let mut bench = Bench::new(kind, link);
    let ramp = bench.run(time / 3).ramp;
    Report { ramp, ..bench.run(time) }
}

/// T-9.7: a host that has other things to do is no slow path.
#[test]
fn sides_that_pause_do_not_make_a_short_cable_look_slow() {
    let ms = Duration::from_millis;
    let cases = [
        (10_000, 100, ms(50), ms(20), ms(200)),
        (10_000, 100, ms(5), ms(5), ms(250)),
        (3_000, 50, ms(5), ms(5), ms(500)), // 80 ms without pauses, 320 if both sides must run at once
        (3_000, 2000, ms(5), ms(5), ms(500)),
    ];
    for (megabits, rtt_micros, apart, length, most) in cases {
        for seed in 0..20 {
            let pauses = Some(Pauses { apart, length });
            let link = Link { pauses, seed, ..Link::short(megabits, rtt_micros) };
            let mut bench = Bench::new(Kind::Model, link);
            let took = bench.deliver(30_000_000, 10 * most);
            assert!(took <= most, "{link:?}: {took:?}");
        }
    }
}

#[test]
fn a_rate_ten_times_too_low_is_found_out_soon_on_a_short_path() {
    let ms = Duration::from_millis;
    for seed in 0..10 {
        let mut bench = Bench::new(Kind::Model, Link { seed, ..Link::short(100, 200) });
        bench.run(ms(500 + 17 * seed));
        bench.link = Link { seed, ..Link::short(1000, 200) };
        bench.run(ms(200)); // a cycle until the next probe, and the climb
        let report = bench.run(ms(100));
        assert!(report.utilisation > 0.9, "seed {seed}: {report:?}");
    }
}

/// T-9.6: nearly all that the wire's own loss leaves, with little waiting.
#[test]
fn the_model_fills_a_lossy_wire_and_not_its_queue() {
    for (loss, least) in [(0.0, 0.97), (0.001, 0.97), (0.01, 0.97), (0.05, 0.97), (0.2, 0.9)] {
        let report = run(Kind::Model, Link::new(200, 20, loss));
        assert!(report.utilisation > least, "loss {loss}: {report:?}");
        assert!(report.mean_queue < Duration::from_millis(5), "loss {loss}: {report:?}");
    }
}

#[test]
fn the_model_needs_no_deep_queue() {
    for queue in [0.1, 0.25] {
        let report = run(Kind::Model, Link { queue, ..Link::new(200, 20, 0.01) });
        assert!(report.utilisation > 0.95 && report.overflow < 0.02, "queue {queue}: {report:?}");
    }
}

#[test]
fn the_model_survives_bursts_jitter_and_lost_acknowledgements() {
    let link = Link::new(100, 20, 0.05);
    let bad = Link { loss: 0.2, ack_loss: 0.2, ..link };
    for link in
        [Link { burst: 5.0, ..link }, Link { jitter: Duration::from_millis(5), ..link }, bad]
    {
        let report = run(Kind::Model, link);
        assert!(report.utilisation > 0.9, "{link:?}: {report:?}");
    }
}

#[test]
fn the_model_follows_a_path_that_changes() {
    let second = Duration::from_secs(1);
    let fast = Link::new(100, 20, 0.01);
    let mut bench = Bench::new(Kind::Model, fast);
    bench.run(second);
    for link in [
        Link::new(10, 20, 0.01),
        fast,
        Link::new(100, 60, 0.01),
        fast,
        Link::new(100, 20, 0.2),
        fast,
    ] {
        bench.link = link;
        bench.run(2 * second);
        let report = bench.run(second);
        assert!(report.utilisation > 0.9, "{link:?}: {report:?}");
    }
    bench.link = Link { loss: 1.0, ..fast };
    bench.run(8 * second);
    bench.link = fast;
    bench.run(3 * second); // a probe timeout comes every two seconds
    let report = bench.run(second);
    assert!(report.utilisation > 0.9, "after the cable was pulled: {report:?}");
}

#[test]
fn the_model_finds_a_path_that_is_two_hundred_times_as_fast_and_lossy() {
    let mut bench = Bench::new(Kind::Model, Link::new(1, 20, 0.0));
    bench.run(Duration::from_secs(2));
    bench.link = Link::new(200, 20, 0.2);
    bench.run(Duration::from_secs(4));
    let report = bench.run(Duration::from_secs(1));
    assert!(report.utilisation > 0.9, "{report:?}");
}

/// A queue too short for startup's flood loses about what the path holds, and not for long.
#[test]
fn startup_does_not_flood_a_short_queue_for_long() {
    for loss in [0.0, 0.05] {
        let link = Link { queue: 0.25, ..Link::new(200, 20, loss) };
        let mut bench = Bench::new(Kind::Model, link);
        bench.run(link.rtt * 25);
        assert!(bench.dropped * PACKET < 3 * link.bdp(), "loss {loss}: {} packets", bench.dropped);
    }
}

#[test]
fn cubic_fills_a_wire_that_loses_nothing() {
    for (megabits, rtt) in [(10, 20), (200, 20), (200, 2)] {
        let report = run(Kind::Cubic, Link::new(megabits, rtt, 0.0));
        assert!(report.utilisation > 0.95, "{megabits} Mbit/s {rtt} ms: {report:?}");
    }
}

#[test]
fn fixed_keeps_its_rate_whatever_is_lost() {
    for loss in [0.0, 0.05, 0.2] {
        let link = Link::new(200, 20, loss);
        let report = run(Kind::Fixed { bytes_per_second: link.rate / 100 * 95 }, link);
        assert!(report.utilisation > 0.94, "loss {loss}: {report:?}");
        assert!(report.mean_queue < Duration::from_millis(2), "loss {loss}: {report:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let link = Link { jitter: Duration::from_millis(3), ..Link::new(20, 20, 0.05) };
    let reports = [(); 2].map(|()| format!("{:?}", run(Kind::Model, link)));
    assert_eq!(reports[0], reports[1]);
}

/// `CONTROLLER=cubic QUEUE=0.25 cargo test -p cabo-proto closed_loop::table -- --ignored --nocapture`.
#[test]
#[ignore = "prints a table, for tuning"]
fn table() {
    let kinds = [("model", Kind::Model), ("cubic", Kind::Cubic)];
    let wanted = std::env::var("CONTROLLER").unwrap_or_else(|_| "model".into());
    let queue = std::env::var("QUEUE").ok().and_then(|text| text.parse().ok()).unwrap_or(1.0);
    let (_, kind) = kinds.into_iter().find(|(name, _)| *name == wanted).expect("a controller");
    println!("{wanted}, queue {queue} bdp; cells: utilisation%  mean queue ms  overflow%  ramp ms");
    for megabits in [10, 200, 1000] {
        for rtt in [2, 20, 100] {
            print!("{megabits:>5} Mbit/s {rtt:>4} ms |");
            for loss in [0.0, 0.001, 0.01, 0.05, 0.2] {
                let link = Link { queue, ..Link::new(megabits, rtt, loss) };
                let report = run(kind, link);
                print!(
                    " {:>5.1} {:>5.1} {:>4.1} {:>4} |",
                    report.utilisation * 100.0,
                    report.mean_queue.as_secs_f64() * 1e3,
                    report.overflow * 100.0,
                    report.ramp.as_millis()
                );
            }
            println!();
        }
    }
}

#[test]
#[ignore = "prints a table, for tuning"]
fn troubles() {
    let base = Link::new(200, 20, 0.01);
    let ms = Duration::from_millis;
    let cases = [
        ("bursts of 5, 5 %", Link { burst: 5.0, loss: 0.05, ..base }),
        ("bursts of 20, 5 %", Link { burst: 20.0, loss: 0.05, ..base }),
        ("acks lost 20 %", Link { ack_loss: 0.2, ..base }),
        ("both ways 20 %", Link { ack_loss: 0.2, loss: 0.2, ..base }),
        ("jitter 1 ms", Link { jitter: ms(1), ..base }),
        ("jitter 5 ms", Link { jitter: ms(5), ..base }),
        ("jitter 15 ms", Link { jitter: ms(15), ..base }),
        ("jitter 5 ms, 20 %", Link { jitter: ms(5), loss: 0.2, ..base }),
        (
            "lan 1 G 0.2 ms",
            Link { rate: 125_000_000, rtt: Duration::from_micros(200), queue: 10.0, ..base },
        ),
        (
            "lan 1 G 0.2 ms 20 %",
            Link {
                rate: 125_000_000,
                rtt: Duration::from_micros(200),
                queue: 10.0,
                loss: 0.2,
                ..base
            },
        ),
        (
            "lan 10 G 0.1 ms",
            Link {
                rate: 1_250_000_000,
                rtt: Duration::from_micros(100),
                queue: 30.0,
                loss: 0.0,
                ..base
            },
        ),
        ("slow 0.5 M 50 ms", Link { rate: 62_500, rtt: ms(50), ..base }),
        ("slow 0.5 M 50 ms 20 %", Link { rate: 62_500, rtt: ms(50), loss: 0.2, ..base }),
        ("30 % loss", Link { loss: 0.3, ..base }),
        ("40 % loss", Link { loss: 0.4, ..base }),
        ("satellite 50 M 600 ms 1 %", Link { rate: 6_250_000, rtt: ms(600), ..base }),
    ];
    for (name, link) in cases {
        println!("{name:>26} {:?}", run(Kind::Model, link));
    }
    println!("rate 200 -> 20 -> 200 -> blackout 8 s -> 200 -> rtt 60 ms -> 20 ms");
    let mut bench = Bench::new(Kind::Model, base);
    println!("{:?}", bench.run(ms(3000)));
    for (rate, loss, rtt, time) in [
        (2_500_000, 0.01, 20, 1000),
        (2_500_000, 0.01, 20, 3000),
        (25_000_000, 0.01, 20, 1000),
        (25_000_000, 0.01, 20, 3000),
        (25_000_000, 1.0, 20, 8000),
        (25_000_000, 0.01, 20, 1000),
        (25_000_000, 0.01, 20, 2000),
        (25_000_000, 0.01, 60, 5000),
        (25_000_000, 0.01, 60, 15000),
        (25_000_000, 0.01, 20, 5000),
        (25_000_000, 0.2, 20, 2000),
        (25_000_000, 0.0, 20, 2000),
    ] {
        bench.link = Link { rate, loss, rtt: ms(rtt), ..base };
        println!("{rate:>10} {loss} {rtt} {:?}", bench.run(ms(time)));
    }
}
