//! The addresses of this machine, as `/proc` tells them without a privilege.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses under which others may reach this machine; none where `/proc` does not tell.
pub(crate) fn own_addresses() -> Vec<IpAddr> {
    let v4 = ipv4(&fs::read_to_string("/proc/net/fib_trie").unwrap_or_default());
    let v6 = ipv6(&fs::read_to_string("/proc/net/if_inet6").unwrap_or_default());
    v4.into_iter().map(IpAddr::V4).chain(v6.into_iter().map(IpAddr::V6)).collect()
}

/// The kernel's routing tree: an address stands on the line above its `host LOCAL`.
fn ipv4(tree: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last = None;
    for line in tree.lines() {
        if let Some((_, address)) = line.split_once("|-- ") {
            last = address.trim().parse::<Ipv4Addr>().ok();
        } else if line.contains("/32 host LOCAL")
            && let Some(address) = last.filter(|address| !address.is_loopback())
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

/// One line an address: 32 digits, index, prefix, scope (0 is global), flags, name.
fn ipv6(table: &str) -> Vec<Ipv6Addr> {
    let global = table.lines().filter(|line| line.split_whitespace().nth(3) == Some("00"));
    let address = |line: &str| u128::from_str_radix(line.split_whitespace().next()?, 16).ok();
    global.filter_map(address).map(Ipv6Addr::from_bits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_what_the_kernel_shows() {
        let tree = "\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 10.0.0.0
        /24 link UNICAST
     |-- 10.0.0.7
        /32 host LOCAL
     |-- 127.0.0.1
        /32 host LOCAL
Local:
     |-- 10.0.0.7
        /32 host LOCAL
";
        assert_eq!(ipv4(tree), [Ipv4Addr::new(10, 0, 0, 7)]);
        let table = "\
00000000000000000000000000000001 01 80 10 80       lo
fe800000000000000000000000000001 02 40 20 80     eth0
20010db8000000000000000000000007 02 40 00 80     eth0
";
        assert_eq!(ipv6(table), ["2001:db8::7".parse::<Ipv6Addr>().expect("good")]);
    }
}
