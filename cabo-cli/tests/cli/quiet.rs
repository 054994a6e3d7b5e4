//! `-q`: nothing is said but what went wrong; and first lines that nobody reads.

use std::process::Stdio;

use rustix::process::Signal;

use crate::world::{World, finish, signal_child, until, wait};

#[test]
fn a_quiet_server_serves_without_a_word() {
    let world = World::new();
    world.write("served/a.txt", b"a");
    let socket = world.path("sock");
    let url = format!("unix://{}", socket.display());
    let mut command = world.cabo();
    command.args(["serve", "-q", "served", "--on", &url]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    assert!(until(|| socket.exists()));
    let listed = finish(world.cabo().args(["-q", "ls", &url])).good();
    assert!(listed.out.contains("a.txt") && listed.err.is_empty(), "{listed:?}");
    signal_child(&child, Signal::TERM);
    assert_eq!(wait(&mut child).code(), Some(0), "it was told to end");
    let said = child.wait_with_output().unwrap();
    assert_eq!((said.stdout, said.stderr), (Vec::new(), Vec::new()));
}

#[test]
fn a_server_whose_first_lines_nobody_reads_serves_all_the_same() {
    let world = World::new();
    world.write("served/a.txt", b"a");
    let socket = world.path("sock");
    let url = format!("unix://{}", socket.display());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = world.cabo();
    command.args(["serve", "served", "--on", &url]).stdout(writer).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    assert!(until(|| socket.exists()));
    finish(world.cabo().args(["ls", &url])).good();
    signal_child(&child, Signal::TERM);
    assert_eq!(wait(&mut child).code(), Some(0));
}
