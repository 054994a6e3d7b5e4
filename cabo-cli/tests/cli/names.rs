//! Servers found by name, on raw Ethernet and by multicast DNS: in two hosts of a namespace, so that no question leaves it.

use std::process::Command;

use serde_json::Value;

use crate::needs::{Need, skip_without};
use crate::world::{Done, World, assert_same_file, finish};

/// A second host, `far`, with two cables to it: n0-f0 and n1-f1. Nothing of it is up yet.
const HOSTS: &str = r#"
    cabo=$0
    unshare --net sleep 1000 & far=$!
    until test "$(readlink /proc/$far/ns/net)" != "$(readlink /proc/self/ns/net)"; do
        kill -0 $far || exit 99; sleep 0.02
    done
    trap 'kill $(jobs -p) 2> /dev/null' EXIT
    far() { nsenter --net --target $far "$@"; }
    up() { ip link set n$1 up && far ip link set f$1 up || exit 99; }
    addresses() {
        up $1
        ip address add 10.0.$1.1/24 dev n$1 && far ip address add 10.0.$1.2/24 dev f$1 || exit 99
    }
    ip link add n0 type veth peer name f0 && ip link set f0 netns $far || exit 99
    ip link add n1 type veth peer name f1 && ip link set f1 netns $far || exit 99
    ip link set lo up && far ip link set lo up || exit 99
    # serve EVENTS ARGS..: a server on the far host, when it is ready
    serve() {
        events=$1; shift; : > $events
        nsenter --net --target $far "$cabo" serve "$@" --open --json > $events 2> $events.errors & server=$!
        until grep -q '"ready"' $events; do kill -0 $server || { cat $events.errors; exit 98; }; sleep 0.02; done
    }
    # until_said WORDS COMMAND..: again and again; on a busy machine an answer may be late
    until_said() {
        words=$1; shift
        for try in 1 2 3 4 5 6 7 8 9 10 11 12; do
            "$@" > said 2> said.errors; code=$?
            grep -qF -- "$words" said && return 0
        done
        cat said said.errors; exit 97
    }
"#;

const NEEDS: [Need; 4] =
    [Need::Program("unshare"), Need::Program("nsenter"), Need::Program("ip"), Need::Namespaces];

fn on_two_hosts(world: &World, script: &str) -> Done {
    let mut command = Command::new("unshare");
    let all = format!("{HOSTS}\n{script}");
    let cabo = world.cabo();
    command
        .args(["--user", "--map-root-user", "--net", "bash", "-c", &all])
        .arg(cabo.get_program());
    command.current_dir(world.path(".")).env_clear();
    command.envs(cabo.get_envs().filter_map(|(key, value)| Some((key, value?))));
    finish(&mut command)
}

/// The JSON lines of a text.
fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_name_is_found_on_a_cable_without_addresses_and_is_remembered_by_its_key() {
    if skip_without(&NEEDS) {
        return;
    }
    let world = World::new();
    let film = world.write_large("served/trip/film.mp4", 5);
    let script = r#"
        up 0
        serve events served --on eth://f0:77 --name Kitchen
        until_said '"kitchen"' "$cabo" ls --json; mv said listed
        "$cabo" ls //kitchen/trip > folder && "$cabo" ls --json //Kitchen > items || exit 96
        "$cabo" get //kitchen/trip/film.mp4 -o copy.mp4 2> got || exit 95
        "$cabo" get //pantry/a.txt 2> nobody; echo $? > codes
        "$cabo" keys list > known
        kill $server; wait $server
        XDG_CONFIG_HOME=$PWD/config-other serve events served --on eth://f0:77 --name kitchen
        "$cabo" get //kitchen/trip/film.mp4 -o other.mp4 2> changed; echo $? >> codes
    "#;
    on_two_hosts(&world, script).good();
    let read = |name| std::fs::read_to_string(world.path(name)).unwrap();
    let (own, other) = (world.fingerprint("own"), world.fingerprint("other"));
    let listed = lines(&read("listed"));
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(listed[0]["type"], "server");
    assert_eq!(listed[0]["name"], "kitchen");
    assert_eq!(listed[0]["fingerprint"], own.as_str());
    let url = listed[0]["url"].as_str().unwrap();
    assert!(url.starts_with("eth://") && url.ends_with("%25n0:77"), "{url}");
    assert_eq!(listed[0]["urls"], serde_json::json!([url]));
    assert!(read("folder").contains("film.mp4"));
    assert_eq!(lines(&read("items"))[0]["url"], "//kitchen/trip");
    assert_same_file(&film, &world.path("copy.mp4"));
    assert!(read("known").contains("//kitchen"), "{}", read("known"));
    assert_eq!(read("codes"), "3\n4\n");
    let nobody = read("nobody");
    assert!(nobody.contains("//pantry: nobody here has this name"), "{nobody}");
    let changed = read("changed");
    assert!(changed.contains("//kitchen has another identity than before"), "{changed}");
    assert!(changed.contains(&own) && changed.contains(&other), "{changed}");
    assert!(changed.contains("cabo keys forget //kitchen"), "{changed}");
    assert!(!world.path("other.mp4").exists());
}

#[test]
fn two_servers_with_one_name_are_listed_and_neither_is_taken() {
    if skip_without(&NEEDS) {
        return;
    }
    let world = World::new();
    world.write("served/a.txt", b"a");
    let script = r#"
        up 0; up 1
        serve events served --on eth://f0:77 --name kitchen
        XDG_CONFIG_HOME=$PWD/config-other serve others served --on eth://f1:78 --name kitchen
        "$cabo" get //kitchen/a.txt 2> said; echo $? > code
    "#;
    on_two_hosts(&world, script).good();
    let said = std::fs::read_to_string(world.path("said")).unwrap();
    assert_eq!(std::fs::read_to_string(world.path("code")).unwrap(), "1\n", "{said}");
    assert!(said.contains("//kitchen: 2 servers have this name"), "{said}");
    for word in [&world.fingerprint("own"), &world.fingerprint("other"), "%25n0:77", "%25n1:78"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(!world.path("a.txt").exists());
}

#[test]
fn servers_on_ip_are_found_by_multicast_dns_unless_they_are_hidden() {
    if skip_without(&NEEDS) {
        return;
    }
    let world = World::new();
    let film = world.write_large("served/film.mp4", 3);
    let script = r#"
        addresses 0; addresses 1
        serve events served --on udp://10.0.0.2:7001 --on tcp://10.0.0.2:7002 --name kitchen
        XDG_CONFIG_HOME=$PWD/config-other serve others served --on udp://10.0.0.2:7003
        XDG_CONFIG_HOME=$PWD/config-hidden serve hidden served --on udp://10.0.0.2:7004 --hidden
        until_said tcp://10.0.0.2:7002 "$cabo" ls --json
        until_said udp://10.0.0.2:7003 "$cabo" ls --json; mv said listed
        "$cabo" get //kitchen/film.mp4 -o copy.mp4 2> got || { cat got; exit 96; }
    "#;
    on_two_hosts(&world, script).good();
    let read = |name| std::fs::read_to_string(world.path(name)).unwrap();
    let listed = lines(&read("listed"));
    assert!(!read("listed").contains("7004"), "it is hidden: {listed:?}");
    let other = listed.iter().find(|line| line["url"] == "udp://10.0.0.2:7003").unwrap();
    assert_eq!(other["name"], Value::Null);
    assert_eq!(other["fingerprint"], world.fingerprint("other").as_str());
    assert_same_file(&film, &world.path("copy.mp4"));
    assert!(read("got").contains("//kitchen is at udp://10.0.0.2:7001"), "{}", read("got"));
}

#[test]
fn other_programs_see_what_is_announced_while_it_serves() {
    if skip_without(&NEEDS) || skip_without(&[Need::Program("mdns-scan")]) {
        return;
    }
    let world = World::new();
    world.write("served/a.txt", b"a");
    let script = r#"
        addresses 0; addresses 1
        ip route add 224.0.0.0/4 dev n0 # by which mdns-scan joins the group
        serve events served --on udp://10.0.0.2:7001 --on tcp://10.0.1.2:7002 --name "Ana's kitchen.1"
        scan() { timeout 3 mdns-scan 2>&1; }
        until_said "+ ana's kitchen.1._cabo._udp.local" scan
        ! grep -F _cabo._tcp said || exit 96 # that is on the other network
        ip route replace 224.0.0.0/4 dev n1
        until_said "+ ana's kitchen.1._cabo._tcp.local" scan
        ! grep -F _cabo._udp said || exit 95
    "#;
    on_two_hosts(&world, script).good();
}

/// Starts a stranger on the far host who answers by multicast DNS what nobody asked.
const STRANGER: &str = r#"
    stranger() {
        nsenter --net --target $far python3 "$MDNS" 10.0.0.2 "$@" > stranger & stranger=$!
        until grep -q ready stranger; do kill -0 $stranger || exit 95; sleep 0.02; done
    }
"#;

fn beside_stranger(world: &World, script: &str) -> Done {
    let mdns = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign/mdns.py");
    on_two_hosts(world, &format!("MDNS={mdns}\n{STRANGER}\n{script}"))
}

#[test]
fn who_says_to_be_another_is_found_out_and_not_remembered() {
    if skip_without(&NEEDS) || skip_without(&[Need::Program("python3")]) {
        return;
    }
    let world = World::new();
    world.write("served/a.txt", b"a");
    let (own, other) = (world.fingerprint("own"), world.fingerprint("other"));
    let script = format!(
        r#"
        addresses 0
        serve events served --on udp://10.0.0.2:7001 --hidden
        stranger answer kitchen {other} 7001 10.0.0.2
        "$cabo" get //kitchen/a.txt 2> said; echo $? > code
        "$cabo" keys list > known
    "#
    );
    beside_stranger(&world, &script).good();
    let read = |name| std::fs::read_to_string(world.path(name)).unwrap();
    let said = read("said");
    assert_eq!(read("code"), "4\n", "{said}");
    assert!(said.contains("//kitchen: who answers at udp://10.0.0.2:7001 says to be"), "{said}");
    assert!(said.contains(&format!("{other} and is {own}")), "{said}");
    assert!(!read("known").contains("kitchen"), "{}", read("known"));
    assert!(!world.path("a.txt").exists());
}

#[test]
fn a_flood_of_answers_drives_no_terminal_and_hides_nobody_on_ethernet() {
    if skip_without(&NEEDS) || skip_without(&[Need::Program("python3")]) {
        return;
    }
    let world = World::new();
    world.write("served/a.txt", b"a");
    let script = r#"
        addresses 0
        serve events served --on eth://f0 --on udp://10.0.0.2:7001 --name kitchen
        stranger flood
        ulimit -v 4000000 # KiB; threads map more than they use
        "$cabo" ls > listed 2> warned || { cat warned; exit 94; }
        "$cabo" ls --json > json || exit 93
        "$cabo" get //kitchen/a.txt || exit 92
        kill -0 $stranger && kill -0 $server || exit 91
    "#;
    beside_stranger(&world, script).good();
    let read = |name| std::fs::read(world.path(name)).unwrap();
    for name in ["listed", "warned", "json"] {
        let text = read(name);
        let is_harmless = |byte: &u8| *byte == b'\n' || !byte.is_ascii_control();
        assert!(text.iter().all(is_harmless), "{name}: {}", text.escape_ascii());
        assert!(String::from_utf8(text).is_ok(), "{name}");
    }
    let json = String::from_utf8(read("json")).unwrap();
    let kitchen = lines(&json).into_iter().find(|line| line["name"] == "kitchen").unwrap();
    assert!(kitchen["url"].as_str().unwrap().starts_with("eth://"), "{kitchen}");
    assert_eq!(read("a.txt"), b"a");
}

#[test]
fn without_the_privilege_to_ask_links_it_is_said_once_and_ip_is_asked() {
    if skip_without(&NEEDS) || skip_without(&[Need::Program("setpriv")]) {
        return;
    }
    let world = World::new();
    world.write("served/a.txt", b"a");
    let script = r#"
        addresses 0; addresses 1
        serve events served --on udp://10.0.0.2:7001 --on eth://f0 --name kitchen
        until_said udp://10.0.0.2:7001 setpriv --bounding-set=-all --inh-caps=-all "$cabo" ls
        mv said listed; mv said.errors warned
        setpriv --bounding-set=-all --inh-caps=-all "$cabo" get //kitchen/a.txt || exit 96
    "#;
    on_two_hosts(&world, script).good();
    let read = |name| std::fs::read_to_string(world.path(name)).unwrap();
    assert!(!read("listed").contains("eth://"), "{}", read("listed"));
    let warned = read("warned");
    assert_eq!(warned.matches("sudo setcap cap_net_raw+ep /").count(), 1, "{warned}");
    assert_eq!(warned.lines().count(), 1, "{warned}");
    assert_eq!(read("a.txt"), "a");
}

#[test]
fn a_transfer_goes_on_by_another_carrier_when_its_own_is_taken_away() {
    if skip_without(&NEEDS) {
        return;
    }
    let world = World::new();
    let film = world.write_large("served/film.mp4", 300);
    let script = r#"
        addresses 0
        serve events served --on udp://10.0.0.2:7001 --on eth://f1:77 --name kitchen
        "$cabo" get //kitchen/film.mp4 -o copy.mp4 2> said & get=$!
        until test -s copy.mp4.cabo-partial; do kill -0 $get || exit 97; sleep 0.02; done
        ip link del n0 # somebody leaves the Wi-Fi
        up 1           # and plugs the cable
        wait $get || { cat said; exit 96; }
    "#;
    on_two_hosts(&world, script).good();
    let said = std::fs::read_to_string(world.path("said")).unwrap();
    assert!(said.contains("//kitchen is at udp://10.0.0.2:7001"), "{said}");
    assert!(said.contains("going on"), "{said}");
    assert_same_file(&film, &world.path("copy.mp4"));
}

#[test]
fn a_bad_name_is_refused_where_it_is_given_and_where_it_is_asked_for() {
    let world = World::new();
    world.write("served/a.txt", b"a");
    for name in ["", " kitchen", "kitchen ", "a\nb", &"x".repeat(57)] {
        let done = world.run(&["serve", "served", "--on", "tcp://127.0.0.1:0", "--name", name]);
        assert_eq!(done.code, Some(2), "{name:?} {done:?}");
    }
    world.run(&["ls", "//"]).failed(2, &["a server's name has 1 to 56 bytes"]);
    world.run(&["get", "//a%0Ab/x"]).failed(2, &["a server's name has 1 to 56 bytes"]);
    let both = world.run(&["serve", "served", "--hidden", "--name", "kitchen"]);
    assert_eq!(both.code, Some(2), "{both:?}");
}
