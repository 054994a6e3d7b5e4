//! Dialects against the bytes of the programs that speak them (D-5).

use super::*;
use assign::assign;

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal");
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// What the program of the description sends, from what a user types.
fn sent(spec: &str, kind: Option<&str>, given: &[(&str, &str)]) -> Bytes {
    let dialect = Dialect::parse(spec).expect("a dialect");
    let mut fields = Fields::default();
    for (path, text) in given {
        match dialect.kind(kind).expect("a kind") {
            Some(kind) => assign(&kind.layout, &mut fields, path, text.as_bytes()).expect("fits"),
            None => fields.set(path, Value::from(*text)),
        }
    }
    dialect.encode(kind, &fields, &mut Counters::default()).expect("fits")
}

/// A dialect, a kind of it, what is typed, and the bytes.
type Case<'c> = (&'c str, Option<&'c str>, &'c [(&'c str, &'c str)], &'c str);

/// The bytes that the foreign programs were seen to send, from what a user types, and back.
#[test]
fn built_in_dialects_have_the_bytes_of_the_programs() {
    let header = "01 00000004 00000001 686f6c61";
    let cases: [Case<'_>; 11] = [
        ("chat", None, &[("payload", "ola")], "6f6c61"),
        ("tp0", Some("MENSAJE"), &[("text", "valor")], "00000000 06000000 76616c6f7200"),
        (
            "tp0",
            Some("PAQUETE"),
            &[("values", "hola"), ("values", "mundo")],
            "01000000 13000000 05000000 686f6c6100 06000000 6d756e646f00",
        ),
        ("tp0-bare", Some("PAQUETE"), &[], "01000000 00000000"),
        ("tp0-byte", Some("MENSAJE"), &[("text", "hola")], "00 04000000 686f6c61"),
        ("tp0-big-endian", Some("MENSAJE"), &[("text", "hola")], "00000000 00000005 686f6c6100"),
        ("labs-header", None, &[("payload", "hola")], header),
        ("labs-header-order-first", None, &[("payload", "hola")], "01 00000001 00000004 686f6c61"),
        (
            "labs-record",
            None,
            &[("text", "ol\u{e1}")],
            "01 00000001 00000003 6f6cc3a1 2d2d2d2d 2d2d2d2d 2d2d2d2d 2d2d2d2d",
        ),
        ("led", None, &[("payload", "LED OFF")], "4c4544204f464600"),
        ("lines", None, &[("payload", "hola")], "686f6c610a"),
    ];
    for (spec, kind, given, wire) in cases {
        let bytes = sent(spec, kind, given);
        assert_eq!(bytes, hex(wire), "{spec} {given:?}");
        let dialect = Dialect::parse(spec).expect("a dialect");
        let mut cutter = cut::Cutter::new(dialect.cut.clone(), dialect.limit_bytes);
        cutter.push(&bytes);
        let message = cutter.next_message().expect("within the limit").expect("whole");
        let decoded = dialect.decode(&message).expect("a message");
        let again =
            dialect.encode(decoded.kind.as_deref(), &decoded.fields, &mut Counters::default());
        assert_eq!(again.as_deref(), Ok(&*bytes), "{spec}: {decoded:?}");
    }
}

#[test]
fn every_built_in_dialect_reads_and_has_its_own_name() {
    for name in Dialect::built_in() {
        let text = Dialect::built_in_text(name).expect("it is built in");
        let dialect = file::read(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(dialect.name, name);
        assert!(!dialect.about.is_empty() && dialect.port.is_some(), "{name}");
    }
}

/// D-5.1: a message of no kind says what stands against each, and the next one is in step.
#[test]
fn an_unknown_operation_does_not_break_the_step() {
    let dialect = Dialect::parse("tp0").expect("built in");
    let mut cutter = cut::Cutter::new(dialect.cut.clone(), dialect.limit_bytes);
    cutter.push(&hex("4d000000 03000000 616263 00000000 02000000 6100"));
    let message = cutter.next_message().expect("in step").expect("whole");
    let error = dialect.decode(&message).expect_err("no such operation");
    let words = "no MENSAJE: byte 0, field \"op\": is always 0, and is 77 here; \
                 no PAQUETE: byte 0, field \"op\": is always 1, and is 77 here";
    assert_eq!(error.to_string(), words);
    let message = cutter.next_message().expect("in step").expect("whole");
    let decoded = dialect.decode(&message).expect("a message");
    assert_eq!(decoded.fields.get("text"), Some(&Value::from("a")));
}

/// D-5: each kind of mistake is named with its line and column.
#[test]
fn mistakes_in_a_file_are_found_where_they_are() {
    let cases = [
        ("name = ", 1, 8, "string values must be quoted, expected literal string"),
        (
            "nam = 'x'",
            1,
            1,
            "\"nam\" means nothing here: name, about, port, cut, limit-bytes, hello, config, leave, kind",
        ),
        ("\nport = 70000", 2, 8, "port is 1 to 65535"),
        ("port = '1'", 1, 8, "this is string, and has to be an integer"),
        (
            "cut = 'packets'",
            1,
            7,
            "\"packets\" is no cut: raw, lines, nul, any, length:LAYOUT or struct:LAYOUT",
        ),
        ("cut = 'struct:!Z'", 1, 7, "byte 1 of the layout: 'Z' is no code here"),
        ("[hello]\naccept = '00'", 1, 1, "a hello has the client's first words, client = .."),
        ("[hello]\nclient = '0'", 2, 10, "bytes are hexadecimal"),
        (
            "[hello]\nclient = \"'\\\\q'\"",
            2,
            10,
            "after a backslash comes n, r, t, 0 or a backslash",
        ),
        ("[kind.a]\n", 1, 1, "kind \"a\" has no layout"),
        (
            "[kind.a]\nlayout = '!B:n'\nfield.m.default = 1",
            3,
            7,
            "the layout has no field \"m\": !B:n",
        ),
        (
            "[kind.a]\nlayout = '!B:n'\nfield.n.fill = '-'",
            3,
            9,
            "\"fill\" means nothing here: default, counter, counts, unit",
        ),
        ("[kind.a]\nlayout = '!4s:t'\nfield.t.fill = '--'", 3, 16, "a filling is one byte of text"),
        (
            "[kind.a]\nlayout = '!B:n 4s:t'\nfield.n.counts = 'm'",
            3,
            18,
            "the layout has no text \"m\"",
        ),
        ("[kind.a]\nlayout = '!B'\n[kind.b]\nlayout = '!B'", 1, 1, "several kinds need a cut"),
        (
            "[config]\nhostt = 'IP'",
            2,
            1,
            "\"hostt\" means nothing here: host, port, opens, gathers",
        ),
        ("leave = 'x'", 1, 9, "this is string, and has to be a list"),
        ("leave = ['18', 1]", 1, 16, "a line is text"),
        ("leave = ['18', '18 0a']", 1, 16, "a line is not empty, and has no end of line in it"),
        ("[config]\ngathers = 'a'", 2, 11, "lines go into a kind's list"),
        ("[config]\ngathers = 'a b'", 2, 11, "there is no such kind"),
        (
            "[config]\ngathers = 'a n'\n[kind.a]\nlayout = '!B:n'",
            2,
            11,
            "the kind has no list of that name",
        ),
        ("name = 'a'\nname = 'b'", 2, 1, "duplicate key"),
    ];
    cases.into_iter().for_each(is_found);
}

/// D-5.4: so are mistakes in the words to leave with.
#[test]
fn words_to_leave_with_are_lines_that_can_be_typed() {
    let cases = [
        ("leave = 'x'", 1, 9, "this is string, and has to be a list"),
        ("leave = ['18', 1]", 1, 16, "a line is text"),
        ("leave = ['18', '18 0a']", 1, 16, "a line is not empty, and has no end of line in it"),
    ];
    cases.into_iter().for_each(is_found);
    let chat = Dialect::parse("chat").expect("a dialect");
    assert_eq!(chat.leave, [b"\x18".to_vec(), b"/sair".to_vec()]);
}

/// A mistake: the text of a file, where it is, and what is said of it.
fn is_found((text, line, column, problem): (&str, usize, usize, &str)) {
    let error = file::read(text).expect_err(text);
    assert!(error.problem.starts_with(problem), "{text:?}: {error}");
    assert_eq!((error.line, error.column), (line, column), "{text:?}: {error}");
}
