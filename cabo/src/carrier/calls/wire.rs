//! What a call did on the wire, in words: from what TCP and UDP must do then, and from the kernel's own account of the
//! connection (`TCP_INFO`), so that nothing is guessed that can be asked.
//!
//! Neighbours: `tcp_info` asks; `mod.rs` and `stream.rs` ask for the words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::RawFd;

use socket2::{SockAddr, Socket};

use super::tcp_info::{State, TcpInfo};
use super::{Kind, Side};
use crate::carrier::sockopt;

const NOTHING: &str = "nothing on the wire";
/// A datagram of so many bytes fits every link that IPv6 may cross.
const ALWAYS_FITS_BYTES: usize = 1280 - 48;

/// What is known of how a connection ends, for its `close`.
#[derive(Clone, Copy, Debug)]
pub(in crate::carrier) struct Ending {
    kind: Kind,
    side: Option<Side>,
    is_reset: bool,
    /// It is in a multicast group.
    pub(super) is_member: bool,
    /// Our FIN went before the peer's came.
    is_ours_first: bool,
}

impl Ending {
    pub(super) fn unconnected(kind: Kind) -> Self {
        Self { kind, side: None, is_reset: false, is_member: false, is_ours_first: false }
    }

    pub(super) fn of(kind: Kind, side: Side) -> Self {
        Self { side: Some(side), ..Self::unconnected(kind) }
    }

    pub(super) fn heard(&mut self, result: Result<i64, i32>) {
        self.is_reset |= result == Err(libc::ECONNRESET);
    }

    pub(super) fn said(&mut self, result: Result<i64, i32>) {
        self.is_reset |= matches!(result, Err(libc::ECONNRESET | libc::EPIPE));
    }

    pub(super) fn shut(&mut self, before: Option<TcpInfo>, result: Result<i64, i32>) {
        let state = before.map(|info| info.state);
        self.is_ours_first |= result.is_ok() && state == Some(State::Established);
    }

    /// What the close will do. The descriptor is still open.
    pub(super) fn at_close(self, descriptor: RawFd) -> String {
        match self.kind {
            Kind::Udp if self.is_member => {
                "an IGMP or MLD report: we leave the group, if no other socket stays in it".into()
            }
            Kind::Udp => format!("{NOTHING}; UDP has no goodbye"),
            Kind::Unix if self.side.is_some() => "no wire; the other process reads the end".into(),
            Kind::Unix => "no wire".into(),
            Kind::Claim => "no wire; the port is free for others".into(),
            Kind::Ether => format!("{NOTHING}; raw frames have no goodbye"),
            Kind::Tcp => match TcpInfo::of(descriptor, self.kind) {
                Some(info) => self.of_tcp(info, sockopt::unread_bytes(&descriptor)),
                None => String::new(),
            },
        }
    }

    fn of_tcp(self, info: TcpInfo, unread_bytes: usize) -> String {
        let what = match info.state {
            State::Listen if info.queued > 0 => {
                return format!("RST to the {} that still waited for accept", info.queued);
            }
            State::Listen => return format!("{NOTHING}; nobody is welcomed here any more"),
            State::SynSent => {
                return format!("{NOTHING}; {} SYNs had no answer", info.segments_out);
            }
            State::Closed if self.side.is_none() => return NOTHING.into(),
            _ if unread_bytes > 0 && info.state != State::Closed => {
                format!("RST, because {unread_bytes} bytes were never read")
            }
            State::Established => "FIN".into(),
            State::CloseWait => "FIN, the second one; the peer keeps TIME_WAIT".into(),
            State::FinWait1 | State::Closing | State::LastAck => {
                format!("{NOTHING}; our FIN went before and is not acknowledged yet")
            }
            State::FinWait2 => format!("{NOTHING}; our FIN went before, the peer's is awaited"),
            State::TimeWait | State::Closed if self.is_reset => {
                format!("{NOTHING}; the RST ended it")
            }
            State::TimeWait | State::Closed if self.is_ours_first => {
                format!("{NOTHING}; both FINs are through, and this side keeps TIME_WAIT for 60 s")
            }
            State::TimeWait | State::Closed => {
                format!("{NOTHING}; it is over, and this side keeps nothing")
            }
        };
        format!("{what}{}; {}", info.state.told("; it was "), info.totals(self.side))
    }
}

pub(super) fn socket(kind: Kind, result: Result<i64, i32>) -> String {
    match (result, kind) {
        (Err(code), _) => failed(code),
        (Ok(_), Kind::Unix) => "no wire: it stays inside this machine".into(),
        (Ok(_), Kind::Claim) => "no wire: its name will claim a port of the link".into(),
        (Ok(_), Kind::Ether) => format!("{NOTHING}; protocol 0 hears nothing yet"),
        (Ok(_), Kind::Tcp | Kind::Udp) => format!("{NOTHING}; no address yet"),
    }
}

pub(super) fn bind(asked: &SockAddr, local: Option<&SockAddr>, result: Result<i64, i32>) -> String {
    if let Err(code) = result {
        return failed(code);
    }
    match (asked.as_socket(), local.and_then(SockAddr::as_socket)) {
        (None, _) => "no wire: the name leads here now".into(),
        (Some(asked), Some(local)) if asked.port() == 0 => {
            format!("{NOTHING}; the system chose port {}", local.port())
        }
        (Some(asked), _) if asked.ip().is_unspecified() => {
            format!("{NOTHING}; port {} of every address is ours", asked.port())
        }
        (Some(asked), _) => format!("{NOTHING}; {asked} is ours"),
    }
}

pub(super) fn listen(descriptor: RawFd, kind: Kind, result: Result<i64, i32>) -> String {
    match (result, TcpInfo::of(descriptor, kind)) {
        (Err(code), _) => failed(code),
        (Ok(_), Some(info)) => format!(
            "{NOTHING}; the kernel answers each SYN from now on, and completed connections wait \
             here for accept, {} at most",
            info.queue_max
        ),
        (Ok(_), None) => "no wire; connections wait here for accept".into(),
    }
}

pub(super) fn accepted(descriptor: RawFd, kind: Kind, from: &str) -> String {
    match TcpInfo::of(descriptor, kind) {
        Some(info) => format!(
            "{NOTHING} now: {from} shook hands with the kernel before (SYN, SYN+ACK, ACK), {}",
            info.round_trip()
        ),
        None => format!("no wire: {from}"),
    }
}

pub(super) fn connect(
    socket: &Socket,
    had: Option<&SockAddr>,
    kind: Kind,
    result: Result<i64, i32>,
) -> String {
    let port = |address: &SockAddr| address.as_socket().map_or(0, |address| address.port());
    let is_chosen = had.is_none_or(|had| port(had) == 0);
    match (kind, result) {
        (Kind::Unix, Ok(_)) => "no wire: it waits for the server's accept".into(),
        (Kind::Unix | Kind::Claim | Kind::Ether, Err(code)) => failed(code),
        (Kind::Claim | Kind::Ether, Ok(_)) => NOTHING.into(),
        (Kind::Udp, Ok(_)) => {
            format!("{NOTHING}; datagrams of others are left out, and a closed port is told of")
        }
        (Kind::Tcp | Kind::Udp, Ok(_) | Err(libc::EINPROGRESS)) => {
            match socket.local_addr().ok().and_then(|local| local.as_socket()) {
                Some(local) if is_chosen => {
                    format!("SYN, from {local}, a port that the system chose")
                }
                Some(local) => format!("SYN, from {local}"),
                None => "SYN".into(),
            }
        }
        (Kind::Tcp | Kind::Udp, Err(code)) => failed(code),
    }
}

pub(super) fn connected(descriptor: RawFd, code: Option<i32>) -> String {
    let info = TcpInfo::of(descriptor, Kind::Tcp);
    match (code, info) {
        (Some(libc::ECONNREFUSED), _) => {
            "RST came: the host is there, and nobody listens at that port".into()
        }
        (Some(libc::ETIMEDOUT), Some(info)) => {
            format!("{} SYNs had no answer", info.segments_out)
        }
        (Some(code), _) => failed(code),
        (None, Some(info)) => {
            let again = match info.sent_again {
                0 => String::new(),
                again => format!("; the SYN was sent {} times", again.saturating_add(1)),
            };
            format!("SYN+ACK came, ACK went: connected; {}{again}", info.round_trip())
        }
        (None, None) => "SYN+ACK came, ACK went: connected".into(),
    }
}

pub(super) fn read(
    kind: Kind,
    asked: usize,
    segments: Option<u32>,
    info: Option<TcpInfo>,
    result: Result<i64, i32>,
) -> String {
    match (kind, result) {
        (_, Err(code)) => failed(code),
        (_, Ok(0)) if asked == 0 => "nothing was asked for".into(),
        (Kind::Unix, Ok(0)) => "no wire: the other process ended its half".into(),
        (Kind::Unix, Ok(_)) => "no wire: from the other process".into(),
        (_, Ok(0)) if info.is_some_and(|info| info.state == State::Closed) => {
            "the peer's FIN, after ours: both directions are over".into()
        }
        (_, Ok(0)) => {
            let now = info.map(|info| info.state.told("; now ")).unwrap_or_default();
            format!("the peer's FIN: it sends nothing more, and may still read{now}")
        }
        (_, Ok(_)) => match segments {
            None | Some(0) => "data that had come before".into(),
            Some(1) => "data came in 1 segment".into(),
            Some(segments) => format!("data came in {segments} segments since the last recv"),
        },
    }
}

pub(super) fn written(
    kind: Kind,
    seen: Option<(TcpInfo, TcpInfo)>,
    result: Result<i64, i32>,
) -> String {
    let (before, after) = match (kind, result, seen) {
        (_, Err(libc::EPIPE), _) => return format!("{NOTHING}: the connection is over"),
        (_, Err(code), _) => return failed(code),
        (Kind::Unix, Ok(_), _) => return "no wire: it waits for the other process".into(),
        (_, Ok(_), None) => return "handed to the kernel".into(),
        (_, Ok(_), Some(seen)) => seen,
    };
    let segments = after.data_segments_out.wrapping_sub(before.data_segments_out);
    let waits = match after.unsent_bytes {
        0 => String::new(),
        bytes => format!("; {bytes} bytes wait in the kernel for acknowledgements or room"),
    };
    match (segments, after.unsent_bytes) {
        (0, 0) => "handed to the kernel".into(),
        (0, _) => format!("nothing on the wire yet{waits}"),
        (1, 0) => "data went in 1 segment (PSH+ACK)".into(),
        (1, _) => format!("data went in 1 segment{waits}"),
        (segments, 0) => format!("data went in {segments} segments (PSH+ACK the last)"),
        (segments, _) => format!("data went in {segments} segments{waits}"),
    }
}

pub(super) fn shut(
    kind: Kind,
    before: Option<TcpInfo>,
    after: Option<TcpInfo>,
    result: Result<i64, i32>,
) -> String {
    if let Err(code) = result {
        return if code == libc::ENOTCONN {
            format!("{NOTHING}: the connection is over already")
        } else {
            failed(code)
        };
    }
    let (Some(before), Some(after), Kind::Tcp) = (before, after, kind) else {
        return "no wire: the other process reads the end".into();
    };
    let behind = match after.unsent_bytes {
        0 => String::new(),
        bytes => format!(", behind {bytes} bytes that still wait"),
    };
    let now = after.state.told("; now ");
    match before.state {
        State::Established => format!("FIN{behind}: we send nothing more, and still read{now}"),
        State::CloseWait => format!("FIN{behind}, the second one: the peer's came before{now}"),
        State::FinWait1
        | State::FinWait2
        | State::TimeWait
        | State::Closed
        | State::LastAck
        | State::Closing
        | State::SynSent
        | State::Listen => format!("{NOTHING}: our FIN went before"),
    }
}

pub(super) fn datagram_in(from: Option<SocketAddr>, result: Result<i64, i32>) -> String {
    let from = from.map_or_else(|| "somebody".into(), |from| plain(from).to_string());
    match result {
        Err(libc::ECONNREFUSED) => {
            "an ICMP message came: nobody listened where an earlier datagram went".into()
        }
        Err(code) => failed(code),
        Ok(0) => format!("an empty datagram from {from}; it ends nothing"),
        Ok(_) => format!("one datagram from {from}"),
    }
}

pub(super) fn datagram_out(bytes: usize, to: SocketAddr, result: Result<i64, i32>) -> String {
    let to = plain(to);
    match result {
        Err(libc::ECONNREFUSED) => {
            "nothing on the wire: an ICMP message about an earlier datagram came".into()
        }
        Err(libc::EMSGSIZE) => format!("{NOTHING}: no datagram is that large"),
        Err(code) => failed(code),
        Ok(_) => {
            let mtu_bytes = (bytes > ALWAYS_FITS_BYTES).then(|| mtu_towards(to)).flatten();
            match mtu_bytes.map_or(1, |mtu| fragments(bytes, to.ip(), mtu)) {
                1 => "one datagram, one packet; nobody says whether it arrives".into(),
                count => format!(
                    "one datagram in {count} fragments, for the MTU is {}; one lost loses it all",
                    mtu_bytes.unwrap_or_default()
                ),
            }
        }
    }
}

/// Packets that a datagram of so many bytes becomes where a link takes `mtu_bytes`.
fn fragments(bytes: usize, to: IpAddr, mtu_bytes: usize) -> usize {
    const UDP_HEADER_BYTES: usize = 8;
    let (header, fragment_header) = if to.is_ipv4() { (20, 0) } else { (40, 8) };
    let whole = bytes + UDP_HEADER_BYTES;
    if header + whole <= mtu_bytes {
        return 1;
    }
    let part = mtu_bytes.saturating_sub(header + fragment_header) / 8 * 8; // offsets count in eights
    whole.div_ceil(part.max(8))
}

/// The MTU of the way there, by what the kernel says to a socket of its own that sends nothing.
fn mtu_towards(to: SocketAddr) -> Option<usize> {
    let from: IpAddr = match to.ip() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let scratch = UdpSocket::bind((from, 0)).ok()?;
    scratch.connect(to).ok()?;
    let (level, name) = match to.ip() {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
    };
    let [mtu] = sockopt::get(&scratch, level, name).ok()?;
    usize::try_from(mtu).ok()
}

/// An IPv4 address as what it is, at a socket of both families.
fn plain(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => (ip, address.port()).into(),
        IpAddr::V6(_) => address,
    }
}

/// `1 byte`, `2 bytes`.
pub(super) fn bytes(count: usize) -> String {
    format!("{count} byte{}", if count == 1 { "" } else { "s" })
}

/// An address as URLs have it.
pub(super) fn address(address: &SockAddr) -> String {
    if let Some(address) = address.as_socket() {
        return address.to_string();
    }
    if let Some(path) = address.as_pathname() {
        return path.display().to_string();
    }
    let name = address.as_abstract_namespace().unwrap_or_default();
    format!("@{}", String::from_utf8_lossy(name))
}

/// What an error says of the wire.
pub(super) fn failed(code: i32) -> String {
    match code {
        libc::ECONNRESET => "RST came: the peer threw the connection away".into(),
        libc::ECONNREFUSED => "nobody listens there".into(),
        libc::ETIMEDOUT => "what was sent was never acknowledged".into(),
        libc::ENETUNREACH => format!("{NOTHING}; no route leads there"),
        libc::EHOSTUNREACH => "no answer on the link (ARP), or a router's ICMP message".into(),
        libc::EADDRINUSE => format!("{NOTHING}; another socket has that address"),
        libc::EADDRNOTAVAIL => format!("{NOTHING}; no interface has that address"),
        libc::EACCES | libc::EPERM => format!("{NOTHING}; this user may not"),
        libc::EMFILE | libc::ENFILE => {
            "the connection waits in the kernel: no descriptor is free".into()
        }
        _ => NOTHING.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_are_counted_as_ip_cuts_them() {
        let (four, six): (IpAddr, IpAddr) =
            (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
        for (bytes, to, mtu, wanted) in [
            (1472, four, 1500, 1),
            (1473, four, 1500, 2),
            (1472 + 1480, four, 1500, 2),
            (1472 + 1481, four, 1500, 3),
            (65_507, four, 1500, 45),
            (65_507, four, 65_536, 1),
            (1452, six, 1500, 1),
            (1453, six, 1500, 2),
        ] {
            assert_eq!(fragments(bytes, to, mtu), wanted, "{bytes} bytes to {to}, MTU {mtu}");
        }
    }

    #[test]
    fn a_close_says_fin_rst_or_nothing_as_the_state_is() {
        let info = |state| TcpInfo {
            state,
            round_trip_us: 50,
            segments_out: 4,
            segments_in: 3,
            sent_again: 0,
            unsent_bytes: 0,
            data_segments_out: 1,
            data_segments_in: 1,
            queued: 0,
            queue_max: 0,
        };
        let ending = Ending::of(Kind::Tcp, Side::Connected);
        let ours = Ending { is_ours_first: true, ..ending };
        let reset = Ending { is_reset: true, ..ending };
        for (ending, state, unread, wanted) in [
            (ending, State::Established, 0, "FIN; it was ESTABLISHED; so far 4 segments out, 3 in"),
            (ending, State::Established, 7, "RST, because 7 bytes were never read"),
            (ending, State::CloseWait, 0, "FIN, the second one"),
            (ours, State::FinWait2, 0, "nothing on the wire; our FIN went before"),
            (ours, State::Closed, 0, "TIME_WAIT for 60 s"),
            (ending, State::Closed, 0, "this side keeps nothing"),
            (reset, State::Closed, 9, "the RST ended it"),
            (Ending::unconnected(Kind::Tcp), State::Listen, 0, "nobody is welcomed"),
        ] {
            let said = ending.of_tcp(info(state), unread);
            assert!(said.contains(wanted), "{state:?}, {unread} unread: {said}");
        }
    }
}
