//! Conversations of `listen --once`, `listen --exec` and `connect` beyond what other programs have: programs that end with
//! their clients, records that are played, datagrams of every size.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustix::process::Signal;

use crate::talk::Listening;
use crate::world::{LIMIT, World, finish, signal_child, until, wait};

/// The largest datagram of IPv4.
const LARGEST: usize = 65_507;

/// Two processes that would go on for hours: the numbers of both.
const ENDLESS: &str = "sh -c 'sleep 9999 & echo $! $$; wait'";

pub(crate) fn is_gone(process: &str) -> bool {
    // A zombie is gone too: its parent may be the test machine's init, which takes its time.
    let stat = fs::read_to_string(format!("/proc/{process}/stat"));
    stat.is_err() || stat.is_ok_and(|stat| stat.rsplit_once(") ").unwrap().1.starts_with('Z'))
}

fn processes_of(client: &TcpStream) -> Vec<String> {
    let mut line = String::new();
    BufReader::new(client).read_line(&mut line).unwrap();
    let processes: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    assert!(processes.len() == 2 && processes.iter().all(|process| !is_gone(process)), "{line}");
    processes
}

#[test]
fn a_program_ends_with_its_client_and_all_of_them_with_us() {
    let world = World::new();
    let args = ["tcp://127.0.0.1:0", "--exec", ENDLESS];
    let mut listen = Listening::start(&world, &args, 1);
    let (first, second) = (listen.tcp(), listen.tcp());
    let (firsts, seconds) = (processes_of(&first), processes_of(&second));
    set_socket_linger(&first, Some(Duration::ZERO)).unwrap(); // which makes the close a reset
    drop(first);
    assert!(until(|| firsts.iter().all(|process| is_gone(process))), "its program goes on");
    assert_eq!(listen.event("closed")["peer"], 1);
    assert!(!seconds.iter().any(|process| is_gone(process)), "another client's program ended");
    listen.end();
    assert!(until(|| seconds.iter().all(|process| is_gone(process))), "a program outlives us");
}

#[test]
fn a_program_ends_when_nobody_says_anything_and_with_the_client_that_is_told_to_end() {
    let world = World::new();
    let args = ["tcp://127.0.0.1:0", "--exec", ENDLESS, "--idle", "300ms"];
    let mut listen = Listening::start(&world, &args, 1);
    let client = listen.tcp();
    let mut line = String::new();
    BufReader::new(&client).read_line(&mut line).unwrap();
    assert_eq!(
        listen.event("closed")["why"],
        "closed",
        "it was asked to end: no failure of its own"
    );
    assert!(until(|| line.split_whitespace().all(is_gone)), "its program goes on");
    listen.end();

    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", server.local_addr().unwrap());
    let mut connect = world.cabo().args(["connect", &url, "--exec", ENDLESS]).spawn().unwrap();
    let (peer, _) = server.accept().unwrap();
    let processes = processes_of(&peer);
    signal_child(&connect, Signal::INT);
    assert_eq!(wait(&mut connect).code(), Some(130));
    assert!(until(|| processes.iter().all(|process| is_gone(process))), "a program outlives us");
}

#[test]
fn a_program_learns_its_peer_and_one_that_fails_or_is_not_there_is_told_of() {
    let world = World::new();
    let args = ["tcp://127.0.0.1:0", "--exec", "sh -c 'echo $CABO_PEER; exit 7'"];
    let mut listen = Listening::start(&world, &args, 1);
    let mut client = listen.tcp();
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    assert_eq!(said.trim(), client.local_addr().unwrap().to_string());
    drop(client);
    let why = listen.event("closed")["why"].as_str().unwrap().to_owned();
    assert!(why.contains("sh") && why.contains('7'), "{why}");
    listen.end();

    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", server.local_addr().unwrap());
    let missing = world.run(&["connect", &url, "--exec", "no-such-program"]);
    missing.failed(1, &["no-such-program", "No such file"]);
    world.run(&["connect", &url, "--exec", " "]).failed(2, &["--exec"]);
}

/// Says hello, then answers each line, until the end.
fn greeter(greeting: &'static str) -> (String, JoinHandle<()>) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", server.local_addr().unwrap());
    let thread = thread::spawn(move || {
        let (mut client, _) = server.accept().unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        client.write_all(greeting.as_bytes()).unwrap();
        let lines = BufReader::new(client.try_clone().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            if client.write_all(format!("you said {line}\u{e1}\n").as_bytes()).is_err() {
                return; // who plays a record leaves where it is another
            }
        }
        let _ = client.shutdown(Shutdown::Both);
    });
    (url, thread)
}

/// Times without what is never the same.
fn without_times(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines = text.lines().filter(|line| !line.starts_with('#')).map(words);
    lines.map(|words| format!("{} {}", words[0], words[2..].join(" "))).collect()
}

#[test]
fn a_recorded_conversation_is_played_as_client_and_as_server() {
    let world = World::new();
    let (url, server) = greeter("hello\n");
    let stdin = world.write("stdin", b"ola \"x\"\n");
    let stdin = || fs::File::open(&stdin).unwrap();
    let record = world.path("record");
    let record_at = record.to_str().unwrap();
    let mut recorded = world.cabo();
    recorded.args(["connect", &url, "--record", record_at]).stdin(stdin());
    let done = finish(&mut recorded).good();
    server.join().unwrap();
    let mut lines = without_times(&record);
    lines.retain(|line| line.starts_with('>'));
    assert_eq!(lines, ["> \"ola \\\"x\\\"\\n\"", "> end"]);

    let (url, server) = greeter("hello\n");
    let played = world.run(&["connect", &url, "--replay", record_at]).good();
    assert_eq!(played.out, done.out, "the same answers are shown");
    server.join().unwrap();
    let (url, server) = greeter("hallo\n");
    let played = world.run(&["connect", &url, "--replay", record_at]);
    played.failed(1, &["line", "expected \"hello", "got \"hallo"]);
    server.join().unwrap();

    // The other side's part, played by a server: what was ours is theirs.
    let text = fs::read_to_string(&record).unwrap();
    let turned: String = text
        .chars()
        .map(|sign| match sign {
            '<' => '>',
            '>' => '<',
            sign => sign,
        })
        .collect();
    world.write("turned", turned.as_bytes());
    let args = ["tcp://127.0.0.1:0", "--once", "--replay", "turned"];
    let mut listen = Listening::start(&world, &args, 1);
    let mut client = world.cabo();
    client.args(["connect", &format!("tcp://{}", listen.ports[0])]).stdin(stdin());
    assert_eq!(finish(&mut client).good().out, done.out);
    assert_eq!(wait(&mut listen.child).code(), Some(0));
}

#[test]
fn a_record_with_a_mistake_names_its_line() {
    let world = World::new();
    world.write("bad", b"# remark\n> \"a\"\n< \"b\n");
    for args in [
        ["connect", "tcp://127.0.0.1:1", "--replay", "bad"],
        ["connect", "tcp://127.0.0.1:1", "--replay", "none"],
    ] {
        let wanted = if args[3] == "bad" { "line 3" } else { "No such file" };
        world.run(&args).failed(2, &["--replay", args[3], wanted]);
    }
}

#[test]
fn datagrams_of_every_size_come_with_their_sender_and_go_back() {
    let world = World::new();
    let mut listen = Listening::start(&world, &["udp://127.0.0.1:0", "--reply", "echo"], 1);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    for size in [0, 1, 1472, 1473, LARGEST] {
        let sent = vec![b'x'; size];
        client.send_to(&sent, &listen.ports[0]).unwrap();
        let event = listen.event("message");
        assert_eq!(event["from"], client.local_addr().unwrap().to_string());
        assert_eq!(event["fields"]["payload"].as_str().unwrap().len(), size);
        let mut back = vec![0; LARGEST + 1];
        let len = client.recv(&mut back).unwrap();
        assert!(back[..len] == sent, "{len} of {size} bytes");
    }
    let url = format!("udp://{}", listen.ports[0]);
    world.run(&["send", &url, ""]).good();
    assert_eq!(listen.event("message")["fields"]["payload"], "");
    listen.end();
}

#[test]
fn what_makes_no_sense_together_is_one_clear_line() {
    let world = World::new();
    world.write("large", &vec![b'x'; LARGEST + 1]);
    let cases: [(&[&str], i32, &[&str]); 7] = [
        (&["listen", "udp://239.192.7.8:0?if=lo", "--as", "cabo"], 2, &["cabo peers cannot come"]),
        (&["listen", "tcp://127.0.0.1:0", "--dump", "x"], 2, &["--dump", "--once"]),
        (&["listen", "tcp://127.0.0.1:0", "unix:x", "--once"], 2, &["--once", "one URL"]),
        (&["listen", "udp://127.0.0.1:0", "--exec", "cat"], 2, &["--exec", "datagrams"]),
        (&["send", "udp://255.255.255.255:1?if=lo", "x"], 3, &["lo", "broadcast"]),
        (&["send", "tcp://127.0.0.1:1?ttl=3", "x"], 2, &["ttl", "from, ip"]),
        (&["connect", "tcp://127.0.0.1:1?from=192.0.2.7"], 3, &["192.0.2.7", "no interface"]),
    ];
    for (args, code, words) in cases {
        world.run(args).failed(code, words);
    }
    let mut large = world.cabo();
    large.args(["send", "udp://127.0.0.1:1", "-"]);
    let large = large.stdin(fs::File::open(world.path("large")).unwrap());
    finish(large).failed(2, &["65507", "65508"]);
}

#[test]
fn a_flag_that_another_one_would_forget_is_refused() {
    let world = World::new();
    let url = "tcp://127.0.0.1:1";
    let cases: [&[&str]; 3] = [
        &["listen", url, "--exec", "cat", "--reply", "echo"],
        &["listen", url, "--once", "--reply", "echo"],
        &["connect", url, "--idle", "1s", "--replay", "x"],
    ];
    for args in cases {
        let done = world.run(args);
        assert_eq!(done.code, Some(2), "{done:?}");
        let flags = args.iter().filter(|word| word.starts_with("--"));
        assert!(flags.into_iter().all(|flag| done.err.contains(flag)), "{done:?}");
    }
}

/// A pipe that nobody writes into would hold up its reader for ever, and no signal would end that.
#[test]
fn a_pipe_in_the_place_of_a_file_is_refused_at_once() {
    let world = World::new();
    let pipe = world.path("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    let tls = "tls://127.0.0.1:0?cert=pipe&key=pipe";
    let cases: [&[&str]; 5] = [
        &["listen", tls],
        &["connect", "tls://127.0.0.1:1?ca=pipe"],
        &["listen", "tcp://127.0.0.1:0", "--as", "./pipe"],
        &["connect", "--as", "tp0", "--config", "pipe"],
        &["connect", "tcp://127.0.0.1:1", "--replay", "pipe"],
    ];
    for args in cases {
        let done = world.run(args);
        assert!(done.err.contains("pipe") && done.err.contains("is no file"), "{args:?}: {done:?}");
    }
    let program = ["listen", "tcp://127.0.0.1:0", "--exec", "cat", "--dump", "d.txt"];
    world.run(&program).failed(2, &["--dump", "--once"]);
}
