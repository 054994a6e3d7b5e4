//! A cable between two hosts: veth pairs, their addresses and their offloads.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_core::Stream;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage, State,
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::{Host, LabError, interface, namespace};

const READY_WITHIN: Duration = Duration::from_secs(5);

/// How a cable is laid.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CableConfig {
    /// Largest payload of an Ethernet frame; veth takes 68 to 65,535.
    pub mtu_bytes: u32,
    /// Two veth pairs with a gap in the middle, for [`Lab::relay`](super::Lab::relay) to bridge. Nothing crosses the
    /// cable until a relay runs.
    pub is_relayed: bool,
    /// Checksums, segmentation and coalescing left to the "hardware". `None`: on for a plain cable, off for a relayed
    /// one, whose frames a program reads and must find finished.
    pub offloads: Option<bool>,
}

impl Default for CableConfig {
    fn default() -> Self {
        Self { mtu_bytes: 1500, is_relayed: false, offloads: None }
    }
}

/// A cable that was laid. It lives as long as its hosts.
#[derive(Clone, Debug)]
pub struct Cable {
    /// Its number in the lab, from 1; it shows in the addresses.
    pub number: u8,
    /// The first end.
    pub a: Port,
    /// The second end.
    pub b: Port,
    /// The two interfaces in the lab's own namespace, where the cable is relayed.
    pub middle: Option<(String, String)>,
}

/// One end of a cable.
#[derive(Clone, Debug)]
pub struct Port {
    /// The interface's name on its host.
    pub name: String,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Its IPv4 address, in a network of 24 bits.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address, in a network of 64 bits.
    pub ipv6: Ipv6Addr,
}

/// Lays cable `number`.
pub(super) fn lay(
    room: &Host,
    number: u8,
    (a_host, a_name): (&Host, &str),
    (b_host, b_name): (&Host, &str),
    config: &CableConfig,
) -> Result<Cable, LabError> {
    let (a, b) = (Port::new(number, 1, a_name)?, Port::new(number, 2, b_name)?);
    let has_offloads = config.offloads.unwrap_or(!config.is_relayed);
    let mut middle = None;
    if config.is_relayed {
        let (to_a, to_b) = (format!("mid{number}a"), format!("mid{number}b"));
        pair((a_host, &a.name, a.mac), (room, &to_a, mac(number, 3)), config.mtu_bytes)?;
        pair((b_host, &b.name, b.mac), (room, &to_b, mac(number, 4)), config.mtu_bytes)?;
        for name in [&to_a, &to_b] {
            room.run(|| -> Result<(), LabError> {
                namespace::disable_ipv6(name);
                start(name, has_offloads)
            })??;
        }
        middle = Some((to_a, to_b));
    } else {
        pair((a_host, &a.name, a.mac), (b_host, &b.name, b.mac), config.mtu_bytes)?;
    }
    for (host, port) in [(a_host, &a), (b_host, &b)] {
        host.run(|| start(&port.name, has_offloads))??;
    }
    for name in middle.iter().flat_map(|(to_a, to_b)| [to_a, to_b]) {
        room.run(|| wait_until_ready(name))??;
    }
    for (host, port) in [(a_host, &a), (b_host, &b)] {
        host.run(|| wait_until_ready(&port.name).and_then(|()| port.number_interface()))??;
    }
    Ok(Cable { number, a, b, middle })
}

impl Port {
    fn new(cable: u8, end: u8, name: &str) -> Result<Self, LabError> {
        if !interface::is_name(name) {
            return Err(LabError::Name(name.to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            mac: mac(cable, end),
            ipv4: Ipv4Addr::new(10, 0, cable, end),
            ipv6: Ipv6Addr::new(0xfd00, 0, 0, cable.into(), 0, 0, 0, end.into()),
        })
    }

    /// Gives the interface its addresses, in this thread's namespace.
    fn number_interface(&self) -> Result<(), LabError> {
        let socket = interface::any_socket().map_err(LabError::system("a socket"))?;
        let index = interface::index(socket.as_fd(), &self.name)
            .map_err(LabError::system(&*self.name))?
            .unsigned_abs();
        netlink(&format!("addresses of {}", self.name), async |handle| {
            handle.address().add(index, self.ipv4.into(), 24).execute().await?;
            let mut add = handle.address().add(index, self.ipv6.into(), 64);
            add.message_mut().header.flags |= AddressHeaderFlags::Nodad; // usable at once: nobody else can have it
            add.execute().await
        })
    }
}

/// A locally administered address that says which end of which cable it is.
fn mac(cable: u8, end: u8) -> [u8; 6] {
    [0x02, 0xca, 0xb0, 0x00, cable, end]
}

/// Makes a veth pair, each end where it belongs from the start.
fn pair(
    (a_host, a_name, a_mac): (&Host, &str, [u8; 6]),
    (b_host, b_name, b_mac): (&Host, &str, [u8; 6]),
    mtu_bytes: u32,
) -> Result<(), LabError> {
    let what =
        format!("a cable from {a_name} of {} to {b_name} of {}", a_host.name(), b_host.name());
    a_host.run(|| {
        let peer: LinkMessage = LinkMessageBuilder::<LinkUnspec>::new()
            .name(b_name)
            .mtu(mtu_bytes)
            .address(b_mac.to_vec())
            .setns_by_fd(b_host.as_fd().as_raw_fd())
            .build();
        let link = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(a_name)
            .mtu(mtu_bytes)
            .address(a_mac.to_vec())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        netlink(&what, async |handle| handle.link().add(link).execute().await)
    })?
}

/// Sets an interface of this thread's namespace up.
fn start(name: &str, has_offloads: bool) -> Result<(), LabError> {
    if !has_offloads {
        let socket = interface::any_socket().map_err(LabError::system("a socket"))?;
        interface::offloads_off(socket.as_fd(), name)
            .map_err(LabError::system(format!("offloads of {name}")))?;
    }
    interface::set_up(name).map_err(LabError::system(format!("{name} up")))
}

/// Waits until an interface of this thread's namespace can send. The kernel notices the far end of a new veth pair a
/// moment after both are up, and drops without a word what is sent before.
fn wait_until_ready(name: &str) -> Result<(), LabError> {
    let is_ready =
        |link: &LinkMessage| link.attributes.contains(&LinkAttribute::OperState(State::Up));
    let what = format!("waiting until {name} can send");
    let deadline = Instant::now() + READY_WITHIN;
    netlink(&what, async |handle| {
        while Instant::now() < deadline {
            let mut links = pin!(handle.link().get().match_name(name).execute());
            if poll_fn(|context| links.as_mut().poll_next(context))
                .await
                .transpose()?
                .as_ref()
                .is_some_and(is_ready)
            {
                return Ok(true);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(false)
    })?
    .then_some(())
    .ok_or_else(|| LabError::System { what, source: ErrorKind::TimedOut.into() })
}

/// Runs one netlink conversation in this thread's namespace.
fn netlink<T>(
    what: &str,
    talk: impl AsyncFnOnce(Handle) -> Result<T, rtnetlink::Error>,
) -> Result<T, LabError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LabError::system("a runtime for netlink"))?;
    runtime.block_on(async {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(LabError::system("a netlink socket"))?;
        let driver = tokio::spawn(connection);
        let result = talk(handle).await;
        driver.abort();
        result.map_err(|source| LabError::Netlink { what: what.to_owned(), source })
    })
}
