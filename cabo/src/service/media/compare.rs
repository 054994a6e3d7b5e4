//! What fetching a folder would bring, by content, without writing anything (M-12.11).
//!
//! It keeps nothing of what it has compared: a catalogue may be of any length.

use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;

use rustix::fs::{OFlags, ResolveFlags};
use rustix::io::Errno;

use super::batch::SMALL_BYTES;
use super::catalogue::open_beneath;
use super::client::MediaClient;
use super::error::{ErrorCode, MediaError, Refusal};
use super::fetch::{blocking, compare};
use super::fetch_all::{FetchAllOptions, is_of_a_part, some_entries};
use super::many::{MAX_WANTED_BYTES, Wanted};
use super::path::ItemPath;
use super::target::{FetchError, Target, failed, local, open_regular};
use super::tree::Hash;
use super::wire::{BlockRange, Entry, EntryKind};

/// How an item stands to what is here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Difference {
    /// Nothing is here.
    New,
    /// Something else is here.
    Changed,
    /// It is here.
    Same,
}

/// A listed file and its bytes, and what came of comparing it.
#[derive(Debug)]
pub struct Compared {
    /// Its path from the folder.
    pub name: ItemPath,
    /// Its bytes, as listed.
    pub bytes: u64,
    /// Whether it is here.
    pub result: Result<Difference, FetchError>,
}

/// Compares everything beneath `folder` with what is in `target`, where there is one.
pub async fn compare_all(
    client: &MediaClient,
    folder: &ItemPath,
    target: Option<&Arc<Target>>,
    options: &FetchAllOptions,
    mut on_item: impl FnMut(Compared) + Send,
) -> Result<(), FetchError> {
    let mut listing = client.list(folder, true).await?;
    let mut compare = Comparison { client, folder, priority: options.priority, has_many: true };
    loop {
        let (entries, end) = some_entries(&mut listing).await;
        let is_wanted =
            |entry: &Entry| entry.kind == EntryKind::File && !options.leaves_out(&entry.path);
        let entries: Vec<Entry> = entries.into_iter().filter(is_wanted).collect();
        let target = target.cloned();
        let looked = blocking(move || {
            let look = |entry| look(target.as_deref(), entry);
            Ok(entries.into_iter().map(look).collect::<Vec<_>>())
        });
        compare.all(looked.await?, &mut on_item).await?;
        match end {
            None => {}
            Some(Err(error)) if is_of_a_part(&error) => {
                let (name, bytes) = (folder.clone(), 0);
                on_item(Compared { name, bytes, result: Err(error.into()) });
                return Ok(());
            }
            Some(end) => return Ok(end?),
        }
    }
}

/// What is known of an item before the server is asked.
enum Looked {
    Known(Compared),
    /// A small file of the same size.
    Small(ItemPath, u64, Hash),
    /// A longer one.
    Long(ItemPath, u64, File),
}

fn look(target: Option<&Target>, entry: Entry) -> Looked {
    let (name, bytes) = (entry.path, entry.size);
    let result = match target.map_or(Ok(None), |target| find(target, &name)) {
        Ok(None) => Ok(Difference::New),
        Ok(Some(file)) => match compared_by_hash(&file, bytes) {
            Ok(None) => Ok(Difference::Changed),
            Ok(Some(Some(hash))) => return Looked::Small(name, bytes, hash),
            Ok(Some(None)) => return Looked::Long(name, bytes, file),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    Looked::Known(Compared { name, bytes, result })
}

/// None if the size says enough; else the hash, if the file is small.
fn compared_by_hash(file: &File, bytes: u64) -> Result<Option<Option<Hash>>, FetchError> {
    let here = file.metadata().map_err(local("look at the existing file"))?.len();
    if here != bytes {
        return Ok(None);
    }
    let is_small = here <= SMALL_BYTES;
    Ok(Some(is_small.then(|| hash_of(file)).transpose()?))
}

/// What stands at an item's place, found without making anything.
fn find(target: &Target, name: &ItemPath) -> Result<Option<File>, FetchError> {
    let (above, last) = name.split_last().ok_or(super::path::PathError::Empty)?;
    let above = if above.is_root() { b".".as_slice() } else { above.as_bytes() };
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match open_beneath(&target.dir, above, flags, ResolveFlags::NO_SYMLINKS) {
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::NOTDIR) => Err(FetchError::Occupied("a file stands where a folder belongs")),
        dir => open_regular(dir.map_err(failed("open a folder"))?, last, OFlags::RDONLY),
    }
}

struct Comparison<'a> {
    client: &'a MediaClient,
    folder: &'a ItemPath,
    priority: u8,
    has_many: bool,
}

impl Comparison<'_> {
    async fn all(
        &mut self,
        looked: Vec<Looked>,
        on_item: &mut (impl FnMut(Compared) + Send),
    ) -> Result<(), FetchError> {
        let (mut small, mut wanted_bytes) = (Vec::new(), 0);
        for looked in looked {
            match looked {
                Looked::Known(compared) => on_item(compared),
                Looked::Long(name, bytes, file) => {
                    let result = self.one(&name, file).await;
                    on_item(told(name, bytes, result)?);
                }
                Looked::Small(name, bytes, hash) => {
                    let wanted = Wanted { item: self.folder.join(&name)?, known: Some(hash) };
                    if wanted_bytes + wanted.wire_bytes() > MAX_WANTED_BYTES {
                        self.many(std::mem::take(&mut small), on_item).await?;
                        wanted_bytes = 0;
                    }
                    wanted_bytes += wanted.wire_bytes();
                    small.push((name, bytes, wanted));
                }
            }
        }
        self.many(small, on_item).await
    }

    async fn one(&self, name: &ItemPath, file: File) -> Result<Difference, FetchError> {
        let item = self.folder.join(name)?;
        let same = compare(self.client, &item, Arc::new(file)).await?;
        Ok(if same.is_some() { Difference::Same } else { Difference::Changed })
    }

    async fn many(
        &mut self,
        small: Vec<(ItemPath, u64, Wanted)>,
        on_item: &mut (impl FnMut(Compared) + Send),
    ) -> Result<(), FetchError> {
        if small.is_empty() {
            return Ok(());
        }
        let wanted = small.iter().map(|(.., wanted)| wanted.clone()).collect();
        let mut roots = Vec::new();
        if self.has_many {
            match self.roots(wanted).await {
                Err(MediaError::Refused(refusal)) if refusal.code == ErrorCode::BadRequest => {
                    self.has_many = false; // an older server (M-12.1)
                }
                answered => roots = answered?,
            }
        }
        let mut roots = roots.into_iter();
        for (name, bytes, wanted) in small {
            let root = match roots.next() {
                Some(root) => root.map_err(|refusal| MediaError::Refused(refusal).into()),
                None => self.root_alone(&wanted.item).await,
            };
            let difference = |root| match root == wanted.known {
                true => Difference::Same,
                false => Difference::Changed,
            };
            on_item(told(name, bytes, root.map(difference))?);
        }
        Ok(())
    }

    async fn roots(
        &self,
        wanted: Vec<Wanted>,
    ) -> Result<Vec<Result<Option<Hash>, Refusal>>, MediaError> {
        let mut answers = self.client.read_many(wanted, false, self.priority).await?;
        let mut roots = Vec::new();
        while let Some(answer) = answers.next().await? {
            roots.push(answer.map(|item| item.info.root));
        }
        Ok(roots)
    }

    async fn root_alone(&self, item: &ItemPath) -> Result<Option<Hash>, FetchError> {
        let mut hashes = self.client.hashes(item, None, BlockRange::ALL).await?;
        while hashes.next().await?.is_some() {}
        Ok(hashes.root())
    }
}

/// What is told of an item; a connection that broke ends all.
fn told(
    name: ItemPath,
    bytes: u64,
    result: Result<Difference, FetchError>,
) -> Result<Compared, FetchError> {
    match result {
        Err(error @ FetchError::Media(MediaError::Broken(_))) => Err(error),
        result => Ok(Compared { name, bytes, result }),
    }
}

/// The root of a small file.
pub(super) fn hash_of(file: &File) -> Result<Hash, FetchError> {
    let mut bytes = Vec::new();
    let read = file.take(SMALL_BYTES).read_to_end(&mut bytes);
    read.map_err(local("read the existing file"))?;
    Ok(Hash(*blake3::hash(&bytes).as_bytes()))
}
