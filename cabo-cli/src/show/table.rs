//! Columns of text, as wide as what stands in them.

use std::io::{self, Write};

use anstyle::Style;

/// On which side of its column a cell stands.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Align {
    Left,
    Right,
}

/// One cell.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) text: String,
    pub(crate) style: Style,
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), style: Style::new() }
    }

    pub(crate) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style }
    }
}

/// Writes rows under a dimmed head; the last column is not padded.
pub(crate) fn write(
    out: &mut impl Write,
    head: &[(&str, Align)],
    rows: &[Vec<Cell>],
) -> io::Result<()> {
    let width = |column: usize, title: &str| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.text.chars().count()).fold(title.chars().count(), usize::max)
    };
    let widths: Vec<usize> =
        head.iter().enumerate().map(|(column, (title, _))| width(column, title)).collect();
    let titles: Vec<Cell> =
        head.iter().map(|(title, _)| Cell::styled(*title, Style::new().dimmed())).collect();
    for row in std::iter::once(&titles).chain(rows) {
        for (column, cell) in row.iter().enumerate() {
            let is_last = column + 1 == row.len();
            let align = head.get(column).map_or(Align::Left, |(_, align)| *align);
            let wide = widths.get(column).copied().unwrap_or_default();
            let padding = " ".repeat(wide.saturating_sub(cell.text.chars().count()));
            let (style, text) = (cell.style, &cell.text);
            match (align, is_last) {
                (Align::Right, _) => write!(out, "{padding}{style}{text}{style:#}")?,
                (Align::Left, true) => write!(out, "{style}{text}{style:#}")?,
                (Align::Left, false) => write!(out, "{style}{text}{style:#}{padding}")?,
            }
            out.write_all(if is_last { b"\n" } else { b"  " })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_stands_in_them() {
        let rows = [
            vec![Cell::new("1"), Cell::new("café"), Cell::new("x")],
            vec![Cell::new("22"), Cell::new("b"), Cell::new("long")],
        ];
        let mut out = anstream::StripStream::new(Vec::new());
        let head = [("n", Align::Right), ("name", Align::Left), ("t", Align::Left)];
        write(&mut out, &head, &rows).expect("writes");
        let text = String::from_utf8(out.into_inner()).expect("text");
        assert_eq!(text, " n  name  t\n 1  café  x\n22  b     long\n");
    }
}
