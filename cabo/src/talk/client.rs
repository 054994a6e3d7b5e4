//! The other end of a conversation, with a cabo peer or a foreign program, for who prefers to await.
//!
//! Neighbours: `line` is the way to a cabo peer, and what only those have.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cabo_proto::dialect::Dialect;
use cabo_proto::dialect::cut::{CutError, Cutter};
use cabo_proto::dialect::hello::{Hello, Verdict};
use cabo_proto::dialect::kind::Counters;
use cabo_proto::dialect::value::Fields;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;

use super::halves::{Half, halves};
use super::house::HouseError;
use super::line::{self, Line, patiently};
use super::place::{PlaceError, Way, is_many, with_port_of};
use super::progress::{Counts, Progress};
use super::{Message, MessageError, SendError};
use crate::address::{Address, AddressError};
use crate::carrier::open_udp::{LARGEST_BYTES, OpenUdp};
use crate::carrier::{self, ByteStream, HangUp};
use crate::client;
use crate::connection::Ended;

/// A connection has this long to be made, unless somebody says otherwise.
pub const CONNECT_TIME: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 64 * 1024;

/// Why a conversation does not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A URL that nobody can connect to.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// No socket.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The server did not answer the first words as the dialect wants it.
    #[error(
        "{place}: the server turned us away: its answer to {dialect}'s first words is \"{answer}\""
    )]
    Refused {
        /// Where.
        place: String,
        /// The dialect.
        dialect: String,
        /// What it answered, escaped.
        answer: String,
    },
    /// The server did not answer the first words.
    #[error("{place}: no answer to {dialect}'s first words within {within:?}")]
    NoAnswer {
        /// Where.
        place: String,
        /// The dialect.
        dialect: String,
        /// How long was waited.
        within: Duration,
    },
    /// The handshake of the carrier of who called failed (TLS).
    #[error("not let in by TLS: {0}")]
    Unsecured(io::Error),
    /// Who called did not say the first words.
    #[error("does not speak {dialect}: its first words were others, or did not come")]
    Stranger {
        /// The dialect.
        dialect: String,
    },
    /// What it sent is no message.
    #[error(transparent)]
    Malformed(#[from] CutError),
    /// What a cabo peer sent is no message.
    #[error(transparent)]
    Broken(#[from] MessageError),
    /// No identity to show to a cabo peer.
    #[error(transparent)]
    House(#[from] HouseError),
    /// No session with a cabo peer.
    #[error(transparent)]
    Session(#[from] client::ClientError),
    /// The session ended.
    #[error("{0}")]
    Ended(Arc<Ended>),
    /// The cabo peer takes no messages.
    #[error("the server has no messages/1: it serves something else")]
    NoService,
    /// The session ended while its owner had not let us in: what was said was not heard.
    #[error("it ended before it let us in; what was said was not heard")]
    NotLetIn,
    /// A message that cannot be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// A message that no datagram has room for.
    #[error("a datagram has at most {LARGEST_BYTES} bytes, and this message {bytes}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The system knows no way to a group or to everybody, and no interface was named.
    #[error("{place}: sendto: {source}; say by which interface: ?if=INTERFACE")]
    NeedsInterface {
        /// Where.
        place: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Nobody listens at the port of a host.
    #[error("nobody listens at {place}: the host answered that the port is closed")]
    NobodyListens {
        /// Where.
        place: String,
    },
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
}

/// What crosses the wire of a conversation, for whoever watches it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Seen<'a> {
    /// Bytes of ours, as they were given to the socket; a whole datagram where the carrier has them.
    Sent(&'a [u8]),
    /// Bytes of theirs, as one read had them.
    Received(&'a [u8]),
    /// We ended our half.
    SentEnd,
    /// They ended theirs.
    ReceivedEnd,
}

/// Is told of everything that crosses the wire, in order.
pub type Watch = Arc<dyn Fn(Seen<'_>) + Send + Sync>;

/// A conversation as a client has it. [`Client::split`] parts it where both directions go on at once.
pub struct Client {
    /// What comes.
    pub receiver: Receiver,
    /// What goes.
    pub sender: Sender,
    to: carrier::Peer,
}

/// The half that receives.
pub struct Receiver {
    dialect: Arc<Dialect>,
    cutter: Cutter,
    source: Source,
    is_ended: bool,
    watch: Option<Watch>,
}

/// The half that sends.
pub struct Sender {
    dialect: Arc<Dialect>,
    counters: Counters,
    sink: Sink,
    counts: Arc<Counts>,
    watch: Option<Watch>,
}

enum Source {
    Stream(Half, Vec<u8>),
    Datagrams(Hearing),
    Session(Arc<Line>),
}

/// A socket for datagrams, and whose are heard.
struct Hearing {
    socket: Arc<OpenUdp>,
    buffer: Vec<u8>,
    to: SocketAddr,
    /// Nobody else; all where the datagrams go to a group or to everybody.
    only: Option<carrier::Peer>,
    from: Option<carrier::Peer>,
    /// Came before there was a conversation.
    first: Option<Bytes>,
}

enum Sink {
    Stream(Half),
    Datagrams(Arc<OpenUdp>, SocketAddr),
    Session(Arc<Line>),
}

impl Client {
    /// Connects and says the first words of the dialect, whose port is taken where the URL names none.
    pub async fn connect(address: &Address, dialect: Arc<Dialect>) -> Result<Self, ClientError> {
        Self::connect_watched(address, dialect, CONNECT_TIME, None).await
    }

    /// The same `within` a time, and with somebody who watches.
    pub async fn connect_watched(
        address: &Address,
        dialect: Arc<Dialect>,
        within: Duration,
        watch: Option<Watch>,
    ) -> Result<Self, ClientError> {
        let address = with_port_of(address, &dialect);
        address.check_connect()?;
        let way = Way::open(&address, within).await?;
        let mut client = match way {
            Way::Stream(stream, to) => Self::of_stream(stream, to, dialect, watch),
            Way::Datagrams(socket, to) => {
                Self::of_datagrams(Arc::new(socket), to, None, dialect, watch)
            }
        };
        client.greet(&address, within).await?;
        Ok(client)
    }

    pub(super) fn of_stream(
        stream: Box<dyn ByteStream>,
        to: carrier::Peer,
        dialect: Arc<Dialect>,
        watch: Option<Watch>,
    ) -> Self {
        let (read, write) = halves(stream);
        let source = Source::Stream(read, vec![0; READ_BYTES]);
        Self::of(source, Sink::Stream(write), to, dialect, watch)
    }

    /// `first` is what `to` has said already.
    pub(super) fn of_datagrams(
        socket: Arc<OpenUdp>,
        to: SocketAddr,
        first: Option<Bytes>,
        dialect: Arc<Dialect>,
        watch: Option<Watch>,
    ) -> Self {
        let (buffer, peer) = (vec![0; LARGEST_BYTES], carrier::Peer::udp(to));
        let only = (first.is_some() || socket.is_connected()).then_some(peer);
        let hearing = Hearing { socket: socket.clone(), buffer, to, only, from: None, first };
        let source = Source::Datagrams(hearing);
        Self::of(source, Sink::Datagrams(socket, to), peer, dialect, watch)
    }

    pub(super) fn of_line(line: Line, to: carrier::Peer, dialect: Arc<Dialect>) -> Self {
        let line = Arc::new(line);
        Self::of(Source::Session(line.clone()), Sink::Session(line), to, dialect, None)
    }

    /// The same, with somebody who watches from now on: payloads, where the other side is a cabo peer.
    #[must_use]
    pub fn watched(mut self, watch: Option<Watch>) -> Self {
        (self.receiver.watch, self.sender.watch) = (watch.clone(), watch);
        self
    }

    fn of(
        source: Source,
        sink: Sink,
        to: carrier::Peer,
        dialect: Arc<Dialect>,
        watch: Option<Watch>,
    ) -> Self {
        let cutter = Cutter::new(dialect.cut.clone(), dialect.limit_bytes);
        let receiver = Receiver {
            dialect: dialect.clone(),
            cutter,
            source,
            is_ended: false,
            watch: watch.clone(),
        };
        let (counters, counts) = (Counters::default(), Arc::default());
        Self { receiver, sender: Sender { dialect, counters, sink, counts, watch }, to }
    }

    /// Whom we reached.
    pub fn to(&self) -> carrier::Peer {
        self.to
    }

    /// Both halves.
    pub fn split(self) -> (Receiver, Sender) {
        (self.receiver, self.sender)
    }

    /// The first words, and the answer (D-4.1).
    async fn greet(&mut self, address: &Address, within: Duration) -> Result<(), ClientError> {
        let dialect = self.sender.dialect.clone();
        let (Some(hello), Sink::Stream(_)) = (&dialect.hello, &self.sender.sink) else {
            return Ok(());
        };
        let within = within.min(hello.deadline);
        self.sender.write(&hello.client).await?;
        let (place, name) = (address.place.to_string(), dialect.name.clone());
        match timeout(within, self.receiver.hear_answer(hello)).await {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(answer))) => {
                Err(ClientError::Refused { place, dialect: name, answer: escaped(&answer) })
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(ClientError::NoAnswer { place, dialect: name, within }),
        }
    }
}

fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Whether a socket tells of the way that an earlier datagram took, which a later one may pass.
fn is_of_way(error: &io::Error) -> bool {
    let passing = [libc::EMSGSIZE, libc::EHOSTUNREACH, libc::EPROTO];
    error.raw_os_error().is_some_and(|code| passing.contains(&code))
}

/// Why datagrams do not get to `to`.
fn lost(to: SocketAddr, source: io::Error) -> ClientError {
    match source.raw_os_error() {
        Some(libc::ENETUNREACH | libc::ENODEV | libc::EINVAL) if is_many(to) => {
            ClientError::NeedsInterface { place: format!("udp://{to}"), source }
        }
        Some(libc::ECONNREFUSED) => ClientError::NobodyListens { place: format!("udp://{to}") },
        _ => source.into(),
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Source::Session(line) = &self.source {
            line.abandon();
        }
    }
}

impl Receiver {
    /// What the server answered, where that is no yes.
    async fn hear_answer(&mut self, hello: &Hello) -> io::Result<Option<Vec<u8>>> {
        let mut said = Vec::new();
        loop {
            match hello.judge_server(&said) {
                Verdict::Welcome(len) => {
                    self.cutter.push(said.get(len..).unwrap_or_default());
                    return Ok(None);
                }
                Verdict::Stranger => return Ok(Some(said)),
                Verdict::More if !self.hear_more(&mut said).await? => return Ok(Some(said)),
                Verdict::More => {}
            }
        }
    }

    /// Whether a client said our dialect's first words.
    pub(super) async fn hear_client(&mut self, hello: &Hello) -> io::Result<bool> {
        let mut said = Vec::new();
        loop {
            match hello.judge_client(&said) {
                Verdict::Welcome(len) => {
                    self.cutter.push(said.get(len..).unwrap_or_default());
                    return Ok(true);
                }
                Verdict::Stranger => return Ok(false),
                Verdict::More if !self.hear_more(&mut said).await? => return Ok(false),
                Verdict::More => {}
            }
        }
    }

    /// Reads a little more; false at the end.
    async fn hear_more(&mut self, said: &mut Vec<u8>) -> io::Result<bool> {
        let Source::Stream(read, _) = &mut self.source else { return Ok(false) };
        let mut part = [0; 512];
        let len = read.read(&mut part).await?;
        let part = part.get(..len).unwrap_or_default();
        tell(&self.watch, Seen::Received(part));
        said.extend_from_slice(part);
        Ok(len > 0)
    }

    /// What sees the other side hang up while nothing is read; none where no socket of its own tells of that.
    pub fn hang_up(&self) -> Option<HangUp> {
        match &self.source {
            Source::Stream(half, _) => half.hang_up(),
            Source::Datagrams(_) | Source::Session(_) => None,
        }
    }

    /// Who sent the last message, where each may come from somebody else: datagrams that answer one to a group.
    pub fn from(&self) -> Option<carrier::Peer> {
        match &self.source {
            Source::Stream(..) | Source::Session(_) => None,
            Source::Datagrams(hearing) => hearing.from,
        }
    }

    /// The next message; none when the other side has ended its stream. Datagrams do not end.
    pub async fn next(&mut self) -> Result<Option<Message>, ClientError> {
        let bytes = match &mut self.source {
            Source::Stream(read, buffer) => {
                let watch = |seen: Seen<'_>| tell(&self.watch, seen);
                next_of_stream(read, buffer, &mut self.cutter, &mut self.is_ended, watch).await?
            }
            Source::Datagrams(hearing) => {
                let datagram = hearing.next().await?;
                tell(&self.watch, Seen::Received(&datagram));
                let len = self.dialect.cut.trim(&datagram).len();
                Some(datagram.slice(..len))
            }
            Source::Session(line) => {
                let message = line.next().await?;
                let bytes = message.as_ref().map(|message| &message.bytes()[..]);
                tell(&self.watch, bytes.map_or(Seen::ReceivedEnd, Seen::Received));
                return Ok(message);
            }
        };
        Ok(bytes.map(|bytes| Message::new(bytes, &self.dialect)))
    }
}

impl Hearing {
    async fn next(&mut self) -> Result<Bytes, ClientError> {
        if let Some(first) = self.first.take() {
            self.from = self.only;
            return Ok(first);
        }
        loop {
            let mut part = ReadBuf::new(&mut self.buffer);
            let came = tokio::select! {
                biased;
                came = poll_fn(|cx| self.socket.poll_recv(cx, &mut part)) => came,
                error = self.socket.error(), if self.socket.is_connected() => Err(error),
            };
            let from = match came {
                Ok(from) => from,
                Err(error) if is_of_way(&error) => continue,
                Err(error) => return Err(lost(self.to, error)),
            };
            let from = carrier::Peer::udp(from);
            if self.only.is_none_or(|only| only == from) {
                self.from = Some(from);
                return Ok(Bytes::copy_from_slice(part.filled()));
            }
            tracing::debug!(%from, "a datagram of somebody else");
        }
    }
}

fn tell(watch: &Option<Watch>, seen: Seen<'_>) {
    if let Some(watch) = watch {
        watch(seen);
    }
}

async fn next_of_stream(
    read: &mut Half,
    buffer: &mut [u8],
    cutter: &mut Cutter,
    is_ended: &mut bool,
    watch: impl Fn(Seen<'_>),
) -> Result<Option<Bytes>, ClientError> {
    loop {
        if let Some(message) = cutter.next_message()? {
            return Ok(Some(message));
        }
        if *is_ended {
            return Ok(None);
        }
        match read.read(buffer).await? {
            0 => {
                *is_ended = true;
                watch(Seen::ReceivedEnd);
                if let Some(last) = cutter.finish()? {
                    return Ok(Some(last));
                }
            }
            len => {
                let part = buffer.get(..len).unwrap_or_default();
                watch(Seen::Received(part));
                cutter.push(part);
            }
        }
    }
}

impl Sender {
    /// Sends a message; the cut's header or end mark is added, but for messages that are layouts.
    pub async fn send(&mut self, payload: &[u8]) -> Result<(), ClientError> {
        if let Sink::Session(line) = &self.sink {
            tell(&self.watch, Seen::Sent(payload));
            self.counts.give(payload.len());
            patiently(&line.peer, |peer| peer.send(payload)).await?;
            self.counts.take(payload.len());
            return Ok(());
        }
        let mut out = BytesMut::new();
        let written = self.dialect.write(payload, &Fields::default(), &mut out);
        written.map_err(SendError::from)?;
        self.write(&out).await
    }

    /// Sends a message made of named values.
    pub async fn send_fields(
        &mut self,
        kind: Option<&str>,
        fields: &Fields,
    ) -> Result<(), ClientError> {
        if let Sink::Session(line) = &self.sink {
            let payload = line::payload_of(fields);
            tell(&self.watch, Seen::Sent(payload));
            self.counts.give(payload.len());
            patiently(&line.peer, |peer| peer.send_fields(kind, fields)).await?;
            self.counts.take(payload.len());
            return Ok(());
        }
        let encoded = self.dialect.encode(kind, fields, &mut self.counters);
        let bytes = encoded.map_err(SendError::from)?;
        self.write(&bytes).await
    }

    /// Bytes as they are.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        match &mut self.sink {
            Sink::Stream(write) => {
                tell(&self.watch, Seen::Sent(bytes));
                self.counts.give(bytes.len());
                let mut rest = bytes;
                while !rest.is_empty() {
                    let len = write.write(rest).await?;
                    if len == 0 {
                        return Err(io::Error::from(io::ErrorKind::WriteZero).into());
                    }
                    self.counts.take(len);
                    rest = rest.get(len..).unwrap_or_default();
                }
                write.flush().await?;
            }
            Sink::Datagrams(socket, to) => {
                let (to, mark) = (*to, self.dialect.cut.mark_bytes());
                let bytes = bytes.get(..bytes.len().saturating_sub(mark)).unwrap_or_default();
                if bytes.len() > LARGEST_BYTES {
                    return Err(ClientError::TooLarge { bytes: bytes.len() });
                }
                tell(&self.watch, Seen::Sent(bytes));
                let mut sent = poll_fn(|cx| socket.poll_send(cx, bytes, to)).await;
                if sent.as_ref().is_err_and(is_of_way) {
                    sent = poll_fn(|cx| socket.poll_send(cx, bytes, to)).await; // that may be of the one before
                }
                sent.map_err(|error| lost(to, error))?;
            }
            Sink::Session(line) => patiently(&line.peer, |peer| peer.send(bytes)).await?,
        }
        Ok(())
    }

    /// What of that has left, for who looks on meanwhile.
    pub fn progress(&self) -> Progress {
        Progress { counts: self.counts.clone(), peer: self.peer().cloned() }
    }

    /// Waits until all that was sent is with the system or the session; a queue of messages to a cabo peer may still hold it.
    pub async fn flush(&mut self) -> io::Result<()> {
        match &mut self.sink {
            Sink::Stream(write) => write.flush().await,
            Sink::Datagrams(..) => Ok(()),
            Sink::Session(line) => {
                line.peer.taken().await;
                Ok(())
            }
        }
    }

    /// Says that nothing more comes from here; the other side may go on.
    pub async fn finish(&mut self) -> io::Result<()> {
        match &mut self.sink {
            Sink::Stream(write) => {
                tell(&self.watch, Seen::SentEnd);
                write.shutdown().await
            }
            Sink::Datagrams(..) => Ok(()),
            Sink::Session(line) => {
                tell(&self.watch, Seen::SentEnd);
                line.peer.finish();
                Ok(())
            }
        }
    }

    /// The way to a cabo peer.
    pub(super) fn line(&self) -> Option<&Line> {
        match &self.sink {
            Sink::Session(line) => Some(line),
            Sink::Stream(_) | Sink::Datagrams(..) => None,
        }
    }

    pub(super) fn dialect_name(&self) -> String {
        self.dialect.name.clone()
    }
}
