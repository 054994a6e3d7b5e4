//! Processes that outlive the command that began them: as the subreaper of the lab we get them, and end them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid,
};

/// Who was asked to end has this long, before it is killed.
const ASKED_TIME: Duration = Duration::from_secs(1);
/// A process that cannot even be killed does not hold us up for longer.
const KILLED_TIME: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// From now on whoever below us loses its parent is our child (prctl(2), PR_SET_CHILD_SUBREAPER).
pub(super) fn adopt() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Forgets adopted children that have ended; `own` is not adopted.
pub(super) fn reap(own: Option<u32>) {
    for child in children() {
        if u32::try_from(child.as_raw_nonzero().get()).ok() != own {
            let _ = waitpid(Some(child), WaitOptions::NOHANG); // it may be somebody else's by now
        }
    }
}

/// Ends whatever is left below us.
pub(super) fn end() {
    let started = Instant::now();
    let mut asked = BTreeSet::new();
    while started.elapsed() < ASKED_TIME + KILLED_TIME {
        reap(None);
        let left = children();
        if left.is_empty() {
            return;
        }
        let is_late = started.elapsed() >= ASKED_TIME;
        for child in left {
            // What one of them leaves behind becomes ours in turn.
            let is_new = asked.insert(child.as_raw_nonzero());
            let signal = if is_late { Signal::KILL } else { Signal::TERM };
            if is_late || is_new {
                let _ = kill_process(child, signal);
            }
        }
        thread::sleep(POLL);
    }
}

/// Our children, as `/proc` shows them.
fn children() -> Vec<Pid> {
    let own = getpid().as_raw_nonzero().get();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| parent(*pid) == Some(own)).filter_map(Pid::from_raw).collect()
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let behind_name = stat.rsplit_once(')')?.1; // a name may hold anything
    behind_name.split_whitespace().nth(1)?.parse().ok()
}
