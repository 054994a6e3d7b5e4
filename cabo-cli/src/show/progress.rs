//! Progress on a terminal: one line with a bar, the rate and the time left, and nothing at all in a pipe.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::human;
use crate::show::stderr;

const REFRESH_HZ: u8 = 10;
/// The line runs on while nothing comes.
const TICK: Duration = Duration::from_millis(200);
/// The rate is that of so long.
const RATE_TIME: Duration = Duration::from_secs(5);
/// Within [`RATE_TIME`], so often at most.
const SAMPLE_TIME: Duration = Duration::from_millis(100);
/// With nothing arriving for so long, the path is called stalled.
const STALL_TIME: Duration = Duration::from_secs(3);
const BAR_WIDTH_MAX: usize = 30;
const USUAL_WIDTH: usize = 80;

/// What a transfer shows while it runs, on stderr.
pub(crate) struct Bar {
    bar: ProgressBar,
    meter: Arc<Mutex<Meter>>,
}

/// Says something above a bar, from any task.
pub(crate) struct Speaker(ProgressBar);

/// How much has come when.
struct Meter {
    name: String,
    /// Bytes that are here, bytes that this run has brought, and bytes in all, where that is known.
    here: u64,
    moved: u64,
    total: Option<u64>,
    /// Entries that were counted so far, before there is a total.
    counted: u64,
    samples: VecDeque<(Instant, u64)>,
    grown: Instant,
}

impl Bar {
    /// A bar that shows itself if stderr is a terminal and nobody asked for quiet.
    pub(crate) fn new(name: String, is_wanted: bool) -> Self {
        let bar = if is_wanted && std::io::stderr().is_terminal() {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(REFRESH_HZ))
        } else {
            ProgressBar::hidden()
        };
        let meter = Arc::new(Mutex::new(Meter::new(name, Instant::now())));
        let (shown, is_utf8) = (Arc::clone(&meter), is_utf8());
        let line = move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
            let line = lock(&shown).line(Instant::now(), terminal_width(), is_utf8);
            let _ = out.write_str(&line); // to a string
        };
        let style = ProgressStyle::with_template("{line}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.with_key("line", line));
        bar.enable_steady_tick(TICK);
        Self { bar, meter }
    }

    /// How much of how much is here, and how much of it this run did not bring.
    pub(crate) fn set(&self, here: u64, resumed: u64, total: u64) {
        lock(&self.meter).set(Instant::now(), here, here.saturating_sub(resumed), total);
        self.bar.set_position(here);
    }

    /// So many entries were counted; how many there are is not known yet.
    pub(crate) fn count(&self, entries: u64) {
        lock(&self.meter).counted = entries;
    }

    /// Says something above the bar.
    pub(crate) fn say(&self, text: &str) {
        self.speaker().say(text);
    }

    pub(crate) fn speaker(&self) -> Speaker {
        Speaker(self.bar.clone())
    }

    /// Takes it off the terminal.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

impl Speaker {
    pub(crate) fn say(&self, text: &str) {
        self.0.suspend(|| stderr::say(text));
    }
}

fn lock(meter: &Mutex<Meter>) -> MutexGuard<'_, Meter> {
    meter.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Meter {
    fn new(name: String, now: Instant) -> Self {
        let samples = VecDeque::from([(now, 0)]);
        Self { name, here: 0, moved: 0, total: None, counted: 0, samples, grown: now }
    }

    fn set(&mut self, now: Instant, here: u64, moved: u64, total: u64) {
        if here > self.here || self.total.is_none() {
            self.grown = now;
        }
        (self.here, self.moved, self.total) = (here, moved, Some(total));
        if self.samples.back().is_none_or(|(at, _)| now.duration_since(*at) >= SAMPLE_TIME) {
            self.samples.push_back((now, moved));
        }
        while self.samples.len() > 2 && now.duration_since(self.samples[1].0) > RATE_TIME {
            self.samples.pop_front();
        }
    }

    /// Bytes a second of late.
    fn rate(&self, now: Instant) -> f64 {
        let Some((since, before)) = self.samples.front() else { return 0.0 };
        let seconds = now.duration_since(*since).as_secs_f64();
        if seconds > 0.0 { self.moved.saturating_sub(*before) as f64 / seconds } else { 0.0 }
    }

    /// The line, in no more than `width` columns: first the bar gives way, then the name.
    fn line(&self, now: Instant, width: usize, is_utf8: bool) -> String {
        let Some(total) = self.total else {
            let counted = match self.counted {
                0 => String::new(),
                counted => format!(" {counted} entries so far"),
            };
            return clipped(&format!("{}{counted} ..", self.name), width);
        };
        let facts = format!("{}/{} {}", human::size(self.here), human::size(total), self.pace(now));
        let room = width.saturating_sub(facts.chars().count() + 1);
        let name = clipped(&self.name, room.saturating_sub(1).min(width / 3));
        let mut line = name.clone();
        let bar_width = room.saturating_sub(name.chars().count() + 4).min(BAR_WIDTH_MAX);
        if bar_width >= 5 {
            let share = if total == 0 { 1.0 } else { self.here as f64 / total as f64 };
            let done = ((share * bar_width as f64) as usize).min(bar_width);
            let (full, empty) = if is_utf8 { ("█", "░") } else { ("#", "-") };
            let _ = write!(line, " [{}{}]", full.repeat(done), empty.repeat(bar_width - done));
        }
        clipped(format!("{line} {facts}").trim_start(), width)
    }

    /// How fast, and how long still.
    fn pace(&self, now: Instant) -> String {
        let silence = now.duration_since(self.grown);
        if silence >= STALL_TIME {
            return format!("stalled for {} s", silence.as_secs());
        }
        let rate = self.rate(now);
        let left_bytes = self.total.unwrap_or_default().saturating_sub(self.here) as f64;
        let rate_text = human::rate(rate as u64, Duration::from_secs(1));
        if rate < 1.0 {
            return rate_text;
        }
        let left = Duration::from_secs_f64((left_bytes / rate).ceil().min(1e9));
        format!("{rate_text} {} left", short(left))
    }
}

/// `7s`, `3m20s`, `2h05m`.
fn short(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

fn clipped(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}

/// One column is left free: a full line makes some terminals begin the next.
fn terminal_width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    let columns = size.map_or(0, |size| usize::from(size.ws_col));
    (if columns == 0 { USUAL_WIDTH } else { columns }).saturating_sub(1)
}

/// Whether the terminal is said to show more than ASCII (locale(7)).
fn is_utf8() -> bool {
    let names = ["LC_ALL", "LC_CTYPE", "LANG"];
    let set = names.iter().filter_map(std::env::var_os).find(|value| !value.is_empty());
    let locale = set.map(|value| value.to_string_lossy().to_ascii_lowercase());
    locale.is_some_and(|locale| locale.contains("utf-8") || locale.contains("utf8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    /// A meter to which `moved` megabytes came in each second, after `resumed` that were here.
    fn meter(start: Instant, resumed: u64, moved: &[u64]) -> (Meter, Instant) {
        let (mut meter, mut now, mut sum) = (Meter::new("big.bin".into(), start), start, 0);
        meter.set(now, resumed * MB, 0, 300 * MB);
        for moved in moved {
            now += Duration::from_secs(1);
            sum += moved;
            meter.set(now, (resumed + sum) * MB, sum * MB, 300 * MB);
        }
        (meter, now)
    }

    #[test]
    fn what_was_here_before_counts_for_nothing_in_the_rate() {
        let (meter, now) = meter(Instant::now(), 100, &[20, 20, 20]);
        let line = meter.line(now, 80, true);
        assert!(line.contains("160 MB/300 MB 20 MB/s 7s left"), "{line}");
    }

    #[test]
    fn entries_that_are_counted_show_before_there_is_a_total() {
        let mut meter = Meter::new("udp://host".into(), Instant::now());
        assert_eq!(meter.line(Instant::now(), 80, true), "udp://host ..");
        meter.counted = 1200;
        assert_eq!(meter.line(Instant::now(), 80, true), "udp://host 1200 entries so far ..");
    }

    #[test]
    fn a_silent_path_is_called_stalled() {
        let (meter, now) = meter(Instant::now(), 0, &[20, 20]);
        let line = |seconds| meter.line(now + Duration::from_secs(seconds), 80, true);
        assert!(line(2).contains("left"), "{}", line(2));
        assert!(line(7).ends_with("40 MB/300 MB stalled for 7 s"), "{}", line(7));
    }

    #[test]
    fn the_rate_is_that_of_late() {
        let (meter, now) = meter(Instant::now(), 0, &[50, 50, 1, 1, 1, 1, 1, 1]);
        assert!((meter.rate(now) - 1e6).abs() < 1e5, "{}", meter.rate(now));
        assert!(meter.samples.len() < 60);
    }

    #[test]
    fn a_line_fits_every_terminal_and_the_bar_gives_way_first() {
        let (meter, now) = meter(Instant::now(), 0, &[20, 20]);
        for width in 0..120 {
            assert!(meter.line(now, width, true).chars().count() <= width, "{width}");
        }
        let line = meter.line(now, 39, true);
        assert!(line.contains("40 MB/300 MB 20 MB/s 13s left"), "{line}");
        assert!(!line.contains('['), "{line}");
        assert!(meter.line(now, 80, false).is_ascii());
        assert!(meter.line(now, 80, true).contains('█'));
    }
}
