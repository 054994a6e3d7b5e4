//! What may happen to an address while bytes flow.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use cabo::carrier::Peer;
use cabo::lab::Lab;

use crate::place::{Flow, Place, Way, ip};

/// Where bob is, whichever cable leads to him.
const BOB: &str = "10.99.0.1";

/// Ana reaches bob over `eth0`, and over `eth1` where that is not there.
fn two_ways(lab: &Lab) -> Place {
    let place = Place::new(lab);
    ip(&place.bob, &format!("addr add {BOB}/32 dev lo"));
    for (interface, metric) in [("eth0", 10), ("eth1", 20)] {
        let via = Place::address(&place.bob, interface);
        ip(&place.ana, &format!("route add {BOB} via {via} metric {metric}"));
    }
    place
}

fn at_bob(port: &str) -> String {
    format!("udp://{BOB}:{port}")
}

fn ip_of(peer: Peer) -> String {
    peer.socket_addr().unwrap().ip().to_string()
}

/// "Pull the Wi-Fi, plug the cable."
fn pull_one_way(lab: &Lab, way: Way) {
    let place = two_ways(lab);
    let flow = Flow::start(&place, way, "udp://0.0.0.0:0", at_bob);
    ip(&place.ana, "link set eth0 down");
    flow.wait_for_some();
    let [ana, bob] = flow.finish();
    assert_eq!((ana.moves, ip_of(ana.peer)), (0, BOB.to_owned()));
    assert_eq!((bob.moves, ip_of(bob.peer)), (1, Place::address(&place.ana, "eth1")));
}

pub(crate) fn a_download_goes_on_when_one_way_is_pulled_and_another_is_there(lab: &Lab) {
    pull_one_way(lab, Way::Down);
}

pub(crate) fn an_upload_goes_on_when_one_way_is_pulled_and_another_is_there(lab: &Lab) {
    pull_one_way(lab, Way::Up);
}

pub(crate) fn a_client_without_any_address_goes_on_when_it_gets_one(lab: &Lab) {
    for way in [Way::Down, Way::Up] {
        let place = Place::new(lab);
        let bob_is_at = Place::address(&place.bob, "eth0");
        let flow =
            Flow::start(&place, way, "udp://0.0.0.0:0", |port| format!("udp://{bob_is_at}:{port}"));
        ip(&place.ana, "link set eth1 down");
        ip(&place.ana, "addr flush dev eth0");
        flow.wait_for_silence();
        let network = bob_is_at.rsplit_once('.').unwrap().0;
        ip(&place.ana, &format!("addr add {network}.77/24 dev eth0"));
        flow.wait_for_some();
        let [_, bob] = flow.finish();
        assert_eq!((bob.moves, ip_of(bob.peer)), (1, format!("{network}.77")), "{way:?}");
    }
}

pub(crate) fn a_server_that_gets_another_address_is_followed(lab: &Lab) {
    for way in [Way::Down, Way::Up] {
        let place = Place::new(lab);
        let bob_is_at = Place::address(&place.bob, "eth0");
        let flow =
            Flow::start(&place, way, "udp://0.0.0.0:0", |port| format!("udp://{bob_is_at}:{port}"));
        let network = bob_is_at.rsplit_once('.').unwrap().0;
        ip(&place.bob, "addr flush dev eth0");
        ip(&place.bob, &format!("addr add {network}.99/24 dev eth0"));
        flow.wait_for_some();
        let [ana, _] = flow.finish();
        assert_eq!((ana.moves, ip_of(ana.peer)), (1, format!("{network}.99")), "{way:?}");
    }
}

pub(crate) fn another_hardware_address_of_either_end_is_followed(lab: &Lab) {
    for way in [Way::Down, Way::Up] {
        let place = Place::new(lab);
        let said = ip(&place.bob, "-o link show eth0");
        let mac = said.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap();
        let mac = mac.replace(':', "-");
        let flow =
            Flow::start(&place, way, "eth://eth0:77", |port| format!("eth://{mac}%eth0:{port}"));
        for (host, address) in [(&place.ana, 0xa), (&place.bob, 0xb)] {
            ip(host, "link set eth0 down");
            ip(host, &format!("link set eth0 address 02:00:00:00:00:{address:02x}"));
            ip(host, "link set eth0 up");
            flow.wait_for_some();
        }
        let seen = flow.finish();
        for (end, address) in seen.iter().zip([0xb, 0xa]) {
            let Peer::Ether { mac, .. } = end.peer else { panic!("{:?}", end.peer) };
            assert_eq!((end.moves, mac), (1, [2, 0, 0, 0, 0, address]), "{way:?}");
        }
    }
}

/// What stands between a home and the Internet, as far as one client goes.
struct Translator {
    outside: Mutex<Arc<UdpSocket>>,
    server: SocketAddr,
    is_over: AtomicBool,
}

impl Translator {
    fn out_to(server: SocketAddr) -> Arc<UdpSocket> {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        socket.connect(server).unwrap();
        Arc::new(socket)
    }

    /// What comes from now on leaves by another port, and nothing is let in by the old one.
    fn forget(&self) {
        *self.outside.lock().unwrap() = Self::out_to(self.server);
    }

    fn run(&self, inside: &UdpSocket) {
        inside.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let client = Mutex::new(None);
        thread::scope(|scope| {
            scope.spawn(|| {
                self.carry(|room| {
                    let (len, from) = inside.recv_from(room)?;
                    *client.lock().unwrap() = Some(from);
                    self.outside.lock().unwrap().send(&room[..len])
                });
            });
            self.carry(|room| {
                let outside = self.outside.lock().unwrap().clone();
                let len = outside.recv(room)?;
                let to = *client.lock().unwrap();
                to.map_or(Ok(0), |to| inside.send_to(&room[..len], to))
            });
        });
    }

    fn carry(&self, mut one: impl FnMut(&mut [u8]) -> std::io::Result<usize>) {
        let mut room = vec![0; 65_536];
        while !self.is_over.load(Relaxed) {
            let _ = one(&mut room); // a time that is over, or a packet that is lost
        }
    }
}

pub(crate) fn a_translator_that_forgets_its_port_is_not_noticed(lab: &Lab) {
    for way in [Way::Down, Way::Up] {
        let place = Place::new(lab);
        let bob_is_at = Place::address(&place.bob, "eth0");
        let mut running = None;
        let flow = Flow::start(&place, way, "udp://127.0.0.1:0", |port| {
            let server = format!("127.0.0.1:{port}").parse().unwrap();
            let (inside, translator) = place
                .bob
                .run(|| {
                    let inside = UdpSocket::bind((bob_is_at.as_str(), 0)).unwrap();
                    let outside = Mutex::new(Translator::out_to(server));
                    (inside, Translator { outside, server, is_over: AtomicBool::new(false) })
                })
                .unwrap();
            let (address, translator) = (inside.local_addr().unwrap(), Arc::new(translator));
            let runs = translator.clone();
            running = Some((translator, thread::spawn(move || runs.run(&inside))));
            format!("udp://{address}")
        });
        let (translator, thread) = running.unwrap();
        for _ in 0..3 {
            place.bob.run(|| translator.forget()).unwrap();
            flow.wait_for_some();
        }
        let [ana, bob] = flow.finish();
        assert_eq!((ana.moves, bob.moves), (0, 3), "{way:?}");
        translator.is_over.store(true, Relaxed);
        thread.join().unwrap();
    }
}
