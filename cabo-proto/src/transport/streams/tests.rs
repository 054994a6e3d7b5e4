//! The halves of a stream beside naive models, and the table's accounts between two ends with a wire that is a list.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::recv::Refused;
use super::*;
use crate::sim::origin;
use crate::transport::flow::Budget;
use crate::wire::frame::Frames;

fn byte_at(index: u64) -> u8 {
    (index.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

fn bytes(from: u64, len: u64) -> Vec<u8> {
    (from..from + len).map(byte_at).collect()
}

// --- the sending half
// ---------------------------------------------------------------------------------------------------

/// A half, the pieces under way, and what the peer has of it: one entry a byte.
struct SendModel {
    half: SendHalf,
    written: u64,
    under_way: Vec<Piece>,
    lost: Vec<Piece>, // declared lost; an acknowledgement may still come
    has: Vec<bool>,
    has_fin: bool,
}

impl SendModel {
    fn new(limit: u64) -> Self {
        let half = SendHalf::new(limit);
        Self {
            half,
            written: 0,
            under_way: Vec::new(),
            lost: Vec::new(),
            has: Vec::new(),
            has_fin: false,
        }
    }

    fn write(&mut self, len: u64) {
        self.half.write(bytes(self.written, len).into());
        self.written += len;
        self.has.resize(self.written as usize, false);
    }

    fn send(&mut self, room: usize) -> bool {
        let has_work = self.half.has_work(u64::MAX);
        let Some(piece) = self.half.next_piece(room, u64::MAX) else {
            assert!(!has_work || room == 0, "work and no piece");
            return false;
        };
        assert!(has_work && piece.len <= room);
        let mut out = Vec::new();
        self.half.copy(&piece, &mut out);
        assert_eq!(out, bytes(piece.offset, piece.len as u64), "{piece:?}");
        assert!(!piece.fin || piece.offset + piece.len as u64 == self.written);
        self.under_way.push(piece);
        true
    }

    fn ack(&mut self, piece: Piece) {
        let held = self.half.held();
        let freed = self.half.on_acked(&piece);
        assert_eq!(self.half.held(), held - freed);
        for index in piece.offset..piece.offset + piece.len as u64 {
            self.has[index as usize] = true;
        }
        self.has_fin |= piece.fin;
        let first_missing = self.has.iter().position(|has| !has).unwrap_or(self.has.len()) as u64;
        assert_eq!(
            self.half.held(),
            self.written - first_missing,
            "held is what lies behind the first missing byte"
        );
        assert_eq!(self.half.is_done(), self.has_fin && first_missing == self.written);
    }

    fn lose(&mut self, piece: Piece) {
        let is_missing =
            (piece.offset..piece.offset + piece.len as u64).any(|index| !self.has[index as usize]);
        let is_work = self.half.on_lost(&piece);
        assert!(
            is_work || (!is_missing && (!piece.fin || self.has_fin)),
            "{piece:?} has to go again"
        );
        self.lost.push(piece);
    }
}

#[test]
fn a_sending_half_holds_what_is_not_acknowledged_in_whatever_order_that_comes() {
    for seed in 0..400 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut model = SendModel::new(u64::MAX);
        let mut is_finished = false;
        for _ in 0..300 {
            match rng.u32(0..10) {
                0..=1 if !is_finished => model.write(rng.u64(0..9000)),
                2 if !is_finished && rng.u32(0..20) == 0 => {
                    model.half.finish();
                    is_finished = true;
                }
                3..=5 => {
                    model.send(rng.usize(0..1400));
                }
                6..=7 if !model.under_way.is_empty() => {
                    let piece = model.under_way.swap_remove(rng.usize(..model.under_way.len()));
                    model.ack(piece);
                }
                8 if !model.under_way.is_empty() => {
                    let piece = model.under_way.swap_remove(rng.usize(..model.under_way.len()));
                    model.lose(piece);
                }
                9 if !model.lost.is_empty() && rng.bool() => {
                    let piece = model.lost.swap_remove(rng.usize(..model.lost.len()));
                    model.ack(piece); // it was only late
                }
                _ => {}
            }
        }
        model.half.finish();
        for _ in 0..100_000 {
            while model.send(1200) {}
            let Some(piece) = model.under_way.pop() else { break };
            if rng.u32(0..4) == 0 { model.lose(piece) } else { model.ack(piece) }
        }
        assert!(model.half.is_done(), "seed {seed}");
        assert_eq!(model.half.held(), 0);
    }
}

#[test]
fn an_end_that_travels_alone_and_is_lost_goes_again() {
    let mut model = SendModel::new(u64::MAX);
    model.write(100);
    assert!(model.send(1200));
    model.half.finish();
    assert!(model.send(1200));
    let fin = model.under_way[1];
    assert_eq!(fin, Piece { offset: 100, len: 0, fin: true });
    model.lose(fin);
    assert!(model.send(1200));
    assert_eq!(model.under_way[2], fin);
    model.ack(fin); // the first one, late
    let first = model.under_way[0];
    model.ack(first);
    assert!(model.half.is_done());
    model.lose(fin); // the second one, which nobody needs
    assert!(!model.half.has_work(u64::MAX));
}

#[test]
fn an_end_that_is_lost_with_the_last_bytes_rides_on_them_again() {
    let mut model = SendModel::new(u64::MAX);
    model.write(3000);
    model.half.finish();
    while model.send(1000) {}
    let last = model.under_way[2];
    assert!(last.fin);
    model.lose(last);
    assert!(model.send(600) && model.send(600));
    assert_eq!(model.under_way[3], Piece { offset: 2000, len: 600, fin: false });
    assert_eq!(model.under_way[4], Piece { offset: 2600, len: 400, fin: true });
}

#[test]
fn a_reset_forgets_all_bytes_and_keeps_the_size_that_the_peer_may_have_seen() {
    let mut model = SendModel::new(u64::MAX);
    model.write(3000);
    model.send(1000);
    assert!(model.half.reset(7));
    assert!(!model.half.reset(8), "once");
    assert_eq!((model.half.reset_frame(), model.half.held()), (Some((7, 1000)), 0));
    assert!(!model.half.has_work(u64::MAX));
    assert_eq!(model.half.on_acked(&model.under_way[0]), 0);
    assert!(!model.half.on_lost(&model.under_way[0]));
    model.half.on_reset_acked();
    assert!(model.half.is_done());
}

#[test]
fn a_stream_may_be_reset_while_bytes_before_its_acknowledged_end_are_missing() {
    let mut model = SendModel::new(u64::MAX);
    model.write(1500);
    model.half.finish();
    while model.send(1000) {}
    let last = model.under_way[1];
    model.ack(last);
    assert!(model.half.reset(7));
}

// --- the receiving half
// -------------------------------------------------------------------------------------------------

#[test]
fn a_receiving_half_puts_pieces_in_order_however_they_are_cut_and_repeated() {
    for seed in 0..120 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let total = [0, 1, 1000, 16_384, 33_000, 50_000][seed as usize % 6];
        let mut half = RecvHalf::new();
        let mut has = vec![false; total as usize];
        let (mut has_fin, mut highest, mut read) = (false, 0, 0);
        let mut buffer = [0; 5000];
        for step in 0..1_000_000 {
            let offset = if step % 3 == 0 { half.consumed() } else { rng.u64(0..=total) };
            let len = rng.u64(0..=(total - offset).min(3000));
            let fin = offset + len == total && rng.bool();
            let moved = half.insert(offset, &bytes(offset, len), fin, u64::MAX).unwrap();
            assert_eq!(moved, (offset + len).saturating_sub(highest));
            highest += moved;
            has[offset as usize..(offset + len) as usize].fill(true);
            has_fin |= fin;
            let here = has.iter().position(|has| !has).unwrap_or(has.len()) as u64;
            assert_eq!(
                half.is_readable(),
                here > read || (has_fin && read == total),
                "seed {seed} step {step}"
            );
            let room = rng.usize(1..5000);
            match half.read(&mut buffer[..room]) {
                Read::Bytes(len) => {
                    assert_eq!(len as u64, (here - read).min(room as u64));
                    assert_eq!(buffer[..len], bytes(read, len as u64));
                    read += len as u64;
                }
                Read::Blocked => assert!(here == read && !(has_fin && read == total)),
                Read::End => {
                    assert!(has_fin && read == total);
                    break;
                }
                Read::Reset(_) => panic!("nobody reset it"),
            }
            assert_eq!(half.consumed(), read);
        }
        assert!(half.is_done(), "seed {seed}");
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    let mut half = RecvHalf::new();
    assert_eq!(half.insert(0, &[0; 10], false, 10), Ok(10));
    assert_eq!(half.insert(5, &[0; 6], false, 10), Err(Refused::Flow));
    assert_eq!(
        half.insert(0, &[0; 5], true, 10),
        Err(Refused::FinalSize),
        "it ends before what came"
    );
    assert_eq!(half.insert(10, &[], true, 10), Ok(0));
    assert_eq!(half.insert(10, &[0], false, 20), Err(Refused::FinalSize), "beyond the end");
    assert_eq!(half.insert(0, &[0; 9], true, 20), Err(Refused::FinalSize), "another end");
    assert_eq!(half.on_reset(1, 9, 20), Err(Refused::FinalSize));
    assert_eq!(half.on_reset(1, 10, 20), Ok(0));
    assert_eq!(half.read(&mut [0; 20]), Read::Bytes(10), "all had come before the reset");
    assert_eq!(half.read(&mut [0; 20]), Read::End);
    let mut half = RecvHalf::new();
    assert_eq!(half.on_reset(1, 21, 20), Err(Refused::Flow));
    assert_eq!(half.on_reset(1, 20, 20), Ok(20));
    assert_eq!(half.read(&mut [0; 20]), Read::Reset(1));
}

#[test]
fn pages_are_taken_only_where_bytes_are_and_come_back_when_read() {
    let mut half = RecvHalf::new();
    half.insert(10 << 20, &[1], false, u64::MAX).unwrap();
    let held = |half: &RecvHalf| half.pages_held();
    assert_eq!(held(&half), 1);
    half.insert(0, &bytes(0, 1 << 20), false, u64::MAX).unwrap();
    assert_eq!(held(&half), 65);
    let mut buffer = vec![0; 1 << 20];
    assert_eq!(half.read(&mut buffer), Read::Bytes(1 << 20));
    assert!(held(&half) <= 2);
    half.stop(0);
    assert_eq!(held(&half), 0);
}

#[test]
fn a_stream_whose_reader_has_caught_up_holds_no_page() {
    let mut half = RecvHalf::new();
    let mut buffer = [0; 100];
    for at in (0..100_000).step_by(100) {
        half.insert(at, &bytes(at, 100), false, u64::MAX).unwrap();
        assert_eq!(half.pages_held(), 1);
        assert_eq!(half.read(&mut buffer), Read::Bytes(100));
        assert_eq!(buffer[..], bytes(at, 100));
        assert_eq!(half.pages_held(), 0);
    }
}

/// S-9: what a peer can make us hold is what it sent or skipped, and not a page for each byte.
#[test]
fn a_few_bytes_on_a_stream_do_not_hold_a_page() {
    for (offset, len) in [(0, 1), (1, 1), (0, 100), (2000, 3), (4000, 96), (4000, 97), (9000, 1)] {
        let mut half = RecvHalf::new();
        half.insert(offset, &bytes(offset, len), false, u64::MAX).unwrap();
        let (held, charged) = (half.bytes_held() as u64, offset + len);
        assert!(held <= (2 * charged).max(8) || charged > 4096, "{held} for {charged}");
        half.insert(0, &bytes(0, 16_000), false, u64::MAX).unwrap();
        let mut buffer = vec![0; 20_000];
        assert_eq!(half.read(&mut buffer), Read::Bytes(16_000));
        assert_eq!(buffer[..16_000], bytes(0, 16_000));
    }
}

#[test]
fn holes_are_counted_and_have_an_end() {
    let mut half = RecvHalf::new();
    let refused =
        (0..100_000).find(|index| half.insert(index * 2 + 1, &[0], false, u64::MAX).is_err());
    assert_eq!(refused, Some(1 << 15));
}

// --- the table
// ----------------------------------------------------------------------------------------------------------

/// Two tables and packets between them, each with what it carried for its sender.
struct Ends {
    now: Instant,
    ends: [Streams; 2],
    wire: Vec<(usize, Vec<u8>, Vec<SentPart>)>,
}

impl Ends {
    fn new(limits: &Limits) -> Self {
        let params = Params {
            max_data: limits.window_bytes,
            max_stream_data: limits.stream_window_bytes,
            max_streams_both: limits.streams_both,
            max_streams_one: limits.streams_one,
            ..Params::default()
        };
        let ends = [Opener::Client, Opener::Server].map(|us| {
            let mut streams = Streams::new(us, limits.clone(), Budget::new(1 << 30));
            streams.on_params(&params);
            streams
        });
        Self { now: origin(), ends, wire: Vec::new() }
    }

    fn send(&mut self, from: usize, room: usize) -> bool {
        let (mut out, mut parts) = (Vec::new(), Vec::new());
        let has_work = self.ends[from].has_work();
        self.ends[from].write_frames(&mut out, room, &mut |part| parts.push(part));
        assert!(out.len() <= room);
        assert!(has_work || out.is_empty());
        let is_any = !out.is_empty();
        if is_any {
            self.wire.push((from, out, parts));
        }
        is_any
    }

    fn arrive(&mut self, index: usize) {
        let (from, bytes, parts) = self.wire.swap_remove(index);
        for frame in Frames::new(&bytes) {
            self.ends[1 - from].on_frame(self.now, &frame.unwrap()).unwrap();
        }
        parts.into_iter().for_each(|part| self.ends[from].on_acked(part));
    }

    fn lose(&mut self, index: usize) {
        let (from, _, parts) = self.wire.swap_remove(index);
        parts.into_iter().for_each(|part| self.ends[from].on_lost(part));
    }

    /// Lets everything through until nothing moves.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            let is_sent = self.send(0, 1200) | self.send(1, 1200);
            if !is_sent && self.wire.is_empty() {
                return;
            }
            while !self.wire.is_empty() {
                self.arrive(0);
            }
        }
        panic!("no end of frames");
    }

    fn write(&mut self, end: usize, id: StreamId, len: usize) -> usize {
        let room = self.ends[end].write_room(id).unwrap().min(len);
        self.ends[end].write(id, vec![1; room].into());
        room
    }

    fn read_all(&mut self, end: usize, id: StreamId) -> (u64, Option<Read>) {
        let mut buffer = [0; 4096];
        let mut total = 0;
        loop {
            match self.ends[end].read(self.now, id, &mut buffer) {
                Ok(Read::Bytes(len)) => total += len as u64,
                Ok(other) => return (total, Some(other)),
                Err(_) => return (total, None),
            }
        }
    }

    fn events(&mut self, end: usize) -> Vec<StreamEvent> {
        std::iter::from_fn(|| self.ends[end].poll_event()).collect()
    }
}

fn small() -> Limits {
    Limits {
        streams_both: 2,
        streams_one: 3,
        stream_window_bytes: 1000,
        window_bytes: 2500,
        window_max_bytes: 2500,
        send_buffer_bytes: 1 << 20,
    }
}

#[test]
fn credit_of_stream_and_connection_is_kept_to_the_byte() {
    let mut ends = Ends::new(&small());
    let ids: Vec<StreamId> = (0..3).map(|_| ends.ends[0].open(Direction::One).unwrap()).collect();
    for id in &ids {
        assert_eq!(ends.write(0, *id, 3000), 3000);
    }
    ends.settle();
    let read: Vec<u64> = ids.iter().map(|id| ends.read_all(1, *id).0).collect();
    assert_eq!(read.iter().sum::<u64>(), 2500);
    assert!(read.iter().all(|read| *read <= 1000), "{read:?}");
    for _ in 0..20 {
        ends.settle(); // the credit that came back
        for id in &ids {
            ends.read_all(1, *id);
        }
    }
    assert_eq!(ends.ends[0].held, 0, "all 9,000 are acknowledged");
}

#[test]
fn a_stream_without_credit_does_not_hold_up_what_another_lost() {
    let limits = Limits { stream_window_bytes: 2000, ..small() };
    let mut ends = Ends::new(&limits);
    let [first, second] = [0, 1].map(|_| ends.ends[0].open(Direction::One).unwrap());
    ends.ends[0].set_priority(second, 1);
    ends.write(0, first, 1000);
    assert!(ends.send(0, 1200));
    ends.write(0, second, 2000); // takes the rest of the connection's credit, and wants more
    while ends.send(0, 1200) {}
    ends.lose(0);
    assert!(ends.ends[0].has_work());
    ends.settle();
    assert_eq!(ends.read_all(1, first).0, 1000);
}

#[test]
fn a_peer_that_takes_more_than_its_credit_is_told_so() {
    let mut ends = Ends::new(&small());
    let now = ends.now;
    let stream = |index| StreamId::new(Opener::Client, Direction::One, index);
    let data = [0; 1001];
    let mut send =
        |frame: Frame<'_>| ends.ends[1].on_frame(now, &frame).map_err(|Breach(code, _)| code);
    assert_eq!(
        send(Frame::Stream { stream: stream(0), offset: 0, fin: false, data: &data }),
        Err(Code::FLOW)
    );
    for index in 0..2 {
        assert_eq!(
            send(Frame::Stream {
                stream: stream(index),
                offset: 0,
                fin: false,
                data: &data[..1000]
            }),
            Ok(())
        );
    }
    assert_eq!(
        send(Frame::Stream { stream: stream(2), offset: 0, fin: false, data: &data[..501] }),
        Err(Code::FLOW)
    );
    assert_eq!(
        send(Frame::Stream { stream: stream(3), offset: 0, fin: false, data: &[] }),
        Err(Code::STREAM_LIMIT)
    );
    let ours = StreamId::new(Opener::Server, Direction::One, 0);
    assert_eq!(
        send(Frame::Stream { stream: ours, offset: 0, fin: false, data: &[] }),
        Err(Code::STREAM_STATE)
    );
    let never = StreamId::new(Opener::Server, Direction::Both, 0);
    assert_eq!(send(Frame::StopSending { stream: never, code: 0 }), Err(Code::STREAM_STATE));
    assert_eq!(send(Frame::MaxStreamData { stream: stream(0), bytes: 1 }), Err(Code::STREAM_STATE));
}

#[test]
fn higher_priorities_go_first_and_equals_take_turns() {
    let limits = Limits {
        stream_window_bytes: 1 << 20,
        window_bytes: 1 << 20,
        window_max_bytes: 1 << 20,
        ..small()
    };
    let mut ends = Ends::new(&limits);
    let ids: Vec<StreamId> = (0..3).map(|_| ends.ends[0].open(Direction::One).unwrap()).collect();
    for id in &ids {
        ends.write(0, *id, 5000);
    }
    ends.ends[0].set_priority(ids[2], 1); // it is queued already
    let mut order = Vec::new();
    while ends.send(0, 1000) {
        let (_, _, parts) = ends.wire.last().unwrap();
        for part in parts {
            if let SentPart::Piece(id, _) = part {
                order.push(*id);
            }
        }
    }
    let turns = |id| {
        let of_it = order.iter().enumerate().filter(|(_, other)| **other == id);
        of_it.map(|(at, _)| at).collect::<Vec<usize>>()
    };
    assert!(turns(ids[2]).iter().all(|at| *at < 6), "{order:?}");
    let (first, second) = (turns(ids[0]), turns(ids[1]));
    assert!(first[1] > second[0] && second[1] > first[1] && first[2] > second[1], "{order:?}");
}

#[test]
fn a_peer_may_open_another_stream_when_one_has_ended_both_ways() {
    let mut ends = Ends::new(&small());
    let mut open = Vec::new();
    for round in 0..20 {
        while let Some(id) = ends.ends[0].open(Direction::Both) {
            open.push(id);
        }
        assert_eq!(open.len(), 2, "round {round}");
        let id = open.remove(0);
        ends.write(0, id, 10);
        ends.ends[0].finish(id).unwrap();
        ends.settle();
        assert_eq!(ends.read_all(1, id), (10, Some(Read::End)));
        ends.settle();
        assert_eq!(ends.ends[0].open(Direction::Both), None, "the other way is still open");
        ends.ends[1].finish(id).unwrap();
        ends.settle();
        assert_eq!(ends.read_all(0, id), (0, Some(Read::End)));
        ends.settle();
        assert!(ends.events(0).contains(&StreamEvent::Available(Direction::Both)), "round {round}");
    }
}

#[test]
fn stopped_and_reset_streams_give_back_credit_and_go() {
    let mut ends = Ends::new(&small());
    for round in 0..50 {
        let id = ends.ends[0].open(Direction::One).unwrap();
        ends.write(0, id, 3000);
        ends.settle();
        match round % 4 {
            0 => ends.ends[1].stop(ends.now, id, 5),
            1 => ends.ends[0].reset(id, 5),
            2 => {
                ends.ends[0].reset(id, 5);
                ends.ends[1].stop(ends.now, id, 6);
            }
            _ => {
                ends.ends[0].finish(id).unwrap();
                ends.ends[1].stop(ends.now, id, 6);
            }
        }
        ends.settle();
        if round % 4 == 1 {
            assert_eq!(ends.read_all(1, id), (0, Some(Read::Reset(5))));
        }
        ends.settle();
        assert!(!ends.ends[0].any_open() && !ends.ends[1].any_open(), "round {round}");
        assert_eq!(ends.ends[0].held, 0);
        ends.events(0);
        ends.events(1);
    }
}

#[test]
fn a_reset_that_nobody_reads_and_everybody_stops_does_not_stay() {
    let mut ends = Ends::new(&small());
    let id = ends.ends[0].open(Direction::One).unwrap();
    ends.write(0, id, 10);
    ends.ends[0].reset(id, 5);
    ends.settle();
    ends.ends[1].stop(ends.now, id, 6);
    assert!(!ends.ends[1].any_open());
}

#[test]
fn a_writer_is_told_when_credit_or_room_comes() {
    let limits = Limits { stream_window_bytes: 10, ..small() };
    let mut ends = Ends::new(&limits);
    let id = ends.ends[0].open(Direction::One).unwrap();
    let mut written = 0;
    loop {
        let len = ends.write(0, id, 100_000);
        written += len;
        if len == 0 {
            break;
        }
    }
    assert!(written < 100_000, "little more than the credit: {written}");
    ends.settle();
    assert!(!ends.events(0).contains(&StreamEvent::Writable(id)));
    ends.read_all(1, id);
    ends.settle();
    assert!(ends.events(0).contains(&StreamEvent::Writable(id)));
}

#[test]
fn writers_that_get_no_credit_leave_room_for_one_that_does() {
    let limits = Limits {
        streams_one: 200,
        stream_window_bytes: 0,
        window_bytes: 1 << 30,
        window_max_bytes: 1 << 30,
        ..small()
    };
    let mut ends = Ends::new(&limits);
    for _ in 0..199 {
        let id = ends.ends[0].open(Direction::One).unwrap();
        while ends.write(0, id, 100_000) > 0 {}
    }
    let id = ends.ends[0].open(Direction::One).unwrap();
    let now = ends.now;
    ends.ends[0].on_frame(now, &Frame::MaxStreamData { stream: id, bytes: 1 << 20 }).unwrap();
    ends.ends[1]
        .on_frame(now, &Frame::Stream { stream: id, offset: 0, fin: false, data: &[] })
        .unwrap();
    ends.ends[1].recv.get_mut(&id).unwrap().credit =
        RecvCredit::new(1 << 20, 1 << 20, Budget::new(0));
    for round in 0..100 {
        assert!(ends.write(0, id, 1000) > 100, "round {round}");
        assert!(ends.ends[0].write_room(id).is_ok());
        ends.settle();
        let written = ends.events(0);
        assert!(round == 0 || !written.is_empty() || ends.ends[0].write_room(id).unwrap() > 0);
    }
}

#[test]
fn writes_behind_an_end_are_not_taken() {
    let mut ends = Ends::new(&small());
    for is_reset in [false, true] {
        let id = ends.ends[0].open(Direction::One).unwrap();
        if is_reset {
            ends.ends[0].reset(id, 0)
        } else {
            ends.ends[0].finish(id).unwrap()
        }
        ends.ends[0].write(id, Bytes::from_static(b"late"));
        assert_eq!(ends.ends[0].held, 0);
        assert_eq!(ends.ends[0].write_room(id), Err(StreamError::Closed));
    }
    ends.settle();
}

/// What the model knows of a stream that end 0 writes and end 1 reads.
#[derive(Debug, Default)]
struct Known {
    written: u64,
    read: u64,
    is_finished: bool,
    is_given_up: bool,
    is_over: bool,
}

/// One thing that an application or the wire may do.
fn random_step(
    rng: &mut fastrand::Rng,
    ends: &mut Ends,
    model: &mut BTreeMap<StreamId, Known>,
    is_ending: bool,
    seed: u64,
) {
    let ids: Vec<StreamId> =
        model.iter().filter(|(_, known)| !known.is_over).map(|(id, _)| *id).collect();
    let id = if ids.is_empty() { None } else { Some(ids[rng.usize(..ids.len())]) };
    match (rng.u32(0..12), id) {
        (0, _) if !is_ending => {
            if let Some(id) = ends.ends[0].open(Direction::One) {
                model.insert(id, Known::default());
            }
        }
        (1, Some(id)) => {
            let known = model.get_mut(&id).unwrap();
            if ends.ends[0].write_room(id).is_ok() {
                known.written += ends.write(0, id, rng.usize(0..1500)) as u64;
                if is_ending || rng.u32(0..5) == 0 {
                    ends.ends[0].finish(id).unwrap();
                    known.is_finished = true;
                }
            }
        }
        (2, Some(id)) if rng.u32(0..8) == 0 => {
            ends.ends[0].reset(id, 1);
            model.get_mut(&id).unwrap().is_given_up = true;
        }
        (3, Some(id)) if rng.u32(0..8) == 0 && ends.ends[1].recv.contains_key(&id) => {
            ends.ends[1].stop(ends.now, id, 1);
            let known = model.get_mut(&id).unwrap();
            (known.is_given_up, known.is_over) = (true, true);
        }
        (4..=6, Some(id)) => {
            let (len, end) = ends.read_all(1, id);
            let known = model.get_mut(&id).unwrap();
            known.read += len;
            assert!(known.read <= known.written);
            match end {
                Some(Read::End) => {
                    assert!(
                        known.is_finished && known.read == known.written,
                        "seed {seed} {known:?}"
                    );
                    known.is_over = true;
                }
                Some(Read::Reset(_)) => {
                    assert!(known.is_given_up, "seed {seed} {known:?}");
                    known.is_over = true;
                }
                _ => {}
            }
        }
        (7..=8, _) => {
            ends.send(rng.usize(0..2), rng.usize(100..1300));
        }
        (9..=10, _) if !ends.wire.is_empty() => ends.arrive(rng.usize(..ends.wire.len())),
        (11, _) if !ends.wire.is_empty() && rng.bool() => ends.lose(rng.usize(..ends.wire.len())),
        _ => {}
    }
}

#[test]
fn tables_agree_over_a_wire_that_loses_and_reorders() {
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut ends = Ends::new(&Limits { streams_one: 5, ..small() });
        let mut model: BTreeMap<StreamId, Known> = BTreeMap::new();
        for step in 0..1500 {
            ends.now += Duration::from_millis(1);
            random_step(&mut rng, &mut ends, &mut model, step > 700, seed);
            let held: u64 = ends.ends[0].send.values().map(|half| half.held()).sum();
            assert_eq!(ends.ends[0].held, held, "seed {seed} step {step}");
            let parked: u64 = ends.ends[0].send.values().map(|half| half.parked()).sum();
            assert_eq!(ends.ends[0].parked, parked, "seed {seed} step {step}");
            assert!(ends.ends[0].out_credit.used() <= ends.ends[1].in_credit.limit());
            for end in 0..2 {
                ends.events(end);
            }
        }
        for (id, known) in &mut model {
            if ends.ends[0].write_room(*id).is_ok() {
                ends.ends[0].finish(*id).unwrap();
                known.is_finished = true;
            }
        }
        for _ in 0..100 {
            ends.settle();
            for (id, known) in &mut model {
                known.read += ends.read_all(1, *id).0;
            }
        }
        assert!(!ends.ends[0].any_open() && !ends.ends[1].any_open(), "seed {seed}: {model:?}");
        assert!(
            model.values().all(|known| known.is_given_up || known.read == known.written),
            "seed {seed}: {model:?}"
        );
        assert_eq!(ends.ends[0].held, 0);
    }
}
