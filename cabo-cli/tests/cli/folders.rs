//! `cabo get --all` of many small files: what changed, what is left out, and days when something dies.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::disk::on_disk;
use crate::needs::{Need, skip_without};
use crate::world::{World, finish, names_in, until, wait};

/// Files of a few kilobytes in a few folders; enough that a run can be caught in the middle.
fn write_many(world: &World, count: usize) {
    for number in 0..count {
        let content = number.to_string().repeat(1200);
        world.write(&format!("served/{}/{number}", number % 7), content.as_bytes());
    }
}

/// Both have the same files with the same bytes, and nothing else.
fn assert_same_tree(a: &Path, b: &Path) {
    let diff = Command::new("diff").args(["-r"]).args([a, b]).output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
}

fn last_event(out: &str) -> Value {
    serde_json::from_str(out.lines().last().unwrap()).unwrap()
}

#[test]
fn a_second_run_brings_what_changed_and_a_dry_run_says_what_that_is() {
    let world = World::new();
    write_many(&world, 300);
    world.write_large("served/large.bin", 2);
    std::fs::create_dir_all(world.path("served/empty")).unwrap();
    let served = world.serve(&["served", "--on", "tcp://127.0.0.1:0"]);
    let get = |more: &[&str]| {
        world.run(&[&["get", served.url(), "--all", "-o", "copy"], more].concat()).good()
    };
    let dry = get(&["--dry-run"]);
    assert!(dry.out.contains("would fetch 301 new and 0 changed, "), "{dry:?}");
    assert!(dry.out.lines().any(|line| line.starts_with("new ") && line.ends_with("  0/7")));
    assert!(!world.path("copy").exists(), "nothing is written");
    assert!(get(&[]).out.starts_with("301 items, "));
    assert_same_tree(&world.path("served"), &world.path("copy"));
    world.write("served/3/3", &[b'x'; 1200]); // of the same size
    world.write("served/3/10", b"other");
    world.write("served/new", b"new");
    std::fs::remove_file(world.path("copy/1/1")).unwrap();
    let dry = get(&["-n"]);
    assert!(dry.out.contains("would fetch 2 new and 2 changed, "), "{dry:?}");
    assert!(dry.out.contains("298 are here already; nothing was written"), "{dry:?}");
    let json = last_event(&get(&["-n", "--json"]).out);
    assert_eq!(
        (&json["new"], &json["changed"], &json["same"]),
        (&2.into(), &2.into(), &298.into())
    );
    let again = last_event(&get(&["--json"]).out);
    let sent = again["bytes"].as_u64().unwrap() - again["resumed_bytes"].as_u64().unwrap();
    assert_eq!(sent, 1200 + 5 + 3 + 1200, "{again}");
    assert_same_tree(&world.path("served"), &world.path("copy"));
}

#[test]
fn what_a_pattern_fits_is_left_out() {
    let world = World::new();
    for name in ["a.txt", "a.tmp", "sub/b.txt", "sub/b.tmp", "cache/x", "sub/cache/y"] {
        world.write(&format!("served/{name}"), name.as_bytes());
    }
    let served = world.serve(&["served", "--on", "tcp://127.0.0.1:0"]);
    let args = ["get", served.url(), "--all", "-o", "copy", "-x", "*.tmp", "-x", "/cache/"];
    let done = world.run(&args).good();
    assert!(done.out.starts_with("3 items, "), "{done:?}");
    assert_eq!(names_in(&world.path("copy")), ["a.txt", "sub"]);
    assert_eq!(names_in(&world.path("copy/sub")), ["b.txt", "cache"]);
    world.run(&["get", served.url(), "a.txt", "-x", "*"]).failed(2, &["--all"]);
    world.run(&["get", served.url(), "--all", "-x", "a["]).failed(2, &["--exclude", "a["]);
    world.run(&["get", "redes://lo/x", "--all", "-n"]).failed(2, &["--dry-run"]);
}

#[test]
fn a_client_that_is_killed_leaves_whole_items_and_the_next_run_completes_the_folder() {
    let world = World::new();
    write_many(&world, 3000);
    let served = world.serve(&["served", "--on", "tcp://127.0.0.1:0"]);
    let mut get = world.cabo();
    get.args(["get", served.url(), "--all", "-o", "copy"]);
    let mut get = get.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let staging = world.path("copy/.cabo-partial");
    assert!(until(|| std::fs::read_dir(&staging).is_ok_and(|files| files.count() > 100)));
    get.kill().unwrap();
    wait(&mut get);
    for folder in 0..7 {
        let copy = world.path(&format!("copy/{folder}"));
        if !copy.is_dir() {
            continue;
        }
        for name in names_in(&copy) {
            let served = std::fs::read(world.path(&format!("served/{folder}/{name}"))).unwrap();
            assert!(std::fs::read(copy.join(&name)).unwrap() == served, "{folder}/{name}");
        }
    }
    let done = world.run(&["get", served.url(), "--all", "-o", "copy"]).good();
    assert!(done.out.starts_with("3000 items, "), "{done:?}");
    assert_same_tree(&world.path("served"), &world.path("copy"));
}

#[test]
fn a_server_that_is_killed_and_comes_again_completes_the_folder() {
    let world = World::new();
    write_many(&world, 3000);
    let served = world.serve(&["served", "--on", "tcp://127.0.0.1:0"]);
    let url = served.url().to_owned();
    let mut get = world.cabo();
    get.args(["get", &url, "--all", "-o", "copy"]);
    let fetching = std::thread::spawn(move || finish(&mut get));
    let staging = world.path("copy/.cabo-partial");
    assert!(until(|| std::fs::read_dir(&staging).is_ok_and(|files| files.count() > 100)));
    served.kill();
    let _served = world.serve(&["served", "--on", &url]);
    let done = fetching.join().unwrap().good();
    assert!(done.out.starts_with("3000 items, "), "{done:?}");
    assert_same_tree(&world.path("served"), &world.path("copy"));
}

#[test]
fn a_folder_that_changes_under_the_server_ends_with_whole_files_or_named_ones() {
    let world = World::new();
    write_many(&world, 1500);
    let served = world.serve(&["served", "--on", "tcp://127.0.0.1:0"]);
    let mut get = world.cabo();
    get.args(["get", served.url(), "--all", "-o", "copy"]);
    let fetching = std::thread::spawn(move || finish(&mut get));
    let mut round = 0;
    while !fetching.is_finished() {
        round += 1;
        for number in (0..1500).step_by(7) {
            let path = world.path(&format!("served/0/{number}"));
            let next = world.path("next");
            let content = format!("{number} {round} ").repeat(600);
            std::fs::write(&next, &content).unwrap();
            std::fs::rename(&next, &path).unwrap(); // each state of it is whole
        }
    }
    let done = fetching.join().unwrap();
    assert!(matches!(done.code, Some(0 | 5)), "{done:?}");
    for name in names_in(&world.path("copy/0")) {
        let text = std::fs::read_to_string(world.path("copy/0").join(&name)).unwrap();
        let first = text.split(' ').next().unwrap_or_default();
        let is_first_state = text == name.repeat(1200);
        let is_one_state =
            text.len().is_multiple_of(600) && text == text[..text.len() / 600].repeat(600);
        assert!(is_first_state || (is_one_state && first == name), "{name}: {text:.40}");
    }
    world.run(&["get", served.url(), "--all", "-o", "copy"]).good();
    assert_same_tree(&world.path("served"), &world.path("copy"));
}

#[test]
fn a_disk_that_is_full_is_told_and_has_whole_items_and_nothing_else() {
    if skip_without(&[Need::Program("unshare"), Need::Namespaces]) {
        return;
    }
    let world = World::new();
    write_many(&world, 600); // about 3 MB
    let served = world.serve(&["served", "--on", "tcp://127.0.0.1:0"]);
    let url = served.url();
    let script = format!(
        r#""$0" get {url} --all -o disk; echo $? > code; ls -A disk > left; du -a disk | wc -l > files
        for f in $(cd disk && find . -type f); do cmp "disk/$f" "served/$f" || exit 98; done
        mount -o remount,size=16m disk && "$0" get {url} --all -o disk && diff -r served disk"#
    );
    let done = on_disk(&world, "size=1m", &script).good();
    let read = |name| std::fs::read_to_string(world.path(name)).unwrap();
    assert_eq!(read("code"), "5\n", "{done:?}");
    assert!(done.err.contains("disk full") && done.out.contains("failed"), "{done:?}");
    assert!(!read("left").contains("partial"), "{}", read("left"));
}
