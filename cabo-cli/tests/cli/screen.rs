//! What answers look like: bytes as they are in a pipe, text with its own lines on a terminal, JSON where that was asked for.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

use crate::world::{Done, LIMIT, World, wait};

/// `cabo` whose stdout and stderr are one terminal.
struct Screen {
    child: Child,
    shown: Receiver<Vec<u8>>,
    text: String,
}

impl Screen {
    fn start(world: &World, args: &[&str]) -> Self {
        let ours: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
        let line = File::options().read(true).write(true).open(name).unwrap();
        let mut command = world.cabo();
        command.args(args).stdin(Stdio::piped());
        command.stdout(line.try_clone().unwrap()).stderr(line);
        let child = command.spawn().unwrap();
        drop(command); // and with it our copies of the terminal's other end
        let (sender, shown) = channel();
        let mut from = File::from(ours);
        thread::spawn(move || {
            let mut room = [0; 4096];
            // It ends with an error when nobody has the other end any more.
            while let Ok(len @ 1..) = from.read(&mut room) {
                if sender.send(room[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, shown, text: String::new() }
    }

    /// Waits until this is shown.
    #[track_caller]
    fn until_shown(&mut self, wanted: &str) {
        while !self.text.contains(wanted) {
            let more = self.shown.recv_timeout(LIMIT);
            let more = more.unwrap_or_else(|_| panic!("no {wanted:?} after {:?}", self.text));
            self.text.push_str(&String::from_utf8_lossy(&more));
        }
    }

    /// Everything, when it has ended.
    fn end(mut self) -> (Option<i32>, String) {
        drop(self.child.stdin.take());
        let code = wait(&mut self.child).code();
        while let Ok(more) = self.shown.recv_timeout(LIMIT) {
            self.text.push_str(&String::from_utf8_lossy(&more));
        }
        (code, std::mem::take(&mut self.text))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that answers one client and, once its half is closed, ends: what it was told comes out of the thread.
fn answering(answer: &'static [u8]) -> (String, JoinHandle<()>) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", server.local_addr().unwrap());
    let thread = thread::spawn(move || {
        let (mut client, _) = server.accept().unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        client.write_all(answer).unwrap();
        let _ = client.read_to_end(&mut Vec::new()); // who is content with less leaves early
    });
    (url, thread)
}

fn sent(world: &World, answer: &'static [u8], args: &[&str]) -> Done {
    let (url, server) = answering(answer);
    let done = world.run(&[&["send", &url], args].concat());
    server.join().unwrap();
    done
}

#[test]
fn an_answer_goes_into_a_pipe_as_it_is_and_otherwise_as_it_was_asked_for() {
    let world = World::new();
    let answer = b"a\nb\x1b[2J\n";
    let cases: [(&[&str], &str); 5] = [
        (&["x"], "a\nb\x1b[2J\n"),
        (&["--show", "raw", "x"], "a\nb\x1b[2J\n"),
        (&["--show", "text", "x"], "a\nb\\u{1b}[2J\n"),
        (&["--show", "hex", "x"], "610a621b5b324a0a\n"),
        (&["--as", "lines", "x"], "a\nb\\u{1b}[2J\n"),
    ];
    for (args, wanted) in cases {
        assert_eq!(sent(&world, answer, args).good().out, wanted, "{args:?}");
    }
    for command in ["send", "connect", "listen"] {
        let both = world.run(&[command, "tcp://127.0.0.1:1", "--show", "hex", "--json"]);
        both.failed(2, &["--show", "--json"]);
    }
}

#[test]
fn a_played_conversation_is_json_lines_where_those_were_asked_for() {
    let world = World::new();
    world.write("talk", b"> \"x\"\n> end\n< \"ol\\xc3\\xa1\\n\"\n< end\n");
    let (url, server) = answering("ol\u{e1}\n".as_bytes());
    let done = world.run(&["connect", "--json", &url, "--replay", "talk"]).good();
    server.join().unwrap();
    let pieces = done.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let payloads = pieces.map(|piece| piece["fields"]["payload"].as_str().unwrap().to_owned());
    assert_eq!(payloads.collect::<String>(), "ol\u{e1}\n", "{}", done.out);
}

#[test]
fn each_datagram_has_its_line_on_a_terminal() {
    let world = World::new();
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    let url = format!("udp://{}", server.local_addr().unwrap());
    for args in [&["connect", &url][..], &["connect", &url, "--show", "text"]] {
        let mut screen = Screen::start(&world, args);
        screen.child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        let (_, client) = server.recv_from(&mut [0; 16]).unwrap();
        for datagram in [&b"uno"[..], b"dos\n", b"", b"tres\ncuatro"] {
            server.send_to(datagram, client).unwrap();
        }
        screen.until_shown("uno\r\ndos\r\n\r\ntres\r\ncuatro\r\n");
    }
}

#[test]
fn what_is_said_in_a_chat_has_its_line_on_a_terminal() {
    let world = World::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", server.local_addr().unwrap());
    let mut screen = Screen::start(&world, &["connect", &url, "--as", "chat"]);
    let mut client: TcpStream = server.accept().unwrap().0;
    client.write_all(b"ola").unwrap();
    screen.until_shown("ola\r\n");
    client.write_all(b"tudo bem").unwrap();
    screen.until_shown("ola\r\ntudo bem\r\n");
}

#[test]
fn the_prompt_and_an_error_begin_a_line_of_a_terminal() {
    let world = World::new();
    let (url, server) = answering(b"two\nno end");
    let (code, text) = Screen::start(&world, &["connect", "-q", &url]).end();
    server.join().unwrap();
    assert_eq!((code, text.as_str()), (Some(0), "two\r\nno end\r\n"));

    let (url, server) = answering(b"no end");
    let (code, text) = Screen::start(&world, &["send", &url, "x"]).end();
    server.join().unwrap();
    assert_eq!((code, text.as_str()), (Some(0), "no end\r\n"));

    world.write("talk", b"< \"ok\"\n< \"no\"\n");
    let (url, server) = answering(b"okhi");
    let (code, text) = Screen::start(&world, &["connect", &url, "--replay", "talk"]).end();
    server.join().unwrap();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("\r\nokhi\r\ncabo: talk, line 2: expected \"no\""), "{text}");
}

#[test]
fn raw_bytes_of_many_clients_have_their_senders_on_a_terminal_and_nothing_else_in_a_pipe() {
    let world = World::new();
    let args = ["listen", "tcp://127.0.0.1:0", "--show", "raw"];
    let mut screen = Screen::start(&world, &args);
    screen.until_shown("; Ctrl-C ends");
    let at = screen.text.split_once("tcp://").unwrap().1.split_once(';').unwrap().0.to_owned();
    let mut clients: Vec<TcpStream> = Vec::new();
    for (number, said, shown) in [(1, "uno", "uno"), (2, "d\x1b[1mos\n", "d\x1b[1mos")] {
        let mut client = TcpStream::connect(&at).unwrap();
        client.write_all(said.as_bytes()).unwrap();
        let from = client.local_addr().unwrap();
        screen.until_shown(&format!("\n@{number} {from}  {shown}\r\n"));
        clients.push(client);
    }
    clients[0].write_all(b"tres").unwrap();
    screen.until_shown(&format!("\r\n@1 {}  tres\r\n", clients[0].local_addr().unwrap()));

    let mut command = world.cabo();
    let mut listen =
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(listen.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    let at = line.split_once("tcp://").unwrap().1.split_once(';').unwrap().0;
    let mut out = [0; 6];
    let mut client = TcpStream::connect(at).unwrap();
    client.write_all(b"unodos").unwrap();
    listen.stdout.as_mut().unwrap().read_exact(&mut out).unwrap();
    assert_eq!(&out, b"unodos");
    listen.kill().unwrap();
    wait(&mut listen);
}
