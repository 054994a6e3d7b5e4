//! `tls://`: certificates, who is let in, and what goes wrong; `foreign` with programs of others, `sessions` and `messages` with
//! cabo's own protocol inside, `renewed` while a server runs.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use rustix::process::Signal;

use crate::talk::Listening;
use crate::world::{LIMIT, World, finish, signal_child, until, wait};

mod foreign;
mod messages;
mod renewed;
mod sessions;

/// Where a server listens: on a free port of this machine.
pub(crate) const AT: &str = "tls://127.0.0.1:0";

/// A world with a CA (`ca.pem`), a certificate of it for this machine (`host.pem`), one for a client (`ana.pem`), and
/// `other.pem`, a CA that signed none of them.
pub(crate) fn certified() -> World {
    let world = World::new();
    for args in [
        &["localhost", "127.0.0.1", "-o", "host", "--ca", "ca"][..],
        &["ana", "--ca", "ca"],
        &["stranger", "--ca", "other"],
    ] {
        world.run(&[&["keys", "certificate"], args].concat()).good();
    }
    world
}

/// An echo server with the certificate `host`, and its URL.
pub(super) fn echo(world: &World, more: &str) -> (Listening, String) {
    let url = format!("{AT}?cert=host.pem&key=host.key{more}");
    let listen = Listening::start(world, &[&url, "--reply", "echo"], 1);
    let url = format!("tls://{}", listen.ports[0]);
    (listen, url)
}

/// A certificate that signed itself and says, as `openssl req -x509` makes it say, that it is a CA.
fn write_self_signed(world: &World, name: &str, until_year: i32) {
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params.not_before, params.not_after) =
        (date_time_ymd(2020, 1, 1), date_time_ymd(until_year, 1, 1));
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    // Both in one file, as some programs want it.
    world.write(name, format!("{}{}", certificate.pem(), key.serialize_pem()).as_bytes());
}

#[test]
fn a_certificate_is_made_once_and_its_key_is_for_nobody_else() {
    let world = certified();
    let mode = |name: &str| world.path(name).metadata().unwrap().permissions().mode() & 0o777;
    for (name, wanted) in
        [("host.pem", 0o644), ("host.key", 0o600), ("ca.pem", 0o644), ("ca.key", 0o600)]
    {
        assert_eq!(mode(name), wanted, "{name}");
    }
    let read = |name: &str| std::fs::read(world.path(name)).unwrap();
    let before = [read("host.pem"), read("host.key"), read("ca.pem"), read("ca.key")];
    let again = ["keys", "certificate", "localhost", "-o", "host", "--ca", "ca"];
    world.run(&again).failed(1, &["host.pem exists", "--replace"]);
    std::fs::remove_file(world.path("host.pem")).unwrap();
    world.run(&again).failed(1, &["host.key exists", "--replace"]);
    assert_eq!(read("host.key"), before[1]);
    world.run(&[&again[..], &["--replace", "--json"]].concat()).good();
    assert_ne!([read("host.pem"), read("host.key")], before[..2]);
    assert_eq!([read("ca.pem"), read("ca.key")], before[2..], "the CA stays");
    assert_eq!(mode("host.key"), 0o600);
    let names = crate::world::names_in(&world.path("."));
    assert!(names.iter().all(|name| name.ends_with(".pem") || name.ends_with(".key")), "{names:?}");
    let cases: [(&[&str], i32, &[&str]); 5] = [
        (&["a b"], 2, &["a b", "neither"]),
        (&["x", "--days", "0"], 2, &[]),
        (&["x", "--ca", "host"], 2, &["no CA"]),
        (&["x", "-o", "nowhere/x"], 1, &["nowhere/x.key"]),
        (&["x", "--ca", "nowhere/ca"], 1, &["nowhere/ca.key"]),
    ];
    for (args, code, words) in cases {
        let done = world.run(&[&["keys", "certificate"], args].concat());
        match words.is_empty() {
            true => assert_eq!(done.code, Some(code), "{done:?}"),
            false => drop(done.failed(if args.contains(&"host") { 1 } else { code }, words)),
        }
    }
    assert!(!world.path("x.pem").exists() && !world.path("x.key").exists());
}

#[test]
fn no_certificate_takes_the_place_of_its_ca_however_that_is_spelled() {
    let world = certified();
    std::fs::create_dir(world.path("sub")).unwrap();
    let link = |to: &str, from: &str| std::os::unix::fs::symlink(to, world.path(from)).unwrap();
    link(".", "here");
    link("ca.pem", "linked.pem");
    link("ca.key", "linked.key");
    let read = |name: &str| std::fs::read(world.path(name)).unwrap();
    let before = ["ca.pem", "ca.key"].map(read);
    for (ca, output) in [
        ("ca", "ca"),
        ("ca", "./ca"),
        ("./ca", "ca"),
        ("sub/../ca", "ca"),
        ("ca", "here/ca"),
        ("linked", "ca"),
        ("linked", "linked"),
        ("new", "./new"),
    ] {
        let args = ["keys", "certificate", "x", "--ca", ca, "-o", output, "--replace"];
        for args in [&args[..], &args[..7]] {
            world.run(args).failed(2, &["the place of the CA", "-o names another file"]);
        }
    }
    assert_eq!(["ca.pem", "ca.key"].map(read), before);
    assert!(!world.path("new.pem").exists());
}

#[test]
fn it_says_what_it_makes_and_where() {
    let world = World::new();
    std::fs::create_dir(world.path("folder")).unwrap();
    let args = ["keys", "certificate", "host.lan", "--ca", "ca", "-o", "folder/"];
    let made = world.run(&args).good();
    for words in ["ca.pem  a new CA", "ca.key  its key: who has it signs", "folder/host.lan.pem  a"]
    {
        assert!(made.out.contains(words), "{words}: {made:?}");
    }
    let hint = "connect to  'tls://host.lan:5006?ca=ca.pem'";
    assert!(made.err.contains(hint), "{made:?}");
    assert!(world.path("folder/host.lan.key").exists());
    let again = world.run(&["keys", "certificate", "b", "--ca", "ca"]).good();
    assert!(!again.out.contains("new CA"), "{again:?}");
    let json = world.run(&["keys", "certificate", "c", "--ca", "other", "--json"]).good().out;
    assert!(json.contains(r#""ca_is_new":true"#), "{json}");
    for device in ["/dev/null", "/dev/full"] {
        let done = world.run(&["keys", "certificate", "x", "-o", device]);
        done.failed(2, &[device, "neither a file nor a folder"]);
    }
}

#[test]
fn what_others_may_read_and_what_is_out_of_date_is_warned_of_at_start() {
    let world = certified();
    write_self_signed(&world, "old.pem", 2021);
    let chmod = |name: &str, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(world.path(name), mode).unwrap();
    };
    chmod("old.pem", 0o600);
    chmod("ana.key", 0o644);
    world.write("served/a.txt", b"a");
    let open = "cabo: warning: ana.key: this key is open to others (mode 644); chmod 600 ana.key";
    let expired = "cabo: warning: old.pem: others refuse this certificate of ours: it expired ";
    for (query, warning) in [
        ("cert=ana.pem&key=ana.key", Some(open)),
        ("cert=old.pem", Some(expired)),
        ("cert=host.pem&key=host.key", None),
    ] {
        // Nobody listens there, so each ends at once, with its files read.
        let url = format!("tls://127.0.0.1:1?ca=ca.pem&{query}");
        let done = world.run(&["send", &url, "x"]);
        let warnings: Vec<&str> =
            done.err.lines().filter(|line| line.starts_with("cabo: warning: ")).collect();
        assert_eq!(warnings.len(), usize::from(warning.is_some()), "{done:?}");
        assert!(warnings.iter().all(|line| line.starts_with(warning.unwrap_or("-"))), "{done:?}");
    }
    for args in [
        &["listen", "tls://127.0.0.1:0?cert=old.pem"][..],
        &["serve", "served", "--on", "tls://127.0.0.1:0?cert=old.pem"],
    ] {
        let err = world.path("err");
        let mut command = world.cabo();
        command.args(args).stdout(Stdio::null()).stderr(File::create(&err).unwrap());
        let mut child = command.spawn().unwrap();
        let said = || std::fs::read_to_string(&err).unwrap();
        let is_said = until(|| said().contains("old.pem: others refuse this certificate of ours"));
        signal_child(&child, Signal::TERM);
        wait(&mut child);
        assert!(is_said, "{args:?}: {}", said());
    }
}

#[test]
fn a_listener_without_tls_says_who_speaks_it() {
    let world = certified();
    for (first, is_told) in
        [(&b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"[..], true), (b"\x16\x03", false)]
    {
        let mut command = world.cabo();
        command.args(["listen", "tcp://127.0.0.1:0"]);
        let mut listen = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(listen.stderr.take().unwrap()).lines().map(Result::unwrap);
        let listening = said.next().unwrap();
        let place = listening.split("tcp://").nth(1).unwrap().split(';').next().unwrap();
        let mut stream = TcpStream::connect(place).unwrap();
        stream.write_all(first).unwrap();
        drop(stream);
        let until_it_left: Vec<String> =
            said.by_ref().take_while(|line| !line.ends_with(": closed")).collect();
        let told =
            until_it_left.iter().filter(|line| line.contains(" speaks TLS; listen at tls://"));
        assert_eq!(told.count(), usize::from(is_told), "{until_it_left:?}");
        signal_child(&listen, Signal::TERM);
        wait(&mut listen);
    }
}

#[test]
fn errors_of_files_name_the_whole_address() {
    let world = certified();
    world.write("cut.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n");
    for (command, url, words) in [
        ("send", "tls://localhost:5006?ca=none.pem", "tls://localhost:5006: none.pem: No such"),
        ("send", "tls://localhost?ca=none.pem", "tls://localhost:5555: none.pem: No such"),
        ("ls", "tls://localhost:5006?ca=none.pem", "tls://localhost:5006: none.pem: No such"),
        ("listen", "tls://127.0.0.1:0?cert=none.pem", "tls://127.0.0.1:0: none.pem: No such"),
        (
            "send",
            "tls://localhost:5006?ca=cut.pem",
            "cut.pem: it is cut: a section has no line -----END CERTIFICATE-----",
        ),
    ] {
        let args = [command, url, "x"];
        let args = if command == "listen" { &args[..2] } else { &args[..] };
        world.run(args).failed(1, &[words]);
    }
}

#[test]
fn a_server_is_talked_with_that_proves_its_name() {
    let world = certified();
    let (mut listen, url) = echo(&world, "");
    let port = url.rsplit_once(':').unwrap().1;
    for good in [
        format!("{url}?ca=ca.pem"),
        format!("tls://localhost:{port}?ca=host.pem&name=127.0.0.1"),
        format!("{url}?ca=ca.pem&name=localhost&verify=yes"),
    ] {
        assert_eq!(world.run(&["send", &good, "hola"]).good().out, "hola", "{good}");
        assert_eq!(listen.event("message")["carrier"], "tls");
        assert_eq!(listen.event("closed")["why"], "closed", "it said close_notify");
    }
    let mut by_system = world.cabo();
    by_system.env("SSL_CERT_FILE", world.path("ca.pem")).args(["send", &url, "hola"]);
    finish(&mut by_system).good();
    let unverified = world.run(&["send", &format!("{url}?verify=no"), "hola"]).good();
    assert!(unverified.err.contains("not verified (verify=no)"), "{unverified:?}");
    listen.end();
}

#[test]
fn a_server_that_is_not_the_one_meant_is_refused_in_one_line_and_told_nothing() {
    let world = certified();
    write_self_signed(&world, "old.pem", 2021);
    write_self_signed(&world, "own.pem", 4000);
    let (mut listen, url) = echo(&world, "");
    for (query, words) in [
        ("?ca=other.pem", &["signed by nobody who is trusted", "ca=FILE"][..]),
        ("", &["ca"]),
        (
            "?ca=ca.pem&name=other.example",
            &["is for localhost, 127.0.0.1", "not for other.example"],
        ),
    ] {
        let mut send = world.cabo();
        send.env("SSL_CERT_FILE", world.path("other.pem"));
        let done = finish(send.args(["send", &format!("{url}{query}"), "hola"]));
        done.failed(4, &[&[url.as_str()], words].concat());
        let refused = listen.next();
        assert_eq!(refused["event"], "refused", "and nothing else of it: {refused}");
    }
    for (file, outcome) in [("old.pem", Some("expired")), ("own.pem", None)] {
        let at = format!("{AT}?cert={file}");
        let listen = Listening::start(&world, &[&at, "--reply", "echo"], 1);
        let url = format!("tls://{}", listen.ports[0]);
        let by_name = world.run(&["send", &format!("{url}?ca={file}"), "hola"]);
        match outcome {
            Some(word) => drop(by_name.failed(4, &[word])),
            None => assert_eq!(by_name.good().out, "hola"),
        }
        let wanted = outcome.unwrap_or("signed by nobody who is trusted");
        world.run(&["send", &format!("{url}?ca=ca.pem"), "hola"]).failed(4, &[wanted]);
        listen.end();
    }
    listen.end();
}

#[test]
fn clients_show_a_certificate_where_the_server_asks_for_it() {
    let world = certified();
    let (mut listen, url) = echo(&world, "&ca=ca.pem");
    let url = format!("{url}?ca=ca.pem");
    for (query, words) in [
        ("", &["certificate of ours", "cert=FILE&key=FILE"][..]),
        ("&cert=stranger.pem&key=stranger.key", &["does not trust the CA of our certificate"]),
    ] {
        world.run(&["send", &format!("{url}{query}"), "hola"]).failed(4, words);
        let refused = listen.next();
        assert_eq!(refused["event"], "refused", "and nothing else of it: {refused}");
    }
    let own = format!("{url}&cert=ana.pem&key=ana.key");
    assert_eq!(world.run(&["send", &own, "hola"]).good().out, "hola");
    listen.end();
}

#[test]
fn what_cannot_be_used_is_named_in_one_line() {
    let world = certified();
    world.write("empty.pem", b"nothing");
    let cases: [(&[&str], i32, &[&str]); 10] = [
        (&["listen", "tls://:0"], 2, &["cert=FILE&key=FILE", "cabo keys certificate"]),
        (&["listen", "tls://:0?key=a"], 2, &["cert=FILE"]),
        (&["listen", "tls://:0?cert=none.pem"], 1, &["none.pem", "No such file"]),
        (&["listen", "tls://:0?cert=host.pem"], 1, &["host.pem has no private key", "key=FILE"]),
        (&["listen", "tls://:0?cert=empty.pem"], 1, &["empty.pem has no certificate"]),
        (&["listen", "tls://:0?cert=host.pem&key=ana.key"], 1, &["ana.key is not the one"]),
        (&["serve", ".", "--on", "tls://:0"], 2, &["cert=FILE&key=FILE"]),
        (&["send", "tls://127.0.0.1:1?ca=none.pem", "x"], 1, &["none.pem"]),
        (&["send", "tls://127.0.0.1:1?verify=maybe", "x"], 2, &["verify is yes or no"]),
        (&["ls", "tls://127.0.0.1:1?cart=a"], 2, &["cart", "known are"]),
    ];
    for (args, code, words) in cases {
        world.run(args).failed(code, words);
    }
    for args in
        [&["send", "tls://127.0.0.1:1?ca=ca.pem", "x"][..], &["ls", "tls://127.0.0.1:1?ca=ca.pem"]]
    {
        world.run(args).failed(3, &["tls://127.0.0.1:1: connection refused"]);
    }
}

#[test]
fn plain_words_to_a_tls_port_and_tls_to_a_plain_one_get_one_readable_line() {
    let world = certified();
    world.write("served/a.txt", b"a");
    let (mut listen, url) = echo(&world, "");
    let on = format!("{AT}?cert=host.pem&key=host.key");
    let served = world.serve(&["served", "--on", &on, "--on", "tcp://127.0.0.1:0"]);
    for at in [&url, &served.urls[0]] {
        for first in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"cabo/1s\n", b"\0", &[0xff; 60_000]] {
            let mut stream = TcpStream::connect(at.strip_prefix("tls://").unwrap()).unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            stream.write_all(first).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.contains("TLS") && answer.ends_with("\r\n"), "{at}: {answer:?}");
            assert_eq!(answer.lines().count(), 1, "{at}: {answer:?}");
        }
    }
    let why = listen.event("refused")["why"].as_str().unwrap().to_owned();
    assert!(why.contains("speaks no TLS") && why.contains("GET / HTTP"), "{why}");
    let plain = Listening::start(&world, &["tcp://127.0.0.1:0", "--reply", "echo"], 1);
    let echoing = format!("tls://{}?ca=ca.pem", plain.ports[0]);
    let cabo = format!("{}?ca=ca.pem", served.urls[1].replace("tcp://", "tls://"));
    for at in [&echoing, &cabo] {
        for command in ["send", "ls"] {
            world.run(&[command, at]).failed(4, &["tls://127.0.0.1", "no TLS handshake"]);
        }
    }
    world.run(&["ls", &served.urls[0].replace("tls://", "tcp://")]).failed(4, &["cabo/1"]);
    plain.end();
    listen.end();
}

#[test]
fn silent_clients_hold_up_nobody_and_are_closed_in_time() {
    let world = certified();
    world.write("served/a.txt", b"a");
    let (mut listen, url) = echo(&world, "");
    let on = format!("{AT}?cert=host.pem&key=host.key");
    let served = world.serve(&["served", "--on", &on]);
    let mut silent = Vec::new();
    for at in [&url, &served.urls[0]] {
        for number in 0..40 {
            let mut stream = TcpStream::connect(at.strip_prefix("tls://").unwrap()).unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            if number % 2 == 0 {
                stream.write_all(b"\x16\x03\x01\x02\x00\x01").unwrap(); // the beginning of a hello
            }
            silent.push(stream);
        }
    }
    world.run(&["send", &format!("{url}?ca=ca.pem"), "hola"]).good();
    world.run(&["ls", &format!("{}?ca=ca.pem", served.urls[0])]).good();
    for mut stream in silent {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "{rest:?}");
    }
    for _ in 0..40 {
        let why = listen.event("refused")["why"].as_str().unwrap().to_owned();
        assert!(why.contains("no TLS handshake within"), "{why}");
    }
    listen.end();
}

#[test]
fn a_server_that_answers_no_hello_is_given_up() {
    let world = certified();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tls://{}?ca=ca.pem", silent.local_addr().unwrap());
    let kept = thread::spawn(move || silent.accept().map(|(stream, _)| stream).unwrap());
    world.run(&["send", &url, "x"]).failed(3, &["did not answer within"]);
    drop(kept.join());
}
