//! Both sides of an exchange of the course protocol, with another side that says anything at any time.

use std::time::{Duration, Instant};

use cabo_proto::redes::client::{Ask, Client, Event};
use cabo_proto::redes::frame::{Coverage, Form, Frame, Layout, Type};
use cabo_proto::redes::server::{Server, Want};
use cabo_proto::redes::{Description, Refusal, Sequence, Settings, WINDOW_MAX};
use cabo_proto::sim::origin;

/// Frames that one frame, or one moment, may bring at most: what waits at the server, and a window.
const ANSWERS_MAX: usize = 64 + WINDOW_MAX as usize;
/// Timers that run out until nothing is left to wait for.
const TIMERS_MAX: usize = 200;

/// The first bytes choose how the sides talk; then come frames, raw or with a good CRC, and spans of time.
pub fn exchange(input: &[u8]) {
    let [how, which, rest @ ..] = input else { return };
    let settings = settings(*how, *which);
    let ask = match which & 0x80 {
        0 => Ask::List,
        _ => Ask::Download { name: b"film.mp4".to_vec(), offset: u64::from(*how) },
    };
    let Ok(mut client) = Client::new(settings, ask, *which) else { return };
    let mut server = Server::new(settings);
    let mut now = origin();
    let mut rest = rest;
    while let [verb, more @ ..] = rest {
        let (bytes, left) = more.split_at(usize::from(verb & 0x3F).min(more.len()));
        rest = left;
        match verb >> 6 {
            0 => now += Duration::from_millis(u64::from(bytes.first().copied().unwrap_or(1)) * 8),
            1 => hear(&mut client, &mut server, now, bytes),
            _ => hear(&mut client, &mut server, now, &forged(settings.form, bytes)),
        }
        client.handle_timeout(now);
        server.handle_timeout(now);
        turn(&mut client, &mut server, now);
    }
    come_to_rest(&mut client, &mut server, now);
}

fn settings(how: u8, which: u8) -> Settings {
    let layout = [Layout::C69, Layout::C68, Layout::Lsb, Layout::Msb][usize::from(how & 3)];
    let own = Form::of(layout);
    let coverages = [own.coverage, Coverage::Data, Coverage::Header, Coverage::Frame];
    let sequences = [Sequence::Rss, Sequence::Streaming, Sequence::Wired, Sequence::Rss];
    Settings {
        form: Form { layout, coverage: coverages[usize::from(how >> 2 & 3)] },
        sequence: sequences[usize::from(how >> 4 & 3)],
        window: which % WINDOW_MAX + 1,
        is_cut: how & 0x40 == 0,
    }
}

/// A frame that is one: kind and number from two bytes, the rest is its data.
fn forged(form: Form, bytes: &[u8]) -> Vec<u8> {
    let [kind, sequence, data @ ..] = bytes else { return Vec::new() };
    let Some(kind) = Type::of(*kind) else { return Vec::new() };
    form.encode(&Frame { sequence: *sequence, kind, data: data.to_vec() })
}

fn hear(client: &mut Client, server: &mut Server, now: Instant, bytes: &[u8]) {
    client.handle_frame(now, bytes);
    server.handle_frame(now, bytes);
}

/// The owners do their part, and all that is due leaves.
fn turn(client: &mut Client, server: &mut Server, now: Instant) {
    while let Some(want) = server.poll_want() {
        match want {
            Want::Names => {
                server.supply_names([b"a".to_vec(), vec![b'n'; 64], b"film.mp4".to_vec()])
            }
            Want::File { offset, .. } if offset > 1000 => server.refuse(Refusal::NotFound),
            Want::File { offset, .. } => server.supply_file(&Description {
                size: Some(1000),
                modified: b"2024-06-18 21:05:33".to_vec(),
                offset,
            }),
            Want::Bytes => server.supply_bytes(&[0x81; 300]),
        }
    }
    while server.poll_outcome().is_some() {}
    while let Some(event) = client.poll_event() {
        match event {
            Event::Described(about) if about.offset > about.size.unwrap_or_default() => {
                client.refuse(Refusal::DiskFull);
            }
            Event::Described(_) => client.accept(),
            Event::Name(name) => assert!(!name.is_empty()),
            Event::Bytes(bytes) => assert!(!bytes.is_empty()),
            Event::Ended(_) => assert!(client.is_over()),
        }
    }
    let said = std::iter::from_fn(|| client.poll_transmit(now)).take(ANSWERS_MAX).count();
    assert!(said < ANSWERS_MAX, "the client does not stop");
    let said = std::iter::from_fn(|| server.poll_transmit(now)).take(2 * ANSWERS_MAX).count();
    assert!(said <= ANSWERS_MAX, "the server says {said} frames at once");
}

/// With nobody there any more both give up, and wait for nothing.
fn come_to_rest(client: &mut Client, server: &mut Server, mut now: Instant) {
    for _ in 0..TIMERS_MAX {
        turn(client, server, now);
        let due = [client.poll_timeout(), server.poll_timeout()].into_iter().flatten().min();
        let Some(due) = due else {
            assert!(client.is_over(), "the client waits for nothing");
            assert!(!server.is_busy(), "the server serves nobody");
            return;
        };
        now = now.max(due);
        client.handle_timeout(now);
        server.handle_timeout(now);
    }
    panic!("it does not end");
}
