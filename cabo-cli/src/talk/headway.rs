//! Whether what is sent is taken: whoever takes nothing for too long is given up, and what it did not take is told.
//!
//! Neighbours: `cmd::send`, `converse` and `exec` send.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use cabo::talk::Progress;
use tokio::time::timeout;

use crate::exit::{self, Failure};

/// How often it is looked whether anything moves.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Awaits `sending` for as long as it goes on: fails where nothing at all was taken for `within`.
pub(crate) async fn while_taken<T>(
    sending: impl Future<Output = T>,
    progress: &Progress,
    within: Duration,
) -> Result<T, Failure> {
    let mut sending = pin!(sending);
    let (mut taken_bytes, mut since) = (progress.taken_bytes(), Instant::now());
    loop {
        if let Ok(done) = timeout(LOOK_EVERY.min(within), &mut sending).await {
            return Ok(done);
        }
        let now_bytes = progress.taken_bytes();
        if now_bytes > taken_bytes {
            (taken_bytes, since) = (now_bytes, Instant::now());
        } else if since.elapsed() >= within {
            return Err(not_taken(progress.waiting_bytes(), within));
        }
    }
}

/// Fails where something still waits after `within`.
pub(super) fn all_taken(progress: &Progress, within: Option<Duration>) -> Result<(), Failure> {
    match (progress.waiting_bytes(), within) {
        (0, _) | (_, None) => Ok(()), // without a time nobody is there any more to take it
        (waiting_bytes, Some(within)) => Err(not_taken(waiting_bytes, within)),
    }
}

/// The failure of what nobody took.
pub(super) fn not_taken(bytes: u64, within: Duration) -> Failure {
    let text = format!("the other side took nothing for {within:?}: {bytes} bytes were not sent");
    Failure::new(exit::UNREACHABLE, text)
}
