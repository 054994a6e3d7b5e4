//! CLOSE (W-3.5): the end of a connection, and why.

use std::borrow::Cow;

use super::super::varint::{self, Malformed, Reader};

/// The longest reason of a CLOSE (W-3.5), in bytes.
pub const LONGEST_REASON: usize = 1024;

/// Whose code a CLOSE carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// One of [`Code`](super::super::code::Code).
    Protocol = 0,
    /// The application's own.
    Application = 1,
}

/// The end of the connection, and why.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Close<'a> {
    /// Whose code it is.
    pub origin: Origin,
    /// The code.
    pub code: u64,
    /// The reason as it came: meant to be UTF-8, at most [`LONGEST_REASON`] bytes.
    pub reason: &'a [u8],
}

impl<'a> Close<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let at = reader.position();
        let origin = match reader.varint()? {
            0 => Origin::Protocol,
            1 => Origin::Application,
            _ => return Err(Malformed { what: "unknown origin", at }),
        };
        let code = reader.varint()?;
        let at = reader.position();
        match reader.with_length()? {
            reason if reason.len() > LONGEST_REASON => {
                Err(Malformed { what: "reason too long", at })
            }
            reason => Ok(Self { origin, code, reason }),
        }
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        super::put_numbers(out, [super::CLOSE, self.origin as u64, self.code]);
        varint::put_with_length(out, cut_text(self.reason, LONGEST_REASON));
    }

    /// The reason as text. It comes from the peer: escape it before it meets a terminal.
    pub fn text(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.reason)
    }
}

/// The start of `text`, at most `most` bytes, that does not end within a character.
pub(in super::super) fn cut_text(text: &[u8], most: usize) -> &[u8] {
    let is_inside = |at: usize| text.get(at).is_some_and(|byte| byte & 0xC0 == 0x80);
    let Some(head) = text.get(..most) else { return text };
    let end = (0..=most).rev().take(4).find(|&at| !is_inside(at)).unwrap_or(most);
    &head[..end]
}
