//! The demo's table: rows as they come, in columns that were settled before; or one JSON object a row.

use std::io::{self, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};

use crate::cmd::relay::flags::rate_text;

const BOLD: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// One item over one carrier.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The carrier's scheme.
    pub(crate) carrier: &'static str,
    /// The item's path.
    pub(crate) item: &'static str,
    /// Its bytes.
    pub(crate) bytes: u64,
    /// From the request to the last proof.
    pub(crate) elapsed: Duration,
    /// Packets that were sent again meanwhile, where that is known.
    pub(crate) resent: Option<u64>,
    /// Whether the bytes crossed the cable.
    pub(crate) is_on_cable: bool,
    /// What went wrong, if anything.
    pub(crate) error: Option<String>,
}

/// Writes rows.
pub(crate) struct Table<W> {
    out: W,
    is_json: bool,
    item_width: usize,
}

impl<W: Write> Table<W> {
    /// A table for `items`, which say how wide their column is.
    pub(crate) fn new(out: W, is_json: bool, items: impl Iterator<Item = &'static str>) -> Self {
        let item_width = items.map(|item| item.chars().count()).max().unwrap_or_default().max(16);
        Self { out, is_json, item_width }
    }

    /// A line above or below the rows; none in JSON.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        if self.is_json { Ok(()) } else { writeln!(self.out, "{text}") }
    }

    /// The heads of the columns.
    pub(crate) fn head(&mut self) -> io::Result<()> {
        let width = self.item_width;
        self.line(&format!(
            "{BOLD}{:<7} {:<width$} {:>9} {:>9} {:>13} {:>7}  verified{BOLD:#}",
            "carrier", "item", "bytes", "time", "rate", "resent"
        ))
    }

    /// One row.
    pub(crate) fn row(&mut self, row: &Row) -> io::Result<()> {
        if self.is_json {
            return writeln!(self.out, "{}", row.json());
        }
        let (style, verdict) = match &row.error {
            None if row.is_on_cable => (GOOD, "yes"),
            None => (GOOD, "yes, but not over the cable"),
            Some(error) => (BAD, error.as_str()),
        };
        let width = self.item_width;
        writeln!(
            self.out,
            "{:<7} {:<width$} {:>9} {:>9} {:>13} {:>7}  {style}{verdict}{style:#}",
            row.carrier,
            row.item,
            row.bytes,
            time_text(row.elapsed),
            row.rate().map_or_else(|| "-".to_owned(), rate_text),
            count_text(row.resent),
        )?;
        self.out.flush()
    }

    /// The catalogue was listed over a carrier; above its rows.
    pub(crate) fn listed(
        &mut self,
        carrier: &str,
        items: usize,
        elapsed: Duration,
    ) -> io::Result<()> {
        let (width, time) = (self.item_width, time_text(elapsed));
        let done = "session and list";
        self.line(&format!(
            "{carrier:<7} {done:<width$} {:>9} {time:>9} {:>13} {:>7}  {items} items",
            "-", "-", "-"
        ))
    }

    /// What the rows of one carrier come to.
    pub(crate) fn subtotal(&mut self, rows: &[Row]) -> io::Result<()> {
        let (Some(first), false) = (rows.first(), self.is_json) else { return Ok(()) };
        let total = Row {
            carrier: first.carrier,
            item: "",
            bytes: rows.iter().map(|row| row.bytes).sum(),
            elapsed: rows.iter().map(|row| row.elapsed).sum(),
            resent: rows.iter().map(|row| row.resent).sum(),
            is_on_cable: first.is_on_cable,
            error: None,
        };
        let verified = rows.iter().filter(|row| row.error.is_none()).count();
        let width = self.item_width;
        writeln!(
            self.out,
            "{FAINT}{:<7} {:<width$} {:>9} {:>9} {:>13} {:>7}  {verified} of {}{FAINT:#}",
            "",
            "together",
            total.bytes,
            time_text(total.elapsed),
            total.rate().map_or_else(|| "-".to_owned(), rate_text),
            count_text(total.resent),
            rows.len(),
        )
    }

    /// The last line: the sentence for a person, the object for a machine.
    pub(crate) fn end(&mut self, is_good: bool, text: &str, object: &Value) -> io::Result<()> {
        if self.is_json {
            return writeln!(self.out, "{object}");
        }
        let style = if is_good { GOOD } else { BAD };
        writeln!(self.out, "{style}{text}{style:#}")
    }
}

impl Row {
    fn rate(&self) -> Option<f64> {
        let seconds = self.elapsed.as_secs_f64();
        (self.bytes > 0 && seconds > 0.0 && self.error.is_none())
            .then(|| self.bytes as f64 * 8.0 / seconds)
    }

    fn json(&self) -> Value {
        json!({
            "carrier": self.carrier,
            "item": self.item,
            "bytes": self.bytes,
            "seconds": self.elapsed.as_secs_f64(),
            "bits_per_second": self.rate(),
            "resent_packets": self.resent,
            "on_cable": self.is_on_cable,
            "verified": self.error.is_none(),
            "error": self.error,
        })
    }
}

fn time_text(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if time.is_zero() {
        "-".to_owned()
    } else if seconds < 1.0 {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}

fn count_text(count: Option<u64>) -> String {
    count.map_or_else(|| "-".to_owned(), |count| count.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(item: &'static str, error: Option<&str>) -> Row {
        Row {
            carrier: "udp",
            item,
            bytes: 1_000_000,
            elapsed: Duration::from_millis(500),
            resent: Some(3),
            is_on_cable: true,
            error: error.map(str::to_owned),
        }
    }

    fn written(is_json: bool) -> String {
        let mut out = Vec::new();
        let mut table = Table::new(&mut out, is_json, ["films/a.mp4", "b"].into_iter());
        let rows = [row("films/a.mp4", None), row("b", Some("not listed"))];
        table.head().unwrap();
        table.listed("udp", 2, Duration::from_millis(20)).unwrap();
        rows.iter().for_each(|row| table.row(row).unwrap());
        table.subtotal(&rows).unwrap();
        anstream::adapter::strip_str(&String::from_utf8(out).unwrap()).to_string()
    }

    #[test]
    fn columns_stand_below_their_heads() {
        let text = written(false);
        let expected = [
            "carrier item                 bytes      time          rate  resent  verified",
            "udp     session and list         -   20.0 ms             -       -  2 items",
            "udp     films/a.mp4        1000000  500.0 ms     16 Mbit/s       3  yes",
            "udp     b                  1000000  500.0 ms             -       3  not listed",
            "        together           2000000    1.00 s     16 Mbit/s       6  1 of 2",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn json_is_one_object_a_row() {
        let text = written(true);
        let rows: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0]["verified"], true);
        assert_eq!(rows[1]["error"], "not listed");
    }
}
