//! One direction of a bad cable: what it does with each frame, by seed.

use super::*;

const MS: Duration = Duration::from_millis(1);

/// A numbered packet of `len` bytes.
fn packet(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len.max(8)];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn number(packet: &[u8]) -> u64 {
    u64::from_be_bytes(packet[..8].try_into().unwrap())
}

fn at(verdict: Verdict) -> Option<Instant> {
    match verdict {
        Verdict::Delivered { at, .. } => Some(at),
        Verdict::Lost | Verdict::QueueFull | Verdict::TooBig | Verdict::Down => None,
    }
}

fn drain(link: &mut Link, now: Instant) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| link.poll(now)).collect()
}

/// Sends `count` packets of 100 bytes, one each `gap`, and returns the verdicts and the arrivals in order.
fn run(link: &mut Link, start: Instant, count: u64, gap: Duration) -> (Vec<Verdict>, Vec<Vec<u8>>) {
    let (mut verdicts, mut arrived, mut now) = (Vec::new(), Vec::new(), start);
    for i in 0..count {
        arrived.extend(drain(link, now));
        verdicts.push(link.send(now, packet(i, 100)));
        now += gap;
    }
    arrived.extend(drain(link, now + DELAY_MAX));
    (verdicts, arrived)
}

fn bad() -> LinkConfig {
    LinkConfig {
        loss: 0.1,
        burst: 3.0,
        duplicate: 0.05,
        corrupt: 0.05,
        reorder: 0.05,
        delay: 10 * MS,
        jitter: 5 * MS,
        rate_bits_per_second: 10_000_000,
        ..LinkConfig::default()
    }
}

#[test]
fn a_default_link_is_a_perfect_cable() {
    let now = crate::sim::origin();
    let mut link = Link::new(LinkConfig::default(), 1);
    assert_eq!(link.next_deadline(), None);
    for i in 0..1000 {
        let verdict = link.send(now, packet(i, 70_000));
        assert_eq!(
            verdict,
            Verdict::Delivered { at: now, duplicated: false, corrupted: false, reordered: false }
        );
        assert_eq!(link.next_deadline(), Some(now));
        assert_eq!(link.poll(now), Some(packet(i, 70_000)));
    }
    assert_eq!(link.poll(now), None);
}

#[test]
fn the_same_seed_and_calls_give_the_same_bytes_at_the_same_times() {
    let now = crate::sim::origin();
    let run_of = |seed| run(&mut Link::new(bad(), seed), now, 5000, MS / 10);
    assert_eq!(run_of(7), run_of(7));
    assert_ne!(run_of(7), run_of(8));
}

#[test]
fn shares_come_out_as_asked_over_seeds() {
    let now = crate::sim::origin();
    let config = LinkConfig { rate_bits_per_second: 0, ..bad() };
    let mut total = LinkStats::default();
    for seed in 0..20 {
        let mut link = Link::new(config.clone(), seed);
        let (_, arrived) = run(&mut link, now, 10_000, MS);
        let stats = link.stats();
        assert_eq!(stats.accepted + stats.lost, 10_000, "seed {seed}");
        assert_eq!(arrived.len() as u64, stats.accepted + stats.duplicated, "seed {seed}");
        assert_eq!(stats.delivered, stats.accepted + stats.duplicated, "seed {seed}");
        total.offered += stats.offered;
        total.accepted += stats.accepted;
        total.lost += stats.lost;
        total.duplicated += stats.duplicated;
        total.corrupted += stats.corrupted;
        total.reordered += stats.reordered;
    }
    let near = |part: u64, whole: u64, share: f64| {
        (part as f64 / whole as f64 - share).abs() < 0.05 * share
    };
    assert!(near(total.lost, total.offered, 0.1), "{total:?}");
    assert!(near(total.duplicated, total.accepted, 0.05), "{total:?}");
    assert!(near(total.corrupted, total.accepted, 0.05), "{total:?}");
    assert!(near(total.reordered, total.accepted, 0.05), "{total:?}");
}

#[test]
fn bursts_have_the_mean_length_asked_for_and_never_less_than_chance() {
    for (loss, burst, mean) in
        [(0.01, 1.0, 1.0101), (0.05, 4.0, 4.0), (0.2, 10.0, 10.0), (0.5, 0.0, 2.0)]
    {
        let mut link = Link::new(LinkConfig { loss, burst, ..LinkConfig::default() }, 3);
        let (verdicts, _) = run(&mut link, crate::sim::origin(), 400_000, MS);
        let (mut runs, mut lost, mut was_lost) = (0u64, 0u64, false);
        for verdict in verdicts {
            let is_lost = verdict == Verdict::Lost;
            runs += u64::from(is_lost && !was_lost);
            lost += u64::from(is_lost);
            was_lost = is_lost;
        }
        let (seen_loss, seen_mean) = (lost as f64 / 400_000.0, lost as f64 / runs as f64);
        assert!((seen_loss / loss - 1.0).abs() < 0.1, "loss {loss} burst {burst}: {seen_loss}");
        assert!((seen_mean / mean - 1.0).abs() < 0.06, "loss {loss} burst {burst}: {seen_mean}");
    }
}

#[test]
fn a_share_of_one_hits_every_packet_and_of_zero_none() {
    let now = crate::sim::origin();
    let all = LinkConfig { loss: 1.0, burst: 50.0, ..LinkConfig::default() };
    assert_eq!(run(&mut Link::new(all, 1), now, 1000, MS).1.len(), 0);
    let twice = LinkConfig { duplicate: 1.0, corrupt: 1.0, ..LinkConfig::default() };
    let (_, arrived) = run(&mut Link::new(twice, 1), now, 1000, MS);
    assert_eq!(arrived.len(), 2000);
    for (i, got) in arrived.iter().enumerate() {
        let sent = packet(i as u64 / 2, 100);
        let flipped: u32 = got.iter().zip(&sent).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!(flipped, 1, "packet {i}");
    }
}

#[test]
fn the_rate_is_exact_to_the_nanosecond_over_many_packets() {
    let now = crate::sim::origin();
    for rate in [1_000, 9_999_991, 200_000_000, 40_000_000_007] {
        let config = LinkConfig {
            rate_bits_per_second: rate,
            queue_bytes: Some(u64::MAX),
            per_packet_overhead_bytes: 24,
            ..LinkConfig::default()
        };
        let mut link = Link::new(config, 1);
        let mut last = None;
        for i in 0..10_000 {
            last = at(link.send(now, packet(i, 976)));
        }
        let bits = 10_000u128 * (976 + 24) * 8;
        let want = u64::try_from(bits * 1_000_000_000 / u128::from(rate)).unwrap();
        assert_eq!(last, Some(now + Duration::from_nanos(want)), "rate {rate}");
    }
}

#[test]
fn a_full_queue_drops_the_tail_and_an_empty_one_takes_any_packet() {
    let now = crate::sim::origin();
    let config = LinkConfig {
        rate_bits_per_second: 8_000_000,
        queue_bytes: Some(10_000),
        ..LinkConfig::default()
    };
    let mut link = Link::new(config, 1);
    assert!(at(link.send(now, packet(0, 50_000))).is_some(), "empty: taken whole");
    assert_eq!(link.send(now, packet(1, 1000)), Verdict::QueueFull);
    let later = now + 45 * MS; // 5,000 bytes still wait
    assert_eq!(link.backlog_bytes(later), 5000);
    for i in 0..5 {
        assert!(at(link.send(later, packet(i, 1000))).is_some());
    }
    assert_eq!(link.send(later, packet(9, 1000)), Verdict::QueueFull);
    assert_eq!(link.stats().queue_full, 2);
}

#[test]
fn the_default_queue_is_a_round_trip_of_the_rate() {
    let config =
        LinkConfig { rate_bits_per_second: 200_000_000, delay: 10 * MS, ..LinkConfig::default() };
    assert_eq!(config.default_queue_bytes(), 500_000);
    assert_eq!(LinkConfig::default().default_queue_bytes(), 65_536);
}

#[test]
fn jitter_keeps_the_order_and_only_adds() {
    let now = crate::sim::origin();
    let config = LinkConfig { delay: 10 * MS, jitter: 30 * MS, ..LinkConfig::default() };
    for seed in 0..10 {
        let mut link = Link::new(config.clone(), seed);
        let (verdicts, arrived) = run(&mut link, now, 2000, MS);
        for (i, verdict) in verdicts.into_iter().enumerate() {
            let took = at(verdict).unwrap() - (now + MS * i as u32);
            assert!(took >= 10 * MS && took <= 40 * MS, "seed {seed} packet {i}: {took:?}");
        }
        assert!(arrived.iter().map(|p| number(p)).eq(0..2000), "seed {seed}");
    }
}

#[test]
fn only_packets_marked_reordered_are_overtaken() {
    let now = crate::sim::origin();
    let config = LinkConfig { delay: 8 * MS, reorder: 0.1, ..LinkConfig::default() };
    let mut link = Link::new(config, 5);
    let (verdicts, arrived) = run(&mut link, now, 2000, MS / 4);
    let late = |n: u64| matches!(verdicts[n as usize], Verdict::Delivered { reordered: true, .. });
    let (mut newest, mut overtaken) = (0, 0);
    for n in arrived.iter().map(|p| number(p)) {
        if n < newest {
            assert!(late(n), "packet {n}");
            overtaken += 1;
        }
        newest = newest.max(n);
    }
    assert!(overtaken > 150, "{overtaken}");
}

#[test]
fn one_fault_does_not_change_what_another_does() {
    let now = crate::sim::origin();
    let losses = |config| {
        let (verdicts, _) = run(&mut Link::new(config, 11), now, 3000, MS);
        verdicts.into_iter().map(|verdict| verdict == Verdict::Lost).collect::<Vec<_>>()
    };
    let plain = LinkConfig { loss: 0.2, burst: 2.0, ..LinkConfig::default() };
    let more = LinkConfig {
        duplicate: 0.5,
        corrupt: 0.5,
        reorder: 0.5,
        jitter: MS,
        delay: MS,
        ..plain.clone()
    };
    assert_eq!(losses(plain), losses(more));
}

#[test]
fn a_pulled_cable_loses_what_is_on_its_way_and_works_again_after() {
    let now = crate::sim::origin();
    let config =
        LinkConfig { delay: 10 * MS, rate_bits_per_second: 1_000_000, ..LinkConfig::default() };
    let mut link = Link::new(config, 1);
    for i in 0..5 {
        assert!(at(link.send(now, packet(i, 100))).is_some());
    }
    link.set_down(true);
    assert_eq!(link.send(now, packet(5, 100)), Verdict::Down);
    assert_eq!((link.next_deadline(), link.held(), link.stats().cut), (None, 0, 5));
    link.set_down(false);
    let verdict = link.send(now, packet(6, 125));
    assert_eq!(at(verdict), Some(now + 11 * MS), "no trace of the old queue");
}

#[test]
fn what_is_too_big_or_beyond_all_memory_is_refused() {
    let now = crate::sim::origin();
    let mut link =
        Link::new(LinkConfig { mtu_bytes: 1500, delay: DELAY_MAX, ..LinkConfig::default() }, 1);
    assert_eq!(link.send(now, vec![0; 1501]), Verdict::TooBig);
    let mut count = 0usize;
    while at(link.send(now, Vec::new())).is_some() {
        count += 1;
    }
    assert!(count <= HELD_MAX_BYTES / HELD_PACKET_COST_BYTES);
    assert_eq!(link.stats().queue_full, 1);
}

#[test]
fn values_that_mean_nothing_are_named_and_do_no_harm() {
    let mad = LinkConfig {
        loss: f64::NAN,
        burst: f64::INFINITY,
        duplicate: -3.0,
        corrupt: 1e300,
        delay: Duration::MAX,
        jitter: Duration::MAX,
        reorder_delay: Some(Duration::MAX),
        rate_bits_per_second: 1,
        queue_bytes: Some(u64::MAX),
        per_packet_overhead_bytes: usize::MAX,
        ..LinkConfig::default()
    };
    let text = mad.check().unwrap_err().to_string();
    assert!(text.starts_with("loss is NaN"), "{text}");
    assert_eq!(
        LinkConfig { burst: -1.0, ..LinkConfig::default() }.check(),
        Err(LinkConfigError::Burst(-1.0))
    );
    let slow = LinkConfig { jitter: Duration::MAX, ..LinkConfig::default() };
    assert!(matches!(slow.check(), Err(LinkConfigError::Delay { name: "jitter", .. })));
    assert_eq!(bad().check(), Ok(()));

    let mut link = Link::new(mad, 1);
    for i in 0..100 {
        let _ = link.send(crate::sim::origin(), packet(i, 100));
    }
    assert_eq!(link.stats().corrupted, 100);
}
