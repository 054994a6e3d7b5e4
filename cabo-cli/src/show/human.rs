//! Sizes, times and foreign words as people read them.

use std::time::Duration;

use cabo::service::media::Modified;

/// Bytes in decimal units, three digits at most before the unit: `1.2 GB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if value < 9.95 { format!("{value:.1} {name}") } else { format!("{value:.0} {name}") }
}

/// Bytes by time.
pub(crate) fn rate(bytes: u64, time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds <= 0.0 {
        return "-".to_owned();
    }
    format!("{}/s", size((bytes as f64 / seconds) as u64))
}

/// A time as `1.2 s`, `3 min 20 s`, `2 h 05 min`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// A time of day in UTC, to the minute or to the second.
pub(crate) fn time(modified: Modified, with_seconds: bool) -> String {
    let days = modified.seconds.div_euclid(86_400);
    let of_day = modified.seconds.rem_euclid(86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    if with_seconds {
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
    } else {
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}")
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
fn date(days: i64) -> (i64, i64, i64) {
    // Years begin in March here, so that the day that leaps is the last; an era is 400 years.
    let days = days.saturating_add(719_468);
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Control characters, and marks that turn the direction of writing or begin a line.
fn drives_terminals(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Foreign words in one line that cannot drive a terminal.
pub(crate) fn escaped(text: &str) -> String {
    escaped_by(text, |safe, letter| safe.extend(letter.escape_default()))
}

/// The same, with each letter that drives a terminal written by `escape`.
pub(crate) fn escaped_by(text: &str, escape: impl Fn(&mut String, char)) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        if drives_terminals(letter) {
            escape(&mut safe, letter);
        } else {
            safe.push(letter);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits_at_most() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (9_949, "9.9 kB"),
            (9_950, "10 kB"),
            (999_499, "999 kB"),
            (999_500, "1.0 MB"),
            (1_500_000_000, "1.5 GB"),
            (u64::MAX, "18 EB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        let at = |seconds| time(Modified { seconds, nanos: 0 }, true);
        assert_eq!(at(0), "1970-01-01 00:00:00");
        assert_eq!(at(951_782_399), "2000-02-28 23:59:59");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(at(-1), "1969-12-31 23:59:59");
        assert_eq!(at(1_795_266_000), "2026-11-21 13:00:00");
        for seconds in [i64::MIN, i64::MAX] {
            assert!(!at(seconds).is_empty());
        }
        assert_eq!(time(Modified { seconds: 60, nanos: 0 }, false), "1970-01-01 00:01");
    }

    #[test]
    fn durations_name_two_units_at_most() {
        let text = |seconds| duration(Duration::from_secs_f64(seconds));
        assert_eq!(
            [text(0.04), text(59.9), text(61.0), text(7500.0)],
            ["0.0 s", "59.9 s", "1 min 01 s", "2 h 05 min"]
        );
    }

    #[test]
    fn foreign_words_cannot_drive_the_terminal() {
        assert_eq!(escaped("ana\x1b[2J\n\u{202e}é"), "ana\\u{1b}[2J\\n\\u{202e}é");
    }
}
