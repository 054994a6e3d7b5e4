//! The codes of single values: their sizes, and their bytes both ways (D-1.2, D-1.5).

use crate::dialect::value::Value;

/// Byte order, sizes and alignment of a layout (D-1.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Order {
    /// `@`: little-endian as on x86-64 Linux, native sizes, aligned.
    Native,
    /// `=`, `<`: little-endian, standard sizes.
    Little,
    /// `>`, `!`: big-endian, standard sizes.
    Big,
}

/// The code of a value that has one size.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Code {
    /// `c`, one byte as bytes.
    Char,
    /// `?`.
    Bool,
    /// A signed integer; the letter tells which.
    Signed(u8),
    /// An unsigned integer; the letter tells which.
    Unsigned(u8),
    /// `e`.
    Half,
    /// `f`.
    Single,
    /// `d`.
    Double,
}

/// Why a value cannot be written.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unfit {
    /// Another sort of value.
    #[error("takes {0}")]
    Sort(&'static str),
    /// An integer too small or too large.
    #[error("takes {least} to {most}")]
    Range {
        /// The smallest that fits.
        least: i128,
        /// The largest that fits.
        most: i128,
    },
    /// A finite number that would become infinite.
    #[error("is too large for {0} bytes of floating point")]
    Overflow(usize),
}

impl Code {
    /// The code of a letter; `None` for what is no single value, or not in this order.
    pub(super) fn of(letter: u8, order: Order) -> Option<Self> {
        Some(match letter {
            b'c' => Self::Char,
            b'?' => Self::Bool,
            b'b' | b'h' | b'i' | b'l' | b'q' => Self::Signed(letter),
            b'B' | b'H' | b'I' | b'L' | b'Q' => Self::Unsigned(letter),
            b'n' if order == Order::Native => Self::Signed(letter),
            b'N' | b'P' if order == Order::Native => Self::Unsigned(letter),
            b'e' => Self::Half,
            b'f' => Self::Single,
            b'd' => Self::Double,
            _ => return None,
        })
    }

    /// Bytes of one value; in native order also its alignment.
    pub(super) fn size(self, order: Order) -> usize {
        let is_native = order == Order::Native;
        match self {
            Self::Char | Self::Bool | Self::Signed(b'b') | Self::Unsigned(b'B') => 1,
            Self::Half | Self::Signed(b'h') | Self::Unsigned(b'H') => 2,
            Self::Single | Self::Signed(b'i') | Self::Unsigned(b'I') => 4,
            Self::Signed(b'l') | Self::Unsigned(b'L') if !is_native => 4,
            Self::Double | Self::Signed(_) | Self::Unsigned(_) => 8,
        }
    }

    pub(super) fn is_integer(self) -> bool {
        matches!(self, Self::Signed(_) | Self::Unsigned(_))
    }

    /// Its letter.
    pub fn letter(self) -> char {
        match self {
            Self::Char => 'c',
            Self::Bool => '?',
            Self::Signed(letter) | Self::Unsigned(letter) => char::from(letter),
            Self::Half => 'e',
            Self::Single => 'f',
            Self::Double => 'd',
        }
    }

    /// What a value of this code is, in words.
    pub fn takes(self) -> &'static str {
        match self {
            Self::Char => "one byte",
            Self::Bool => "true or false",
            Self::Signed(_) | Self::Unsigned(_) => "an integer",
            Self::Half | Self::Single | Self::Double => "a number",
        }
    }

    /// The value of `bytes`, which are as many as [`Code::size`] says.
    pub(super) fn read(self, bytes: &[u8], order: Order) -> Value {
        let raw = bits(bytes, order);
        match self {
            Self::Char => Value::Bytes(bytes.to_vec()),
            Self::Bool => Value::Bool(raw != 0),
            Self::Signed(_) | Self::Unsigned(_) => Value::Int(self.integer(raw, bytes.len())),
            Self::Half => Value::Float(half_to_double(raw as u16)),
            Self::Single => Value::Float(f64::from(f32::from_bits(raw as u32))),
            Self::Double => Value::Float(f64::from_bits(raw)),
        }
    }

    /// What so many bytes with these bits are as an integer.
    fn integer(self, raw: u64, size: usize) -> i128 {
        if let Self::Signed(_) = self {
            let unused = 64 - 8 * size as u32;
            i128::from((raw << unused) as i64 >> unused)
        } else {
            i128::from(raw)
        }
    }

    /// Appends the bytes of `value`.
    pub(super) fn write(self, value: &Value, order: Order, out: &mut Vec<u8>) -> Result<(), Unfit> {
        let size = self.size(order);
        let raw = match (self, value) {
            (Self::Char, Value::Bytes(bytes)) if bytes.len() == 1 => bits(bytes, order),
            (Self::Bool, Value::Bool(truth)) => u64::from(*truth),
            (Self::Bool, Value::Int(number)) => u64::from(*number != 0),
            (Self::Signed(_) | Self::Unsigned(_), Value::Int(number)) => self.fit(*number, size)?,
            (Self::Half | Self::Single | Self::Double, Value::Int(number)) => {
                return self.write(&Value::Float(*number as f64), order, out);
            }
            (Self::Double, Value::Float(number)) => number.to_bits(),
            (Self::Single, Value::Float(number)) => {
                let single = *number as f32;
                if single.is_infinite() && number.is_finite() {
                    return Err(Unfit::Overflow(4));
                }
                u64::from(single.to_bits())
            }
            (Self::Half, Value::Float(number)) => {
                u64::from(double_to_half(*number).ok_or(Unfit::Overflow(2))?)
            }
            _ => return Err(Unfit::Sort(self.takes())),
        };
        push_bits(raw, size, order, out);
        Ok(())
    }

    /// The bits of an integer, where it fits.
    fn fit(self, number: i128, size: usize) -> Result<u64, Unfit> {
        let values = 1_i128 << (8 * size as u32); // how many there are
        let least = if matches!(self, Self::Signed(_)) { -(values / 2) } else { 0 };
        let most = least + values - 1;
        if number < least || number > most {
            return Err(Unfit::Range { least, most });
        }
        Ok(number as u64)
    }
}

/// An integer at a known place: read and written without what else a message has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::dialect) struct Slot {
    at: usize,
    size: usize,
    code: Code,
    order: Order,
}

impl Slot {
    pub(super) fn new(at: usize, code: Code, order: Order) -> Self {
        Self { at, size: code.size(order), code, order }
    }

    /// The integer of a message; `None` if it ends before.
    pub(in crate::dialect) fn read(&self, message: &[u8]) -> Option<i128> {
        let raw = bits(message.get(self.at..self.at + self.size)?, self.order);
        Some(self.code.integer(raw, self.size))
    }

    /// The bytes of the integer alone: the first so many of eight.
    pub(in crate::dialect) fn bytes(&self, number: i128) -> Result<([u8; 8], usize), Unfit> {
        let raw = self.code.fit(number, self.size)?;
        let bytes = match self.order {
            Order::Big => (raw << (64 - 8 * self.size)).to_be_bytes(),
            Order::Native | Order::Little => raw.to_le_bytes(),
        };
        Ok((bytes, self.size))
    }
}

fn bits(bytes: &[u8], order: Order) -> u64 {
    let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
    match order {
        Order::Big => bytes.iter().fold(0, add),
        Order::Native | Order::Little => bytes.iter().rev().fold(0, add),
    }
}

fn push_bits(raw: u64, size: usize, order: Order, out: &mut Vec<u8>) {
    match order {
        Order::Big => out.extend(raw.to_be_bytes().iter().skip(8 - size)),
        Order::Native | Order::Little => out.extend(raw.to_le_bytes().iter().take(size)),
    }
}

/// IEEE 754 binary16 to binary64; every value of it has one.
fn half_to_double(half: u16) -> f64 {
    let sign = if half & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (half >> 10 & 0x1F, half & 0x3FF);
    match exponent {
        0 => sign * f64::from(fraction) * 2_f64.powi(-24),
        0x1F => {
            // A NaN keeps its sign and payload; CPython 3.11 makes a plain one of it, and both read as NaN.
            let top = u64::from(half & 0x8000) << 48 | 0x7FF0_0000_0000_0000;
            f64::from_bits(top | u64::from(fraction) << 42)
        }
        _ => sign * f64::from(0x400 | fraction) * 2_f64.powi(i32::from(exponent) - 25),
    }
}

/// IEEE 754 binary64 to binary16, to the nearest, ties to even; `None` for a finite number beyond its range.
fn double_to_half(number: f64) -> Option<u16> {
    let sign = (number.to_bits() >> 48) as u16 & 0x8000;
    if number.is_nan() {
        return Some(sign | 0x7E00);
    }
    if number.is_infinite() {
        return Some(sign | 0x7C00);
    }
    let size = number.abs();
    // Steps of the result: 2^-24 below the smallest normal number, else ten bits below the leading one.
    let exponent = if size < 2_f64.powi(-14) { -14 } else { (size.to_bits() >> 52) as i32 - 1023 };
    if exponent > 15 {
        return None;
    }
    let steps = (size * 2_f64.powi(10 - exponent)).round_ties_even() as u32; // exact but for the rounding
    // A carry into the next exponent adds itself, as the fraction overflows into it.
    let raw = steps + ((exponent + 14) as u32).saturating_mul(0x400);
    if raw >= 0x7C00 { None } else { Some(sign | raw as u16) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D-1.5: every half is read and written back as itself; a NaN stays one.
    #[test]
    fn every_half_survives() {
        for half in 0..=u16::MAX {
            let double = half_to_double(half);
            let again = double_to_half(double);
            if double.is_nan() {
                assert!(half_to_double(again.unwrap_or_default()).is_nan(), "{half:04x}");
            } else {
                assert_eq!(again, Some(half), "{half:04x} is {double}");
            }
        }
    }

    /// D-1.5: between two halves the nearer one wins, and of two as near the even one.
    #[test]
    fn halves_round_to_nearest_even() {
        for half in 0..0x7BFF_u16 {
            let (low, high) = (half_to_double(half), half_to_double(half + 1));
            let middle = (low + high) / 2.0;
            let even = half + (half & 1);
            assert_eq!(double_to_half(middle), Some(even), "{half:04x}");
            assert_eq!(double_to_half(middle.next_down()), Some(half), "{half:04x}");
            assert_eq!(double_to_half(middle.next_up()), Some(half + 1), "{half:04x}");
        }
        assert_eq!(double_to_half(65519.99), Some(0x7BFF));
        assert_eq!(double_to_half(65520.0), None, "rounds beyond the largest");
        assert_eq!(double_to_half(-1e300), None);
    }

    /// D-1.5: what fits is decided by the size, at both ends.
    #[test]
    fn integers_out_of_range_are_refused() {
        let cases = [
            (b'b', -128, 127),
            (b'B', 0, 255),
            (b'h', -32768, 32767),
            (b'Q', 0, i128::from(u64::MAX)),
            (b'q', i128::from(i64::MIN), i128::from(i64::MAX)),
        ];
        for (letter, least, most) in cases {
            let code = Code::of(letter, Order::Big).expect("a code");
            let mut out = Vec::new();
            for number in [least, most] {
                out.clear();
                code.write(&Value::Int(number), Order::Big, &mut out).expect("fits");
                assert_eq!(code.read(&out, Order::Big), Value::Int(number), "{letter}");
            }
            for number in [least - 1, most + 1] {
                let unfit = code.write(&Value::Int(number), Order::Big, &mut out);
                assert_eq!(unfit, Err(Unfit::Range { least, most }), "{letter}");
            }
        }
    }
}
