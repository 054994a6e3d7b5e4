//! Where clients come from, and how long a lost one is waited for.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::GatewaySettings;
use super::session::will_stay;
use crate::server::UNKNOWN_SERVICE;
use crate::service::media::{ErrorCode, MediaClient, MediaError, Refusal};
use crate::stream::StreamReset;

/// Pauses grow from the first one to this many times as long.
const BACK_OFF_MAX: u32 = 20;
/// Answers without sense, one after the other, after which the server is given up.
const SENSELESS_MAX: u32 = 3;

/// Gives clients of one media/1 server.
pub trait Source: Send + Sync + 'static {
    /// A client over a session that lives; connects anew where the last one has ended. Any number of callers may wait
    /// here at once: one session has to do for all.
    fn client(&self) -> impl Future<Output = Result<MediaClient, SourceError>> + Send;
}

/// Why there is no client.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct SourceError {
    /// Whether it is of no use to try again.
    pub is_final: bool,
    /// What is wrong, in one line.
    pub text: String,
}

/// Why a reader does not get its bytes.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PlayError {
    /// The server said so, with a type.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// There is no session, and there will be none.
    #[error("{0}")]
    Source(#[from] SourceError),
    /// The server was lost, or busy, and patience ran out.
    #[error("gave up after {seconds} s: {last}")]
    Lost {
        /// How long it was tried.
        seconds: u64,
        /// What went wrong the last time.
        last: String,
    },
    /// The server answers, and its answers make no sense or do not match their hashes.
    #[error("{0}")]
    Senseless(String),
}

/// What follows from an error.
enum Verdict {
    Final(PlayError),
    Later(String),
    Senseless(String),
}

/// Asks until there is an answer, a final refusal, or no patience left.
pub(super) async fn persist<T, F, Fut>(
    source: &impl Source,
    settings: &GatewaySettings,
    on_retry: impl Fn() + Send + Sync,
    ask: F,
) -> Result<T, PlayError>
where
    F: Fn(MediaClient) -> Fut + Send + Sync,
    Fut: Future<Output = Result<T, MediaError>> + Send,
    T: Send,
{
    let mut last = String::from("no answer");
    let trying = async {
        let mut pause = settings.back_off;
        let mut senseless = 0;
        loop {
            let verdict = match source.client().await {
                Ok(client) => match ask(client).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => judge(error),
                },
                Err(error) if error.is_final => Verdict::Final(error.into()),
                Err(error) => Verdict::Later(error.text),
            };
            match verdict {
                Verdict::Final(error) => return Err(error),
                Verdict::Later(text) => last = text,
                Verdict::Senseless(text) => {
                    senseless += 1;
                    if senseless >= SENSELESS_MAX {
                        return Err(PlayError::Senseless(text));
                    }
                    last = text;
                }
            }
            on_retry();
            sleep(pause).await;
            pause = next_pause(pause, settings.back_off);
        }
    };
    let tried = timeout(settings.patience, trying).await;
    tried.unwrap_or_else(|_| Err(PlayError::Lost { seconds: settings.patience.as_secs(), last }))
}

fn next_pause(pause: Duration, first: Duration) -> Duration {
    pause.saturating_mul(2).min(first.saturating_mul(BACK_OFF_MAX))
}

fn judge(error: MediaError) -> Verdict {
    match error {
        MediaError::Refused(refusal) => match refusal.code {
            ErrorCode::Busy => Verdict::Later(refusal.to_string()),
            ErrorCode::NotFound
            | ErrorCode::AccessDenied
            | ErrorCode::Changed
            | ErrorCode::DiskFull
            | ErrorCode::NotAFile
            | ErrorCode::NotAFolder
            | ErrorCode::BadRequest
            | ErrorCode::Io
            | ErrorCode::Unknown(_) => Verdict::Final(refusal.into()),
        },
        MediaError::Broken(_) => match final_words(&error) {
            Some(text) => Verdict::Final(SourceError { is_final: true, text }.into()),
            None => Verdict::Later(error.to_string()),
        },
        MediaError::Stalled { .. } => Verdict::Later(error.to_string()),
        MediaError::Malformed(_) | MediaError::WrongBlock { .. } => {
            Verdict::Senseless(error.to_string())
        }
    }
}

/// A stream that broke and would break again: the server has no such service, or does not let us in.
fn final_words(error: &MediaError) -> Option<String> {
    if let Some(ended) = error.session_end() {
        return will_stay(ended).then(|| ended.to_string());
    }
    let MediaError::Broken(error) = error else { return None };
    let reset = error.get_ref()?.downcast_ref::<StreamReset>()?;
    (reset.0 == UNKNOWN_SERVICE)
        .then(|| "the server has no files to play (it does not offer media/1)".to_owned())
}
