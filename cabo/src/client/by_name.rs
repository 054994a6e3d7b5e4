//! Connecting to a name: whoever has it on any carrier, by the best way that works, and only to the one that it was.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use cabo_proto::session::config::Ended;
use cabo_proto::session::crypto::PublicKey;
use tokio::time::sleep;

use super::{Client, ClientError, Session};
use crate::address::{Address, Name};
use crate::connection::Connection;
use crate::discovery::{Heard, NameError, Wanted, search};
use crate::error::ConnectError;
use crate::keys::Fingerprint;

/// How long is asked who has a name.
const LOOK_TIME: Duration = Duration::from_secs(3);
/// A way that is silent has this long alone; then the next is tried beside it.
const HEAD_START: Duration = Duration::from_millis(700);

/// A try of one way.
type Try<'a> = Pin<Box<dyn Future<Output = Result<Reached, ClientError>> + Send + 'a>>;

/// Who was reached, and how.
struct Reached {
    connection: Connection,
    way: Address,
}

impl Client {
    /// Connects to whoever has `name`: again to the server with this `key`, where one is given.
    pub(super) async fn connect_by_name(
        &self,
        address: &Address,
        name: &Name,
        key: Option<PublicKey>,
    ) -> Result<Session, ClientError> {
        let words = address.server_words();
        let known = match (&self.known, &words) {
            (Some(known), Some(words)) if self.endpoint.is_sealed() => known.get(words)?,
            _ => None,
        };
        let wanted = match key {
            Some(key) => Wanted::Known(name.clone(), Fingerprint::of(key)),
            None => Wanted::Named(name.clone()),
        };
        let server = self.find(name, &wanted, known.map(Fingerprint::of)).await?;
        let Reached { connection, way } = self.reach(name, &server, key.or(known)).await?;
        let acquaintance = self.meet(words, &connection)?;
        Ok(Session { connection, address: address.clone(), place: way.place, acquaintance })
    }

    /// The one server that has the name.
    async fn find(
        &self,
        name: &Name,
        wanted: &Wanted,
        known: Option<Fingerprint>,
    ) -> Result<Heard, NameError> {
        let mut heard = search(&self.endpoint, wanted, LOOK_TIME).await.heard;
        match (heard.pop(), heard.is_empty()) {
            (Some(server), true) => Ok(server),
            (Some(server), false) => {
                heard.push(server);
                Err(NameError::Ambiguous { name: name.clone(), heard, known })
            }
            (None, _) => Err(nobody(name)),
        }
    }

    /// Tries the ways one after the other, each with a head start; the first that works is taken.
    async fn reach(
        &self,
        name: &Name,
        server: &Heard,
        expected: Option<PublicKey>,
    ) -> Result<Reached, ClientError> {
        let mut ways = server.ways.iter();
        let mut trying: Vec<Try<'_>> = Vec::new();
        let mut failure: Option<ClientError> = None;
        loop {
            if let Some(way) = ways.next() {
                trying.push(Box::pin(self.try_way(name, server, way, expected)));
            }
            let ended = tokio::select! {
                ended = first_of(&mut trying) => ended,
                () = sleep(HEAD_START), if ways.len() > 0 => continue,
            };
            match ended {
                Some(Ok(reached)) => return Ok(reached),
                Some(Err(error)) => {
                    tracing::debug!(%error, "a way to //{name} does not work");
                    if failure.is_none() || is_about_identity(&error) {
                        failure = Some(error);
                    }
                }
                None => {}
            }
            if trying.is_empty() && ways.len() == 0 {
                return Err(failure.unwrap_or_else(|| nobody(name).into()));
            }
        }
    }

    async fn try_way(
        &self,
        name: &Name,
        server: &Heard,
        way: &Address,
        expected: Option<PublicKey>,
    ) -> Result<Reached, ClientError> {
        let connection = match self.endpoint.connect(way, expected).await {
            Ok(connection) => connection,
            Err(error) => {
                let words = Some(format!("//{name}"));
                return Err(self.explain(words, way, expected, error).await);
            }
        };
        let proved = connection.peer_key().map(Fingerprint::of);
        match proved.filter(|proved| *proved != server.fingerprint) {
            None => Ok(Reached { connection, way: way.clone() }),
            Some(proved) => {
                connection.close(0, "");
                let (said, way) = (server.fingerprint, way.to_string());
                Err(NameError::Impostor { name: name.clone(), way, said, proved }.into())
            }
        }
    }
}

fn nobody(name: &Name) -> NameError {
    NameError::Nobody { name: name.clone(), within: LOOK_TIME }
}

/// What the first of them comes to that ends, which is then no longer one of them; none where there are none.
async fn first_of(trying: &mut Vec<Try<'_>>) -> Option<Result<Reached, ClientError>> {
    poll_fn(|cx| {
        for place in 0..trying.len() {
            if let Poll::Ready(done) = trying[place].as_mut().poll(cx) {
                drop(trying.remove(place));
                return Poll::Ready(Some(done));
            }
        }
        if trying.is_empty() { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}

/// Whether somebody there is not who he should be: more to tell than that a way is blocked.
fn is_about_identity(error: &ClientError) -> bool {
    match error {
        ClientError::Changed(_) | ClientError::Name(NameError::Impostor { .. }) => true,
        ClientError::Connect(ConnectError::Ended { ended, .. }) => {
            matches!(&**ended, Ended::Crypto(_))
        }
        ClientError::Connect(_) | ClientError::Known(_) | ClientError::Name(_) => false,
    }
}
