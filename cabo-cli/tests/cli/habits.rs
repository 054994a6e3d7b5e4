//! What people type with nc, ncat and socat, and its twin with cabo: both against the same partner, with the same outcome.
//!
//! The rows are `tests/habits/table.toml`, `tests/habits/run.py` runs one side of one of them, and `docs/habits.md` is
//! written from them and from `page.md` (`CABO_BLESS=1`).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use serde_json::Value;

use crate::needs::{Need, skip_without};
use crate::world::{assert_same_text, finish};

const NEEDS: [Need; 6] = [
    Need::Program("python3"),
    Need::Program("nc.openbsd"),
    Need::Program("ncat"),
    Need::Program("socat"),
    Need::Program("openssl"),
    Need::Namespaces,
];
/// Rows that run at once: most of them wait.
const AT_ONCE: usize = 3;
const ROWS_MIN: usize = 20;

/// The page around the rows, which stand where it says ROWS.
const PAGE: &str = include_str!("../../../tests/habits/page.md");

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/habits")
}

fn run_py(command: &mut Command) -> &mut Command {
    command.arg(folder().join("run.py")).arg(folder().join("table.toml"))
}

fn rows() -> Vec<Value> {
    let done = finish(run_py(&mut Command::new("python3"))).good();
    let rows: Value = serde_json::from_str(&done.out).unwrap();
    rows.as_array().unwrap().clone()
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_default()
}

/// What is wrong with one side of a row.
fn problems(row: &Value, side: &str) -> Vec<String> {
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--net", "--mount", "python3"]);
    let beside = Path::new(env!("CARGO_BIN_EXE_cabo")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let run = run_py(&mut unshare).args([text(row, "name"), side]);
    let done = finish(run.env("PATH", format!("{}:{path}", beside.display())));
    let Ok(seen) = serde_json::from_str::<Value>(&done.out) else { return vec![done.err] };
    let mut found = Vec::new();
    if let Some(problem) = seen["problem"].as_str() {
        found.push(problem.to_owned());
    }
    let times = usize::try_from(row["out-times"].as_u64().unwrap_or(1)).unwrap();
    let wanted: String = text(row, "out").repeat(times).chars().map(hex).collect();
    if text(&seen, "stdout") != wanted {
        found.push(format!("stdout (as hexadecimal) is {}, not {wanted}", seen["stdout"]));
    }
    let has_failed = seen["code"] != 0;
    if row["told"] != true && has_failed != (row["fails"] == true) {
        found.push(format!("its exit code is {}", seen["code"]));
    }
    if !found.is_empty() {
        found.push(format!("its stderr: {}", seen["stderr"]));
    }
    found
}

/// A letter of the table is a byte.
fn hex(letter: char) -> String {
    format!("{:02x}", u32::from(letter))
}

#[test]
fn every_habit_has_a_twin_with_the_same_output_and_outcome() {
    if skip_without(&NEEDS) {
        return;
    }
    let rows = rows();
    assert!(rows.len() >= ROWS_MIN, "{} rows", rows.len());
    let todo = Mutex::new(rows.iter());
    let failed = Mutex::new(String::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(row) = todo.lock().unwrap().next() else { return };
                    for side in ["foreign", "cabo"] {
                        for problem in problems(row, side) {
                            let (name, line) = (text(row, "name"), text(row, side));
                            let mut failed = failed.lock().unwrap();
                            writeln!(failed, "{name}: {line}\n    {problem}").unwrap();
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "\n{failed}");
}

#[test]
fn the_page_of_habits_has_every_row() {
    if skip_without(&[Need::Program("python3")]) {
        return;
    }
    let mut tables = String::new();
    for row in rows() {
        if !text(&row, "group").is_empty() {
            let head = "| | by habit | with cabo | what differs |\n|---|---|---|---|";
            write!(tables, "\n## {}\n\n{head}\n", text(&row, "group")).unwrap();
        }
        let cell = |key: &str| text(&row, key).replace('|', "\\|");
        let (name, differs) = (cell("name"), cell("differs"));
        writeln!(tables, "| {name} | `{}` | `{}` | {differs} |", cell("foreign"), cell("cabo"))
            .unwrap();
    }
    let page = PAGE.replace("\nROWS\n", &tables);
    assert_same_text(&folder().join("../../docs/habits.md"), &page);
}
