//! A stranger on the wire who sees every packet and sends what he likes (S-1.2, S-4.3, S-5.3, W-2.10): he can cost
//! time, and never a connection, a byte or a panic.
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

use cabo_proto::Chance;
use cabo_proto::session::config::{Config, Ended};
use cabo_proto::sim::Seeded;
use cabo_proto::sim::net::Net;
use cabo_proto::wire::packet::{self, ConnectionId};
use support::{
    CLIENT, Flow, SERVER, cable, connected, connection, deliver, ends, ms, net_with, seeds,
};

struct Dice(Seeded);

impl Dice {
    fn number(&mut self, below: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        (u64::from_be_bytes(bytes) % below as u64) as usize
    }

    /// A packet that nobody honest sent, made of those that somebody did.
    fn forge(&mut self, seen: &[(usize, Vec<u8>)]) -> Option<(usize, Vec<u8>)> {
        let (from, mut packet) = seen.get(self.number(seen.len().max(1)))?.clone();
        let to_other = self.number(8) == 0;
        match self.number(9) {
            0 => {} // a replay
            1 => {
                let bit = self.number(packet.len() * 8);
                packet[bit / 8] ^= 1 << (bit % 8);
            }
            2 => packet.truncate(self.number(packet.len() + 1)),
            3 => {
                let len = self.number(packet.len());
                packet.truncate(len.max(4));
                packet::set_length(&mut packet);
            }
            4 => {
                let at = self.number(packet.len());
                self.0.fill(&mut packet[at..]);
            }
            5 => {
                let len = self.number(1600);
                packet = vec![0; len];
                self.0.fill(&mut packet);
            }
            6 => {
                let len = 24 + self.number(1400);
                let mut kept = packet[..packet.len().min(12)].to_vec(); // marker, kind and the right id
                kept.resize(len, 0);
                self.0.fill(&mut kept[12..]);
                packet::set_length(&mut kept);
                packet = kept;
            }
            7 => {
                packet.extend_from_slice(&[0xCB; 40]); // behind its length: ignored (W-2.3)
            }
            _ => packet[1] = self.number(256) as u8,
        }
        Some((if to_other { 1 - from } else { from }, packet))
    }
}

/// Runs a transfer both ways while `count` forgeries come in, from the first packet on.
fn attack(seed: u64, tampered: usize) {
    let mut link = cable(ms(5));
    link.loss = 0.01;
    let mut net = net_with(seed, link, |_| {});
    let seen: Rc<RefCell<Vec<(usize, Vec<u8>)>>> = Rc::default();
    let sink = seen.clone();
    net.filter = Some(Box::new(move |from, packet| {
        sink.borrow_mut().push((from, packet.clone()));
        true
    }));
    net.connect().unwrap();
    let mut dice = Dice(Seeded::new(seed));
    let mut flows = [Flow::new(CLIENT, 60_000), Flow::new(SERVER, 60_000)];
    let mut left = tampered;
    let is_done = net.run(support::secs(60), |net| {
        if left > 0 {
            left -= 1;
            let forged = dice.forge(&seen.borrow());
            if let Some((from, packet)) = forged {
                net.inject(from, packet);
            }
        }
        flows.iter_mut().fold(true, |all, flow| flow.step(net) && all)
    });
    assert!(is_done, "seed {seed}: {:?} {:?}", ends(&net, CLIENT), ends(&net, SERVER));
    // Ids that he used himself may have made connections that end; ours does not.
    assert_eq!(ends(&net, CLIENT), [], "seed {seed}");
}

#[test]
fn forged_broken_and_replayed_packets_change_nothing() {
    for seed in seeds(300) {
        attack(seed, 300);
    }
}

#[test]
fn rubbish_does_not_make_plain_panic() {
    for seed in seeds(100) {
        // Plain authenticates nothing, so a forged end is possible; what has the right check sum is believed.
        rubbish_into_plain(seed);
    }
}

fn rubbish_into_plain(seed: u64) {
    let mut net = net_with(seed, cable(ms(5)), |config| config.connection.is_plain = true);
    let seen: Rc<RefCell<Vec<(usize, Vec<u8>)>>> = Rc::default();
    let sink = seen.clone();
    net.filter = Some(Box::new(move |from, packet| {
        sink.borrow_mut().push((from, packet.clone()));
        true
    }));
    net.connect().unwrap();
    let mut dice = Dice(Seeded::new(seed));
    let mut flows = [Flow::new(CLIENT, 30_000), Flow::new(SERVER, 30_000)];
    net.run(support::secs(20), |net| {
        let forged = dice.forge(&seen.borrow());
        if let Some((from, packet)) = forged {
            net.inject(from, packet);
        }
        if net.hosts.iter().any(|host| host.connections.is_empty()) {
            return true;
        }
        flows.iter_mut().fold(true, |all, flow| flow.step(net) && all)
    });
}

fn forged_demands(net: &mut Net, to_client: ConnectionId, sender: ConnectionId) {
    let version = packet::version_answer(to_client, sender, &[packet::PLAIN]);
    let cookie = packet::cookie_packet(packet::SEALED, to_client, sender, &[1; 24]);
    for packet in [version, cookie, packet::reset_packet(packet::SEALED, sender, [7; 16])] {
        net.inject(SERVER, packet);
    }
}

#[test]
fn demands_and_resets_of_strangers_are_ignored_at_every_moment() {
    for step in 0..40 {
        let mut net = net_with(1, cable(ms(5)), |_| {});
        net.connect().unwrap();
        let mut steps = 0;
        net.run(ms(200), |_| {
            steps += 1;
            steps > step
        });
        let (id, peer) = {
            let client = connection(&mut net, CLIENT);
            (client.local_id(), client.peer_id())
        };
        forged_demands(&mut net, id, ConnectionId([3; 8])); // he does not know the first id
        if connection(&mut net, CLIENT).is_handshaken() {
            forged_demands(&mut net, id, peer); // he knows all ids, and comes too late
        }
        let mut flows = [Flow::new(CLIENT, 5_000), Flow::new(SERVER, 5_000)];
        assert!(
            deliver(&mut net, &mut flows, support::secs(20)).is_some(),
            "step {step}: {:?}",
            ends(&net, CLIENT)
        );
        assert_eq!(ends(&net, CLIENT), []);
    }
}

#[test]
fn a_version_answer_that_lists_our_own_is_not_believed() {
    let mut net = net_with(1, cable(ms(5)), |_| {});
    net.connect().unwrap();
    let (id, first) = {
        let client = connection(&mut net, CLIENT);
        (client.local_id(), client.first_id())
    };
    net.inject(SERVER, packet::version_answer(id, first, &[packet::PLAIN, packet::SEALED]));
    connected_already(&mut net);
    assert_eq!(ends(&net, CLIENT), []);
}

fn connected_already(net: &mut Net) {
    let mut flows = [Flow::new(CLIENT, 5_000), Flow::new(SERVER, 5_000)];
    assert!(deliver(net, &mut flows, support::secs(20)).is_some());
}

#[test]
fn a_whole_conversation_replayed_to_its_server_does_nothing() {
    let mut net = net_with(1, cable(ms(5)), |_| {});
    let seen: Rc<RefCell<Vec<Vec<u8>>>> = Rc::default();
    let sink = seen.clone();
    net.filter = Some(Box::new(move |from, packet| {
        if from == CLIENT {
            sink.borrow_mut().push(packet.clone());
        }
        true
    }));
    connected(&mut net);
    let mut flows = [Flow::new(CLIENT, 50_000)];
    deliver(&mut net, &mut flows, support::secs(10)).unwrap();
    let received = connection(&mut net, SERVER).stats().packets_received;
    for packet in seen.borrow().iter() {
        net.inject(CLIENT, packet.clone());
    }
    net.run(ms(500), |_| false);
    let stats = connection(&mut net, SERVER).stats();
    assert!(stats.packets_received <= received + 4, "{stats:?}"); // the client's own last words
    assert!(stats.packets_duplicate > 30, "{stats:?}");
    connected_already(&mut net);
}

#[test]
fn a_conversation_replayed_to_a_restarted_server_brings_no_data_back() {
    let mut net = net_with(1, cable(ms(5)), |_| {});
    let seen: Rc<RefCell<Vec<Vec<u8>>>> = Rc::default();
    let sink = seen.clone();
    net.filter = Some(Box::new(move |from, packet| {
        if from == CLIENT {
            sink.borrow_mut().push(packet.clone());
        }
        true
    }));
    connected(&mut net);
    let mut flows = [Flow::new(CLIENT, 50_000)];
    deliver(&mut net, &mut flows, support::secs(10)).unwrap();
    let door = support::door(&net, 5, Config::default(), |_| {});
    net.hosts[SERVER].restart(door);
    net.hosts[CLIENT].connections.clear();
    for packet in seen.borrow().iter() {
        net.inject(CLIENT, packet.clone());
    }
    net.run(support::secs(30), |_| false);
    assert!(!support::has_event(&net, SERVER, &cabo_proto::session::core::Event::Handshaken));
    assert!(ends(&net, SERVER).iter().all(|ended| matches!(
        ended,
        Ended::HandshakeTimeout { .. } | Ended::Breach { .. } | Ended::Crypto(_)
    )));
    assert_eq!(net.hosts[SERVER].endpoint.counts(), (0, 0));
}
