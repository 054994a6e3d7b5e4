//! The course protocol on the command line: what `serve`, `ls` and `get` do where an address says `redes://`.

use cabo::address::{Address, Item, Place};
use cabo::carrier::{self, OpenError};
use cabo::redes::fetch::{Link, RedesError};
use cabo::redes::{ClientError, Options, Refusal};

use crate::cmd::{give_up_raw_sockets, interrupted};
use crate::exit::{self, Failure};
use crate::show::human::escaped;

pub(crate) mod get;
pub(crate) mod ls;
pub(crate) mod serve;

/// A link and perhaps a file of it.
pub(crate) struct Asked {
    address: Address,
    interface: String,
    options: Options,
    name: Option<Vec<u8>>,
}

impl Asked {
    /// What an address, and a name beside it, ask for; none where it is of another scheme.
    pub(crate) fn of(url: &[u8], beside: Option<&[u8]>) -> anyhow::Result<Option<Self>> {
        let Ok(mut address) = Address::parse(url) else { return Ok(None) }; // others say what is wrong
        let Place::Redes { interface } = &address.place else { return Ok(None) };
        let interface = interface.to_string();
        let bad = |problem: String| Failure::usage(format!("{address}: {problem}"));
        let options = Options::of(&address.query).map_err(|error| bad(error.to_string()))?;
        if let Some(beside) = beside {
            if !address.item.is_empty() {
                return Err(bad("another name stands beside it; leave one out".into()).into());
            }
            let item = Item::from_path(beside).map_err(|problem| bad(problem.to_string()))?;
            address.item = item;
        }
        let mut names = address.item.names();
        let name = names.next().map(<[u8]>::to_vec);
        let has_more = names.next().is_some();
        drop(names);
        if has_more {
            let text = format!("{address}: there are no folders on a redes link; name a file");
            return Err(Failure::usage(text).into());
        }
        Ok(Some(Self { address, interface, options, name }))
    }

    /// Opens the link, and gives the privilege for that up.
    fn open(&self) -> Result<Link, Failure> {
        let socket = open(&self.interface, self.options)?;
        give_up_raw_sockets();
        Ok(Link::new(socket))
    }
}

fn open(interface: &str, options: Options) -> Result<carrier::redes::Redes, Failure> {
    let opened = carrier::redes::Redes::open(interface, options.has_header);
    opened.map_err(|error: OpenError| Failure::new(exit::FAILED, error.to_string()))
}

/// Does something on a link, on a thread of its own, until it is done or we are told to end.
async fn on_link<T: Send + 'static>(
    mut link: Link,
    work: impl FnOnce(&mut Link) -> T + Send + 'static,
) -> anyhow::Result<T> {
    let (stop, caught) = (link.stop(), interrupted()?);
    let mut working = tokio::task::spawn_blocking(move || work(&mut link));
    tokio::select! {
        done = &mut working => return Ok(done?),
        () = caught => {}
    }
    stop.stop();
    Ok(working.await?)
}

/// What went wrong at `place`, and the code to end with.
fn failure(place: &Address, error: &RedesError) -> Failure {
    let code = match error {
        RedesError::Stopped => return Failure::new(exit::INTERRUPTED, "interrupted"),
        RedesError::Client(ClientError::NoAnswer) => exit::UNREACHABLE,
        RedesError::Client(ClientError::Silent) => exit::INCOMPLETE,
        RedesError::Client(ClientError::Refused(Refusal::Denied)) => exit::REFUSED,
        RedesError::Client(_) | RedesError::Link(_) | RedesError::File(_) => exit::FAILED,
    };
    let next = match error {
        RedesError::Client(ClientError::NoAnswer) => {
            "; does a server run on this link, with the same layout, crc and sequence?"
        }
        RedesError::Client(ClientError::Silent) => "; run the same again to resume",
        RedesError::Client(ClientError::Refused(Refusal::NotFound)) => {
            "; `cabo ls` lists what is there"
        }
        RedesError::Client(_) | RedesError::Link(_) | RedesError::File(_) | RedesError::Stopped => {
            ""
        }
    };
    Failure::new(code, escaped(&format!("{place}: {error}{next}")))
}
