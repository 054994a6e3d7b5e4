//! Times of this place: as `redes` has them in text, to the second or to the minute, and for logs.
//!
//! `unsafe`: the rules of time zones are the C library's, and have no safe crate here.

use std::mem;

use cabo_proto::redes::Sequence;

/// Hour, minute and second of the day here, so many seconds after 1970 began in UTC.
pub fn time_of_day(seconds: i64) -> [i32; 3] {
    let time = local(seconds);
    [time.tm_hour, time.tm_min, time.tm_sec]
}

/// Year, month and day here, so many seconds after 1970 began in UTC.
pub fn date_of(seconds: i64) -> [i32; 3] {
    let time = local(seconds);
    [time.tm_year.saturating_add(1900), time.tm_mon.saturating_add(1), time.tm_mday]
}

fn local(seconds: i64) -> libc::tm {
    // SAFETY: all bits zero is a valid `tm`; both pointers live on this frame.
    unsafe {
        let mut time: libc::tm = mem::zeroed();
        libc::localtime_r(&raw const seconds, &raw mut time);
        time
    }
}

/// The local time of so many seconds since 1970.
pub(crate) fn text(seconds: i64, sequence: Sequence) -> Vec<u8> {
    let time = local(seconds);
    let (year, month) = (i64::from(time.tm_year) + 1900, time.tm_mon + 1);
    let (day, hour, minute) = (time.tm_mday, time.tm_hour, time.tm_min);
    match sequence {
        Sequence::Rss => {
            format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{:02}", time.tm_sec)
        }
        Sequence::Streaming => format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}"),
        Sequence::Wired => String::new(), // it says none
    }
    .into_bytes()
}

/// The seconds since 1970 of a local time: its digits, in either form; none where it is no time.
pub(crate) fn seconds(text: &[u8]) -> Option<i64> {
    let is_sign = |byte: &u8| b"- :".contains(byte);
    let digits: Vec<u8> = text.iter().copied().filter(|byte| !is_sign(byte)).collect();
    if !matches!(digits.len(), 12 | 14) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let field = |from: usize, to: usize| -> Option<libc::c_int> {
        str::from_utf8(digits.get(from..to)?).ok()?.parse().ok()
    };
    // SAFETY: all bits zero is a valid `tm`.
    let mut time: libc::tm = unsafe { mem::zeroed() };
    time.tm_year = field(0, 4)? - 1900;
    time.tm_mon = field(4, 6)? - 1;
    time.tm_mday = field(6, 8)?;
    time.tm_hour = field(8, 10)?;
    time.tm_min = field(10, 12)?;
    time.tm_sec = if digits.len() == 14 { field(12, 14)? } else { 0 };
    time.tm_isdst = -1; // the zone knows
    let is_good = (0..12).contains(&time.tm_mon) && (1..=31).contains(&time.tm_mday);
    // SAFETY: `time` lives on this frame; any numbers are a time to `mktime`.
    let seconds = unsafe { libc::mktime(&raw mut time) };
    (is_good && seconds != -1).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for at in [0, 951_782_399, 1_718_744_733] {
            assert_eq!(seconds(&text(at, Sequence::Rss)), Some(at));
            let minutes = seconds(&text(at, Sequence::Streaming));
            assert_eq!(minutes, Some(at - at % 60));
        }
        for bad in [b"".as_slice(), b"soon", b"2024-13-01 00:00:00", b"2024-06-18 21:05:3x"] {
            assert_eq!(seconds(bad), None, "{bad:?}");
        }
    }
}
