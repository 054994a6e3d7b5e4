//! Help, completions and manual pages, as committed texts.

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
    assert!(world.path("pages/man1/cabo.1").exists());
}
