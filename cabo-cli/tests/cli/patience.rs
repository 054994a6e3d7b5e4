//! Those who take nothing, never speak or will not go: `send`, `connect`, `listen --once` and `--exec` end all the same, and
//! say what was not done.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustix::process::Signal;

use crate::converse::is_gone;
use crate::talk::Listening;
use crate::tls::{AT, certified};
use crate::world::{LIMIT, World, finish, signal_child, until, wait};

/// More than the buffers of two sockets hold, and less than a message may have.
const MUCH_MIB: u64 = 15;

/// A server that accepts, and what it does with its client.
fn server<T: Send + 'static>(
    serve: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (String, thread::JoinHandle<T>) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", server.local_addr().unwrap());
    let serving = thread::spawn(move || {
        let (client, _) = server.accept().unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        serve(client)
    });
    (url, serving)
}

/// The first words of a client's program: its process, and that of one that it started.
fn words_of(client: &TcpStream) -> Vec<String> {
    let mut line = String::new();
    BufReader::new(client).read_line(&mut line).unwrap();
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn a_client_that_floods_a_program_and_leaves_takes_it_along() {
    let world = World::new();
    let program = "sh -c 'echo $$; exec sleep 9999'";
    let listen = Listening::start(&world, &["tcp://127.0.0.1:0", "--exec", program], 1);
    let mut programs = Vec::new();
    for linger in [Some(Duration::ZERO), None] {
        let mut client = listen.tcp();
        programs.extend(words_of(&client));
        client.write_all(&[b'x'; 96 << 10]).unwrap(); // more than a pipe holds; then its end has room in the window
        set_socket_linger(&client, linger).unwrap(); // zero makes the close a reset
    }
    assert_eq!(programs.len(), 2);
    assert!(until(|| programs.iter().all(|program| is_gone(program))), "{programs:?} go on");
    listen.end();
}

#[test]
fn what_a_program_started_goes_with_it_whether_or_not_it_wants_to() {
    let world = World::new();
    let program =
        "sh -c '(trap \"\" TERM; exec sleep 9999) < /dev/null > /dev/null & echo $!; exec cat'";
    let listen = Listening::start(&world, &["tcp://127.0.0.1:0", "--exec", program], 1);
    let client = listen.tcp();
    let started = words_of(&client);
    assert!(started.len() == 1 && !is_gone(&started[0]), "{started:?}");
    drop(client);
    assert!(until(|| is_gone(&started[0])), "{started:?} goes on");
    listen.end();
}

#[test]
fn a_program_that_is_not_there_is_told_of_before_anybody_comes() {
    let world = World::new();
    for name in ["no-such-program", "./no-such-program", "/"] {
        let done = world.run(&["listen", "tcp://127.0.0.1:0", "--exec", name]);
        assert!(!done.err.contains("listening"), "{done:?}");
        done.failed(1, &["--exec", name]);
    }
}

#[test]
fn a_message_that_nobody_takes_is_given_up() {
    let world = World::new();
    let much = world.write_large("much", MUCH_MIB);
    let (url, silent) = server(|client| client);
    let mut send = world.cabo();
    let send = send.args(["send", &url, "-", "--timeout", "5s"]).stdin(File::open(&much).unwrap());
    finish(send).failed(3, &["took nothing for 5s", "bytes were not sent"]);
    drop(silent.join());
}

/// Whoever echoes as it reads stops reading when nobody reads its echo.
#[test]
fn answers_are_read_while_the_message_is_still_going_out() {
    let world = World::new();
    let much = world.write_large("much", MUCH_MIB);
    let (url, echo) = server(|mut client| {
        let mut part = vec![0; 4096];
        loop {
            let len = client.read(&mut part).unwrap();
            if len == 0 {
                return;
            }
            client.write_all(&part[..len]).unwrap();
        }
    });
    let back = world.path("back");
    let mut send = world.cabo();
    send.args(["send", &url, "-"]).stdin(File::open(&much).unwrap());
    let mut child = send.stdout(File::create(&back).unwrap()).spawn().unwrap();
    assert_eq!(wait(&mut child).code(), Some(0));
    echo.join().unwrap();
    crate::world::assert_same_file(&much, &back);
}

#[test]
fn who_leaves_for_silence_says_what_was_not_taken() {
    let world = World::new();
    let much = world.write_large("much", MUCH_MIB);
    let (url, silent) = server(|client| client);
    let mut connect = world.cabo();
    connect.args(["connect", &url, "--idle", "3s"]).stdin(File::open(&much).unwrap());
    finish(&mut connect).failed(3, &["took nothing for 3s", "bytes were not sent"]);
    drop(silent.join());

    // What waits for nobody is no loss.
    let (url, silent) = server(|client| client);
    let mut connect = world.cabo();
    let (_held, stdin) = std::io::pipe().map(|(reader, writer)| (writer, reader)).unwrap();
    finish(connect.args(["connect", &url, "--idle", "1s"]).stdin(stdin)).good();
    drop(silent.join());
}

#[test]
fn silent_callers_hold_up_nobody_who_is_served_once() {
    let world = certified();
    let tls = format!("{AT}?cert=host.pem&key=host.key");
    for (at, dialect) in [(tls.as_str(), "raw"), ("tcp://127.0.0.1:0", "tp0")] {
        let record = world.path("record");
        let args = [at, "--once", "--as", dialect, "--record", record.to_str().unwrap()];
        let mut listen = Listening::start(&world, &args, 1);
        let silent: Vec<TcpStream> = (0..3).map(|_| listen.tcp()).collect();
        let scheme = at.split_once(':').unwrap().0;
        let ca = if scheme == "tls" { "?ca=ca.pem" } else { "" };
        let url = format!("{scheme}://{}{ca}", listen.ports[0]);
        let mut client = world.cabo();
        client.args(["connect", &url, "--as", dialect, "--keep-open"]).stdin(Stdio::null());
        let mut client = client.spawn().unwrap();
        listen.event("connected");
        drop(listen.child.stdin.take());
        assert_eq!(wait(&mut client).code(), Some(0), "{at}");
        drop(silent);
        let record = fs::read_to_string(&record).unwrap();
        assert!(record.starts_with("# a conversation"), "{record}");
        let hellos = record.matches(r"\x01\x00\x00\x00").count();
        assert_eq!(hellos, usize::from(dialect == "tp0"), "{record}");
    }
}

#[test]
fn many_silent_callers_make_room_for_others() {
    let world = certified();
    let args = [&format!("{AT}?cert=host.pem&key=host.key"), "--once"];
    let mut listen = Listening::start(&world, &args, 1);
    let silent: Vec<TcpStream> = (0..70).map(|_| listen.tcp()).collect();
    let refused = listen.event("refused");
    assert_eq!(refused["why"], "too many others call at once");
    let url = format!("tls://{}?ca=ca.pem", listen.ports[0]);
    let mut client = world.cabo().args(["connect", &url]).spawn().unwrap();
    listen.event("connected");
    drop(listen.child.stdin.take());
    assert_eq!(wait(&mut client).code(), Some(0));
    drop(silent);
}

#[test]
fn a_line_that_is_too_long_is_left_out_and_what_is_typed_drives_no_terminal() {
    let world = World::new();
    let mut command = world.cabo();
    command.args(["listen", "--json", "tcp://127.0.0.1:0", "--as", "led"]).stderr(Stdio::piped());
    let mut listen = Listening::of(&mut command, 1);
    let mut errors = BufReader::new(listen.child.stderr.take().unwrap());
    let mut said = || {
        let mut line = String::new();
        errors.read_line(&mut line).unwrap();
        line
    };
    let mut keyboard = listen.child.stdin.take().unwrap();
    keyboard.write_all(b"@\x1b[2J hola\n").unwrap();
    let line = said();
    assert!(line.contains("@2 text") && !line.contains('\x1b'), "{line:?}");
    keyboard.write_all(&vec![b'x'; 32 << 20]).unwrap();
    keyboard.write_all(b"\n@9 x\n").unwrap();
    let line = said();
    assert!(line.contains("a line of stdin is longer than"), "{line:?}");
    let line = said();
    assert!(line.contains("there is no client @9"), "{line:?}");
    listen.end();
}

#[test]
fn first_words_are_awaited_no_longer_than_it_was_said() {
    let world = World::new();
    let (url, silent) = server(|client| client);
    let args = ["send", &url, "--as", "tp0", "--timeout", "4s", "MENSAJE", "text=x"];
    world.run(&args).failed(3, &["tp0's first words within 4s"]);
    drop(silent.join());
    let (url, rude) = server(|mut client| client.write_all(b"\x1b[2J\"").unwrap());
    let args = ["connect", &url, "--as", "tp0"];
    world.run(&args).failed(4, &[r#"first words is "\x1b[2J\"""#]);
    rude.join().unwrap();
}

#[test]
fn a_failed_handshake_is_told_of_once() {
    let world = World::new();
    let (url, echo) = server(|mut client| {
        let mut part = vec![0; 65_536];
        while let Ok(len @ 1..) = client.read(&mut part) {
            let _ = client.write_all(&part[..len]); // it may have seen enough
        }
    });
    let done = world.run(&["send", &url, "--as", "cabo", "x"]).failed(4, &[&url]);
    assert_eq!(done.err.matches("the handshake failed").count(), 1, "{done:?}");
    echo.join().unwrap();
}

#[test]
fn a_session_with_a_closed_port_is_given_up_at_once() {
    let world = World::new();
    for url in ["udp://127.0.0.1:1", "udp://[::1]:1"] {
        for args in [&["send", url, "--as", "cabo", "--timeout", "100s", "x"][..], &["ls", url]] {
            world.run(args).failed(3, &[url, "nobody listens"]);
        }
    }
}

#[test]
fn who_is_told_to_end_says_so_and_leaves_no_socket_behind() {
    let world = World::new();
    let end = |args: &[&str], is_there: &mut dyn FnMut() -> bool| {
        let mut command = world.cabo();
        let mut child = command.args(args).stdin(Stdio::piped()).spawn().unwrap();
        assert!(until(is_there), "{args:?}");
        signal_child(&child, Signal::TERM);
        assert_eq!(wait(&mut child).code(), Some(130), "{args:?}");
    };
    for (verb, more) in [("connect", &[][..]), ("send", &["--wait", "100s", "x"])] {
        let (url, silent) = server(|client| client);
        end(&[&[verb, &url], more].concat(), &mut || silent.is_finished());
        drop(silent.join());
    }
    let socket = world.path("sock");
    let at = format!("unix://{}", socket.display());
    end(&["listen", &at, "--once"], &mut || socket.exists());
    assert!(!socket.exists());
}

#[test]
fn what_cannot_be_sent_costs_no_connection() {
    let world = World::new();
    let cases: [(&[&str], &[&str]); 3] = [
        (&["tcp://127.0.0.1:1", "--as", "struct:!B:v", "v=300"], &["v", "0 to 255"]),
        (&["tcp://127.0.0.1:1", "--as", "struct:!B:v B:w", "v=3"], &["w", "is not given"]),
        (&["udp://127.0.0.1:1"], &["MESSAGE"]),
    ];
    for (args, words) in cases {
        world.run(&[&["send"], args].concat()).failed(2, words);
    }
    let nowhere = ["listen", "tcp://127.0.0.1:0", "--once", "--record", "no/such/file"];
    let done = world.run(&nowhere).failed(2, &["--record no/such/file"]);
    assert!(!done.err.contains("listening"), "{done:?}");
}
