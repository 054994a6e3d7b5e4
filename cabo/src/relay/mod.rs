//! A bad cable for real: between two interfaces, or in front of a `udp://` or `tcp://` endpoint.
//!
//! The badness is [`Link`](cabo_proto::sim::link::Link), the model that the simulator uses, driven here by the real
//! clock on one dedicated thread: `ppoll` wakes to the microsecond where a runtime's timer rounds to the millisecond,
//! and at 200 Mbit/s a frame lasts 60 us. Rooms: `duplex` (two links, their statistics and trace), `ether` over
//! `frames` and `offload` (whole frames between interfaces), `udp` and `tcp` over `ready`.
//!
//! ```no_run
//! # use std::sync::atomic::AtomicBool;
//! # use std::time::Duration;
//! # use cabo::relay::{LinkConfig, Relay, RelayConfig};
//! let bad = LinkConfig { loss: 0.01, delay: Duration::from_millis(10), ..LinkConfig::default() };
//! let relay = Relay::between_interfaces("veth0", "veth1", RelayConfig::symmetric(bad, 7))?;
//! let stats = relay.run(&AtomicBool::new(false))?;
//! # Ok::<(), cabo::relay::RelayError>(())
//! ```

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use cabo_proto::sim::link::{LinkConfig, LinkConfigError, LinkStats};

mod duplex;
mod ether;
mod frames;
mod offload;
mod ready;
mod tcp;
mod trace;
mod udp;

/// How often a running relay looks at its stop flag and publishes its statistics.
pub const TICK: Duration = Duration::from_millis(50);

/// How bad each direction is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RelayConfig {
    /// From the first interface to the second; from client to server.
    pub forward: LinkConfig,
    /// The other way.
    pub backward: LinkConfig,
    /// Both links draw from it, each its own sequence.
    pub seed: u64,
}

impl RelayConfig {
    /// The same both ways.
    pub fn symmetric(link: LinkConfig, seed: u64) -> Self {
        Self { forward: link.clone(), backward: link, seed }
    }
}

/// Why a relay cannot be made, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// A number that means nothing.
    #[error("{direction}: {source}")]
    Config {
        /// `forward` or `backward`.
        direction: &'static str,
        /// Which number.
        source: LinkConfigError,
    },
    /// Something that a byte stream cannot suffer.
    #[error(
        "{0} means nothing on tcp://: the relay ends TCP on both sides and TCP hides it. Take delay, jitter, rate or \
         corrupt; or relay between two interfaces, where kernel TCP suffers it too"
    )]
    NotForStreams(&'static str),
    /// There is no such interface.
    #[error("no interface {0:?} here; `ip link` lists them")]
    NoInterface(String),
    /// A cable needs two ends.
    #[error("both ends are interface {0:?}")]
    SameInterface(String),
    /// Raw frames need a privilege.
    #[error(
        "raw frames on {0} need CAP_NET_RAW: try `sudo setcap cap_net_raw+ep $(command -v cabo)`"
    )]
    Privilege(String),
    /// The cable was laid without a gap in the middle.
    #[error("this cable is not a relayed one")]
    NotRelayed,
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

impl RelayError {
    fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}

/// What a relay did so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RelayStats {
    /// How long it has run.
    pub elapsed: Duration,
    /// The forward link.
    pub forward: LinkStats,
    /// The backward link.
    pub backward: LinkStats,
    /// Packets that came through a link and that the far side did not take (interface down, too long for it, no
    /// buffer, client gone), forward and backward.
    pub unsent: [u64; 2],
    /// Frames that the kernel dropped before the relay could read them, forward and backward: the relay was too slow.
    pub missed: [u64; 2],
    /// Clients or connections now served, on `udp://` and `tcp://`.
    pub clients: usize,
    /// Clients or connections turned away or forgotten because there were too many.
    pub refused: u64,
    /// Times an interface went away and was found again.
    pub returns: u64,
    /// The trace could not be written to its end.
    pub is_trace_broken: bool,
}

/// A relay that is ready: its sockets are open. [`run`](Self::run) it on a thread of its own.
pub struct Relay {
    kind: Kind,
    config: RelayConfig,
    shared: Arc<Shared>,
    trace: Option<trace::Trace>,
}

enum Kind {
    Ether(Box<ether::Ether>),
    Udp(udp::Udp),
    Tcp(tcp::Tcp),
}

impl Relay {
    /// Forwards whole frames between two interfaces of the calling thread's network namespace, both ways. They should
    /// have no addresses, or this machine answers too. Lengths are of frames from the destination address on: an MTU of
    /// 1500 is 1514 in `mtu_bytes`, and 24 more in `per_packet_overhead_bytes` make a rate that of the wire.
    pub fn between_interfaces(a: &str, b: &str, config: RelayConfig) -> Result<Self, RelayError> {
        check(&config)?;
        let ether = ether::Ether::open(a, b)?;
        Ok(Self::new(Kind::Ether(Box::new(ether)), config))
    }

    /// Listens on `listen` and forwards datagrams to `to`, from a port of its own for each client.
    pub fn udp(
        listen: SocketAddr,
        to: SocketAddr,
        config: RelayConfig,
    ) -> Result<Self, RelayError> {
        check(&config)?;
        Ok(Self::new(Kind::Udp(udp::Udp::open(listen, to)?), config))
    }

    /// Listens on `listen` and forwards connections to `to`. Delay, jitter and rate hold for the bytes, and `corrupt`
    /// flips bits that no TCP checksum sees; what else a link can do is refused, because TCP would hide it. A pulled
    /// cable freezes all connections.
    pub fn tcp(
        listen: SocketAddr,
        to: SocketAddr,
        config: RelayConfig,
    ) -> Result<Self, RelayError> {
        check(&config)?;
        tcp::check(&config.forward)?;
        tcp::check(&config.backward)?;
        Ok(Self::new(Kind::Tcp(tcp::Tcp::open(listen, to)?), config))
    }

    /// Writes one JSON line for each verdict to `writer`: seconds since the start, direction, length, verdict. A writer
    /// that blocks holds up the cable.
    pub fn with_trace(mut self, writer: impl Write + Send + 'static) -> Self {
        self.trace = Some(trace::Trace::new(Box::new(writer)));
        self
    }

    /// Where it listens, for `udp` and `tcp`.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.kind {
            Kind::Ether(_) => None,
            Kind::Udp(udp) => udp.local_addr(),
            Kind::Tcp(tcp) => tcp.local_addr(),
        }
    }

    /// A handle to look at it and to pull its cable while it runs.
    pub fn handle(&self) -> RelayHandle {
        RelayHandle(Arc::clone(&self.shared))
    }

    /// Forwards until `stop` is true, which it sees within a [`TICK`]. Bad days of interfaces and clients are waited
    /// out; an error means that the relay itself cannot go on.
    pub fn run(self, stop: &AtomicBool) -> Result<RelayStats, RelayError> {
        // The default slack of 50 us would be most of a frame at 200 Mbit/s. Without it timing is only less exact.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        let shared = Arc::clone(&self.shared);
        let Self { kind, config, trace, .. } = self;
        match kind {
            Kind::Ether(ether) => {
                ether.run(duplex::Duplex::new(config, Arc::clone(&shared), trace), stop)
            }
            Kind::Udp(udp) => {
                udp.run(duplex::Duplex::new(config, Arc::clone(&shared), trace), stop)
            }
            Kind::Tcp(tcp) => tcp
                .run(duplex::Duplex::new(tcp::unqueued(config), Arc::clone(&shared), trace), stop),
        }?;
        Ok(RelayHandle(shared).stats())
    }

    fn new(kind: Kind, config: RelayConfig) -> Self {
        Self { kind, config, shared: Arc::default(), trace: None }
    }
}

/// Looks at a relay, and pulls its cable, from another thread.
#[derive(Clone)]
pub struct RelayHandle(Arc<Shared>);

impl RelayHandle {
    /// What it did so far, at most a [`TICK`] old while it runs.
    pub fn stats(&self) -> RelayStats {
        *self.0.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pulls the cable, or puts it back.
    pub fn set_down(&self, is_down: bool) {
        self.0.is_down.store(is_down, Ordering::Relaxed);
    }

    /// True while the cable is pulled.
    pub fn is_down(&self) -> bool {
        self.0.is_down.load(Ordering::Relaxed)
    }
}

/// What a running relay and its handles share.
#[derive(Default)]
struct Shared {
    stats: Mutex<RelayStats>,
    is_down: AtomicBool,
}

fn check(config: &RelayConfig) -> Result<(), RelayError> {
    config.forward.check().map_err(|source| RelayError::Config { direction: "forward", source })?;
    config.backward.check().map_err(|source| RelayError::Config { direction: "backward", source })
}
