//! Whole connections in the network in a box: handshake, bulk transfer, loss, the end.
#![allow(
    clippy::type_complexity,
    clippy::unnecessary_fold,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test stops where it is surprised"
)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cabo_proto::session::core::Event;
use cabo_proto::session::crypto::Crypto;
use cabo_proto::session::standin::StandIn;
use cabo_proto::sim::link::LinkConfig;
use cabo_proto::sim::net::{Net, NetConfig};
use cabo_proto::transport::streams::{Read, StreamEvent};
use cabo_proto::wire::frame::Direction;

fn net(config: NetConfig) -> Net {
    let crypto: [Arc<dyn Crypto>; 2] = [Arc::new(StandIn::new(1)), Arc::new(StandIn::new(2))];
    Net::new(config, crypto)
}

fn byte_at(index: u64) -> u8 {
    (index.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

/// Sends `total` bytes from the client to the server and returns the virtual time that it took.
fn transfer(net: &mut Net, total: u64, limit: Duration) -> Option<Duration> {
    let client = net.connect()?;
    let started = net.now;
    let (mut written, mut read) = (0, 0);
    let mut stream = None;
    let mut incoming = None;
    let mut buffer = vec![0; 64 * 1024];
    let done = net.run(limit, |net| {
        let now = net.now;
        let [sender, receiver] = &mut net.hosts;
        if let Some(connection) =
            sender.connections.get_mut(&client).filter(|connection| connection.is_handshaken())
        {
            let streams = connection.streams();
            let id = *stream.get_or_insert_with(|| streams.open(Direction::Both).unwrap());
            while written < total {
                let room =
                    streams.write_room(id).unwrap().min(32 * 1024).min((total - written) as usize);
                if room == 0 {
                    break;
                }
                let chunk: Vec<u8> = (written..written + room as u64).map(byte_at).collect();
                streams.write(id, Bytes::from(chunk));
                written += room as u64;
                if written == total {
                    streams.finish(id).unwrap();
                }
            }
        }
        for (handle, event) in receiver.events.drain(..) {
            if let Event::Stream(StreamEvent::Opened(id)) = event {
                incoming = Some((handle, id));
            }
        }
        let Some((handle, id)) = incoming else { return false };
        let Some(connection) = receiver.connections.get_mut(&handle) else { return false };
        loop {
            match connection.streams().read(now, id, &mut buffer) {
                Ok(Read::Bytes(len)) => {
                    for (index, byte) in buffer[..len].iter().enumerate() {
                        assert_eq!(
                            *byte,
                            byte_at(read + index as u64),
                            "byte {}",
                            read + index as u64
                        );
                    }
                    read += len as u64;
                }
                Ok(Read::End) => return true,
                Ok(Read::Blocked) => return false,
                other => panic!("{other:?}"),
            }
        }
    });
    assert!(!done || read == total, "{read} of {total}");
    done.then(|| net.now.duration_since(started))
}

#[test]
fn a_clean_cable_carries_every_byte_in_order() {
    let link = LinkConfig {
        delay: Duration::from_millis(10),
        rate_bits_per_second: 100_000_000,
        ..LinkConfig::default()
    };
    let mut net = net(NetConfig::new(7, link));
    let took = transfer(&mut net, 10_000_000, Duration::from_secs(60)).expect("it ends");
    let rate = 10_000_000.0 * 8.0 / took.as_secs_f64();
    let state = net.hosts[0].connections.values().next().unwrap();
    println!("{took:?} {:.1} Mbit/s {:?} {:?}", rate / 1e6, state.stats(), state.path_state());
    assert!(rate > 50e6, "{rate}");
}

/// A bad path at its worst, a hundred times: every byte is compared, none is missing.
#[test]
fn a_hundred_of_a_hundred_seeds_arrive_whole_with_a_fifth_lost() {
    let seeds: Vec<u64> = match std::env::var("CABO_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (0..100).collect(),
    };
    for seed in seeds {
        let link = LinkConfig {
            delay: Duration::from_millis(10),
            rate_bits_per_second: 200_000_000,
            loss: 0.2,
            burst: [0.0, 3.0][seed as usize % 2],
            ..LinkConfig::default()
        };
        let mut net = net(NetConfig::new(seed, link));
        let took = transfer(&mut net, 1_000_000, Duration::from_secs(120));
        let test = "a_hundred_of_a_hundred_seeds_arrive_whole_with_a_fifth_lost";
        let ended: Vec<_> =
            net.hosts.iter().flat_map(|host| &host.events).map(|(_, event)| event).collect();
        assert!(took.is_some(), "{ended:?}; replay with ./dev sim {seed} {test}");
        let lost: u64 = net.links.iter().map(|link| link.stats().lost).sum();
        assert!(lost > 50, "seed {seed}: only {lost} were lost");
    }
}

#[test]
fn loss_costs_time_and_no_byte() {
    for seed in 0..20 {
        let loss = [0.001, 0.01, 0.05, 0.2][seed as usize % 4];
        let link = LinkConfig {
            delay: Duration::from_millis(10),
            rate_bits_per_second: 100_000_000,
            loss,
            duplicate: 0.01,
            corrupt: 0.01,
            reorder: 0.01,
            ..LinkConfig::default()
        };
        let mut net = net(NetConfig::new(seed, link));
        let took = transfer(&mut net, 4_000_000, Duration::from_secs(120))
            .unwrap_or_else(|| panic!("seed {seed} hangs"));
        let state = net.hosts[0].connections.values().next().unwrap();
        println!(
            "seed {seed} loss {loss}: {took:?} {:.1} Mbit/s {:?}",
            32.0 / took.as_secs_f64(),
            state.stats()
        );
    }
}
