//! The table of the design, what is printed, what is refused, and bytes by chance.

use super::*;

fn parse(text: &str) -> Address {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn refused(text: &str) -> (Option<usize>, Problem) {
    let error = text.parse::<Address>().expect_err(text);
    (error.at, error.problem)
}

fn interface(name: &str) -> Interface {
    Interface::new(name).expect("a name")
}

const STATION: Mac = Mac([0x52, 0x54, 0x00, 0x12, 0x34, 0x56]);

/// What is typed, and what is printed for it.
const CANONICAL: &[(&str, &str)] = &[
    ("eth://enp3s0", "eth://enp3s0"),
    ("eth://lo:7000", "eth://lo:7000"),
    ("eth://52-54-00-12-34-56%enp3s0:5555/item", "eth://52-54-00-12-34-56%25enp3s0:5555/item"),
    ("eth://52:54:00:12:34:56%25enp3s0/item", "eth://52-54-00-12-34-56%25enp3s0/item"),
    ("eth://52:54:00:AB:cd:EF%enp3s0:1", "eth://52-54-00-ab-cd-ef%25enp3s0:1"),
    ("eth://52-54-00-12-34-56%ab0", "eth://52-54-00-12-34-56%25ab0"),
    ("eth://52-54-00-12-34-56%2525x", "eth://52-54-00-12-34-56%2525x"),
    ("eth://52-54-00-12-34-56%25", "eth://52-54-00-12-34-56%2525"),
    ("eth://enp3s0/item", "eth://enp3s0/item"),
    ("udp://0.0.0.0:5555", "udp://0.0.0.0:5555"),
    ("udp://[::]", "udp://[::]"),
    ("udp://239.1.2.3?if=eth0", "udp://239.1.2.3?if=eth0"),
    ("udp://host/item", "udp://host/item"),
    ("UDP://Host.Example/Item", "udp://host.example/Item"),
    ("udp://[fe80::1%eth0]:5555", "udp://[fe80::1%25eth0]:5555"),
    ("udp://[FE80:0:0::1%25eth0]", "udp://[fe80::1%25eth0]"),
    ("tcp://:5555", "tcp://:5555"),
    ("tcp://", "tcp://"),
    ("tcp://:0", "tcp://:0"),
    ("tcp://host:05555/a//b/", "tcp://host:5555/a/b"),
    ("tcp://host/", "tcp://host"),
    (
        "tls://:5556?cert=/etc/c.pem&key=/etc/k%26.pem",
        "tls://:5556?cert=/etc/c.pem&key=/etc/k%26.pem",
    ),
    ("tls://host:5556?ca=", "tls://host:5556?ca"),
    ("tls://host?", "tls://host"),
    ("unix:///run/cabo.sock", "unix:///run/cabo.sock"),
    ("unix:/run/cabo.sock", "unix:///run/cabo.sock"),
    ("unix:cabo.sock", "unix:cabo.sock"),
    ("unix:%40cabo", "unix:%40cabo"),
    ("unix:@abstract", "unix:@abstract"),
    ("redes://veth0?layout=c69", "redes://veth0?layout=c69"),
    ("redes://veth0/film.mp4", "redes://veth0/film.mp4"),
    ("//kitchen/item", "//kitchen/item"),
    ("//k%69tchen%2f1", "//kitchen%2F1"),
    ("//Kitchen/Film.mp4", "//kitchen/Film.mp4"),
    ("//ana's k\u{fc}che/", "//ana%27s%20k%C3%BCche"),
    ("//a:b@c%3f", "//a%3Ab@c%3F"),
    ("tcp://host/a b/100%25/\u{e9}#1", "tcp://host/a%20b/100%25/%C3%A9%231"),
];

#[test]
fn what_is_printed_is_canonical_and_reads_the_same() {
    for (typed, printed) in CANONICAL {
        let address = parse(typed);
        assert_eq!(address.to_string(), *printed, "{typed}");
        assert_eq!(parse(printed), address, "{typed}");
    }
}

#[test]
fn each_scheme_has_its_parts() {
    let eth = parse("eth://52-54-00-12-34-56%enp3s0:7000/trip/day1.mp4?x=1");
    assert_eq!(
        eth.place,
        Place::Eth { mac: Some(STATION), interface: interface("enp3s0"), port: Some(7000) }
    );
    assert_eq!(eth.item.names().collect::<Vec<_>>(), [b"trip".as_slice(), b"day1.mp4"]);
    assert_eq!((eth.query.get("x"), eth.query.get("y")), (Some(&b"1"[..]), None));
    let udp = parse("udp://[fe80::1%eth0]");
    let host = Host::Ip6("fe80::1".parse().expect("ip"), Some(interface("eth0")));
    assert_eq!(udp.place, Place::Udp(HostPort { host, port: None }));
    assert_eq!(parse("tcp://:1").place, Place::Tcp(HostPort { host: Host::Any, port: Some(1) }));
    assert_eq!(parse("unix:@x").place, Place::Unix(UnixName::Abstract(b"x".to_vec())));
    assert_eq!(parse("unix:///x/y").place, Place::Unix(UnixName::Path("/x/y".into())));
    assert_eq!(parse("//ana%20s/a").place, Place::Name(Name::new("ana s").expect("a name")));
    let raw = Address::parse(b"tcp://h/\xff\xfe").expect("bytes are names");
    assert_eq!(raw.item.names().collect::<Vec<_>>(), [b"\xff\xfe"]);
    assert_eq!(raw.to_string(), "tcp://h/%FF%FE");
    assert_eq!(raw.item, Item::from_path(b"/\xff\xfe/").expect("a path"));
}

#[test]
fn what_is_refused_is_named_by_its_byte() {
    for (text, at, problem) in [
        ("", 0, Problem::NoScheme),
        ("host", 0, Problem::NoScheme),
        ("host:5555", 0, Problem::NoScheme),
        ("/etc/passwd", 0, Problem::NoScheme),
        ("http://host", 0, Problem::Scheme("http".to_owned())),
        ("tcp:host", 4, Problem::Slashes("tcp".to_owned())),
        ("tcp://host:65536", 11, Problem::Port),
        ("tcp://host:", 11, Problem::Port),
        ("tcp://host:+1", 11, Problem::Port),
        ("tcp://fe80::1", 6, Problem::Host),
        ("tcp://[fe80::1", 6, Problem::Host),
        ("tcp://[fe80::g]", 7, Problem::Host),
        ("tcp://[::1]x", 11, Problem::Port),
        ("tcp://1.2.3.400", 6, Problem::Host),
        ("tcp://me@host", 6, Problem::Host),
        ("tcp://a..b", 6, Problem::Host),
        ("tcp://h/../x", 8, Problem::Item),
        ("tcp://h/a/%2e%2E", 10, Problem::Item),
        ("tcp://h/a%2Fb", 8, Problem::Item),
        ("tcp://h/a%00", 8, Problem::Item),
        ("tcp://h/100%", 11, Problem::Percent),
        ("tcp://h/%g0", 8, Problem::Percent),
        ("tcp://h?a=1&a=2", 12, Problem::DoubleParameter("a".to_owned())),
        ("tcp://h?=1", 8, Problem::ParameterName),
        ("eth://", 6, Problem::Interface),
        ("eth://averyveryverylong", 6, Problem::Interface),
        ("eth://52-54-00-12-34%lo", 6, Problem::Mac),
        ("eth://52-54:00-12-34-56%lo", 6, Problem::Mac),
        ("eth://52-54-00-12-34-56", 6, Problem::LoneStation),
        ("eth://52:54:00:12:34:56:5555", 6, Problem::LoneStation),
        ("eth://52-54-00-12-34-56%", 24, Problem::Interface),
        ("eth://a%2fb", 6, Problem::Mac),
        ("udp://[fe80::1%]", 15, Problem::Interface),
        ("redes://", 8, Problem::Interface),
        ("unix:", 5, Problem::Unix),
        ("unix:@", 6, Problem::Unix),
        ("unix:@a%00b/c", 6, Problem::Unix),
        ("unix://run/x", 5, Problem::UnixHost),
        ("//", 2, Problem::Name),
        ("///item", 2, Problem::Name),
        ("//%20/item", 2, Problem::Name),
        ("//kitchen%20", 2, Problem::Name),
        ("//a%0Ab", 2, Problem::Name),
        ("//a%C2%9bb", 2, Problem::Name),
        ("//%FF", 2, Problem::Name),
        ("//kit%chen", 5, Problem::Percent),
        ("//kitchen/../x", 10, Problem::Item),
        ("tcp://%ff", 6, Problem::Utf8),
    ] {
        assert_eq!(refused(text), (Some(at), problem), "{text}");
    }
    assert_eq!(refused(&format!("unix:///{}", "x".repeat(107))).1, Problem::Unix);
    assert_eq!(refused(&format!("//{}", "x".repeat(57))).1, Problem::Name);
    assert_eq!(parse(&format!("//{}", "x".repeat(56))).item, Item::default());
    assert_eq!(refused(&"x".repeat(20_000)), (None, Problem::TooLong));
}

#[test]
fn an_error_is_one_line_of_what_where_and_what_to_do() {
    let error = "tcp://fe80::1".parse::<Address>().expect_err("refused");
    assert_eq!(
        error.to_string(),
        "bad address tcp://fe80::1, byte 6: this is no host; write a name, an IPv4 address, or an IPv6 address in \
         brackets: [fe80::1%25eth0]"
    );
    for text in [b"tcp://\n\x1b[2J".as_slice(), b"\xff\xff", &[b'\n'; 9000], &[0xff; 20_000]] {
        let line = Address::parse(text).expect_err("refused").to_string();
        assert!(line.len() < 1000 && !line.contains(char::is_control), "{line}");
    }
}

#[test]
fn listening_and_connecting_ask_for_different_parts() {
    let listen = |text: &str| parse(text).check_listen().map_err(|error| error.problem);
    for good in
        ["eth://enp3s0", "udp://[::]", "tcp://", "tcp://:0", "tls://h", "unix:@x", "redes://veth0"]
    {
        assert_eq!(listen(good), Ok(()), "{good}");
    }
    assert_eq!(listen("eth://52-54-00-12-34-56%lo"), Err(Problem::ListenStation));
    assert_eq!(listen("tcp://:5555/item"), Err(Problem::ListenItem));
    assert_eq!(listen("//kitchen"), Err(Problem::ListenName));
    let connect = |text: &str| parse(text).check_connect().map_err(|error| error.problem);
    for good in [
        "eth://lo/x",
        "eth://52-54-00-12-34-56%lo",
        "udp://h",
        "tcp://h:1/x",
        "unix:@x",
        "//kitchen",
    ] {
        assert_eq!(connect(good), Ok(()), "{good}");
    }
    for nowhere in ["tcp://:5555", "udp://0.0.0.0", "udp://[::]:1"] {
        assert_eq!(connect(nowhere), Err(Problem::ConnectNowhere), "{nowhere}");
    }
    assert_eq!(connect("tcp://h:0"), Err(Problem::ConnectPort));
    assert_eq!(connect("eth://ff-ff-ff-ff-ff-ff%lo"), Err(Problem::ConnectGroup));
}

#[test]
fn a_server_is_remembered_by_its_place_alone() {
    let words = |text: &str| parse(text).server_words();
    assert_eq!(words("tcp://Host/item?x=1").as_deref(), Some("tcp://host:5555"));
    assert_eq!(words("udp://[fe80::1%eth0]:7").as_deref(), Some("udp://[fe80::1%25eth0]:7"));
    assert_eq!(
        words("eth://52:54:00:12:34:56%lo/i").as_deref(),
        Some("eth://52-54-00-12-34-56%25lo:5555")
    );
    assert_eq!(words("//kitchen/item").as_deref(), Some("//kitchen"));
    assert_eq!(words("eth://lo/item"), None);
}

#[test]
fn unknown_parameters_are_named_with_the_known_ones() {
    let query = parse("tls://h?cert=a&kei=b").query;
    assert_eq!(query.check(&["cert", "kei"]), Ok(()));
    let problem = query.check(&["cert", "key"]).expect_err("refused");
    assert_eq!(problem.to_string(), "the parameter kei means nothing here; known are: cert, key");
}

/// A small source of chance, seeded, so that a failure is the same again.
struct Chance(u64);

impl Chance {
    fn seeded(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn pick<'a>(&mut self, from: &[&'a [u8]]) -> &'a [u8] {
        from[self.below(from.len())]
    }

    fn bytes(&mut self, max: usize) -> Vec<u8> {
        (0..1 + self.below(max)).map(|_| self.below(256) as u8).collect()
    }

    fn port(&mut self) -> Option<u16> {
        (self.below(2) == 0).then(|| self.below(65536) as u16)
    }

    fn interface(&mut self) -> Interface {
        loop {
            let name: String =
                (0..1 + self.below(15)).map(|_| char::from(self.below(127) as u8)).collect();
            if let Ok(interface) = Interface::new(&name) {
                return interface;
            }
        }
    }

    fn name(&mut self) -> Name {
        loop {
            let end = if self.below(2) == 0 { 127 } else { 0x3000 };
            let name: String = (0..1 + self.below(20))
                .filter_map(|_| char::from_u32(self.below(end) as u32))
                .collect();
            if let Ok(name) = Name::new(&name) {
                return name;
            }
        }
    }

    fn host(&mut self) -> HostPort {
        let host = match self.below(5) {
            0 => Host::Any,
            1 => Host::Ip4(Ipv4Addr::from_bits(self.0 as u32)),
            2 => Host::Ip6(Ipv6Addr::from_bits(u128::from(self.0) << self.below(64)), None),
            3 => Host::Ip6(Ipv6Addr::from_bits(u128::from(self.0)), Some(self.interface())),
            _ => Host::Name(
                HostName::new(["a", "x-1.example", "1.2.3.4a", "a.b."][self.below(4)])
                    .expect("a name"),
            ),
        };
        HostPort { host, port: self.port() }
    }

    fn address(&mut self) -> Address {
        let place = match self.below(9) {
            0 => Place::Eth { mac: None, interface: self.interface(), port: self.port() },
            1 => Place::Eth { mac: Some(STATION), interface: self.interface(), port: self.port() },
            2 => Place::Udp(self.host()),
            3 => Place::Tcp(self.host()),
            4 => Place::Tls(self.host()),
            5 => Place::Redes { interface: self.interface() },
            6 => Place::Name(self.name()),
            7 => Place::Unix(UnixName::Abstract(self.unix_name())),
            _ => {
                let path =
                    [self.pick(&[b"/", b"@", b"", b"./"]).to_vec(), self.unix_name()].concat();
                Place::Unix(UnixName::Path(std::ffi::OsStr::from_bytes(&path).into()))
            }
        };
        let mut address = Address::from(place);
        if !matches!(address.place, Place::Unix(_)) {
            for _ in 0..self.below(4) {
                let name = self.bytes(40);
                let _ = address.item.push(name);
            }
        }
        for key in ["a", "layout", "x-Y_9"] {
            if self.below(3) == 0 {
                let value = if self.below(3) == 0 { Vec::new() } else { self.bytes(20) };
                address.query.0.push((key.to_owned(), value));
            }
        }
        address
    }

    fn unix_name(&mut self) -> Vec<u8> {
        self.bytes(100).into_iter().map(|byte| byte.max(1)).collect()
    }
}

#[test]
fn any_address_that_is_printed_reads_the_same() {
    for seed in 1..5000 {
        let mut chance = Chance::seeded(seed);
        let address = chance.address();
        let printed = address.to_string();
        assert!(printed.bytes().all(|byte| byte.is_ascii_graphic()), "seed {seed}: {printed}");
        assert_eq!(printed.parse::<Address>().as_ref(), Ok(&address), "seed {seed}: {printed}");
    }
}

#[test]
fn no_bytes_make_it_panic_and_what_they_mean_prints_and_reads_the_same() {
    let words: &[&[u8]] = &[
        b"eth://",
        b"udp://",
        b"tcp://",
        b"tls:",
        b"unix:",
        b"redes://",
        b"//",
        b"/",
        b"%",
        b"%25",
        b"%2",
        b"[",
        b"]",
        b"::1",
        b":",
        b"@",
        b"?",
        b"&",
        b"=",
        b"..",
        b"52-54-00-12-34-56",
        b"52:54:00:12:34:56",
        b"lo",
        b"1.2.3.4",
        b"5555",
        b"\xff",
        b"\0",
        b"\n",
        b" ",
        b"a",
    ];
    let mut understood = 0;
    for seed in 1..20_000 {
        let mut chance = Chance::seeded(seed);
        let mut text = Vec::new();
        for _ in 0..chance.below(8) {
            if chance.below(10) == 0 {
                text.extend(chance.bytes(4));
            } else {
                text.extend_from_slice(chance.pick(words));
            }
        }
        if let Ok(address) = Address::parse(&text) {
            understood += 1;
            let (_, _) = (address.check_listen(), address.check_connect());
            assert_eq!(
                address.to_string().parse().as_ref(),
                Ok(&address),
                "seed {seed}: {address}"
            );
        }
    }
    assert!(understood > 500, "{understood} of the texts meant something");
}
