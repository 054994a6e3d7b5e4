//! The clients of `listen`: none waits for another, and each is told of in numbers.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::Stdio;
use std::thread;

use serde_json::json;

use crate::talk::Listening;
use crate::world::World;

const TALKERS: usize = 3;
const LINES: usize = 20_000;

/// Far more is said than fits into any pipe or queue before it is shown.
#[test]
fn a_quiet_client_is_answered_while_nobody_looks_at_what_talkers_say_and_nothing_is_lost() {
    let world = World::new();
    let args = ["tcp://127.0.0.1:0", "--as", "lines", "--reply", "echo"];
    let mut listen = Listening::start(&world, &args, 1);
    let mut quiet = listen.tcp();
    let mut ask = |text: &str| {
        quiet.write_all(text.as_bytes()).unwrap();
        let mut answer = vec![0; text.len()];
        quiet.read_exact(&mut answer).unwrap();
        assert_eq!(answer, text.as_bytes());
    };
    ask("before\n"); // so that it is client 1
    let talkers: Vec<_> = (0..TALKERS)
        .map(|_| {
            let mut talker = listen.tcp();
            let mut hearing = talker.try_clone().unwrap();
            let said: String = (0..LINES).map(|n| format!("{n}\n")).collect();
            let len = said.len();
            let saying = thread::spawn(move || talker.write_all(said.as_bytes()).unwrap());
            let hearing = thread::spawn(move || hearing.read_exact(&mut vec![0; len]).unwrap());
            (saying, hearing)
        })
        .collect();
    for n in 0..50 {
        ask(&format!("ask {n}\n"));
    }
    let mut heard = BTreeMap::new();
    for _ in 0..TALKERS * LINES + 51 {
        let event = listen.event("message");
        let said = heard.entry(event["peer"].as_u64().unwrap()).or_insert_with(Vec::new);
        said.push(event["fields"]["payload"].as_str().unwrap().to_owned());
    }
    let quiet = heard.remove(&1).unwrap();
    assert!(quiet.iter().skip(1).cloned().eq((0..50).map(|n| format!("ask {n}"))));
    assert_eq!(heard.len(), TALKERS);
    for said in heard.values() {
        assert!(said.iter().cloned().eq((0..LINES).map(|n| n.to_string())), "in order");
    }
    for (saying, hearing) in talkers {
        saying.join().unwrap();
        hearing.join().unwrap();
    }
    listen.end();
}

#[test]
fn a_client_that_leaves_is_told_of_in_numbers() {
    let world = World::new();
    let args = ["tcp://127.0.0.1:0", "--as", "lines", "--reply", "echo"];
    let mut listen = Listening::start(&world, &args, 1);
    let mut client = listen.tcp();
    client.write_all(b"ola\nmundo\n").unwrap();
    client.read_exact(&mut [0; 10]).unwrap();
    drop(client);
    let closed = listen.event("closed");
    for (name, number) in [
        ("received_messages", 2),
        ("received_bytes", 10),
        ("sent_messages", 2),
        ("sent_bytes", 10),
        ("refused_messages", 0),
    ] {
        assert_eq!(closed[name], json!(number), "{name}");
    }
    assert!(closed["seconds"].as_f64().unwrap() >= closed["silent_seconds"].as_f64().unwrap());
    listen.end();
}

#[test]
fn the_operator_sees_who_is_there_and_how_much_was_said() {
    let world = World::new();
    let mut command = world.cabo();
    command.args(["listen", "tcp://127.0.0.1:0", "--as", "lines", "--reply", "ola", "-v"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut listen = command.spawn().unwrap();
    let mut keyboard = listen.stdin.take().unwrap();
    let mut said = BufReader::new(listen.stderr.take().unwrap()).lines();
    let mut line_with = |word: &str| {
        let has_word = |line: &String| line.contains(word);
        said.by_ref().map(Result::unwrap).find(has_word).unwrap()
    };
    let listening = line_with("listening on ");
    let at = listening.split("tcp://").nth(1).unwrap().split(';').next().unwrap().to_owned();
    keyboard.write_all(b"@?\n").unwrap();
    line_with("nobody is here");
    let mut client = std::net::TcpStream::connect(at).unwrap();
    client.write_all(b"one\ntwo\n").unwrap();
    client.read_exact(&mut [0; 8]).unwrap();
    let from = client.local_addr().unwrap();
    let numbers = "from it 2 messages, 8 bytes; to it 2 messages, 8 bytes; came ";
    keyboard.write_all(b"@?\n").unwrap();
    assert!(line_with("from it").starts_with(&format!("@1 {from}: {numbers}")));
    drop(client);
    assert!(line_with("from it").starts_with(&format!("@1 {from}: closed; {numbers}")));
    listen.kill().unwrap();
    listen.wait().unwrap();
}
