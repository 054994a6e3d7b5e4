//! Exit codes, and errors as one line of what, where, why and what next.

use std::process::ExitCode;

use cabo::address::AddressError;
use cabo::carrier::OpenError;
use cabo::client::ClientError;
use cabo::connection::{Code, Ended};
use cabo::discovery::NameError;
use cabo::error::{ConnectError, ListenError};
use cabo::proto::wire::packet;
use cabo::service::media::{ErrorCode, FetchError, MediaError};

use crate::show::human::escaped;
use crate::show::{stderr, stdout};

/// It worked.
pub(crate) const OK: u8 = 0;
/// It did not work; the line on stderr says why.
pub(crate) const FAILED: u8 = 1;
/// The command line is wrong (clap uses the same).
pub(crate) const USAGE: u8 = 2;
/// Nobody answered, or the peer was lost.
pub(crate) const UNREACHABLE: u8 = 3;
/// The peer refused us, or we refused it: access, identity, version.
pub(crate) const REFUSED: u8 = 4;
/// Not all of it arrived whole and proved; what is there can be resumed.
pub(crate) const INCOMPLETE: u8 = 5;
/// Ended by Ctrl-C or SIGTERM before it was done; what is there can be resumed.
pub(crate) const INTERRUPTED: u8 = 130;

/// How a refusal begins where an address names no item and there are several.
pub(crate) const WHICH_ITEM: &str = "which item?";

/// The list for help and man pages.
pub(crate) const TABLE: &str = "\
Exit codes:
  0    it worked; serve, listen, relay and play --url: also when told to end
  1    it did not work; the line on stderr says why
  2    the command line is wrong
  3    nobody answered, or the server was lost
  4    refused: access, identity or version
  5    not all of it arrived whole and proved; run the same again to resume
  130  ended by Ctrl-C or SIGTERM; run the same again to resume";

/// An error that knows its exit code.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// The same, and what next: where something is here, another run takes it up.
    pub(crate) fn with_next(mut self) -> Self {
        if self.code == INCOMPLETE {
            self.text.push_str("; what arrived is kept: run the same command again to resume");
        }
        self
    }

    /// A command line that cannot be meant.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(USAGE, text)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::Connect(error) => of_connect(error),
            ClientError::Known(_) | ClientError::Name(NameError::Ambiguous { .. }) => FAILED,
            ClientError::Name(NameError::Nobody { .. }) => UNREACHABLE,
            ClientError::Name(NameError::Impostor { .. }) => REFUSED,
            ClientError::Changed(_) => REFUSED,
        };
        let next = match &error {
            ClientError::Connect(ConnectError::Ended { ended, .. }) => next_step(ended),
            ClientError::Connect(_)
            | ClientError::Known(_)
            | ClientError::Changed(_)
            | ClientError::Name(_) => "",
        };
        let text = match &error {
            ClientError::Connect(ConnectError::Ended { place, ended }) => only_one_is_plain(ended)
                .map_or_else(|| error.to_string(), |words| format!("{place}: {words}")),
            ClientError::Connect(_)
            | ClientError::Known(_)
            | ClientError::Changed(_)
            | ClientError::Name(_) => error.to_string(),
        };
        Self::new(code, format!("{text}{next}"))
    }
}

/// That one side asks for plain and the other does not, where the versions say so.
fn only_one_is_plain(ended: &Ended) -> Option<&'static str> {
    let Ended::Version { peer, ours } = ended else { return None };
    let (sealed, plain) = (packet::SEALED, packet::PLAIN);
    if *ours == sealed && peer.contains(&plain) {
        Some(
            "the server is plain, and this side asks for a sealed session: say --plain, where nobody else is on the wire",
        )
    } else if *ours == plain && peer.contains(&sealed) {
        Some("this side asks for plain, and the server is sealed: leave --plain out")
    } else {
        None
    }
}

impl From<AddressError> for Failure {
    fn from(error: AddressError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self::new(of_connect(&error), error.to_string())
    }
}

impl From<ListenError> for Failure {
    fn from(error: ListenError) -> Self {
        let code = match &error {
            ListenError::Address(_) | ListenError::NoSession { .. } => USAGE,
            ListenError::Carrier(_) | ListenError::Resolve { .. } | ListenError::Setup(_) => FAILED,
        };
        Self::new(code, error.to_string())
    }
}

/// The failure of a request about `place`.
pub(crate) fn of_media(place: &str, error: &MediaError) -> Failure {
    if let Some(ended) = error.session_end() {
        return Failure::new(of_end(ended), format!("{place}: {ended}"));
    }
    let code = match error {
        MediaError::Refused(refusal) if refusal.code == ErrorCode::AccessDenied => REFUSED,
        MediaError::Refused(_) | MediaError::Malformed(_) | MediaError::WrongBlock { .. } => FAILED,
        MediaError::Broken(_) | MediaError::Stalled { .. } => UNREACHABLE,
    };
    Failure::new(code, format!("{place}: {error}"))
}

/// The failure of fetching `place`, of which `here_bytes` have arrived.
pub(crate) fn of_fetch(place: &str, error: &FetchError, here_bytes: u64) -> Failure {
    let mut failure = match error {
        FetchError::Media(error) => of_media(place, error),
        FetchError::NoRoom { .. }
        | FetchError::DiskFull
        | FetchError::Locked
        | FetchError::Occupied(_)
        | FetchError::Local { .. }
        | FetchError::WrongRoot { .. }
        | FetchError::Name(_) => Failure::new(FAILED, format!("{place}: {error}")),
    };
    if let FetchError::Media(MediaError::Refused(refusal)) = error {
        if refusal.code == ErrorCode::NotAFile {
            failure.text.push_str("; for a folder: cabo get --all");
        } else if refusal.code == ErrorCode::BadRequest && refusal.text.starts_with(WHICH_ITEM) {
            failure.code = USAGE;
        }
    }
    if here_bytes > 0 && failure.code != REFUSED {
        failure.code = INCOMPLETE;
    }
    failure
}

fn of_connect(error: &ConnectError) -> u8 {
    match error {
        ConnectError::Address(_) | ConnectError::NoSession { .. } => USAGE,
        ConnectError::Carrier(
            OpenError::Refused { .. }
            | OpenError::NoSocket { .. }
            | OpenError::Timeout { .. }
            | OpenError::Io { .. },
        )
        | ConnectError::Resolve { .. }
        | ConnectError::LinkDown { .. }
        | ConnectError::NobodyListens { .. }
        | ConnectError::NobodyThere { .. } => UNREACHABLE,
        ConnectError::Carrier(OpenError::TlsRefused { .. }) => REFUSED,
        ConnectError::Carrier(_) | ConnectError::Setup(_) => FAILED,
        ConnectError::Ended { ended, .. } => of_end(ended),
    }
}

/// What to do about a session that never began.
fn next_step(ended: &Ended) -> &'static str {
    match ended {
        Ended::HandshakeTimeout { .. } => {
            "; does `cabo serve` or `cabo listen` run there, and does a firewall let it answer?"
        }
        Ended::Version { .. } if only_one_is_plain(ended).is_some() => "",
        Ended::Version { .. } => "; one of the two sides is to be brought up to date",
        Ended::Breach { code, .. } if *code == Code::VERSION => {
            "; another program serves there, or only one side says --plain"
        }
        Ended::Breach { .. }
        | Ended::Local { .. }
        | Ended::Declined { .. }
        | Ended::Peer { .. }
        | Ended::PeerProtocol { .. }
        | Ended::Crypto(_)
        | Ended::Idle { .. }
        | Ended::Reset
        | Ended::Truncated => "",
    }
}

/// The exit code of a session that ended too early.
pub(crate) fn of_end(ended: &Ended) -> u8 {
    match ended {
        Ended::PeerProtocol { code, .. } if *code == Code::REFUSED => REFUSED,
        Ended::Crypto(_) | Ended::Version { .. } => REFUSED,
        Ended::Breach { code, .. } if *code == Code::VERSION => REFUSED,
        Ended::Breach { .. } => FAILED,
        Ended::Local { .. }
        | Ended::Declined { .. }
        | Ended::Peer { .. }
        | Ended::PeerProtocol { .. }
        | Ended::HandshakeTimeout { .. }
        | Ended::Idle { .. }
        | Ended::Reset
        | Ended::Truncated => UNREACHABLE,
    }
}

/// Prints the error and returns the code to end with. Who closed our stdout has seen enough: that is success.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if stdout::is_closed(error) {
        return ExitCode::from(OK);
    }
    // Parts of it may be a peer's words: one line, and nothing that drives a terminal.
    stderr::say(&format!("cabo: {}", escaped(&in_words(error))));
    ExitCode::from(error.downcast_ref::<Failure>().map_or(FAILED, |failure| failure.code))
}

/// The error and its causes, each once: many errors speak of their cause themselves.
fn in_words(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            let gap = if text.is_empty() { "" } else { ": " };
            text.push_str(&format!("{gap}{cause}"));
        }
    }
    text
}

/// How a command ends that has said its last words: a reader that has seen enough does not change what came of it.
pub(crate) fn with(code: u8, written: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    match written {
        Err(error) if !stdout::is_closed(&error) => Err(error),
        Ok(()) | Err(_) => Ok(ExitCode::from(code)),
    }
}
