//! Buttons and lamps: commands over TCP, UDP, multicast and broadcast.

use super::*;
use crate::talk::Listening;

const SCRIPT: &str = "led.py";

fn commands(listen: &mut Listening, wanted: &[&str]) {
    for wanted in wanted {
        assert_eq!(listen.event("message")["fields"]["payload"], *wanted);
    }
}

#[test]
fn commands_end_with_nul_lf_crlf_or_the_close_and_silence_is_none() {
    if no_python() {
        return;
    }
    let world = World::new();
    let mut listen = Listening::start(&world, &["tcp://127.0.0.1:0", "--as", "led"], 1);
    python(SCRIPT, &["presses", port(&listen.ports[0])]);
    let mut said = vec![Vec::new(); 10]; // by connection: they end in any order
    for _ in 0..11 + 2 * 10 {
        let event = listen.next();
        let peer = usize::try_from(event["peer"].as_u64().unwrap()).unwrap();
        if event["event"] == "message" {
            said[peer - 1].push(event["fields"]["payload"].as_str().unwrap().to_owned());
        }
    }
    let (on, off) = ("LED ON", "LED OFF");
    let split: &[&str] = &[off, on, off];
    let glued: &[&str] = &[on, off, on, off];
    let wanted = [&[off][..], &[], &[on], &[], &[off], &[], &[on], &[], split, glued];
    assert_eq!(said, wanted);
    listen.end();
}

#[test]
fn five_hundred_presses_all_come() {
    if no_python() {
        return;
    }
    let world = World::new();
    let mut listen = Listening::start(&world, &["tcp://127.0.0.1:0", "--as", "led"], 1);
    let place = listen.ports[0].clone();
    let pressing = std::thread::spawn(move || python(SCRIPT, &["many", port(&place), "500"]));
    let (mut on, mut off) = (0, 0);
    while on + off < 500 {
        match listen.event("message")["fields"]["payload"].as_str().unwrap() {
            "LED ON" => on += 1,
            "LED OFF" => off += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!((on, off), (250, 250));
    pressing.join().unwrap();
    listen.end();
}

#[test]
fn idle_garbage_and_flooding_connections_block_no_press() {
    if no_python() {
        return;
    }
    let world = World::new();
    let mut listen = Listening::start(&world, &["tcp://127.0.0.1:0", "--as", "led"], 1);
    python(SCRIPT, &["strangers", port(&listen.ports[0])]);
    let (mut is_pressed, mut is_flood_over) = (false, false);
    while !is_pressed || !is_flood_over {
        let event = listen.next();
        is_pressed |= event["fields"]["payload"] == "LED ON";
        is_flood_over |= event["why"].as_str().is_some_and(|why| why.contains("limit of 1024"));
    }
    listen.end();
}

/// The bytes of the captures: a NUL in a stream, none in a datagram.
#[test]
fn a_lamp_reads_our_commands() {
    if no_python() {
        return;
    }
    let world = World::new();
    for (lamp, scheme, end) in [("lamp_tcp", "tcp", r"\x00"), ("lamp_udp", "udp", "")] {
        let server = Foreign::start(SCRIPT, &[lamp, "2"]);
        for command in ["LED OFF", "LED ON"] {
            world.run(&["send", &server.url(scheme), "--as", "led", command]).good();
        }
        assert_eq!(server.end(), format!("b'LED OFF{end}'\nb'LED ON{end}'\n"));
    }
}

#[test]
fn several_commands_of_one_netcat_session_are_each_obeyed_and_answered() {
    if skip_without(&[Need::Program("ncat")]) {
        return;
    }
    let world = World::new();
    let args = ["tcp://127.0.0.1:0", "--as", "lines", "--reply", "done {}"];
    let mut listen = Listening::start(&world, &args, 1);
    let typed = world.write("typed", b"LED ON\nLED OFF\nLED ON\n");
    let mut ncat = Command::new("ncat");
    let ncat = ncat.args(["127.0.0.1", port(&listen.ports[0])]);
    let done = finish(ncat.stdin(std::fs::File::open(typed).unwrap())).good();
    assert_eq!(done.out, "done LED ON\ndone LED OFF\ndone LED ON\n");
    commands(&mut listen, &["LED ON", "LED OFF", "LED ON"]);
    listen.end();
}

#[test]
fn groups_are_heard_by_all_lamps_of_their_interface_and_broadcasts_too() {
    if skip_without(&[Need::Program("python3"), Need::Namespaces]) {
        return;
    }
    let world = World::new();
    let cabo = env!("CARGO_BIN_EXE_cabo");
    let mut lab = world.cabo();
    lab.args(["lab", "-q", "--", "python3"]).arg(script(SCRIPT)).args(["groups", cabo]);
    finish(&mut lab).good();
}
