//! What machines are in truth: small socket buffers, and many clients at once on one link.
//!
//! The small buffers are made by a seccomp filter, under which the kernel says yes to a larger buffer and leaves the
//! one that it gives to everybody (`net.core.rmem_default`, 212,992 bytes). Threads and processes inherit it.

use std::net::Ipv4Addr;
use std::sync::Arc;

use cabo::carrier::Datagrams;
use cabo::carrier::udp::Udp;
use cabo::lab::{CableConfig, Host, Lab};
use std::time::Duration;

use crate::Test;
use crate::ends::{Fetching, Serving, Wire, write_noise};
use crate::needs::skip;

pub(crate) const ALL: &[Test] = &[
    (
        "small_socket_buffers_cost_little_that_is_sent_again",
        small_socket_buffers_cost_little_that_is_sent_again,
    ),
    (
        "a_hundred_clients_at_once_on_one_link_get_every_byte",
        a_hundred_clients_at_once_on_one_link_get_every_byte,
    ),
];

const MIB: u64 = 1 << 20;
const CLIENTS: usize = 100;
const LIMIT: Duration = Duration::from_secs(120);
const USUAL_BUFFER_BYTES: usize = 212_992;
/// Half of what is sent would be sent again: a collapse. Headers and acknowledgements are a tenth.
const OVERHEAD_MAX: f64 = 2.0;

/// Makes `SO_RCVBUF` and `SO_RCVBUFFORCE` do nothing, on this thread and all that it starts. False where the kernel
/// has no filters.
fn keep_usual_buffers() -> bool {
    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    let op = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |at: u32| op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at, 0, 0);
    let is = |k: u32, jt, jf| op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k, jt, jf);
    let end = |k| op(libc::BPF_RET | libc::BPF_K, k, 0, 0);
    // `struct seccomp_data`: the call at 0, its arguments of 8 bytes from 16 on, of which these are the lower halves.
    let low = |argument: u32| 16 + 8 * argument + if cfg!(target_endian = "big") { 4 } else { 0 };
    let mut filter = [
        load(0),
        is(libc::SYS_setsockopt as u32, 0, 5),
        load(low(1)),
        is(libc::SOL_SOCKET as u32, 0, 3),
        load(low(2)),
        is(libc::SO_RCVBUF as u32, 2, 0),
        is(libc::SO_RCVBUFFORCE as u32, 1, 0),
        end(ALLOW),
        end(libc::SECCOMP_RET_ERRNO), // with the number 0: success
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the first call takes no pointer; the second reads the program, which lives on this frame, and copies it.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    }
}

/// Bytes that have left by an interface.
fn bytes_sent(host: &Host, interface: &str) -> u64 {
    let output = host.command("ip").args(["-s", "-j", "link", "show", interface]).output().unwrap();
    let links: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    links[0]["stats64"]["tx"]["bytes"].as_u64().unwrap()
}

fn small_socket_buffers_cost_little_that_is_sent_again(lab: &Lab) {
    if !keep_usual_buffers() {
        return skip("this kernel has no seccomp filters");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let got = runtime.block_on(async {
        let carrier = Udp::open((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        carrier.receive_burst_bytes()
    });
    assert!(got <= USUAL_BUFFER_BYTES, "{got} bytes");

    let (ana, bob) = (lab.host("ana").unwrap(), lab.host("bob").unwrap());
    let cable = lab.cable(&ana, "eth0", &bob, "eth0", &CableConfig::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let len = 48 * MIB;
    let root = write_noise(folder.path(), len);
    for wire in Wire::BOTH {
        let before = bytes_sent(&bob, &cable.b.name);
        let serving = Serving::start(&bob, &cable.b, &[wire], folder.path(), false);
        let (from, server) = (&cable.a, &cable.b);
        Fetching { host: &ana, from, server, wire, is_plain: false, limit: LIMIT }
            .run(root, |_| {});
        assert_eq!(serving.stop(), 1);
        let sent = bytes_sent(&bob, &cable.b.name) - before;
        let overhead = sent as f64 / len as f64;
        println!("{wire:?}: {overhead:.3} bytes sent for each byte of the file");
        assert!(overhead < OVERHEAD_MAX, "{wire:?}: {sent} bytes sent for {len}");
    }
}

/// As `crowd.rs` has them on the carriers that need no privilege.
fn a_hundred_clients_at_once_on_one_link_get_every_byte(lab: &Lab) {
    let (ana, bob) = (lab.host("ana").unwrap(), lab.host("bob").unwrap());
    let cable = lab.cable(&ana, "eth0", &bob, "eth0", &CableConfig::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let root = write_noise(folder.path(), MIB + 77);
    let serving = Serving::start(&bob, &cable.b, &[Wire::Eth], folder.path(), false);
    let fetching = Arc::new(|| {
        let (from, server) = (&cable.a, &cable.b);
        Fetching { host: &ana, from, server, wire: Wire::Eth, is_plain: false, limit: LIMIT }
            .run(root, |_| {});
    });
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let fetching = Arc::clone(&fetching);
            scope.spawn(move || fetching());
        }
    });
    assert_eq!(serving.stop(), CLIENTS);
}
