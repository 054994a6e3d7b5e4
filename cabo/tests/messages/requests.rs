//! Requests: replies in any order, deadlines, cancellation, failure.

use std::sync::mpsc;
use std::time::Duration;

use cabo::talk::{Message, Peer, RequestError, SendError};

use crate::{PATIENCE, Running, connect, echo, open_at, soon, urls};

const NEVER: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_find_their_requests_in_any_order() {
    let (_dir, urls) = urls();
    let waiting = std::sync::Mutex::new(Vec::<(Message, Peer)>::new());
    let server = open_at(urls, "raw").on_receive(move |message, peer| {
        assert!(message.is_request());
        let mut waiting = waiting.lock().unwrap();
        waiting.push((message, peer.clone()));
        if waiting.len() == 50 {
            for (message, peer) in waiting.drain(..).rev() {
                let answer = [b"re: ", &message.bytes()[..]].concat();
                peer.reply(&message, answer).unwrap();
                assert_eq!(peer.reply(&message, "twice"), Err(SendError::NotAsked));
            }
        }
    });
    let server = Running::start(server).await;
    for address in &server.at {
        let client = connect(address).await;
        let ask = |number: u32| client.sender.request("n", number.to_string(), NEVER).unwrap();
        let answers: Vec<_> = (0..50).map(ask).collect();
        for (number, answer) in answers.into_iter().enumerate() {
            let answer = soon("the answer", answer).await.unwrap();
            assert_eq!(answer.bytes()[..], *format!("re: {number}").as_bytes(), "{address}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_nobody_awaits_any_more_is_cancelled_at_the_server() {
    let (_dir, urls) = urls();
    let (tell, told) = mpsc::channel();
    let server = open_at(urls, "raw").on_receive(move |message, peer| {
        let (tell, peer) = (tell.clone(), peer.clone());
        tell.send("asked").unwrap();
        tokio::spawn(async move {
            message.cancelled().await;
            assert!(message.is_cancelled());
            assert_eq!(peer.reply(&message, "late"), Err(SendError::NotAsked));
            tell.send("cancelled").unwrap();
        });
    });
    let server = Running::start(server).await;
    for address in &server.at {
        let client = connect(address).await;
        let heard = || told.recv_timeout(PATIENCE).unwrap();
        let dropped = client.sender.request("", "", NEVER).unwrap();
        assert_eq!(heard(), "asked");
        drop(dropped);
        assert_eq!(heard(), "cancelled");
        let short = client.sender.request("", "", Duration::from_millis(50)).unwrap();
        let error = soon("the deadline", short).await.unwrap_err();
        assert_eq!(error, RequestError::Deadline(Duration::from_millis(50)));
        assert_eq!((heard(), heard()), ("asked", "cancelled"));
        let left = client.sender.request("", "", NEVER).unwrap();
        assert_eq!(heard(), "asked");
        drop(client);
        assert_eq!(soon("the end", left).await.unwrap_err(), RequestError::Gone);
        assert_eq!(heard(), "cancelled");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_fails_when_the_server_says_so_or_says_nothing() {
    let server = open_at(["tcp://127.0.0.1:0"], "raw").on_receive(|message, peer| {
        if message.kind() == "no" {
            peer.fail(&message, "forbidden", "not on a Sunday").unwrap();
        } // else it is dropped
    });
    let server = Running::start(server).await;
    let client = connect(&server.at[0]).await;
    let ask = |kind| client.sender.request(kind, "", NEVER).unwrap();
    let error = soon("the answer", ask("no")).await.unwrap_err();
    assert_eq!(error.to_string(), "the request failed: forbidden: not on a Sunday");
    let error = soon("the answer", ask("")).await.unwrap_err();
    assert_eq!(error.to_string(), "the request failed: unanswered");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_asks_its_clients_too_and_too_many_requests_are_busy() {
    let (tell, told) = mpsc::channel();
    let server = open_at(["tcp://127.0.0.1:0"], "raw").on_connect(move |peer| {
        let (peer, tell) = (peer.clone(), tell.clone());
        tokio::spawn(async move {
            let answer = peer.request("who", "are you", NEVER).await.unwrap();
            let more: Vec<_> = (0..1025).map(|_| peer.request("more", "", NEVER)).collect();
            let last = more.into_iter().last().unwrap().await.unwrap_err();
            tell.send((answer.bytes().clone(), last.to_string())).unwrap();
        });
    });
    let server = Running::start(server).await;
    let mut client = connect(&server.at[0]).await;
    let request = crate::next(&mut client).await;
    assert_eq!((request.kind(), request.is_request()), ("who", true));
    client.peer().unwrap().reply(&request, "ana").unwrap();
    let mut kept = Vec::new();
    for _ in 0..1024 {
        kept.push(crate::next(&mut client).await);
    }
    let (answer, last) = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!((&answer[..], &*last), (&b"ana"[..], "the request failed: busy"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_ended_its_half_still_gets_its_answers() {
    let (_dir, urls) = urls();
    let server = open_at(urls, "raw").on_receive(|message, peer| {
        let peer = peer.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            peer.reply(&message, "late").unwrap();
        });
    });
    let server = Running::start(server).await;
    for address in &server.at {
        let mut client = connect(address).await;
        let answer = client.sender.request("", "", NEVER).unwrap();
        client.sender.finish().await.unwrap();
        assert_eq!(soon("the answer", answer).await.unwrap().bytes()[..], *b"late");
        assert!(soon("the end", client.receiver.next()).await.unwrap().is_none(), "{address}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_echo_answers_requests_and_one_way_messages_alike() {
    let server = Running::start(open_at(["tcp://127.0.0.1:0"], "raw").on_receive(echo)).await;
    let mut client = connect(&server.at[0]).await;
    let answer = client.sender.request("k", "asked", NEVER).unwrap();
    client.sender.send_as("k", b"told").await.unwrap();
    let answer = soon("the answer", answer).await.unwrap();
    assert_eq!((answer.kind(), &answer.bytes()[..]), ("k", &b"asked"[..]));
    assert_eq!(crate::next(&mut client).await.bytes()[..], *b"told");
    server.stop().await;
}

#[derive(Debug, PartialEq, serde::Deserialize, serde::Serialize)]
struct Reading {
    sensor: String,
    celsius: Vec<f64>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn structs_of_ones_own_cross_and_what_is_no_such_struct_is_said() {
    let server = open_at(["tcp://127.0.0.1:0"], "raw").on_receive(|message, peer| {
        let sum = message.typed::<Reading>().map(|reading| reading.celsius.iter().sum::<f64>());
        match sum {
            Ok(sum) => peer.reply_typed(&message, &Some(sum)).unwrap(),
            Err(error) => peer.fail(&message, "malformed", &error.to_string()).unwrap(),
        }
    });
    let server = Running::start(server).await;
    let client = connect(&server.at[0]).await;
    let peer = client.peer().unwrap();
    let reading = Reading { sensor: "attic".to_owned(), celsius: vec![20.5, 21.0] };
    let answer = soon("the answer", peer.request_typed("reading", &reading, NEVER)).await.unwrap();
    assert_eq!(answer.typed::<Option<f64>>().unwrap(), Some(41.5));
    let error = soon("the answer", peer.request("reading", "\x05abc", NEVER)).await.unwrap_err();
    assert!(
        error.to_string().starts_with("the request failed: malformed: the payload is no"),
        "{error}"
    );
    let more = soon("the answer", peer.request("reading", [0, 0, 0], NEVER)).await.unwrap_err();
    assert!(more.to_string().ends_with("the payload has 1 bytes after the value"), "{more}");
    server.stop().await;
}
