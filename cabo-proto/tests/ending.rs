//! How connections end, and how they do not (S-8, T-14).
#![allow(
    clippy::type_complexity,
    clippy::unnecessary_fold,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test stops where it is surprised"
)]

mod support;

use cabo_proto::session::config::Ended;
use cabo_proto::sim::net::Net;
use cabo_proto::wire::code::Code;
use support::{
    CLIENT, Flow, SERVER, cable, connected, connection, deliver, ends, exchange, ms, net_with, secs,
};

fn fresh(seed: u64) -> Net {
    net_with(seed, cable(ms(10)), |_| {})
}

fn local(code: u64, reason: &str) -> Ended {
    Ended::Local { code, reason: reason.to_owned() }
}

#[test]
fn a_close_is_heard_with_its_reason_and_both_sides_are_gone_soon() {
    for host in [CLIENT, SERVER] {
        let mut net = fresh(1);
        connected(&mut net);
        let now = net.now;
        connection(&mut net, host).close(now, local(7, "done here"));
        assert!(net.run(ms(11), |net| !ends(net, 1 - host).is_empty()));
        assert_eq!(ends(&net, 1 - host), [Ended::Peer { code: 7, reason: "done here".to_owned() }]);
        assert_eq!(ends(&net, host), [local(7, "done here")]);
        assert!(net.run(secs(7), |net| net.hosts.iter().all(|host| host.connections.is_empty())));
        assert_eq!(net.hosts[SERVER].endpoint.counts(), (0, 0));
    }
}

#[test]
fn the_end_is_the_last_event_and_what_came_before_it_is_told() {
    let mut net = fresh(1);
    connected(&mut net);
    let mut flow = Flow::new(CLIENT, 500);
    flow.step(&mut net);
    net.run(ms(0), |_| false);
    let now = net.now;
    connection(&mut net, CLIENT).close(now, local(0, ""));
    net.run(secs(10), |_| false);
    let events = &net.hosts[SERVER].events;
    assert!(
        matches!(events.last(), Some((_, cabo_proto::session::core::Event::Ended(_)))),
        "{events:?}"
    );
    assert!(
        events
            .iter()
            .any(|(_, event)| matches!(event, cabo_proto::session::core::Event::Stream(_))),
        "{events:?}"
    );
}

#[test]
fn a_lost_close_is_said_again_to_whoever_still_talks() {
    let mut net = fresh(1);
    connected(&mut net);
    let mut flow = Flow::new(CLIENT, 1 << 30);
    net.run(ms(300), |net| flow.step(net));
    let mut lost = 0;
    net.filter = Some(Box::new(move |from, _| {
        lost += u32::from(from == SERVER);
        from == CLIENT || lost > 3
    }));
    let now = net.now;
    connection(&mut net, SERVER).close(now, local(1, "enough"));
    assert!(net.run(secs(5), |net| !ends(net, CLIENT).is_empty()));
    assert_eq!(ends(&net, CLIENT), [Ended::Peer { code: 1, reason: "enough".to_owned() }]);
}

#[test]
fn a_close_that_never_arrives_leaves_a_peer_that_finds_out_by_reset_or_silence() {
    let mut net = fresh(1);
    connected(&mut net);
    let now = net.now;
    net.filter = Some(Box::new(|from, _| from == CLIENT));
    connection(&mut net, SERVER).close(now, local(1, "enough"));
    net.run(secs(10), |_| false);
    assert!(net.hosts[SERVER].connections.is_empty());
    net.filter = None;
    let mut flow = Flow::new(CLIENT, 100);
    flow.step(&mut net);
    assert!(net.run(ms(100), |net| !ends(net, CLIENT).is_empty()));
    assert_eq!(ends(&net, CLIENT), [Ended::Reset]);
}

#[test]
fn both_sides_may_close_at_once() {
    let mut net = fresh(1);
    connected(&mut net);
    let now = net.now;
    for host in [CLIENT, SERVER] {
        connection(&mut net, host).close(now, local(host as u64, "bye"));
    }
    assert!(net.run(secs(7), |net| net.hosts.iter().all(|host| host.connections.is_empty())));
    assert_eq!(
        (ends(&net, CLIENT), ends(&net, SERVER)),
        (vec![local(0, "bye")], vec![local(1, "bye")])
    );
    assert!(
        net.links.iter().map(|link| link.stats().offered).sum::<u64>() < 40,
        "they do not argue"
    );
}

#[test]
fn a_client_that_closes_before_its_proof_arrives_is_heard_all_the_same() {
    for lost in 0..8 {
        let mut net = fresh(1);
        net.connect().unwrap();
        assert!(net.run(secs(1), |net| connection(net, CLIENT).is_handshaken()));
        let mut index = 0;
        net.links[CLIENT].set_down(true); // the proof was on its way
        net.links[CLIENT].set_down(false);
        net.filter = Some(Box::new(move |from, _| {
            index += u32::from(from == CLIENT);
            from == SERVER || index > lost
        }));
        let now = net.now;
        connection(&mut net, CLIENT).close(now, local(0, "changed my mind"));
        assert!(net.run(secs(70), |net| !ends(net, SERVER).is_empty()));
        let heard = ends(&net, SERVER);
        let is_told = matches!(
            &heard[..],
            [Ended::Peer { code: 0, .. } | Ended::PeerProtocol { code: Code(0), .. }]
        );
        let is_silence =
            matches!(&heard[..], [Ended::HandshakeTimeout { .. } | Ended::Idle { .. }]);
        assert!(is_told || (lost > 1 && is_silence), "{lost}: {heard:?}");
    }
}

#[test]
fn a_long_reason_is_cut_at_a_character() {
    let mut net = fresh(1);
    connected(&mut net);
    let now = net.now;
    let reason = "\u{20ac}".repeat(2000);
    connection(&mut net, CLIENT).close(now, local(3, &reason));
    assert!(net.run(secs(1), |net| !ends(net, SERVER).is_empty()));
    let [Ended::Peer { code: 3, reason: heard }] = &ends(&net, SERVER)[..] else {
        panic!("{:?}", ends(&net, SERVER))
    };
    assert!(reason.starts_with(heard.as_str()) && heard.len() > 200);
}

#[test]
fn silence_ends_a_connection_after_the_idle_timeout_and_not_before() {
    let mut net = fresh(1);
    connected(&mut net);
    net.run(secs(2), |_| false); // the last acknowledgements
    for host in [CLIENT, SERVER] {
        assert!(ends(&net, host).is_empty());
    }
    let started = net.now;
    assert!(
        net.run(secs(100), |net| !ends(net, CLIENT).is_empty() && !ends(net, SERVER).is_empty())
    );
    assert_eq!(ends(&net, CLIENT), [Ended::Idle { after: secs(60) }]);
    let took = net.now - started;
    assert!(took > secs(57) && took <= secs(61), "{took:?}");
}

#[test]
fn keep_alive_keeps_a_silent_connection_and_costs_few_packets() {
    let mut net = net_with(1, cable(ms(10)), |config| config.connection.keep_alive = true);
    connected(&mut net);
    assert!(!net.run(secs(3600), |net| net.hosts.iter().any(|host| host.connections.is_empty())));
    let offered: u64 = net.links.iter().map(|link| link.stats().offered).sum();
    assert!(offered < 1500, "{offered}");
    exchange(&mut net, 10_000);
}

#[test]
fn keep_alive_does_not_keep_a_dead_peer() {
    let mut net = net_with(1, cable(ms(10)), |config| config.connection.keep_alive = true);
    connected(&mut net);
    net.run(secs(100), |_| false);
    net.links.iter_mut().for_each(|link| link.set_down(true));
    let started = net.now;
    assert!(
        net.run(secs(200), |net| !ends(net, CLIENT).is_empty() && !ends(net, SERVER).is_empty())
    );
    assert!(net.now - started < secs(80), "{:?}", net.now - started);
}

#[test]
fn a_cable_pulled_for_half_a_minute_costs_half_a_minute() {
    for moment in 0..10 {
        let mut net = fresh(moment);
        connected(&mut net);
        let mut flows = [Flow::new(CLIENT, 4_000_000), Flow::new(SERVER, 4_000_000)];
        assert!(deliver(&mut net, &mut flows, ms(29 * moment)).is_none());
        net.links.iter_mut().for_each(|link| link.set_down(true));
        assert!(deliver(&mut net, &mut flows, secs(30)).is_none());
        net.links.iter_mut().for_each(|link| link.set_down(false));
        let took = deliver(&mut net, &mut flows, secs(30));
        assert!(
            took.is_some_and(|took| took < secs(10)),
            "moment {moment}: {took:?} {:?}",
            ends(&net, CLIENT)
        );
    }
}

#[test]
fn a_cable_out_one_way_only_is_survived_too() {
    for side in [CLIENT, SERVER] {
        let mut net = fresh(1);
        connected(&mut net);
        let mut flows = [Flow::new(CLIENT, 5_000_000)];
        assert!(deliver(&mut net, &mut flows, ms(200)).is_none());
        net.links[side].set_down(true);
        assert!(deliver(&mut net, &mut flows, secs(30)).is_none());
        net.links[side].set_down(false);
        assert!(deliver(&mut net, &mut flows, secs(10)).is_some());
    }
}

#[test]
fn an_end_frees_what_the_connection_had_of_the_budget() {
    let mut net = fresh(1);
    for _ in 0..5 {
        connected(&mut net);
        exchange(&mut net, 5_000_000);
        let now = net.now;
        connection(&mut net, CLIENT).close(now, local(0, ""));
        assert!(net.run(secs(10), |net| net.hosts.iter().all(|host| host.connections.is_empty())));
        net.hosts.iter_mut().for_each(|host| host.events.clear());
    }
    assert_eq!(net.hosts[SERVER].endpoint.counts(), (0, 0));
}
