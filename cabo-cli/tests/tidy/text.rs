//! What any file must look like: name, header, size, nothing left behind (R5, R6).

use crate::{
    Finding, finding,
    source::{Source, is_word},
};

const MAX_LINES: usize = 800;
const MAX_COLUMNS: usize = 128; // rustfmt keeps code at 100; the rest is for texts and drawings

pub(crate) fn file_name(source: &Source) -> Vec<Finding> {
    const VAGUE: &[&str] = &["util", "utils", "common", "helper", "helpers", "types", "misc"];
    let stems = source.path.split('/').map(|part| part.split('.').next().unwrap_or(part));
    if source.is_rust() && stems.into_iter().any(|stem| VAGUE.contains(&stem)) {
        return vec![finding(
            source,
            1,
            "R5: a name that says nothing; let what it holds live with its owner",
        )];
    }
    Vec::new()
}

pub(crate) fn file_header(source: &Source) -> Vec<Finding> {
    if source.is_rust() && !source.text.starts_with("//!") {
        return vec![finding(
            source,
            1,
            "R6: begin with `//!`: what this is, its clauses, its neighbours",
        )];
    }
    Vec::new()
}

pub(crate) fn file_size(source: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    let count = source.text.lines().count();
    if source.is_rust() && count > MAX_LINES {
        let text = format!(
            "{count} lines, at most {MAX_LINES}: split by verb, or move the tests to `tests.rs`"
        );
        found.push(finding(source, MAX_LINES, text));
    }
    let is_code = source.is_rust() || source.path == "dev" || source.path.ends_with(".sh");
    for (index, line) in source.text.lines().enumerate().filter(|_| is_code) {
        let columns = line.chars().count();
        if columns > MAX_COLUMNS && !line.contains("://") {
            found.push(finding(
                source,
                index + 1,
                format!("{columns} columns, at most {MAX_COLUMNS}: break the line"),
            ));
        }
    }
    found
}

pub(crate) fn leftovers(source: &Source) -> Vec<Finding> {
    // Written in halves, or this file would find itself.
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let mut found = Vec::new();
    for (index, line) in source.text.lines().enumerate().filter(|_| !source.path.ends_with(".md")) {
        for word in
            words.iter().filter(|word| line.split(|c| !is_word(c)).any(|part| part == **word))
        {
            found.push(finding(
                source,
                index + 1,
                format!("{word} left behind: do it now or write an issue"),
            ));
        }
        let is_mechanism =
            ["tests/needs.rs", "cabo/tests/carriers/main.rs"].contains(&source.path.as_str());
        let mut strings = line.split('"').skip(1).step_by(2);
        if source.is_rust()
            && !is_mechanism
            && strings.any(|text| text.starts_with(concat!("SKIP", "PED")))
        {
            let text =
                "skip through `skip` or `skip_without` of tests/needs.rs, so that CI fails on it";
            found.push(finding(source, index + 1, text));
        }
    }
    found
}

pub(crate) fn machine_paths(source: &Source) -> Vec<Finding> {
    let homes = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];
    let workshop = [concat!("/wo", "rk/")];
    let mut found = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        let is_start = |at: usize| !line[..at].ends_with(|c| is_word(c) || "./-~}*".contains(c));
        // Tests may make up somebody's home.
        let homes = if source.is_test(index + 1) { &[][..] } else { &homes[..] };
        let mut paths = homes.iter().chain(&workshop);
        if paths.any(|path| line.match_indices(path).any(|(at, _)| is_start(at))) {
            found.push(finding(
                source,
                index + 1,
                "the path of one machine: write it relative, or from `~` or `$HOME`",
            ));
        }
    }
    found
}

pub(crate) fn punctuation(source: &Source) -> Vec<Finding> {
    let fancy = [
        '\u{2018}', '\u{2019}', '\u{201c}', '\u{201d}', '\u{2013}', '\u{2014}', '\u{2026}',
        '\u{a0}',
    ];
    let lines = source
        .text
        .lines()
        .enumerate()
        .filter(|(_, line)| source.is_rust() && line.contains(fancy));
    lines
        .map(|(index, _)| finding(source, index + 1, "plain ASCII quotes, dashes and dots, please"))
        .collect()
}

pub(crate) fn unexplained_unsafe(source: &Source) -> Vec<Finding> {
    let lines: Vec<&str> = source.text.lines().map(str::trim).collect();
    let is_explained = |line: usize| {
        let above = lines[..line - 1]
            .iter()
            .rev()
            .take_while(|text| text.starts_with("//") || text.starts_with('#'));
        above.into_iter().any(|text| text.contains("SAFETY:") || text.contains("# Safety"))
    };
    let words = source.paths().into_iter().filter(|path| source.is_rust() && path.text == "unsafe");
    let silent = words.filter(|path| !is_explained(path.line));
    silent
        .map(|path| {
            finding(source, path.line, "say why it is sound: `// SAFETY: ..` on the line above")
        })
        .collect()
}
