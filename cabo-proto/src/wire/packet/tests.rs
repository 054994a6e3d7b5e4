//! Packet headers: literal bytes both ways, round trips, refusals (W-2).

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::wire::{print, seeded};

const RECEIVER: ConnectionId = ConnectionId([0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17]);
const SENDER: ConnectionId = ConnectionId([0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27]);

/// A header with `body` and a tag of zeros behind it.
fn complete(version: u8, body: &[u8], put: impl FnOnce(&mut Vec<u8>) -> usize) -> Vec<u8> {
    let mut out = vec![0xDD; 3]; // what another packet left there
    let start = put(&mut out);
    assert_eq!(start, 3);
    out.extend_from_slice(body);
    out.resize(out.len() + tag_len(version), 0);
    set_length(&mut out[start..]);
    assert_eq!(out[..3], [0xDD; 3]);
    out.split_off(3)
}

#[test]
fn a_data_header_is_twenty_bytes_with_the_number_last() {
    let packet =
        complete(SEALED, b"f", |out| put_data(out, SEALED, RECEIVER, true, 0x0102_0304_0506_0708));
    assert_eq!(packet[..4], [0xCB, 0x11, 0, 37]);
    assert_eq!(packet[4..12], RECEIVER.0);
    assert_eq!(packet[12..SHORT_HEADER], [1, 2, 3, 4, 5, 6, 7, 8]);
    let kind = Kind::Data { phase: true, number: 0x0102_0304_0506_0708, body: SHORT_HEADER };
    assert_eq!(
        parse(&packet),
        Ok(Packet { version: SEALED, length: 37, receiver: RECEIVER, kind })
    );
}

#[test]
fn a_header_of_either_form_is_refused_at_every_length_below_its_own() {
    for version in 0..16 {
        for form_and_kind in 0..16 {
            let mut packet = Vec::new();
            put_common(&mut packet, version, form_and_kind, RECEIVER);
            packet.resize(LONG_COMMON, 0);
            let header = if form_and_kind & LONG == 0 { COMMON } else { LONG_COMMON };
            for length in 0..header {
                set_length(&mut packet[..length]);
                let error = parse(&packet[..length]).expect_err("there is no room for the ids");
                assert!(error.at <= COMMON, "version {version}, {form_and_kind}: {error}");
            }
        }
    }
}

#[test]
fn of_an_unknown_version_nothing_but_the_common_part_is_read() {
    for version in 3..16 {
        for form_and_kind in 0..16 {
            let mut packet = vec![MARKER, version << 4 | form_and_kind, 0, 30];
            packet.extend_from_slice(&RECEIVER.0);
            packet.extend_from_slice(&SENDER.0);
            packet.resize(30, 0xFF);
            let sender = (form_and_kind & LONG != 0).then_some(SENDER);
            let kind = Kind::UnknownVersion { sender };
            assert_eq!(
                parse(&packet),
                Ok(Packet { version, length: 30, receiver: RECEIVER, kind })
            );
        }
    }
}

#[test]
fn a_version_answer_may_be_as_short_as_its_question() {
    let answer = version_answer(SENDER, RECEIVER, &[SEALED]);
    assert_eq!(answer.len(), LONG_COMMON + 1);
    let kind = Kind::VersionAnswer { sender: RECEIVER, versions: 20..21 };
    assert_eq!(parse(&answer), Ok(Packet { version: ANSWER, length: 21, receiver: SENDER, kind }));
}

#[test]
fn the_largest_packet_fits_its_length_field() {
    let mut packet = Vec::new();
    put_data(&mut packet, SEALED, RECEIVER, false, 0);
    packet.resize(65_535, 0);
    set_length(&mut packet);
    assert_eq!(parse(&packet).map(|packet| packet.length), Ok(65_535));
    set_length(&mut [0; 3]); // too short for the field: nothing happens
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn what_is_put_is_what_is_parsed(
        sealed: bool,
        ids: ([u8; 8], [u8; 8]),
        number in 0..=varint::MAX,
        cookie in vec(any::<u8>(), 0..100),
        frames in vec(any::<u8>(), 1..100),
        padding in 0usize..64,
    ) {
        let version = if sealed { SEALED } else { PLAIN };
        let (receiver, sender) = (ConnectionId(ids.0), ConnectionId(ids.1));
        let initial = complete(version, &frames, |out| put_initial(out, version, receiver, sender, number, &cookie));
        let handshake = complete(version, &frames, |out| put_handshake(out, version, receiver, sender, number));
        let data = complete(version, &frames, |out| put_data(out, version, receiver, sealed, number));
        for mut datagram in [initial, handshake, data] {
            let length = datagram.len();
            datagram.resize(length + padding, 0);
            let packet = parse(&datagram)?;
            prop_assert_eq!((packet.version, packet.length, packet.receiver), (version, length, receiver));
            let body = match packet.kind.clone() {
                Kind::Initial { sender: from, number: counted, cookie: place, body } => {
                    prop_assert_eq!((from, counted, &datagram[place]), (sender, number, &*cookie));
                    body
                }
                Kind::Handshake { sender: from, number: counted, body } => {
                    prop_assert_eq!((from, counted), (sender, number));
                    body
                }
                Kind::Data { phase, number: counted, body } => {
                    prop_assert_eq!((phase, counted), (sealed, number));
                    body
                }
                Kind::Cookie { .. } | Kind::Discover { .. } | Kind::Here { .. } | Kind::Reset { .. } => panic!("{packet}"),
                Kind::VersionAnswer { .. } | Kind::UnknownVersion { .. } => panic!("{packet}"),
            };
            prop_assert_eq!(&datagram[body..length - tag_len(version)], &*frames);
        }
    }

    #[test]
    fn no_datagram_is_too_strange(mut datagram in vec(any::<u8>(), 0..300), version in 0u8..4, length in 0u16..300) {
        for (at, byte) in [MARKER, version << 4 | datagram.get(1).unwrap_or(&0) & 0x0F].into_iter().enumerate() {
            if let Some(place) = datagram.get_mut(at) {
                *place = byte;
            }
        }
        if let Some(place) = datagram.get_mut(LENGTH) {
            place.copy_from_slice(&length.to_be_bytes());
        }
        if let Ok(packet) = parse(&datagram) {
            prop_assert!(packet.length <= datagram.len());
            prop_assert!(!packet.to_string().is_empty());
        }
        prop_assert!(!print::Body(&datagram).to_string().is_empty());
    }
}
