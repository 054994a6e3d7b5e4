//! Disks that are full or cannot be written, in mount namespaces of their own.

use std::process::Command;

use crate::needs::{Need, skip_without};
use crate::world::{Done, World, finish};

/// Runs `cabo get` into a small disk of these mount options.
fn get_into(world: &World, options: &str, url: &str) -> Done {
    on_disk(world, options, &format!("exec \"$0\" get {url} -o disk"))
}

/// Runs a script that calls the program `$0`, with a small disk of these mount options at `disk`.
pub(crate) fn on_disk(world: &World, options: &str, script: &str) -> Done {
    std::fs::create_dir_all(world.path("disk")).unwrap();
    let script = format!("mount -t tmpfs -o {options} none disk || exit 99\n{script}");
    let cabo = world.cabo();
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
        .arg(cabo.get_program());
    command.current_dir(world.path(".")).env_clear();
    command.envs(cabo.get_envs().filter_map(|(key, value)| Some((key, value?))));
    finish(&mut command)
}

#[test]
fn a_disk_that_is_too_small_or_read_only_is_said_before_anything_is_written() {
    if skip_without(&[Need::Program("unshare"), Need::Namespaces]) {
        return;
    }
    let world = World::new();
    world.write_large("served/big.bin", 4);
    let served = world.serve(&["served", "--on", "tcp://127.0.0.1:0"]);
    let url = format!("{}/big.bin", served.url());
    get_into(&world, "size=2m", &url).failed(1, &[&url, "disk full", "4194304 bytes are needed"]);
    get_into(&world, "size=8m,ro", &url).failed(1, &[&url, "Read-only file system"]);
    get_into(&world, "size=8m", &url).good();
}

#[test]
fn a_disk_that_fills_up_under_way_keeps_what_is_proved_for_the_next_run() {
    if skip_without(&[Need::Program("unshare"), Need::Namespaces]) {
        return;
    }
    let world = World::new();
    world.write_large("served/big.bin", 96);
    world.write("served/small.bin", &[7; 3 << 20]);
    let served = world.serve(&["served", "--on", "tcp://127.0.0.1:0"]);
    let url = served.url();
    // The client stands still while the disk fills, so that it cannot be done before.
    let script = format!(
        r#""$0" get {url} big.bin -o disk 2> first & get=$!
        while [ $(stat -c %s disk/big.bin.cabo-partial 2>> noise || echo 0) -lt 4194304 ]; do
            kill -0 $get || exit 98; sleep 0.01
        done
        kill -STOP $get; cat /dev/zero > disk/filler 2>> noise; kill -CONT $get
        wait $get; echo $? > code; ls disk > left
        "$0" get {url} small.bin -o disk 2> second; echo $? >> code
        rm disk/filler
        "$0" get {url} big.bin -o disk > third && cmp disk/big.bin served/big.bin && ls disk"#
    );
    let done = on_disk(&world, "size=112m", &script).good();
    let read = |name| std::fs::read_to_string(world.path(name)).unwrap();
    assert_eq!(read("code"), "5\n1\n");
    let last = |name| read(name).lines().last().unwrap_or_default().to_owned();
    let (first, second) = (last("first"), last("second"));
    assert!(first.starts_with("cabo: ") && first.contains("disk full"), "{first}");
    assert!(
        first.ends_with("what arrived is kept: run the same command again to resume"),
        "{first}"
    );
    assert!(second.contains("disk full: 3145728 bytes are needed, 0 are free"), "{second}");
    assert_eq!(read("left"), "big.bin.cabo-partial\nfiller\n");
    assert!(read("third").contains("were here before"), "{}", read("third"));
    assert_eq!(done.out, "big.bin\n", "nothing else is left");
}
