//! Where is measured: hosts in namespaces and what joins them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cabo::lab::{CableConfig, Host, Lab};
use cabo::relay::{LinkConfig, RelayConfig, RelayError, RelayStats};

/// Bytes that a frame takes on a wire beside its MTU: preamble, header, check sequence, gap.
pub const WIRE_BYTES: u32 = 38;
/// Of these, what a relay does not see as part of a frame.
const UNSEEN_BYTES: usize = 24;
/// The port of every measurement; each path has hosts of its own.
const PORT: u16 = 5555;

/// A kind of path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// `lo` of one host; `None`: with the MTU it comes with, 65,536.
    Lo { mtu_bytes: Option<u32> },
    /// A veth pair between two hosts, segmentation and checksums done in software before it.
    Veth { mtu_bytes: u32 },
    /// Two veth pairs with a relay between.
    Bad { loss: f64, delay: Duration, rate_bits_per_second: u64 },
}

/// What a peer moves its bytes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Carrier {
    Eth,
    /// Ethernet, the station found by discovery.
    EthAsked,
    Udp,
    Tcp,
    Unix,
}

/// A path that is up.
pub struct Path {
    /// Where the sender is.
    pub sender: Host,
    /// Where the receiver is.
    pub receiver: Host,
    /// The receiver's interface and address on it.
    interface: String,
    mac: [u8; 6],
    ip: std::net::Ipv4Addr,
    relay: Option<Running>,
}

struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<RelayStats, RelayError>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Ok(Ok(stats))) = self.thread.take().map(JoinHandle::join)
            && stats.missed != [0, 0]
        {
            eprintln!("the relay was too slow: it missed {:?} frames", stats.missed);
        }
    }
}

impl Path {
    /// Builds it. `congestion` becomes that of all TCP over `lo` of the sender.
    pub fn build(lab: &Lab, kind: Kind, congestion: Option<&str>) -> Result<Self> {
        let sender = lab.host("sender")?;
        let path = match kind {
            Kind::Lo { mtu_bytes } => {
                if let Some(mtu_bytes) = mtu_bytes {
                    sender.run(|| set_mtu("lo", mtu_bytes))?.context("the MTU of lo")?;
                }
                Self {
                    receiver: sender.clone(),
                    sender,
                    interface: "lo".into(),
                    mac: [0; 6],
                    ip: std::net::Ipv4Addr::LOCALHOST,
                    relay: None,
                }
            }
            Kind::Veth { mtu_bytes } => Self::cable(
                lab,
                kind,
                sender,
                CableConfig { mtu_bytes, is_relayed: false, offloads: Some(false) },
            )?,
            Kind::Bad { .. } => {
                let config = CableConfig { is_relayed: true, ..CableConfig::default() };
                Self::cable(lab, kind, sender, config)?
            }
        };
        if let Some(congestion) = congestion {
            set_congestion(&path.sender, congestion)?;
        }
        Ok(path)
    }

    fn cable(lab: &Lab, kind: Kind, sender: Host, config: CableConfig) -> Result<Self> {
        let receiver = lab.host("receiver")?;
        let cable = lab.cable(&sender, "eth0", &receiver, "eth0", &config)?;
        let mut relay = None;
        if let Kind::Bad { loss, delay, rate_bits_per_second } = kind {
            let link = LinkConfig {
                loss,
                delay,
                rate_bits_per_second,
                per_packet_overhead_bytes: UNSEEN_BYTES,
                ..LinkConfig::default()
            };
            let running = lab.relay(&cable, RelayConfig::symmetric(link, 7))?;
            let stop = Arc::new(AtomicBool::new(false));
            let flag = stop.clone();
            let thread = std::thread::spawn(move || running.run(&flag));
            relay = Some(Running { stop, thread: Some(thread) });
        }
        let port = cable.b;
        Ok(Self { sender, receiver, interface: port.name, mac: port.mac, ip: port.ipv4, relay })
    }

    /// Whether a relay makes it bad.
    pub fn is_relayed(&self) -> bool {
        self.relay.is_some()
    }

    /// Where a cabo receiver listens and where its sender finds it.
    pub fn cabo_places(&self, carrier: Carrier) -> (String, String) {
        let Self { interface, ip, .. } = self;
        match carrier {
            Carrier::Eth => {
                let mac = self.mac.map(|byte| format!("{byte:02x}")).join("-");
                (format!("eth://{interface}:{PORT}"), format!("eth://{mac}%25{interface}:{PORT}"))
            }
            Carrier::EthAsked => (format!("eth://{interface}"), format!("eth://{interface}")),
            Carrier::Udp => (format!("udp://{ip}:{PORT}"), format!("udp://{ip}:{PORT}")),
            Carrier::Tcp => (format!("tcp://{ip}:{PORT}"), format!("tcp://{ip}:{PORT}")),
            Carrier::Unix => ("unix:@cabo-bench".into(), "unix:@cabo-bench".into()),
        }
    }

    /// The same for a peer that is not cabo.
    pub fn peer_places(&self, carrier: Carrier) -> (String, String) {
        let Self { interface, ip, .. } = self;
        match carrier {
            Carrier::Eth | Carrier::EthAsked => {
                let mac = self.mac.map(|byte| format!("{byte:02x}")).join(":");
                (interface.clone(), format!("{mac} {interface}"))
            }
            Carrier::Udp | Carrier::Tcp => (format!("{ip}:{PORT}"), format!("{ip}:{PORT}")),
            Carrier::Unix => ("cabo-bench".into(), "cabo-bench".into()),
        }
    }
}

/// Has all TCP over `lo` of `host` use `congestion`. By route, because a namespace may not choose every one by sysctl.
fn set_congestion(host: &Host, congestion: &str) -> Result<()> {
    for destination in ["127.0.0.0/8", "127.0.0.1"] {
        let words = format!(
            "route replace local {destination} dev lo table local proto kernel scope host src 127.0.0.1 congctl \
             {congestion}"
        );
        let status = host
            .command("ip")
            .args(words.split_whitespace())
            .status()
            .context("ip; is iproute2 installed?")?;
        anyhow::ensure!(status.success(), "ip {words}: {status}");
    }
    Ok(())
}

/// Sets the MTU of an interface in this thread's namespace.
fn set_mtu(name: &str, mtu_bytes: u32) -> io::Result<()> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::DGRAM, None)?;
    // SAFETY: a zeroed ifreq is a valid one: plain integers and a null pointer.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_mtu = mtu_bytes as libc::c_int;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    // SAFETY: SIOCSIFMTU reads an ifreq, which outlives the call.
    match unsafe { libc::ioctl(fd, libc::SIOCSIFMTU as _, &request) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
