//! TLS with programs of others, as server and as client: openssl, ncat, socat, Python.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread;

use super::{certified, echo};
use crate::needs::{Need, skip_without};
use crate::world::{World, finish, wait};

/// A server of others, which ends with the test.
pub(super) struct Foreign {
    child: Child,
    pub(super) port: String,
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Foreign {
    /// Starts it, and reads its port behind `mark` in what it says on stdout or stderr.
    fn start(command: &mut Command, mark: &str) -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        command.stdin(Stdio::null()).stdout(writer.try_clone().unwrap()).stderr(writer);
        let mut foreign = Self { child: command.spawn().unwrap(), port: String::new() };
        command.stdout(Stdio::null()).stderr(Stdio::null()); // its ends of the pipe are ours no more
        let mut lines = BufReader::new(reader);
        let mut said = String::new();
        loop {
            let mut line = String::new();
            let len = lines.read_line(&mut line).unwrap();
            assert!(len > 0, "{command:?} says no port: {said}");
            if let Some((_, port)) = line.split_once(mark) {
                foreign.port = port.trim().to_owned();
                thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
                return foreign;
            }
            said.push_str(&line);
        }
    }
}

/// `openssl s_server` with the certificate `host`.
pub(super) fn s_server(world: &World, args: &[&str]) -> Foreign {
    let mut command = Command::new("openssl");
    command.current_dir(world.path("."));
    command.args(["s_server", "-accept", "127.0.0.1:0", "-cert", "host.pem", "-key", "host.key"]);
    Foreign::start(command.args(args), "ACCEPT 127.0.0.1:")
}

/// `socat` that listens with the certificate `host` and leads to `there`.
pub(super) fn socat(world: &World, there: &str) -> Foreign {
    let mut command = Command::new("socat");
    let here = "OPENSSL-LISTEN:0,bind=127.0.0.1,fork,cert=host.pem,key=host.key,verify=0";
    command.current_dir(world.path("."));
    Foreign::start(command.args(["-d", "-d", here, there]), "listening on AF=2 127.0.0.1:")
}

fn python(world: &World, script: &str, args: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.current_dir(world.path(".")).args(["-c", script]).args(args);
    command
}

/// Bytes that differ from place to place.
fn sample(len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (at.wrapping_mul(at) >> 9) as u8).collect()
}

/// What a client says before it ends its half, and what it hears until the server ends its own.
fn ask(client: &mut Command, said: &[u8]) -> Vec<u8> {
    let mut child =
        client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let said = said.to_vec();
    let saying = thread::spawn(move || stdin.write_all(&said));
    let mut heard = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut heard).unwrap();
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(wait(&mut child).success(), "{client:?}: {errors}");
    saying.join().unwrap().unwrap();
    heard
}

#[test]
fn clients_of_others_hear_their_echo_over_old_and_new_tls() {
    let needs = ["openssl", "ncat", "socat", "python3"].map(Need::Program);
    if skip_without(&needs) {
        return;
    }
    let world = certified();
    let (mut listen, url) = echo(&world, "");
    let at = url.strip_prefix("tls://").unwrap().to_owned();
    let port = at.rsplit_once(':').unwrap().1.to_owned();
    let mut clients: Vec<Command> = Vec::new();
    let mut ncat = Command::new("ncat");
    ncat.args(["--ssl-verify", "--ssl-trustfile", "ca.pem", "localhost", &port]);
    let mut socat = Command::new("socat");
    socat.args(["-", &format!("OPENSSL:localhost:{port},cafile=ca.pem")]);
    clients.extend([ncat, socat]);
    let script = "import socket,ssl,sys\n\
        c=ssl.create_default_context(cafile='ca.pem')\n\
        if sys.argv[2]=='1.2': c.maximum_version=ssl.TLSVersion.TLSv1_2\n\
        s=c.wrap_socket(socket.create_connection(('127.0.0.1',int(sys.argv[1]))),server_hostname='localhost')\n\
        assert s.version()=='TLSv'+sys.argv[2], s.version()\n\
        s.sendall(sys.stdin.buffer.read())\n\
        sys.stdout.buffer.write(s.recv(5)); sys.stdout.flush(); s.unwrap()\n";
    clients.extend(["1.2", "1.3"].map(|version| python(&world, script, &[&port, version])));
    for mut client in clients {
        client.current_dir(world.path("."));
        assert_eq!(ask(&mut client, b"hola\n"), b"hola\n", "{client:?}");
        assert_eq!(listen.event("message")["fields"]["payload"], "hola\n", "{client:?}");
        listen.event("closed");
    }
    for version in ["-tls1_3", "-tls1_2"] {
        let mut client = Command::new("openssl");
        client.current_dir(world.path("."));
        client.args(["s_client", version, "-connect", &at, "-CAfile", "ca.pem", "-quiet"]);
        client.args(["-verify_return_error", "-verify_ip", "127.0.0.1"]);
        let mut child = client
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"hola\n").unwrap();
        let mut heard = [0; 5];
        child.stdout.take().unwrap().read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hola\n", "{version}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    listen.end();
}

#[test]
fn servers_of_others_answer_over_old_and_new_tls() {
    let needs = ["openssl", "socat", "python3"].map(Need::Program);
    if skip_without(&needs) {
        return;
    }
    let world = certified();
    for version in ["-tls1_3", "-tls1_2"] {
        let server = s_server(&world, &[version, "-rev"]);
        let url = format!("tls://127.0.0.1:{}?ca=ca.pem", server.port);
        let done = world.run(&["send", &url, "--as", "lines", "hola"]).good();
        assert_eq!(done.out, "aloh\n", "{version}");
    }
    let server = socat(&world, "SYSTEM:cat");
    let url = format!("tls://127.0.0.1:{}?ca=ca.pem", server.port);
    assert_eq!(world.run(&["send", &url, "hola"]).good().out, "hola");
    world.run(&["send", &url.replace("ca.pem", "other.pem"), "x"]).failed(4, &["ca=FILE"]);
    let url = format!("tls://localhost:{}?ca=ca.pem&name=other.example", server.port);
    world.run(&["send", &url, "x"]).failed(4, &["not for other.example"]);
}

/// A Python server that hears one client out, and hashes what it said.
const HASHING: &str = "import hashlib,socket,ssl,sys\n\
    c=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); c.load_cert_chain('host.pem','host.key')\n\
    l=socket.create_server(('127.0.0.1',0)); print('port',l.getsockname()[1],flush=True)\n\
    s=c.wrap_socket(l.accept()[0],server_side=True,suppress_ragged_eofs=False); h=hashlib.sha256()\n\
    while True:\n\
    \x20 part=s.recv(65536)\n\
    \x20 if not part: break\n\
    \x20 h.update(part)\n\
    s.sendall(h.hexdigest().encode())\n\
    if sys.argv[1]=='cut': s.close()\n\
    else: s.unwrap().close()\n";

#[test]
fn what_is_large_arrives_whole_each_half_ends_alone_and_a_cut_is_no_end() {
    if skip_without(&[Need::Program("python3"), Need::Program("sha256sum")]) {
        return;
    }
    let world = certified();
    let bytes = sample(20_000_000);
    let path = world.write("sample", &bytes);
    let hash = finish(Command::new("sha256sum").arg(&path)).good().out[..64].to_owned();
    for (how, code) in [("ended", 0), ("cut", 5)] {
        let server = Foreign::start(&mut python(&world, HASHING, &[how]), "port ");
        let url = format!("tls://127.0.0.1:{}?ca=ca.pem", server.port);
        let mut connect = world.cabo();
        let done = finish(connect.args(["connect", &url]).stdin(File::open(&path).unwrap()));
        assert_eq!((done.code, &done.out), (Some(code), &hash), "{how}: {}", done.err);
        assert_eq!(done.err.contains("truncated"), code != 0, "{how}: {}", done.err);
    }
    let (mut listen, url) = echo(&world, "");
    // A server whose words nobody reads waits.
    let reading = thread::spawn(move || listen.event("closed")["why"].clone());
    let mut connect = world.cabo();
    let back = ask(connect.args(["connect", &format!("{url}?ca=ca.pem")]), &bytes);
    assert!(back == bytes, "{} of {} bytes", back.len(), bytes.len());
    assert_eq!(reading.join().unwrap(), "closed");
}

#[test]
fn a_client_that_is_cut_off_has_not_ended() {
    if skip_without(&[Need::Program("python3")]) {
        return;
    }
    let world = certified();
    let (mut listen, url) = echo(&world, "");
    let port = url.rsplit_once(':').unwrap().1.to_owned();
    let script = "import socket,ssl,sys\n\
        c=ssl.create_default_context(cafile='ca.pem')\n\
        s=c.wrap_socket(socket.create_connection(('127.0.0.1',int(sys.argv[1]))),server_hostname='localhost')\n\
        s.sendall(b'hola'); assert s.recv(9)==b'hola'\n\
        if sys.argv[2]=='cut': s.close()\n\
        else: s.unwrap()\n";
    for (how, wanted) in [("cut", "truncated"), ("ended", "closed")] {
        finish(&mut python(&world, script, &[&port, how])).good();
        assert_eq!(listen.event("message")["fields"]["payload"], "hola");
        let why = listen.event("closed")["why"].as_str().unwrap().to_owned();
        assert!(why.contains(wanted), "{how}: {why}");
    }
    listen.end();
}

/// `ncat` does not say its port: a free one is looked for.
#[test]
fn a_listening_ncat_is_talked_with() {
    if skip_without(&[Need::Program("ncat")]) {
        return;
    }
    let world = certified();
    for _ in 0..10 {
        let free =
            TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let mut ncat = Command::new("ncat");
        ncat.current_dir(world.path(".")).args(["--ssl", "--ssl-cert", "host.pem", "--ssl-key"]);
        ncat.args(["host.key", "-v", "-k", "-l", "127.0.0.1", &free, "--exec", "/bin/cat"]);
        let mark = format!("Listening on 127.0.0.1:{free}");
        let (reader, writer) = std::io::pipe().unwrap();
        let mut child = ncat.stdin(Stdio::null()).stderr(writer).spawn().unwrap();
        ncat.stderr(Stdio::null());
        let is_there =
            BufReader::new(reader).lines().map_while(Result::ok).any(|line| line.contains(&mark));
        if is_there {
            let url = format!("tls://127.0.0.1:{free}?ca=ca.pem");
            let mut connect = world.cabo();
            connect.args(["connect", &url]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut connect = connect.spawn().unwrap();
            let mut stdin = connect.stdin.take().unwrap();
            stdin.write_all(b"hola\n").unwrap(); // and no end yet: it would forget its answer
            let mut heard = [0; 5];
            connect.stdout.take().unwrap().read_exact(&mut heard).unwrap();
            assert_eq!(&heard, b"hola\n");
            drop(stdin);
            wait(&mut connect);
            child.kill().unwrap();
            child.wait().unwrap();
            return;
        }
        child.wait().unwrap(); // somebody else took that port meanwhile
    }
    panic!("no free port for ncat");
}
