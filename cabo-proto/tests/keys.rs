//! Key update (S-6): both sides change keys every few packets, whatever the wire does.
#![allow(
    clippy::type_complexity,
    clippy::unnecessary_fold,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test stops where it is surprised"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use cabo_proto::session::config::Ended;
use cabo_proto::sim::link::LinkConfig;
use cabo_proto::sim::net::{Net, NetConfig};
use support::{
    CLIENT, Flow, SERVER, cable, connected, connection, deliver, ends, ms, secs, seeds, stand_in,
};

fn net(seed: u64, link: LinkConfig, after: u64, failures: u64) -> Net {
    let mut config = NetConfig::new(seed, link);
    config.connection.key_update_after = after;
    let limited = |host| stand_in(host).with_limits(1 << 23, failures);
    Net::new(config, [Arc::new(limited(CLIENT)), Arc::new(limited(SERVER))])
}

fn both_ways(net: &mut Net, bytes: u64, limit: Duration) -> [u64; 2] {
    connected(net);
    let mut flows = [Flow::new(CLIENT, bytes), Flow::new(SERVER, bytes)];
    let took = deliver(net, &mut flows, limit);
    let read = flows.map(|flow| flow.read);
    assert!(took.is_some(), "{read:?} {:?} {:?}", ends(net, CLIENT), ends(net, SERVER));
    [CLIENT, SERVER].map(|host| connection(net, host).stats().key_updates)
}

#[test]
fn keys_change_often_and_no_byte_is_lost() {
    for after in [1, 2, 3, 10, 100] {
        let mut net = net(after, cable(ms(5)), after, 1 << 36);
        let updates = both_ways(&mut net, 2_000_000, secs(30));
        assert!(updates.iter().all(|count| *count >= 3), "{after}: {updates:?}");
        assert_eq!(connection(&mut net, CLIENT).stats().packets_forged, 0, "{after}");
    }
}

#[test]
fn loss_and_reordering_do_not_confuse_the_phases() {
    for seed in seeds(60) {
        let link = LinkConfig {
            loss: [0.0, 0.02, 0.2][seed as usize % 3],
            reorder: 0.1,
            reorder_delay: Some(ms(3 + seed % 40)),
            duplicate: 0.05,
            jitter: ms(seed % 7),
            ..cable(ms(1 + seed % 20))
        };
        let mut net = net(seed, link, 1 + seed % 30, 1 << 36);
        let updates = both_ways(&mut net, 300_000, secs(60));
        assert!(updates.iter().any(|count| *count >= 1), "seed {seed}: {updates:?}");
    }
}

#[test]
fn a_key_that_may_seal_no_more_ends_the_connection_rather_than_be_used() {
    let mut config = NetConfig::new(1, cable(ms(5)));
    config.connection.key_update_after = 1 << 20;
    let limited = |host| stand_in(host).with_limits(64, 1 << 36);
    let mut net = Net::new(config, [Arc::new(limited(CLIENT)), Arc::new(limited(SERVER))]);
    connected(&mut net);
    let mut flows = [Flow::new(CLIENT, 10_000_000)];
    net.run(secs(30), |net| flows[0].step(net) || !ends(net, CLIENT).is_empty());
    assert!(matches!(&ends(&net, CLIENT)[..], [Ended::Breach { .. }]), "{:?}", ends(&net, CLIENT));
}

#[test]
fn too_many_packets_that_do_not_open_end_the_connection() {
    let mut net = net(1, cable(ms(5)), 1 << 20, 50);
    connected(&mut net);
    let mut count = 0;
    net.filter = Some(Box::new(move |from, packet| {
        count += 1;
        if from == CLIENT
            && count % 2 == 0
            && let Some(last) = packet.last_mut()
        {
            *last ^= 1;
        }
        true
    }));
    let mut flows = [Flow::new(CLIENT, 10_000_000)];
    net.run(secs(30), |net| flows[0].step(net) || !ends(net, SERVER).is_empty());
    assert!(matches!(&ends(&net, SERVER)[..], [Ended::Breach { .. }]), "{:?}", ends(&net, SERVER));
}
