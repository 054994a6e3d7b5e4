//! The cable in front of a `udp://` endpoint: datagrams of each client go on from a socket of their own.
//!
//! A link's `mtu_bytes` and rate count UDP payload; headers are `per_packet_overhead_bytes`.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};
use socket2::SockRef;

use super::RelayError;
use super::duplex::{BACKWARD, Duplex, FORWARD};
use super::ready::{EventFlags, Ready};

/// Clients served at once; one more pushes out the one that was silent longest.
pub(super) const CLIENTS_MAX: usize = 1024;

const ROUND: usize = 64; // datagrams taken from one socket before the others get their turn
const DATAGRAM_MAX_BYTES: usize = 65_535;
const SOCKET_BUFFER_BYTES: usize = 8 << 20;
const LISTENER: u64 = u64::MAX;

/// A datagram on the cable, with the client it belongs to.
#[derive(Clone)]
pub(super) struct Datagram {
    client: u64,
    bytes: Vec<u8>,
}

impl AsRef<[u8]> for Datagram {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsMut<[u8]> for Datagram {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

struct Client {
    address: SocketAddr,
    socket: UdpSocket,
    heard: Instant,
}

/// A listening socket and where its datagrams go.
pub(super) struct Udp {
    socket: UdpSocket,
    to: SocketAddr,
    ready: Ready,
    clients: BTreeMap<u64, Client>,
    by_address: HashMap<SocketAddr, u64>,
    next_client: u64,
}

impl Udp {
    pub(super) fn open(listen: SocketAddr, to: SocketAddr) -> Result<Self, RelayError> {
        let socket =
            bound(listen).map_err(RelayError::system(format!("listening on udp://{listen}")))?;
        let ready = Ready::new()
            .and_then(|ready| ready.add(&socket, LISTENER, EventFlags::IN).map(|()| ready))
            .map_err(RelayError::system("an epoll set"))?;
        Ok(Self {
            socket,
            to,
            ready,
            clients: BTreeMap::new(),
            by_address: HashMap::new(),
            next_client: 0,
        })
    }

    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    pub(super) fn run(
        mut self,
        mut cable: Duplex<Datagram>,
        stop: &AtomicBool,
    ) -> Result<(), RelayError> {
        let mut now = Instant::now();
        let mut room = vec![0; DATAGRAM_MAX_BYTES];
        while cable.tick(now, stop) {
            let deadlines = [cable.next_deadline(FORWARD), cable.next_deadline(BACKWARD)];
            cable
                .wait(&mut [PollFd::new(&self.ready, PollFlags::IN)], deadlines)
                .map_err(RelayError::system("waiting for datagrams"))?;
            now = Instant::now();
            cable.follow_down();
            for (id, _) in self.ready.take().map_err(RelayError::system("asking what is ready"))? {
                if id == LISTENER {
                    self.hear_clients(&mut cable, now, &mut room);
                } else {
                    self.hear_server(&mut cable, now, id, &mut room);
                }
            }
            now = Instant::now();
            while let Some(datagram) = cable.poll(FORWARD, now) {
                let sent = self
                    .clients
                    .get(&datagram.client)
                    .map(|client| client.socket.send(&datagram.bytes));
                cable.stats.unsent[FORWARD] += u64::from(!matches!(sent, Some(Ok(_))));
            }
            while let Some(datagram) = cable.poll(BACKWARD, now) {
                let client = self.clients.get(&datagram.client);
                let sent =
                    client.map(|client| self.socket.send_to(&datagram.bytes, client.address));
                cable.stats.unsent[BACKWARD] += u64::from(!matches!(sent, Some(Ok(_))));
            }
            cable.stats.clients = self.clients.len();
        }
        Ok(())
    }

    fn hear_clients(&mut self, cable: &mut Duplex<Datagram>, now: Instant, room: &mut [u8]) {
        for _ in 0..ROUND {
            let Ok((len, from)) = self.socket.recv_from(room) else { return }; // errors are of single datagrams
            let Some(client) = self.client_of(from, now, cable) else { continue };
            let bytes = room[..len].to_vec();
            let _ = cable.send(FORWARD, now, Datagram { client, bytes }); // the link counts it
        }
    }

    fn hear_server(&self, cable: &mut Duplex<Datagram>, now: Instant, id: u64, room: &mut [u8]) {
        let Some(client) = self.clients.get(&id) else { return };
        for _ in 0..ROUND {
            let Ok(len) = client.socket.recv(room) else { return }; // a refusal says only that nobody listens yet
            let bytes = room[..len].to_vec();
            let _ = cable.send(BACKWARD, now, Datagram { client: id, bytes }); // the link counts it
        }
    }

    fn client_of(
        &mut self,
        address: SocketAddr,
        now: Instant,
        cable: &mut Duplex<Datagram>,
    ) -> Option<u64> {
        if let Some(&id) = self.by_address.get(&address) {
            if let Some(client) = self.clients.get_mut(&id) {
                client.heard = now;
            }
            return Some(id);
        }
        if self.clients.len() >= CLIENTS_MAX {
            let (&oldest, _) = self.clients.iter().min_by_key(|(_, client)| client.heard)?;
            if let Some(client) = self.clients.remove(&oldest) {
                self.by_address.remove(&client.address);
            }
            cable.stats.refused += 1;
        }
        let any = if self.to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let id = self.next_client;
        let connected = any.parse().map_err(io::Error::other).and_then(bound).and_then(|socket| {
            socket.connect(self.to)?;
            self.ready.add(&socket, id, EventFlags::IN)?;
            Ok(socket)
        });
        let Ok(socket) = connected else {
            cable.stats.refused += 1;
            return None;
        };
        self.next_client += 1;
        self.by_address.insert(address, id);
        self.clients.insert(id, Client { address, socket, heard: now });
        Some(id)
    }
}

fn bound(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    let buffers = SockRef::from(&socket);
    // As much as the system allows; less only loses more.
    let _ = buffers.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = buffers.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    Ok(socket)
}
