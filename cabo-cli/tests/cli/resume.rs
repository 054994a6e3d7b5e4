//! Kill either side at any moment, and go on.

use std::path::Path;
use std::process::{Child, Stdio};

use rustix::process::Signal;

use crate::world::{World, assert_same_file, signal_child, until, wait};

const MEBIBYTES: u64 = 200;

fn on(world: &World, scheme: &str) -> String {
    match scheme {
        "unix" => format!("unix://{}", world.path("sock").display()),
        scheme => format!("{scheme}://127.0.0.1:0"),
    }
}

fn start_get(world: &World, url: &str) -> Child {
    let mut command = world.cabo();
    command.args(["get", url, "big.bin"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Waits until some of it is there; it must not be all.
fn until_midway(partial: &Path) {
    assert!(until(|| partial.metadata().is_ok_and(|file| file.len() > 20 << 20)));
}

#[test]
fn a_client_that_was_killed_or_interrupted_goes_on_where_it_was() {
    for scheme in ["udp", "tcp", "unix"] {
        let world = World::new();
        let big = world.write_large("served/big.bin", MEBIBYTES);
        let served = world.serve(&["served", "--on", &on(&world, scheme)]);
        let partial = world.path("big.bin.cabo-partial");
        for (signal, code) in [(Signal::KILL, None), (Signal::INT, Some(130))] {
            let mut get = start_get(&world, served.url());
            if signal == Signal::KILL {
                until_midway(&partial);
            } else {
                let before = partial.metadata().unwrap().len();
                assert!(until(|| partial.metadata().is_ok_and(|file| file.len() > before)));
            }
            signal_child(&get, signal);
            assert_eq!(wait(&mut get).code(), code, "{scheme} {signal:?}");
            assert!(!world.path("big.bin").exists(), "{scheme}");
        }
        let done = world.run(&["get", served.url(), "big.bin"]).good();
        assert!(done.out.contains("were here before"), "{scheme} {done:?}");
        assert_same_file(&big, &world.path("big.bin"));
        assert!(!partial.exists(), "{scheme}");
    }
}

#[test]
fn a_server_that_was_killed_and_started_again_is_found_again() {
    for scheme in ["udp", "tcp", "unix"] {
        let world = World::new();
        let big = world.write_large("served/big.bin", MEBIBYTES);
        let served = world.serve(&["served", "--on", &on(&world, scheme)]);
        let url = served.url().to_owned();
        let mut get = start_get(&world, &url);
        until_midway(&world.path("big.bin.cabo-partial"));
        served.kill();
        assert!(get.try_wait().unwrap().is_none(), "{scheme}: it does not give up");
        let _served = world.serve(&["served", "--on", &url]);
        assert_eq!(wait(&mut get).code(), Some(0), "{scheme}");
        assert_same_file(&big, &world.path("big.bin"));
    }
}

#[test]
fn a_catalogue_goes_on_after_its_server_was_started_again() {
    let world = World::new();
    let names: Vec<String> = (0..4).map(|number| format!("served/{number}.bin")).collect();
    let files: Vec<_> = names.iter().map(|name| world.write_large(name, 50)).collect();
    let served = world.serve(&["served", "--on", "udp://127.0.0.1:0"]);
    let url = served.url().to_owned();
    let mut get = world.cabo();
    get.args(["get", "--all", &url, "-o", "copy", "-j", "2"]);
    let fetching = std::thread::spawn(move || crate::world::finish(&mut get));
    until_midway(&world.path("copy/0.bin.cabo-partial"));
    served.kill();
    let _served = world.serve(&["served", "--on", &url]);
    let done = fetching.join().unwrap().good();
    assert!(done.err.contains("connected again"), "{done:?}");
    assert!(done.out.starts_with("4 items, 210 MB in "), "{done:?}");
    for (number, file) in files.iter().enumerate() {
        assert_same_file(file, &world.path(&format!("copy/{number}.bin")));
    }
}

#[test]
fn without_patience_a_lost_server_ends_it_and_the_next_run_goes_on() {
    let world = World::new();
    let big = world.write_large("served/big.bin", MEBIBYTES);
    let served = world.serve(&["served", "--on", "tcp://127.0.0.1:0"]);
    let url = served.url().to_owned();
    let mut get = world.cabo();
    get.args(["get", &url, "big.bin", "--patience", "0s"]);
    let fetching = std::thread::spawn(move || crate::world::finish(&mut get));
    until_midway(&world.path("big.bin.cabo-partial"));
    served.kill();
    fetching.join().unwrap().failed(5, &[&url, "run the same command again to resume"]);
    let _served = world.serve(&["served", "--on", &url]);
    world.run(&["get", &url, "big.bin"]).good();
    assert_same_file(&big, &world.path("big.bin"));
}

#[test]
fn a_server_that_is_asked_to_end_lets_a_transfer_end_first() {
    let world = World::new();
    let big = world.write_large("served/big.bin", MEBIBYTES);
    let served = world.serve(&["served", "--on", "tcp://127.0.0.1:0"]);
    let mut get = start_get(&world, served.url());
    until_midway(&world.path("big.bin.cabo-partial"));
    assert!(served.stop().success());
    assert_eq!(wait(&mut get).code(), Some(0));
    assert_same_file(&big, &world.path("big.bin"));
}
