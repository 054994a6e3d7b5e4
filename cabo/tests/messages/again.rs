//! Cabo servers that are not there yet, go and come back: what a reconnecting client makes of it.

use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use bytes::Bytes;
use cabo::access::Access;
use cabo::address::Address;
use cabo::keys::Identity;
use cabo::proto::wire::message::Unfit;
use cabo::talk::link::LinkError;
use cabo::talk::reconnect::Perseverance;
use cabo::talk::{Message, Peer, Reconnecting, RequestError, SendError, Server, Settings};
use tokio::task::block_in_place;

use crate::{PATIENCE, Running, open_at, settings, soon, stranger, urls};

fn to(address: &Address) -> Reconnecting {
    let settings = Settings { outgoing_bytes_max: 10_000, ..settings("raw") };
    let soon = Perseverance {
        first_pause: Duration::from_millis(4),
        longest_pause: Duration::from_millis(64),
        waiting_bytes_max: usize::MAX,
        ..Perseverance::default()
    };
    Reconnecting::to_cabo_over(stranger(), address, settings).unwrap().settings(soon)
}

/// A server at the place of an earlier one.
async fn again(url: &str, with: impl FnOnce(Server) -> Server) -> Running {
    Running::start(with(open_at([url], "raw"))).await
}

/// URLs of every carrier, where a server can listen again and again.
async fn places() -> (tempfile::TempDir, Vec<(String, Address)>) {
    let (dir, urls) = urls();
    let server = Running::start(open_at(&urls, "raw")).await;
    let at = server.at.clone();
    server.stop().await;
    let places = at.iter().zip(&urls).map(|(at, url)| {
        let mut own = at.clone();
        own.query = url.parse::<Address>().unwrap().query;
        (own.to_string(), at.clone())
    });
    (dir, places.collect())
}

fn hear<T>(told: &Receiver<T>) -> T {
    block_in_place(|| told.recv_timeout(PATIENCE)).expect("it is told")
}

fn number_of(message: &Message) -> u32 {
    u32::from_be_bytes(message.bytes()[..4].try_into().unwrap())
}

/// Tells of each message by its number.
fn hearing(tell: &Sender<u32>) -> impl Fn(Message, &Peer) + Send + Sync + 'static {
    let tell = tell.clone();
    move |message, _| {
        assert_eq!(message.kind(), "number");
        let _ = tell.send(number_of(&message)); // the test may be over
    }
}

/// The same, and echoes it.
fn telling(tell: &Sender<u32>) -> impl Fn(Message, &Peer) + Send + Sync + 'static {
    let hear = hearing(tell);
    move |message, peer| {
        hear(message.clone(), peer);
        let _ = peer.send_back(&message); // it may be gone
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_while_there_was_no_server_arrives_once_and_in_order_on_every_carrier() {
    let (_dir, places) = places().await;
    for (url, address) in places {
        let (tell, told) = mpsc::channel();
        let (say, said) = mpsc::channel();
        let (lose, lost) = mpsc::channel();
        let link = to(&address)
            .on_receive(move |message, _| say.send(number_of(&message)).unwrap())
            .on_lost(move |why| lose.send(why.why.is_none()).unwrap_or_default())
            .start()
            .unwrap();
        for round in 0..3_u32 {
            for number in round * 100..(round + 1) * 100 {
                link.send_as("number", Bytes::copy_from_slice(&number.to_be_bytes())).unwrap();
            }
            let server = again(&url, |server| server.on_receive(telling(&tell))).await;
            for number in round * 100..(round + 1) * 100 {
                assert_eq!(hear(&told), number, "{url}");
                assert_eq!(hear(&said), number, "{url}"); // so nothing is on its way when the server goes
            }
            assert!(link.is_connected() && link.peer().is_some_and(|peer| peer.is_cabo()));
            server.stop().await;
            while !hear(&lost) {} // it ended its stream
            assert!(link.peer().is_none());
        }
        assert!(told.try_recv().is_err(), "{url}: nothing came twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_in_the_middle_of_the_queue_hears_nothing_twice() {
    let (_dir, places) = places().await;
    for (url, address) in places {
        let is_udp = url.starts_with("udp");
        let (lose, lost) = mpsc::channel();
        let link = to(&address).on_lost(move |_| lose.send(()).unwrap_or_default());
        let link = link.start().unwrap();
        let (mut heard, mut sent) = (Vec::new(), 0);
        for round in 0..6 {
            for number in sent..sent + 3000_u32 {
                let mut payload = vec![7; 2000];
                payload[..4].copy_from_slice(&number.to_be_bytes());
                link.send_as("number", payload).unwrap();
            }
            sent += 3000;
            let (tell, told) = mpsc::channel();
            let server = again(&url, |server| server.on_receive(hearing(&tell))).await;
            if round == 5 {
                while heard.last() != Some(&(sent - 1)) {
                    heard.push(hear(&told));
                }
            } else {
                heard.extend((0..500).map(|_| hear(&told)));
            }
            lost.try_iter().for_each(drop);
            // A session that nobody ended is missed over UDP only after a while.
            if round % 2 == 0 || is_udp {
                server.stop().await;
            } else {
                server.task.abort();
                assert!(server.task.await.unwrap_err().is_cancelled());
            }
            hear(&lost); // what is sent now waits for the next one
            heard.extend(told.try_iter());
        }
        assert!(heard.windows(2).all(|pair| pair[0] < pair[1]), "{url}: twice, or out of order");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_wait_for_a_server_but_not_when_nobody_waits_for_them() {
    let (_dir, places) = places().await;
    let (url, address) = &places[0];
    let (tell, told) = mpsc::channel();
    let link = to(address).start().unwrap();
    let short = link.request("n", "too late", Duration::from_millis(1)).unwrap();
    let error = soon("the deadline", short).await.unwrap_err();
    assert_eq!(error, RequestError::Deadline(Duration::from_millis(1)));
    drop(link.request("n", "given up", PATIENCE).unwrap());
    let kept = link.request("n", "kept", PATIENCE).unwrap();
    let server = again(url, |server| {
        server.on_receive(move |message, peer| {
            tell.send(message.bytes().clone()).unwrap();
            match &message.bytes()[..] {
                b"never" => std::mem::forget(message),
                _ => peer.send_back(&message).unwrap(),
            }
        })
    })
    .await;
    assert_eq!(soon("the answer", kept).await.unwrap().bytes()[..], *b"kept");
    let blocking = link.clone();
    let asked = std::thread::spawn(move || blocking.request_blocking("n", "blocking", PATIENCE));
    assert_eq!(block_in_place(|| asked.join().unwrap()).unwrap().bytes()[..], *b"blocking");
    let never = link.request("n", "never", PATIENCE).unwrap();
    let heard: Vec<Bytes> = (0..3).map(|_| hear(&told)).collect();
    assert_eq!(heard, ["kept", "blocking", "never"]);
    server.stop().await;
    assert_eq!(soon("the end", never).await.unwrap_err(), RequestError::Gone);
    let waiting = link.request("n", "nobody", PATIENCE).unwrap();
    assert!(!soon("the end", link.close()).await, "there is nobody to take it");
    assert_eq!(soon("the end", waiting).await.unwrap_err(), RequestError::Gone);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_connects_again_answers_what_it_is_asked() {
    let (_dir, places) = places().await;
    let (url, address) = &places[0];
    let link = to(address).on_receive(|message, link| {
        link.peer().unwrap().reply(&message, "ana").unwrap();
    });
    let link = link.start().unwrap();
    for _ in 0..2 {
        let (tell, told) = mpsc::channel();
        let server = again(url, |server| {
            server.on_connect(move |peer| {
                let (peer, tell) = (peer.clone(), tell.clone());
                tokio::spawn(async move {
                    let answer = peer.request("who", "", PATIENCE).await.unwrap();
                    tell.send(answer.bytes().clone()).unwrap();
                });
            })
        })
        .await;
        assert_eq!(hear(&told), "ana");
        server.stop().await;
    }
    drop(link);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_waits_until_a_cabo_peer_has_all() {
    let (_dir, places) = places().await;
    for (url, address) in places {
        let (tell, told) = mpsc::channel();
        let server = again(&url, |server| server.on_receive(telling(&tell))).await;
        let link = to(&address).start().unwrap();
        for number in 0..1000_u32 {
            let mut payload = vec![7; 3000];
            payload[..4].copy_from_slice(&number.to_be_bytes());
            link.send_as("number", payload).unwrap();
        }
        let other = link.clone();
        assert!(soon("the end", link.close()).await);
        let heard: Vec<u32> = told.try_iter().collect();
        assert_eq!(heard, (0..1000).collect::<Vec<_>>(), "{url}");
        assert_eq!(other.send("too late"), Err(LinkError::Closed));
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_can_be_sent_is_refused_at_once() {
    let (_dir, places) = places().await;
    let limit = settings("raw").dialect.limit_bytes;
    let link = to(&places[0].1).start().unwrap();
    let error = link.send(vec![0; limit + 1]).unwrap_err();
    assert_eq!(
        error,
        LinkError::Send(SendError::Unfit(Unfit::Payload { bytes: limit + 1, limit }))
    );
    assert!(matches!(link.send_as("k".repeat(64), ""), Err(LinkError::Send(_))));
    let lines = settings("lines").dialect;
    let foreign = Reconnecting::to("tcp://127.0.0.1:1", lines).unwrap().start().unwrap();
    for error in
        [foreign.send_as("kind", "").unwrap_err(), foreign.request("", "", PATIENCE).err().unwrap()]
    {
        assert!(matches!(error, LinkError::Send(SendError::Foreign(..))), "{error}");
    }
    assert_eq!((link.waiting_bytes(), foreign.waiting_bytes()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_of_one_client_that_never_returns_holds_up_no_other() {
    let (_dir, places) = places().await;
    for (url, address) in places {
        let echoing = |server: Server| server.on_receive(crate::echo);
        let server = again(&url, echoing).await;
        let (say, said) = mpsc::channel();
        let sticking = to(&address).on_receive(move |_, _| {
            say.send(()).unwrap();
            loop {
                std::thread::park();
            }
        });
        let sticking = sticking.start().unwrap();
        sticking.send("0").unwrap();
        hear(&said);
        let good = to(&address).start().unwrap();
        for number in 0..200 {
            let answer = good.request("n", number.to_string(), PATIENCE).unwrap();
            let answer = soon("the answer", answer).await.unwrap();
            assert_eq!(answer.bytes(), &number.to_string(), "{url}");
        }
        drop((sticking, good));
        server.stop().await;
    }
}

/// Who is not let in hears why, and loses nothing by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_not_let_in_hears_why_each_time_and_keeps_what_waits() {
    let (_dir, places) = places().await;
    // By a Unix socket it is known whose process it is, and that is let in.
    for (url, address) in places.into_iter().filter(|(url, _)| !url.starts_with("unix")) {
        let nobody: fn(Access) -> Access = |access| access;
        let server = Server::bind([&url]).unwrap().identity(Identity::generate().unwrap());
        let server = Running::start(server.settings(settings("raw")).access(nobody)).await;
        let (say, said) = mpsc::channel();
        let link = to(&address).on_lost(move |lost| {
            let why = lost.why.as_ref().map(ToString::to_string).unwrap_or_default();
            let _ = say.send(why); // the test may be over
        });
        let link = link.start().unwrap();
        for number in 0..100_u32 {
            link.send_as("number", Bytes::copy_from_slice(&number.to_be_bytes())).unwrap();
        }
        for _ in 0..3 {
            let why = hear(&said);
            assert!(why.contains("the server does not know"), "{url}: {why}");
        }
        server.stop().await;
        let (tell, told) = mpsc::channel();
        let server = again(&url, |server| server.on_receive(hearing(&tell))).await;
        for number in 0..100 {
            assert_eq!(hear(&told), number, "{url}");
        }
        server.stop().await;
    }
}
