//! The machine that the figures belong to.

use std::fs;

use serde::Serialize;

/// What a reader has to know about it.
#[derive(Debug, Serialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub kernel: String,
    pub tcp_congestion: String,
    pub receive_buffer_max: String,
    pub load_at_start: String,
    pub commit: String,
}

impl Machine {
    pub fn look() -> Self {
        let processor = fs::read_to_string("/proc/cpuinfo")
            .unwrap_or_default()
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
            .map_or("unknown".into(), |(_, name)| name.trim().to_owned());
        let git =
            std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output();
        Self {
            processor,
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            kernel: first_line("/proc/sys/kernel/osrelease"),
            tcp_congestion: first_line("/proc/sys/net/ipv4/tcp_congestion_control"),
            receive_buffer_max: first_line("/proc/sys/net/core/rmem_max"),
            load_at_start: first_line("/proc/loadavg"),
            commit: git.map_or_else(
                |_| "unknown".into(),
                |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            ),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { processor, cores, kernel, tcp_congestion, receive_buffer_max, .. } = self;
        writeln!(
            f,
            "machine     {processor}, {cores} cores; Linux {kernel}; TCP {tcp_congestion} unless a row says other; \
             rmem_max {receive_buffer_max}"
        )?;
        write!(f, "state       load {} at the start; commit {}", self.load_at_start, self.commit)
    }
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path)
        .ok()
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| "unknown".into())
}
