//! `cabo serve --metrics`, asked by raw sockets as a monitor asks, and as nobody should.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;

use rustix::process::Signal;

use crate::world::{LIMIT, Served, World, signal_child, until, wait};

/// Starts a server of `served`, and says where it is watched.
fn watched(world: &World, more: &[&str]) -> (Served, SocketAddr) {
    let args = ["served", "--on", "udp://127.0.0.1:0", "--on", "tcp://127.0.0.1:0"];
    let mut args = args.to_vec();
    args.extend(["--metrics", "127.0.0.1:0"]);
    args.extend(more);
    let served = world.serve(&args);
    let url = served.ready["metrics"].as_str().unwrap().to_owned();
    let at = url.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap();
    (served, at.parse().unwrap())
}

fn connect(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Everything that is answered before the other side ends it. One that ends it with a reset has answered before.
fn answer(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8(bytes).unwrap()
}

fn get(at: SocketAddr, path: &str) -> String {
    let mut stream = connect(at);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {at}\r\n\r\n").unwrap();
    answer(stream)
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

/// The value of one series.
fn value(at: SocketAddr, series: &str) -> Option<f64> {
    let text = get(at, "/metrics");
    assert_eq!(status(&text), "200", "{text}");
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

#[test]
fn metrics_count_sessions_requests_bytes_and_who_was_refused() {
    let world = World::new();
    world.write_large("served/big.bin", 3);
    let (served, at) = watched(&world, &[]);
    let [udp, tcp] = [&served.urls[0], &served.urls[1]];
    for (url, to) in [(udp, "a"), (tcp, "b")] {
        world.run(&["get", "-q", url, "big.bin", "-o", to]).good();
    }
    let mut stranger = world.cabo_as("stranger");
    assert_eq!(stranger.args(["ls", "-q", udp]).output().unwrap().status.code(), Some(4));
    for carrier in ["udp", "tcp"] {
        let series = |name: &str| format!("{name}{{carrier=\"{carrier}\"}}");
        assert!(until(|| value(at, &series("cabo_sessions")) == Some(0.0)), "{carrier}");
        assert_eq!(value(at, &series("cabo_sessions_admitted_total")), Some(1.0), "{carrier}");
        let sent = value(at, &series("cabo_sent_bytes_total")).unwrap();
        assert!(sent > f64::from(3 << 20), "{carrier}: {sent}");
    }
    assert_eq!(value(at, "cabo_sessions_refused_total{reason=\"unknown\"}"), Some(1.0));
    assert_eq!(value(at, "cabo_sessions_refused_total{reason=\"busy\"}"), Some(0.0));
    assert!(value(at, "cabo_requests_total{service=\"media/1\"}").unwrap() >= 2.0);
    let packets = value(at, "cabo_packets_sent_total{carrier=\"udp\"}").unwrap();
    assert!(packets > 3.0, "{packets}");
    assert_eq!(value(at, "cabo_packets_sent_total{carrier=\"tcp\"}"), None);
}

#[test]
fn a_server_is_ready_until_it_drains_and_healthy_while_it_runs() {
    let world = World::new();
    world.write_large("served/big.bin", 200);
    let (served, at) = watched(&world, &[]);
    assert_eq!(
        [get(at, "/health"), get(at, "/ready")].each_ref().map(|told| status(told)),
        ["200"; 2]
    );
    let mut client = world.cabo();
    client.args(["get", "-q", served.url(), "big.bin"]);
    let mut client = client.spawn().unwrap();
    let partial = world.path("big.bin.cabo-partial");
    assert!(until(|| partial.metadata().is_ok_and(|file| file.len() > 1 << 20)));
    signal_child(&client, Signal::STOP); // so the server has to wait for it
    assert!(until(|| value(at, "cabo_session_round_trip_seconds{quantile=\"1\"}") > Some(0.0)));
    served.signal(Signal::TERM);
    assert!(until(|| status(&get(at, "/ready")) == "503"));
    assert_eq!(status(&get(at, "/health")), "200");
    signal_child(&client, Signal::CONT);
    assert!(wait(&mut client).success());
}

#[test]
fn whoever_asks_for_metrics_badly_is_told_and_holds_up_nobody() {
    let world = World::new();
    world.write("served/a.txt", b"a");
    let (served, at) = watched(&world, &[]);
    let said = |request: &str| {
        let mut stream = connect(at);
        let _ = stream.write_all(request.as_bytes()); // it may have been answered before the end
        answer(stream)
    };
    let host = format!("Host: {at}\r\n");
    for (request, expected) in [
        (format!("GET /else HTTP/1.1\r\n{host}\r\n"), "404"),
        (format!("POST /metrics HTTP/1.1\r\n{host}Content-Length: 5\r\n\r\nhello"), "405"),
        ("GET /metrics HTTP/1.1\r\nHost: rebound.example\r\n\r\n".to_owned(), "421"),
        ("GET /health HTTP/1.0\r\n\r\n".to_owned(), "200"),
        ("\0\u{1}\u{2} garbage\r\n\r\n".to_owned(), "400"),
    ] {
        let told = said(&request);
        assert_eq!(status(&told), expected, "{request:?}: {told:?}");
    }
    let silent: Vec<TcpStream> = (0..200).map(|_| connect(at)).collect();
    assert_eq!(status(&get(at, "/health")), "200", "beside {} that say nothing", silent.len());
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(4 << 20));
    assert_ne!(status(&said(&long)), "200");
    assert_eq!(status(&get(at, "/metrics")), "200");
    world.run(&["ls", served.url()]).good();
}

#[test]
fn metrics_where_nobody_can_listen_are_an_error_and_off_the_loopback_a_warning() {
    let world = World::new();
    world.write("served/a.txt", b"a");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let args = ["serve", "served", "--on", "tcp://127.0.0.1:0", "--metrics", &at];
    world.run(&args).failed(1, &[&at, "--metrics", "in use"]);
    let mut open = world.cabo();
    open.args(["serve", "served", "--on", "tcp://127.0.0.1:0", "--metrics", "0.0.0.0:0"]);
    let mut open = open.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(open.stderr.take().unwrap()).lines().map_while(Result::ok);
    let warning = lines.into_iter().find(|line| line.contains("metrics")).unwrap_or_default();
    signal_child(&open, Signal::TERM);
    wait(&mut open);
    assert!(warning.contains("WARN") && warning.contains("0.0.0.0:"), "{warning}");
}
