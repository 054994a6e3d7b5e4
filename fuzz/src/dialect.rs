//! Dialect files, and the streams that are cut by them (D-2, D-5).

use cabo_proto::dialect::cut::Cutter;
use cabo_proto::dialect::file;

/// The text of a file, a zero byte, and a stream: cut in one piece and byte by byte, it has the same messages.
pub fn dialect(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (text, stream) = bytes.split_at(end);
    let stream = stream.get(1..).unwrap_or_default();
    let Ok(text) = std::str::from_utf8(text) else { return };
    let dialect = match file::read(text) {
        Ok(dialect) => dialect,
        Err(error) => {
            assert!(error.line <= text.split('\n').count(), "{error}");
            return;
        }
    };
    let limit = dialect.limit_bytes.min(1 << 16);
    let cut = |step: usize| {
        let mut cutter = Cutter::new(dialect.cut.clone(), limit);
        let mut messages = Vec::new();
        for piece in stream.chunks(step) {
            cutter.push(piece);
            loop {
                match cutter.next_message() {
                    Ok(Some(message)) => messages.push(message),
                    Ok(None) => break,
                    Err(_) => return messages,
                }
            }
        }
        messages.extend(cutter.finish().unwrap_or_default());
        messages
    };
    let whole = cut(stream.len().max(1));
    if dialect.cut != cabo_proto::dialect::cut::Cut::Raw {
        assert_eq!(cut(1), whole);
    }
    for message in whole {
        assert!(message.len() <= limit);
        if let Err(none) = dialect.decode(&message) {
            assert_eq!(none.0.len(), dialect.kinds.len().max(1), "{none}");
        }
    }
}
