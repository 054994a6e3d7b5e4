//! A lamp that tells everybody whether it shines: `lamp tcp://:5007`, or without words there. `nc localhost 5007` sees it, and
//! a line `on` or `off` is its button.

use std::sync::{Arc, Mutex, PoisonError};

use cabo::proto::dialect::Dialect;
use cabo::talk::{Server, Settings, Slow};

fn main() -> Result<(), cabo::Report> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "tcp://:5007".to_owned());
    // A peer that reads too slowly misses old states, and holds up nobody.
    let slow = Settings { slow: Slow::DropOldest, ..Settings::default() };
    let server = Server::bind([url])?
        .settings(Settings { dialect: Dialect::parse("lines")?.into(), ..slow });
    let everybody = server.peers();
    // Held while it is told, so that nobody hears an older state last.
    let lamp = Arc::new(Mutex::new("dark"));
    let button = lamp.clone();
    server
        .on_connect(move |peer| {
            let state = lamp.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = peer.send(*state); // it may have left already
        })
        .on_receive(move |message, _| {
            let wanted = match message.payload().as_ref() {
                b"on" => "bright",
                b"off" => "dark",
                _ => return,
            };
            let mut state = button.lock().unwrap_or_else(PoisonError::into_inner);
            if *state != wanted {
                *state = wanted;
                everybody.send_all(wanted);
            }
        })
        .run()?;
    Ok(())
}
