//! The cable in front of a `tcp://` endpoint: connections are ended here and begun anew towards the server.
//!
//! Bytes cross the links in pieces. What TCP would repair (loss, duplicates, order, packets too big) has no meaning
//! here and is refused by [`check`]; a pulled cable holds everything back, and a reset on one side becomes one on the
//! other.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use cabo_proto::sim::link::{LinkConfig, Verdict};
use rustix::event::{PollFd, PollFlags};
use socket2::{Domain, SockRef, Socket, Type};

use super::duplex::{BACKWARD, Duplex, FORWARD};
use super::ready::{EventFlags, Ready};
use super::{RelayConfig, RelayError};

/// Connections served at once; further ones are closed at once.
pub(super) const CONNECTIONS_MAX: usize = 512;

const HELD_MIN_BYTES: usize = 256 << 10; // of one connection and direction: on the cable or not yet taken
const HELD_MAX_BYTES: usize = 16 << 20;
const HELD_TOTAL_BYTES: usize = 128 << 20; // of all connections in one direction; below what a link can hold
const PIECE_COST_BYTES: usize = 128; // a rough price of one piece beyond its bytes
const PIECE_MAX_BYTES: usize = 16 << 10;
const PIECE_MIN_BYTES: usize = 1448;
const PIECES_PER_TURN: usize = 16;
const LISTENER: u64 = u64::MAX;

/// Refuses what a byte stream cannot suffer.
pub(super) fn check(config: &LinkConfig) -> Result<(), RelayError> {
    for (name, is_set) in [
        ("loss", config.loss > 0.0),
        ("duplicate", config.duplicate > 0.0),
        ("reorder", config.reorder > 0.0),
        ("mtu", config.mtu_bytes != 0),
        ("queue", config.queue_bytes.is_some()),
    ] {
        if is_set {
            return Err(RelayError::NotForStreams(name));
        }
    }
    Ok(())
}

/// The same cable without a queue limit: the relay stops reading instead of dropping.
pub(super) fn unqueued(mut config: RelayConfig) -> RelayConfig {
    config.forward.queue_bytes = Some(u64::MAX);
    config.backward.queue_bytes = Some(u64::MAX);
    config
}

/// Some bytes of one connection on the cable; none mean that its stream ends here.
#[derive(Clone)]
pub(super) struct Piece {
    connection: u64,
    bytes: Vec<u8>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsMut<[u8]> for Piece {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// How one direction is cut and bounded.
#[derive(Clone, Copy)]
struct Limits {
    piece_bytes: usize,
    held_bytes: usize,
}

impl Limits {
    fn of(config: &LinkConfig) -> Self {
        let bytes_per_ms =
            usize::try_from(config.rate_bits_per_second / 8000).unwrap_or(usize::MAX);
        let product = usize::try_from(config.default_queue_bytes()).unwrap_or(usize::MAX);
        let is_fine = config.corrupt > 0.0; // a share of segments, not of larger pieces
        match bytes_per_ms {
            0 if config.rate_bits_per_second == 0 => Self {
                piece_bytes: if is_fine { PIECE_MIN_BYTES } else { PIECE_MAX_BYTES },
                held_bytes: HELD_MAX_BYTES,
            },
            _ => Self {
                piece_bytes: if is_fine {
                    PIECE_MIN_BYTES
                } else {
                    bytes_per_ms.clamp(PIECE_MIN_BYTES, PIECE_MAX_BYTES)
                },
                held_bytes: product.clamp(HELD_MIN_BYTES, HELD_MAX_BYTES),
            },
        }
    }
}

/// One direction of one connection.
#[derive(Default)]
struct Half {
    held_bytes: usize, // with the price of each piece
    leaving: VecDeque<Vec<u8>>,
    written_bytes: usize, // of the first of `leaving`
    is_read: bool,        // the source said that it ends
    is_written: bool,     // and the far side was told
}

/// A client's connection and ours to the server; index 0 is the client, the source of direction 0.
struct Connection {
    streams: [TcpStream; 2],
    is_readable: [bool; 2],
    is_writable: [bool; 2],
    halves: [Half; 2],
}

/// A listening socket and where its connections go.
pub(super) struct Tcp {
    listener: TcpListener,
    to: SocketAddr,
    ready: Ready,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    held_bytes: [usize; 2],
}

impl Tcp {
    pub(super) fn open(listen: SocketAddr, to: SocketAddr) -> Result<Self, RelayError> {
        let listening = || RelayError::system(format!("listening on tcp://{listen}"));
        let listener = TcpListener::bind(listen).map_err(listening())?;
        listener.set_nonblocking(true).map_err(listening())?;
        let ready = Ready::new().map_err(RelayError::system("an epoll set"))?;
        ready.add(&listener, LISTENER, EventFlags::IN | EventFlags::ET).map_err(listening())?;
        Ok(Self {
            listener,
            to,
            ready,
            connections: BTreeMap::new(),
            next_connection: 0,
            held_bytes: [0; 2],
        })
    }

    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    pub(super) fn run(
        mut self,
        mut cable: Duplex<Piece>,
        stop: &AtomicBool,
    ) -> Result<(), RelayError> {
        let limits = [Limits::of(cable.config(FORWARD)), Limits::of(cable.config(BACKWARD))];
        let mut now = Instant::now();
        let mut has_more = false;
        while cable.tick(now, stop) {
            let deadlines = match (cable.is_down(), has_more) {
                (true, _) => [None; 2],
                (false, true) => [Some(now); 2],
                (false, false) => [cable.next_deadline(FORWARD), cable.next_deadline(BACKWARD)],
            };
            cable
                .wait(&mut [PollFd::new(&self.ready, PollFlags::IN)], deadlines)
                .map_err(RelayError::system("waiting for connections"))?;
            now = Instant::now();
            for (number, flags) in
                self.ready.take().map_err(RelayError::system("asking what is ready"))?
            {
                self.note(number, flags);
            }
            self.accept(&mut cable);
            if cable.is_down() {
                has_more = false;
                continue;
            }
            self.deliver(&mut cable, now); // first, for the room that it makes
            has_more = self.read(&mut cable, limits, now);
            cable.stats.clients = self.connections.len();
        }
        Ok(())
    }

    /// Edge triggered, so that a hang-up that nobody can act on yet does not wake us again and again.
    fn note(&mut self, number: u64, flags: EventFlags) {
        let (id, side) = (number / 2, (number % 2) as usize);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if flags.contains(EventFlags::ERR) {
            self.reset(id);
            return;
        }
        connection.is_readable[side] |=
            flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::RDHUP);
        connection.is_writable[side] |= flags.contains(EventFlags::OUT);
    }

    fn accept(&mut self, cable: &mut Duplex<Piece>) {
        for _ in 0..CONNECTIONS_MAX {
            // Out of descriptors is an error too; the next turn tries again.
            let Ok((client, _)) = self.listener.accept() else { return };
            if self.connections.len() >= CONNECTIONS_MAX || self.begin(client).is_err() {
                cable.stats.refused += 1;
            }
        }
    }

    fn begin(&mut self, client: TcpStream) -> io::Result<()> {
        let server =
            Socket::new(Domain::for_address(self.to), Type::STREAM.nonblocking().cloexec(), None)?;
        match server.connect(&self.to.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let streams = [client, TcpStream::from(server)];
        for (side, stream) in streams.iter().enumerate() {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            self.ready.add(stream, self.next_connection * 2 + side as u64, flags)?;
        }
        let connection = Connection {
            streams,
            is_readable: [false; 2],
            is_writable: [false; 2],
            halves: Default::default(),
        };
        self.connections.insert(self.next_connection, connection);
        self.next_connection += 1;
        Ok(())
    }

    /// Reads what the cable has room for; true if there is more to read at once.
    fn read(&mut self, cable: &mut Duplex<Piece>, limits: [Limits; 2], now: Instant) -> bool {
        let (mut has_more, mut broken) = (false, Vec::new());
        for (&id, connection) in &mut self.connections {
            for (direction, limits) in limits.into_iter().enumerate() {
                let total = &mut self.held_bytes[direction];
                match connection.read(id, direction, limits, total, cable, now) {
                    Ok(more) => has_more |= more,
                    Err(_) => broken.push(id),
                }
            }
        }
        broken.into_iter().for_each(|id| self.reset(id));
        has_more
    }

    /// Hands on what came through, and what had no room before.
    fn deliver(&mut self, cable: &mut Duplex<Piece>, now: Instant) {
        for direction in [FORWARD, BACKWARD] {
            while let Some(piece) = cable.poll(direction, now) {
                match self.connections.get_mut(&piece.connection) {
                    Some(connection) => connection.halves[direction].leaving.push_back(piece.bytes),
                    None => cable.stats.unsent[direction] += 1,
                }
            }
        }
        let (mut broken, mut over) = (Vec::new(), Vec::new());
        for (&id, connection) in &mut self.connections {
            for direction in [FORWARD, BACKWARD] {
                if connection.write(direction, &mut self.held_bytes[direction]).is_err() {
                    broken.push(id);
                }
            }
            if connection.halves.iter().all(|half| half.is_written) {
                over.push(id);
            }
        }
        broken.into_iter().for_each(|id| self.reset(id));
        for id in over {
            self.connections.remove(&id);
        }
    }

    /// Ends a connection the hard way on both sides.
    fn reset(&mut self, id: u64) {
        let Some(connection) = self.connections.remove(&id) else { return };
        for (total, half) in self.held_bytes.iter_mut().zip(&connection.halves) {
            *total -= half.held_bytes;
        }
        for stream in &connection.streams {
            // Best effort: a plain close would look like a proper end of the stream.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl Connection {
    fn read(
        &mut self,
        id: u64,
        direction: usize,
        limits: Limits,
        total_bytes: &mut usize,
        cable: &mut Duplex<Piece>,
        now: Instant,
    ) -> io::Result<bool> {
        let half = &mut self.halves[direction];
        for _ in 0..PIECES_PER_TURN {
            let has_room = half.held_bytes < limits.held_bytes && *total_bytes < HELD_TOTAL_BYTES;
            if half.is_read || !self.is_readable[direction] || !has_room {
                return Ok(false);
            }
            let mut bytes = vec![0; limits.piece_bytes];
            match self.streams[direction].read(&mut bytes) {
                Ok(len) => {
                    bytes.truncate(len);
                    half.is_read = len == 0;
                    half.held_bytes += len + PIECE_COST_BYTES;
                    *total_bytes += len + PIECE_COST_BYTES;
                    match cable.send(direction, now, Piece { connection: id, bytes }) {
                        Verdict::Delivered { .. } => {}
                        // A stream with a hole is worse than none.
                        Verdict::Lost | Verdict::QueueFull | Verdict::TooBig | Verdict::Down => {
                            return Err(ErrorKind::OutOfMemory.into());
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_readable[direction] = false
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn write(&mut self, direction: usize, total_bytes: &mut usize) -> io::Result<()> {
        let (far, half) = (1 - direction, &mut self.halves[direction]);
        while self.is_writable[far]
            && let Some(piece) = half.leaving.front()
        {
            let rest = &piece[half.written_bytes..];
            if rest.is_empty() {
                half.held_bytes -= piece.len() + PIECE_COST_BYTES;
                *total_bytes -= piece.len() + PIECE_COST_BYTES;
                if piece.is_empty() {
                    half.is_written = true;
                    // It may be gone by now, which its other direction will notice.
                    let _ = self.streams[far].shutdown(Shutdown::Write);
                }
                half.leaving.pop_front();
                half.written_bytes = 0;
                continue;
            }
            match self.streams[far].write(rest) {
                Ok(len) => half.written_bytes += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_writable[far] = false
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
