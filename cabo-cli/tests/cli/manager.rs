//! `cabo serve` under a service manager, which is a datagram socket here, as it is in `sd_notify(3)`.

use std::os::unix::net::UnixDatagram;

use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

use crate::world::{LIMIT, Served, World};

struct Manager(UnixDatagram);

impl Manager {
    /// The next that it hears, but for signs of life.
    #[track_caller]
    fn hears(&self) -> String {
        loop {
            let told = self.hears_all();
            if told != "WATCHDOG=1\n" {
                return told;
            }
        }
    }

    #[track_caller]
    fn hears_all(&self) -> String {
        let mut bytes = [0; 4096];
        let length = self.0.recv(&mut bytes).expect("the server says nothing");
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }
}

fn managed(world: &World, watchdog_usec: Option<&str>) -> (Served, Manager) {
    world.write("served/a.txt", b"a");
    let manager = UnixDatagram::bind(world.path("notify")).unwrap();
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    let mut command = world.cabo();
    command.args(["serve", "--json", "served", "--on", "tcp://127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", world.path("notify"));
    command.envs(watchdog_usec.map(|usec| ("WATCHDOG_USEC", usec)));
    (Served::start(&mut command), Manager(manager))
}

fn monotonic_usec() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1000
}

#[test]
fn a_service_manager_hears_of_the_start_of_a_reload_and_of_the_end() {
    let world = World::new();
    let (served, manager) = managed(&world, None);
    assert_eq!(manager.hears_all(), "READY=1\nSTATUS=serving served\n");
    let before = monotonic_usec();
    served.signal(Signal::HUP);
    let told = manager.hears_all();
    let usec = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&told).trim_end();
    let usec: i64 = usec.parse().unwrap();
    assert!((before..=monotonic_usec()).contains(&usec), "{before} {usec}");
    assert_eq!(manager.hears_all(), "READY=1\nSTATUS=serving served\n");
    world.run(&["ls", served.url()]).good(); // there was nothing to read again, and no terminal that is gone
    assert!(served.stop().success());
    let told = manager.hears_all();
    assert!(told.starts_with("STOPPING=1\nSTATUS=going down"), "{told}");
}

#[test]
fn a_service_manager_that_watches_hears_again_and_again_that_the_server_lives() {
    let world = World::new();
    let (served, manager) = managed(&world, Some("20000"));
    assert!(manager.hears().starts_with("READY=1\n"));
    for _ in 0..5 {
        assert_eq!(manager.hears_all(), "WATCHDOG=1\n");
    }
    served.signal(Signal::TERM);
    assert!(manager.hears().starts_with("STOPPING=1\n"));
}

#[test]
fn a_service_manager_that_is_gone_or_asks_nonsense_does_no_harm() {
    for (socket, usec) in [("/nowhere/notify", "20000"), ("", "x"), ("notify", "0"), ("@", "1")] {
        let world = World::new();
        world.write("served/a.txt", b"a");
        let mut command = world.cabo();
        command.args(["serve", "--json", "served", "--on", "tcp://127.0.0.1:0"]);
        command.env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", usec);
        let served = Served::start(&mut command);
        world.run(&["ls", served.url()]).good();
        assert!(served.stop().success(), "{socket}");
    }
}
