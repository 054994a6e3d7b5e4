//! `cabo dialect`: descriptions as text, checked, drawn, as commands.

use crate::world::{World, assert_committed};

#[test]
fn what_is_built_in_is_listed_and_shown_as_a_file_that_checks() {
    let world = World::new();
    let list = world.run(&["dialect", "list"]).good().out;
    assert_committed("dialect-list.txt", &list);
    let names: Vec<String> = world
        .run(&["dialect", "list", "--json"])
        .good()
        .out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|dialect| dialect["name"].as_str().unwrap().to_owned())
        .collect();
    assert!(names.iter().any(|name| name == "tp0"), "{names:?}");
    for name in names {
        assert!(list.contains(&name), "{name}");
        let text = world.run(&["dialect", "show", &name]).good().out;
        world.write("shown.toml", text.as_bytes());
        world.run(&["dialect", "check", "shown.toml"]).good();
    }
    world.run(&["dialect", "show", "tp1"]).failed(2, &["tp1", "tp0-bare", "led"]);
    let cut = "\"length:!L\" is a cut or a layout: that is all of its text";
    world.run(&["dialect", "show", "length:!L"]).failed(2, &[cut, "tp0"]);
}

/// D-1.4, D-1.9, D-3: offsets, sizes and rules of every field.
#[test]
fn a_file_is_summed_up_with_the_offset_and_size_of_every_field() {
    let world = World::new();
    for name in ["tp0", "labs-record"] {
        let text = world.run(&["dialect", "show", name]).good().out;
        world.write("shown.toml", text.as_bytes());
        let checked = world.run(&["dialect", "check", "shown.toml"]).good().out;
        assert_committed(&format!("dialect-check-{name}.txt"), &checked);
        assert_eq!(world.run(&["dialect", "check", name]).good().out, checked);
        let checked = world.run(&["dialect", "check", "shown.toml", "--json"]).good().out;
        let checked: serde_json::Value = serde_json::from_str(&checked).unwrap();
        assert_eq!(checked["name"], name);
        assert_eq!(checked["kinds"][0]["fields"][1]["at"], if name == "tp0" { 4 } else { 1 });
    }
}

#[test]
fn a_mistake_is_named_with_its_line_and_column() {
    let world = World::new();
    let cases: [(&str, &[&str]); 6] = [
        ("name = 'x'\n[kind.a]\nlayout = '!B:a Z:b'\n", &["line 3, column 10", "Z"]),
        ("[kind.a]\nlayout = '!{n}s:text'\n", &["line 2, column 10", "n"]),
        ("port = 70000\n", &["line 1, column 8", "1 to 65535"]),
        ("cut = 'packets'\n", &["line 1, column 7", "lines"]),
        ("[kind.a]\nlayout = '!B:a'\nfield.b.default = 1\n", &["line 3, column 7", "\"b\""]),
        ("[hello\n", &["line 1, column 7"]),
    ];
    for (text, words) in cases {
        world.write("bad.toml", text.as_bytes());
        let words = [&["bad.toml"], words].concat();
        world.run(&["dialect", "check", "bad.toml"]).failed(1, &words);
    }
    world.run(&["dialect", "check", "none.toml"]).failed(1, &["none.toml", "No such file"]);
    // A file of that name is what is meant by its name.
    world.write("tp0", b"[hello\n");
    world.run(&["dialect", "check", "tp0"]).failed(1, &["tp0: line 1, column 7"]);
}

#[test]
fn messages_are_drawn_under_a_ruler_of_bytes() {
    let world = World::new();
    let layout = "struct:@B:a d:b 3h:c ?:is B:q=7";
    for (name, golden) in [
        ("labs-header", "labs-header"),
        ("labs-record", "labs-record"),
        ("tp0", "tp0"),
        (layout, "native"),
        ("length:!B:version L:size", "length"),
    ] {
        let drawn = world.run(&["dialect", "picture", name]).good().out;
        assert_committed(&format!("dialect-picture-{golden}.txt"), &drawn);
    }
    world.run(&["dialect", "picture", "lines"]).failed(2, &["no fields"]);
}

/// Every command that is printed can be typed: without a host there it fails at the connection, not before.
#[test]
fn templates_are_commands_that_work() {
    let world = World::new();
    let mut all = String::new();
    for name in [
        "tp0",
        "tp0-byte",
        "tp0-big-endian",
        "labs-record",
        "labs-header",
        "led",
        "length:!B:version L:size",
        "struct:!BLL20s",
        "lines",
    ] {
        let printed = world.run(&["dialect", "template", name]).good().out;
        for command in printed.lines().filter(|line| !line.starts_with('#')) {
            let plain = command.replace('\'', "").replace("HOST:PORT", "HOST");
            let words = plain.replace("HOST", "127.0.0.1:1");
            if name == "length:!B:version L:size" {
                continue; // its layout is several words of a shell
            }
            let words: Vec<&str> = words.split(' ').skip(1).collect();
            world.run(&words).failed(3, &["refused"]);
        }
        all.push_str(&printed);
    }
    assert_committed("dialect-template.txt", &all);
}
