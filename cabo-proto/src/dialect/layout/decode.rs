//! Bytes to values, and where a message ends (D-1.11).

use super::{Code, Count, Item, Kind, Layout, Order, Reference, VALUES_MAX, aligned, least_size};
use crate::dialect::value::{Fields, Value};

/// Bytes of a text that an error shows.
const SHOWN_BYTES: usize = 16;

/// Why bytes are no message of a layout, and where.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("byte {at}, field {field:?}: {problem}")]
pub struct DecodeError {
    /// The byte of the message, from 0.
    pub at: usize,
    /// The field, with the groups around it; empty behind the last.
    pub field: String,
    /// What is wrong there.
    pub problem: Misread,
}

/// What can be wrong with the bytes of a message.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Misread {
    /// It ends too early.
    #[error("{missing} bytes are missing")]
    Missing {
        /// How many more this field needs.
        missing: usize,
    },
    /// It ends too late.
    #[error("{0} bytes are left over")]
    LeftOver(usize),
    /// A count below zero.
    #[error("is counted as {0}")]
    Negative(i128),
    /// Another value than the constant.
    #[error("is always {wanted}, and is {found} here")]
    Constant {
        /// What it should be.
        wanted: String,
        /// What it is.
        found: String,
    },
    /// A text without the NUL that ends it.
    #[error("does not end with NUL")]
    NoNul,
    /// More values than a message may have.
    #[error("a message has at most {VALUES_MAX} values")]
    TooMany,
}

/// Where a message ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Extent {
    /// It has so many bytes.
    Whole(usize),
    /// It has at least so many bytes, more than are there.
    AtLeast(usize),
}

impl Layout {
    /// The values of a message; `bytes` are one message, and no more.
    pub fn decode(&self, bytes: &[u8]) -> Result<Fields, DecodeError> {
        let mut reader = Reader {
            order: self.order,
            bytes,
            at: 0,
            path: Vec::new(),
            open: Vec::new(),
            values_left: VALUES_MAX,
        };
        let fields = reader.items(&self.items)?;
        match bytes.len() - reader.at {
            0 => Ok(fields),
            left => Err(reader.wrong(Misread::LeftOver(left))),
        }
    }

    /// Where the message ends that `bytes` begin with; what lies in blocks is not looked at.
    pub fn extent(&self, bytes: &[u8]) -> Result<Extent, DecodeError> {
        match self.fixed_size {
            Some(size) if size <= bytes.len() => return Ok(Extent::Whole(size)),
            Some(size) => return Ok(Extent::AtLeast(size)),
            None => {}
        }
        let mut walk = Walk { order: self.order, bytes, at: 0, open: Vec::new() };
        match walk.items(&self.items) {
            Ok(()) => Ok(Extent::Whole(walk.at)),
            Err(Stop::Short(least)) => Ok(Extent::AtLeast(least)),
            Err(Stop::Wrong(error)) => Err(error),
        }
    }
}

struct Reader<'a> {
    order: Order,
    /// The message up to the end of the innermost block.
    bytes: &'a [u8],
    at: usize,
    path: Vec<String>,
    /// For each open group its fields that count, by their place.
    open: Vec<Vec<(usize, i128)>>,
    values_left: usize,
}

impl<'a> Reader<'a> {
    fn items(&mut self, items: &[Item]) -> Result<Fields, DecodeError> {
        self.open.push(Vec::new());
        let mut fields = Fields::default();
        for (place, item) in items.iter().enumerate() {
            self.path.push(item.name.clone());
            if let Some(value) = self.item(place, item)? {
                fields.push(&item.name, value);
            }
            self.path.pop();
        }
        self.open.pop();
        Ok(fields)
    }

    fn item(&mut self, place: usize, item: &Item) -> Result<Option<Value>, DecodeError> {
        let start = self.at;
        let value = match &item.kind {
            Kind::Pad(size) => {
                self.take(*size)?;
                return Ok(None);
            }
            Kind::Align(code) => {
                self.align(*code)?;
                return Ok(None);
            }
            Kind::One(code) => self.one(*code)?,
            Kind::Several(code, count) => {
                self.check(code.size(self.order).saturating_mul(*count))?;
                let one = |_| self.one(*code);
                Value::List((0..*count).map(one).collect::<Result<_, _>>()?)
            }
            Kind::Text(count) => {
                let size = self.count(*count)?;
                self.value()?;
                Value::Bytes(self.take(size)?.to_vec())
            }
            Kind::Pascal(size) => {
                self.value()?;
                let bytes = self.take(*size)?;
                let len = bytes.first().map_or(0, |len| usize::from(*len));
                Value::Bytes(bytes.iter().skip(1).take(len).copied().collect())
            }
            Kind::Group(count, inner) => self.group(*count, inner)?,
            Kind::Block(count, inner) => self.block(*count, inner)?,
        };
        if let Some(wanted) = &item.constant
            && !is_same(wanted, &value, &item.kind)
        {
            self.at = start;
            let (wanted, found) = (in_words(wanted), in_words(&value));
            return Err(self.wrong(Misread::Constant { wanted, found }));
        }
        if let (true, Value::Int(number), Some(counts)) =
            (item.is_counting, &value, self.open.last_mut())
        {
            counts.push((place, *number));
        }
        Ok(Some(value))
    }

    fn one(&mut self, code: Code) -> Result<Value, DecodeError> {
        self.align(code)?;
        self.value()?;
        let bytes = self.take(code.size(self.order))?;
        Ok(code.read(bytes, self.order))
    }

    fn group(&mut self, count: Count, items: &[Item]) -> Result<Value, DecodeError> {
        let count = self.count(count)?;
        self.check(least_size(items, self.order).saturating_mul(count))?;
        let mut times = Vec::new();
        for number in 0..count {
            times.push(self.time(number, items)?);
        }
        Ok(Value::List(times))
    }

    fn block(&mut self, count: Count, items: &[Item]) -> Result<Value, DecodeError> {
        let size = self.count(count)?;
        self.check(size)?;
        let whole = self.bytes;
        self.bytes = whole.get(..self.at + size).unwrap_or(whole);
        let mut times = Vec::new();
        while self.at < self.bytes.len() {
            times.push(self.time(times.len(), items)?);
        }
        self.bytes = whole;
        Ok(Value::List(times))
    }

    /// A group, one time.
    fn time(&mut self, number: usize, items: &[Item]) -> Result<Value, DecodeError> {
        self.value()?;
        self.path.push(number.to_string());
        let fields = self.items(items)?;
        self.path.pop();
        Ok(Value::Group(fields))
    }

    fn count(&self, count: Count) -> Result<usize, DecodeError> {
        match count {
            Count::Fixed(count) => Ok(count),
            Count::By(reference) => {
                let number = lookup(&self.open, reference);
                usize::try_from(number).map_err(|_| self.wrong(misfit(number)))
            }
        }
    }

    fn align(&mut self, code: Code) -> Result<(), DecodeError> {
        let padding = aligned(self.at, code, self.order) - self.at;
        self.take(padding).map(drop)
    }

    fn value(&mut self) -> Result<(), DecodeError> {
        let left = self.values_left.checked_sub(1);
        self.values_left = left.ok_or_else(|| self.wrong(Misread::TooMany))?;
        Ok(())
    }

    fn take(&mut self, size: usize) -> Result<&'a [u8], DecodeError> {
        self.check(size)?;
        let taken = self.bytes.get(self.at..self.at + size).unwrap_or_default();
        self.at += size;
        Ok(taken)
    }

    /// Refuses what would go beyond the end.
    fn check(&self, size: usize) -> Result<(), DecodeError> {
        match size.checked_sub(self.bytes.len() - self.at) {
            None | Some(0) => Ok(()),
            Some(missing) => Err(self.wrong(Misread::Missing { missing })),
        }
    }

    fn wrong(&self, problem: Misread) -> DecodeError {
        DecodeError { at: self.at, field: self.path.join("."), problem }
    }
}

/// Whether a value that was read is the constant, as it would have been written.
pub(super) fn is_same(constant: &Value, value: &Value, kind: &Kind) -> bool {
    match (constant, value, kind) {
        (Value::Bytes(constant), Value::Bytes(value), Kind::Text(Count::Fixed(_))) => {
            let (start, rest) = value.split_at(constant.len().min(value.len()));
            start == constant && rest.iter().all(|byte| *byte == 0)
        }
        (Value::Int(constant), Value::Bool(value), _) => (*constant != 0) == *value,
        (Value::Int(constant), Value::Float(value), _) => *constant as f64 == *value,
        (constant, value, _) => constant == value,
    }
}

/// A constant, or what stands in its place, in a word: constants are single numbers and short texts.
pub(super) fn in_words(value: &Value) -> String {
    match value {
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::Bytes(bytes) => {
            let dots = if bytes.len() > SHOWN_BYTES { ".." } else { "" };
            let begin = bytes.get(..SHOWN_BYTES).unwrap_or(bytes);
            format!("\"{}{dots}\"", begin.escape_ascii())
        }
        Value::List(_) | Value::Group(_) => "several values".to_owned(),
    }
}

fn lookup(open: &[Vec<(usize, i128)>], reference: Reference) -> i128 {
    let group = open.len().checked_sub(reference.up + 1).and_then(|depth| open.get(depth));
    let found = group.into_iter().flatten().find(|(place, _)| *place == reference.item);
    found.map_or(0, |(_, number)| *number) // reading the layout made sure that it is there
}

/// What is wrong with a count that no size can be.
fn misfit(number: i128) -> Misread {
    if number < 0 { Misread::Negative(number) } else { Misread::Missing { missing: usize::MAX } }
}

/// Goes over a message without keeping its values.
struct Walk<'a> {
    order: Order,
    bytes: &'a [u8],
    at: usize,
    open: Vec<Vec<(usize, i128)>>,
}

enum Stop {
    Short(usize),
    Wrong(DecodeError),
}

impl Walk<'_> {
    fn items(&mut self, items: &[Item]) -> Result<(), Stop> {
        self.open.push(Vec::new());
        for (place, item) in items.iter().enumerate() {
            match &item.kind {
                Kind::Group(count, inner) => self.group(*count, inner, &item.name)?,
                Kind::Text(count @ Count::By(_)) | Kind::Block(count, _) => {
                    let size = self.count(*count, &item.name)?;
                    self.skip_to(self.at.saturating_add(size))?;
                }
                Kind::One(code) if item.is_counting => self.counting(place, *code)?,
                Kind::Pad(_)
                | Kind::Align(_)
                | Kind::One(_)
                | Kind::Several(..)
                | Kind::Text(Count::Fixed(_))
                | Kind::Pascal(_) => {
                    if let Some(end) = item.kind.end(self.at, self.order) {
                        self.skip_to(end)?;
                    }
                }
            }
        }
        self.open.pop();
        Ok(())
    }

    fn group(&mut self, count: Count, items: &[Item], name: &str) -> Result<(), Stop> {
        let count = self.count(count, name)?;
        let least = least_size(items, self.order).saturating_mul(count);
        if self.order != Order::Native && items.iter().all(|item| is_fixed(&item.kind)) {
            return self.skip_to(self.at.saturating_add(least));
        }
        if self.at.saturating_add(least) > self.bytes.len() {
            return Err(Stop::Short(self.at.saturating_add(least)));
        }
        (0..count).try_for_each(|_| self.items(items))
    }

    fn counting(&mut self, place: usize, code: Code) -> Result<(), Stop> {
        let start = self.at;
        self.skip_to(start + code.size(self.order))?; // counting fields are not aligned (D-1.8)
        let bytes = self.bytes.get(start..self.at).unwrap_or_default();
        if let (Value::Int(number), Some(counts)) =
            (code.read(bytes, self.order), self.open.last_mut())
        {
            counts.push((place, number));
        }
        Ok(())
    }

    fn count(&self, count: Count, name: &str) -> Result<usize, Stop> {
        match count {
            Count::Fixed(count) => Ok(count),
            Count::By(reference) => {
                let number = lookup(&self.open, reference);
                usize::try_from(number).map_err(|_| {
                    let (at, field, problem) = (self.at, name.to_owned(), misfit(number));
                    Stop::Wrong(DecodeError { at, field, problem })
                })
            }
        }
    }

    fn skip_to(&mut self, end: usize) -> Result<(), Stop> {
        if end > self.bytes.len() {
            return Err(Stop::Short(end));
        }
        self.at = end;
        Ok(())
    }
}

/// Whether it has the same size in every message, and no reference in it.
fn is_fixed(kind: &Kind) -> bool {
    kind.end(0, Order::Little).is_some()
}
