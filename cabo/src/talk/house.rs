//! What a server shows to cabo peers, and by which rules it lets them in.
//!
//! Neighbours: `server` opens it when it listens; `gate` holds the rules from then on.

use std::time::Duration;

use tokio::sync::mpsc;

use super::Settings;
use crate::access::Access;
use crate::client::Client;
use crate::config::{ConfigDir, ConfigError};
use crate::crypto::SetupError;
use crate::endpoint::{self, Endpoint};
use crate::gate::Gate;
use crate::keys::known::Known;
use crate::keys::{Identity, StoreError};
use crate::server::Question;

/// Whoever is asked about a new peer has this long to answer.
const ASKING_TIME: Duration = Duration::from_secs(120);

type Rules = Box<dyn FnOnce(Access) -> Access + Send>;

/// See the module.
#[derive(Default)]
pub(super) struct House {
    pub(super) identity: Option<Identity>,
    pub(super) rules: Option<Rules>,
    pub(super) questions: Option<mpsc::Sender<Question>>,
    pub(super) settings: endpoint::Settings,
    pub(super) is_foreign_only: bool,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum HouseError {
    /// No place for one's own files.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The identity cannot be used.
    #[error(transparent)]
    Identity(#[from] StoreError),
    /// Cryptography could not be set up.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

/// A client of sessions with the user's own identity, which knows servers again. It lets no session end of silence.
pub(super) fn own_client() -> Result<Client, HouseError> {
    let dir = ConfigDir::of_user()?;
    let identity = Identity::load_or_create(&dir)?;
    let mut settings = endpoint::Settings::default();
    settings.session.keep_alive = true;
    Ok(Client::new(Endpoint::new(&identity, settings)?, Some(Known::new(dir))))
}

impl House {
    /// An endpoint and its gate; the identity is the user's own where none was given.
    pub(super) fn open(self, settings: &Settings) -> Result<(Endpoint, Gate), HouseError> {
        let identity = match self.identity {
            Some(identity) => identity,
            None => Identity::load_or_create(&ConfigDir::of_user()?)?,
        };
        let mut of_endpoint = self.settings;
        if of_endpoint.connections_max == 0 {
            of_endpoint.connections_max = settings.peers_max;
        }
        let access = Access::new(identity.public_key());
        let access = self.rules.into_iter().fold(access, |access, rules| rules(access));
        let gate = Gate::new(access, self.questions, ASKING_TIME);
        Ok((Endpoint::new(&identity, of_endpoint)?, gate))
    }
}
