//! The scene `film`: every item over every carrier, each byte compared with what it has to be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cabo::address::Address;
use cabo::connection::Connection;
use cabo::endpoint::{Endpoint, Settings};
use cabo::error::ConnectError;
use cabo::keys::Identity;
use cabo::service::media::tree::{Hash, RootBuilder};
use cabo::service::media::{BlockRange, EntryKind, ItemPath, MediaClient, MediaError, PathError};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::samples::{SAMPLES, Sample};
use super::stage::Resent;
use crate::show::demo::Row;

/// What is kept for each carrier that does not cross the cable.
const SHORT_TIME: Duration = Duration::from_secs(1);

/// Why a row is not verified.
#[derive(Clone, Debug, thiserror::Error)]
enum RowError {
    /// There is no session.
    #[error("no session: {0}")]
    Connect(Arc<ConnectError>),
    /// The service failed.
    #[error("{0}")]
    Media(Arc<MediaError>),
    /// The catalogue does not have it.
    #[error("not listed")]
    NotListed,
    /// The catalogue has it in another size.
    #[error("listed with {listed} bytes")]
    WrongSize { listed: u64 },
    /// Its name cannot be asked for.
    #[error("{0}")]
    Name(#[from] PathError),
    /// Bytes differ although their hash was right.
    #[error("wrong bytes in block {block}")]
    WrongBytes { block: u64 },
    /// The root differs.
    #[error("the root is {got}, not {expected}")]
    WrongRoot { got: Hash, expected: Hash },
    /// Out of time.
    #[error("not done in the {:.1} s that its carrier has", time.as_secs_f64())]
    Late { time: Duration },
}

impl From<MediaError> for RowError {
    fn from(error: MediaError) -> Self {
        Self::Media(Arc::new(error))
    }
}

/// What the client has to show.
pub(super) enum Shown {
    /// A session is open and the catalogue listed.
    Listed {
        /// The carrier's scheme.
        carrier: &'static str,
        /// How many items there are.
        items: usize,
        /// From the first packet on.
        elapsed: Duration,
    },
    /// An item was streamed, or not.
    Row(Row),
}

impl Shown {
    /// The carrier's scheme.
    pub(super) fn carrier(&self) -> &'static str {
        match self {
            Self::Listed { carrier, .. } => carrier,
            Self::Row(row) => row.carrier,
        }
    }
}

/// The client's thread.
pub(super) struct Client {
    pub(super) identity: Identity,
    pub(super) server: Arc<Identity>,
    pub(super) addresses: Vec<Address>,
    pub(super) resent: Resent,
    pub(super) deadline: Instant,
    pub(super) shown: mpsc::UnboundedSender<Shown>, // bounded by carriers and items
}

impl Client {
    /// Plays the scene; the rows end when it is over.
    pub(super) fn run(self) {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
            return;
        };
        runtime.block_on(self.play());
        runtime.shutdown_timeout(Duration::from_millis(100));
    }

    async fn play(&self) {
        let Ok(endpoint) = Endpoint::new(&self.identity, Settings::default()) else { return };
        for (index, address) in self.addresses.iter().enumerate() {
            let later = &self.addresses[index..];
            let time = share(self.deadline.saturating_duration_since(Instant::now()), later);
            self.play_over(&endpoint, address, time).await;
        }
    }

    async fn play_over(&self, endpoint: &Endpoint, address: &Address, time: Duration) {
        let carrier = address.scheme();
        let started = Instant::now();
        let clock = Clock { time, deadline: started + time };
        let (connection, listed) = match clock.hold(self.open(endpoint, address)).await {
            Ok(opened) => opened,
            Err(error) => {
                let error = error.to_string();
                let row = |sample| row(carrier, sample, Duration::ZERO, None, Some(error.clone()));
                return SAMPLES.iter().map(row).for_each(|row| self.tell(Shown::Row(row)));
            }
        };
        self.tell(Shown::Listed { carrier, items: listed.len(), elapsed: started.elapsed() });
        let media = MediaClient::new(connection.clone());
        for sample in SAMPLES {
            let before = self.resent.packets(carrier);
            let started = Instant::now();
            let result = clock.hold(stream(&media, sample, &listed)).await;
            let elapsed = started.elapsed();
            let after = self.resent.packets(carrier);
            let resent = after.zip(before).map(|(after, before)| after.saturating_sub(before));
            let error = result.err().map(|error| error.to_string());
            self.tell(Shown::Row(row(carrier, sample, elapsed, resent, error)));
        }
        connection.close(0, "the scene is over");
    }

    /// A session with the server, proved to be the one we mean, and its files with their sizes.
    async fn open(
        &self,
        endpoint: &Endpoint,
        address: &Address,
    ) -> Result<(Connection, BTreeMap<Vec<u8>, u64>), RowError> {
        let connection = endpoint
            .connect(address, Some(self.server.public_key()))
            .await
            .map_err(|error| RowError::Connect(Arc::new(error)))?;
        let media = MediaClient::new(connection.clone());
        let mut listing = media.list(&ItemPath::new("")?, true).await?;
        let mut listed = BTreeMap::new();
        while let Some(entry) = listing.next().await? {
            if entry.kind == EntryKind::File {
                listed.insert(entry.path.as_bytes().to_vec(), entry.size);
            }
        }
        Ok((connection, listed))
    }

    fn tell(&self, shown: Shown) {
        let _ = self.shown.send(shown); // nobody looks any more: the program is ending
    }
}

fn row(
    carrier: &'static str,
    sample: &Sample,
    elapsed: Duration,
    resent: Option<u64>,
    error: Option<String>,
) -> Row {
    let bytes = sample.bytes.len() as u64;
    let is_on_cable = is_on_cable(carrier);
    Row { carrier, item: sample.path, bytes, elapsed, resent, is_on_cable, error }
}

/// Streams one item and compares: size, each block with its hash, each byte, and the root.
async fn stream(
    media: &MediaClient,
    sample: &Sample,
    listed: &BTreeMap<Vec<u8>, u64>,
) -> Result<(), RowError> {
    match listed.get(sample.path.as_bytes()) {
        None => return Err(RowError::NotListed),
        Some(&listed) if listed != sample.bytes.len() as u64 => {
            return Err(RowError::WrongSize { listed });
        }
        Some(_) => {}
    }
    let mut blocks = media.read(&ItemPath::new(sample.path)?, None, BlockRange::ALL, 0).await?;
    let (mut builder, mut rest) = (RootBuilder::default(), sample.bytes);
    while let Some(block) = blocks.next().await? {
        rest =
            rest.strip_prefix(&*block.bytes).ok_or(RowError::WrongBytes { block: block.index })?;
        builder.push(block.hash);
    }
    let (got, expected) = (builder.root(), sample.root());
    if !rest.is_empty() || got != expected || blocks.root() != Some(expected) {
        return Err(RowError::WrongRoot { got, expected });
    }
    Ok(())
}

/// The time that the first of `carriers` may take of what is left: the short ones need little, the others share.
fn share(left: Duration, carriers: &[Address]) -> Duration {
    let is_short = |address: &&Address| !is_on_cable(address.scheme());
    let (short, all) = (carriers.iter().filter(is_short).count(), carriers.len());
    if carriers.first().is_some_and(|first| is_short(&first)) {
        return SHORT_TIME.min(left);
    }
    let shared = left.saturating_sub(SHORT_TIME * u32::try_from(short).unwrap_or(u32::MAX));
    shared / u32::try_from(all - short).unwrap_or(u32::MAX).max(1)
}

fn is_on_cable(carrier: &str) -> bool {
    carrier != "unix"
}

/// The time of one carrier.
struct Clock {
    time: Duration,
    deadline: Instant,
}

impl Clock {
    async fn hold<T>(
        &self,
        work: impl Future<Output = Result<T, RowError>>,
    ) -> Result<T, RowError> {
        let late = RowError::Late { time: self.time };
        timeout_at(self.deadline, work).await.unwrap_or(Err(late))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carriers_share_the_time_and_what_one_leaves_is_for_the_next() {
        let places = ["eth://eth0", "udp://10.0.1.1", "tcp://10.0.1.1", "unix:///tmp/s"];
        let carriers = places.map(|place| Address::parse(place.as_bytes()).unwrap());
        let seconds = Duration::from_secs;
        assert_eq!(share(seconds(28), &carriers), seconds(9));
        assert_eq!(share(seconds(27), &carriers[1..]), seconds(13));
        assert_eq!(share(seconds(5), &carriers[2..]), seconds(4));
        assert_eq!(share(seconds(5), &carriers[3..]), seconds(1));
        assert_eq!(share(Duration::ZERO, &carriers), Duration::ZERO);
    }
}
