//! Both sides in a box: a cable with faults by seed, files by name, and virtual time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::client::{Ask, Client, Error, Event};
use super::frame::{Coverage, Form, Frame, Layout, Malformed, SEQUENCES, Type};
use super::server::{Outcome, Server, Want};
use super::{Description, Refusal, Sequence, Settings};
use crate::sim::link::{Link, LinkConfig};
use crate::sim::origin;

const LAYOUTS: [Layout; 4] = [Layout::C69, Layout::C68, Layout::Lsb, Layout::Msb];
const MODIFIED: &[u8] = b"2024-06-18 21:05:33";
/// Bytes that the server gets at once.
const PIECE: usize = 1000;

/// How bad it is, each way.
#[derive(Clone, Copy, Default)]
struct Bad {
    loss: f64,
    duplicate: f64,
    corrupt: f64,
    stray: f64,
}

const BAD: Bad = Bad { loss: 0.05, duplicate: 0.05, corrupt: 0.05, stray: 0.02 };

struct Trial {
    now: Instant,
    server: Server,
    links: [Link<Vec<u8>>; 2], // to the server, to the client
    files: BTreeMap<Vec<u8>, Vec<u8>>,
    serving: (Vec<u8>, usize),
    room: u64,
    stray: f64,
    form: Form,
    sequence: Sequence,
    rng: Rng,
    outcomes: Vec<Outcome>,
    sent: u64,
    sees: Vec<Result<Frame, Malformed>>,
}

#[derive(Default, Debug)]
struct Got {
    names: Vec<Vec<u8>>,
    about: Option<Description>,
    bytes: Vec<u8>,
    ended: Option<Result<(), Error>>,
}

impl Trial {
    fn new(settings: Settings, bad: Bad, seed: u64) -> Self {
        let config = LinkConfig {
            loss: bad.loss,
            duplicate: bad.duplicate,
            corrupt: bad.corrupt,
            delay: Duration::from_micros(100),
            ..LinkConfig::default()
        };
        Self {
            now: origin(),
            server: Server::new(settings),
            links: [Link::new(config.clone(), seed), Link::new(config, seed ^ 0x5555)],
            files: BTreeMap::new(),
            serving: (Vec::new(), 0),
            room: u64::MAX,
            stray: bad.stray,
            form: settings.form,
            sequence: settings.sequence,
            rng: Rng::with_seed(seed),
            outcomes: Vec::new(),
            sent: 0,
            sees: Vec::new(),
        }
    }

    fn with(mut self, name: &str, content: Vec<u8>) -> Self {
        self.files.insert(name.as_bytes().to_vec(), content);
        self
    }

    /// Puts a frame on the cable, at times followed by one with a number of another time.
    fn send(&mut self, direction: usize, bytes: Vec<u8>) {
        self.sent += 1;
        self.sees.push(self.form.decode(&bytes));
        if self.rng.f64() < self.stray
            && let Ok(mut frame) = self.form.decode(&bytes)
        {
            frame.sequence = (frame.sequence + self.rng.u8(12..=20)) % SEQUENCES;
            // In `streaming` it is not the number of a confirmation that says what is confirmed.
            let is_reply = matches!(frame.kind, Type::Ack | Type::Nack);
            let is_request = matches!(frame.kind, Type::List | Type::Download);
            if !(is_request || is_reply && self.sequence == Sequence::Streaming) {
                let _ = self.links[direction].send(self.now, self.form.encode(&frame));
            }
        }
        let _ = self.links[direction].send(self.now, bytes);
    }

    fn supply(&mut self) {
        while let Some(want) = self.server.poll_want() {
            match want {
                Want::Names => self.server.supply_names(self.files.keys().cloned()),
                Want::File { name, offset } => match self.files.get(&name) {
                    None => self.server.refuse(Refusal::NotFound),
                    Some(file) => {
                        let size = file.len() as u64;
                        let offset = if offset <= size { offset } else { 0 };
                        let modified = MODIFIED.to_vec();
                        self.serving = (name, offset as usize);
                        self.server.supply_file(&Description {
                            size: Some(size),
                            modified,
                            offset,
                        });
                    }
                },
                Want::Bytes => {
                    let (name, at) = &mut self.serving;
                    let rest = &self.files[name][*at..];
                    let piece = rest.get(..PIECE).unwrap_or(rest);
                    *at += piece.len();
                    self.server.supply_bytes(piece);
                }
            }
        }
        self.outcomes.extend(std::iter::from_fn(|| self.server.poll_outcome()));
    }

    fn flush(&mut self, client: Option<&mut Client>) {
        self.supply();
        while let Some(bytes) = self.server.poll_transmit(self.now) {
            self.send(1, bytes);
        }
        let Some(client) = client else { return };
        while let Some(bytes) = client.poll_transmit(self.now) {
            self.send(0, bytes);
        }
    }

    /// One step of time; false when nothing is to come.
    fn step(&mut self, mut client: Option<&mut Client>) -> bool {
        self.flush(client.as_deref_mut());
        let timers = [self.server.poll_timeout(), client.as_ref().and_then(|c| c.poll_timeout())];
        let due = self.links.iter().map(Link::next_deadline).chain(timers).flatten().min();
        let Some(due) = due else { return false };
        self.now = self.now.max(due);
        while let Some(bytes) = self.links[0].poll(self.now) {
            self.server.handle_frame(self.now, &bytes);
            self.supply();
        }
        while let Some(bytes) = self.links[1].poll(self.now) {
            if let Some(client) = &mut client {
                client.handle_frame(self.now, &bytes);
            }
        }
        self.server.handle_timeout(self.now);
        if let Some(client) = client {
            client.handle_timeout(self.now);
        }
        true
    }

    /// Lets it run until the client has its answer and the cable is quiet.
    fn run(&mut self, client: &mut Client) -> Got {
        let mut got = Got::default();
        self.run_while(client, &mut got, |_, _| true);
        got
    }

    fn run_while(
        &mut self,
        client: &mut Client,
        got: &mut Got,
        mut goes_on: impl FnMut(&Self, &Got) -> bool,
    ) {
        let limit = self.now + Duration::from_secs(3600);
        while goes_on(self, got) && self.step(Some(client)) {
            assert!(self.now < limit, "it does not end: {got:?}");
            while let Some(event) = client.poll_event() {
                match event {
                    Event::Name(name) => got.names.push(name),
                    Event::Described(about) => {
                        if about.size > Some(self.room) {
                            client.refuse(Refusal::DiskFull);
                        } else {
                            client.accept();
                        }
                        got.about = Some(about);
                    }
                    Event::Bytes(bytes) => got.bytes.extend(bytes),
                    Event::Ended(result) => {
                        assert!(got.ended.replace(result).is_none(), "it ends once");
                    }
                }
            }
        }
    }

    fn get(&mut self, settings: Settings, name: &str, offset: u64) -> Got {
        let ask = Ask::Download { name: name.as_bytes().to_vec(), offset };
        self.run(&mut Client::new(settings, ask, 0).unwrap())
    }
}

fn settings(layout: Layout, sequence: Sequence, window: u8) -> Settings {
    Settings { form: Form::of(layout), sequence, window, is_cut: true }
}

/// What our own ends use where frames are corrupted: a CRC of all that can be hit.
fn proof(settings: Settings) -> Settings {
    Settings { form: Form { coverage: Coverage::Frame, ..settings.form }, ..settings }
}

fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut content = vec![0; len];
    Rng::with_seed(seed).fill(&mut content);
    content
}

fn every_way() -> impl Iterator<Item = Settings> {
    let ways =
        [(Sequence::Rss, 1), (Sequence::Rss, 5), (Sequence::Streaming, 5), (Sequence::Wired, 5)];
    LAYOUTS.into_iter().flat_map(move |layout| {
        ways.into_iter().map(move |(sequence, window)| settings(layout, sequence, window))
    })
}

#[test]
fn files_of_every_size_arrive_whole_in_every_layout_and_sequence() {
    for settings in every_way() {
        for len in [0, 1, 62, 63, 64, 126, 5000] {
            let mut trial = Trial::new(settings, Bad::default(), 1).with("a", content(len, 7));
            let got = trial.get(settings, "a", 0);
            assert_eq!(got.ended, Some(Ok(())), "{settings:?} {len}");
            assert_eq!(got.bytes, trial.files[b"a".as_slice()], "{settings:?} {len}");
            let size = got.about.unwrap().size;
            assert!(size == Some(len as u64) || settings.sequence == Sequence::Wired);
            assert_eq!(trial.outcomes, [Outcome::Done]);
            let frames = len as u64 / 63 + 2; // and a half a frame where it was cut
            assert!(trial.sent <= 3 * (frames + 4), "{settings:?} {len}: {} frames", trial.sent);
        }
    }
}

#[test]
fn two_megabytes_arrive_whole_over_a_good_cable() {
    for settings in
        [settings(Layout::C69, Sequence::Rss, 1), settings(Layout::Msb, Sequence::Rss, 5)]
    {
        let mut trial = Trial::new(settings, Bad::default(), 2).with("a", content(2_115_821, 3));
        let got = trial.get(settings, "a", 0);
        assert_eq!(got.ended, Some(Ok(())));
        assert!(got.bytes == trial.files[b"a".as_slice()]);
    }
}

#[test]
fn a_bad_cable_changes_nothing_but_the_time() {
    for settings in every_way().map(proof) {
        for seed in 0..4 {
            let mut trial = Trial::new(settings, BAD, seed).with("a", content(40_000, seed));
            let got = trial.get(settings, "a", 0);
            assert_eq!(got.ended, Some(Ok(())), "{settings:?} seed {seed}");
            assert!(got.bytes == trial.files[b"a".as_slice()], "{settings:?} seed {seed}");
        }
    }
}

#[test]
fn a_lossy_cable_is_no_matter_for_programs_that_prove_the_data_alone() {
    for settings in every_way() {
        for seed in 0..4 {
            let bad = Bad { corrupt: 0.0, ..BAD };
            let mut trial = Trial::new(settings, bad, seed).with("a", content(40_000, seed));
            let got = trial.get(settings, "a", 0);
            assert_eq!(got.ended, Some(Ok(())), "{settings:?} seed {seed}");
            assert!(got.bytes == trial.files[b"a".as_slice()], "{settings:?} seed {seed}");
        }
    }
}

#[test]
fn two_megabytes_cross_a_bad_cable() {
    for window in [1, 5] {
        let settings = proof(settings(Layout::C69, Sequence::Rss, window));
        let mut trial = Trial::new(settings, BAD, 11).with("a", content(2_115_821, 5));
        let got = trial.get(settings, "a", 0);
        assert_eq!(got.ended, Some(Ok(())), "window {window}");
        assert!(got.bytes == trial.files[b"a".as_slice()], "window {window}");
    }
}

#[test]
fn the_catalogue_is_told_and_counted_on() {
    for settings in every_way() {
        let long = "n".repeat(63);
        let mut trial = Trial::new(settings, Bad::default(), 3)
            .with("b.mp4", content(10, 1))
            .with(&long, content(100, 2))
            .with(&"x".repeat(64), Vec::new())
            .with("\u{e9}", Vec::new());
        let mut client = Client::new(settings, Ask::List, 0).unwrap();
        let got = trial.run(&mut client);
        let expected = [b"b.mp4".to_vec(), long.as_bytes().to_vec(), "\u{e9}".into()];
        assert_eq!((got.names, got.ended), (expected.to_vec(), Some(Ok(()))));
        let ask = Ask::Download { name: long.into_bytes(), offset: 0 };
        let got = trial.run(&mut Client::new(settings, ask, client.next()).unwrap());
        assert_eq!((got.bytes.len(), got.ended), (100, Some(Ok(()))), "{settings:?}");
    }
}

/// neither the client nor the kernel matters, no frame has a tag where one would be taken out.
#[test]
fn no_frame_has_a_vlan_tag_where_the_kernel_looks() {
    for settings in every_way() {
        for tag in [[0x81, 0x00], [0x88, 0xA8]] {
            let whole: Vec<u8> =
                (0..63).flat_map(|at| [vec![7; at], tag.to_vec()].concat()).collect();
            let mut trial = Trial::new(settings, Bad::default(), 4).with("a", whole.clone());
            let mut is_tagged = false;
            let mut got = Got::default();
            let ask = Ask::Download { name: b"a".to_vec(), offset: 0 };
            let mut client = Client::new(settings, ask, 0).unwrap();
            trial.run_while(&mut client, &mut got, |trial, _| {
                let frames = trial.sees.iter().flatten();
                is_tagged |= frames.clone().any(|frame| settings.form.encode(frame)[12..14] == tag);
                true
            });
            assert!(got.bytes == whole && !is_tagged, "{settings:?}");
        }
    }
}

#[test]
fn a_file_that_is_not_there_is_refused_in_words_and_the_next_request_is_served() {
    for settings in every_way() {
        let mut trial = Trial::new(settings, Bad::default(), 5).with("a", content(100, 1));
        let got = trial.get(settings, "b", 0);
        assert_eq!(got.ended, Some(Err(Error::Refused(Refusal::NotFound))), "{settings:?}");
        assert_eq!(trial.get(settings, "a", 0).ended, Some(Ok(())));
        if settings.sequence == Sequence::Wired {
            continue; // nobody says how large it is
        }
        trial.room = 99;
        let got = trial.get(settings, "a", 0);
        assert_eq!(got.ended, Some(Err(Error::RefusedHere(Refusal::DiskFull))));
        assert_eq!(trial.outcomes.last(), Some(&Outcome::ClientRefused(Refusal::DiskFull)));
        trial.room = 100;
        assert_eq!(trial.get(settings, "a", 0).ended, Some(Ok(())));
    }
}

#[test]
fn a_client_that_vanishes_is_given_up_and_one_that_restarts_is_served() {
    for settings in every_way() {
        let mut trial = Trial::new(settings, Bad::default(), 6).with("a", content(50_000, 1));
        let ask = Ask::Download { name: b"a".to_vec(), offset: 0 };
        let mut client = Client::new(settings, ask.clone(), 0).unwrap();
        trial.run_while(&mut client, &mut Got::default(), |_, got| got.bytes.len() < 20_000);
        let got = trial.get(settings, "a", 0); // the same request again, while the server is in the file
        assert_eq!((got.bytes.len(), got.ended), (50_000, Some(Ok(()))), "{settings:?}");
        let mut client = Client::new(settings, ask, 0).unwrap();
        trial.run_while(&mut client, &mut Got::default(), |_, got| got.bytes.len() < 20_000);
        let before = trial.now;
        while trial.server.is_busy() {
            assert!(trial.step(None));
        }
        assert!(trial.now - before < Duration::from_secs(8), "{:?}", trial.now - before);
        trial.supply();
        assert_eq!(trial.outcomes.last(), Some(&Outcome::Vanished));
        assert_eq!(trial.get(settings, "a", 0).ended, Some(Ok(())));
    }
}

#[test]
fn a_silent_server_is_given_up_in_bounded_time() {
    for settings in every_way() {
        let mut trial = Trial::new(settings, Bad { loss: 1.0, ..Bad::default() }, 7);
        let start = trial.now;
        let got = trial.get(settings, "a", 0);
        assert_eq!(got.ended, Some(Err(Error::NoAnswer)));
        assert!(trial.now - start < Duration::from_secs(8));
        assert!(trial.sent <= 10, "{}", trial.sent);
    }
}

/// the ACK of a request that was lost is said again, and the answer does not begin twice.
#[test]
fn a_repeated_request_after_a_lost_confirmation_begins_nothing_anew() {
    let settings = settings(Layout::C69, Sequence::Rss, 1);
    let mut trial = Trial::new(settings, Bad::default(), 8).with("a", content(200, 1));
    let request = Frame { sequence: 9, kind: Type::Download, data: b"a".to_vec() };
    let request = settings.form.encode(&request);
    trial.server.handle_frame(trial.now, &request);
    trial.flush(None);
    trial.server.handle_frame(trial.now, &request);
    trial.flush(None);
    let seen: Vec<_> = trial.sees.iter().flatten().map(|f| (f.kind, f.sequence)).collect();
    let expected = [(Type::Ack, 9), (Type::Describe, 10), (Type::Ack, 9)];
    assert_eq!(seen, expected, "{:?}", trial.outcomes);
    assert!(trial.outcomes.is_empty());
}

/// what is here does not come again, and a server without offers sends all of it.
#[test]
fn a_download_goes_on_where_it_was() {
    let ours = settings(Layout::C69, Sequence::Rss, 5);
    let mut trial = Trial::new(ours, Bad::default(), 9).with("a", content(1000, 1));
    let got = trial.get(ours, "a", 400);
    let about = Description { size: Some(1000), modified: MODIFIED.to_vec(), offset: 400 };
    assert_eq!((got.about, got.ended), (Some(about), Some(Ok(()))));
    assert_eq!(got.bytes, trial.files[b"a".as_slice()][400..]);
    assert_eq!(trial.get(ours, "a", 1000).bytes, b"");
    assert_eq!(trial.get(ours, "a", 1001).bytes.len(), 1000, "it has another file");
}

/// A program that takes the size of a request for the length of the name finds nothing with our offer.
#[test]
fn a_server_that_stumbles_over_an_offer_is_asked_without() {
    let ours = settings(Layout::C69, Sequence::Rss, 5);
    let ask = Ask::Download { name: b"a".to_vec(), offset: 0 };
    let mut client = Client::new(ours, ask, 0).unwrap();
    let now = origin();
    let says = |client: &mut Client| -> Vec<Frame> {
        let sent = std::iter::from_fn(|| client.poll_transmit(now));
        sent.map(|bytes| ours.form.decode(&bytes).unwrap()).collect()
    };
    assert!(says(&mut client)[0].data.starts_with(b"a\0"));
    let error = Frame { sequence: 1, kind: Type::Error, data: 2u32.to_le_bytes().to_vec() };
    client.handle_frame(now, &ours.form.encode(&error));
    let said: Vec<_> = says(&mut client);
    assert_eq!(said[0], Frame { sequence: 1, kind: Type::Ack, data: Vec::new() });
    assert_eq!(said[1], Frame { sequence: 2, kind: Type::Download, data: b"a".to_vec() });
    client.handle_frame(now, &ours.form.encode(&Frame { sequence: 3, ..error }));
    says(&mut client);
    assert_eq!(client.poll_event(), Some(Event::Ended(Err(Error::Refused(Refusal::NotFound)))));
}

///
#[test]
fn a_wrong_crc_is_asked_for_again_and_never_confirmed() {
    for layout in LAYOUTS {
        let settings = settings(layout, Sequence::Rss, 1);
        let (now, form) = (origin(), settings.form);
        let garbled = |kind, sequence, data: &[u8]| {
            let mut bytes = form.encode(&Frame { sequence, kind, data: data.to_vec() });
            bytes[5] ^= 0x20;
            bytes
        };
        let mut server = Server::new(settings);
        server.handle_frame(now, &garbled(Type::Download, 7, b"film"));
        let said: Vec<_> = std::iter::from_fn(|| server.poll_transmit(now)).collect();
        let nack = |sequence| form.encode(&Frame { sequence, kind: Type::Nack, data: Vec::new() });
        assert_eq!(said, [nack(7)], "{layout:?}");
        assert!(!server.is_busy());

        let ask = Ask::Download { name: b"film".to_vec(), offset: 0 };
        let mut client = Client::new(settings, ask, 7).unwrap();
        client.poll_transmit(now);
        let ack = Frame { sequence: 7, kind: Type::Ack, data: Vec::new() };
        client.handle_frame(now, &form.encode(&ack));
        client.handle_frame(now, &garbled(Type::Describe, 8, &5u64.to_le_bytes()));
        let said: Vec<_> = std::iter::from_fn(|| client.poll_transmit(now)).collect();
        assert_eq!(said, [nack(8)], "{layout:?}");
    }
}

#[test]
fn garbage_is_dropped_and_counted() {
    let settings = settings(Layout::C69, Sequence::Rss, 5);
    let mut trial = Trial::new(settings, Bad::default(), 10).with("a", content(100, 1));
    let mut rng = Rng::with_seed(1);
    for _ in 0..20_000 {
        let mut frame = vec![0; rng.usize(0..80)];
        rng.fill(&mut frame);
        if let (Some(first), true) = (frame.first_mut(), rng.bool()) {
            *first = 0x7E;
        }
        trial.server.handle_frame(trial.now, &frame);
        trial.flush(None);
        trial.server.handle_timeout(trial.now);
    }
    let drops = trial.server.drops();
    assert!(drops.malformed > 5000 && drops.garbled > 100, "{drops:?}");
    assert_eq!(trial.get(settings, "a", 0).ended, Some(Ok(())));
}

#[test]
fn a_client_survives_any_answer() {
    let mut rng = Rng::with_seed(2);
    let kinds =
        [Type::Ack, Type::Nack, Type::Show, Type::Describe, Type::Data, Type::End, Type::Error];
    for round in 0..3000 {
        let settings = settings(Layout::Lsb, [Sequence::Rss, Sequence::Streaming][round % 2], 5);
        let ask =
            [Ask::List, Ask::Download { name: b"a".to_vec(), offset: 0 }][round / 2 % 2].clone();
        let mut client = Client::new(settings, ask, 0).unwrap();
        let mut now = origin();
        for _ in 0..60 {
            let mut data = vec![0; rng.usize(0..64)];
            rng.fill(&mut data);
            if rng.bool() {
                data = b"12".to_vec();
            }
            let sequence = if rng.bool() { client.next() } else { rng.u8(0..32) };
            let frame = Frame { sequence, kind: kinds[rng.usize(0..kinds.len())], data };
            client.handle_frame(now, &settings.form.encode(&frame));
            client.accept();
            while client.poll_event().is_some() {}
            assert!(std::iter::from_fn(|| client.poll_transmit(now)).count() <= 3);
            now += Duration::from_millis(rng.u64(0..300));
            client.handle_timeout(now);
        }
    }
}
