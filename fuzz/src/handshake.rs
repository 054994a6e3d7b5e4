//! First contact with a stranger that says anything: over packets, and over records.

use std::time::Duration;

use cabo_proto::session::config::Config;
use cabo_proto::session::records::{Opening, RecordConnection};
use cabo_proto::sim::link::LinkConfig;
use cabo_proto::sim::net::{Net, NetConfig};
use cabo_proto::sim::origin;
use cabo_proto::transport::flow::Budget;
use cabo_proto::wire::packet::ConnectionId;
use cabo_proto::wire::record::RecordKind;

use crate::connection::plain;
use crate::forge;

/// Any bytes: as datagrams of their own, as bodies of Initial packets, as the bytes of a stream, as bodies of records.
pub fn handshake(input: &[u8]) {
    packets(input);
    records(input);
}

fn packets(input: &[u8]) {
    let mut config = NetConfig::new(2, LinkConfig::default());
    config.connection.is_plain = true;
    let mut net = Net::new(config, [plain(), plain()]);
    let (first_id, own_id) = (ConnectionId([1; 8]), ConnectionId([2; 8]));
    for (number, chunk) in input.chunks(300).take(8).enumerate() {
        net.inject(0, forge::initial(first_id, own_id, number as u64, chunk));
        net.inject(0, chunk.to_vec());
        net.run(Duration::from_millis(10), |_| false);
    }
    net.run(Duration::from_secs(200), |_| false);
    assert!(net.hosts[1].connections.is_empty(), "a stranger's connection lingers");
    assert_eq!(net.hosts[1].endpoint.counts(), (0, 0), "a stranger's state lingers");
}

fn records(input: &[u8]) {
    let _ = Opening::of(input);
    let now = origin();
    let config = Config { is_plain: true, ..Config::default() };
    let crypto = plain();
    let server = || RecordConnection::server(now, config.clone(), &*crypto, Budget::new(1 << 20));
    let Ok(mut raw) = server() else { return };
    let Ok(mut framed) = server() else { return };
    let mut out = Vec::new();
    for chunk in input.chunks(97) {
        raw.handle_bytes(now, &mut chunk.to_vec());
        let kind = match chunk.first() {
            Some(0..=99) | None => RecordKind::Initial,
            Some(100..=149) => RecordKind::Handshake,
            Some(150..) => RecordKind::Data { phase: false },
        };
        framed.handle_bytes(now, &mut forge::record(kind, chunk));
        for connection in [&mut raw, &mut framed] {
            while connection.poll_event().is_some() {}
            connection.poll_output(now, &mut out, 1 << 16);
            out.clear();
        }
    }
    raw.handle_end();
    framed.handle_end();
    assert!(raw.is_gone() && framed.is_gone());
}
