//! Hosts on this machine: one network namespace each, joined by cables, without root.
//!
//! [`Lab::enter`] moves the process into a user namespace of its own, in which it may make network namespaces. A
//! [`Host`] is such a namespace, held by a descriptor and by nothing else, so that all of it vanishes with the process,
//! however that ends. A cable is a veth pair; a [relayed](CableConfig::is_relayed) one is two, whose middle ends stay
//! with the lab so that a [`Relay`] between them can be as bad as asked.
//!
//! ```text
//!   +- host ana -+         +-------- lab --------+         +- host bob -+
//!   |       eth0 +---veth--+ mid1a -relay- mid1b +--veth---+ eth0       |
//!   +------------+         +---------------------+         +------------+
//!     10.0.1.1, fd00:0:0:1::1                       10.0.1.2, fd00:0:0:1::2
//! ```
//!
//! A network namespace belongs to a thread, so [`Host::run`] uses a fresh one. In a child, `/sys` still shows the
//! machine outside: ask netlink.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, JoinHandle};

use crate::relay::{Relay, RelayConfig, RelayError};

mod cable;
pub(crate) mod interface;
mod namespace;

pub use cable::{Cable, CableConfig, Port};

/// What can go wrong while a lab is built.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The system does not let this user make namespaces.
    #[error("this system does not let you make {what} ({source}): {fix}")]
    Forbidden {
        /// Which kind of namespace, or what about it.
        what: &'static str,
        /// What to do, in one line.
        fix: String,
        /// What the system said.
        source: io::Error,
    },
    /// A process with several threads cannot enter a user namespace.
    #[error("the lab must be entered before threads are started, and there are {0}")]
    Threads(usize),
    /// A name that Linux does not take for an interface.
    #[error("{0:?} is no name for an interface: 1 to 15 bytes, no '/', ':' or space")]
    Name(String),
    /// All 254 cable numbers are used.
    #[error("a lab has at most 254 cables")]
    TooManyCables,
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel refused a change of an interface or address.
    #[error("{what}: {source}")]
    Netlink {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
    /// The relay of a cable could not be made.
    #[error(transparent)]
    Relay(#[from] RelayError),
}

impl LabError {
    fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}

/// The machine room: where hosts and cables are made and where relays run.
#[derive(Debug)]
pub struct Lab {
    room: Host,
    cables: AtomicU8,
}

impl Lab {
    /// Moves this process (in fact: this thread, and those it starts later) into a lab of its own.
    ///
    /// With the privilege for it only the network namespace is new. Without, a user namespace comes first, in which
    /// this user appears as root; that the kernel allows only to a process with a single thread, so call this before
    /// any runtime starts.
    pub fn enter() -> Result<Self, LabError> {
        namespace::enter()?;
        let room = Host { name: "lab".into(), netns: Arc::new(namespace::current()?) };
        interface::set_up("lo").map_err(LabError::system("lo of the lab"))?;
        Ok(Self { room, cables: AtomicU8::new(0) })
    }

    /// A new host: a network namespace with nothing but `lo`, which is up.
    pub fn host(&self, name: &str) -> Result<Host, LabError> {
        // A thread of its own, because unshare moves the thread that calls it.
        let netns = self.room.run(|| -> Result<OwnedFd, LabError> {
            namespace::unshare_network()?;
            interface::set_up("lo").map_err(LabError::system("lo of a host"))?;
            namespace::quiet_ipv6();
            namespace::current()
        })??;
        Ok(Host { name: name.to_owned(), netns: Arc::new(netns) })
    }

    /// Joins `a_name` on host `a` and `b_name` on host `b`, with addresses on both, up and ready.
    pub fn cable(
        &self,
        a: &Host,
        a_name: &str,
        b: &Host,
        b_name: &str,
        config: &CableConfig,
    ) -> Result<Cable, LabError> {
        let number = self
            .cables
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < 254).then_some(n + 1))
            .map_err(|_| LabError::TooManyCables)?
            + 1;
        cable::lay(&self.room, number, (a, a_name), (b, b_name), config)
    }

    /// A relay between the middle ends of a relayed cable. It may run on any thread.
    pub fn relay(&self, cable: &Cable, config: RelayConfig) -> Result<Relay, LabError> {
        let Some((a, b)) = &cable.middle else {
            return Err(LabError::Relay(RelayError::NotRelayed));
        };
        Ok(self.room.run(|| Relay::between_interfaces(a, b, config))??)
    }

    /// The lab's own namespace, where the middle ends of relayed cables are.
    pub fn room(&self) -> &Host {
        &self.room
    }
}

/// One network namespace. Clones are the same host.
#[derive(Clone, Debug)]
pub struct Host {
    name: String,
    netns: Arc<OwnedFd>,
}

impl Host {
    /// The name it was given; it shows in errors and as the name of its threads.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command whose process runs on this host, and is killed when the thread that spawned it ends.
    ///
    /// That it is the thread, not the process, is how Linux has it: do not spawn from a thread of a blocking pool.
    /// `tokio::process::Command::from` takes it too.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let (netns, parent) = (Arc::clone(&self.netns), rustix::process::getpid());
        let mut command = Command::new(program);
        let prepare = move || {
            namespace::join(netns.as_fd())?;
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            if rustix::process::getppid() != Some(parent) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH)); // it died before the line above
            }
            Ok(())
        };
        // SAFETY: between fork and exec only system calls are made; nothing allocates or takes a lock.
        unsafe { command.pre_exec(prepare) };
        command
    }

    /// Runs `work` on this host, on a fresh thread, and returns what it returns; a panic passes through. Sockets made
    /// there stay on this host wherever they go.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        thread::scope(|scope| {
            let thread = thread::Builder::new()
                .name(self.name.clone())
                .spawn_scoped(scope, || self.join_thread().map(|()| work()))
                .map_err(LabError::system(format!("a thread on host {}", self.name)))?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// As [`run`](Self::run), without waiting.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<Result<T, LabError>>, LabError> {
        let host = self.clone();
        thread::Builder::new()
            .name(self.name.clone())
            .spawn(move || host.join_thread().map(|()| work()))
            .map_err(LabError::system(format!("a thread on host {}", self.name)))
    }

    /// Moves the calling thread to this host for good; meant for `on_thread_start` of a runtime.
    pub fn join_thread(&self) -> Result<(), LabError> {
        namespace::join(self.netns.as_fd())
            .map_err(LabError::system(format!("joining host {}", self.name)))
    }
}

impl AsFd for Host {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.netns.as_fd()
    }
}
