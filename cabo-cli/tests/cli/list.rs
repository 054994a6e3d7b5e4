//! `cabo serve` and `cabo ls` over every carrier that needs no privilege.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use serde_json::Value;

use crate::world::{World, finish};

/// Names that break programs: spaces, controls, a dash, bytes that are no text, the longest.
fn difficult_names() -> Vec<Vec<u8>> {
    let long = vec![b'n'; 255];
    let names: [&[u8]; 9] = [
        b" ",
        b"-rf",
        b"a b%20c?d#e",
        b"back\\slash",
        b"esc\x1b[2Jape",
        b"new\nline",
        b"no\xfftext",
        b"\xe2\x80\xae rtl",
        &long,
    ];
    names.map(<[u8]>::to_vec).to_vec()
}

fn place(world: &World, scheme: &str) -> String {
    match scheme {
        "unix" => format!("unix://{}", world.path("sock").display()),
        scheme => format!("{scheme}://127.0.0.1:0"),
    }
}

#[test]
fn a_folder_is_listed_alike_over_every_carrier() {
    let world = World::new();
    world.write("served/trip/day1.mp4", b"film");
    world.write("served/b.txt", b"12345");
    world.write("served/A.txt", b"");
    let on: Vec<String> = ["udp", "tcp", "unix"].map(|scheme| place(&world, scheme)).to_vec();
    let served = world.serve(&["served", "--on", &on[0], "--on", &on[1], "--on", &on[2]]);
    let tables: Vec<String> =
        served.urls.iter().map(|url| world.run(&["ls", "-r", url]).good().out).collect();
    assert_eq!(tables.len(), 3);
    assert!(tables.iter().all(|table| *table == tables[0]), "{tables:#?}");
    let names: Vec<&str> =
        tables[0].lines().skip(1).filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(names, ["trip/", "trip/day1.mp4", "A.txt", "b.txt"]);
    let folder = world.run(&["ls", "-l", served.url(), "trip"]).good();
    assert!(folder.out.contains("video/mp4") && folder.out.contains("day1.mp4"), "{folder:?}");
    let folder = world.run(&["ls", &format!("{}/trip", served.urls[1])]).good();
    assert_eq!(folder.out.lines().count(), 2, "{folder:?}");
    assert!(served.stop().success());
}

#[test]
fn difficult_names_are_escaped_listed_and_fetched_by_their_url() {
    let world = World::new();
    for name in difficult_names() {
        std::fs::create_dir_all(world.path("served")).unwrap();
        std::fs::write(world.path("served").join(OsStr::from_bytes(&name)), &name).unwrap();
    }
    let served = world.serve(&["served", "--on", "tcp://127.0.0.1:0"]);
    let table = world.run(&["ls", served.url()]).good().out;
    assert_eq!(table.lines().count(), difficult_names().len() + 1, "{table}");
    assert!(!table.contains('\x1b') && !table.contains('\u{202e}'), "{table}");
    let lines = world.run(&["ls", "--json", served.url()]).good().out;
    let urls: Vec<String> = lines
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["url"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(urls.len(), difficult_names().len());
    for url in &urls {
        world.run(&["get", "-q", url, "-o", "copy/"]).good();
    }
    for name in difficult_names() {
        let copy = std::fs::read(world.path("copy").join(OsStr::from_bytes(&name)));
        assert_eq!(copy.unwrap(), name, "{name:?}");
        let beside = finish(
            world.cabo().args(["get", "-o", "-", "--", served.url()]).arg(OsStr::from_bytes(&name)),
        );
        assert_eq!(beside.good().out.as_bytes(), String::from_utf8_lossy(&name).as_bytes());
    }
}

#[test]
fn a_single_file_and_a_plain_server_are_served_too() {
    let world = World::new();
    world.write("film.mp4", b"film");
    let on = ["--on", "udp://127.0.0.1:0", "--on", "tcp://127.0.0.1:0"];
    let served = world.serve(&[&["film.mp4", "--plain"][..], &on].concat());
    let listed = world.run(&["ls", "--plain", served.url()]).good();
    assert!(listed.out.contains("film.mp4"), "{listed:?}");
    world.run(&["get", "--plain", served.url(), "-o", "copy.mp4"]).good();
    assert_eq!(std::fs::read(world.path("copy.mp4")).unwrap(), b"film");
    for url in &served.urls {
        world.run(&["ls", url]).failed(4, &["plain", "--plain"]);
    }
}

#[test]
fn devices_in_a_folder_are_neither_listed_nor_opened() {
    let world = World::new();
    let served = world.serve(&["/dev", "--on", "tcp://127.0.0.1:0"]);
    let listed = world.run(&["ls", served.url()]).good();
    for device in ["null", "zero", "tty"] {
        assert!(
            !listed.out.lines().any(|line| line.ends_with(&format!(" {device}"))),
            "{listed:?}"
        );
        let item = format!("{}/{device}", served.url());
        world.run(&["get", &item]).failed(1, &[&item, "not a file"]);
        assert!(!world.path(device).exists());
    }
}
