//! What `demo sockets` shows: a table of what arrived, a time line of when, and what that means.

use std::io::{self, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};

use super::table::{self, Align, Cell};
use crate::cmd::demo::sockets::account::{Account, Arrival, Window, cell};

const FAINT: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();
const BAD: Style = AnsiColor::Red.on_default();
const GOOD: Style = AnsiColor::Green.on_default();
/// Columns of the time line, and letters in each.
pub(crate) const COLUMNS: u32 = 11;
const COLUMN_LETTERS: usize = 7;

/// One receiver.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// Which one, where a group has several.
    pub(crate) receiver: Option<usize>,
    pub(crate) account: Account,
    pub(crate) arrivals: Vec<Arrival>,
    /// Why not everything was sent.
    pub(crate) error: Option<String>,
}

/// All that is to be shown.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) rows: Vec<Row>,
    pub(crate) window: Window,
    pub(crate) resent: Option<u64>,
    pub(crate) late_after: Duration,
    pub(crate) is_on_cable: bool,
}

impl Scene {
    /// Whether TCP kept its promise.
    pub(crate) fn is_tcp_whole(&self) -> bool {
        let tcp = self.row("tcp");
        tcp.is_some_and(|row| row.account.is_perfect() && row.account.sent > 0)
    }

    fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// All of it, for people.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        self.write_table(out)?;
        writeln!(out)?;
        self.write_time_line(out)?;
        writeln!(out)?;
        for line in self.meaning() {
            writeln!(out, "{line}")?;
        }
        writeln!(out)
    }

    fn write_table(&self, out: &mut impl Write) -> io::Result<()> {
        let late = format!("over {}", milliseconds(self.late_after));
        let right = Align::Right;
        let head = [
            ("", Align::Left),
            ("sent", right),
            ("arrived", right),
            ("lost", right),
            ("twice", right),
            ("overtaken", right),
            (late.as_str(), right),
            ("half in", right),
            ("99% in", right),
            ("longest", right),
        ];
        let rows: Vec<Vec<Cell>> = self.rows.iter().map(Row::cells).collect();
        table::write(out, &head, &rows)
    }

    /// When it arrived, around the longest silence of TCP.
    fn write_time_line(&self, out: &mut impl Write) -> io::Result<()> {
        let Some(tcp) = self.row("tcp") else { return Ok(()) };
        let column = milliseconds(self.window.column);
        writeln!(
            out,
            "{BOLD}Around TCP's longest silence{BOLD:#}: which messages were sent or arrived in each {column}\n\
             {FAINT}(84-91 all of them in order; 84~91 some missing, doubled or overtaken){FAINT:#}"
        )?;
        self.write_line(out, "sent", Style::new(), &tcp.arrivals, |arrival| arrival.sent)?;
        for row in self.rows.iter().filter(|row| row.receiver.is_none_or(|receiver| receiver == 1))
        {
            self.write_line(out, row.name, GOOD, &row.arrivals, |arrival| arrival.arrived)?;
        }
        Ok(())
    }

    fn write_line(
        &self,
        out: &mut impl Write,
        name: &str,
        style: Style,
        arrivals: &[Arrival],
        time: impl Fn(&Arrival) -> Duration,
    ) -> io::Result<()> {
        write!(out, "{name:<6}")?;
        for at in 0..COLUMNS {
            let text = cell(&self.window.numbers(at, arrivals, &time));
            let style = if text == "." { FAINT } else { style };
            let width = if at + 1 == COLUMNS { 0 } else { COLUMN_LETTERS };
            write!(out, "  {style}{text:<width$}{style:#}")?;
        }
        writeln!(out)
    }

    /// What these numbers mean.
    fn meaning(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(Row { account, .. }) = self.row("tcp") {
            lines.extend(self.meaning_of_tcp(account));
        }
        if let Some(Row { account, .. }) = self.row("udp") {
            let Account { lost, doubled, out_of_order, most, .. } = account;
            lines.push(format!(
                "udp    nothing is sent again: {lost} never came, {doubled} came twice, {out_of_order} were overtaken"
            ));
            let most = milliseconds(*most);
            lines.push(format!("       a loss holds up no other: 99% came within {most}"));
        }
        let group = self.rows.iter().filter(|row| row.name == "group");
        let counts: Vec<String> = group.map(|row| row.account.arrived.to_string()).collect();
        if !counts.is_empty() {
            lines.push(format!(
                "group  one datagram on the wire for {} receivers, who got {}: otherwise as udp",
                counts.len(),
                counts.join(", ")
            ));
        }
        lines.push(match self.is_on_cable {
            true => "So: TCP where all of it counts, UDP where only the newest does. `cabo demo` shows cabo's own way.",
            false => "There is no bad cable here, so the rows are alike.",
        }.to_owned());
        lines
    }

    fn meaning_of_tcp(&self, account: &Account) -> Vec<String> {
        let again = match self.resent {
            Some(segments) => format!("; the kernel sent {segments} segments again"),
            None => String::new(),
        };
        let Account { sent, arrived, late, longest, .. } = account;
        if !self.is_tcp_whole() {
            return vec![format!(
                "tcp    {arrived} of {sent} came in the time of the scene{again}"
            )];
        }
        let mut lines = vec![format!("tcp    all {sent} came, once and in order{again}")];
        if *late > 0 {
            let why = match self.resent {
                Some(1..) => ": what is sent after a loss waits for it (head-of-line blocking)",
                Some(0) | None => "",
            };
            let longest = milliseconds(*longest);
            lines.push(format!("       {late} were late, up to {longest}{why}"));
        }
        lines
    }

    /// A row for machines.
    pub(crate) fn json(&self, row: &Row) -> Value {
        let Account { sent, arrived, lost, doubled, out_of_order, late, half, most, longest } =
            &row.account;
        let seconds = |time: &Duration| (*arrived > 0).then_some(time.as_secs_f64());
        json!({
            "carrier": row.name,
            "receiver": row.receiver,
            "sent": sent,
            "arrived": arrived,
            "lost": lost,
            "doubled": doubled,
            "out_of_order": out_of_order,
            "late": late,
            "late_after_seconds": self.late_after.as_secs_f64(),
            "p50_seconds": seconds(half),
            "p99_seconds": seconds(most),
            "max_seconds": seconds(longest),
            "on_cable": self.is_on_cable,
            "error": row.error,
        })
    }
}

impl Row {
    fn cells(&self) -> Vec<Cell> {
        let Account { sent, arrived, lost, doubled, out_of_order, late, half, most, longest } =
            &self.account;
        let name = match self.receiver {
            Some(receiver) => format!("{} {receiver}", self.name),
            None => self.name.to_owned(),
        };
        let bad = |count: &u32| match count {
            0 => Cell::new("0"),
            count => Cell::styled(count.to_string(), BAD),
        };
        let time = |time: &Duration| match arrived {
            0 => Cell::new("-"),
            _ => Cell::new(milliseconds(*time)),
        };
        vec![
            Cell::styled(name, BOLD),
            Cell::new(sent.to_string()),
            Cell::new(arrived.to_string()),
            bad(lost),
            bad(doubled),
            bad(out_of_order),
            bad(late),
            time(half),
            time(most),
            time(longest),
        ]
    }
}

/// `41.2 ms`, `374 ms`.
fn milliseconds(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    let text = if millis < 100.0 { format!("{millis:.1}") } else { format!("{millis:.0}") };
    format!("{} ms", text.strip_suffix(".0").unwrap_or(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Message 1 came late over TCP, and took the next ones with it; over UDP it was lost.
    fn scene(resent: Option<u64>) -> Scene {
        let arrival =
            |(number, at): (u32, u32)| Arrival { number, sent: MS * 5 * number, arrived: MS * at };
        let row = |name, receiver, came: &[(u32, u32)]| {
            let arrivals: Vec<Arrival> = came.iter().copied().map(arrival).collect();
            let account = Account::of(4, &arrivals, MS * 60);
            Row { name, receiver, account, arrivals, error: None }
        };
        let tcp = [(0, 40), (1, 140), (2, 140), (3, 140)];
        let udp = [(0, 40), (3, 55), (2, 56), (2, 57)];
        let rows = vec![
            row("tcp", None, &tcp),
            row("udp", None, &udp),
            row("group", Some(1), &udp),
            row("group", Some(2), &udp[..2]),
        ];
        let window = Window::around_silence(&rows[0].arrivals, MS * 5, COLUMNS);
        Scene { rows, window, resent, late_after: MS * 60, is_on_cable: true }
    }

    fn shown(scene: &Scene) -> String {
        let mut out = anstream::StripStream::new(Vec::new());
        scene.write(&mut out).unwrap();
        String::from_utf8(out.into_inner()).unwrap()
    }

    #[test]
    fn what_waited_stands_beside_what_was_lost() {
        let text = shown(&scene(Some(1)));
        for line in [
            "         sent  arrived  lost  twice  overtaken  over 60 ms  half in  99% in  longest",
            "tcp         4        4     0      0          0           3   125 ms  135 ms   135 ms",
            "udp         4        3     1      1          1           0    40 ms   46 ms    46 ms",
            "group 2     4        2     2      0          0           0    40 ms   40 ms    40 ms",
            "tcp     .        0        .        .        .        .        .        1-3      .        .        .",
            "udp     .        0        2~3      .        .        .        .        .        .        .        .",
            "tcp    all 4 came, once and in order; the kernel sent 1 segments again",
            "       3 were late, up to 135 ms: what is sent after a loss waits for it (head-of-line blocking)",
            "udp    nothing is sent again: 1 never came, 1 came twice, 1 were overtaken",
            "group  one datagram on the wire for 2 receivers, who got 3, 2: otherwise as udp",
        ] {
            assert!(text.lines().any(|own| own == line), "{line:?}\n{text}");
        }
    }

    #[test]
    fn nothing_is_said_of_a_loss_that_was_none() {
        let text = shown(&scene(Some(0)));
        assert!(text.contains("3 were late, up to 135 ms\n"), "{text}");
        let unsent = Scene { rows: Vec::new(), ..scene(None) };
        assert_eq!(shown(&unsent), "");
        assert!(!unsent.is_tcp_whole());
    }
}
