//! Sessions that are lost and found again: what goes on is tried anew until the patience ends without progress.
//!
//! A session follows an end that gets another address, but not both at once, and not over TCP; nothing on the wire says
//! that it is lost. Whoever hears nothing asks for a second session, and goes on there if the first one stays silent.

use std::ops::AsyncFnMut;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cabo::address::Address;
use cabo::client::{Client, Session};
use cabo::connection::{Code, Ended};
use cabo::keys::PublicKey;
use cabo::service::media::{ErrorCode, FetchError, MediaClient, MediaError};

use tokio::sync::Notify;

use super::told::local_words;
use crate::exit::{self, Failure};
use crate::session;
use crate::show::human;
use crate::show::progress::Bar;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// With nothing arriving for so long, the server is asked for a sign of life.
const NUDGE_AFTER: Duration = Duration::from_secs(2);
/// So often in a row without one, a second session is tried.
const NUDGES_MAX: u32 = 3;
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// Tries again for so long.
pub(super) struct Persist<'a> {
    pub(super) client: &'a Client,
    pub(super) address: &'a Address,
    pub(super) patience: Duration,
    pub(super) is_quiet: bool,
    pub(super) bar: &'a Bar,
    /// Somebody wants it to end.
    pub(super) stop: &'a Notify,
    /// The file that is written, for what goes wrong there.
    pub(super) path: &'a Mutex<Option<PathBuf>>,
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
        let place = self.address.to_string();
        let mut key = None;
        let mut second: Option<Session> = None; // came about while the first one was silent
        let mut lost: Option<Lost> = None;
        loop {
            let before = here();
            let connected = match second.take() {
                Some(session) => Ok(session),
                None => tokio::select! {
                    connected = self.connect(key, lost.as_ref()) => connected,
                    () = self.stop.notified() => return Err(interrupted()),
                },
            };
            let failure = match connected {
                Ok(session) => {
                    if lost.is_some() {
                        self.say("connected again, going on");
                    }
                    key = session.connection.peer_key();
                    let media = MediaClient::new(session.connection.clone());
                    let mut working = pin!(work(&media));
                    let done = tokio::select! {
                        done = &mut working => done,
                        other = self.doubt(&session, &here) => {
                            self.say(&format!("{place}: lost, and found again; going on"));
                            second = Some(other);
                            session.connection.close(0, ""); // ends the work, which lets go of its files
                            working.await
                        }
                        () = self.stop.notified() => {
                            session::leave(&session).await;
                            return Err(interrupted());
                        }
                    };
                    match done {
                        Ok(done) => {
                            session::leave(&session).await;
                            return Ok(done);
                        }
                        Err(error) if second.is_some() && is_closed_here(&error) => continue,
                        Err(error) if is_asked_about(&session, &error).await => {
                            let _ = session.connection.admitted().await; // if it ended, the work says how
                            second = Some(session);
                            continue;
                        }
                        Err(error) if is_passing(&error) => exit::of_fetch(&place, &error, here()),
                        Err(error) => {
                            session::leave(&session).await;
                            return Err(self.failure(&place, &error, here()));
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

    /// What ends it for good.
    fn failure(&self, place: &str, error: &FetchError, here_bytes: u64) -> Failure {
        let mut failure = exit::of_fetch(place, error, here_bytes);
        let path = self.path.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(words) = path.as_ref().and_then(|path| local_words(path, error)) {
            failure.text = format!("{place}: {words}");
        }
        // The same server would send the same wrong whole again.
        let is_hopeless = matches!(error, FetchError::WrongRoot { .. });
        if is_hopeless { failure } else { failure.with_next() }
    }

    fn say(&self, text: &str) {
        if !self.is_quiet {
            self.bar.say(text);
        }
    }

    /// To whom it was asked for, or again to the server with this key.
    async fn connect(
        &self,
        key: Option<PublicKey>,
        lost: Option<&Lost>,
    ) -> Result<Session, Failure> {
        let Some(lost) = lost else {
            let (is_quiet, speaker) = (self.is_quiet, self.bar.speaker());
            let say = move |text: &str| {
                if !is_quiet {
                    speaker.say(text);
                }
            };
            return session::connect(self.client, self.address, say).await;
        };
        let again = self.client.connect_again(self.address, key);
        let connecting = async { again.await.map_err(Failure::from) };
        let left = self.patience.saturating_sub(lost.since.elapsed());
        tokio::time::timeout(left.max(FIRST_PAUSE), connecting).await.unwrap_or_else(|_| {
            let text = format!("{}: no answer", self.address);
            Err(Failure::new(exit::UNREACHABLE, text))
        })
    }

    /// Says something into a silence: whoever only listens would not notice that the server was started anew. Where
    /// that is not acknowledged either, asks for a second session, and returns it if it comes about before a sign of
    /// the first.
    async fn doubt(&self, session: &Session, here: &impl Fn() -> u64) -> Session {
        let is_waiting = || {
            let path = session.connection.stats().path; // stream carriers tell of their end themselves
            path.is_some_and(|path| path.in_flight_bytes > 0)
        };
        let mut unanswered = 0;
        loop {
            let before = here();
            tokio::time::sleep(NUDGE_AFTER).await;
            if here() != before || !is_waiting() {
                unanswered = 0;
            } else {
                unanswered += 1;
            }
            if here() == before {
                // Nobody reads it, but it has to be acknowledged; if it cannot be sent, the session's end tells why.
                let _ = session.connection.send_datagram(Default::default(), None);
            }
            if unanswered >= NUDGES_MAX {
                let key = session.connection.peer_key();
                if let Ok(other) = self.client.connect_again(self.address, key).await {
                    if here() == before && is_waiting() {
                        return other;
                    }
                    session::leave(&other).await;
                }
            }
        }
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
        tokio::select! {
            () = tokio::time::sleep(lost.pause) => {}
            () = self.stop.notified() => return Err(interrupted()),
        }
        lost.pause = (lost.pause * 2).min(LAST_PAUSE);
        Ok(lost)
    }
}

fn interrupted() -> Failure {
    Failure::new(exit::INTERRUPTED, "interrupted") // whoever asked for it says more
}

/// Whether we ended the session ourselves.
fn is_closed_here(error: &FetchError) -> bool {
    let FetchError::Media(error) = error else { return false };
    matches!(error.session_end(), Some(Ended::Local { .. }))
}

/// Whether the server has sent nothing because a person there has not answered yet.
async fn is_asked_about(session: &Session, error: &FetchError) -> bool {
    let is_silent = matches!(error, FetchError::Media(MediaError::Stalled { .. }));
    is_silent && !session::is_admitted(session).await
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
