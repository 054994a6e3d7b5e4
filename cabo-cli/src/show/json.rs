//! One object a line on stdout, for machines.

use std::io::{self, Write as _};

use serde_json::Value;

use crate::show::stdout;

/// Writes one line.
pub(crate) fn line(value: &Value) -> io::Result<()> {
    let mut out = stdout::raw();
    writeln!(out, "{value}")?;
    out.flush()
}
