//! Hosts, cables and relays for real, in namespaces of this process.
//!
//! `in_lab` runs them. Where namespaces are forbidden every test says SKIPPED and why.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cabo::endpoint::{Endpoint, Settings};
use cabo::keys::Identity;
use cabo::lab::{Cable, CableConfig, Host, Lab};
use cabo::relay::{LinkConfig, Relay, RelayConfig, RelayError, RelayHandle, RelayStats};

#[path = "../../tests/in_lab.rs"]
mod in_lab;
#[path = "../../tests/needs.rs"]
mod needs;

use in_lab::Test;

const TESTS: &[Test] = &[
    (
        "two_hosts_exchange_datagrams_over_a_plain_cable",
        two_hosts_exchange_datagrams_over_a_plain_cable,
    ),
    (
        "a_command_runs_on_its_host_and_dies_with_its_thread",
        a_command_runs_on_its_host_and_dies_with_its_thread,
    ),
    (
        "names_that_linux_refuses_are_refused_in_words",
        names_that_linux_refuses_are_refused_in_words,
    ),
    (
        "nothing_crosses_a_relayed_cable_until_its_relay_runs",
        nothing_crosses_a_relayed_cable_until_its_relay_runs,
    ),
    (
        "kernel_tcp_arrives_intact_through_a_bad_cable",
        kernel_tcp_arrives_intact_through_a_bad_cable,
    ),
    (
        "round_trips_take_twice_the_delay_and_little_more",
        round_trips_take_twice_the_delay_and_little_more,
    ),
    ("the_rate_is_held_within_five_percent", the_rate_is_held_within_five_percent),
    ("offloaded_frames_are_finished_on_the_way", offloaded_frames_are_finished_on_the_way),
    (
        "vlan_tags_and_what_looks_like_one_pass_unchanged",
        vlan_tags_and_what_looks_like_one_pass_unchanged,
    ),
    (
        "a_relay_survives_its_interface_going_down_and_away",
        a_relay_survives_its_interface_going_down_and_away,
    ),
    (
        "a_pulled_cable_carries_nothing_and_works_again",
        a_pulled_cable_carries_nothing_and_works_again,
    ),
    ("a_udp_relay_keeps_its_clients_apart", a_udp_relay_keeps_its_clients_apart),
    ("a_tcp_relay_delays_and_loses_nothing", a_tcp_relay_delays_and_loses_nothing),
    ("a_tcp_relay_refuses_what_means_nothing", a_tcp_relay_refuses_what_means_nothing),
    (
        "an_endpoint_of_all_addresses_hears_ipv4_where_ipv6_is_off",
        an_endpoint_of_all_addresses_hears_ipv4_where_ipv6_is_off,
    ),
    ("a_trace_has_one_line_a_verdict", a_trace_has_one_line_a_verdict),
];

const MS: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    in_lab::run(TESTS.iter().copied(), || Lab::enter().map_err(|reason| reason.to_string()))
}

/// A relay on a thread of its own, stopped by `stop` or when it falls.
struct Running {
    handle: RelayHandle,
    flag: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<RelayStats, RelayError>>>,
}

impl Running {
    fn start(relay: Relay) -> Self {
        let (handle, flag) = (relay.handle(), Arc::new(AtomicBool::new(false)));
        let stop = Arc::clone(&flag);
        Self { handle, flag, thread: Some(thread::spawn(move || relay.run(&stop))) }
    }

    fn stop(mut self) -> RelayStats {
        self.flag.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.flag.store(true, Ordering::Relaxed);
    }
}

fn hosts(lab: &Lab, is_relayed: bool) -> (Host, Host, Cable) {
    let (ana, bob) = (lab.host("ana").unwrap(), lab.host("bob").unwrap());
    let config = CableConfig { is_relayed, ..CableConfig::default() };
    let cable = lab.cable(&ana, "eth0", &bob, "eth0", &config).unwrap();
    (ana, bob, cable)
}

fn relayed(lab: &Lab, link: LinkConfig, seed: u64) -> (Host, Host, Cable, Running) {
    let (ana, bob, cable) = hosts(lab, true);
    let relay = Running::start(lab.relay(&cable, RelayConfig::symmetric(link, seed)).unwrap());
    (ana, bob, cable, relay)
}

fn udp(host: &Host, address: impl Into<IpAddr>) -> UdpSocket {
    let address = SocketAddr::new(address.into(), 0);
    let socket = host.run(|| UdpSocket::bind(address).unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends once each `pause` until one comes back, as the first datagrams may fall to neighbour discovery.
fn exchange(from: &UdpSocket, to: &UdpSocket, pause: Duration) -> bool {
    from.set_read_timeout(Some(pause)).unwrap();
    to.set_read_timeout(Some(pause)).unwrap();
    let mut room = [0; 64];
    let is_back = (0..50).any(|i: u8| {
        from.send_to(&[i], to.local_addr().unwrap()).unwrap();
        let Ok((len, back)) = to.recv_from(&mut room) else { return false };
        to.send_to(&room[..len], back).unwrap();
        from.recv_from(&mut room).is_ok()
    });
    from.set_read_timeout(Some(PATIENCE)).unwrap();
    to.set_read_timeout(Some(PATIENCE)).unwrap();
    is_back
}

/// Sends `bytes` from `ana` to `bob` and back again over one kernel TCP connection.
fn tcp_echo(ana: &Host, bob: &Host, cable: &Cable, bytes: &[u8]) {
    let listener = bob.run(|| TcpListener::bind((cable.b.ipv4, 0)).unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let echo = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut copy = Vec::new();
        stream.read_to_end(&mut copy).unwrap();
        stream.write_all(&copy).unwrap();
    });
    let mut stream = ana.run(|| TcpStream::connect_timeout(&address, PATIENCE).unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    echo.join().unwrap();
    assert!(back == bytes, "{} of {} bytes came back, or other ones", back.len(), bytes.len());
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252u64;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(step).take(len).collect()
}

fn two_hosts_exchange_datagrams_over_a_plain_cable(lab: &Lab) {
    let (ana, bob, cable) = hosts(lab, false);
    assert!(exchange(&udp(&ana, cable.a.ipv4), &udp(&bob, cable.b.ipv4), 100 * MS));
    assert!(exchange(&udp(&ana, cable.a.ipv6), &udp(&bob, cable.b.ipv6), 100 * MS));
    assert!(
        ana.run(|| UdpSocket::bind((cable.b.ipv4, 0)).is_err()).unwrap(),
        "bob's address is not ana's"
    );
}

fn a_command_runs_on_its_host_and_dies_with_its_thread(lab: &Lab) {
    let (ana, _bob, cable) = hosts(lab, false);
    let output = ana.command("cat").arg("/proc/net/fib_trie").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains(&cable.a.ipv4.to_string()));
    let mut child =
        thread::spawn(move || ana.command("sleep").arg("60").spawn().unwrap()).join().unwrap();
    let start = Instant::now();
    assert!(!child.wait().unwrap().success());
    assert!(start.elapsed() < PATIENCE);
}

fn names_that_linux_refuses_are_refused_in_words(lab: &Lab) {
    let (ana, bob) = (lab.host("ana").unwrap(), lab.host("bob").unwrap());
    let config = CableConfig::default();
    let error =
        lab.cable(&ana, "much-too-long-name", &bob, "eth0", &config).unwrap_err().to_string();
    assert!(error.contains("1 to 15 bytes"), "{error}");
    let relay =
        |a, b| lab.room().run(|| Relay::between_interfaces(a, b, RelayConfig::default())).unwrap();
    let error = relay("nosuch0", "lo").map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("no interface \"nosuch0\""), "{error}");
    assert!(matches!(relay("lo", "lo"), Err(RelayError::SameInterface(_))));
}

fn nothing_crosses_a_relayed_cable_until_its_relay_runs(lab: &Lab) {
    let (ana, bob, cable) = hosts(lab, true);
    let (a, b) = (udp(&ana, cable.a.ipv4), udp(&bob, cable.b.ipv4));
    b.set_read_timeout(Some(200 * MS)).unwrap();
    a.send_to(b"?", b.local_addr().unwrap()).unwrap();
    assert!(b.recv_from(&mut [0; 8]).is_err());
    let relay = Running::start(lab.relay(&cable, RelayConfig::default()).unwrap());
    assert!(exchange(&a, &b, 200 * MS));
    let stats = relay.stop();
    assert!(stats.forward.delivered >= 2 && stats.backward.delivered >= 2, "{stats:?}");
    assert_eq!((stats.unsent, stats.missed), ([0; 2], [0; 2]));
}

fn kernel_tcp_arrives_intact_through_a_bad_cable(lab: &Lab) {
    let link = LinkConfig {
        loss: 0.02,
        duplicate: 0.02,
        corrupt: 0.03,
        reorder: 0.02,
        delay: 2 * MS,
        jitter: MS,
        ..LinkConfig::default()
    };
    let (ana, bob, cable, relay) = relayed(lab, link, 7);
    tcp_echo(&ana, &bob, &cable, &noise(400_000));
    let stats = relay.stop();
    let (there, back) = (stats.forward, stats.backward); // some 500 frames each
    assert!(there.lost + back.lost > 0 && there.duplicated + back.duplicated > 0, "{stats:?}");
    assert!(
        there.corrupted + back.corrupted > 0 && there.reordered + back.reordered > 0,
        "{stats:?}"
    );
    assert_eq!(stats.unsent, [0; 2]);
}

fn round_trips_take_twice_the_delay_and_little_more(lab: &Lab) {
    let (ana, bob, cable, relay) =
        relayed(lab, LinkConfig { delay: 10 * MS, ..LinkConfig::default() }, 1);
    let (a, b) = (udp(&ana, cable.a.ipv4), udp(&bob, cable.b.ipv4));
    assert!(exchange(&a, &b, 500 * MS));
    let mut times: Vec<Duration> = (0..40)
        .map(|i: u8| {
            let (start, mut room) = (Instant::now(), [0; 8]);
            a.send_to(&[i], b.local_addr().unwrap()).unwrap();
            let (len, back) = b.recv_from(&mut room).unwrap();
            b.send_to(&room[..len], back).unwrap();
            a.recv_from(&mut room).unwrap();
            start.elapsed()
        })
        .collect();
    relay.stop();
    times.sort();
    assert!(times[0] >= 20 * MS, "{times:?}");
    assert!(times[10] <= 25 * MS, "a busy machine adds, but not to most: {times:?}");
}

fn the_rate_is_held_within_five_percent(lab: &Lab) {
    const FRAME_BYTES: usize = 1250; // with Ethernet, IP and UDP headers: 10,000 bits
    let link =
        LinkConfig { rate_bits_per_second: 40_000_000, delay: 5 * MS, ..LinkConfig::default() };
    let (ana, bob, cable, relay) = relayed(lab, link, 1);
    let (a, b) = (udp(&ana, cable.a.ipv4), udp(&bob, cable.b.ipv4));
    assert!(exchange(&a, &b, 500 * MS));
    socket2::SockRef::from(&b).set_recv_buffer_size(4 << 20).unwrap();
    let to = b.local_addr().unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let payload = [0; FRAME_BYTES - 42];
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..20 {
                    let _ = a.send_to(&payload, to);
                }
                thread::sleep(MS);
            }
        });
        let mut room = [0; 2048];
        let mut receive = |count: u32| (0..count).all(|_| b.recv_from(&mut room).is_ok());
        assert!(receive(1000)); // the queue is full by now
        let start = Instant::now();
        assert!(receive(4000));
        let seconds = start.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        assert!(
            (0.95..1.05).contains(&seconds),
            "4000 frames of 10,000 bits at 40 Mbit/s took {seconds} s"
        );
    });
    assert!(relay.stop().forward.queue_full > 0);
}

fn offloaded_frames_are_finished_on_the_way(lab: &Lab) {
    let (ana, bob) = (lab.host("ana").unwrap(), lab.host("bob").unwrap());
    let config = CableConfig { is_relayed: true, offloads: Some(true), ..CableConfig::default() };
    let cable = lab.cable(&ana, "eth0", &bob, "eth0", &config).unwrap();
    let link = LinkConfig { mtu_bytes: 1514, ..LinkConfig::default() };
    let relay = Running::start(lab.relay(&cable, RelayConfig::symmetric(link, 1)).unwrap());
    tcp_echo(&ana, &bob, &cable, &noise(3_000_000));
    let stats = relay.stop();
    assert_eq!((stats.forward.too_big, stats.backward.too_big, stats.unsent), (0, 0, [0; 2]));
    assert!(stats.forward.offered > 3_000_000 / 1448, "{stats:?}");
}

fn vlan_tags_and_what_looks_like_one_pass_unchanged(lab: &Lab) {
    let (ana, bob, cable, relay) = relayed(lab, LinkConfig::default(), 1);
    let (from, index) = packet_socket(&ana, &cable.a.name);
    let (to, _) = packet_socket(&bob, &cable.b.name);
    let other = [0x88, 0xb5];
    for (kind, id) in [([0x81, 0x00], [0x00, 0x05]), ([0x88, 0xa8], [0xe0, 0x07]), (other, [1, 2])]
    {
        let mut frame = [&cable.b.mac[..], &cable.a.mac[..], &kind, &id, &other].concat();
        frame.extend(noise(50));
        send_frame(&from, index, &frame);
        // Bob's kernel takes a tag out once more: the rest must be what ana sent.
        let want = if kind == other { frame } else { [&frame[..12], &frame[16..]].concat() };
        let deadline = Instant::now() + PATIENCE;
        let mut room = vec![0; 2048];
        while (&to).read(&mut room).map(|len| room[..len] != want[..]).unwrap() {
            assert!(Instant::now() < deadline, "{kind:x?} did not arrive");
        }
    }
    let stats = relay.stop();
    assert!(stats.forward.offered_bytes >= 3 * 68, "with their tags: {stats:?}");
}

/// A socket that hears and sends whole frames on one host, and the index of the interface.
fn packet_socket(host: &Host, name: &str) -> (socket2::Socket, i32) {
    use socket2::{Domain, Protocol, Socket, Type};
    let all = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
    let socket = host.run(|| Socket::new(Domain::PACKET, Type::RAW, Some(all)).unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let output = host.command("ip").args(["-o", "link", "show", name]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (socket, text.split(':').next().unwrap().parse().unwrap())
}

fn send_frame(socket: &socket2::Socket, index: i32, frame: &[u8]) {
    use std::os::fd::AsRawFd;
    // SAFETY: a zeroed address is a valid one.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as _;
    address.sll_ifindex = index;
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the pointers and lengths describe `frame` and `address`.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const address).cast(),
            len,
        )
    };
    assert_eq!(
        usize::try_from(sent).ok(),
        Some(frame.len()),
        "{}",
        std::io::Error::last_os_error()
    );
}

fn a_relay_survives_its_interface_going_down_and_away(lab: &Lab) {
    let (ana, bob, cable, relay) = relayed(lab, LinkConfig::default(), 1);
    let (a, b) = (udp(&ana, cable.a.ipv4), udp(&bob, cable.b.ipv4));
    assert!(exchange(&a, &b, 200 * MS));
    let (middle, _) = cable.middle.clone().unwrap();
    let ip = |arguments: &[&str]| {
        let status = lab.room().command("ip").args(arguments).status().unwrap();
        assert!(status.success(), "ip {arguments:?}");
    };
    let rest = || {
        let before = cpu_ticks();
        thread::sleep(400 * MS);
        assert!(cpu_ticks() - before < 20, "it spins");
    };
    ip(&["link", "set", &middle, "down"]);
    rest();
    ip(&["link", "set", &middle, "up"]);
    assert!(exchange(&a, &b, 200 * MS), "down and up");

    ip(&["link", "del", &middle]);
    rest();
    ip(&["link", "add", &middle, "type", "veth", "peer", "name", "other9"]); // the same name, another index
    ip(&["link", "set", &middle, "up"]);
    let deadline = Instant::now() + PATIENCE;
    while relay.handle.stats().returns < 2 {
        assert!(Instant::now() < deadline, "{:?}", relay.handle.stats());
        thread::sleep(20 * MS);
    }
    relay.stop();
    ip(&["link", "del", &middle]);
}

/// Processor time of this process so far, in hundredths of a second.
fn cpu_ticks() -> u64 {
    let usage = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = usage.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn a_pulled_cable_carries_nothing_and_works_again(lab: &Lab) {
    let (ana, bob, cable, relay) = relayed(lab, LinkConfig::default(), 1);
    let (a, b) = (udp(&ana, cable.a.ipv4), udp(&bob, cable.b.ipv4));
    assert!(exchange(&a, &b, 200 * MS));
    relay.handle.set_down(true);
    thread::sleep(120 * MS);
    b.set_read_timeout(Some(200 * MS)).unwrap();
    a.send_to(b"?", b.local_addr().unwrap()).unwrap();
    assert!(b.recv_from(&mut [0; 8]).is_err());
    relay.handle.set_down(false);
    assert!(exchange(&a, &b, 200 * MS));
    assert!(relay.stop().forward.down > 0);
}

fn a_udp_relay_keeps_its_clients_apart(_lab: &Lab) {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let config = RelayConfig::symmetric(LinkConfig { delay: 5 * MS, ..LinkConfig::default() }, 1);
    let relay =
        Relay::udp("127.0.0.1:0".parse().unwrap(), server.local_addr().unwrap(), config).unwrap();
    let address = relay.local_addr().unwrap();
    let relay = Running::start(relay);
    let clients: Vec<UdpSocket> =
        (0..10).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let start = Instant::now();
    for (i, client) in clients.iter().enumerate() {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.send_to(&[i as u8; 1400], address).unwrap();
    }
    let mut room = [0; 2048];
    for _ in &clients {
        let (len, from) = server.recv_from(&mut room).unwrap();
        server.send_to(&room[..len], from).unwrap();
    }
    for (i, client) in clients.iter().enumerate() {
        let (len, from) = client.recv_from(&mut room).unwrap();
        assert_eq!((&room[..len], from), (&[i as u8; 1400][..], address));
    }
    assert!(start.elapsed() >= 10 * MS);
    let stats = relay.stop();
    assert_eq!((stats.clients, stats.forward.delivered, stats.backward.delivered), (10, 10, 10));
}

fn a_tcp_relay_delays_and_loses_nothing(_lab: &Lab) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let link = LinkConfig {
        delay: 10 * MS,
        jitter: 2 * MS,
        rate_bits_per_second: 80_000_000,
        ..LinkConfig::default()
    };
    let to = listener.local_addr().unwrap();
    let relay =
        Relay::tcp("127.0.0.1:0".parse().unwrap(), to, RelayConfig::symmetric(link, 1)).unwrap();
    let address = relay.local_addr().unwrap();
    let relay = Running::start(relay);
    let bytes = noise(2_000_000);
    let echo = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut first = [0; 1];
        stream.read_exact(&mut first).unwrap();
        stream.write_all(&first).unwrap();
        let mut copy = Vec::new();
        stream.read_to_end(&mut copy).unwrap();
        stream.write_all(&copy).unwrap();
        drop(stream);
        let (stream, _) = listener.accept().unwrap();
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap(); // a reset
    });
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let start = Instant::now();
    stream.write_all(b"!").unwrap();
    stream.read_exact(&mut [0; 1]).unwrap();
    assert!(start.elapsed() >= 20 * MS, "{:?}", start.elapsed());
    let (start, mut writer, sent) = (Instant::now(), stream.try_clone().unwrap(), bytes.clone());
    let writing = thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    writing.join().unwrap();
    assert!(back == bytes);
    // 16 Mbit there and then 16 Mbit back, at 80 Mbit/s.
    let seconds = start.elapsed().as_secs_f64();
    assert!((0.4..0.6).contains(&seconds), "{seconds}");

    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(stream.read(&mut [0; 8]).is_err(), "a reset there is a reset here");
    echo.join().unwrap();
    relay.stop();
}

fn a_tcp_relay_refuses_what_means_nothing(_lab: &Lab) {
    let any = "127.0.0.1:0".parse().unwrap();
    for (name, link) in [
        ("loss", LinkConfig { loss: 0.01, ..LinkConfig::default() }),
        ("reorder", LinkConfig { reorder: 0.01, ..LinkConfig::default() }),
        ("duplicate", LinkConfig { duplicate: 0.01, ..LinkConfig::default() }),
    ] {
        let error = Relay::tcp(any, any, RelayConfig::symmetric(link, 1))
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(&format!("{name} means nothing on tcp://")), "{error}");
    }
    let mad = RelayConfig::symmetric(LinkConfig { loss: 2.0, ..LinkConfig::default() }, 1);
    let error = Relay::udp(any, any, mad).map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("forward: loss is 2"), "{error}");
}

/// A writer that another thread can look into.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn an_endpoint_of_all_addresses_hears_ipv4_where_ipv6_is_off(lab: &Lab) {
    let host = lab.host("ana").unwrap();
    let talk = || {
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        UdpSocket::bind("[::1]:0").expect_err("IPv6 is off");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let endpoint =
                || Endpoint::new(&Identity::generate().unwrap(), Settings::default()).unwrap();
            for scheme in ["udp", "tcp"] {
                let (server, client) = (endpoint(), endpoint());
                let anywhere = format!("{scheme}://:0").parse().unwrap();
                let heard = server.listen(&anywhere).await.unwrap().address.to_string();
                let address = heard.replace("://:", "://127.0.0.1:").parse().unwrap();
                let both = async { tokio::join!(client.connect(&address, None), server.accept()) };
                let (near, far) = tokio::time::timeout(PATIENCE, both).await.unwrap();
                assert_eq!(near.unwrap().peer_key(), Some(server.public_key()), "{scheme}");
                assert!(far.from().is_loopback(), "{scheme}");
            }
        });
    };
    host.run(talk).unwrap();
}

fn a_trace_has_one_line_a_verdict(_lab: &Lab) {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let link = LinkConfig { loss: 0.5, corrupt: 0.5, mtu_bytes: 50, ..LinkConfig::default() };
    let config = RelayConfig::symmetric(link, 1);
    let relay =
        Relay::udp("127.0.0.1:0".parse().unwrap(), server.local_addr().unwrap(), config).unwrap();
    let (address, trace) = (relay.local_addr().unwrap(), Shared::default());
    let relay = Running::start(relay.with_trace(trace.clone()));
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    for len in 1..=100 {
        client.send_to(&noise(len), address).unwrap();
    }
    let deadline = Instant::now() + PATIENCE;
    while relay.handle.stats().forward.offered < 100 {
        assert!(Instant::now() < deadline);
        thread::sleep(10 * MS);
    }
    let stats = relay.stop();
    let text = String::from_utf8(trace.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let count =
        |verdict: &str| lines.iter().filter(|line| line["verdict"] == verdict).count() as u64;
    assert_eq!((lines.len(), count("too big")), (100, 50));
    assert_eq!((count("lost"), count("delivered")), (stats.forward.lost, stats.forward.accepted));
    assert!(stats.forward.lost > 0 && !stats.is_trace_broken);
    assert!(
        lines
            .iter()
            .enumerate()
            .all(|(i, line)| line["length"] == i + 1 && line["direction"] == "forward")
    );
}
