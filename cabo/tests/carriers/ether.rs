//! What needs interfaces of one's own: an Ethernet carrier shares a link with strangers and outlives its interface;
//! batches over UDP meet a small MTU.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use cabo::carrier::ether::Ether;
use cabo::carrier::udp::Udp;
use cabo::carrier::{Datagrams, InterfaceName, OpenError, Peer, SendFailure, send_failure};
use rtnetlink::{Handle, LinkUnspec, LinkVeth};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::checks::{assert_silent, packet, receive, send};

type Check = fn() -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! checks {
    ($($name:ident)*) => { &[$((stringify!($name), || Box::pin($name()))),*] };
}

/// By name.
pub(crate) const ALL: &[(&str, Check)] = checks! {
    a_missing_interface_is_named_with_those_that_exist
    a_missing_privilege_is_named_with_its_remedy
    ports_keep_carriers_of_one_interface_apart
    a_question_to_any_server_reaches_servers_alone
    padding_is_cut_and_foreign_frames_are_not_heard
    a_claim_on_one_interface_leaves_others_free
    an_interface_that_goes_down_comes_back
    an_interface_that_is_gone_comes_back_as_another
    an_interface_replaced_at_once_is_heard_again
    a_lowered_mtu_is_noticed
    a_udp_batch_above_the_mtu_does_not_end_batching
};

async fn a_missing_interface_is_named_with_those_that_exist() {
    let error = Ether::open("eth7", 7, false).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(
        matches!(&error, OpenError::NoInterface { existing, .. } if existing.contains(&"lo".to_owned()))
    );
    assert!(error.to_string().contains("eth7"), "{error}");
    assert!(Ether::open("a name / that no interface has", 7, false).is_err());
}

async fn a_missing_privilege_is_named_with_its_remedy() {
    let had = capabilities(None).unwrap();
    let effective = had.effective.difference(CapabilitySet::NET_RAW);
    set_capabilities(None, CapabilitySets { effective, ..had }).unwrap();
    let refused = Ether::open("lo", 7, false);
    set_capabilities(None, had).unwrap();
    let error = refused.unwrap_err();
    assert!(matches!(error, OpenError::NoPrivilege { .. }), "{error:?}");
    assert!(error.to_string().contains("sudo setcap cap_net_raw+ep /"), "{error}");
    Ether::open("lo", 7, false).expect("the claim of a failed open is given back");
}

async fn ports_keep_carriers_of_one_interface_apart() {
    let [one, two, sender] = [1001, 1002, 1003].map(|port| Ether::open("lo", port, false).unwrap());
    send(&sender, two.local(), &packet(30, 2), 30).await.unwrap();
    assert_eq!(receive(&two).await.remove(0).1, packet(30, 2));
    assert_silent(&one).await;
}

async fn a_question_to_any_server_reaches_servers_alone() {
    let cable = Cable::new("q").await;
    let server = Ether::open(&cable.a, 5555, true).unwrap();
    let client = Ether::open(&cable.a, 5556, false).unwrap();
    let asker = Ether::open(&cable.b, 0, false).unwrap();
    let everybody = Peer::Ether { mac: Peer::BROADCAST_MAC, port: 0, interface: cable.name_b() };
    send(&asker, everybody, &packet(256, 1), 256).await.unwrap();
    let mut slots = [bytes::BytesMut::zeroed(cabo::carrier::SLOT_BYTES)];
    let mut received = [cabo::carrier::Received::default()];
    poll_fn(|cx| server.poll_recv(cx, &mut slots, &mut received)).await.unwrap();
    assert!(received[0].is_broadcast);
    assert_silent(&client).await;
    send(&server, received[0].from, &packet(40, 2), 40).await.unwrap();
    assert_eq!(receive(&asker).await.remove(0).1, packet(40, 2));
    cable.remove().await;
}

async fn padding_is_cut_and_foreign_frames_are_not_heard() {
    let cable = Cable::new("p").await;
    let ours = Ether::open(&cable.a, 5555, true).unwrap();
    let Peer::Ether { mac, .. } = ours.local() else { unreachable!() };
    let raw = raw_socket(&cable.b);
    let stranger = [2, 0, 0, 0, 0, 9];
    let frame = |to: [u8; 6], tag: &[u8], kind: [u8; 2], rest: &[u8]| {
        [to.as_slice(), &stranger, tag, &kind, rest].concat()
    };
    let ports = [5555u16.to_be_bytes(), 99u16.to_be_bytes()].concat();
    let body = |len, padding| [ports.clone(), packet(len, 1), vec![0xEE; padding]].concat();
    let ether_type = [0x88, 0xB5];
    let not_ours: [(&str, Vec<u8>); 8] = [
        ("another EtherType", frame(mac, &[], [0x88, 0xB6], &body(30, 0))),
        (
            "another port",
            frame(mac, &[], ether_type, &[&[0, 7, 0, 9], packet(30, 1).as_slice()].concat()),
        ),
        ("another MAC", frame([2, 0, 0, 0, 0, 8], &[], ether_type, &body(30, 0))),
        ("a VLAN", frame(mac, &[0x81, 0, 0, 5], ether_type, &body(30, 0))),
        ("a provider VLAN", frame(mac, &[0x88, 0xA8, 0, 5], ether_type, &body(30, 0))),
        (
            "from port 0",
            frame(mac, &[], ether_type, &[&[0x15, 0xb3, 0, 0], packet(30, 1).as_slice()].concat()),
        ),
        ("cut in the ports", frame(mac, &[], ether_type, &ports[..3])),
        ("no ports at all", frame(mac, &[], ether_type, &[])),
    ];
    for (what, bytes) in &not_ours {
        raw.send(bytes).unwrap_or_else(|e| panic!("{what}: {e}"));
    }
    assert_silent(&ours).await;
    assert_eq!(ours.refused(), 0);
    let nobody: [[u8; 6]; 4] = [Peer::BROADCAST_MAC, [1, 0, 0x5e, 0, 0, 9], [0; 6], mac];
    for source in nobody {
        let from = [mac.as_slice(), &source, &ether_type, &body(30, 0)].concat();
        raw.send(&from).unwrap();
    }
    assert_silent(&ours).await;
    assert_eq!(ours.refused(), 4, "nobody can have sent these, and an answer would go astray");
    raw.send(&frame(mac, &[], ether_type, &body(20, 22))).unwrap();
    let (from, arrived) = receive(&ours).await.remove(0);
    assert_eq!(arrived, packet(20, 1));
    assert_eq!(from, Peer::Ether { mac: stranger, port: 99, interface: cable.name_a() });
    cable.remove().await;
}

async fn a_claim_on_one_interface_leaves_others_free() {
    let cable = Cable::new("c").await;
    let here = Ether::open(&cable.a, 5555, false).unwrap();
    let there = Ether::open(&cable.b, 5555, false).unwrap();
    send(&here, cable.seen_from_a(there.local()), &packet(30, 1), 30).await.unwrap();
    assert_eq!(receive(&there).await.len(), 1);
    let error = Ether::open(&cable.a, 5555, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "port 5555 on eth://{} is in use; stop the process that has it, or choose another",
            cable.a
        )
    );
    cable.remove().await;
}

async fn an_interface_that_goes_down_comes_back() {
    let cable = Cable::new("d").await;
    let (a, b) = cable.carriers();
    cable.set_up(&cable.a, false).await;
    assert_silent(&a).await;
    send(&a, cable.seen_from_a(b.local()), &packet(30, 1), 30)
        .await
        .expect("a send into nothing is a loss");
    assert!(!a.is_up());
    assert_eq!(a.lost_sends(), 1);
    cable.set_up(&cable.a, true).await;
    assert_both_ways(&cable, &a, &b).await;
    cable.remove().await;
}

async fn an_interface_that_is_gone_comes_back_as_another() {
    let cable = Cable::new("g").await;
    let (a, b) = cable.carriers();
    let mtu = a.promises().largest_datagram;
    cable.remove_links().await;
    assert_silent(&a).await;
    assert_silent(&b).await;
    send(&a, cable.seen_from_a(b.local()), &packet(30, 1), 30)
        .await
        .expect("a send into nothing is a loss");
    cable.build(9000).await;
    assert_both_ways(&cable, &a, &b).await;
    assert_eq!((mtu, a.promises().largest_datagram), (1496, 8996));
    cable.remove().await;
}

async fn an_interface_replaced_at_once_is_heard_again() {
    let cable = Cable::new("r").await;
    let (a, b) = cable.carriers();
    for mtu in [1500, 9000] {
        cable.remove_links().await;
        cable.build(mtu).await; // nobody looked in between
        assert_both_ways(&cable, &a, &b).await;
    }
    cable.remove().await;
}

async fn a_lowered_mtu_is_noticed() {
    let cable = Cable::new("m").await;
    let (a, b) = cable.carriers();
    let lower = LinkUnspec::new_with_name(&cable.a).mtu(1000).build();
    cable.handle.link().set(lower).execute().await.unwrap();
    let error = send(&a, cable.seen_from_a(b.local()), &packet(1400, 1), 1400).await.unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    assert_eq!(a.promises().largest_datagram, 996);
    send(&a, cable.seen_from_a(b.local()), &packet(996, 1), 996).await.unwrap();
    assert_eq!(receive(&b).await.len(), 1);
    cable.remove().await;
}

async fn a_udp_batch_above_the_mtu_does_not_end_batching() {
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    tokio::spawn(connection);
    let set_mtu = async |mtu| {
        let link = LinkUnspec::new_with_name("lo").mtu(mtu).build();
        handle.link().set(link).execute().await.unwrap();
    };
    set_mtu(1500).await;
    for ip in ["127.0.0.1:0", "[::1]:0"] {
        let [near, far] = [(); 2].map(|()| Udp::open(ip.parse().unwrap()).unwrap());
        let batch = packet(2000, 1).repeat(4);
        let error = send(&near, far.local(), &batch, 2000).await.unwrap_err();
        assert_eq!(send_failure(&error), SendFailure::TooBig, "{ip}: {error}");
        assert!(near.max_segments() > 1, "{ip}");
        let first = near.promises().first_datagram;
        send(&near, far.local(), &packet(first, 1).repeat(4), first).await.unwrap();
        let error = send(&near, far.local(), &packet(first + 1, 1), first + 1).await.unwrap_err();
        assert_eq!(send_failure(&error), SendFailure::TooBig, "{ip}: {error}");
    }
    set_mtu(65_536).await;
}

/// Packets pass again. The kernel swallows what is sent until its link watch has run, at most a second after "up".
async fn assert_both_ways(cable: &Cable, a: &Ether, b: &Ether) {
    assert_silent(a).await; // which looks for news of the link, and may find another MAC
    assert_silent(b).await;
    let ways = [(a, b, cable.seen_from_a(b.local())), (b, a, cable.seen_from_b(a.local()))];
    for (from, to, to_seen) in ways {
        let knock = async {
            loop {
                assert_silent(from).await;
                send(from, to_seen, &packet(30, 7), 30).await.unwrap();
            }
        };
        tokio::select! {
            () = knock => {}
            arrived = receive(to) => assert_eq!(arrived[0].1, packet(30, 7)),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        while tokio::time::timeout(Duration::from_millis(5), receive(to)).await.is_ok() {}
    }
}

/// A socket that sends any frame at all.
fn raw_socket(interface: &str) -> Socket {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None).unwrap();
    let name = std::ffi::CString::new(interface).unwrap();
    // SAFETY: the name ends with NUL; the address is filled before its length is told.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, len| {
            let address = storage.cast::<libc::sockaddr_ll>();
            (*address).sll_family = libc::AF_PACKET as u16;
            (*address).sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
            *len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }
    .unwrap();
    socket.bind(&address).unwrap();
    socket
}

/// A veth pair of one check's own.
struct Cable {
    a: String,
    b: String,
    handle: Handle,
}

impl Cable {
    async fn new(name: &str) -> Self {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        let cable = Self { a: format!("t-{name}-a"), b: format!("t-{name}-b"), handle };
        cable.build(1500).await;
        cable
    }

    async fn build(&self, mtu: u32) {
        let link = LinkVeth::new(&self.a, &self.b).build();
        self.handle.link().add(link).execute().await.unwrap();
        for name in [&self.a, &self.b] {
            let mtu = LinkUnspec::new_with_name(name).mtu(mtu).build();
            self.handle.link().set(mtu).execute().await.unwrap();
            self.set_up(name, true).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await; // the carrier of a veth comes a moment after "up"
    }

    async fn set_up(&self, name: &str, is_up: bool) {
        let link = LinkUnspec::new_with_name(name);
        let link = if is_up { link.up() } else { link.down() };
        self.handle.link().set(link.build()).execute().await.unwrap();
    }

    async fn remove_links(&self) {
        let name = std::ffi::CString::new(self.a.as_str()).unwrap();
        // SAFETY: the name ends with NUL.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        self.handle.link().del(index).execute().await.unwrap();
    }

    async fn remove(self) {
        self.remove_links().await;
    }

    fn carriers(&self) -> (Ether, Ether) {
        (Ether::open(&self.a, 0, false).unwrap(), Ether::open(&self.b, 0, false).unwrap())
    }

    fn name_a(&self) -> InterfaceName {
        InterfaceName::new(&self.a).unwrap()
    }

    fn name_b(&self) -> InterfaceName {
        InterfaceName::new(&self.b).unwrap()
    }

    /// A peer at end b, as end a writes it.
    fn seen_from_a(&self, peer: Peer) -> Peer {
        behind(peer, self.name_a())
    }

    fn seen_from_b(&self, peer: Peer) -> Peer {
        behind(peer, self.name_b())
    }
}

fn behind(peer: Peer, interface: InterfaceName) -> Peer {
    let Peer::Ether { mac, port, .. } = peer else { unreachable!() };
    Peer::Ether { mac, port, interface }
}
