//! Disks that are full or cannot be written, in mount namespaces of their own.

use std::process::Command;

use crate::needs::{Need, skip_without};
use crate::world::{Done, World, finish};

/// Runs `cabo get` into a small disk of these mount options.
fn get_into(world: &World, options: &str, url: &str) -> Done {
    std::fs::create_dir_all(world.path("disk")).unwrap();
    let script = format!("mount -t tmpfs -o {options} none disk && exec \"$0\" get {url} -o disk");
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
