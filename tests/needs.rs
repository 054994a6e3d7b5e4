//! What a test needs that a machine may lack, and the one way to skip: aloud at home, as a failure in CI.
//!
//! An integration test of any crate, or a unit test of `cabo`, takes it in by path:
//!
//! ```ignore
//! #[path = "../../tests/needs.rs"]
//! mod needs;
//! use needs::{Need, skip_without};
//!
//! #[test]
//! fn a_player_decodes_what_the_gateway_serves() {
//!     if skip_without(&[Need::Program("ffmpeg"), Need::Namespaces]) {
//!         return;
//!     }
//!     ..
//! }
//! ```

#![allow(dead_code, reason = "each test binary that includes this file uses its own part of it")]

use std::{
    env,
    fs::OpenOptions,
    io::Write,
    process::{Command, Stdio},
    thread,
};

/// Something outside the workspace.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Need {
    /// A program in `PATH`; `./dev setup` lists them all, so add it there too.
    Program(&'static str),
    /// User and network namespaces without being root.
    Namespaces,
}

impl Need {
    fn is_here(self) -> bool {
        match self {
            Self::Program(name) => env::var_os("PATH")
                .is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(name).is_file())),
            Self::Namespaces => Command::new("unshare")
                .args(["--user", "--map-root-user", "--net", "true"])
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success()),
        }
    }

    fn reason(self) -> String {
        match self {
            Self::Program(name) => {
                format!("{name} is not installed; `./dev setup install` installs it")
            }
            Self::Namespaces => {
                "unprivileged user namespaces are forbidden here; `./dev setup` prints the fix"
                    .into()
            }
        }
    }
}

/// True where the test has to return because something is missing; see [`skip`].
pub(crate) fn skip_without(needs: &[Need]) -> bool {
    let missing = needs.iter().find(|need| !need.is_here());
    if let Some(missing) = missing {
        skip(&missing.reason());
    }
    missing.is_some()
}

/// Says that the calling test cannot run here and why, on stderr and in the list that `./dev test` prints at its end.
/// Panics instead where `CI=true`: there, nothing may be missing.
pub(crate) fn skip(reason: &str) {
    let in_ci = env::var("CI").is_ok_and(|value| value == "true" || value == "1");
    assert!(!in_ci, "CI allows no skipped test: {reason}");

    // Test runners run each test on a thread of its name.
    let current = thread::current();
    let line = format!("SKIPPED {}: {reason}\n", current.name().unwrap_or("a test"));
    eprint!("{line}");
    if let Some(list) = env::var_os("CABO_SKIPPED_LIST") {
        let file = OpenOptions::new().append(true).create(true).open(&list);
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        written.expect("the list of skipped tests can be written");
    }
}
