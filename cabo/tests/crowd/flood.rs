//! Strangers that only begin: first packets without end, and streams that stop in the middle of a handshake. Clients are
//! served meanwhile (S-4).

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cabo::address::Address;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::{LIMIT, Running, endpoint};

const FIRST_PACKETS: usize = 600;
const SOURCES: usize = 8;
/// More than this is no flood of handshakes but of the loopback interface, on which the clients are too.
const PACKETS_PER_MS: usize = 20;

pub(crate) fn socket_address(address: &Address) -> SocketAddr {
    address.to_string().split("//").nth(1).unwrap().parse().unwrap()
}

/// The first packets of as many clients, which asked somebody who never answers.
async fn first_packets(count: usize) -> Vec<Vec<u8>> {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    silent.set_read_timeout(Some(LIMIT)).unwrap();
    let address: Address = format!("udp://{}", silent.local_addr().unwrap()).parse().unwrap();
    let client = Arc::new(endpoint());
    let asking: Vec<_> = (0..count)
        .map(|_| {
            let (client, address) = (client.clone(), address.clone());
            tokio::spawn(async move { client.connect(&address, None).await.map(drop) })
        })
        .collect();
    let packets = tokio::task::spawn_blocking(move || {
        let (mut by_id, mut room) = (BTreeMap::new(), [0; 2048]);
        while by_id.len() < count {
            let len = silent.recv(&mut room).unwrap();
            let id = room[12..20].to_vec(); // the sender's own, of the header that every version has
            by_id.entry(id).or_insert_with(|| room[..len].to_vec());
        }
        by_id.into_values().collect()
    });
    let packets = packets.await.unwrap();
    asking.iter().for_each(tokio::task::JoinHandle::abort);
    packets
}

/// How far a flood is.
#[derive(Default)]
struct Flood {
    packets: AtomicUsize,
    stop: AtomicBool,
}

/// Sends until it is told to stop; bytes that were sent, and that came back.
fn send_flood(to: SocketAddr, packets: &[Vec<u8>], flood: &Flood) -> (u64, u64) {
    let sources: Vec<UdpSocket> = (0..SOURCES)
        .map(|_| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        })
        .collect();
    let (mut sent, mut back, mut room) = (0, 0, [0; 2048]);
    for (index, packet) in packets.iter().cycle().enumerate() {
        flood.packets.store(index, Ordering::Relaxed);
        if flood.stop.load(Ordering::Relaxed) {
            break;
        }
        let source = &sources[index / packets.len() % SOURCES];
        let mut packet = packet.clone();
        match index % 8 {
            6 => packet[700] ^= 1,    // it does not open
            7 => packet.truncate(90), // nor is it as long as it says
            _ => {}
        }
        sent += source.send_to(&packet, to).unwrap_or(0) as u64;
        while let Ok(len) = source.recv(&mut room) {
            back += len as u64;
        }
        if index % PACKETS_PER_MS == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    (sent, back)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_first_packets_neither_ends_sessions_nor_keeps_new_clients_out() {
    let packets = first_packets(FIRST_PACKETS).await;
    let running = Running::start("udp://127.0.0.1:0", 12_000_000).await;
    let (to, flood) = (socket_address(&running.address), Arc::new(Flood::default()));
    let before = running.spawn_client();
    let flooding = thread::spawn({
        let flood = flood.clone();
        move || send_flood(to, &packets, &flood)
    });
    // Until the server has enough of them: then those who come later are asked for a cookie.
    let began = Instant::now();
    while flood.packets.load(Ordering::Relaxed) < FIRST_PACKETS {
        assert!(began.elapsed() < LIMIT, "nothing is sent");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for (when, client) in [("before", before), ("during", running.spawn_client())] {
        timeout(LIMIT, client).await.unwrap_or_else(|_| panic!("{when}: it hangs")).unwrap();
    }
    flood.stop.store(true, Ordering::Relaxed);
    let (sent, back) = flooding.join().unwrap();
    let drops = running.server.endpoint().drops();
    println!("{sent} bytes sent, {back} back, {drops:?}");
    assert!(!drops.by_reason.is_empty(), "what makes no sense is counted");
    assert!(back > 0, "who might be honest is asked to prove it");
    assert!(back <= 3 * sent, "{back} bytes for {sent} of strangers");
    assert!(running.server.session_count() <= 2, "strangers are no sessions");
    timeout(LIMIT, running.spawn_client()).await.expect("it hangs").unwrap();
    running.stop().await;
}

/// What a client says first on a stream.
async fn first_bytes() -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: Address = format!("tcp://{}", listener.local_addr().unwrap()).parse().unwrap();
    let asking = tokio::spawn(async move { endpoint().connect(&address, None).await.map(drop) });
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut first = vec![0; 600]; // its hello is longer
    stream.read_exact(&mut first).await.unwrap();
    asking.abort();
    first
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_stop_within_the_handshake_are_closed_and_hold_up_nobody() {
    let running = Running::start("tcp://127.0.0.1:0", 3_000_000).await;
    let (to, first) = (socket_address(&running.address), first_bytes().await);
    let mut strangers = Vec::new();
    for index in 0..300 {
        let mut stream = TcpStream::connect(to).await.unwrap();
        let len = [8, 9, 300, 600][index % 4]; // the preface alone, and parts of the hello
        stream.write_all(&first[..len]).await.unwrap();
        strangers.push(stream);
    }
    timeout(LIMIT, running.spawn_client()).await.expect("it hangs").unwrap();
    let mut rest = Vec::new();
    for stream in &mut strangers {
        // How it ends does not matter, but it ends.
        let _ = timeout(LIMIT, stream.read_to_end(&mut rest)).await.expect("it is kept for ever");
    }
    assert_eq!(running.server.session_count(), 0);
    running.stop().await;
}
