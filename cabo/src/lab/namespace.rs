//! The calls that make, name and join namespaces, and what to tell a user whose system forbids them.

use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::LabError;

/// Moves this thread into a new network namespace, inside a new user namespace where that is needed.
pub(super) fn enter() -> Result<(), LabError> {
    if unshare(UnshareFlags::NEWNET).is_ok() {
        return Ok(());
    }
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        return Err(LabError::Threads(threads));
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    unshare(UnshareFlags::NEWUSER).map_err(|source| forbidden("a user namespace", source))?;
    // setgroups must be given up before an unprivileged user may map a group (user_namespaces(7)).
    for (file, text) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {uid} 1")),
        ("/proc/self/gid_map", format!("0 {gid} 1")),
    ] {
        fs::write(file, text)
            .map_err(|source| forbidden("the user map of a user namespace", source))?;
    }
    unshare_network()
}

/// Moves this thread into a new network namespace.
pub(super) fn unshare_network() -> Result<(), LabError> {
    unshare(UnshareFlags::NEWNET).map_err(|source| forbidden("a network namespace", source))
}

/// The network namespace of this thread.
pub(super) fn current() -> Result<OwnedFd, LabError> {
    let path = "/proc/thread-self/ns/net";
    fs::File::open(path).map(OwnedFd::from).map_err(LabError::system(path))
}

/// Moves this thread into a network namespace. One system call, so that it is fit for `pre_exec`.
pub(super) fn join(netns: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::thread::move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?)
}

/// Interfaces made later in this namespace use IPv6 addresses at once and ask for no router. Where `/proc` is read-only
/// the lab works too, with a second's wait and some chatter.
pub(super) fn quiet_ipv6() {
    for (name, value) in [("accept_dad", "0"), ("router_solicitations", "0")] {
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/default/{name}"), value);
    }
}

/// Takes IPv6 off one interface of this namespace, as far as that can be done.
pub(super) fn disable_ipv6(name: &str) {
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
}

fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: the flags are only NEWUSER and NEWNET, never FILES, so no descriptor changes under another thread.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

fn forbidden(what: &'static str, source: io::Error) -> LabError {
    LabError::Forbidden { what, fix: fix(), source }
}

/// The one line that would help, by what this system says of itself.
fn fix() -> String {
    let says = |name: &str, value: &str| {
        fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/")))
            .is_ok_and(|text| text.trim() == value)
    };
    for (name, closed, open) in [
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        ("user.max_user_namespaces", "0", "10000"),
        ("user.max_net_namespaces", "0", "10000"),
    ] {
        if says(name, closed) {
            return format!("try `sudo sysctl -w {name}={open}`");
        }
    }
    "a container or a seccomp filter may forbid it: try outside, or with `docker run --privileged`, or as root".into()
}
