//! Whole handshakes in memory, and what must not pass.

use super::*;

struct Shaken {
    client: Box<dyn Handshake>,
    server: Box<dyn Handshake>,
    client_keys: Vec<Keys>,
    server_keys: Vec<Keys>,
    sent: Vec<(Side, Space, usize)>,
}

/// Drives a handshake to its end, `step` bytes a read.
fn shake(client: &dyn Crypto, server: &dyn Crypto, step: usize) -> Result<Shaken, CryptoError> {
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
            if !out.is_empty() {
                sent.push(([Side::Client, Side::Server][from], spaces[from], out.len()));
            }
            for chunk in out.chunks(step) {
                ends[to].read(spaces[from], chunk)?;
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

fn someone() -> (Identity, Sealed) {
    let identity = Identity::generate().expect("works");
    let crypto = Sealed::new(&identity, None).expect("works");
    (identity, crypto)
}

fn sealed(key: &dyn PacketKey) -> Vec<u8> {
    let mut body = b"the payload".to_vec();
    body.resize(body.len() + key.tag_len(), 0xa5);
    key.seal(9, b"the header", &mut body);
    body
}

fn assert_keys_match(client: &[Keys], server: &[Keys]) {
    assert_eq!(client.len(), server.len());
    for (client, server) in client.iter().zip(server) {
        for (seal, open) in [(&client.seal, &server.open), (&server.seal, &client.open)] {
            let packet = sealed(seal.as_ref());
            assert!(!packet.windows(11).any(|bytes| bytes == b"the payload"));
            let mut copy = packet.clone();
            assert_eq!(open.open(9, b"the header", &mut copy), Some(11));
            assert_eq!(&copy[..11], b"the payload");
            assert_eq!(open.open(8, b"the header", &mut packet.clone()), None);
            assert_eq!(open.open(9, b"The header", &mut packet.clone()), None);
            assert_eq!(open.open(9, b"the header", &mut packet.clone()[..15]), None);
            for bit in 0..packet.len() * 8 {
                let mut copy = packet.clone();
                copy[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(open.open(9, b"the header", &mut copy), None, "bit {bit}");
            }
        }
    }
}

#[test]
fn a_handshake_ends_with_identities_parameters_and_keys_on_both_sides() {
    let ((ana, client), (bob, server)) = (someone(), someone());
    for step in [1, 1200, 100_000] {
        let shaken = shake(&client, &server, step).expect("done");
        assert_eq!(shaken.client.peer_params(), Some(&b"of the server"[..]));
        assert_eq!(shaken.server.peer_params(), Some(&b"of the client"[..]));
        assert_eq!(shaken.client.peer_key(), Some(bob.public_key()));
        assert_eq!(shaken.server.peer_key(), Some(ana.public_key()));
        assert_eq!(shaken.client_keys.len(), 2);
        assert_keys_match(&shaken.client_keys, &shaken.server_keys);
        println!("{:?}", shaken.sent);
        assert_eq!(shaken.sent.len(), 4);
        assert!(shaken.sent.iter().all(|(_, _, len)| *len < 2000));
    }
}

#[test]
fn the_hybrid_key_exchange_and_the_preferred_cipher_are_agreed() {
    let ((_, client), (_, server)) = (someone(), someone());
    let mut client = client.start(Side::Client, Vec::new()).expect("starts");
    let mut server = server.start(Side::Server, Vec::new()).expect("starts");
    let (mut hello, mut answer) = (Vec::new(), Vec::new());
    client.write(&mut hello);
    server.read(Space::Initial, &hello).expect("reads");
    server.write(&mut answer);
    let (random, session) = (4 + 2 + 32, 1); // ServerHello: head, version, random, empty session id
    assert_eq!(answer[random + session..][..2], [0x13, 0x01], "TLS_AES_128_GCM_SHA256");
    assert!(
        answer.windows(6).any(|bytes| bytes == [0x00, 0x33, 0x04, 0x64, 0x11, 0xec]),
        "X25519MLKEM768"
    );
}

#[test]
fn the_initial_keys_are_those_of_rfc_9001() {
    let ((_, client), (_, server)) = (someone(), someone());
    let id = ConnectionId([0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08]);
    assert_keys_match(
        &[client.initial_keys(Side::Client, id)],
        &[server.initial_keys(Side::Server, id)],
    );
    // Appendix A.3, the server's Initial: number 1, its header and its payload as printed there.
    let header = hex("c1000000010008f067a5502a4262b50040750001");
    let mut body = hex(concat!(
        "02000000000600405a020000560303eefce7f7b37ba1d1632e96677825ddf73988cfc79825df566dc5430b9a045a1200130100002e",
        "00330024001d00209d3c940d89690b84d08a60993c144eca684d1081287c834d5311bcf32bb9da1a002b00020304",
    ));
    body.resize(body.len() + 16, 0);
    server.initial_keys(Side::Server, id).seal.seal(1, &header, &mut body);
    assert!(body.starts_with(&hex("5a482cd0991cd25b0aac406a5816b639")));
    assert!(body.ends_with(&hex("3d20398c276456cbc42158407dd074ee")));
}

fn hex(digits: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex");
    (0..digits.len()).step_by(2).map(byte).collect()
}

#[test]
fn only_the_expected_server_is_taken() {
    let ((ana, client), (bob, server)) = (someone(), someone());
    assert!(shake(&client.expecting(bob.public_key()).expect("works"), &server, 1200).is_ok());
    let strict = client.expecting(ana.public_key()).expect("works");
    let refusal = shake(&strict, &server, 1200).err().expect("refused");
    assert!(refusal.is_wrong_peer());
    assert_eq!(
        refusal.text,
        format!(
            "the server proved the identity {}, but {} was expected",
            bob.fingerprint(),
            ana.fingerprint()
        )
    );
}

#[test]
fn another_protocol_is_refused_by_either_side() {
    let ((_, client), (_, server)) = (someone(), someone());
    for alpn in [vec![b"h3".to_vec()], vec![b"cabo/2".to_vec()], vec![]] {
        let mut foreign = client.clone();
        Arc::make_mut(&mut foreign.client).alpn_protocols = alpn.clone();
        let refusal = shake(&foreign, &server, 1200).err().expect("refused");
        assert_eq!(refusal.alert, Some(120), "{alpn:?}: {refusal}");
        let mut foreign = server.clone();
        Arc::make_mut(&mut foreign.server).alpn_protocols = alpn.clone();
        let refusal = shake(&client, &foreign, 1200).err().expect("refused");
        assert_eq!(refusal.alert, Some(120), "{alpn:?}: {refusal}");
        assert_eq!(refusal.text, "the peer speaks another protocol than cabo/1");
    }
}

#[test]
fn a_client_without_a_key_is_refused() {
    let ((_, mut client), (_, server)) = (someone(), someone());
    let algorithms = client.provider.signature_verification_algorithms;
    let mut config = ClientConfig::builder_with_provider(client.provider.clone())
        .with_protocol_versions(&[&version::TLS13])
        .expect("works")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServerKeys::new(algorithms, None)))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    client.client = Arc::new(config);
    assert!(shake(&client, &server, 1200).is_err());
}

#[test]
fn a_key_that_is_shown_but_not_held_is_refused() {
    let ((ana, client), (_, server)) = (someone(), someone());
    let (thief, _) = someone();
    let der = thief.to_pkcs8().expect("works");
    let signer =
        provider::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(der.as_ref())).expect("works");
    let stolen = CertificateDer::from(raw_key::spki_of(ana.public_key()));
    let lie = Arc::new(CertifiedKey::new(vec![stolen], signer));
    let forged_client = Sealed {
        client: client_config(&client.provider, &lie, None).expect("works"),
        ..client.clone()
    };
    let refusal = shake(&forged_client, &server, 1200).err().expect("refused");
    assert_eq!(refusal.alert, Some(51), "{refusal}"); // decrypt_error
    let forged_server =
        Sealed { server: server_config(&server.provider, &lie).expect("works"), ..server.clone() };
    let pinned = client.expecting(ana.public_key()).expect("works");
    let refusal = shake(&pinned, &forged_server, 1200).err().expect("refused");
    assert_eq!(refusal.alert, Some(51), "{refusal}");
}

#[test]
fn key_update_keeps_step() {
    let ((_, client), (_, server)) = (someone(), someone());
    let Shaken { mut client, mut server, .. } = shake(&client, &server, 1200).expect("done");
    for _ in 0..5 {
        let (ours, theirs) =
            (client.next_keys().expect("there"), server.next_keys().expect("there"));
        assert_keys_match(&[ours], &[theirs]);
    }
}

#[test]
fn a_key_states_the_limits_of_its_cipher() {
    let (_, ana) = someone();
    let key = ana.initial_keys(Side::Client, ConnectionId([1; 8])).seal;
    assert_eq!((key.tag_len(), key.seal_limit(), key.failure_limit()), (16, 1 << 23, 1 << 52));
    key.seal(0, b"", &mut [0; 15]); // too short for a tag: left alone
}

#[test]
fn bytes_in_the_wrong_space_or_after_the_end_are_refused() {
    let ((_, client), (_, server)) = (someone(), someone());
    let mut early = server.start(Side::Server, Vec::new()).expect("starts");
    assert!(early.read(Space::Handshake, b"x").is_err());
    let Shaken { mut client, mut server, .. } = shake(&client, &server, 1200).expect("done");
    for space in [Space::Initial, Space::Handshake, Space::Data] {
        assert!(client.read(space, b"").is_ok() && server.read(space, b"").is_ok());
        assert!(client.read(space, b"x").is_err() && server.read(space, b"x").is_err());
    }
}

#[test]
fn an_endless_handshake_is_cut_off() {
    let (_, server) = someone();
    let mut server = server.start(Side::Server, Vec::new()).expect("starts");
    let mut taken = 0;
    while server.read(Space::Initial, &[1, 0, 0xff, 0xff][taken % 4..][..1]).is_ok() {
        taken += 1;
        assert!(taken <= MAX_HANDSHAKE_LEN);
    }
    assert!(server.read(Space::Initial, b"x").is_err(), "and stays cut off");
}

#[test]
fn garbage_is_an_error_and_never_a_panic() {
    let (_, crypto) = someone();
    let mut hello = Vec::new();
    crypto.start(Side::Client, b"params".to_vec()).expect("starts").write(&mut hello);
    let mut chance = 1u64;
    let mut roll = |limit: usize| {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        (chance % limit as u64) as usize
    };
    for turn in 0..400 {
        let side = if roll(2) == 0 { Side::Client } else { Side::Server };
        let mut end = crypto.start(side, Vec::new()).expect("starts");
        let mut bytes = if roll(3) > 0 {
            hello.clone()
        } else {
            (0..1 + roll(3000)).map(|_| roll(256) as u8).collect()
        };
        for _ in 0..roll(4) {
            let at = roll(bytes.len().min(if turn % 2 == 0 { 200 } else { 3000 }));
            bytes[at] ^= 1 << roll(8);
        }
        let cut = 1 + roll(2000);
        for chunk in bytes.chunks(cut) {
            if end.read(Space::Initial, chunk).is_err() {
                break;
            }
            while end.write(&mut Vec::new()).is_some() {}
        }
        assert!(end.is_handshaking() && end.peer_key().is_none(), "turn {turn}");
    }
}

#[test]
fn a_mac_depends_on_identity_label_and_data_and_outlives_a_restart() {
    let ((identity, ana), (_, bob)) = (someone(), someone());
    let tag = ana.mac(b"cookie", b"data");
    assert!(ana.mac_matches(b"cookie", b"data", &tag));
    assert!(Sealed::new(&identity, None).expect("works").mac_matches(b"cookie", b"data", &tag));
    assert!(!bob.mac_matches(b"cookie", b"data", &tag));
    assert!(!ana.mac_matches(b"cooki", b"edata", &tag));
    assert!(!ana.mac_matches(b"cookie", b"date", &tag));
    assert!(!ana.mac_matches(b"cookie", b"data", &tag[..15]));
}

#[test]
fn the_key_log_has_the_lines_that_wireshark_knows() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("keys.log");
    let log = Arc::new(KeyLogFile::open(&path).expect("opens"));
    let identity = Identity::generate().expect("works");
    let client = Sealed::new(&identity, Some(log)).expect("works");
    shake(&client, &someone().1, 1200).expect("done");
    let text = std::fs::read_to_string(&path).expect("there");
    let labels: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    for label in [
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
        "SERVER_HANDSHAKE_TRAFFIC_SECRET",
        "CLIENT_TRAFFIC_SECRET_0",
        "SERVER_TRAFFIC_SECRET_0",
    ] {
        assert!(labels.contains(&label), "{label} in {text}");
    }
    assert!(
        text.lines().all(|line| line.split(' ').nth(1).is_some_and(|random| random.len() == 64))
    );
}

#[test]
fn a_key_log_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("keys.log");
    drop(KeyLogFile::open(&path).expect("opens"));
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("set");
    let error = KeyLogFile::open(&path).expect_err("refused").to_string();
    assert!(error.ends_with(&format!("chmod 600 {}", path.display())), "{error}");
    assert!(matches!(KeyLogFile::open(dir.path()), Err(KeyLogError::Open { .. })));
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .expect("a pipe");
    for path in [&*pipe, std::path::Path::new("/dev/null")] {
        assert!(matches!(KeyLogFile::open(path), Err(KeyLogError::NotAFile { .. })));
    }
}
