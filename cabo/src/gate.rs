//! The gate of a server: decides about each session by the rules of `access`, and asks where that is wanted.
//!
//! `server` and `talk` stand behind it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::access::{Access, Decision, Origin, Refusal};
use crate::carrier::Peer;
use crate::connection::Connection;
use crate::server::Question;

/// See the module.
pub(crate) struct Gate {
    access: Mutex<Access>,
    questions: Option<mpsc::Sender<Question>>,
    asking_time: Duration,
}

impl Gate {
    /// A gate by these rules; without `questions` nobody is asked.
    pub(crate) fn new(
        access: Access,
        questions: Option<mpsc::Sender<Question>>,
        asking_time: Duration,
    ) -> Self {
        Self { access: Mutex::new(access), questions, asking_time }
    }

    /// Its rules.
    pub(crate) fn access(&self) -> MutexGuard<'_, Access> {
        self.access.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides, and asks where that is wanted.
    pub(crate) async fn judge(&self, connection: &Connection) -> Result<(), Refusal> {
        let key = connection.peer_key();
        let decision = self.access().judge(key, origin(connection));
        match (decision, key, &self.questions) {
            (Decision::Admit, ..) => Ok(()),
            (Decision::Refuse(refusal), ..) => Err(refusal),
            (Decision::Ask { fingerprint }, Some(key), Some(questions)) => {
                let (answer, answered) = oneshot::channel();
                let agent = connection.peer_agent();
                let question = Question { fingerprint, agent, from: connection.from(), answer };
                if questions.try_send(question).is_err() {
                    return Err(Refusal::Unknown(fingerprint));
                }
                let answered = timeout(self.asking_time, answered);
                let is_welcome = tokio::select! {
                    answer = answered => match answer {
                        Ok(Ok(is_welcome)) => is_welcome,
                        Ok(Err(_)) => return Err(Refusal::Unknown(fingerprint)),
                        Err(_) => return Err(Refusal::Unanswered(fingerprint)),
                    },
                    _ = connection.closed() => return Err(Refusal::Unanswered(fingerprint)),
                };
                self.access().answer(key, is_welcome);
                if is_welcome { Ok(()) } else { Err(Refusal::Denied(fingerprint)) }
            }
            (Decision::Ask { fingerprint }, ..) => Err(Refusal::Unknown(fingerprint)),
        }
    }
}

/// From where a session comes, in the words of access.
pub(crate) fn origin(connection: &Connection) -> Origin {
    origin_of(connection.from(), || connection.peer_user())
}

/// The same of any peer; `user` is asked for where a Unix socket may name one.
pub(crate) fn origin_of(from: Peer, user: impl FnOnce() -> Option<u32>) -> Origin {
    match from {
        Peer::Udp(address) | Peer::Tcp(address) => Origin::Ip(address.ip()),
        from @ Peer::Ether { .. } => Origin::Link { is_loopback: from.is_loopback() },
        Peer::Unix { .. } | Peer::Memory(_) | Peer::None => Origin::Unix { uid: user() },
    }
}
