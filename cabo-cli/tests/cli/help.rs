//! Help, completions and manual pages, as committed texts.

use std::process::Command;

use crate::world::{World, assert_committed, finish};

#[test]
fn every_help_is_what_was_committed() {
    let world = World::new();
    for name in [
        "demo",
        "serve",
        "ls",
        "get",
        "listen",
        "connect",
        "send",
        "dialect",
        "keys",
        "completions",
        "man",
        "relay",
        "lab",
    ] {
        let done = finish(world.cabo().args([name, "--help"])).good();
        assert_committed(&format!("{name}.txt"), &done.out);
        assert!(done.out.contains("Examples:"), "{name} has no example");
        assert!(done.out.contains("Exit codes:"), "{name} does not say how it ends");
        let again = finish(world.cabo().args(["help", name])).good();
        assert_eq!(again.out, done.out, "{name}");
    }
}

#[test]
fn the_first_page_shows_groups_and_leaves_out_what_is_seldom_needed() {
    let world = World::new();
    let first = world.run(&["help"]).good().out;
    assert!(first.contains("Files and films:"), "{first}");
    let widest = first.lines().map(str::len).max();
    assert!(widest <= Some(80), "a terminal of 80 columns would break a line: {first}");
    assert!(!first.contains("completions"), "{first}");
    let all = world.run(&["help", "--all"]).good().out;
    assert!(all.contains("completions") && all.contains("keys"), "{all}");
    assert_eq!(world.run(&["--help"]).good().out, first);
    world.run(&["help", "fly"]).failed(2, &["no command fly", "cabo help --all"]);
}

#[test]
fn shells_and_man_get_what_they_need() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let done = world.run(&["completions", shell]).good();
        assert!(done.out.contains("serve"), "{shell}");
    }
    world.run(&["man", "pages/man1"]).good();
    let page = std::fs::read_to_string(world.path("pages/man1/cabo-get.1")).unwrap();
    for words in
        [".SH EXIT STATUS\n.nf\n  0 ", "130", ".SH EXAMPLES\n.nf\n  cabo get ", ".SH SEE ALSO"]
    {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(!page.contains("EXTRA"), "{page}");
    let first = std::fs::read_to_string(world.path("pages/man1/cabo.1")).unwrap();
    assert!(first.contains(".SH SYNOPSIS\n\\fBcabo\\fR ["), "{first}");
    let page = std::fs::read_to_string(world.path("pages/man1/cabo-listen.1")).unwrap();
    let title = page.lines().find(|line| line.starts_with(".TH ")).unwrap();
    let version = concat!("\"cabo ", env!("CARGO_PKG_VERSION"), "\" \"Manual of cabo\"");
    assert!(title.starts_with(".TH cabo-listen 1 20") && title.ends_with(version), "{title}");
    let synopsis = page.split(".SH SYNOPSIS\n").nth(1).unwrap().lines().next().unwrap();
    for words in [
        r"\fBcabo listen\fR [\fB\-\-as\fR \fIDIALECT\fR] ",
        r"[\fB\-\-from\fR \fICIDR\fR]... ",
        r"[\fB\-\-once\fR] ",
        r" [\fB\-\-json\fR] [\fB\-\-quiet\fR] [\fB\-\-verbose\fR]... [\fIURL\fR]...",
    ] {
        assert!(synopsis.contains(words), "{words}: {synopsis}");
    }
}

#[test]
fn shells_complete_dialects_by_name_and_by_file() {
    let world = World::new();
    world.write("tpx.toml", b"");
    let script = world.run(&["completions", "bash"]).good().out;
    world.write("completions", script.as_bytes());
    let mut bash = world.within(Command::new("bash"), "own");
    let asked = "source completions; COMP_WORDS=(cabo send tcp://h --as tp); COMP_CWORD=4
        _cabo cabo tp --as; printf '%s\n' \"${COMPREPLY[@]}\"";
    let offered = finish(bash.args(["-c", asked])).good().out;
    let offered: Vec<&str> = offered.lines().collect();
    for name in ["tp0", "tp0-bare", "tpx.toml"] {
        assert!(offered.contains(&name), "{name}: {offered:?}");
    }
    assert!(!offered.contains(&"lines"), "{offered:?}");
    let zsh = world.run(&["completions", "zsh"]).good().out;
    assert_eq!(zsh.matches(":DIALECT:{compadd raw lines nul any cabo ").count(), 3);
    let fish = world.run(&["completions", "fish"]).good().out;
    assert_eq!(fish.matches(" -r -a \"raw lines nul any cabo ").count(), 3);
}
