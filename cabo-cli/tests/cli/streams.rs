//! A stdout or stderr that is full, closed, or a terminal that is gone.

use std::fs::File;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::world::{World, finish, wait};

const ON: [&str; 2] = ["--on", "tcp://127.0.0.1:0"];

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// The code of a command whose stderr takes nothing.
fn code_without_stderr(command: &mut Command) -> Option<i32> {
    let mut child = command.stdout(Stdio::null()).stderr(full()).spawn().unwrap();
    wait(&mut child).code()
}

#[test]
fn a_stderr_that_takes_nothing_changes_no_exit_code() {
    let world = World::new();
    world.write("served/a.txt", b"a");
    let served = world.serve(&["served", "--open", ON[0], ON[1]]);
    let url = served.url();
    assert_eq!(code_without_stderr(world.cabo_as("new").args(["get", url, "a.txt"])), Some(0));
    assert_eq!(std::fs::read(world.path("a.txt")).unwrap(), b"a");
    assert_eq!(code_without_stderr(world.cabo().args(["ls", url])), Some(0));
    assert_eq!(code_without_stderr(world.cabo().args(["ls", "tcp://127.0.0.1:1"])), Some(3));
    assert_eq!(code_without_stderr(world.cabo().args(["ls", "nonsense"])), Some(2));
    assert_eq!(code_without_stderr(world.cabo().args(["keys"])), Some(0));
}

#[test]
fn a_terminal_that_is_gone_does_not_end_a_get() {
    let world = World::new();
    world.write_large("served/big.bin", 64);
    let served = world.serve(&["served", ON[0], ON[1]]);
    let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&screen).unwrap();
    unlockpt(&screen).unwrap();
    let name = ptsname(&screen, Vec::new()).unwrap().into_string().unwrap();
    let line = File::options().read(true).write(true).open(name).unwrap();
    drop(screen); // whatever is written to the terminal fails from now on
    let mut command = world.cabo();
    command.args(["get", served.url(), "big.bin"]).stderr(line).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    drop(command);
    assert_eq!(wait(&mut child).code(), Some(0));
    crate::world::assert_same_file(&world.path("served/big.bin"), &world.path("big.bin"));
}

#[test]
fn a_full_stdout_is_named() {
    let world = World::new();
    world.write("served/a.txt", b"a");
    let served = world.serve(&["served", ON[0], ON[1]]);
    let url = served.url();
    let cases: &[&[&str]] = &[
        &["ls", url],
        &["ls", "--json", url],
        &["get", url, "a.txt", "-o", "-"],
        &["get", url, "a.txt"],
        &["keys"],
        &["completions", "bash"],
        &["play", url, "a.txt", "--stdout"],
    ];
    for args in cases {
        let mut child =
            world.cabo().args(*args).stdout(full()).stderr(Stdio::piped()).spawn().unwrap();
        assert_eq!(wait(&mut child).code(), Some(1), "{args:?}");
        let said = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
        assert!(said.contains("cabo: standard output: No space left"), "{args:?}: {said}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_does_not_turn_a_failure_into_success() {
    let world = World::new();
    for name in ["a", "b", "c"] {
        world.write(&format!("served/{name}"), name.as_bytes());
        world.write(&format!("copy/{name}/in the way"), b"");
    }
    let served = world.serve(&["served", ON[0], ON[1]]);
    for json in [&[][..], &["--json"]] {
        let mut command = world.cabo();
        command.args(["get", served.url(), "--all", "-o", "copy"]).args(json);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = command.stdout(writer).stderr(Stdio::null()).spawn().unwrap();
        assert_eq!(wait(&mut child).code(), Some(5), "{json:?}");
        assert_eq!(finish(&mut command).code, Some(5), "{json:?}");
    }
    let mut command = world.cabo();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = command.args(["ls", served.url()]).stdout(writer).spawn().unwrap();
    assert_eq!(wait(&mut child).code(), Some(0));
}
