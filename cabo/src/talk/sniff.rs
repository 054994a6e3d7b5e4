//! Who begins to speak on a stream: cabo's preface, or anything else, which belongs to the dialect (W-4.1).
//!
//! Neighbours: `server` asks, and hands the stream on with all that was read.

use std::future::{Future as _, poll_fn};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use cabo_proto::session::records::Opening;
use cabo_proto::wire::record::Form;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::time::{Sleep, sleep, timeout};

use super::Settings;
use crate::carrier::ByteStream;

/// Who has said nothing for so long is told of as a foreign program, which may wait to be spoken to: a cabo peer begins
/// with its preface at once, but a segment that was lost comes later than this. A dialect whose clients speak
/// first has its own time.
const SILENCE_TIME: Duration = Duration::from_millis(250);
/// Who may only come as a cabo peer has as long for its first bytes as for its handshake.
const FIRST_WORDS_TIME: Duration = Duration::from_secs(10);
const PREFACE_BYTES: usize = 8;
/// Bytes read at once, onto the stack.
const READ_BYTES: usize = 4096;

/// Who it is that comes.
pub(super) enum Who {
    /// A cabo peer, which wants this form.
    Cabo(Form),
    /// A foreign program.
    Foreign,
    /// One that has said nothing, and may be spoken to as a foreign program; its first words decide, if they come before that.
    Silent,
}

/// Reads the first bytes. Of a cabo peer it says which form of session it wants, and `said` is what came behind its preface; of
/// a foreign program `said` is all that came.
pub(super) async fn preface(
    stream: &mut Box<dyn ByteStream>,
    said: &mut Vec<u8>,
    settings: &Settings,
    is_admitted: bool,
) -> Who {
    let (time, in_silence) = match &settings.dialect.hello {
        Some(hello) => (hello.deadline, Who::Foreign),
        None if is_admitted => (SILENCE_TIME, Who::Silent),
        None => (FIRST_WORDS_TIME, Who::Foreign),
    };
    let opening = async {
        loop {
            match judge(said) {
                Opening::Cabo(form) => return Who::Cabo(form),
                Opening::Stranger => return Who::Foreign,
                Opening::Unknown => {}
            }
            if !matches!(read(stream, said).await, Ok(1..)) {
                return Who::Foreign; // what ends or fails now will do so again for whoever reads next
            }
        }
    };
    match timeout(time, opening).await {
        Ok(who) => who,
        Err(_) if said.is_empty() => in_silence,
        Err(_) => Who::Foreign,
    }
}

/// Whose words these are. A preface is taken off them.
fn judge(said: &mut Vec<u8>) -> Opening {
    let opening = Opening::of(said.get(..PREFACE_BYTES).unwrap_or(said));
    if let Opening::Cabo(_) = opening {
        said.drain(..PREFACE_BYTES);
    }
    opening
}

/// The first words of one that was silent, while they may still be a cabo peer's.
#[derive(Default)]
pub(super) struct Late {
    said: Vec<u8>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Late {
    /// It says more, or its end.
    pub(super) fn heard(&mut self, bytes: &[u8]) -> Opening {
        self.said.extend_from_slice(bytes);
        if bytes.is_empty() { Opening::Stranger } else { judge(&mut self.said) }
    }

    /// Ready when it has begun as a cabo peer does and not gone on.
    pub(super) fn poll_silent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.said.is_empty() {
            return Poll::Pending;
        }
        self.timer.get_or_insert_with(|| Box::pin(sleep(SILENCE_TIME))).as_mut().poll(cx)
    }

    /// All that it said; of a cabo peer what came behind its preface.
    pub(super) fn into_said(self) -> Vec<u8> {
        self.said
    }
}

async fn read(stream: &mut Box<dyn ByteStream>, said: &mut Vec<u8>) -> std::io::Result<usize> {
    poll_fn(|cx| {
        let mut bytes = [MaybeUninit::uninit(); READ_BYTES];
        let mut part = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut part))?;
        said.extend_from_slice(part.filled());
        Poll::Ready(Ok(part.filled().len()))
    })
    .await
}
