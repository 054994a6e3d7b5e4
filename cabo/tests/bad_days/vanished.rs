//! Servers that are not there yet, go, come back, or drop whoever comes: what a reconnecting client makes of it.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use cabo::proto::dialect::Dialect;
use cabo::proto::retry::Full;
use cabo::talk::reconnect::{LinkError, Perseverance};
use cabo::talk::{Link, Reconnecting, Server};

use crate::running::{PATIENCE, Running, settings};

const FIRST: Duration = Duration::from_millis(4);
const LONGEST: Duration = Duration::from_millis(64);

fn url(path: &Path) -> String {
    format!("unix://{}", path.display())
}

fn to(path: &Path, wanted: Perseverance) -> Reconnecting {
    let dialect = Dialect::parse("lines").unwrap();
    let soon = Perseverance { first_pause: FIRST, longest_pause: LONGEST, ..wanted };
    Reconnecting::to(url(path), dialect).unwrap().settings(soon)
}

/// A server that tells what it received.
fn listening(path: &Path, tell: &Sender<String>) -> Running {
    let tell = tell.clone();
    let server = Server::bind([url(path)]).unwrap().foreign_only().settings(settings("lines"));
    Running::start(server.on_receive(move |message, peer| {
        tell.send(String::from_utf8_lossy(&message.payload()).into_owned()).unwrap();
        peer.send_back(&message).unwrap();
    }))
}

struct Place {
    _folder: tempfile::TempDir,
    path: PathBuf,
    tell: Sender<String>,
    told: Receiver<String>,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (tell, told) = mpsc::channel();
    Place { _folder: folder, path, tell, told }
}

fn send(link: &Link, numbers: std::ops::Range<u32>) {
    numbers.for_each(|number| link.send(number.to_string()).unwrap());
}

fn hear(told: &Receiver<String>, numbers: std::ops::Range<u32>) {
    for number in numbers {
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), number.to_string());
    }
}

#[test]
fn what_was_sent_before_there_was_a_server_and_while_it_was_away_arrives_once_and_in_order() {
    let Place { path, tell, told, _folder } = place();
    let (say, said) = mpsc::channel();
    let (lost, answered) = (say.clone(), say.clone());
    let link = to(&path, Perseverance::default())
        .on_connected(move |_| say.send("connected".to_owned()).unwrap())
        .on_receive(move |message, _| {
            answered.send(String::from_utf8_lossy(&message.payload()).into_owned()).unwrap();
        })
        .on_lost(move |why| lost.send(format!("lost: {}", why.why.is_none())).unwrap())
        .start()
        .unwrap();
    send(&link, 0..100);
    assert_eq!(said.recv_timeout(PATIENCE).unwrap(), "lost: false", "nobody is there");
    for round in 0..3 {
        let server = listening(&path, &tell);
        hear(&told, round * 100..(round + 1) * 100);
        // All answers are heard, so nothing is on its way when the server goes.
        while said.recv_timeout(PATIENCE).unwrap() != (round * 100 + 99).to_string() {}
        assert!(link.is_connected());
        drop(server);
        assert_eq!(said.recv_timeout(PATIENCE).unwrap(), "lost: true", "it ended its stream");
        send(&link, (round + 1) * 100..(round + 2) * 100);
    }
    assert!(told.try_recv().is_err(), "nothing came twice");
}

#[test]
fn a_close_lets_what_waits_go_out_and_says_whether_it_did() {
    let Place { path, tell, told, _folder } = place();
    let link = to(&path, Perseverance::default()).start().unwrap();
    send(&link, 0..1000);
    let other = link.clone();
    let closing = std::thread::spawn(|| link.close_blocking());
    let server = listening(&path, &tell);
    assert!(closing.join().unwrap());
    hear(&told, 0..1000);
    assert_eq!(other.send("too late"), Err(LinkError::Closed));
    drop(server);
    let path = path.with_file_name("nobody");
    let soon = Perseverance { drain_time: Duration::from_millis(50), ..Perseverance::default() };
    let nowhere = to(&path, soon).start().unwrap();
    send(&nowhere, 0..1);
    assert!(!nowhere.close_blocking(), "there is nobody to take it");
}

#[test]
fn the_last_handle_closes() {
    let Place { path, tell, told, _folder } = place();
    let link = to(&path, Perseverance::default()).start().unwrap();
    send(&link, 0..10);
    drop(link.clone());
    drop(link);
    let _server = listening(&path, &tell);
    hear(&told, 0..10);
}

#[test]
fn what_waits_is_bounded_as_it_was_asked_for() {
    let Place { path, tell, told, _folder } = place();
    let bound = Perseverance { waiting_bytes_max: 10 * (64 + 1), ..Perseverance::default() };
    let refusing = to(&path, bound.clone()).start().unwrap();
    send(&refusing, 0..10);
    assert!(matches!(refusing.send("x"), Err(LinkError::Full(_))));
    assert_eq!((refusing.waiting_bytes(), refusing.dropped_messages()), (650, 0));
    let server = listening(&path, &tell);
    hear(&told, 0..10);
    drop(server);
    let other = path.with_file_name("other");
    let dropping = to(&other, Perseverance { full: Full::DropOldest, ..bound }).start().unwrap();
    (0..10).for_each(|number| dropping.send(number.to_string()).unwrap());
    dropping.send("!").unwrap();
    assert_eq!((dropping.waiting_bytes(), dropping.dropped_messages()), (650, 1));
    let _server = listening(&other, &tell);
    hear(&told, 1..10);
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "!");
}

/// A server that takes connections only to drop them is not asked more and more often.
#[test]
fn pauses_grow_while_connections_do_not_last_and_stay_within_their_bounds() {
    let Place { path, _folder, .. } = place();
    let server = Server::bind([url(&path)]).unwrap().foreign_only().settings(settings("lines"));
    let _server = Running::start(server.on_connect(|peer| peer.close()));
    let (say, said) = mpsc::channel();
    let _link = to(&path, Perseverance::default())
        .on_lost(move |lost| say.send(lost.pause).unwrap_or_default())
        .start()
        .unwrap();
    let mut ceiling = FIRST;
    for attempt in 0..8 {
        let pause = said.recv_timeout(PATIENCE).unwrap();
        assert!((ceiling / 2..=ceiling).contains(&pause), "{attempt}: {pause:?}");
        ceiling = (ceiling * 2).min(LONGEST);
    }
}

#[test]
fn a_callback_of_one_client_that_never_returns_holds_up_no_other() {
    let Place { path, tell, told, _folder } = place();
    let _server = listening(&path, &tell);
    let (say, said) = mpsc::channel();
    let sticking = to(&path, Perseverance::default()).on_receive(move |_, _| {
        say.send(()).unwrap();
        loop {
            std::thread::park();
        }
    });
    let sticking = sticking.start().unwrap();
    sticking.send("0").unwrap();
    hear(&told, 0..1);
    said.recv_timeout(PATIENCE).unwrap();
    let (answer, answers) = mpsc::channel();
    let good = to(&path, Perseverance::default());
    let good = good.on_receive(move |_, _| answer.send(()).unwrap()).start().unwrap();
    for number in 1..200 {
        send(&good, number..number + 1);
        hear(&told, number..number + 1);
        answers.recv_timeout(PATIENCE).unwrap();
    }
}
