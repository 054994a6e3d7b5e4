//! What servers of other people's programs sent to ours, byte for byte, and what has to be answered.
//!
//! The bytes come from three programs of the course on a link with cabo (`docs/compat.md`): one of layout c69 and sequence
//! `rss`, one of layout lsb and sequence `streaming`, one of layout c68 and sequence `wired`.

use std::time::{Duration, Instant};

use super::client::{Ask, Client, Error, Event};
use super::frame::{Form, Frame, Layout, Type};
use super::server::{Outcome, Server, Want};
use super::{Description, Refusal, Sequence, Settings};
use crate::sim::origin;

/// A client, what it heard so far, and when.
struct Talk {
    client: Client,
    form: Form,
    now: Instant,
    bytes: Vec<u8>,
    names: Vec<Vec<u8>>,
    ended: Option<Result<(), Error>>,
}

impl Talk {
    fn new(layout: Layout, sequence: Sequence, ask: Ask) -> Self {
        let form = Form::of(layout);
        let settings = Settings { form, sequence, ..Settings::default() };
        let client = Client::new(settings, ask, 0).unwrap();
        let (bytes, names, ended) = (Vec::new(), Vec::new(), None);
        Self { client, form, now: origin(), bytes, names, ended }
    }

    fn list(layout: Layout, sequence: Sequence) -> Self {
        Self::new(layout, sequence, Ask::List)
    }

    fn download(layout: Layout, sequence: Sequence) -> Self {
        Self::new(layout, sequence, Ask::Download { name: b"a".to_vec(), offset: 0 })
    }

    /// What it sends now, after what it heard.
    fn says(&mut self) -> Vec<Vec<u8>> {
        while let Some(event) = self.client.poll_event() {
            match event {
                Event::Name(name) => self.names.push(name),
                Event::Described(_) => self.client.accept(),
                Event::Bytes(bytes) => self.bytes.extend(bytes),
                Event::Ended(result) => self.ended = Some(result),
            }
        }
        std::iter::from_fn(|| self.client.poll_transmit(self.now)).collect()
    }

    fn hears(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        self.client.handle_frame(self.now, frame);
        self.says()
    }

    fn hears_frame(&mut self, kind: Type, sequence: u8, data: &[u8]) -> Vec<Vec<u8>> {
        self.hears(&self.form.encode(&Frame { sequence, kind, data: data.to_vec() }))
    }

    fn waits(&mut self, time: Duration) -> Vec<Vec<u8>> {
        let until = self.now + time;
        let mut said = Vec::new();
        while let Some(due) = self.client.poll_timeout().filter(|due| *due <= until) {
            self.now = due;
            self.client.handle_timeout(due);
            said.extend(self.says());
        }
        self.now = until;
        said
    }
}

/// Bytes of a frame, and zeros or what the program's memory had up to its length.
fn frame(head: &[u8], len: usize, junk: u8) -> Vec<u8> {
    let mut bytes = head.to_vec();
    bytes.resize(len, junk);
    bytes
}

fn c69(head: &[u8], crc: u8) -> Vec<u8> {
    let mut bytes = frame(head, 68, 0x5F);
    bytes.push(crc);
    bytes
}

fn ack(number: u8) -> Vec<u8> {
    frame(&[0x7E, 0, number, 0], 69, 0)
}

/// its counter stood at 3 when our second command asked with 0.
#[test]
fn a_server_that_counts_on_from_an_earlier_client_is_followed() {
    let mut talk = Talk::download(Layout::C69, Sequence::Rss);
    assert_eq!(talk.says()[0][..8], *b"\x7e\x0c\x00\x0ba\0\x01\x05");
    assert!(talk.hears(&c69(b"\x7e\x00\x03\x00", 0)).is_empty());
    assert_eq!(talk.hears(&c69(b"\x7e\x08\x04\x11\x46\0\0\0\0\0\0\0", 0xB6)), [ack(4)]);
    assert_eq!(talk.hears(&c69(b"\x7e\x13\x05\x112026-11-21 18:32:33", 0x27)), [ack(5)]);
    assert_eq!(talk.hears_frame(Type::Data, 6, &[b'x'; 63]), [ack(6)]);
    assert_eq!(talk.hears(&c69(b"\x7e\x07\x07\x12xxxxxxx", 0x17)), [ack(7)]);
    assert_eq!(talk.hears(&c69(b"\x7e\x00\x48\x5e", 0)), [ack(8)]);
    assert_eq!((talk.bytes.len(), talk.ended), (70, Some(Ok(()))));
}

#[test]
fn a_catalogue_comes_from_a_server_that_counts_on() {
    let mut talk = Talk::list(Layout::C69, Sequence::Rss);
    talk.says();
    talk.hears(&c69(b"\x7e\x00\x1f\x00", 0)); // and around the ring
    assert_eq!(talk.hears_frame(Type::Data, 0, b"film.mp4"), [ack(0)]);
    assert_eq!(talk.hears(&c69(b"\x7e\x00\x41\xfe", 0)), [ack(1)]);
    assert_eq!((talk.names, talk.ended), (vec![b"film.mp4".to_vec()], Some(Ok(()))));
}

/// A server that still sends a file to a client that vanished answers a LISTA with more of it, in just that way.
#[test]
fn the_middle_of_a_file_is_no_catalogue() {
    for data in [b"\0\0\0\x18ftypmp42".as_slice(), b"one line\nand another", b"a/b", b""] {
        let mut talk = Talk::list(Layout::C69, Sequence::Rss);
        talk.says();
        talk.hears_frame(Type::Ack, 9, b"");
        assert!(talk.hears_frame(Type::Data, 10, data).is_empty(), "{data:?}");
        talk.waits(Duration::from_secs(60));
        assert_eq!((talk.names.len(), talk.ended), (0, Some(Err(Error::NoAnswer))));
    }
}

/// a client vanished in the middle of a file, and whoever asks hears the frame that it did not confirm.
#[test]
fn a_server_that_waits_for_a_client_that_vanished_is_told_to_give_it_up() {
    let mut talk = Talk::download(Layout::C69, Sequence::Rss);
    let request = talk.says();
    for round in 0..3 {
        assert!(talk.hears(&c69(b"\x7e\x00\x09\x00", 0)).is_empty(), "{round}");
        assert!(talk.hears_frame(Type::Data, 10, &[0x5A; 63]).is_empty(), "{round}");
        if round < 2 {
            assert_eq!(talk.waits(Duration::from_millis(40 << round)), request, "{round}");
        }
    }
    let error = Frame { sequence: 12, kind: Type::Error, data: vec![3, 0, 0, 0] };
    let error = talk.form.encode(&error);
    let said = talk.waits(Duration::from_millis(300));
    assert_eq!(said, [error.clone(), error, request[0].clone()]);
    assert!(talk.hears_frame(Type::Ack, 11, b"").is_empty(), "of the ERRO");
    assert!(talk.hears_frame(Type::Ack, 12, b"").is_empty(), "of the request");
    assert_eq!(talk.hears_frame(Type::Describe, 13, &5u64.to_le_bytes()), [ack(13)]);
}

/// A transfer that goes on is somebody's.
#[test]
fn a_server_that_gets_on_is_left_alone() {
    let mut talk = Talk::download(Layout::C69, Sequence::Rss);
    let request = talk.says();
    for number in 5..31 {
        talk.hears_frame(Type::Ack, number, b"");
        talk.hears_frame(Type::Data, number + 1, &[0x5A; 63]);
        let said = talk.waits(Duration::from_millis(50));
        assert!(said.iter().all(|frame| *frame == request[0]), "{number}");
    }
}

/// What another client is told is not for us, even where it looks like an answer.
#[test]
fn the_answer_to_another_client_is_not_taken() {
    let mut talk = Talk::download(Layout::C69, Sequence::Rss);
    let own = talk.says().remove(0);
    talk.hears(&own); // an echo of our own is nobody else
    assert!(talk.hears_frame(Type::Download, 20, b"another.mp4").is_empty());
    talk.hears_frame(Type::Ack, 20, b"");
    assert!(talk.hears_frame(Type::Describe, 21, &5u64.to_le_bytes()).is_empty());
    assert_eq!(talk.hears_frame(Type::Ack, 0, b""), [] as [Vec<u8>; 0]);
    assert_eq!(talk.hears_frame(Type::Describe, 1, &7u64.to_le_bytes()), [ack(1)]);
}

/// 400 bytes as they came, in two windows. A confirmation too many would have brought all of it again.
#[test]
fn a_window_gets_one_confirmation() {
    let mut talk = Talk::download(Layout::Lsb, Sequence::Streaming);
    assert_eq!(talk.says(), [frame(b"\x7e\x01\x58a\xef", 14, 0)]);
    assert!(talk.hears(b"\x7e\x01\x00\x30\xfbjqvwwsdomt").is_empty());
    let said = talk.hears(b"\x7e\x50\x88400,202611211832\x51");
    assert_eq!(said, [frame(b"\x7e\x41\x00\x31\x7a", 14, 0)]);
    // It listens for 100 ms whether we have room; what it hears there it answers, with a number of its own.
    assert!(talk.waits(Duration::from_secs(1)).is_empty());
    let window =
        [(b"\xbf\x90", 0x5D), (b"\xff\x90", 0x09), (b"\x3f\x91", 0xE5), (b"\x7f\x91", 0xB1)];
    for (head, crc) in window {
        let data = [b"\x7e".as_slice(), head, &[b'x'; 63], &[crc]].concat();
        assert!(talk.hears(&data).is_empty());
    }
    let last = [b"\x7e\xbf\x91".as_slice(), &[b'x'; 63], b"\x4d"].concat();
    assert_eq!(talk.hears(&last), [frame(b"\x7e\x81\x00\x36\xe2", 14, 0)]);
    let next = [b"\x7e\xff\x91".as_slice(), &[b'x'; 63], b"\x19"].concat();
    assert!(talk.hears(&next).is_empty());
    assert!(talk.hears(&[b"\x7e\x16\x92".as_slice(), &[b'x'; 22], b"\x5a"].concat()).is_empty());
    assert_eq!(talk.hears(b"\x7e\x40\xf2\x8bewixemrqob"), [frame(b"\x7e\xc1\x00\x39\x49", 14, 0)]);
    assert_eq!((talk.bytes, talk.ended), (vec![b'x'; 400], Some(Ok(()))));
}

/// it ended where ERRO came before the confirmation of its description, and went on so.
#[test]
fn a_description_is_confirmed_before_the_file_is_refused() {
    for refuses_at_once in [true, false] {
        let mut talk = Talk::download(Layout::Lsb, Sequence::Streaming);
        talk.says();
        talk.hears_frame(Type::Ack, 0, b"0");
        let about = Frame { sequence: 1, kind: Type::Describe, data: b"9,202611211832".to_vec() };
        talk.client.handle_frame(talk.now, &talk.form.encode(&about));
        let mut said = Vec::new();
        if !refuses_at_once {
            said.extend(std::iter::from_fn(|| talk.client.poll_transmit(talk.now)));
        }
        talk.client.refuse(Refusal::DiskFull);
        said.extend(std::iter::from_fn(|| talk.client.poll_transmit(talk.now)));
        let said: Vec<_> = said.iter().map(|bytes| talk.form.decode(bytes).unwrap()).collect();
        let ack = Frame { sequence: 1, kind: Type::Ack, data: b"1".to_vec() };
        let error = Frame { sequence: 2, kind: Type::Error, data: b"3".to_vec() };
        assert_eq!(said, [ack, error]);
        assert_eq!(talk.client.next(), 3);
    }
}

/// a window that comes again, and one whose end is lost, are confirmed once, after a pause.
#[test]
fn what_comes_again_and_what_is_not_whole_is_confirmed_after_a_pause() {
    let mut talk = Talk::download(Layout::Lsb, Sequence::Streaming);
    talk.says();
    talk.hears_frame(Type::Ack, 0, b"0");
    talk.hears_frame(Type::Describe, 1, b"4000,202611211832");
    let numbers = |said: &[Vec<u8>], form: Form| -> Vec<Vec<u8>> {
        said.iter().map(|bytes| form.decode(bytes).unwrap().data).collect()
    };
    for number in 2..7 {
        talk.hears_frame(Type::Data, number, &[b'x'; 63]);
    }
    for number in 2..7 {
        assert!(talk.hears_frame(Type::Data, number, &[b'x'; 63]).is_empty());
    }
    let said = talk.waits(Duration::from_millis(30));
    assert_eq!(numbers(&said, talk.form), [b"6".to_vec()]);
    assert!(talk.hears_frame(Type::Data, 7, &[b'x'; 63]).is_empty());
    let said = talk.waits(Duration::from_millis(30));
    assert_eq!(numbers(&said, talk.form), [b"7".to_vec()]);
    talk.hears_frame(Type::Data, 8, &[b'x'; 63]);
    assert_eq!(numbers(&talk.waits(Duration::from_millis(30)), talk.form), [b"8".to_vec()]);
    // Twice one frame alone: the windows of this server are that long.
    let said = talk.hears_frame(Type::Data, 9, &[b'x'; 63]);
    assert_eq!(numbers(&said, talk.form), [b"9".to_vec()]);
}

/// this server ends when 160 ms after a window it heard nothing, and our NACK was lost.
#[test]
fn a_server_that_falls_silent_between_data_is_reminded_in_time() {
    let mut talk = Talk::download(Layout::Lsb, Sequence::Streaming);
    talk.says();
    talk.hears_frame(Type::Ack, 0, b"0");
    talk.hears_frame(Type::Describe, 1, b"4000,202611211832");
    for number in 2..7 {
        talk.hears_frame(Type::Data, number, &[b'x'; 63]);
    }
    let nack = talk.hears_frame(Type::Data, 8, &[b'x'; 63]);
    assert_eq!(talk.form.decode(&nack[0]).map(|frame| frame.kind), Ok(Type::Nack));
    let said = talk.waits(Duration::from_millis(150));
    let said: Vec<_> = said.iter().map(|bytes| talk.form.decode(bytes).unwrap()).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said.iter().all(|frame| frame.kind == Type::Ack && frame.data == b"6"), "{said:?}");
}

/// the server had heard 3 from the client before.
#[test]
fn a_server_says_which_number_it_waits_for() {
    let mut talk = Talk::list(Layout::Lsb, Sequence::Streaming);
    assert_eq!(talk.says(), [frame(b"\x7e\x00\x50\xb7", 14, 0)]);
    let said = talk.hears(b"\x7e\x81\x0a\x34nyucmmzsle");
    assert_eq!(said, [frame(b"\x7e\x00\x51\xb0", 14, 0)]);
    assert!(talk.hears(b"\x7e\xc1\x02\x34@evnplllgq").is_empty());
    let said = talk.hears(b"\x7e\x01\x83a\xc2zukfqgsexe");
    assert_eq!(said, [frame(b"\x7e\x42\x0112\xae", 14, 0)]);
    let said = talk.hears(b"\x7e\x40\xf3\x8cynuzopbabc");
    assert_eq!(said, [frame(b"\x7e\x82\x0113\x03", 14, 0)]);
    assert_eq!((talk.names, talk.ended), (vec![b"a".to_vec()], Some(Ok(()))));
}

/// it drops what it heard lately without a word; only another number makes it speak.
#[test]
fn a_request_that_nobody_answers_gets_another_number() {
    let mut talk = Talk::list(Layout::Lsb, Sequence::Streaming);
    let mut said = talk.says();
    said.extend(talk.waits(Duration::from_secs(2)));
    let numbers: Vec<u8> =
        said.iter().map(|bytes| talk.form.decode(bytes).unwrap().sequence).collect();
    assert_eq!(numbers, [0, 0, 0, 1, 2, 3]);
}

/// the server confirmed something of ours with number 2, so its file begins with 3.
#[test]
fn confirmations_of_the_server_are_counted() {
    let mut talk = Talk::download(Layout::Lsb, Sequence::Streaming);
    talk.says();
    talk.hears_frame(Type::Ack, 0, b"0");
    talk.hears_frame(Type::Describe, 1, b"1,202611211818");
    assert!(talk.hears_frame(Type::Ack, 2, b"2").is_empty());
    assert!(talk.hears_frame(Type::Data, 3, b"|").is_empty());
    assert_eq!(talk.hears_frame(Type::End, 4, b"").len(), 1);
    assert_eq!((talk.bytes.as_slice(), talk.ended), (b"|".as_slice(), Some(Ok(()))));
}

/// on loopback its client sends a request three times at once, and each stale answer costs it one of three tries.
#[test]
fn copies_of_a_request_get_one_confirmation() {
    let form = Form::of(Layout::Lsb);
    let settings = Settings { form, sequence: Sequence::Streaming, ..Settings::default() };
    let (mut server, mut now) = (Server::new(settings), origin());
    for _ in 0..3 {
        server.handle_frame(now, b"\x7e\xc2\x5aa0\x55hpjkw\0\0\0");
    }
    assert_eq!(std::iter::from_fn(|| server.poll_transmit(now)).count(), 1);
    now += Duration::from_millis(40);
    server.handle_frame(now, b"\x7e\xc2\x5aa0\x55hpjkw\0\0\0");
    assert_eq!(std::iter::from_fn(|| server.poll_transmit(now)).count(), 1);
}

fn c68(head: &[u8], crc: u8) -> Vec<u8> {
    let mut bytes = frame(head, 67, 0);
    bytes.push(crc);
    bytes
}

/// a file of 62 bytes. The confirmation and the end have what the program's memory had, and a CRC of it.
#[test]
fn a_file_of_which_nothing_is_said_comes_to_its_end() {
    let mut talk = Talk::download(Layout::C68, Sequence::Wired);
    assert_eq!(talk.says()[0][..6], *b"\x7e\x01\x00\x0ba\0", "no offer");
    let mut ack =
        b"\x7e\0\0\0\0\0\0\0\x80\x32\xf9\xf1\xcf\x55\0\0\x01\x32\xf9\xf1\xcf\x55\0\0".to_vec();
    ack.extend(
        b"\x98\x38\xfc\x04\xff\x7f\0\0\x10\x37\xfc\x04\xff\x7f\0\0\x5b\xb2\xf8\xf1\xcf\x55\0\0",
    );
    ack.extend(b"\x20\x37\xfc\x04\xff\x7f\0\0\x2f\x61\x31\x32\x03\0\0\0\x98\x38\xfc\xe6");
    assert_eq!(ack.len(), 68);
    assert!(talk.hears(&ack).is_empty());
    assert!(talk.hears_frame(Type::Data, 0, &[b'x'; 62]).is_empty());
    let said = talk.hears_frame(Type::End, 1, b"");
    assert_eq!(said, [c68(b"\x7e\0\x01\0", 0x8F)]);
    assert_eq!((talk.bytes.len(), talk.ended), (62, Some(Ok(()))));
}

/// what cannot be opened is an ERRO without a code.
#[test]
fn names_are_descriptions_and_a_refusal_has_no_code() {
    let mut talk = Talk::list(Layout::C68, Sequence::Wired);
    assert_eq!(talk.says(), [c68(b"\x7e\0\0\x0a", 0x6C)]);
    talk.hears_frame(Type::Ack, 0, b"");
    let said = talk.hears(&c68(b"\x7e\x02\0\x11a1", 0x37));
    assert_eq!(said, [c68(b"\x7e\0\0\0", 0xCC)]);
    let said = talk.hears(&c68(b"\x7e\x04\x01\x11a126", 0xEC));
    assert_eq!(said, [c68(b"\x7e\0\x01\0", 0x8F)]);
    talk.hears_frame(Type::End, 2, b"");
    assert_eq!((talk.names, talk.ended), (vec![b"a1".to_vec(), b"a126".to_vec()], Some(Ok(()))));

    let mut talk = Talk::download(Layout::C68, Sequence::Wired);
    talk.says();
    talk.hears_frame(Type::Ack, 0, b"");
    assert_eq!(talk.hears_frame(Type::Error, 0, b""), [c68(b"\x7e\0\0\0", 0xCC)]);
    assert_eq!(talk.ended, Some(Err(Error::Refused(Refusal::NotFound))));
}

/// a window is confirmed whole; what is missing, and what comes twice, is answered with NACK after a pause.
#[test]
fn a_window_that_is_not_whole_is_asked_for() {
    let mut talk = Talk::download(Layout::C68, Sequence::Wired);
    talk.says();
    talk.hears_frame(Type::Ack, 0, b"");
    for number in 0..4 {
        assert!(talk.hears_frame(Type::Data, number, b"x").is_empty());
    }
    let kinds = |said: Vec<Vec<u8>>, form: Form| -> Vec<(Type, u8)> {
        let frames = said.iter().map(|bytes| form.decode(bytes).unwrap());
        frames.map(|frame| (frame.kind, frame.sequence)).collect()
    };
    let said = talk.waits(Duration::from_millis(30));
    assert_eq!(kinds(said, talk.form), [(Type::Nack, 4)]);
    for number in 4..9 {
        let said = talk.hears_frame(Type::Data, number, b"x");
        let expected = if number == 8 { vec![(Type::Ack, 8)] } else { vec![] };
        assert_eq!(kinds(said, talk.form), expected, "{number}");
    }
    for number in 4..9 {
        assert!(talk.hears_frame(Type::Data, number, b"x").is_empty());
    }
    let said = talk.waits(Duration::from_millis(30));
    assert_eq!(kinds(said, talk.form), [(Type::Nack, 9)]);
}

/// the windows that a client of that program waits for.
#[test]
fn a_server_ends_in_the_last_window_and_takes_a_nack_for_the_next_as_a_confirmation() {
    for (size, last, alone) in [(100, 2, false), (315, 5, true)] {
        let form = Form::of(Layout::C68);
        let settings = Settings { form, sequence: Sequence::Wired, ..Settings::default() };
        let (mut server, now) = (Server::new(settings), origin());
        let says = |server: &mut Server| -> Vec<(Type, u8)> {
            let sent = std::iter::from_fn(|| server.poll_transmit(now));
            let frames = sent.map(|bytes| form.decode(&bytes).unwrap());
            frames.map(|frame| (frame.kind, frame.sequence)).collect()
        };
        let hears = |server: &mut Server, kind, sequence, data: &[u8]| {
            let frame = Frame { sequence, kind, data: data.to_vec() };
            server.handle_frame(now, &form.encode(&frame));
        };
        hears(&mut server, Type::Download, 0, b"a62");
        assert_eq!(server.poll_want(), Some(Want::File { name: b"a62".to_vec(), offset: 0 }));
        server.supply_file(&Description { size: Some(size), ..Description::default() });
        assert_eq!(server.poll_want(), Some(Want::Bytes));
        server.supply_bytes(&vec![1; size as usize]);
        let mut expected = vec![(Type::Ack, 0)];
        expected.extend((0..last).map(|number| (Type::Data, number)));
        if !alone {
            expected.push((Type::End, last));
        }
        assert_eq!(says(&mut server), expected, "{size}");
        if alone {
            hears(&mut server, Type::Nack, last, b"");
            assert_eq!(says(&mut server), [(Type::End, last)]);
        }
        hears(&mut server, Type::Ack, last, b"");
        assert_eq!((server.poll_outcome(), server.is_busy()), (Some(Outcome::Done), false));
    }
}
