//! Accepting without spinning when the machine runs out of something.
//!
//! Neighbours: `tcp` and `unix` wrap the runtime's accept in it.

use std::fs::File;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

const REST: Duration = Duration::from_millis(50);

/// What a listener keeps for bad days: one descriptor, and a pause.
#[derive(Debug)]
pub(in crate::carrier) struct Patience {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    spare: Option<File>, // given up to accept a connection that has to be closed
    rest: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    pub(in crate::carrier) fn new() -> Self {
        Self { state: Mutex::new(State { spare: spare(), rest: None }) }
    }

    /// The next connection of `accept`. Without a free descriptor it closes one waiting connection, so that its client
    /// knows, and rests; a connection that broke before it was accepted is passed over.
    pub(in crate::carrier) fn poll_accept<T>(
        &self,
        cx: &mut Context<'_>,
        mut accept: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(rest) = &mut state.rest {
                ready!(rest.as_mut().poll(cx));
                state.rest = None;
            }
            let error = match ready!(accept(cx)) {
                Ok(accepted) => return Poll::Ready(Ok(accepted)),
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE) => {
                    state.spare = None;
                    drop(accept(cx));
                    state.spare = spare();
                    state.rest = Some(Box::pin(sleep(REST)));
                    tracing::warn!(
                        "out of descriptors: a connection was closed; raise `ulimit -n`"
                    );
                }
                Some(libc::ENOBUFS | libc::ENOMEM) => state.rest = Some(Box::pin(sleep(REST))),
                _ if is_of_one_connection(&error) => {}
                _ => return Poll::Ready(Err(error)),
            }
        }
    }
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Linux reports what befell a waiting connection as an error of accept (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EPERM
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENONET
                | libc::EOPNOTSUPP
        )
    )
}
