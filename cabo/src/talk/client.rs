//! The other end of a conversation with a foreign program, for who prefers to await.

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
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadBuf, ReadHalf, WriteHalf, split};
use tokio::time::timeout;

use super::place::{PlaceError, Way, with_port_of};
use super::{Message, SendError};
use crate::address::{Address, AddressError};
use crate::carrier::open_udp::{LARGEST_BYTES, OpenUdp};
use crate::carrier::{self, ByteStream};

/// A connection has this long to be made.
const CONNECT_TIME: Duration = Duration::from_secs(10);
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
        "{place}: the server turned us away: its answer to {dialect}'s first words is {answer:?}"
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
    /// What it sent is no message.
    #[error(transparent)]
    Malformed(#[from] CutError),
    /// A message that cannot be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
}

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
}

/// The half that sends.
pub struct Sender {
    dialect: Arc<Dialect>,
    counters: Counters,
    sink: Sink,
}

enum Source {
    Stream(ReadHalf<Box<dyn ByteStream>>, Vec<u8>),
    Datagrams(Arc<OpenUdp>, Vec<u8>),
}

enum Sink {
    Stream(WriteHalf<Box<dyn ByteStream>>),
    Datagrams(Arc<OpenUdp>, SocketAddr),
}

impl Client {
    /// Connects and says the first words of the dialect, whose port is taken where the URL names none.
    pub async fn connect(address: &Address, dialect: Arc<Dialect>) -> Result<Self, ClientError> {
        let address = with_port_of(address, &dialect);
        address.check_connect()?;
        let cutter = Cutter::new(dialect.cut.clone(), dialect.limit_bytes);
        let counters = Counters::default();
        let (source, sink, to) = match Way::open(&address, CONNECT_TIME).await? {
            Way::Stream(stream, to) => {
                let (read, write) = split(stream);
                let buffer = vec![0; READ_BYTES];
                (Source::Stream(read, buffer), Sink::Stream(write), to)
            }
            Way::Datagrams(socket, to) => {
                let socket = Arc::new(socket);
                let buffer = vec![0; LARGEST_BYTES];
                let source = Source::Datagrams(socket.clone(), buffer);
                (source, Sink::Datagrams(socket, to), carrier::Peer::udp(to))
            }
        };
        let receiver = Receiver { dialect: dialect.clone(), cutter, source, is_ended: false };
        let mut client = Self { receiver, sender: Sender { dialect, counters, sink }, to };
        client.greet(&address).await?;
        Ok(client)
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
    async fn greet(&mut self, address: &Address) -> Result<(), ClientError> {
        let dialect = self.sender.dialect.clone();
        let (Some(hello), Sink::Stream(write)) = (&dialect.hello, &mut self.sender.sink) else {
            return Ok(());
        };
        write.write_all(&hello.client).await?;
        let (place, name) = (address.place.to_string(), dialect.name.clone());
        match timeout(hello.deadline, self.receiver.hear_answer(hello)).await {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(answer))) => {
                Err(ClientError::Refused { place, dialect: name, answer: escaped(&answer) })
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(ClientError::NoAnswer { place, dialect: name, within: hello.deadline }),
        }
    }
}

fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

impl Receiver {
    /// What the server answered, where that is no yes.
    async fn hear_answer(&mut self, hello: &Hello) -> io::Result<Option<Vec<u8>>> {
        let Source::Stream(read, _) = &mut self.source else { return Ok(None) };
        let mut said = Vec::new();
        let mut part = [0; 512];
        loop {
            match hello.judge_server(&said) {
                Verdict::Welcome(len) => {
                    self.cutter.push(said.get(len..).unwrap_or_default());
                    return Ok(None);
                }
                Verdict::Stranger => return Ok(Some(said)),
                Verdict::More => match read.read(&mut part).await? {
                    0 => return Ok(Some(said)),
                    len => said.extend_from_slice(part.get(..len).unwrap_or_default()),
                },
            }
        }
    }

    /// The next message; none when the other side has ended its stream. Datagrams do not end.
    pub async fn next(&mut self) -> Result<Option<Message>, ClientError> {
        let bytes = match &mut self.source {
            Source::Stream(read, buffer) => {
                next_of_stream(read, buffer, &mut self.cutter, &mut self.is_ended).await?
            }
            Source::Datagrams(socket, buffer) => {
                let mut part = ReadBuf::new(buffer);
                poll_fn(|cx| socket.poll_recv(cx, &mut part)).await?;
                let trimmed = self.dialect.cut.trim(part.filled());
                Some(Bytes::copy_from_slice(trimmed))
            }
        };
        Ok(bytes.map(|bytes| Message::new(bytes, self.dialect.clone())))
    }
}

async fn next_of_stream(
    read: &mut ReadHalf<Box<dyn ByteStream>>,
    buffer: &mut [u8],
    cutter: &mut Cutter,
    is_ended: &mut bool,
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
                if let Some(last) = cutter.finish()? {
                    return Ok(Some(last));
                }
            }
            len => cutter.push(buffer.get(..len).unwrap_or_default()),
        }
    }
}

impl Sender {
    /// Sends a message; the cut's header or end mark is added, but for messages that are layouts.
    pub async fn send(&mut self, payload: &[u8]) -> Result<(), ClientError> {
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
        let encoded = self.dialect.encode(kind, fields, &mut self.counters);
        let bytes = encoded.map_err(SendError::from)?;
        self.write(&bytes).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        match &mut self.sink {
            Sink::Stream(write) => {
                write.write_all(bytes).await?;
                write.flush().await?;
            }
            Sink::Datagrams(socket, to) => {
                let (to, mark) = (*to, self.dialect.cut.mark_bytes());
                let bytes = bytes.get(..bytes.len().saturating_sub(mark)).unwrap_or_default();
                poll_fn(|cx| socket.poll_send(cx, bytes, to)).await?;
            }
        }
        Ok(())
    }

    /// Says that nothing more comes from here; the other side may go on.
    pub async fn finish(&mut self) -> io::Result<()> {
        match &mut self.sink {
            Sink::Stream(write) => write.shutdown().await,
            Sink::Datagrams(..) => Ok(()),
        }
    }
}
