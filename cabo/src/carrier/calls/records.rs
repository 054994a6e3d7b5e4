//! Which TLS records a call carried: what is of the handshake, and what of its user.
//!
//! ```text
//!   0        1            3            5        6                9   byte, big-endian
//!   +--------+------------+------------+--------+----------------+--------
//!   |  type  |  version   |  length    |   of a plain handshake: message, its length
//!   +--------+------------+------------+--------+----------------+--------
//! ```
//!
//! From outside sealed records are all alike in TLS 1.3 (RFC 8446 5.2), so the carrier above says how far it is. Neighbour:
//! `stream` has the bytes.

use std::cell::Cell;

use super::is_watched;

const HEADER_BYTES: usize = 5;
/// The type and length of a message, where it is plain.
const MESSAGE_HEADER_BYTES: usize = 4;
/// A record has no more (RFC 5246 6.2.3).
const RECORD_MAX_BYTES: usize = (16 << 10) + 2048;
/// Two bytes, their type and what authenticates them: an alert in TLS 1.3.
const SEALED_ALERT_BYTES: usize = 2 + 1 + 16;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// How far a TLS connection is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::carrier) enum Phase {
    /// The handshake goes on.
    Handshake,
    /// It is over.
    Open,
    /// What is written now is the last word.
    Ending,
    /// What comes after the handshake, of which only its size tells what it is.
    Heard,
}

impl Phase {
    /// The same for what comes then.
    pub(in crate::carrier) fn heard(self) -> Self {
        match self {
            Self::Handshake => Self::Handshake,
            Self::Open | Self::Ending | Self::Heard => Self::Heard,
        }
    }
}

thread_local! {
    static PHASE: Cell<Option<Phase>> = const { Cell::new(None) };
}

/// Makes a call on the stream below TLS.
pub(in crate::carrier) fn below_tls<T>(phase: Phase, call: impl FnOnce() -> T) -> T {
    if !is_watched() {
        return call();
    }
    PHASE.set(Some(phase));
    let answer = call();
    PHASE.set(None);
    answer
}

/// How far TLS is above the call that is being made, if that is there.
pub(super) fn phase() -> Option<Phase> {
    PHASE.get()
}

/// The records of one direction.
#[derive(Debug, Default)]
pub(super) struct Records {
    head: Vec<u8>,     // of the record that begins, no longer than the drawing
    left_bytes: usize, // of the record that goes on, behind its head
    is_sealed: bool,   // its keys have changed
    is_other: bool,    // these are no records
}

impl Records {
    /// What crossed in these bytes, in words; nothing where they are no records.
    pub(super) fn cross(&mut self, mut bytes: &[u8], phase: Phase) -> String {
        let (mut all, mut goes_on) = (Vec::new(), false);
        while !bytes.is_empty() && !self.is_other {
            if self.left_bytes > 0 {
                goes_on |= all.is_empty();
                let (_, rest) = bytes.split_at(self.left_bytes.min(bytes.len()));
                self.left_bytes -= bytes.len() - rest.len();
                bytes = rest;
                continue;
            }
            let (&byte, rest) = bytes.split_first().unwrap_or((&0, &[]));
            self.head.push(byte);
            bytes = rest;
            if self.head.len() >= self.head_bytes() {
                all.extend(self.begin(phase));
            }
        }
        in_words(&all, goes_on)
    }

    /// Bytes of the head that is being read: a record may be shorter than a message's own header.
    fn head_bytes(&self) -> usize {
        match *self.head {
            [HANDSHAKE, _, _, high, low, ..] => {
                HEADER_BYTES
                    + usize::from(u16::from_be_bytes([high, low])).min(MESSAGE_HEADER_BYTES)
            }
            _ => HEADER_BYTES,
        }
    }

    /// The record of a head that is whole.
    fn begin(&mut self, phase: Phase) -> Option<String> {
        let head = std::mem::take(&mut self.head);
        let (kind, len) = match *head {
            [kind @ CHANGE_CIPHER_SPEC..=APPLICATION_DATA, 3, _, high, low, ..] => {
                (kind, usize::from(u16::from_be_bytes([high, low])))
            }
            _ => (0, 0),
        };
        self.is_other = kind == 0 || len > RECORD_MAX_BYTES;
        if self.is_other {
            return None;
        }
        self.left_bytes = len - (head.len() - HEADER_BYTES);
        Some(match kind {
            CHANGE_CIPHER_SPEC => {
                self.is_sealed = true;
                "change cipher spec".into()
            }
            ALERT if phase == Phase::Ending => "close_notify".into(),
            ALERT => "alert".into(),
            HANDSHAKE => self.message(head.get(HEADER_BYTES..).unwrap_or_default(), len),
            _ => match phase {
                Phase::Handshake => "sealed handshake".into(),
                Phase::Heard if len == SEALED_ALERT_BYTES => {
                    "application data or the close_notify".into()
                }
                Phase::Open | Phase::Heard => "application data".into(),
                Phase::Ending => "sealed close_notify".into(),
            },
        })
    }

    /// A handshake record by its first message, as long as that can be read.
    fn message(&self, head: &[u8], record_bytes: usize) -> String {
        let [kind, a, b, c] = *head else { return "handshake".into() };
        let len = u32::from_be_bytes([0, a, b, c]) as usize + MESSAGE_HEADER_BYTES;
        let name = match kind {
            _ if self.is_sealed && len != record_bytes => return "sealed handshake".into(),
            1 => "ClientHello",
            2 => "ServerHello",
            11 => "Certificate",
            12 => "ServerKeyExchange",
            14 => "ServerHelloDone",
            16 => "ClientKeyExchange",
            _ => "handshake",
        };
        if len < record_bytes { format!("{name} and more") } else { name.into() }
    }
}

/// `ServerHello, change cipher spec, 3 records of sealed handshake`.
fn in_words(all: &[String], goes_on: bool) -> String {
    let mut parts = Vec::new();
    let mut rest = all;
    while let Some(first) = rest.first() {
        let count = rest.iter().take_while(|name| *name == first).count();
        parts.push(match count {
            1 => first.clone(),
            _ => format!("{first} ({count} records)"),
        });
        rest = rest.get(count..).unwrap_or_default();
    }
    if goes_on {
        parts.insert(0, "more of the last record".into());
    }
    match parts.is_empty() {
        true => String::new(),
        false => format!("; TLS: {}", parts.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, fragment: &[u8]) -> Vec<u8> {
        let [high, low] = u16::try_from(fragment.len()).expect("short").to_be_bytes();
        [&[kind, 3, 3, high, low], fragment].concat()
    }

    #[test]
    fn records_are_named_by_what_they_show_and_by_how_far_tls_is() {
        let hello = record(HANDSHAKE, &[2, 0, 0, 2, 9, 9]);
        let (change, sealed) =
            (record(CHANGE_CIPHER_SPEC, &[1]), record(APPLICATION_DATA, b"????"));
        let flight = [&hello[..], &change, &sealed, &sealed].concat();
        let wanted = "; TLS: ServerHello, change cipher spec, sealed handshake (2 records)";
        assert_eq!(Records::default().cross(&flight, Phase::Handshake), wanted);
        let two = record(HANDSHAKE, &[11, 0, 0, 1, 9, 14, 0, 0, 0]);
        let mut old = Records::default();
        assert_eq!(old.cross(&two, Phase::Handshake), "; TLS: Certificate and more");
        assert_eq!(old.cross(&change, Phase::Handshake), "; TLS: change cipher spec");
        let finished = record(HANDSHAKE, &[0x3a; 40]);
        assert_eq!(old.cross(&finished, Phase::Handshake), "; TLS: sealed handshake");
        assert_eq!(old.cross(&sealed, Phase::Open), "; TLS: application data");
        assert_eq!(old.cross(&sealed, Phase::Ending), "; TLS: sealed close_notify");
        let alert = record(APPLICATION_DATA, &[0; SEALED_ALERT_BYTES]);
        let wanted = "; TLS: application data or the close_notify";
        assert_eq!(old.cross(&alert, Phase::Ending.heard()), wanted);
        assert_eq!(old.cross(&record(ALERT, &[1, 0]), Phase::Ending), "; TLS: close_notify");
    }

    #[test]
    fn a_record_is_told_of_once_however_it_is_cut() {
        let hello = record(HANDSHAKE, &[1, 0, 0, 4, 9, 9, 9, 9]);
        let head_bytes = HEADER_BYTES + MESSAGE_HEADER_BYTES;
        for at in 0..hello.len() {
            let mut records = Records::default();
            let (first, rest) = hello.split_at(at);
            let told = [first, rest].map(|part| records.cross(part, Phase::Handshake));
            let name = "; TLS: ClientHello";
            let more = if at >= head_bytes { "; TLS: more of the last record" } else { name };
            assert_eq!(told[1], more, "{at}");
            assert_eq!(told[0], if at >= head_bytes { name } else { "" }, "{at}");
        }
    }

    #[test]
    fn what_is_no_record_is_not_told_of() {
        for bytes in [&b"GET / HTTP/1.1\r\n"[..], &[22, 9, 3, 0, 1, 1], &[23, 3, 3, 0xff, 0xff, 0]]
        {
            let mut records = Records::default();
            assert_eq!(records.cross(bytes, Phase::Handshake), "", "{bytes:?}");
            assert_eq!(records.cross(&record(HANDSHAKE, &[1, 0, 0, 0]), Phase::Handshake), "");
        }
        let empty = Records::default().cross(&record(HANDSHAKE, &[]), Phase::Open);
        assert_eq!(empty, "; TLS: handshake");
    }
}
