//! Asks a server and shows its answers: `cargo run --example ask -- tcp://localhost:5005 hola mundo`, which is what it asks
//! unless it is told otherwise.

use std::time::Duration;

use cabo::{proto::dialect::Dialect, talk::blocking::Client};

fn main() -> Result<(), cabo::Report> {
    let mut words = std::env::args().skip(1);
    let url = words.next().unwrap_or_else(|| "tcp://localhost:5005".to_owned());
    let mut words: Vec<String> = words.collect();
    if words.is_empty() {
        words = vec!["hola".to_owned(), "mundo".to_owned()];
    }
    let mut client = Client::connect(url, Dialect::parse("lines")?)?;
    for word in words {
        let answer = client.request(&word, Duration::from_secs(5))?;
        println!("{}", String::from_utf8_lossy(&answer.payload()));
    }
    Ok(())
}
