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
    /// These pieces of a text, with the payload between each two.
    Around(Vec<Vec<u8>>),
    /// Always the same.
    Same(Typed),
}

impl Reply {
    /// `echo`, a text with `{}` for the payload, or a message as it is typed.
    pub(crate) fn parse(text: &str, dialect: &Dialect) -> Result<Self, Failure> {
        match (text.contains(SLOT), dialect.kinds.is_empty()) {
            _ if text == "echo" => Ok(Self::Echo),
            (true, false) => Err(Failure::usage(format!(
                "--reply: {SLOT} is not filled in where messages have fields, as those of {} have: it is echo, or a \
                 message as `cabo send` takes it, KIND name=value .., the same each time",
                dialect.name
            ))),
            (true, true) => {
                Ok(Self::Around(text.split(SLOT).map(|piece| piece.as_bytes().to_vec()).collect()))
            }
            (false, true) => typed(dialect, &[text.into()]).map(Self::Same),
            (false, false) => typed(dialect, &words(text.as_bytes())?).map(Self::Same),
        }
    }

    /// Answers a message.
    pub(crate) fn answer(&self, message: &Message, peer: &Peer) -> Result<(), SendError> {
        match self {
            Self::Echo => peer.send_back(message),
            Self::Around(pieces) => {
                // A header's other fields are answered as they came.
                let mut fields = message.decode().map(|decoded| decoded.fields).unwrap_or_default();
                let payload = pieces.join(&*message.payload());
                fields.set(PAYLOAD, Value::Bytes(payload));
                peer.reply_fields(message, None, &fields)
            }
            Self::Same(typed) => peer.reply_fields(message, typed.kind.as_deref(), &typed.fields),
        }
    }
}
