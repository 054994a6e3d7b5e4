//! The handshake over packets (S-1, S-3): whatever is lost or reordered, both sides come up, or say why not.
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

use cabo_proto::session::config::{Config, Ended};
use cabo_proto::session::core::Event;
use cabo_proto::session::crypto::CryptoError;
use cabo_proto::sim::link::LinkConfig;
use cabo_proto::sim::net::{Net, NetConfig};
use cabo_proto::wire::code::Code;
use cabo_proto::wire::packet::{self, Kind};
use support::{
    CLIENT, Flow, SERVER, cable, connected, connection, ends, exchange, ms, net, net_with, newest,
    plain, secs, stand_in,
};

/// Loses the packets of host `from` whose index has its bit set.
fn lose(net: &mut Net, from: usize, bits: u64) {
    let mut index = 0;
    net.filter = Some(Box::new(move |sender, _| {
        let is_lost = sender == from && index < 64 && bits >> index & 1 == 1;
        index += u32::from(sender == from);
        !is_lost
    }));
}

fn fresh(seed: u64, is_plain: bool) -> Net {
    net_with(seed, cable(ms(10)), |config| {
        config.connection.is_plain = is_plain;
        config.connection.handshake_timeout = secs(60);
    })
}

#[test]
fn any_single_packet_may_be_lost() {
    for is_plain in [false, true] {
        for from in [CLIENT, SERVER] {
            for index in 0..20 {
                let mut net = fresh(index, is_plain);
                lose(&mut net, from, 1 << index);
                connected(&mut net);
                exchange(&mut net, 5_000);
                assert!(
                    net.elapsed() < secs(6),
                    "plain {is_plain}, packet {index} of {from}: {:?}",
                    net.elapsed()
                );
            }
        }
    }
}

#[test]
fn any_of_the_first_eight_packets_of_either_side_may_be_lost() {
    for from in [CLIENT, SERVER] {
        for bits in 0..256 {
            let mut net = fresh(bits, false);
            lose(&mut net, from, bits);
            connected(&mut net);
            exchange(&mut net, 2_000);
            assert!(net.elapsed() < secs(50), "{bits:08b} of {from}: {:?}", net.elapsed());
        }
    }
}

/// T-5.3: the client's data fill its window, and the server acknowledges none before it has the proof.
#[test]
fn a_proof_that_is_lost_again_and_again_is_not_held_up_by_the_data_behind_it() {
    for losses in 1..8 {
        let mut net = fresh(losses, false);
        let mut left = losses;
        net.filter = Some(Box::new(move |from, packet| {
            let is_handshake = packet::parse(packet)
                .is_ok_and(|packet| matches!(packet.kind, Kind::Handshake { .. }));
            let is_lost = left > 0 && from == CLIENT && is_handshake && packet.len() > 200;
            left -= u64::from(is_lost);
            !is_lost
        }));
        net.connect().unwrap();
        let mut flow = Flow::new(CLIENT, 100_000);
        assert!(net.run(secs(20), |net| flow.step(net)), "{losses} lost: {:?}", ends(&net, CLIENT));
    }
}

#[test]
fn it_comes_up_over_a_wire_that_does_everything_wrong() {
    for seed in support::seeds(100) {
        let link = LinkConfig {
            loss: 0.3,
            duplicate: 0.3,
            corrupt: 0.1,
            reorder: 0.3,
            jitter: ms(20),
            ..cable(ms(10))
        };
        let mut net = net_with(seed, link, |config| config.connection.handshake_timeout = secs(60));
        connected(&mut net);
        exchange(&mut net, 20_000);
    }
}

#[test]
fn a_clean_handshake_takes_one_round_trip_and_admission_another() {
    let mut net = fresh(1, false);
    let client = net.connect().unwrap();
    let is_up = |net: &mut Net| net.hosts[CLIENT].connections[&client].is_handshaken();
    assert!(net.run(secs(1), is_up));
    assert!(net.elapsed() < ms(22), "{:?}", net.elapsed());
    assert!(net.run(secs(1), |net| net.hosts[CLIENT].connections[&client].is_admitted()));
    assert!(net.elapsed() < ms(43), "{:?}", net.elapsed());
    assert_eq!(connection(&mut net, CLIENT).peer_key(), Some(stand_in(SERVER).public_key()));
    assert_eq!(connection(&mut net, SERVER).peer_key(), Some(stand_in(CLIENT).public_key()));
}

#[test]
fn plain_names_nobody_and_proves_the_address_all_the_same() {
    let mut net = fresh(1, true);
    connected(&mut net);
    assert_eq!(connection(&mut net, CLIENT).peer_key(), None);
    let mut flows = [Flow::new(SERVER, 2_000_000)];
    let took = support::deliver(&mut net, &mut flows, secs(10)).expect("it ends");
    assert!(took < secs(2), "{took:?}");
    assert_eq!(connection(&mut net, SERVER).stats().key_updates, 0);
}

#[test]
fn plain_and_sealed_do_not_meet_and_the_client_is_told() {
    for is_client_plain in [false, true] {
        let mut config = NetConfig::new(1, cable(ms(10)));
        config.connection.is_plain = is_client_plain;
        let mut net = if is_client_plain {
            Net::new(config, [Arc::new(plain(CLIENT)), Arc::new(stand_in(SERVER))])
        } else {
            net(config)
        };
        let door = support::door(
            &net,
            1,
            Config { is_plain: !is_client_plain, ..Config::default() },
            |_| {},
        );
        net.hosts[SERVER].restart(door);
        net.connect().unwrap();
        assert!(net.run(secs(1), |net| !ends(net, CLIENT).is_empty()));
        let (theirs, ours) = if is_client_plain {
            (packet::SEALED, packet::PLAIN)
        } else {
            (packet::PLAIN, packet::SEALED)
        };
        assert_eq!(ends(&net, CLIENT), [Ended::Version { peer: vec![theirs], ours }]);
        assert_eq!(newest(&net, SERVER), None);
    }
}

#[test]
fn a_server_with_another_identity_is_refused_and_both_sides_say_so() {
    for lost in [0, 0b1, 0b11, 0b111] {
        let config = NetConfig::new(1, cable(ms(10)));
        let expecting = stand_in(CLIENT).expecting(stand_in(5).public_key());
        let mut net = Net::new(config, [Arc::new(expecting), Arc::new(stand_in(SERVER))]);
        lose(&mut net, SERVER, lost);
        net.connect().unwrap();
        assert!(
            net.run(secs(20), |net| !ends(net, CLIENT).is_empty() && !ends(net, SERVER).is_empty()),
            "{lost:b}"
        );
        let [Ended::Crypto(error)] = &ends(&net, CLIENT)[..] else {
            panic!("{:?}", ends(&net, CLIENT))
        };
        assert!(error.is_wrong_peer());
        let [Ended::PeerProtocol { code, .. }] = &ends(&net, SERVER)[..] else {
            panic!("{:?}", ends(&net, SERVER))
        };
        assert_eq!(code.alert(), Some(CryptoError::WRONG_PEER));
    }
}

#[test]
fn a_client_with_another_identity_is_refused_by_a_server_that_expects_one() {
    for lost in 0..16 {
        let config = NetConfig::new(1, cable(ms(10)));
        let expecting = stand_in(SERVER).expecting(stand_in(5).public_key());
        let mut net = Net::new(config, [Arc::new(stand_in(CLIENT)), Arc::new(expecting)]);
        lose(&mut net, SERVER, lost);
        net.connect().unwrap();
        assert!(net.run(secs(70), |net| !ends(net, CLIENT).is_empty()), "{lost:b}");
        assert!(
            matches!(&ends(&net, CLIENT)[..], [Ended::PeerProtocol { .. } | Ended::Idle { .. }]),
            "{lost:b}: {:?}",
            ends(&net, CLIENT)
        );
        assert!(!support::has_event(&net, SERVER, &Event::Handshaken));
        assert!(!support::has_event(&net, CLIENT, &Event::Admitted));
    }
}

#[test]
fn a_server_that_lets_nobody_in_says_what_would() {
    let mut net = fresh(1, false);
    net.hosts[SERVER].is_admitting = false;
    net.connect().unwrap();
    assert!(net.run(secs(5), |net| support::has_event(net, SERVER, &Event::Handshaken)));
    let now = net.now;
    let what = "ask to be let in".to_owned();
    connection(&mut net, SERVER)
        .close(now, Ended::Breach { code: Code::REFUSED, what: what.clone() });
    assert!(net.run(secs(5), |net| !ends(net, CLIENT).is_empty()));
    assert_eq!(ends(&net, CLIENT), [Ended::PeerProtocol { code: Code::REFUSED, reason: what }]);
    assert!(!support::has_event(&net, CLIENT, &Event::Admitted));
}

#[test]
fn nobody_is_let_in_before_somebody_decides_however_long_that_takes() {
    let mut net = fresh(1, false);
    net.hosts[SERVER].is_admitting = false;
    let client = net.connect().unwrap();
    assert!(!net.run(secs(40), |net| net.hosts[CLIENT].connections[&client].is_admitted()));
    assert!(ends(&net, CLIENT).is_empty() && ends(&net, SERVER).is_empty());
    connection(&mut net, SERVER).admit();
    assert!(net.run(ms(50), |net| net.hosts[CLIENT].connections[&client].is_admitted()));
    exchange(&mut net, 10_000);
}

#[test]
fn silence_ends_the_attempt_after_its_time() {
    let mut net = net_with(1, cable(ms(10)), |_| {});
    net.links[CLIENT].set_down(true);
    net.connect().unwrap();
    assert!(net.run(secs(60), |net| !ends(net, CLIENT).is_empty()));
    assert_eq!(ends(&net, CLIENT), [Ended::HandshakeTimeout { after: secs(10) }]);
    assert_eq!(net.elapsed(), secs(10));
    assert!(net.links[CLIENT].stats().offered < 30);
}

#[test]
fn a_client_that_never_speaks_again_costs_its_server_little_and_not_for_ever() {
    let mut net = net_with(1, cable(ms(10)), |_| {});
    let mut is_first = true;
    net.filter = Some(Box::new(move |from, _| from == SERVER || std::mem::take(&mut is_first)));
    net.connect().unwrap();
    net.run(Duration::from_secs(100), |net| {
        net.hosts[SERVER].events.iter().any(|(_, event)| matches!(event, Event::Ended(_)))
    });
    assert_eq!(ends(&net, SERVER), [Ended::HandshakeTimeout { after: secs(10) }]);
    assert!(net.links[SERVER].stats().offered_bytes <= 3 * net.links[CLIENT].stats().offered_bytes);
    assert_eq!(net.hosts[SERVER].endpoint.counts(), (0, 0));
}
