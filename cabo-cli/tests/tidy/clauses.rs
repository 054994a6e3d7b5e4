//! Every clause that code or prose cites stands in `docs/protocol/`, once.

use crate::{
    Finding, finding,
    source::{Source, is_word},
};
use std::collections::BTreeMap;

/// The letter of a clause, and the page that holds it.
const PAGES: &[(char, &str)] = &[
    ('W', "docs/protocol/wire.md"),
    ('T', "docs/protocol/transport.md"),
    ('S', "docs/protocol/session.md"),
    ('M', "docs/protocol/services.md"),
    ('R', "docs/redes.md"),
];

pub(crate) fn unknown_clauses(files: &[Source]) -> Vec<Finding> {
    let (mut found, mut known) = (Vec::new(), BTreeMap::<String, usize>::new());
    let pages: Vec<(char, &Source)> = PAGES
        .iter()
        .filter_map(|(letter, path)| {
            Some((*letter, files.iter().find(|source| source.path == *path)?))
        })
        .collect();
    for (letter, page) in &pages {
        for (index, line) in page.text.lines().enumerate() {
            for clause in defined_clauses(line) {
                if !clause.starts_with(*letter) {
                    found.push(finding(
                        page,
                        index + 1,
                        format!("{clause} is defined on another letter's page"),
                    ));
                }
                if let Some(first) = known.insert(clause.clone(), index + 1) {
                    found.push(finding(
                        page,
                        index + 1,
                        format!("{clause} is defined twice, first in line {first}"),
                    ));
                }
            }
        }
    }
    let is_citing = |source: &&Source| source.is_rust() || source.path.ends_with(".md");
    for source in files.iter().filter(is_citing) {
        for (index, line) in source.text.lines().enumerate() {
            for clause in clauses(line) {
                // A page that is not written yet cannot be held against its readers.
                let page = pages.iter().find(|(letter, _)| clause.starts_with(*letter));
                if let Some((_, page)) = page.filter(|_| !known.contains_key(&clause)) {
                    let text = format!(
                        "{clause} is no clause of {}: cite one that is, or write it",
                        page.path
                    );
                    found.push(finding(source, index + 1, text));
                }
            }
        }
    }
    found
}

/// A clause is defined by a heading that starts with its number, or by its number in bold.
fn defined_clauses(line: &str) -> Vec<String> {
    let heading = line.starts_with('#').then(|| line.trim_start_matches('#').trim_start());
    let bold = line.split("**").skip(1).step_by(2);
    let starts_with_clause =
        |text: &str| clauses(text).into_iter().next().filter(|clause| text.starts_with(clause));
    heading.into_iter().chain(bold).filter_map(starts_with_clause).collect()
}

/// Every clause number in `line`: a letter of [`PAGES`], a dash, numbers with dots between.
fn clauses(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, letter) in
        line.char_indices().filter(|(_, c)| PAGES.iter().any(|(letter, _)| letter == c))
    {
        let Some(rest) = line[at + 1..].strip_prefix('-') else { continue };
        let length = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number = rest[..length].trim_end_matches('.');
        let is_apart = !line[..at].ends_with(|c| is_word(c) || c == '-')
            && !rest[length..].starts_with(is_word);
        if is_apart && number.starts_with(|c: char| c.is_ascii_digit()) && !number.contains("..") {
            found.push(format!("{letter}-{number}"));
        }
    }
    found
}
