//! The programs in `bench/foreign`: compiled here, so that the build of cabo needs neither a C compiler nor their libraries.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow};

/// Where the sources are.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/foreign");
/// Each with its library, and the package of Debian that brings it.
const PROGRAMS: [(&str, Option<(&str, &str)>); 4] = [
    ("generator", None),
    ("echo_epoll", None),
    ("echo_zmq", Some(("zmq", "libzmq3-dev"))),
    ("echo_nng", Some(("nng", "libnng-dev"))),
];

/// What is there, and what is not and why.
pub struct Programs {
    built: BTreeMap<&'static str, Result<PathBuf, String>>,
}

impl Programs {
    /// Compiles them all. Without the generator there is nothing to measure with.
    pub fn build() -> Result<Self> {
        let own = std::env::current_exe().context("our own program")?;
        let folder = own.parent().context("a program without a folder")?.join("bench-foreign");
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let built: BTreeMap<_, _> = PROGRAMS
            .iter()
            .map(|(name, library)| (*name, compile(name, *library, &folder)))
            .collect();
        let programs = Self { built };
        programs.path("generator").map_err(|missing| anyhow!("the load generator: {missing}"))?;
        Ok(programs)
    }

    /// Where a program is, or why it is not.
    pub fn path(&self, name: &str) -> Result<PathBuf, String> {
        self.built.get(name).cloned().unwrap_or_else(|| Err("there is no such program".into()))
    }

    /// Where a peer is that lies beside us: in a folder of `PATH`, or why it is not.
    pub fn find(name: &str, package: &str) -> Result<PathBuf, String> {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&folders)
            .map(|folder| folder.join(name))
            .find(|path| path.is_file())
            .ok_or_else(|| format!("{name} is missing (apt-get install {package})"))
    }
}

/// Where the echo in Python is.
pub fn python_echo() -> PathBuf {
    Path::new(SOURCES).join("echo_selectors.py")
}

fn compile(name: &str, library: Option<(&str, &str)>, folder: &Path) -> Result<PathBuf, String> {
    let (source, program) = (Path::new(SOURCES).join(format!("{name}.c")), folder.join(name));
    let mut command = Command::new("cc");
    command.args(["-O2", "-g", "-Wall", "-Wextra", "-pthread", "-o"]).arg(&program).arg(source);
    if let Some((library, _)) = library {
        command.arg(format!("-l{library}"));
    }
    let output = command.output().map_err(|error| format!("cc: {error}"))?;
    if output.status.success() {
        return Ok(program);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let error = said.lines().find(|line| line.contains("error")).unwrap_or("cc failed");
    Err(match library {
        Some((_, package)) => format!("{error} (apt-get install {package})"),
        None => error.to_owned(),
    })
}
