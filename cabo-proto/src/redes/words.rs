//! What the three sequences write into frames: confirmations, requests, descriptions, refusals.

use super::frame::{Frame, SEQUENCES, Type};
use super::{Refusal, Sequence};

/// What follows a name in the request of a client that is one of ours.
const OFFER: u8 = 1;

/// Size and time of a file, and from where on it comes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Description {
    /// Bytes of the whole file, where the sequence tells.
    pub size: Option<u64>,
    /// The local time of its last modification as the sequence writes it: `YYYY-MM-DD HH:MM:SS`, or `YYYYMMDDHHMM`.
    pub modified: Vec<u8>,
    /// Bytes that do not come, because the client has them.
    pub offset: u64,
}

/// What a client says beyond the name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Offer {
    /// Frames that may be on their way at once.
    pub(super) window: u8,
    /// Bytes that it has.
    pub(super) offset: u64,
}

/// The confirmation of `number`; `own` is the counter of who sends it.
pub(super) fn ack(sequence: Sequence, number: u8, own: &mut u8) -> Frame {
    reply(sequence, Type::Ack, number, own)
}

/// Asks for `number` again.
pub(super) fn nack(sequence: Sequence, number: u8, own: &mut u8) -> Frame {
    reply(sequence, Type::Nack, number, own)
}

fn reply(sequence: Sequence, kind: Type, number: u8, own: &mut u8) -> Frame {
    match sequence {
        Sequence::Rss | Sequence::Wired => Frame { sequence: number, kind, data: Vec::new() },
        Sequence::Streaming => {
            let data = number.to_string().into_bytes();
            let frame = Frame { sequence: *own, kind, data };
            *own = super::after(*own);
            frame
        }
    }
}

/// The number that an ACK or NACK is about.
pub(super) fn number_of(sequence: Sequence, frame: &Frame) -> Option<u8> {
    match sequence {
        Sequence::Rss | Sequence::Wired => Some(frame.sequence),
        Sequence::Streaming => {
            let number = leading_number(&frame.data)?;
            u8::try_from(number).ok().filter(|number| *number < SEQUENCES)
        }
    }
}

pub(super) fn refusal(sequence: Sequence, refusal: Refusal) -> Vec<u8> {
    match sequence {
        Sequence::Rss => refusal.code().to_le_bytes().to_vec(),
        Sequence::Streaming => refusal.code().to_string().into_bytes(),
        Sequence::Wired => Vec::new(),
    }
}

pub(super) fn refusal_of(sequence: Sequence, data: &[u8]) -> Option<Refusal> {
    let code = match sequence {
        Sequence::Rss => u32::from_le_bytes(*data.first_chunk()?),
        Sequence::Streaming => u32::try_from(leading_number(data)?).ok()?,
        Sequence::Wired => return Some(Refusal::NotFound), // it has no codes
    };
    Some(Refusal::of(code))
}

/// The data of BAIXAR. Programs that know nothing of offers read the name up to its NUL.
pub(super) fn request(name: &[u8], offer: Option<Offer>) -> Vec<u8> {
    let mut data = name.to_vec();
    if let Some(Offer { window, offset }) = offer {
        data.extend([0, OFFER, window]);
        data.extend(offset.to_le_bytes());
    }
    data
}

/// The name in a BAIXAR, and what follows it; none where that is no name.
pub(super) fn request_of(data: &[u8]) -> Option<(Vec<u8>, Option<Offer>)> {
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (name, rest) = data.split_at(end);
    let offer = match rest {
        [0, OFFER, window, offset @ ..] => match <[u8; 8]>::try_from(offset) {
            Ok(offset) => Some(Offer { window: *window, offset: u64::from_le_bytes(offset) }),
            Err(_) => return None,
        },
        rest if rest.iter().all(|byte| *byte == 0) => None,
        _ => return None,
    };
    Some((name.to_vec(), offer))
}

/// The frames that describe a file; to a client with an offer also where it begins.
pub(super) fn describe(
    sequence: Sequence,
    description: &Description,
    window: Option<u8>,
) -> Vec<Vec<u8>> {
    let size = description.size.unwrap_or_default();
    match sequence {
        Sequence::Rss => {
            let mut size = size.to_le_bytes().to_vec();
            if let Some(window) = window {
                size.push(window);
                size.extend(description.offset.to_le_bytes());
            }
            vec![size, description.modified.clone()]
        }
        Sequence::Streaming => {
            let mut text = format!("{size},").into_bytes();
            text.extend_from_slice(&description.modified);
            vec![text]
        }
        Sequence::Wired => Vec::new(),
    }
}

/// Reads the first frame of a description in `rss`: the size, and where the file begins.
pub(super) fn size_of(data: &[u8]) -> Option<(u64, u64)> {
    let size = u64::from_le_bytes(*data.first_chunk()?);
    let offset = match data.get(8..) {
        Some([_window, offset @ ..]) => u64::from_le_bytes(*offset.first_chunk()?),
        Some([]) | None => 0,
    };
    (offset <= size).then_some((size, offset))
}

/// Reads the only frame of a description in `streaming`.
pub(super) fn description_of(data: &[u8]) -> Option<Description> {
    let comma = data.iter().position(|byte| *byte == b',')?;
    let (size, modified) = (data.get(..comma)?, data.get(comma + 1..)?);
    let is_number = !size.is_empty() && size.iter().all(u8::is_ascii_digit);
    let size = str::from_utf8(size).ok().filter(|_| is_number)?.parse().ok()?;
    Some(Description { size: Some(size), modified: text(modified).to_vec(), offset: 0 })
}

/// What stands before the first NUL: who counts a terminator says the same.
pub(super) fn text(data: &[u8]) -> &[u8] {
    data.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Whether this can be a name of a catalogue, and not the middle of somebody's file.
pub(super) fn is_name(data: &[u8]) -> bool {
    let name = text(data);
    !name.is_empty() && !name.iter().any(|byte| byte.is_ascii_control() || *byte == b'/')
}

/// The number that a text begins with; what stands behind it is padding.
fn leading_number(data: &[u8]) -> Option<u64> {
    let end = data.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(data.len());
    str::from_utf8(data.get(..end)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    ///
    #[test]
    fn a_request_is_a_name_and_perhaps_an_offer_and_nothing_else() {
        let offer = Offer { window: 5, offset: 1 << 40 };
        for offer in [None, Some(offer)] {
            let data = request(b"film.mp4", offer);
            assert_eq!(request_of(&data), Some((b"film.mp4".to_vec(), offer)));
        }
        assert_eq!(request_of(b"a\0\0\0"), Some((b"a".to_vec(), None)));
        for bad in [b"a\0b".as_slice(), b"a\0\x01", b"a\0\x01\x05\0\0", b"\0a"] {
            assert_eq!(request_of(bad), None, "{bad:?}");
        }
    }

    ///
    #[test]
    fn padding_behind_a_number_is_ignored() {
        let frame = Frame { sequence: 9, kind: Type::Ack, data: b"17kjhasd".to_vec() };
        assert_eq!(number_of(Sequence::Streaming, &frame), Some(17));
        assert_eq!(number_of(Sequence::Rss, &frame), Some(9));
        for bad in [b"".as_slice(), b"x", b"32", b"99999999999999999999999"] {
            let frame = Frame { data: bad.to_vec(), ..frame.clone() };
            assert_eq!(number_of(Sequence::Streaming, &frame), None, "{bad:?}");
        }
    }

    #[test]
    fn descriptions_are_those_of_the_programs() {
        let about =
            Description { size: Some(5), modified: b"2024-06-18 21:05:00".to_vec(), offset: 0 };
        let frames = describe(Sequence::Rss, &about, None);
        assert_eq!(frames, [b"\x05\0\0\0\0\0\0\0".to_vec(), about.modified.clone()]);
        assert_eq!(size_of(&frames[0]), Some((5, 0)));
        let about = Description { modified: b"202406182105".to_vec(), ..about };
        let frames = describe(Sequence::Streaming, &about, None);
        assert_eq!(frames, [b"5,202406182105".to_vec()]);
        assert_eq!(description_of(&frames[0]), Some(about));
        for bad in [b"".as_slice(), b"5", b",2024", b"-5,2024", b"99999999999999999999999,2"] {
            assert_eq!(description_of(bad), None, "{bad:?}");
        }
    }
}
