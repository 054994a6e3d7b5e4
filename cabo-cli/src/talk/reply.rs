//! What `listen --reply` answers every message with.

use cabo::proto::dialect::value::Value;
use cabo::proto::dialect::{Dialect, PAYLOAD};
use cabo::talk::{Message, Peer, SendError};

use super::{Typed, typed, words};
use crate::exit::Failure;

/// Stands for the payload in a text.
const SLOT: &str = "{}";

/// An answer.
#[derive(Debug)]
pub(crate) enum Reply {
    /// The message as it came.
    Echo,
    /// The payload with a text before and a text after it.
    Around(Vec<u8>, Vec<u8>),
    /// Always the same.
    Same(Typed),
}

impl Reply {
    /// `echo`, a text with `{}` for the payload, or a message as it is typed.
    pub(crate) fn parse(text: &str, dialect: &Dialect) -> Result<Self, Failure> {
        match text.split_once(SLOT) {
            _ if text == "echo" => Ok(Self::Echo),
            Some(_) if !dialect.kinds.is_empty() => Err(Failure::usage(format!(
                "--reply: messages of {} have fields, and {SLOT} stands for a payload without any",
                dialect.name
            ))),
            Some((before, after)) => Ok(Self::Around(before.into(), after.into())),
            None if dialect.kinds.is_empty() => typed(dialect, &[text.into()]).map(Self::Same),
            None => typed(dialect, &words(text.as_bytes())?).map(Self::Same),
        }
    }

    /// Answers a message.
    pub(crate) fn answer(&self, message: &Message, peer: &Peer) -> Result<(), SendError> {
        match self {
            Self::Echo => peer.send_back(message),
            Self::Around(before, after) => {
                // A header's other fields are answered as they came.
                let mut fields = message.decode().map(|decoded| decoded.fields).unwrap_or_default();
                let payload = [before.as_slice(), &message.payload(), after].concat();
                fields.set(PAYLOAD, Value::Bytes(payload));
                peer.reply_fields(message, None, &fields)
            }
            Self::Same(typed) => peer.reply_fields(message, typed.kind.as_deref(), &typed.fields),
        }
    }
}
