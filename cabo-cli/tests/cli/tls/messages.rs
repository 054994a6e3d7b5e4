//! Messages of cabo peers inside TLS: `send --as cabo` and `connect --as cabo`.

use std::io::{Read as _, Write as _};
use std::process::Stdio;

use serde_json::json;

use super::{AT, certified, echo};
use crate::talk::Listening;
use crate::world::{finish, wait};

#[test]
fn cabo_peers_send_and_are_answered_and_a_wrong_ca_ends_it_before_a_word() {
    let world = certified();
    let (mut listen, url) = echo(&world, "");
    let good = format!("{url}?ca=ca.pem");
    let args = ["send", &good, "--as", "cabo", "--wait", "100s", "bom", "dia"];
    assert_eq!(world.run(&args).good().out, "bom dia");
    let connected = listen.event("connected");
    let own = json!(world.fingerprint("own"));
    assert_eq!((&connected["carrier"], &connected["fingerprint"]), (&json!("tls"), &own));
    assert_eq!(listen.event("message")["fields"], json!({ "payload": "bom dia" }));
    listen.event("closed");

    let large: Vec<u8> = (0..8_000_000_u32).map(|at| (at.wrapping_mul(at) >> 9) as u8).collect();
    let file = std::fs::File::open(world.write("large", &large)).unwrap();
    let mut send = world.cabo();
    send.args(["send", &good, "--as", "cabo", "--wait", "100s", "-"]).stdin(file);
    let mut send = send.stdout(Stdio::piped()).spawn().unwrap();
    let mut back = Vec::new();
    let mut out = send.stdout.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| out.read_to_end(&mut back).unwrap());
        listen.event("closed"); // its words are read meanwhile
    });
    assert!(wait(&mut send).success() && back == large, "{} bytes", back.len());

    let bad = format!("{url}?ca=other.pem");
    let done = world.run(&["send", &bad, "--as", "cabo", "hola"]);
    done.failed(4, &["signed by nobody who is trusted", "ca=FILE"]);
    let refused = listen.next();
    assert_eq!(refused["event"], "refused", "and nothing else of it: {refused}");
    let mut stranger = world.cabo_as("another");
    stranger.args(["send", &good, "--as", "cabo", "--wait", "100s", "x"]);
    finish(&mut stranger).failed(4, &["the server does not know"]);
    listen.end();
}

#[test]
fn an_operator_speaks_to_a_cabo_peer_inside_tls() {
    let world = certified();
    let at = format!("{AT}?cert=host.pem&key=host.key");
    let mut listen = Listening::start(&world, &[&at, "--as", "lines"], 1);
    let url = format!("tls://{}?ca=ca.pem", listen.ports[0]);
    let mut connect = world.cabo();
    connect.args(["connect", &url, "--as", "cabo"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut connect = connect.spawn().unwrap();
    let mut keyboard = connect.stdin.take().unwrap();
    keyboard.write_all(b"hola\n").unwrap();
    assert_eq!(listen.event("message")["fields"], json!({ "payload": "hola\n" }));
    listen.child.stdin.take().unwrap().write_all(b"bom dia\n").unwrap();
    let mut heard = [0; 7];
    connect.stdout.take().unwrap().read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"bom dia");
    drop(keyboard);
    assert!(wait(&mut connect).success());
    listen.end();
}
