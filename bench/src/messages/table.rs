//! Figures of one row: medians and ranges for each peer, and whether the aims are met.

use std::fmt;

use serde::Serialize;

/// One figure of every run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Column {
    pub name: &'static str,
    pub digits: usize,
}

/// What is aimed for: a column of one peer against the same of another, or against a number.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Aim {
    pub who: &'static str,
    pub column: &'static str,
    pub of: Option<&'static str>,
    pub bound: Bound,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
    /// Said, without an aim.
    Stated,
}

/// A row with all that was measured for it.
#[derive(Debug, Serialize)]
pub struct Table {
    pub name: String,
    pub cores: &'static str,
    pub conditions: String,
    pub columns: Vec<Column>,
    pub peers: Vec<Measured>,
    pub aims: Vec<Aim>,
    pub verdicts: Vec<Verdict>,
}

/// One peer: a value for each run and column, or why there is none.
#[derive(Debug, Serialize)]
pub struct Measured {
    pub name: &'static str,
    pub runs: Vec<Vec<f64>>,
    pub missing: Option<String>,
}

/// What came of one aim.
#[derive(Debug, Serialize)]
pub struct Verdict {
    pub text: String,
    pub value: Option<f64>,
    pub is_met: Option<bool>,
}

impl Table {
    /// Judges the aims; call it when all runs are there.
    pub fn judge(&mut self) {
        self.verdicts = self.aims.iter().map(|aim| self.verdict(aim)).collect();
    }

    fn verdict(&self, aim: &Aim) -> Verdict {
        let Aim { who, column, of, .. } = aim;
        let mut text = format!("{who}: {column}");
        match aim.bound {
            Bound::AtMost(bound) => text += &format!(" at most {bound}"),
            Bound::AtLeast(bound) => text += &format!(" at least {bound}"),
            Bound::Stated => {}
        }
        let value = match of {
            None => self.median(who, column),
            Some(other) => {
                text += &format!(" of {other}");
                self.median(who, column)
                    .zip(self.median(other, column))
                    .map(|(own, other)| own / other)
            }
        };
        let is_met = value.and_then(|value| match aim.bound {
            Bound::AtMost(bound) => Some(value <= bound),
            Bound::AtLeast(bound) => Some(value >= bound),
            Bound::Stated => None,
        });
        Verdict { text, value, is_met }
    }

    fn median(&self, who: &str, column: &str) -> Option<f64> {
        let at = self.columns.iter().position(|own| own.name == column)?;
        self.peers.iter().find(|peer| peer.name == who)?.median(at)
    }
}

impl Measured {
    fn values(&self, column: usize) -> Vec<f64> {
        let values = self.runs.iter().filter_map(|run| run.get(column));
        let mut values: Vec<f64> = values.copied().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    fn median(&self, column: usize) -> Option<f64> {
        let values = self.values(column);
        values.get(values.len() / 2).copied()
    }

    fn cell(&self, column: usize, digits: usize) -> String {
        let values = self.values(column);
        match (values.first(), values.last()) {
            (Some(low), Some(high)) => {
                let median = values[values.len() / 2];
                format!("{median:.digits$} ({low:.digits$}-{high:.digits$})")
            }
            _ => "-".into(),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} -- {}\n  {}", self.name, self.cores, self.conditions)?;
        let width = self.peers.iter().map(|peer| peer.name.len()).max().unwrap_or_default();
        write!(f, "  {:width$}", "")?;
        for column in &self.columns {
            write!(f, "  {:>24}", column.name)?;
        }
        writeln!(f)?;
        for peer in &self.peers {
            write!(f, "  {:width$}", peer.name)?;
            if let Some(missing) = &peer.missing {
                writeln!(f, "  not measured: {missing}")?;
                continue;
            }
            for (at, column) in self.columns.iter().enumerate() {
                write!(f, "  {:>24}", peer.cell(at, column.digits))?;
            }
            writeln!(f)?;
        }
        for Verdict { text, value, is_met } in &self.verdicts {
            let Some(value) = value else {
                writeln!(f, "  aim     {text}: not measured")?;
                continue;
            };
            match is_met {
                Some(true) => writeln!(f, "  aim     {text}: {value:.2}, met")?,
                Some(false) => writeln!(f, "  aim     {text}: {value:.2}, MISSED")?,
                None => writeln!(f, "  beside  {text}: {value:.2}")?,
            }
        }
        Ok(())
    }
}
