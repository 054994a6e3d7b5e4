//! The memory of a whole server (T-13.3, S-9): greedy peers together get no more than its budget beyond the first windows.
#![allow(
    clippy::unnecessary_fold,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test stops where it is surprised"
)]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use cabo_proto::session::config::Config;
use cabo_proto::session::endpoint::Handle;
use cabo_proto::sim::link::LinkConfig;
use cabo_proto::sim::net::Net;
use cabo_proto::transport::flow::Budget;
use cabo_proto::transport::streams::Read;
use cabo_proto::wire::frame::{Direction, StreamId};
use support::{CLIENT, SERVER, cable, connected, door, ms, net_with};

const CLIENTS: u64 = 12;
const FIRST_WINDOW: u64 = 64 * 1024;
const BUDGET: u64 = 256 * 1024;

/// One of many who write as much as they may, on two streams.
struct Greedy {
    ends: [Handle; 2],
    ids: [StreamId; 2],
}

impl Greedy {
    fn new(net: &mut Net) -> Self {
        let ends = connected(net);
        let client = net.hosts[CLIENT].connections.get_mut(&ends[CLIENT]).unwrap();
        let ids = [(); 2].map(|()| client.streams().open(Direction::One).unwrap());
        Self { ends, ids }
    }

    fn write(&self, net: &mut Net) {
        let client = net.hosts[CLIENT].connections.get_mut(&self.ends[CLIENT]).unwrap();
        for id in self.ids {
            let room = client.streams().write_room(id).unwrap();
            client.streams().write(id, Bytes::from(vec![7; room]));
        }
    }

    /// Reads all that has arrived, and says how much that was.
    fn read(&self, net: &mut Net) -> u64 {
        let now = net.now;
        let server = net.hosts[SERVER].connections.get_mut(&self.ends[SERVER]).unwrap();
        let (mut room, mut total) = (vec![0; 64 * 1024], 0);
        for id in self.ids {
            while let Ok(Read::Bytes(len)) = server.streams().read(now, id, &mut room) {
                total += len as u64;
            }
        }
        total
    }
}

/// A server with many greedy clients and `budget`; what of each waits in it once it reads no more.
fn hoarded(budget: &Arc<Budget>) -> Vec<u64> {
    let link = LinkConfig { rate_bits_per_second: 1_000_000_000, ..cable(ms(2)) };
    let mut settings = Config::default();
    settings.limits.window_bytes = FIRST_WINDOW;
    settings.limits.stream_window_bytes = FIRST_WINDOW;
    let mut net = net_with(3, link, |config| config.connection = settings.clone());
    net.hosts[SERVER].endpoint = door(&net, 3, settings, |config| config.budget = budget.clone());
    let clients: Vec<Greedy> = (0..CLIENTS).map(|_| Greedy::new(&mut net)).collect();
    for _ in 0..60 {
        clients.iter().for_each(|client| client.write(&mut net));
        net.run(ms(2), |_| false);
        for client in &clients {
            client.read(&mut net);
        }
    }
    for _ in 0..60 {
        clients.iter().for_each(|client| client.write(&mut net));
        net.run(ms(2), |_| false);
    }
    clients.iter().map(|client| client.read(&mut net)).collect()
}

#[test]
fn many_greedy_clients_get_no_more_than_the_budget_beyond_their_first_windows() {
    let first_windows = CLIENTS * FIRST_WINDOW;
    let budget = Budget::new(BUDGET);
    let hoards = hoarded(&budget);
    let hoard: u64 = hoards.iter().sum();
    assert!(hoard <= first_windows + BUDGET, "{hoard} bytes wait");
    // Credit comes back by halves, so that not everybody's is full when the reading stops.
    let has_grown = hoards.iter().any(|hoard| *hoard > FIRST_WINDOW);
    assert!(has_grown, "{hoards:?}: nobody's window grew, so this proves nothing");
    assert_eq!(budget.left(), BUDGET, "all of it is back when they are gone");
    let hoard: u64 = hoarded(&Budget::new(u64::MAX)).iter().sum();
    assert!(hoard > first_windows + BUDGET, "{hoard} bytes: it is the budget that holds them");
}
