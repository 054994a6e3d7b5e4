//! Whole connections under real keys, in the pure crate's network in a box and over a pipe of bytes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cabo::crypto::{KeyLogFile, Sealed};
use cabo::keys::Identity;
use cabo_proto::session::config::{Config, Ended};
use cabo_proto::session::core::Event;
use cabo_proto::session::crypto::Crypto;
use cabo_proto::session::records::RecordConnection;
use cabo_proto::sim::link::LinkConfig;
use cabo_proto::sim::net::{Net, NetConfig};
use cabo_proto::sim::origin;
use cabo_proto::transport::flow::Budget;
use cabo_proto::transport::streams::{Read, StreamEvent};
use cabo_proto::wire::frame::Direction;
use cabo_proto::wire::packet::ConnectionId;

const TOTAL: usize = 1 << 20;

fn someone() -> (Identity, Sealed) {
    let identity = Identity::generate().expect("works");
    let crypto = Sealed::new(&identity, None).expect("works");
    (identity, crypto)
}

fn bad_cable() -> LinkConfig {
    LinkConfig {
        delay: Duration::from_millis(5),
        rate_bits_per_second: 50_000_000,
        loss: 0.02,
        duplicate: 0.01,
        corrupt: 0.02,
        reorder: 0.01,
        ..LinkConfig::default()
    }
}

/// Sends [`TOTAL`] bytes from the client to the server; what each end reported when it failed.
fn transfer(net: &mut Net) -> Result<(), Vec<Event>> {
    let client = net.connect().expect("starts");
    let sent: Bytes = (0..TOTAL).map(|index| ((index * 31) >> 3) as u8).collect();
    let (mut out, mut back, mut stream, mut incoming) = (sent.clone(), Vec::new(), None, None);
    let mut buffer = vec![0; 64 * 1024];
    let mut ends = Vec::new();
    let is_done = net.run(Duration::from_secs(60), |net| {
        let now = net.now;
        let [sender, receiver] = &mut net.hosts;
        if let Some(connection) =
            sender.connections.get_mut(&client).filter(|end| end.is_handshaken())
        {
            let streams = connection.streams();
            let id = *stream.get_or_insert_with(|| streams.open(Direction::Both).expect("room"));
            let room = streams.write_room(id).unwrap_or(0).min(out.len());
            if room > 0 {
                streams.write(id, out.split_to(room));
                if out.is_empty() {
                    streams.finish(id).expect("open");
                }
            }
        }
        for (handle, event) in sender.events.drain(..).chain(receiver.events.drain(..)) {
            match event {
                Event::Stream(StreamEvent::Opened(id)) => incoming = Some((handle, id)),
                Event::Ended(_) => ends.push(event),
                Event::Handshaken | Event::Admitted | Event::Stream(_) | Event::Datagram(_) => {}
            }
        }
        let opened =
            incoming.and_then(|(handle, id)| Some((receiver.connections.get_mut(&handle)?, id)));
        if let Some((connection, id)) = opened {
            while let Ok(read) = connection.streams().read(now, id, &mut buffer) {
                match read {
                    Read::Bytes(len) => back.extend_from_slice(&buffer[..len]),
                    Read::End => return true,
                    Read::Blocked | Read::Reset(_) => break,
                }
            }
        }
        !ends.is_empty()
    });
    assert!(is_done, "it hangs");
    if !ends.is_empty() {
        return Err(ends);
    }
    assert!(back == sent, "every byte in order");
    Ok(())
}

#[test]
fn a_sealed_connection_over_a_bad_cable_carries_every_byte_through_key_updates() {
    let ((ana, client), (bob, server)) = (someone(), someone());
    for seed in 0..4 {
        let mut config = NetConfig::new(seed, bad_cable());
        config.connection.key_update_after = 50; // a flight of the whole transfer is not one key's
        let mut net = Net::new(config, [Arc::new(client.clone()), Arc::new(server.clone())]);
        assert_eq!(transfer(&mut net), Ok(()));
        let [client, server] =
            net.hosts.each_ref().map(|host| host.connections.values().next().expect("lives"));
        assert_eq!(client.peer_key(), Some(bob.public_key()));
        assert_eq!(server.peer_key(), Some(ana.public_key()));
        assert!(client.stats().key_updates > 2, "{:?}", client.stats());
        assert!(server.stats().packets_forged > 0, "flipped bits are noticed");
    }
}

#[test]
fn the_key_log_joins_the_secrets_to_the_ids_of_both_ends() {
    let temp = tempfile::tempdir().expect("a directory");
    let path = temp.path().join("keys.log");
    let log = Arc::new(KeyLogFile::open(&path).expect("opens"));
    let identity = Identity::generate().expect("works");
    let client = Sealed::new(&identity, Some(log)).expect("works");
    let config = NetConfig::new(1, LinkConfig::default());
    let mut net = Net::new(config, [Arc::new(client), Arc::new(someone().1)]);
    assert_eq!(transfer(&mut net), Ok(()));
    let end = net.hosts[0].connections.values().next().expect("lives");
    let hex = |id: ConnectionId| id.0.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let text = std::fs::read_to_string(&path).expect("there");
    let ids = text.lines().find_map(|line| line.strip_prefix("# CABO_IDS ")).expect("noted");
    let (random, ids) = ids.split_once(' ').expect("ids");
    assert_eq!(ids, format!("{} {}", hex(end.local_id()), hex(end.peer_id())));
    assert!(text.contains(&format!("CLIENT_TRAFFIC_SECRET_0 {random} ")));
}

#[test]
fn a_client_ends_the_connection_when_another_server_answers() {
    let ((ana, client), (_, server)) = (someone(), someone());
    let strict = client.expecting(ana.public_key()).expect("works");
    let mut net =
        Net::new(NetConfig::new(1, LinkConfig::default()), [Arc::new(strict), Arc::new(server)]);
    let ends = transfer(&mut net).expect_err("refused");
    let is_told =
        |end: &Event| matches!(end, Event::Ended(Ended::Crypto(error)) if error.is_wrong_peer());
    assert!(ends.iter().any(is_told), "{ends:?}");
}

#[test]
fn a_plain_connection_over_a_bad_cable_carries_every_byte() {
    let (_, secret) = someone();
    let plain = || Arc::new(secret.to_plain()) as Arc<dyn Crypto>;
    let mut config = NetConfig::new(3, bad_cable());
    config.connection.is_plain = true;
    let mut net = Net::new(config, [plain(), plain()]);
    assert_eq!(transfer(&mut net), Ok(()));
}

#[test]
fn a_sealed_connection_over_a_pipe_of_bytes_is_made_of_the_same_handshake() {
    let ((ana, client), (bob, server)) = (someone(), someone());
    let now = origin();
    let budget = || Budget::new(1 << 26);
    let mut ends = [
        RecordConnection::client(now, Config::default(), &client, budget()).expect("starts"),
        RecordConnection::server(now, Config::default(), &server, budget()).expect("starts"),
    ];
    for turn in 0..12 {
        let mut bytes = Vec::new();
        ends[turn % 2].poll_output(now, &mut bytes, 1 << 16);
        let preface = if turn == 0 { 8 } else { 0 }; // the client's is read by whoever listens
        for chunk in bytes[preface..].chunks_mut(100) {
            ends[1 - turn % 2].handle_bytes(now, chunk);
        }
    }
    let [client, server] = ends;
    assert!(client.is_handshaken() && server.is_handshaken());
    assert_eq!(
        (client.peer_key(), server.peer_key()),
        (Some(bob.public_key()), Some(ana.public_key()))
    );
}
