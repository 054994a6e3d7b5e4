//! Tidy is a test: the rules of CONTRIBUTING.md that a scan of the text can check.
//!
//! Each rule is a function from one file (or all) to findings; a finding says where, what, and what to do instead.
//! `source.rs` reads Rust; the lints of clippy (`clippy.toml`, `cabo-proto/clippy.toml`) see what needs types.

mod arrows;
mod bites;
mod clauses;
mod lengths;
mod source;
mod text;
mod words;

use source::Source;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

struct Finding {
    path: String,
    line: usize,
    text: String,
}

fn finding(source: &Source, line: usize, text: impl Into<String>) -> Finding {
    Finding { path: source.path.clone(), line, text: text.into() }
}

#[test]
fn files_are_small_and_named_for_what_they_hold() {
    check(&[text::file_name, text::file_header, text::file_size]);
}

#[test]
fn nothing_is_left_undone_and_no_machine_shows() {
    check(&[text::leftovers, text::machine_paths, text::punctuation]);
}

#[test]
fn unsafe_code_says_why_it_is_sound() {
    check(&[text::unexplained_unsafe]);
}

#[test]
fn nobody_says_a_banned_word() {
    check(&[words::banned_words]);
}

#[test]
fn rooms_of_the_pure_crate_import_only_what_lies_below() {
    check(&[arrows::room_arrows]);
}

#[test]
fn the_pure_crate_reads_the_clock_in_one_place_at_most() {
    report(arrows::second_clocks(&tracked_files()));
}

#[test]
fn manifests_point_downwards() {
    check(&[arrows::dependencies]);
}

#[test]
fn every_file_is_part_of_a_crate() {
    report(arrows::dead_files(&tracked_files()));
}

#[test]
fn no_function_grows_past_seventy_lines() {
    let files = tracked_files();
    let list =
        files.iter().find(|source| source.path == lengths::LIST).map_or("", |source| &source.text);
    report(lengths::long_functions(&files, list));
}

#[test]
fn every_cited_clause_exists_and_stands_once() {
    report(clauses::unknown_clauses(&tracked_files()));
}

fn check(rules: &[fn(&Source) -> Vec<Finding>]) {
    let files = tracked_files();
    report(rules.iter().flat_map(|rule| files.iter().flat_map(rule)).collect());
}

fn report(findings: Vec<Finding>) {
    let lines: Vec<String> =
        findings.iter().map(|f| format!("{}:{}: {}", f.path, f.line, f.text)).collect();
    assert!(lines.is_empty(), "{} untidy:\n{}", lines.len(), lines.join("\n"));
}

/// The text files that git tracks or would add; all but build products where there is no git.
fn tracked_files() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let git = Command::new("git")
        .args([
            "-c",
            "safe.directory=*",
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(&root)
        .output();
    let names: Vec<PathBuf> = match git {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout)
            .split_terminator('\0')
            .map(PathBuf::from)
            .collect(),
        _ => walk(&root, Path::new("")),
    };
    let read = |name: &PathBuf| {
        Some(Source::new(name.to_str()?, &fs::read_to_string(root.join(name)).ok()?))
    };
    let mut files: Vec<Source> = names.iter().filter_map(read).collect();
    mark_tests(&mut files);
    assert!(
        files.iter().any(|source| source.path == "cabo-proto/src/lib.rs"),
        "the repository is not where it was"
    );
    files
}

/// A module declared under `#[cfg(test)]` is a test as a whole, in whatever file it is.
fn mark_tests(files: &mut [Source]) {
    let owned = |(home, module): (&str, &str)| (home.to_owned(), module.to_owned());
    let modules: Vec<_> = files.iter().flat_map(Source::test_modules).map(owned).collect();
    files.iter_mut().for_each(|source| source.mark_test(&modules));
}

fn walk(root: &Path, folder: &Path) -> Vec<PathBuf> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join(folder)).into_iter().flatten().flatten() {
        let name = folder.join(entry.file_name());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name() != ".git" && entry.file_name() != "target" {
                names.extend(walk(root, &name));
            }
        } else {
            names.push(name);
        }
    }
    names
}
