//! One object a line on stdout, for machines.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde_json::Value;

use super::human::escaped_by;
use crate::show::stdout;

/// Writes one line.
pub(crate) fn line(value: &Value) -> io::Result<()> {
    let mut out = stdout::raw();
    writeln!(out, "{}", escaped(&value.to_string()))?;
    out.flush()
}

/// The same JSON without a letter that drives a terminal; those are only ever inside of strings, where all but a few
/// may stand as they are (RFC 8259, 7).
fn escaped(json: &str) -> String {
    escaped_by(json, |safe, letter| {
        let _ = write!(safe, "\\u{:04x}", u32::from(letter)); // to a string; all of them are below U+10000
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn foreign_names_cannot_drive_a_terminal_and_stay_what_they_are() {
        let value = json!({"item": "a\u{9b}31m\u{7f}\u{202e}\u{2028}\u{1b}\n\u{e9}\u{1f3ac}"});
        let text = escaped(&value.to_string());
        assert_eq!(
            text,
            "{\"item\":\"a\\u009b31m\\u007f\\u202e\\u2028\\u001b\\n\u{e9}\u{1f3ac}\"}"
        );
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
