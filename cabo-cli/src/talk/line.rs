//! What is typed, line by line, none longer than a message can be.
//!
//! Neighbours: `converse` sends lines, `cmd::listen` gives them to whom they are for.

use std::io::{self, BufRead, Read as _};

use cabo::proto::dialect::Dialect;

use crate::exit::Failure;

/// What names and quotes may add to a message that is typed.
const NAMES_BYTES: usize = 64 * 1024;

/// Bytes of the longest line.
pub(crate) fn line_max(dialect: &Dialect) -> u64 {
    dialect.limit_bytes.saturating_add(NAMES_BYTES) as u64
}

/// A line, or why there is none.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Line {
    /// Without what ends it.
    Whole(Vec<u8>),
    /// It has more bytes than these; all of it was left out.
    TooLong(u64),
    End,
}

/// Reads the next line.
pub(crate) fn next_line(from: &mut impl BufRead, max: u64) -> io::Result<Line> {
    let mut line = Vec::new();
    from.take(max.saturating_add(1)).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(Line::End);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 > max {
        skip_line(from)?;
        return Ok(Line::TooLong(max));
    }
    Ok(Line::Whole(line))
}

/// Leaves out the rest of a line.
fn skip_line(from: &mut impl BufRead) -> io::Result<()> {
    loop {
        let part = from.fill_buf()?;
        let end = part.iter().position(|byte| *byte == b'\n');
        let (len, is_over) =
            (end.map_or(part.len(), |at| at + 1), end.is_some() || part.is_empty());
        from.consume(len);
        if is_over {
            return Ok(());
        }
    }
}

/// The failure of a line that is too long.
pub(crate) fn too_long(max: u64) -> Failure {
    Failure::usage(format!("a line of stdin is longer than {max} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_costs_no_other() {
        let mut text: &[u8] = b"1234\n12345\n\n1234567890\n12345";
        let mut next = || next_line(&mut text, 4).unwrap();
        assert_eq!(next(), Line::Whole(b"1234".into()));
        assert_eq!(next(), Line::TooLong(4));
        assert_eq!(next(), Line::Whole(b"".into()));
        assert_eq!(next(), Line::TooLong(4));
        assert_eq!(next(), Line::TooLong(4));
        assert_eq!(next(), Line::End);
    }
}
