//! Foreign programs that come to one socket, one after another, for who prefers to await: each is a conversation as a
//! client has it.
//!
//! No cabo peers come here: a session needs an identity to show and rules by which it is let in, and over UDP its packets
//! share a socket with everybody else's, where here the first who sends gets the socket whole. A server has all that, and
//! [`Server::guests`](super::Server::guests) awaits its peers of both sorts in the same way. Neighbours: `client` is the
//! conversation, `guests` and `server` are for many at once.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use cabo_proto::dialect::Dialect;
use cabo_proto::dialect::hello::Hello;
use tokio::io::ReadBuf;
use tokio::time::timeout;

use super::place::{Door, with_port_of};
use super::{BindError, Client, ClientError, Watch};
use crate::address::Address;
use crate::carrier::open_udp::{LARGEST_BYTES, OpenUdp};
use crate::carrier::{self, Accepted};
use crate::endpoint::listen::with_port;

/// A listening socket.
pub struct Callers {
    door: Door,
    at: Address,
    dialect: Arc<Dialect>,
}

impl Callers {
    /// Listens, at the dialect's port where the URL names none.
    pub async fn listen(address: &Address, dialect: Arc<Dialect>) -> Result<Self, BindError> {
        address.check_listen()?;
        let address = with_port_of(address, &dialect);
        let door = Door::open(&address).await?;
        let at = with_port(&address, door.local().port());
        Ok(Self { door, at, dialect })
    }

    /// Where it listens, with the port that it really got.
    pub fn at(&self) -> &Address {
        &self.at
    }

    /// The next call, and whoever calls after it. Over UDP it is by whoever sends first, and the socket is given to that
    /// conversation: nobody else is heard any more.
    pub async fn next(self) -> Result<(Call, Option<Self>), ClientError> {
        let Self { door, at, dialect } = self;
        match door {
            Door::Streams(listener, scheme) => {
                let accepted = poll_fn(|cx| listener.poll_accept(cx)).await?;
                let call = Call { way: Way::Stream(accepted), dialect: dialect.clone() };
                Ok((call, Some(Self { door: Door::Streams(listener, scheme), at, dialect })))
            }
            Door::Datagrams(socket) => {
                let (from, first) = first_datagram(&socket).await?;
                Ok((Call { way: Way::Datagrams(socket, from, first), dialect }, None))
            }
        }
    }
}

/// Somebody who calls, before he is listened to.
pub struct Call {
    way: Way,
    dialect: Arc<Dialect>,
}

enum Way {
    Stream(Accepted),
    Datagrams(OpenUdp, SocketAddr, Bytes),
}

impl Call {
    /// Who it is.
    pub fn from(&self) -> carrier::Peer {
        match &self.way {
            Way::Stream(accepted) => accepted.from,
            Way::Datagrams(_, from, _) => carrier::Peer::udp(*from),
        }
    }

    /// Begins the conversation. Who does not say the dialect's first words in time is turned away; who accepts the others
    /// need not wait for that.
    pub async fn answer(self, watch: Option<Watch>) -> Result<Client, ClientError> {
        let Self { way, dialect } = self;
        let accepted = match way {
            Way::Stream(accepted) => accepted,
            Way::Datagrams(socket, from, first) => {
                let (socket, first) = (Arc::new(socket), Some(first));
                return Ok(Client::of_datagrams(socket, from, first, dialect, watch));
            }
        };
        let accepted = accepted.secured().await.map_err(ClientError::Unsecured)?;
        let (stream, from) = (accepted.stream, accepted.from);
        let mut client = Client::of_stream(stream, from, dialect.clone(), watch);
        match &dialect.hello {
            Some(hello) if !welcome(&mut client, hello).await => {
                Err(ClientError::Stranger { dialect: dialect.name.clone() })
            }
            Some(_) | None => Ok(client),
        }
    }
}

async fn first_datagram(socket: &OpenUdp) -> Result<(SocketAddr, Bytes), ClientError> {
    let mut buffer = vec![0; LARGEST_BYTES];
    let mut part = ReadBuf::new(&mut buffer);
    let from = poll_fn(|cx| socket.poll_recv(cx, &mut part)).await?;
    let from = carrier::Peer::udp(from).socket_addr().unwrap_or(from);
    Ok((from, Bytes::copy_from_slice(part.filled())))
}

/// Answers a client's first words (D-4.1); false where they are not those of the dialect.
async fn welcome(client: &mut Client, hello: &Hello) -> bool {
    let heard = timeout(hello.deadline, client.receiver.hear_client(hello)).await;
    let is_welcome = matches!(heard, Ok(Ok(true)));
    let answer = if is_welcome { &hello.accept } else { &hello.refuse };
    let is_said = client.sender.write(answer).await.is_ok();
    if !is_welcome {
        let _ = client.sender.finish().await; // it was turned away, whether or not it hears so
    }
    is_welcome && is_said
}
