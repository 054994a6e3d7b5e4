//! The same numbered messages over a TCP socket, a UDP socket and a multicast group, at the same steady rate.
//!
//! Both ends are `cabo::talk`, as any program would use it; the receivers' times and the times in the messages are of one
//! clock, for both ends are this process.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use cabo::address::{self, Address};
use cabo::proto::dialect::Dialect;
use cabo::proto::dialect::value::{Fields, Value};
use cabo::talk::client::Sender;
use cabo::talk::{Client, Message, Server, Settings};
use tokio::runtime::Builder;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::account::Arrival;
use crate::cmd::demo::stage::Place;

/// 64 bytes: which message it is, and when it was sent.
const LAYOUT: &str = "struct:!L:number Q:sent_nanoseconds 52s:text";
pub(super) const MESSAGES: u32 = 400;
pub(super) const INTERVAL: Duration = Duration::from_millis(5);
/// Receivers in the multicast group.
pub(super) const MEMBERS: usize = 3;
const LISTENING_TIME: Duration = Duration::from_secs(5);
/// Between the connection and the first message, so that no row begins before the others.
const BREATH: Duration = Duration::from_millis(50);
/// Between two tries to connect.
const PAUSE: Duration = Duration::from_millis(200);
/// More than this of one way is no traffic of ours.
const ARRIVALS_MAX: usize = 8 * MESSAGES as usize;

/// A way to send.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Way {
    Tcp,
    Udp,
    Group,
}

/// Where everything that arrives is written down.
pub(super) struct Board {
    origin: Instant,
    came: Mutex<BTreeMap<(Way, usize), Vec<Arrival>>>,
    /// The last message came over TCP, and so all did.
    pub(super) is_tcp_done: Notify,
}

impl Board {
    pub(super) fn new() -> Self {
        Self { origin: Instant::now(), came: Mutex::default(), is_tcp_done: Notify::new() }
    }

    /// What came to a receiver of that way.
    pub(super) fn of(&self, way: Way, member: usize) -> Vec<Arrival> {
        self.lock().get(&(way, member)).cloned().unwrap_or_default()
    }

    fn note(&self, way: Way, member: usize, message: &Message) {
        let arrived = self.origin.elapsed();
        let Ok(decoded) = message.decode() else { return };
        let value = |name| decoded.fields.get(name).and_then(Value::as_int);
        let number = value("number").and_then(|number| u32::try_from(number).ok());
        let sent = value("sent_nanoseconds").and_then(|sent| u64::try_from(sent).ok());
        let (Some(number), Some(sent)) = (number, sent.map(Duration::from_nanos)) else { return };
        let mut came = self.lock();
        let came = came.entry((way, member)).or_default();
        if came.len() < ARRIVALS_MAX {
            came.push(Arrival { number, sent, arrived });
        }
        if way == Way::Tcp && number == MESSAGES - 1 {
            self.is_tcp_done.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Way, usize), Vec<Arrival>>> {
        self.came.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs until it is dropped.
pub(super) struct Receiving {
    /// Where to send, by way.
    to: BTreeMap<Way, Address>,
    _stop: oneshot::Sender<()>,
}

impl Receiving {
    /// Starts all receivers on the first host.
    pub(super) fn start(place: &Place, board: &Arc<Board>) -> anyhow::Result<Self> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (ip, interface) = place.receives_at();
        let by = place.sends_by();
        let board = Arc::clone(board);
        place.spawn_server(move || {
            let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { return };
            runtime.block_on(async {
                let listening = listen(&ip, [&interface, &by], &board).await;
                let _ = ready.send(listening); // nobody waits any more: we shall be stopped soon
                let _ = stopped.await; // nothing is ever sent; the other half is dropped
            });
            runtime.shutdown_timeout(Duration::from_millis(100));
        })?;
        let to = is_ready.recv_timeout(LISTENING_TIME).context("the receivers do not start")??;
        Ok(Self { to, _stop: stop })
    }
}

async fn listen(
    ip: &str,
    [interface, by]: [&str; 2],
    board: &Arc<Board>,
) -> anyhow::Result<BTreeMap<Way, Address>> {
    let mut to = BTreeMap::new();
    for (way, url) in [(Way::Tcp, format!("tcp://{ip}:0")), (Way::Udp, format!("udp://{ip}:0"))] {
        to.insert(way, receiver(&url, way, 0, board).await?);
    }
    let group = |port, by| format!("udp://239.192.7.7:{port}?if={by}");
    let first = receiver(&group(0, interface), Way::Group, 0, board).await?;
    let address::Place::Udp(host) = &first.place else { bail!("{first} is no group") };
    let port = host.port_or_default();
    for member in 1..MEMBERS {
        receiver(&group(port, interface), Way::Group, member, board).await?;
    }
    to.insert(Way::Group, format!("{}&ttl=1", group(port, by)).parse()?);
    Ok(to)
}

/// A server that notes what comes.
async fn receiver(
    url: &str,
    way: Way,
    member: usize,
    board: &Arc<Board>,
) -> anyhow::Result<Address> {
    let board = Arc::clone(board);
    let dialect = Arc::new(Dialect::parse(LAYOUT)?);
    let mut server = Server::bind([url])?
        .settings(Settings { dialect, ..Settings::default() })
        .on_receive(move |message, _| board.note(way, member, &message));
    let listening = server.listen().await?;
    tokio::spawn(server.serve(pending()));
    listening.into_iter().next().context("nothing listens")
}

/// What was sent: how many messages, or why not all.
pub(super) type Sent = BTreeMap<Way, (u32, Option<String>)>;

/// Starts to send on the second host. What was sent comes back when all is; the sockets stay open until `Sending` is
/// dropped.
pub(super) struct Sending {
    pub(super) sent: oneshot::Receiver<Sent>,
    _stop: oneshot::Sender<()>,
}

impl Sending {
    pub(super) fn start(
        place: &Place,
        receiving: &Receiving,
        board: &Arc<Board>,
        deadline: Instant,
    ) -> anyhow::Result<Self> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (done, sent) = oneshot::channel();
        let (to, origin) = (receiving.to.clone(), board.origin);
        place.spawn_client(move || {
            let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { return };
            runtime.block_on(async {
                let (sent, _open) = send_all(to, origin, deadline).await;
                let _ = done.send(sent); // nobody waits any more: we shall be stopped soon
                let _ = stopped.await; // nothing is ever sent; the other half is dropped
            });
            runtime.shutdown_timeout(Duration::from_millis(100));
        })?;
        Ok(Self { sent, _stop: stop })
    }
}

/// Connects, then sends over all at once. Who was connected stays so.
async fn send_all(
    to: BTreeMap<Way, Address>,
    origin: Instant,
    deadline: Instant,
) -> (Sent, Vec<Sender>) {
    let (mut senders, mut sent, mut open) = (Vec::new(), Sent::new(), Vec::new());
    for (way, address) in to {
        match connect(&address, deadline).await {
            Ok(client) => senders.push((way, client.split().1)),
            Err(error) => drop(sent.insert(way, (0, Some(error.to_string())))),
        }
    }
    let start = Instant::now() + BREATH;
    let mut rows = JoinSet::new();
    for (way, sender) in senders {
        rows.spawn(send_row(way, sender, origin, start));
    }
    while let Some(row) = rows.join_next().await {
        let Ok((way, count, error, sender)) = row else { continue };
        sent.insert(way, (count, error));
        open.push(sender);
    }
    (sent, open)
}

/// On a bad cable even the first packets may all be lost: it tries again while there is time.
async fn connect(address: &Address, deadline: Instant) -> anyhow::Result<Client> {
    let dialect = Arc::new(Dialect::parse(LAYOUT)?);
    let connecting = async {
        loop {
            match Client::connect(address, Arc::clone(&dialect)).await {
                Err(_) if Instant::now() < deadline => sleep(PAUSE).await,
                result => return result,
            }
        }
    };
    let connected = timeout_at(deadline, connecting).await;
    Ok(connected
        .with_context(|| format!("no connection to {address} in the time of the scene"))??)
}

async fn send_row(
    way: Way,
    mut sender: Sender,
    origin: Instant,
    start: Instant,
) -> (Way, u32, Option<String>, Sender) {
    let mut fields = Fields::default();
    for number in 0..MESSAGES {
        sleep_until(start + INTERVAL * number).await;
        let nanoseconds = origin.elapsed().as_nanos() as i128; // of seconds
        fields.set("number", Value::Int(number.into()));
        fields.set("sent_nanoseconds", Value::Int(nanoseconds));
        fields.set("text", Value::Bytes(b"which of us arrives, and when?".to_vec()));
        if let Err(error) = sender.send_fields(None, &fields).await {
            return (way, number, Some(error.to_string()), sender);
        }
    }
    let error = sender.finish().await.err().map(|error| error.to_string());
    (way, MESSAGES, error, sender)
}
