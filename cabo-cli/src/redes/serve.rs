//! `cabo serve --on redes://`: a thread a link, and what they have to say.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use cabo::address::{Address, Place};
use cabo::redes::Options;
use cabo::redes::serve::{Link, Service, Stop, Told};
use cabo::server::Server;
use cabo::service::media::Catalogue;
use tokio::sync::{mpsc, oneshot};

use crate::exit::Failure;

/// Words that wait to be said at most; a slow terminal must not fill our memory.
const TOLD_MAX: usize = 1024;

/// A link that is open and not served yet.
pub(crate) struct Opened {
    /// Where.
    pub(crate) address: Address,
    options: Options,
    link: Link,
}

/// Links that are served.
pub(crate) struct Running {
    stops: Vec<Stop>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    /// So that what they say is quiet, not over, where nothing is served.
    _more: mpsc::Sender<(Address, Told)>,
}

/// The options of an address, where it is one of ours.
pub(crate) fn options(address: &Address) -> Result<Option<Options>, Failure> {
    let Place::Redes { .. } = &address.place else { return Ok(None) };
    let options = Options::of(&address.query);
    options.map(Some).map_err(|error| Failure::usage(format!("{address}: {error}")))
}

/// Opens a link. Nobody on it has an identity, so others than this host's have to be meant.
pub(crate) fn open(address: &Address, is_open: bool) -> Result<Option<Opened>, Failure> {
    let Some(options) = options(address)? else { return Ok(None) };
    let Place::Redes { interface } = &address.place else { return Ok(None) };
    let socket = super::open(interface.as_str(), options)?;
    if !is_open && !socket.is_loopback() {
        let text = format!(
            "{address}: nobody on this link has an identity, so everybody on it gets in; say --open for that"
        );
        return Err(Failure::usage(text));
    }
    Ok(Some(Opened { address: address.clone(), options, link: Link::new(socket) }))
}

/// Serves all of `links`; what they have to say comes from the other half.
pub(crate) fn start(
    links: Vec<Opened>,
    catalogue: &Arc<Catalogue>,
) -> (Running, mpsc::Receiver<(Address, Told)>) {
    let (more, told) = mpsc::channel(TOLD_MAX);
    let stops = links.iter().map(|opened| opened.link.stop()).collect();
    let serve = |opened: Opened| {
        let (more, catalogue) = (more.clone(), Arc::clone(catalogue));
        std::thread::spawn(move || {
            let service = Service::new(opened.link, opened.options.settings, catalogue);
            let ended = service.run(|told| {
                let _ = more.try_send((opened.address.clone(), told)); // or it is not said
            });
            match &ended {
                Ok(drops) => tracing::info!(url = %opened.address, ?drops, "frames not taken"),
                Err(error) => tracing::error!("{}: {error}", opened.address),
            }
            ended.map(drop)
        })
    };
    let threads = links.into_iter().map(serve).collect();
    (Running { stops, threads, _more: more }, told)
}

impl Running {
    /// Runs `server` beside them until it is told to stop; then all end what is under way, within `drain_time`.
    pub(crate) async fn run_beside(
        self,
        server: &Server,
        stopped: oneshot::Receiver<()>,
        drain_time: Duration,
    ) -> anyhow::Result<()> {
        let stopping = async {
            let _ = stopped.await; // dropped is as good as sent
            self.stops.iter().for_each(Stop::stop);
        };
        server.run(stopping).await;
        let joining = tokio::task::spawn_blocking(move || {
            self.threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread of a link died")))
            })
        });
        match tokio::time::timeout(drain_time, joining).await {
            Ok(ended) => Ok(ended??),
            Err(_elapsed) => Ok(()), // it ends with us
        }
    }
}
