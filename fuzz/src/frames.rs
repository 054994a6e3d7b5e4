//! The frames of one packet (W-3).

use cabo_proto::wire::frame::{Frame, Frames, put_ack};
use cabo_proto::wire::print::Body;
use cabo_proto::wire::varint::{self, Malformed};

/// The body of a packet or record.
pub fn frames(body: &[u8]) {
    let frames: Vec<Result<Frame<'_>, Malformed>> = Frames::new(body).collect();
    assert!((1..=body.len().max(1)).contains(&frames.len()), "each frame takes a byte");
    assert!(
        !Body(body).to_string().contains(['\n', '\u{1b}']),
        "one line that commands no terminal"
    );
    let (last, before) = frames.split_last().expect("at least one");
    assert!(before.iter().all(Result::is_ok), "an error is the last");
    assert!(last.is_ok() || last.as_ref().is_err_and(|error| error.at <= body.len()));

    let good: Vec<Frame<'_>> = frames.into_iter().flatten().collect();
    let mut again = Vec::new();
    for frame in &good {
        check(frame);
        frame.put(&mut again);
    }
    let read: Result<Vec<Frame<'_>>, Malformed> = Frames::new(&again).collect();
    let same = if good.is_empty() {
        read.is_err()
    } else {
        is_same(&read.expect("what we write parses"), &good)
    };
    assert!(same, "what we write is what we read");
}

/// Frame by frame, but for runs of padding, which grow together.
fn is_same(one: &[Frame<'_>], other: &[Frame<'_>]) -> bool {
    let not_padding = |frame: &&Frame<'_>| !matches!(frame, Frame::Pad(_));
    let padding = |frames: &[Frame<'_>]| -> usize {
        frames.iter().map(|frame| if let Frame::Pad(run) = frame { *run } else { 0 }).sum()
    };
    one.iter().filter(not_padding).eq(other.iter().filter(not_padding))
        && padding(one) == padding(other)
}

fn check(frame: &Frame<'_>) {
    match frame {
        Frame::Ack(ack) => {
            let ranges: Vec<_> = ack.ranges().collect();
            assert!((1..=65).contains(&ranges.len()));
            assert_eq!(ranges[0].end(), &ack.largest);
            assert!(ranges.iter().all(|range| range.start() <= range.end()));
            assert!(
                ranges.windows(2).all(|pair| pair[1].end() + 1 < *pair[0].start()),
                "a hole between any two"
            );
            let mut out = Vec::new();
            let room = ranges.len() * 3;
            assert!(put_ack(&mut out, ack.delay_micros, ranges.into_iter(), room) <= 64);
            assert!(out.len() <= room);
        }
        Frame::Crypto { offset, data } | Frame::Stream { offset, data, .. } => {
            assert!(offset + data.len() as u64 <= varint::MAX);
        }
        Frame::Close(close) => assert!(close.reason.len() <= 1024),
        Frame::Unknown { kind, .. } => assert!(*kind >= 0x40),
        _ => {}
    }
}
