//! Cabo peers inside TLS, beside foreign programs at the same port, and who is not the server that was meant.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use cabo::address::Address;
use cabo::keys::certificate::Authority;
use cabo::talk::{Client, Server};

use crate::{PATIENCE, Running, echo, next, open_at, settings, soon, stranger};

/// Writes `NAME.pem`, a CA, and `NAME-host.pem`, a certificate of it for this machine with its key.
fn write_certificates(dir: &Path, name: &str) {
    let authority = Authority::generate().unwrap();
    let host = authority.sign(&["127.0.0.1"], 1).unwrap();
    std::fs::write(dir.join(format!("{name}.pem")), authority.certified().certificate).unwrap();
    let both = host.certificate + &host.key;
    std::fs::write(dir.join(format!("{name}-host.pem")), both).unwrap();
}

async fn start(dir: &Path, dialect: &str, with: impl FnOnce(Server) -> Server) -> Running {
    let url = format!("tls://127.0.0.1:0?cert={}", dir.join("good-host.pem").display());
    Running::start(with(open_at([url], dialect))).await
}

/// Where the server is, trusting that CA.
fn by(server: &Running, dir: &Path, authority: &str) -> Address {
    let mut address = server.at[0].clone();
    address.query = Default::default();
    format!("{address}?ca={}", dir.join(authority).display()).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_cross_a_verified_channel_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    write_certificates(dir.path(), "good");
    let (tell, told) = mpsc::channel();
    let server = start(dir.path(), "raw", |server| {
        server
            .on_connect(move |peer| {
                assert!(peer.is_cabo() && peer.scheme() == "tls" && peer.fingerprint().is_some());
                let (peer, tell) = (peer.clone(), tell.clone());
                tokio::spawn(async move {
                    let answer = peer.request("who", "are you", PATIENCE).await.unwrap();
                    tell.send(answer.bytes().clone()).unwrap();
                });
            })
            .on_receive(echo)
    })
    .await;
    let over = stranger();
    let address = by(&server, dir.path(), "good.pem");
    let connecting = Client::connect_over(&over, &address, settings("raw"));
    let mut client = soon("the connection", connecting).await.unwrap();
    let asked = next(&mut client).await;
    client.peer().unwrap().reply(&asked, "ana").unwrap();
    let large: Vec<u8> = (0..10_000_000_u32).map(|at| (at.wrapping_mul(at) >> 9) as u8).collect();
    let answer = client.sender.request("large", &large, PATIENCE).unwrap();
    client.sender.send_as("told", b"one way").await.unwrap();
    let answer = soon("the answer", answer).await.unwrap();
    assert!(answer.kind() == "large" && answer.bytes() == &large);
    let back = next(&mut client).await;
    assert_eq!((back.kind(), &back.bytes()[..]), ("told", &b"one way"[..]));
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "ana");
    soon("the end", client.close()).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_programs_come_to_the_same_port_and_a_wrong_ca_tells_nobody_anything() {
    let dir = tempfile::tempdir().unwrap();
    write_certificates(dir.path(), "good");
    write_certificates(dir.path(), "other");
    let (tell, told) = mpsc::channel();
    let server = start(dir.path(), "lines", |server| {
        server
            .on_receive(echo)
            .on_refuse(move |peer, why| tell.send((peer.is_cabo(), why.to_string())).unwrap())
    })
    .await;
    let address = by(&server, dir.path(), "other.pem");
    let over = stranger();
    let connecting = Client::connect_over(&over, &address, settings("lines"));
    let error = soon("the refusal", connecting).await.err().unwrap().to_string();
    assert!(error.contains("signed by nobody who is trusted"), "{error}");
    let error = Client::connect(&address, settings("lines").dialect).await.err().unwrap();
    assert!(error.to_string().contains("signed by nobody who is trusted"), "{error}");
    for _ in 0..2 {
        let (is_cabo, why) = told.recv_timeout(PATIENCE).unwrap();
        assert!(!is_cabo && why.contains("not let in by TLS"), "{why}");
    }
    let address = by(&server, dir.path(), "good.pem");
    let mut cabo = Client::connect_over(&over, &address, settings("lines")).await.unwrap();
    let mut foreign = Client::connect(&address, settings("lines").dialect).await.unwrap();
    for client in [&mut cabo, &mut foreign] {
        client.sender.send(b"hola").await.unwrap();
        assert_eq!(next(client).await.payload(), "hola");
    }
    let asked = cabo.sender.request("", "asked", Duration::from_secs(30)).unwrap();
    assert_eq!(soon("the answer", asked).await.unwrap().bytes()[..], *b"asked");
    server.stop().await;
}
