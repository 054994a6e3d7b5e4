//! Random operations over random links, beside a model that cannot be wrong: what was written is what is read, in
//! order, once. After every step the connection's own accounts must hold.
#![allow(
    clippy::type_complexity,
    clippy::unnecessary_fold,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test stops where it is surprised"
)]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use cabo_proto::Chance;
use cabo_proto::session::config::Ended;
use cabo_proto::session::core::Event;
use cabo_proto::sim::Seeded;
use cabo_proto::sim::link::LinkConfig;
use cabo_proto::sim::net::Net;
use cabo_proto::transport::congestion::Kind;
use cabo_proto::transport::streams::{Read, StreamError, StreamEvent};
use cabo_proto::wire::frame::{Direction, Opener, StreamId};
use support::{CLIENT, SERVER, byte_at, cable, ends, ms, net_with, newest, secs, seeds};

struct Dice(Seeded);

impl Dice {
    fn number(&mut self, below: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_be_bytes(bytes) % below
    }

    fn share(&mut self) -> f64 {
        self.number(1000) as f64 / 1000.0
    }
}

/// What one direction of one stream must look like to its reader.
#[derive(Debug, Default)]
struct Half {
    written: u64,
    read: u64,
    is_finished: bool,
    is_reset: bool,   // by the writer, or because the reader asked for it
    is_stopped: bool, // by the reader
    is_over: bool,    // the reader saw the end, or gave up
}

/// Halves by writer and stream.
type Model = BTreeMap<(usize, StreamId), Half>;

fn link(dice: &mut Dice) -> LinkConfig {
    let is_bad = dice.number(3) > 0;
    let share = |dice: &mut Dice, most: f64| if is_bad { dice.share() * most } else { 0.0 };
    LinkConfig {
        loss: share(dice, 0.2),
        burst: share(dice, 5.0),
        duplicate: share(dice, 0.1),
        corrupt: share(dice, 0.05),
        reorder: share(dice, 0.2),
        delay: Duration::from_micros(dice.number(30_000)),
        jitter: Duration::from_micros(dice.number(5_000)),
        rate_bits_per_second: [0, 2_000_000, 20_000_000, 1_000_000_000][dice.number(4) as usize],
        ..LinkConfig::default()
    }
}

struct Run {
    net: Net,
    dice: Dice,
    model: Model,
    datagrams: [BTreeMap<u64, bool>; 2], // by sender: number, and whether it came
    is_closed: bool,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(Seeded::new(seed));
        let links = [link(&mut dice), link(&mut dice)];
        let mut net = net_with(seed, cable(ms(1)), |config| {
            let limits = &mut config.connection.limits;
            limits.streams_both = 1 + dice.number(6);
            limits.streams_one = 1 + dice.number(6);
            limits.stream_window_bytes = 1 + dice.number(100_000);
            limits.window_bytes = 1 + dice.number(200_000);
            config.connection.key_update_after = 1 + dice.number(200);
            config.connection.congestion = [Kind::Model, Kind::Cubic][dice.number(2) as usize];
            config.connection.is_plain =
                dice.number(8) == 0 && links.iter().all(|link| link.corrupt == 0.0);
            config.limits.largest_packet_bytes = [1280, 1496, 9000][dice.number(3) as usize];
            config.connection.handshake_timeout = secs(60);
        });
        for (link, config) in net.links.iter_mut().zip(links) {
            link.set_config(config);
        }
        support::connected(&mut net);
        Self { net, dice, model: Model::new(), datagrams: Default::default(), is_closed: false }
    }

    fn operate(&mut self) {
        let host = self.dice.number(2) as usize;
        let now = self.net.now;
        let Some(connection) = self.net.hosts[host]
            .connections
            .values_mut()
            .next_back()
            .filter(|connection| connection.is_open())
        else {
            return;
        };
        let mine: Vec<StreamId> =
            self.model.keys().filter(|(writer, _)| *writer == host).map(|(_, id)| *id).collect();
        let theirs: Vec<StreamId> =
            self.model.keys().filter(|(writer, _)| *writer != host).map(|(_, id)| *id).collect();
        let mut pick =
            |ids: &[StreamId]| ids.get(self.dice.number(ids.len().max(1) as u64) as usize).copied();
        let (mine, theirs) = (pick(&mine), pick(&theirs));
        match self.dice.number(24) {
            0..=3 => {
                let direction = [Direction::Both, Direction::One][self.dice.number(2) as usize];
                if let Some(id) = connection.streams().open(direction) {
                    self.model.insert((host, id), Half::default());
                    if direction == Direction::Both {
                        self.model.insert((1 - host, id), Half::default());
                    }
                }
            }
            4..=9 => {
                let Some(id) = mine else { return };
                let Some(half) = self.model.get_mut(&(host, id)) else { return };
                match connection.streams().write_room(id) {
                    Ok(room) => {
                        assert!(
                            !half.is_finished && !half.is_reset,
                            "{id:?} can be written after its end"
                        );
                        let len = self.dice.number(1 + 40_000).min(room as u64);
                        let bytes: Vec<u8> =
                            (half.written..half.written + len).map(|at| byte_at(id, at)).collect();
                        connection.streams().write(id, Bytes::from(bytes));
                        half.written += len;
                    }
                    Err(StreamError::Closed | StreamError::Stopped(_)) => {}
                }
            }
            10..=11 => {
                let Some(id) = mine else { return };
                let Some(half) = self.model.get_mut(&(host, id)) else { return };
                if connection.streams().write_room(id).is_ok() {
                    half.is_finished = true;
                    connection.streams().finish(id).unwrap();
                }
            }
            12 => {
                let Some(id) = mine else { return };
                let Some(half) = self.model.get_mut(&(host, id)) else { return };
                let is_known = id.opener() == opener(host)
                    || half.is_finished
                    || connection.streams().write_room(id).is_ok();
                if is_known {
                    half.is_reset = true;
                    connection.streams().reset(id, 9);
                }
            }
            13 => {
                let Some(id) = theirs else { return };
                let Some(half) = self.model.get_mut(&(1 - host, id)) else { return };
                // Only what has arrived can be stopped; before that nobody knows it.
                if !half.is_over && (id.opener() == opener(host) || half.read > 0) {
                    connection.streams().stop(now, id, 11);
                    (half.is_stopped, half.is_over) = (true, true);
                }
            }
            14..=20 => {
                let Some(id) = theirs else { return };
                let len = self.dice.number(30_000) as usize;
                self.read(1 - host, id, len);
            }
            21..=22 => {
                let number = self.datagrams[host].len() as u64;
                self.datagrams[host].insert(number, false);
                connection.send_datagram(Bytes::copy_from_slice(&number.to_be_bytes()), None);
            }
            _ => {
                if let Some(id) = mine {
                    let priority = self.dice.number(5) as i32 - 2;
                    connection.streams().set_priority(id, priority);
                }
            }
        }
    }

    /// Reads what `writer` wrote.
    fn read(&mut self, writer: usize, id: StreamId, len: usize) {
        let Some(half) = self.model.get_mut(&(writer, id)).filter(|half| !half.is_over) else {
            return;
        };
        let Some(connection) = self.net.hosts[1 - writer].connections.values_mut().next_back()
        else {
            return;
        };
        let mut buffer = vec![0; len];
        match connection.streams().read(self.net.now, id, &mut buffer) {
            Ok(Read::Bytes(len)) => {
                for (byte, index) in buffer[..len].iter().zip(half.read..) {
                    assert_eq!(*byte, byte_at(id, index), "byte {index} of {id:?}");
                }
                half.read += len as u64;
                assert!(half.read <= half.written, "{id:?}: {half:?}");
            }
            Ok(Read::End) => {
                assert!(half.is_finished && half.read == half.written, "{id:?}: {half:?}");
                half.is_over = true;
            }
            Ok(Read::Reset(code)) => {
                assert!(half.is_reset || half.is_stopped, "{id:?}: {half:?}");
                assert!([9, 11].contains(&code));
                half.is_over = true;
            }
            Ok(Read::Blocked) | Err(StreamError::Closed) => {} // the latter: not here yet
            Err(StreamError::Stopped(_)) => panic!("a reader is never stopped"),
        }
    }

    fn take_events(&mut self) {
        for host in [CLIENT, SERVER] {
            for (_, event) in std::mem::take(&mut self.net.hosts[host].events) {
                match event {
                    Event::Datagram(data) => {
                        let number = u64::from_be_bytes(data[..].try_into().unwrap());
                        let came =
                            self.datagrams[1 - host].get_mut(&number).expect("one that was sent");
                        assert!(!std::mem::replace(came, true), "datagram {number} came twice");
                    }
                    Event::Stream(StreamEvent::Stopped(id, code)) => {
                        assert_eq!(code, 11);
                        let half = self.model.get_mut(&(host, id)).expect("a stream of ours");
                        assert!(half.is_stopped);
                        half.is_reset = true;
                    }
                    Event::Stream(StreamEvent::Finished(id)) => {
                        let half = &self.model[&(host, id)];
                        assert!(half.is_finished, "{id:?}: {half:?}");
                    }
                    Event::Ended(ended) => {
                        assert!(self.is_closed, "nobody closed it: {ended}; {:?}", self.model);
                    }
                    Event::Handshaken | Event::Admitted | Event::Stream(_) => {}
                }
            }
        }
    }

    /// The accounts that every connection keeps.
    fn check(&self) {
        for host in &self.net.hosts {
            for connection in host.connections.values() {
                let path = connection.path_state();
                assert!(path.in_flight_bytes < 1 << 40, "in flight: {path:?}");
                assert!(path.window_bytes > 0 && path.mtu_bytes >= 1200, "{path:?}");
                assert!(connection.deadline().is_some(), "it waits for nothing");
            }
        }
    }

    fn finish_all(&mut self) {
        for host in [CLIENT, SERVER] {
            let Some(connection) = self.net.hosts[host].connections.values_mut().next_back() else {
                continue;
            };
            for ((_, id), half) in self.model.iter_mut().filter(|((writer, _), _)| *writer == host)
            {
                if connection.streams().write_room(*id).is_ok() {
                    connection.streams().finish(*id).unwrap();
                    half.is_finished = true;
                }
            }
        }
    }

    /// Ends all streams, reads all of them, and sees that everything is whole.
    fn settle(&mut self, seed: u64) {
        let limit = self.net.now + secs(600);
        loop {
            self.finish_all(); // a stream is not there before its opener's first bytes are
            self.net.run(ms(20), |_| false);
            self.take_events();
            let ids: Vec<(usize, StreamId)> =
                self.model.iter().filter(|(_, half)| !half.is_over).map(|(key, _)| *key).collect();
            for (writer, id) in &ids {
                self.read(*writer, *id, 1 << 20);
            }
            if ids.is_empty() {
                return;
            }
            let left: Vec<_> = ids.iter().map(|key| (key, &self.model[key])).collect();
            assert!(
                self.net.now < limit,
                "stuck: {left:?} {:?} {:?}; replay with ./dev sim {seed} whatever_is_done",
                ends(&self.net, CLIENT),
                self.net.hosts.each_ref().map(|host| host
                    .connections
                    .values()
                    .map(|c| (c.path_state(), c.stats()))
                    .collect::<Vec<_>>())
            );
        }
    }
}

fn opener(host: usize) -> Opener {
    if host == CLIENT { Opener::Client } else { Opener::Server }
}

fn run(seed: u64) {
    let mut run = Run::new(seed);
    let count = 20 + run.dice.number(150);
    for _ in 0..count {
        for _ in 0..1 + run.dice.number(3) {
            run.operate();
        }
        let time = Duration::from_micros(run.dice.number(8_000));
        run.net.run(time, |_| false);
        run.take_events();
        run.check();
        if run.dice.number(600) == 0 {
            break;
        }
    }
    if run.dice.number(4) > 0 {
        run.settle(seed);
    }
    run.is_closed = true;
    let (host, now) = (run.dice.number(2) as usize, run.net.now);
    if let Some(handle) = newest(&run.net, host) {
        let ended = Ended::Local { code: 0, reason: "enough".to_owned() };
        if let Some(connection) = run.net.hosts[host].connections.get_mut(&handle) {
            connection.close(now, ended);
        }
    }
    let is_gone =
        run.net.run(secs(200), |net| net.hosts.iter().all(|host| host.connections.is_empty()));
    assert!(is_gone, "it does not go away; replay with ./dev sim {seed} whatever_is_done");
    run.take_events();
}

#[test]
fn whatever_is_done_over_whatever_wire_what_was_written_is_what_is_read() {
    for seed in seeds(1000) {
        let outcome = std::panic::catch_unwind(|| run(seed));
        if let Err(cause) = outcome {
            eprintln!("replay with ./dev sim {seed} whatever_is_done");
            std::panic::resume_unwind(cause);
        }
    }
}
