//! Replays the test vectors of `docs/protocol/vectors/` and the examples of `docs/protocol/wire.md`, whose form is
//! described in the README beside them. Each vector is read, printed, written again, and read with its end cut off.

use std::path::{Path, PathBuf};

use crc_fast::{CrcAlgorithm, checksum};

use super::discovery::{Here, Question};
use super::frame::{Frame, Frames, Space, put_stream_header};
use super::packet::{self, Kind, PLAIN, Packet};
use super::params::Params;
use super::print::Body;
use super::record::{self, Form, HEADER};
use super::varint::{self, Malformed, Reader};

struct Vector {
    place: String,
    reader: String,
    holds: Holds,
    bytes: Vec<u8>,
    text: String,
}

#[derive(Debug, PartialEq)]
enum Holds {
    Both,
    Read,
    Fail,
}

#[test]
fn every_vector_means_what_it_says() {
    for vector in all_vectors() {
        let Vector { place, reader, holds, bytes, text } = &vector;
        match (read(reader, bytes), holds) {
            (Ok(read), Holds::Both | Holds::Read) => assert_eq!(&read, text, "{place}"),
            (Err(error), Holds::Fail) => assert_eq!(&error.to_string(), text, "{place}"),
            (Ok(read), Holds::Fail) => panic!("{place}: taken as {read}"),
            (Err(error), Holds::Both | Holds::Read) => panic!("{place}: refused: {error}"),
        }
    }
}

#[test]
fn every_vector_of_both_ways_is_written_byte_for_byte() {
    for Vector { place, reader, holds, bytes, .. } in all_vectors() {
        let mut out = b"dirt".to_vec();
        match holds {
            Holds::Both => write(&reader, &bytes, &mut out),
            Holds::Read | Holds::Fail => continue,
        }
        assert_eq!(out.get(4..), Some(&*bytes), "{place}");
        assert!(out.starts_with(b"dirt"), "{place}: what was there before is untouched");
    }
}

#[test]
fn every_truncation_is_an_error_or_ends_where_something_ends() {
    for Vector { place, reader, holds, bytes, .. } in all_vectors() {
        if holds == Holds::Fail || bytes.len() > 4096 {
            continue;
        }
        for length in 0..bytes.len() {
            let head = &bytes[..length];
            match (&*reader, read(&reader, head)) {
                (_, Err(error)) => {
                    assert!(error.at <= length, "{place}: {error} lies in the first {length}")
                }
                // A shorter run, a shorter STREAM without a length, or the end of a frame or of a parameter, where the next
                // may be absent.
                ("frames", Ok(_)) => assert!(is_start_of(head, &bytes), "{place}: {length} bytes"),
                ("params", Ok(_)) => {
                    assert!(holds == Holds::Read || rewritten_params(head) == head, "{place}")
                }
                ("here", Ok(_)) => {
                    let is_all = || Here::decode(head).expect("read before").encode() == head;
                    assert!(holds == Holds::Read || is_all(), "{place}: {length} bytes")
                }
                ("packet", Ok(_)) => {
                    assert!(length >= packet_length(&bytes), "{place}: {length} bytes")
                }
                (_, Ok(_)) => panic!("{place}: taken with {length} bytes"),
            }
        }
    }
}

#[test]
fn there_are_vectors_of_every_reader_and_examples_in_the_specification() {
    let vectors = all_vectors();
    for reader in [
        "varint",
        "packet",
        "frames",
        "record-sealed",
        "record-plain",
        "record-bound",
        "params",
        "here",
    ] {
        assert!(vectors.iter().any(|vector| vector.reader == reader), "no vector of {reader}");
    }
    assert!(
        vectors.iter().any(|vector| vector.place.contains("wire.md")),
        "wire.md has no examples"
    );
}

fn read(reader: &str, bytes: &[u8]) -> Result<String, Malformed> {
    match reader {
        "varint" => {
            let mut reader = Reader::new(bytes);
            let value = reader.varint()?;
            assert!(reader.is_empty(), "{value} is not all");
            Ok(value.to_string())
        }
        "packet" => read_packet(bytes),
        "frames" => read_frames(bytes),
        "record-sealed" => read_record(bytes, Form::Sealed),
        "record-plain" => read_record(bytes, Form::Plain),
        "record-bound" => read_record(bytes, Form::Bound),
        "params" => Params::decode(bytes).map(|params| params.to_string()),
        "here" => Here::decode(bytes).map(|here| here.to_string()),
        other => panic!("no reader {other}"),
    }
}

fn read_frames(body: &[u8]) -> Result<String, Malformed> {
    Frames::new(body).collect::<Result<Vec<_>, _>>()?;
    Ok(Body(body).to_string())
}

fn read_packet(bytes: &[u8]) -> Result<String, Malformed> {
    let packet = packet::parse(bytes)?;
    let bytes = &bytes[..packet.length];
    let Some(body) = body_start(&packet) else { return Ok(packet.to_string()) };
    let text = format!("{packet}, body at {body}");
    if matches!(packet.kind, Kind::Discover { .. }) {
        Question::decode(&bytes[body..])?;
    } else if matches!(packet.kind, Kind::Here { .. }) {
        Here::decode(&bytes[body..])?;
    } else if packet.version == PLAIN {
        return Ok(format!("{text}: {}", read_frames(&checked(bytes)[body..])?));
    }
    Ok(text)
}

fn read_record(bytes: &[u8], form: Form) -> Result<String, Malformed> {
    let cut_short = Malformed { what: "cut short", at: bytes.len() };
    let header = record::parse(bytes.first_chunk().ok_or(cut_short)?)?;
    let record = bytes.get(..HEADER + header.length).ok_or(cut_short)?;
    assert_eq!(record.len(), bytes.len(), "one record a vector");
    match (header.kind.space(), form) {
        (Space::Initial, _) | (Space::Data, Form::Bound) => {
            Ok(format!("{header}: {}", read_frames(&record[HEADER..])?))
        }
        (Space::Handshake | Space::Data, Form::Plain) => {
            Ok(format!("{header}: {}", read_frames(&checked(record)[HEADER..])?))
        }
        (Space::Handshake | Space::Data, _) => Ok(header.to_string()),
    }
}

/// `bytes` without the CRC-32C at its end, which must be right (W-2.9, W-4.3).
fn checked(bytes: &[u8]) -> &[u8] {
    let (before, tag) = bytes.split_last_chunk::<4>().expect("room for a tag");
    assert_eq!(
        checksum(CrcAlgorithm::Crc32Iscsi, before),
        u64::from(u32::from_be_bytes(*tag)),
        "the tag"
    );
    before
}

fn body_start(packet: &Packet) -> Option<usize> {
    match packet.kind {
        Kind::Initial { body, .. }
        | Kind::Handshake { body, .. }
        | Kind::Data { body, .. }
        | Kind::Discover { body, .. }
        | Kind::Here { body, .. } => Some(body),
        Kind::Cookie { .. }
        | Kind::Reset { .. }
        | Kind::VersionAnswer { .. }
        | Kind::UnknownVersion { .. } => None,
    }
}

fn write(reader: &str, bytes: &[u8], out: &mut Vec<u8>) {
    match reader {
        "varint" => varint::put(out, Reader::new(bytes).varint().expect("read before")),
        "packet" => write_packet(bytes, out),
        "frames" => write_frames(bytes, out),
        "record-sealed" | "record-plain" | "record-bound" => {
            let header =
                record::parse(bytes.first_chunk().expect("read before")).expect("read before");
            let start = record::put(out, header.kind);
            out.extend_from_slice(&bytes[HEADER..]);
            record::set_length(&mut out[start..]);
        }
        "params" => out.extend(rewritten_params(bytes)),
        "here" => out.extend(Here::decode(bytes).expect("read before").encode()),
        other => panic!("no reader {other}"),
    }
}

fn write_packet(bytes: &[u8], out: &mut Vec<u8>) {
    let Packet { version, receiver, kind, .. } = packet::parse(bytes).expect("read before");
    let (start, body) = match kind {
        Kind::Initial { sender, number, cookie, body } => {
            (packet::put_initial(out, version, receiver, sender, number, &bytes[cookie]), body)
        }
        Kind::Handshake { sender, number, body } => {
            (packet::put_handshake(out, version, receiver, sender, number), body)
        }
        Kind::Data { phase, number, body } => {
            (packet::put_data(out, version, receiver, phase, number), body)
        }
        Kind::Cookie { sender, cookie } => {
            return out.extend(packet::cookie_packet(version, receiver, sender, &bytes[cookie]));
        }
        Kind::Discover { sender, body } => {
            let question = Question::decode(&bytes[body..]).expect("read before");
            return out.extend(question.packet(version, sender));
        }
        Kind::Here { body, .. } => {
            let here = Here::decode(&bytes[body..]).expect("read before");
            return out.extend(here.answer(version, receiver));
        }
        Kind::Reset { token } => return out.extend(packet::reset_packet(version, receiver, token)),
        Kind::VersionAnswer { sender, versions } => {
            return out.extend(packet::version_answer(receiver, sender, &bytes[versions]));
        }
        Kind::UnknownVersion { .. } => panic!("nobody writes these"),
    };
    out.extend_from_slice(&bytes[body..]);
    packet::set_length(&mut out[start..]);
}

/// Writes the frames again; the last STREAM without a length if it had none.
fn write_frames(body: &[u8], out: &mut Vec<u8>) {
    let base = out.len();
    for frame in Frames::new(body) {
        let (frame, start) = (frame.expect("read before"), out.len());
        frame.put(out);
        if let Frame::Stream { stream, offset, fin, data } = frame
            && !body[start - base..].starts_with(&out[start..])
        {
            out.truncate(start);
            put_stream_header(out, stream, offset, None, fin);
            out.extend_from_slice(data);
        }
    }
}

fn rewritten_params(bytes: &[u8]) -> Vec<u8> {
    Params::decode(bytes).expect("read before").encode()
}

fn packet_length(bytes: &[u8]) -> usize {
    packet::parse(bytes).expect("read before").length
}

/// Whether the frames of `head` are those of `whole`, but for a last one that is shorter.
fn is_start_of(head: &[u8], whole: &[u8]) -> bool {
    let name = |frame: Result<Frame<'_>, Malformed>| frame.map(|frame| frame.to_string());
    let (head, whole): (Vec<_>, Vec<_>) =
        (Frames::new(head).map(name).collect(), Frames::new(whole).map(name).collect());
    let (Some(last), Some(same)) = (head.last(), whole.get(head.len() - 1)) else { return false };
    let (Ok(last), Ok(same)) = (last, same) else { return false };
    let may_shrink =
        ["PAD", "STREAM"].iter().any(|name| last.starts_with(name) && same.starts_with(name));
    head[..head.len() - 1] == whole[..head.len() - 1] && (last == same || may_shrink)
}

fn all_vectors() -> Vec<Vector> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol");
    let mut files: Vec<PathBuf> = docs
        .join("vectors")
        .read_dir()
        .expect("the folder of the vectors")
        .map(|entry| entry.expect("its entries").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    let mut vectors: Vec<Vector> =
        files.iter().flat_map(|file| vectors_of(file, |_| true)).collect();
    let mut is_example = false;
    vectors.extend(vectors_of(&docs.join("wire.md"), |line| {
        is_example = line == "```vectors" || is_example && !line.starts_with("```");
        is_example && line != "```vectors"
    }));
    vectors
}

fn vectors_of(file: &Path, mut is_ours: impl FnMut(&str) -> bool) -> Vec<Vector> {
    let text = std::fs::read_to_string(file).expect("a file of vectors");
    let name = file.file_name().expect("a file's name").to_string_lossy();
    let (mut vectors, mut open) = (Vec::new(), None::<Vector>);
    for (number, line) in text.lines().enumerate() {
        let place = format!("{name}:{}", number + 1);
        if !is_ours(line) || line.is_empty() || line.starts_with('#') {
            assert!(open.is_none(), "{place}: a vector without its meaning");
        } else if let Some(hex) = line.strip_prefix("  ") {
            let hex = hex.split("  ").next().unwrap_or_default();
            let vector = open.as_mut().unwrap_or_else(|| panic!("{place}: bytes of no vector"));
            vector.bytes.extend(hex.split(' ').flat_map(|word| bytes_of(word, &place)));
        } else if let Some(meaning) = line.strip_prefix("= ") {
            let vector = open.take().unwrap_or_else(|| panic!("{place}: the meaning of no vector"));
            vectors.push(Vector { text: meaning.to_owned(), ..vector });
        } else {
            assert!(open.is_none(), "{place}: a vector without its meaning");
            let (reader, holds) =
                line.split_once(' ').unwrap_or_else(|| panic!("{place}: not a vector"));
            let holds = match holds {
                "both" => Holds::Both,
                "read" => Holds::Read,
                "fail" => Holds::Fail,
                other => panic!("{place}: {other:?} is not one of both, read, fail"),
            };
            open = Some(Vector {
                place,
                reader: reader.to_owned(),
                holds,
                bytes: Vec::new(),
                text: String::new(),
            });
        }
    }
    vectors
}

/// `ee`, or `ee*16`.
fn bytes_of(word: &str, place: &str) -> Vec<u8> {
    let (byte, times) = word.split_once('*').unwrap_or((word, "1"));
    let byte =
        u8::from_str_radix(byte, 16).unwrap_or_else(|_| panic!("{place}: {word:?} is not a byte"));
    vec![byte; times.parse().unwrap_or_else(|_| panic!("{place}: {word:?} is not a count"))]
}
