//! What the kernel knows about an interface now, and word of every change.
//!
//! Neighbours: `mod.rs` looks here when it opens, when a send fails and when [`Changes`] has news. `unsafe`: the device
//! ioctls have no safe crate; each passes one `ifreq` that lives on the frame.

use std::ffi::CStr;
use std::io;
use std::mem;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::task::{Context, Poll};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use tokio::io::unix::AsyncFd;

use crate::carrier::{InterfaceName, OpenError, sockopt};

const LOOPBACK_MAC: [u8; 6] = [0; 6];

/// One look at an interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::carrier) struct Device {
    pub(super) name: InterfaceName,
    pub(in crate::carrier) index: i32,
    pub(in crate::carrier) mac: [u8; 6],
    pub(super) mtu: usize,
    pub(in crate::carrier) is_up: bool,
    pub(in crate::carrier) is_loopback: bool, // where all have one address, of zeros
}

impl Device {
    /// Looks at the interface with this name, by way of any `socket`.
    pub(in crate::carrier) fn look(
        socket: &impl AsRawFd,
        name: InterfaceName,
    ) -> Result<Self, OpenError> {
        let ask = |request, operation| {
            ioctl(socket, name, request).map_err(|error| match error.raw_os_error() {
                Some(libc::ENODEV) => OpenError::no_interface(name.as_str()),
                _ => OpenError::of(&format!("eth://{name}"), operation, error),
            })
        };
        let index = ask(libc::SIOCGIFINDEX, "read the interface index")?;
        let flags = ask(libc::SIOCGIFFLAGS, "read the interface flags")?;
        let mtu = ask(libc::SIOCGIFMTU, "read the MTU")?;
        let address = ask(libc::SIOCGIFHWADDR, "read the hardware address")?;
        // SAFETY: each request fills the field of its name, and all are plain integers or arrays of them.
        let (index, flags, mtu, address) = unsafe {
            (
                index.ifr_ifru.ifru_ifindex,
                flags.ifr_ifru.ifru_flags,
                mtu.ifr_ifru.ifru_mtu,
                address.ifr_ifru.ifru_hwaddr,
            )
        };
        if !matches!(address.sa_family, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK) {
            return Err(OpenError::NotEthernet {
                name: name.to_string(),
                hardware: address.sa_family,
            });
        }
        let mut mac = [0; 6];
        for (to, from) in mac.iter_mut().zip(address.sa_data) {
            *to = from as u8;
        }
        let is_up = libc::c_int::from(flags) & libc::IFF_UP != 0;
        let is_loopback = address.sa_family == libc::ARPHRD_LOOPBACK;
        Ok(Self {
            name,
            index,
            mac,
            mtu: usize::try_from(mtu).unwrap_or_default(),
            is_up,
            is_loopback,
        })
    }

    /// Whether a frame can come from `mac`: a group, nobody and we ourselves cannot have sent it (IEEE 802.3 3.2.3).
    pub(super) fn is_source(&self, mac: [u8; 6]) -> bool {
        let is_group = mac[0] & 1 != 0;
        !is_group && (self.is_loopback || (mac != [0; 6] && mac != self.mac))
    }

    /// The name that the kernel prints: an alternative name leads here too, but a claim needs a single one.
    pub(super) fn canonical_name(&self, socket: &OwnedFd) -> InterfaceName {
        let name = rustix::net::netdevice::index_to_name(socket, self.index as u32).ok();
        name.and_then(|name| InterfaceName::new(&name)).unwrap_or(self.name)
    }
}

fn ioctl(
    socket: &impl AsRawFd,
    name: InterfaceName,
    request: libc::c_ulong,
) -> io::Result<libc::ifreq> {
    // SAFETY: all bits zero is a valid `ifreq`.
    let mut ifreq: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in ifreq.ifr_name.iter_mut().zip(name.padded()) {
        *to = from as libc::c_char;
    }
    // SAFETY: the requests of `look` read and write one `ifreq`.
    let code = unsafe { libc::ioctl(socket.as_raw_fd(), request as _, &raw mut ifreq) };
    if code == 0 { Ok(ifreq) } else { Err(io::Error::last_os_error()) }
}

/// The broadcast address of an interface's first IPv4 network: as it was set, or as the network's size says.
pub(in crate::carrier) fn broadcast_address(name: InterfaceName) -> io::Result<Ipv4Addr> {
    let any = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let ask = |request| -> io::Result<Ipv4Addr> {
        let answer = ioctl(&any, name, request)?;
        // SAFETY: these requests fill one field of addresses: a port and an address of plain integers.
        let [_, _, a, b, c, d, ..] = unsafe { answer.ifr_ifru.ifru_addr.sa_data };
        Ok(Ipv4Addr::from([a, b, c, d].map(|byte| byte as u8)))
    };
    let set = ask(libc::SIOCGIFBRDADDR)?;
    if !set.is_unspecified() {
        return Ok(set);
    }
    // SAFETY: the request fills the field of its name, a plain integer.
    let flags = unsafe { ioctl(&any, name, libc::SIOCGIFFLAGS)?.ifr_ifru.ifru_flags };
    let computed = broadcast_of(ask(libc::SIOCGIFADDR)?, ask(libc::SIOCGIFNETMASK)?);
    let can_all_hear = libc::c_int::from(flags) & libc::IFF_BROADCAST != 0;
    computed.filter(|_| can_all_hear).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// The last address of a network; none where that has two addresses or one, which are those of stations (RFC 3021).
fn broadcast_of(ip: Ipv4Addr, mask: Ipv4Addr) -> Option<Ipv4Addr> {
    let stations = !u32::from(mask);
    (stations > 1 && !ip.is_unspecified()).then(|| Ipv4Addr::from(u32::from(ip) | stations))
}

/// The kernel's number of an interface.
pub(crate) fn interface_index(name: &str) -> io::Result<u32> {
    Ok(rustix::net::netdevice::name_to_index(super::any_socket()?, name)?)
}

/// The names of all interfaces here. Not from sysfs: that may show another namespace.
pub(in crate::carrier) fn names() -> Vec<String> {
    let mut names = Vec::new();
    // SAFETY: the list ends with an entry of index 0, its strings end with NUL, it is freed once, after its last use.
    unsafe {
        let list = libc::if_nameindex();
        let mut entry = list;
        while !entry.is_null() && (*entry).if_index != 0 {
            names.push(CStr::from_ptr((*entry).if_name).to_string_lossy().into_owned());
            entry = entry.add(1);
        }
        if !list.is_null() {
            libc::if_freenameindex(list);
        }
    }
    names
}

/// The names of the links that are up, without loopback, sorted.
pub(super) fn links(socket: &OwnedFd) -> Vec<String> {
    links_that(socket, |device| device.is_up)
}

/// The same with those that are down.
pub(super) fn all_links(socket: &OwnedFd) -> Vec<String> {
    links_that(socket, |_| true)
}

fn links_that(socket: &OwnedFd, is_meant: impl Fn(&Device) -> bool) -> Vec<String> {
    let is_link = |name: &String| {
        let device = InterfaceName::new(name).and_then(|name| Device::look(socket, name).ok());
        device.is_some_and(|device| device.mac != LOOPBACK_MAC && is_meant(&device))
    };
    let mut links = names();
    links.retain(is_link);
    links.sort();
    links
}

/// Word from the kernel that some interface changed: came, went, up, down, renamed, another MTU.
#[derive(Debug)]
pub(super) struct Changes {
    netlink: AsyncFd<OwnedFd>,
}

impl Changes {
    pub(super) fn new() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, libc::RTMGRP_LINK as u32))?;
        Ok(Self { netlink: sockopt::register(socket)? })
    }

    /// Ready when something changed since the last call; what, is for the caller to look at. Call until it is pending.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut has_news = false;
        loop {
            let mut guard = match self.netlink.poll_read_ready(cx) {
                Poll::Ready(Ok(guard)) => guard,
                Poll::Ready(Err(_)) => return Poll::Pending, // the runtime ends
                Poll::Pending if has_news => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            };
            let mut message = [0u8; 8192];
            match guard.try_io(|fd| Ok(recv(fd, message.as_mut_slice(), RecvFlags::TRUNC)?)) {
                Ok(_) => has_news = true, // a message, or that some were lost: both mean look again
                Err(_would_block) if has_news => return Poll::Ready(()),
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broadcast_address_of_a_network_is_its_last() {
        let of = |ip: &str, mask: &str| broadcast_of(ip.parse().unwrap(), mask.parse().unwrap());
        assert_eq!(of("10.9.8.7", "255.255.255.0"), Some([10, 9, 8, 255].into()));
        assert_eq!(of("10.9.8.7", "255.255.255.128"), Some([10, 9, 8, 127].into()));
        for mask in ["255.255.255.254", "255.255.255.255"] {
            assert_eq!(of("10.9.8.7", mask), None, "{mask}");
        }
    }
}
