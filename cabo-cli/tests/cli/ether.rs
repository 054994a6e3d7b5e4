//! Raw Ethernet on the loopback interface of a namespace of its own: nobody has to be root.

use std::process::Command;

use crate::needs::{Need, skip_without};
use crate::world::{Done, World, assert_same_file, finish};

/// Starts a server on `lo`, and runs a script beside it that calls the program `$0`.
fn beside_server(world: &World, script: &str) -> Done {
    beside(world, "ip link set lo up", "serve served --on eth://lo:77", script)
}

/// The same after `before`, and with a server started so.
pub(crate) fn beside(world: &World, before: &str, serve: &str, script: &str) -> Done {
    let ready = if serve.starts_with("listen") { "listening" } else { "ready" };
    let all = format!(
        r#"{{ {before}; }} || exit 99
        rm -f events # of a server before this one, which was ready too
        "$0" {serve} --json > events 2> errors &
        server=$!
        while ! grep -q {ready} events; do kill -0 $server || exit 98; sleep 0.02; done
        {script}
        code=$?
        kill $server && wait $server && exit $code"#
    );
    let cabo = world.cabo();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "sh", "-c", &all]).arg(cabo.get_program());
    command.current_dir(world.path(".")).env_clear();
    command.envs(cabo.get_envs().filter_map(|(key, value)| Some((key, value?))));
    finish(&mut command)
}

#[test]
fn a_link_is_asked_listed_and_fetched_from() {
    if skip_without(&[Need::Program("unshare"), Need::Program("ip"), Need::Namespaces]) {
        return;
    }
    let world = World::new();
    let film = world.write_large("served/trip/film.mp4", 5);
    let script = r#""$0" ls eth://lo:77 && "$0" get eth://lo:77/trip/film.mp4 -o copy.mp4"#;
    let done = beside_server(&world, script).good();
    assert!(done.out.contains(&world.fingerprint("own")), "{done:?}");
    assert!(done.out.contains("eth://00-00-00-00-00-00%25lo:77:\n"), "{done:?}");
    assert!(done.out.contains("trip/\n"), "{done:?}");
    assert_same_file(&film, &world.path("copy.mp4"));
    let events = std::fs::read_to_string(world.path("events")).unwrap();
    assert!(events.contains(r#""carrier":"eth""#), "{events}");
}

/// Runs `"$0"` with CAP_NET_RAW and nothing else, as a file that `setcap` was used on.
const WITH_NET_RAW_ALONE: &str = "setpriv --bounding-set=-all,+net_raw --inh-caps=-all";

/// For each thread of a process what it may do and what it may take up again.
const CAPABILITIES: &str = "grep -hE 'Cap(Eff|Prm|Inh|Amb)' /proc/$1/task/*/status";

#[test]
fn whoever_has_opened_a_link_gives_the_privilege_up_and_finds_the_link_again() {
    let needs = [Need::Program("unshare"), Need::Program("ip"), Need::Program("setpriv")];
    if skip_without(&needs) || skip_without(&[Need::Namespaces]) {
        return;
    }
    let world = World::new();
    world.write_large("served/film.mp4", 300);
    let script = format!(
        r#"lay() {{ ip link add v0 type veth peer name v1 && ip link set v0 up && ip link set v1 up; }}
        privileges() {{ {CAPABILITIES} | sort -u | sed "s/^/$2 /"; }}
        lay && ip link add r0 type veth peer name r1 && ip link set r0 up && ip link set r1 up
        {WITH_NET_RAW_ALONE} grep CapPrm /proc/self/status | sed "s/^/with /"
        {WITH_NET_RAW_ALONE} "$0" serve served --on eth://v0:77 --json > events 2> errors &
        server=$!
        {WITH_NET_RAW_ALONE} "$0" relay r0 r1 2> relay &
        relay=$!
        until grep -q ready events && grep -q Ctrl-C relay; do kill -0 $server $relay || exit 98; sleep 0.02; done
        privileges $server serve
        privileges $relay relay
        {WITH_NET_RAW_ALONE} "$0" get eth://v1:77/film.mp4 -o copy.mp4 2> got &
        get=$!
        until test -s copy.mp4.cabo-partial; do kill -0 $get || exit 97; sleep 0.02; done
        privileges $get get
        kill $get $relay
        ip link del v0 && lay
        until {WITH_NET_RAW_ALONE} "$0" ls eth://v1:77/ 2> listed; do kill -0 $server || exit 96; done
        kill $server"#
    );
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "sh", "-c", &script]);
    let cabo = world.cabo();
    command.arg(cabo.get_program()).current_dir(world.path(".")).env_clear();
    command.envs(cabo.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let done = finish(&mut command).good();
    assert!(done.out.contains("with CapPrm:\t0000000000002000\n"), "{done:?}");
    for who in ["serve", "relay", "get"] {
        let none = "0000000000000000";
        let all = ["CapAmb", "CapEff", "CapInh", "CapPrm"];
        let expected = all.map(|set| format!("{who} {set}:\t{none}\n")).concat();
        assert!(done.out.contains(&expected), "{who}: {done:?}");
    }
    assert!(done.out.contains("film.mp4"), "it serves on the link that came back: {done:?}");
}

/// Fetches over a link whose end `changes` gets another hardware address under way.
fn fetch_past_a_new_address(changes: &str) {
    if skip_without(&[Need::Program("unshare"), Need::Program("ip"), Need::Namespaces]) {
        return;
    }
    let world = World::new();
    let film = world.write_large("served/film.mp4", 300);
    let lay = "ip link add v0 type veth peer name v1 && ip link set v0 up && ip link set v1 up";
    let script = format!(
        r#""$0" get eth://v1:77/film.mp4 -o copy.mp4 &
        get=$!
        until test -s copy.mp4.cabo-partial; do kill -0 $get || exit 97; sleep 0.02; done
        ip link set {changes} down && ip link set {changes} address 02:00:00:00:00:99 && ip link set {changes} up
        wait $get"#
    );
    let done = beside(&world, lay, "serve served --on eth://v0:77", &script).good();
    assert!(!done.err.contains("lost"), "the session went on: {done:?}");
    assert_same_file(&film, &world.path("copy.mp4"));
}

#[test]
fn a_fetch_goes_on_when_its_server_gets_another_hardware_address() {
    fetch_past_a_new_address("v0");
}

#[test]
fn a_fetch_goes_on_when_its_client_gets_another_hardware_address() {
    fetch_past_a_new_address("v1");
}

#[test]
fn a_port_that_another_cabo_has_and_a_silent_link_are_named() {
    if skip_without(&[Need::Program("unshare"), Need::Program("ip"), Need::Namespaces]) {
        return;
    }
    let world = World::new();
    world.write("served/a.txt", b"a");
    let taken = beside_server(&world, r#""$0" serve served --on eth://lo:77"#);
    taken.failed(1, &["port 77 on eth://lo is in use"]);
    let silent = beside_server(&world, r#""$0" ls eth://lo:78"#);
    silent.failed(3, &["eth://lo", "nobody serves on this link", "cabo serve FOLDER"]);
    let unheard = beside_server(&world, r#""$0" send eth://lo:78 x"#);
    unheard.failed(3, &["eth://lo", "nobody serves on this link", "`cabo listen`"]);
    let no_link = beside_server(&world, r#""$0" ls"#);
    no_link.failed(3, &["no Ethernet interface", "cabo ls udp://HOST"]);
}

#[test]
fn an_interface_that_is_down_is_said_and_serves_as_soon_as_it_is_up() {
    if skip_without(&[Need::Program("unshare"), Need::Program("ip"), Need::Namespaces]) {
        return;
    }
    let world = World::new();
    world.write("served/a.txt", b"a");
    let before = "ip link add near type veth peer name far";
    let script = r#"
        grep -q 'near is down.*sudo ip link set near up' errors || exit 97
        "$0" ls eth://far 2> ls-down; echo $? > codes
        "$0" get eth://far/a.txt 2> get-down; echo $? >> codes
        ip link set near up && ip link set far up || exit 96
        for try in 1 2 3 4 5 6 7 8 9 10; do "$0" get eth://far/a.txt -o got && break; done"#;
    beside(&world, before, "serve served --on eth://near:77", script).good();
    let read = |name| std::fs::read_to_string(world.path(name)).unwrap();
    assert_eq!(read("codes"), "3\n3\n");
    for name in ["ls-down", "get-down"] {
        let said = read(name);
        assert!(said.contains("eth://far: the interface is down; run: sudo ip"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    assert_eq!(read("got"), "a");
}

#[test]
fn without_the_privilege_the_command_that_gives_it_is_said() {
    if skip_without(&[Need::Program("unshare"), Need::Namespaces]) {
        return;
    }
    let world = World::new();
    world.write("served/a.txt", b"a");
    let remedy = ["CAP_NET_RAW", "sudo setcap cap_net_raw+ep /"];
    let on = ["serve", "served", "--on", "eth://lo:77"];
    for args in [&on[..], &["ls", "eth://lo"], &["get", "eth://lo/a.txt"]] {
        finish(world.cabo_unprivileged().args(args)).failed(1, &remedy);
    }
}
