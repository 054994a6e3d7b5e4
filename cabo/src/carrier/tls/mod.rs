//! | tls | framed | reliable | ordered | secure | largest datagram |
//! |---|---|---|---|---|---|
//! | | no | yes | yes | yes | - |
//!
//! Byte streams over TLS 1.3, or 1.2 with foreign programs, over TCP, by rustls. A connection is accepted before its
//! handshake: [`Accepted::secured`] shakes hands in the task that serves it, so that a silent client holds up nobody.
//!
//! `settings` is what an address says, `files` what rustls is configured with, `verify` looks at servers, `stream` is
//! what comes out, `words` is what went wrong. Neighbours: `mod.rs` (the traits), `tcp.rs` below.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use cabo_proto::wire::params::Channel;
use rustls::ProtocolVersion;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use self::stream::{Buffered, TlsStream};
use super::tcp::{self, Tcp};
use super::{Accepted, ByteStream, Connected, Listener, OpenError, Peer, Promises};

pub use self::settings::{ConnectSettings, ListenSettings, Pair};

mod files;
mod settings;
mod stream;
mod verify;
mod words;

/// What both ends of a cabo session name in the handshake of the channel around it (S-7.5).
pub const CABO: &[&[u8]] = &[b"cabo/1"];
/// What programs that know nothing of cabo name: nothing.
pub const FOREIGN: &[&[u8]] = &[];

/// A client has this long for the handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Who does not speak TLS is told so, and has this long to hear it.
const FAREWELL_TIME: Duration = Duration::from_secs(1);
const NO_TLS_LINE: &[u8] = b"This port speaks TLS; connect with tls:// in place of tcp://\r\n";
/// A TLS record that begins a handshake begins with this.
const HANDSHAKE_RECORD: u8 = 22;
/// What a stranger said first is shown up to here.
const SHOWN_BYTES: usize = 16;
/// RFC 9266.
const EXPORTER: &[u8] = b"EXPORTER-Channel-Binding";

/// Accepts TCP connections that are to be secured.
#[derive(Debug)]
pub struct Tls {
    below: Tcp,
    settings: ListenSettings,
    alpn: Alpn,
    securing: Mutex<Securing>,
}

/// Names of protocols, as one of [`CABO`] and [`FOREIGN`].
type Alpn = &'static [&'static [u8]];

/// What an accepted connection needs before the first byte of its user flows.
#[derive(Clone, Debug)]
pub(in crate::carrier) struct Securing {
    config: Arc<rustls::ServerConfig>,
}

impl Tls {
    /// Listens as `settings` say, over `below`.
    pub fn over(below: Tcp, settings: &ListenSettings, alpn: Alpn) -> Result<Self, OpenError> {
        let securing = Mutex::new(Securing::read(settings, alpn)?);
        Ok(Self { below, settings: settings.clone(), alpn, securing })
    }

    fn securing(&self) -> MutexGuard<'_, Securing> {
        self.securing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener for Tls {
    fn promises(&self) -> Promises {
        Promises { secure: true, ..Promises::STREAM }
    }

    fn local(&self) -> Peer {
        self.below.local()
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        let accepted = ready!(self.below.poll_accept(cx))?;
        Poll::Ready(Ok(Accepted { securing: Some(self.securing().clone()), ..accepted }))
    }

    fn renew(&self) -> Option<Result<(), OpenError>> {
        let read = Securing::read(&self.settings, self.alpn);
        Some(read.map(|securing| *self.securing() = securing))
    }
}

/// Whether these are the first words of a TLS client: a record of the handshake, and in it its hello.
pub fn begins_tls(bytes: &[u8]) -> bool {
    const CLIENT_HELLO: u8 = 1;
    matches!(bytes, [HANDSHAKE_RECORD, 3, _, _, _, CLIENT_HELLO, ..])
}

impl Securing {
    /// Reads the files that `settings` name.
    fn read(settings: &ListenSettings, alpn: Alpn) -> Result<Self, OpenError> {
        let config = files::server_config(settings, alpn)
            .map_err(|problem| OpenError::TlsSetup { what: settings.place.clone(), problem })?;
        Ok(Self { config: Arc::new(config) })
    }

    /// Shakes hands. The error is one line about the client.
    pub(in crate::carrier) async fn secure(
        self,
        below: Box<dyn ByteStream>,
    ) -> io::Result<(Box<dyn ByteStream>, Option<Channel>)> {
        let shaking = self.shake(below);
        timeout(HANDSHAKE_TIME, shaking).await.unwrap_or_else(|_| {
            let text = format!("no TLS handshake within {HANDSHAKE_TIME:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        })
    }

    async fn shake(
        self,
        below: Box<dyn ByteStream>,
    ) -> io::Result<(Box<dyn ByteStream>, Option<Channel>)> {
        let mut below = Buffered::new(below);
        match below.first().await?.first() {
            Some(&HANDSHAKE_RECORD) => {}
            Some(_) => return Err(turn_away(below).await),
            None => {
                let text = "it closed without a word";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
        }
        let shaken = TlsAcceptor::from(self.config).accept(below).into_fallible().await;
        let stream = match shaken {
            Ok(stream) => stream,
            Err((error, below)) => {
                hear_out(below, b"").await; // it was told why
                return Err(io::Error::new(error.kind(), words::of_io(&error)));
            }
        };
        let (_, connection) = stream.get_ref();
        let channel = channel(connection)?;
        Ok((Box::new(TlsStream::new(stream.into())), channel))
    }
}

/// Tells somebody who speaks something else, in one readable line.
async fn turn_away(mut below: Buffered) -> io::Error {
    let first = below.first().await.unwrap_or_default();
    let shown = first.get(..SHOWN_BYTES).unwrap_or(first).escape_ascii().to_string();
    hear_out(below, NO_TLS_LINE).await;
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("it speaks no TLS; it began with \"{shown}\""),
    )
}

/// Says last words and reads what still comes for a while, or a reset would destroy them.
async fn hear_out(mut below: Buffered, words: &[u8]) {
    let mut rest = vec![0; 4096];
    let saying = async {
        below.write_all(words).await?;
        below.shutdown().await?;
        while below.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(FAREWELL_TIME, saying).await; // who goes on talking is cut off
}

/// What binds a handshake inside to this channel. TLS 1.2 is for foreign programs alone.
fn channel<D>(connection: &rustls::ConnectionCommon<D>) -> io::Result<Option<Channel>> {
    if connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return Ok(None);
    }
    let bytes = connection.export_keying_material([0; 32], EXPORTER, Some(b""));
    bytes.map(|bytes| Some(Channel(bytes))).map_err(io::Error::other)
}

/// Connects to `address`; the connection and its handshake have the deadline `within` each.
pub async fn connect(
    address: SocketAddr,
    settings: &ConnectSettings,
    alpn: &[&[u8]],
    within: Duration,
) -> Result<Connected, OpenError> {
    let connector = Connector::new(settings, alpn)?;
    let below = tcp::connect(address, within).await.map_err(OpenError::under_tls)?;
    connector.secure(below, within).await
}

/// What a client has ready before it connects: what it trusts, and what it shows.
#[derive(Debug)]
pub struct Connector {
    config: Arc<rustls::ClientConfig>,
    settings: ConnectSettings,
}

impl Connector {
    /// Reads the files that `settings` name.
    pub fn new(settings: &ConnectSettings, alpn: &[&[u8]]) -> Result<Self, OpenError> {
        let config = files::client_config(settings, alpn)
            .map_err(|problem| OpenError::TlsSetup { what: settings.place.clone(), problem })?;
        Ok(Self { config: Arc::new(config), settings: settings.clone() })
    }

    /// Shakes hands over a TCP connection, or fails `within` the deadline.
    pub async fn secure(self, below: Connected, within: Duration) -> Result<Connected, OpenError> {
        let what = format!("tls://{}", below.to);
        if self.settings.is_unverified {
            tracing::warn!(
                "{what}: its certificate is not verified (verify=no): it may be anybody"
            );
        }
        let connector = TlsConnector::from(self.config);
        let shaking = connector.connect(self.settings.name, Buffered::new(below.stream));
        let stream = match timeout(within, shaking).await {
            Ok(shaken) => shaken.map_err(|error| refused(&what, &error))?,
            Err(_elapsed) => return Err(OpenError::Timeout { what, seconds: within.as_secs() }),
        };
        let (_, connection) = stream.get_ref();
        let channel = channel(connection).map_err(|error| refused(&what, &error))?;
        let stream = Box::new(TlsStream::new(stream.into()));
        Ok(Connected { stream, to: below.to, peer_user: None, channel })
    }
}

/// The error of a handshake: of the socket, or of who is at its other end.
fn refused(what: &str, error: &io::Error) -> OpenError {
    match error.raw_os_error() {
        Some(code) => OpenError::of(what, "shake hands", io::Error::from_raw_os_error(code)),
        None => OpenError::TlsRefused { what: what.to_owned(), problem: words::of_io(error) },
    }
}
