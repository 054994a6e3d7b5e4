//! Tests of `loss.rs`.

use super::*;
use crate::transport::congestion::rate::Sampler;

const DELAY: Duration = Duration::from_millis(25);

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// An estimate of exactly 80 ms without deviation to speak of.
fn rtt() -> Rtt {
    let mut rtt = Rtt::default();
    for _ in 0..100 {
        rtt.on_sample(ms(80), Duration::ZERO);
    }
    rtt
}

fn send(loss: &mut Loss<u64>, at: Instant) -> u64 {
    let snapshot = Sampler::new(at).on_sent(at, 1200, 0);
    let frames = loss.next_number();
    loss.on_sent(Some(Sent { time: at, bytes: 1200, in_flight: true, snapshot, frames }))
}

fn numbers(packets: &[(u64, Sent<u64>)]) -> Vec<u64> {
    packets
        .iter()
        .inspect(|(number, sent)| assert_eq!(*number, sent.frames))
        .map(|(number, _)| *number)
        .collect()
}

fn ack(
    loss: &mut Loss<u64>,
    now: Instant,
    ranges: &[Range<u64>],
) -> (AckOutcome<u64>, LossOutcome<u64>) {
    let outcome = loss.on_ack(now, ranges.iter().cloned(), &rtt()).expect("all were sent");
    (outcome, loss.detect(now, &rtt(), DELAY))
}

#[test]
fn a_packet_is_acknowledged_once() {
    let start = crate::sim::origin();
    let mut loss = Loss::new();
    for _ in 0..4 {
        send(&mut loss, start);
    }
    let (first, _) = ack(&mut loss, start + ms(80), &[0..2]);
    assert_eq!((numbers(&first.acked), first.rtt_sample), (vec![0, 1], Some(ms(80))));
    let (second, _) = ack(&mut loss, start + ms(90), &[0..3]);
    assert_eq!((numbers(&second.acked), second.rtt_sample), (vec![2], Some(ms(90))));
    let (third, _) = ack(&mut loss, start + ms(99), &[0..3]);
    assert_eq!((numbers(&third.acked), third.rtt_sample), (vec![], None));
    assert_eq!(loss.outstanding(), 1);
}

#[test]
fn only_the_largest_gives_a_sample() {
    let start = crate::sim::origin();
    let mut loss = Loss::new();
    for _ in 0..3 {
        send(&mut loss, start);
    }
    ack(&mut loss, start + ms(80), &[2..3]);
    let (late, _) = ack(&mut loss, start + ms(85), &[1..3]);
    assert_eq!((numbers(&late.acked), late.rtt_sample), (vec![1], None));
}

/// RFC 9002 section 6.1.1: three packets behind the largest.
#[test]
fn three_later_packets_make_it_lost() {
    let start = crate::sim::origin();
    let mut loss = Loss::new();
    for _ in 0..5 {
        send(&mut loss, start);
    }
    let (_, none) = ack(&mut loss, start + ms(80), &[1..3]);
    assert_eq!(numbers(&none.lost), []);
    let (_, one) = ack(&mut loss, start + ms(80), &[1..4]);
    assert_eq!(numbers(&one.lost), [0]);
}

/// RFC 9002 section 6.1.2: nine eighths of the round trip, 90 ms here.
#[test]
fn time_makes_it_lost_where_nothing_follows() {
    let start = crate::sim::origin();
    let mut loss = Loss::new();
    send(&mut loss, start);
    send(&mut loss, start);
    let (_, none) = ack(&mut loss, start + ms(80), &[1..2]);
    assert_eq!(numbers(&none.lost), []);
    assert_eq!(loss.loss_deadline(), Some(start + ms(90)));
    assert_eq!(loss.pto_deadline(&rtt(), DELAY), None, "the loss deadline comes first");
    assert_eq!(numbers(&loss.detect(start + ms(90), &rtt(), DELAY).lost), [0]);
    assert_eq!((loss.loss_deadline(), loss.outstanding()), (None, 0));
}

/// T-4.3: the next packet that is as late is not called lost.
#[test]
fn reordering_widens_the_window_and_quiet_narrows_it_again() {
    let start = crate::sim::origin();
    let mut loss = Loss::new();
    let mut at = start;
    for _ in 0..9 {
        send(&mut loss, at);
    }
    assert_eq!(numbers(&ack(&mut loss, at + ms(80), &[1..9]).1.lost), [0]);
    let (late, _) = ack(&mut loss, at + ms(81), &[0..9]);
    assert_eq!((late.spurious, numbers(&late.acked)), (vec![(0, 1200)], vec![]));
    at += ms(200);
    for _ in 9..18 {
        send(&mut loss, at);
    }
    assert_eq!(
        numbers(&ack(&mut loss, at + ms(80), &[10..18]).1.lost),
        [],
        "eight behind is reordering now"
    );
    ack(&mut loss, at + ms(81), &[9..18]);
    for _ in 0..PERSIST_EPISODES {
        at += ms(200);
        let first = send(&mut loss, at);
        let last = send(&mut loss, at);
        ack(&mut loss, at + ms(80), &[last..last + 1]);
        assert_eq!(numbers(&loss.detect(at + ms(90), &rtt(), DELAY).lost), [first]);
    }
    at += ms(200);
    let first = send(&mut loss, at);
    for _ in 0..3 {
        send(&mut loss, at);
    }
    assert_eq!(numbers(&ack(&mut loss, at + ms(80), &[first + 1..first + 4]).1.lost), [first]);
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_an_error() {
    let now = crate::sim::origin();
    let mut loss = Loss::new();
    send(&mut loss, now);
    let error = loss.on_ack(now, [0..1, 7..9], &rtt()).expect_err("two numbers were not used");
    assert_eq!(error, AckError::NeverSent { number: 8 });
    assert!(loss.on_ack(now, [u64::MAX - 1..u64::MAX], &rtt()).is_err());
}

/// RFC 9002 section 6.2.1: smoothed + max(4 * var, 1 ms) + delay, doubled each time; T-5.2: 2 s at most.
#[test]
fn probes_come_later_each_time_and_no_later_than_two_seconds() {
    let start = crate::sim::origin();
    let mut loss = Loss::new();
    assert_eq!(loss.pto_deadline(&rtt(), DELAY), None);
    send(&mut loss, start);
    let waits: Vec<_> = (0..7)
        .map(|_| {
            let wait = loss.pto_deadline(&rtt(), DELAY).map(|at| at - start);
            loss.on_pto();
            wait.map_or(0, |wait| wait.as_millis())
        })
        .collect();
    assert_eq!(waits, [106, 212, 424, 848, 1696, 2000, 2000]);
    for _ in 0..u64::from(u32::MAX).min(100) {
        loss.on_pto();
    }
    assert_eq!(loss.pto_deadline(&rtt(), DELAY), Some(start + MAX_PTO));
    ack(&mut loss, start + ms(500), &[0..1]);
    assert_eq!(loss.pto_count(), 0);
}

#[test]
fn a_probe_repeats_the_oldest_first() {
    let now = crate::sim::origin();
    let mut loss = Loss::new();
    for _ in 0..3 {
        send(&mut loss, now);
    }
    ack(&mut loss, now + ms(80), &[1..2]);
    assert_eq!(loss.probes().map(|(number, _)| number).collect::<Vec<_>>(), [0, 2]);
}

/// RFC 9002 section 7.6.2 has this shape: silence from the first to the last lost packet, longer than three timeouts.
#[test]
fn a_long_silence_is_persistent_congestion_and_a_heard_packet_breaks_it() {
    for (heard, expected) in [(None, true), (Some(2), false)] {
        let start = crate::sim::origin();
        let mut loss = Loss::new();
        for second in [0, 200, 400, 600, 1200] {
            send(&mut loss, start + ms(second));
        }
        if let Some(number) = heard {
            loss.on_ack(start + ms(480), [number..number + 1], &rtt()).expect("it was sent");
        }
        let (_, outcome) = ack(&mut loss, start + ms(1280), &[4..5]);
        assert_eq!(outcome.is_persistent, expected, "heard {heard:?}");
    }
}

#[test]
fn what_asks_for_no_acknowledgement_takes_a_number_and_no_memory() {
    let now = crate::sim::origin();
    let mut loss: Loss<u64> = Loss::new();
    for number in 0..100_000 {
        assert_eq!(loss.on_sent(None), number);
    }
    assert_eq!((loss.packets.len(), loss.outstanding()), (0, 0));
    assert_eq!(numbers(&ack(&mut loss, now, &[0..100_000]).0.acked), []);
}

/// T-15: a peer that acknowledges all but one in a hundred cannot make us keep the rest.
#[test]
fn memory_is_bounded_whatever_is_acknowledged() {
    let start = crate::sim::origin();
    let mut loss = Loss::new();
    for number in 0..MAX_TRACKED as u64 * 3 {
        let now = start + Duration::from_micros(number);
        assert!(loss.has_room());
        send(&mut loss, now);
        if number % 100 == 99 {
            ack(&mut loss, now, &[number - 98..number + 1]);
        }
    }
    assert!(loss.packets.len() < MAX_TRACKED);
    while loss.has_room() {
        send(&mut loss, start);
    }
    assert!(loss.packets.len() <= MAX_TRACKED);
}

#[test]
fn a_discarded_space_returns_what_was_on_its_way() {
    let now = crate::sim::origin();
    let mut loss = Loss::new();
    for _ in 0..3 {
        send(&mut loss, now);
    }
    ack(&mut loss, now, &[0..1]);
    assert_eq!(numbers(&loss.discard()), [1, 2]);
    assert_eq!(loss.pto_deadline(&rtt(), DELAY), None);
}
