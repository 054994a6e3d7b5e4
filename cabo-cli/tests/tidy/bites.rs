//! Each rule of `main.rs` bites: a rule that cannot fail is a wish.

use crate::{Finding, arrows, clauses, lengths, source::Source, text, words};

type Rule = fn(&Source) -> Vec<Finding>;

/// What `rule` says about one small file, as `line: text`.
fn says(rule: impl Fn(&Source) -> Vec<Finding>, path: &str, text: &str) -> String {
    let found = rule(&Source::new(path, text));
    found.iter().map(|f| format!("{}: {}\n", f.line, f.text)).collect()
}

/// Holds each rule to the finding that it must begin with.
fn bite(rows: &[(Rule, &str, &str, &str)]) {
    for (rule, path, text, expected) in rows {
        let said = says(rule, path, text);
        assert!(
            said.starts_with(expected),
            "{path} with {text:?}: expected {expected:?}, got {said:?}"
        );
    }
}

#[test]
fn on_text() {
    let long = "x".repeat(129);
    let home = concat!("see `/ho", "me/ana/x`");
    bite(&[
        (text::file_name, "cabo/src/util.rs", "", "1: R5"),
        (text::file_name, "cabo/src/common/a.rs", "", "1: R5"),
        (text::file_header, "cabo/src/a.rs", "fn f() {}", "1: R6"),
        (text::file_size, "cabo/src/a.rs", &long, "1: 129 columns"),
        (text::file_size, "cabo/src/a.rs", &"\n".repeat(801), "800: 801 lines"),
        (text::leftovers, "cabo/src/a.rs", concat!("\n// TO", "DO: later"), "2: TO"),
        (text::machine_paths, "a.md", home, "1: the path of one machine"),
        (text::punctuation, "a.rs", "// \u{201c}so\u{201d}", "1: plain ASCII"),
        (text::unexplained_unsafe, "cabo/src/lab.rs", "// fast\nunsafe { f() }", "2: say why"),
    ]);
}

#[test]
fn on_words() {
    let client = "use tokio::net::TcpStream;";
    let carrier = "use crate::{server::Server};";
    bite(&[
        (words::banned_words, "cabo/src/a.rs", "\nfn f() { todo!() }", "2: `todo!`"),
        (
            words::banned_words,
            "cabo-proto/src/a.rs",
            "use std::{io, net::IpAddr};",
            "1: `std::net`",
        ),
        (
            words::banned_words,
            "cabo-proto/src/a.rs",
            "fn f() { fastrand::u64(..) }",
            "1: `fastrand::u64`",
        ),
        (words::banned_words, "cabo-proto/tests/a.rs", "fn f() { sleep(x) }", "1: `sleep`"),
        (
            words::banned_words,
            "cabo/src/a.rs",
            "fn f() { SystemTime::now() }",
            "1: `SystemTime::now`: R7",
        ),
        (words::banned_words, "cabo/src/client.rs", client, "1: `TcpStream`: R3"),
        (words::banned_words, "cabo/src/carrier/udp.rs", carrier, "1: `crate::server`: R3"),
    ]);
}

#[test]
fn on_arrows() {
    let upward = "use crate::{session::Side, since};";
    let manifest = "[dependencies]\ntokio.workspace = true";
    bite(&[
        (arrows::room_arrows, "cabo-proto/src/wire/a.rs", upward, "1: R2: `wire`"),
        (
            arrows::room_arrows,
            "cabo-proto/src/transport/a.rs",
            "\nuse super::super::sim::Net;",
            "2: R2: `transport`",
        ),
        (arrows::room_arrows, "cabo-proto/src/attic/a.rs", "", "1: R2: a new room"),
        (arrows::dependencies, "cabo-proto/Cargo.toml", manifest, "2: `tokio`: R1"),
    ]);
}

#[test]
fn but_not_without_cause() {
    let rows: &[(Rule, &str, &str)] = &[
        (
            words::banned_words,
            "cabo-proto/src/a.rs",
            "// no std::net here\nfn f() -> &str { \"std::net\" }",
        ),
        (
            words::banned_words,
            "cabo/src/client.rs",
            "fn f() {}\n#[cfg(test)]\nmod tests { use tokio::net::TcpStream; }",
        ),
        (
            text::unexplained_unsafe,
            "cabo/src/lab.rs",
            "// SAFETY: no pointer is passed.\nunsafe { f() }",
        ),
        (
            arrows::room_arrows,
            "cabo-proto/src/session/a.rs",
            "use crate::{transport::Loss, wire::Packet};",
        ),
        (
            arrows::room_arrows,
            "cabo-proto/src/session/b/a.rs",
            "use super::super::wire; use super::sim;",
        ),
        (arrows::room_arrows, "cabo-proto/src/wire/tests.rs", "use crate::sim::origin;"),
        (text::machine_paths, "a.md", concat!("~/wo", "rk/x and http://a.b/ho", "me/x")),
    ];
    for (rule, path, text) in rows {
        assert_eq!(says(rule, path, text), "", "{path} with {text:?}");
    }
}

#[test]
fn the_list_of_long_functions_only_shrinks() {
    let long = format!("fn f() {{\n{}}}\n", "    g();\n".repeat(78));
    let said = |list: &str, text: &str| -> Vec<String> {
        let files = [Source::new("a.rs", text)];
        lengths::long_functions(&files, list)
            .into_iter()
            .map(|f| format!("{}:{}: {}", f.path, f.line, f.text))
            .collect()
    };
    assert_eq!(said("a.rs f 80", &long), [""; 0], "an exception is allowed at its length");
    assert!(said("", &long)[0].starts_with("a.rs:1: `f` has 80 lines"));
    assert!(said("a.rs f 79", &long)[0].starts_with("a.rs:1: `f` grew to 80 lines"));
    assert!(said("# list\na.rs f 81", &long)[0].contains("txt:2: `f` has only 80 lines"));
    assert!(said("a.rs f 80", "fn f() {}")[0].contains("txt:1: `f` of a.rs is short by now"));
}

#[test]
fn on_the_whole_tree() {
    let file = |path: &str, text: &str| Source::new(path, text);
    let clock = "fn epoch() { Instant::now() }";
    let clocks = [file("cabo-proto/src/a.rs", clock), file("cabo-proto/src/b.rs", clock)];
    assert_eq!(arrows::second_clocks(&clocks).len(), 2);
    assert_eq!(arrows::second_clocks(&clocks[..1]).len(), 0);

    let tree = [
        file("cabo/src/lib.rs", "mod alive;"),
        file("cabo/src/alive.rs", ""),
        file("cabo/src/dead.rs", ""),
    ];
    let dead: Vec<String> = arrows::dead_files(&tree).into_iter().map(|f| f.path).collect();
    assert_eq!(dead, ["cabo/src/dead.rs"]);

    let mut tree = [
        file(
            "cabo/src/a/mod.rs",
            "#[cfg(test)]\n#[path = \"b_tests.rs\"]\nmod tests;\n#[cfg(test)]\nmod loop_back;",
        ),
        file("cabo/src/a/loop_back.rs", "fn f() { println!() }"),
        file("cabo/src/a/b_tests.rs", ""),
        file("cabo/src/a/c.rs", "fn f() { println!() }"),
    ];
    crate::mark_tests(&mut tree);
    let printing: Vec<String> = tree.iter().flat_map(words::banned_words).map(|f| f.path).collect();
    assert_eq!(printing, ["cabo/src/a/c.rs"], "tests may print");
    let declared = arrows::dead_files(&tree).into_iter().all(|f| f.path != "cabo/src/a/b_tests.rs");
    assert!(declared, "a file may be declared by its path");

    // The letter is put in at run time, or the rule would read these as citations of this file.
    let with_letter = |text: &str| text.replace('$', "W");
    let page = file(
        "docs/protocol/wire.md",
        &with_letter("## $-1 Words\n- **$-1.2** text\n- **$-1.2** again"),
    );
    let code =
        file("cabo/src/a.rs", &with_letter("//! $-1, $-1.2. Not GW-3, not $-4th.\n// ($-1.9)"));
    let found = clauses::unknown_clauses(&[page, code]);
    let found: Vec<String> =
        found.into_iter().map(|f| format!("{}:{}: {}", f.path, f.line, f.text)).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with(&with_letter(
        "docs/protocol/wire.md:3: $-1.2 is defined twice, first in line 2"
    )));
    assert!(
        found[1].starts_with(&with_letter(
            "cabo/src/a.rs:2: $-1.9 is no clause of docs/protocol/wire.md"
        ))
    );
}
