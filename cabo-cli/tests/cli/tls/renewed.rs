//! What changes while a server runs: its certificate, read again at SIGHUP. And the secrets of one's own connections, for
//! whoever looks at their packets.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use super::{AT, certified};
use crate::talk::Listening;
use crate::world::{World, finish, signal_child, wait};

/// Puts a certificate of another CA, `new.pem`, in the place of `host.pem`.
fn renew(world: &World) {
    let args = ["keys", "certificate", "localhost", "127.0.0.1", "-o", "host", "--ca", "new"];
    world.run(&[&args[..], &["--replace"]].concat()).good();
}

fn send(world: &World, url: &str, ca: &str) -> crate::world::Done {
    world.run(&["send", &format!("{url}?ca={ca}"), "hola"])
}

/// `cabo listen --json` with an echo, and what it says on stderr.
fn listening(world: &World, command: &mut Command) -> (Listening, impl FnMut(&str) + use<>) {
    let at = format!("{AT}?cert=host.pem&key=host.key");
    command.args(["listen", "--json", &at, "--reply", "echo"]).stderr(Stdio::piped());
    let mut listen = Listening::of(command.current_dir(world.path(".")), 1);
    let mut said = BufReader::new(listen.child.stderr.take().unwrap()).lines();
    let until_said = move |words: &str| {
        assert!(said.any(|line| line.unwrap().contains(words)), "it never said {words:?}");
    };
    (listen, until_said)
}

/// A conversation that is there before and after.
struct Talking(Child);

impl Talking {
    fn start(world: &World, url: &str) -> Self {
        let mut command = world.cabo();
        command.args(["connect", &format!("{url}?ca=ca.pem")]);
        let mut talking =
            Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
        talking.says("before");
        talking
    }

    fn says(&mut self, line: &str) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{line}").unwrap();
        let mut back = vec![0; line.len() + 1];
        self.0.stdout.as_mut().unwrap().read_exact(&mut back).unwrap();
        assert_eq!(back, format!("{line}\n").as_bytes());
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(wait(&mut self.0).success());
    }
}

#[test]
fn a_server_shows_a_renewed_certificate_to_who_comes_and_who_is_there_stays() {
    let world = certified();
    let (listen, mut until_said) = listening(&world, &mut world.cabo());
    let url = format!("tls://{}", listen.ports[0]);
    let mut talking = Talking::start(&world, &url);
    send(&world, &url, "ca.pem").good();
    renew(&world);
    send(&world, &url, "ca.pem").good(); // nobody has told the server
    signal_child(&listen.child, Signal::HUP);
    until_said(&format!("the certificate of {url} was read again"));
    send(&world, &url, "new.pem").good();
    send(&world, &url, "ca.pem").failed(4, &["signed by nobody who is trusted"]);
    talking.says("after");

    world.write("host.pem", b"nothing");
    signal_child(&listen.child, Signal::HUP);
    until_said("host.pem has no certificate (PEM: BEGIN CERTIFICATE); the old certificate stays");
    send(&world, &url, "new.pem").good();
    talking.says("after all");
    talking.end();
    listen.end();
}

#[test]
fn serve_reads_its_certificates_again_too() {
    let world = certified();
    world.write("served/a.txt", b"a");
    let on = format!("{AT}?cert=host.pem&key=host.key");
    let served = world.serve(&["served", "--on", &on, "--on", "tcp://127.0.0.1:0"]);
    let url = served.url().to_owned();
    let ls = |ca: &str| world.run(&["ls", &format!("{url}?ca={ca}")]);
    ls("ca.pem").good();
    renew(&world);
    served.signal(Signal::HUP);
    assert_eq!(served.event("renewed")["url"], url.as_str());
    ls("new.pem").good();
    ls("ca.pem").failed(4, &["signed by nobody who is trusted"]);
    std::fs::remove_file(world.path("host.key")).unwrap();
    served.signal(Signal::HUP);
    let why = served.event("renew_failed")["why"].as_str().unwrap().to_owned();
    assert!(why.contains("host.key") && why.contains("No such file"), "{why}");
    ls("new.pem").good();
    assert!(served.stop().success());
}

#[test]
fn the_secrets_of_ones_own_connections_are_written_where_that_is_asked_for() {
    let world = certified();
    let (ours, theirs) = (world.path("ours.log"), world.path("theirs.log"));
    let mut command = world.cabo();
    let (listen, mut until_said) = listening(&world, command.env("SSLKEYLOGFILE", &theirs));
    until_said("SSLKEYLOGFILE: the secrets of all TLS connections are written to");
    let url = format!("tls://{}?ca=ca.pem", listen.ports[0]);
    let mut send = world.cabo();
    let done = finish(send.env("SSLKEYLOGFILE", &ours).args(["send", &url, "hola"])).good();
    assert!(done.err.contains("SSLKEYLOGFILE") && done.err.contains("ours.log"), "{done:?}");
    let lines = |path| -> BTreeSet<String> {
        std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
    };
    let secrets = lines(&ours);
    assert_eq!(secrets, lines(&theirs), "both ends have the same secrets");
    for label in ["CLIENT_HANDSHAKE_TRAFFIC_SECRET", "SERVER_TRAFFIC_SECRET_0"] {
        assert!(secrets.iter().any(|line| line.starts_with(label)), "{secrets:?}");
    }
    for path in [&ours, &theirs] {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
    }
    for unset in ["", "/dev/null/x"] {
        let mut send = world.cabo();
        let done = finish(send.env("SSLKEYLOGFILE", unset).args(["send", &url, "hola"])).good();
        assert_eq!(done.err.contains("no secrets are written"), !unset.is_empty(), "{done:?}");
    }
    assert!(!world.run(&["send", &url, "hola"]).good().err.contains("SSLKEYLOGFILE"));
    listen.end();
}
