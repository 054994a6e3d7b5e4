//! One test's own world: directories, the program with its own configuration, and servers that end with the test.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Everything a program does here is done within this.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(2);

pub(crate) struct World {
    dir: tempfile::TempDir,
}

/// What a program said and how it ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `cabo` as our own user types it.
    pub(crate) fn cabo(&self) -> Command {
        self.cabo_as("own")
    }

    /// `cabo` as somebody with another identity types it.
    pub(crate) fn cabo_as(&self, who: &str) -> Command {
        self.within(Command::new(env!("CARGO_BIN_EXE_cabo")), who)
    }

    /// `cabo` in the foreground of the terminal that is its stdin.
    pub(crate) fn cabo_on_terminal(&self) -> Command {
        let mut command = self.within(Command::new("setsid"), "own");
        command.args(["--ctty", env!("CARGO_BIN_EXE_cabo")]);
        command
    }

    /// The same, without the right to read what its owner may not read: root has that.
    pub(crate) fn cabo_unprivileged(&self) -> Command {
        let mut command = self.within(Command::new("unshare"), "own");
        command.args(["--user", env!("CARGO_BIN_EXE_cabo")]);
        command
    }

    pub(crate) fn within(&self, mut command: Command, who: &str) -> Command {
        command
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("USER", who)
            .env("XDG_CONFIG_HOME", self.path(&format!("config-{who}")))
            .stdin(Stdio::null());
        command
    }

    /// Makes a file and the folders that it stands in.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Makes a large file that takes hardly any disk; every MiB of it is another one.
    pub(crate) fn write_large(&self, name: &str, mebibytes: u64) -> PathBuf {
        let path = self.write(name, b"");
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(mebibytes << 20).unwrap();
        for block in 0..mebibytes {
            file.write_all_at(&block.to_be_bytes(), (block << 20) + 77).unwrap();
        }
        path
    }

    /// Runs `cabo` with these arguments to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        finish(self.cabo().args(args))
    }

    /// The fingerprint of somebody.
    pub(crate) fn fingerprint(&self, who: &str) -> String {
        finish(self.cabo_as(who).args(["keys", "-q"])).good().out.trim().to_owned()
    }

    /// Starts a server of our own.
    pub(crate) fn serve(&self, args: &[&str]) -> Served {
        self.serve_as("own", args)
    }

    pub(crate) fn serve_as(&self, who: &str, args: &[&str]) -> Served {
        let mut command = self.cabo_as(who);
        command.args(["serve", "--json"]).args(args);
        Served::start(&mut command)
    }
}

impl Done {
    /// It has to have worked.
    #[track_caller]
    pub(crate) fn good(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// It has to have ended so, with one line that says all of this.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        let lines: Vec<&str> =
            self.err.lines().filter(|line| !line.starts_with("first time at")).collect();
        let last = lines.last().copied().unwrap_or_default();
        assert!(last.starts_with("cabo: "), "{self:?}");
        for word in words {
            assert!(last.contains(word), "{word:?} is missing in {last:?}");
        }
        self
    }
}

/// Runs a command to its end, or fails after [`LIMIT`].
#[track_caller]
pub(crate) fn finish(command: &mut Command) -> Done {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (out, err) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let status = wait(&mut child);
    let text = |receiver: Receiver<Vec<u8>>| {
        String::from_utf8_lossy(&receiver.recv_timeout(LIMIT).unwrap()).into_owned()
    };
    Done { code: status.code(), out: text(out), err: text(err) }
}

#[track_caller]
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let mut status = None;
    let done = until(|| {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    if !done {
        child.kill().unwrap();
    }
    status.expect("it hangs")
}

/// Looks until it is so; false after [`LIMIT`].
pub(crate) fn until(mut is_so: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    while started.elapsed() < LIMIT {
        if is_so() {
            return true;
        }
        thread::sleep(POLL);
    }
    false
}

fn collect(from: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            let _ = from.read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}

/// A server that ends with the test.
pub(crate) struct Served {
    child: Child,
    pub(crate) urls: Vec<String>,
    pub(crate) fingerprint: String,
    /// What it said when it was ready.
    pub(crate) ready: Value,
    events: Receiver<Value>,
}

impl Served {
    /// Starts `cabo serve --json`, and returns when it listens.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let errors = collect(child.stderr.take());
        Self::of(child, errors)
    }

    /// A server whose stdout is a pipe, when it listens; `errors` is what it says beside.
    pub(crate) fn of(mut child: Child, errors: Receiver<Vec<u8>>) -> Self {
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, events) = channel();
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        let mut urls = Vec::new();
        loop {
            match events.recv_timeout(LIMIT) {
                Ok(Value::Object(event)) if event["event"] == "listening" => {
                    urls.push(event["url"].as_str().unwrap().to_owned());
                }
                Ok(event) if event["event"] == "ready" => {
                    let fingerprint = event["fingerprint"].as_str().unwrap().to_owned();
                    return Self { child, urls, fingerprint, ready: event, events };
                }
                other => {
                    child.kill().unwrap();
                    let errors = errors.recv().unwrap_or_default();
                    panic!("not ready: {other:?} {}", String::from_utf8_lossy(&errors));
                }
            }
        }
    }

    /// The first URL, or that of a scheme.
    pub(crate) fn url(&self) -> &str {
        &self.urls[0]
    }

    /// The next event of this name; those before it are forgotten.
    #[track_caller]
    pub(crate) fn event(&self, name: &str) -> Value {
        loop {
            match self.events.recv_timeout(LIMIT) {
                Ok(event) if event["event"] == name => return event,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no event {name}")
                }
            }
        }
    }

    pub(crate) fn process(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signal_child(&self.child, signal);
    }

    /// Asks it to end, and waits.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        wait(&mut self.child)
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) {
        self.signal(Signal::KILL);
        wait(&mut self.child);
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn signal_child(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Chance of a test, from `CABO_SEED` where that is set. Its seed shows where the test fails.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(usual_seed: u64) -> Self {
        let seed = std::env::var("CABO_SEED").ok().and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or(usual_seed);
        println!("the moments of this run again: CABO_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15); // splitmix64
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }

    /// Lets a moment pass that is shorter than `most`.
    pub(crate) fn pause(&mut self, most: Duration) {
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        thread::sleep(Duration::from_micros(self.below(micros)));
    }
}

/// What stands in a folder, in order.
pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Ticks of a hundredth of a second that a process has used.
pub(crate) fn cpu_ticks(process: Pid) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).unwrap();
    let behind_name = stat.rsplit_once(')').unwrap().1;
    let fields = behind_name.split_whitespace().skip(11).take(2); // utime and stime: proc_pid_stat(5)
    fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// Fails with what differs.
#[track_caller]
pub(crate) fn assert_same_file(a: &Path, b: &Path) {
    let (mut a_file, mut b_file) = (File::open(a).unwrap(), File::open(b).unwrap());
    assert_eq!(a_file.metadata().unwrap().len(), b_file.metadata().unwrap().len());
    let (mut a_part, mut b_part) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for block in 0.. {
        let length = a_file.read(&mut a_part).unwrap();
        b_file.read_exact(&mut b_part[..length]).unwrap();
        assert!(a_part[..length] == b_part[..length], "{} differs at {block}", b.display());
        if length == 0 {
            return;
        }
    }
}

/// Compares with a committed text of ours; writes it where `CABO_BLESS=1`.
#[track_caller]
pub(crate) fn assert_committed(name: &str, text: &str) {
    assert_same_text(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help").join(name), text);
}

/// The same for any file.
#[track_caller]
pub(crate) fn assert_same_text(path: &Path, text: &str) {
    if std::env::var_os("CABO_BLESS").is_some_and(|value| value == "1") {
        File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
    }
    let committed = fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == text,
        "{} is not what was committed; if that is right: CABO_BLESS=1 cargo test -p cabo-cli --test cli\n{text}",
        path.display()
    );
}
