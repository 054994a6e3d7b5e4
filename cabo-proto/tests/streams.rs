//! Streams on a real connection (T-16, T-13): urgent ones overtake, none blocks another, memory is bounded.
#![allow(
    clippy::type_complexity,
    clippy::unnecessary_fold,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test stops where it is surprised"
)]

mod support;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use cabo_proto::session::core::Event;
use cabo_proto::sim::net::Net;
use cabo_proto::transport::streams::{Read, StreamError, StreamEvent};
use cabo_proto::wire::frame::Direction;
use support::{
    CLIENT, Flow, SERVER, cable, connected, connection, deliver, ends, ms, net_with, secs, seeds,
};

fn fresh(seed: u64) -> Net {
    let mut net = net_with(seed, cable(ms(10)), |_| {});
    connected(&mut net);
    net
}

#[test]
fn an_urgent_stream_overtakes_a_bulky_one() {
    let mut net = fresh(1);
    let mut bulk = Flow::new(CLIENT, 10_000_000);
    net.run(ms(500), |net| bulk.step(net));
    let mut urgent = Flow::new(CLIENT, 20_000);
    urgent.priority = 10;
    let asked = net.now;
    assert!(net.run(secs(10), |net| {
        bulk.step(net);
        urgent.step(net)
    }));
    assert!(net.now - asked < ms(60), "{:?}", net.now - asked); // its packets behind what is on the wire already
    assert!(bulk.done_at.is_none());
    assert!(deliver(&mut net, &mut [bulk], secs(20)).is_some());
}

#[test]
fn a_stream_whose_priority_rises_gets_its_turn_at_once() {
    let mut net = fresh(1);
    let mut bulk = Flow::new(CLIENT, 20_000_000);
    let mut slow = Flow::new(CLIENT, 500_000);
    slow.priority = -5;
    net.run(ms(500), |net| {
        bulk.step(net);
        slow.step(net)
    });
    assert!(slow.read < 300_000, "starved by design: {}", slow.read);
    connection(&mut net, CLIENT).streams().set_priority(slow.id.unwrap(), 5);
    let asked = net.now;
    assert!(net.run(secs(10), |net| {
        bulk.step(net);
        slow.step(net)
    }));
    assert!(net.now - asked < ms(150), "{:?}", net.now - asked);
}

#[test]
fn equal_streams_share_alike() {
    let mut net = fresh(1);
    let mut flows: Vec<Flow> = (0..4).map(|_| Flow::new(CLIENT, 3_000_000)).collect();
    assert!(deliver(&mut net, &mut flows, secs(20)).is_some());
    let ends: Vec<_> = flows.iter().filter_map(|flow| flow.done_at).collect();
    let spread = *ends.iter().max().unwrap() - *ends.iter().min().unwrap();
    assert!(spread < ms(300), "{spread:?} of about a second"); // the first to write fills the buffer first
}

#[test]
fn loss_on_one_stream_does_not_hold_up_another() {
    // Every packet is of one stream. Those of the first are lost twice; the second must not notice.
    let mut net = fresh(1);
    let mut first = Flow::new(CLIENT, 1_000);
    first.step(&mut net);
    let mut count = 0;
    net.filter = Some(Box::new(move |from, _| {
        count += u32::from(from == CLIENT);
        from == SERVER || count > 1
    }));
    net.run(ms(0), |_| false); // the packet with the first stream is gone
    let asked = net.now;
    let mut second = Flow::new(CLIENT, 20_000);
    assert!(net.run(secs(5), |net| second.step(net)));
    assert!(net.now - asked < ms(45), "{:?}", net.now - asked);
    assert!(first.read < 1_000);
    assert!(deliver(&mut net, &mut [first], secs(5)).is_some());
}

#[test]
fn a_reader_that_sleeps_stops_its_writer_and_nobody_else() {
    let mut net = fresh(1);
    let mut asleep = Flow::new(CLIENT, 10_000_000);
    asleep.is_paused = true;
    let mut awake = Flow::new(CLIENT, 5_000_000);
    assert!(!net.run(secs(5), |net| {
        awake.step(net);
        asleep.step(net)
    }));
    assert!(awake.done_at.is_some(), "{} of {}", awake.read, awake.total);
    assert!(asleep.written < 2 << 20, "{}", asleep.written);
    let sent = net.links[CLIENT].stats().offered_bytes;
    net.run(secs(20), |net| asleep.step(net));
    assert!(net.links[CLIENT].stats().offered_bytes - sent < 10_000, "it waits in silence");
    asleep.is_paused = false;
    assert!(deliver(&mut net, &mut [asleep], secs(20)).is_some());
}

#[test]
fn streams_that_nobody_reads_hold_no_more_than_the_credit_of_the_connection() {
    let mut net = fresh(1);
    let mut flows: Vec<Flow> = (0..30).map(|_| Flow::new(CLIENT, 500_000)).collect();
    flows.iter_mut().for_each(|flow| flow.is_paused = true);
    net.run(secs(10), |net| flows.iter_mut().fold(true, |all, flow| flow.step(net) && all));
    let received = connection(&mut net, SERVER).stats().bytes_received;
    assert!(received < (2 << 20) * 11 / 10, "{received}");
    assert!(ends(&net, CLIENT).is_empty());
    for flow in &mut flows {
        flow.is_paused = false;
    }
    assert!(deliver(&mut net, &mut flows, secs(60)).is_some());
}

#[test]
fn credit_comes_back_from_streams_that_were_stopped_or_reset() {
    for seed in seeds(20) {
        let mut link = cable(ms(5));
        link.loss = [0.0, 0.05][seed as usize % 2];
        let mut net = net_with(seed, link, |_| {});
        connected(&mut net);
        for round in 0..40 {
            let mut flow = Flow::new(CLIENT, 400_000);
            flow.is_paused = true;
            net.run(ms(30 + round), |net| flow.step(net));
            let (id, now) = (flow.id.unwrap(), net.now);
            match (seed + round) % 3 {
                0 => connection(&mut net, CLIENT).streams().reset(id, 7),
                1 => connection(&mut net, SERVER).streams().stop(now, id, 7),
                _ => {
                    connection(&mut net, CLIENT).streams().reset(id, 7);
                    connection(&mut net, SERVER).streams().stop(now, id, 7);
                }
            }
            net.run(ms(400), |_| false);
            let now = net.now;
            connection(&mut net, SERVER).streams().stop(now, id, 8);
        }
        let mut flows = [Flow::new(CLIENT, 8_000_000)];
        assert!(
            deliver(&mut net, &mut flows, secs(30)).is_some(),
            "seed {seed}: {:?} {:?}",
            ends(&net, CLIENT),
            flows[0].read
        );
        assert!(!connection(&mut net, SERVER).streams().any_open());
    }
}

#[test]
fn more_streams_than_are_allowed_at_once_take_turns() {
    let mut net = net_with(1, cable(ms(5)), |config| config.connection.limits.streams_one = 4);
    connected(&mut net);
    let mut flows: Vec<Flow> = (0..50).map(|index| Flow::new(CLIENT, 1000 * index + 1)).collect();
    assert!(deliver(&mut net, &mut flows, secs(60)).is_some());
    assert!(
        net.hosts[CLIENT]
            .events
            .iter()
            .any(|(_, event)| *event == Event::Stream(StreamEvent::Available(Direction::One)))
    );
}

#[test]
fn a_writer_hears_that_nobody_wants_more() {
    let mut net = fresh(1);
    let mut flow = Flow::new(CLIENT, 50_000_000);
    flow.is_paused = true;
    net.run(ms(300), |net| flow.step(net));
    let (id, now) = (flow.id.unwrap(), net.now);
    connection(&mut net, SERVER).streams().stop(now, id, 42);
    net.run(ms(200), |_| false);
    let stopped = Event::Stream(StreamEvent::Stopped(id, 42));
    assert!(support::has_event(&net, CLIENT, &stopped));
    let room = connection(&mut net, CLIENT).streams().write_room(id);
    assert!(matches!(room, Err(StreamError::Stopped(42) | StreamError::Closed)), "{room:?}");
}

/// Datagrams of 100 bytes, one a millisecond, each worth something for 20 ms; how many came.
fn datagrams(net: &mut Net, count: u32) -> usize {
    let mut sent = 0;
    let mut next = net.now;
    let end = net.now + Duration::from_millis(u64::from(count)) + secs(1);
    while net.now < end {
        net.run(ms(1), |_| false);
        if net.now >= next && sent < count {
            let deadline = Some(net.now + ms(20));
            connection(net, CLIENT).send_datagram(Bytes::from(vec![7; 100]), deadline);
            sent += 1;
            next += ms(1);
        }
    }
    net.hosts[SERVER]
        .events
        .iter()
        .filter(|(_, event)| matches!(event, Event::Datagram(data) if data.len() == 100))
        .count()
}

#[test]
fn datagrams_arrive_while_there_is_room() {
    let mut net = fresh(1);
    assert_eq!(datagrams(&mut net, 500), 500);
}

#[test]
fn datagrams_that_are_too_late_are_dropped_and_counted_by_the_sender() {
    let mut net = fresh(1);
    let mut slow = cable(ms(10));
    slow.rate_bits_per_second = 400_000; // half of what is asked of it
    net.links[CLIENT].set_config(slow);
    let came = datagrams(&mut net, 3000);
    let stats = connection(&mut net, CLIENT).stats();
    assert!(stats.datagrams_late > 500, "{stats:?}");
    assert!((500..2500).contains(&came), "{came}");
    assert!(stats.packets_lost < 600, "{stats:?}");
}

#[test]
fn a_lost_datagram_is_not_sent_again_and_too_large_ones_never_leave() {
    let mut net = fresh(1);
    let mut lossy = cable(ms(10));
    lossy.loss = 0.2;
    net.links[CLIENT].set_config(lossy);
    let came = datagrams(&mut net, 1000);
    assert!((700..900).contains(&came), "{came}");
    let largest = connection(&mut net, CLIENT).largest_datagram();
    connection(&mut net, CLIENT).send_datagram(vec![1; largest + 1].into(), None);
    connection(&mut net, CLIENT).send_datagram(vec![2; largest].into(), None);
    net.run(secs(1), |_| false);
    assert_eq!(connection(&mut net, CLIENT).stats().datagrams_dropped, 1);
}

/// T-5.1: 200 bytes every 5 ms, of which a cut of 300 ms loses all. The first that arrives afterwards shows the loss; with
/// a probe timer that ran from the oldest packet it took 110 ms on the short cable.
#[test]
fn small_messages_go_on_soon_after_a_short_cut() {
    for delay in [Duration::from_micros(100), ms(10)] {
        for offset in 0..5 {
            let late = catch_up(delay, ms(7 * offset));
            assert!(late <= ms(100), "{delay:?} {offset}: {late:?}");
        }
    }
}

fn catch_up(delay: Duration, offset: Duration) -> Duration {
    let mut net = net_with(7, cable(delay), |_| {});
    let [client, server] = connected(&mut net);
    let is_cut = Rc::new(Cell::new(false));
    let cut = Rc::clone(&is_cut);
    net.filter = Some(Box::new(move |_, _| !cut.get()));
    let (mut id, mut written, mut read) = (None, 0, 0);
    let mut buffer = [0; 4096];
    let mut talk = |net: &mut Net| {
        let streams = net.hosts[CLIENT].connections.get_mut(&client).expect("open").streams();
        let stream =
            *id.get_or_insert_with(|| streams.open(Direction::One).expect("there is room"));
        streams.write(stream, vec![0; 200].into());
        written += 200;
        net.run(ms(5), |net| {
            let now = net.now;
            let receiver = net.hosts[SERVER].connections.get_mut(&server).expect("open");
            while let Ok(Read::Bytes(len)) = receiver.streams().read(now, stream, &mut buffer) {
                read += len;
            }
            false
        });
        written - read
    };
    for _ in 0..100 {
        talk(&mut net);
    }
    net.run(offset, |_| false);
    is_cut.set(true);
    for _ in 0..60 {
        talk(&mut net);
    }
    is_cut.set(false);
    let end = net.now;
    while talk(&mut net) > 200 * 10 {} // what is under way anyway
    net.now - end
}
