//! Peers that do not speak cabo/1, on either side: HTTP, TLS, an echo, or nothing at all (W-4.1).

use std::io::{ErrorKind, Read as _, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::world::{LIMIT, World, until};

const HTTP: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
/// How a TLS client begins.
const TLS: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
/// Who has said nothing by then is sent away.
const OPENING_TIME: Duration = Duration::from_secs(5);

trait Stream: std::io::Read + Write + Send {}
impl<T: std::io::Read + Write + Send> Stream for T {}

/// A stream to a server on tcp or unix, on which no read waits longer than a test may.
fn connect(url: &str) -> Box<dyn Stream> {
    if let Some(path) = url.strip_prefix("unix://") {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        return Box::new(stream);
    }
    let stream = TcpStream::connect(url.strip_prefix("tcp://").unwrap()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    Box::new(stream)
}

fn on(world: &World) -> [String; 4] {
    let unix = format!("unix://{}", world.path("sock").display());
    ["--on".into(), "tcp://127.0.0.1:0".into(), "--on".into(), unix]
}

fn serve(world: &World) -> crate::world::Served {
    world.write("served/a.txt", b"a");
    let on = on(world);
    let on = on.each_ref().map(String::as_str);
    world.serve(&[&["served"], &on[..]].concat())
}

#[test]
fn who_speaks_another_protocol_gets_one_readable_line_and_a_close() {
    let world = World::new();
    let served = serve(&world);
    for url in &served.urls {
        for first in
            [HTTP, TLS, b"SSH-2.0-OpenSSH_9.2\r\n", b"\0", b"\xff".repeat(60_000).as_slice()]
        {
            let mut stream = connect(url);
            stream.write_all(first).unwrap();
            let mut answer = String::new();
            let end = stream.read_to_string(&mut answer);
            assert!(end.is_ok(), "{url} {:?}: {end:?}", &first[..1]);
            assert!(answer.contains("cabo/1") && answer.ends_with("\r\n"), "{url}: {answer:?}");
            assert_eq!(answer.lines().count(), 1, "{url}: {answer:?}");
        }
        world.run(&["ls", url]).good();
    }
}

#[test]
fn who_says_nothing_or_too_little_is_closed_in_time_and_holds_up_nobody() {
    let world = World::new();
    let served = serve(&world);
    for url in &served.urls {
        let mut silent: Vec<_> = (0..90).map(|_| connect(url)).collect();
        let began = Instant::now();
        world.run(&["ls", url]).good();
        let mut slow = connect(url);
        for byte in &b"cabo"[..2] {
            let _ = slow.write_all(&[*byte]); // it may have been turned away by now
        }
        for stream in &mut silent {
            let mut answer = String::new();
            let end = stream.read_to_string(&mut answer);
            assert!(end.is_ok(), "{url}: {end:?}");
            assert!(answer.contains("cabo/1") && answer.lines().count() == 1, "{url}: {answer:?}");
        }
        assert!(began.elapsed() >= OPENING_TIME / 2, "{url}: it was given time");
        let _ = slow.read_to_end(&mut Vec::new());
        world.run(&["ls", url]).good();
    }
}

/// A TCP server that answers whoever connects with `answer`, if with anything, and then closes or not.
fn foreign_server(answer: &'static [u8], closes: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.write_all(answer);
            if closes {
                let _ = stream.read(&mut [0; 4096]);
            } else {
                kept.push(stream);
            }
        }
    });
    url
}

#[test]
fn a_server_that_is_none_of_ours_is_named_in_one_line() {
    let world = World::new();
    let http = foreign_server(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", true);
    let alert = foreign_server(b"\x15\x03\x03\x00\x02\x02\x0a", true);
    let greeting = foreign_server(b"220 mail.example ESMTP\r\n", false);
    for url in [&http, &alert, &greeting] {
        for args in [&["ls", url][..], &["get", url, "a.txt"]] {
            world.run(args).failed(4, &[url, "cabo/1"]);
        }
    }
    let gone = foreign_server(b"", true);
    world.run(&["ls", &gone]).failed(3, &[&gone]);
    assert!(!world.path("a.txt").exists());
}

#[test]
fn a_server_that_says_nothing_or_repeats_us_is_given_up() {
    let world = World::new();
    let silent = foreign_server(b"", false);
    let echo = UdpSocket::bind("127.0.0.1:0").unwrap();
    echo.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let echo_url = format!("udp://{}", echo.local_addr().unwrap());
    let asking = [silent, echo_url].map(|url| {
        let mut command = world.cabo();
        command.args(["ls", &url]);
        thread::spawn(move || crate::world::finish(&mut command).failed(3, &[&url]))
    });
    let mut room = [0; 65_536];
    let is_over = until(|| {
        match echo.recv_from(&mut room) {
            Ok((len, from)) => drop(echo.send_to(&room[..len], from)),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
            }
        }
        asking.iter().all(thread::JoinHandle::is_finished)
    });
    assert!(is_over, "it hangs");
    for asking in asking {
        asking.join().unwrap();
    }
}
