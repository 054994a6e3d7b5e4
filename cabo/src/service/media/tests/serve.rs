//! M-7, M-8: every size comes whole and proved; what changes while it is read is an error, never a wrong byte.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;

use super::*;

#[tokio::test]
async fn every_size_comes_whole_with_its_root() {
    let stage = Stage::new();
    for size in [0, 1, 1023, 1024, 1025, MIB - 1, MIB, MIB + 1, 2 * MIB, 3 * MIB + MIB / 2, 5 * MIB]
    {
        let content = content(size, 0);
        stage.write("item", &content);
        let cold = stage.client.describe(&path("item")).await.unwrap();
        assert_eq!((cold.size, cold.root.is_some()), (size as u64, false), "{size}: cold");
        let (read, root) = stage.read_all(&path("item")).await.unwrap();
        assert!(read == content && root == Some(plain_hash(&content)), "{size}");
        let warm = stage.client.describe(&path("item")).await.unwrap();
        assert_eq!(warm, ItemInfo { root: Some(plain_hash(&content)), ..cold }, "{size}: warm");
    }
}

#[tokio::test]
async fn a_range_is_proved_block_by_block() {
    let stage = Stage::new();
    let content = content(5 * MIB + 7, 0);
    stage.write("item", &content);
    for (first, count, blocks) in
        [(0, 1, 0..1), (2, 2, 2..4), (5, 9, 5..6), (6, 1, 6..6), (u64::MAX, 1, 0..0)]
    {
        let range = BlockRange { first, count };
        let mut reader = stage.client.read(&path("item"), None, range, 7).await.unwrap();
        for index in blocks {
            let block = reader.next().await.unwrap().unwrap();
            assert_eq!(block.index, index);
            let start = index as usize * MIB;
            assert!(block.bytes == content[start..content.len().min(start + MIB)], "{range:?}");
        }
        assert_eq!(reader.next().await.unwrap(), None, "{range:?}");
    }
    assert_eq!(*stage.loopback.priorities.lock().unwrap(), [7; 5]);
}

#[tokio::test]
async fn hashes_are_those_of_the_blocks_and_make_the_root() {
    let stage = Stage::new();
    let content = content(3 * MIB + 1, 0);
    stage.write("item", &content);
    let ranges = [(2, 1), (0, u64::MAX), (1, 2), (4, 1)];
    for (first, count) in ranges {
        let mut reader =
            stage.client.hashes(&path("item"), None, BlockRange { first, count }).await.unwrap();
        let mut expected = BlockRange { first, count }.within(content.len() as u64);
        while let Some(hash) = reader.next().await.unwrap() {
            let index = expected.next().unwrap();
            let block = content.chunks(MIB).nth(index as usize).unwrap();
            assert_eq!(hash, tree::block_hash(content.len() as u64, index, block));
        }
        assert!(expected.is_empty());
        let is_known = (first, count) != ranges[0];
        assert_eq!(reader.root(), is_known.then(|| plain_hash(&content)), "once all were made");
    }
}

#[tokio::test]
async fn more_hashes_than_one_message_takes_come_in_order() {
    let stage = Stage::new();
    let file = File::create(stage.folder.path().join("sparse")).unwrap();
    file.set_len(1030 * BLOCK_BYTES + 5).unwrap();
    for _ in ["cold", "warm"] {
        let mut reader = stage.client.hashes(&path("sparse"), None, BlockRange::ALL).await.unwrap();
        let mut builder = tree::RootBuilder::default();
        while let Some(hash) = reader.next().await.unwrap() {
            builder.push(hash);
        }
        assert_eq!(builder.count(), 1031);
        assert_eq!(reader.root(), Some(builder.root()));
    }
}

#[tokio::test]
async fn a_file_of_absurd_size_is_served_in_bounded_memory() {
    let stage = Stage::new();
    let file = File::create(stage.folder.path().join("huge")).unwrap();
    file.set_len(8 << 40).unwrap();
    let last = BlockRange { first: (8 << 20) - 1, count: 1 };
    let mut reader = stage.client.read(&path("huge"), None, last, 0).await.unwrap();
    assert_eq!(reader.next().await.unwrap().unwrap().bytes.len(), MIB);
    assert_eq!(reader.next().await.unwrap(), None);
}

#[tokio::test]
async fn what_changes_while_it_is_read_is_an_error_and_never_a_wrong_byte() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 6] = [
        ("overwritten", |file| {
            OpenOptions::new()
                .write(true)
                .open(file)
                .unwrap()
                .write_all_at(b"other", 6 << 20)
                .unwrap();
        }),
        ("truncated", |file| {
            OpenOptions::new().write(true).open(file).unwrap().set_len(6 << 20).unwrap()
        }),
        ("emptied", |file| drop(File::create(file).unwrap())),
        ("grown", |file| {
            OpenOptions::new().append(true).open(file).unwrap().write_all(b"more").unwrap()
        }),
        ("replaced", |file| {
            std::fs::write(file.with_extension("new"), content(8 * MIB, 1)).unwrap();
            std::fs::rename(file.with_extension("new"), file).unwrap();
        }),
        ("deleted", |file| std::fs::remove_file(file).unwrap()),
    ];
    for (what, change) in changes {
        let stage = Stage::new();
        let content = content(8 * MIB, 0);
        let file = stage.write("item", &content);
        let mut reader = stage.client.read(&path("item"), None, BlockRange::ALL, 0).await.unwrap();
        let mut read = reader.next().await.unwrap().unwrap().bytes.to_vec();
        change(&file);
        let error = loop {
            match reader.next().await {
                Ok(Some(block)) => read.extend_from_slice(&block.bytes),
                Ok(None) => panic!("{what}: it came to an end"),
                Err(error) => break error,
            }
        };
        let MediaError::Refused(refusal) = error else { panic!("{what}: {error}") };
        assert_eq!(refusal.code, ErrorCode::Changed, "{what}");
        assert!(content.starts_with(&read), "{what}");
    }
}

#[tokio::test]
async fn another_version_is_refused() {
    let stage = Stage::new();
    stage.write("item", b"one");
    let info = stage.client.describe(&path("item")).await.unwrap();
    stage.write("item", b"longer");
    let results = [
        stage.client.read(&path("item"), Some(info.version), BlockRange::ALL, 0).await.err(),
        stage.client.hashes(&path("item"), Some(info.version), BlockRange::ALL).await.err(),
    ];
    for result in results {
        let Some(MediaError::Refused(refusal)) = result else { panic!("{result:?}") };
        assert_eq!(refusal.code, ErrorCode::Changed);
    }
}

/// M-8.3: a change that the file system's clock was too coarse to show.
#[tokio::test]
async fn a_hash_that_is_no_longer_true_is_forgotten() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("item"), content(MIB + 1, 0)).unwrap();
    let catalogue = Arc::new(Catalogue::open(folder.path()).unwrap());
    let info = catalogue.describe(&path("item")).unwrap();
    catalogue.hashes.file(info.version, info.size).unwrap().keep(1, Hash([7; 32]));
    let stage = Stage::serving(folder, MediaServer::new(catalogue, Limits::default()));
    let Err(MediaError::Refused(refusal)) = stage.read_all(&path("item")).await else { panic!() };
    assert_eq!(refusal.code, ErrorCode::Changed);
    assert_eq!(
        stage.read_all(&path("item")).await.unwrap().1,
        Some(plain_hash(&content(MIB + 1, 0)))
    );
}

#[tokio::test]
async fn too_much_at_once_is_busy() {
    let stage =
        Stage::with(Limits { blocks: 2, busy: Duration::from_millis(20), ..Limits::default() });
    stage.write("item", &content(4 * MIB, 0));
    let reader = stage.client.read(&path("item"), None, BlockRange::ALL, 0).await.unwrap();
    let Err(MediaError::Refused(refusal)) = stage.read_all(&path("item")).await else { panic!() };
    assert_eq!(refusal.code, ErrorCode::Busy);
    drop(reader);
    // The server notices the dropped stream as soon as it writes.
    let mut tries = 0;
    while stage.read_all(&path("item")).await.is_err() {
        tries += 1;
        assert!(tries < 100, "the memory of a cancelled request never came back");
    }
    let stage = Stage::with(Limits { requests: 0, ..Limits::default() });
    let Err(MediaError::Refused(refusal)) = stage.client.describe(&path("x")).await else {
        panic!()
    };
    assert_eq!(refusal.code, ErrorCode::Busy);
}

#[tokio::test]
async fn who_takes_nothing_makes_room_for_who_waits() {
    let yielding = Duration::from_millis(40);
    let stage = Stage::with(Limits { blocks: 4, yielding, ..Limits::default() });
    stage.write("item", &content(4 * MIB, 0));
    let item = path("item");
    let deaf = [
        stage.client.read(&item, None, BlockRange::ALL, 0).await.unwrap(),
        stage.client.read(&item, None, BlockRange::ALL, 0).await.unwrap(),
    ];
    let (read, _) = stage.read_all(&item).await.expect("memory is made free");
    assert_eq!(read.len(), 4 * MIB);
    drop(deaf);
}

#[tokio::test]
async fn many_readers_share_a_small_memory() {
    let stage = Stage::with(Limits { blocks: 5, ..Limits::default() });
    let content = content(3 * MIB + 9, 0);
    stage.write("item", &content);
    let item = path("item");
    let reads = (0..12).map(|_| stage.read_all(&item));
    for result in join_all(reads).await {
        let (read, root) = result.unwrap();
        assert!(read == content && root == Some(plain_hash(&content)));
    }
}

async fn join_all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, slot) in futures.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *slot = Some(value);
            }
        }
        if done.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_told_so() {
    let stage = Stage::new();
    let cases: [&[u8]; 5] = [
        b"\x02\x04\x01\x02..",   // DESCRIBE ..
        b"\x02\x06\x01\x04/etc", // absolute
        b"\x02\x05\x01\x03a\0b", // NUL
        b"\x02\x00",             // no path
        b"\x01\xff\xff\xff\xff\xff\xff\xff\xff",
    ];
    for request in cases {
        let (mut near, far) = duplex(64 * 1024);
        let (recv, send) = split(far);
        near.write_all(request).await.unwrap();
        let result = stage.server.serve(send, recv).await;
        assert!(
            matches!(&result, Err(ServeError::Refused(refusal)) if refusal.code == ErrorCode::BadRequest)
        );
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer[..6], [0x15, answer.len() as u8 - 2, 0x0c, 2, 0, 8], "{request:?}");
    }
}

#[tokio::test]
async fn a_client_that_says_or_takes_nothing_is_given_up() {
    let stage = Stage::with(Limits { stall: Duration::from_millis(30), ..Limits::default() });
    stage.write("item", &content(4 * MIB, 0));
    let (_silent, far) = duplex(1024);
    let (recv, send) = split(far);
    let result = stage.server.serve(send, recv).await;
    assert!(matches!(result, Err(ServeError::Wire(WireError::Stalled { .. }))), "{result:?}");
    let (mut near, far) = duplex(1024);
    let (recv, send) = split(far);
    near.write_all(&Request::List { folder: path(""), is_recursive: false }.encode()[..1])
        .await
        .unwrap();
    assert!(stage.server.serve(send, recv).await.is_err());
    let (mut near, far) = duplex(1024);
    let (recv, send) = split(far);
    let request =
        Request::Read { item: path("item"), version: None, range: BlockRange::ALL, priority: 0 };
    near.write_all(&request.encode()).await.unwrap();
    let result = stage.server.serve(send, recv).await;
    assert!(matches!(result, Err(ServeError::Wire(WireError::Stalled { .. }))), "{result:?}");
}
