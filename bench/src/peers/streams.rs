//! Bare copy loops over kernel sockets, blocking: what TCP and Unix sockets give without any protocol on top.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixName, UnixListener, UnixStream};
use std::time::Instant;

use anyhow::{Context as _, Result};
use socket2::SockRef;

use super::{BLOCK_BYTES, Tally};
use crate::job::{Job, Peer, Task};

pub(super) fn run(job: &Job) -> Result<()> {
    match (job.peer, super::is_sender(job)) {
        (Peer::Unix, true) => {
            let name = UnixName::from_abstract_name(&job.connect)?;
            send(UnixStream::connect_addr(&name)?)
        }
        (Peer::Unix, false) => {
            let name = UnixName::from_abstract_name(&job.listen)?;
            let listener = UnixListener::bind_addr(&name)?;
            super::say_ready();
            receive(job, listener.accept()?.0)
        }
        (_, true) => {
            let since = Instant::now();
            let stream = connect(job)?;
            if job.task == Task::FirstByte { ask(stream, since) } else { send(stream) }
        }
        (_, false) => {
            let listener = listen(job)?;
            super::say_ready();
            let stream = listener.accept()?.0;
            if job.task == Task::FirstByte { answer(stream) } else { receive(job, stream) }
        }
    }
}

/// A connection that has the congestion control asked for from its first segment on.
pub(super) fn connect(job: &Job) -> Result<TcpStream> {
    let to: SocketAddr = job.connect.parse()?;
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
    if let Some(congestion) = &job.congestion {
        socket.set_tcp_congestion(congestion.as_bytes()).with_context(|| congestion.clone())?;
    }
    socket.connect(&to.into())?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

pub(super) fn listen(job: &Job) -> Result<TcpListener> {
    let listener = TcpListener::bind(&job.listen)?;
    if let Some(congestion) = &job.congestion {
        SockRef::from(&listener).set_tcp_congestion(congestion.as_bytes())?;
    }
    Ok(listener)
}

fn send(mut stream: impl Write) -> Result<()> {
    super::tell_at_end(String::new);
    let block = super::block();
    while stream.write_all(&block).is_ok() {}
    park()
}

fn receive(job: &Job, mut stream: impl Read) -> Result<()> {
    let mut block = vec![0; BLOCK_BYTES];
    let mut tally = Tally::new(job);
    loop {
        let len = stream.read(&mut block)?;
        anyhow::ensure!(len > 0, "the stream ended early");
        tally.add(len);
    }
}

fn ask(mut stream: TcpStream, since: Instant) -> Result<()> {
    stream.write_all(&[1])?;
    stream.read_exact(&mut [0])?;
    super::tell_first_byte(since);
    super::tell_at_end(String::new);
    park()
}

fn answer(mut stream: TcpStream) -> Result<()> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    stream.write_all(&byte)?;
    let _ = stream.read(&mut byte);
    Ok(())
}

/// The end of stdin ends us.
fn park() -> ! {
    loop {
        std::thread::park();
    }
}
