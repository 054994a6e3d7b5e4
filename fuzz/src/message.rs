//! Messages in a stream (M-11).

use bytes::BytesMut;
use cabo_proto::wire::message::{Message, MessageError, Messages, put};

const LIMIT: usize = 1 << 12;

/// A stream of messages: whole and byte by byte it means the same, and what was read can be written and read again.
pub fn message(stream: &[u8]) {
    let whole = read(stream.len().max(1), stream);
    assert_eq!(read(1, stream), whole);
    let mut again = BytesMut::new();
    for message in &whole.0 {
        let kind = std::str::from_utf8(&message.kind).expect("kinds are UTF-8");
        let fits = put(&mut again, message.role, kind, &message.payload, LIMIT + 72);
        assert_eq!(fits, Ok(()));
    }
    let mut messages = Messages::new(LIMIT + 72);
    messages.push(&again);
    for message in whole.0 {
        assert_eq!(messages.next_message(), Ok(Some(message)));
    }
    assert_eq!((messages.next_message(), messages.finish()), (Ok(None), Ok(())));
}

fn read(step: usize, stream: &[u8]) -> (Vec<Message>, Result<(), MessageError>) {
    let (mut messages, mut got) = (Messages::new(LIMIT), Vec::new());
    for piece in stream.chunks(step) {
        messages.push(piece);
        loop {
            match messages.next_message() {
                Ok(Some(message)) => got.push(message),
                Ok(None) => break,
                Err(error) => return (got, Err(error)),
            }
        }
    }
    let end = messages.finish();
    (got, end)
}
