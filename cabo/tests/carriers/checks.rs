//! What every datagram carrier must do.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::BytesMut;
use cabo::carrier::{
    Datagrams, Peer, Received, SLOT_BYTES, SLOTS, SendFailure, Transmit, send_failure,
};
use tokio::time::timeout;

use crate::kinds::Kind;

type Check = for<'k> fn(&'k Kind) -> Pin<Box<dyn Future<Output = ()> + 'k>>;

macro_rules! checks {
    ($($name:ident)*) => { &[$((stringify!($name), |kind| Box::pin($name(kind)))),*] };
}

/// By name.
pub(crate) const ALL: &[(&str, Check)] = checks! {
    every_size_arrives_whole
    a_batch_arrives_as_its_packets
    an_answer_reaches_who_asked
    what_is_too_large_is_told_and_does_no_harm
    a_second_claim_is_refused_by_type
    a_drop_frees_the_address_at_once
    nobody_hears_his_own_packets
    a_waiting_receiver_is_woken
    a_peer_of_another_carrier_is_a_loss
    what_a_full_buffer_drops_is_counted
};

const DEADLINE: Duration = Duration::from_secs(5);

/// Both ends of a carrier.
struct Ends {
    near: Box<dyn Datagrams>,
    far: Box<dyn Datagrams>,
    near_seen: Peer,
    far_seen: Peer,
}

fn ends(kind: &Kind) -> Ends {
    let (near, far) = ((kind.near)(0).unwrap(), (kind.far)(0).unwrap());
    let (near_seen, far_seen) = ((kind.seen)(near.local()), (kind.seen)(far.local()));
    Ends { near, far, near_seen, far_seen }
}

/// A packet whose bytes 2..4 are its length, as a cabo packet's are, and whose other bytes tell `seed` and place.
pub(crate) fn packet(len: usize, seed: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|i| (i * 7 + seed * 13) as u8).collect();
    if let Some(field) = bytes.get_mut(2..4) {
        field.copy_from_slice(&(len as u16).to_be_bytes());
    }
    bytes
}

pub(crate) async fn send(
    carrier: &dyn Datagrams,
    to: Peer,
    contents: &[u8],
    segment: usize,
) -> io::Result<()> {
    let transmit = Transmit { to, contents, segment };
    timeout(DEADLINE, poll_fn(|cx| carrier.poll_send(cx, &transmit))).await.expect("a send hung")
}

/// The next packets, with their sender.
pub(crate) async fn receive(carrier: &dyn Datagrams) -> Vec<(Peer, Vec<u8>)> {
    let mut slots: Vec<_> = (0..SLOTS).map(|_| BytesMut::zeroed(SLOT_BYTES)).collect();
    let mut received = [Received::default(); SLOTS];
    let next = poll_fn(|cx| carrier.poll_recv(cx, &mut slots, &mut received));
    let count = timeout(DEADLINE, next).await.expect("nothing arrived").unwrap();
    assert!(count > 0, "an arrival of nothing");
    let filled = slots.iter_mut().zip(&received).take(count);
    filled
        .flat_map(|(slot, r)| r.packets(slot).map(|p| (r.from, p.to_vec())).collect::<Vec<_>>())
        .collect()
}

async fn receive_all(carrier: &dyn Datagrams, count: usize) -> Vec<(Peer, Vec<u8>)> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(receive(carrier).await);
    }
    all
}

/// Nothing is there to be received, now and after what is on its way had time to arrive.
pub(crate) async fn assert_silent(carrier: &dyn Datagrams) {
    let mut slots = [BytesMut::zeroed(SLOT_BYTES)];
    let mut received = [Received::default()];
    let next = poll_fn(|cx| carrier.poll_recv(cx, &mut slots, &mut received));
    let heard = timeout(Duration::from_millis(20), next).await;
    assert!(heard.is_err(), "heard {heard:?} from {}", received[0].from);
}

async fn every_size_arrives_whole(kind: &Kind) {
    let Ends { near, far, far_seen, .. } = ends(kind);
    let largest = near.promises().largest_datagram;
    assert!(near.promises().first_datagram <= largest);
    let around = |n: usize| [n - 1, n, n + 1];
    let sizes =
        (1..80).chain([128, 512, 1400, 1496, 4096, 9000, 32768].into_iter().flat_map(around));
    for len in sizes.filter(|&len| len < largest).chain([largest - 1, largest]) {
        let sent = packet(len, len);
        send(&*near, far_seen, &sent, len).await.unwrap_or_else(|e| panic!("{len} bytes: {e}"));
        let arrived = receive(&*far).await;
        assert_eq!(arrived.len(), 1, "{len} bytes");
        assert!(arrived[0].1 == sent, "{len} bytes came as {}", arrived[0].1.len());
    }
}

async fn a_batch_arrives_as_its_packets(kind: &Kind) {
    let Ends { near, far, far_seen, .. } = ends(kind);
    let first = near.promises().first_datagram.min(1400);
    for (segment, last, count) in
        [(first, 7, 2), (64, 64, 64), (first, first, 46), (first, 100, 100), (5, 4, 128)]
    {
        let sizes = (0..count).map(|i| if i + 1 == count { last } else { segment });
        let packets: Vec<_> = sizes.enumerate().map(|(i, len)| packet(len, i)).collect();
        send(&*near, far_seen, &packets.concat(), segment).await.unwrap();
        let arrived: Vec<_> = receive_all(&*far, count).await.into_iter().map(|(_, p)| p).collect();
        assert!(arrived == packets, "{count} packets of {segment} and {last} came otherwise");
    }
}

async fn an_answer_reaches_who_asked(kind: &Kind) {
    let Ends { near, far, near_seen, far_seen } = ends(kind);
    send(&*near, far_seen, &packet(40, 1), 40).await.unwrap();
    let (from, question) = receive(&*far).await.remove(0);
    assert_eq!((from, question), (near_seen, packet(40, 1)));
    send(&*far, from, &packet(41, 2), 41).await.unwrap();
    let (from, answer) = receive(&*near).await.remove(0);
    assert_eq!((from, answer), (far_seen, packet(41, 2)));
}

async fn what_is_too_large_is_told_and_does_no_harm(kind: &Kind) {
    let Ends { near, far, far_seen, .. } = ends(kind);
    let largest = near.promises().largest_datagram;
    for (len, segment) in [(largest + 1, largest + 1), (3 * largest, largest + 1), (70_000, 70_000)]
    {
        let error = send(&*near, far_seen, &vec![0; len], segment).await.unwrap_err();
        assert_eq!(send_failure(&error), SendFailure::TooBig, "{len} bytes by {segment}: {error}");
    }
    let segments = near.max_segments();
    assert!(segments > 1, "one failed probe ended batching");
    send(&*near, far_seen, &packet(50, 3), 50).await.unwrap();
    assert_eq!(receive(&*far).await.remove(0).1, packet(50, 3));
}

async fn a_second_claim_is_refused_by_type(kind: &Kind) {
    let first = (kind.near)(0).unwrap();
    let port = port_of(&*first);
    let error = (kind.near)(port).map(|second| second.local()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}");
    assert!(error.to_string().contains(&port.to_string()), "{error}");
}

async fn a_drop_frees_the_address_at_once(kind: &Kind) {
    let first = (kind.near)(0).unwrap();
    let (local, port) = (first.local(), port_of(&*first));
    drop(first);
    for round in 0..20 {
        let again = (kind.near)(port).unwrap_or_else(|e| panic!("round {round}: {e}"));
        assert_eq!(again.local(), local);
    }
}

async fn nobody_hears_his_own_packets(kind: &Kind) {
    let Ends { near, far, far_seen, .. } = ends(kind);
    send(&*near, far_seen, &packet(60, 5), 60).await.unwrap();
    assert_eq!(receive(&*far).await.len(), 1);
    assert_silent(&*near).await;
    assert_silent(&*far).await;
}

async fn a_waiting_receiver_is_woken(kind: &Kind) {
    let Ends { near, far, far_seen, .. } = ends(kind);
    let waiting = tokio::spawn(async move { receive(&*far).await });
    tokio::task::yield_now().await;
    send(&*near, far_seen, &packet(30, 1), 30).await.unwrap();
    assert_eq!(waiting.await.unwrap()[0].1, packet(30, 1));
}

async fn a_peer_of_another_carrier_is_a_loss(kind: &Kind) {
    let Ends { near, .. } = ends(kind);
    for other in [Peer::None, Peer::Unix { process: 1 }] {
        let failure = send(&*near, other, &packet(30, 1), 30).await.err().map(|e| send_failure(&e));
        assert!(matches!(failure, None | Some(SendFailure::Lost)), "{other}: {failure:?}");
    }
}

async fn what_a_full_buffer_drops_is_counted(kind: &Kind) {
    let Ends { near, far, far_seen, .. } = ends(kind);
    let len = near.promises().first_datagram;
    let (burst, mut sent) = (far.receive_burst_bytes(), 0);
    assert!(burst >= len, "a burst of {burst} bytes");
    while far.kernel_drops() == 0 {
        assert!(sent < 8 * burst, "{sent} bytes sent, none dropped");
        send(&*near, far_seen, &packet(len, 1).repeat(8), len).await.unwrap();
        sent += 8 * len;
    }
    assert!(sent >= burst, "it dropped after {sent} bytes where {burst} were promised");
}

fn port_of(carrier: &dyn Datagrams) -> u16 {
    let local = carrier.local();
    if let Peer::Memory(place) = local { place.try_into().unwrap() } else { local.port().unwrap() }
}
