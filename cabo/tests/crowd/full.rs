//! Stream carriers that are full: who is one too many hears it at once, and who has left makes room (S-4.5, S-9).

use std::sync::Arc;
use std::time::{Duration, Instant};

use cabo::connection::Ended;
use cabo::endpoint::{Endpoint, Settings};
use cabo::error::ConnectError;
use cabo::keys::Identity;
use cabo_proto::session::config::Config;
use cabo_proto::session::plain::Plain;
use cabo_proto::session::records::RecordConnection;
use cabo_proto::transport::flow::Budget;
use cabo_proto::wire::code::Code;
use cabo_proto::wire::frame::Direction;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::flood::socket_address;
use crate::{LIMIT, Reading, Running, endpoint};

fn plain_config() -> Config {
    Config { is_plain: true, ..Config::default() }
}

async fn plain_server(connections_max: usize) -> (Endpoint, cabo::address::Address) {
    let settings = Settings { session: plain_config(), connections_max, ..Settings::default() };
    let server = Endpoint::new(&Identity::generate().unwrap(), settings).unwrap();
    let address = server.listen(&"tcp://127.0.0.1:0".parse().unwrap()).await.unwrap().address;
    (server, address)
}

fn plain_client() -> Endpoint {
    let settings = Settings { session: plain_config(), ..Settings::default() };
    Endpoint::new(&Identity::generate().unwrap(), settings).unwrap()
}

/// The code with which the server turned a client away.
fn code_of(error: &ConnectError) -> Option<Code> {
    let ConnectError::Ended { ended, .. } = error else { return None };
    let Ended::PeerProtocol { code, .. } = **ended else { return None };
    Some(code)
}

/// A peer that was let in, says that it goes on a stream, and from then on reads nothing.
async fn deaf_peer(address: std::net::SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let crypto = Plain::new(|_: &[u8], _: &[u8]| [0; 16]);
    let budget: Arc<Budget> = Budget::new(0);
    let mut machine =
        RecordConnection::client(Instant::now(), plain_config(), &crypto, budget).unwrap();
    let mut bytes = vec![0; 4096];
    let mut is_asked = false;
    while !machine.is_admitted() || !is_asked {
        if machine.is_handshaken() && !is_asked {
            let id = machine.streams().open(Direction::Both).unwrap();
            machine.streams().write_room(id).unwrap();
            machine.streams().write(id, bytes::Bytes::from_static(b"go"));
            is_asked = true;
        }
        let mut out = Vec::new();
        machine.poll_output(Instant::now(), &mut out, 1 << 16);
        stream.write_all(&out).await.unwrap();
        if !machine.is_admitted() {
            let len = stream.read(&mut bytes).await.unwrap();
            machine.handle_bytes(Instant::now(), &mut bytes[..len]);
        }
    }
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_left_without_reading_its_answer_does_not_keep_its_place() {
    let (server, address) = plain_server(1).await;
    let serving = tokio::spawn(async move {
        let far = server.accept().await;
        far.admit();
        let (mut send, _recv) = far.accept().await.unwrap();
        while send.write_all(&[7; 65_536]).await.is_ok() {} // until it has left
        server
    });
    let mut deaf = timeout(LIMIT, deaf_peer(socket_address(&address))).await.unwrap();
    let first = timeout(LIMIT, plain_client().connect(&address, None)).await.unwrap();
    assert_eq!(code_of(&first.unwrap_err()), Some(Code::BUSY), "the one place is taken");
    deaf.shutdown().await.unwrap();
    let server = timeout(LIMIT, serving).await.expect("its end is noticed").unwrap();
    let entering = async {
        while plain_client().connect(&address, None).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(LIMIT, entering).await.expect("the place is never free again");
    drop((deaf, server));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_of_one_address_make_room_for_who_proves_itself() {
    let server = endpoint();
    let address = server.listen(&"tcp://127.0.0.1:0".parse().unwrap()).await.unwrap().address;
    let mut silent = Vec::new();
    for _ in 0..1_200 {
        silent.push(TcpStream::connect(socket_address(&address)).await.unwrap());
    }
    let client = endpoint();
    let both = async { tokio::join!(client.connect(&address, None), server.accept()) };
    let (near, _far) = timeout(LIMIT, both).await.expect("it is kept out");
    near.unwrap();
    // The first of them was told why it had to leave: a preface, and a CLOSE.
    let mut told = Vec::new();
    timeout(LIMIT, silent[0].read_to_end(&mut told)).await.unwrap().unwrap();
    assert!(told.windows(4).any(|word| word == b"many"), "{}", told.escape_ascii());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_while_the_server_goes_down_is_told_so() {
    let server = endpoint();
    let address = server.listen(&"tcp://127.0.0.1:0".parse().unwrap()).await.unwrap().address;
    server.drain();
    let error = timeout(LIMIT, endpoint().connect(&address, None)).await.unwrap().unwrap_err();
    assert_eq!(code_of(&error), Some(Code::DRAINING), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_goes_down_finishes_what_is_under_way_and_tells_who_comes() {
    for place in ["tcp://127.0.0.1:0", "udp://127.0.0.1:0"] {
        let running = Running::start(place, 40_000_000).await;
        let mut reading = Reading::start(running.address.clone()).await;
        assert!(timeout(LIMIT, reading.read_block()).await.unwrap());
        let (address, hash) = (running.address.clone(), running.hash);
        let stopping = tokio::spawn(running.stop());
        let told = async {
            loop {
                // Until the server has heard that it has to end, it lets in whoever comes.
                let Ok(late) = endpoint().connect(&address, None).await else { break };
                let ended = match late.admitted().await {
                    Ok(()) => continue,
                    Err(ended) => ended,
                };
                let Ended::PeerProtocol { code, .. } = &*ended else { panic!("{ended}") };
                assert_eq!(*code, Code::DRAINING, "{place}");
                break;
            }
        };
        timeout(LIMIT, told).await.expect("nobody is told");
        let got = timeout(LIMIT, reading.finish()).await.expect("it hangs");
        assert_eq!(got, (40_000_000, hash), "{place}");
        timeout(LIMIT, stopping).await.expect("it does not end").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_no_service_takes_is_stopped() {
    let running = Running::start("tcp://127.0.0.1:0", 1).await;
    let client = endpoint().connect(&running.address, None).await.unwrap();
    let mut stray = client.open_one_way().await.unwrap();
    let stopped = async { while stray.write_all(&[0; 1000]).await.is_ok() {} };
    timeout(LIMIT, stopped).await.expect("it is held for ever");
    assert!(client.ended().is_none(), "the session goes on");
    client.close(0, "");
    running.stop().await;
}
