//! A local HTTP server that plays what a media/1 server has: any player, any browser, every byte verified.
//!
//! ```text
//!   player --HTTP, Range--> door -> answer -> reader -> blocks --READ of one block--> media/1 server
//!                                     |                   |
//!                                  range, page         source: sessions, made anew when lost
//! ```
//!
//! - `door`: connections of the loopback, their number and their deadlines
//! - `answer`, `range`, `page`: requests and what they are answered with
//! - `reader`: the bytes of one answer in order, with blocks asked for ahead
//! - `blocks`: one shelf of verified blocks for all readers; each block is asked for once, and no longer than wanted
//! - `source`, `session`: where clients come from, and how long a lost one is waited for
//!
//! A block is a READ of its own (M-7): a player that pauses holds no request open, a seek drops what it no longer
//! needs, and a lost session costs one block at most.

mod answer;
mod blocks;
mod door;
mod page;
mod range;
mod reader;
mod session;
mod source;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

pub use self::blocks::GatewayStats;
pub use self::session::SessionSource;
pub use self::source::{PlayError, Source, SourceError};

use self::answer::Site;
use self::blocks::Blocks;
use self::reader::Reader;
use crate::service::media::{ItemInfo, ItemPath, MediaClient};

/// How a gateway uses memory and time.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// Verified blocks of 1 MiB that are kept for all readers together.
    pub kept_blocks: usize,
    /// Blocks that are asked for ahead of one reader, once it has read as many in a row.
    pub ahead_blocks: u64,
    /// Items that are read at once; further requests wait.
    pub readers: usize,
    /// How long a lost server is waited for before a reader hears of it.
    pub patience: Duration,
    /// The first pause before a server is asked again; later ones are longer, up to 20 times.
    pub back_off: Duration,
    /// How long what is known of an item counts before the server is asked again.
    pub fresh: Duration,
}

impl Default for GatewaySettings {
    /// 32 blocks kept, 4 ahead, 64 readers: 352 MiB at the very most, and about 40 with one player. Two minutes of
    /// patience.
    fn default() -> Self {
        Self {
            kept_blocks: 32,
            ahead_blocks: 4,
            readers: 64,
            patience: Duration::from_secs(120),
            back_off: Duration::from_millis(100),
            fresh: Duration::from_secs(2),
        }
    }
}

/// A local HTTP server in front of a media/1 server.
///
/// Its URL holds a token that cannot be guessed; whoever has the URL can read what the session can read.
#[derive(Debug)]
pub struct Gateway<S> {
    listener: TcpListener,
    site: Arc<Site<S>>,
}

impl<S: Source> Gateway<S> {
    /// Listens on `addr`, which has to be of the loopback; port 0 picks a free one. Answers nobody before
    /// [`Self::run`].
    pub async fn bind(addr: SocketAddr, source: S, settings: GatewaySettings) -> io::Result<Self> {
        if !addr.ip().is_loopback() {
            let what =
                "the gateway serves this machine alone: its address has to be of the loopback";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let listener = TcpListener::bind(addr).await?;
        let here = listener.local_addr()?;
        let token = token()?;
        let readers = Arc::new(Semaphore::new(settings.readers.clamp(1, Semaphore::MAX_PERMITS)));
        let site = Site { here, token, readers, blocks: Blocks::new(source, settings) };
        Ok(Self { listener, site: Arc::new(site) })
    }

    /// Where the catalogue is listed, token included.
    pub fn url(&self) -> String {
        format!("http://{}/{}/", self.site.here, self.site.token)
    }

    /// Where one item is played from.
    pub fn item_url(&self, item: &ItemPath) -> String {
        format!("{}{}", self.url(), page::encode_path(item))
    }

    /// Counts so far.
    pub fn stats(&self) -> GatewayStats {
        self.site.blocks.stats()
    }

    /// Serves until `shutdown`; then drops whatever is under way.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) {
        tokio::select! {
            () = door::serve(&self.listener, &self.site) => {}
            () = shutdown => {}
        }
    }
}

/// Writes all bytes of `item` to `out`, each verified before it is written, and says how many they were. A lost server
/// is waited for as in a gateway.
pub async fn copy<S: Source>(
    source: S,
    settings: GatewaySettings,
    item: &ItemPath,
    out: &mut (impl AsyncWrite + Unpin),
) -> Result<u64, CopyError> {
    let blocks = Blocks::new(source, settings);
    let item = blocks.describe(item).await?;
    let mut reader = Reader::new(blocks, item.clone(), 0..item.info.size, None);
    while let Some(bytes) = reader.next().await {
        out.write_all(&bytes?).await?;
    }
    out.flush().await?;
    Ok(item.info.size)
}

/// What the server says of `item`. A lost or busy server is waited for as in a gateway.
pub async fn describe<S: Source>(
    source: &S,
    settings: &GatewaySettings,
    item: &ItemPath,
) -> Result<ItemInfo, PlayError> {
    let ask = |client: MediaClient| async move { client.describe(item).await };
    source::persist(source, settings, || (), ask).await
}

/// Why not all of an item was copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// It could not be had.
    #[error(transparent)]
    Play(#[from] PlayError),
    /// It could not be written.
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

/// 128 bits that nobody can guess, as they stand in a URL.
fn token() -> io::Result<String> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("no randomness"))?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a String takes it always
        text
    }))
}
