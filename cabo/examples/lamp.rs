//! A lamp that tells everybody how bright it is, as fast as each can take it: `lamp tcp://:5007`. A line `on` or `off` is
//! its button.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use cabo::proto::dialect::Dialect;
use cabo::talk::{Server, Settings};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let lamp = Arc::new(AtomicBool::new(false));
    let button = lamp.clone();
    Server::bind(std::env::args().skip(1))?
        .settings(Settings { dialect: Dialect::parse("lines")?.into(), ..Settings::default() })
        .on_receive(move |message, _| match message.payload().as_ref() {
            b"on" => button.store(true, SeqCst),
            b"off" => button.store(false, SeqCst),
            _ => {}
        })
        // Called whenever a peer has taken all that was sent to it: a slow one misses states, and holds up nobody.
        .on_send(move |_| Some(if lamp.load(SeqCst) { "bright" } else { "dark" }.into()))
        .run()?;
    Ok(())
}
