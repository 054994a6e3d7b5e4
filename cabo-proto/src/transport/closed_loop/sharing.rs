//! What several flows of `model` make of one bottleneck (T-9.9).

use std::time::Duration;

use super::bench::{Bench, Link};
use crate::transport::congestion::Kind;

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

const SEEDS: u64 = 2;

/// Paths, with the queue in round trips, long and short.
const PATHS: [(u64, Duration, f64); 10] = [
    (1000, Duration::from_micros(200), 25.0),
    (1000, Duration::from_micros(200), 10.0),
    (1000, ms(2), 2.0),
    (200, ms(20), 0.5),
    (100, ms(20), 1.0),
    (100, ms(20), 0.5),
    (100, ms(20), 0.2),
    (40, ms(10), 1.0),
    (40, ms(10), 0.5),
    (40, Duration::from_micros(200), 50.0),
];

/// Mbit/s of two flows over some time.
fn both(bench: &mut Bench, time: Duration) -> [f64; 2] {
    let (start, before) = (bench.now, bench.arrived());
    bench.run(time);
    let (seconds, after) = ((bench.now - start).as_secs_f64(), bench.arrived());
    [0, 1].map(|index| (after[index] - before[index]) as f64 * 8e-6 / seconds)
}

/// 1 if both have the same, 0.5 if one has all.
fn jain([a, b]: [f64; 2]) -> f64 {
    (a + b).powi(2) / (2.0 * (a * a + b * b))
}

/// The later flow's share of the half that is due to it, at first and then Jain's index and the use of the path.
fn share((megabits, rtt, queue): (u64, Duration, f64), seed: u64) -> (f64, f64, f64) {
    let link = Link { rtt, queue, seed, is_late: true, ..Link::new(megabits, 0, 0.0) };
    let mut bench = Bench::new(Kind::Model, link);
    bench.run(ms(1000 + 37 * seed));
    bench.join(Kind::Model);
    bench.run((rtt * 40).max(ms(200)));
    let [_, late] = both(&mut bench, (rtt * 10).max(ms(100)));
    let later = both(&mut bench, ms(3000));
    (late * 2.0 / megabits as f64, jain(later), later.iter().sum::<f64>() / megabits as f64)
}

#[test]
fn a_later_flow_gets_its_part_soon() {
    for path in PATHS {
        for seed in 0..SEEDS {
            let (early, jain, used) = share(path, seed);
            assert!(early > 1.0 / 3.0, "{path:?} seed {seed}: {early} of the half at first");
            assert!(jain > 0.9, "{path:?} seed {seed}: {jain}");
            assert!(used > 0.93, "{path:?} seed {seed}: {used} used");
        }
    }
}

#[test]
#[ignore = "prints a table, for tuning"]
fn shares() {
    for path in PATHS {
        print!("{path:?}:");
        for seed in 0..SEEDS {
            let (early, jain, used) = share(path, seed);
            print!("  {early:.2} {jain:.2} {used:.2}");
        }
        println!();
    }
}
