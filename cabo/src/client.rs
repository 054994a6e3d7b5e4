//! The client's side of sessions: connects, and knows a server again by its key.
//!
//! A server is remembered by its address when it is first met; from then on only the same key is accepted there.

use cabo_proto::session::config::Ended;
use cabo_proto::session::crypto::PublicKey;

use crate::address::Address;
use crate::connection::Connection;
use crate::endpoint::{Endpoint, Task};
use crate::error::ConnectError;
use crate::keys::Fingerprint;
use crate::keys::known::{Acquaintance, ChangedServer, Known, KnownError};

/// Connects to servers.
pub struct Client {
    endpoint: Endpoint,
    known: Option<Known>,
}

/// A session with a server, and how well it is known.
#[derive(Debug)]
pub struct Session {
    /// The session.
    pub connection: Connection,
    /// The address that led to it, with what discovery found.
    pub address: Address,
    /// Whether the server was known before; `None` in plain, where nobody proves anything.
    pub acquaintance: Option<Acquaintance>,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The list of known servers cannot be used.
    #[error(transparent)]
    Known(#[from] KnownError),
    /// The server is not the one of before.
    #[error(transparent)]
    Changed(#[from] ChangedServer),
}

impl Client {
    /// A client over `endpoint`. Without `known` it neither remembers nor compares.
    pub fn new(endpoint: Endpoint, known: Option<Known>) -> Self {
        Self { endpoint, known }
    }

    /// Has its sockets opened anew, and its tasks run, elsewhere than in the runtime where it is used.
    pub(crate) fn spawning(self, spawn: impl Fn(Task) + Send + Sync + 'static) -> Self {
        Self { endpoint: self.endpoint.spawning(spawn), ..self }
    }

    /// The endpoint below.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Connects to `address` and waits until the server has proved itself. Whether it lets us in shows on the first
    /// use, so that the first request need not wait for that.
    pub async fn connect(&self, address: &Address) -> Result<Session, ClientError> {
        let address = self.endpoint.locate(address, None).await?;
        let expected = match (&self.known, address.server_words()) {
            (Some(known), Some(words)) => known.get(&words)?,
            _ => None,
        };
        self.connect_to(address, expected).await
    }

    /// Connects again to the server with this `key`, after a session with it was lost. `address` is as it was asked for
    /// first: a link is asked again, for the server may by now have another hardware address there.
    pub async fn connect_again(
        &self,
        address: &Address,
        key: Option<PublicKey>,
    ) -> Result<Session, ClientError> {
        let address = self.endpoint.locate(address, key.map(Fingerprint::hash)).await?;
        self.connect_to(address, key).await
    }

    async fn connect_to(
        &self,
        address: Address,
        expected: Option<PublicKey>,
    ) -> Result<Session, ClientError> {
        let words = address.server_words();
        let connection = match self.endpoint.connect(&address, expected).await {
            Ok(connection) => connection,
            Err(error) => return Err(self.explain(&address, expected, error).await),
        };
        let acquaintance = match (&self.known, words, connection.peer_key()) {
            (Some(known), Some(words), Some(key)) => match known.check(&words, key)? {
                Acquaintance::Changed { old } => {
                    return Err(ChangedServer { words, old, new: key }.into());
                }
                acquaintance @ (Acquaintance::FirstUse | Acquaintance::Same) => Some(acquaintance),
            },
            _ => None,
        };
        Ok(Session { connection, address, acquaintance })
    }

    /// Where another key than the remembered one was proved, says which: asks once more, expecting nobody, for its name
    /// alone.
    async fn explain(
        &self,
        address: &Address,
        expected: Option<PublicKey>,
        error: ConnectError,
    ) -> ClientError {
        let is_wrong_peer = matches!(
            &error,
            ConnectError::Ended { ended, .. } if matches!(&**ended, Ended::Crypto(error) if error.is_wrong_peer())
        );
        if let (true, Some(old), Some(words)) = (is_wrong_peer, expected, address.server_words())
            && let Ok(stranger) = self.endpoint.connect(address, None).await
        {
            stranger.close(0, "");
            if let Some(new) = stranger.peer_key() {
                return ChangedServer { words, old, new }.into();
            }
        }
        error.into()
    }
}
