//! Progress on a terminal: a bar with rate and time left, and nothing at all in a pipe.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const REFRESH_HZ: u8 = 10;
const WITH_TOTAL: &str =
    "{msg} {bar:30} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} left";
const UNTIL_TOTAL: &str = "{spinner} {msg}";

/// What a transfer shows while it runs, on stderr.
pub(crate) struct Bar {
    bar: ProgressBar,
    resumed: AtomicU64,
}

impl Bar {
    /// A bar that shows itself if stderr is a terminal and nobody asked for quiet.
    pub(crate) fn new(name: String, is_wanted: bool) -> Self {
        let bar = if is_wanted && std::io::stderr().is_terminal() {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(REFRESH_HZ))
        } else {
            ProgressBar::hidden()
        };
        bar.set_style(style(UNTIL_TOTAL));
        bar.set_message(name);
        bar.enable_steady_tick(Duration::from_millis(200)); // the time left runs on while nothing comes
        Self { bar, resumed: AtomicU64::new(0) }
    }

    /// How much of how much is here, and how much of it was here before.
    pub(crate) fn set(&self, here: u64, resumed: u64, total: u64) {
        if self.bar.length() != Some(total) {
            self.bar.set_style(style(WITH_TOTAL));
            self.bar.set_length(total);
        }
        self.bar.set_position(here);
        // What was here before counts for nothing in the rate.
        if self.resumed.swap(resumed, Ordering::Relaxed) != resumed {
            self.bar.reset_eta();
        }
    }

    /// Says something above the bar.
    pub(crate) fn say(&self, text: &str) {
        self.bar.suspend(|| anstream::eprintln!("{text}"));
    }

    /// Takes it off the terminal.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
