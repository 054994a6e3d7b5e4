//! A peer whose address changes is followed, and nobody else can make it look so (S-10, T-17).
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
use cabo_proto::session::packets::Stats;
use cabo_proto::session::remote::Remote;
use cabo_proto::sim::link::LinkConfig;
use cabo_proto::sim::net::Net;
use support::{
    CLIENT, Flow, SERVER, cable, connected, connection, deliver, door, ends, exchange, ms,
    net_with, secs, seeds,
};

/// A port of a host that is neither of the two at the start.
fn at(host: u8, port: u16) -> Remote {
    Remote::with_port(&[192, 0, 2, host], port).unwrap()
}

/// Hosts at addresses with ports, connected.
fn fresh(seed: u64, link: LinkConfig) -> Net {
    let mut net = net_with(seed, link, |_| {});
    for host in [CLIENT, SERVER] {
        net.hosts[host].set_addresses(&[at(host as u8, 5555)]);
    }
    connected(&mut net);
    net
}

fn stats(net: &mut Net, host: usize) -> Stats {
    connection(net, host).stats()
}

/// Runs a transfer of `bytes` from `from`, and `change` after `before` of it.
fn change_within(
    net: &mut Net,
    flow: &mut Flow,
    before: std::time::Duration,
    change: impl FnOnce(&mut Net),
) {
    assert!(deliver(net, std::slice::from_mut(flow), before).is_none(), "it is under way");
    change(net);
}

/// Runs the flow to its end, and says how long it took.
fn finish(net: &mut Net, flow: &mut Flow) -> std::time::Duration {
    let took = deliver(net, std::slice::from_mut(flow), secs(60));
    took.unwrap_or_else(|| panic!("stuck at {}: {:?} {:?}", flow.read, ends(net, 0), ends(net, 1)))
}

/// Keeps a copy of each packet that `host` sends, until it is taken; loses the packets where `is_stolen`.
fn tap(net: &mut Net, host: usize, is_stolen: bool) -> Rc<RefCell<Vec<Vec<u8>>>> {
    let copies = Rc::<RefCell<Vec<Vec<u8>>>>::default();
    let kept = copies.clone();
    net.filter = Some(Box::new(move |from, packet| {
        if from == host {
            kept.borrow_mut().push(packet.clone());
        }
        from != host || !is_stolen
    }));
    copies
}

#[test]
fn a_transfer_survives_a_new_port_of_either_side() {
    for seed in seeds(6) {
        for (from, moved) in
            [(CLIENT, CLIENT), (CLIENT, SERVER), (SERVER, CLIENT), (SERVER, SERVER)]
        {
            let mut net = fresh(seed, cable(ms(10)));
            let mut flow = Flow::new(from, 6_000_000);
            change_within(&mut net, &mut flow, ms(100 + 7 * seed), |net| {
                net.hosts[moved].set_addresses(&[at(moved as u8, 6000)]);
            });
            let took = finish(&mut net, &mut flow);
            assert!(took < ms(1500), "seed {seed}, {moved} moved under a flow of {from}: {took:?}");
            let stats = stats(&mut net, 1 - moved);
            assert_eq!((stats.moves, stats.moves_failed), (1, 0), "seed {seed}");
            assert_eq!(connection(&mut net, 1 - moved).remote(), at(moved as u8, 6000));
        }
    }
}

/// T-17.3: what was learnt of the way to a host holds for another port of it.
#[test]
fn another_port_keeps_the_window_and_another_host_does_not() {
    for (to, is_kept) in [(at(0, 6000), true), (at(9, 6000), false)] {
        let mut net = fresh(3, cable(ms(40)));
        let mut flow = Flow::new(SERVER, 20_000_000);
        change_within(&mut net, &mut flow, ms(900), |net| {
            net.hosts[CLIENT].set_addresses(&[to]);
        });
        let before = connection(&mut net, SERVER).path_state();
        let mut seen = None;
        net.run(secs(2), |net| {
            flow.step(net);
            if connection(net, SERVER).remote() == to {
                seen.get_or_insert_with(|| connection(net, SERVER).path_state());
            }
            seen.is_some()
        });
        let after = seen.unwrap();
        assert_eq!(after.window_bytes >= before.window_bytes / 2, is_kept, "{before:?} {after:?}");
        finish(&mut net, &mut flow);
    }
}

/// T-17.2: round trip and packet size are those of the new way, at once and without a black hole.
#[test]
fn another_host_is_another_path() {
    for seed in seeds(6) {
        let jumbo = LinkConfig { mtu_bytes: 8996, ..cable(ms(60)) };
        let mut net = net_with(seed, jumbo, |config| config.limits.largest_packet_bytes = 8996);
        connected(&mut net);
        let mut flow = Flow::new(SERVER, 12_000_000);
        change_within(&mut net, &mut flow, ms(1500 + 13 * seed), |net| {
            assert_eq!(connection(net, SERVER).path_state().mtu_bytes, 8996);
            net.hosts[CLIENT].set_addresses(&[at(7, 5555)]);
            for link in &mut net.links {
                link.set_config(LinkConfig { mtu_bytes: 1496, ..cable(ms(5)) });
            }
        });
        let took = finish(&mut net, &mut flow);
        assert!(took < secs(3), "seed {seed}: {took:?}");
        let path = connection(&mut net, SERVER).path_state();
        assert!(path.rtt_min < ms(20) && path.mtu_bytes == 1496, "seed {seed}: {path:?}");
        assert_eq!(stats(&mut net, SERVER).moves, 1);
    }
}

/// S-10.6: a packet that somebody was faster with, under another address, does not move the session.
#[test]
fn a_spoofed_source_gets_a_few_bytes_and_not_the_session() {
    let victim = at(66, 53);
    for seed in seeds(6) {
        let mut net = fresh(seed, cable(ms(10)));
        let mut flow = Flow::new(CLIENT, 8_000_000);
        change_within(&mut net, &mut flow, ms(150 + seed), |_| {});
        let mut raced = 0;
        for _ in 0..10 {
            let copies = tap(&mut net, CLIENT, true);
            net.run(ms(20), |net| flow.step(net) || !copies.borrow().is_empty());
            net.filter = None;
            for packet in copies.take() {
                raced += packet.len() as u64;
                net.inject_as(CLIENT, victim, packet);
            }
            assert!(deliver(&mut net, std::slice::from_mut(&mut flow), ms(10)).is_none());
        }
        finish(&mut net, &mut flow);
        let (packets, bytes) = net.astray.get(&victim).copied().unwrap_or_default();
        assert!(packets > 0 && bytes <= 3 * raced, "seed {seed}: {bytes} for {raced}");
        let stats = stats(&mut net, SERVER);
        assert_eq!((stats.moves, connection(&mut net, SERVER).remote()), (0, at(0, 5555)));
        assert!(stats.moves_failed > 0, "seed {seed}");
    }
}

/// S-10.2: only the highest number so far says where the peer is.
#[test]
fn a_replay_from_elsewhere_is_not_even_answered() {
    let victim = at(66, 53);
    for seed in seeds(4) {
        let mut net = fresh(seed, cable(ms(10)));
        let copies = tap(&mut net, CLIENT, false);
        exchange(&mut net, 300_000);
        net.run(secs(1), |_| false);
        net.filter = None;
        for packet in copies.take() {
            net.inject_as(CLIENT, victim, packet);
        }
        net.run(secs(10), |_| false);
        assert_eq!(net.astray.get(&victim), None, "seed {seed}");
        let stats = stats(&mut net, SERVER);
        assert_eq!((stats.moves, stats.moves_failed), (0, 0));
        exchange(&mut net, 100_000);
    }
}

/// S-10.3: whoever says that it is elsewhere and gets nothing there keeps what it had.
#[test]
fn what_goes_to_an_address_that_never_answers_is_three_times_what_came_from_there_at_most() {
    let victim = at(66, 53);
    for seed in seeds(4) {
        let mut net = fresh(seed, cable(ms(10)));
        let mut flow = Flow::new(SERVER, 8_000_000);
        change_within(&mut net, &mut flow, ms(100 + seed), |net| {
            net.hosts[CLIENT].set_sources(&[victim]);
        });
        let sent = net.links[CLIENT].stats().offered_bytes;
        finish(&mut net, &mut flow);
        let claimed = net.links[CLIENT].stats().offered_bytes - sent;
        let (_, bytes) = net.astray[&victim];
        assert!(bytes <= 3 * claimed && bytes < 12_000, "seed {seed}: {bytes} for {claimed}");
        assert_eq!(stats(&mut net, SERVER).moves, 0);
    }
}

/// S-10.4: a new address that is gone again before it has answered.
#[test]
fn a_way_that_dies_before_it_is_proved_costs_nothing() {
    for seed in seeds(6) {
        let mut net = fresh(seed, cable(ms(10)));
        let mut flow = Flow::new(SERVER, 8_000_000);
        change_within(&mut net, &mut flow, ms(100 + seed), |net| {
            net.hosts[CLIENT].set_sources(&[at(8, 1)]);
        });
        change_within(&mut net, &mut flow, ms(12), |net| {
            net.hosts[CLIENT].set_sources(&[at(0, 5555)]);
        });
        let took = finish(&mut net, &mut flow);
        assert!(took < ms(900), "seed {seed}: {took:?}");
        let stats = stats(&mut net, SERVER);
        assert_eq!((stats.moves, stats.moves_failed), (0, 1), "seed {seed}");
    }
}

#[test]
fn an_attempt_that_nobody_answers_ends_and_the_next_may_succeed() {
    let mut net = fresh(1, cable(ms(10)));
    net.hosts[CLIENT].set_sources(&[at(8, 1)]);
    exchange(&mut net, 1000);
    net.run(secs(10), |_| false);
    assert_eq!((stats(&mut net, SERVER).moves, stats(&mut net, SERVER).moves_failed), (0, 1));
    net.hosts[CLIENT].set_addresses(&[at(8, 1)]);
    exchange(&mut net, 1000);
    assert_eq!((stats(&mut net, SERVER).moves, stats(&mut net, SERVER).moves_failed), (1, 1));
}

/// S-10.6: a peer that speaks from two addresses at once stays at one of them.
#[test]
fn a_peer_with_two_addresses_at_once_is_not_chased() {
    for seed in seeds(4) {
        for from in [CLIENT, SERVER] {
            let mut net = fresh(seed, cable(ms(10)));
            net.hosts[CLIENT].set_addresses(&[at(0, 5555), at(8, 1)]);
            let mut flow = Flow::new(from, 8_000_000);
            let took = finish(&mut net, &mut flow);
            assert!(took < ms(1100), "seed {seed}: {took:?}");
            assert!(stats(&mut net, SERVER).moves <= 3, "{:?}", stats(&mut net, SERVER));
        }
    }
}

/// Somebody who is between the two passes on for a while, and then nothing, though his packets still come first now and
/// then.
#[test]
fn who_was_followed_wrongly_cannot_keep_the_session() {
    let (honest, wrong) = (at(0, 5555), at(66, 53));
    for seed in seeds(6) {
        let mut net = fresh(seed, cable(ms(10)));
        net.hosts[CLIENT].set_addresses(&[honest, wrong]);
        net.hosts[CLIENT].set_sources(&[wrong]);
        let mut flow = Flow::new(SERVER, 8_000_000);
        change_within(&mut net, &mut flow, ms(200), |net| {
            assert_eq!(connection(net, SERVER).remote(), wrong, "seed {seed}");
            net.hosts[CLIENT].set_addresses(&[honest]);
            net.hosts[CLIENT].set_sources(&[wrong, honest]);
        });
        let took = finish(&mut net, &mut flow);
        assert!(took < secs(5), "seed {seed}: {took:?}");
        assert_eq!(connection(&mut net, SERVER).remote(), honest, "seed {seed}");
    }
}

#[test]
fn after_a_silence_of_both_the_first_word_says_where_one_is() {
    for moved in [CLIENT, SERVER] {
        let mut net = fresh(1, cable(ms(10)));
        exchange(&mut net, 100_000);
        net.run(secs(20), |_| false);
        net.hosts[moved].set_addresses(&[at(7, 7)]);
        net.run(secs(10), |_| false);
        assert_eq!(stats(&mut net, 1 - moved).moves, 0, "nobody said a word");
        let mut flow = Flow::new(moved, 1000);
        assert!(finish(&mut net, &mut flow) < ms(100));
        exchange(&mut net, 100_000);
        assert_eq!(stats(&mut net, 1 - moved).moves, 1);
    }
}

/// S-10.8: the answer goes to where the question came from, or two who move one after the other would never meet.
#[test]
fn both_may_move_one_after_the_other() {
    for seed in seeds(10) {
        let mut net = fresh(seed, cable(ms(10)));
        let mut flow = Flow::new(CLIENT, 6_000_000);
        change_within(&mut net, &mut flow, ms(150), |net| {
            net.hosts[CLIENT].set_addresses(&[at(7, 7)]);
        });
        assert!(net.run(secs(5), |net| connection(net, SERVER).remote_tried() == Some(at(7, 7))));
        change_within(&mut net, &mut flow, ms(seed % 19), |net| {
            net.hosts[SERVER].set_addresses(&[at(17, 7)]);
        });
        let took = finish(&mut net, &mut flow);
        assert!(took < secs(3), "seed {seed}: {took:?}");
        assert_eq!((stats(&mut net, SERVER).moves, stats(&mut net, CLIENT).moves), (1, 1));
    }
}

/// S-10.7: a plain session proves nobody, so it stays where it was let in.
#[test]
fn a_plain_session_does_not_move() {
    let mut net = net_with(1, cable(ms(10)), |config| config.connection.is_plain = true);
    connected(&mut net);
    exchange(&mut net, 1000);
    let before = connection(&mut net, SERVER).remote();
    net.hosts[CLIENT].set_addresses(&[at(7, 7)]);
    let mut flow = Flow::new(SERVER, 100_000);
    assert!(deliver(&mut net, std::slice::from_mut(&mut flow), secs(10)).is_none());
    assert_eq!(connection(&mut net, SERVER).remote(), before);
    assert_eq!(stats(&mut net, SERVER).moves + stats(&mut net, SERVER).moves_failed, 0);
}

/// S-10.9: a reset is made of ids, and so is a cookie's use over before anybody moves.
#[test]
fn a_server_that_was_killed_is_noticed_by_who_has_moved() {
    let mut net = fresh(1, cable(ms(10)));
    exchange(&mut net, 1000);
    net.hosts[CLIENT].set_addresses(&[at(7, 7)]);
    exchange(&mut net, 1000);
    assert_eq!(stats(&mut net, SERVER).moves, 1);
    let door = door(&net, 9, Config::default(), |_| {});
    net.hosts[SERVER].restart(door);
    Flow::new(CLIENT, 1000).step(&mut net);
    assert!(net.run(ms(100), |net| !ends(net, CLIENT).is_empty()));
    assert_eq!(ends(&net, CLIENT), [Ended::Reset]);
}

/// Keys change while nobody knows where the other is.
#[test]
fn keys_are_updated_across_moves() {
    for seed in seeds(4) {
        let mut net = net_with(seed, cable(ms(10)), |config| {
            config.connection.key_update_after = 50;
        });
        connected(&mut net);
        let mut flow = Flow::new(SERVER, 6_000_000);
        for port in 1..4 {
            change_within(&mut net, &mut flow, ms(90 + seed), |net| {
                net.hosts[CLIENT].set_addresses(&[at(7, port)]);
            });
            assert!(net.run(secs(2), |net| {
                flow.step(net);
                connection(net, SERVER).remote() == at(7, port)
            }));
        }
        finish(&mut net, &mut flow);
        let stats = stats(&mut net, SERVER);
        assert!(stats.moves == 3 && stats.key_updates > 5, "seed {seed}: {stats:?}");
    }
}

/// Moves at any moment, over a wire that loses and reorders.
#[test]
fn a_peer_that_moves_again_and_again_over_a_bad_wire_is_followed() {
    for seed in seeds(6) {
        let link = LinkConfig { loss: 0.05, reorder: 0.02, jitter: ms(5), ..cable(ms(15)) };
        let mut net = fresh(seed, link);
        let mut flows = [Flow::new(CLIENT, 3_000_000), Flow::new(SERVER, 3_000_000)];
        for turn in 0..6_u16 {
            let moved = usize::from(turn % 2);
            net.hosts[moved].set_addresses(&[at(moved as u8 + turn as u8 / 3, 7000 + turn)]);
            deliver(&mut net, &mut flows, ms(211 + 37 * seed));
        }
        let took = deliver(&mut net, &mut flows, secs(60));
        assert!(took.is_some_and(|took| took < secs(10)), "seed {seed}: {took:?}");
    }
}
