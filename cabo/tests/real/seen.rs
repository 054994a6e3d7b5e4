//! What somebody with a listener on the wire sees of a session (R2, W-2), by a tool that is not ours.

use std::fs;
use std::time::Duration;

use cabo::lab::{CableConfig, Lab};

use crate::Test;
use crate::ends::{Fetching, ITEM, Serving, Wire};
use crate::listener::{Listener, tshark};
use crate::needs::{Need, skip_without};

pub(crate) const ALL: &[Test] = &[
    (
        "frames_on_the_wire_are_ours_whole_and_within_the_mtu",
        frames_on_the_wire_are_ours_whole_and_within_the_mtu,
    ),
    ("a_sealed_session_shows_nothing_of_the_file", a_sealed_session_shows_nothing_of_the_file),
    ("a_plain_session_shows_the_file", a_plain_session_shows_the_file),
];

const MARKER: &[u8] = b"in the clear, for everybody who listens; ";
const FILE_BYTES: usize = 3 << 20;
const FRAME_BYTES_MAX: usize = 1500 + 14;
const LIMIT: Duration = Duration::from_secs(60);

/// Fetches a file full of [`MARKER`] over `wire`, and gives what was heard on the client's interface to `look`.
fn overhear(lab: &Lab, wire: Wire, is_plain: bool, look: impl FnOnce(&std::path::Path)) {
    let (ana, bob) = (lab.host("ana").unwrap(), lab.host("bob").unwrap());
    // A frame then looks to the listener as it would on a wire of copper.
    let config = CableConfig { offloads: Some(false), ..CableConfig::default() };
    let cable = lab.cable(&ana, "eth0", &bob, "eth0", &config).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let film: Vec<u8> = MARKER.iter().copied().cycle().take(FILE_BYTES).collect();
    fs::write(folder.path().join(ITEM), &film).unwrap();
    let root = blake3::hash(&film);

    let notes = tempfile::tempdir().unwrap();
    let listener = Listener::start(&ana, &cable.a.name, &notes.path().join("heard.pcap"));
    let server = Serving::start(&bob, &cable.b, &[wire], folder.path(), is_plain);
    let (from, to) = (&cable.a, &cable.b);
    Fetching { host: &ana, from, server: to, wire, is_plain, limit: LIMIT }.run(root, |_| {});
    assert_eq!(server.stop(), 1);
    look(&listener.stop(FILE_BYTES as u64));
}

fn shows_marker(capture: &std::path::Path) -> bool {
    let heard = fs::read(capture).unwrap();
    assert!(heard.len() > FILE_BYTES);
    heard.windows(MARKER.len()).any(|window| window == MARKER)
}

fn frames_on_the_wire_are_ours_whole_and_within_the_mtu(lab: &Lab) {
    if skip_without(&[Need::Program("tcpdump"), Need::Program("tshark")]) {
        return;
    }
    for is_plain in [false, true] {
        overhear(lab, Wire::Eth, is_plain, |capture| {
            // The kernel's own talk of neighbours and groups is the only other.
            let strangers = "eth.type != 0x88b5 && !arp && !icmpv6";
            assert!(tshark(capture, strangers, &["frame.protocols"]).is_empty());
            let frames =
                tshark(capture, "eth.type == 0x88b5", &["eth.type", "frame.len", "data.data"]);
            assert!(frames.len() > FILE_BYTES / FRAME_BYTES_MAX, "{}", frames.len());
            for frame in &frames {
                let columns: Vec<&str> = frame.split('\t').collect();
                let [kind, len, payload] = columns[..] else { panic!("{frame:?}") };
                assert_eq!(kind, "0x88b5");
                assert!(len.parse::<usize>().unwrap() <= FRAME_BYTES_MAX, "{len}");
                let packet = payload.get(8..).unwrap_or_default(); // behind two ports, in hex
                let version = if is_plain { "2" } else { "1" };
                assert!(packet.starts_with(&format!("cb{version}")), "{frame}");
                let stated = usize::from_str_radix(&packet[4..8], 16).unwrap();
                assert!(stated <= packet.len() / 2, "cut: {frame}");
            }
        });
    }
}

fn a_sealed_session_shows_nothing_of_the_file(lab: &Lab) {
    if skip_without(&[Need::Program("tcpdump")]) {
        return;
    }
    for wire in Wire::BOTH {
        overhear(lab, wire, false, |capture| assert!(!shows_marker(capture), "{wire:?}"));
    }
}

fn a_plain_session_shows_the_file(lab: &Lab) {
    if skip_without(&[Need::Program("tcpdump")]) {
        return;
    }
    for wire in Wire::BOTH {
        overhear(lab, wire, true, |capture| assert!(shows_marker(capture), "{wire:?}"));
    }
}
