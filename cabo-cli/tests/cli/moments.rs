//! Kills and signals at moments of chance, in the midst of whatever is under way: nothing is lost, nothing is left over
//! that is in the way of the next run. `CABO_SEED` names other moments.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::needs::{Need, skip_without};
use crate::world::{
    Dice, Served, World, assert_same_file, finish, names_in, signal_child, until, wait,
};

const MEBIBYTES: u64 = 96;
const KILLS: usize = 6;
const INTERRUPTED: i32 = 130;

fn quiet(command: &mut Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Waits for what has got `signal`: it ended as it says in its help, or the signal came before it was listened to.
#[track_caller]
fn wait_signalled(child: &mut Child, signal: Signal, codes: &[i32]) -> ExitStatus {
    let status = wait(child);
    let is_too_early = status.signal() == Some(signal.as_raw());
    let is_said = status.code().is_some_and(|code| codes.contains(&code));
    assert!(is_too_early || is_said, "{signal:?}: {status:?}");
    status
}

// --- kill -9 --------------------------------------------------------------------------------------------------------

/// Kills the client, the server, or both, and goes on with the same two commands each time.
fn kill_and_go_on(place: &str, seed: u64) {
    let (world, mut dice) = (World::new(), Dice::new(seed));
    let big = world.write_large("served/big.bin", MEBIBYTES);
    let (copy, partial) = (world.path("copy/big.bin"), world.path("copy/big.bin.cabo-partial"));
    std::fs::create_dir(world.path("copy")).unwrap();
    let place = place.replace("DIR", world.path("").to_str().unwrap());
    let mut served: Option<Served> = Some(world.serve(&["served", "--on", &place]));
    let url = served.as_ref().unwrap().url().to_owned();
    let mut here_before = 0;
    for _ in 0..KILLS {
        let mut get = quiet(world.cabo().args(["get", &url, "big.bin", "-o", "copy/"]));
        dice.pause(Duration::from_millis(700));
        if dice.below(2) == 0 {
            served.take().unwrap().kill();
            dice.pause(Duration::from_millis(100));
            served = Some(world.serve(&["served", "--on", &url]));
            dice.pause(Duration::from_millis(700));
        }
        signal_child(&get, Signal::KILL);
        wait(&mut get);
        let names = names_in(&world.path("copy"));
        if copy.exists() {
            assert_same_file(&big, &copy);
            assert_eq!(names, ["big.bin"]);
            std::fs::remove_file(&copy).unwrap(); // and once more
            here_before = 0;
        } else {
            let here = partial.metadata().map_or(0, |file| file.len());
            assert!(here >= here_before, "{here} bytes are here where {here_before} were");
            assert!(names.iter().all(|name| name == "big.bin.cabo-partial"), "{names:?}");
            here_before = here;
        }
    }
    let done = world.run(&["get", &url, "big.bin", "-o", "copy/"]).good();
    let is_resumed = done.out.contains("were here before") || done.out.contains("was here already");
    assert!(here_before < 8 << 20 || is_resumed, "{done:?}");
    assert_same_file(&big, &copy);
    assert_eq!(names_in(&world.path("copy")), ["big.bin"]);
    assert!(served.unwrap().stop().success());
}

#[test]
fn kills_at_any_moment_lose_nothing_over_udp() {
    kill_and_go_on("udp://127.0.0.1:0", 1);
}

#[test]
fn kills_at_any_moment_lose_nothing_over_tcp() {
    kill_and_go_on("tcp://127.0.0.1:0", 2);
}

#[test]
fn kills_at_any_moment_lose_nothing_over_unix() {
    kill_and_go_on("unix://DIR/sock", 3);
}

#[test]
#[ignore = "run by kills_at_any_moment_lose_nothing_over_ethernet"]
fn kills_on_the_loopback_interface_of_this_namespace() {
    if std::env::var_os("CABO_TEST_OWN_NETWORK").is_some() {
        kill_and_go_on("eth://lo:77", 4);
    }
}

#[test]
fn kills_at_any_moment_lose_nothing_over_ethernet() {
    if skip_without(&[Need::Program("unshare"), Need::Program("ip"), Need::Namespaces]) {
        return;
    }
    let script = r#"ip link set lo up && exec "$0" --ignored --nocapture kills_on_the_loopback"#;
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "sh", "-c", script]);
    command.arg(std::env::current_exe().unwrap()).env("CABO_TEST_OWN_NETWORK", "1");
    let done = finish(&mut command).good();
    assert!(done.out.contains("1 passed"), "{done:?}");
}

// --- Ctrl-C and SIGTERM ---------------------------------------------------------------------------------------------

#[test]
fn a_get_that_is_interrupted_at_any_moment_can_be_resumed() {
    let (world, mut dice) = (World::new(), Dice::new(5));
    let big = world.write_large("served/big.bin", MEBIBYTES);
    let served = world.serve(&["served", "--open", "--on", "tcp://127.0.0.1:0"]);
    for round in 0..8 {
        let signal = [Signal::INT, Signal::TERM][round % 2];
        let who = format!("client-{}", round / 4); // its first run also makes its key
        let mut command = world.cabo_as(&who);
        let mut get = quiet(command.args(["get", served.url(), "big.bin", "-o", "copy/"]));
        dice.pause(Duration::from_millis(500));
        signal_child(&get, signal);
        wait_signalled(&mut get, signal, &[INTERRUPTED, 0]);
        finish(world.cabo_as(&who).args(["keys"])).good();
    }
    world.run(&["get", served.url(), "big.bin", "-o", "copy/"]).good();
    assert_same_file(&big, &world.path("copy/big.bin"));
    assert_eq!(names_in(&world.path("copy")), ["big.bin"]);
}

#[test]
fn a_server_that_is_told_to_end_at_any_moment_leaves_nothing_in_its_own_way() {
    let (world, mut dice) = (World::new(), Dice::new(6));
    world.write("served/a.txt", b"a");
    let (socket, notes) = (world.path("sock"), world.path("notes"));
    let place = format!("unix://{}", socket.display());
    world.fingerprint("own");
    let mut listened = 0;
    for round in 0..12 {
        let signal = [Signal::INT, Signal::TERM][round % 2];
        let mut command = world.cabo();
        command.args(["serve", "--json", "served", "--on", &place, "--on", "udp://127.0.0.1:0"]);
        command.stdout(std::fs::File::create(&notes).unwrap()).stderr(Stdio::null());
        let mut server = command.spawn().unwrap();
        dice.pause(Duration::from_millis(60));
        listened += usize::from(socket.exists());
        signal_child(&server, signal);
        let status = wait_signalled(&mut server, signal, &[0]);
        assert!(!socket.exists(), "{signal:?}: {status:?}");
        let said = std::fs::read_to_string(&notes).unwrap();
        assert!(!said.contains("ready") || status.success(), "{signal:?}: {status:?} {said}");
    }
    println!("{listened} of 12 listened");
    let served = world.serve(&["served", "--on", &place]);
    world.run(&["ls", &place]).good();
    assert!(served.stop().success());
}

#[test]
fn a_second_signal_ends_a_server_that_waits_for_a_client() {
    let world = World::new();
    world.write_large("served/big.bin", 200);
    let place = format!("unix://{}", world.path("sock").display());
    let mut command = world.cabo();
    command.args(["serve", "--json", "served", "--on", &place]);
    let served = Served::start(&mut command);
    let mut get = quiet(world.cabo().args(["get", &place, "big.bin"]));
    let partial = world.path("big.bin.cabo-partial");
    assert!(until(|| partial.metadata().is_ok_and(|file| file.len() > 1 << 20)));
    signal_child(&get, Signal::STOP);
    served.signal(Signal::INT);
    assert_eq!(served.event("draining")["sessions"], 1);
    assert_eq!(served.stop().code(), Some(INTERRUPTED));
    assert!(!world.path("sock").exists());
    signal_child(&get, Signal::KILL);
    wait(&mut get);
}

#[test]
fn a_player_ends_with_its_gateway_at_any_moment() {
    let (world, mut dice) = (World::new(), Dice::new(7));
    world.write("served/film.mp4", b"film");
    let script = b"#!/bin/sh\necho $$ >> started\nexec sleep 1000\n";
    let player = world.write("player", script);
    std::fs::set_permissions(&player, std::fs::Permissions::from_mode(0o700)).unwrap();
    let served = world.serve(&["served", "--on", "tcp://127.0.0.1:0"]);
    let started = || std::fs::read_to_string(world.path("started")).unwrap_or_default();
    for round in 0..8 {
        let signal = [Signal::INT, Signal::TERM][round % 2];
        let before = started().lines().count();
        let args = ["play", served.url(), "film.mp4", "--player", "./player"];
        let mut play = quiet(world.cabo().args(args));
        if round < 4 {
            assert!(until(|| started().lines().count() > before));
        } else {
            dice.pause(Duration::from_millis(200));
        }
        signal_child(&play, signal);
        wait_signalled(&mut play, signal, &[INTERRUPTED]);
    }
    let players = started();
    assert!(players.lines().count() >= 4, "{players}");
    for player in players.lines() {
        assert!(until(|| !Path::new("/proc").join(player).exists()), "player {player} lives on");
    }
}

#[test]
fn a_relay_ends_with_its_summary_as_soon_as_it_says_where_it_is() {
    let world = World::new();
    for signal in [Signal::INT, Signal::TERM] {
        for ends in
            [["udp://127.0.0.1:0", "udp://127.0.0.1:9"], ["tcp://127.0.0.1:0", "tcp://127.0.0.1:9"]]
        {
            let mut command = world.cabo();
            command.arg("relay").args(ends).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut relay = command.spawn().unwrap();
            let mut line = String::new();
            BufReader::new(relay.stderr.take().unwrap()).read_line(&mut line).unwrap();
            assert!(line.contains("Ctrl-C ends it"), "{line}");
            signal_child(&relay, signal);
            let mut summary = String::new();
            relay.stdout.take().unwrap().read_to_string(&mut summary).unwrap();
            assert_eq!(wait(&mut relay).code(), Some(0), "{signal:?} {ends:?}");
            assert!(summary.contains("delivered"), "{summary}");
        }
    }
}

/// Processes that have this in their environment.
fn processes_with(mark: &str) -> Vec<String> {
    let has_mark = |name: &String| {
        let environment = std::fs::read(Path::new("/proc").join(name).join("environ"));
        environment
            .is_ok_and(|bytes| bytes.split(|byte| *byte == 0).any(|word| word == mark.as_bytes()))
    };
    names_in(Path::new("/proc")).into_iter().filter(has_mark).collect()
}

#[test]
fn a_demo_that_is_ended_at_any_moment_leaves_no_process_and_no_file() {
    if skip_without(&[Need::Namespaces]) {
        return;
    }
    let (world, mut dice) = (World::new(), Dice::new(8));
    std::fs::create_dir(world.path("tmp")).unwrap();
    let mark = format!("CABO_TEST_MARK={}", world.path("").display());
    for round in 0..8 {
        let signal = [Signal::INT, Signal::TERM][round % 2];
        let mut command = world.cabo();
        command.args(["demo"]).env("TMPDIR", world.path("tmp"));
        command.env("CABO_TEST_MARK", world.path(""));
        let mut demo = quiet(&mut command);
        dice.pause(Duration::from_millis(900));
        signal_child(&demo, signal);
        wait_signalled(&mut demo, signal, &[INTERRUPTED]);
        assert_eq!(names_in(&world.path("tmp")), [""; 0], "{signal:?}");
        assert!(until(|| processes_with(&mark).is_empty()), "{:?}", processes_with(&mark));
    }
}
