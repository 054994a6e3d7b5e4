//! Where datagrams lead: groups, broadcasts and closed ports, in namespaces that each test makes: nobody has to be root.

use std::net::UdpSocket;
use std::process::Command;

use crate::needs::{Need, skip_without};
use crate::world::{World, finish};

fn cannot_make_links() -> bool {
    skip_without(&[Need::Program("unshare"), Need::Program("ip"), Need::Namespaces])
}

/// A script in a namespace whose links are what `links` makes; `$0` is cabo.
fn inside(world: &World, links: &str, script: &str) -> Command {
    let cabo = world.cabo();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "sh", "-ec"]);
    command.arg(format!("{links}\n{script}")).arg(cabo.get_program());
    for (name, value) in cabo.get_envs() {
        value.map(|value| command.env(name, value));
    }
    command.current_dir(world.path(""));
    command
}

/// Two ends of a cable whose addresses can be used at once.
const CABLE: &str = "
    ip link add v0 type veth peer name v1
    for end in v0 v1; do echo 0 > /proc/sys/net/ipv6/conf/$end/accept_dad; done
    ip address add 10.9.8.7/25 dev v0
    ip link set v0 up; ip link set v1 up";

/// Hears what is sent to `$1` at `$2`, and prints that event.
const HEAR: &str = r#"
    hear() {
        mkfifo said
        "$0" listen "$2" --open --json > said &
        exec 3< said
        read listening <&3
        "$0" send "$1" hola
        while read event <&3; do case $event in *'"message"'*) echo "$event"; break;; esac; done
        kill $!; wait $!; exec 3<&-; rm said
    }"#;

#[test]
fn groups_of_a_link_and_broadcasts_are_heard_at_the_interface_that_is_named() {
    if cannot_make_links() {
        return;
    }
    for (to, at) in [
        ("udp://[ff02::77]:5034?if=v0", "udp://[ff02::77]:5034?if=v0"),
        ("udp://[ff02::77]:5034?if=v0", "udp://[ff02::77%v0]:5034"),
        ("udp://[ff05::77]:5034?if=v0", "udp://[ff05::77]:5034?if=v0"),
        ("udp://255.255.255.255:5034?if=v0", "udp://255.255.255.255:5034?if=v0"),
        ("udp://10.9.8.127:5034", "udp://255.255.255.255:5034?if=v0"),
    ] {
        let world = World::new();
        let script = format!("{HEAR}\nhear '{to}' '{at}'");
        let done = finish(&mut inside(&world, CABLE, &script)).good();
        assert!(done.out.contains(r#""payload":"hola""#), "{to}, {at}: {}", done.out);
    }
}

#[test]
fn without_a_way_the_call_that_failed_is_named_and_an_interface_is_asked_for() {
    if cannot_make_links() {
        return;
    }
    for (command, call) in [
        ("listen udp://239.192.1.1:5034", "join the group: No such device"),
        ("listen udp://[ff02::77]:5034", "bind: Invalid argument"),
        ("send udp://239.192.1.1:5034 hola", "sendto: Network is unreachable"),
        ("send udp://255.255.255.255:5034 hola", "sendto: Network is unreachable"),
    ] {
        let world = World::new();
        let done = finish(&mut inside(&world, "", &format!("exec \"$0\" {command}")));
        let code = if command.starts_with("send") { 3 } else { 1 };
        done.failed(code, &[call, "?if=INTERFACE"]);
    }
}

#[test]
fn a_closed_port_is_told_by_its_host_and_silence_by_us() {
    let world = World::new();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("udp://{}", silent.local_addr().unwrap());
    let done = world.run(&["send", &url, "--wait", "100ms", "hola"]).good();
    assert_eq!((&*done.out, done.err.trim_end()), ("", "no answer within 100ms"));
    assert_eq!(world.run(&["send", &url, "hola"]).good().err, "", "it was not asked to wait");

    if cannot_make_links() {
        return;
    }
    let closed =
        "nobody listens at udp://127.0.0.1:5034: the host answered that the port is closed";
    for script in [
        r#"exec "$0" send udp://127.0.0.1:5034 --wait 60s hola"#,
        r#"exec "$0" send 'udp://127.0.0.1:5034?from=:4000' --wait 60s hola"#,
        r#"echo hola | "$0" connect udp://127.0.0.1:5034 --wait 60s"#,
    ] {
        finish(&mut inside(&world, "ip link set lo up", script)).failed(3, &[closed]);
    }
}

/// Two cables from here to a second namespace, which `there COMMAND ..` is run in: both ends have addresses, and each takes
/// what comes for any of them.
const TWO_CABLES: &str = r#"
    mkfifo up
    unshare --net sh -c 'echo up > up; exec sleep 1000' & other=$!
    trap 'kill $other' EXIT
    read is_up < up
    there() { nsenter --net=/proc/$other/ns/net "$@"; }
    for cable in v w; do
        case $cable in v) net=10.9.8;; w) net=10.9.9;; esac
        ip link add ${cable}0 type veth peer name ${cable}1 netns $other
        ip address add $net.7/24 dev ${cable}0; ip link set ${cable}0 up
        there ip address add $net.8/24 dev ${cable}1; there ip link set ${cable}1 up
    done
    for filter in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $filter; done"#;

/// Hears at `w0` alone, whatever of it was sent to which address, and leaves when it hears `last`.
const HEAR_AT_W0: &str = r#"
    mkfifo said
    "$0" listen 'udp://0.0.0.0:5034?if=w0' --open $more > said & listen=$!
    exec 3< said
    read listening <&3
    there "$0" send 'udp://10.9.8.7:5034?if=v1' --wait 60s by-v0 && exit 9 || :
    there "$0" send 'udp://10.9.9.7:5034?if=v1' --wait 60s to-w0-by-v0 && exit 9 || :
    there "$0" send 'udp://10.9.8.7:5034?if=w1' to-v0-by-w0
    there "$0" send udp://10.9.9.7:5034 --as cabo from-a-cabo-peer
    there "$0" send udp://10.9.9.7:5034 last
    while read event <&3; do case $event in
        *'"payload":"last"'*) break;;
        *'"payload"'*) echo "$event";;
    esac; done
    kill $listen; wait $listen"#;

#[test]
fn a_socket_with_an_interface_hears_and_sends_by_it_alone() {
    if cannot_make_links() || skip_without(&[Need::Program("nsenter")]) {
        return;
    }
    let closed = "the host answered that the port is closed";
    for more in ["--json", "--json --explain"] {
        let world = World::new();
        let script = format!("more='{more}'\n{HEAR_AT_W0}");
        let done = finish(&mut inside(&world, TWO_CABLES, &script)).good();
        let heard =
            ["to-v0-by-w0", "from-a-cabo-peer"].map(|text| format!("\"payload\":\"{text}\""));
        let lines: Vec<&str> = done.out.lines().collect();
        assert_eq!(lines.len(), heard.len(), "{more}: {done:?}");
        for (line, heard) in lines.into_iter().zip(heard) {
            assert!(line.contains(&heard), "{more}: {heard}: {line}");
        }
        assert_eq!(done.err.matches(closed).count(), 2, "{more}: {}", done.err);
    }
}

#[test]
fn an_interface_takes_no_privilege_and_has_to_be_there() {
    let world = World::new();
    let cases: [(&[&str], i32); 2] = [
        (&["listen", "udp://127.0.0.1:0?if=nope0"], 1),
        (&["send", "udp://127.0.0.1:9?if=nope0", "x"], 3),
    ];
    for (args, code) in cases {
        world.run(args).failed(code, &["there is no interface \"nope0\" here; there are: "]);
    }
    if cannot_make_links() {
        return;
    }
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("udp://{}?if=lo", silent.local_addr().unwrap());
    finish(world.cabo_unprivileged().args(["send", &url, "hola"])).good();
    let mut heard = [0; 9];
    let len = silent.recv(&mut heard).unwrap();
    assert_eq!(&heard[..len], b"hola");
}
