//! What can be wrong with an address: each says what, and what to write instead.

const MAX_SHOWN_LEN: usize = 120; // characters of the address that an error repeats

/// An address that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("bad address {text}{}: {problem}", place(.at))]
pub struct AddressError {
    /// The address as it was given, escaped, and cut where it is long.
    pub text: String,
    /// The byte at which it went wrong, where it was one.
    pub at: Option<usize>,
    /// What is wrong.
    pub problem: Problem,
}

impl AddressError {
    pub(super) fn new(text: &[u8], at: Option<usize>, problem: Problem) -> Self {
        let mut shown: String =
            String::from_utf8_lossy(text.get(..4 * MAX_SHOWN_LEN).unwrap_or(text))
                .escape_debug()
                .take(MAX_SHOWN_LEN + 1)
                .collect();
        if shown.chars().count() > MAX_SHOWN_LEN {
            shown.pop();
            shown.push_str("...");
        }
        if shown.is_empty() {
            shown.push_str("\"\"");
        }
        Self { text: shown, at, problem }
    }
}

fn place(at: &Option<usize>) -> String {
    at.map_or_else(String::new, |at| format!(", byte {at}"))
}

/// What is wrong with an address.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Problem {
    /// A broadcast or multicast station.
    #[error(
        "this station is a group; name one station, or none to ask the link: eth://INTERFACE/ITEM"
    )]
    ConnectGroup,
    /// No host to connect to.
    #[error("this names no host; write it before the port, as in tcp://HOST:5555")]
    ConnectNowhere,
    /// Port 0.
    #[error("port 0 means any free port, to listen on; name the port that the server has")]
    ConnectPort,
    /// A parameter that stands twice.
    #[error("the parameter {0} stands twice; leave one of them out")]
    DoubleParameter(String),
    /// Not a host.
    #[error(
        "this is no host; write a name, an IPv4 address, or an IPv6 address in brackets: [fe80::1%25eth0]"
    )]
    Host,
    /// Not an interface's name.
    #[error(
        "this is no interface's name (1 to 15 bytes, no slash, colon or space); `ip link` lists them"
    )]
    Interface,
    /// Not a name in a catalogue.
    #[error(
        "an item's names are not `.` or `..` and have no slash or NUL byte; name the item from the top of the catalogue"
    )]
    Item,
    /// An item to listen on.
    #[error("one listens on an endpoint, not on an item; leave out what follows the endpoint")]
    ListenItem,
    /// A discovered name to listen on.
    #[error("a name is for clients; name what to listen on, as in udp://:5555 or eth://INTERFACE")]
    ListenName,
    /// A station to listen on.
    #[error("one listens on an interface, not on a station; write eth://INTERFACE")]
    ListenStation,
    /// A key without its certificate.
    #[error("key=FILE is the key of a certificate; name that too: cert=FILE")]
    LoneKey,
    /// A station without its link.
    #[error("a station needs the interface that it is reached by; write eth://MAC%INTERFACE")]
    LoneStation,
    /// Not an Ethernet address.
    #[error(
        "this is no Ethernet address; write six pairs of hexadecimal digits: 52-54-00-12-34-56"
    )]
    Mac,
    /// Not a discovered name.
    #[error(
        "a server's name has 1 to 56 bytes of UTF-8, no control characters, no space at its ends; `cabo ls` lists who serves"
    )]
    Name,
    /// Nothing to show to clients.
    #[error(
        "a server over TLS has a certificate and its key: ?cert=FILE&key=FILE; `cabo keys certificate NAME` makes both"
    )]
    NoCertificate,
    /// A parameter that names no file.
    #[error("{0}= wants the name of a file")]
    NoFile(&'static str),
    /// No scheme.
    #[error("there is no scheme; write udp://, tcp://, tls://, eth:// or unix: before it")]
    NoScheme,
    /// A parameter that the user of this address does not know.
    #[error("the parameter {key} means nothing here; known are: {known}")]
    Parameter {
        /// The key.
        key: String,
        /// The keys that are known.
        known: String,
    },
    /// A parameter without a sane name.
    #[error(
        "a parameter's name has letters, digits, `-` and `_`; a ? in an item is written %3F, or the item stands \
         beside the address"
    )]
    ParameterName,
    /// A `%` that begins nothing.
    #[error("a percent sign begins two hexadecimal digits; write %25 for the sign itself")]
    Percent,
    /// Not a port.
    #[error("a port is a number from 0 to 65535")]
    Port,
    /// A scheme of others.
    #[error("there is no scheme {0}; there are udp, tcp, tls, eth and unix")]
    Scheme(String),
    /// Not a name that a certificate could have.
    #[error(
        "the name that the certificate must be for is a host's name or an IP address: name=NAME"
    )]
    ServerName,
    /// A scheme without its slashes.
    #[error("two slashes are missing after {0}: ; write {0}://")]
    Slashes(String),
    /// A long text.
    #[error("an address has at most 16384 bytes")]
    TooLong,
    /// Bytes that are not text.
    #[error("this is not UTF-8, which only items, names and values need not be")]
    Utf8,
    /// A Unix socket's name that the system does not take.
    #[error("a Unix socket's name has 1 to 107 bytes and no NUL; write unix:///PATH or unix:@NAME")]
    Unix,
    /// Neither yes nor no.
    #[error("verify is yes or no, and yes where it is left out; no takes any certificate")]
    Verify,
    /// `unix://` with a host.
    #[error(
        "a Unix socket has no host; write unix:///PATH for an absolute path, unix:PATH for a relative one"
    )]
    UnixHost,
}
