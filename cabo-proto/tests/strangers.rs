//! The door (S-3.4, S-4, S-5): strangers are answered with less than they sent, and cost little.
#![allow(
    clippy::type_complexity,
    clippy::unnecessary_fold,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test stops where it is surprised"
)]

mod support;

use std::cell::RefCell;
use std::rc::Rc;

use cabo_proto::session::config::{Config, Ended};
use cabo_proto::session::core::Event;
use cabo_proto::session::endpoint::{Dropped, Routed};
use cabo_proto::session::remote::Remote;
use cabo_proto::sim::net::Net;
use cabo_proto::wire::packet::{self, ConnectionId, Kind};
use support::{CLIENT, SERVER, cable, connected, ends, exchange, ms, net_with, secs};

fn fresh(seed: u64) -> Net {
    net_with(seed, cable(ms(10)), |_| {})
}

/// The first packets of so many clients, which never say more.
fn first_packets(count: usize) -> Vec<Vec<u8>> {
    first_packets_in(fresh(77), count)
}

fn first_packets_in(mut net: Net, count: usize) -> Vec<Vec<u8>> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let sink = seen.clone();
    net.filter = Some(Box::new(move |_, packet| {
        sink.borrow_mut().push(packet.clone());
        false
    }));
    for _ in 0..count {
        net.connect().unwrap();
        net.run(ms(0), |_| false);
    }
    let packets = seen.borrow();
    let mut firsts: Vec<Vec<u8>> = Vec::new();
    for packet in packets.iter() {
        let is_known = firsts.iter().any(|first| first[4..20] == packet[4..20]);
        if !is_known {
            firsts.push(packet.clone());
        }
    }
    assert_eq!(firsts.len(), count);
    firsts
}

fn source(index: usize) -> Remote {
    Remote::new(&index.to_be_bytes()).unwrap()
}

#[test]
fn a_server_never_sends_more_than_three_times_what_an_unproved_address_sent() {
    for seed in support::seeds(200) {
        let mut link = cable(ms(10));
        link.loss = 0.4;
        let mut net = fresh(seed);
        net.links[CLIENT].set_config(link.clone());
        net.links[SERVER].set_config(link);
        let sent = Rc::new(RefCell::new(([0, 0], false)));
        let count = sent.clone();
        // Counts what both put on the wire, until the client sends to the server's own id: that proves its address (S-3.4).
        let mut first_id = None;
        net.filter = Some(Box::new(move |from, packet| {
            let mut count = count.borrow_mut();
            count.0[from] += packet.len();
            if from == CLIENT {
                let receiver = packet::parse(packet).unwrap().receiver;
                count.1 |= receiver != *first_id.get_or_insert(receiver);
            }
            true
        }));
        net.connect().unwrap();
        net.run(secs(9), |net| {
            let received = net.links[CLIENT].stats().delivered_bytes as usize;
            let ([_, answered], proved) = *sent.borrow();
            assert!(proved || answered <= 3 * received, "{answered} for {received}");
            proved
        });
    }
}

#[test]
fn under_load_a_first_packet_is_answered_by_a_cookie_and_an_honest_client_gets_in() {
    let mut net = fresh(3);
    for (index, mut packet) in first_packets(70).into_iter().enumerate() {
        let (from, now) = (source(index), net.now);
        match net.hosts[SERVER].endpoint.route(now, from, from, &mut packet) {
            Routed::New(handle, connection) if index < 64 => {
                net.hosts[SERVER].connections.insert(handle, *connection);
            }
            Routed::Answer(answer) if index >= 64 => {
                assert!(matches!(packet::parse(&answer).unwrap().kind, Kind::Cookie { .. }));
                assert!(answer.len() < 100);
            }
            _ => panic!("packet {index}"),
        }
    }
    assert_eq!(net.hosts[SERVER].endpoint.counts(), (64, 64));
    connected(&mut net);
    exchange(&mut net, 10_000);
    assert!(
        net.run(secs(30), |net| net.hosts[SERVER].endpoint.counts() == (1, 0)),
        "half-open ones go"
    );
}

#[test]
fn in_plain_too_an_address_that_is_not_proved_is_no_session() {
    let fresh = |seed| net_with(seed, cable(ms(10)), |net| net.connection.is_plain = true);
    let mut net = fresh(3);
    net.hosts[SERVER].is_admitting = true;
    let mut cookies = 0;
    for (index, mut packet) in first_packets_in(fresh(77), 70).into_iter().enumerate() {
        let (from, now) = (source(index), net.now);
        match net.hosts[SERVER].endpoint.route(now, from, from, &mut packet) {
            Routed::New(handle, connection) => {
                net.hosts[SERVER].connections.insert(handle, *connection);
            }
            Routed::Answer(answer) => {
                assert!(matches!(packet::parse(&answer).unwrap().kind, Kind::Cookie { .. }));
                cookies += 1;
            }
            _ => panic!("packet {index}"),
        }
    }
    net.run(ms(500), |_| false);
    assert_eq!((net.hosts[SERVER].endpoint.counts(), cookies), ((64, 64), 6));
    assert!(!support::has_event(&net, SERVER, &Event::Handshaken), "nobody was heard of again");
    connected(&mut net);
    assert!(
        net.run(secs(30), |net| net.hosts[SERVER].endpoint.counts() == (1, 0)),
        "who never proves its address goes"
    );
    let timeouts = ends(&net, SERVER).into_iter();
    assert_eq!(timeouts.filter(|end| matches!(end, Ended::HandshakeTimeout { .. })).count(), 64);
}

#[test]
fn half_open_connections_are_capped_for_each_source_and_in_total() {
    let net = fresh(3);
    let mut door = support::door(&net, 1, Config::default(), |door| {
        (door.cookie_above, door.half_open_per_source, door.half_open_max) = (usize::MAX, 3, 10);
    });
    let mut taken = [0; 20];
    for (index, mut packet) in first_packets(100).into_iter().enumerate() {
        let from = source(index % 20);
        match door.route(net.now, from, from, &mut packet) {
            Routed::New(..) => taken[index % 20] += 1,
            Routed::Dropped(Dropped::Limit) => {}
            _ => panic!("packet {index}"),
        }
    }
    assert_eq!(taken.iter().sum::<usize>(), 10);
    let mut door = support::door(&net, 1, Config::default(), |door| {
        (door.cookie_above, door.half_open_per_source, door.half_open_max) = (usize::MAX, 3, 1000);
    });
    let packets = first_packets(10);
    let routed = packets.into_iter().filter(|packet| {
        matches!(door.route(net.now, source(0), source(0), &mut packet.clone()), Routed::New(..))
    });
    assert_eq!(routed.count(), 3);
    assert_eq!(door.dropped()[&Dropped::Limit], 7);
}

#[test]
fn a_cookie_of_another_address_or_another_time_is_worth_nothing() {
    let mut net = fresh(3);
    let seen = Rc::new(RefCell::new(Vec::new()));
    let sink = seen.clone();
    net.filter = Some(Box::new(move |from, packet| {
        if from == CLIENT {
            sink.borrow_mut().push(packet.clone());
        }
        true
    }));
    let door = support::door(&net, 1, Config::default(), |door| door.cookie_above = 0);
    net.hosts[SERVER].restart(door);
    connected(&mut net);
    let has_cookie = |bytes: &[u8]| match packet::parse(bytes).unwrap().kind {
        Kind::Initial { cookie, .. } => !cookie.is_empty(),
        _ => false,
    };
    let packet = seen.borrow().iter().find(|bytes| has_cookie(bytes)).cloned().unwrap();
    let mut fresh_door =
        support::door(&fresh(3), 1, Config::default(), |door| door.cookie_above = 0);
    let honest = Remote::new(&[0]).unwrap(); // as the net numbers its hosts
    let other = Remote::new(&[7]).unwrap();
    let now = net.now;
    let mut route = |at, from| fresh_door.route(at, from, from, &mut packet.clone());
    assert!(matches!(route(now, other), Routed::Dropped(Dropped::BadCookie)));
    assert!(matches!(route(now + secs(40), honest), Routed::Dropped(Dropped::BadCookie)));
}

#[test]
fn small_first_packets_and_guessed_ids_start_nothing() {
    let mut net = fresh(3);
    let mut packet = first_packets(1).remove(0);
    let from = source(0);
    let now = net.now;
    let door = &mut net.hosts[SERVER].endpoint;
    let mut short = packet[..1100].to_vec();
    packet::set_length(&mut short);
    assert!(matches!(door.route(now, from, from, &mut short), Routed::Dropped(Dropped::TooSmall)));
    packet[300] ^= 1;
    assert!(matches!(door.route(now, from, from, &mut packet), Routed::Dropped(Dropped::Forged)));
    let mut handshake = Vec::new();
    let id = ConnectionId([9; 8]);
    packet::put_handshake(&mut handshake, packet::SEALED, id, id, 0);
    handshake.resize(100, 0);
    packet::set_length(&mut handshake);
    assert!(matches!(
        door.route(now, from, from, &mut handshake),
        Routed::Dropped(Dropped::UnknownId)
    ));
    assert_eq!(door.counts(), (0, 0));
}

#[test]
fn what_is_unknown_is_answered_by_a_smaller_reset_and_not_endlessly() {
    let mut net = fresh(3);
    let (from, now) = (source(0), net.now);
    let door = &mut net.hosts[SERVER].endpoint;
    let mut answered = 0;
    for index in 0..1000_u64 {
        let mut data = Vec::new();
        packet::put_data(&mut data, packet::SEALED, ConnectionId(index.to_be_bytes()), false, 1);
        data.resize(60, 0);
        packet::set_length(&mut data);
        match door.route(now, from, from, &mut data) {
            Routed::Answer(answer) => {
                assert!(answer.len() < 60);
                assert!(matches!(
                    door.route(now, from, from, &mut answer.clone()),
                    Routed::Dropped(Dropped::UnknownId)
                ));
                answered += 1;
            }
            Routed::Dropped(Dropped::ResetRate) => {}
            _ => panic!("packet {index}"),
        }
    }
    assert_eq!(answered, 100);
}

#[test]
fn an_unknown_version_is_answered_in_no_more_bytes() {
    let mut net = fresh(3);
    let (from, now) = (source(0), net.now);
    let mut question = vec![0xCB, 0x78, 0, 40];
    question.extend([1; 8]);
    question.extend([2; 8]);
    question.resize(40, 0xEE);
    let Routed::Answer(answer) = net.hosts[SERVER].endpoint.route(now, from, from, &mut question)
    else {
        panic!("no answer")
    };
    assert!(answer.len() <= question.len());
    let answer = packet::parse(&answer).unwrap();
    assert_eq!(answer.receiver, ConnectionId([2; 8]));
    assert!(matches!(answer.kind, Kind::VersionAnswer { sender: ConnectionId([1, ..]), .. }));
}

#[test]
fn a_restarted_server_is_noticed_within_one_round_trip() {
    for is_sending in [false, true] {
        let mut net = fresh(4);
        connected(&mut net);
        let mut flow = support::Flow::new(CLIENT, 1 << 30);
        net.run(ms(200), |net| is_sending && flow.step(net));
        let door = support::door(&net, 9, Config::default(), |_| {});
        net.hosts[SERVER].restart(door);
        if !is_sending {
            flow.step(&mut net);
        }
        let killed = net.now;
        assert!(net.run(secs(20), |net| !ends(net, CLIENT).is_empty()));
        assert_eq!(ends(&net, CLIENT), [Ended::Reset]);
        let took = net.now - killed;
        assert!(took < ms(if is_sending { 150 } else { 25 }), "sending {is_sending}: {took:?}"); // a queue may stand before it
    }
}

#[test]
fn a_restarted_server_takes_the_next_connection() {
    let mut net = fresh(4);
    connected(&mut net);
    exchange(&mut net, 100_000);
    let door = support::door(&net, 9, Config::default(), |_| {});
    net.hosts[SERVER].restart(door);
    connected(&mut net);
    exchange(&mut net, 100_000);
}
