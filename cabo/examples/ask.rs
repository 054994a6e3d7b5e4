//! Asks a server and shows its answers: `cargo run --example ask -- tcp://localhost:5005 hola mundo`.

use std::time::Duration;

use cabo::{proto::dialect::Dialect, talk::blocking::Client};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let url = words.next().ok_or("which URL?")?;
    let mut client = Client::connect(url, Dialect::parse("lines")?)?;
    for word in words {
        let answer = client.request(&word, Duration::from_secs(5))?;
        println!("{}", String::from_utf8_lossy(&answer.payload()));
    }
    Ok(())
}
