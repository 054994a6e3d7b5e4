//! What a connection is told before it starts, and how it may end.

use std::time::Duration;

use crate::transport::congestion::Kind;
use crate::transport::streams::Limits;
use crate::wire::code::Code;
use crate::wire::frame::Origin;
use crate::wire::packet;
use crate::wire::params::Channel;
use crate::wire::record::Form;

/// Settings of a connection. Every wait in it has a deadline and every queue a bound (R7).
#[derive(Clone, Debug)]
pub struct Config {
    /// Sealed is the default; plain has to be asked for on both sides (S-1.3).
    pub is_plain: bool,
    /// Streams and credit.
    pub limits: Limits,
    /// With nothing heard for this long the connection is over (T-14). It outlasts a cable pulled for 30 s.
    pub idle_timeout: Duration,
    /// The handshake must be done within this.
    pub handshake_timeout: Duration,
    /// A PING goes out before silence could end the connection (T-14).
    pub keep_alive: bool,
    /// Congestion control on carriers that promise nothing.
    pub congestion: Kind,
    /// The largest DATAGRAM frame that we take, bytes.
    pub largest_datagram_bytes: u64,
    /// Datagrams that wait, each way; beyond it the oldest goes.
    pub datagrams_max: usize,
    /// Packets or records under one key before it is updated (S-6).
    pub key_update_after: u64,
    /// Text for people on the other side.
    pub agent: String,
    /// The sealed channel that the session is inside of, where there is one (S-7.5): the handshake is bound to it, and
    /// nothing after it is sealed again. Not together with plain, which proves nothing that could be bound.
    pub channel: Option<Channel>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            is_plain: false,
            limits: Limits::default(),
            idle_timeout: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(10),
            keep_alive: false,
            congestion: Kind::Model,
            largest_datagram_bytes: 65_535,
            datagrams_max: 256,
            key_update_after: 1 << 22,
            agent: String::new(),
            channel: None,
        }
    }
}

impl Config {
    /// The version byte of its packets (W-2.1).
    pub fn version(&self) -> u8 {
        if self.is_plain { packet::PLAIN } else { packet::SEALED }
    }

    /// The form of its records (W-4.1).
    pub fn form(&self) -> Form {
        match (self.is_plain, self.channel) {
            (true, _) => Form::Plain,
            (false, Some(_)) => Form::Bound,
            (false, None) => Form::Sealed,
        }
    }
}

/// What the carrier and the host say about one path.
#[derive(Clone, Copy, Debug)]
pub struct PathLimits {
    /// The largest packet that our side of the carrier can send and receive, bytes.
    pub largest_packet_bytes: usize,
    /// What the carrier puts around a packet within the link's MTU, bytes: 4 on Ethernet, 28 or 48 on UDP.
    pub overhead_bytes: usize,
    /// What our socket takes in one burst, bytes.
    pub burst_bytes: u64,
}

/// Why a connection is over. The type says whose doing it was.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Ended {
    /// We closed it.
    #[error("closed here{}", reason_text(.reason))]
    Local {
        /// The code that the peer was told.
        code: u64,
        /// The reason that the peer was told.
        reason: String,
    },
    /// We closed it for a reason of the protocol: refused, busy, going down.
    #[error("{} here{}", code.name(), reason_text(.reason))]
    Declined {
        /// The code that the peer was told (W-6).
        code: Code,
        /// The reason that the peer was told.
        reason: String,
    },
    /// The peer's application closed it.
    #[error("closed by the peer (code {code}){}", reason_text(.reason))]
    Peer {
        /// The application's code.
        code: u64,
        /// Its words; they come from the peer.
        reason: String,
    },
    /// The peer's side of the protocol closed it.
    #[error("the peer ended the connection: {}{}", code.name(), reason_text(.reason))]
    PeerProtocol {
        /// The code (W-6).
        code: Code,
        /// Its words; they come from the peer.
        reason: String,
    },
    /// The peer broke the protocol; it was told so.
    #[error("the peer broke the protocol: {what} ({})", code.name())]
    Breach {
        /// The code that it was told (W-6).
        code: Code,
        /// What it did.
        what: String,
    },
    /// The handshake failed on our side: wrong peer, wrong protocol, bad signature.
    #[error("the handshake failed: {0}")]
    Crypto(super::crypto::CryptoError),
    /// The peer speaks other versions.
    #[error("no version in common: the peer speaks {peer:?}, this side {ours}")]
    Version {
        /// What the peer listed.
        peer: Vec<u8>,
        /// What we asked for.
        ours: u8,
    },
    /// Nobody answered, or the handshake did not end in time.
    #[error("no answer within {after:?}")]
    HandshakeTimeout {
        /// How long we waited.
        after: Duration,
    },
    /// Nothing was heard for the idle timeout.
    #[error("nothing heard for {after:?}")]
    Idle {
        /// The timeout that both sides agreed on.
        after: Duration,
    },
    /// The peer does not know this connection (any more): it was restarted.
    #[error("the peer lost the connection: it was restarted")]
    Reset,
    /// A stream carrier ended without a close (W-4.5).
    #[error("the carrier ended in the middle: truncated")]
    Truncated,
}

fn reason_text(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

impl Ended {
    /// From a CLOSE frame of the peer.
    pub(crate) fn from_peer(origin: Origin, code: u64, reason: &[u8]) -> Self {
        let reason = String::from_utf8_lossy(reason).into_owned();
        match origin {
            Origin::Protocol => Self::PeerProtocol { code: Code(code), reason },
            Origin::Application => Self::Peer { code, reason },
        }
    }

    /// True where the peer ended it without any fault being stated.
    pub fn is_clean(&self) -> bool {
        match self {
            Self::Local { .. } | Self::Declined { .. } => true,
            Self::Peer { code, .. } => *code == 0,
            Self::PeerProtocol { code, .. } => *code == Code::NONE || *code == Code::DRAINING,
            Self::Breach { .. }
            | Self::Crypto(_)
            | Self::Version { .. }
            | Self::HandshakeTimeout { .. }
            | Self::Idle { .. }
            | Self::Reset
            | Self::Truncated => false,
        }
    }
}
