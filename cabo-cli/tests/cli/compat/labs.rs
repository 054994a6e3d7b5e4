//! The labs: datagrams one way, echoes, records of 29 bytes, headers with a payload.

use std::io::Write as _;
use std::net::Shutdown;
use std::process::{Command, Stdio};

use serde_json::json;

use super::*;
use crate::talk::Listening;
use crate::world::until;

const SCRIPT: &str = "labs.py";

#[test]
fn datagrams_of_any_bytes_are_shown_with_their_sender() {
    if no_python() {
        return;
    }
    let world = World::new();
    let mut listen = Listening::start(&world, &["udp://127.0.0.1:0"], 1);
    let from = python(SCRIPT, &["udp_send", port(&listen.ports[0])]).out;
    let said = [json!("ol\u{e1}"), json!({ "hex": "fffe" }), json!(""), json!("x".repeat(65507))];
    for wanted in said {
        let event = listen.event("message");
        assert_eq!(event["fields"]["payload"], wanted);
        assert_eq!(event["from"], format!("127.0.0.1:{}", from.trim()));
    }
    listen.end();
}

#[test]
fn a_receiver_of_datagrams_gets_each_line_as_it_was_typed() {
    if no_python() {
        return;
    }
    let world = World::new();
    let server = Foreign::start(SCRIPT, &["udp_receive", "3"]);
    world.run(&["send", &server.url("udp"), "ol\u{e1}"]).good();
    let args = ["connect", &server.url("udp"), "--as", "lines"];
    piped(&world, &args, b"hola\nmundo\n").good(); // it ends by itself at the end of stdin
    let from = |text| format!("Message from 127.0.0.1 -> {text}\n");
    assert_eq!(server.end(), ["ol\u{e1}", "hola", "mundo"].map(from).concat());
}

#[test]
fn sixty_clients_at_once_get_their_own_echoes() {
    if no_python() {
        return;
    }
    let world = World::new();
    let args = ["tcp://127.0.0.1:0", "--reply", "ECHO: {}"];
    let mut listen = Listening::start(&world, &args, 1);
    python(SCRIPT, &["echo_clients", port(&listen.ports[0]), "60"]);
    let mut names = Vec::new();
    for _ in 0..180 {
        names.push(listen.next()["event"].as_str().unwrap().to_owned());
    }
    for name in ["connected", "message", "closed"] {
        assert_eq!(names.iter().filter(|own| *own == name).count(), 60, "{name}");
    }
    listen.end();
}

#[test]
fn silent_reset_half_closed_and_binary_clients_harm_nobody() {
    if no_python() {
        return;
    }
    let world = World::new();
    let args = ["tcp://127.0.0.1:0", "--reply", "ECHO: {}"];
    let listen = Listening::start(&world, &args, 1);
    python(SCRIPT, &["strangers", port(&listen.ports[0])]);
    listen.end();
}

#[test]
fn an_echo_server_of_threads_or_selectors_answers_us() {
    if no_python() {
        return;
    }
    let world = World::new();
    for kind in ["echo_threads", "echo_selectors"] {
        let server = Foreign::start(SCRIPT, &[kind]);
        let sent = world.run(&["send", &server.url("tcp"), "ol\u{e1}"]).good();
        assert_eq!(sent.out, "ECHO: ol\u{e1}", "{kind}");
        server.end();
        let server = Foreign::start(SCRIPT, &[kind]);
        let piped = piped(&world, &["connect", &server.url("tcp")], b"hola").good();
        assert_eq!(piped.out, "ECHO: hola", "{kind}");
        server.end();
    }
}

#[test]
fn records_split_and_glued_come_back_whole() {
    if no_python() {
        return;
    }
    let world = World::new();
    let args = ["tcp://127.0.0.1:0", "--as", "labs-record", "--reply", "echo"];
    let mut listen = Listening::start(&world, &args, 1);
    python(SCRIPT, &["records", port(&listen.ports[0])]);
    let fields = listen.event("message")["fields"].clone();
    assert_eq!(fields, json!({ "version": 1, "order": 1, "size": 3, "text": "ol\u{e1}" }));
    for order in 2..12 {
        assert_eq!(listen.event("message")["fields"]["order"], order);
    }
    listen.end();
}

/// The order counts from 1, the size is that of the text as it was typed, the text is cut between characters.
#[test]
fn a_server_of_records_reads_ours() {
    if no_python() {
        return;
    }
    let world = World::new();
    let server = Foreign::start(SCRIPT, &["record_server", "3"]);
    let typed =
        "text=hola\ntext='a text of thirty-seven characters now'\ntext=nineteen-letters-xy\u{e1}\n";
    let args = ["connect", &server.url("tcp"), "--as", "labs-record"];
    let done = piped(&world, &args, typed.as_bytes()).good();
    assert_eq!(done.out.lines().count(), 3, "{done:?}");
    assert_eq!(
        server.end(),
        "1 1 4 b'hola----------------'\n1 2 37 b'a text of thirty-sev'\n1 3 20 b'nineteen-letters-xy-'\n"
    );
}

#[test]
fn payloads_from_nothing_to_sixteen_mebibytes_come_back_in_both_orders() {
    if no_python() {
        return;
    }
    let world = World::new();
    for (dialect, is_size_first) in [("labs-header", "1"), ("labs-header-order-first", "0")] {
        let args = ["tcp://127.0.0.1:0", "--as", dialect, "--reply", "echo"];
        let mut listen = Listening::start(&world, &args, 1);
        python(SCRIPT, &["headers", port(&listen.ports[0]), is_size_first]);
        for (order, size) in (1..).zip([0, 1, 20, 70_000, 16 << 20]) {
            let fields = &listen.event("message")["fields"];
            assert_eq!((&fields["order"], &fields["size"]), (&json!(order), &json!(size)));
        }
        listen.end();
    }
}

#[test]
fn a_server_of_headers_reads_ours() {
    if no_python() {
        return;
    }
    let world = World::new();
    let server = Foreign::start(SCRIPT, &["header_server"]);
    let args = ["connect", &server.url("tcp"), "--as", "labs-header"];
    let done = piped(&world, &args, b"payload=\npayload='hola mundo'\n").good();
    assert_eq!(
        done.out,
        "message version=1 size=0 order=1 payload=\"\"\nmessage version=1 size=10 order=2 payload=\"hola mundo\"\n"
    );
    assert_eq!(server.end(), "1 0 1 b''\n1 10 2 b'hola mundo'\n");
}

#[test]
fn four_gibibytes_announced_and_a_cut_message_end_their_own_connections_alone() {
    if no_python() {
        return;
    }
    let world = World::new();
    let args = ["tcp://127.0.0.1:0", "--as", "labs-header", "--reply", "echo"];
    let mut listen = Listening::start(&world, &args, 1);
    python(SCRIPT, &["huge", port(&listen.ports[0])]);
    for why in ["over the limit", "after 13 of at least 109 bytes", "over the limit"] {
        let closed = listen.event("closed");
        assert!(closed["why"].as_str().unwrap().contains(why), "{closed}");
    }
    assert_eq!(listen.event("message")["fields"]["payload"], "hola");
    listen.end();
}

/// Who closes first keeps the port for a minute; a server is there again at once all the same. A port that somebody
/// listens at is an error.
#[test]
fn a_server_restarts_at_once_and_a_taken_port_is_an_error() {
    let world = World::new();
    let listen = Listening::start(&world, &["tcp://127.0.0.1:0", "--reply", "echo"], 1);
    let client = listen.tcp();
    let url = format!("tcp://{}", listen.ports[0]);
    world.run(&["listen", &url]).failed(1, &[&url, "in use"]);
    listen.end();
    drop(client);
    let again = Listening::start(&world, &[&url, "--reply", "echo"], 1);
    let sent = world.run(&["send", &url, "hola"]).good();
    assert_eq!(sent.out, "hola");
    again.end();
}

#[test]
fn ncat_and_socat_hear_their_echo() {
    if skip_without(&[Need::Program("ncat"), Need::Program("socat")]) {
        return;
    }
    let world = World::new();
    let urls = ["tcp://127.0.0.1:0", "udp://127.0.0.1:0", "tcp://[::1]:0", "--reply", "ECHO: {}"];
    let listen = Listening::start(&world, &urls, 3);
    let stdin = || std::fs::File::open(world.write("typed", b"hola\n")).unwrap();
    let port = port(&listen.ports[0]);
    let done = finish(Command::new("ncat").args(["127.0.0.1", port]).stdin(stdin())).good();
    assert_eq!(done.out, "ECHO: hola\n");
    for (scheme, at) in [("TCP4", 0), ("UDP4", 1), ("TCP6", 2)] {
        let to = format!("{scheme}:{}", listen.ports[at]);
        let done = finish(Command::new("socat").args(["-t3", "-", &to]).stdin(stdin())).good();
        assert_eq!(done.out, "ECHO: hola\n", "{scheme}");
    }
    listen.end();
}

#[test]
fn socat_echoes_to_us() {
    if skip_without(&[Need::Program("socat")]) {
        return;
    }
    let world = World::new();
    let path = world.path("socket");
    let at = format!("UNIX-LISTEN:{}", path.display());
    let mut server =
        Command::new("socat").args([&at, "PIPE"]).stdin(Stdio::null()).spawn().unwrap();
    assert!(until(|| path.exists()), "it does not listen");
    let url = format!("unix://{}", path.display());
    assert_eq!(piped(&world, &["connect", &url], b"hola\n").good().out, "hola\n");
    wait(&mut server);
}

#[test]
fn an_answer_is_the_message_a_text_around_it_or_always_the_same() {
    let world = World::new();
    for (dialect, reply, said, wanted) in [
        ("lines", "echo", "hola\n", "hola\n"),
        ("lines", "<{}>", "hola\n\n", "<hola>\n<>\n"),
        ("lines", "{} and {}!", "a\nb\n", "a and a!\nb and b!\n"),
        ("lines", "ok", "hola\nmundo\n", "ok\nok\n"),
        ("length:!B:kind B:size", "<{}>", "\x07\x02hi", "\x07\x04<hi>"),
        ("struct:!2s:code", "code=ok", "abcd", "okok"),
    ] {
        let args = ["tcp://127.0.0.1:0", "--as", dialect, "--reply", reply];
        let listen = Listening::start(&world, &args, 1);
        let mut client = listen.tcp();
        client.write_all(said.as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, wanted, "{dialect} {reply}");
        listen.end();
    }
    let args = ["listen", "tcp://127.0.0.1:0", "--as", "tp0", "--reply"];
    for (reply, word) in
        [("ECHO: {}", "KIND name=value"), ("MENSAJE texto=ok", "texto"), ("'", "quote")]
    {
        world.run(&[&args[..], &[reply]].concat()).failed(2, &[word]);
    }
}
