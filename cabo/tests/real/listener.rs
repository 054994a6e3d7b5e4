//! A stranger with `tcpdump` on an interface, and `tshark` to read what it wrote.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use cabo::lab::Host;

const PATIENCE: Duration = Duration::from_secs(20);

/// Writes every frame of one interface into a file.
pub(crate) struct Listener {
    tcpdump: Child,
    said: BufReader<ChildStderr>,
    path: PathBuf,
}

impl Listener {
    /// Returns when it hears.
    pub(crate) fn start(host: &Host, interface: &str, path: &Path) -> Self {
        let mut tcpdump = host
            .command("tcpdump")
            .args(["-i", interface, "-U", "--immediate-mode", "-B", "65536", "-Z", "root", "-w"])
            .arg(path)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(tcpdump.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "tcpdump ended early");
        }
        Self { tcpdump, said, path: path.to_owned() }
    }

    /// Waits until it has written at least `len` bytes, and stops it. It must have missed nothing.
    pub(crate) fn stop(mut self, len: u64) -> PathBuf {
        let deadline = Instant::now() + PATIENCE;
        while std::fs::metadata(&self.path).unwrap().len() < len {
            assert!(Instant::now() < deadline, "it heard too little");
            std::thread::sleep(Duration::from_millis(10));
        }
        let id = rustix::process::Pid::from_child(&self.tcpdump);
        rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
        let mut said = String::new();
        self.said.read_to_string(&mut said).unwrap();
        assert!(self.tcpdump.wait().unwrap().success(), "{said}");
        assert!(said.contains("0 packets dropped by kernel"), "{said}");
        self.path
    }
}

/// The `fields` of all frames in `capture` that `filter` lets through, one line a frame.
pub(crate) fn tshark(capture: &Path, filter: &str, fields: &[&str]) -> Vec<String> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(capture).args(["-Y", filter, "-T", "fields"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}
