//! The examples do what they say, as programs of their own. `cargo test` and `cargo nextest run` build them.
#![allow(clippy::unwrap_used, reason = "a test stops where it is surprised")]

use std::io::{BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// An example that runs until it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let path: PathBuf = test.parent().unwrap().with_file_name("examples").join(name);
    assert!(path.exists(), "{} is built by: cargo build -p cabo --examples", path.display());
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).env("XDG_CONFIG_HOME", env!("CARGO_TARGET_TMPDIR"));
    command
}

fn start(name: &str, args: &[&str]) -> Running {
    Running(example(name).args(args).stdout(Stdio::null()).spawn().unwrap())
}

fn url(path: &Path) -> String {
    format!("unix://{}", path.display())
}

/// As soon as somebody listens there.
fn connect(path: &Path) -> UnixStream {
    let begun = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                return stream;
            }
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{}: {error}", path.display()),
        }
        sleep(Duration::from_millis(10)); // it is starting
    }
}

fn line(stream: &mut impl std::io::BufRead) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    line
}

#[test]
fn echo_and_ask_talk_to_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("echo");
    let _echo = start("echo", &[&url(&path)]);
    drop(connect(&path));
    let asked = example("ask").args([&url(&path), "hola", "mundo"]).output().unwrap();
    assert_eq!(String::from_utf8(asked.stdout).unwrap(), "hola\nmundo\n");
    assert!(asked.status.success());
    let asked =
        example("ask").args([&url(&folder.path().join("nobody")), "hola"]).output().unwrap();
    assert!(!asked.status.success() && !asked.stderr.is_empty());
}

#[test]
fn a_chain_of_three_passes_on_and_passes_back() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let _middle = start("chain", &[&url(&b), &url(&a)]);
    let mut first = BufReader::new(connect(&b));
    let mut second = BufReader::new(connect(&b));
    first.get_mut().write_all(b"hola\n").unwrap(); // waits: there is no end of the chain yet
    let _end = start("echo", &[&url(&a)]);
    assert_eq!(line(&mut first), "b:hola\n");
    second.get_mut().write_all(b"uno\ndos\n").unwrap();
    assert_eq!((line(&mut second), line(&mut second)), ("b:uno\n".into(), "b:dos\n".into()));
    first.get_mut().write_all(b"mundo\n").unwrap();
    assert_eq!(line(&mut first), "b:mundo\n");
}

fn accept(listener: &UnixListener) -> UnixStream {
    listener.set_nonblocking(true).unwrap();
    let begun = Instant::now();
    let stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(_) => assert!(begun.elapsed() < PATIENCE, "nobody came"),
        }
        sleep(Duration::from_millis(5)); // looks again
    };
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A greeting, and answers, on either side of the one in the middle; its messages are of layouts.
#[test]
fn a_chain_of_a_dialect_greets_on_both_sides_and_passes_on_each_byte() {
    const PAQUETE: &[u8] = b"\x01\0\0\0\x13\0\0\0\x05\0\0\0hola\0\x06\0\0\0mundo\0";
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let end = UnixListener::bind(&a).unwrap();
    let _middle = start("chain", &[&url(&b), &url(&a), "tp0"]);
    let mut client = connect(&b);
    client.write_all(&[b"\x01\0\0\0", PAQUETE].concat()).unwrap();
    let mut end = accept(&end);
    let mut greeting = [0; 4];
    end.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"\x01\0\0\0");
    end.write_all(b"\0\0\0\0").unwrap();
    let mut passed = [0; PAQUETE.len()];
    end.read_exact(&mut passed).unwrap();
    assert_eq!(passed, PAQUETE);
    end.write_all(b"\0\0\0\0\x06\0\0\0valor\0").unwrap();
    let mut answer = [0; 18];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"\0\0\0\0\0\0\0\0\x06\0\0\0valor\0");
}

#[test]
fn a_lamp_tells_everybody_its_state_and_every_change_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lamp");
    let _lamp = start("lamp", &[&url(&path)]);
    let (mut first, mut second) = (BufReader::new(connect(&path)), BufReader::new(connect(&path)));
    let _never_reads = connect(&path);
    assert_eq!((line(&mut first), line(&mut second)), ("dark\n".into(), "dark\n".into()));
    let mut button = BufReader::new(connect(&path));
    button.get_mut().write_all(b"on\non\nwhat?\n").unwrap();
    for watcher in [&mut first, &mut second] {
        assert_eq!(line(watcher), "bright\n");
    }
    assert_eq!((line(&mut button), line(&mut button)), ("dark\n".into(), "bright\n".into()));
    assert_eq!(line(&mut BufReader::new(connect(&path))), "bright\n", "who comes later");
    button.get_mut().write_all(b"off\n").unwrap();
    for watcher in [&mut first, &mut second, &mut button] {
        assert_eq!(line(watcher), "dark\n", "what changed nothing was not told");
    }
}

#[test]
fn what_goes_wrong_is_said_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("taken");
    let taken = url(&path);
    let _echo = start("echo", &[&taken]);
    drop(connect(&path));
    let nobody = url(&folder.path().join("nobody"));
    for (name, args, words) in [
        ("echo", vec![taken.as_str()], "in use"),
        ("lamp", vec![taken.as_str()], "in use"),
        ("lamp", vec!["nonsense"], "nonsense"),
        ("chain", vec![taken.as_str(), taken.as_str()], "in use"),
        ("chain", vec![nobody.as_str(), "nonsense"], "nonsense"),
        ("ask", vec![nobody.as_str(), "hola"], "nobody"),
    ] {
        let done = example(name).args(&args).output().unwrap();
        let said = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(1), "{name} {args:?}: {said}");
        assert!(said.starts_with("Error: ") && said.contains(words), "{name} {args:?}: {said}");
        let is_debug = said.contains(['{', '}', '(']);
        assert!(said.lines().count() == 1 && !is_debug, "{name} {args:?}: {said}");
    }
}
