//! A kind of message as a strip of bytes under a ruler.
//!
//! ```text
//!  0         1   2   3   4   5   6   7   8   9
//! +---------+---------------+---------------+- .. ----+
//! | version | size          | order         | payload |
//! | B       | L             | L             | {size}s |
//! +---------+---------------+---------------+- .. ----+
//! ```

use cabo::proto::dialect::layout::{Count, Kind as Part, Layout, Place};
use cabo::proto::dialect::value::Value;

use super::text;

/// Columns of a strip; what goes over it begins another one.
const WIDTH: usize = 100;
/// A field of so many bytes has a number on the ruler for each.
const RULED_BYTES: usize = 8;
/// Columns that a byte has at least there.
const BYTE_COLUMNS: usize = 4;

/// Draws a layout: its own strip, then one for each group.
pub(crate) fn drawn(layout: &Layout) -> String {
    let places = layout.places();
    let mut text = strips(&places, 0);
    for (at, group) in places.iter().enumerate() {
        if let Part::Group(count, _) | Part::Block(count, _) = &group.item.kind {
            let inner = places.get(at + 1..).unwrap_or_default();
            let end = inner.iter().position(|place| place.depth <= group.depth);
            let inner = inner.get(..end.unwrap_or(inner.len())).unwrap_or_default();
            text.push_str(&format!("{}, {}:\n", group.item.name, again(group, *count)));
            text.push_str(&strips(inner, group.depth + 1));
        }
    }
    text
}

/// How often a group stands there.
fn again(group: &Place<'_>, count: Count) -> String {
    let count = match count {
        Count::Fixed(count) => count.to_string(),
        Count::By(_) => group.counted_by.unwrap_or_default().to_owned(),
    };
    if matches!(group.item.kind, Part::Block(..)) {
        format!("again and again in {count} bytes")
    } else {
        format!("{count} times")
    }
}

/// One cell of a strip.
struct Cell {
    name: String,
    code: String,
    at: Option<usize>,
    /// Columns between its borders, and columns of each byte where these are numbered.
    columns: usize,
    byte_columns: Option<usize>,
}

impl Cell {
    fn of(place: &Place<'_>) -> Self {
        Self::new(label(place), code(place), place.at, place.size)
    }

    /// Bytes between two fields, of which the second is aligned.
    fn gap(at: usize, size: usize) -> Self {
        Self::new("aligns".to_owned(), String::new(), Some(at), Some(size))
    }

    fn new(name: String, code: String, at: Option<usize>, size: Option<usize>) -> Self {
        let room = name.chars().count().max(code.chars().count()) + 2;
        let ruled = size.filter(|size| (1..=RULED_BYTES).contains(size));
        let byte_columns = ruled.map(|size| (room + 1).div_ceil(size).max(BYTE_COLUMNS));
        let columns = match (ruled, byte_columns) {
            (Some(size), Some(columns)) => size * columns - 1,
            _ => room.max(2 * BYTE_COLUMNS),
        };
        Self { name, code, at, columns, byte_columns }
    }

    /// The numbers of its bytes, over its left border and itself.
    fn ruler(&self) -> String {
        let mut ruler = String::new();
        let step = self.byte_columns.unwrap_or(self.columns + 1);
        for (index, column) in (0..=self.columns).step_by(step).enumerate() {
            if let Some(at) = self.at {
                let number = format!(" {}", at + index);
                ruler.push_str(&" ".repeat(column.saturating_sub(ruler.len())));
                ruler.push_str(&number);
            }
        }
        format!("{ruler:width$}", width = self.columns + 1)
    }

    fn border(&self) -> String {
        let line = "-".repeat(self.columns);
        match self.byte_columns {
            Some(_) => format!("+{line}"),
            None => format!("+- .. {}", line.get(5..).unwrap_or_default()),
        }
    }
}

/// What is at one depth, as strips of bounded width.
fn strips(places: &[Place<'_>], depth: usize) -> String {
    let mut cells = Vec::new();
    let mut end = Some(0);
    for place in places.iter().filter(|place| place.depth == depth) {
        if let (Some(end), Some(at)) = (end, place.at)
            && at > end
        {
            cells.push(Cell::gap(end, at - end));
        }
        end = place.at.zip(place.size).map(|(at, size)| at + size);
        cells.push(Cell::of(place));
    }
    let mut text = String::new();
    let mut rest = cells.as_slice();
    while !rest.is_empty() {
        let mut columns = 0;
        let fits = |cell: &&Cell| {
            columns += cell.columns + 1;
            columns < WIDTH
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (strip, others) = rest.split_at(count.min(rest.len()));
        rest = others;
        let line = |one: &dyn Fn(&Cell) -> String| strip.iter().map(one).collect::<String>();
        let border = line(&Cell::border) + "+\n";
        let row = |words: &dyn Fn(&Cell) -> &str| {
            let one = |cell: &Cell| format!("| {:width$}", words(cell), width = cell.columns - 1);
            line(&one) + "|\n"
        };
        text.push_str(line(&Cell::ruler).trim_end());
        text.push('\n');
        text.push_str(&border);
        text.push_str(&row(&|cell| &cell.name));
        text.push_str(&row(&|cell| &cell.code));
        text.push_str(&border);
    }
    text
}

/// Its name, and the one value that it may have.
pub(crate) fn label(place: &Place<'_>) -> String {
    let name = &place.item.name;
    let constant = place.item.constant.as_ref().map(|constant| match constant {
        Value::Int(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::Bytes(bytes) => format!("'{}'", text(bytes)),
        Value::Float(number) => number.to_string(),
        Value::List(_) | Value::Group(_) => String::new(),
    });
    match (&place.item.kind, constant) {
        (Part::Pad(_) | Part::Align(_), _) => "padding".to_owned(),
        (_, Some(constant)) => format!("{name} = {constant}"),
        (_, None) => name.clone(),
    }
}

/// Its code and what counts it.
pub(crate) fn code(place: &Place<'_>) -> String {
    let count = |count: &Count| match count {
        Count::Fixed(count) => count.to_string(),
        Count::By(_) => format!("{{{}}}", place.counted_by.unwrap_or_default()),
    };
    match &place.item.kind {
        Part::Pad(size) => format!("{size}x"),
        Part::Align(code) => format!("0{}", code.letter()),
        Part::One(code) => code.letter().to_string(),
        Part::Several(code, times) => format!("{times}{}", code.letter()),
        Part::Text(size) => format!("{}s", count(size)),
        Part::Pascal(size) => format!("{size}p"),
        Part::Group(times, _) => format!("{}(..)", count(times)),
        Part::Block(size, _) => format!("{}s(..)", count(size)),
    }
}
