//! Runs every target over its corpus and over mutants of it.

use std::path::Path;

use cabo_fuzz::{TARGETS, Target, mutate};
use fastrand::Rng;

#[test]
fn every_target_holds_over_its_corpus() {
    for (name, target) in TARGETS {
        for (file, bytes) in corpus(name) {
            run(target, &bytes, || format!("fuzz/corpus/{name}/{file}"));
        }
    }
}

#[test]
fn every_target_holds_over_mutants() {
    let seed: u64 = number("CABO_FUZZ_SEED").unwrap_or(0);
    let rounds = number("CABO_FUZZ_ROUNDS").unwrap_or(20_000);
    for (name, target) in TARGETS {
        let corpus: Vec<Vec<u8>> = corpus(name).into_iter().map(|(_, bytes)| bytes).collect();
        for round in seed..seed.saturating_add(rounds) {
            let bytes = mutate(&corpus, &mut Rng::with_seed(round));
            run(target, &bytes, || {
                format!(
                    "target {name}; again: CABO_FUZZ_SEED={round} CABO_FUZZ_ROUNDS=1 cargo test --manifest-path fuzz/Cargo.toml"
                )
            });
        }
    }
}

fn run(target: &Target, bytes: &[u8], what: impl Fn() -> String) {
    if let Err(panic) = std::panic::catch_unwind(|| target(bytes)) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("{}\n{} bytes: {hex}", what(), bytes.len());
        std::panic::resume_unwind(panic);
    }
}

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<_> = folder
        .read_dir()
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("an entry of the corpus").path())
        .map(|path| {
            (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), read(&path))
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|error| panic!("{variable}={value}: {error}")))
}
