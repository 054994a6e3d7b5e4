//! What netlink does worse than the old ioctls: an interface's index, flags and offloads, by name, in the namespace of
//! a socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use socket2::{Domain, Socket, Type};

/// The longest name of an interface.
const NAME_MAX_BYTES: usize = libc::IFNAMSIZ - 1;

// linux/ethtool.h; each takes a value, and 0 is off.
const ETHTOOL_SET_OFFLOADS: [u32; 6] = [
    0x15, // SRXCSUM
    0x17, // STXCSUM; without it the kernel also drops the TSO features
    0x19, // SSG
    0x1f, // STSO
    0x24, // SGSO
    0x2c, // SGRO
];

/// True for what Linux takes for the name of an interface.
pub(crate) fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
    (1..=NAME_MAX_BYTES).contains(&name.len())
        && name.bytes().all(is_plain)
        && name != "."
        && name != ".."
}

/// The index of interface `name` as `socket` sees it.
pub(crate) fn index(socket: BorrowedFd<'_>, name: &str) -> io::Result<i32> {
    let mut request = request(name)?;
    ioctl(socket, libc::SIOCGIFINDEX as _, &mut request)?;
    // SAFETY: SIOCGIFINDEX filled this member of the union.
    Ok(unsafe { request.ifr_ifru.ifru_ifindex })
}

/// True while interface `name` is administratively up.
pub(crate) fn is_up(socket: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
    Ok(flags(socket, name)? & libc::IFF_UP as libc::c_short != 0)
}

/// Sets interface `name` of this thread's namespace up.
pub(crate) fn set_up(name: &str) -> io::Result<()> {
    let socket = any_socket()?;
    let mut request = request(name)?;
    let flags = flags(socket.as_fd(), name)?;
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    ioctl(socket.as_fd(), libc::SIOCSIFFLAGS as _, &mut request)
}

/// Switches checksum, segmentation and coalescing offloads of interface `name` off: frames then leave as they would on
/// a wire. What the driver does not know is skipped.
pub(crate) fn offloads_off(socket: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    for command in ETHTOOL_SET_OFFLOADS {
        let mut value = [command, 0u32]; // struct ethtool_value
        let mut request = request(name)?;
        request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
        match ioctl(socket, libc::SIOCETHTOOL as _, &mut request) {
            Err(error) if error.raw_os_error() != Some(libc::EOPNOTSUPP) => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// A socket that is good for asking about interfaces.
pub(crate) fn any_socket() -> io::Result<Socket> {
    Socket::new(Domain::UNIX, Type::DGRAM, None)
}

fn flags(socket: BorrowedFd<'_>, name: &str) -> io::Result<libc::c_short> {
    let mut request = request(name)?;
    ioctl(socket, libc::SIOCGIFFLAGS as _, &mut request)?;
    // SAFETY: SIOCGIFFLAGS filled this member of the union.
    Ok(unsafe { request.ifr_ifru.ifru_flags })
}

fn request(name: &str) -> io::Result<libc::ifreq> {
    if !is_name(name) {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    // SAFETY: a zeroed ifreq is a valid one: plain integers and a null pointer.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

fn ioctl(socket: BorrowedFd<'_>, number: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: every number used here takes an ifreq, which outlives the call, as does what it points to.
    match unsafe { libc::ioctl(socket.as_raw_fd(), number, request) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_linux_takes() {
        for name in ["eth0", "enp3s0", "a", "fifteen-bytes-x", "veth@1"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "sixteen-bytes-xx", "a/b", "a:1", "a b", ".", "..", "a\0b", "\u{e9}"] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn lo_is_found_and_a_missing_interface_is_named_so() {
        let socket = any_socket().unwrap();
        assert!(index(socket.as_fd(), "lo").unwrap() > 0);
        let error = index(socket.as_fd(), "nosuch0").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
