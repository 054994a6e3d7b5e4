//! What goes wrong in media/1: codes on the wire (M-9), and what each side tells its caller.

use std::{fmt, io};

use super::wire::WireError;
use crate::connection::Ended;
use crate::stream::SessionEnded;

/// Why a server does not, or no longer, answer a request (M-9).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ErrorCode {
    /// No item stands at the path.
    NotFound,
    /// It is there, and may not be read; or its path leaves the catalogue.
    AccessDenied,
    /// It is no longer the version that was asked for, or changed while it was read.
    Changed,
    /// The server does too much at once; later it may do this.
    Busy,
    /// The disk that is written to is full.
    DiskFull,
    /// The path names a folder, a device, a pipe: nothing that can be read.
    NotAFile,
    /// The path names no folder.
    NotAFolder,
    /// The request makes no sense.
    BadRequest,
    /// The disk failed, or the catalogue is gone.
    Io,
    /// A code that this version does not know.
    Unknown(u16),
}

impl ErrorCode {
    /// The code on the wire (M-9.1).
    pub fn to_wire(self) -> u16 {
        match self {
            Self::NotFound => 1,
            Self::AccessDenied => 2,
            Self::Changed => 3,
            Self::Busy => 4,
            Self::DiskFull => 5,
            Self::NotAFile => 6,
            Self::NotAFolder => 7,
            Self::BadRequest => 8,
            Self::Io => 9,
            Self::Unknown(code) => code,
        }
    }

    /// What a code on the wire means (M-9.1).
    pub fn from_wire(code: u16) -> Self {
        match code {
            1 => Self::NotFound,
            2 => Self::AccessDenied,
            3 => Self::Changed,
            4 => Self::Busy,
            5 => Self::DiskFull,
            6 => Self::NotAFile,
            7 => Self::NotAFolder,
            8 => Self::BadRequest,
            9 => Self::Io,
            code => Self::Unknown(code),
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::AccessDenied => "access denied",
            Self::Changed => "changed while reading",
            Self::Busy => "busy",
            Self::DiskFull => "disk full",
            Self::NotAFile => "not a file",
            Self::NotAFolder => "not a folder",
            Self::BadRequest => "bad request",
            Self::Io => "input or output error",
            Self::Unknown(code) => return write!(f, "error {code}"),
        })
    }
}

/// A typed answer instead of, or in the middle of, the one that was asked for (M-9).
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct Refusal {
    /// What went wrong.
    pub code: ErrorCode,
    /// More about it for a person, in one line; may be empty. A server's text is escaped before it gets here.
    pub text: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text.as_str() {
            "" => self.code.fmt(f),
            text => write!(f, "{}: {text}", self.code),
        }
    }
}

impl Refusal {
    /// A refusal with a text for a person.
    pub fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self::new(code, "")
    }
}

/// What the kernel said about a file, as a peer may know it: never a local path.
impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        use rustix::io::Errno;
        let Some(errno) = Errno::from_io_error(&error) else { return Self::new(ErrorCode::Io, "") };
        match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::INVAL => {
                ErrorCode::NotFound.into()
            }
            Errno::LOOP => Self::new(ErrorCode::NotFound, "a link that leads nowhere"),
            Errno::XDEV => Self::new(ErrorCode::AccessDenied, "a link that leaves the catalogue"),
            Errno::ACCESS | Errno::PERM => ErrorCode::AccessDenied.into(),
            Errno::ISDIR => ErrorCode::NotAFile.into(),
            Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN => ErrorCode::Busy.into(),
            Errno::NOSPC | Errno::DQUOT => ErrorCode::DiskFull.into(),
            errno if errno == Errno::NOSYS => {
                Self::new(ErrorCode::Io, "the server's kernel has no openat2")
            }
            errno => Self::new(ErrorCode::Io, io::Error::from(errno).to_string()),
        }
    }
}

impl From<rustix::io::Errno> for Refusal {
    fn from(errno: rustix::io::Errno) -> Self {
        io::Error::from(errno).into()
    }
}

/// Why a client's request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// The server said so, with a type.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The stream could not be opened, or broke before the answer was whole.
    #[error("the connection broke: {0}")]
    Broken(#[source] io::Error),
    /// Nothing came for the whole of the deadline.
    #[error("the server sent nothing for {seconds} s")]
    Stalled {
        /// The deadline, in seconds.
        seconds: u64,
    },
    /// The answer breaks the protocol.
    #[error("the server's answer makes no sense: {0}")]
    Malformed(&'static str),
    /// The bytes of a block are not those that its hash promises.
    #[error("block {index} arrived wrong: its bytes do not match its hash")]
    WrongBlock {
        /// The block's place in the file.
        index: u64,
    },
}

impl MediaError {
    /// The end of the session that is behind it, where that is what broke the stream.
    pub fn session_end(&self) -> Option<&Ended> {
        let Self::Broken(error) = self else { return None };
        Some(&error.get_ref()?.downcast_ref::<SessionEnded>()?.0)
    }
}

impl From<WireError> for MediaError {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Io(error) => Self::Broken(error),
            WireError::Stalled { seconds } => Self::Stalled { seconds },
            WireError::Malformed(what) => Self::Malformed(what),
        }
    }
}

impl From<io::Error> for MediaError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire() {
        for code in 0..=20 {
            assert_eq!(ErrorCode::from_wire(code).to_wire(), code);
        }
    }
}
