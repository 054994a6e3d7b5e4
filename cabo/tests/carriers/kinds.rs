//! The datagram carriers under test: how each end of a pair is opened, and how the other end names it.

use cabo::carrier::memory::Hub;
use cabo::carrier::udp::Udp;
use cabo::carrier::{Datagrams, OpenError, Peer};

type Open = Box<dyn Fn(u16) -> Result<Box<dyn Datagrams>, OpenError>>;

/// One kind of carrier.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) is_raw: bool,
    /// Opens the near end at a port (0: a free one).
    pub(crate) near: Open,
    /// Opens the far end.
    pub(crate) far: Open,
    /// The address of one end as the other writes it.
    pub(crate) seen: fn(Peer) -> Peer,
}

pub(crate) fn all() -> Vec<Kind> {
    vec![memory(), udp("udp4", "127.0.0.1"), udp("udp6", "::1")]
}

fn memory() -> Kind {
    let near = Hub::default();
    let far = near.clone();
    Kind {
        name: "memory",
        is_raw: false,
        near: Box::new(move |place| Ok(Box::new(near.open(place.into())?))),
        far: Box::new(move |place| Ok(Box::new(far.open(place.into())?))),
        seen: |peer| peer,
    }
}

fn udp(name: &'static str, ip: &'static str) -> Kind {
    let open = move |port| -> Result<Box<dyn Datagrams>, OpenError> {
        Ok(Box::new(Udp::open((ip.parse::<std::net::IpAddr>().unwrap(), port).into())?))
    };
    Kind { name, is_raw: false, near: Box::new(open), far: Box::new(open), seen: |peer| peer }
}
