//! `listen`, `connect` and `send` with programs that know nothing of cabo: sockets of this test, and of Python.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::needs::{Need, skip_without};
use crate::world::{LIMIT, World, finish, until, wait};

/// `cabo listen --json`, and what it says.
pub(crate) struct Listening {
    pub(crate) child: Child,
    lines: BufReader<ChildStdout>,
    /// Hosts and ports, in the order of the URLs.
    pub(crate) ports: Vec<String>,
}

impl Listening {
    pub(crate) fn start(world: &World, args: &[&str], urls: usize) -> Self {
        let mut command = world.cabo();
        command.args(["listen", "--json"]).args(args);
        Self::of(&mut command, urls)
    }

    /// A command that listens and tells in JSON.
    pub(crate) fn of(command: &mut Command, urls: usize) -> Self {
        Self::of_child(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap(), urls)
    }

    /// The same that was started already, with a pipe for its stdout.
    pub(crate) fn of_child(mut child: Child, urls: usize) -> Self {
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut listening = Self { child, lines, ports: Vec::new() };
        for _ in 0..urls {
            let event = listening.next();
            assert_eq!(event["event"], "listening", "{event}");
            let at = event["url"].as_str().unwrap().to_owned();
            listening.ports.push(at.rsplit_once("//").unwrap().1.to_owned());
        }
        listening
    }

    pub(crate) fn next(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// The next event of that name.
    pub(crate) fn event(&mut self, name: &str) -> Value {
        loop {
            let event = self.next();
            if event["event"] == name {
                return event;
            }
        }
    }

    pub(crate) fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.ports[0]).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// Ends it as Ctrl-C does.
    pub(crate) fn end(mut self) {
        let process = Pid::from_child(&self.child);
        kill_process(process, Signal::INT).unwrap();
        assert_eq!(wait(&mut self.child).code(), Some(0));
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

#[test]
fn who_says_what_is_told_and_the_operator_answers_one_of_several() {
    let world = World::new();
    let urls = ["tcp://127.0.0.1:0", "udp://127.0.0.1:0", "--as", "lines"];
    let mut listen = Listening::start(&world, &urls, 2);
    let mut first = listen.tcp();
    let one = listen.event("connected");
    assert_eq!(one["from"], first.local_addr().unwrap().to_string());
    let second = listen.tcp();
    listen.event("connected");
    first.write_all(b"ola\nmun").unwrap();
    first.write_all(b"do\xff\n").unwrap();
    assert_eq!(listen.event("message")["fields"], json!({ "payload": "ola" }));
    assert_eq!(listen.event("message")["fields"], json!({ "payload": { "hex": "6d756e646fff" } }));
    let mut keyboard = listen.child.stdin.take().unwrap();
    keyboard.write_all(b"to who spoke\n@2 to the second\n@* to all\n@9 to nobody\n").unwrap();
    for (client, wanted) in
        [(&first, "to who spoke\nto all\n"), (&second, "to the second\nto all\n")]
    {
        let mut said = vec![0; wanted.len()];
        let mut client = client;
        client.read_exact(&mut said).unwrap();
        assert_eq!(String::from_utf8(said).unwrap(), wanted);
    }
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.send_to(b"", &listen.ports[1]).unwrap();
    let event = listen.event("message");
    assert_eq!((&event["carrier"], &event["fields"]["payload"]), (&json!("udp"), &json!("")));
    drop(first);
    assert_eq!(listen.event("closed")["peer"], 1);
    listen.end();
}

/// The records of the labs by Python's own struct, and the bytes that we send in their place.
#[test]
fn records_of_python_are_decoded_and_ours_are_theirs() {
    if skip_without(&[Need::Program("python3")]) {
        return;
    }
    let world = World::new();
    let urls = ["tcp://127.0.0.1:0", "--as", "labs-header", "--reply", "echo"];
    let mut listen = Listening::start(&world, &urls, 1);
    let client = "import socket,struct,sys\n\
        s=socket.create_connection(('127.0.0.1',int(sys.argv[1])))\n\
        for order,text in enumerate([b'',b'hola',b'x'*1000000],1):\n\
        \x20 m=struct.pack('!BLL',1,len(text),order)+text\n\
        \x20 s.sendall(m)\n\
        \x20 back=b''\n\
        \x20 while len(back)<len(m): back+=s.recv(65536)\n\
        \x20 assert back==m, order\n";
    let port = listen.ports[0].rsplit_once(':').unwrap().1.to_owned();
    finish(Command::new("python3").args(["-c", client, &port])).good();
    for (order, len) in [(1, 0), (2, 4), (3, 1_000_000)] {
        let fields = listen.event("message")["fields"].clone();
        assert_eq!((&fields["order"], &fields["size"]), (&json!(order), &json!(len)));
        assert_eq!(fields["payload"].as_str().unwrap().len(), len);
    }
    listen.end();

    let server = "import socket,struct\n\
        s=socket.create_server(('127.0.0.1',0)); print(s.getsockname()[1],flush=True)\n\
        c,_=s.accept(); m=b''\n\
        while len(m)<29: m+=c.recv(29)\n\
        print(struct.unpack('!BLL20s',m)); c.sendall(m); c.close()\n";
    let mut python = Command::new("python3");
    let mut python = python.args(["-c", server]).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(python.stdout.take().unwrap());
    let mut port = String::new();
    said.read_line(&mut port).unwrap();
    let url = format!("tcp://127.0.0.1:{}", port.trim());
    let done = world.run(&["send", &url, "--as", "labs-record", "order=7", "text=olá"]).good();
    assert_eq!(done.out, "record version=1 order=7 size=3 text=\"ol\u{e1}\"\n");
    let mut seen = String::new();
    said.read_to_string(&mut seen).unwrap();
    assert_eq!(seen.trim(), r"(1, 7, 3, b'ol\xc3\xa1----------------')");
    assert!(wait(&mut python).success());
}

#[test]
fn strangers_are_refused_and_a_refused_client_says_so() {
    let world = World::new();
    let mut listen = Listening::start(&world, &["tcp://127.0.0.1:0", "--as", "tp0"], 1);
    let mut stranger = listen.tcp();
    stranger.write_all(b"\x02\0\0\0\0\0\0\0\x02\0\0\0a\0").unwrap();
    let mut answer = Vec::new();
    stranger.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"\xff\xff\xff\xff");
    let refused = listen.next();
    assert_eq!(refused["event"], "refused", "and nothing else of it: {refused}");
    let url = format!("tcp://{}", listen.ports[0]);
    world.run(&["send", &url, "--as", "tp0", "PAQUETE", "values=hola", "values=mundo"]).good();
    let message = listen.event("message");
    assert_eq!(message["kind"], "PAQUETE");
    assert_eq!(message["fields"]["values"][1], json!({ "len": 6, "value": "mundo" }));
    listen.end();

    let refusing = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", refusing.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut client, _) = refusing.accept().unwrap();
        let mut hello = [0; 4];
        client.read_exact(&mut hello).unwrap();
        client.write_all(b"\xff\xff\xff\xff").unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        (hello, rest)
    });
    let sent = world.run(&["send", &url, "--as", "tp0", "MENSAJE", "text=x"]);
    sent.failed(4, &["turned us away", "tp0"]);
    assert_eq!(server.join().unwrap(), ([1, 0, 0, 0], Vec::new()), "it sent nothing more");
}

#[test]
fn a_pipe_goes_through_connect_and_ends_when_both_sides_have() {
    let world = World::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", server.local_addr().unwrap());
    let thread = thread::spawn(move || {
        let (mut client, _) = server.accept().unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap(); // the half-close came
        thread::sleep(Duration::from_millis(200)); // an answer that takes its time is waited for
        client.write_all(&all).unwrap();
        client.shutdown(Shutdown::Both).unwrap();
    });
    let sent: Vec<u8> = (0..3_000_000_u32).map(|at| ((at * 7) >> 3) as u8).collect();
    let mut child = world.cabo();
    let mut child =
        child.args(["connect", &url]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let piped = sent.clone();
    let writer = thread::spawn(move || stdin.write_all(&piped).unwrap());
    let mut back = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut back).unwrap();
    assert!(back == sent, "{} of {} bytes", back.len(), sent.len());
    assert_eq!(wait(&mut child).code(), Some(0));
    writer.join().unwrap();
    thread.join().unwrap();
}

#[test]
fn what_cannot_be_said_or_reached_is_one_clear_line() {
    let world = World::new();
    world.write("bad.toml", b"[kind.a]\nlayout = '!Z'\n");
    let cases: [(&[&str], i32, &[&str]); 9] = [
        (&["send", "tcp://127.0.0.1:1", "x"], 3, &["tcp://127.0.0.1:1", "connection refused"]),
        (&["send", "tcp://127.0.0.1:1", "--as", "packets", "x"], 2, &["packets", "tp0", "lines"]),
        (
            &["send", "tcp://127.0.0.1:1", "--as", "./bad.toml"],
            2,
            &["bad.toml", "line 2, column 10"],
        ),
        (&["send", "tcp://127.0.0.1:1", "--as", "./none.toml"], 2, &["none.toml", "No such file"]),
        (&["send", "tcp://127.0.0.1:1", "--as", "tp0", "MENSAJE"], 2, &["text", "not given"]),
        (&["connect", "redes://lo"], 2, &["redes://lo", "tcp://, tls://, udp:// and unix:"]),
        (&["connect", "redes://lo", "--as", "cabo"], 2, &["cabo/1 does not run over redes"]),
        (&["listen", "udp://239.1.2.3?if=nope0"], 1, &["nope0"]),
        (&["listen", "tcp://127.0.0.1:0/item"], 2, &["item"]),
    ];
    for (args, code, words) in cases {
        world.run(args).failed(code, words);
    }
}

/// Level, time, module, process and thread of each line, as the TP0's own log has them.
#[test]
fn a_log_file_tells_who_came_what_was_said_and_who_left() {
    let world = World::new();
    let log = world.path("server.log");
    let args = ["tcp://127.0.0.1:0", "--as", "lines", "--log", log.to_str().unwrap()];
    for round in 1..=2 {
        let mut listen = Listening::start(&world, &args, 1);
        listen.tcp().write_all(b"ol\xc3\xa1\n").unwrap();
        listen.event("closed");
        let process = listen.child.id();
        listen.end();
        let text = std::fs::read_to_string(&log).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4 * round, "{text}");
        let said = ["listening on tcp://127.0.0.1:", "is here", "  ol\u{e1}", ": closed"];
        for (line, said) in lines.iter().rev().take(4).rev().zip(said) {
            let (head, text) = line.split_once("): ").unwrap();
            assert!(text.contains(said), "{line}");
            let (level, rest) = head.split_once(' ').unwrap();
            let (time, module) = rest.split_once(' ').unwrap();
            assert_eq!(level, "[INFO]", "{line}");
            assert_eq!((time.len(), time.matches(':').count()), (12, 3), "{line}");
            assert!(module.contains(&format!("({process}:")), "{line}");
        }
    }
    let nowhere = world.path("no/such.log");
    let args = ["listen", "tcp://127.0.0.1:0", "--log", nowhere.to_str().unwrap()];
    world.run(&args).failed(2, &["--log", "No such file"]);
    let mut command = world.cabo();
    command.args(["listen", "--json", "tcp://127.0.0.1:0", "--log", "/dev/full"]);
    let mut listen = Listening::of(command.stderr(Stdio::piped()), 1);
    let mut said = String::new();
    BufReader::new(listen.child.stderr.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains("/dev/full") && said.contains("No space left"), "{said}");
    listen.end();
}

#[test]
fn cabo_peers_and_foreign_programs_are_heard_and_answered_at_one_port() {
    let world = World::new();
    let own = world.fingerprint("own");
    let args = ["tcp://127.0.0.1:0", "udp://127.0.0.1:0", "--reply", "re: {}"];
    let mut listen = Listening::start(&world, &args, 2);
    for (scheme, port) in ["tcp", "udp"].into_iter().zip(listen.ports.clone()) {
        let url = format!("{scheme}://{port}");
        let args = ["send", &url, "--as", "cabo", "--wait", "20s", "bom", "dia"];
        assert_eq!(world.run(&args).good().out, "re: bom dia", "{url}");
        let connected = listen.event("connected");
        assert_eq!(
            (&connected["fingerprint"], &connected["carrier"]),
            (&json!(own), &json!(scheme))
        );
        assert_eq!(listen.event("message")["fields"], json!({ "payload": "bom dia" }));
        let script = "exec \"$0\" connect \"$1\" --as cabo <<-END\none\nEND";
        let mut connect = world.within(Command::new("sh"), "own");
        connect.args(["-c", script, env!("CARGO_BIN_EXE_cabo"), &url]);
        assert_eq!(finish(&mut connect).good().out, "re: one\n");
        listen.event("closed");
        let mut stranger = world.cabo_as("another");
        stranger.args(["send", &url, "--as", "cabo", "--wait", "20s", "x"]);
        finish(&mut stranger).failed(4, &["the server does not know", "--allow"]);
        let why = listen.event("refused")["why"].as_str().unwrap().to_owned();
        assert!(why.contains("does not know") && why.contains("cabo listen --allow"), "{why}");
        let foreign = ["send", &url, "--wait", "20s", "foreign"];
        if scheme == "tcp" {
            assert_eq!(world.run(&foreign).good().out, "re: foreign");
            assert!(listen.event("connected").get("fingerprint").is_none());
        }
    }
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(LIMIT)).unwrap();
    udp.send_to(b"raw", &listen.ports[1]).unwrap();
    let mut answer = [0; 16];
    let len = udp.recv(&mut answer).unwrap();
    assert_eq!(&answer[..len], b"re: raw");
    listen.end();
}

/// What is typed keeps its newline where nothing else ends a message, as at `connect`.
#[test]
fn raw_answers_are_lines_and_who_has_left_is_named() {
    let world = World::new();
    let mut command = world.cabo();
    let command = command.args(["listen", "--json", "tcp://127.0.0.1:0"]).stderr(Stdio::piped());
    let mut listen = Listening::of(command, 1);
    let mut errors = BufReader::new(listen.child.stderr.take().unwrap());
    let mut client = listen.tcp();
    client.write_all(b"ola").unwrap();
    listen.event("message");
    let mut keyboard = listen.child.stdin.take().unwrap();
    keyboard.write_all(b"bom dia\n@1 tarde\n").unwrap();
    let mut said = [0; 14];
    client.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"bom dia\ntarde\n");
    drop(client);
    listen.event("closed");
    keyboard.write_all(b"noite\n").unwrap();
    let mut line = String::new();
    errors.read_line(&mut line).unwrap();
    assert!(line.contains("@1, who spoke last, has left"), "{line}");
    listen.end();
}

/// SIGHUP, which the words of a refusal ask for.
#[test]
fn a_list_of_allowed_peers_is_read_again() {
    let world = World::new();
    world.write("friends", b"");
    let args = ["tcp://127.0.0.1:0", "--allow", "friends", "--reply", "echo"];
    let mut listen = Listening::start(&world, &args, 1);
    let url = format!("tcp://{}", listen.ports[0]);
    let send = || finish(world.cabo_as("ana").args(["send", &url, "--as", "cabo", "hola"]));
    send().failed(4, &["does not know"]);
    listen.event("refused");
    world.write("friends", format!("{}\n", world.fingerprint("ana")).as_bytes());
    kill_process(Pid::from_child(&listen.child), Signal::HUP).unwrap();
    let is_let_in = until(|| send().code == Some(0));
    assert!(is_let_in, "the list was not read again");
    listen.end();
}

#[test]
fn a_script_learns_what_could_not_be_sent() {
    let world = World::new();
    let listen = Listening::start(&world, &["tcp://127.0.0.1:0", "--as", "tp0"], 1);
    let url = format!("tcp://{}", listen.ports[0]);
    let mut typing = world.cabo();
    typing.args(["connect", &url, "--as", "tp0"]).stdin(Stdio::piped());
    let mut child = typing.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"nonsense\n").unwrap();
    assert_eq!(wait(&mut child).code(), Some(2));
    listen.end();
    let alone = ["listen", "tcp://127.0.0.1:0", "--as", "cabo", "--once"];
    world.run(&alone).failed(2, &["foreign programs alone"]);
}
