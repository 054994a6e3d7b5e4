//! What is typed wrong, and what this machine does not have: one line of what, where, why and what next.

use crate::world::{World, finish};

#[test]
fn a_bad_command_line_says_what_to_type_instead() {
    let world = World::new();
    world.write("served/a.txt", b"a");
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&["ls", "host"], 2, &["bad address host", "no scheme", "udp://"]),
        (&["ls", "http://host"], 2, &["no scheme http", "udp, tcp"]),
        (&["ls", "udp://"], 2, &["names no host", "tcp://HOST:5555"]),
        (&["ls", "udp://:5555"], 2, &["names no host"]),
        (&["ls", "udp://1.2.3.4:99999"], 2, &["port", "65535"]),
        (&["ls", "udp://h/%zz"], 2, &["percent", "%25"]),
        (&["ls", "udp://h/a/../b"], 2, &["`.` or `..`"]),
        (&["ls", "udp://h?x=1"], 2, &["parameter x means nothing"]),
        (&["ls", "eth://this-is-no-interface"], 2, &["interface", "ip link"]),
        (&["ls", "eth://52-54-00-12-34-56"], 2, &["52-54-00-12-34-56", "MAC%INTERFACE"]),
        (&["get", "udp://h/a", "b"], 2, &["leave one of them out"]),
        (&["get", "udp://h/a.cabo-partial"], 2, &["names no item"]),
        (&["get", "udp://h", "--all", "-o", "-"], 2, &["-o DIR"]),
        (&["get", "udp://h/a", "-o", "x/.."], 2, &["no name for a file"]),
        (&["ls", "tcp://127.0.0.1:1"], 3, &["tcp://127.0.0.1:1", "connection refused"]),
        (&["ls", "unix:///nowhere/sock"], 3, &["unix:///nowhere/sock", "no such socket"]),
        (&["ls", "udp://h/a?b#c"], 2, &["%3F", "beside the address"]),
        (
            &["ls", "tcp://no.such.host.invalid"],
            3,
            &["no.such.host.invalid", "cannot find the host"],
        ),
        (&["ls", "tls://127.0.0.1:1"], 3, &["127.0.0.1:1", "connection refused"]),
        (&["ls", "//"], 2, &["a server's name has 1 to 56 bytes", "`cabo ls`"]),
        (
            &["get", "tcp://127.0.0.1:1/a", "-o", "served/a.txt/"],
            1,
            &["cannot write into served/a.txt/", "-o DIR"],
        ),
        (&["serve", "missing"], 1, &["cannot serve missing", "No such file"]),
        (&["serve", "/dev/null"], 1, &["/dev/null", "neither a folder nor a regular file"]),
        (&["serve", "served", "--on", "udp://h/item"], 2, &["not on an item"]),
        (&["serve", "served", "--on", "//kitchen"], 2, &["a name is for clients"]),
        (&["serve", "served", "--on", "tls://:5556"], 2, &["certificate", "?cert=FILE&key=FILE"]),
        (&["serve", "served", "--on", "eth://nosuchif0"], 1, &["no interface \"nosuchif0\"", "lo"]),
        (
            &["serve", "served", "--on", "tcp://192.0.2.1:0"],
            1,
            &["192.0.2.1", "no interface of this machine"],
        ),
        (&["serve", "served", "--plain", "--allow", "x"], 2, &["--plain", "--allow", "leave one"]),
        (&["serve", "served", "--from", "1.2.3.4/99"], 2, &["1.2.3.4/99", "ADDRESS/BITS"]),
        (
            &["serve", "served", "--allow", "missing.txt", "--on", "tcp://127.0.0.1:0"],
            1,
            &["missing.txt", "--allow names it"],
        ),
    ];
    for (args, code, words) in cases {
        let done = world.run(args).failed(*code, words);
        assert_eq!(done.err.lines().count(), 1, "{args:?}: {done:?}");
        assert!(!done.err.contains("redes"), "{args:?}: {done:?}");
        assert_eq!(done.out, "", "{args:?}");
    }
}

#[test]
fn a_taken_port_is_named() {
    let world = World::new();
    world.write("served/a.txt", b"a");
    let sock = format!("unix://{}", world.path("sock").display());
    let on = ["--on", "udp://127.0.0.1:0", "--on", "tcp://127.0.0.1:0", "--on", &sock];
    let served = world.serve(&[&["served"][..], &on].concat());
    for url in &served.urls {
        world.run(&["serve", "served", "--on", url]).failed(1, &[url, "is in use"]);
    }
}

#[test]
fn a_machine_without_a_home_says_what_to_name() {
    let world = World::new();
    let done = finish(
        world.cabo().args(["keys"]).env("XDG_CONFIG_HOME", world.write("file", b"").join("x")),
    );
    done.failed(1, &["file"]);
    let pipe = world.path("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    for (key_log, words) in
        [(world.path("no/such/log"), "cannot open the key log"), (pipe, "is no regular file")]
    {
        let done = finish(world.cabo().args(["ls", "udp://h"]).env("CABO_KEYLOG", &key_log));
        done.failed(1, &[words, "CABO_KEYLOG names it"]);
    }
}

#[test]
fn one_side_that_is_plain_is_said_in_words() {
    let world = World::new();
    world.write("served/a.txt", b"a");
    let on = ["--on", "udp://127.0.0.1:0", "--on", "tcp://127.0.0.1:0"];
    let plain = world.serve(&[&["served", "--plain"][..], &on].concat());
    let sealed = world.serve(&[&["served"][..], &on].concat());
    let words = ["the server is plain", "say --plain"];
    world.run(&["ls", &plain.urls[0]]).failed(4, &words);
    world
        .run(&["ls", "--plain", &sealed.urls[0]])
        .failed(4, &["the server is sealed", "leave --plain out"]);
    world.run(&["ls", &plain.urls[1]]).failed(4, &["only one side says --plain"]);
    world.run(&["ls", "--plain", &sealed.urls[1]]).failed(4, &["only one side says --plain"]);
}

#[test]
fn a_file_is_named_with_the_flag_that_names_it() {
    let world = World::new();
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", server.local_addr().unwrap());
    for (flag, file) in [
        ("--record", "no/file"),
        ("--dump", "no/file"),
        ("--replay", "no/file"),
        ("--log", "no/file"),
        ("--as", "no/file"),
        ("--config", "no/file"),
    ] {
        let mut args = vec!["connect", &url, flag, file];
        if flag == "--config" {
            args.extend(["--as", "tp0"]);
        }
        let words = format!("cabo: {flag} no/file: No such file or directory");
        world.run(&args).failed(2, &[&words]);
    }
}
