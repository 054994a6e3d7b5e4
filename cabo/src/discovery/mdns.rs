//! Multicast DNS (W-8.4): servers say where they serve on IP, and clients ask.
//!
//! The responder and the asker are a thread of `mdns-sd` each, for as long as they are needed. What it hears goes through
//! [`found_by`], which takes nothing for granted.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use mdns_sd::{IfKind, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};

use super::{Found, WAYS_MAX};
use crate::address::{Address, Host, HostPort, Interface, Name, Place};
use crate::keys::Fingerprint;

const UDP: &str = "_cabo._udp.local.";
const TCP: &str = "_cabo._tcp.local.";
/// How often it is looked whether somebody floods us.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Records that the asker holds at most; with more it stops.
const RECORDS_MAX: i64 = 20_000;
/// A goodbye to all has this long to leave.
const GOODBYE_TIME: Duration = Duration::from_secs(1);

/// Why a server cannot be announced.
#[derive(Debug, thiserror::Error)]
#[error("cannot announce the server by multicast DNS: {0}; it is reached by its URLs all the same")]
pub struct AnnounceError(#[from] mdns_sd::Error);

/// A server that is announced until this is dropped; who [ends](Self::end) it says goodbye.
pub struct Announcement {
    daemon: ServiceDaemon,
}

impl Announcement {
    /// Tells everybody that the server goes.
    pub async fn end(self) {
        if let Ok(gone) = self.daemon.shutdown() {
            let _ = timeout(GOODBYE_TIME, gone.recv_async()).await; // others notice when their records expire
        }
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        let _ = self.daemon.shutdown(); // or it has ended already
    }
}

/// Where a service is heard: every address of this machine, those of a family, or these.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Scope {
    v4: bool,
    v6: bool,
    addresses: Vec<IpAddr>,
}

/// Announces a server with these fingerprint, name and `version` that listens on `addresses`, on the interfaces of these
/// alone. None where no address of them is for others, or on IP.
pub async fn announce(
    addresses: &[Address],
    fingerprint: Fingerprint,
    name: Option<&Name>,
    version: u8,
) -> Result<Option<Announcement>, AnnounceError> {
    let mut services: BTreeMap<(&'static str, u16), Scope> = BTreeMap::new();
    for address in addresses {
        let (kind, at) = match &address.place {
            Place::Udp(at) => (UDP, at),
            Place::Tcp(at) => (TCP, at),
            Place::Eth { .. }
            | Place::Tls(_)
            | Place::Unix(_)
            | Place::Redes { .. }
            | Place::Name(_) => continue,
        };
        let heard = services.entry((kind, at.port_or_default())).or_default();
        add(heard, at).await;
    }
    services.retain(|_, heard| *heard != Scope::default());
    if services.is_empty() {
        return Ok(None);
    }
    let daemon = ServiceDaemon::new()?;
    let announcement = Announcement { daemon };
    let daemon = &announcement.daemon;
    daemon.disable_interface(IfKind::All)?;
    daemon.enable_interface(services.values().flat_map(interfaces).collect::<Vec<_>>())?;
    daemon.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6])?;
    let mut labels = HashSet::new();
    for ((kind, port), heard) in services {
        let label = name.map_or_else(|| fingerprint.short(), |name| name.as_str().to_owned());
        let taken = labels.len(); // a second port of the same carrier is another instance
        let label = match labels.insert((kind, label.clone())) {
            true => label,
            false => format!("{label} ({})", taken + 1),
        };
        daemon.register(service(kind, &label, port, &heard, fingerprint, name, version)?)?;
    }
    Ok(Some(announcement))
}

async fn add(heard: &mut Scope, at: &HostPort) {
    let mut one = |ip: IpAddr| match (ip.is_unspecified(), ip.is_loopback()) {
        (true, _) if ip.is_ipv4() => heard.v4 = true,
        (true, _) => heard.v6 = true,
        (false, true) => {}
        (false, false) => heard.addresses.push(ip),
    };
    match &at.host {
        Host::Any => (heard.v4, heard.v6) = (true, true),
        Host::Ip4(ip) => one((*ip).into()),
        Host::Ip6(ip, _) => one((*ip).into()),
        Host::Name(name) => {
            // It was listened on by this name, so it is known.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            found.into_iter().flatten().take(1).for_each(|address| one(address.ip()));
        }
    }
}

fn interfaces(heard: &Scope) -> Vec<IfKind> {
    let families = [(heard.v4, IfKind::IPv4), (heard.v6, IfKind::IPv6)];
    let families = families.into_iter().filter(|(is_heard, _)| *is_heard).map(|(_, kind)| kind);
    families.chain(heard.addresses.iter().map(|ip| IfKind::Addr(*ip))).collect()
}

fn service(
    kind: &str,
    label: &str,
    port: u16,
    heard: &Scope,
    fingerprint: Fingerprint,
    name: Option<&Name>,
    version: u8,
) -> Result<ServiceInfo, mdns_sd::Error> {
    // Each has a host name of its own: what shares one shares its addresses, and this may be heard at others.
    let carrier = if kind == UDP { "udp" } else { "tcp" };
    let host = format!("cabo-{}-{carrier}-{port}.local.", fingerprint.short());
    let mut texts = vec![("fp", fingerprint.to_string()), ("v", version.to_string())];
    texts.extend(name.map(|name| ("name", name.as_str().to_owned())));
    let is_any = heard.v4 || heard.v6;
    let explicit = if is_any { &[][..] } else { &heard.addresses };
    let mut info = ServiceInfo::new(kind, label, &host, explicit, port, &texts[..])?;
    info.set_interfaces(interfaces(heard));
    Ok(if is_any { info.enable_addr_auto() } else { info })
}

/// Asks who serves, and sends what was found, until nobody takes it any more or the future is dropped.
pub(super) async fn browse(found: mpsc::Sender<Found>) {
    if let Err(error) = try_browse(found).await {
        tracing::debug!(%error, "multicast DNS is not to be had");
    }
}

async fn try_browse(found: mpsc::Sender<Found>) -> Result<(), mdns_sd::Error> {
    let asker = Announcement { daemon: ServiceDaemon::new()? }; // ends with this function, however that ends
    asker.daemon.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6])?;
    let (udp, tcp) = (asker.daemon.browse(UDP)?, asker.daemon.browse(TCP)?);
    let mut look = interval(LOOK_EVERY);
    loop {
        let event = tokio::select! {
            event = udp.recv_async() => event,
            event = tcp.recv_async() => event,
            _ = look.tick() => {
                if records(&asker.daemon).await > RECORDS_MAX {
                    tracing::warn!("somebody floods us by multicast DNS; not listening there any more");
                    return Ok(());
                }
                continue;
            }
        };
        let Ok(event) = event else { return Ok(()) }; // more than anybody reads: it closes the channel
        let ServiceEvent::ServiceResolved(service) = event else { continue };
        for one in found_by(&service) {
            if found.send(one).await.is_err() {
                return Ok(());
            }
        }
    }
}

async fn records(daemon: &ServiceDaemon) -> i64 {
    let Ok(metrics) = daemon.get_metrics() else { return 0 };
    let metrics = metrics.recv_async().await.unwrap_or_default();
    metrics.iter().filter(|(key, _)| key.starts_with("cached-")).map(|(_, count)| count).sum()
}

/// What an answer says, as far as it is fit for use.
fn found_by(service: &ResolvedService) -> Vec<Found> {
    let text = |key| service.get_property_val_str(key);
    let Some(fingerprint) = text("fp").and_then(|text| text.parse::<Fingerprint>().ok()) else {
        return Vec::new();
    };
    let suffix = format!(".{}", service.ty_domain);
    let label = service.fullname.strip_suffix(&suffix).unwrap_or_default();
    let name = match text("name") {
        Some(name) => Name::new(name).ok(),
        None => Name::new(label).ok().filter(|name| name.as_str() != fingerprint.short()),
    };
    let place = match service.ty_domain.as_str() {
        UDP => Place::Udp,
        TCP => Place::Tcp,
        _ => return Vec::new(),
    };
    let hosts = service.addresses.iter().filter_map(host).take(WAYS_MAX);
    let found = |host| {
        let at = HostPort { host, port: Some(service.port) };
        Found { address: place(at).into(), fingerprint, name: name.clone() }
    };
    if service.port == 0 { Vec::new() } else { hosts.map(found).collect() }
}

/// An address that a server of others may have.
fn host(ip: &ScopedIp) -> Option<Host> {
    let address = ip.to_ip_addr();
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
        return None;
    }
    match ip {
        ScopedIp::V4(ip) if ip.addr().is_broadcast() => None,
        ScopedIp::V4(ip) => Some(Host::Ip4(*ip.addr())),
        ScopedIp::V6(ip) if ip.addr().is_unicast_link_local() => {
            let zone = Interface::new(&ip.scope_id().name).ok()?;
            Some(Host::Ip6(*ip.addr(), Some(zone)))
        }
        ScopedIp::V6(ip) => Some(Host::Ip6(*ip.addr(), None)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print() -> Fingerprint {
        Fingerprint::of_hash(&[7; 32])
    }

    /// What is taken of an answer with this instance, addresses, port and texts.
    fn taken(
        label: &str,
        ips: &str,
        port: u16,
        texts: &[(&str, &str)],
    ) -> Vec<(String, Option<String>)> {
        let info = ServiceInfo::new(UDP, label, "h.local.", ips, port, texts).expect("good");
        let mut service = info.as_resolved_service();
        service.fullname = format!("{label}.{UDP}"); // as it is heard, and not as it is typed
        let name = |found: &Found| found.name.as_ref().map(|name| name.as_str().to_owned());
        let found = found_by(&service);
        found.iter().map(|found| (found.address.to_string(), name(found))).collect()
    }

    #[test]
    fn an_answer_gives_address_fingerprint_and_name() {
        let fp = print().to_string();
        let kitchen = Some("kitchen".to_owned());
        let url = "udp://10.0.0.2:7001".to_owned();
        let texts = [("fp", fp.as_str()), ("name", "Kitchen")];
        let named = taken("whatever (2)", "10.0.0.2", 7001, &texts);
        assert_eq!(named, [(url.clone(), kitchen.clone())]);
        assert_eq!(taken("Kitchen", "10.0.0.2", 7001, &texts[..1]), [(url.clone(), kitchen)]);
        assert_eq!(taken(&print().short(), "10.0.0.2", 7001, &texts[..1]), [(url, None)]);
    }

    #[test]
    fn what_is_senseless_or_hostile_is_skipped() {
        let fp = print().to_string();
        let fp = ("fp", fp.as_str());
        assert_eq!(taken("kitchen", "10.0.0.2", 7001, &[]), []);
        assert_eq!(taken("kitchen", "10.0.0.2", 7001, &[("fp", "\u{1b}[2J")]), []);
        assert_eq!(taken("kitchen", "10.0.0.2", 0, &[fp]), []);
        for ip in
            ["127.0.0.1", "0.0.0.0", "224.0.0.251", "255.255.255.255", "::1", "ff02::fb", "::"]
        {
            assert_eq!(taken("kitchen", ip, 7001, &[fp]), [], "{ip}");
        }
        for name in ["", "\u{1b}[2J", " x", &"n".repeat(200)] {
            let found = taken("kitchen", "10.0.0.2", 7001, &[fp, ("name", name)]);
            assert_eq!(found, [("udp://10.0.0.2:7001".to_owned(), None)], "{name:?}");
        }
        let many: Vec<String> = (0..200).map(|last| format!("10.0.0.{last}")).collect();
        assert_eq!(taken("kitchen", &many.join(","), 7001, &[fp]).len(), WAYS_MAX);
    }

    #[tokio::test]
    async fn only_what_others_can_reach_is_announced() {
        let addresses = ["udp://127.0.0.1:1", "tcp://[::1]:1", "unix:@x", "eth://lo", "tls://:1"];
        let addresses = addresses.map(|url| url.parse().expect("good"));
        let announcement = announce(&addresses, print(), None, 1).await.expect("nothing to do");
        assert!(announcement.is_none());
        let mut scope = Scope::default();
        for at in ["udp://10.0.0.2", "udp://127.0.0.1", "udp://[fd00::1]"] {
            let address: Address = at.parse().expect("good");
            let Place::Udp(at) = address.place else { panic!("{at}") };
            add(&mut scope, &at).await;
        }
        let ips = ["10.0.0.2", "fd00::1"].map(|ip| ip.parse().expect("good"));
        assert_eq!(scope, Scope { v4: false, v6: false, addresses: ips.to_vec() });
    }
}
