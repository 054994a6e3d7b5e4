//! Who gets in, and whom a client believes.

use rustix::process::Signal;

use crate::world::{World, finish, until};

const ON: [&str; 2] = ["--on", "udp://127.0.0.1:0"];

#[test]
fn a_stranger_is_refused_with_the_command_that_would_let_it_in() {
    let world = World::new();
    world.write("served/a.txt", b"a");
    let served = world.serve(&["served", ON[0], ON[1]]);
    let stranger = world.fingerprint("stranger");
    let done = finish(world.cabo_as("stranger").args(["ls", served.url()]));
    done.failed(4, &["refused", &format!("echo {stranger} >> FILE"), "--allow", "--open"]);
    let done = finish(world.cabo_as("stranger").args(["get", served.url(), "a.txt"]));
    done.failed(4, &["refused"]);
    assert!(!world.path("a.txt").exists());
    let event = served.event("refused");
    assert_eq!(event["fingerprint"], stranger.as_str());
    assert!(event["remedy"].as_str().unwrap().contains("cabo serve --allow"), "{event}");
    assert_eq!(served.fingerprint, world.fingerprint("own"));
}

#[test]
fn open_lets_anyone_in() {
    let world = World::new();
    world.write("served/a.txt", b"a");
    let served = world.serve(&["served", "--open", ON[0], ON[1]]);
    finish(world.cabo_as("stranger").args(["ls", served.url()])).good();
    assert_eq!(served.event("admitted")["fingerprint"], world.fingerprint("stranger").as_str());
}

#[test]
fn a_friend_gets_in_until_its_line_is_gone() {
    let world = World::new();
    world.write_large("served/big.bin", 4000);
    let friend = world.fingerprint("friend");
    let allow = world.write("friends.txt", format!("{friend} a friend\n").as_bytes());
    let served = world.serve(&["served", "--allow", "friends.txt", ON[0], ON[1]]);
    finish(world.cabo_as("friend").args(["ls", served.url()])).good();

    let mut get = world.cabo_as("friend");
    get.args(["get", "-q", served.url(), "big.bin"]);
    let fetching = std::thread::spawn(move || finish(&mut get));
    let partial = world.path("big.bin.cabo-partial");
    assert!(until(|| partial.metadata().is_ok_and(|file| file.len() > 4 << 20)));
    std::fs::write(&allow, "# nobody\n").unwrap();
    served.signal(Signal::HUP);
    assert_eq!(served.event("reloaded")["ended"], 1);
    fetching.join().unwrap().failed(4, &["refused"]);
    finish(world.cabo_as("friend").args(["ls", served.url()])).failed(4, &["refused"]);

    std::fs::write(&allow, "this is no fingerprint\n").unwrap();
    served.signal(Signal::HUP);
    assert!(served.event("reload_failed")["why"].as_str().unwrap().contains("line 1"));
    finish(world.cabo().args(["ls", served.url()])).good();
}

#[test]
fn a_server_with_another_key_than_before_is_refused_until_it_is_forgotten() {
    let world = World::new();
    world.write("served/a.txt", b"a");
    let served = world.serve(&["served", ON[0], ON[1]]);
    let url = served.url().to_owned();
    world.run(&["ls", &url]).good();
    let known = world.run(&["keys", "list"]).good().out;
    assert!(known.contains(&url) && known.contains(&served.fingerprint), "{known}");
    served.kill();

    let impostor = world.serve_as("impostor", &["served", "--open", "--on", &url]);
    let forget = format!("cabo keys forget {url}");
    let words = ["another identity", impostor.fingerprint.as_str(), forget.as_str()];
    world.run(&["ls", &url]).failed(4, &words);
    world.run(&["get", &url, "a.txt"]).failed(4, &words);
    world.run(&["keys", "forget", &url]).good();
    world.run(&["ls", &url]).good();
    world.run(&["keys", "forget", "tcp://nowhere:1"]).failed(1, &["not known", "cabo keys list"]);
}
