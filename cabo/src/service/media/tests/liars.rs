//! A server that lies: an error in bounded memory and time, and never a file under the item's name.

use super::*;
use crate::service::media::wire::Answer;

const SIZE: usize = 3 * MIB + 100;

fn info() -> ItemInfo {
    ItemInfo {
        size: SIZE as u64,
        modified: Modified::default(),
        mode: None,
        media_type: String::new(),
        version: Version([1; 16]),
        root: None,
    }
}

/// What an honest server answers to a READ of everything.
fn honest() -> Vec<Answer> {
    let content = content(SIZE, 0);
    let blocks = content.chunks(MIB).enumerate().map(|(index, block)| Answer::Block {
        index: index as u64,
        hash: tree::block_hash(SIZE as u64, index as u64, block),
        bytes: block.to_vec().into(),
    });
    let mut answers = vec![Answer::Item(info())];
    answers.extend(blocks);
    answers.push(Answer::End { root: Some(plain_hash(&content)) });
    answers
}

/// Fetches from a server that answers so; what came of it, and what stands in the target.
async fn get(
    answers: Vec<Answer>,
    forever: Vec<u8>,
) -> (Result<FetchReport, FetchError>, Vec<Vec<u8>>) {
    let bytes: Vec<u8> = answers.iter().flat_map(Answer::encode).collect();
    let client = liar(move |_| Script { bytes: bytes.clone(), forever: forever.clone() });
    let folder = TempDir::new().unwrap();
    let target = Arc::new(Target::open(folder.path()).unwrap());
    let item = path("item");
    let result = fetch(&client, &item, &target, &item, &FetchOptions::default(), |_| ()).await;
    (result, names(folder.path()))
}

#[tokio::test]
async fn an_honest_script_arrives() {
    let (result, names) = get(honest(), Vec::new()).await;
    assert_eq!(
        (result.unwrap().root, names),
        (plain_hash(&content(SIZE, 0)), vec![b"item".to_vec()])
    );
}

#[tokio::test]
async fn a_lie_in_the_answer_is_never_a_file() {
    type Lie = fn(&mut Vec<Answer>);
    fn block(answers: &mut [Answer], place: usize) -> (&mut u64, &mut Hash, &mut bytes::Bytes) {
        let Answer::Block { index, hash, bytes } = &mut answers[place] else { panic!() };
        (index, hash, bytes)
    }
    let lies: [(&str, Lie); 12] = [
        ("a wrong byte", |answers| {
            let (_, _, bytes) = block(answers, 2);
            let mut wrong = bytes.to_vec();
            wrong[77] ^= 1;
            *bytes = wrong.into();
        }),
        ("a wrong hash", |answers| block(answers, 2).1.0[0] ^= 1),
        ("a wrong block with its right hash", |answers| {
            let other = vec![0; MIB];
            let (index, hash, bytes) = block(answers, 2);
            *hash = tree::block_hash(SIZE as u64, *index, &other);
            *bytes = other.into();
        }),
        ("a wrong root", |answers| answers[5] = Answer::End { root: Some(Hash([7; 32])) }),
        ("no root at all", |answers| answers[5] = Answer::End { root: None }),
        ("a short block", |answers| {
            let (_, _, bytes) = block(answers, 1);
            bytes.truncate(5);
        }),
        ("a long last block", |answers| *block(answers, 4).2 = vec![0; 101].into()),
        ("another index", |answers| *block(answers, 1).0 = 1),
        ("a block left out", |answers| drop(answers.remove(2))),
        ("a block more", |answers| {
            let more = answers[4].clone();
            answers.insert(5, more);
        }),
        ("an early end", |answers| drop(answers.drain(2..5))),
        ("blocks before the item", |answers| answers.swap(0, 1)),
    ];
    for (what, lie) in lies {
        let mut answers = honest();
        lie(&mut answers);
        let (result, names) = get(answers, Vec::new()).await;
        assert!(result.is_err(), "{what}");
        assert!(!names.contains(&b"item".to_vec()), "{what}: {names:?}");
    }
}

#[tokio::test]
async fn an_absurd_size_is_refused_before_anything_is_written() {
    for size in [u64::MAX, 1 << 62, 1 << 50] {
        let (result, names) =
            get(vec![Answer::Item(ItemInfo { size, ..info() })], Vec::new()).await;
        assert!(matches!(result, Err(FetchError::NoRoom { .. })), "{size}: {result:?}");
        assert!(names.is_empty());
    }
}

#[tokio::test]
async fn an_absurd_time_does_no_harm() {
    for seconds in [i64::MIN, -1, i64::MAX] {
        let mut answers = honest();
        answers[0] =
            Answer::Item(ItemInfo { modified: Modified { seconds, nanos: 999_999_999 }, ..info() });
        let (result, names) = get(answers, Vec::new()).await;
        assert_eq!((result.unwrap().bytes, names), (SIZE as u64, vec![b"item".to_vec()]));
    }
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let unknown = b"\x20\x00".to_vec();
    let (result, _) = get(Vec::new(), unknown).await;
    assert!(matches!(result, Err(FetchError::Media(MediaError::Malformed(_)))), "{result:?}");
    let (result, _) = get(Vec::new(), vec![0xff; 1000]).await;
    assert!(matches!(result, Err(FetchError::Media(MediaError::Malformed(_)))), "{result:?}");
    let (result, _) = get(honest(), vec![0; 1000]).await;
    result.unwrap(); // what comes after the end is not read
    let (result, _) = get(vec![Answer::Item(info())], Answer::Item(info()).encode()).await;
    assert!(matches!(result, Err(FetchError::Media(MediaError::Malformed(_)))), "{result:?}");
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    struct Silent;
    impl OpenStream for Silent {
        fn open(&self) -> Opening<'_> {
            let (near, far) = duplex(64 * 1024);
            std::mem::forget(far);
            let (recv, send) = split(near);
            Box::pin(async move { Ok((Box::new(send) as SendHalf, Box::new(recv) as RecvHalf)) })
        }
    }
    let client = MediaClient::new(Silent).with_stall(Duration::from_millis(30));
    let result = client.describe(&path("item")).await;
    assert!(matches!(result, Err(MediaError::Stalled { .. })), "{result:?}");
}

#[tokio::test]
async fn a_listed_name_that_leads_out_is_no_entry() {
    for name in
        [b"../x".as_slice(), b"/etc/passwd", b"a/../../x", b"a\0b", b"", b".", b"x.cabo-partial"]
    {
        // Encoded by hand: no `ItemPath` could hold it.
        let fields = [
            &[0x01, name.len() as u8],
            name,
            &[7, 1, 1, 9, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        let bytes = [&[0x10, fields.len() as u8], fields.as_slice()].concat();
        let client = liar(move |_| Script { bytes: bytes.clone(), forever: Vec::new() });
        let folder = TempDir::new().unwrap();
        let target = Arc::new(Target::open(folder.path()).unwrap());
        let options = FetchAllOptions::default();
        let result = fetch_all(&client, &path(""), &target, &options, |_, _| (), |_, _| ()).await;
        assert!(
            matches!(result, Err(FetchError::Media(MediaError::Malformed(_)))),
            "{name:?}: {result:?}"
        );
        assert!(names(folder.path()).is_empty(), "{name:?}");
    }
}

#[tokio::test]
async fn an_entry_of_another_folder_is_refused() {
    let entry = Entry {
        path: path("sub/x"),
        kind: EntryKind::File,
        is_link: false,
        size: 0,
        modified: Modified::default(),
        mode: None,
        media_type: String::new(),
    };
    let bytes = Answer::Entry(entry).encode();
    let client = liar(move |_| Script { bytes: bytes.clone(), forever: bytes.clone() });
    let mut listing = client.list(&path(""), false).await.unwrap();
    assert!(matches!(listing.next().await, Err(MediaError::Malformed(_))));
    let mut listing = client.list(&path(""), true).await.unwrap();
    for _ in 0..10_000 {
        listing.next().await.unwrap().unwrap(); // endless, and still nothing is kept
    }
}
