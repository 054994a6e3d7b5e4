//! `media/1` over a session of cabo: the two ends of the plain streams that the rest of this room works on.

use std::io;

use super::client::{OpenStream, Opening, RecvHalf, SendHalf};
use super::serve::{MediaServer, ServeError};
use super::wire::WireError;
use crate::connection::Connection;
use crate::request::{Answering, Service};
use crate::stream::{RecvStream, SendStream, SessionEnded};

impl OpenStream for Connection {
    fn open(&self) -> Opening<'_> {
        Box::pin(async move {
            let (send, recv) = Self::open(self).await.map_err(|ended| {
                io::Error::new(io::ErrorKind::NotConnected, SessionEnded(ended))
            })?;
            Ok((Box::new(send) as SendHalf, Box::new(recv) as RecvHalf))
        })
    }
}

impl Service for MediaServer {
    fn name(&self) -> &'static str {
        super::SERVICE
    }

    fn answer(&self, send: SendStream, recv: RecvStream) -> Answering<'_> {
        Box::pin(async move {
            let prioritise =
                |send: &mut SendStream, urgency: u8| send.set_priority(i32::from(urgency));
            match self.serve_prioritised(send, recv, prioritise).await {
                // The client has heard of a refusal; for the server it is an answer like any other.
                Ok(()) | Err(ServeError::Refused(_)) => Ok(()),
                Err(ServeError::Wire(WireError::Io(error))) => Err(error),
                Err(ServeError::Wire(error)) => Err(io::Error::other(error)),
            }
        })
    }
}
