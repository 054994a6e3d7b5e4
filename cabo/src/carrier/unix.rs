//! | unix | framed | reliable | ordered | secure | largest datagram |
//! |---|---|---|---|---|---|
//! | | no | yes | yes | no | - |
//!
//! Byte streams inside this machine, at a path or at an abstract name (`@name`). The kernel vouches for the peer's
//! user. A socket file that a killed server left is removed; one that is alive, or no socket, never is. Neighbours:
//! `mod.rs` (the traits), `accept.rs`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::sleep;

use super::accept::Patience;
use super::calls::{self, Closing, Kind, Side};
use super::{Accepted, Connected, Listener, OpenError, Peer, Promises};
use crate::address::UnixName;

const BACKLOG: i32 = 1024;
const NAME_MAX_BYTES: usize = 107; // `sun_path` has 108, one of them NUL
const LOCK_TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// Accepts Unix stream connections. Its file goes with it.
#[derive(Debug)]
pub struct Unix {
    _closing: Closing, // before the listener, which it tells of
    listener: UnixListener,
    patience: Patience,
    file: Option<(PathBuf, FileId)>,
}

/// Device and inode: the same file, not only the same name.
type FileId = (u64, u64);

impl Unix {
    /// Listens at `name`. Must be called inside a tokio runtime.
    pub fn listen(name: &UnixName) -> Result<Self, OpenError> {
        let address = address(name)?;
        let failed = |operation| {
            let what = what(name);
            move |e| OpenError::of(&what, operation, e)
        };
        let _lock = match name {
            UnixName::Path(path) => lock_directory(path).map_err(failed("lock the directory"))?,
            UnixName::Abstract(_) => None,
        };
        let listener = match listening(&address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(name, &address)?;
                listening(&address)
            }
            result => result,
        };
        let (listener, closing) = listener.map_err(failed("bind"))?;
        let file = match name {
            UnixName::Path(path) => file_id(path).map(|id| (path.clone(), id)),
            UnixName::Abstract(_) => None,
        };
        Ok(Self { _closing: closing, listener, patience: Patience::new(), file })
    }
}

impl Drop for Unix {
    fn drop(&mut self) {
        if let Some((path, id)) = self.file.take().filter(|(path, id)| file_id(path) == Some(*id)) {
            tracing::trace!(?path, ?id, "remove the socket file");
            let _ = fs::remove_file(path); // a file that cannot be removed is stale to the next server
        }
    }
}

fn listening(address: &SockAddr) -> io::Result<(UnixListener, Closing)> {
    let (socket, closing) = new_socket()?;
    calls::bind(&socket, address)?;
    calls::listen(&socket, BACKLOG, Kind::Unix)?;
    Ok((UnixListener::from_std(OwnedFd::from(socket).into())?, closing))
}

fn new_socket() -> io::Result<(Socket, Closing)> {
    calls::socket(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None, Kind::Unix)
}

/// The kernel's form of `name`, if it has one.
fn address(name: &UnixName) -> Result<SockAddr, OpenError> {
    let (length, bytes) = match name {
        UnixName::Path(path) => (path.as_os_str().len(), path.as_os_str().as_bytes().to_vec()),
        UnixName::Abstract(name) => (name.len(), [b"\0", name.as_slice()].concat()),
    };
    let path = || name.to_string();
    if length > NAME_MAX_BYTES {
        return Err(OpenError::PathTooLong { path: path(), bytes: length, limit: NAME_MAX_BYTES });
    }
    if length == 0 || (matches!(name, UnixName::Path(_)) && bytes.contains(&0)) {
        return Err(OpenError::NotASocket { path: path() });
    }
    let address = SockAddr::unix(PathBuf::from(OsString::from_vec(bytes)));
    address.map_err(|e| OpenError::of(&what(name), "form the address", e))
}

fn what(name: &UnixName) -> String {
    format!("unix:{name}")
}

/// One server at a time looks for stale files in a directory and listens there, or two could each take the other's
/// new socket for a stale one. The lock leaves no file; a directory that cannot be read goes without.
fn lock_directory(path: &Path) -> io::Result<Option<File>> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let Ok(directory) = File::open(parent.unwrap_or_else(|| Path::new("."))) else {
        return Ok(None);
    };
    for _ in 0..LOCK_TRIES {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(directory)),
            Err(rustix::io::Errno::WOULDBLOCK) => thread::sleep(PAUSE), // others hold it for a moment only
            Err(_) => return Ok(None), // a file system without locks
        }
    }
    Err(io::Error::other("another process holds a lock on it"))
}

/// Removes the socket file of a server that is gone; an error for anything else.
fn remove_stale(name: &UnixName, address: &SockAddr) -> Result<(), OpenError> {
    let what = what(name);
    let UnixName::Path(path) = name else { return Err(OpenError::InUse { what }) };
    let failed = |operation| {
        let what = what.clone();
        move |e| OpenError::of(&what, operation, e)
    };
    let kind = fs::symlink_metadata(path).map_err(failed("look at the file"))?.file_type();
    if !kind.is_socket() {
        return Err(OpenError::NotASocket { path: path.display().to_string() });
    }
    let is_refused =
        connect_now(address).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
    if !is_refused {
        return Err(OpenError::InUse { what });
    }
    fs::remove_file(path).map_err(failed("remove the stale socket"))
}

/// Connects without waiting: a live server with a full backlog says "try again", and is alive.
fn connect_now(address: &SockAddr) -> io::Result<(Closing, Socket)> {
    let (socket, closing) = new_socket()?;
    calls::connect(&socket, address, Kind::Unix)?;
    Ok((closing, socket))
}

fn file_id(path: &Path) -> Option<FileId> {
    fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Listener for Unix {
    fn promises(&self) -> Promises {
        Promises::STREAM
    }

    fn local(&self) -> Peer {
        Peer::Unix { process: std::process::id() }
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        let accepted = self.patience.poll_accept(cx, |cx| {
            let accepted = self.listener.poll_accept(cx);
            let from = |stream: &UnixStream, _: &_| credentials(stream).0.to_string();
            calls::accepted(&self.listener, Kind::Unix, accepted, from).map_ok(
                |(stream, _unnamed)| {
                    let (from, peer_user) = credentials(&stream);
                    (calls::stream(stream, Kind::Unix, Side::Accepted), from, peer_user)
                },
            )
        });
        let (stream, from, peer_user) = ready!(accepted)?;
        Poll::Ready(Ok(Accepted::new(stream, from, peer_user)))
    }
}

/// Connects to `name`, or fails `within` the deadline.
pub async fn connect(name: &UnixName, within: Duration) -> Result<Connected, OpenError> {
    let (address, deadline) = (address(name)?, Instant::now() + within);
    let what = || what(name);
    let failed = |error| OpenError::of(&what(), "connect", error);
    loop {
        match connect_now(&address) {
            Ok((closing, socket)) => {
                closing.disarm();
                let stream = UnixStream::from_std(OwnedFd::from(socket).into()).map_err(failed)?;
                let (to, peer_user) = credentials(&stream);
                let stream = calls::stream(stream, Kind::Unix, Side::Connected);
                return Ok(Connected { stream, to, peer_user, channel: None });
            }
            // the backlog is full: the kernel does not queue us, so we come again
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() >= deadline {
                    return Err(OpenError::Timeout { what: what(), seconds: within.as_secs() });
                }
                sleep(PAUSE).await;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(OpenError::NoSocket { what: what() });
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Who is at the other end, as the kernel saw him when he connected or listened.
fn credentials(stream: &UnixStream) -> (Peer, Option<u32>) {
    let Ok(credentials) = stream.peer_cred() else { return (Peer::Unix { process: 0 }, None) };
    let process = credentials.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default();
    (Peer::Unix { process }, Some(credentials.uid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_long_as_the_kernel_takes_and_no_longer() {
        let path = |bytes: usize| UnixName::Path(format!("/{}", "x".repeat(bytes - 1)).into());
        let abstract_name = |bytes| UnixName::Abstract(vec![b'x'; bytes]);
        for (fits, longer) in [(path(107), path(108)), (abstract_name(107), abstract_name(108))] {
            assert!(address(&fits).is_ok(), "{fits}");
            let error = address(&longer).map(|_| ()).unwrap_err();
            assert!(matches!(error, OpenError::PathTooLong { bytes: 108, .. }), "{error}");
        }
    }

    #[test]
    fn names_that_lead_nowhere_are_refused() {
        for bad in [
            UnixName::Abstract(Vec::new()),
            UnixName::Path("".into()),
            UnixName::Path("a\0b".into()),
        ] {
            assert!(address(&bad).is_err(), "{bad:?}");
        }
    }
}
