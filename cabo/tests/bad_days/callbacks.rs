//! Callbacks that block, never return or panic: nobody but their own client is to notice.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use cabo::talk::{Message, Peer, Server, Settings, Threads};

use crate::running::{PATIENCE, Running, THREADS, echo, read_all, say, server, settings};

const CLIENTS: usize = 200;

/// An echo that, told to `stick`, says so and never returns.
fn sticky(threads: Threads) -> (Server, mpsc::Receiver<u64>) {
    let (tell, told) = mpsc::channel();
    let server = server("lines", threads).on_receive(move |message, peer| {
        if message.payload() == "stick" {
            tell.send(peer.number()).unwrap();
            loop {
                std::thread::park();
            }
        }
        peer.send_back(&message).unwrap();
    });
    (server, told)
}

fn clients(server: &Running) -> Vec<TcpStream> {
    (0..CLIENTS).map(|_| server.tcp()).collect()
}

/// All at once, several times over.
fn all_echo(clients: &[TcpStream], rounds: usize) {
    for round in 0..rounds {
        clients.iter().for_each(|client| say(client, &format!("{round}")));
        for client in clients {
            let mut answer = [0; 16];
            let len = format!("{round}\n").len();
            std::io::Read::read_exact(&mut { client }, &mut answer[..len]).unwrap();
            assert_eq!(answer[..len], *format!("{round}\n").as_bytes());
        }
    }
}

/// From the beginning, when callbacks have earned nothing, and after they have earned their place on the loop.
fn others_go_on_while_some_never_return(stuck: usize) {
    for threads in THREADS {
        for rounds_before in [0, 10] {
            let (server, told) = sticky(threads);
            let server = Running::start(server);
            let clients = clients(&server);
            all_echo(&clients, rounds_before);
            let sticking: Vec<TcpStream> = (0..stuck).map(|_| server.tcp()).collect();
            sticking.iter().for_each(|client| say(client, "stick"));
            for _ in 0..stuck {
                told.recv_timeout(PATIENCE).unwrap();
            }
            all_echo(&clients, 3);
            echo(&server.tcp(), "somebody new");
            server.leave();
        }
    }
}

#[test]
fn two_hundred_clients_go_on_while_one_callback_never_returns() {
    others_go_on_while_some_never_return(1);
}

#[test]
fn two_hundred_clients_go_on_while_two_callbacks_never_return() {
    others_go_on_while_some_never_return(2);
}

#[test]
fn two_hundred_clients_go_on_while_ten_callbacks_never_return() {
    others_go_on_while_some_never_return(10);
}

#[test]
fn the_peers_of_a_udp_socket_go_on_while_the_callbacks_of_some_never_return() {
    for threads in THREADS {
        let (server, told) = sticky(threads);
        let server = Running::start(server);
        let (first, second, good) = (server.udp(), server.udp(), server.udp());
        let mut answer = [0; 16];
        let mut echo = |rounds: usize| {
            for _ in 0..rounds {
                good.send(b"hola").unwrap();
                assert_eq!(good.recv(&mut answer).unwrap(), 4, "{threads:?}");
            }
        };
        echo(100); // earns calls on the loop
        for sticking in [&first, &second] {
            sticking.send(b"stick").unwrap();
            told.recv_timeout(PATIENCE).unwrap();
            sticking.send(b"and more").unwrap(); // waits for its callback, and for nobody else's
            echo(3);
        }
        crate::running::echo(&server.tcp(), "and on the other socket");
        server.leave();
    }
}

/// A naive way to stream: a callback that sends again and again and does not return.
#[test]
fn what_a_callback_that_never_returns_sends_to_others_arrives() {
    for threads in THREADS {
        let listeners = Arc::new(Mutex::new(Vec::<Peer>::new()));
        let server = server("lines", threads).on_receive(move |message, peer| {
            match message.payload().as_ref() {
                b"join" => listeners.lock().unwrap().push(peer.clone()),
                b"stream" => {
                    let all = listeners.lock().unwrap().clone();
                    for number in 0.. {
                        for listener in &all {
                            let _ = listener.send(format!("{}", number % 10)); // it may be gone
                        }
                        std::thread::sleep(Duration::from_millis(10)); // what it streams comes slowly
                    }
                }
                _ => {}
            }
            peer.send_back(&message).unwrap();
        });
        let server = Running::start(server);
        let listeners: Vec<TcpStream> = (0..10).map(|_| server.tcp()).collect();
        listeners.iter().for_each(|listener| echo(listener, "join"));
        all_echo(&listeners, 20); // earns calls on the loop
        say(&server.tcp(), "stream");
        for mut listener in &listeners {
            let mut heard = [0; 2 * 20];
            std::io::Read::read_exact(&mut listener, &mut heard).unwrap();
            assert_eq!(&heard[..6], b"0\n1\n2\n", "{threads:?}");
        }
        server.leave();
    }
}

#[test]
fn a_server_goes_down_while_callbacks_do_not_return() {
    for threads in [Threads::Loop(1), Threads::PerPeer] {
        let (server, told) = sticky(threads);
        let server = Running::start(server);
        let sticking = [server.tcp(), server.tcp(), server.tcp()];
        for client in &sticking {
            say(client, "stick");
            told.recv_timeout(PATIENCE).unwrap();
        }
        let (tell, down) = mpsc::channel();
        std::thread::spawn(move || {
            drop(server); // joins its thread
            tell.send(()).unwrap();
        });
        down.recv_timeout(PATIENCE).unwrap();
    }
}

/// Whoever waits here is let go by the test.
#[derive(Default)]
struct Turnstile {
    is_open: Mutex<bool>,
    opened: Condvar,
    inside: AtomicUsize,
    most: AtomicUsize,
}

impl Turnstile {
    fn pass(&self) {
        self.most.fetch_max(self.inside.fetch_add(1, SeqCst) + 1, SeqCst);
        let is_open = self.is_open.lock().unwrap();
        drop(self.opened.wait_while(is_open, |is_open| !*is_open).unwrap());
        self.inside.fetch_sub(1, SeqCst);
    }

    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn of_hundreds_of_callbacks_that_block_at_once_those_wait_for_whom_there_is_no_thread() {
    let turnstile = Arc::new(Turnstile::default());
    let passing = turnstile.clone();
    let blocking = move |message: Message, peer: &Peer| {
        passing.pass();
        peer.send_back(&message).unwrap();
    };
    let threads = Settings { stuck_max: 8, threads: Threads::Loop(2), ..settings("lines") };
    let server = server("lines", Threads::Loop(2)).settings(threads).on_receive(blocking);
    let server = Running::start(server);
    let clients: Vec<TcpStream> = (0..400).map(|_| server.tcp()).collect();
    clients.iter().for_each(|client| say(client, "hola"));
    let room = 8 + 256;
    wait_until("all threads are taken", || turnstile.inside.load(SeqCst) >= room);
    turnstile.open();
    for client in &clients {
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(client), b"hola\n");
    }
    let most = turnstile.most.load(SeqCst);
    assert!(most <= room + 3, "a thread of the loop may each have looked at the same time: {most}");
}

#[test]
fn while_too_many_callbacks_are_stuck_nobody_new_is_let_in() {
    for threads in [Threads::Loop(1), Threads::Loop(2)] {
        let turnstile = Arc::new(Turnstile::default());
        let passing = turnstile.clone();
        let (tell, told) = mpsc::channel();
        let stuck_time = Duration::from_millis(50);
        let limits = Settings { stuck_max: 2, stuck_time, threads, ..settings("lines") };
        let server = server("lines", threads)
            .settings(limits)
            .on_receive(move |message, peer| {
                if message.payload() == "stick" {
                    passing.pass();
                }
                peer.send_back(&message).unwrap();
            })
            .on_refuse(move |_, why| tell.send(why.to_string()).unwrap());
        let server = Running::start(server);
        let known = server.tcp();
        echo(&known, "hola");
        let sticking = [server.tcp(), server.tcp()];
        sticking.iter().for_each(|client| say(client, "stick"));
        wait_until("both are stuck", || turnstile.inside.load(SeqCst) == 2);
        wait_until("somebody is refused", || {
            drop(server.tcp());
            told.try_recv().is_ok_and(|why| {
                assert_eq!(why, "2 callbacks have not returned, and nobody new is let in");
                true
            })
        });
        echo(&known, "who is there stays");
        turnstile.open();
        for client in &sticking {
            let mut answer = [0; 6];
            std::io::Read::read_exact(&mut { client }, &mut answer).unwrap();
        }
        echo(&server.tcp(), "who comes is let in again");
    }
}

#[test]
fn limits_that_make_no_sense_are_brought_to_their_bounds() {
    for (stuck_max, stuck_time) in [(0, Duration::ZERO), (usize::MAX, Duration::MAX)] {
        let threads = Threads::Loop(0);
        let limits = Settings { stuck_max, stuck_time, threads, ..settings("lines") };
        let (server, _told) = sticky(threads);
        let server = Running::start(server.settings(limits));
        echo(&server.tcp(), "hola");
    }
}

#[test]
fn a_callback_that_panics_at_each_message_costs_its_own_clients_alone() {
    for threads in THREADS {
        let (tell, told) = mpsc::channel();
        let server = server("lines", threads)
            .on_receive(|message, peer| {
                assert_ne!(message.payload(), "panic", "as it was told to");
                peer.send_back(&message).unwrap();
            })
            .on_close(move |_, why| tell.send(why.to_string()).unwrap());
        let server = Running::start(server);
        let clients = clients(&server);
        for round in 0..3 {
            let bad: Vec<TcpStream> = (0..10).map(|_| server.tcp()).collect();
            bad.iter().for_each(|client| say(client, "panic"));
            all_echo(&clients, 2);
            for client in &bad {
                assert_eq!(read_all(client), b"", "round {round}");
                assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "a callback for it panicked");
            }
        }
    }
}

/// What callbacks saw of each client, and what each client got.
fn transcript(threads: Threads) -> Vec<String> {
    let (tell, told) = mpsc::channel();
    let (came, left) = (tell.clone(), tell.clone());
    let server = server("lines", threads)
        .on_connect(move |peer| {
            peer.with_state(|told: &mut Vec<String>| told.push("here".to_owned()));
            came.send(None).unwrap();
        })
        .on_receive(|message, peer| {
            let text = String::from_utf8_lossy(&message.payload()).into_owned();
            peer.with_state(|told: &mut Vec<String>| told.push(text));
            peer.send_back(&message).unwrap();
            if message.payload() == "bye" {
                peer.close();
            }
            assert_ne!(message.payload(), "panic", "as it was told to");
        })
        .on_close(move |peer, why| {
            let mut all = peer.with_state(|told: &mut Vec<String>| std::mem::take(told));
            all.push(why.to_string());
            left.send(Some(all.join(" "))).unwrap();
        });
    let server = Running::start(server);
    let scripts: Vec<String> = (0..50)
        .map(|client| {
            let lines: String = (0..client).map(|line| format!("{client}.{line}\n")).collect();
            lines + ["bye\nnever\n", "panic\nnever\n", "last without end"][client % 3]
        })
        .collect();
    let clients: Vec<TcpStream> = scripts.iter().map(|_| server.tcp()).collect();
    let mut seen = Vec::new();
    for (script, client) in scripts.iter().zip(&clients) {
        std::io::Write::write_all(&mut { client }, script.as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
    }
    for client in &clients {
        // What was answered before a panic may have gone out or not; what callbacks saw is compared below.
        let answer = String::from_utf8(read_all(client)).unwrap();
        seen.push(if answer.contains("bye") || answer.contains("last") {
            answer
        } else {
            String::new()
        });
    }
    let mut ends = Vec::new();
    while ends.len() < clients.len() {
        ends.extend(told.recv_timeout(PATIENCE).unwrap());
    }
    ends.sort();
    seen.extend(ends);
    seen
}

#[test]
fn results_are_alike_on_one_loop_on_several_and_with_a_thread_a_peer() {
    let one = transcript(Threads::Loop(1));
    assert!(one.contains(&"here 3.0 3.1 3.2 bye closed".to_owned()), "{one:#?}");
    assert!(one.contains(&"here 1.0 panic a callback for it panicked".to_owned()), "{one:#?}");
    for threads in [Threads::Loop(2), Threads::Cores, Threads::PerPeer] {
        assert_eq!(transcript(threads), one, "{threads:?}");
    }
}
