//! The short printable hash of a public key, which people read to each other.
//!
//! The first 120 bits of the BLAKE3 hash of the key's 32 bytes, in Crockford's base 32 (lower case, without `i l o u`),
//! in six groups of four: `k7f3-9x2m-q0d4-hh2w-7t5n-e8ra`. Reading takes any case, any place of the dashes, and what is
//! commonly mistaken (`o` for 0, `i` and `l` for 1).

use std::fmt;
use std::str::FromStr;

use cabo_proto::session::crypto::PublicKey;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const LEN: usize = 24; // characters
const GROUP_LEN: usize = 4;

/// A public key's hash of 120 bits: enough to tell keys apart even where somebody makes keys to look alike.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Fingerprint([u8; LEN]); // five bits each

/// Why some text is not a fingerprint.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FingerprintError {
    /// Too few or too many characters.
    #[error(
        "a fingerprint has 24 letters and digits in groups of four, as `cabo keys` shows it; this has {0}"
    )]
    Length(usize),
    /// A character outside the alphabet.
    #[error(
        "{0:?} does not occur in fingerprints; they are 24 letters and digits, as `cabo keys` shows them"
    )]
    Character(char),
}

impl Fingerprint {
    /// The fingerprint of a key.
    pub fn of(key: PublicKey) -> Self {
        Self::of_hash(&Self::hash(key))
    }

    /// The whole hash of a key, as an answer to the question who serves carries it.
    pub fn hash(key: PublicKey) -> [u8; 32] {
        *blake3::hash(&key.0).as_bytes()
    }

    /// The fingerprint of the key that has this [`hash`](Self::hash).
    pub fn of_hash(hash: &[u8; 32]) -> Self {
        let mut digits = [0; LEN];
        for (group, bytes) in digits.chunks_exact_mut(8).zip(hash.chunks(5)) {
            let bits = bytes.iter().fold(0u64, |bits, byte| (bits << 8) | u64::from(*byte));
            for (place, digit) in group.iter_mut().enumerate() {
                *digit = (bits >> (35 - 5 * place)) as u8 & 31;
            }
        }
        Self(digits)
    }

    /// The first two groups, for where a line is short and nothing is decided by it.
    pub fn short(&self) -> String {
        self.to_string().chars().take(2 * GROUP_LEN + 1).collect()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(LEN + LEN / GROUP_LEN);
        for (place, digit) in self.0.iter().enumerate() {
            if place > 0 && place % GROUP_LEN == 0 {
                text.push('-');
            }
            text.extend(ALPHABET.get(usize::from(*digit)).map(|letter| char::from(*letter)));
        }
        f.pad(&text)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let mut digits = [0; LEN];
        let mut count = 0;
        for letter in text.chars().filter(|letter| *letter != '-') {
            let digit = digit(letter).ok_or(FingerprintError::Character(letter))?;
            if let Some(place) = digits.get_mut(count) {
                *place = digit;
            }
            count += 1;
        }
        if count == LEN { Ok(Self(digits)) } else { Err(FingerprintError::Length(count)) }
    }
}

fn digit(letter: char) -> Option<u8> {
    let letter = match letter.to_ascii_lowercase() {
        'o' => '0',
        'i' | 'l' => '1',
        other => other,
    };
    let place = ALPHABET.iter().position(|known| char::from(*known) == letter)?;
    u8::try_from(place).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_the_first_120_bits_of_the_hash() {
        let key = PublicKey([7; 32]);
        let mut value = 0u128;
        for letter in Fingerprint::of(key).to_string().bytes().filter(|letter| *letter != b'-') {
            value = (value << 5)
                | ALPHABET.iter().position(|known| *known == letter).expect("known") as u128;
        }
        assert_eq!(value.to_be_bytes()[1..], blake3::hash(&[7; 32]).as_bytes()[..15]);
    }

    #[test]
    fn what_is_printed_is_read_again_however_it_was_typed() {
        for seed in 0..=255 {
            let print = Fingerprint::of(PublicKey([seed; 32]));
            let text = print.to_string();
            assert_eq!(text.len(), 29);
            assert_eq!(text.parse(), Ok(print));
            assert_eq!(
                text.to_uppercase().replace('-', "").replace('0', "O").replace('1', "l").parse(),
                Ok(print)
            );
            assert_eq!(print.short(), text[..9]);
        }
    }

    #[test]
    fn what_is_no_fingerprint_is_refused() {
        assert_eq!("k7f3-9x2m".parse::<Fingerprint>(), Err(FingerprintError::Length(8)));
        assert_eq!("".parse::<Fingerprint>(), Err(FingerprintError::Length(0)));
        assert_eq!("0".repeat(25).parse::<Fingerprint>(), Err(FingerprintError::Length(25)));
        assert_eq!("u".repeat(24).parse::<Fingerprint>(), Err(FingerprintError::Character('u')));
        assert_eq!("é".parse::<Fingerprint>(), Err(FingerprintError::Character('é')));
    }
}
