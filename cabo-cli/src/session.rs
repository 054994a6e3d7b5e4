//! Who we are to others, and sessions with servers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cabo::address::{Address, Item, Place};
use cabo::carrier::tls::ConnectSettings;
use cabo::client::{Client, Session};
use cabo::config::ConfigDir;
use cabo::connection::Farewell;
use cabo::crypto::KeyLogFile;
use cabo::discovery;
use cabo::endpoint::{Endpoint, Settings};
use cabo::keys::known::{Acquaintance, Known};
use cabo::keys::{Fingerprint, Identity};
use cabo::service::media::{ItemPath, MediaError};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::cmd::give_up_raw_sockets;
use crate::exit::Failure;

/// A lost server is noticed within this; it outlasts a cable that is pulled for half a minute.
const IDLE_TIME: Duration = Duration::from_secs(40);
/// A server that has not let us in by then asks a person.
const ADMISSION_TIME: Duration = Duration::from_millis(1500);

/// What others are told about us: `user@host`.
pub(crate) fn agent() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    match user {
        Ok(user) if !user.is_empty() => format!("{user}@{host}"),
        Ok(_) | Err(_) => host,
    }
}

/// Our own directory and identity.
pub(crate) struct Own {
    pub(crate) dir: ConfigDir,
    pub(crate) identity: Identity,
}

impl Own {
    /// Reads them; makes them on first use.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let dir = ConfigDir::of_user()?;
        let identity = Identity::load_or_create(&dir)?;
        Ok(Self { dir, identity })
    }
}

/// What every endpoint of ours starts from.
pub(crate) fn settings(is_plain: bool) -> anyhow::Result<Settings> {
    let mut settings =
        Settings { key_log: KeyLogFile::from_env()?.map(Arc::new), ..Settings::default() };
    settings.session.is_plain = is_plain;
    settings.session.agent = agent();
    Ok(settings)
}

/// A client that is about to connect to `address`: what takes a privilege is open, and the privilege given up.
pub(crate) fn client_to(address: &Address, is_plain: bool) -> anyhow::Result<Client> {
    let client = client(is_plain)?;
    match &address.place {
        Place::Eth { interface, .. } => {
            client.endpoint().open_link(interface.as_str()).map_err(Failure::from)?;
        }
        Place::Name(_) => open_links(&client),
        Place::Udp(_) | Place::Tcp(_) | Place::Tls(_) | Place::Unix(_) | Place::Redes { .. } => {}
    }
    give_up_raw_sockets();
    Ok(client)
}

/// Opens all links, to ask them; says once if that is forbidden.
pub(crate) fn open_links(client: &Client) {
    if let Some(error) = discovery::open_links(client.endpoint()) {
        tracing::warn!("not asked on raw Ethernet: {error}");
    }
}

/// A client of our own identity, which knows servers again.
pub(crate) fn client(is_plain: bool) -> anyhow::Result<Client> {
    let own = Own::load()?;
    let mut settings = settings(is_plain)?;
    settings.session.idle_timeout = IDLE_TIME;
    settings.session.keep_alive = true;
    let endpoint = Endpoint::new(&own.identity, settings)?;
    Ok(Client::new(endpoint, Some(Known::new(own.dir))))
}

/// Connects, and gives `say` a line about a server that is a new one, and one where the server asks its owner about us.
pub(crate) async fn connect(
    client: &Client,
    address: &Address,
    say: impl Fn(&str) + Send + 'static,
) -> Result<Session, Failure> {
    let session = client.connect(address).await?;
    FAREWELLS.lock().unwrap_or_else(PoisonError::into_inner).push(session.connection.farewell());
    if matches!(session.address.place, Place::Name(_)) {
        say(&format!("{} is at {}", session.address.place, session.place));
    }
    if let (Some(Acquaintance::FirstUse), Some(key)) =
        (session.acquaintance, session.connection.peer_key())
    {
        let (place, print) = (&session.address.place, Fingerprint::of(key));
        say(&format!(
            "first time at {place}: its fingerprint is {print}, and only that is accepted there from now on"
        ));
    }
    let (connection, place) = (session.connection.clone(), session.address.place.to_string());
    let own = Fingerprint::of(client.endpoint().public_key());
    tokio::spawn(async move {
        if timeout(ADMISSION_TIME, connection.admitted()).await.is_err()
            && connection.peer_key().is_some()
        {
            say(&format!("waiting until the owner of {place} lets {own} in"));
        }
    });
    Ok(session)
}

/// Whether the server has let us in.
pub(crate) async fn is_admitted(session: &Session) -> bool {
    matches!(timeout(Duration::ZERO, session.connection.admitted()).await, Ok(Ok(())))
}

/// Asks, and once more when the server's owner has let us in: a person may need longer than a request waits.
pub(crate) async fn ask<T>(
    session: &Session,
    mut request: impl AsyncFnMut() -> Result<T, MediaError>,
) -> Result<T, MediaError> {
    match request().await {
        Err(MediaError::Stalled { .. }) if !is_admitted(session).await => {
            let _ = session.connection.admitted().await; // its end, if that came, is what the next request says
            request().await
        }
        answer => answer,
    }
}

/// Every session that there was. Servers hear of their ends however the command ends.
static FAREWELLS: Mutex<Vec<Farewell>> = Mutex::new(Vec::new());

/// Ends what sessions there still are; before the runtime goes.
pub(crate) async fn leave_all() {
    let farewells = std::mem::take(&mut *FAREWELLS.lock().unwrap_or_else(PoisonError::into_inner));
    let mut saying = JoinSet::new();
    for farewell in farewells {
        saying.spawn(async move { farewell.say().await });
    }
    while saying.join_next().await.is_some() {}
}

/// Ends a session; the server hears of it.
pub(crate) async fn leave(session: &Session) {
    session.connection.say_goodbye(0, "").await;
}

/// An address with an item that may stand beside it: `URL/ITEM`, or `URL` and `ITEM`.
pub(crate) fn address_and_item(
    url: &[u8],
    beside: Option<&[u8]>,
) -> anyhow::Result<(Address, ItemPath)> {
    let mut address = Address::parse(url).map_err(Failure::from)?;
    if matches!(address.place, Place::Tls(_)) {
        ConnectSettings::all_of(&address).map_err(Failure::from)?;
    } else {
        let known = address.query.check(&[]);
        known.map_err(|problem| Failure::usage(format!("{address}: {problem}")))?;
    }
    let unbuilt = match &address.place {
        Place::Redes { .. } => Some("write udp://, tcp://, tls://, eth:// or unix:"),
        Place::Udp(_)
        | Place::Tcp(_)
        | Place::Tls(_)
        | Place::Eth { .. }
        | Place::Unix(_)
        | Place::Name(_) => None,
    };
    if let Some(instead) = unbuilt {
        let scheme = address.scheme();
        let text = format!("{address}: this version does not run over {scheme}; {instead}");
        return Err(Failure::usage(text).into());
    }
    if let Some(beside) = beside {
        if !address.item.is_empty() {
            return Err(Failure::usage(format!(
                "{address} names an item, and another stands beside it; leave one of them out"
            ))
            .into());
        }
        let bad =
            |problem| Failure::usage(format!("{}: {problem}", String::from_utf8_lossy(beside)));
        address.item = Item::from_path(beside).map_err(bad)?;
    }
    let path: Vec<&[u8]> = address.item.names().collect();
    let path = ItemPath::new(path.join(&b'/'))
        .map_err(|error| Failure::usage(format!("{address}: this names no item: {error}")))?;
    Ok((address, path))
}
