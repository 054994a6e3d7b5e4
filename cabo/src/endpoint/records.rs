//! The task behind one connection on a stream carrier, and the one behind a listener.

use std::cell::{Cell, RefCell};
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use cabo_proto::session::config::{Config, Ended};
use cabo_proto::session::crypto::{Crypto, CryptoError};
use cabo_proto::session::records::{Opening, RecordConnection};
use cabo_proto::transport::flow::Budget;
use cabo_proto::wire::record::Form;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Sleep, timeout, timeout_at};

use super::Spawn;
use super::entrance::{Entrance, Reason, Ticket};
use crate::carrier::{Accepted, ByteStream, Connected, Listener, Peer};
use crate::connection::{Connection, Driver, Machine, Shared};

/// Sealed bytes that wait for the kernel. More would only age: priorities and seeks drown in a backlog.
const OUT_BYTES: usize = 128 * 1024;
/// Bytes read at once.
const IN_BYTES: usize = 256 * 1024;
/// Bytes read before other tasks get their turn: readers should find what came while it is still in the cache of the
/// core.
const TURN_BYTES: usize = 256 * 1024;
/// A stranger has to say who it is within this.
const OPENING_TIME: Duration = Duration::from_secs(5);
/// A connection that is over has this long to hand its last bytes to the carrier: a peer that does not read would hold
/// it for ever (S-9).
const LAST_BYTES_TIME: Duration = Duration::from_secs(10);
/// After that the peer's last bytes are read for this long, so that no reset destroys what it has not read yet.
const LINGER_TIME: Duration = Duration::from_secs(10);
/// The same for who is turned away.
const FAREWELL_TIME: Duration = Duration::from_secs(1);
/// What a stranger is told (W-4.1).
const STRANGER_LINE: &[u8] =
    b"This port speaks cabo/1; connect with: cabo ls URL, or cabo send URL --as cabo\r\n";

/// What new connections on stream carriers are made of.
#[derive(Clone)]
pub(crate) struct RecordSettings {
    pub(crate) config: Config,
    pub(crate) crypto: Arc<dyn Crypto>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) scheme: &'static str,
    /// The carrier seals.
    pub(crate) is_secure: bool,
    pub(crate) spawn: Spawn,
}

impl RecordSettings {
    /// The form of sessions here (S-7.5); none inside a channel that they cannot be bound to.
    pub(crate) fn form(&self) -> Option<Form> {
        let form = self.config.form();
        let has_channel = self.config.channel.is_some();
        (form == Form::Plain || self.is_secure == has_channel).then_some(form)
    }
}

thread_local! {
    /// Where reads land: one for a thread, not for a connection, so that idle ones cost little.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; IN_BYTES]);
    /// What was written last is room for what is written next, of whichever connection.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

#[derive(Default)]
struct Wake {
    waker: Mutex<(bool, Option<Waker>)>,
}

impl Driver for Arc<Wake> {
    fn wake(&self) {
        let mut state = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        let is_woken = std::mem::replace(&mut state.0, true);
        if let (false, Some(waker)) = (is_woken, &state.1) {
            waker.wake_by_ref();
        }
    }
}

impl Wake {
    /// True if somebody called since the last time.
    fn take(&self, cx: &Context<'_>) -> bool {
        let mut state = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.1.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.1 = Some(cx.waker().clone());
        }
        std::mem::take(&mut state.0)
    }
}

/// Starts the client's end over a connected stream.
pub(crate) fn start_client(
    settings: &RecordSettings,
    connected: Connected,
    crypto: &dyn Crypto,
) -> Result<Connection, CryptoError> {
    let Connected { stream, to, peer_user, channel } = connected;
    let mut settings = settings.clone();
    settings.config.channel = channel;
    if settings.form().is_none() {
        let text =
            "it speaks TLS 1.2, to which cabo/1 cannot be bound; that takes TLS 1.3".to_owned();
        return Err(CryptoError { alert: None, text });
    }
    let (config, budget) = (settings.config.clone(), settings.budget.clone());
    let machine = RecordConnection::client(Instant::now(), config, crypto, budget)?;
    let (shared, driver) = drive(&settings, machine, stream, to, peer_user, None, None);
    (settings.spawn)(Box::pin(driver.run()));
    Ok(Connection::new(shared))
}

fn drive(
    settings: &RecordSettings,
    machine: RecordConnection,
    stream: Box<dyn ByteStream>,
    from: Peer,
    peer_user: Option<u32>,
    incoming: Option<mpsc::Sender<Connection>>,
    ticket: Option<Ticket>,
) -> (Arc<Shared>, RecordDriver) {
    let wake = Arc::new(Wake::default());
    let machine = Machine::Records(Box::new(machine));
    let shared = Shared::new(
        machine,
        Box::new(wake.clone()),
        settings.scheme,
        from,
        peer_user,
        incoming.is_some(),
    );
    let driver = RecordDriver {
        shared: shared.clone(),
        wake,
        stream,
        out: Vec::new(),
        out_at: 0,
        incoming,
        ticket,
        last_bytes_until: None,
        sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
        is_read_ended: false,
    };
    (shared, driver)
}

/// Accepts for as long as the listener lives.
pub(crate) async fn accept_loop(
    listener: Arc<dyn Listener>,
    settings: RecordSettings,
    entrance: Arc<Entrance>,
    incoming: mpsc::Sender<Connection>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = poll_fn(|cx| listener.poll_accept(cx)) => accepted,
            () = incoming.closed() => return,
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::error!(%error, "the listener is gone");
                return;
            }
        };
        let ticket = match entrance.enter(super::source(&accepted.from)) {
            Ok(ticket) => ticket,
            Err(reason) => {
                send_away(&entrance, &settings, accepted, reason);
                continue;
            }
        };
        (settings.spawn)(Box::pin(welcome(
            accepted,
            settings.clone(),
            ticket,
            entrance.clone(),
            incoming.clone(),
        )));
    }
}

/// One connection from its first byte to its last.
async fn welcome(
    accepted: Accepted,
    mut settings: RecordSettings,
    mut ticket: Ticket,
    entrance: Arc<Entrance>,
    incoming: mpsc::Sender<Connection>,
) {
    let (from, deadline) = (accepted.from, Instant::now() + OPENING_TIME);
    let secured = tokio::select! {
        secured = timeout_at(deadline.into(), accepted.secured()) => secured,
        _ = poll_fn(|cx| ticket.poll_evicted(cx)) => return, // what it could be told, it could not read yet
    };
    let mut accepted = match secured {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => return tracing::debug!(%from, %error, "a stranger"),
        Err(_) => return tracing::debug!(%from, "a stranger said nothing in time"),
    };
    settings.config.channel = accepted.channel;
    let opened = tokio::select! {
        opened = timeout_at(deadline.into(), open(&settings, &mut accepted.stream, from)) => opened,
        reason = poll_fn(|cx| ticket.poll_evicted(cx)) => {
            return send_away(&entrance, &settings, accepted, reason);
        }
    };
    let Accepted { mut stream, peer_user, .. } = accepted;
    match opened {
        Ok(Some(machine)) => {
            let (incoming, ticket) = (Some(incoming), Some(ticket));
            drive(&settings, machine, stream, from, peer_user, incoming, ticket).1.run().await;
        }
        Ok(None) => {}
        Err(_) => {
            tracing::debug!(%from, "a stranger said nothing in time");
            say_and_end(&mut stream, STRANGER_LINE).await; // over TLS a cut would be all that it learns
        }
    }
}

/// A connection whose preface somebody else has read, and `said` behind it.
pub(crate) fn adopt(
    accepted: Accepted,
    form: Form,
    mut said: Vec<u8>,
    mut settings: RecordSettings,
    entrance: &Arc<Entrance>,
    incoming: mpsc::Sender<Connection>,
) {
    settings.config.channel = accepted.channel;
    if Some(form) != settings.form() {
        tracing::debug!(from = %accepted.from, ?form, "a peer of another kind");
        let mut stream = accepted.stream;
        (settings.spawn)(Box::pin(async move { say_and_end(&mut stream, STRANGER_LINE).await }));
        return;
    }
    let ticket = match entrance.enter(super::source(&accepted.from)) {
        Ok(ticket) => ticket,
        Err(reason) => return send_away(entrance, &settings, accepted, reason),
    };
    let Accepted { stream, from, peer_user, .. } = accepted;
    let (now, config, budget) = (Instant::now(), settings.config.clone(), settings.budget.clone());
    let server = RecordConnection::server(now, config, &*settings.crypto, budget);
    let Ok(mut machine) = server else { return };
    machine.handle_bytes(now, &mut said);
    let (incoming, ticket) = (Some(incoming), Some(ticket));
    let driver = drive(&settings, machine, stream, from, peer_user, incoming, ticket).1;
    (settings.spawn)(Box::pin(driver.run()));
}

/// Reads the preface and decides who it is.
async fn open(
    settings: &RecordSettings,
    stream: &mut Box<dyn ByteStream>,
    from: Peer,
) -> Option<RecordConnection> {
    let mut preface = [0; 8];
    let mut len = 0;
    while let (Opening::Unknown, true) = (Opening::of(&preface[..len]), len < preface.len()) {
        match stream.read(&mut preface[len..]).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => len += count,
        }
    }
    match Opening::of(&preface[..len]) {
        Opening::Cabo(form) if Some(form) == settings.form() => {}
        Opening::Cabo(_) | Opening::Stranger | Opening::Unknown => {
            tracing::debug!(%from, first = ?preface[..len].escape_ascii().to_string(), "a stranger");
            say_and_end(stream, STRANGER_LINE).await;
            return None;
        }
    }
    RecordConnection::server(
        Instant::now(),
        settings.config.clone(),
        &*settings.crypto,
        settings.budget.clone(),
    )
    .ok()
}

/// Tells somebody for whom there is no room why, as long as not too many are told.
fn send_away(
    entrance: &Arc<Entrance>,
    settings: &RecordSettings,
    accepted: Accepted,
    (code, why): Reason,
) {
    let Some(farewell) = entrance.farewell() else { return };
    let mut settings = settings.clone();
    let spawn = settings.spawn.clone();
    spawn(Box::pin(async move {
        if let Ok(Ok(mut accepted)) = timeout(FAREWELL_TIME, accepted.secured()).await {
            settings.config.channel = accepted.channel;
            if let Some(form) = settings.form() {
                let words = RecordConnection::refusal(form, code, why);
                say_and_end(&mut accepted.stream, &words).await;
            }
        }
        drop(farewell);
    }));
}

/// A last word, then the end, without a reset that would destroy it.
async fn say_and_end(stream: &mut Box<dyn ByteStream>, words: &[u8]) {
    let mut rest = vec![0; 4096]; // not inside the future, which outlives it as the connection's
    let saying = async {
        if stream.write_all(words).await.is_ok() && stream.shutdown().await.is_ok() {
            while matches!(stream.read(&mut rest).await, Ok(1..)) {}
        }
    };
    let _ = timeout(FAREWELL_TIME, saying).await; // who goes on talking is cut off
}

/// The future that drives one connection.
struct RecordDriver {
    shared: Arc<Shared>,
    wake: Arc<Wake>,
    stream: Box<dyn ByteStream>,
    out: Vec<u8>,
    out_at: usize, // so much of it the carrier has
    incoming: Option<mpsc::Sender<Connection>>,
    ticket: Option<Ticket>, // `None` at the client
    last_bytes_until: Option<Instant>,
    sleep: Pin<Box<Sleep>>,
    is_read_ended: bool,
}

impl RecordDriver {
    /// Moves bytes between the machine and the carrier until neither has anything or others must have their turn;
    /// `Ready` at the end.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut taken = 0;
        while taken < TURN_BYTES {
            let mut is_moved = self.wake.take(cx) | self.make_room(cx);
            if let Some(len) = self.read(cx) {
                taken += len;
                is_moved = true;
            }
            let (is_gone, deadline) = self.advance();
            is_moved |= match self.write(cx) {
                Poll::Ready(Ok(is_moved)) => is_moved,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => false,
            };
            let deadline = if is_gone {
                let now = Instant::now();
                let until = *self.last_bytes_until.get_or_insert(now + LAST_BYTES_TIME);
                if self.out.is_empty() || until <= now {
                    return Poll::Ready(());
                }
                Some(until)
            } else {
                deadline
            };
            if is_moved {
                continue;
            }
            let Some(deadline) = deadline else { return Poll::Pending };
            self.sleep.as_mut().reset(deadline.into());
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if let Machine::Records(machine) = &mut self.shared.lock().machine {
                machine.handle_timeout(Instant::now());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ends a handshake that has to make room for others. True if it did.
    fn make_room(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(ticket) = &mut self.ticket else { return false };
        let Poll::Ready((code, why)) = ticket.poll_evicted(cx) else { return false };
        if let Machine::Records(machine) = &mut self.shared.lock().machine {
            machine.close(Ended::Declined { code, reason: why.to_owned() });
        }
        true
    }

    /// Reads once and says how many bytes; `None`: nothing now, or never more.
    fn read(&mut self, cx: &mut Context<'_>) -> Option<usize> {
        if self.is_read_ended {
            return None;
        }
        SCRATCH.with_borrow_mut(|scratch| self.read_into(cx, scratch))
    }

    fn read_into(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Option<usize> {
        let mut buffer = ReadBuf::new(scratch);
        let Poll::Ready(read) = AsyncRead::poll_read(Pin::new(&mut self.stream), cx, &mut buffer)
        else {
            return None;
        };
        let mut inner = self.shared.lock();
        let Machine::Records(machine) = &mut inner.machine else { return None };
        if read.is_err() || buffer.filled().is_empty() {
            self.is_read_ended = true;
            if let Some(error) = read.err().as_ref().and_then(broken_channel) {
                machine.handle_failure(error);
            }
            machine.handle_end();
        } else {
            machine.handle_bytes(Instant::now(), buffer.filled_mut());
        }
        Some(buffer.filled().len())
    }

    /// Takes events, and what there is to send while little waits.
    fn advance(&mut self) -> (bool, Option<Instant>) {
        let mut inner = self.shared.lock();
        inner.on_served();
        let mut news = inner.pump();
        let Machine::Records(machine) = &mut inner.machine else { return (true, None) };
        if self.out.is_empty() {
            let mut out = SPARE.take();
            machine.poll_output(Instant::now(), &mut out, OUT_BYTES);
            if out.is_empty() {
                SPARE.set(out);
            } else {
                self.out = out;
            }
        }
        let state = (machine.is_gone(), machine.deadline());
        news.is_handshaken |= inner.pump().is_handshaken;
        drop(inner);
        if news.is_handshaken
            && let Some(incoming) = self.incoming.take()
        {
            if let Some(ticket) = &self.ticket {
                ticket.prove();
            }
            super::announce(&incoming, Connection::new(self.shared.clone()));
        }
        state
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<bool>> {
        let before = self.out_at;
        while self.out_at < self.out.len() {
            let rest = &self.out[self.out_at..];
            match AsyncWrite::poll_write(Pin::new(&mut self.stream), cx, rest) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
                }
                Poll::Ready(Ok(len)) => self.out_at += len,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Ready(Ok(self.out_at > before)),
            }
        }
        let is_moved = self.out_at > before;
        if is_moved {
            self.out.clear();
            self.out_at = 0;
            SPARE.set(std::mem::take(&mut self.out));
        }
        Poll::Ready(Ok(is_moved))
    }
}

/// What a carrier that seals says of a channel that was refused or forged.
fn broken_channel(error: &std::io::Error) -> Option<CryptoError> {
    let is_broken = error.kind() == std::io::ErrorKind::InvalidData;
    is_broken.then(|| CryptoError { alert: None, text: error.to_string() })
}

impl RecordDriver {
    async fn run(mut self) {
        poll_fn(|cx| self.turn(cx)).await;
        {
            let mut inner = self.shared.lock();
            if let Machine::Records(machine) = &mut inner.machine {
                machine.handle_end(); // a carrier that failed in mid-write truncates
            }
            inner.pump();
        }
        let (mut stream, mut scratch) = (self.stream, vec![0; 4096]);
        let linger = async move {
            if stream.shutdown().await.is_ok() {
                while matches!(stream.read(&mut scratch).await, Ok(1..)) {}
            }
        };
        if self.out.is_empty() {
            let _ = timeout(LINGER_TIME, linger).await; // what has not been read by then is the peer's loss
        }
        self.shared.lock().on_flushed();
    }
}
