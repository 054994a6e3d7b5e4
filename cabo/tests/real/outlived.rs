//! What a session outlives without a reconnect: pulled cables, a smaller MTU, an interface that goes and comes (R7); and
//! that it moves large files through wires as they are.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cabo::lab::{Cable, CableConfig, Host, Lab};
use cabo::relay::{LinkConfig, Relay, RelayConfig, RelayError, RelayHandle, RelayStats};

use crate::Test;
use crate::ends::{Fetching, Serving, Wire, write_noise};

pub(crate) const ALL: &[Test] = &[
    ("large_files_arrive_whole_and_proved", large_files_arrive_whole_and_proved),
    ("sessions_cross_a_bridge", sessions_cross_a_bridge),
    (
        "sessions_go_on_after_their_cable_was_pulled_for_30_s",
        sessions_go_on_after_their_cable_was_pulled_for_30_s,
    ),
    ("sessions_go_on_through_a_smaller_mtu", sessions_go_on_through_a_smaller_mtu),
    (
        "sessions_go_on_through_an_mtu_below_that_of_ethernet",
        sessions_go_on_through_an_mtu_below_that_of_ethernet,
    ),
    (
        "sessions_go_on_after_their_interface_was_down",
        sessions_go_on_after_their_interface_was_down,
    ),
];

const MIB: u64 = 1 << 20;
const FILM_BYTES: u64 = 48 * MIB; // ten seconds of the cable: one flow may begin long before the other
/// With so much proved, a transfer is under way.
const BEGUN_BYTES: u64 = 2 * MIB;
/// Both transfers together, so that they last some 5 s.
const BITS_PER_SECOND: u64 = 40_000_000;
const BEGINNING: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_secs(120);

/// A relay on a thread of its own.
struct Running {
    handle: RelayHandle,
    flag: Arc<AtomicBool>,
    thread: JoinHandle<Result<RelayStats, RelayError>>,
}

impl Running {
    fn start(relay: Relay) -> Self {
        let (handle, flag) = (relay.handle(), Arc::new(AtomicBool::new(false)));
        let stop = Arc::clone(&flag);
        Self { handle, flag, thread: thread::spawn(move || relay.run(&stop)) }
    }

    fn stop(self) -> RelayStats {
        self.flag.store(true, Ordering::Relaxed);
        self.thread.join().unwrap().unwrap()
    }
}

/// Two hosts and the relayed cable between them, slow enough for something to happen in the middle of a transfer.
struct Scene {
    ana: Host,
    bob: Host,
    cable: Cable,
    relay: Running,
}

impl Scene {
    fn new(lab: &Lab, mtu_bytes: u32) -> Self {
        let (ana, bob) = (lab.host("ana").unwrap(), lab.host("bob").unwrap());
        let config = CableConfig { mtu_bytes, is_relayed: true, ..CableConfig::default() };
        let cable = lab.cable(&ana, "eth0", &bob, "eth0", &config).unwrap();
        let link = LinkConfig {
            delay: Duration::from_millis(1),
            rate_bits_per_second: BITS_PER_SECOND,
            ..LinkConfig::default()
        };
        let relay = lab.relay(&cable, RelayConfig::symmetric(link, 1)).unwrap();
        Self { ana, bob, cable, relay: Running::start(relay) }
    }

    /// Fetches a file over each wire at once, each in one session. When all transfers are under way `happens` is
    /// called; nothing is done before it returns, or something is wrong with the scene.
    fn interrupt(self, happens: impl FnOnce(&Self)) -> RelayStats {
        self.interrupt_on(&Wire::BOTH, FILM_BYTES, happens)
    }

    /// The same over some wires, with a file of `len` bytes.
    fn interrupt_on(self, wires: &[Wire], len: u64, happens: impl FnOnce(&Self)) -> RelayStats {
        let folder = tempfile::tempdir().unwrap();
        let root = write_noise(folder.path(), len);
        let (from, to) = (&self.cable.a, &self.cable.b);
        let server = Serving::start(&self.bob, to, wires, folder.path(), false);
        thread::scope(|scope| {
            let (begun, has_begun) = mpsc::channel();
            let fetch = |&wire| {
                let (begun, host) = (begun.clone(), &self.ana);
                scope.spawn(move || {
                    let is_told = AtomicBool::new(false);
                    let fetching =
                        Fetching { host, from, server: to, wire, is_plain: false, limit: LIMIT };
                    fetching.run(root, |progress| {
                        let is_begun = progress.proved_bytes >= BEGUN_BYTES;
                        if is_begun && !is_told.swap(true, Ordering::Relaxed) {
                            let _ = begun.send(());
                        }
                    })
                })
            };
            let fetching: Vec<_> = wires.iter().map(fetch).collect();
            for _ in &fetching {
                has_begun.recv_timeout(BEGINNING).expect("a transfer begins");
            }
            happens(&self);
            let is_early = fetching.iter().any(|thread| thread.is_finished());
            assert!(!is_early, "a transfer was done before anything happened");
            for thread in fetching {
                let (report, _) = thread.join().unwrap();
                assert_eq!(report.bytes, len);
            }
        });
        assert_eq!(server.stop(), wires.len(), "nobody connected anew");
        self.relay.stop()
    }
}

fn ip(host: &Host, arguments: &str) {
    let status = host.command("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

fn sessions_go_on_after_their_cable_was_pulled_for_30_s(lab: &Lab) {
    let stats = Scene::new(lab, 1500).interrupt(|scene| {
        scene.relay.handle.set_down(true);
        thread::sleep(Duration::from_secs(30));
        scene.relay.handle.set_down(false);
    });
    assert!(stats.forward.down > 0 && stats.backward.down > 0, "{stats:?}");
}

fn sessions_go_on_through_a_smaller_mtu(lab: &Lab) {
    Scene::new(lab, 9000).interrupt(|scene| {
        for host in [&scene.ana, &scene.bob] {
            ip(host, "link set eth0 mtu 1500");
        }
    });
}

/// T-12.6: where both hosts know of it, and where frames vanish on the way without a word.
fn sessions_go_on_through_an_mtu_below_that_of_ethernet(lab: &Lab) {
    for wire in Wire::BOTH {
        Scene::new(lab, 1500).interrupt_on(&[wire], 12 * MIB, |scene| {
            for host in [&scene.ana, &scene.bob] {
                ip(host, "link set eth0 mtu 1280");
            }
        });
        Scene::new(lab, 1500).interrupt_on(&[wire], 12 * MIB, |scene| {
            let (to_ana, to_bob) = scene.cable.middle.as_ref().unwrap();
            for end in [to_ana, to_bob] {
                ip(lab.room(), &format!("link set {end} mtu 1280"));
            }
        });
    }
}

fn sessions_go_on_after_their_interface_was_down(lab: &Lab) {
    Scene::new(lab, 1500).interrupt(|scene| {
        ip(&scene.ana, "link set eth0 down");
        thread::sleep(Duration::from_secs(3));
        ip(&scene.ana, "link set eth0 up");
    });
}

/// Fetches `len` bytes over `wire` and says how long it took.
fn fetch_large(ends: [(&Host, &cabo::lab::Port); 2], wire: Wire, len: u64) {
    let [(host, from), (server_host, server)] = ends;
    let folder = tempfile::tempdir().unwrap();
    let root = write_noise(folder.path(), len);
    let serving = Serving::start(server_host, server, &[wire], folder.path(), false);
    let start = Instant::now();
    let fetching = Fetching { host, from, server, wire, is_plain: false, limit: LIMIT };
    let (report, stats) = fetching.run(root, |_| {});
    assert!(stats.bytes_received >= len, "all of it crossed the wire: {stats:?}");
    println!("{wire:?}: {} MiB in {:.2?}", len / MIB, start.elapsed());
    assert_eq!(report.bytes, len);
    assert_eq!(serving.stop(), 1);
}

fn large_files_arrive_whole_and_proved(lab: &Lab) {
    let (ana, bob) = (lab.host("ana").unwrap(), lab.host("bob").unwrap());
    let cable = lab.cable(&ana, "eth0", &bob, "eth0", &CableConfig::default()).unwrap();
    for (wire, mebibytes) in [(Wire::Eth, 1024), (Wire::Udp, 256), (Wire::Tcp, 256)] {
        fetch_large([(&ana, &cable.a), (&bob, &cable.b)], wire, mebibytes * MIB);
    }
}

fn sessions_cross_a_bridge(lab: &Lab) {
    let (ana, bob, hub) =
        (lab.host("ana").unwrap(), lab.host("bob").unwrap(), lab.host("hub").unwrap());
    let config = CableConfig::default();
    let [to_ana, to_bob] = [(&ana, "to-ana"), (&bob, "to-bob")]
        .map(|(host, name)| lab.cable(host, "eth0", &hub, name, &config).unwrap());
    ip(&hub, "link add bridge0 type bridge");
    for port in ["to-ana", "to-bob"] {
        ip(&hub, &format!("link set {port} master bridge0"));
    }
    ip(&hub, "link set bridge0 up");
    fetch_large([(&ana, &to_ana.a), (&bob, &to_bob.a)], Wire::Eth, 16 * MIB);
}
