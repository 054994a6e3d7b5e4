//! Films over real sessions, as players see them: served, sealed, over UDP, through the gateway, decoded without error.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use cabo::access::Access;
use cabo::address::Address;
use cabo::client::Client;
use cabo::endpoint::{Endpoint, Settings};
use cabo::keys::Identity;
use cabo::request::Service;
use cabo::server::{Server, ServerSettings};
use cabo::service::gateway::{Gateway, GatewaySettings, SessionSource};
use cabo::service::media::{Catalogue, ItemPath, Limits, MediaServer};
use tokio::process::Command;
use tokio::time::timeout;

#[path = "../../tests/needs.rs"]
mod needs;
use needs::{Need, skip_without};

const LIMIT: Duration = Duration::from_secs(60);
const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../samples/catalogue");

/// Serves `folder` on a UDP port of its own, and puts a gateway in front of a session with it.
async fn gateway(folder: &Path) -> (Address, Arc<Gateway<SessionSource>>) {
    let server = Endpoint::new(&Identity::generate().unwrap(), Settings::default()).unwrap();
    let address = server.listen(&"udp://127.0.0.1:0".parse().unwrap()).await.unwrap().address;
    let media = MediaServer::new(Arc::new(Catalogue::open(folder).unwrap()), Limits::default());
    let access = Access::new(server.public_key()).open();
    let services: Vec<Arc<dyn Service>> = vec![Arc::new(media)];
    let (server, _events) = Server::new(server, access, services, ServerSettings::default(), None);
    tokio::spawn(async move { server.run(std::future::pending()).await });
    let endpoint = Endpoint::new(&Identity::generate().unwrap(), Settings::default()).unwrap();
    let source = SessionSource::new(Client::new(endpoint, None), address.clone(), None);
    let here = "127.0.0.1:0".parse().unwrap();
    let gateway = Arc::new(Gateway::bind(here, source, GatewaySettings::default()).await.unwrap());
    let running = gateway.clone();
    tokio::spawn(async move { running.run(std::future::pending()).await });
    (address, gateway)
}

/// What a program says on stderr, where a player says what is wrong with a film.
async fn run(program: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let output = timeout(LIMIT, command.stderr(Stdio::piped()).output()).await;
    let output = output.unwrap_or_else(|_| panic!("{program} {arguments:?} hangs")).unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn url(gateway: &Gateway<SessionSource>, item: &str) -> String {
    gateway.item_url(&ItemPath::new(item).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_decodes_every_sample_without_an_error() {
    if skip_without(&[Need::Program("ffmpeg")]) {
        return;
    }
    let (_address, gateway) = gateway(Path::new(SAMPLES)).await;
    for film in ["films/bars.ts", "films/counter.mp4", "films/life.webm", "films/mandelbrot.mp4"] {
        let url = url(&gateway, film);
        let (is_good, said) = run("ffmpeg", &["-v", "error", "-i", &url, "-f", "null", "-"]).await;
        assert!(is_good && said.is_empty(), "{film}: {said}");
        if film.ends_with(".ts") {
            continue; // has no index, so that a seek lands between pictures and says so, on a disk too
        }
        let arguments =
            ["-v", "error", "-ss", "2", "-i", &url, "-frames:v", "1", "-f", "null", "-"];
        let (is_good, said) = run("ffmpeg", &arguments).await;
        assert!(is_good && said.is_empty(), "{film} from the middle: {said}");
    }
}

/// The sample whose index lies behind its pictures, with 10 GB of nothing behind these in the same box.
fn stretch(folder: &Path) {
    let mut film = std::fs::read(format!("{SAMPLES}/films/counter.mp4")).unwrap();
    let find = |name: &[u8]| film.windows(4).rposition(|window| window == name).unwrap() - 4;
    let (pictures, index) = (find(b"mdat"), find(b"moov"));
    assert_eq!(film[pictures - 8..pictures], *b"\0\0\0\x08free", "room for a size of 64 bits");
    let gap = 10_000_000_000_u64;
    let size = (index - pictures + 8) as u64 + gap;
    film[pictures - 8..pictures].copy_from_slice(b"\0\0\0\x01mdat");
    film[pictures..pictures + 8].copy_from_slice(&size.to_be_bytes());
    let file = File::create(folder.join("long.mp4")).unwrap();
    file.write_all_at(&film[..index], 0).unwrap();
    file.write_all_at(&film[index..], index as u64 + gap).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_picture_of_ten_gigabytes_comes_after_three_requests_and_two_mebibytes() {
    if skip_without(&[Need::Program("ffmpeg")]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    stretch(folder.path());
    let (_address, gateway) = gateway(folder.path()).await;
    let url = url(&gateway, "long.mp4");
    let arguments = ["-v", "error", "-i", &url, "-frames:v", "1", "-f", "null", "-"];
    let (is_good, said) = run("ffmpeg", &arguments).await;
    assert!(is_good && said.is_empty(), "{said}");
    let stats = gateway.stats();
    assert!(stats.requests <= 3 && stats.blocks <= 2, "{stats:?}");
}
