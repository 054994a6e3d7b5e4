//! A server on threads of its own, and the plain sockets that meet it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use cabo::address::{Host, Place};
use cabo::keys::Identity;
use cabo::proto::dialect::Dialect;
use cabo::talk::{Server, Settings, Threads};
use tokio::sync::oneshot;

/// No test waits longer for what should be there at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// What runs on which thread must make no difference.
pub(crate) const THREADS: [Threads; 3] = [Threads::Loop(1), Threads::Loop(2), Threads::PerPeer];

/// A server that runs until it is dropped, when the test waits for it to be down.
pub(crate) struct Running {
    tcp: Option<SocketAddr>,
    udp: Option<SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts one that listens, and has told where.
    pub(crate) fn start(server: Server) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_time().build().unwrap().block_on(async move {
                let mut server = server;
                tell.send(server.listen().await.unwrap()).unwrap();
                server.serve(async { stopped.await.unwrap_or_default() }).await;
            });
        });
        let at = told.recv_timeout(PATIENCE).unwrap();
        let port = |number: usize| {
            let (Place::Tcp(host) | Place::Udp(host)) = &at.get(number)?.place else { return None };
            let Host::Ip4(ip) = host.host else { return None };
            Some((ip, host.port?).into())
        };
        let (tcp, udp) = (port(0), port(1));
        Self { tcp, udp, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn tcp_at(&self) -> SocketAddr {
        self.tcp.unwrap()
    }

    pub(crate) fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.tcp_at()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    pub(crate) fn udp(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(self.udp.unwrap()).unwrap();
        socket
    }

    /// Leaves it running: it has callbacks that never return, and goes with the process.
    pub(crate) fn leave(mut self) {
        std::mem::forget(self.stop.take());
        self.thread = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// A server at a TCP and a UDP port.
pub(crate) fn server(dialect: &str, threads: Threads) -> Server {
    Server::bind(["tcp://127.0.0.1:0", "udp://127.0.0.1:0"])
        .unwrap()
        .identity(Identity::generate().unwrap())
        .settings(Settings { threads, ..settings(dialect) })
}

pub(crate) fn settings(dialect: &str) -> Settings {
    Settings { dialect: Dialect::parse(dialect).unwrap().into(), ..Settings::default() }
}

/// Says a line, and hears the same line.
pub(crate) fn echo(mut stream: &TcpStream, line: &str) {
    say(stream, line);
    let mut answer = vec![0; line.len() + 1];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(String::from_utf8(answer).unwrap(), format!("{line}\n"));
}

pub(crate) fn say(mut stream: &TcpStream, line: &str) {
    stream.write_all(format!("{line}\n").as_bytes()).unwrap();
}

pub(crate) fn read_all(mut stream: &TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}
