//! Who begins to speak on a stream: cabo's preface, or anything else, which belongs to the dialect (W-4.1).
//!
//! Neighbours: `server` asks, and hands the stream on with all that was read.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::ready;
use std::time::Duration;

use cabo_proto::session::records::Opening;
use cabo_proto::wire::record::Form;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::time::timeout;

use super::Settings;
use crate::carrier::ByteStream;

/// Who has said nothing for so long is a foreign program: a cabo peer begins with its preface at once. A dialect whose
/// clients speak first has its own time for that.
const SILENCE_TIME: Duration = Duration::from_millis(250);
const PREFACE_BYTES: usize = 8;
/// Bytes read at once, onto the stack.
const READ_BYTES: usize = 4096;

/// Reads the first bytes. Of a cabo peer it says which form of session it wants, and `said` is what came behind its preface; of
/// a foreign program `said` is all that came.
pub(super) async fn preface(
    stream: &mut Box<dyn ByteStream>,
    said: &mut Vec<u8>,
    settings: &Settings,
) -> Option<Form> {
    let time = settings.dialect.hello.as_ref().map_or(SILENCE_TIME, |hello| hello.deadline);
    let opening = async {
        loop {
            match Opening::of(said.get(..PREFACE_BYTES).unwrap_or(said)) {
                Opening::Cabo(form) => return Some(form),
                Opening::Stranger => return None,
                Opening::Unknown => {}
            }
            if !matches!(read(stream, said).await, Ok(1..)) {
                return None; // what ends or fails now will do so again for whoever reads next
            }
        }
    };
    let form = timeout(time, opening).await.ok().flatten();
    if form.is_some() {
        said.drain(..PREFACE_BYTES);
    }
    form
}

async fn read(stream: &mut Box<dyn ByteStream>, said: &mut Vec<u8>) -> std::io::Result<usize> {
    poll_fn(|cx| {
        let mut bytes = [MaybeUninit::uninit(); READ_BYTES];
        let mut part = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut part))?;
        said.extend_from_slice(part.filled());
        std::task::Poll::Ready(Ok(part.filled().len()))
    })
    .await
}
