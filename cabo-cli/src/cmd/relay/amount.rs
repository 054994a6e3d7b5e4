//! Amounts as people write them: `1%`, `10ms`, `200mbit`, `64k`. Each error says what would be right.

use std::time::Duration;

/// A share: `1%` or `0.01`.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let (number, unit) = split(text, "a share, such as 1% or 0.01")?;
    let share = match unit {
        "%" => number / 100.0,
        "" if number < 1.0 => number,
        "" => {
            return Err(format!(
                "could be {number}% or {number} times all: write {number}% or a number below 1"
            ));
        }
        _ => return Err(format!("{unit:?} is no unit of a share: write 1% or 0.01")),
    };
    if share > 1.0 {
        return Err("more than all: a share is at most 100%".to_owned());
    }
    Ok(share)
}

/// A number of packets: `3` or `2.5`.
pub(crate) fn packets(text: &str) -> Result<f64, String> {
    match split(text, "a number of packets, such as 3")? {
        (number, "") => Ok(number),
        (_, unit) => Err(format!("{unit:?} is too much: write only the number of packets")),
    }
}

/// A time: `250us`, `10ms`, `1.5s`, `2min`.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text, "a time, such as 10ms or 1.5s")?;
    let seconds = match unit {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "min" => number * 60.0,
        "h" => number * 3600.0,
        "" if number == 0.0 => 0.0,
        "" => return Err(format!("{number} of what? write {number}ms or {number}s")),
        _ => return Err(format!("{unit:?} is no unit of time: us, ms, s, min and h are")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| "longer than any clock runs".to_owned())
}

/// Bits a second: `200mbit`, `1gbit`.
pub(crate) fn rate(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text, "a rate, such as 200mbit or 1gbit")?;
    let unit = unit.to_ascii_lowercase();
    let bits = match unit.strip_suffix("/s").unwrap_or(&unit) {
        "bit" => number,
        "kbit" => number * 1e3,
        "mbit" => number * 1e6,
        "gbit" => number * 1e9,
        "" if number == 0.0 => 0.0,
        "" => return Err(format!("{number} of what? write {number}mbit or {number}kbit")),
        _ => {
            return Err(format!(
                "{unit:?} is no unit of a rate: bit, kbit, mbit and gbit (a second) are"
            ));
        }
    };
    match whole(bits)? {
        0 => Err("nothing would pass: leave the rate out for a cable without a limit".to_owned()),
        bits => Ok(bits),
    }
}

/// Bytes: `1500`, `64k`, `1m`; k is 1024.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text, "a size in bytes, such as 1500 or 64k")?;
    match unit.to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => whole(number),
        "k" => whole(number * 1024.0),
        "m" => whole(number * 1024.0 * 1024.0),
        _ => Err(format!("{unit:?} is no unit of a size: bytes, k and m are")),
    }
}

/// A number, not negative, and what stands behind it.
fn split<'a>(text: &'a str, wanted: &str) -> Result<(f64, &'a str), String> {
    let text = text.trim();
    let end =
        text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    match number.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok((number, unit.trim_start())),
        Ok(_) | Err(_) => Err(format!("not {wanted}")),
    }
}

fn whole(number: f64) -> Result<u64, String> {
    const MOST: f64 = 1e15; // a petabit; every whole number below is exact
    if number > MOST {
        return Err("more than any cable has".to_owned());
    }
    Ok(number.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_people_write_them() {
        assert_eq!(share("1%"), Ok(0.01));
        assert_eq!(share("0.5"), Ok(0.5));
        assert_eq!(share("100%"), Ok(1.0));
        assert_eq!(packets("2.5"), Ok(2.5));
        assert_eq!(time("10ms"), Ok(Duration::from_millis(10)));
        assert_eq!(time("250us"), Ok(Duration::from_micros(250)));
        assert_eq!(time("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(time("0"), Ok(Duration::ZERO));
        assert_eq!(rate("200mbit"), Ok(200_000_000));
        assert_eq!(rate("1Gbit/s"), Ok(1_000_000_000));
        assert_eq!(size("1500"), Ok(1500));
        assert_eq!(size("64k"), Ok(65_536));
        assert_eq!(size("1MiB"), Ok(1 << 20));
    }

    #[test]
    fn an_error_says_what_would_be_right() {
        assert!(share("1").unwrap_err().contains("1%"));
        assert!(share("101%").unwrap_err().contains("100%"));
        assert!(share("-1%").unwrap_err().contains("a share"));
        assert!(time("10").unwrap_err().contains("10ms"));
        assert!(time("10x").unwrap_err().contains("no unit of time"));
        assert!(time("9999999999999999999999h").is_err());
        assert!(rate("200").unwrap_err().contains("200mbit"));
        assert!(rate("200mbps").unwrap_err().contains("mbit"));
        for nothing in ["0", "0mbit"] {
            assert!(rate(nothing).unwrap_err().contains("leave the rate out"));
        }
        assert!(size("many").unwrap_err().contains("a size in bytes"));
        assert!(packets("3ms").unwrap_err().contains("only the number"));
    }
}
