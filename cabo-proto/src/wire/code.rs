//! Close codes of origin 0 (W-6).

use std::fmt;

/// Why the protocol closed a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Code(pub u64);

impl Code {
    /// Closed without an error.
    pub const NONE: Self = Self(0x00);
    /// A fault of the sender's own.
    pub const INTERNAL: Self = Self(0x01);
    /// This peer may not enter; the reason says what would let it in.
    pub const REFUSED: Self = Self(0x02);
    /// More than the credit allowed.
    pub const FLOW: Self = Self(0x03);
    /// A stream id beyond what was allowed.
    pub const STREAM_LIMIT: Self = Self(0x04);
    /// A frame that the stream's state does not allow.
    pub const STREAM_STATE: Self = Self(0x05);
    /// A stream's length changed.
    pub const FINAL_SIZE: Self = Self(0x06);
    /// A frame that does not parse.
    pub const FRAME: Self = Self(0x07);
    /// Parameters that do not parse or contradict the packets.
    pub const PARAMETER: Self = Self(0x08);
    /// Anything else that breaks the rules.
    pub const VIOLATION: Self = Self(0x09);
    /// More handshake bytes than we hold.
    pub const BUFFER: Self = Self(0x0A);
    /// Too many packets that do not open.
    pub const KEYS: Self = Self(0x0B);
    /// The server is at its limit.
    pub const BUSY: Self = Self(0x0C);
    /// The server is going down.
    pub const DRAINING: Self = Self(0x0D);
    /// No version in common.
    pub const VERSION: Self = Self(0x0E);

    const CRYPTO: u64 = 0x100;

    /// The code of a handshake that ended with this TLS alert.
    pub const fn crypto(alert: u8) -> Self {
        Self(Self::CRYPTO + alert as u64)
    }

    /// The TLS alert, if the code stands for one.
    pub const fn alert(self) -> Option<u8> {
        match self.0 {
            Self::CRYPTO..=0x1FF => Some((self.0 - Self::CRYPTO) as u8),
            _ => None,
        }
    }

    /// The name in the table of W-6.1.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NONE => "none",
            Self::INTERNAL => "internal",
            Self::REFUSED => "refused",
            Self::FLOW => "flow",
            Self::STREAM_LIMIT => "stream_limit",
            Self::STREAM_STATE => "stream_state",
            Self::FINAL_SIZE => "final_size",
            Self::FRAME => "frame",
            Self::PARAMETER => "parameter",
            Self::VIOLATION => "violation",
            Self::BUFFER => "buffer",
            Self::KEYS => "keys",
            Self::BUSY => "busy",
            Self::DRAINING => "draining",
            Self::VERSION => "version",
            Self(Self::CRYPTO..=0x1FF) => "crypto",
            Self(_) => "unknown",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.alert(), self.name()) {
            (Some(alert), name) => write!(f, "{name} alert {alert}"),
            (None, "unknown") => write!(f, "unknown {:#x}", self.0),
            (None, name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_table() {
        let names = "none internal refused flow stream_limit stream_state final_size frame parameter violation buffer keys \
                     busy draining version";
        for (code, name) in (0..).zip(names.split_whitespace()) {
            assert_eq!((Code(code).name(), Code(code).to_string()), (name, name.to_owned()));
        }
        assert_eq!(Code(0x0F).to_string(), "unknown 0xf");
        assert_eq!(
            (Code::crypto(40).0, Code::crypto(40).to_string()),
            (0x128, "crypto alert 40".to_owned())
        );
        assert_eq!(
            (Code(0x1FF).alert(), Code(0xFF).alert(), Code(0x200).alert()),
            (Some(255), None, None)
        );
        assert_eq!(Code(u64::MAX).name(), "unknown");
    }
}
