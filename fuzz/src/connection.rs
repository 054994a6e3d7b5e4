//! A live connection whose peer says anything: every chunk of the input is the body of a packet with a right checksum.

use std::sync::Arc;
use std::time::Duration;

use cabo_proto::session::crypto::Crypto;
use cabo_proto::session::plain::Plain;
use cabo_proto::sim::link::LinkConfig;
use cabo_proto::sim::net::{Net, NetConfig};

use crate::forge;

/// Numbers far beyond those that the real peer uses.
const FIRST_NUMBER: u64 = 1 << 32;
const PACKETS_MAX: usize = 32;

pub(crate) fn plain() -> Arc<dyn Crypto> {
    Arc::new(Plain::new(|_: &[u8], data: &[u8]| {
        std::array::from_fn(|at| data.get(at).copied().unwrap_or(7))
    }))
}

/// The net of a seed, with a connection under way.
fn net() -> Net {
    let mut config = NetConfig::new(1, LinkConfig::default());
    config.connection.is_plain = true;
    Net::new(config, [plain(), plain()])
}

/// Any bytes: the first of each chunk says to whom and how long it is.
pub fn connection(input: &[u8]) {
    let mut net = net();
    let Some(client) = net.connect() else { return };
    net.run(Duration::from_secs(1), |net| {
        net.hosts[0].connections.get(&client).is_some_and(|connection| connection.is_admitted())
    });
    let (mut rest, mut number) = (input, FIRST_NUMBER);
    for _ in 0..PACKETS_MAX {
        let Some((control, after)) = rest.split_first() else { break };
        let len = usize::from(control >> 1).min(after.len());
        let (body, after) = after.split_at(len);
        rest = after;
        let to = usize::from(control & 1);
        let Some(receiver) =
            net.hosts[to].connections.values().next().map(|connection| connection.local_id())
        else {
            break;
        };
        let forged = forge::data(receiver, number, body);
        number += 1;
        net.inject(1 - to, forged);
        net.run(Duration::from_millis(20), |_| false);
    }
    net.run(Duration::from_secs(200), |_| false);
    for host in &net.hosts {
        assert!(
            host.connections.values().all(|connection| connection.is_open()),
            "an ended connection lingers"
        );
    }
}
