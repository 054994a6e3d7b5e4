//! Who serves on this link (W-8): the question to all and the answer of one.
//!
//! Both bodies are parameters (W-5.1), in the clear and proved by nobody. The question is padded so that no answer is
//! longer; whoever answers counts its answers (W-8.2).

use super::packet::{self, ConnectionId, LONG_COMMON, SMALLEST_DISCOVER};
use super::params::{put_field, read_fields};
use super::varint::Malformed;

/// The longest name of a server, bytes (W-8.3).
pub const LONGEST_NAME: usize = 56;

/// The id of the parameter that only fills, in a question.
const PADDING: u64 = 0x00;
const PORT: u64 = 0x01;
const FINGERPRINT: u64 = 0x02;
const VERSIONS: u64 = 0x03;
const NAME: u64 = 0x04;

/// What a Discover packet asks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Question<'a> {
    /// Who serves here?
    Who,
    /// Who serves here, and under which name? (An empty name.)
    Names,
    /// Who has this name?
    Named(&'a [u8]),
}

impl<'a> Question<'a> {
    /// A whole Discover packet of the smallest size.
    pub fn packet(self, version: u8, nonce: ConnectionId) -> Vec<u8> {
        const ROOM: usize = SMALLEST_DISCOVER - LONG_COMMON;
        const FILL_HEAD: usize = 3; // 1 byte of id, 2 of length
        let mut body = Vec::with_capacity(ROOM);
        match self {
            Question::Who => {}
            Question::Names => put_field(&mut body, NAME, b""),
            Question::Named(name) => {
                put_field(&mut body, NAME, name.get(..LONGEST_NAME).unwrap_or(name));
            }
        }
        let fill = ROOM - FILL_HEAD - body.len();
        put_field(&mut body, PADDING, [0; ROOM].get(..fill).unwrap_or_default());
        packet::discover_packet(version, nonce, &body)
    }

    /// Reads the body of a Discover packet. What else it states is unknown to cabo/1 and skipped.
    pub fn decode(body: &'a [u8]) -> Result<Self, Malformed> {
        let name = read_fields(body)?.find(|field| field.id == NAME).map(|field| field.value);
        Ok(match name {
            None => Question::Who,
            Some(b"") => Question::Names,
            Some(name) => Question::Named(name),
        })
    }

    /// Whether a server with this name, or none, is asked.
    pub fn is_for(self, name: Option<&[u8]>) -> bool {
        match self {
            Question::Who | Question::Names => true,
            Question::Named(asked) => name.is_some_and(|name| name.eq_ignore_ascii_case(asked)),
        }
    }

    /// The name that an answer of a server that [is asked](Self::is_for) tells: none to who did not ask for names.
    pub fn told(self, name: Option<&[u8]>) -> Option<&[u8]> {
        match self {
            Question::Who => None,
            Question::Names | Question::Named(_) => name,
        }
    }
}

/// What a server tells a stranger about itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Here<'a> {
    /// The port that it serves on.
    pub port: u16,
    /// The hash of its public key.
    pub fingerprint: [u8; 32],
    /// The versions that it speaks, one byte each; never empty.
    pub versions: &'a [u8],
    /// Its name, 1 to [`LONGEST_NAME`] bytes, where it has one and was asked for it.
    pub name: Option<&'a [u8]>,
}

impl<'a> Here<'a> {
    /// A whole Here packet in answer to the question of `nonce`.
    pub fn answer(&self, version: u8, nonce: ConnectionId) -> Vec<u8> {
        packet::here_packet(version, nonce, &self.encode())
    }

    /// The body.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        put_field(&mut body, PORT, &self.port.to_be_bytes());
        put_field(&mut body, FINGERPRINT, &self.fingerprint);
        put_field(&mut body, VERSIONS, self.versions);
        if let Some(name) = self.name {
            put_field(&mut body, NAME, name);
        }
        body
    }

    /// Reads the body of a Here packet.
    pub fn decode(body: &'a [u8]) -> Result<Self, Malformed> {
        let (mut port, mut fingerprint, mut versions, mut name) = (None, None, None, None);
        for field in read_fields(body)? {
            match field.id {
                PORT => port = Some(u16::from_be_bytes(field.array()?)),
                FINGERPRINT => fingerprint = Some(field.array()?),
                VERSIONS => versions = Some(field.value).filter(|versions| !versions.is_empty()),
                NAME => name = Some(field.value).filter(|name| is_length(name)),
                _ => {}
            }
        }
        let missing = |what| Malformed { what, at: body.len() };
        Ok(Self {
            port: port.ok_or_else(|| missing("no port"))?,
            fingerprint: fingerprint.ok_or_else(|| missing("no fingerprint"))?,
            versions: versions.ok_or_else(|| missing("no versions"))?,
            name,
        })
    }
}

fn is_length(name: &[u8]) -> bool {
    (1..=LONGEST_NAME).contains(&name.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::packet::{Kind, PLAIN, SEALED};

    const NONCE: ConnectionId = ConnectionId([7; 8]);

    fn read(packet: &[u8]) -> Question<'_> {
        let Kind::Discover { body, .. } = packet::parse(packet).expect("good").kind else {
            panic!("another packet")
        };
        Question::decode(&packet[body..]).expect("good")
    }

    #[test]
    fn every_question_has_one_size_and_no_answer_is_longer() {
        let longest = [b'n'; LONGEST_NAME];
        for question in [Question::Who, Question::Names, Question::Named(&longest)] {
            let packet = question.packet(SEALED, NONCE);
            assert_eq!(packet.len(), SMALLEST_DISCOVER, "{question:?}");
            assert_eq!(read(&packet), question);
        }
        let here = Here {
            port: u16::MAX,
            fingerprint: [0xff; 32],
            versions: &[SEALED, PLAIN],
            name: Some(&longest),
        };
        assert!(here.answer(SEALED, NONCE).len() <= SMALLEST_DISCOVER);
    }

    #[test]
    fn only_who_has_the_name_is_asked_and_it_is_told_to_nobody_who_did_not_ask() {
        let kitchen: Option<&[u8]> = Some(b"kitchen");
        for (question, is_for_kitchen, is_for_nameless, told) in [
            (Question::Who, true, true, None),
            (Question::Names, true, true, kitchen),
            (Question::Named(b"KITCHEN"), true, false, kitchen),
            (Question::Named(b"kitchen2"), false, false, kitchen),
        ] {
            assert_eq!(question.is_for(kitchen), is_for_kitchen, "{question:?}");
            assert_eq!(question.is_for(None), is_for_nameless, "{question:?}");
            assert_eq!(question.told(kitchen), told, "{question:?}");
            assert_eq!(question.told(None), None, "{question:?}");
        }
    }

    #[test]
    fn a_name_that_is_too_long_is_no_name() {
        let long = [b'n'; LONGEST_NAME + 1];
        let here = Here { port: 1, fingerprint: [0; 32], versions: &[1], name: Some(&long) };
        assert_eq!(Here::decode(&here.encode()).expect("good").name, None);
        assert_eq!(
            Here::decode(&Here { name: Some(b""), ..here }.encode()).expect("good").name,
            None
        );
    }
}
