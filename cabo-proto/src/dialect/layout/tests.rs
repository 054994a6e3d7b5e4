//! Layouts as users write them, and the bytes that they describe (D-1).

use super::*;
use crate::dialect::value::Fields;

fn layout(text: &str) -> Layout {
    Layout::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn int(number: i128) -> Value {
    Value::Int(number)
}

fn text(text: &str) -> Value {
    Value::from(text)
}

/// The record of 29 bytes, field by field.
#[test]
fn a_fixed_record_has_its_bytes() {
    let record = layout("!B:version L:order L:size 20s:text");
    assert_eq!(record.fixed_size(), Some(29));
    let given =
        [("version", int(1)), ("order", int(7)), ("size", int(4)), ("text", text("ol\u{e1}"))];
    let bytes = record.encode(&Fields::from(given)).expect("fits");
    assert_eq!(bytes[..13], b"\x01\0\0\0\x07\0\0\0\x04ol\xc3\xa1"[..13]);
    assert_eq!(bytes.len(), 29);
    assert_eq!(record.decode(&bytes).expect("a record").get("order"), Some(&int(7)));
}

/// D-1.9, D-1.10: sizes and numbers of what follows need not be given, and are right.
#[test]
fn counting_fields_are_computed() {
    let package = layout("<i:op=1 i:size {size}s(i:len {len}s:value):values");
    let values = Value::List(vec![text("hola\0"), text("mundo\0")]);
    let bytes = package.encode(&Fields::from([("values", values)])).expect("fits");
    let wire = b"\x01\0\0\0\x13\0\0\0\x05\0\0\0hola\0\x06\0\0\0mundo\0";
    assert_eq!(bytes, wire);
    let fields = package.decode(wire).expect("a package");
    assert_eq!(fields.get("size"), Some(&int(19)));
    assert_eq!(package.encode(&fields).expect("fits"), wire, "all given, and all right");
    let empty = package.encode(&Fields::default()).expect("nothing is in it");
    assert_eq!(empty, b"\x01\0\0\0\0\0\0\0");
}

/// D-1.10: what is given wrong is refused, and so is a count that two things disagree on.
#[test]
fn counts_that_are_wrong_are_refused() {
    let header = layout("!L:size {size}s:text");
    let given = Fields::from([("size", int(4)), ("text", text("abc"))]);
    let error = header.encode(&given).expect_err("4 is not 3");
    assert_eq!(error.problem, Miswritten::Count { says: 4, counted: 3 });
    let twice = layout("!B:n {n}s:a {n}s:b");
    let given = Fields::from([("a", text("abc")), ("b", text("ab"))]);
    let error = twice.encode(&given).expect_err("3 is not 2");
    assert_eq!(
        (error.field.as_str(), error.problem),
        ("n", Miswritten::Count { says: 3, counted: 2 })
    );
    let short = layout("!B:n {n}s:a");
    let given = Fields::from([("a", Value::Bytes(vec![0; 256]))]);
    assert!(matches!(short.encode(&given).expect_err("256").problem, Miswritten::Unfit(_)));
}

/// D-1.11: every cut of a message is missing something, and every addition is left over.
#[test]
fn a_message_has_exactly_its_bytes() {
    let package = layout("<i:op=1 i:size {size}s(i:len {len}s:value):values H:end");
    let wire = b"\x01\0\0\0\x0e\0\0\0\x05\0\0\0hola\0\x01\0\0\0!\x07\0";
    package.decode(wire).expect("a package");
    for len in 0..wire.len() {
        let error = package.decode(&wire[..len]).expect_err("cut");
        assert!(matches!(error.problem, Misread::Missing { .. }), "{len}: {error}");
        let extent = package.extent(&wire[..len]).expect("could go on");
        assert!(
            matches!(extent, Extent::AtLeast(more) if more > len && more <= wire.len()),
            "{len}"
        );
    }
    let longer = [wire.as_slice(), b"x"].concat();
    assert_eq!(package.extent(&longer), Ok(Extent::Whole(wire.len())));
    let error = package.decode(&longer).expect_err("longer");
    assert_eq!(error.problem, Misread::LeftOver(1));
}

/// D-1.11: lengths that lie are errors before anything is kept, and say where.
#[test]
fn lengths_that_lie_are_refused() {
    let package = layout("<i:size {size}s(i:len {len}s:value):values");
    let cases: [(&[u8], &str, usize); 4] = [
        (b"\xff\xff\xff\xff", "values", 4),
        (b"\x04\0\0\0\xfb\xff\xff\xff", "values.0.value", 8),
        (b"\x08\0\0\0\xe8\x03\0\0abcd", "values.0.value", 8),
        (b"\xff\xff\xff\x7fabcd", "values", 4),
    ];
    for (wire, field, at) in cases {
        let error = package.decode(wire).expect_err("a lie");
        assert_eq!((error.field.as_str(), error.at), (field, at), "{error}");
    }
}

/// D-1.7: a message with another constant is of another layout.
#[test]
fn constants_are_written_and_checked() {
    let hello = layout("!4s:magic='cabo' B:version=0x01 ?:is_on=true");
    let bytes = hello.encode(&Fields::default()).expect("all constant");
    assert_eq!(bytes, b"cabo\x01\x01");
    hello.decode(b"cabo\x01\x02").expect("any byte but 0 is true");
    let error = hello.decode(b"cabo\x02\x01").expect_err("version 2");
    assert_eq!((error.at, error.field.as_str()), (4, "version"));
    let given = Fields::from([("version", int(2))]);
    assert_eq!(hello.encode(&given).expect_err("2").problem, Miswritten::Constant("1".into()));
    for text in ["!?:has_name=0x01 ?:is_on=true", "!4s:magic='ca' f:n=2 ?:is_on=true"] {
        let padded = layout(text);
        let bytes = padded.encode(&Fields::default()).expect(text);
        let read = padded.decode(&bytes).expect(text);
        assert_eq!(
            padded.encode(&read).expect(text),
            bytes,
            "{text}: what was read can be written"
        );
    }
}

/// D-1.8: references lead to the nearest group that has the field.
#[test]
fn groups_see_the_fields_around_them() {
    let table = layout("!B:rows B:width {rows}({width}s:cell B:n {n}(B:number):numbers):table");
    let row = |cell: &str, numbers: &[i128]| {
        let numbers = numbers.iter().map(|number| int(*number)).collect();
        Value::Group(Fields::from([("cell", text(cell)), ("numbers", Value::List(numbers))]))
    };
    let rows = Value::List(vec![row("ab", &[1, 2]), row("cd", &[])]);
    let bytes = table.encode(&Fields::from([("table", rows)])).expect("fits");
    assert_eq!(bytes, b"\x02\x02ab\x02\x01\x02cd\x00");
    let fields = table.decode(&bytes).expect("a table");
    assert_eq!(table.encode(&fields).expect("fits"), bytes);
    assert_eq!(table.extent(&bytes), Ok(Extent::Whole(bytes.len())));
}

/// D-1.12 and the rest: texts that are no layout, and where.
#[test]
fn bad_layouts_name_the_byte() {
    let deep = format!("!{}B{}", "1(".repeat(9), ")".repeat(9));
    let wide = format!("!{}B{}", "4096(".repeat(2), ")".repeat(2));
    let cases = [
        ("!n", 1, Problem::Code('n')),
        ("B:a y", 4, Problem::Code('y')),
        ("\u{e9}", 0, Problem::Code('\u{e9}')),
        ("3 B", 1, Problem::CountAlone),
        ("3", 1, Problem::CountAlone),
        ("!B:1", 3, Problem::Name),
        ("!B:a B:a", 8, Problem::Twice("a".into())),
        ("!x:a", 2, Problem::NamedPad),
        ("!B=256", 2, Problem::Constant("takes 0 to 255".into())),
        ("!2B:a=1", 5, Problem::ConstantList),
        ("!{n}s", 2, Problem::Reference("n".into())),
        ("!f:n {n}s", 6, Problem::Reference("n".into())),
        ("!B:n {n}B", 8, Problem::ReferenceCode),
        ("B:n {n}s", 5, Problem::ReferenceNative),
        ("!2(B", 4, Problem::Bracket(')')),
        ("!B)", 2, Problem::Bracket('(')),
        ("!(B)", 1, Problem::GroupCount),
        ("!B:n {n}(0s)", 5, Problem::EmptyGroup),
        ("!99999999s", 9, Problem::Number),
        (deep.as_str(), 19, Problem::Depth),
        (wide.as_str(), wide.len(), Problem::TooManyItems),
    ];
    for (text, at, problem) in cases {
        assert_eq!(Layout::parse(text), Err(ParseError { at, problem }), "{text}");
    }
}
