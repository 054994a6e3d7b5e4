//! Conversations that are awaited one by one: who calls, from where, and who is not heard.

use std::net::UdpSocket as Plain;
use std::sync::{Arc, Mutex};

use cabo::talk::{Callers, ClientError, Seen, Watch};

use super::*;

fn dialect(name: &str) -> Arc<Dialect> {
    Dialect::parse(name).unwrap().into()
}

async fn listen(url: &str, name: &str) -> Callers {
    Callers::listen(&url.parse().unwrap(), dialect(name)).await.unwrap()
}

/// The same place with words in its query.
fn with(callers: &Callers, query: &str) -> Address {
    format!("{}?{query}", callers.at()).parse().unwrap()
}

#[tokio::test]
async fn callers_come_one_by_one_from_where_they_choose_and_strangers_do_not() {
    let callers = listen("tcp://127.0.0.1:0", "tp0").await;
    let at = callers.at().clone();
    let calling = tokio::spawn(async move {
        let raw = dialect("raw");
        let mut stranger = Client::connect(&at, raw).await.unwrap();
        stranger.sender.send(b"GET / HTTP/1.0").await.unwrap();
        let refusal = stranger.receiver.next().await.unwrap().unwrap();
        assert_eq!(refusal.bytes().as_ref(), b"\xff\xff\xff\xff");
        let url = format!("{at}?from=127.0.0.9").parse().unwrap();
        Client::connect(&url, dialect("tp0")).await.unwrap()
    });
    let (stranger, others) = callers.next().await.unwrap();
    let error = stranger.answer(None).await.err().unwrap();
    assert!(matches!(error, ClientError::Stranger { .. }), "{error}");
    let (call, others) = others.unwrap().next().await.unwrap();
    assert!(others.is_some(), "others may come");
    let client = call.answer(None).await.unwrap();
    assert_eq!(client.to().socket_addr().unwrap().ip().to_string(), "127.0.0.9");
    calling.await.unwrap();
}

#[tokio::test]
async fn who_sends_the_first_datagram_is_the_only_one_that_is_heard() {
    let callers = listen("udp://127.0.0.1:0", "raw").await;
    let to = with(&callers, "from=127.0.0.1");
    let Place::Udp(host) = &to.place else { panic!("a port") };
    let port = host.port.unwrap();
    let mut client = Client::connect(&to, dialect("raw")).await.unwrap();
    client.sender.send(b"first").await.unwrap();
    let (call, others) = callers.next().await.unwrap();
    let mut called = call.answer(None).await.unwrap();
    assert!(others.is_none(), "its socket is the conversation's now");
    let stranger = Plain::bind("127.0.0.1:0").unwrap();
    stranger.send_to(b"stranger", ("127.0.0.1", port)).unwrap();
    client.sender.send(b"").await.unwrap();
    client.sender.send(b"third").await.unwrap();
    for wanted in ["first", "", "third"] {
        let message = called.receiver.next().await.unwrap().unwrap();
        assert_eq!(message.bytes().as_ref(), wanted.as_bytes());
    }
    // Nor does the client hear anybody but whom it connected to.
    let client_at = called.to().socket_addr().unwrap();
    stranger.send_to(b"stranger", client_at).unwrap();
    called.sender.send(b"answer").await.unwrap();
    let answer = client.receiver.next().await.unwrap().unwrap();
    assert_eq!(answer.bytes().as_ref(), b"answer");
    assert_eq!(client.receiver.from(), Some(client.to()));
}

#[tokio::test]
async fn whoever_watches_sees_all_that_crosses_the_wire_in_order() {
    let callers = listen("tcp://127.0.0.1:0", "tp0-bare").await;
    let seen = Arc::new(Mutex::new(String::new()));
    let watch: Watch = {
        let seen = seen.clone();
        Arc::new(move |event| {
            let text = match event {
                Seen::Sent(bytes) => format!(">{}", bytes.escape_ascii()),
                Seen::Received(bytes) => format!("<{}", bytes.escape_ascii()),
                Seen::SentEnd => ">end".to_owned(),
                Seen::ReceivedEnd => "<end".to_owned(),
            };
            seen.lock().unwrap().push_str(&format!("{text} "));
        })
    };
    let at = callers.at().clone();
    let raw = dialect("lines");
    let connecting = Client::connect_watched(&at, raw, PATIENCE, Some(watch));
    let (client, called) = tokio::join!(connecting, callers.next());
    let (mut client, (call, _)) = (client.unwrap(), called.unwrap());
    let mut called = call.answer(None).await.unwrap();
    client.sender.send(b"hola").await.unwrap();
    client.sender.finish().await.unwrap();
    called.sender.finish().await.unwrap();
    assert!(client.receiver.next().await.unwrap().is_none());
    assert_eq!(*seen.lock().unwrap(), ">hola\\n >end <end ");
}
