//! Each rule by itself, and the `--allow` file.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::carrier::Peer;
use crate::gate::origin_of;
use crate::talk::Foreign;

const OWN: PublicKey = PublicKey([1; 32]);
const ANA: PublicKey = PublicKey([2; 32]);
const BOB: PublicKey = PublicKey([3; 32]);

fn ip(text: &str) -> Origin {
    Origin::Ip(text.parse().expect("an address"))
}

fn allow(text: &str) -> (tempfile::TempDir, Result<AllowFile, AllowError>) {
    let temp = tempfile::tempdir().expect("a directory");
    let path = temp.path().join("friends.txt");
    fs::write(&path, text).expect("writes");
    let file = AllowFile::load(&path);
    (temp, file)
}

#[test]
fn ones_own_identity_is_always_let_in_and_nobody_else_at_first() {
    let access = Access::new(OWN);
    assert_eq!(access.judge(Some(OWN), ip("192.0.2.1")), Decision::Admit);
    let unknown = Decision::Refuse(Refusal::Unknown(Fingerprint::of(ANA)));
    assert_eq!(access.judge(Some(ANA), ip("192.0.2.1")), unknown);
    assert_eq!(
        access.judge(Some(ANA), ip("127.0.0.1")),
        unknown,
        "from this host a key counts too"
    );
    assert_eq!(access.judge(Some(ANA), Origin::Link { is_loopback: false }), unknown);
    assert_eq!(Access::new(OWN).open().judge(Some(ANA), ip("192.0.2.1")), Decision::Admit);
}

#[test]
fn the_terminal_is_asked_once_about_each() {
    let mut access = Access::new(OWN).asking();
    let ask = |key| Decision::Ask { fingerprint: Fingerprint::of(key) };
    assert_eq!(access.judge(Some(ANA), ip("192.0.2.1")), ask(ANA));
    access.answer(ANA, true);
    access.answer(BOB, false);
    assert_eq!(access.judge(Some(ANA), ip("192.0.2.9")), Decision::Admit);
    assert_eq!(
        access.judge(Some(BOB), ip("192.0.2.1")),
        Decision::Refuse(Refusal::Denied(Fingerprint::of(BOB)))
    );
}

#[test]
fn answers_about_strangers_are_bounded_and_friends_stay() {
    let mut access = Access::new(OWN).asking();
    access.answer(ANA, true);
    for number in 0..5000u32 {
        let mut key = [9; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        access.answer(PublicKey(key), false);
    }
    assert_eq!(access.answers.len(), MAX_ANSWERS);
    assert_eq!(access.judge(Some(ANA), ip("192.0.2.1")), Decision::Admit);
}

#[test]
fn the_user_at_a_unix_socket_counts_as_an_identity() {
    let access = Access::new(OWN);
    let at = |uid| Origin::Unix { uid };
    for peer in [None, Some(ANA)] {
        assert_eq!(access.judge(peer, at(Some(access.own_uid))), Decision::Admit);
        assert_eq!(access.judge(peer, at(Some(0))), Decision::Admit);
        assert!(matches!(access.judge(peer, at(Some(4242))), Decision::Refuse(_)));
        assert!(matches!(access.judge(peer, at(None)), Decision::Refuse(_)));
    }
}

#[test]
fn peers_without_an_identity_enter_from_this_host_and_from_named_networks() {
    let networks = ["192.168.1.0/24", "fe80::/10"].map(|text| text.parse().expect("a network"));
    let access = Access::new(OWN).from(networks.to_vec()).asking();
    for near in [
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "::ffff:127.0.0.1",
        "192.168.1.77",
        "::ffff:192.168.1.77",
        "fe80::5",
    ] {
        assert_eq!(access.judge(None, ip(near)), Decision::Admit, "{near}");
    }
    assert_eq!(access.judge(None, Origin::Link { is_loopback: true }), Decision::Admit);
    for far in ["192.168.2.1", "2001:db8::1"] {
        assert_eq!(
            access.judge(None, ip(far)),
            Decision::Refuse(Refusal::Nameless(ip(far))),
            "{far}"
        );
    }
    let link = Origin::Link { is_loopback: false };
    assert_eq!(access.judge(None, link), Decision::Refuse(Refusal::Nameless(link)));
    assert_eq!(Access::new(OWN).open().judge(None, link), Decision::Admit);
}

/// One rule for peers of all services: where they are.
#[test]
fn foreign_programs_and_peers_without_an_identity_are_judged_alike() {
    let networks: Vec<Cidr> = vec!["10.1.0.0/16".parse().unwrap(), "fe80::/10".parse().unwrap()];
    let access = Access::new(PublicKey([1; 32])).from(networks.clone());
    let foreign = Foreign::From(networks);
    for (at, is_let_in) in [
        ("127.0.0.1:7", true),
        ("127.9.9.9:7", true),
        ("[::ffff:127.0.0.1]:7", true),
        ("[::1]:7", true),
        ("10.1.2.3:7", true),
        ("[::ffff:10.1.2.3]:7", true),
        ("[fe80::1%2]:7", true),
        ("10.2.2.3:7", false),
        ("[2001:db8::1]:7", false),
    ] {
        let from = Peer::udp(at.parse().unwrap());
        let decision = access.judge(None, origin_of(from, || None));
        assert_eq!(decision == Decision::Admit, is_let_in, "{at}");
        assert_eq!(foreign.admits(&from), is_let_in, "{at}");
    }
}

#[test]
fn a_network_holds_its_addresses_and_bad_text_is_none() {
    let holds = |network: &str, ip: &str| {
        network.parse::<Cidr>().expect("a network").contains(ip.parse().expect("an address"))
    };
    assert!(holds("0.0.0.0/0", "8.8.8.8") && !holds("0.0.0.0/0", "::2") && holds("::/0", "2001::"));
    assert!(holds("10.1.2.3", "10.1.2.3") && !holds("10.1.2.3", "10.1.2.2"));
    assert!(holds("10.1.2.3/31", "10.1.2.2") && !holds("10.1.2.3/31", "10.1.2.4"));
    assert!(holds("fe80::1/128", "fe80::1") && !holds("fe80::1/128", "fe80::2"));
    for bad in ["", "x", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "10.0.0/8"] {
        assert_eq!(bad.parse::<Cidr>(), Err(CidrError(bad.to_owned())));
    }
}

#[test]
fn the_allow_file_lets_in_who_stands_there_until_it_says_otherwise() {
    let print = Fingerprint::of(ANA);
    let text = format!(
        "# friends\r\n\r\n{print}  ana laptop # at home\n{}\n",
        Fingerprint::of(OWN).to_string().to_uppercase()
    );
    let (temp, file) = allow(&text);
    let file = file.expect("reads");
    assert_eq!((file.len(), file.is_empty()), (2, false));
    let mut access = Access::new(OWN).with_allow(file);
    assert_eq!(access.judge(Some(ANA), ip("192.0.2.1")), Decision::Admit);
    assert_eq!((access.name_of(ANA), access.name_of(OWN)), (Some("ana laptop"), None));
    fs::write(temp.path().join("friends.txt"), "nonsense\n").expect("writes");
    assert!(matches!(access.reload(), Err(AllowError::Line { line: 1, .. })));
    assert_eq!(
        access.judge(Some(ANA), ip("192.0.2.1")),
        Decision::Admit,
        "the old list stays in force"
    );
    fs::write(temp.path().join("friends.txt"), "").expect("writes");
    access.reload().expect("works");
    assert!(matches!(access.judge(Some(ANA), ip("192.0.2.1")), Decision::Refuse(_)));
}

#[test]
fn a_bad_allow_file_is_named_with_its_line() {
    let (_temp, file) = allow("\n# x\nk7f3-9x2m ana\n");
    let error = file.expect_err("refused").to_string();
    assert!(error.starts_with("line 3 of ") && error.contains("this has 8"), "{error}");
    let (temp, _) = allow("");
    let path = temp.path().join("friends.txt");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("set");
    let error = AllowFile::load(&path).expect_err("refused").to_string();
    assert!(error.ends_with(&format!("chmod o-w {}", path.display())), "{error}");
    let pipe = temp.path().join("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0)
        .expect("makes");
    let error = AllowFile::load(&pipe).expect_err("refused").to_string();
    assert!(error.contains("is no regular file"), "{error}");
    let error = AllowFile::load(&temp.path().join("none")).expect_err("refused").to_string();
    assert!(error.ends_with("--allow names it"), "{error}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
    fs::write(&path, vec![b'\n'; 5 << 20]).expect("writes");
    assert!(matches!(AllowFile::load(&path), Err(AllowError::TooLong { .. })));
}

#[test]
fn an_allow_file_that_is_a_pipe_or_a_device_is_refused_at_once() {
    let temp = tempfile::tempdir().expect("a directory");
    let pipe = temp.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .expect("a pipe");
    for path in [&*pipe, Path::new("/dev/zero"), temp.path()] {
        let error = AllowFile::load(path).expect_err("refused");
        assert!(matches!(error, AllowError::NotAFile { .. }), "{error}");
    }
}

#[test]
fn a_refusal_tells_the_command_that_would_let_the_peer_in() {
    let print = Fingerprint::of(ANA);
    let unknown = Refusal::Unknown(print);
    assert!(unknown.to_string().contains(&format!("echo {print} >> FILE")));
    let remedy = unknown.remedy("cabo serve", Some(Path::new("/home/a b/friends.txt")));
    assert_eq!(
        remedy,
        format!("echo {print} >> '/home/a b/friends.txt'; kill -HUP {}", std::process::id())
    );
    assert!(unknown.remedy("cabo serve", None).ends_with("; cabo serve --allow friends.txt"));
    assert!(unknown.remedy("cabo listen", None).ends_with("; cabo listen --allow friends.txt"));
    let nameless = Refusal::Nameless(ip("::ffff:192.0.2.1"));
    assert!(nameless.to_string().ends_with("--from 192.0.2.1 or --open"));
    assert_eq!(nameless.remedy("cabo serve", None), "cabo serve --from 192.0.2.1");
}
