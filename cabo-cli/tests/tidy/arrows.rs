//! Who may know whom: rooms, manifests, the one clock, files that nobody declares (R1, R2).

use crate::{
    Finding, finding,
    source::Source,
    words::{PURE, says},
};

/// R2: the rooms of the pure crate, and what each may import. A new room needs a row.
const ROOMS: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("transport", &["wire"]),
    ("session", &["transport", "wire"]),
    ("dialect", &[]),
    ("redes", &[]),
    ("retry", &[]),
    ("sim", &["dialect", "redes", "session", "transport", "wire"]),
];

/// R1: what a manifest must not depend on.
const MANIFESTS: &[(&str, &[&str], &str)] = &[
    (
        "cabo-proto/Cargo.toml",
        &[
            "cabo",
            "tokio",
            "mio",
            "socket2",
            "rustix",
            "libc",
            "quinn-udp",
            "rustls",
            "aws-lc-rs",
            "rand",
            "getrandom",
        ],
        "R1, R2: cabo-cli -> cabo -> cabo-proto, and the pure crate needs no system and no C compiler",
    ),
    (
        "cabo/Cargo.toml",
        &["cabo-cli", "clap", "anyhow", "indicatif"],
        "R1: what people see belongs to cabo-cli",
    ),
    ("cabo-cli/Cargo.toml", &["cabo-proto"], "R1: `cabo` re-exports what its users need"),
];

pub(crate) fn room_arrows(source: &Source) -> Vec<Finding> {
    let modules = source.modules();
    let (true, Some(room)) = (source.path.starts_with("cabo-proto/src/"), modules.first()) else {
        return Vec::new();
    };
    let Some((_, below)) = ROOMS.iter().find(|(name, _)| name == room) else {
        return vec![finding(
            source,
            1,
            format!("R2: a new room, `{room}`: give it a row in ROOMS of the tidy test"),
        )];
    };
    let mut found = Vec::new();
    for path in source.paths() {
        let mut segments =
            path.text.split("::").skip_while(|segment| *segment == "self").peekable();
        let ups = std::iter::from_fn(|| segments.next_if_eq(&"super")).count();
        let from_root = ups >= modules.len() || segments.next_if_eq(&"crate").is_some();
        let Some(target) = segments.next().filter(|_| from_root) else { continue };
        let is_room = ROOMS.iter().any(|(name, _)| *name == target);
        // A test may try its room in the box.
        let is_trial = target == "sim" && source.is_test(path.line);
        if is_room && target != *room && !below.contains(&target) && !is_trial {
            let allowed = if below.is_empty() {
                "no sibling".to_owned()
            } else {
                format!("only {}", below.join(", "))
            };
            let text = format!(
                "R2: `{room}` imports `{target}`; it may import {allowed}: pass it in as an argument"
            );
            found.push(finding(source, path.line, text));
        }
    }
    found
}

pub(crate) fn second_clocks(files: &[Source]) -> Vec<Finding> {
    let pure = files.iter().filter(|source| source.is_rust() && source.path.starts_with(PURE[0]));
    let reads = pure.flat_map(|source| {
        let now = source.paths().into_iter().filter(|path| says(&path.text, "Instant::now"));
        now.map(|path| {
            let text = "`Instant::now`: R2: time is an argument; tests start at `crate::sim::origin()` and add to it";
            finding(source, path.line, text)
        })
    });
    let reads: Vec<Finding> = reads.collect();
    if reads.len() > 1 { reads } else { Vec::new() }
}

pub(crate) fn dependencies(manifest: &Source) -> Vec<Finding> {
    let Some((_, banned, why)) = MANIFESTS.iter().find(|(path, ..)| *path == manifest.path) else {
        return Vec::new();
    };
    let (mut found, mut section) = (Vec::new(), "");
    for (index, line) in manifest.text.lines().enumerate() {
        if line.starts_with('[') {
            section = line;
        }
        let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
        if section == "[dependencies]" && banned.contains(&name) {
            found.push(finding(manifest, index + 1, format!("`{name}`: {why}")));
        }
    }
    found
}

pub(crate) fn dead_files(files: &[Source]) -> Vec<Finding> {
    let crate_of =
        |source: &Source| source.path.split_once("/src/").map(|(name, _)| name.to_owned());
    let mut found = Vec::new();
    for source in files.iter().filter(|source| source.is_rust()) {
        let (Some(home), Some(module)) = (crate_of(source), source.modules().last().copied())
        else {
            continue;
        };
        let is_program = source.path.contains("/src/bin/");
        let declaration = format!("mod {module};");
        let by_path = format!("{module}.rs\"]"); // `#[path = ".."]`
        let is_declared = |other: &Source| {
            let says = |wanted: &str| other.text.contains(wanted);
            crate_of(other).as_ref() == Some(&home) && (says(&declaration) || says(&by_path))
        };
        if !is_program && !files.iter().any(is_declared) {
            let text = format!("no `{declaration}` anywhere: the compiler never sees this file");
            found.push(finding(source, 1, text));
        }
    }
    found
}
