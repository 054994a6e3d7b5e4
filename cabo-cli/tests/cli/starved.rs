//! A server that has no descriptors left: it neither spins nor ends, and serves again when it has some.

use std::io::Read as _;
use std::net::TcpStream;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::world::{LIMIT, World, assert_same_file, cpu_ticks, until, wait};

/// Lets a process have `more` descriptors than it has now; what it had as its limit.
fn leave_descriptors(process: Pid, more: usize) -> Rlimit {
    let open = std::fs::read_dir(format!("/proc/{}/fd", process.as_raw_nonzero())).unwrap();
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str().unwrap().parse().unwrap();
    let open: Vec<u64> = open.map(|entry| number(entry.unwrap())).collect();
    // The limit is one of numbers, and each new descriptor has the lowest that is free.
    let mut free = (0..).filter(|number| !open.contains(number));
    let limit = Rlimit { current: free.nth(more), maximum: getrlimit(Resource::Nofile).maximum };
    prlimit(Some(process), Resource::Nofile, limit).unwrap()
}

#[test]
fn silent_connections_that_take_every_descriptor_cost_no_time_and_end_nothing() {
    let world = World::new();
    let film = world.write_large("served/film.bin", 3);
    let served = world.serve(&["served", "--on", "tcp://127.0.0.1:0", "--on", "udp://127.0.0.1:0"]);
    let (tcp, udp) = (&served.urls[0], &served.urls[1]);
    world.run(&["ls", udp]).good(); // what is opened once is open now

    leave_descriptors(served.process(), 4);
    let address = tcp.strip_prefix("tcp://").unwrap();
    let mut silent: Vec<TcpStream> =
        (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
    let is_out = until(|| {
        let one = &mut silent[39];
        one.set_read_timeout(Some(LIMIT)).unwrap();
        one.read(&mut [0]).is_ok_and(|len| len == 0) // turned away at once, not left waiting
    });
    assert!(is_out);
    let before = cpu_ticks(served.process());
    thread::sleep(Duration::from_secs(1));
    let used = cpu_ticks(served.process()) - before;
    assert!(used < 30, "{used} ticks of 100: it spins");

    drop(silent);
    assert!(until(|| world.run(&["ls", tcp]).code == Some(0)), "it serves again");
    world.run(&["get", "-q", &format!("{tcp}/film.bin")]).good();
    assert_same_file(&film, &world.path("film.bin"));
    assert!(served.stop().success());
}

#[test]
fn a_request_that_finds_no_descriptor_is_told_busy_and_its_get_goes_on_later() {
    let world = World::new();
    let film = world.write_large("served/film.bin", 3);
    let served = world.serve(&["served", "--on", "udp://127.0.0.1:0"]);
    let had = leave_descriptors(served.process(), 0);
    let mut get = world.cabo();
    get.args(["get", served.url(), "film.bin"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut get = get.spawn().unwrap();
    let mut said = get.stderr.take().unwrap();
    let mut text = String::new();
    let is_told = until(|| {
        let mut letter = [0];
        let len = said.read(&mut letter).unwrap();
        text.push_str(&String::from_utf8_lossy(&letter[..len]));
        len == 0 || text.contains("busy")
    });
    assert!(is_told && text.contains("busy"), "{text}");
    prlimit(Some(served.process()), Resource::Nofile, had).unwrap();
    thread::spawn(move || drop(std::io::copy(&mut said, &mut std::io::sink())));
    assert!(wait(&mut get).success());
    assert_same_file(&film, &world.path("film.bin"));
}
