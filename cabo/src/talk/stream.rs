//! Drives one peer on a stream carrier: first words, messages in, bytes out, the end.
//!
//! Neighbours: `peer` holds what waits to go out, `server` starts one driver a connection.

use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use cabo_proto::dialect::hello::{Hello, Verdict};
use cabo_proto::session::records::Opening;
use cabo_proto::wire::record::Form;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::callback::{Gate, Kind};
use super::calls::Calls;
use super::server::Handlers;
use super::sniff::Late;
use super::unfinished::Unfinished;
use super::words::Words;
use super::{Closed, Peer, Settings};
use crate::carrier::ByteStream;

/// Bytes read at once, onto the stack.
const READ_BYTES: usize = 16 * 1024;
/// Bytes read before other peers get their turn.
const TURN_BYTES: usize = 128 * 1024;
/// What we sent has this long to be taken when the conversation ends.
const LAST_BYTES_TIME: Duration = Duration::from_secs(10);
/// After our end the peer's last bytes are read for this long, so that no reset destroys what it has not read yet.
const LINGER_TIME: Duration = Duration::from_secs(2);
/// The same for a cabo peer, to whom what was sent may still be under way, and who leaves when it has it.
const SESSION_LINGER_TIME: Duration = Duration::from_secs(30);
/// What a foreign program hears that may not come from where it is.
const ELSEWHERE: &[u8] = b"cabo: programs on other hosts are not let in here; --open or --from NETWORK of cabo listen does\n";

/// One conversation, from its first byte to its last.
pub(super) struct Conversation {
    stream: Box<dyn ByteStream>,
    peer: Peer,
    settings: Arc<Settings>,
    handlers: Arc<Handlers>,
    words: Words,
    unfinished: Unfinished,
    /// First bytes that were read to see who it is.
    said: Vec<u8>,
    /// Its first words may still be a cabo peer's, while nothing was sent to it.
    late: Option<Box<Late>>,
    /// They were.
    form: Option<Form>,
    writing: BytesMut,
    heard: Instant,
    idle: Option<Pin<Box<Sleep>>>,
    is_finished: bool,
    is_read_ended: bool,
    /// Whole messages wait until the peer has taken what it was sent.
    is_held: bool,
    /// Whoever hears it had enough when it was looked at last.
    was_held: bool,
    gate: Gate,
}

/// What was told of as a foreign program, and turned out to be a cabo peer: its stream, and what it said behind its preface.
pub(super) struct Turned {
    pub(super) stream: Box<dyn ByteStream>,
    pub(super) form: Form,
    pub(super) said: Vec<u8>,
}

impl Conversation {
    pub(super) fn new(
        stream: Box<dyn ByteStream>,
        peer: Peer,
        settings: Arc<Settings>,
        handlers: Arc<Handlers>,
    ) -> Self {
        Self {
            stream,
            words: Words::of(&peer, &settings),
            unfinished: Unfinished::of(handlers.budget()),
            said: Vec::new(),
            late: None,
            form: None,
            peer,
            writing: BytesMut::new(),
            heard: Instant::now(),
            idle: settings.idle_time.map(|time| Box::pin(sleep(time))),
            settings,
            handlers,
            is_finished: false,
            is_read_ended: false,
            is_held: false,
            was_held: false,
            gate: Gate::default(),
        }
    }

    /// The same for a peer that has been there since then, and whose first bytes were read already.
    pub(super) fn having_said(mut self, said: Vec<u8>, since: Instant) -> Self {
        (self.said, self.heard) = (said, since);
        self
    }

    /// The same for one that has said nothing since then, and may be a cabo peer.
    pub(super) fn silent(mut self, since: Instant) -> Self {
        (self.late, self.heard) = (Some(Box::default()), since);
        self
    }

    /// Runs it, and says how it ended. A peer of whom nothing was processed is no more than counted.
    pub(super) async fn run(mut self) -> Closed {
        self.converse().await
    }

    /// Runs it until its end, or until it turns out to be a cabo peer's.
    pub(super) async fn run_or_turn(mut self) -> Option<Turned> {
        self.converse().await;
        let Self { stream, said, form, .. } = self;
        form.map(|form| Turned { stream, form, said })
    }

    async fn converse(&mut self) -> Closed {
        let hello = self.settings.dialect.hello.clone().filter(|_| !self.peer.is_cabo());
        if !self.peer.is_cabo() && !self.settings.foreign.admits(&self.peer.from()) {
            let answer = hello.map_or_else(|| ELSEWHERE.to_vec(), |hello| hello.refuse);
            return Box::pin(self.refuse(&answer, Closed::Elsewhere)).await;
        }
        if let Some(hello) = hello {
            let time = hello.deadline.saturating_sub(self.heard.elapsed());
            // In boxes, so that whoever rests later does not keep their room.
            match Box::pin(timeout(time, self.greet(&hello))).await {
                Ok(Ok(())) => {}
                Ok(Err(refused)) => return Box::pin(self.refuse(&hello.refuse, refused)).await,
                Err(_) => {
                    let refused = Closed::NoGreeting(hello.deadline);
                    return Box::pin(self.refuse(&hello.refuse, refused)).await;
                }
            }
        } else {
            let said = std::mem::take(&mut self.said);
            self.begin_with(&said);
        }
        self.handlers.admit().await;
        let begun = self.call(|handlers, peer| handlers.connected(peer));
        // What came in one piece with the first words is read already.
        let closed = match begun.and_then(|()| self.deliver_whole()) {
            Ok(()) => poll_fn(|cx| self.poll(cx)).await,
            Err(closed) => closed,
        };
        self.end(&closed).await;
        closed
    }

    /// What was read already belongs to its messages.
    fn begin_with(&mut self, said: &[u8]) {
        if !said.is_empty() {
            self.peer.shared().heard().bytes(said.len(), std::time::Instant::now());
            self.words.push(said);
        }
    }

    /// Reads a client's first words and answers them (D-4.1).
    async fn greet(&mut self, hello: &Hello) -> Result<(), Closed> {
        let mut said = std::mem::take(&mut self.said);
        let mut part = [0; 512];
        loop {
            match hello.judge_client(&said) {
                Verdict::Welcome(len) => {
                    self.stream.write_all(&hello.accept).await?;
                    self.begin_with(said.get(len..).unwrap_or_default());
                    return Ok(());
                }
                Verdict::Stranger => {
                    return Err(Closed::Stranger(self.settings.dialect.name.clone()));
                }
                Verdict::More => match self.stream.read(&mut part).await? {
                    0 => return Err(Closed::Stranger(self.settings.dialect.name.clone())),
                    len => said.extend_from_slice(part.get(..len).unwrap_or_default()),
                },
            }
        }
    }

    async fn refuse(&mut self, answer: &[u8], refused: Closed) -> Closed {
        self.handlers.admit().await;
        self.handlers.refused(&self.peer, &refused);
        let answer = async {
            self.stream.write_all(answer).await?;
            self.stream.shutdown().await?;
            linger(&mut self.stream, LINGER_TIME).await;
            io::Result::Ok(())
        };
        let _ = timeout(LINGER_TIME, answer).await; // it has been turned away, whether or not it hears so
        refused
    }

    /// Messages in and bytes out until something ends it.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        if self.gate.poll(self.handlers.callbacks(), cx).is_pending() {
            return self.poll_rest(cx);
        }
        self.peer.shared().begin_turn();
        let mut read_bytes = 0;
        loop {
            if let Poll::Ready(Err(error)) = self.poll_write(cx) {
                return Poll::Ready(error.into());
            }
            let work = self.peer.shared().work();
            if work.is_held || self.was_held {
                // Whoever hears it has, or had, enough: that time is not its silence.
                self.heard = Instant::now();
                self.was_held = work.is_held;
            }
            if work.is_too_slow {
                return Poll::Ready(Closed::TooSlow);
            }
            if work.is_closing || (self.is_read_ended && !self.owes_answers()) {
                return Poll::Ready(Closed::Ended);
            }
            if work.has_outgoing && self.writing.is_empty() {
                continue;
            }
            if work.is_finishing && !self.is_finished && self.writing.is_empty() {
                self.settle_foreign();
                self.is_finished = Pin::new(&mut self.stream).poll_shutdown(cx).is_ready();
            }
            // Until all is answered; or it is not read before it takes what it was sent, or who hears it has room.
            if self.is_read_ended || work.is_full {
                let is_same = self.peer.shared().rest(cx) == work;
                if is_same && (!self.is_read_ended || self.owes_answers()) {
                    if work.is_held && !self.is_read_ended {
                        self.unfinished.is_not_awaited();
                        return Poll::Pending;
                    }
                    return self.poll_rest(cx);
                }
                self.peer.shared().begin_turn();
                continue;
            }
            if self.is_held {
                match self.deliver_whole() {
                    Ok(()) => continue,
                    Err(closed) => return Poll::Ready(closed),
                }
            }
            if read_bytes >= TURN_BYTES {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.poll_read(cx) {
                Poll::Ready(Ok(bytes)) => read_bytes += bytes,
                Poll::Ready(Err(closed)) => return Poll::Ready(closed),
                Poll::Pending => {
                    if self.late.as_mut().is_some_and(|late| late.poll_silent(cx).is_ready()) {
                        self.settle_foreign();
                        continue;
                    }
                    if self.peer.shared().rest(cx) == work {
                        return self.poll_more(cx);
                    }
                    self.peer.shared().begin_turn(); // others sent meanwhile
                }
            }
        }
    }

    /// Whether the peer waits for answers, and has not gone.
    fn owes_answers(&self) -> bool {
        self.peer.shared().calls().is_some_and(Calls::has_asked)
    }

    /// Writes until there is nothing to write.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.writing.is_empty() {
                self.peer.shared().take_outgoing(&mut self.writing);
                if self.writing.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                self.settle_foreign(); // what is sent to it now settles that
            }
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.writing))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.writing.advance(written);
            self.peer.shared().set_writing(self.writing.len());
            if self.writing.is_empty() {
                self.call(|handlers, peer| handlers.has_room(peer)).map_err(io::Error::other)?;
            }
        }
    }

    /// Reads once, and gives out the messages that are whole.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Closed>> {
        let mut bytes = [std::mem::MaybeUninit::uninit(); READ_BYTES];
        let mut part = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        let len = part.filled().len();
        if len > 0 {
            self.heard = Instant::now();
            self.peer.shared().heard().bytes(len, self.heard.into_std());
        }
        if let Some(late) = &mut self.late {
            match late.heard(part.filled()) {
                Opening::Unknown => {}
                Opening::Stranger => self.settle_foreign(), // an end is read again
                Opening::Cabo(form) => {
                    self.said = self.late.take().map(|late| late.into_said()).unwrap_or_default();
                    self.form = Some(form);
                    return Poll::Ready(Err(Closed::Cabo));
                }
            }
            return Poll::Ready(Ok(len));
        }
        if len == 0 {
            self.is_read_ended = true;
            if let Some(last) = self.words.finish(&self.settings.dialect)? {
                self.peer.shared().heard().message();
                self.call(|handlers, peer| handlers.received(last, peer))?;
            }
            return Poll::Ready(Ok(0));
        }
        self.words.push(part.filled());
        self.deliver_whole()?;
        let limits = || self.handlers.unfinished_limits(&self.settings);
        self.unfinished.heard(len, self.words.unfinished_bytes(), limits)?;
        Poll::Ready(Ok(len))
    }

    /// It is no cabo peer, whatever it goes on to say: what it has said is given out next.
    fn settle_foreign(&mut self) {
        if let Some(late) = self.late.take() {
            self.words.push(&late.into_said());
            self.is_held = true;
        }
    }

    /// Gives out what is whole, until what callbacks send fills the peer's room: one read may hold thousands of messages.
    fn deliver_whole(&mut self) -> Result<(), Closed> {
        self.is_held = false;
        let Some(first) = self.words.next_message(&self.peer, &self.settings)? else {
            return Ok(());
        };
        let Self { handlers, peer, settings, words, .. } = self;
        let mut next = Some(first);
        let deliver_all = || {
            while let Some(message) = next.take() {
                peer.shared().heard().message();
                handlers.received(message, peer);
                if peer.shared().is_full() {
                    return Ok(true);
                }
                next = words.next_message(peer, settings)?;
            }
            Ok(false)
        };
        let called = catch_unwind(AssertUnwindSafe(|| handlers.call(Kind::Receive, deliver_all)));
        self.is_held = called.unwrap_or(Err(Closed::Panicked))?;
        Ok(())
    }

    /// A callback that panics costs its own peer the conversation, and nobody else anything.
    fn call(&self, work: impl FnOnce(&Handlers, &Peer)) -> Result<(), Closed> {
        let called = catch_unwind(AssertUnwindSafe(|| work(&self.handlers, &self.peer)));
        called.map_err(|_| Closed::Panicked)
    }

    /// Rests until the peer says more of its message.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        let time = self.settings.message_time;
        let bytes_min = self.settings.message_bytes_min;
        if let Poll::Ready(closed) = self.unfinished.poll_stalled(cx, time, bytes_min) {
            return Poll::Ready(closed);
        }
        self.poll_idle(cx)
    }

    /// Rests while the peer is not read: it is not its fault that nothing comes.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        self.unfinished.is_not_awaited();
        self.poll_idle(cx)
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        let (Some(time), Some(idle)) = (self.settings.idle_time, &mut self.idle) else {
            return Poll::Pending;
        };
        loop {
            ready!(idle.as_mut().poll(cx));
            if self.heard.elapsed() >= time {
                return Poll::Ready(Closed::Idle(time));
            }
            idle.as_mut().reset(self.heard + time);
        }
    }

    /// Lets what was sent go out, tells of the end, ends our half, and hears the peer out.
    async fn end(&mut self, closed: &Closed) {
        self.words = Words::of(&self.peer, &self.settings); // what is not whole now never will be
        self.unfinished.forget();
        // Who ends TLS without saying so, as ncat does, still hears us.
        let is_cut = matches!(closed, Closed::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof);
        let is_heard = matches!(
            closed,
            Closed::Ended
                | Closed::GoingDown
                | Closed::Idle(_)
                | Closed::Malformed(_)
                | Closed::NoRoom(_)
                | Closed::Unfinished(_)
                | Closed::Dripping(..)
        );
        if is_heard || is_cut {
            let last = poll_fn(|cx| self.poll_write(cx));
            let _ = timeout(LAST_BYTES_TIME, last).await; // what it does not take now, it never will
        }
        self.peer.shared().end();
        self.handlers.admit().await;
        self.handlers.closed(&self.peer, closed);
        if self.form.is_some() {
            return; // its stream goes on
        }
        // The end of the session tells a cabo peer why, and stops what it still sends.
        let is_session_over = self.peer.is_cabo()
            && matches!(closed, Closed::NoRoom(_) | Closed::Unfinished(_) | Closed::Dripping(..));
        if is_session_over {
            return;
        }
        if (is_cut || !matches!(closed, Closed::Io(_) | Closed::Broken(_)))
            && self.stream.shutdown().await.is_ok()
            && !self.is_read_ended
        {
            let time = if self.peer.is_cabo() { SESSION_LINGER_TIME } else { LINGER_TIME };
            linger(&mut self.stream, time).await;
        }
    }
}

/// Reads and drops what still comes, for a while.
async fn linger(stream: &mut Box<dyn ByteStream>, time: Duration) {
    let mut rest = vec![0; 4096];
    let drain = async { while matches!(stream.read(&mut rest).await, Ok(1..)) {} };
    let _ = timeout(time, drain).await;
}
