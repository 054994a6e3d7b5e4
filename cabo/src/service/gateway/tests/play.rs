//! Players as they are: many at once, gone, paused, on a bad cable, and looking for the index of a film.

use std::os::unix::fs::FileExt;

use super::*;

#[tokio::test]
async fn forty_ranges_on_the_same_blocks_cost_one_fetch_each() {
    let stage = Stage::new().await;
    let content = content(2 * MIB);
    stage.write("film.mp4", &content);
    let ranges = (0..40).map(|number| number * 52_000..number * 52_000 + 60_000);
    let mut streams = Vec::new();
    for range in ranges {
        let line = format!("Range: bytes={}-{}", range.start, range.end - 1);
        streams.push((range, stage.send("GET", &stage.target("film.mp4"), &[&line]).await));
    }
    for (range, stream) in streams {
        let reply = timeout(LIMIT, Reply::read(stream)).await.unwrap();
        assert!(reply.status == 206 && reply.body == content[range.clone()], "{range:?}");
    }
    let stats = stage.gateway.stats();
    assert_eq!((stats.requests, stats.blocks, stats.bytes), (40, 2, 40 * 60_000), "{stats:?}");
}

#[tokio::test]
async fn a_reader_that_goes_away_takes_its_request_along() {
    let stage = Stage::new().await;
    stage.write("film.mp4", &content(8 * MIB));
    stage.ask("HEAD", &stage.target("film.mp4"), &[]).await; // what is known of it needs no request now
    for is_begun in [false, true] {
        stage.cable.set(|cable| &cable.is_stuck, !is_begun);
        let mut stream = stage.send("GET", &stage.target("film.mp4"), &[]).await;
        if is_begun {
            let mut bytes = vec![0; 3 * MIB];
            timeout(LIMIT, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
            stage.cable.set(|cable| &cable.is_stuck, true);
            let more = async { while stream.read(&mut bytes).await.unwrap() > 0 {} };
            timeout(Duration::from_millis(200), more).await.expect_err("stuck before the end");
        }
        until("asked", || stage.cable.open_streams() > 0).await;
        drop(stream);
        until("cancelled", || stage.cable.open_streams() == 0).await;
        stage.cable.set(|cable| &cable.is_stuck, false);
    }
    assert_eq!(stage.get("film.mp4", &[]).await.body.len(), 8 * MIB);
}

#[tokio::test]
async fn a_player_that_pauses_holds_no_request_and_goes_on() {
    let stall = Duration::from_millis(100);
    let limits = Limits { stall, ..Limits::default() };
    let stage = Stage::with(GatewaySettings::default(), limits).await;
    let content = content(24 * MIB);
    stage.write("film.mp4", &content);
    let mut stream = stage.send("GET", &stage.target("film.mp4"), &[]).await;
    let mut bytes = vec![0; 2 * MIB];
    timeout(LIMIT, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    let rest = async {
        let mut before = 0;
        while stage.cable.open_streams() > 0 || stage.cable.opened_streams() > before {
            before = stage.cable.opened_streams();
            sleep(3 * stall).await; // the server would have cut a request that stood still for so long
        }
    };
    timeout(LIMIT, rest).await.expect("at rest");
    assert!(stage.gateway.stats().blocks < 24, "the pause came before the end");
    bytes.clear();
    timeout(LIMIT, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    assert!(bytes.len() > 20 * MIB && content.ends_with(&bytes), "all of it came");
    assert_eq!(stage.gateway.stats().blocks, 24, "and no block twice");
}

#[tokio::test]
async fn a_film_goes_on_when_the_cable_is_back() {
    let stage = Stage::new().await;
    let content = content(12 * MIB);
    stage.write("film.mp4", &content);
    let mut stream = stage.send("GET", &stage.target("film.mp4"), &[]).await;
    let mut bytes = vec![0; 2 * MIB];
    timeout(LIMIT, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    stage.cable.set(|cable| &cable.is_pulled, true);
    let rest = tokio::spawn(async move {
        stream.read_to_end(&mut bytes).await.unwrap();
        bytes
    });
    until("asked again", || stage.gateway.stats().retries > 3).await;
    stage.cable.set(|cable| &cable.is_pulled, false);
    let bytes = timeout(LIMIT, rest).await.unwrap().unwrap();
    assert!(bytes.ends_with(&content), "all of it came");
}

#[tokio::test]
async fn patience_has_an_end_and_a_short_answer_shows() {
    let settings = GatewaySettings {
        patience: Duration::from_millis(200),
        back_off: Duration::from_millis(5),
        ..GatewaySettings::default()
    };
    let stage = Stage::with(settings, Limits::default()).await;
    stage.write("film.mp4", &content(12 * MIB));
    let mut stream = stage.send("GET", &stage.target("film.mp4"), &[]).await;
    let mut bytes = vec![0; 2 * MIB];
    timeout(LIMIT, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    stage.cable.set(|cable| &cable.is_pulled, true);
    let _ = timeout(LIMIT, stream.read_to_end(&mut bytes)).await.unwrap();
    assert!(bytes.len() < 12 * MIB, "the connection ends before the promised length");
    let reply = stage.get("other.mp4", &[]).await;
    assert_eq!(reply.status, 504, "{reply:?}");
    assert!(reply.text().contains("no route to host"), "{reply:?}");
}

#[tokio::test]
async fn a_pause_outlasts_a_failure_of_what_was_asked_ahead() {
    let settings = GatewaySettings {
        patience: Duration::from_millis(500),
        back_off: Duration::from_millis(5),
        ..GatewaySettings::default()
    };
    let stage = Stage::with(settings.clone(), Limits::default()).await;
    let content = content(8 * MIB);
    stage.write("film.mp4", &content);
    let blocks = Blocks::new(stage.cable.clone(), settings);
    let item = blocks.describe(&path("film.mp4")).await.unwrap();
    let mut reader = Reader::new(blocks.clone(), item, 0..8 * BLOCK_BYTES, None);
    let mut bytes = Vec::new();
    while bytes.len() < 2 * MIB {
        bytes.extend_from_slice(&reader.next().await.unwrap().unwrap());
    }
    until("ahead", || blocks.stats().blocks == 3).await;
    bytes.extend_from_slice(&reader.next().await.unwrap().unwrap()); // two more are asked for with this one
    stage.cable.set(|cable| &cable.is_pulled, true);
    sleep(Duration::from_millis(1500)).await; // three times the patience
    assert_eq!(blocks.stats().blocks, 3, "what was asked ahead has failed");
    stage.cable.set(|cable| &cable.is_pulled, false);
    while let Some(more) = timeout(LIMIT, reader.next()).await.unwrap() {
        bytes.extend_from_slice(&more.unwrap());
    }
    assert!(bytes == content, "all of it came");
}

#[tokio::test]
async fn a_byte_that_is_not_proved_is_never_played() {
    let stage = Stage::new().await;
    stage.write("film.mp4", &content(2 * MIB));
    stage.cable.set(|cable| &cable.is_noisy, true);
    let reply = stage.get("film.mp4", &[]).await;
    assert_eq!(reply.status, 502);
    assert!(
        reply.text().contains("does not match its hash") || reply.text().contains("do not match")
    );
    stage.cable.set(|cable| &cable.is_noisy, false);
    assert_eq!(stage.get("film.mp4", &[]).await.status, 200);
}

#[tokio::test]
async fn an_item_that_changes_under_a_reader_ends_the_answer() {
    let stage = Stage::new().await;
    let old = content(12 * MIB);
    stage.write("film.mp4", &old);
    let mut stream = stage.send("GET", &stage.target("film.mp4"), &[]).await;
    let mut bytes = vec![0; MIB / 2];
    timeout(LIMIT, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    stage.write("film.mp4", &vec![7; 12 * MIB]);
    let _ = timeout(LIMIT, stream.read_to_end(&mut bytes)).await.unwrap();
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert!(bytes.len() - head < old.len() && old.starts_with(&bytes[head..]), "a part of the old");
    // At once after it, although what is known of it is fresh.
    let reply = stage.get("film.mp4", &["Range: bytes=11000000-11000009"]).await;
    assert_eq!((reply.status, reply.body), (206, vec![7; 10]));
}

/// The look of a player at a film of 10 GB whose index lies at its end: head, tail, and back to the first pictures.
#[tokio::test]
async fn the_index_at_the_end_costs_three_requests_and_two_blocks() {
    let stage = Stage::new().await;
    let size = 10_000_000_000_u64;
    let file = File::create(stage.folder.path().join("film.mp4")).unwrap();
    file.set_len(size).unwrap();
    file.write_all_at(b"head", 0).unwrap();
    file.write_all_at(b"tail", size - 4).unwrap();
    let mut look = stage.send("GET", &stage.target("film.mp4"), &["Range: bytes=0-"]).await;
    let mut bytes = vec![0; 64 * 1024];
    timeout(LIMIT, look.read_exact(&mut bytes)).await.unwrap().unwrap();
    sleep(Duration::from_millis(300)).await; // a player that takes its time is sent no more for it
    let tail = stage.get("film.mp4", &["Range: bytes=9999987000-"]).await;
    assert!(tail.body.len() == 13_000 && tail.body.ends_with(b"tail"));
    drop(look);
    let mut film = stage.send("GET", &stage.target("film.mp4"), &["Range: bytes=48-"]).await;
    timeout(LIMIT, film.read_exact(&mut bytes)).await.unwrap().unwrap();
    let stats = stage.gateway.stats();
    assert_eq!((stats.requests, stats.blocks), (3, 2), "{stats:?}");
}

#[tokio::test]
async fn a_copy_is_the_item() {
    let stage = Stage::new().await;
    let content = content(7 * MIB + 1);
    stage.write("film.mp4", &content);
    let mut bytes = Vec::new();
    let settings = GatewaySettings::default();
    let copied = copy(stage.cable.clone(), settings, &path("film.mp4"), &mut bytes).await.unwrap();
    assert!(copied == content.len() as u64 && bytes == content);
    let settings = GatewaySettings::default();
    let missing = copy(stage.cable.clone(), settings, &path("none"), &mut bytes).await;
    assert_eq!(missing.unwrap_err().to_string(), "not found");
}

#[tokio::test]
async fn nobody_else_is_served() {
    let stage = Stage::new().await;
    let anywhere = "0.0.0.0:0".parse().unwrap();
    let bound = Gateway::bind(anywhere, stage.cable.clone(), GatewaySettings::default()).await;
    assert_eq!(bound.unwrap_err().kind(), io::ErrorKind::InvalidInput);
}
