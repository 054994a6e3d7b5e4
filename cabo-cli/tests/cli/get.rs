//! `cabo get`: one item, all of them, and to stdout.

use std::process::Stdio;

use serde_json::Value;

use crate::needs::{Need, skip_without};
use crate::world::{Served, World, assert_same_file, finish};

const ON: [&str; 2] = ["--on", "udp://127.0.0.1:0"];

fn events(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_item_arrives_whole_with_its_time_and_a_last_line() {
    let world = World::new();
    let film = world.write_large("served/trip/film.mp4", 3);
    let served = world.serve(&["served", ON[0], ON[1]]);
    let done = world.run(&["get", &format!("{}/trip/film.mp4", served.url())]).good();
    let copy = world.path("film.mp4");
    assert_same_file(&film, &copy);
    let modified = |path| std::fs::metadata(path).unwrap().modified().unwrap();
    assert_eq!(modified(&film), modified(&copy));
    assert!(
        done.out.starts_with("film.mp4: 3.1 MB in ") && done.out.contains("b3sum "),
        "{done:?}"
    );
    assert_eq!(done.out.lines().count(), 1);
    let again = world.run(&["get", served.url(), "trip/film.mp4"]).good();
    assert!(again.out.contains("was here already, whole"), "{again:?}");
    let json = world.run(&["get", "--json", served.url(), "trip/film.mp4", "-o", "x.mp4"]).good();
    let events = events(&json.out);
    assert!(events.iter().any(|event| event["event"] == "progress"), "{events:?}");
    let json = events.last().unwrap();
    assert_eq!((&json["event"], &json["bytes"]), (&"fetched".into(), &(3 << 20).into()));
    assert_eq!((&json["item"], &json["name"]), (&"trip/film.mp4".into(), &"x.mp4".into()));
    assert!(done.out.contains(json["b3sum"].as_str().unwrap()), "{json} {done:?}");
    let quiet = world.run(&["get", "-q", served.url(), "trip/film.mp4", "-o", "y.mp4"]).good();
    assert_eq!((quiet.out.as_str(), quiet.err.as_str()), ("", ""));
}

#[test]
fn a_whole_catalogue_arrives_and_what_cannot_be_read_is_named() {
    let world = World::new();
    for number in 0..40 {
        world.write(&format!("served/{}/{number}.txt", number % 3), &vec![number; 70_000]);
    }
    let served = world.serve(&["served", ON[0], ON[1]]);
    let done = world.run(&["get", "--all", served.url(), "-o", "copy", "-j", "8"]).good();
    assert!(done.out.contains("40 items, 2.8 MB in "), "{done:?}");
    for number in 0..40 {
        let name = format!("{}/{number}.txt", number % 3);
        assert_same_file(&world.path("served").join(&name), &world.path("copy").join(&name));
    }
    let again = world.run(&["get", "--all", &format!("{}/1", served.url()), "-o", "one"]).good();
    assert!(again.out.contains("13 items"), "{again:?}");

    std::fs::create_dir(world.path("copy/blocked")).unwrap();
    world.write("served/blocked", b"a file here, a folder there");
    let done = world.run(&["get", "--all", served.url(), "-o", "copy"]);
    assert_eq!(done.code, Some(5), "{done:?}");
    assert!(
        done.err.contains("cabo: blocked: copy/blocked: something that is not a file"),
        "{done:?}"
    );
    assert!(done.out.contains("1 failed"), "{done:?}");
}

#[test]
fn stdout_gets_an_item_and_may_close() {
    let world = World::new();
    world.write("served/a.txt", b"hello\n");
    world.write_large("served/big.bin", 8);
    let served = world.serve(&["served", ON[0], ON[1]]);
    assert_eq!(world.run(&["get", served.url(), "a.txt", "-o", "-"]).good().out, "hello\n");
    let big = format!("{}/big.bin", served.url());
    for args in [
        &["get", &big, "-o", "-"][..],
        &["get", &big, "-o", "copy.bin"],
        &["ls", served.url()],
        &["ls", "--json", served.url()],
        &["help", "--all"],
        &["completions", "bash"],
        &["keys"],
        &["serve", "--json", "served", ON[0], ON[1]],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child =
            world.cabo().args(args).stdout(writer).stderr(Stdio::null()).spawn().unwrap();
        assert!(crate::world::wait(&mut child).success(), "{args:?}");
    }
    assert_eq!(std::fs::metadata(world.path("copy.bin")).unwrap().len(), 8 << 20);
}

#[test]
fn what_is_not_there_or_no_file_is_said_in_one_line() {
    let world = World::new();
    world.write("served/trip/a.txt", b"a");
    world.write("served/b.txt", b"b");
    let served = world.serve(&["served", ON[0], ON[1]]);
    let url = served.url();
    world.run(&["get", url, "missing.mp4"]).failed(1, &[url, "missing.mp4", "not found"]);
    world.run(&["get", url, "trip"]).failed(1, &["not a file", "cabo get --all"]);
    world.run(&["get", url]).failed(2, &["which item?", "cabo ls"]);
    world.run(&["ls", url, "b.txt"]).failed(1, &["not a folder"]);
    assert!(!world.path("missing.mp4").exists());
    let leftover: Vec<_> = std::fs::read_dir(world.path("."))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.contains("partial"))
        .collect();
    assert_eq!(leftover, [""; 0]);
    let stranger = finish(world.cabo().args(["get", "udp://127.0.0.1:1/x", "--patience", "0s"]));
    stranger.failed(3, &["udp://127.0.0.1:1"]);
}

#[test]
fn what_stands_in_the_way_is_named_where_it_is() {
    let world = World::new();
    world.write("served/a", b"new");
    world.write("folder/a/b", b"");
    world.write("partial/a.cabo-partial/b", b"");
    world.write("file", b"");
    let served = world.serve(&["served", ON[0], ON[1]]);
    let get = |to: &str| world.run(&["get", served.url(), "a", "-o", to]);
    let words = "something that is not a file stands at its place";
    for (to, place) in [("folder", "folder/a"), ("partial", "partial/a.cabo-partial")] {
        let done = get(to).failed(1, &[&format!("{place}: {words}")]);
        assert!(!done.err.contains("--all"), "{done:?}");
    }
    get("/dev/null").failed(1, &[&format!("/dev/null: {words}")]);
    get("file/x").failed(1, &["file"]);
    let done = world.run(&["get", "--json", served.url(), "a", "-o", "folder"]);
    let last = events(&done.out).pop().unwrap();
    assert_eq!((&last["event"], &last["code"]), (&"error".into(), &1.into()));
    assert!(last["error"].as_str().unwrap().contains("folder/a: "), "{last}");
}

#[test]
fn another_file_at_its_place_is_replaced_and_that_is_said() {
    let world = World::new();
    world.write("served/a", b"new");
    world.write("b", b"old and longer");
    let served = world.serve(&["served", ON[0], ON[1]]);
    let done = world.run(&["get", served.url(), "a", "-o", "b"]).good();
    assert!(done.out.contains("in place of another file"), "{done:?}");
    assert_eq!(std::fs::read(world.path("b")).unwrap(), b"new");
    let done = world.run(&["get", served.url(), "a", "-o", "b"]).good();
    assert!(done.out.contains("was here already, whole"), "{done:?}");
}

#[test]
fn links_to_folders_that_are_left_out_are_said_and_what_is_denied_is_not_to_be_tried_again() {
    if skip_without(&[Need::Program("unshare"), Need::Namespaces]) {
        return;
    }
    let world = World::new();
    world.write("served/real/a", b"a");
    world.write("served/locked", b"b");
    std::os::unix::fs::symlink("real", world.path("served/loop")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o000);
    std::fs::set_permissions(world.path("served/locked"), mode).unwrap();
    let mut serving = world.cabo_unprivileged();
    let served = Served::start(serving.args(["serve", "--json", "served", "--open", ON[0], ON[1]]));
    let done = world.run(&["get", "--all", served.url(), "-o", "copy"]);
    assert_eq!(done.code, Some(5), "{done:?}");
    assert!(done.err.contains("loop/ was left out: it is a link to a folder"), "{done:?}");
    assert!(done.err.contains("cabo: locked: access denied"), "{done:?}");
    assert!(done.out.contains("1 failed") && !done.out.contains("again"), "{done:?}");
}
