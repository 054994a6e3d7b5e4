//! A server that is itself a client of another: `chain tcp://:5006 tcp://localhost:5005`, or without words the same, adds its
//! mark to each line and passes it on, and passes the answers back. Three in a row are a chain: a client, this, and `echo`.
//! With a dialect as the third word (`chain tcp://:4445 tcp://localhost tp0`) messages are those of the dialect, unmarked.

use cabo::proto::dialect::Dialect;
use cabo::talk::{Link, Reconnecting, Server, Settings};

fn main() -> Result<(), cabo::Report> {
    let mut urls = std::env::args().skip(1);
    let own = urls.next().unwrap_or_else(|| "tcp://:5006".to_owned());
    let next = urls.next().unwrap_or_else(|| "tcp://localhost:5005".to_owned());
    let spoken = urls.next().unwrap_or_else(|| "lines".to_owned());
    let mark = if spoken == "lines" { b"b:".as_slice() } else { b"" };
    let dialect = std::sync::Arc::new(Dialect::parse(&spoken)?);
    Reconnecting::to(&next, dialect.clone())?; // else it would show only when somebody comes
    let upstream = dialect.clone();
    Server::bind([own])?
        .settings(Settings { dialect, ..Settings::default() })
        .on_connect(move |peer| {
            // A connection of its own for each peer, so that answers find their way back.
            let (down, server) = (peer.clone(), Reconnecting::to(&next, upstream.clone()));
            let link = server.map_err(std::io::Error::other).and_then(|server| {
                server.on_receive(move |answer, _| drop(down.send_back(&answer))).start()
            });
            match link {
                Ok(link) => peer.with_state(|kept: &mut Option<Link>| *kept = Some(link)),
                Err(error) => eprintln!("{peer:?}: {error}"),
            }
        })
        .on_receive(move |message, peer| {
            let marked = [mark, &message.payload()].concat();
            peer.with_state(|link: &mut Option<Link>| {
                match link.as_ref().map(|l| l.send(marked)) {
                    Some(Ok(())) => {}
                    refused => eprintln!("{peer:?}: not passed on: {refused:?}"),
                }
            });
        })
        .on_close(|peer, _| peer.with_state(|link: &mut Option<Link>| *link = None))
        .run()?;
    Ok(())
}
