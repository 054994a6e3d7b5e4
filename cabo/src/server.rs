//! The server's side of sessions: lets peers in or sends them away, and gives their requests to services.
//!
//! Any number of carriers, one [`Server`]. Every session and every request is a task of its own, with its deadlines;
//! none can hold up another. Who watches it does so through `metrics`, which shows what `stats` counts.

mod exposition;
pub mod metrics;
pub mod stats;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cabo_proto::session::config::Ended;
use cabo_proto::session::crypto::PublicKey;
use cabo_proto::wire::code::Code;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::access::{Access, AllowError, Decision, Refusal};
use crate::carrier::Peer;
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::gate::{Gate, origin};
use crate::keys::Fingerprint;
use crate::request::{Service, read_opening};
use crate::stream::{RecvStream, SendStream};

use self::stats::{Reason, Tally, Watch};

/// A request has to name its service within this.
const OPENING_TIME: Duration = Duration::from_secs(30);
/// New peers that are asked about at once.
const QUESTIONS_MAX: usize = 16;
/// A server that goes down looks this often whether all answers have arrived.
const DRAIN_POLL: Duration = Duration::from_millis(10);
/// Requests of one session that are answered at once.
const REQUESTS_PER_SESSION: usize = 64;
/// The code of a stream whose service we do not have.
pub const UNKNOWN_SERVICE: u64 = 1;

/// Limits of a server.
#[derive(Clone, Copy, Debug)]
pub struct ServerSettings {
    /// Whoever is asked about a new peer has this long to answer.
    pub asking_time: Duration,
    /// When it goes down, requests under way have this long to end; meanwhile new peers are told that it goes down.
    pub drain_time: Duration,
    /// Sessions at most; one more is told that we are busy.
    pub sessions_max: usize,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            asking_time: Duration::from_secs(120),
            drain_time: Duration::from_secs(60),
            sessions_max: 10_000,
        }
    }
}

/// Somebody new, about whom somebody at the server decides.
#[derive(Debug)]
pub struct Question {
    /// Who wants in.
    pub fingerprint: Fingerprint,
    /// What it calls itself; its own words, to be escaped before they meet a terminal.
    pub agent: Option<String>,
    /// From where.
    pub from: Peer,
    /// Takes the answer.
    pub answer: oneshot::Sender<bool>,
}

/// What happens at a server, for logs.
#[derive(Clone, Debug)]
pub enum ServerEvent {
    /// A peer was let in.
    Admitted(SessionInfo),
    /// A peer was sent away.
    Refused(SessionInfo, Refusal),
    /// A peer was told that there is no room for it.
    TurnedAway(SessionInfo),
    /// A session is over.
    Ended(SessionInfo, Arc<Ended>),
}

/// Who, from where.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// Counts sessions from 1.
    pub number: u64,
    /// The peer's identity, where it has one.
    pub fingerprint: Option<Fingerprint>,
    /// From where.
    pub from: Peer,
    /// The carrier's scheme.
    pub carrier: &'static str,
}

struct Known {
    connection: Connection,
    key: Option<PublicKey>,
}

/// See the module.
pub struct Server {
    endpoint: Arc<Endpoint>,
    shared: Arc<Shared>,
}

struct Shared {
    gate: Gate,
    services: Vec<Arc<dyn Service>>,
    settings: ServerSettings,
    sessions: Mutex<BTreeMap<u64, Known>>,
    requests: Arc<Semaphore>, // all permits are back when the server is idle
    events: mpsc::Sender<ServerEvent>,
    tally: Tally,
}

/// Goodbyes to all sessions together have this long to leave.
const GOODBYE_TIME: Duration = Duration::from_secs(10);
/// What who comes too late is told, and who has to leave.
const GOING_DOWN: &str = "the server is going down";
/// Permits for requests of all sessions together.
const REQUESTS_MAX: u32 = 1 << 20;
/// Events that wait for whoever writes logs; more are lost, a log must not hold up sessions.
const EVENTS_MAX: usize = 1024;

impl Server {
    /// A server that answers with `services` whom `access` lets in. Without `questions` nobody is asked. Events come
    /// through the receiver; it may be dropped.
    pub fn new(
        endpoint: Endpoint,
        access: Access,
        services: Vec<Arc<dyn Service>>,
        settings: ServerSettings,
        questions: Option<mpsc::Sender<Question>>,
    ) -> (Self, mpsc::Receiver<ServerEvent>) {
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let shared = Shared {
            gate: Gate::new(access, questions, settings.asking_time),
            tally: Tally::new(services.len()),
            services,
            settings,
            sessions: Mutex::default(),
            requests: Arc::new(Semaphore::new(REQUESTS_MAX as usize)),
            events,
        };
        (Self { endpoint: Arc::new(endpoint), shared: Arc::new(shared) }, receiver)
    }

    /// The endpoint below: to listen on addresses.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// How many sessions there are.
    pub fn session_count(&self) -> usize {
        self.shared.sessions().len()
    }

    /// To watch it while it runs.
    pub fn watch(&self) -> Watch {
        Watch { endpoint: self.endpoint.clone(), shared: self.shared.clone() }
    }

    /// Serves until `shutdown`, then lets requests under way end, and says goodbye.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let mut number = 0;
        loop {
            tokio::select! {
                connection = self.endpoint.accept() => {
                    number += 1;
                    tokio::spawn(self.shared.clone().welcome(number, connection));
                }
                () = &mut shutdown => break,
            }
        }
        self.shared.tally.on_draining();
        tokio::select! {
            () = self.idle() => {}
            () = tokio::time::sleep(self.shared.settings.drain_time) => {} // who is not done by then is cut off
            () = self.turn_away_all() => {}
        }
        self.endpoint.drain();
        let leaving: Vec<Connection> =
            self.shared.sessions().values().map(|known| known.connection.clone()).collect();
        for connection in &leaving {
            connection.close_protocol(Code::DRAINING, GOING_DOWN);
        }
        let goodbyes = async {
            for connection in &leaving {
                connection.flushed().await;
            }
            while self.session_count() > 0 {
                tokio::time::sleep(DRAIN_POLL).await; // until the log has heard of their end
            }
        };
        let _ = timeout(GOODBYE_TIME, goodbyes).await; // who takes no goodbye will notice the silence
        let mut sessions = self.shared.sessions();
        sessions.values().for_each(|known| self.shared.tally.on_ended(&known.connection));
        sessions.clear();
    }

    /// Tells whoever comes that the server goes down, for ever.
    async fn turn_away_all(&self) {
        loop {
            self.endpoint.accept().await.close_protocol(Code::DRAINING, GOING_DOWN);
            self.shared.tally.on_refused(Reason::Draining);
        }
    }

    /// Waits until all requests are answered, and the answers are with those who asked.
    async fn idle(&self) {
        let _permits = self.shared.requests.acquire_many(REQUESTS_MAX).await;
        let is_busy =
            || self.shared.sessions().values().any(|known| known.connection.has_open_streams());
        while is_busy() {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }

    /// Reads the list of allowed peers again, and ends sessions of those who were removed. Returns how many ended.
    pub fn reload_access(&self) -> Result<usize, AllowError> {
        self.shared.gate.access().reload()?;
        let mut ended = 0;
        for known in self.shared.sessions().values() {
            let origin = origin(&known.connection);
            if let Decision::Refuse(refusal) = self.shared.gate.access().judge(known.key, origin) {
                known.connection.refuse(&refusal.to_string());
                ended += 1;
            }
        }
        Ok(ended)
    }
}

impl Shared {
    fn sessions(&self) -> MutexGuard<'_, BTreeMap<u64, Known>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: ServerEvent) {
        let _ = self.events.try_send(event); // nobody listens, or too slowly
    }

    async fn welcome(self: Arc<Self>, number: u64, connection: Connection) {
        let key = connection.peer_key();
        let info = SessionInfo {
            number,
            fingerprint: key.map(Fingerprint::of),
            from: connection.from(),
            carrier: connection.carrier(),
        };
        if self.sessions().len() >= self.settings.sessions_max {
            return self.turn_away(info, &connection);
        }
        if let Err(refusal) = self.gate.judge(&connection).await {
            connection.refuse(&refusal.to_string());
            self.tally.on_refused(Reason::from(&refusal));
            return self.tell(ServerEvent::Refused(info, refusal));
        }
        let known = Known { connection: connection.clone(), key };
        if !self.enter(number, known) {
            return self.turn_away(info, &connection); // others were faster while this one was judged
        }
        connection.admit();
        self.tell(ServerEvent::Admitted(info.clone()));
        let ended = tokio::select! {
            ended = self.clone().serve(&connection) => ended,
            ended = stop_one_way(&connection) => ended,
        };
        self.tell(ServerEvent::Ended(info, ended));
        self.leave(number);
    }

    fn leave(&self, number: u64) {
        let mut sessions = self.sessions();
        if let Some(known) = sessions.remove(&number) {
            self.tally.on_ended(&known.connection);
        }
    }

    fn turn_away(&self, info: SessionInfo, connection: &Connection) {
        connection.close_protocol(Code::BUSY, "the server has all the sessions that it takes");
        self.tally.on_refused(Reason::Busy);
        self.tell(ServerEvent::TurnedAway(info));
    }

    /// False where there is no room.
    fn enter(&self, number: u64, known: Known) -> bool {
        let mut sessions = self.sessions();
        let has_room = sessions.len() < self.settings.sessions_max;
        if has_room {
            sessions.insert(number, known);
        }
        has_room
    }

    /// Answers requests until the session is over.
    async fn serve(self: Arc<Self>, connection: &Connection) -> Arc<Ended> {
        let of_session = Arc::new(Semaphore::new(REQUESTS_PER_SESSION));
        loop {
            // Not taken before there is room: the peer's next streams wait in its own credit.
            let Ok(permit) = of_session.clone().acquire_owned().await else { continue };
            let (send, recv) = match connection.accept().await {
                Ok(halves) => halves,
                Err(ended) => return ended,
            };
            let Ok(in_server) = self.requests.clone().acquire_owned().await else { continue };
            let shared = self.clone();
            tokio::spawn(async move {
                shared.answer(send, recv).await;
                drop((permit, in_server));
            });
        }
    }

    async fn answer(&self, mut send: SendStream, mut recv: RecvStream) {
        let place = match timeout(OPENING_TIME, read_opening(&mut recv)).await {
            Ok(Ok(name)) => self.services.iter().position(|service| service.name() == name),
            Ok(Err(_)) | Err(_) => None,
        };
        self.tally.on_request(place);
        match place.and_then(|place| self.services.get(place)) {
            Some(service) => {
                if let Err(error) = service.answer(send, recv).await {
                    self.tally.on_request_failed();
                    tracing::debug!(service = service.name(), %error, "a request failed");
                }
            }
            None => {
                send.reset(UNKNOWN_SERVICE);
                recv.stop(UNKNOWN_SERVICE);
            }
        }
    }
}

/// No service takes streams that only the peer writes to: they must not wait with what is in them.
async fn stop_one_way(connection: &Connection) -> Arc<Ended> {
    loop {
        match connection.accept_one_way().await {
            Ok(mut recv) => recv.stop(UNKNOWN_SERVICE),
            Err(ended) => return ended,
        }
    }
}

/// Channel for [`Question`]s.
pub fn questions() -> (mpsc::Sender<Question>, mpsc::Receiver<Question>) {
    mpsc::channel(QUESTIONS_MAX)
}
