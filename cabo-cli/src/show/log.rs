//! The log: on stderr for a person, and in a file where each line has its level, time, module, process and thread.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use cabo::local_time::time_of_day;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, format, layer};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::human::escaped;
use super::stderr::{self, Stderr};
use crate::exit::Failure;

/// The target of what a command shows anyway: it goes to the file alone.
pub(crate) const SHOWN: &str = "shown";

/// Where the log goes, beside stderr.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct LogArgs {
    /// Append to FILE what happens, one line each: [INFO] 12:34:56:789 MODULE/(process:thread): what
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

impl LogArgs {
    /// Opens the file, if one was named.
    pub(crate) fn open(&self) -> Result<Option<LogFile>, Failure> {
        let Some(path) = &self.log else { return Ok(None) };
        let name = escaped(&path.display().to_string());
        match OpenOptions::new().append(true).create(true).open(path) {
            Ok(file) => Ok(Some(LogFile { name, file, has_failed: false })),
            Err(error) => Err(Failure::usage(format!("--log {name}: {error}"))),
        }
    }
}

/// The file; that it takes no more is said once.
pub(crate) struct LogFile {
    name: String,
    file: File,
    has_failed: bool,
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes);
        if let (Err(error), false) = (&written, self.has_failed) {
            stderr::say(&format!("--log {}: {error}; lines are lost", self.name));
        }
        self.has_failed = written.is_err();
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Starts the log: on stderr from `level` on, in the file from INFO on or from `level`, whichever is more.
pub(crate) fn start(level: LevelFilter, file: Option<LogFile>) {
    let colour = anstream::AutoStream::choice(&io::stderr());
    let stderr = layer()
        .with_writer(|| Stderr)
        .with_ansi(colour != anstream::ColorChoice::Never)
        .event_format(OnStderr { is_plain: level <= LevelFilter::WARN })
        .with_filter(filter_fn(|event| event.target() != SHOWN))
        .with_filter(level);
    let file = file.map(|file| {
        let lines = layer().event_format(Line).with_ansi(false);
        let lines = lines.log_internal_errors(false).with_writer(Mutex::new(file));
        lines.with_filter(level.max(LevelFilter::INFO))
    });
    tracing_subscriber::registry().with(stderr).with(file).init();
}

/// A line on stderr: with time and level where the log was asked for, and else like any other line of ours.
struct OnStderr {
    is_plain: bool,
}

impl<S, N> FormatEvent<S, N> for OnStderr
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if !self.is_plain {
            return format().with_target(false).format_event(context, writer, event);
        }
        let is_warning = *event.metadata().level() == Level::WARN;
        writer.write_str(if is_warning { "cabo: warning: " } else { "cabo: " })?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// A line of the file.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let [hour, minute, second] = time_of_day(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        let metadata = event.metadata();
        let module = metadata.module_path().unwrap_or("cabo");
        let (process, thread) = (std::process::id(), rustix::thread::gettid());
        write!(
            writer,
            "[{}] {hour:02}:{minute:02}:{second:02}:{:03} {module}/({process}:{thread}): ",
            metadata.level(),
            now.subsec_millis(),
        )?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
