//! `--explain`: what is told was made, as `strace` saw it, and nothing that was made is left out.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::needs::{Need, skip, skip_without};
use crate::world::{LIMIT, World, finish, wait};

/// Of a call: its name, its descriptor, and what it returned.
type Made = (String, String, String);

/// `strace`, one file a thread below `prefix`.
fn straced(world: &World, prefix: &Path, args: &[&str]) -> Command {
    let cabo = world.cabo();
    let mut command = Command::new("strace");
    let calls = "trace=execve,socket,bind,listen,accept4,connect,getsockopt,setsockopt,sendto,\
                 recvfrom,writev,sendmmsg,recvmmsg,shutdown,close";
    command.args(["-ff", "-ttt", "-qq", "-e", calls, "-e", "signal=none", "-o"]).arg(prefix);
    command.arg(cabo.get_program()).args(args).current_dir(world.path(""));
    for (name, value) in cabo.get_envs() {
        value.map(|value| command.env(name, value));
    }
    command
}

fn cannot_trace() -> bool {
    if skip_without(&[Need::Program("strace")]) {
        return true;
    }
    let traced = Command::new("strace").args(["-o", "/dev/null", "true"]).output().unwrap();
    if !traced.status.success() {
        skip("this system does not let strace trace");
    }
    !traced.status.success()
}

/// The files below `prefix`.
fn traces(prefix: &Path) -> Vec<PathBuf> {
    let name = prefix.file_name().unwrap().to_str().unwrap();
    let files = fs::read_dir(prefix.parent().unwrap()).unwrap().map(|file| file.unwrap().path());
    files.filter(|file| file.file_name().unwrap().to_str().unwrap().starts_with(name)).collect()
}

/// What `strace` saw on sockets of `family`, in order.
fn made(prefix: &Path, family: &str) -> Vec<Made> {
    let mut lines = Vec::new();
    for file in traces(prefix) {
        for line in fs::read_to_string(file).unwrap().lines() {
            let (at, line) = line.split_once(' ').unwrap();
            lines.push((at.to_owned(), line.to_owned()));
        }
    }
    lines.sort();
    let mut ours: Vec<String> = Vec::new();
    let mut made = Vec::new();
    for (_, line) in lines {
        let Some((name, rest)) = line.split_once('(') else { continue };
        let Some((arguments, result)) = rest.rsplit_once(" = ") else { continue };
        let result = match result.split_once(' ') {
            Some(("-1", error)) => error.split(' ').next().unwrap().to_owned(),
            Some((value, _)) => value.to_owned(),
            None => result.to_owned(),
        };
        let first = arguments.split([',', ')']).next().unwrap().to_owned();
        let descriptor = if name == "socket" { result.clone() } else { first };
        if name == "socket" && arguments.starts_with(&format!("{family}, ")) {
            ours.push(descriptor.clone());
        }
        let is_looked_at = name == "getsockopt" && !arguments.contains("SO_ERROR");
        if !ours.contains(&descriptor) || result == "EAGAIN" || is_looked_at {
            continue;
        }
        let has_address = arguments.contains("sa_family");
        let name = match name {
            "accept4" => {
                ours.push(result.clone());
                "accept"
            }
            "sendto" if !has_address => "send",
            "recvfrom" if !has_address => "recv",
            other => other,
        };
        if name == "close" {
            ours.retain(|open| *open != descriptor);
        }
        made.push((named(name, arguments), descriptor, result));
    }
    made
}

/// The name of a call, and of the option that it sets: `setsockopt(3, SOL_SOCKET, SO_REUSEADDR, [1], 4)`.
fn named(name: &str, arguments: &str) -> String {
    let option = arguments.split(", ").nth(2).filter(|_| name == "setsockopt");
    option.map_or_else(|| name.to_owned(), |option| format!("{name} {option}"))
}

/// What was told of sockets of `family`, in order.
fn told(objects: &[Value], family: &str) -> Vec<Made> {
    let (mut ours, mut told) = (Vec::new(), Vec::new());
    for call in objects.iter().filter(|object| object["event"] == "call") {
        let arguments = call["arguments"].as_str().unwrap();
        let mut name = call["call"].as_str().unwrap().to_owned();
        let descriptor = call["descriptor"].to_string();
        if name == "socket" && arguments.starts_with(&format!("{family}, ")) {
            ours.push(descriptor.clone());
        }
        if !ours.contains(&descriptor) {
            continue;
        }
        match &*name {
            "accept" => ours.push(call["result"].to_string()),
            "close" => ours.retain(|open| *open != descriptor),
            "setsockopt" => {
                name = format!("setsockopt {}", arguments.split(", ").nth(1).unwrap());
            }
            _ => {}
        }
        let result = match (&call["error"], &call["result"]) {
            (Value::String(error), _) => error.clone(),
            (_, Value::Null) => "0".to_owned(), // of close, which is told of before
            (_, result) => result.to_string(),
        };
        told.push((name, descriptor, result));
    }
    told
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The two accounts are one for each descriptor, for threads tell of theirs at once.
#[track_caller]
fn compare(prefix: &Path, family: &str, objects: &[Value]) {
    let (mut made, mut told) = (made(prefix, family), told(objects, family));
    made.sort_by(|a, b| a.1.cmp(&b.1)); // stable: what is of one descriptor stays in order
    without_looks(&mut made);
    told.sort_by(|a, b| a.1.cmp(&b.1));
    assert_eq!(told, made, "{objects:#?}");
    assert!(!told.is_empty());
}

/// Leaves out the sockets by which the telling asks the kernel for the MTU of a way.
fn without_looks(made: &mut Vec<Made>) {
    let is_look = |calls: &[Made]| {
        calls.iter().map(|call| &*call.0).eq(["socket", "bind", "connect", "close"])
            && calls.iter().all(|call| call.1 == calls[0].1)
    };
    while let Some(at) = made.windows(4).position(is_look) {
        made.drain(at..at + 4);
    }
}

/// The calls of that name.
fn calls<'o>(objects: &'o [Value], name: &str) -> Vec<&'o Value> {
    objects.iter().filter(|object| object["call"] == name).collect()
}

#[track_caller]
fn says(call: &Value, wire: &str) {
    assert!(call["wire"].as_str().unwrap().contains(wire), "{wire:?}: {call}");
}

#[test]
fn a_client_tells_of_each_call_and_of_no_other() {
    if cannot_trace() {
        return;
    }
    let world = World::new();
    let prefix = world.path("tcp");
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", server.local_addr().unwrap());
    let answering = thread::spawn(move || {
        let (mut client, _) = server.accept().unwrap();
        let mut said = Vec::new();
        client.read_to_end(&mut said).unwrap();
        client.write_all(&said).unwrap();
    });
    let sent = finish(&mut straced(&world, &prefix, &["send", &url, "--explain", "--json", "ola"]));
    answering.join().unwrap();
    let all = objects(&sent.good().out);
    compare(&prefix, "AF_INET", &all);
    says(calls(&all, "connect")[0], "SYN, from 127.0.0.1:");
    says(calls(&all, "getsockopt")[0], "SYN+ACK came, ACK went: connected; round trip");
    says(calls(&all, "send")[0], "data went in 1 segment (PSH+ACK)");
    says(calls(&all, "shutdown")[0], "FIN: we send nothing more");
    says(calls(&all, "recv").last().unwrap(), "the peer's FIN, after ours");
    says(calls(&all, "close")[0], "this side keeps TIME_WAIT");

    let (prefix, udp) = (world.path("udp"), UdpSocket::bind("127.0.0.1:0").unwrap());
    let url = format!("udp://{}", udp.local_addr().unwrap());
    let sent = finish(&mut straced(&world, &prefix, &["send", &url, "--explain", "--json", "ola"]));
    let all = objects(&sent.good().out);
    compare(&prefix, "AF_INET", &all);
    says(calls(&all, "sendto")[0], "one datagram, one packet");

    let (prefix, path) = (world.path("unix"), world.path("socket"));
    let (server, url) = (UnixListener::bind(&path).unwrap(), format!("unix://{}", path.display()));
    let answering = thread::spawn(move || {
        let (mut client, _) = server.accept().unwrap();
        client.read_to_end(&mut Vec::new()).unwrap();
    });
    let sent = finish(&mut straced(&world, &prefix, &["send", &url, "--explain", "--json", "ola"]));
    answering.join().unwrap();
    let all = objects(&sent.good().out);
    compare(&prefix, "AF_UNIX", &all);
    let told: Vec<String> = told(&all, "AF_UNIX").into_iter().map(|(name, ..)| name).collect();
    assert_eq!(told, ["socket", "connect", "send", "shutdown", "recv", "close"]);
    all.iter().for_each(|call| says(call, "no wire"));
}

/// A process with everything that it said.
struct Running {
    strace: Child,
    lines: BufReader<std::process::ChildStdout>,
    objects: Vec<Value>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut strace = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(strace.stdout.take().unwrap());
        Self { strace, lines, objects: Vec::new() }
    }

    fn until(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "{:#?}", self.objects);
            let object: Value = serde_json::from_str(&line).unwrap();
            self.objects.push(object.clone());
            if is_it(&object) {
                return object;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.strace.kill(); // it may have ended
        let _ = self.strace.wait();
    }
}

/// Tells the server to end, and returns all that it said.
fn end(listen: &mut Running, prefix: &Path) -> Vec<Value> {
    let is_cabo = |file: &PathBuf| fs::read_to_string(file).unwrap().contains("execve(");
    let first = traces(prefix).into_iter().find(is_cabo).unwrap();
    let process = first.extension().unwrap().to_str().unwrap().parse().unwrap();
    kill_process(Pid::from_raw(process).unwrap(), Signal::INT).unwrap();
    assert!(wait(&mut listen.strace).success());
    let mut rest = String::new();
    listen.lines.read_to_string(&mut rest).unwrap();
    let mut all = std::mem::take(&mut listen.objects);
    all.extend(objects(&rest));
    all
}

#[test]
fn a_server_tells_of_each_call_and_of_no_other() {
    if cannot_trace() {
        return;
    }
    let world = World::new();
    let prefix = world.path("listen");
    let args = ["listen", "tcp://127.0.0.1:0", "--reply", "echo", "--explain", "--json"];
    let mut listen = Running::start(straced(&world, &prefix, &args));
    let url = listen.until(|object| object["event"] == "listening")["url"].clone();
    let place = url.as_str().unwrap().strip_prefix("tcp://").unwrap();
    let mut client = TcpStream::connect(place).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client.write_all(b"ola").unwrap();
    client.read_exact(&mut [0; 3]).unwrap();
    drop(client);
    let accepted = listen.until(|object| object["call"] == "accept")["result"].clone();
    listen.until(|object| object["call"] == "close" && object["descriptor"] == accepted);

    let all = end(&mut listen, &prefix);
    compare(&prefix, "AF_INET", &all);
    says(calls(&all, "bind")[0], "the system chose port");
    says(calls(&all, "listen")[0], "completed connections wait here for accept");
    says(calls(&all, "accept")[0], "shook hands with the kernel before");
    says(calls(&all, "recv").last().unwrap(), "the peer's FIN");
    says(calls(&all, "shutdown")[0], "FIN, the second one");
}

#[test]
fn cabo_peers_come_over_udp_where_calls_are_told_of_too() {
    let world = World::new();
    let mut command = world.cabo();
    command.args(["listen", "udp://127.0.0.1:0", "--explain", "--json", "--reply", "echo"]);
    let mut listen = Running::start(command);
    let url = listen.until(|object| object["event"] == "listening")["url"].clone();
    let url = url.as_str().unwrap();
    let large = "x".repeat(50_000);
    for text in ["hola", &large] {
        thread::scope(|scope| {
            let sent = scope.spawn(|| world.run(&["send", url, "--as", "cabo", text]).good());
            let message = listen.until(|object| object["event"] == "message");
            assert_eq!(message["fields"]["payload"], text);
            listen.until(|object| object["event"] == "closed"); // all lines are read: none waits for us
            assert_eq!(sent.join().unwrap().out.trim_end(), text);
        });
    }
    assert!(listen.objects.iter().all(|object| object["event"] != "refused"));
    assert!(!calls(&listen.objects, "recvfrom").is_empty());
    assert!(!calls(&listen.objects, "sendto").is_empty());
}

/// Runs `send` below `strace` in a namespace whose one link is `lo`, while `listen` there answers what comes.
fn asked_on_lo(world: &World, prefix: &Path, listen: &str, send: &[&str]) -> Vec<Value> {
    let script = format!(
        "cabo=$1; shift; ip link set lo up
         mkfifo said
         \"$cabo\" listen {listen} --reply echo --json > said & listen=$!
         exec 3< said
         read listening <&3
         cat <&3 > heard & heard=$!
         \"$@\" && code=0 || code=$?
         kill $listen; wait $listen; wait $heard
         exit $code"
    );
    let traced = straced(world, prefix, send);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "sh", "-ec", &script, "sh"]);
    command.arg(world.cabo().get_program()).arg(traced.get_program()).args(traced.get_args());
    let command = &mut world.within(command, "own");
    objects(&finish(command).good().out)
}

fn cannot_trace_inside() -> bool {
    cannot_trace()
        || skip_without(&[Need::Program("unshare"), Need::Program("ip"), Need::Namespaces])
}

#[test]
fn on_raw_ethernet_each_call_of_a_frame_is_told_of() {
    if cannot_trace_inside() {
        return;
    }
    let world = World::new();
    let prefix = world.path("eth");
    let send = ["send", "eth://lo", "--explain", "--json", "ola"];
    let all = asked_on_lo(&world, &prefix, "eth://lo", &send);
    compare(&prefix, "AF_PACKET", &all);
    let told: Vec<String> = told(&all, "AF_PACKET").into_iter().map(|(name, ..)| name).collect();
    for name in ["setsockopt SO_ATTACH_FILTER", "setsockopt SO_SNDBUF", "bind", "close"] {
        assert!(told.iter().any(|told| told == name), "{name}: {told:?}");
    }
    let bound = |call: &&Value| call["arguments"].as_str().unwrap().ends_with(", lo, 0x88b5");
    says(calls(&all, "bind").into_iter().find(bound).unwrap(), "are heard on that link");
    let claim = |call: &&Value| call["arguments"].as_str().unwrap().contains("@cabo/eth/lo/");
    says(calls(&all, "bind").into_iter().find(claim).unwrap(), "no wire");
    says(calls(&all, "sendmmsg")[0], "1 frame of at most");
    says(calls(&all, "sendmmsg")[0], "to everybody on the link");
    says(calls(&all, "recvmmsg")[0], "from 00-00-00-00-00-00, port 5555");
}

#[test]
fn a_cabo_peer_tells_of_its_datagrams() {
    if cannot_trace_inside() {
        return;
    }
    let world = World::new();
    let prefix = world.path("cabo");
    let send = ["send", "udp://127.0.0.1:5034", "--as", "cabo", "--explain", "--json", "ola"];
    let all = asked_on_lo(&world, &prefix, "udp://127.0.0.1:5034", &send);
    compare(&prefix, "AF_INET", &all);
    says(calls(&all, "sendto")[0], "one datagram");
    says(calls(&all, "recvfrom")[0], "one datagram from 127.0.0.1:5034");
}

#[test]
fn a_group_is_heard_with_all_that_is_set_for_it() {
    if cannot_trace() {
        return;
    }
    let world = World::new();
    let prefix = world.path("group");
    let url = "udp://239.192.1.1:0?if=lo&ttl=3&loop=off";
    let args = ["listen", url, "--open", "--explain", "--json"];
    let mut listen = Running::start(straced(&world, &prefix, &args));
    listen.until(|object| object["event"] == "listening");
    let all = end(&mut listen, &prefix);
    compare(&prefix, "AF_INET", &all);
    for (option, meaning) in [
        ("SO_RCVBUF", "so much may wait to be read"),
        ("IP_MULTICAST_IF, 1", "leaves by that interface"),
        ("IP_MULTICAST_TTL, 3", "each router takes one off"),
        ("IP_MULTICAST_LOOP, 0", "nobody here hears it"),
        ("IP_MULTICAST_ALL, 0", "groups that other sockets joined are not heard"),
        ("IP_ADD_MEMBERSHIP, 239.192.1.1", "an IGMP report"),
    ] {
        let is_it = |call: &&Value| {
            call["arguments"].as_str().unwrap().contains(option) && call["error"].is_null()
        };
        let set = calls(&all, "setsockopt").into_iter().find(is_it);
        says(set.unwrap_or_else(|| panic!("no {option}: {all:#?}")), meaning);
    }
    says(calls(&all, "close")[0], "we leave the group");
}

/// What TLS was told of, in order, on one descriptor.
fn records(objects: &[Value], name: &str) -> Vec<String> {
    let words = calls(objects, name).into_iter().filter_map(|call| {
        call["wire"].as_str().unwrap().split_once("; TLS: ").map(|(_, words)| words.to_owned())
    });
    words.collect()
}

#[test]
fn over_tls_the_records_of_the_handshake_are_told_from_what_is_said() {
    if cannot_trace() {
        return;
    }
    let world = World::new();
    world.run(&["keys", "certificate", "localhost", "-o", "host"]).good();
    let (here, there) = (world.path("tls-listen"), world.path("tls-send"));
    let url = "tls://127.0.0.1:0?cert=host.pem&key=host.key";
    let args = ["listen", url, "--reply", "echo", "--explain", "--json"];
    let mut listen = Running::start(straced(&world, &here, &args));
    let url = listen.until(|object| object["event"] == "listening")["url"].clone();
    let url = format!("{}?ca=host.pem&name=localhost", url.as_str().unwrap());
    let mut send = straced(&world, &there, &["send", &url, "--explain", "--json", "ola"]);
    let sent = objects(&finish(&mut send).good().out);
    let accepted = listen.until(|object| object["call"] == "accept")["result"].clone();
    listen.until(|object| object["call"] == "close" && object["descriptor"] == accepted);
    let heard = end(&mut listen, &here);
    for (prefix, all) in [(&there, &sent), (&here, &heard)] {
        compare(prefix, "AF_INET", all);
    }
    let written =
        |all: &[Value]| [records(all, "send"), records(all, "writev")].concat().join("; ");
    let (asked, answered) = (written(&sent), written(&heard));
    for (words, all) in [
        (&["ClientHello", "sealed handshake", "application data", "sealed close_notify"], &asked),
        (
            &["ServerHello", "sealed handshake", "application data", "sealed close_notify"],
            &answered,
        ),
    ] {
        words.iter().for_each(|word| assert!(all.contains(word), "{word}: {all}"));
        assert_eq!(all.matches("application data").count(), 1, "one message: {all}");
    }
    assert_eq!(records(&heard, "recv")[0], "ClientHello");
    let came = records(&sent, "recv").join("; ");
    assert!(came.starts_with("ServerHello") && came.ends_with("or the close_notify"), "{came}");
}

#[test]
fn failures_are_told_with_their_error_and_what_came_over_the_wire() {
    let world = World::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", taken.local_addr().unwrap());
    let done = world.run(&["listen", &url, "--explain", "--json"]);
    let all = objects(&done.out);
    done.failed(1, &["in use"]);
    assert_eq!(calls(&all, "bind")[0]["error"], "EADDRINUSE");
    says(calls(&all, "bind")[0], "another socket has that address");

    // It closes before it has read what came, which is a reset.
    let resetting = thread::spawn(move || {
        let (client, _) = taken.accept().unwrap();
        client.peek(&mut [0]).unwrap();
    });
    let done = world.run(&["send", &url, "--explain", "--json", "ola"]);
    resetting.join().unwrap();
    let all = objects(&done.out);
    done.failed(3, &[]);
    assert_eq!(calls(&all, "recv")[0]["error"], "ECONNRESET");
    says(calls(&all, "recv")[0], "RST came");
    says(calls(&all, "close")[0], "the RST ended it");

    // Nobody listens there any more.
    let done = world.run(&["send", &url, "--explain", "--json", "ola"]);
    let all = objects(&done.out);
    done.failed(3, &["refused"]);
    assert_eq!(calls(&all, "connect")[0]["error"], "EINPROGRESS");
    let asked = calls(&all, "getsockopt")[0];
    assert_eq!(asked["error"], "ECONNREFUSED");
    says(asked, "RST came: the host is there");
}

#[test]
fn what_is_set_for_a_group_is_told_of() {
    let world = World::new();
    let url = "udp://239.192.1.1:5005?if=lo&ttl=3&loop=off";
    let all = objects(&world.run(&["send", url, "--explain", "--json", "ola"]).good().out);
    for (option, meaning) in [
        ("IP_MULTICAST_IF, 1", "leaves by that interface"),
        ("IP_MULTICAST_TTL, 3", "each router takes one off"),
        ("IP_MULTICAST_LOOP, 0", "nobody here hears it"),
    ] {
        let is_it = |call: &&Value| call["arguments"].as_str().unwrap().ends_with(option);
        let set = calls(&all, "setsockopt").into_iter().find(is_it);
        says(set.unwrap_or_else(|| panic!("no {option}: {all:#?}")), meaning);
    }
}

#[test]
fn for_people_it_is_a_line_a_call_beside_what_came() {
    let world = World::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = server.local_addr().unwrap();
    let answering = thread::spawn(move || {
        let (mut client, _) = server.accept().unwrap();
        let mut said = Vec::new();
        client.read_to_end(&mut said).unwrap();
        client.write_all(&said).unwrap();
    });
    let done = world.run(&["send", &format!("tcp://{place}"), "--explain", "ola"]).good();
    answering.join().unwrap();
    assert_eq!(done.out, "ola");
    let lines: Vec<&str> = done.err.lines().collect();
    let wanted = format!("connect(9, {place}) = EINPROGRESS");
    let (name, rest) = wanted.split_once("(9").unwrap();
    let connect = lines.iter().find(|line| line.contains(name)).unwrap();
    assert!(connect.contains(rest) && connect.contains("SYN, from"), "{connect}");
    let is_timed =
        |line: &&str| line.trim_start().split(' ').next().unwrap().parse::<f64>().is_ok();
    assert!(lines.iter().all(is_timed), "{}", done.err);
}
