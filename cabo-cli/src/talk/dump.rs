//! A dump of what crosses the wire: direction, time and size, then offsets, hexadecimal and ASCII as `hexdump -C` has them.
//!
//! Offsets count what one side has said so far. Neighbour: `watch` writes the file.

use std::fmt::Write as _;

use cabo::talk::Seen;

use super::watch::Page;

const ROW_BYTES: usize = 16;

/// What stands in the dump of one piece.
pub(super) fn note(page: &mut Page, seen: Seen<'_>) -> String {
    let seconds = page.elapsed().as_secs_f64();
    let (sign, bytes, offset) = match seen {
        Seen::Sent(bytes) => ('>', bytes, &mut page.sent_bytes),
        Seen::Received(bytes) => ('<', bytes, &mut page.received_bytes),
        Seen::SentEnd => return format!("> {seconds:.6} end\n"),
        Seen::ReceivedEnd => return format!("< {seconds:.6} end\n"),
    };
    let mut text = format!("{sign} {seconds:.6} {} bytes\n", bytes.len());
    for row in bytes.chunks(ROW_BYTES) {
        write_row(&mut text, *offset, row);
        *offset += row.len() as u64;
    }
    text
}

fn write_row(text: &mut String, offset: u64, row: &[u8]) {
    let _ = write!(text, "{offset:08x} "); // to a string
    for place in 0..ROW_BYTES {
        let gap = if place == ROW_BYTES / 2 { " " } else { "" };
        let _ = match row.get(place) {
            Some(byte) => write!(text, "{gap} {byte:02x}"),
            None => write!(text, "{gap}   "),
        };
    }
    let letter = |byte: &u8| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' };
    let _ = writeln!(text, "  |{}|", row.iter().map(letter).collect::<String>());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_of_hexdump() {
        let mut text = String::new();
        write_row(&mut text, 0, b"The quick brown ");
        write_row(&mut text, 16, b"fox\n\xff");
        assert_eq!(
            text,
            "00000000  54 68 65 20 71 75 69 63  6b 20 62 72 6f 77 6e 20  |The quick brown |\n\
             00000010  66 6f 78 0a ff                                    |fox..|\n"
        );
    }
}
