//! A UDP socket for programs that know nothing of cabo: unicast, broadcast and multicast, datagrams as they are.
//!
//! Neighbours: `udp` is the carrier of cabo/1, which merges and paces; here each datagram stands for itself. `calls` makes its
//! system calls, and tells of them.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockRef, Socket, Type};
use tokio::io::{Interest, ReadBuf};
use tokio::net::UdpSocket;

use super::calls::{self, Closing, Kind};
use super::ether::device;
use super::sockopt::{self, ReceiveBuffer};
use super::{InterfaceName, OpenError, anywhere};

/// Bytes of the largest datagram of IPv4; that of IPv6 is smaller.
pub const LARGEST_BYTES: usize = 65_507;
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;
/// What it means that a socket does not hear all groups.
const OWN_GROUPS: &str = "groups that other sockets joined are not heard";

/// By which interface a socket hears and speaks, and how far what it says to a group goes.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Groups are joined and sent to at this interface; a socket of any other address is bound to it, and hears and sends
    /// nothing by another one. The system chooses where there is none.
    pub interface: Option<Interface>,
    /// Routers that a datagram may pass, and one more; 1 stays on the link.
    pub ttl: Option<u32>,
    /// Whether receivers on this machine hear it; the system says yes.
    pub is_looped: Option<bool>,
}

/// An interface of this machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Interface {
    /// Its name.
    pub name: InterfaceName,
    /// The kernel's number of it, never 0.
    pub index: u32,
}

impl Interface {
    /// The one that has this name now.
    pub fn named(name: &str) -> Result<Self, OpenError> {
        let none = || OpenError::no_interface(name);
        let index = device::interface_index(name).map_err(|_| none())?;
        Ok(Self { name: InterfaceName::new(name).ok_or_else(none)?, index })
    }
}

/// The socket.
#[derive(Debug)]
pub struct OpenUdp {
    _closing: Closing, // before the socket, which it tells of
    socket: UdpSocket,
    local: SocketAddr,
    receive_buffer: ReceiveBuffer,
    is_connected: bool,
}

impl OpenUdp {
    /// Listens at `address`; a group is joined. Must be called inside a tokio runtime.
    pub fn listen(address: SocketAddr, reach: &Reach) -> Result<Self, OpenError> {
        let what = format!("udp://{address}");
        let failed = |operation| {
            let what = &what;
            move |source| match needs_interface(&source, address, reach) {
                true => OpenError::NeedsInterface { what: what.clone(), operation, source },
                false => OpenError::of(what, operation, source),
            }
        };
        let mut opened = Self::bound(address, false, reach, address).map_err(failed("bind"))?;
        if address.ip().is_multicast() {
            let (socket, interface) = (SockRef::from(&opened.socket), interface_of(address, reach));
            join(&socket, address, interface).map_err(failed("join the group"))?;
            opened._closing.joined();
        }
        Ok(opened)
    }

    /// Listens at `port` of every address of this machine, of both families where there are both.
    pub fn listen_anywhere(port: u16, reach: &Reach) -> Result<Self, OpenError> {
        anywhere::open(port, |address| Self::bound(address, true, reach, address))
            .map_err(|e| OpenError::of(&format!("udp://:{port}"), "bind", e))
    }

    /// Opens a socket that sends to `to`, at `from` where that is given. Where that is one host it is connected: nobody else
    /// is heard, and what the host says of a closed port comes as an error. Else it hears whoever answers.
    pub fn towards(
        to: SocketAddr,
        from: Option<SocketAddr>,
        reach: &Reach,
        is_one_host: bool,
    ) -> Result<Self, OpenError> {
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let what = format!("udp://{}", from.unwrap_or(to));
        let opened = Self::bound(from.unwrap_or(any), false, reach, to);
        let mut opened = opened.map_err(|e| OpenError::of(&what, "open", e))?;
        if is_one_host {
            let connected = calls::connect(&SockRef::from(&opened.socket), &to.into(), Kind::Udp);
            connected.map_err(|e| OpenError::of(&format!("udp://{to}"), "connect", e))?;
            opened.is_connected = true;
        }
        Ok(opened)
    }

    /// A socket at `address`, for what comes to or goes to `there`.
    fn bound(
        address: SocketAddr,
        is_both: bool,
        reach: &Reach,
        there: SocketAddr,
    ) -> io::Result<Self> {
        let (domain, udp) = (Domain::for_address(address), Some(Protocol::UDP));
        let (socket, closing) = calls::socket(domain, Type::DGRAM, udp, Kind::Udp)?;
        anywhere::set_families(&socket, address, is_both)?;
        let broadcast = socket.set_broadcast(true);
        calls::option(&socket, "SO_BROADCAST, 1", "broadcasts may leave", broadcast)?;
        let receive_buffer = ReceiveBuffer::raise(&socket, RECEIVE_BUFFER_BYTES)?;
        if let Some(interface) = reach.interface {
            set_interface(&socket, interface, there)?;
        }
        set_multicast(&socket, address, reach)?;
        if address.ip().is_multicast() {
            let shared = socket.set_reuse_address(true);
            calls::option(&socket, "SO_REUSEADDR, 1", "several may hear one group", shared)?;
        }
        socket.set_nonblocking(true)?;
        calls::bind(&socket, &address.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let local = socket.local_addr()?;
        Ok(Self { _closing: closing, socket, local, receive_buffer, is_connected: false })
    }

    /// The address that it is bound to.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether it leads to one host alone.
    pub fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Bytes of packets that arrive at once without loss.
    pub(super) fn burst_bytes(&self) -> usize {
        self.receive_buffer.burst_bytes()
    }

    /// Datagrams that came while the buffer was full.
    pub(super) fn kernel_drops(&self) -> u64 {
        sockopt::drops(&self.socket)
    }

    /// The next datagram, whole, and who sent it.
    pub fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<SocketAddr>> {
        let (asked, had) = (into.remaining(), into.filled().len());
        let from = self.socket.poll_recv_from(cx, into);
        let len = into.filled().len().saturating_sub(had);
        calls::received(&self.socket, asked, len, &from);
        from
    }

    /// What comes instead of datagrams: an error that the system tells of at a connected socket. Whoever waits to read
    /// alone is not woken by it.
    pub async fn error(&self) -> io::Error {
        loop {
            if let Err(error) = self.socket.ready(Interest::ERROR).await {
                return error;
            }
            let peeked = self.socket.try_io(Interest::ERROR, || {
                let mut nothing = [MaybeUninit::uninit(); 1];
                SockRef::from(&self.socket).peek_from(&mut nothing)?;
                Err::<SocketAddr, _>(io::ErrorKind::WouldBlock.into()) // a datagram, which is for who reads
            });
            match peeked {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {} // forgotten, so the next look waits
                Err(error) => {
                    let code = error.raw_os_error();
                    calls::received(&self.socket, 1, 0, &Poll::Ready(Err(error)));
                    return code
                        .map_or_else(|| io::ErrorKind::Other.into(), io::Error::from_raw_os_error);
                }
                Ok(_) => {}
            }
        }
    }

    /// Sends one datagram.
    pub fn poll_send(
        &self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        to: SocketAddr,
    ) -> Poll<io::Result<()>> {
        let to = anywhere::destination(self.local, to);
        let sent = self.socket.poll_send_to(cx, bytes, to);
        calls::sent(&self.socket, bytes.len(), to, &sent);
        sent.map_ok(drop)
    }
}

/// The address that all stations of an interface's IPv4 network hear.
pub fn broadcast_address(interface: InterfaceName) -> Result<Ipv4Addr, OpenError> {
    device::broadcast_address(interface).map_err(|error| match error.raw_os_error() {
        Some(libc::ENODEV) => OpenError::no_interface(interface.as_str()),
        _ => OpenError::NoBroadcast { name: interface.to_string() },
    })
}

/// Groups go by `interface`; what is for any other address comes and goes by it alone.
fn set_interface(socket: &Socket, interface: Interface, there: SocketAddr) -> io::Result<()> {
    let Interface { name, index } = interface;
    if !there.ip().is_multicast() {
        return bind_to(socket, name);
    }
    let set = match there {
        SocketAddr::V4(_) => {
            let request = libc::ip_mreqn {
                imr_multiaddr: libc::in_addr { s_addr: 0 },
                imr_address: libc::in_addr { s_addr: 0 },
                imr_ifindex: i32::try_from(index).unwrap_or_default(),
            };
            sockopt::set(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, request)
        }
        SocketAddr::V6(_) => socket.set_multicast_if_v6(index),
    };
    let what = format_args!("{}_MULTICAST_IF, {index}", family(there.is_ipv4()));
    calls::option(socket, what, "what is sent to groups leaves by that interface", set)
}

/// Hears and sends by one interface alone.
pub(super) fn bind_to(socket: &Socket, interface: InterfaceName) -> io::Result<()> {
    let bound = socket.bind_device(Some(interface.as_str().as_bytes()));
    let what = format_args!("SO_BINDTODEVICE, {interface}");
    let told = calls::option(socket, what, "it comes and goes by that interface alone", bound);
    told.map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM) => {
            let text =
                format!("by {interface} alone: before Linux 5.7 that takes CAP_NET_RAW (setcap)");
            io::Error::new(io::ErrorKind::PermissionDenied, text)
        }
        _ => error,
    })
}

/// How far what is sent to a group goes.
fn set_multicast(socket: &Socket, address: SocketAddr, reach: &Reach) -> io::Result<()> {
    let is_v4 = address.is_ipv4();
    if let Some(ttl) = reach.ttl {
        let (set, name) = if is_v4 {
            (socket.set_multicast_ttl_v4(ttl), "TTL")
        } else {
            (socket.set_multicast_hops_v6(ttl), "HOPS")
        };
        let what = format_args!("{}_MULTICAST_{name}, {ttl}", family(is_v4));
        calls::option(socket, what, "each router takes one off, and drops it at 0", set)?;
    }
    if let Some(is_looped) = reach.is_looped {
        let set = if is_v4 {
            socket.set_multicast_loop_v4(is_looped)
        } else {
            socket.set_multicast_loop_v6(is_looped)
        };
        let meaning = if is_looped { "receivers here hear it too" } else { "nobody here hears it" };
        let what = format_args!("{}_MULTICAST_LOOP, {}", family(is_v4), u8::from(is_looped));
        calls::option(socket, what, meaning, set)?;
    }
    Ok(())
}

/// The family as its options are named.
fn family(is_v4: bool) -> &'static str {
    if is_v4 { "IP" } else { "IPV6" }
}

/// Joins the group that the socket is bound to, and hears no other.
fn join(socket: &Socket, address: SocketAddr, interface_index: u32) -> io::Result<()> {
    match address.ip() {
        IpAddr::V4(group) => {
            let all = socket.set_multicast_all_v4(false);
            calls::option(socket, "IP_MULTICAST_ALL, 0", OWN_GROUPS, all)?;
            let interface = InterfaceIndexOrAddress::Index(interface_index);
            let joined = socket.join_multicast_v4_n(&group, &interface);
            let what = format_args!("IP_ADD_MEMBERSHIP, {group}");
            calls::option(socket, what, "an IGMP report: switches and routers send us it", joined)
        }
        IpAddr::V6(group) => {
            let all = socket.set_multicast_all_v6(false);
            calls::option(socket, "IPV6_MULTICAST_ALL, 0", OWN_GROUPS, all)?;
            let joined = socket.join_multicast_v6(&group, interface_index);
            let what = format_args!("IPV6_ADD_MEMBERSHIP, {group}");
            calls::option(socket, what, "an MLD report: switches and routers send us it", joined)
        }
    }
}

/// The interface at which a group is joined: the one that was named, or that the address itself names; 0 is any.
fn interface_of(address: SocketAddr, reach: &Reach) -> u32 {
    match (reach.interface, address) {
        (Some(interface), _) => interface.index,
        (None, SocketAddr::V6(address)) => address.scope_id(),
        (None, SocketAddr::V4(_)) => 0,
    }
}

/// Whether the system could not choose an interface, and nobody did.
fn needs_interface(error: &io::Error, address: SocketAddr, reach: &Reach) -> bool {
    let is_without = matches!(
        error.raw_os_error(),
        Some(libc::ENODEV | libc::EADDRNOTAVAIL | libc::ENETUNREACH | libc::EINVAL)
    );
    is_without && address.ip().is_multicast() && interface_of(address, reach) == 0
}
