//! Programs of other families, in both roles, with clients and servers that are not ours: `tests/foreign`, ncat, socat.
//!
//! `docs/compat.md` says which test proves what.

mod chat;
mod labs;
mod led;
mod tp0;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::needs::{Need, skip_without};
use crate::world::{Done, World, finish, wait};

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/foreign").join(name)
}

fn no_python() -> bool {
    skip_without(&[Need::Program("python3")])
}

fn port(place: &str) -> &str {
    place.rsplit_once(':').unwrap().1
}

/// Runs a foreign client to its end.
#[track_caller]
fn python(name: &str, args: &[&str]) -> Done {
    finish(Command::new("python3").arg(script(name)).args(args)).good()
}

/// `cabo`, with this on its stdin.
fn piped(world: &World, args: &[&str], stdin: &[u8]) -> Done {
    let path = world.write("stdin", stdin);
    finish(world.cabo().args(args).stdin(std::fs::File::open(path).unwrap()))
}

/// A foreign server, and what it says.
struct Foreign {
    child: Child,
    said: BufReader<ChildStdout>,
    port: String,
}

impl Foreign {
    fn start(name: &str, args: &[&str]) -> Self {
        let mut command = Command::new("python3");
        let mut child =
            command.arg(script(name)).args(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut port = String::new();
        said.read_line(&mut port).unwrap();
        Self { child, said, port: port.trim().to_owned() }
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// What else it said, when it has ended well.
    #[track_caller]
    fn end(mut self) -> String {
        let mut text = String::new();
        self.said.read_to_string(&mut text).unwrap();
        assert!(wait(&mut self.child).success(), "{text}");
        text
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}
