//! M-4 to M-9: the hex examples of the specification, and bytes that make no sense.

use bytes::Bytes;

use super::*;
use crate::service::media::many::Wanted;
use crate::service::media::wire::{Answer, WireError};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

/// The examples of the specification: what reads them, their bytes, what they mean.
fn examples() -> Vec<(String, Vec<u8>, String)> {
    let page = include_str!("../../../../../docs/protocol/services.md");
    let fences = page.split("```vectors\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let vectors = fences.flat_map(|fence| fence.split("\n\n"));
    let example = |vector: &str| {
        let (reader, rest) = vector.split_once(" both\n").unwrap();
        let (lines, meaning) = rest.split_once("\n= ").unwrap();
        let lines = lines.lines().map(|line| line.trim_start().split("  ").next().unwrap());
        let bytes =
            lines.flat_map(|line| line.split(' ')).flat_map(|byte| match byte.split_once('*') {
                Some((byte, count)) => hex(byte).repeat(count.parse().unwrap()),
                None => hex(byte),
            });
        (reader.to_owned(), bytes.collect(), meaning.trim_end().to_owned())
    };
    vectors.map(example).collect()
}

/// The bytes of the specification's examples for `reader`, beside the values that they have to mean.
fn meant<T>(reader: &str, mut values: Vec<(&str, T)>) -> Vec<(Vec<u8>, T)> {
    let examples = examples().into_iter().filter(|example| example.0 == reader);
    let found = examples.map(|(_, bytes, meaning)| {
        let place = values.iter().position(|(text, _)| *text == meaning);
        (bytes, values.remove(place.unwrap_or_else(|| panic!("nothing means {meaning}"))).1)
    });
    let found = found.collect();
    assert!(values.is_empty(), "examples are missing for {} values", values.len());
    found
}

fn reader(bytes: &[u8]) -> MessageReader<&[u8]> {
    MessageReader::new(bytes, Duration::from_secs(1))
}

fn requests() -> Vec<(Vec<u8>, Request)> {
    let version = Some(Version(*b"0123456789abcdef"));
    let (three, third) = (BlockRange { first: 0, count: 3 }, BlockRange { first: 2, count: 1 });
    let catalogue = ItemPath::default();
    let many = |has_blocks| Request::ReadMany {
        wanted: vec![
            Wanted { item: path("a"), known: None },
            Wanted { item: path("b/c"), known: Some(Hash([0xaa; 32])) },
        ],
        has_blocks,
        priority: 0,
    };
    let values = vec![
        ("LIST \"ab\", recursive", Request::List { folder: path("ab"), is_recursive: true }),
        ("LIST the catalogue", Request::List { folder: catalogue, is_recursive: false }),
        ("DESCRIBE \"a/b\"", Request::Describe { item: path("a/b") }),
        ("GET HASHES \"a\"", Request::Hashes { item: path("a"), version: None, range: three }),
        ("READ \"a\"", Request::Read { item: path("a"), version, range: third, priority: 128 }),
        ("READ MANY \"a\", \"b/c\"", many(true)),
        ("READ MANY without blocks", many(false)),
    ];
    meant("request", values)
}

fn answers() -> Vec<(Vec<u8>, Answer)> {
    let modified = Modified { seconds: -2, nanos: 5 };
    let media_type = "text/plain".to_owned();
    let (root, other) = (Hash([0xaa; 32]), Hash([0xbb; 32]));
    let entry = Entry {
        path: path("a.txt"),
        kind: EntryKind::File,
        is_link: true,
        size: 258,
        modified,
        mode: None,
        media_type: media_type.clone(),
    };
    let folder = Entry {
        path: path("d"),
        kind: EntryKind::Folder,
        is_link: false,
        size: 0,
        modified,
        mode: Some(0o750),
        media_type: String::new(),
    };
    let version = Version([0x11; 16]);
    let info = ItemInfo { size: 258, modified, mode: None, media_type, version, root: Some(root) };
    let refusal = |code, text| Refusal::new(code, text);
    let bytes = Bytes::from_static(&[1, 2, 3]);
    let values = vec![
        ("ENTRY \"a.txt\"", Answer::Entry(entry)),
        ("ITEM of 258 bytes", Answer::Item(info)),
        ("HASHES from 4", Answer::Hashes { first: 4, hashes: vec![root, other] }),
        ("BLOCK 4", Answer::Block { index: 4, hash: root, bytes }),
        ("END", Answer::End { root: None }),
        ("END with a root", Answer::End { root: Some(other) }),
        ("ERROR changed: gone", Answer::Error(refusal(ErrorCode::Changed, "gone"))),
        ("ENTRY of a folder with its mode", Answer::Entry(folder)),
        ("MISS not found", Answer::Miss(refusal(ErrorCode::NotFound, ""))),
    ];
    meant("answer", values)
}

#[tokio::test]
async fn requests_are_the_bytes_of_the_specification() {
    for (bytes, request) in requests() {
        assert_eq!(request.encode(), bytes, "{request:?}");
        assert_eq!(reader(&bytes).request().await.unwrap(), request);
    }
}

#[tokio::test]
async fn answers_are_the_bytes_of_the_specification() {
    for (bytes, answer) in answers() {
        assert_eq!(answer.encode(), bytes, "{answer:?}");
        assert_eq!(reader(&bytes).answer().await.unwrap(), answer);
    }
}

#[tokio::test]
async fn what_is_cut_anywhere_is_an_error() {
    for (bytes, answer) in answers() {
        for end in 0..bytes.len() {
            let result = reader(&bytes[..end]).answer().await;
            assert!(matches!(result, Err(WireError::Io(_))), "{answer:?} cut at {end}: {result:?}");
        }
    }
}

#[tokio::test]
async fn changed_bytes_never_panic() {
    let answers = answers().into_iter().map(|(bytes, _)| bytes);
    for bytes in answers.chain(requests().into_iter().map(|(bytes, _)| bytes)) {
        for place in 0..bytes.len() {
            for value in [0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xc0, 0xff] {
                let mut changed = bytes.clone();
                changed[place] = value;
                let _ = reader(&changed).answer().await;
                let _ = reader(&changed).request().await;
            }
        }
    }
}

/// M-4.2, M-4.3: room to evolve.
#[tokio::test]
async fn unknown_fields_and_messages_are_skipped() {
    let bytes = hex("20 03 ffffff  40 99 00  14 03 3f 01 ff");
    assert_eq!(reader(&bytes).answer().await.unwrap(), Answer::End { root: None });
}

#[tokio::test]
async fn what_breaks_the_rules_is_malformed() {
    let cases = [
        ("14 04 0c 01 00 00", "a number of another length"),
        ("15 08 0c 02 0003 0c 02 0003", "a field twice"),
        ("14 02 0b 20", "a field beyond its message"),
        ("14 80 01 00 01", "a message beyond the longest"),
        ("13 02 0000", "a block without a hash"),
        ("12 09 0000000000000000 ff", "half a hash"),
        ("13 80 10 00 29", "a block beyond the longest"),
        ("10 15 01 02 2e2e 07 01 01 09 0c 0000000000000000 00000000", "an entry that leads out"),
        (
            "10 14 01 01 61 07 01 01 09 0c 0000000000000000 ffffffff",
            "more than a second of nanoseconds",
        ),
    ];
    for (text, what) in cases {
        let result = reader(&hex(text)).answer().await;
        assert!(matches!(result, Err(WireError::Malformed(_))), "{what}: {result:?}");
    }
    // A request that a later version may know has to be refused, not waited out.
    let unknown = reader(&hex("1f 02 01 00")).request().await;
    assert!(matches!(unknown, Err(WireError::Malformed(_))), "{unknown:?}");
    let endless = hex("20 00").repeat(1000);
    assert!(matches!(reader(&endless).answer().await, Err(WireError::Malformed(_))));
}

#[tokio::test]
async fn a_server_cannot_drive_the_terminal_by_its_error() {
    let bytes = hex("15 08 0c 02 0001 0d 02 1b5b");
    let Answer::Error(refusal) = reader(&bytes).answer().await.unwrap() else { panic!() };
    assert_eq!(refusal.to_string(), "not found: \u{fffd}[");
}

#[test]
fn the_opening_is_the_bytes_of_the_specification() {
    let values = vec![("media/1", crate::request::opening(SERVICE).unwrap())];
    meant("opening", values).into_iter().for_each(|(bytes, opening)| assert_eq!(bytes, opening));
}
