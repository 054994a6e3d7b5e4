//! A million random values through our layouts and through CPython's `struct` (D-1): both have to read and write alike.
#![allow(clippy::unwrap_used, reason = "a test stops where it is surprised")]

#[path = "../../tests/needs.rs"]
mod needs;

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use cabo_proto::dialect::layout::Layout;
use cabo_proto::dialect::value::{Fields, Value};
use fastrand::Rng;
use needs::{Need, skip_without};

const VALUES: usize = 1_000_000;
const CODES: &str = "xcbB?hHiIlLqQefdsp";

/// A layout by seed, and as many random bytes as it has.
fn random_layout(rng: &mut Rng) -> String {
    let order = rng.choice(["", "@", "=", "<", ">", "!"]).unwrap();
    let codes: Vec<char> = CODES
        .chars()
        .chain(if order.len() < 2 && "@".contains(order) { "nNP" } else { "" }.chars())
        .collect();
    let mut layout = order.to_owned();
    for _ in 0..rng.usize(1..12) {
        let code = codes[rng.usize(..codes.len())];
        match rng.u8(..6) {
            0 if !"p".contains(code) => write!(layout, "{}{code}", rng.usize(0..5)).unwrap(),
            1 if "sp".contains(code) => write!(layout, "{}{code}", rng.usize(1..300)).unwrap(),
            2 => write!(layout, " {code}").unwrap(),
            _ => layout.push(code),
        }
    }
    layout
}

fn shown(value: &Value) -> String {
    match value {
        Value::Int(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::Float(number) if number.is_nan() => "nan".to_owned(),
        Value::Float(number) => format!("{:016x}", number.to_bits()),
        Value::Bytes(bytes) => format!("b{}", hex(bytes)),
        Value::List(_) | Value::Group(_) => {
            panic!("{value:?} has no name, so it is a single value")
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn has_nan(fields: &Fields) -> bool {
    fields.iter().any(|(_, value)| matches!(value, Value::Float(number) if number.is_nan()))
}

/// D-1.1 to D-1.5: sizes, values and bytes are those of CPython.
#[test]
fn layouts_are_those_of_cpython() {
    if skip_without(&[Need::Program("python3")]) {
        return;
    }
    let seed = std::env::var("CABO_SEED").map_or(0, |seed| seed.parse().unwrap());
    let mut rng = Rng::with_seed(seed);
    let (mut cases, mut values) = (Vec::new(), 0);
    while values < VALUES {
        let text = random_layout(&mut rng);
        let layout = Layout::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let size = layout.fixed_size().unwrap();
        let bytes: Vec<u8> = (0..size)
            .map(|_| {
                if rng.bool() {
                    rng.u8(..)
                } else {
                    *rng.choice(&[0, 1, 0x7F, 0x80, 0xFF]).unwrap()
                }
            })
            .collect();
        let fields = layout.decode(&bytes).unwrap_or_else(|error| panic!("{text}: {error}"));
        values += fields.len().max(1);
        cases.push((text, layout, bytes, fields));
    }
    let asked = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("layouts-{seed}"));
    let questions = cases.iter().fold(String::new(), |mut all, (text, _, bytes, _)| {
        writeln!(all, "{text}\t{}", hex(bytes)).unwrap();
        all
    });
    std::fs::write(&asked, questions).unwrap();
    let python = Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python.py"))
        .arg(&asked)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(python.status.success());
    let answers = String::from_utf8(python.stdout).unwrap();
    let mut answers = answers.lines();
    for (number, (text, layout, bytes, fields)) in cases.iter().enumerate() {
        let answer = answers.next().unwrap_or_else(|| panic!("{number}: no answer")).to_owned();
        let context =
            || format!("layout {text:?}, bytes {}; again: ./dev sim {seed} cpython", hex(bytes));
        let shown: Vec<String> = fields.iter().map(|(_, value)| shown(value)).collect();
        let again =
            hex(&layout.encode(fields).unwrap_or_else(|error| panic!("{error}: {}", context())));
        let ours = format!("{}\t{}\t{again}", bytes.len(), shown.join(","));
        let (ours, theirs) = if has_nan(fields) {
            let cut = |text: &str| text.rsplit_once('\t').unwrap().0.to_owned();
            (cut(&ours), cut(&answer)) // which of the many NaN is written is left open
        } else {
            (ours, answer)
        };
        assert_eq!(ours, theirs, "{}", context());
    }
}
