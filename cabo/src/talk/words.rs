//! What the bytes of a stream mean: messages of a dialect, or of `messages/1` (M-11).
//!
//! Neighbours: `stream` reads the bytes and gives out the messages; `calls` is told of answers and cancellations.

use std::sync::Arc;

use cabo_proto::dialect::Dialect;
use cabo_proto::dialect::cut::Cutter;
use cabo_proto::wire::message::{self, Messages, Role};
use cabo_proto::wire::varint::Malformed;

use super::calls::{BUSY, Calls, Opened, RequestError};
use super::{Closed, Message, Peer, Settings};

/// Cuts what a peer says into messages.
pub(super) enum Words {
    /// A foreign program's.
    Foreign(Cutter),
    /// A cabo peer's.
    Cabo(Messages),
}

impl Words {
    pub(super) fn of(peer: &Peer, settings: &Settings) -> Self {
        let dialect = &settings.dialect;
        if peer.is_cabo() {
            Self::Cabo(Messages::new(dialect.limit_bytes))
        } else {
            Self::Foreign(Cutter::new(dialect.cut.clone(), dialect.limit_bytes))
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        match self {
            Self::Foreign(cutter) => cutter.push(bytes),
            Self::Cabo(messages) => messages.push(bytes),
        }
    }

    /// Bytes that have come and are no whole message yet.
    pub(super) fn unfinished_bytes(&self) -> usize {
        match self {
            Self::Foreign(cutter) => cutter.unfinished_bytes(),
            Self::Cabo(messages) => messages.unfinished_bytes(),
        }
    }

    /// The next message for whoever receives. What concerns our own requests goes where it belongs.
    pub(super) fn next_message(
        &mut self,
        peer: &Peer,
        settings: &Settings,
    ) -> Result<Option<Message>, Closed> {
        match self {
            Self::Foreign(cutter) => {
                let bytes = cutter.next_message()?;
                Ok(bytes.map(|bytes| Message::new(bytes, &settings.dialect)))
            }
            Self::Cabo(messages) => {
                while let Some(message) = messages.next_message()? {
                    if let Some(message) = sorted(message, peer, settings)? {
                        return Ok(Some(message));
                    }
                }
                Ok(None)
            }
        }
    }

    /// The stream is over: what was not ended may be a last message.
    pub(super) fn finish(&mut self, dialect: &Arc<Dialect>) -> Result<Option<Message>, Closed> {
        match self {
            Self::Foreign(cutter) => Ok(cutter.finish()?.map(|bytes| Message::new(bytes, dialect))),
            Self::Cabo(messages) => Ok(messages.finish().map(|()| None)?),
        }
    }
}

/// A message for whoever receives, or none where it was for somebody who waits for it.
fn sorted(
    message: message::Message,
    peer: &Peer,
    settings: &Settings,
) -> Result<Option<Message>, Closed> {
    let role = message.role;
    let Some(calls) = peer.shared().calls() else { return Ok(None) };
    let with = |message, asked| Message::of_cabo(message, &settings.dialect, asked);
    match role {
        Role::OneWay => return Ok(Some(with(message, None))),
        Role::Request(id) => match calls.open(id, peer.shared_arc(), settings.requests_max) {
            Opened::New(asked) => return Ok(Some(with(message, Some(asked)))),
            Opened::TooMany => {
                peer.shared().heard().refuse();
                peer.tell(Role::Failed(id), BUSY);
            }
            Opened::Twice => {
                let problem = Malformed { what: "a request whose id is open already", at: 0 };
                return Err(message::MessageError::from(problem).into());
            }
        },
        Role::Reply(id) => calls.answer(id, Ok(with(message, None))),
        Role::Failed(id) => answer_failed(calls, id, &message),
        Role::Cancel(id) => calls.cancel(id),
    }
    Ok(None)
}

fn answer_failed(calls: &Calls, id: u64, message: &message::Message) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (kind, text) = (text(&message.kind), text(&message.payload));
    calls.answer(id, Err(RequestError::Failed { kind, text }));
}
