//! Lines over TCP and UDP, one way and both ways.

use std::io::Write as _;

use super::*;
use crate::talk::Listening;

const SCRIPT: &str = "chat.py";

/// What was sent in two pieces may come in one: only the bytes are sure, unless lines are asked for.
#[test]
fn text_of_many_clients_comes_with_who_is_here_and_who_left() {
    if no_python() {
        return;
    }
    let world = World::new();
    let mut listen = Listening::start(&world, &["tcp://127.0.0.1:0"], 1);
    let silent = listen.tcp();
    listen.event("connected");
    python(SCRIPT, &["tcp_client", port(&listen.ports[0]), "ola", "mundo"]);
    let here = listen.event("connected");
    let mut said = String::new();
    let left = loop {
        let event = listen.next();
        if event["event"] != "message" {
            break event;
        }
        said.push_str(event["fields"]["payload"].as_str().unwrap());
    };
    assert_eq!(said, "olamundo");
    assert_eq!((&left["event"], &left["from"]), (&"closed".into(), &here["from"]));
    drop(silent);
    listen.end();

    let mut listen = Listening::start(&world, &["tcp://127.0.0.1:0", "--as", "lines"], 1);
    python(SCRIPT, &["tcp_client", port(&listen.ports[0]), "ola\nmun", "do\n"]);
    for wanted in ["ola", "mundo"] {
        assert_eq!(listen.event("message")["fields"]["payload"], wanted);
    }
    listen.end();
}

#[test]
fn a_server_of_one_client_at_a_time_takes_ours_in_turn() {
    if no_python() {
        return;
    }
    let world = World::new();
    let server = Foreign::start(SCRIPT, &["tcp_server", "3"]);
    world.run(&["send", &server.url("tcp"), "ola"]).good();
    piped(&world, &["connect", &server.url("tcp")], b"ola\nmundo\n").good();
    piped(&world, &["connect", &server.url("tcp")], b"").good();
    let one = |said| format!("Conectado\nb'{said}'\nFinalizando\n");
    assert_eq!(server.end(), ["ola", r"ola\nmundo\n", ""].map(one).concat());
}

/// As its own client, which knows Ctrl+X alone: what ends it is not sent, nor what is typed after it.
#[test]
fn the_words_to_leave_with_end_a_chat_and_nothing_else() {
    if no_python() {
        return;
    }
    let world = World::new();
    let server = Foreign::start(SCRIPT, &["tcp_server", "3"]);
    let chat = ["connect", &server.url("tcp"), "--as", "chat"];
    piped(&world, &chat, b"ola\n\x18\nmundo\n").good();
    piped(&world, &chat, b"ola /sair\n/sair\nmundo\n").good();
    piped(&world, &["connect", &server.url("tcp")], b"/sair\n\x18\n").good();
    let one = |said| format!("Conectado\nb'{said}'\nFinalizando\n");
    assert_eq!(server.end(), ["ola", "ola /sair", r"/sair\n\x18\n"].map(one).concat());

    let server = Foreign::start(SCRIPT, &["udp_server", "3"]);
    let chat = ["connect", &server.url("udp"), "--as", "chat"];
    piped(&world, &chat, b"ola\n\nmundo\n/sair\nmais\n").good();
    assert_eq!(server.end(), "b'ola'\nb''\nb'mundo'\n");
}

#[test]
fn datagrams_go_both_ways_with_one_line_each() {
    if no_python() {
        return;
    }
    let world = World::new();
    let mut listen = Listening::start(&world, &["udp://127.0.0.1:0"], 1);
    python(SCRIPT, &["udp_client", port(&listen.ports[0]), "ola", "", "mundo"]);
    for wanted in ["ola", "", "mundo"] {
        assert_eq!(listen.event("message")["fields"]["payload"], wanted);
    }
    listen.end();

    let server = Foreign::start(SCRIPT, &["udp_server", "3"]);
    piped(&world, &["connect", &server.url("udp"), "--as", "lines"], b"ola\n\nmundo\n").good();
    assert_eq!(server.end(), "b'ola'\nb''\nb'mundo'\n");
}

#[test]
fn the_operator_answers_a_client_that_reads() {
    if no_python() {
        return;
    }
    let world = World::new();
    let mut listen = Listening::start(&world, &["tcp://127.0.0.1:0", "--as", "lines"], 1);
    let mut keyboard = listen.child.stdin.take().unwrap();
    let place = listen.ports[0].clone();
    let reading = std::thread::spawn(move || {
        python(SCRIPT, &["tcp_reader", port(&place), "ola", "oi\n"]);
    });
    assert_eq!(listen.event("message")["fields"]["payload"], "ola");
    keyboard.write_all(b"oi\n").unwrap();
    reading.join().unwrap();
    listen.end();
}
