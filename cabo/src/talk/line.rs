//! A client's way to a cabo peer: its end of a session of messages (M-11), and what only such a client can do.
//!
//! Neighbours: `client` is the conversation; `session` is a server's end, `guests` a server's conversations as a client has
//! its own.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use cabo_proto::dialect::PAYLOAD;
use cabo_proto::dialect::value::{Fields, Value};
use cabo_proto::wire::message::Role;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::calls::{Answer, Calls};
use super::client::{Client, ClientError, Receiver, Sender};
use super::engine::Engine;
use super::house::own_client;
use super::inbox::Inbox;
use super::place::with_port_of;
use super::server::Handlers;
use super::session::{Both, SERVICE, last_words};
use super::stream::Conversation;
use super::{Closed, Message, Peer, RequestError, SendError, Settings};
use crate::address::Address;
use crate::client;
use crate::connection::Connection;
use crate::endpoint::Task;
use crate::request::opening;
use crate::server::UNKNOWN_SERVICE;
use crate::stream::{SessionEnded, StreamReset};

/// A client's end of a session of messages. It ends when the last half of the client is dropped.
pub(super) struct Line {
    pub(super) peer: Peer,
    inbox: Arc<Inbox>,
    left: watch::Receiver<bool>,
    /// Of a client: its server may have to ask whether to let us in.
    connection: Option<Connection>,
}

/// Opens the stream of messages of a client, and starts its conversation by `spawn`.
async fn call(
    connection: Connection,
    settings: Settings,
    spawn: impl FnOnce(Task),
) -> Result<Line, ClientError> {
    let settings = Arc::new(settings);
    let (send, recv) = connection.open().await.map_err(ClientError::Ended)?;
    let mut stream = Both { send, recv };
    let words = opening(SERVICE).unwrap_or_else(|_| unreachable!("it is a name"));
    stream.send.write_all(&words).await?;
    let inbox = Arc::new(Inbox::default());
    let (tell, left) = watch::channel(false);
    let into = inbox.clone();
    let handlers = Handlers::of_client(move |message, peer| into.put(message, peer));
    let peer = Peer::of_session(handlers.next_number(), &connection, settings.clone(), true);
    let conversation = Conversation::new(Box::new(stream), peer.clone(), settings, handlers);
    let (into, ending) = (inbox.clone(), connection.clone());
    spawn(Box::pin(async move {
        let closed = conversation.run().await;
        let (code, why) = last_words(&closed);
        into.end(closed);
        ending.say_goodbye(code, &why).await;
        let _ = tell.send(true); // nobody waits for it
    }));
    Ok(Line { peer, inbox, left, connection: Some(connection) })
}

impl Line {
    /// A server's way to a peer of its own, of whichever sort.
    pub(super) fn of_guest(peer: Peer, inbox: Arc<Inbox>, left: watch::Receiver<bool>) -> Self {
        Self { peer, inbox, left, connection: None }
    }

    /// Ends the conversation; the server need not go on with what was asked.
    fn hang_up(&self) {
        for id in self.peer.shared().calls().map(Calls::give_up).unwrap_or_default() {
            self.peer.tell(Role::Cancel(id), "");
        }
        self.peer.close();
    }

    /// Ends the conversation, and waits until that is done.
    pub(super) async fn leave(&self) -> Result<(), ClientError> {
        if let Some(connection) = &self.connection {
            let _ = connection.admitted().await; // before that nothing is heard, and its owner may take a while
        }
        self.hang_up();
        let _ = self.left.clone().wait_for(|is_left| *is_left).await; // it is done, too, where its task is no more
        let was_heard = self.connection.as_ref().is_none_or(Connection::was_admitted);
        if was_heard { Ok(()) } else { Err(ClientError::NotLetIn) }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.hang_up();
    }
}

impl Line {
    /// The next message; none when the other side has ended its half.
    pub(super) async fn next(&self) -> Result<Option<Message>, ClientError> {
        match poll_fn(|cx| self.inbox.poll_take(cx, &self.peer)).await {
            Ok(message) => Ok(Some(message)),
            Err(closed) => ended(closed).map(|()| None),
        }
    }

    /// Nobody takes messages any more.
    pub(super) fn abandon(&self) {
        self.inbox.abandon(&self.peer);
    }
}

/// Whether a conversation ended as it should.
fn ended(closed: Closed) -> Result<(), ClientError> {
    match closed {
        Closed::Broken(error) => Err(error.into()),
        Closed::Malformed(error) => Err(error.into()),
        Closed::Io(error) => {
            let inner = error.get_ref();
            if let Some(SessionEnded(ended)) = inner.and_then(|inner| inner.downcast_ref()) {
                return Err(ClientError::Ended(ended.clone()));
            }
            match inner.and_then(|inner| inner.downcast_ref()) {
                Some(StreamReset(UNKNOWN_SERVICE)) => Err(ClientError::NoService),
                Some(StreamReset(_)) | None => Err(error.into()),
            }
        }
        Closed::Panicked | Closed::NoRoom(_) => Err(io::Error::other(closed.to_string()).into()),
        Closed::Idle(_) | Closed::Unfinished(_) | Closed::Dripping(..) | Closed::TooSlow => {
            Err(io::Error::new(io::ErrorKind::TimedOut, closed.to_string()).into())
        }
        Closed::Ended
        | Closed::GoingDown
        | Closed::Stranger(_)
        | Closed::NoGreeting(_)
        | Closed::Refused(_)
        | Closed::Cabo
        | Closed::Elsewhere
        | Closed::Astray
        | Closed::NoMessages(_)
        | Closed::TooMany(_)
        | Closed::MadeRoom
        | Closed::Stuck(_)
        | Closed::Unsecured(_) => Ok(()),
    }
}

/// The payload among the values of a message.
pub(super) fn payload_of(fields: &Fields) -> &[u8] {
    fields.get(PAYLOAD).and_then(Value::as_bytes).unwrap_or_default()
}

/// Sends as soon as there is room.
pub(super) async fn patiently(
    peer: &Peer,
    send: impl Fn(&Peer) -> Result<(), SendError>,
) -> Result<(), SendError> {
    loop {
        match send(peer) {
            Err(SendError::Full { .. }) => peer.room().await,
            sent => return sent,
        }
    }
}

impl Client {
    /// Connects to a cabo peer at a URL of any carrier, as the user that this is, and knows it again by its key.
    pub async fn connect_cabo(url: impl AsRef<str>) -> Result<Self, ClientError> {
        let address: Address = url.as_ref().parse()?;
        Self::connect_over(&own_client()?, &address, Settings::default()).await
    }

    /// Connects to a cabo peer by a client of sessions, which has an identity and knows servers. The dialect of the
    /// settings says what payloads hold.
    pub async fn connect_over(
        over: &client::Client,
        address: &Address,
        settings: Settings,
    ) -> Result<Self, ClientError> {
        let address = with_port_of(address, &settings.dialect);
        Self::over(over.connect(&address).await?.connection, settings).await
    }

    /// Speaks in a session that there is already.
    pub async fn over(connection: Connection, settings: Settings) -> Result<Self, ClientError> {
        Self::begin(connection, settings, |task| drop(tokio::spawn(task))).await
    }

    /// The same as [`Self::connect_over`], with all its tasks on `engine`.
    pub(super) async fn connect_on(
        engine: Arc<Engine>,
        over: &client::Client,
        address: &Address,
        settings: Settings,
    ) -> Result<Self, ClientError> {
        let address = with_port_of(address, &settings.dialect);
        let connection = over.connect(&address).await?.connection;
        Self::begin(connection, settings, engine.spawner()).await
    }

    pub(super) async fn begin(
        connection: Connection,
        settings: Settings,
        spawn: impl FnOnce(Task),
    ) -> Result<Self, ClientError> {
        let (dialect, to) = (settings.dialect.clone(), connection.from());
        Ok(Self::of_line(call(connection, settings, spawn).await?, to, dialect))
    }

    /// The other side, where it is a cabo peer or a guest of ours: what is sent through any clone goes out in order.
    pub fn peer(&self) -> Option<&Peer> {
        self.sender.peer()
    }

    /// Ends the conversation, and waits until a cabo peer has all that was sent. The error says that it never let us in.
    pub async fn close(self) -> Result<(), ClientError> {
        let (receiver, mut sender) = self.split();
        drop(receiver);
        sender.close().await
    }
}

impl Receiver {
    /// Calls this for every message from now on, on a task of the runtime, until the conversation ends.
    pub fn on_receive(mut self, mut call: impl FnMut(Message) + Send + 'static) -> JoinHandle<()> {
        tokio::spawn(async move {
            while let Ok(Some(message)) = self.next().await {
                call(message);
            }
        })
    }
}

impl Sender {
    /// Sends a one-way message of a kind to a cabo peer.
    pub async fn send_as(&mut self, kind: &str, payload: &[u8]) -> Result<(), ClientError> {
        let peer = self.needs_cabo("kinds of messages")?;
        Ok(patiently(peer, |peer| peer.send_as(kind, payload)).await?)
    }

    /// Asks a cabo peer and awaits its answer for so long; dropped before, the request is cancelled.
    pub fn request(
        &self,
        kind: &str,
        payload: impl AsRef<[u8]>,
        within: Duration,
    ) -> Result<Answer, ClientError> {
        Ok(self.needs_cabo("requests")?.request(kind, payload, within))
    }

    /// The same as soon as there is room for it; the time of the answer begins then.
    pub(super) async fn asking(
        &mut self,
        kind: &str,
        payload: &[u8],
        within: Duration,
    ) -> Result<Answer, SendError> {
        let peer = self.needs_cabo("requests")?;
        loop {
            let answer = peer.request(kind, payload, within);
            match answer.refusal() {
                Some(SendError::Full { .. }) => peer.room().await,
                Some(_) | None => return Ok(answer),
            }
        }
    }

    /// Asks as soon as there is room, and awaits the answer.
    pub(super) async fn ask(
        &mut self,
        kind: &str,
        payload: &[u8],
        within: Duration,
    ) -> Result<Message, RequestError> {
        self.asking(kind, payload, within).await?.await
    }

    /// The other side, where it is a cabo peer or a guest of ours.
    pub fn peer(&self) -> Option<&Peer> {
        self.line().map(|line| &line.peer)
    }

    fn needs_cabo(&self, what: &'static str) -> Result<&Peer, SendError> {
        self.peer().ok_or_else(|| SendError::Foreign(what, self.dialect_name()))
    }

    /// Ends the conversation, and waits until a cabo peer has all that was sent. The error says that it never let us in.
    pub async fn close(&mut self) -> Result<(), ClientError> {
        match self.line() {
            Some(line) => line.leave().await,
            None => {
                let _ = self.finish().await; // the other side has left before
                Ok(())
            }
        }
    }
}
