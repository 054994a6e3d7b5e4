//! One's own structs as payloads, through serde in the compact form of postcard.
//!
//! The form names no fields: both sides have to have the same struct, and a kind of message is the place to say which.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Answer, Message, Peer, SendError};

/// Why a payload is not the value that was expected.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TypedError {
    /// It is something else, or not whole.
    #[error("the payload is no such value: {0}")]
    Other(#[from] postcard::Error),
    /// There is more than the value.
    #[error("the payload has {0} bytes after the value")]
    Rest(usize),
}

impl Peer {
    /// Sends a value as a one-way message of a kind to a cabo peer.
    pub fn send_typed<T: Serialize + ?Sized>(
        &self,
        kind: &str,
        value: &T,
    ) -> Result<(), SendError> {
        self.send_as(kind, bytes_of(value)?)
    }

    /// Answers a message with a value.
    pub fn reply_typed<T: Serialize + ?Sized>(
        &self,
        message: &Message,
        value: &T,
    ) -> Result<(), SendError> {
        self.reply(message, bytes_of(value)?)
    }

    /// Asks a cabo peer with a value; what the answer holds, [`Message::typed`] says.
    pub fn request_typed<T: Serialize + ?Sized>(
        &self,
        kind: &str,
        value: &T,
        within: Duration,
    ) -> Answer {
        match bytes_of(value) {
            Ok(bytes) => self.request(kind, bytes, within),
            Err(error) => Answer::unsent(error, within),
        }
    }
}

fn bytes_of<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, SendError> {
    postcard::to_stdvec(value).map_err(SendError::Typed)
}

impl Message {
    /// The value that it carries.
    pub fn typed<T: DeserializeOwned>(&self) -> Result<T, TypedError> {
        match postcard::take_from_bytes(&self.payload())? {
            (value, []) => Ok(value),
            (_, rest) => Err(TypedError::Rest(rest.len())),
        }
    }
}
