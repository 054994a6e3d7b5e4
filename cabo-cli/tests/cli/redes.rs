//! The course protocol between this program and itself, and with `kermit.py`, which knows nothing of it.
//!
//! All of it on loopback or on links that each test makes in namespaces of its own (`docs/redes.md`).

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::needs::{Need, skip_without};
use crate::world::{Done, World, assert_same_file, finish};

const LAY: &str = "ip link set lo up && ip link add v0 type veth peer name v1 \
                   && ip link set v0 up && ip link set v1 up";
/// What a script of these tests may call.
const WORDS: &str = r#"
    until_says() { until grep -qs "$2" "$1"; do kill -0 $3 || exit 98; sleep 0.02; done; }
    serve() {
        rm -f events; "$0" serve served --json --on "$@" > events 2> errors & server=$!
        until_says events ready $server
    }
    stop() { kill $server && wait $server; }
    foreign() {
        rm -f foreign; python3 "$KERMIT" serve "$@" > foreign 2> foreign-errors & other=$!
        until_says foreign ready $other
    }
    watch() { rm -f watch; python3 "$KERMIT" watch "$@" > watch & watcher=$!; until_says watch ready $watcher; }
    kermit() { python3 "$KERMIT" "$@"; }
    same() { cmp "served/$1" "${2:-$1}" || exit 97; }
"#;

fn skip() -> bool {
    let programs = ["unshare", "ip", "python3", "cmp"].map(Need::Program);
    skip_without(&programs) || skip_without(&[Need::Namespaces])
}

/// Runs a script in a network and with mounts of its own, beside what `before` makes of that.
fn script(world: &World, before: &str, script: &str) -> Done {
    let all = format!("{WORDS}\n{{ {before}; }} || exit 99\n{script}");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--mount", "sh", "-c", &all]);
    let cabo = world.cabo();
    command.arg(cabo.get_program()).current_dir(world.path(".")).env_clear();
    command.envs(cabo.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command.env("KERMIT", Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/kermit.py"));
    command.env("TZ", "America/Sao_Paulo");
    finish(&mut command)
}

/// Bytes that repeat nowhere near.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[2]
    };
    (0..len).map(|_| next()).collect()
}

const SIZES: [usize; 7] = [0, 1, 62, 63, 64, 126, 2_115_821];

fn world_with_sizes() -> World {
    let world = World::new();
    for size in SIZES {
        world.write(&format!("served/{size}"), &noise(size));
    }
    world
}

#[test]
fn files_of_every_size_cross_a_link_in_every_layout_and_sequence() {
    if skip() {
        return;
    }
    let world = world_with_sizes();
    let mut steps = String::new();
    for layout in ["c69", "c68", "lsb", "msb"] {
        for more in [
            "window=5",
            "window=1",
            "sequence=streaming",
            "sequence=wired",
            "header=on",
            "crc=frame",
        ] {
            let query = format!("?layout={layout}&{more}");
            steps.push_str(&format!("serve 'redes://v0{query}' --open\n"));
            let sizes =
                if more == "window=5" { "0 1 62 63 64 126 2115821" } else { "0 63 126 2115821" };
            steps.push_str(&format!(
                "for size in {sizes}; do \"$0\" get -q \"redes://v1/$size{query}\" || exit 96; same $size; rm $size; done\n"
            ));
            steps.push_str("stop || exit 95\n");
        }
    }
    script(&world, LAY, &steps).good();
}

#[test]
fn the_time_is_restored_and_the_catalogue_numbered() {
    if skip() {
        return;
    }
    let world = World::new();
    world.write("served/b.mp4", b"b");
    world.write("served/a\u{e9}.mp4", b"a");
    world.write("served/folder/inner", b"i");
    world.write(&format!("served/{}", "n".repeat(64)), b"too long");
    let steps = r#"touch -d '2024-06-18 21:05:33' served/b.mp4
        ln -s /etc/passwd served/out
        serve redes://lo
        "$0" ls redes://lo && "$0" get redes://lo/b.mp4 && stat -c %Y b.mp4
        "$0" ls --json redes://lo && stop"#;
    let done = script(&world, LAY, steps).good();
    let seconds = "1718755533"; // 21:05:33 in the zone of these tests
    assert!(done.out.starts_with("[1] a\u{e9}.mp4\n[2] b.mp4\n"), "{done:?}");
    assert!(done.out.contains("modified 2024-06-18 21:05:33"), "{done:?}");
    assert!(done.out.contains(&format!("\n{seconds}\n")), "{done:?}");
    assert!(done.out.contains(r#""url":"redes://lo/a%C3%A9.mp4""#), "{done:?}");
    let events = fs::read_to_string(world.path("events")).unwrap();
    assert!(events.contains(r#""names_left_out":1"#), "{events}");
}

#[test]
fn a_foreign_client_lists_and_fetches() {
    if skip() {
        return;
    }
    let world = world_with_sizes();
    let steps = r#"
        for link in v0/v1 lo/lo; do
            case $link in lo*) serve redes://lo;; *) serve redes://v0 --open;; esac
            for size in 0 1 62 63 64 126 2115821; do
                kermit get ${link#*/} $size copy > said || exit 96; same $size copy
            done
            cat said; stop
        done
        serve redes://v0 --open
        kermit get v1 126 copy junk && same 126 copy && stop"#;
    let done = script(&world, LAY, steps).good();
    let names = ["0", "1", "126", "2115821", "62", "63", "64"];
    assert!(done.out.starts_with(&names.map(|name| format!("{name}\n")).concat()), "{done:?}");
}

#[test]
fn a_foreign_server_is_listed_and_fetched_from() {
    if skip() {
        return;
    }
    let world = world_with_sizes();
    let mut steps = String::new();
    for (size, junk) in SIZES.into_iter().zip(["", "junk"].into_iter().cycle()) {
        for (theirs, ours) in [("v0", "v1"), ("lo", "lo")] {
            steps.push_str(&format!(
                r#"foreign {theirs} served {junk}
                "$0" get -q redes://{ours}/{size} || exit 96; same {size}; rm {size}; kill $other
                "#
            ));
        }
    }
    // Its counter never begins anew: the later commands find it where the ones before left it (R-4.5).
    steps.push_str("foreign v0 served\n \"$0\" get -q redes://v1/126 || exit 95; same 126\n");
    steps.push_str("\"$0\" get -q redes://v1/2115821 || exit 94; same 2115821\n");
    steps.push_str("\"$0\" ls redes://v1\n \"$0\" get redes://v1/nope; echo $?; kill $other");
    let done = script(&world, LAY, &steps).good();
    assert!(done.out.ends_with("[6] 63\n[7] 64\n1\n"), "{done:?}");
    assert!(done.err.contains("redes://v1/nope: not found"), "{done:?}");
}

/// R-2.3: the kernel takes four bytes out of a frame with a tag at byte 12; we put them back.
#[test]
fn vlan_tags_at_every_offset_survive_with_and_without_the_cut() {
    if skip() {
        return;
    }
    let world = World::new();
    for (name, tag) in [("q", [0x81, 0x00]), ("ad", [0x88, 0xA8])] {
        let frame = |at: usize| [vec![0x11; at], tag.to_vec(), vec![0x22; 61 - at]].concat();
        let whole: Vec<u8> = (0..62).flat_map(frame).collect();
        world.write(&format!("served/{name}"), &whole);
    }
    let mut steps = String::new();
    for layout in ["c69", "c68", "lsb", "msb"] {
        for cut in ["on", "off"] {
            let query = format!("?layout={layout}&cut={cut}");
            steps.push_str(&format!(
                r#"serve 'redes://v0{query}' --open; watch v0 frames
                for name in q ad; do "$0" get -q "redes://v1/$name{query}" || exit 96; same $name; rm $name; done
                stop; kill $watcher; wait $watcher
                grep -cE '^.{{24}}(8100|88a8)' frames
                "#
            ));
        }
    }
    // Who does not put them back gets the file where it is cut.
    steps.push_str(
        "serve redes://v0 --open; kermit get v1 q copy > said || exit 95; same q copy; stop",
    );
    let done = script(&world, LAY, &steps).good();
    let counts: Vec<u32> = done.out.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(counts.len(), 8, "{done:?}");
    for pair in counts.chunks(2) {
        assert_eq!(pair[0], 0, "cut: no frame has a tag: {done:?}");
        assert!(pair[1] > 0, "not cut: the test would show nothing: {done:?}");
    }
}

#[test]
fn names_that_lead_out_or_nowhere_are_refused_and_nothing_of_them_is_sent() {
    if skip() {
        return;
    }
    let world = World::new();
    world.write("secret", b"secret");
    world.write("served/a", b"a");
    world.write("served/folder/inner", b"i");
    world.write(&format!("served/{}", "n".repeat(63)), b"63");
    let hex = |name: &[u8]| name.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let names: [&[u8]; 12] = [
        b"../secret",
        b"/etc/passwd",
        b"a\0b",
        b"\0",
        b"",
        b".",
        b"..",
        b"folder",
        b"folder/inner",
        b"./a",
        b"a/",
        b"nothing",
    ];
    let asks: String =
        names.iter().map(|name| format!("kermit ask v1 '{}'\n", hex(name))).collect();
    let steps = format!(
        r#"ln -s ../secret served/out; mkfifo served/pipe
        serve redes://v0 --open
        {asks}
        kermit ask v1 {}; kermit ask v1 {}
        echo then
        kermit ask v1 {}; kermit ask v1 {}; stop"#,
        hex(b"out"),
        hex(b"pipe"),
        hex(b"a"),
        hex(&[b'n'; 63]),
    );
    let done = script(&world, LAY, &steps).good();
    let (refused, served) = done.out.split_once("then\n").unwrap();
    let lines: Vec<&str> = refused.lines().collect();
    assert_eq!(lines.len(), names.len() + 2, "{done:?}");
    assert!(
        lines.iter().all(|line| matches!(*line, "0x1f 02000000" | "0x1f 01000000")),
        "{done:?}"
    );
    assert_eq!(served.matches("0x12 ").count(), 2, "{done:?}");
    let long = format!("served-{}", "n".repeat(64));
    let done = script(&world, LAY, &format!(r#""$0" get redes://v0/{long}"#));
    done.failed(1, &["1 to 63 bytes"]);
}

#[test]
fn clients_that_vanish_restart_refuse_and_talk_nonsense_leave_a_server_that_serves() {
    if skip() {
        return;
    }
    let world = world_with_sizes();
    let steps = r#"
        serve redes://v0 --open
        kermit vanish v1 2115821 500
        "$0" get -q redes://v1/126 || exit 96; same 126; rm 126
        kermit vanish v1 2115821 500; kermit vanish v1 2115821 5
        kermit get v1 2115821 copy > /dev/null || exit 95; same 2115821 copy
        kermit refuse v1 2115821 && "$0" get -q redes://v1/64 && same 64 || exit 94
        python3 -c 'import os, socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(("v1", 0))
for n in range(5000): s.send(b"\x7e" + os.urandom(14 + n % 80))'
        "$0" get -q redes://v1/2115821 && same 2115821 || exit 93
        kill -0 $server && stop"#;
    script(&world, LAY, steps).good();
    let events = fs::read_to_string(world.path("events")).unwrap();
    assert!(events.contains("refused by the client: disk full"), "{events}");
}

/// One frame of the file is one DADOS and one ACK, or less.
#[test]
fn nothing_storms_on_loopback_and_nothing_hangs_in_fifty_runs() {
    if skip() {
        return;
    }
    let world = World::new();
    world.write("served/a", &noise(6300));
    let steps = r#"
        ping -i 0.002 -q 127.0.0.1 > /dev/null 2>&1 & ping=$!
        serve redes://lo; watch lo frames
        for run in $(seq 50); do
            "$0" get -q "redes://lo/a?window=$((run % 5 + 1))" || exit 96; same a; rm a
        done
        kill $watcher $ping; wait $watcher; stop"#;
    script(&world, LAY, steps).good();
    let frames = fs::read_to_string(world.path("frames")).unwrap();
    let count = frames.lines().count();
    assert!((50 * 100..50 * 100 * 3).contains(&count), "{count} frames for 5000 of data");
    for line in frames.lines() {
        let byte = |at: usize| u8::from_str_radix(&line[2 * at..2 * at + 2], 16).unwrap();
        assert!(byte(1) < 64 && byte(2) < 32 && byte(3) < 32, "stray bits: {line}");
        let rest = 2 * (4 + usize::from(byte(1)));
        assert!(line[rest..2 * 68].bytes().all(|digit| digit == b'0'), "stray bytes: {line}");
    }
}

#[test]
fn a_bad_cable_costs_time_and_nothing_else() {
    if skip() {
        return;
    }
    let world = world_with_sizes();
    world.write("served/200000", &noise(200_000));
    let lay = format!(
        "{LAY} && ip link add w0 type veth peer name w1 && ip link set w0 up && ip link set w1 up"
    );
    let steps = r#"
        "$0" relay v1 w0 --loss 5% --duplicate 5% --corrupt 5% 2> relay & relay=$!
        until_says relay Ctrl-C $relay
        try() {
            serve "redes://v0?$1" --open
            "$0" ls -q "redes://w1?$1" > listed || exit 95
            "$0" get -q "redes://w1/$2?$1" || exit 96; same $2; rm $2
            stop
        }
        try 'layout=c69&crc=frame' 2115821
        try 'layout=lsb&crc=frame&sequence=streaming' 200000
        try 'layout=msb&crc=frame&window=1' 200000
        kill $relay"#;
    script(&world, &lay, steps).good();
}

/// R-6.3: what was here when it was interrupted does not cross the link again.
#[test]
fn an_interrupted_download_goes_on_where_it_was_unless_the_file_is_another() {
    if skip() {
        return;
    }
    let world = World::new();
    let film = world.write_large("served/film", 30);
    let steps = r#"touch -d '2024-06-18 21:05:33' served/film
        partly() {
            "$0" get -q redes://v1/film & get=$!
            until test -s film.cabo-partial; do kill -0 $get || exit 96; sleep 0.02; done
            kill -INT $get; wait $get; echo $?; test ! -e film || exit 95
        }
        serve redes://v0 --open
        partly && "$0" get --json redes://v1/film && rm film
        partly && touch -d '2025-01-01 00:00:00' served/film && "$0" get --json redes://v1/film
        stop"#;
    let done = script(&world, LAY, steps).good();
    let lines: Vec<&str> = done.out.lines().collect();
    assert_eq!((lines[0], lines[2]), ("130", "130"), "{done:?}");
    assert!(!lines[1].contains(r#""resumed_bytes":0,"#), "{done:?}");
    assert!(lines[3].contains(r#""resumed_bytes":0,"#), "{done:?}");
    assert_same_file(&film, &world.path("film"));
}

#[test]
fn a_link_that_was_down_or_is_another_by_now_is_served_again() {
    if skip() {
        return;
    }
    let world = World::new();
    world.write_large("served/film", 20);
    let steps = r#"
        partly() {
            "$0" get -q redes://v1/film & get=$!
            until test -s film.cabo-partial; do kill -0 $get || exit 96; sleep 0.02; done
        }
        serve redes://v0 --open
        partly; ip link set v0 down; ip link set v0 up
        wait $get || exit 95; same film; rm film
        partly; ip link del v0; wait $get; echo $?
        ip link add v0 type veth peer name v1; ip link set v0 up; ip link set v1 up
        "$0" get -q redes://v1/film || exit 94; same film; stop"#;
    let done = script(&world, LAY, steps).good();
    assert_eq!(done.out, "5\n", "{done:?}");
}

#[test]
fn a_full_disk_and_a_file_that_changes_are_said_and_leave_nothing() {
    if skip() {
        return;
    }
    let world = World::new();
    world.write_large("served/film", 30);
    let steps = r#"
        mkdir small && mount -t tmpfs -o size=8m tmpfs small || exit 94
        serve redes://v0 --open
        "$0" get redes://v1/film -o small/; echo $?; ls -A small; echo good > film
        "$0" get -q redes://v1/film 2> changed & get=$!
        until test -s film.cabo-partial; do kill -0 $get || exit 96; sleep 0.02; done
        echo more >> served/film
        wait $get; echo $?; ls; cat film; cat changed >&2
        stop"#;
    let done = script(&world, LAY, steps).good();
    assert!(done.err.contains("disk full"), "{done:?}");
    assert!(done.err.contains("redes://v1/film: access denied"), "{done:?}");
    assert!(done.out.starts_with("1\n4\n"), "nothing is left, and both say so: {done:?}");
    assert!(!done.out.contains("cabo-partial") && done.out.ends_with("good\n"), "{done:?}");
    let events = fs::read_to_string(world.path("events")).unwrap();
    assert!(events.contains("refused by the client: disk full"), "{events}");
}

/// R-2.5: a bridge takes frames without a header for others' and drops them.
#[test]
fn a_header_takes_frames_across_a_bridge_and_the_privilege_is_given_up() {
    if skip() || skip_without(&[Need::Program("setpriv")]) {
        return;
    }
    let world = world_with_sizes();
    let lay = "ip link add b0 type bridge && ip link set b0 up \
               && ip link add v0 type veth peer name p0 && ip link add v1 type veth peer name p1 \
               && for link in v0 p0 v1 p1; do ip link set $link up; done \
               && ip link set p0 master b0 && ip link set p1 master b0";
    let steps = r#"
        alone="setpriv --bounding-set=-all,+net_raw --inh-caps=-all"
        $alone "$0" serve served --json --open --on redes://v0 --on 'redes://v0?header=on' > events 2> errors & server=$!
        until_says events ready $server
        $alone "$0" get -q 'redes://v1/2115821?header=on' || exit 96; same 2115821
        $alone "$0" ls redes://v1; echo $?
        grep -hE 'Cap(Eff|Prm)' /proc/$server/task/*/status | sort -u
        stop"#;
    let done = script(&world, lay, steps).good();
    let none = "0000000000000000";
    assert_eq!(done.out, format!("3\nCapEff:\t{none}\nCapPrm:\t{none}\n"), "{done:?}");
}

#[test]
fn who_may_enter_and_what_may_be_said_is_told_in_words() {
    if skip() {
        return;
    }
    let world = World::new();
    world.write("served/a", b"a");
    let run = |steps: &str| script(&world, LAY, steps);
    run(r#""$0" serve served --on redes://v0"#).failed(2, &["redes://v0", "--open"]);
    run(r#""$0" ls 'redes://v0?layout=c70'"#).failed(2, &["layout=c70", "c69, c68, lsb or msb"]);
    run(r#""$0" serve served --on 'redes://lo?speed=9'"#).failed(2, &["speed", "layout, crc"]);
    run(r#""$0" ls redes://nope"#).failed(1, &["no interface", "nope"]);
    run(r#""$0" get redes://v0"#).failed(2, &["which item?"]);
    run(r#""$0" get redes://v0/a"#).failed(3, &["no answer", "layout"]);
    let remedy = ["CAP_NET_RAW", "sudo setcap cap_net_raw+ep /"];
    finish(world.cabo_unprivileged().args(["ls", "redes://lo"])).failed(1, &remedy);
}
