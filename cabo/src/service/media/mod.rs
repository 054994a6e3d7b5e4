//! media/1: a served folder, listed and read in blocks that are each proved.
//!
//! Rules: `docs/protocol/services.md`, clauses M-1 to M-9. In order of reading:
//!
//! - [`tree`]: the hash tree over blocks of 1 MiB, whose root is what `b3sum` prints
//! - `path`, `wire`, `fields`, `error`: what crosses the wire, and its bytes
//! - `catalogue`, `walk`, `hashes`, `read_ahead`, `read_many`, `serve`: the side that has the files
//! - `client`, `many`: one request each, every block verified
//! - `target`, `fetch`: items onto a disk, resumed, proved, and never outside the folder that was named
//! - `fetch_all`, `folders`, `batch`, `staging`, `commit`: whole folders, many small files at once
//! - `compare`: what that would bring
//!
//! Nothing here knows a carrier: a request is a stream of bytes each way. On the serving side a router reads the
//! opening ([`crate::request::read_opening`]) and calls [`MediaServer::serve`]; a client opens streams through
//! [`OpenStream`].

mod batch;
mod catalogue;
mod client;
mod commit;
mod compare;
mod error;
mod fetch;
mod fetch_all;
mod fields;
mod folders;
mod hashes;
mod many;
mod path;
mod read_ahead;
mod read_many;
mod serve;
mod session;
mod staging;
mod target;
pub mod tree;
mod walk;
mod wire;

pub use catalogue::{Catalogue, CatalogueError};
pub use client::{
    Block, BlockReader, HashReader, Listing, MediaClient, OpenStream, Opening, RecvHalf, SendHalf,
};
pub use compare::{Compared, Difference, compare_all};
pub use error::{ErrorCode, MediaError, Refusal};
pub use fetch::{FetchOptions, FetchReport, Progress, fetch};
pub use fetch_all::{FetchAllOptions, FetchSummary, LeftOut, fetch_all};
pub use many::{MAX_WANTED_BYTES, ManyItem, ManyReader, Wanted};
pub use path::{ItemPath, MAX_NAME_BYTES, MAX_PATH_BYTES, PARTIAL_SUFFIX, PathError};
pub use serve::{Limits, MediaServer, ServeError};
pub use target::{FetchError, Target};
pub use wire::{BlockRange, Entry, EntryKind, ItemInfo, Modified, Version, WireError};
pub(crate) use {catalogue::OpenItem, target::Partial, target::local};

/// The service as it stands in the opening of a stream (M-1).
pub const SERVICE: &str = "media/1";

#[cfg(test)]
mod tests;
