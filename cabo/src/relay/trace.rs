//! One JSON line a verdict, for whoever wants to see what the cable did.

use std::io::{BufWriter, Write};
use std::time::{Duration, Instant};

use cabo_proto::sim::link::Verdict;

/// A writer of verdicts. It falls silent after the first error.
pub(super) struct Trace {
    writer: BufWriter<Box<dyn Write + Send>>,
    is_broken: bool,
}

impl Trace {
    pub(super) fn new(writer: Box<dyn Write + Send>) -> Self {
        Self { writer: BufWriter::with_capacity(64 << 10, writer), is_broken: false }
    }

    pub(super) fn note(
        &mut self,
        elapsed: Duration,
        now: Instant,
        direction: usize,
        len: usize,
        verdict: Verdict,
    ) {
        if self.is_broken {
            return;
        }
        let direction = ["forward", "backward"].get(direction).copied().unwrap_or_default();
        let seconds = elapsed.as_secs_f64();
        let head = format_args!(
            r#"{{"t":{seconds:.6},"direction":"{direction}","length":{len},"verdict":"#
        )
        .to_string();
        let result = match verdict {
            Verdict::Delivered { at, duplicated, corrupted, reordered } => {
                let delay_us = at.saturating_duration_since(now).as_micros();
                writeln!(
                    self.writer,
                    concat!(
                        r#"{head}"delivered","delay_us":{delay_us},"duplicated":{duplicated},"#,
                        r#""corrupted":{corrupted},"reordered":{reordered}}}"#
                    ),
                    head = head,
                    delay_us = delay_us,
                    duplicated = duplicated,
                    corrupted = corrupted,
                    reordered = reordered,
                )
            }
            Verdict::Lost => writeln!(self.writer, r#"{head}"lost"}}"#),
            Verdict::QueueFull => writeln!(self.writer, r#"{head}"queue full"}}"#),
            Verdict::TooBig => writeln!(self.writer, r#"{head}"too big"}}"#),
            Verdict::Down => writeln!(self.writer, r#"{head}"down"}}"#),
        };
        self.is_broken = result.is_err();
    }

    pub(super) fn flush(&mut self) {
        self.is_broken |= self.writer.flush().is_err();
    }

    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }
}
