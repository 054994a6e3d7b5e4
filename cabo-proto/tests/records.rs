//! Connections over a pipe of bytes (W-4, S-7), cut wherever a pipe may cut.
#![allow(
    clippy::type_complexity,
    clippy::unnecessary_fold,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test stops where it is surprised"
)]

mod support;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cabo_proto::Chance;
use cabo_proto::session::config::{Config, Ended};
use cabo_proto::session::core::Event;
use cabo_proto::session::crypto::{Crypto, CryptoError, Handshake, Keys, Side};
use cabo_proto::session::records::{Opening, RecordConnection};
use cabo_proto::sim::{Seeded, origin};
use cabo_proto::transport::flow::Budget;
use cabo_proto::wire::code::Code;
use cabo_proto::wire::packet::ConnectionId;
use cabo_proto::wire::params::{Channel, Params};
use cabo_proto::wire::record::{self, Form};
use support::{CLIENT, Flow, SERVER, plain, seeds, stand_in};

/// Two ends, and what is in the pipe to each.
struct Pipe {
    now: Instant,
    ends: [RecordConnection; 2],
    to: [Vec<u8>; 2],
    events: [Vec<Event>; 2],
    is_opened: bool, // the server took the client's preface
}

fn new_pipe(config: &Config, crypto: [&dyn Crypto; 2]) -> Pipe {
    pipe_of([config, config], crypto)
}

fn pipe_of([ours, theirs]: [&Config; 2], crypto: [&dyn Crypto; 2]) -> Pipe {
    let now = origin();
    let budget = || Budget::new(1 << 30);
    let client = RecordConnection::client(now, ours.clone(), crypto[0], budget()).unwrap();
    let server = RecordConnection::server(now, theirs.clone(), crypto[1], budget()).unwrap();
    Pipe {
        now,
        ends: [client, server],
        to: Default::default(),
        events: Default::default(),
        is_opened: false,
    }
}

fn sealed() -> Pipe {
    new_pipe(&Config::default(), [&stand_in(CLIENT), &stand_in(SERVER)])
}

impl Pipe {
    fn output(&mut self, end: usize, most: usize) {
        if end == CLIENT || self.is_opened {
            self.ends[end].poll_output(self.now, &mut self.to[1 - end], most);
        }
    }

    /// Hands over the first `len` bytes.
    fn input(&mut self, end: usize, len: usize) {
        let mut bytes: Vec<u8> = self.to[end].drain(..len).collect();
        let mut rest = 0;
        if end == SERVER && !self.is_opened {
            // Whoever accepts looks at the preface first.
            match Opening::of(&bytes) {
                Opening::Cabo(_) => {
                    self.is_opened = true;
                    rest = 8;
                }
                Opening::Unknown => {
                    self.to[end].splice(0..0, bytes);
                    return;
                }
                Opening::Stranger => panic!("{bytes:02x?}"),
            }
        }
        self.ends[end].handle_bytes(self.now, &mut bytes[rest..]);
        self.collect(end);
    }

    fn collect(&mut self, end: usize) {
        while let Some(event) = self.ends[end].poll_event() {
            if event == Event::Handshaken && end == SERVER {
                self.ends[end].admit();
            }
            self.events[end].push(event);
        }
    }

    /// Moves everything until nothing moves.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.output(CLIENT, 1 << 20);
            self.output(SERVER, 1 << 20);
            if self.to.iter().all(Vec::is_empty) {
                return;
            }
            for end in [SERVER, CLIENT] {
                let len = self.to[end].len();
                self.input(end, len);
            }
        }
        panic!("no end of bytes");
    }

    fn ended(&self, end: usize) -> Option<&Ended> {
        self.events[end].iter().find_map(|event| match event {
            Event::Ended(ended) => Some(ended),
            _ => None,
        })
    }

    fn step(&mut self, flows: &mut [Flow]) -> bool {
        let now = self.now;
        for flow in flows.iter_mut().filter(|flow| flow.done_at.is_none()) {
            if self.ends[flow.from].is_handshaken() {
                flow.write(self.ends[flow.from].streams());
            }
            flow.read(now, self.ends[1 - flow.from].streams());
        }
        flows.iter().all(|flow| flow.done_at.is_some())
    }
}

/// Runs two flows to their end over a pipe that hands over what `cut` says of what there is.
fn deliver(pipe: &mut Pipe, bytes: u64, mut cut: impl FnMut(usize) -> usize) {
    let mut flows = [Flow::new(CLIENT, bytes), Flow::new(SERVER, bytes)];
    for _ in 0..2_000_000 {
        if pipe.step(&mut flows) {
            return;
        }
        for end in [SERVER, CLIENT] {
            pipe.output(1 - end, 64 * 1024);
            let there = pipe.to[end].len();
            if there > 0 {
                let least = if end == SERVER && !pipe.is_opened { 8.min(there) } else { 1 };
                pipe.input(end, cut(there).clamp(least, there));
            }
        }
    }
    panic!("stuck: {:?} {:?}", pipe.events, flows.map(|flow| (flow.written, flow.read)));
}

#[test]
fn bytes_may_come_one_at_a_time_or_all_at_once() {
    for size in [1, 2, 3, 4, 5, 7, 16, 100, 1000, usize::MAX] {
        let mut pipe = sealed();
        deliver(&mut pipe, 40_000, |_| size);
        assert_eq!(pipe.ends[CLIENT].peer_key(), Some(stand_in(SERVER).public_key()));
        assert_eq!(pipe.ends[SERVER].peer_key(), Some(stand_in(CLIENT).public_key()));
    }
}

#[test]
fn bytes_may_be_cut_anywhere_by_chance() {
    for seed in seeds(60) {
        let mut dice = Seeded::new(seed);
        let mut pipe = sealed();
        deliver(&mut pipe, 300_000, |there| {
            let mut bytes = [0; 8];
            dice.fill(&mut bytes);
            1 + (u64::from_be_bytes(bytes) as usize) % there.min(9000)
        });
    }
}

#[test]
fn plain_works_likewise_and_names_nobody() {
    let config = Config { is_plain: true, ..Config::default() };
    let mut pipe = new_pipe(&config, [&plain(CLIENT), &plain(SERVER)]);
    deliver(&mut pipe, 100_000, |there| there / 2);
    assert_eq!(pipe.ends[SERVER].peer_key(), None);
}

#[test]
fn keys_change_every_few_records() {
    let config = Config { key_update_after: 3, ..Config::default() };
    let mut pipe = new_pipe(&config, [&stand_in(CLIENT), &stand_in(SERVER)]);
    deliver(&mut pipe, 3_000_000, |there| there / 3);
    assert_eq!((pipe.ended(CLIENT), pipe.ended(SERVER)), (None, None));
}

const ONE: Channel = Channel([1; 32]);
const OTHER: Channel = Channel([2; 32]);

/// A pipe inside channels, as each end sees its own.
fn bound(channels: [Option<Channel>; 2]) -> Pipe {
    let [ours, theirs] = channels.map(|channel| Config { channel, ..Config::default() });
    pipe_of([&ours, &theirs], [&stand_in(CLIENT), &stand_in(SERVER)])
}

/// S-7.5, S-7.7: both are proved, and nothing after the handshake is sealed twice.
#[test]
fn inside_a_channel_both_are_proved_and_records_are_not_sealed_again() {
    let mut pipe = bound([Some(ONE); 2]);
    deliver(&mut pipe, 300_000, |there| there.min(7000));
    assert_eq!(pipe.ends[CLIENT].peer_key(), Some(stand_in(SERVER).public_key()));
    assert_eq!(pipe.ends[SERVER].peer_key(), Some(stand_in(CLIENT).public_key()));
    let text = b"as it is, in a record of its own";
    pipe.settle();
    pipe.ends[CLIENT].send_datagram(Bytes::from_static(text), None);
    pipe.output(CLIENT, 1 << 20);
    let record = std::mem::take(&mut pipe.to[SERVER]);
    let header = record::parse(record.first_chunk().unwrap()).unwrap();
    assert_eq!(header.record_len(), record.len(), "one record, without a tag: {record:02x?}");
    assert!(record.ends_with(text));
}

/// S-7.6: who opens the channel and makes another one is found out by both, whoever it lets talk to the other.
#[test]
fn who_sits_between_two_channels_is_found_out_by_either_end() {
    for channels in [[Some(ONE), Some(OTHER)], [Some(ONE), None], [None, Some(ONE)]] {
        let mut pipe = bound(channels);
        let len = {
            pipe.output(CLIENT, 1 << 20);
            pipe.to[SERVER].len()
        };
        pipe.input(SERVER, len);
        let Some(Ended::Crypto(error)) = pipe.ended(SERVER) else { panic!("{:?}", pipe.events) };
        assert!(error.to_string().contains("another TLS channel"), "{error}");
        assert_eq!(pipe.ends[SERVER].peer_key(), None, "it was told nothing");
    }
    // A server that does not look, but cannot make its own channel the client's, is refused by its client.
    let config = Config { channel: Some(ONE), ..Config::default() };
    let elsewhere = Elsewhere(stand_in(SERVER));
    let mut pipe = pipe_of([&config, &config], [&stand_in(CLIENT), &elsewhere]);
    pipe.settle();
    assert!(matches!(pipe.ended(CLIENT), Some(Ended::Crypto(_))), "{:?}", pipe.events);
    assert_eq!(pipe.ends[SERVER].peer_key(), None, "the client did not say who it is");
}

/// A side that states another channel than the one that it compares with.
struct Elsewhere<C>(C);

impl<C: Crypto> Crypto for Elsewhere<C> {
    fn initial_keys(&self, side: Side, first_id: ConnectionId) -> Keys {
        self.0.initial_keys(side, first_id)
    }

    fn start(&self, side: Side, params: Vec<u8>) -> Result<Box<dyn Handshake>, CryptoError> {
        let params = Params { channel: Some(OTHER), ..Params::decode(&params).unwrap() };
        self.0.start(side, params.encode())
    }

    fn mac(&self, label: &[u8], data: &[u8]) -> [u8; 16] {
        self.0.mac(label, data)
    }
}

/// T-13.5: the carrier says nothing of its round trip.
#[test]
fn credit_does_not_hold_up_who_reads_at_once_over_a_long_round_trip() {
    const ONE_WAY: Duration = Duration::from_millis(80);
    const BYTES: u64 = 100_000_000;
    let mut pipe = sealed();
    let mut cable: [VecDeque<(Instant, Vec<u8>)>; 2] = Default::default();
    let mut flows = [Flow::new(SERVER, BYTES)];
    let started = pipe.now;
    while !pipe.step(&mut flows) {
        assert!(pipe.now < started + Duration::from_secs(10), "{} of {BYTES}", flows[0].read);
        for end in [SERVER, CLIENT] {
            pipe.output(1 - end, 1 << 20);
            let bytes = std::mem::take(&mut pipe.to[end]);
            if !bytes.is_empty() {
                cable[end].push_back((pipe.now + ONE_WAY, bytes));
            }
            while cable[end].front().is_some_and(|(at, _)| *at <= pipe.now) {
                let (_, bytes) = cable[end].pop_front().unwrap();
                pipe.to[end] = bytes;
                let len = pipe.to[end].len();
                pipe.input(end, len);
            }
        }
        pipe.now += Duration::from_millis(1);
    }
    let took = pipe.now - started;
    println!("{BYTES} bytes in {took:?}");
    // One window of 1 MiB a round trip would need 15 s.
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// The whole conversation of a client that sends 1,000 bytes and closes, as its server got it.
fn conversation() -> Vec<u8> {
    let mut pipe = sealed();
    let mut seen = Vec::new();
    let mut flows = [Flow::new(CLIENT, 1000)];
    for step in 0..10 {
        pipe.step(&mut flows);
        if step == 8 {
            pipe.ends[CLIENT].close(Ended::Local { code: 0, reason: String::new() });
        }
        pipe.output(CLIENT, 1 << 20);
        seen.extend_from_slice(&pipe.to[SERVER]);
        for end in [SERVER, CLIENT] {
            let len = pipe.to[end].len();
            if len > 0 {
                pipe.input(end, len);
            }
            pipe.output(SERVER, 1 << 20);
        }
    }
    assert_eq!(pipe.ended(SERVER), Some(&Ended::Peer { code: 0, reason: String::new() }));
    seen
}

/// A server that gets `bytes`, the preface among them, and then the end of the pipe.
fn serve(bytes: &[u8]) -> Pipe {
    let mut pipe = sealed();
    pipe.is_opened = true;
    pipe.ends[SERVER].handle_bytes(pipe.now, &mut bytes.to_vec()[8..]);
    pipe.collect(SERVER);
    pipe.output(SERVER, 1 << 20);
    pipe.ends[SERVER].handle_end();
    pipe.collect(SERVER);
    pipe
}

#[test]
fn a_client_for_which_there_is_no_room_hears_it_before_any_handshake() {
    for is_plain in [false, true] {
        let config = Config { is_plain, ..Config::default() };
        let plain = (&plain(CLIENT), &plain(SERVER));
        let mut pipe = match is_plain {
            true => new_pipe(&config, [plain.0, plain.1]),
            false => new_pipe(&config, [&stand_in(CLIENT), &stand_in(SERVER)]),
        };
        pipe.to[CLIENT] = RecordConnection::refusal(config.form(), Code::BUSY, "full");
        let len = pipe.to[CLIENT].len();
        pipe.input(CLIENT, len);
        let busy = Ended::PeerProtocol { code: Code::BUSY, reason: "full".to_owned() };
        assert_eq!(pipe.ended(CLIENT), Some(&busy));
        assert!(pipe.ends[CLIENT].is_gone());
    }
}

#[test]
fn a_pipe_that_ends_before_the_close_is_truncated_wherever_it_ends() {
    let whole = conversation();
    assert_eq!(serve(&whole).ended(SERVER), Some(&Ended::Peer { code: 0, reason: String::new() }));
    for len in 8..whole.len() {
        let pipe = serve(&whole[..len]);
        assert_eq!(pipe.ended(SERVER), Some(&Ended::Truncated), "after {len} of {}", whole.len());
        assert!(pipe.ends[SERVER].is_gone());
    }
}

#[test]
fn a_flipped_bit_anywhere_is_never_taken_for_a_clean_end() {
    let whole = conversation();
    for at in 8..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        let pipe = serve(&bytes);
        let ended = pipe.ended(SERVER).cloned();
        assert!(
            ended.as_ref().is_some_and(|ended| !ended.is_clean()),
            "bit in byte {at}: {ended:?}"
        );
    }
}

#[test]
fn rubbish_after_the_handshake_ends_it_and_says_so() {
    for seed in seeds(200) {
        let mut pipe = sealed();
        pipe.settle();
        assert!(pipe.ends[CLIENT].is_admitted());
        let mut bytes = vec![0; 1 + seed as usize * 7];
        Seeded::new(seed).fill(&mut bytes);
        pipe.ends[SERVER].handle_bytes(pipe.now, &mut bytes);
        pipe.collect(SERVER);
        pipe.ends[SERVER].handle_end();
        pipe.collect(SERVER);
        assert!(
            pipe.ended(SERVER).is_some_and(|ended| !ended.is_clean()),
            "seed {seed}: {:?}",
            pipe.events[SERVER]
        );
    }
}

#[test]
fn an_end_in_the_clear_is_not_believed_once_keys_are_there() {
    for end in [CLIENT, SERVER] {
        for kind in [0, 1] {
            let mut pipe = sealed();
            pipe.settle();
            let mut close = [kind, 0, 0, 4, 0x0D, 0, 0, 0];
            pipe.ends[end].handle_bytes(pipe.now, &mut close);
            pipe.collect(end);
            assert!(matches!(pipe.ended(end), Some(Ended::Breach { .. })), "{:?}", pipe.ended(end));
        }
    }
}

#[test]
fn a_record_of_data_before_the_proof_is_not_heard() {
    let whole = conversation();
    // Leaves out the Handshake records, which hold the client's proof.
    let mut bytes = whole[..8].to_vec();
    let mut rest = &whole[8..];
    while let [kind, _, high, low, ..] = *rest {
        let len = 4 + usize::from(u16::from_be_bytes([high, low]));
        if kind != 1 {
            bytes.extend_from_slice(&rest[..len]);
        }
        rest = &rest[len..];
    }
    let pipe = serve(&bytes);
    assert!(matches!(pipe.ended(SERVER), Some(Ended::Breach { .. })), "{:?}", pipe.ended(SERVER));
    assert!(
        !pipe.events[SERVER]
            .iter()
            .any(|event| matches!(event, Event::Stream(_) | Event::Handshaken))
    );
}

#[test]
fn a_close_is_heard_with_its_reason() {
    for end in [CLIENT, SERVER] {
        let mut pipe = sealed();
        pipe.settle();
        pipe.ends[end].close(Ended::Local { code: 4, reason: "enough".to_owned() });
        pipe.settle();
        assert_eq!(
            pipe.ended(1 - end),
            Some(&Ended::Peer { code: 4, reason: "enough".to_owned() })
        );
        assert!(pipe.ends.iter().all(RecordConnection::is_gone));
        pipe.ends.iter_mut().for_each(RecordConnection::handle_end);
        assert_ne!(pipe.ended(1 - end), Some(&Ended::Truncated));
    }
}

#[test]
fn a_wrong_peer_is_refused_and_told() {
    let expecting = stand_in(CLIENT).expecting(stand_in(9).public_key());
    let mut pipe = new_pipe(&Config::default(), [&expecting, &stand_in(SERVER)]);
    pipe.settle();
    assert!(matches!(pipe.ended(CLIENT), Some(Ended::Crypto(error)) if error.is_wrong_peer()));
    assert!(
        matches!(pipe.ended(SERVER), Some(Ended::PeerProtocol { .. })),
        "{:?}",
        pipe.ended(SERVER)
    );
}

#[test]
fn strangers_are_known_by_their_first_bytes() {
    for (bytes, opening) in [
        (&b""[..], Opening::Unknown),
        (b"cabo/1", Opening::Unknown),
        (b"cabo/1s\n", Opening::Cabo(Form::Sealed)),
        (b"cabo/1p\nrest", Opening::Cabo(Form::Plain)),
        (b"cabo/1t\n\0", Opening::Cabo(Form::Bound)),
        (b"cabo/1x\n", Opening::Stranger),
        (b"cabo/2s\n", Opening::Stranger),
        (b"GET / HTTP/1.1", Opening::Stranger),
        (b"\0", Opening::Stranger),
    ] {
        assert_eq!(Opening::of(bytes), opening, "{bytes:?}");
    }
    let mut pipe = sealed();
    pipe.ends[CLIENT].handle_bytes(pipe.now, &mut b"SSH-2.0-OpenSSH".to_vec());
    pipe.collect(CLIENT);
    assert!(matches!(pipe.ended(CLIENT), Some(Ended::Breach { code: Code::VERSION, .. })));
    for (mut pipe, other) in [
        (sealed(), Form::Plain),
        (sealed(), Form::Bound),
        (bound([Some(ONE); 2]), Form::Sealed),
        (bound([Some(ONE); 2]), Form::Plain),
    ] {
        pipe.ends[CLIENT].handle_bytes(pipe.now, &mut other.preface().to_vec());
        pipe.collect(CLIENT);
        assert!(
            matches!(pipe.ended(CLIENT), Some(Ended::Breach { code: Code::VERSION, .. })),
            "never negotiated down to {other:?}"
        );
    }
}

#[test]
fn a_peer_that_says_nothing_is_given_up() {
    let mut pipe = sealed();
    let deadline = pipe.ends[SERVER].deadline().unwrap();
    pipe.ends[SERVER].handle_timeout(deadline);
    pipe.collect(SERVER);
    assert_eq!(
        pipe.ended(SERVER),
        Some(&Ended::HandshakeTimeout { after: Config::default().handshake_timeout })
    );
    assert_eq!(pipe.ends[SERVER].deadline(), None);
}

#[test]
fn a_datagram_that_no_record_holds_is_dropped_and_holds_up_nothing() {
    let mut pipe = sealed();
    pipe.settle();
    let largest = pipe.ends[CLIENT].largest_datagram();
    for (len, byte) in [(largest + 1, 1), (largest, 2), (10, 3)] {
        pipe.ends[CLIENT].send_datagram(Bytes::from(vec![byte; len]), None);
    }
    pipe.settle();
    let came = pipe.events[SERVER].iter().filter_map(|event| match event {
        Event::Datagram(data) => Some((data.len(), data[0])),
        _ => None,
    });
    assert_eq!(came.collect::<Vec<_>>(), [(largest, 2), (10, 3)]);
    deliver(&mut pipe, 10_000, |there| there);
}

#[test]
fn one_budget_is_shared_by_both() {
    let budget: Arc<Budget> = Budget::new(1000);
    let crypto = stand_in(CLIENT);
    let connection =
        RecordConnection::client(origin(), Config::default(), &crypto, budget.clone()).unwrap();
    assert_eq!(budget.left(), 1000);
    drop(connection);
    assert_eq!(budget.left(), 1000);
}
