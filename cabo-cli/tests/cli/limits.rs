//! The flags of `cabo serve` that say how many, from where, and who may know of it.

use std::process::Stdio;

use rustix::process::Signal;

use crate::ether::beside;
use crate::needs::{Need, skip_without};
use crate::world::{World, signal_child, until, wait};

#[test]
fn one_session_too_many_is_told_so_and_gets_in_later() {
    for scheme in ["udp", "tcp"] {
        let world = World::new();
        world.write_large("served/big.bin", 200);
        let on = format!("{scheme}://127.0.0.1:0");
        let served = world.serve(&["served", "--max-sessions", "1", "--on", &on]);
        let mut first = world.cabo();
        first.args(["get", "-q", served.url(), "big.bin"]).stderr(Stdio::null());
        let mut first = first.spawn().unwrap();
        let partial = world.path("big.bin.cabo-partial");
        assert!(until(|| partial.metadata().is_ok_and(|file| file.len() > 1 << 20)));
        signal_child(&first, Signal::STOP); // it neither leaves nor ends
        world.run(&["ls", served.url()]).failed(3, &[served.url(), "sessions"]);
        assert_eq!(served.event("turned_away")["carrier"], scheme, "and so is the owner");
        signal_child(&first, Signal::CONT);
        assert!(wait(&mut first).success(), "{scheme}: who was there is not disturbed");
        assert!(until(|| world.run(&["ls", served.url()]).code == Some(0)), "{scheme}");
    }
}

#[test]
fn peers_without_an_identity_come_from_the_networks_of_from_alone() {
    if skip_without(&[Need::Program("unshare"), Need::Program("ip"), Need::Namespaces]) {
        return;
    }
    // To its own address off loopback a host talks from that address.
    let before = "ip link set lo up && ip address add 10.9.0.1/24 dev lo";
    let ls = |plain: &str| format!(r#""$0" ls {plain} tcp://10.9.0.1:77"#);
    let serve = |more: &str| format!("serve served --on tcp://10.9.0.1:77 {more}");
    let world = World::new();
    world.write("served/a.txt", b"a");
    let refused = beside(&world, before, &serve("--plain"), &ls("--plain"));
    refused.failed(4, &["--from 10.9.0.1", "--open"]);
    let elsewhere = beside(&world, before, &serve("--plain --from 10.8.0.0/16"), &ls("--plain"));
    elsewhere.failed(4, &["--from 10.9.0.1"]);
    let two = "--plain --from 10.8.0.0/16 --from 10.9.0.0/24";
    beside(&world, before, &serve(two), &ls("--plain")).good();
    beside(&world, before, &serve("--plain --open"), &ls("--plain")).good();
    let near = format!(r#"{} && "$0" ls --plain tcp://127.0.0.1:78"#, ls("--plain"));
    let both = serve("--on tcp://127.0.0.1:78 --plain --from 10.9.0.1");
    beside(&world, before, &both, &near).good();
}

/// A foreign program proves nothing about itself: from another host it is let in if that was said, and told so if not.
#[test]
fn foreign_programs_on_other_hosts_come_from_the_networks_of_from_alone() {
    if skip_without(&[Need::Program("unshare"), Need::Program("ip"), Need::Namespaces]) {
        return;
    }
    let world = World::new();
    let before = "ip link set lo up && ip address add 10.9.0.1/24 dev lo";
    let listen = |scheme: &str, more: &str| {
        format!("listen {scheme}://10.9.0.1:77 --as lines --reply echo {more}")
    };
    let send =
        |scheme: &str| format!(r#""$0" send {scheme}://10.9.0.1:77 --as lines --wait 1s hola"#);
    let program = "listen tcp://10.9.0.1:77 --exec cat".to_owned();
    for listen in [listen("tcp", ""), listen("tcp", "--from 10.8.0.0/16"), program] {
        let done = beside(&world, before, &listen, &send("tcp"));
        assert!(!done.out.contains("hola"), "{listen}: {done:?}");
        let events = std::fs::read_to_string(world.path("events")).unwrap();
        assert!(events.contains("refused") && events.contains("--from"), "{listen}: {events}");
    }
    let told = beside(&world, before, &listen("tcp", ""), &send("tcp"));
    assert!(told.out.contains("not let in here"), "{told:?}");
    let silent = beside(&world, before, &listen("udp", ""), &send("udp"));
    assert_eq!(silent.good().out, "");
    for more in ["--from 10.9.0.0/24", "--open"] {
        for scheme in ["tcp", "udp"] {
            let done = beside(&world, before, &listen(scheme, more), &send(scheme)).good();
            assert_eq!(done.out, "hola\n", "{scheme} {more}");
        }
    }
    let done = beside(&world, before, "listen tcp://10.9.0.1:77 --exec cat --open", &send("tcp"));
    assert_eq!(done.good().out, "hola\n");
}

#[test]
fn a_hidden_server_answers_no_question_and_serves_who_knows_it() {
    if skip_without(&[Need::Program("unshare"), Need::Program("ip"), Need::Namespaces]) {
        return;
    }
    let world = World::new();
    world.write("served/a.txt", b"a");
    let serve = "serve served --on eth://lo:77 --hidden";
    let asked = beside(&world, "ip link set lo up", serve, r#""$0" ls eth://lo"#);
    asked.failed(3, &["eth://lo", "nobody serves on this link"]);
    let known = r#""$0" ls eth://00-00-00-00-00-00%lo:77"#;
    let known = beside(&world, "ip link set lo up", serve, known).good();
    assert!(known.out.contains("a.txt"), "{known:?}");
}

#[test]
fn a_client_that_ends_with_an_error_says_goodbye_all_the_same() {
    let world = World::new();
    world.write("served/a.txt", b"a");
    let served = world.serve(&["served", "--on", "udp://127.0.0.1:0"]);
    world.run(&["ls", served.url(), "nosuch"]).failed(1, &["nosuch", "not found"]);
    assert_eq!(served.event("ended")["why"], "it left");
}
