//! Frames: literal bytes both ways, round trips, refusals (W-3).

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::wire::{print, seeded};

fn all(body: &[u8]) -> Result<Vec<Frame<'_>>, Malformed> {
    Frames::new(body).collect()
}

/// One of each, with the spaces of the table of W-3.1 and whether it calls for an acknowledgement.
fn table(ack: Ack<'_>) -> Vec<(Frame<'_>, bool, bool)> {
    let stream = StreamId(4);
    let close = |origin| Frame::Close(Close { origin, code: 0, reason: b"bye" });
    vec![
        (Frame::Pad(2), true, false),
        (Frame::Ping, true, true),
        (Frame::Ack(ack), true, false),
        (Frame::Crypto { offset: 0, data: b"hello" }, true, true),
        (Frame::ResetStream { stream, code: 1, final_size: 2 }, false, true),
        (Frame::StopSending { stream, code: 1 }, false, true),
        (Frame::MaxData(1), false, true),
        (Frame::MaxStreamData { stream, bytes: 1 }, false, true),
        (Frame::MaxStreams { direction: Direction::One, count: 1 }, false, true),
        (Frame::DataBlocked(1), false, true),
        (Frame::StreamBlocked { stream, limit: 1 }, false, true),
        (Frame::PathChallenge([1; 8]), false, true),
        (Frame::PathResponse([1; 8]), false, true),
        (close(Origin::Protocol), true, false),
        (close(Origin::Application), false, false),
        (Frame::Admitted, false, true),
        (Frame::Datagram(b"hi"), false, true),
        (Frame::Stream { stream, offset: 1, fin: true, data: b"hi" }, false, true),
        (Frame::Unknown { kind: FIRST_EXTENSION, data: b"?" }, true, true),
    ]
}

fn some_ack(bytes: &[u8]) -> Ack<'_> {
    match Frames::new(bytes).next() {
        Some(Ok(Frame::Ack(ack))) => ack,
        other => panic!("{other:?}"),
    }
}

#[test]
fn spaces_and_acknowledgements_are_those_of_the_table() {
    for (frame, in_every_space, calls_for_ack) in table(some_ack(&[2, 5, 0, 0, 0])) {
        assert_eq!(frame.is_ack_eliciting(), calls_for_ack, "{frame}");
        assert!(frame.allowed_in(Space::Data), "{frame}");
        for space in [Space::Initial, Space::Handshake] {
            assert_eq!(frame.allowed_in(space), in_every_space, "{frame} in {space:?}");
        }
    }
}

#[test]
fn records_have_no_work_for_acknowledgements_and_paths() {
    for (frame, in_every_space, _) in table(some_ack(&[2, 5, 0, 0, 0])) {
        let is_idle = ["ACK", "PING", "PATH_CHALLENGE", "PATH_RESPONSE"].contains(&frame.name());
        assert_eq!(frame.allowed_in_record(Space::Data), !is_idle, "{frame}");
        assert_eq!(frame.allowed_in_record(Space::Initial), !is_idle && in_every_space, "{frame}");
    }
}

#[test]
fn one_of_each_in_one_body_comes_back() {
    let mut body = Vec::new();
    let table = table(some_ack(&[2, 5, 0, 1, 0, 1, 1]));
    table.iter().for_each(|(frame, ..)| frame.put(&mut body));
    let frames: Vec<_> = table.into_iter().map(|(frame, ..)| frame).collect();
    assert_eq!(all(&body), Ok(frames));
}

#[test]
fn nothing_follows_an_error() {
    let mut frames = Frames::new(&[0x01, 0x18, 0x01]);
    assert_eq!(frames.next(), Some(Ok(Frame::Ping)));
    assert_eq!(frames.next(), Some(Err(Malformed { what: "unknown frame", at: 1 })));
    assert_eq!(frames.next(), None);
    assert_eq!(all(&[]), Err(Malformed { what: "no frames", at: 0 }));
}

#[test]
fn every_type_below_extensions_is_in_the_table_or_an_error() {
    for kind in 0..FIRST_EXTENSION {
        let mut body = Vec::new();
        varint::put(&mut body, kind);
        body.resize(40, 0);
        let is_unknown =
            Frames::new(&body).next() == Some(Err(Malformed { what: "unknown frame", at: 0 }));
        assert_eq!(is_unknown, kind > LAST_STREAM, "type {kind:#x}");
    }
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    let reason = "a".to_owned() + &"\u{e9}".repeat(LONGEST_REASON);
    let mut body = Vec::new();
    Frame::Close(Close { origin: Origin::Protocol, code: 2, reason: reason.as_bytes() })
        .put(&mut body);
    let frames = all(&body).expect("what we write parses");
    let Some(Frame::Close(close)) = frames.first() else { panic!("{frames:?}") };
    assert_eq!(close.text(), &reason[..LONGEST_REASON - 1]);
    assert_eq!(cut_text(&[0x80; 9], 8), &[0x80; 8], "no text at all is cut where it must");
}

#[test]
fn a_sixty_four_kilobyte_run_of_padding_is_one_frame() {
    assert_eq!(all(&[0; 65_535]), Ok(vec![Frame::Pad(65_535)]));
}

fn any_varint() -> impl Strategy<Value = u64> {
    (0..=varint::MAX, 0u32..62).prop_map(|(value, shift)| value >> shift)
}

fn any_ack() -> impl Strategy<Value = Vec<u8>> {
    let steps = vec((2u64..400, 0u64..400), 0..64);
    (1u64 << 20..1 << 40, any_varint(), steps).prop_map(|(largest, delay, steps)| {
        let mut low = largest;
        let below = steps.into_iter().map(|(gap, length)| {
            let high = low - gap;
            low = high - length;
            low..=high
        });
        let mut out = Vec::new();
        put_ack(&mut out, delay, std::iter::once(largest..=largest).chain(below), usize::MAX);
        out
    })
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn what_is_put_is_read(
        n in [any_varint(), any_varint(), any_varint()],
        ack in any_ack(),
        data in vec(any::<u8>(), 0..200),
        reason in ".{0,100}",
        fin: bool,
    ) {
        let (stream, offset) = (StreamId(n[0]), n[1].min(varint::MAX - 200));
        let (direction, origin) =
            if fin { (Direction::One, Origin::Protocol) } else { (Direction::Both, Origin::Application) };
        let data = &*data;
        let frames = vec![
            Frame::Ack(some_ack(&ack)),
            Frame::Crypto { offset, data },
            Frame::ResetStream { stream, code: n[1], final_size: n[2] },
            Frame::StopSending { stream, code: n[2] },
            Frame::MaxData(n[0]),
            Frame::MaxStreamData { stream, bytes: n[2] },
            Frame::MaxStreams { direction, count: n[1].min(MOST_STREAMS) },
            Frame::DataBlocked(n[0]),
            Frame::StreamBlocked { stream, limit: n[1] },
            Frame::PathChallenge(n[0].to_be_bytes()),
            Frame::Close(Close { origin, code: n[2], reason: reason.as_bytes() }),
            Frame::Datagram(data),
            Frame::Stream { stream, offset, fin, data },
            Frame::Unknown { kind: n[0].max(FIRST_EXTENSION), data },
            Frame::Pad(1 + data.len()),
        ];
        let mut body = Vec::new();
        frames.iter().for_each(|frame| frame.put(&mut body));
        prop_assert_eq!(all(&body)?, frames);
        prop_assert!(!print::Body(&body).to_string().contains('\n'), "one line");
    }

    #[test]
    fn header_lengths_are_those_that_are_put(stream in any_varint(), offset in any_varint(), length: u16, bare: bool) {
        let (stream, length) = (StreamId(stream), usize::from(length));
        let data_len = (!bare).then_some(length);
        let mut out = Vec::new();
        put_stream_header(&mut out, stream, offset, data_len, bare);
        prop_assert_eq!(out.len(), stream_header_len(stream, offset, data_len));
        out.clear();
        put_crypto_header(&mut out, offset, length);
        prop_assert_eq!(out.len(), crypto_header_len(offset, length));
        out.clear();
        put_datagram_header(&mut out, length);
        prop_assert_eq!(out.len(), datagram_header_len(length));
    }

    #[test]
    fn no_body_is_too_strange(body in vec(any::<u8>(), 0..300), kind in 0u8..0x18) {
        for body in [body.clone(), [&[kind], &*body].concat()] {
            let frames: Vec<_> = Frames::new(&body).collect();
            prop_assert!(frames.len() <= body.len().max(1));
            prop_assert!(!print::Body(&body).to_string().contains('\n'), "one line");
            for frame in frames.into_iter().flatten() {
                let mut out = Vec::new();
                frame.put(&mut out);
                prop_assert_eq!(all(&out)?, vec![frame]);
            }
        }
    }
}
