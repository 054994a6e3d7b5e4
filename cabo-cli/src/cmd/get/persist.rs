//! Sessions that are lost and found again: what goes on is tried anew until the patience ends without progress.

use std::ops::AsyncFnMut;
use std::time::{Duration, Instant};

use cabo::address::Address;
use cabo::client::Client;
use cabo::service::media::{ErrorCode, FetchError, MediaClient, MediaError};
use cabo_proto::session::config::Ended;
use cabo_proto::wire::code::Code;

use crate::exit::{self, Failure};
use crate::session;
use crate::show::human;
use crate::show::progress::Bar;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
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
    /// Does `work` over one session after the other until it is done or fails for good. `here` tells how many bytes have
    /// arrived: where they grow, the patience starts anew.
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
                    if lost.is_some() && !self.is_quiet {
                        self.bar.say("connected again, going on");
                    }
                    address.clone_from(&session.address); // the same one again, where a link was asked
                    let media = MediaClient::new(session.connection.clone());
                    let place = self.address.to_string();
                    match work(&media).await {
                        Ok(done) => {
                            session::leave(&session).await;
                            return Ok(done);
                        }
                        Err(error) if is_passing(&error) => exit::of_fetch(&place, &error, here()),
                        Err(error) => {
                            session::leave(&session).await;
                            return Err(exit::of_fetch(&place, &error, here()));
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

    async fn connect(
        &self,
        address: &Address,
        lost: Option<&Lost>,
    ) -> Result<cabo::client::Session, Failure> {
        let connecting = session::connect(self.client, address, self.is_quiet);
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
        let mut lost = lost.unwrap_or(Lost { since: Instant::now(), pause: FIRST_PAUSE });
        if lost.since.elapsed() + lost.pause > self.patience {
            if here_bytes > 0 && failure.code == exit::UNREACHABLE {
                failure.code = exit::INCOMPLETE;
                failure
                    .text
                    .push_str("; what arrived is kept: run the same command again to resume");
            }
            return Err(failure);
        }
        if is_new && !self.is_quiet {
            let (text, patience) = (human::escaped(&failure.text), human::duration(self.patience));
            self.bar.say(&format!("{text}; looking for the server for {patience}"));
        }
        tokio::time::sleep(lost.pause).await;
        lost.pause = (lost.pause * 2).min(LAST_PAUSE);
        Ok(lost)
    }
}

/// Whether trying again may help: the server or the way to it was lost, or the server has too much to do.
fn is_passing(error: &FetchError) -> bool {
    let FetchError::Media(error) = error else { return false };
    if let Some(ended) = exit::session_end(error) {
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
