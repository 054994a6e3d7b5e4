//! What belongs together, which way is tried first, and what an error says.

use super::*;

fn found(url: &str, print: u8, name: Option<&str>) -> Found {
    Found {
        address: url.parse().expect("an address"),
        fingerprint: Fingerprint::of_hash(&[print; 32]),
        name: name.map(|name| Name::new(name).expect("a name")),
    }
}

#[test]
fn a_server_is_one_by_however_many_ways_and_the_best_comes_first() {
    let heard = group(vec![
        found("tcp://10.0.0.1:5555", 1, Some("kitchen")),
        found("udp://[fe80::1%eth0]:5555", 1, Some("kitchen")),
        found("udp://[fd00::1]:5555", 1, Some("kitchen")),
        found("eth://02-00-00-00-00-01%eth0:5555", 1, Some("kitchen")),
        found("udp://10.0.0.1:5555", 1, Some("kitchen")),
        found("udp://10.0.0.1:5555", 1, Some("kitchen")),
        found("udp://10.0.0.9:5555", 9, None),
        found("udp://10.0.0.2:5555", 2, Some("kitchen")),
    ]);
    let prints = [1, 2, 9].map(|print| Fingerprint::of_hash(&[print; 32]));
    let heard_prints: Vec<_> = heard.iter().map(|server| server.fingerprint).collect();
    assert_eq!(heard_prints, prints);
    let ways: Vec<_> = heard[0].ways.iter().map(ToString::to_string).collect();
    assert_eq!(
        ways,
        [
            "eth://02-00-00-00-00-01%25eth0:5555",
            "udp://10.0.0.1:5555",
            "udp://[fd00::1]:5555",
            "udp://[fe80::1%25eth0]:5555",
            "tcp://10.0.0.1:5555",
        ]
    );
}

#[test]
fn a_server_that_names_a_thousand_ways_has_a_few() {
    let many = (0..1000).map(|port| found(&format!("udp://10.0.0.1:{}", port + 1), 1, None));
    assert_eq!(group(many.collect())[0].ways.len(), WAYS_MAX);
}

#[test]
fn who_shares_a_name_is_listed_with_url_and_fingerprint() {
    let heard = group(vec![
        found("udp://10.0.0.1:5555", 1, Some("kitchen")),
        found("eth://02-00-00-00-00-02%eth0:5555", 2, Some("kitchen")),
    ]);
    let name = Name::new("kitchen").expect("a name");
    let known = Some(Fingerprint::of_hash(&[2; 32]));
    let text = NameError::Ambiguous { name, heard, known }.to_string();
    assert!(text.starts_with("//kitchen: 2 servers have this name: "), "{text}");
    for print in [1, 2] {
        assert!(text.contains(&Fingerprint::of_hash(&[print; 32]).to_string()), "{text}");
    }
    assert!(text.contains("udp://10.0.0.1:5555 ("), "{text}");
    assert!(text.contains("eth://02-00-00-00-00-02%25eth0:5555 ("), "{text}");
    assert!(text.contains(", known by it)") && !text.contains('\n'), "{text}");
}
