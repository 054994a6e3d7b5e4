//! One datagram (W-2).

use cabo_proto::wire::discovery::{Here, Question};
use cabo_proto::wire::packet::{self, ConnectionId, Kind, Packet, tag_len};

/// A datagram.
pub fn packet(datagram: &[u8]) {
    let packet = match packet::parse(datagram) {
        Ok(packet) => packet,
        Err(error) => return assert!(error.at <= datagram.len(), "{error}"),
    };
    assert!(packet.length <= datagram.len());
    assert!(!packet.to_string().contains('\n'));
    let bytes = &datagram[..packet.length];
    assert_eq!(packet::parse(bytes).as_ref(), Ok(&packet), "what follows is ignored");
    if packet.length > 0 {
        assert!(packet::parse(&bytes[..packet.length - 1]).is_err(), "cut short");
    }
    if let Some(again) = write(&packet, bytes) {
        let read = packet::parse(&again).expect("what we write parses");
        assert_eq!((read.version, read.receiver), (packet.version, packet.receiver));
        assert!(again.len() <= bytes.len(), "we write the shortest form");
    }
}

/// The packet as we write it; `None` where we never do.
fn write(packet: &Packet, bytes: &[u8]) -> Option<Vec<u8>> {
    let Packet { version, receiver, ref kind, .. } = *packet;
    let mut out = Vec::new();
    let body = match *kind {
        Kind::Initial { sender, number, ref cookie, body } => {
            packet::put_initial(
                &mut out,
                version,
                receiver,
                sender,
                number,
                &bytes[cookie.clone()],
            );
            body
        }
        Kind::Handshake { sender, number, body } => {
            packet::put_handshake(&mut out, version, receiver, sender, number);
            body
        }
        Kind::Data { phase, number, body } => {
            packet::put_data(&mut out, version, receiver, phase, number);
            body
        }
        Kind::Cookie { sender, ref cookie } => {
            return Some(packet::cookie_packet(version, receiver, sender, &bytes[cookie.clone()]));
        }
        Kind::Reset { token } => return Some(packet::reset_packet(version, receiver, token)),
        Kind::VersionAnswer { sender, ref versions } => {
            return Some(packet::version_answer(receiver, sender, &bytes[versions.clone()]));
        }
        Kind::Discover { sender, body } => {
            assert_eq!((receiver, bytes.len() >= 256), (ConnectionId::ZERO, true));
            let _ = Question::decode(&bytes[body..]);
            return Some(packet::discover_packet(version, sender, &bytes[body..]));
        }
        Kind::Here { body, .. } => {
            return Here::decode(&bytes[body..]).ok().map(|here| here.answer(version, receiver));
        }
        Kind::UnknownVersion { .. } => return None,
    };
    assert!(bytes.len() > body + tag_len(version), "a byte of frames and the tag");
    out.extend_from_slice(&bytes[body..]);
    packet::set_length(&mut out);
    Some(out)
}
