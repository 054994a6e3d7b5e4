//! M-4 to M-9: the hex examples of the specification, and bytes that make no sense.

use bytes::Bytes;

use super::*;
use crate::service::media::wire::{Answer, WireError};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

fn reader(bytes: &[u8]) -> MessageReader<&[u8]> {
    MessageReader::new(bytes, Duration::from_secs(1))
}

fn requests() -> Vec<(&'static str, Request)> {
    let version = Some(Version(*b"0123456789abcdef"));
    vec![
        ("01 07 01 02 6162 02 01 01", Request::List { folder: path("ab"), is_recursive: true }),
        ("01 02 01 00", Request::List { folder: ItemPath::default(), is_recursive: false }),
        ("02 05 01 03 612f62", Request::Describe { item: path("a/b") }),
        (
            "03 0d 01 01 61 05 08 0000000000000003",
            Request::Hashes {
                item: path("a"),
                version: None,
                range: BlockRange { first: 0, count: 3 },
            },
        ),
        (
            "04 2c 01 01 61 03 10 30313233343536373839616263646566 04 08 0000000000000002 05 08 0000000000000001 06 01 80",
            Request::Read {
                item: path("a"),
                version,
                range: BlockRange { first: 2, count: 1 },
                priority: 128,
            },
        ),
    ]
}

fn answers() -> Vec<(String, Answer)> {
    let modified = Modified { seconds: -2, nanos: 5 };
    let (root, other) = (Hash([0xaa; 32]), Hash([0xbb; 32]));
    let (aa, bb) = ("aa".repeat(32), "bb".repeat(32));
    let entry = Entry {
        path: path("a.txt"),
        kind: EntryKind::File,
        is_link: true,
        size: 258,
        modified,
        media_type: "text/plain".to_owned(),
    };
    let info = ItemInfo {
        size: 258,
        modified,
        media_type: "text/plain".to_owned(),
        version: Version([0x11; 16]),
        root: Some(root),
    };
    let time = "09 0c fffffffffffffffe 00000005";
    let text = "0a 0a 746578742f706c61696e";
    vec![
        (
            format!(
                "10 31 01 05 612e747874 07 01 01 08 08 0000000000000102 {time} {text} 0e 01 01"
            ),
            Answer::Entry(entry),
        ),
        (
            format!(
                "11 40 58 03 10 {} 08 08 0000000000000102 {time} {text} 0b 20 {aa}",
                "11".repeat(16)
            ),
            Answer::Item(info),
        ),
        (
            format!("12 40 48 0000000000000004 {aa} {bb}"),
            Answer::Hashes { first: 4, hashes: vec![root, other] },
        ),
        (
            format!("13 2b 0000000000000004 {aa} 010203"),
            Answer::Block { index: 4, hash: root, bytes: Bytes::from_static(&[1, 2, 3]) },
        ),
        ("14 00".to_owned(), Answer::End { root: None }),
        (format!("14 22 0b 20 {bb}"), Answer::End { root: Some(other) }),
        (
            "15 0a 0c 02 0003 0d 04 676f6e65".to_owned(),
            Answer::Error(Refusal::new(ErrorCode::Changed, "gone")),
        ),
    ]
}

#[tokio::test]
async fn requests_are_the_hex_of_their_clauses() {
    for (text, request) in requests() {
        let bytes = hex(text);
        assert_eq!(request.encode(), bytes, "{request:?}");
        assert_eq!(reader(&bytes).request().await.unwrap(), request);
    }
}

#[tokio::test]
async fn answers_are_the_hex_of_their_clauses() {
    for (text, answer) in answers() {
        let bytes = hex(&text);
        assert_eq!(answer.encode(), bytes, "{answer:?}");
        assert_eq!(reader(&bytes).answer().await.unwrap(), answer);
    }
}

#[tokio::test]
async fn what_is_cut_anywhere_is_an_error() {
    for (text, answer) in answers() {
        let bytes = hex(&text);
        for end in 0..bytes.len() {
            let result = reader(&bytes[..end]).answer().await;
            assert!(matches!(result, Err(WireError::Io(_))), "{answer:?} cut at {end}: {result:?}");
        }
    }
}

#[tokio::test]
async fn changed_bytes_never_panic() {
    let whole: Vec<Vec<u8>> = answers().iter().map(|(text, _)| hex(text)).collect();
    let requests: Vec<Vec<u8>> = requests().iter().map(|(text, _)| hex(text)).collect();
    for bytes in whole.iter().chain(&requests) {
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
    let unknown = reader(&hex("05 02 01 00")).request().await;
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
