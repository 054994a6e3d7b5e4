//! M-12: many files in one answer, each proved or refused for itself.

use super::*;
use crate::service::media::many::{MAX_WANTED_BYTES, ManyItem, Wanted};

fn wanted(item: &str) -> Wanted {
    Wanted { item: path(item), known: None }
}

/// The verified answers to one request.
async fn ask(
    stage: &Stage,
    wanted: Vec<Wanted>,
    has_blocks: bool,
) -> Vec<Result<(ItemInfo, Option<Vec<u8>>), Refusal>> {
    let mut reader = stage.client.read_many(wanted, has_blocks, 3).await.unwrap();
    let mut answers = Vec::new();
    while let Some(answer) = reader.next().await.unwrap() {
        answers.push(answer.map(|item: ManyItem| {
            let (info, bytes) = item.verified().unwrap();
            (info, bytes.map(|bytes| bytes.to_vec()))
        }));
    }
    assert!(reader.next().await.unwrap().is_none(), "the end stays the end");
    answers
}

#[tokio::test]
async fn files_come_in_the_order_of_the_request_and_one_that_fails_harms_no_other() {
    let stage = Stage::new();
    let sizes = [0, 1, 4096, MIB - 1, MIB];
    for size in sizes {
        stage.write(format!("f/{size}"), &content(size, 3));
    }
    stage.write("f/long", &content(MIB + 1, 0));
    let names = ["f/4096", "f/gone", "f/0", "f", "f/1048576", "f/long", "f/1", "f/1048575"];
    let answers = ask(&stage, names.into_iter().map(wanted).collect(), true).await;
    assert_eq!(answers.len(), names.len());
    for (name, answer) in names.into_iter().zip(answers) {
        match (name, answer) {
            ("f/gone", Err(refusal)) => assert_eq!(refusal.code, ErrorCode::NotFound),
            ("f", Err(refusal)) => assert_eq!(refusal.code, ErrorCode::NotAFile),
            ("f/long", Ok((info, None))) => assert_eq!(info.size, MIB as u64 + 1),
            (name, Ok((info, Some(bytes)))) => {
                let size = name.strip_prefix("f/").unwrap().parse().unwrap();
                assert!(bytes == content(size, 3), "{name}");
                assert_eq!(info.root, Some(plain_hash(&bytes)), "{name}");
            }
            (name, answer) => panic!("{name}: {answer:?}"),
        }
    }
    assert_eq!(*stage.loopback.priorities.lock().unwrap(), [3]);
}

#[tokio::test]
async fn what_the_client_has_is_not_sent() {
    let stage = Stage::new();
    for (name, seed) in [("same", 1), ("other", 2)] {
        stage.write(name, &content(5000, seed));
    }
    let known = Some(plain_hash(&content(5000, 1)));
    let both = || ["same", "other"].map(|item| Wanted { item: path(item), known }).to_vec();
    for time in ["cold", "warm"] {
        let answers = ask(&stage, both(), true).await;
        let sent = answers.iter().map(|answer| answer.as_ref().unwrap().1.is_some());
        assert_eq!(sent.collect::<Vec<_>>(), [false, true], "{time}");
        assert_eq!(answers[0].as_ref().unwrap().0.root, known, "{time}");
    }
}

#[tokio::test]
async fn without_blocks_only_roots_are_told() {
    let stage = Stage::new();
    stage.write("a", &content(5000, 1));
    for time in ["cold", "warm"] {
        let answers = ask(&stage, vec![wanted("a"), wanted("b")], false).await;
        let Ok((info, None)) = &answers[0] else { panic!("{time}: {answers:?}") };
        assert_eq!(info.root, Some(plain_hash(&content(5000, 1))), "{time}");
        assert_eq!(answers[1].as_ref().unwrap_err().code, ErrorCode::NotFound, "{time}");
    }
}

#[tokio::test]
async fn as_many_as_a_request_takes_are_answered_in_the_memory_of_one_read() {
    let limits = Limits { blocks: 2, blocks_per_read: 2, ..Limits::default() };
    let stage = Stage::with(limits);
    stage.write("file", &content(700, 1));
    let one = wanted("file");
    let count = MAX_WANTED_BYTES / one.wire_bytes();
    let answers = ask(&stage, vec![one; count], true).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|(_, bytes)| bytes.is_some())));
    assert_eq!(answers.len(), count);
    assert_eq!(ask(&stage, Vec::new(), true).await.len(), 0);
}

/// M-12.5: the clock of the file system may be too coarse to show it; then the hash does.
#[tokio::test]
async fn a_file_that_was_overwritten_comes_whole_in_its_new_version() {
    let stage = Stage::new();
    for seed in 0..20 {
        let content = content(4096, seed);
        stage.write("file", &content);
        match ask(&stage, vec![wanted("file")], true).await.remove(0) {
            Ok((info, bytes)) => {
                assert_eq!(bytes.as_deref(), Some(content.as_slice()));
                assert_eq!(info.root, Some(plain_hash(&content)));
            }
            Err(refusal) => assert_eq!(refusal.code, ErrorCode::Changed),
        }
    }
}

#[tokio::test]
async fn a_cut_answer_is_told_from_an_end() {
    let stage = Stage::new();
    stage.write("a", &content(3000, 1));
    for cut in (0..3000).step_by(41) {
        stage.cut_after(cut);
        let mut reader = stage.client.read_many(vec![wanted("a")], true, 0).await.unwrap();
        let result = reader.next().await;
        assert!(matches!(result, Err(MediaError::Broken(_))), "{cut}: {result:?}");
    }
}
