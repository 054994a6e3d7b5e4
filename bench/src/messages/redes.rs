//! The course protocol on a veth pair: a file through a window of five.

use anyhow::Result;

use super::peers::Entry;
use super::process::{self, Process};
use super::table::{Aim, Bound, Column};
use super::{Bench, Placement, Row};
use crate::job::{Counted, Job, Peer, Side, Task};
use crate::paths::{Carrier, Kind, Path};

const RATE: &str = "MB/s";
/// About a second.
const FILE_BYTES: u64 = 8 << 20;

pub fn row() -> Row {
    Row {
        name: "redes",
        conditions: format!(
            "a file of {} MiB over redes:// on veth, window 5, from a folder to a folder, by a client of our own",
            FILE_BYTES >> 20
        ),
        columns: vec![Column { name: RATE, digits: 2 }, Column { name: "cpu ns/byte", digits: 1 }],
        entries: vec![Entry::own("cabo redes*", Peer::Redes, "")],
        aims: |_| {
            vec![Aim { who: "cabo redes*", column: RATE, of: None, bound: Bound::AtLeast(5.0) }]
        },
        measure: Box::new(measure),
        only: Some(super::SAME),
    }
}

fn measure(bench: &Bench, _: &Entry, placement: Placement) -> Result<Vec<f64>> {
    let path = Path::build(&bench.lab, Kind::Veth { mtu_bytes: 1500 }, None)?;
    let (interface, _) = path.peer_places(Carrier::Eth);
    let job = Job {
        peer: Peer::Redes,
        task: Task::Transfer,
        side: Side::Receiver,
        core: None,
        listen: interface.clone(),
        connect: interface,
        bytes: FILE_BYTES,
        connections: 1,
        dialect: String::new(),
        limit_seconds: 60.0,
        datagram_bytes: 0,
        congestion: None,
    };
    let mut server = Process::start(process::side(&path.receiver, &job)?, placement.server)?;
    server.wait_until_ready()?;
    let before = server.cpu_seconds();
    let job = Job { side: Side::Sender, ..job };
    let mut client = Process::start(process::side(&path.sender, &job)?, placement.generator)?;
    let Counted { bytes, seconds, cpu_seconds } = serde_json::from_str(client.rest()?.trim())?;
    let spent = cpu_seconds + server.cpu_seconds() - before;
    server.end();
    let bytes = bytes as f64;
    Ok(vec![bytes * 1e-6 / seconds, spent * 1e9 / bytes])
}
