//! An echo server for any number of programs, over TCP and UDP: `cargo run --example echo -- tcp://:5005 udp://:5005`,
//! which is where it listens unless it is told otherwise. Then `nc localhost 5005`.

use cabo::proto::dialect::Dialect;
use cabo::talk::{Server, Settings};

fn main() -> Result<(), cabo::Report> {
    let urls: Vec<String> = std::env::args().skip(1).collect();
    let usual = ["tcp://:5005".to_owned(), "udp://:5005".to_owned()];
    Server::bind(if urls.is_empty() { &usual } else { urls.as_slice() })?
        .settings(Settings { dialect: Dialect::parse("lines")?.into(), ..Settings::default() })
        .on_connect(|peer| println!("{peer:?} is here"))
        .on_receive(|message, peer| {
            let _ = peer.send_back(&message); // a peer that reads too slowly is not read either
        })
        .on_close(|peer, why| println!("{peer:?}: {why}"))
        .run()?;
    Ok(())
}
