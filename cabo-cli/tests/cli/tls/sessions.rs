//! cabo/1 inside TLS (S-7.5 to S-7.8): identities, access, files, resuming.

use std::io::Read as _;
use std::process::Stdio;

use rustix::process::Signal;

use super::foreign::{s_server, socat};
use super::{AT, certified};
use crate::needs::{Need, skip_without};
use crate::world::{World, assert_same_file, finish, signal_child, until, wait};

fn serve(world: &World, more: &[&str]) -> (crate::world::Served, String) {
    let on = format!("{AT}?cert=host.pem&key=host.key");
    let served = world.serve(&[&["served", "--on", &on], more].concat());
    let url = format!("{}?ca=ca.pem", served.url());
    (served, url)
}

#[test]
fn a_file_is_listed_and_fetched_and_who_is_there_is_known() {
    let world = certified();
    let big = world.write_large("served/big.bin", 30);
    let (served, url) = serve(&world, &[]);
    assert!(world.run(&["ls", &url]).good().out.contains("big.bin"));
    let admitted = served.event("admitted");
    assert_eq!(admitted["fingerprint"], world.fingerprint("own").as_str());
    assert_eq!(admitted["carrier"], "tls");
    world.run(&["get", &url, "big.bin"]).good();
    assert_same_file(&big, &world.path("big.bin"));
    // A stranger is refused by its identity, whatever its certificate.
    let mut stranger = world.cabo_as("stranger");
    let own = format!("{url}&cert=ana.pem&key=ana.key");
    finish(stranger.args(["ls", &own])).failed(4, &["refused"]);
    // The certificate is not looked at, and the identity still is.
    let unverified = world.run(&["ls", &url.replace("ca=ca.pem", "verify=no")]).good();
    assert!(unverified.err.contains("verify=no"), "{unverified:?}");
    assert!(served.stop().success());
    let port = url.rsplit_once(':').unwrap().1.split_once('?').unwrap().0;
    let on = format!("tls://127.0.0.1:{port}?cert=host.pem&key=host.key");
    let _other = world.serve_as("stranger", &["served", "--open", "--on", &on]);
    world.run(&["ls", &url]).failed(4, &["another"]);
}

#[test]
fn clients_that_show_no_certificate_get_no_session() {
    let world = certified();
    world.write("served/a.txt", b"a");
    let on = format!("{AT}?cert=host.pem&key=host.key&ca=ca.pem");
    let served = world.serve(&["served", "--on", &on]);
    let url = format!("{}?ca=ca.pem", served.url());
    world.run(&["ls", &url]).failed(4, &["certificate of ours"]);
    world.run(&["ls", &format!("{url}&cert=ana.pem&key=ana.key")]).good();
}

#[test]
fn a_stranger_who_waits_to_be_spoken_to_gets_a_readable_line_and_a_clean_end() {
    let world = certified();
    world.write("served/a.txt", b"a");
    let (served, url) = serve(&world, &["--on", "tcp://127.0.0.1:0"]);
    for url in [&url, &served.urls[1]] {
        let mut connect = world.cabo();
        connect.args(["connect", url]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut connect = connect.spawn().unwrap();
        let stdin = connect.stdin.take();
        let mut heard = String::new();
        connect.stdout.take().unwrap().read_to_string(&mut heard).unwrap();
        assert!(heard.starts_with("This port speaks cabo/1; connect with: cabo ls "), "{heard}");
        drop(stdin);
        assert_eq!(wait(&mut connect).code(), Some(0), "{url}: no cut");
    }
}

#[test]
fn plain_goes_over_tls_where_both_ask_for_it() {
    let world = certified();
    world.write("served/a.txt", b"a");
    let (_served, url) = serve(&world, &["--plain", "--open"]);
    assert!(world.run(&["ls", "--plain", &url]).good().out.contains("a.txt"));
    world.run(&["ls", &url]).failed(4, &["cabo/1"]);
}

#[test]
fn a_client_that_was_killed_goes_on_where_it_was_and_a_server_is_found_again() {
    let world = certified();
    let big = world.write_large("served/big.bin", 200);
    let (served, url) = serve(&world, &[]);
    let partial = world.path("big.bin.cabo-partial");
    let start = || {
        let mut get = world.cabo();
        get.args(["get", &url, "big.bin"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        get.spawn().unwrap()
    };
    let is_midway = || partial.metadata().is_ok_and(|file| file.len() > 20 << 20);
    let mut get = start();
    assert!(until(is_midway));
    signal_child(&get, Signal::KILL);
    wait(&mut get);
    assert!(!world.path("big.bin").exists());
    let before = partial.metadata().unwrap().len();
    let mut get = start();
    assert!(until(|| partial.metadata().is_ok_and(|file| file.len() > before)));
    let port = served.url().rsplit_once(':').unwrap().1.to_owned();
    served.kill();
    assert!(get.try_wait().unwrap().is_none(), "it does not give up");
    let on = format!("tls://127.0.0.1:{port}?cert=host.pem&key=host.key");
    let _served = world.serve(&["served", "--on", &on]);
    assert_eq!(wait(&mut get).code(), Some(0));
    assert_same_file(&big, &world.path("big.bin"));
    assert!(!partial.exists());
}

/// S-7.6: a session is not bound to TLS 1.2.
#[test]
fn an_old_tls_is_no_channel_for_a_session() {
    if skip_without(&[Need::Program("openssl")]) {
        return;
    }
    let world = certified();
    let server = s_server(&world, &["-tls1_2", "-rev"]);
    let url = format!("tls://127.0.0.1:{}?ca=ca.pem", server.port);
    world.run(&["ls", &url]).failed(4, &["TLS 1.2"]);
}

/// S-7.6: whoever opens the channel and makes another one is found out, even where its certificate is taken.
#[test]
fn who_opens_the_channel_on_the_way_is_found_out() {
    if skip_without(&[Need::Program("socat")]) {
        return;
    }
    let world = certified();
    world.write("served/a.txt", b"a");
    let (served, url) = serve(&world, &[]);
    world.run(&["ls", &url]).good();
    let at = served.url().strip_prefix("tls://").unwrap();
    let between = socat(&world, &format!("OPENSSL:{at},verify=0"));
    let url = format!("tls://127.0.0.1:{}?ca=ca.pem", between.port);
    world.run(&["ls", &url]).failed(4, &["another TLS channel"]);
}
