//! Clients that read and write slowly, or not for a while: they get and give every byte, and nobody waits for them.

use std::time::Duration;

use cabo::client::Client;
use cabo::request::write_opening;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::{LIMIT, Reading, Running, endpoint};

const PLACES: [&str; 2] = ["tcp://127.0.0.1:0", "udp://127.0.0.1:0"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_holds_up_nobody_and_gets_every_byte_later() {
    for place in PLACES {
        let running = Running::start(place, 40_000_000).await;
        let mut idle = Vec::new();
        for _ in 0..4 {
            let mut reading = Reading::start(running.address.clone()).await;
            assert!(timeout(LIMIT, reading.read_block()).await.unwrap());
            idle.push(reading);
        }
        timeout(LIMIT, running.spawn_client()).await.expect("it waits for the others").unwrap();
        for reading in idle {
            let got = timeout(LIMIT, reading.finish()).await.expect("it hangs");
            assert_eq!(got, (40_000_000, running.hash), "{place}");
        }
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_writes_and_reads_in_crumbs_is_heard_and_answered_all_the_same() {
    for place in PLACES {
        let running = Running::start(place, 1).await;
        let client = Client::new(endpoint(), None);
        let session = client.connect(&running.address).await.unwrap();
        let talking = async {
            let (mut send, mut recv) = session.connection.open().await.unwrap();
            let mut opening = Vec::new();
            write_opening(&mut opening, "echo/1").await.unwrap();
            for byte in opening {
                send.write_all(&[byte]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let mut back = Vec::new();
            for index in 0..100_u8 {
                send.write_all(&[index; 77]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(2)).await;
                let mut crumb = [0; 13];
                recv.read_exact(&mut crumb).await.unwrap();
                back.extend_from_slice(&crumb);
            }
            send.shutdown().await.unwrap();
            recv.read_to_end(&mut back).await.unwrap();
            back
        };
        let back = timeout(LIMIT, talking).await.expect("it hangs");
        let sent: Vec<u8> = (0..100).flat_map(|index| [index; 77]).collect();
        assert!(back == sent, "{place}: {} of {} bytes", back.len(), sent.len());
        session.connection.close(0, "");
        running.stop().await;
    }
}
