//! Changes bytes by seed.

use fastrand::Rng;

/// Bytes at which lengths, types and forms of varints turn.
const BORDERS: [u8; 16] = [
    0x00, 0x01, 0x02, 0x0F, 0x10, 0x17, 0x18, 0x3F, 0x40, 0x41, 0x7F, 0x80, 0xBF, 0xC0, 0xCB, 0xFF,
];
const LONGEST: usize = 4096; // bytes; mutants do not grow without end

/// A mutant of one of `corpus`, fixed by `rng`.
pub fn mutate(corpus: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = pick(corpus, rng);
    bytes.truncate(LONGEST);
    for _ in 0..rng.usize(1..8) {
        let (from, to) = (rng.usize(0..=bytes.len()), rng.usize(0..=bytes.len()));
        let (from, to) = (from.min(to), from.max(to).min(from.min(to) + rng.usize(1..32)));
        match rng.u8(0..8) {
            0 => bytes.iter_mut().skip(from).take(1).for_each(|byte| *byte ^= 1 << rng.u8(0..8)),
            1 => bytes
                .iter_mut()
                .skip(from)
                .take(1)
                .for_each(|byte| *byte = BORDERS[rng.usize(0..BORDERS.len())]),
            2 => bytes.truncate(from),
            3 => drop(bytes.drain(from..to)),
            4 => drop(bytes.splice(from..from, bytes[from..to].to_vec())),
            5 => drop(bytes.splice(from..to, (0..rng.usize(0..9)).map(|_| rng.u8(..)))),
            6 => drop(bytes.splice(from..from, std::iter::repeat_n(0xFF, rng.usize(1..9)))),
            _ => {
                let other = pick(corpus, rng);
                bytes.truncate(from);
                bytes.extend_from_slice(&other[rng.usize(0..=other.len())..]);
            }
        }
    }
    bytes.truncate(LONGEST);
    bytes
}

fn pick(corpus: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    if corpus.is_empty() { Vec::new() } else { corpus[rng.usize(0..corpus.len())].clone() }
}
