//! Machines that run out of descriptors, thousands of clients, clients that never read, ports that were just in use,
//! sockets that break while they are written.

use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cabo::talk::{Server, Settings, Threads};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::running::{PATIENCE, Running, echo, read_all, say, server, settings};

/// Clients of the test, where the machine allows as many: both their ends are in this process.
const CLIENTS: usize = 10_000;

fn echoing(threads: Threads) -> Server {
    server("lines", threads).on_receive(|message, peer| peer.send_back(&message).unwrap())
}

fn limit_descriptors(current: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum }).unwrap();
}

/// Runs one of these tests alone in a process, for what it does to all of it.
fn alone(test: &str) -> bool {
    if std::env::var_os("CABO_ALONE").is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env("CABO_ALONE", "1").stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}", output.status);
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    false
}

/// User and system time of this process; asking for it takes no descriptor.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap()
}

#[test]
fn a_listener_without_descriptors_rests_and_takes_clients_again_when_there_are_some() {
    if !alone(
        "limits::a_listener_without_descriptors_rests_and_takes_clients_again_when_there_are_some",
    ) {
        return;
    }
    let server = Running::start(echoing(Threads::Loop(1)));
    let first = server.tcp();
    echo(&first, "before");
    let mut held: Vec<TcpStream> = Vec::new();
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    limit_descriptors(open + 40); // 20 clients have both their ends in this process
    let refused = loop {
        match TcpStream::connect(server.tcp_at()) {
            Ok(client) => held.push(client),
            Err(error) => break error,
        }
        assert!(held.len() < 100, "descriptors do not run out");
    };
    assert_eq!(refused.raw_os_error(), Some(libc::EMFILE), "{refused}");
    echo(&first, "meanwhile");
    let (begun, before) = (Instant::now(), cpu_time());
    std::thread::sleep(Duration::from_millis(500)); // for as long as this is looked at
    let (took, passed) = (cpu_time() - before, begun.elapsed());
    assert!(took < passed / 2, "it spins: {took:?} of {passed:?}");
    held.clear();
    limit_descriptors(open + 200);
    let begun = Instant::now();
    loop {
        // Some are closed by the listener, which had no descriptor for them.
        let mut client = TcpStream::connect(server.tcp_at()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = [0; 6];
        if client.write_all(b"after\n").is_ok()
            && std::io::Read::read_exact(&mut client, &mut answer).is_ok()
        {
            assert_eq!(&answer, b"after\n");
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "it does not recover");
    }
    echo(&first, "after");
}

#[test]
fn thousands_of_clients_at_once_have_their_own_answers() {
    if !alone("limits::thousands_of_clients_at_once_have_their_own_answers") {
        return;
    }
    let most = getrlimit(Resource::Nofile).maximum.map_or(usize::MAX, |most| most as usize);
    let clients = CLIENTS.min(most.saturating_sub(200) / 2);
    limit_descriptors((2 * clients + 200) as u64);
    let server = Running::start(echoing(Threads::Cores));
    let begun = Instant::now();
    let all: Vec<TcpStream> = (0..clients).map(|_| server.tcp()).collect();
    let connected = begun.elapsed();
    for round in 0..2 {
        for (number, client) in all.iter().enumerate() {
            say(client, &format!("{round} {number}"));
        }
        for (number, mut client) in all.iter().enumerate() {
            let wanted = format!("{round} {number}\n");
            let mut answer = vec![0; wanted.len()];
            std::io::Read::read_exact(&mut client, &mut answer).unwrap();
            assert_eq!(answer, wanted.as_bytes());
        }
    }
    println!("{clients} clients: there in {connected:?}, done in {:?}", begun.elapsed());
    all.iter().for_each(|client| client.shutdown(Shutdown::Both).unwrap());
}

/// What a client that never reads costs, however long it is sent to, is its room and no more.
#[test]
fn a_client_that_never_reads_costs_its_room_and_no_more() {
    for threads in [Threads::Loop(1), Threads::PerPeer] {
        let (tell, told) = mpsc::channel();
        let room = 64 * 1024;
        let part = Bytes::from(vec![b'x'; 10_000]);
        let limits = Settings { outgoing_bytes_max: room, threads, ..settings("raw") };
        let server = server("raw", threads).settings(limits).on_receive(move |message, peer| {
            if message.payload() == "flood" {
                let most = (0..10_000).map(|_| {
                    let _ = peer.send(&part); // it is full most of the time
                    peer.waiting_bytes()
                });
                tell.send(most.max().unwrap()).unwrap();
            } else {
                peer.send_back(&message).unwrap();
            }
        });
        let server = Running::start(server);
        let mut never_reads = server.tcp();
        never_reads.write_all(b"flood").unwrap();
        let most = told.recv_timeout(PATIENCE).unwrap();
        assert!(most < room + 10_000, "{most} bytes wait");
        let mut other = server.tcp();
        other.write_all(b"hola").unwrap();
        let mut answer = [0; 4];
        std::io::Read::read_exact(&mut other, &mut answer).unwrap();
        assert_eq!(&answer, b"hola", "{threads:?}");
        never_reads.shutdown(Shutdown::Both).unwrap();
    }
}

/// More than the socket takes at once: the rest waits in its peer's room, and goes out without another word.
#[test]
fn a_burst_of_datagrams_leaves_nothing_behind() {
    for threads in [Threads::Loop(1), Threads::Cores] {
        let (tell, told) = mpsc::channel();
        let server = server("raw", threads).on_receive(move |_, peer| {
            (0..20_000).for_each(|_| peer.send(b"hola").unwrap());
            tell.send(peer.clone()).unwrap();
        });
        let server = Running::start(server);
        server.udp().send(b"burst").unwrap();
        let peer = told.recv_timeout(PATIENCE).unwrap();
        let begun = Instant::now();
        while peer.waiting_bytes() > 0 {
            assert!(begun.elapsed() < PATIENCE, "{} bytes are left", peer.waiting_bytes());
            std::thread::sleep(Duration::from_millis(1)); // looks again
        }
    }
}

/// The server closes first, so the port is in TIME_WAIT on its side.
#[test]
fn a_server_starts_again_at_once_where_it_was_and_meets_its_clients_there() {
    let parting = |at: SocketAddr| {
        let server = Server::bind([format!("tcp://{at}")]).unwrap().settings(settings("lines"));
        Running::start(server.on_receive(|message, peer| {
            peer.send_back(&message).unwrap();
            peer.close();
        }))
    };
    let mut server = parting("127.0.0.1:0".parse().unwrap());
    let at = server.tcp_at();
    for round in 0..3 {
        let clients: Vec<TcpStream> = (0..10).map(|_| server.tcp()).collect();
        for client in &clients {
            echo(client, "hola");
            assert_eq!(read_all(client), b"", "it ended the conversation itself");
        }
        drop(clients);
        drop(server);
        assert!(in_time_wait(at), "round {round}: a connection is in TIME_WAIT at {at}");
        server = parting(at);
        assert_eq!(server.tcp_at(), at);
    }
}

/// Whether any connection of this port is in TIME_WAIT (state 06).
fn in_time_wait(at: SocketAddr) -> bool {
    let local = format!(":{:04X}", at.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1).is_some_and(|own| own.ends_with(&local)) && fields.get(3) == Some(&"06")
    })
}

/// Writing to a socket that was reset raises SIGPIPE, whose default is the end of the process.
#[test]
fn a_socket_that_breaks_while_it_is_written_ends_its_conversation_alone_even_where_sigpipe_kills() {
    if !alone(
        "limits::a_socket_that_breaks_while_it_is_written_ends_its_conversation_alone_even_where_sigpipe_kills",
    ) {
        return;
    }
    // SAFETY: no handler is installed; this process has only begun, and the default is what a C program has.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let (tell, told) = mpsc::channel();
    let server = server("lines", Threads::Loop(1))
        .on_receive(|message, peer| peer.send_back(&message).unwrap())
        .on_send(|_| Some(Bytes::from(vec![b'x'; 100_000])))
        .on_close(move |_, why| tell.send(why.to_string()).unwrap());
    let server = Running::start(server);
    for _ in 0..20 {
        let breaking = server.tcp();
        let mut some = [0; 1000];
        std::io::Read::read_exact(&mut { &breaking }, &mut some).unwrap();
        socket2::SockRef::from(&breaking).set_linger(Some(Duration::ZERO)).unwrap();
        drop(breaking); // by a reset
        let why = told.recv_timeout(PATIENCE).unwrap();
        assert!(why.starts_with("the connection failed"), "{why}");
    }
}
