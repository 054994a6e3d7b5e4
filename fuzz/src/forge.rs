//! Packets and records as a peer of plain would make them: what they hold is any bytes, the checksum is right.

use cabo_proto::wire::packet::{self, ConnectionId};
use cabo_proto::wire::record::{self, RecordKind};

const TAG: usize = 4;

/// CRC-32C, bit by bit: another body than the one under test.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg())
        })
    })
}

fn seal(mut out: Vec<u8>, set_length: fn(&mut [u8])) -> Vec<u8> {
    out.extend_from_slice(&[0; TAG]);
    set_length(&mut out);
    let end = out.len() - TAG;
    let tag = crc32c(&out[..end]);
    out[end..].copy_from_slice(&tag.to_be_bytes());
    out
}

/// An Initial packet of at least 1,200 bytes.
pub(crate) fn initial(
    receiver: ConnectionId,
    sender: ConnectionId,
    number: u64,
    body: &[u8],
) -> Vec<u8> {
    let mut out = Vec::new();
    packet::put_initial(&mut out, packet::PLAIN, receiver, sender, number, &[]);
    out.extend_from_slice(&body[..body.len().min(1400)]);
    out.resize(out.len().max(1200 - TAG), 0);
    seal(out, packet::set_length)
}

/// A Data packet.
pub(crate) fn data(receiver: ConnectionId, number: u64, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    packet::put_data(&mut out, packet::PLAIN, receiver, false, number);
    out.extend_from_slice(&body[..body.len().min(1400)]);
    out.resize(out.len().max(packet::SHORT_HEADER + 1), 0);
    seal(out, packet::set_length)
}

/// A record.
pub(crate) fn record(kind: RecordKind, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    record::put(&mut out, kind);
    out.extend_from_slice(&body[..body.len().min(60_000)]);
    match kind {
        RecordKind::Initial => {
            record::set_length(&mut out);
            out
        }
        RecordKind::Handshake | RecordKind::Data { .. } => seal(out, record::set_length),
    }
}
