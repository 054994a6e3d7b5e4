//! Clients over real sessions, one at a time, made anew when the last one has ended.

use cabo_proto::session::config::Ended;
use cabo_proto::session::crypto::PublicKey;
use cabo_proto::wire::code::Code;
use tokio::sync::Mutex;

use super::source::{Source, SourceError};
use crate::address::Address;
use crate::client::{Client, ClientError};
use crate::connection::Connection;
use crate::discovery::NameError;
use crate::error::ConnectError;
use crate::service::media::MediaClient;

/// Connects to one server, and again whenever the session is lost.
pub struct SessionSource {
    client: Client,
    address: Address,
    key: Option<PublicKey>,
    connection: Mutex<Option<Connection>>,
}

impl SessionSource {
    /// Keeps to `address`, and to the server of `connection`, which is a session that is there already.
    pub fn new(client: Client, address: Address, connection: Option<Connection>) -> Self {
        let key = connection.as_ref().and_then(Connection::peer_key);
        Self { client, address, key, connection: Mutex::new(connection) }
    }
}

impl Source for SessionSource {
    async fn client(&self) -> Result<MediaClient, SourceError> {
        let mut held = self.connection.lock().await;
        if let Some(connection) = held.as_ref().filter(|connection| connection.ended().is_none()) {
            return Ok(MediaClient::new(connection.clone()));
        }
        *held = None;
        let session = match self.key {
            Some(key) => self.client.connect_again(&self.address, Some(key)).await?,
            None => self.client.connect(&self.address).await?,
        };
        let client = MediaClient::new(session.connection.clone());
        *held = Some(session.connection);
        Ok(client)
    }
}

impl From<ClientError> for SourceError {
    /// An interface may come back and a host be found again; another key, another version or a refusal stays.
    fn from(error: ClientError) -> Self {
        let is_final = match &error {
            ClientError::Connect(ConnectError::Ended { ended, .. }) => will_stay(ended),
            ClientError::Connect(_) | ClientError::Name(NameError::Nobody { .. }) => false,
            ClientError::Name(_) => true,
            ClientError::Known(_) | ClientError::Changed(_) => true,
        };
        Self { is_final, text: error.to_string() }
    }
}

/// Whether a session would end like this again.
pub(super) fn will_stay(ended: &Ended) -> bool {
    match ended {
        Ended::Crypto(_) | Ended::Version { .. } => true,
        Ended::PeerProtocol { code, .. } => *code == Code::REFUSED,
        Ended::Local { .. }
        | Ended::Declined { .. }
        | Ended::Peer { .. }
        | Ended::Breach { .. }
        | Ended::HandshakeTimeout { .. }
        | Ended::Idle { .. }
        | Ended::Reset
        | Ended::Truncated => false,
    }
}
