//! The datagram carriers under test: how each end of a pair is opened, and how the other end names it.

use cabo::carrier::ether::Ether;
use cabo::carrier::fault::Fault;
use cabo::carrier::memory::Hub;
use cabo::carrier::tap::{Copies, Tap};
use cabo::carrier::udp::Udp;
use cabo::carrier::{Datagrams, InterfaceName, OpenError, Peer};
use cabo_proto::sim::link::LinkConfig;

use crate::room::VETH;

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
    let [a, b] = VETH;
    vec![
        memory(),
        udp("udp4", "127.0.0.1"),
        udp("udp6", "::1"),
        wrapped("fault_udp4", udp("", "127.0.0.1"), |inner| {
            let perfect = LinkConfig::default();
            Box::new(Fault::new(inner, perfect.clone(), perfect, 1))
        }),
        wrapped("tap_udp4", udp("", "127.0.0.1"), |inner| {
            let (copies, _nobody) = Copies::new(1);
            Box::new(Tap::new(inner, copies))
        }),
        ether("eth_lo", "lo", "lo", |peer| peer),
        ether("eth_veth", a, b, other_end),
    ]
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

fn ether(
    name: &'static str,
    near: &'static str,
    far: &'static str,
    seen: fn(Peer) -> Peer,
) -> Kind {
    let open = |interface| {
        move |port| -> Result<Box<dyn Datagrams>, OpenError> {
            Ok(Box::new(Ether::open(interface, port, false)?))
        }
    };
    Kind { name, is_raw: true, near: Box::new(open(near)), far: Box::new(open(far)), seen }
}

/// The same peer as it looks from the other end of the cable: behind the interface there.
fn other_end(peer: Peer) -> Peer {
    let Peer::Ether { mac, port, interface } = peer else { return peer };
    let other = if interface.as_str() == VETH[0] { VETH[1] } else { VETH[0] };
    Peer::Ether { mac, port, interface: InterfaceName::new(other).unwrap() }
}

fn wrapped(
    name: &'static str,
    kind: Kind,
    wrap: fn(Box<dyn Datagrams>) -> Box<dyn Datagrams>,
) -> Kind {
    let Kind { is_raw, near, far, seen, .. } = kind;
    Kind {
        name,
        is_raw,
        near: Box::new(move |port| Ok(wrap(near(port)?))),
        far: Box::new(move |port| Ok(wrap(far(port)?))),
        seen,
    }
}
