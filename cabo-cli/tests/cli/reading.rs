//! An item that is not what it was, or that may not be read: one line, never a wrong byte, and the next run is right.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;

use crate::needs::{Need, skip_without};
use crate::world::{Done, Served, World, assert_same_file, names_in, signal_child, until};

const MEBIBYTES: u64 = 200;

/// Begins to get `big.bin`, lets something `happen` to it in the middle, and says how that ended.
fn get_while(world: &World, url: &str, happen: impl FnOnce(&Path)) -> Done {
    let mut get = world.cabo();
    get.args(["get", url, "big.bin"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let get = get.spawn().unwrap();
    let partial = world.path("big.bin.cabo-partial");
    assert!(until(|| partial.metadata().is_ok_and(|file| file.len() > 8 << 20)));
    signal_child(&get, Signal::STOP); // so that nothing is done before it happens
    assert!(partial.metadata().unwrap().len() < MEBIBYTES << 20);
    happen(&world.path("served/big.bin"));
    signal_child(&get, Signal::CONT);
    let ended = thread::spawn(|| get.wait_with_output().unwrap());
    assert!(until(|| ended.is_finished()), "it hangs");
    let output = ended.join().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Done { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// A server of `big.bin` and, beside what is served, of another one that is ready to take its place.
fn stage(world: &World) -> Served {
    world.write_large("served/big.bin", MEBIBYTES);
    let other = world.write_large("other.bin", MEBIBYTES);
    let file = fs::File::options().write(true).open(other).unwrap();
    file.write_all_at(b"another item", (MEBIBYTES - 1) << 20).unwrap();
    world.serve(&["served", "--on", "tcp://127.0.0.1:0"])
}

#[test]
fn an_item_that_changes_under_way_is_said_and_the_next_run_gets_the_new_one() {
    type Happening = fn(&Path);
    let happenings: [(&str, Happening); 3] = [
        ("written", |item| {
            let file = fs::File::options().write(true).open(item).unwrap();
            file.write_all_at(b"new", (MEBIBYTES - 2) << 20).unwrap();
        }),
        ("truncated", |item| {
            fs::File::options().write(true).open(item).unwrap().set_len((50 << 20) + 5).unwrap();
        }),
        ("replaced", |item| {
            fs::rename(item.ancestors().nth(2).unwrap().join("other.bin"), item).unwrap();
        }),
    ];
    for (what, happen) in happenings {
        let world = World::new();
        let served = stage(&world);
        let done = get_while(&world, served.url(), happen);
        done.failed(5, &[served.url(), "changed while reading", "run the same command again"]);
        assert!(!world.path("big.bin").exists(), "{what}");
        let done = world.run(&["get", served.url(), "big.bin"]).good();
        assert!(done.out.contains("were here before"), "{what}: {done:?}");
        assert_same_file(&world.path("served/big.bin"), &world.path("big.bin"));
        assert!(!world.path("big.bin.cabo-partial").exists(), "{what}");
    }
}

#[test]
fn an_item_that_is_deleted_under_way_is_said_and_what_arrived_is_kept() {
    let world = World::new();
    let served = stage(&world);
    let done = get_while(&world, served.url(), |item| fs::remove_file(item).unwrap());
    done.failed(5, &[served.url(), "changed while reading"]);
    world.run(&["get", served.url(), "big.bin"]).failed(1, &["big.bin", "not found"]);
    assert!(!world.path("big.bin").exists());
    assert!(world.path("big.bin.cabo-partial").exists(), "it may come back");
}

/// The wall clock enters only as the time of files: where it steps, an item has another time and the same bytes.
#[test]
fn an_item_whose_time_steps_back_or_far_ahead_is_resumed_by_its_bytes() {
    let world = World::new();
    let served = stage(&world);
    let day = Duration::from_secs(86_400);
    let back = |item: &Path| {
        let file = fs::File::options().write(true).open(item).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH - day).unwrap();
    };
    let done = get_while(&world, served.url(), back);
    done.failed(5, &["changed while reading"]);
    let item = world.path("served/big.bin");
    let done = world.run(&["get", served.url(), "big.bin"]).good();
    assert!(done.out.contains("were here before"), "{done:?}");
    for (step, time) in
        [("back", SystemTime::UNIX_EPOCH - day), ("ahead", SystemTime::now() + 20_000 * day)]
    {
        fs::File::options().write(true).open(&item).unwrap().set_modified(time).unwrap();
        let copy = world.path("copy.bin");
        let args = ["get", served.url(), "big.bin", "-o", "copy.bin"];
        world.run(&args).good();
        assert_eq!(copy.metadata().unwrap().modified().unwrap(), time, "{step}");
        assert_same_file(&item, &copy);
        fs::remove_file(copy).unwrap();
        world.run(&["ls", "-l", served.url()]).good();
    }
}

#[test]
fn what_may_not_be_read_is_access_denied_and_the_rest_is_served() {
    if skip_without(&[Need::Program("unshare"), Need::Namespaces]) {
        return;
    }
    let world = World::new();
    let secret = world.write("served/secret.txt", b"secret");
    let closed = world.write("served/closed/a.txt", b"a");
    world.write("served/b.txt", b"b");
    fs::set_permissions(secret, Permissions::from_mode(0o000)).unwrap();
    let closed = closed.parent().unwrap();
    fs::set_permissions(closed, Permissions::from_mode(0o000)).unwrap();
    let mut serve = world.cabo_unprivileged();
    let served =
        Served::start(serve.args(["serve", "--json", "served", "--on", "tcp://127.0.0.1:0"]));
    let url = served.url();
    world.run(&["get", url, "secret.txt"]).failed(4, &[url, "secret.txt", "access denied"]);
    world.run(&["get", url, "closed/a.txt"]).failed(4, &["access denied"]);
    world.run(&["ls", url, "closed"]).failed(4, &["access denied"]);
    let listed = world.run(&["ls", "-r", url]);
    assert!(listed.out.contains("b.txt") && listed.out.contains("closed/"), "{listed:?}");
    listed.failed(4, &["access denied", "closed"]);
    let all = world.run(&["get", "--all", url, "-o", "copy"]);
    assert_eq!(all.code, Some(5), "{all:?}");
    assert!(all.err.contains("cabo: secret.txt: access denied"), "{all:?}");
    assert!(all.err.contains("cabo: access denied: the folder closed"), "{all:?}");
    assert!(all.out.contains("1 item,") && all.out.contains("2 failed"), "{all:?}");
    assert_eq!(fs::read(world.path("copy/b.txt")).unwrap(), b"b");
    assert!(!names_in(&world.path("copy")).iter().any(|name| name.contains("secret")));
    fs::set_permissions(closed, Permissions::from_mode(0o700)).unwrap(); // so that it can be removed
}
