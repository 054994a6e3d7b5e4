//! The question on the terminal of `serve` and of `listen`: yes, no, nobody there, several at once, and one that has left.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStderr, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::needs::{Need, skip_without};
use crate::talk::Listening;
use crate::world::{Done, LIMIT, Served, World, finish, signal_child, wait};

const QUESTION: &str = " in? y/n ";

/// A terminal and who sits at it.
struct Terminal {
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    /// What was shown and not yet looked at.
    shown: String,
}

impl Terminal {
    /// A server that has a terminal of its own for its questions.
    fn serve(world: &World) -> (Self, Served) {
        world.write("served/a.txt", b"a");
        world.write("friends.txt", b"# nobody\n");
        let args = ["serve", "--json", "served", "--on", "udp://127.0.0.1:0"];
        let more = ["--allow", "friends.txt"];
        let (terminal, child) = Self::start(world, &[&args[..], &more].concat(), false);
        let (_nothing, errors) = channel();
        (terminal, Served::of(child, errors))
    }

    /// The same that shows messages.
    fn listen(world: &World, args: &[&str]) -> (Self, Listening) {
        let args = [&["listen", "--json", "tcp://127.0.0.1:0"], args].concat();
        let (terminal, child) = Self::start(world, &args, false);
        (terminal, Listening::of_child(child, 1))
    }

    /// A command in the foreground of a terminal, which shows its stdout too where that is wanted.
    fn start(world: &World, args: &[&str], shows_stdout: bool) -> (Self, Child) {
        let keyboard: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap().into_string().unwrap();
        let line = File::options().read(true).write(true).open(name).unwrap();
        let mut command = world.cabo_on_terminal();
        command.args(args).stdin(line.try_clone().unwrap());
        match shows_stdout {
            true => command.stdout(line.try_clone().unwrap()),
            false => command.stdout(Stdio::piped()),
        };
        command.stderr(line);
        let child: Child = command.spawn().unwrap();
        drop(command); // and with it our copies of the terminal's other end

        let (sender, screen) = channel();
        let mut from = File::from(keyboard.try_clone().unwrap());
        thread::spawn(move || {
            let mut room = [0; 4096];
            // It ends with an error when nobody has the other end any more.
            while let Ok(len @ 1..) = from.read(&mut room) {
                if sender.send(room[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        (Self { keyboard: File::from(keyboard), screen, shown: String::new() }, child)
    }

    /// Waits until this is shown; what was shown up to its end.
    #[track_caller]
    fn until_shown(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.shown.find(text) {
                let rest = self.shown.split_off(at + text.len());
                return std::mem::replace(&mut self.shown, rest);
            }
            let more = self.screen.recv_timeout(LIMIT);
            let more = more.unwrap_or_else(|_| panic!("no {text:?} after {:?}", self.shown));
            self.shown.push_str(&String::from_utf8_lossy(&more));
        }
    }

    fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// What is shown and was not looked at, up to now.
    fn rest(&mut self) -> &str {
        while let Ok(more) = self.screen.try_recv() {
            self.shown.push_str(&String::from_utf8_lossy(&more));
        }
        &self.shown
    }
}

fn ls(world: &World, who: &str, url: &str) -> JoinHandle<Done> {
    let mut command = world.cabo_as(who);
    command.args(["ls", url]);
    thread::spawn(move || finish(&mut command))
}

/// An `ls` that waits for an answer.
struct Waiting {
    child: Child,
    said: BufReader<ChildStderr>,
}

impl Waiting {
    fn ls(world: &World, who: &str, url: &str) -> Self {
        let mut command = world.cabo_as(who);
        command.args(["ls", url]).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        Self { child, said }
    }

    #[track_caller]
    fn until_said(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert!(self.said.read_line(&mut line).unwrap() > 0, "it never said {text:?}");
        }
    }

    fn end(mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    fn interrupt(self) -> ExitStatus {
        signal_child(&self.child, Signal::INT);
        self.end()
    }
}

/// Sends a message as somebody, and waits for the answer.
fn send(world: &World, who: &str, url: &str) -> JoinHandle<Done> {
    let mut command = world.cabo_as(who);
    command.args(["send", url, "--as", "cabo", "--wait", "100s", "hola"]);
    thread::spawn(move || finish(&mut command))
}

fn is_missing() -> bool {
    skip_without(&[Need::Program("setsid")])
}

#[test]
fn a_yes_lets_a_new_peer_in_and_is_asked_for_once() {
    if is_missing() {
        return;
    }
    let world = World::new();
    let (mut terminal, served) = Terminal::serve(&world);
    for (who, answer) in [("ana", "y\n"), ("bob", "YES\n")] {
        let asking = ls(&world, who, served.url());
        let asked = terminal.until_shown(QUESTION);
        let print = world.fingerprint(who);
        assert!(asked.contains(&format!("{who}@")) && asked.contains(&print), "{asked:?}");
        assert!(asked.contains("(from 127.0.0.1:"), "{asked:?}");
        terminal.type_in(answer);
        assert!(asking.join().unwrap().good().out.contains("a.txt"));
        finish(world.cabo_as(who).args(["get", served.url(), "a.txt"])).good();
    }
    assert!(!terminal.rest().contains(QUESTION), "{:?}", terminal.shown);
    finish(world.cabo().args(["ls", served.url()])).good(); // our own identity is no question
    assert!(!terminal.rest().contains(QUESTION), "{:?}", terminal.shown);
}

#[test]
fn a_no_sends_it_away_until_the_server_ends() {
    if is_missing() {
        return;
    }
    let world = World::new();
    let (mut terminal, served) = Terminal::serve(&world);
    for (who, answer) in [("ana", "n\n"), ("bob", "NO\n")] {
        let asking = ls(&world, who, served.url());
        terminal.until_shown(QUESTION);
        terminal.type_in(answer);
        asking.join().unwrap().failed(4, &["refused", "said no", &world.fingerprint(who)]);
        finish(world.cabo_as(who).args(["ls", served.url()])).failed(4, &["said no"]);
    }
    assert!(!terminal.rest().contains(QUESTION), "{:?}", terminal.shown);
}

#[test]
fn what_is_neither_yes_nor_no_is_asked_again() {
    if is_missing() {
        return;
    }
    let world = World::new();
    let (mut terminal, served) = Terminal::serve(&world);
    let asking = ls(&world, "ana", served.url());
    for slip in ["x\n", "\n", "yeah\n"] {
        terminal.until_shown(QUESTION);
        terminal.type_in(slip);
    }
    terminal.until_shown(QUESTION);
    terminal.type_in("y\n");
    asking.join().unwrap().good();
    let told = terminal.until_shown("for good: ");
    assert!(told.contains("let in until this server ends"), "{told:?}");
    terminal.until_shown(&format!("echo {} >> ", world.fingerprint("ana")));
}

#[test]
fn whoever_waits_for_an_answer_is_told_so_and_the_question_stays_below_the_log() {
    if is_missing() {
        return;
    }
    let world = World::new();
    let (mut terminal, served) = Terminal::serve(&world);
    let mut asking = Waiting::ls(&world, "ana", served.url());
    terminal.until_shown(QUESTION);
    let print = world.fingerprint("ana");
    asking.until_said(&format!("waiting until the owner of {} lets {print} in", served.url()));
    // The list of allowed peers is gone when it is read again: one line of the log.
    std::fs::remove_file(world.path("friends.txt")).unwrap();
    served.signal(Signal::HUP);
    let log = terminal.until_shown(QUESTION);
    assert!(log.starts_with("\r\n") && log.contains("stays in force"), "{log:?}");
    terminal.type_in("y\n");
    assert!(asking.end().success());
}

#[test]
fn the_question_of_a_peer_that_has_left_is_withdrawn() {
    if is_missing() {
        return;
    }
    let world = World::new();
    let (mut terminal, served) = Terminal::serve(&world);
    let asking = Waiting::ls(&world, "ana", served.url());
    terminal.until_shown(QUESTION);
    assert_eq!(asking.interrupt().code(), Some(130));
    terminal.until_shown("left");
    let next = ls(&world, "bob", served.url());
    let asked = terminal.until_shown(QUESTION);
    assert!(asked.contains(&world.fingerprint("bob")), "{asked:?}");
    terminal.type_in("y\n");
    next.join().unwrap().good();
}

#[test]
fn where_nobody_sits_any_more_a_new_peer_hears_what_would_let_it_in() {
    if is_missing() {
        return;
    }
    let world = World::new();
    let (mut terminal, served) = Terminal::serve(&world);
    let asking = ls(&world, "ana", served.url());
    terminal.until_shown(QUESTION);
    terminal.type_in("\u{4}"); // Ctrl-D
    asking.join().unwrap().failed(4, &["refused", "--allow", &world.fingerprint("ana")]);
    for who in ["ana", "bob"] {
        let done = finish(world.cabo_as(who).args(["ls", served.url()]));
        done.failed(4, &["--allow"]);
    }
    world.run(&["ls", served.url()]).good();
    assert!(served.stop().success());
}

#[test]
fn two_new_peers_are_asked_about_one_after_the_other() {
    if is_missing() {
        return;
    }
    let world = World::new();
    let (mut terminal, served) = Terminal::serve(&world);
    let mut asking = ["ana", "bob"].map(|who| Some(ls(&world, who, served.url())));
    let prints = ["ana", "bob"].map(|who| world.fingerprint(who));
    let asked_about = |text: &str| prints.iter().position(|print| text.contains(print)).unwrap();
    let first = asked_about(&terminal.until_shown(QUESTION));
    // What is typed beyond the first answer is none to a question that was not read yet.
    terminal.type_in("y\ny\ny\n");
    asking[first].take().unwrap().join().unwrap().good();
    terminal.until_shown(&format!("echo {} >> friends.txt", prints[first]));
    let second = asked_about(&terminal.until_shown(QUESTION));
    assert_ne!(first, second);
    assert!(
        !asking[second].as_ref().unwrap().is_finished(),
        "no answer was given before it was asked"
    );
    terminal.type_in("n\n");
    asking[second].take().unwrap().join().unwrap().failed(4, &["said no"]);
}

#[test]
fn listen_asks_too_and_what_answers_no_question_is_for_its_peers() {
    if is_missing() {
        return;
    }
    let world = World::new();
    let (mut terminal, mut listen) = Terminal::listen(&world, &["--reply", "re: {}"]);
    let url = format!("tcp://{}", listen.ports[0]);
    let mut foreign = listen.tcp();
    foreign.write_all(b"first").unwrap();
    assert_eq!(listen.event("message")["peer"], 1);
    for (who, answer) in [("ana", "y\n"), ("bob", "n\n")] {
        let asking = send(&world, who, &url);
        let asked = terminal.until_shown(QUESTION);
        let print = world.fingerprint(who);
        assert!(asked.contains(&format!("{who}@")) && asked.contains(&print), "{asked:?}");
        terminal.type_in(answer);
        let done = asking.join().unwrap();
        match who {
            "ana" => assert_eq!(done.good().out, "re: hola"),
            _ => drop(done.failed(4, &["said no", &print])),
        }
        if who == "ana" {
            terminal.until_shown(&format!("for good: echo {print} >> "));
        }
    }
    finish(world.cabo_as("ana").args(["send", &url, "--as", "cabo", "--wait", "100s", "x"])).good();
    assert_eq!(
        listen.event("refused")["why"].as_str().map(|why| why.contains("said no")),
        Some(true)
    );
    assert!(!terminal.rest().contains(QUESTION), "{:?}", terminal.shown);
    terminal.type_in("@1 for the first\n");
    let wanted = b"re: firstfor the first\n";
    let mut said = vec![0; wanted.len()];
    foreign.read_exact(&mut said).unwrap();
    assert_eq!(said, wanted, "and no answer");
    drop(foreign);
    listen.event("closed");
    listen.end();
}

#[test]
fn a_line_that_says_for_whom_it_is_goes_there_while_a_question_stands() {
    if is_missing() {
        return;
    }
    let world = World::new();
    let (mut terminal, mut listen) = Terminal::listen(&world, &[]);
    let mut foreign = listen.tcp();
    foreign.write_all(b"first").unwrap();
    assert_eq!(listen.event("message")["peer"], 1);
    let asking = send(&world, "ana", &format!("tcp://{}", listen.ports[0]));
    terminal.until_shown(QUESTION);
    terminal.type_in("@1 a moment\n");
    let mut said = [0; 9];
    foreign.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"a moment\n");
    terminal.until_shown(QUESTION);
    terminal.type_in("to whoever spoke last\n");
    terminal.until_shown("not sent: the question wants y or n");
    terminal.until_shown(QUESTION);
    terminal.type_in("n\n");
    asking.join().unwrap().failed(4, &["said no"]);
    listen.end();
}

#[test]
fn what_was_said_to_a_server_that_ends_before_its_owner_answered_was_not_heard() {
    if is_missing() {
        return;
    }
    let world = World::new();
    let (mut terminal, mut child) = Terminal::start(&world, &["listen", "tcp://127.0.0.1:0"], true);
    terminal.until_shown("listening on tcp://");
    let at = terminal.until_shown(";");
    let mut command = world.cabo_as("ana");
    command.args(["send", &format!("tcp://{}", at.trim_end_matches(';')), "hola"]);
    command.args(["--as", "cabo", "--wait", "0s"]);
    let asking = thread::spawn(move || finish(&mut command));
    terminal.until_shown(QUESTION);
    signal_child(&child, Signal::INT);
    asking.join().unwrap().failed(4, &["ended before it let us in", "was not heard"]);
    assert!(wait(&mut child).success());
}

#[test]
fn a_message_that_comes_meanwhile_is_shown_above_the_question() {
    if is_missing() {
        return;
    }
    let world = World::new();
    let args = ["listen", "tcp://127.0.0.1:0"];
    let (mut terminal, mut child) = Terminal::start(&world, &args, true);
    terminal.until_shown("listening on tcp://");
    let at = terminal.until_shown(";");
    let at = at.trim_end_matches(';').to_owned();
    let asking = send(&world, "ana", &format!("tcp://{at}"));
    terminal.until_shown(QUESTION);
    let mut foreign = std::net::TcpStream::connect(&at).unwrap();
    foreign.write_all(b"meanwhile").unwrap();
    let between = terminal.until_shown("meanwhile");
    let line = between.rsplit_once('\r').unwrap().1; // the question was taken away before it
    assert!(!line.contains(QUESTION), "{between:?}");
    let again = terminal.until_shown(QUESTION);
    assert!(again.starts_with("\r\n"), "{again:?}");
    terminal.type_in("n\n");
    asking.join().unwrap().failed(4, &["said no"]);
    signal_child(&child, Signal::INT);
    assert!(wait(&mut child).success());
}

#[test]
fn listen_asks_about_nobody_where_anyone_is_let_in() {
    if is_missing() {
        return;
    }
    let world = World::new();
    let (mut terminal, listen) = Terminal::listen(&world, &["--open", "--reply", "echo"]);
    let url = format!("tcp://{}", listen.ports[0]);
    assert_eq!(send(&world, "ana", &url).join().unwrap().good().out, "hola");
    assert!(!terminal.rest().contains(QUESTION), "{:?}", terminal.shown);
}
