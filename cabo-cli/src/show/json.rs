//! One object a line on stdout, for machines.

use std::io::{self, Write as _};

use serde_json::Value;

/// Writes one line.
pub(crate) fn line(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}
