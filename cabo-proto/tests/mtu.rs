//! The largest packet (T-12): found by padded probes, given up when the path no longer takes it.
#![allow(
    clippy::type_complexity,
    clippy::unnecessary_fold,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test stops where it is surprised"
)]

mod support;

use cabo_proto::sim::link::LinkConfig;
use cabo_proto::sim::net::Net;
use support::{
    CLIENT, Flow, SERVER, cable, connected, connection, deliver, ends, ms, net_with, secs,
};

/// Hosts whose carrier takes `own` bytes, on a cable that takes `wire`.
fn fresh(own: usize, wire: usize) -> Net {
    let link = LinkConfig { mtu_bytes: wire, rate_bits_per_second: 1_000_000_000, ..cable(ms(1)) };
    net_with(1, link, |config| config.limits.largest_packet_bytes = own)
}

fn mtu_after(own: usize, wire: usize) -> (usize, u64) {
    let mut net = fresh(own, wire);
    connected(&mut net);
    let mut flows = [Flow::new(CLIENT, 4_000_000)];
    assert!(deliver(&mut net, &mut flows, secs(20)).is_some(), "{own} {wire}");
    net.run(secs(3), |_| false);
    (connection(&mut net, CLIENT).path_state().mtu_bytes, net.links[CLIENT].stats().too_big)
}

#[test]
fn it_rises_to_what_the_path_takes_and_no_further() {
    for (own, wire) in [
        (1496, 1496),
        (8996, 8996),
        (65_535, 65_535),
        (65_535, 8996),
        (8996, 1496),
        (8996, 4000),
        (65_535, 30_000),
    ] {
        let (found, refused) = mtu_after(own, wire);
        assert!(found <= wire && found + 60 > wire, "own {own} wire {wire}: {found}");
        assert!(refused < 40, "own {own} wire {wire}: {refused} refused");
    }
}

#[test]
fn a_path_that_shrinks_under_way_is_noticed_and_nothing_is_lost_for_good() {
    for moment in 0..4 {
        let mut net = fresh(8996, 8996);
        connected(&mut net);
        let mut flows = [Flow::new(CLIENT, 16_000_000), Flow::new(SERVER, 2_000_000)];
        assert!(deliver(&mut net, &mut flows, ms(50 + 13 * moment)).is_none());
        assert!(connection(&mut net, CLIENT).path_state().mtu_bytes > 8000);
        for link in &mut net.links {
            let smaller = LinkConfig { mtu_bytes: 1496, ..link.config().clone() };
            link.set_config(smaller);
        }
        let took = deliver(&mut net, &mut flows, secs(30));
        assert!(
            took.is_some(),
            "moment {moment}: {:?} {:?}",
            ends(&net, CLIENT),
            connection(&mut net, CLIENT).path_state()
        );
        assert_eq!(connection(&mut net, CLIENT).path_state().mtu_bytes, 1496);
    }
}

/// T-12.6: from the first packet on, and under way.
#[test]
fn a_path_below_the_base_carries_everything_all_the_same() {
    for (own, wire) in [(1496, 1300), (8996, 1250), (65_535, 1200)] {
        let (found, _) = mtu_after(own, wire);
        assert!((1200..=wire).contains(&found), "own {own} wire {wire}: {found}");
        let mut net = fresh(own, 1496);
        connected(&mut net);
        let mut flows = [Flow::new(CLIENT, 16_000_000), Flow::new(SERVER, 2_000_000)];
        assert!(deliver(&mut net, &mut flows, ms(30)).is_none());
        for link in &mut net.links {
            let smaller = LinkConfig { mtu_bytes: wire, ..link.config().clone() };
            link.set_config(smaller);
        }
        assert!(deliver(&mut net, &mut flows, secs(30)).is_some(), "own {own} wire {wire}");
    }
}

#[test]
fn datagrams_follow_the_size_of_packets() {
    let mut net = fresh(8996, 8996);
    connected(&mut net);
    assert!(connection(&mut net, CLIENT).largest_datagram() < 1496);
    net.run(secs(3), |_| false);
    let largest = connection(&mut net, CLIENT).largest_datagram();
    assert!(largest > 8900, "{largest}");
}
