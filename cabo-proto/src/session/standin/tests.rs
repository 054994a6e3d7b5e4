//! Tests of the stand-in, and a driver for any [`Crypto`] that `plain` uses too.

use super::*;

/// What is left of a handshake that ended well.
pub(in crate::session) struct Shaken {
    pub(in crate::session) client: Box<dyn Handshake>,
    pub(in crate::session) server: Box<dyn Handshake>,
    pub(in crate::session) client_keys: Vec<Keys>,
    pub(in crate::session) server_keys: Vec<Keys>,
    pub(in crate::session) sent: Vec<(Side, Space, usize)>,
}

/// Drives a handshake to its end, `step` bytes a read.
pub(in crate::session) fn shake(
    client: &dyn Crypto,
    server: &dyn Crypto,
    step: usize,
) -> Result<Shaken, CryptoError> {
    let mut ends = [
        client.start(Side::Client, b"of the client".to_vec())?,
        server.start(Side::Server, b"of the server".to_vec())?,
    ];
    let mut keys = [Vec::new(), Vec::new()];
    let mut spaces = [Space::Initial; 2];
    let mut sent = Vec::new();
    for turn in 0..8 {
        let (from, to) = (turn % 2, 1 - turn % 2);
        loop {
            let mut out = Vec::new();
            let change = ends[from].write(&mut out);
            let space = spaces[from];
            if !out.is_empty() {
                sent.push(([Side::Client, Side::Server][from], space, out.len()));
            }
            for chunk in out.chunks(step) {
                ends[to].read(space, chunk)?;
            }
            match change {
                Some(KeyChange::Handshake(new)) => {
                    keys[from].push(new);
                    spaces[from] = Space::Handshake;
                }
                Some(KeyChange::Data(new)) => {
                    keys[from].push(new);
                    spaces[from] = Space::Data;
                }
                None if out.is_empty() => break,
                None => {}
            }
        }
    }
    let [client, server] = ends;
    assert!(!client.is_handshaking() && !server.is_handshaking(), "both ends are done");
    assert_eq!(spaces, [Space::Data; 2]);
    let [client_keys, server_keys] = keys;
    Ok(Shaken { client, server, client_keys, server_keys, sent })
}

fn sealed(key: &dyn PacketKey, number: u64) -> Vec<u8> {
    let mut body = b"the payload".to_vec();
    body.resize(body.len() + key.tag_len(), 0xa5);
    key.seal(number, b"the header", &mut body);
    body
}

/// Each packet opens at the other end, and no longer after any bit of it was flipped.
pub(in crate::session) fn assert_keys_match(client: &[Keys], server: &[Keys]) {
    assert_eq!(client.len(), server.len());
    for (client, server) in client.iter().zip(server) {
        for (seal, open) in [(&client.seal, &server.open), (&server.seal, &client.open)] {
            let packet = sealed(seal.as_ref(), 9);
            let mut copy = packet.clone();
            assert_eq!(open.open(9, b"the header", &mut copy), Some(11));
            assert_eq!(&copy[..11], b"the payload");
            assert_eq!(open.open(9, b"The header", &mut packet.clone()), None);
            for bit in 0..packet.len() * 8 {
                let mut copy = packet.clone();
                copy[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(open.open(9, b"the header", &mut copy), None, "bit {bit}");
            }
        }
    }
}

/// Random bytes, random pieces of a true first flight: an error or nothing, but no panic and no end of the handshake.
pub(in crate::session) fn assert_garbage_is_refused(crypto: &dyn Crypto) {
    let mut hello = Vec::new();
    crypto.start(Side::Client, b"params".to_vec()).expect("starts").write(&mut hello);
    for seed in 0..2000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let side = if rng.bool() { Side::Client } else { Side::Server };
        let mut end = crypto.start(side, Vec::new()).expect("starts");
        let mut bytes: Vec<u8> = if rng.bool() {
            hello.clone()
        } else {
            (0..rng.usize(..3000)).map(|_| rng.u8(..)).collect()
        };
        for _ in 0..rng.usize(1..4) {
            if !bytes.is_empty() {
                let at = rng.usize(..bytes.len());
                bytes[at] ^= 1 << rng.u8(..8);
            }
        }
        let cut = rng.usize(1..64);
        for chunk in bytes.chunks(cut) {
            let space = if rng.u8(..20) == 0 { Space::Handshake } else { Space::Initial };
            if end.read(space, chunk).is_err() {
                break;
            }
            while end.write(&mut Vec::new()).is_some() {}
        }
    }
}

#[test]
fn a_handshake_ends_with_names_parameters_and_keys_on_both_sides() {
    let (ana, bob) = (StandIn::new(1), StandIn::new(2));
    for step in [1, 100, 1200, 9000] {
        let Shaken { client, server, client_keys, server_keys, sent } =
            shake(&ana, &bob, step).expect("done");
        assert_eq!(client.peer_params(), Some(&b"of the server"[..]));
        assert_eq!(server.peer_params(), Some(&b"of the client"[..]));
        assert_eq!(client.peer_key(), Some(bob.public_key()));
        assert_eq!(server.peer_key(), Some(ana.public_key()));
        assert_keys_match(&client_keys, &server_keys);
        assert_eq!(
            sent,
            [
                (Side::Client, Space::Initial, CLIENT_HELLO_LEN),
                (Side::Server, Space::Initial, SERVER_HELLO_LEN),
                (Side::Server, Space::Handshake, SERVER_PROOF_LEN),
                (Side::Client, Space::Handshake, CLIENT_PROOF_LEN),
            ]
        );
    }
}

#[test]
fn the_initial_keys_match_and_follow_from_the_id() {
    let (ana, bob) = (StandIn::new(1), StandIn::new(2));
    let id = ConnectionId(*b"eightby1");
    let client = ana.initial_keys(Side::Client, id);
    assert_keys_match(&[ana.initial_keys(Side::Client, id)], &[bob.initial_keys(Side::Server, id)]);
    let other = bob.initial_keys(Side::Server, ConnectionId(*b"eightby2"));
    assert_eq!(other.open.open(9, b"the header", &mut sealed(client.seal.as_ref(), 9)), None);
}

#[test]
fn the_same_seeds_give_the_same_bytes() {
    let tags = || {
        let shaken = shake(&StandIn::new(1), &StandIn::new(2), 1200).expect("done");
        shaken.client_keys.iter().map(|keys| sealed(keys.seal.as_ref(), 1)).collect::<Vec<_>>()
    };
    assert_eq!(tags(), tags());
}

#[test]
fn a_second_handshake_has_other_keys() {
    let (ana, bob) = (StandIn::new(1), StandIn::new(2));
    let first = shake(&ana, &bob, 1200).expect("done");
    let second = shake(&ana, &bob, 1200).expect("done");
    for (one, two) in first.client_keys.iter().zip(&second.server_keys) {
        assert_eq!(two.open.open(1, b"the header", &mut sealed(one.seal.as_ref(), 1)), None);
    }
}

#[test]
fn a_packet_of_another_number_phase_space_or_direction_does_not_open() {
    let Shaken { client_keys, server_keys, mut server, .. } =
        shake(&StandIn::new(1), &StandIn::new(2), 1200).expect("done");
    let packet = sealed(client_keys[1].seal.as_ref(), 5);
    let open = |keys: &Keys, number| keys.open.open(number, b"the header", &mut packet.clone());
    assert_eq!(open(&server_keys[1], 5), Some(11));
    assert_eq!(open(&server_keys[1], 6), None);
    assert_eq!(open(&server_keys[0], 5), None);
    assert_eq!(open(&client_keys[1], 5), None);
    assert_eq!(open(&server.next_keys().expect("there"), 5), None);
}

#[test]
fn key_update_keeps_step() {
    let Shaken { mut client, mut server, .. } =
        shake(&StandIn::new(1), &StandIn::new(2), 1200).expect("done");
    for _ in 0..5 {
        let (ours, theirs) =
            (client.next_keys().expect("there"), server.next_keys().expect("there"));
        assert_keys_match(&[ours], &[theirs]);
    }
    assert!(StandIn::new(1).start(Side::Client, Vec::new()).expect("starts").next_keys().is_none());
}

#[test]
fn only_the_expected_peer_is_taken() {
    let (ana, bob) = (StandIn::new(1), StandIn::new(2));
    assert!(shake(&StandIn::new(1).expecting(bob.public_key()), &bob, 1200).is_ok());
    let refusal =
        shake(&StandIn::new(1).expecting(ana.public_key()), &bob, 1200).err().expect("refused");
    assert!(refusal.is_wrong_peer());
}

#[test]
fn a_handshake_changed_on_its_way_fails() {
    for (victim, at) in [(Side::Server, 1400), (Side::Client, 1100)] {
        let (ana, bob) = (StandIn::new(1), StandIn::new(2));
        let mut client = ana.start(Side::Client, Vec::new()).expect("starts");
        let mut server = bob.start(Side::Server, Vec::new()).expect("starts");
        let (mut hello, mut answer, mut proof) = (Vec::new(), Vec::new(), Vec::new());
        assert!(client.write(&mut hello).is_none());
        if victim == Side::Server {
            hello[at] ^= 1; // in the padding, which only the transcript covers
        }
        server.read(Space::Initial, &hello).expect("looks well");
        assert!(server.write(&mut answer).is_some() && server.write(&mut proof).is_some());
        if victim == Side::Client {
            answer[at] ^= 1;
        }
        client.read(Space::Initial, &answer).expect("looks well");
        let refusal = client.read(Space::Handshake, &proof).expect_err("refused");
        assert_eq!(refusal.alert, Some(51));
        assert!(client.is_handshaking());
        assert!(client.read(Space::Handshake, &proof).is_err(), "and stays failed");
    }
}

#[test]
fn garbage_is_an_error_and_never_a_panic() {
    assert_garbage_is_refused(&StandIn::new(7));
}

#[test]
fn a_mac_matches_only_its_own_tag() {
    let ana = StandIn::new(1);
    let mut tag = ana.mac(b"cookie", b"data");
    assert!(ana.mac_matches(b"cookie", b"data", &tag));
    assert!(!ana.mac_matches(b"reset", b"data", &tag) && !ana.mac_matches(b"cookie", b"dat", &tag));
    assert!(
        !ana.mac_matches(b"cookie", b"data", &tag[..15])
            && !ana.mac_matches(b"cookie", b"data", &[])
    );
    assert!(!StandIn::new(2).mac_matches(b"cookie", b"data", &tag));
    tag[15] ^= 1;
    assert!(!ana.mac_matches(b"cookie", b"data", &tag));
}
