//! Sessions that are lost and found again: what goes on is tried anew until the patience ends without progress.

use std::convert::Infallible;
use std::ops::AsyncFnMut;
use std::time::{Duration, Instant};

use cabo::address::Address;
use cabo::client::{Client, Session};
use cabo::connection::{Code, Ended};
use cabo::service::media::{ErrorCode, FetchError, MediaClient, MediaError};

use crate::exit::{self, Failure};
use crate::session;
use crate::show::human;
use crate::show::progress::Bar;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// With nothing arriving for so long, the server is asked for a sign of life.
const NUDGE_AFTER: Duration = Duration::from_secs(2);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// Tries again for so long.
pub(super) struct Persist<'a> {
    pub(super) client: &'a Client,
    pub(super) address: &'a Address,
    pub(super) patience: Duration,
    pub(super) is_quiet: bool,
    pub(super) bar: &'a Bar,
}

/// The server is lost since.
struct Lost {
    since: Instant,
    pause: Duration,
}

impl Persist<'_> {
    /// Does `work` over one session after the other until it is done or fails for good. `here` tells how many bytes
    /// have arrived: where they grow, the patience starts anew.
    pub(super) async fn run<T>(
        &self,
        here: impl Fn() -> u64,
        mut work: impl AsyncFnMut(&MediaClient) -> Result<T, FetchError>,
    ) -> Result<T, Failure> {
        let mut address = self.address.clone();
        let mut lost: Option<Lost> = None;
        loop {
            let before = here();
            let failure = match self.connect(&address, lost.as_ref()).await {
                Ok(session) => {
                    if lost.is_some() {
                        self.say("connected again, going on");
                    }
                    address.clone_from(&session.address); // the same one again, where a link was asked
                    let media = MediaClient::new(session.connection.clone());
                    let place = self.address.to_string();
                    let done = tokio::select! {
                        done = work(&media) => done,
                        never = nudge(&session, &here) => match never {},
                    };
                    match done {
                        Ok(done) => {
                            session::leave(&session).await;
                            return Ok(done);
                        }
                        Err(error) if is_passing(&error) => exit::of_fetch(&place, &error, here()),
                        Err(error) => {
                            session::leave(&session).await;
                            return Err(exit::of_fetch(&place, &error, here()).with_next());
                        }
                    }
                }
                Err(failure) if lost.is_some() && failure.code == exit::UNREACHABLE => failure,
                Err(failure) => return Err(failure),
            };
            if here() > before {
                lost = None;
            }
            lost = Some(self.pause(lost, failure, here()).await?);
        }
    }

    fn say(&self, text: &str) {
        if !self.is_quiet {
            self.bar.say(text);
        }
    }

    async fn connect(&self, address: &Address, lost: Option<&Lost>) -> Result<Session, Failure> {
        let connecting = session::connect(self.client, address, |text| self.say(text));
        let Some(lost) = lost else { return connecting.await };
        let left = self.patience.saturating_sub(lost.since.elapsed());
        tokio::time::timeout(left.max(FIRST_PAUSE), connecting).await.unwrap_or_else(|_| {
            let text = format!("{}: no answer", self.address);
            Err(Failure::new(exit::UNREACHABLE, text))
        })
    }

    /// Waits a little longer each time; gives up when the patience is over.
    async fn pause(
        &self,
        lost: Option<Lost>,
        mut failure: Failure,
        here_bytes: u64,
    ) -> Result<Lost, Failure> {
        let is_new = lost.is_none();
        let mut lost = lost.unwrap_or_else(|| Lost { since: Instant::now(), pause: FIRST_PAUSE });
        if lost.since.elapsed() + lost.pause > self.patience {
            if here_bytes > 0 && failure.code == exit::UNREACHABLE {
                failure.code = exit::INCOMPLETE;
            }
            return Err(failure.with_next());
        }
        if is_new {
            let (text, patience) = (human::escaped(&failure.text), human::duration(self.patience));
            self.say(&format!("{text}; looking for the server for {patience}"));
        }
        tokio::time::sleep(lost.pause).await;
        lost.pause = (lost.pause * 2).min(LAST_PAUSE);
        Ok(lost)
    }
}

/// Says something into a silence: whoever only listens would not notice that the server was started anew.
async fn nudge(session: &Session, here: &impl Fn() -> u64) -> Infallible {
    loop {
        let before = here();
        tokio::time::sleep(NUDGE_AFTER).await;
        if here() == before {
            // Nobody reads it, but it has to be acknowledged; if it cannot be sent, the end of the session tells why.
            let _ = session.connection.send_datagram(Default::default(), None);
        }
    }
}

/// Whether trying again may help: the server or the way to it was lost, or the server has too much to do.
fn is_passing(error: &FetchError) -> bool {
    let FetchError::Media(error) = error else { return false };
    if let Some(ended) = error.session_end() {
        return match ended {
            Ended::PeerProtocol { code, .. } => *code != Code::REFUSED,
            Ended::Peer { .. } | Ended::Idle { .. } | Ended::Reset | Ended::Truncated => true,
            Ended::HandshakeTimeout { .. } => true,
            Ended::Local { .. }
            | Ended::Declined { .. }
            | Ended::Breach { .. }
            | Ended::Crypto(_)
            | Ended::Version { .. } => false,
        };
    }
    match error {
        MediaError::Refused(refusal) => refusal.code == ErrorCode::Busy,
        MediaError::Stalled { .. } => true,
        MediaError::Broken(_) | MediaError::Malformed(_) | MediaError::WrongBlock { .. } => false,
    }
}
