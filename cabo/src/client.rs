//! The client's side of sessions: connects, and knows a server again by its key.
//!
//! A server is remembered by its address when it is first met; from then on only the same key is accepted there.

use cabo_proto::session::config::Ended;
use cabo_proto::session::crypto::PublicKey;

use crate::address::{Address, Place};
use crate::connection::Connection;
use crate::discovery::NameError;
use crate::endpoint::{Endpoint, Task};
use crate::error::ConnectError;
use crate::keys::Fingerprint;
use crate::keys::known::{Acquaintance, ChangedServer, Known, KnownError};

mod by_name;

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
    /// The address that led to it, with what the link answered; a name stays one.
    pub address: Address,
    /// The place that it is at: what discovery found, where a name was given.
    pub place: Place,
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
    /// A name leads to nobody, or to several.
    #[error(transparent)]
    Name(#[from] NameError),
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
        if let Place::Name(name) = &address.place {
            return self.connect_by_name(address, name, None).await;
        }
        let address = self.endpoint.locate(address, None).await?;
        let expected = match (&self.known, address.server_words()) {
            (Some(known), Some(words)) => known.get(&words)?,
            _ => None,
        };
        self.connect_to(address, expected).await
    }

    /// Connects again to the server with this `key`, after a session with it was lost. `address` is as it was asked for
    /// first: a link is asked again, for the server may by now have another hardware address there, and a name is looked up
    /// again on every carrier.
    pub async fn connect_again(
        &self,
        address: &Address,
        key: Option<PublicKey>,
    ) -> Result<Session, ClientError> {
        if let Place::Name(name) = &address.place {
            return self.connect_by_name(address, name, key).await;
        }
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
            Err(error) => return Err(self.explain(words, &address, expected, error).await),
        };
        let acquaintance = self.meet(words, &connection)?;
        let place = address.place.clone();
        Ok(Session { connection, address, place, acquaintance })
    }

    /// Compares the key of who has proved itself with the one that was met under these words, or remembers it.
    fn meet(
        &self,
        words: Option<String>,
        connection: &Connection,
    ) -> Result<Option<Acquaintance>, ClientError> {
        let (Some(known), Some(words), Some(key)) = (&self.known, words, connection.peer_key())
        else {
            return Ok(None);
        };
        match known.check(&words, key)? {
            Acquaintance::Changed { old } => Err(ChangedServer { words, old, new: key }.into()),
            acquaintance @ (Acquaintance::FirstUse | Acquaintance::Same) => Ok(Some(acquaintance)),
        }
    }

    /// Where another key than the remembered one was proved, says which: asks once more, expecting nobody, for its name
    /// alone.
    async fn explain(
        &self,
        words: Option<String>,
        address: &Address,
        expected: Option<PublicKey>,
        error: ConnectError,
    ) -> ClientError {
        let is_wrong_peer = matches!(
            &error,
            ConnectError::Ended { ended, .. } if matches!(&**ended, Ended::Crypto(error) if error.is_wrong_peer())
        );
        if let (true, Some(old), Some(words)) = (is_wrong_peer, expected, words)
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
