//! Peers that misbehave: other services, no messages, too much, too slow, gone without a word.

use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use cabo::connection::Connection;
use cabo::stream::StreamReset;
use cabo::talk::{Client, ClientError, SendError, Settings, Slow};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{PATIENCE, Running, connect, echo, next, open_at, settings, soon, stranger, urls};

/// Opens a stream with these first bytes, and says by which code it is reset.
async fn reset_code(connection: &Connection, first: &[u8]) -> u64 {
    let (mut send, mut recv) = connection.open().await.unwrap();
    send.write_all(first).await.unwrap();
    let error = soon("the reset", recv.read_to_end(&mut Vec::new())).await.unwrap_err();
    error.get_ref().unwrap().downcast_ref::<StreamReset>().unwrap().0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_messages_is_reset_and_does_not_disturb_them() {
    let (_dir, urls) = urls();
    let server = Running::start(open_at(urls, "raw").on_receive(echo)).await;
    for address in &server.at {
        let session = stranger().connect(address).await.unwrap().connection;
        assert_eq!(reset_code(&session, b"\x07media/1").await, 1, "{address}");
        assert_eq!(reset_code(&session, b"\x05nosuch").await, 1, "{address}");
        let (mut send, mut recv) = session.open().await.unwrap();
        send.write_all(b"\x0amessages/1\x01\x03\x00hi").await.unwrap();
        let mut back = [0; 5];
        soon("the echo", recv.read_exact(&mut back)).await.unwrap();
        assert_eq!(&back, b"\x01\x03\x00hi");
        assert_eq!(reset_code(&session, b"\x0amessages/1").await, 2, "{address}");
        assert_eq!(reset_code(&session, b"\x06echo/1").await, 1, "{address}");
        let mut one_way = session.open_one_way().await.unwrap();
        let stopped = async { while one_way.write_all(&[0; 1000]).await.is_ok() {} };
        soon("the end of a stream that nobody reads", stopped).await;
        send.write_all(b"\x01\x03\x00ho").await.unwrap();
        soon("the echo", recv.read_exact(&mut back)).await.unwrap();
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_messages_of_cabo_peers_have_the_same_budget() {
    let (tell, told) = mpsc::channel();
    let server = open_at(["tcp://127.0.0.1:0"], "raw")
        .settings(Settings { unfinished_bytes_max: 1024 * 1024, ..settings("raw") })
        .on_receive(echo)
        .on_close(move |_, why| {
            let _ = tell.send(why.to_string()); // the test may be over
        });
    let server = Running::start(server).await;
    let session = stranger().connect(&server.at[0]).await.unwrap().connection;
    let (mut send, _recv) = session.open().await.unwrap();
    let _ = send.write_all(b"\x0amessages/1\x01\x80\x20\0\0").await; // 2 MiB
    let begun = async { while send.write_all(&[0; 65_536]).await.is_ok() {} };
    soon("the end", begun).await;
    let why = told.recv_timeout(PATIENCE).unwrap();
    assert!(why.contains("may have 1048576 bytes together"), "{why}");
    let mut other = connect(&server.at[0]).await;
    let long = vec![7; 1024 * 1024];
    other.sender.send(&long).await.unwrap();
    assert!(next(&mut other).await.bytes()[..] == long, "there is room again");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_message_ends_the_session_with_the_reason() {
    let (tell, told) = mpsc::channel();
    let kept = std::sync::Mutex::new(Vec::new());
    let server = open_at(["tcp://127.0.0.1:0"], "raw")
        .on_receive(move |message, peer| match message.is_request() {
            true => kept.lock().unwrap().push(message),
            false => echo(message, peer),
        })
        .on_close(move |_, why| tell.send(why.to_string()).unwrap());
    let server = Running::start(server).await;
    let mut honest = connect(&server.at[0]).await;
    let cases: [(&[u8], &str); 3] = [
        (b"\x01\xc0\0\0\0\xff\xff\xff\xff", "over the limit of 16777288"),
        (b"\x01\x02\x01\xff", "a kind that is not UTF-8"),
        (b"\x02\x02\x07\x00\x02\x02\x07\x00", "a request whose id is open already"),
    ];
    for (bytes, wanted) in cases {
        let session = stranger().connect(&server.at[0]).await.unwrap().connection;
        let (mut send, _recv) = session.open().await.unwrap();
        send.write_all(&[b"\x0amessages/1", bytes].concat()).await.unwrap();
        let ended = soon("the end", session.closed()).await.to_string();
        assert!(ended.contains("code 3") && ended.contains(wanted), "{ended}");
        let why = told.recv_timeout(PATIENCE).unwrap();
        assert!(why.contains(wanted), "{why}");
    }
    honest.sender.send(b"still here").await.unwrap();
    assert_eq!(next(&mut honest).await.bytes()[..], *b"still here");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cabo_peer_that_takes_nothing_meets_the_policy() {
    for (slow, wanted) in
        [(Slow::Wait, "full"), (Slow::DropOldest, "dropped"), (Slow::Disconnect, "gone")]
    {
        let (tell, told) = mpsc::channel();
        let settings = Settings { slow, outgoing_bytes_max: 256 * 1024, ..settings("raw") };
        let server =
            open_at(["tcp://127.0.0.1:0"], "raw").settings(settings).on_connect(move |peer| {
                let (peer, tell) = (peer.clone(), tell.clone());
                std::thread::spawn(move || {
                    let what = loop {
                        match peer.send([0; 10_000]) {
                            Ok(()) if peer.dropped_messages() > 0 => break "dropped",
                            Ok(()) => {}
                            Err(SendError::Full { .. }) => break "full",
                            Err(SendError::Gone) => break "gone",
                            Err(error) => panic!("{error}"),
                        }
                    };
                    tell.send(what).unwrap();
                });
            });
        let server = Running::start(server).await;
        let mut lazy = connect(&server.at[0]).await;
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), wanted, "{slow:?}");
        if slow != Slow::Disconnect {
            for _ in 0..10 {
                assert_eq!(next(&mut lazy).await.bytes().len(), 10_000);
            }
        }
        drop(lazy);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_echo_reads_a_cabo_peer_no_faster_than_it_takes() {
    let server = open_at(["tcp://127.0.0.1:0"], "raw")
        .settings(Settings { outgoing_bytes_max: 1 << 20, ..settings("raw") })
        .on_receive(echo); // an echo that is full panics, and loses the peer
    let server = Running::start(server).await;
    let mut client = connect(&server.at[0]).await;
    let peer = client.peer().unwrap().clone();
    let sending = tokio::spawn(async move {
        for number in 0..200_000_u32 {
            let message = [number.to_be_bytes(); 64].concat();
            while let Err(error) = peer.send(&message) {
                assert!(matches!(error, SendError::Full { .. }), "{error}");
                peer.room().await;
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(300)).await; // all buffers of the way are full by then, or it is faster
    for number in 0..200_000_u32 {
        assert_eq!(next(&mut client).await.bytes()[..4], number.to_be_bytes());
    }
    sending.await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_torn_is_told_of_at_both_ends() {
    let (tell, told) = mpsc::channel();
    let server = open_at(["tcp://127.0.0.1:0"], "raw")
        .on_receive(echo)
        .on_close(move |_, why| tell.send(why.to_string()).unwrap());
    let server = Running::start(server).await;
    let inner = server.at[0].place.to_string();
    let between = TcpListener::bind("127.0.0.1:0").unwrap();
    let outer = format!("tcp://{}", between.local_addr().unwrap()).parse().unwrap();
    let cable = std::thread::spawn(move || {
        let near = between.accept().unwrap().0;
        let far = TcpStream::connect(inner.trim_start_matches("tcp://")).unwrap();
        let pipe = |mut from: TcpStream, mut to: TcpStream| {
            std::thread::spawn(move || std::io::copy(&mut from, &mut to))
        };
        pipe(near.try_clone().unwrap(), far.try_clone().unwrap());
        pipe(far.try_clone().unwrap(), near.try_clone().unwrap());
        (near, far)
    });
    let mut client = connect(&outer).await;
    client.sender.send(b"hello").await.unwrap();
    assert_eq!(next(&mut client).await.bytes()[..], *b"hello");
    let open = client.sender.request("", "", PATIENCE).unwrap();
    let (near, far) = cable.join().unwrap();
    for end in [near, far] {
        let _ = socket2::SockRef::from(&end).set_linger(Some(Duration::ZERO)); // a reset, where there is no end yet
        let _ = end.shutdown(std::net::Shutdown::Both);
    }
    let error = loop {
        match soon("the end", client.receiver.next()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended well"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ClientError::Ended(_)), "{error:?}");
    let _ = soon("the request's end", open).await; // answered or gone, but over
    let why = told.recv_timeout(PATIENCE).unwrap();
    assert!(why.contains("truncated"), "{why}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_small_messages_loses_none_and_leaves_others_their_turn() {
    let (_dir, urls) = urls();
    let server = open_at(urls, "raw").on_receive(|message, peer| {
        let count = peer.with_state(|count: &mut u64| {
            *count += 1;
            *count
        });
        if message.is_request() {
            peer.reply(&message, (count - 1).to_string()).unwrap();
        }
    });
    let server = Running::start(server).await;
    for address in &server.at {
        let (mut flood, calm) = (connect(address).await, connect(address).await);
        for round in 0..100 {
            for _ in 0..1000 {
                flood.sender.send(&[7; 64]).await.unwrap();
            }
            if round % 20 == 0 {
                let calm = calm.sender.request("", "", PATIENCE).unwrap();
                soon("another's answer", calm).await.unwrap();
            }
        }
        let count = flood.sender.request("", "", PATIENCE).unwrap();
        let count = soon("the count", count).await.unwrap();
        assert_eq!(count.bytes()[..], *b"100000", "{address}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_hears_that_a_server_has_no_messages() {
    let identity = cabo::keys::Identity::generate().unwrap();
    let access = cabo::access::Access::new(identity.public_key()).open();
    let endpoint = cabo::endpoint::Endpoint::new(&identity, Default::default()).unwrap();
    let at = endpoint.listen(&"tcp://127.0.0.1:0".parse().unwrap()).await.unwrap().address;
    let services = vec![std::sync::Arc::new(cabo::service::echo::Echo) as _];
    let (server, _events) =
        cabo::server::Server::new(endpoint, access, services, Default::default(), None);
    let task = tokio::spawn(async move { server.run(std::future::pending()).await });
    let over = stranger();
    let mut client = Client::connect_over(&over, &at, settings("raw")).await.unwrap();
    let error = soon("the refusal", client.receiver.next()).await.unwrap_err();
    assert!(matches!(error, ClientError::NoService), "{error:?}");
    task.abort();
}
