//! The TP0: handshake, MENSAJE, PAQUETE, and everything that its server must outlive.

use std::io::Write as _;

use serde_json::{Value, json};

use super::*;
use crate::talk::Listening;

const SCRIPT: &str = "tp0.py";

fn values(texts: &[&str]) -> Value {
    texts.iter().map(|text| json!({ "len": text.len() + 1, "value": text })).collect()
}

#[test]
fn its_client_is_understood_in_one_piece_byte_by_byte_and_glued() {
    if no_python() {
        return;
    }
    let world = World::new();
    for (dialect, has_hello) in [("tp0", "1"), ("tp0-bare", "0")] {
        let mut listen = Listening::start(&world, &["tcp://127.0.0.1:0", "--as", dialect], 1);
        python(SCRIPT, &["client", port(&listen.ports[0]), has_hello]);
        for _ in 0..3 {
            let message = listen.event("message");
            assert_eq!(
                (&message["kind"], &message["fields"]["text"]),
                (&json!("MENSAJE"), &json!("valor"))
            );
            let package = listen.event("message");
            assert_eq!(package["kind"], "PAQUETE");
            assert_eq!(package["fields"]["values"], values(&["hola", "mundo"]));
            assert_eq!(listen.event("message")["fields"]["values"], json!([]));
        }
        listen.end();
    }
}

/// The bytes of the captures.
#[test]
fn its_server_gets_the_bytes_that_its_own_client_sends() {
    if no_python() {
        return;
    }
    let world = World::new();
    let typed = "MENSAJE text=valor\nPAQUETE values=hola values=mundo\nPAQUETE\n";
    let bytes = "000000000600000076616c6f7200\n\
        010000001300000005000000686f6c6100060000006d756e646f00\n\
        0100000000000000\n";
    for (dialect, has_hello, hello) in [("tp0", "1", "01000000\n"), ("tp0-bare", "0", "")] {
        let server = Foreign::start(SCRIPT, &["server", has_hello]);
        let args = ["connect", &server.url("tcp"), "--as", dialect];
        piped(&world, &args, typed.as_bytes()).good();
        assert_eq!(server.end(), format!("{hello}{bytes}"), "{dialect}");
    }
    let server = Foreign::start(SCRIPT, &["server", "1"]);
    world.run(&["send", &server.url("tcp"), "--as", "tp0", "MENSAJE", "text=valor"]).good();
    assert_eq!(server.end(), "01000000\n000000000600000076616c6f7200\n");
}

#[test]
fn lines_of_a_megabyte_and_any_script_go_into_a_package() {
    if no_python() {
        return;
    }
    let world = World::new();
    let long = "\u{e1}".repeat(500_000); // 1,000,000 bytes
    let typed = format!("PAQUETE values='{long}' values='ma\u{f1}ana \u{4f60}\u{597d}'\n");
    let server = Foreign::start(SCRIPT, &["server", "1"]);
    piped(&world, &["connect", &server.url("tcp"), "--as", "tp0"], typed.as_bytes()).good();
    let size = 4 + 1_000_001 + 4 + "ma\u{f1}ana \u{4f60}\u{597d}".len() + 1;
    // 0x000f4241 and the first two letters; the end of a letter, another, the NUL.
    assert_eq!(server.end(), format!("01000000\n1 {size} 41420f00c3a1c3a1 20e4bda0e5a5bd00\n"));

    let mut listen = Listening::start(&world, &["tcp://127.0.0.1:0", "--as", "tp0"], 1);
    let url = format!("tcp://{}", listen.ports[0]);
    piped(&world, &["connect", &url, "--as", "tp0"], typed.as_bytes()).good();
    let message = listen.event("message");
    assert_eq!(message["fields"]["values"], values(&[&long, "ma\u{f1}ana \u{4f60}\u{597d}"]));
    listen.end();
}

#[test]
fn every_violation_is_refused_or_named_and_the_next_client_is_served() {
    if no_python() {
        return;
    }
    let world = World::new();
    let mut listen = Listening::start(&world, &["tcp://127.0.0.1:0", "--as", "tp0"], 1);
    python(SCRIPT, &["violations", port(&listen.ports[0])]);
    for _ in 0..7 {
        let event = listen.next();
        assert_eq!(event["event"], "refused", "nothing of it is processed: {event}");
    }
    // Each message alone is wrong, and the one behind it is read; or the stream has no next message and ends.
    let error = |words: &'static str| ("error", words);
    let closed = |words: &'static str| ("why", words);
    for (key, words) in [
        error("no MENSAJE"),
        closed("byte 4, field \"size\": is counted as -1"),
        closed("over the limit"),
        error("NUL"),
        error("no PAQUETE"),
        error("no PAQUETE"),
        closed("the stream ended inside a message"),
    ] {
        let seen = loop {
            let event = listen.next();
            if event[key].is_string() {
                break event;
            }
        };
        assert!(seen[key].as_str().unwrap().contains(words), "{words}: {seen}");
        if key == "error" {
            assert_eq!(listen.event("message")["fields"]["text"], "in step");
            assert_eq!(listen.event("closed")["why"], "closed");
        }
    }
    python(SCRIPT, &["deaf", port(&listen.ports[0])]);
    assert_eq!(listen.next()["event"], "refused");
    python(SCRIPT, &["client", port(&listen.ports[0]), "1"]);
    assert_eq!(listen.event("message")["fields"]["text"], "valor");
    listen.end();
}

#[test]
fn who_does_not_greet_in_time_is_refused_and_blocks_nobody() {
    if no_python() {
        return;
    }
    let world = World::new();
    let usual = include_str!("../../../../cabo-proto/src/dialect/builtin/tp0.toml");
    world.write("hasty.toml", usual.replace("[hello]", "[hello]\ndeadline-ms = 1500").as_bytes());
    let mut listen = Listening::start(&world, &["tcp://127.0.0.1:0", "--as", "hasty.toml"], 1);
    python(SCRIPT, &["silent", port(&listen.ports[0]), "20"]);
    for _ in 0..21 {
        let why = listen.event("refused")["why"].as_str().unwrap().to_owned();
        assert!(why.contains("within 1.5s"), "{why}");
    }
    listen.end();
}

#[test]
fn a_byte_for_the_operation_code_is_another_dialect() {
    let world = World::new();
    let mut listen = Listening::start(&world, &["tcp://127.0.0.1:0", "--as", "tp0-byte"], 1);
    let url = format!("tcp://{}", listen.ports[0]);
    let args = ["send", &url, "--as", "tp0-byte", "PAQUETE", "values=ana", "values=bo"];
    world.run(&args).good();
    let fields = listen.event("message")["fields"].clone();
    assert_eq!(fields["size"], 13);
    assert_eq!(fields["values"][1], json!({ "len": 2, "value": "bo" }));
    listen.end();
}

#[test]
fn integers_of_other_machines_are_a_letter_in_a_file_or_a_dialect() {
    let world = World::new();
    let usual = world.run(&["dialect", "show", "tp0-bare"]).good().out;
    world.write("big.toml", usual.replace('<', ">").as_bytes());
    let cases: [(&str, &[u8]); 2] = [("big.toml", b""), ("tp0-big-endian", b"\0\0\0\x01")];
    for (dialect, hello) in cases {
        let args = ["tcp://127.0.0.1:0", "--as", dialect];
        let mut listen = Listening::start(&world, &args, 1);
        let message = b"\0\0\0\0\0\0\0\x05hola\0".as_slice();
        listen.tcp().write_all(&[hello, message].concat()).unwrap();
        let wanted = json!({ "op": 0, "size": 5, "text": "hola" });
        assert_eq!(listen.event("message")["fields"], wanted, "{dialect}");
        listen.end();
    }
}

/// What its own client does with its settings: the key first, then all lines up to an empty one as one package.
#[test]
fn its_settings_file_says_where_the_server_is_and_what_is_said_first() {
    if no_python() {
        return;
    }
    let world = World::new();
    let file = world.path("cliente.config");
    let name = file.to_str().unwrap();
    let server = Foreign::start(SCRIPT, &["server", "1"]);
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    let url = server.url("tcp");
    write(&format!("IP=127.0.0.1\nPUERTO={}\nCLAVE=una \"clave\n", port(&url)));
    let args = ["connect", "--as", "tp0", "--config", name];
    piped(&world, &args, b"hola\nMENSAJE text=1\n\nnot read\n").good();
    let bytes = "01000000\n\
        000000000b000000756e612022636c61766500\n\
        010000001c00000005000000686f6c61000f0000004d454e53414a4520746578743d3100\n";
    assert_eq!(server.end(), bytes);

    for (text, words) in [
        ("IP=127.0.0.1\nCLAVE\n", "line 2: \"CLAVE\" is not KEY=value"),
        ("IP=127.0.0.1\nPUERTO=4444\n", "CLAVE is not set"),
        ("PUERTO=http\nCLAVE=x\n", "http"),
    ] {
        write(text);
        world.run(&args).failed(2, &["--config ", "cliente.config", words]);
    }
    world.run(&["connect", "--as", "lines", "--config", name]).failed(2, &["no [config]"]);

    write("IP=10.9.9.9\nPUERTO=0\nCLAVE=x\n");
    let listen = ["--as", "tp0", "--config", name];
    let listen = Listening::start(&world, &listen, 1);
    let to = format!("tcp://127.0.0.1:{}", port(&listen.ports[0]));
    piped(&world, &["connect", &to, "--as", "tp0", "--config", name], b"a\n").good();
    listen.end();
}
