//! Values to bytes (D-1.5, D-1.10). A field that counts is written as zero, and set when what it counts has been written.

use super::decode::{in_words, is_same};
use super::{Code, Count, Item, Kind, Layout, Order, Reference, Unfit, aligned};
use crate::dialect::value::{Fields, Value};

/// Why values cannot be written, and for which field.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("field {field:?}: {problem}")]
pub struct EncodeError {
    /// The field, with the groups around it: `people.1.name`.
    pub field: String,
    /// What is wrong with it.
    pub problem: Miswritten,
}

/// What can be wrong with given values.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Miswritten {
    /// A value that its code does not take.
    #[error("{0}")]
    Unfit(#[from] Unfit),
    /// Nothing was given.
    #[error("is not given")]
    Missing,
    /// The layout has no such field.
    #[error("is not in this layout")]
    Unknown,
    /// Another value than its constant.
    #[error("is always {0}, and another value was given")]
    Constant(String),
    /// Not what is wanted here.
    #[error("takes {0}")]
    Sort(&'static str),
    /// A list of the wrong length.
    #[error("takes {wanted} values, {given} were given")]
    Length {
        /// As the layout says.
        wanted: usize,
        /// As given.
        given: usize,
    },
    /// A count that was given, or stands for two things, and is not right.
    #[error("says {says}, but counts {counted}")]
    Count {
        /// As given, or as the first thing set it.
        says: i128,
        /// What it counts.
        counted: usize,
    },
}

impl Layout {
    /// The bytes of a message with these values.
    pub fn encode(&self, fields: &Fields) -> Result<Vec<u8>, EncodeError> {
        let size = self.fixed_size().unwrap_or_default();
        let mut writer = Writer {
            order: self.order,
            out: Vec::with_capacity(size.min(64 * 1024)),
            path: Vec::new(),
            open: Vec::new(),
        };
        writer.items(&self.items, fields)?;
        Ok(writer.out)
    }
}

struct Writer {
    order: Order,
    out: Vec<u8>,
    /// Names of the groups and of the field at work.
    path: Vec<String>,
    /// For each open group its fields that count.
    open: Vec<Vec<Slot>>,
}

/// A field that counts, in the bytes written so far.
struct Slot {
    item: usize,
    name: String,
    at: usize,
    code: Code,
    /// As given, or as what it counts set it.
    says: Option<i128>,
}

impl Writer {
    fn items(&mut self, items: &[Item], fields: &Fields) -> Result<(), EncodeError> {
        if let Some((name, _)) = fields.iter().find(|(name, _)| !has(items, name)) {
            self.path.push(name.to_owned());
            return Err(self.wrong(Miswritten::Unknown));
        }
        self.open.push(Vec::new());
        for (place, item) in items.iter().enumerate() {
            self.path.push(item.name.clone());
            self.item(place, item, fields.get(&item.name))?;
            self.path.pop();
        }
        self.open.pop();
        Ok(())
    }

    fn item(
        &mut self,
        place: usize,
        item: &Item,
        given: Option<&Value>,
    ) -> Result<(), EncodeError> {
        let value = match (&item.constant, given) {
            (Some(constant), Some(given)) if !is_same(constant, given, &item.kind) => {
                return Err(self.wrong(Miswritten::Constant(in_words(constant))));
            }
            (Some(constant), _) => Some(constant),
            (None, given) => given,
        };
        match (&item.kind, value) {
            (Kind::Pad(size), _) => self.out.resize(self.out.len() + size, 0),
            (Kind::Align(code), _) => self.align(*code),
            (Kind::One(code), value) if item.is_counting => self.counting(place, *code, value)?,
            (Kind::Group(count @ Count::By(_), inner), None) => self.group(*count, inner, &[])?,
            (Kind::Block(count, inner), None) => self.block(*count, inner, &[])?,
            (_, None) => return Err(self.wrong(Miswritten::Missing)),
            (Kind::One(code), Some(value)) => self.one(*code, value)?,
            (Kind::Several(code, count), Some(value)) => {
                let values = self.list(value)?;
                self.check_length(values.len(), *count)?;
                for value in values {
                    self.one(*code, value)?;
                }
            }
            (Kind::Text(count), Some(value)) => self.text(*count, value)?,
            (Kind::Pascal(size), Some(value)) => self.pascal(*size, value)?,
            (Kind::Group(count, inner), Some(value)) => {
                let values = self.list(value)?;
                self.group(*count, inner, values)?;
            }
            (Kind::Block(count, inner), Some(value)) => {
                let values = self.list(value)?;
                self.block(*count, inner, values)?;
            }
        }
        Ok(())
    }

    fn one(&mut self, code: Code, value: &Value) -> Result<(), EncodeError> {
        self.align(code);
        code.write(value, self.order, &mut self.out).map_err(|unfit| self.wrong(unfit.into()))
    }

    fn counting(
        &mut self,
        item: usize,
        code: Code,
        value: Option<&Value>,
    ) -> Result<(), EncodeError> {
        self.one(code, value.unwrap_or(&Value::Int(0)))?;
        let says = match value {
            Some(Value::Int(says)) => Some(*says),
            _ => None,
        };
        let at = self.out.len() - code.size(self.order);
        let slot = Slot { item, name: self.path.join("."), at, code, says };
        if let Some(slots) = self.open.last_mut() {
            slots.push(slot);
        }
        Ok(())
    }

    fn text(&mut self, count: Count, value: &Value) -> Result<(), EncodeError> {
        let bytes = self.bytes(value)?;
        match count {
            Count::Fixed(size) => {
                let end = self.out.len() + size;
                self.out.extend(bytes.iter().take(size));
                self.out.resize(end, 0);
            }
            Count::By(reference) => {
                self.out.extend_from_slice(bytes);
                self.settle(reference, bytes.len())?;
            }
        }
        Ok(())
    }

    fn pascal(&mut self, size: usize, value: &Value) -> Result<(), EncodeError> {
        let bytes = self.bytes(value)?;
        let Some(room) = size.checked_sub(1) else { return Ok(()) };
        let end = self.out.len() + size;
        let len = bytes.len().min(room);
        self.out.push(u8::try_from(len).unwrap_or(u8::MAX));
        self.out.extend(bytes.iter().take(len));
        self.out.resize(end, 0);
        Ok(())
    }

    fn group(&mut self, count: Count, items: &[Item], values: &[Value]) -> Result<(), EncodeError> {
        match count {
            Count::Fixed(wanted) => self.check_length(values.len(), wanted)?,
            Count::By(reference) => self.settle(reference, values.len())?,
        }
        self.times(items, values)
    }

    fn block(&mut self, count: Count, items: &[Item], values: &[Value]) -> Result<(), EncodeError> {
        let start = self.out.len();
        self.times(items, values)?;
        let size = self.out.len() - start;
        match count {
            Count::Fixed(wanted) => self.check_length(size, wanted),
            Count::By(reference) => self.settle(reference, size),
        }
    }

    /// A group once for each value; one with a single free field takes its values bare.
    fn times(&mut self, items: &[Item], values: &[Value]) -> Result<(), EncodeError> {
        for (number, value) in values.iter().enumerate() {
            self.path.push(number.to_string());
            match (value, only_free(items)) {
                (Value::Group(fields), _) => self.items(items, fields)?,
                (bare, Some(free)) => {
                    let mut fields = Fields::default();
                    fields.push(&free.name, bare.clone());
                    self.items(items, &fields)?;
                }
                (_, None) => return Err(self.wrong(Miswritten::Sort("named values"))),
            }
            self.path.pop();
        }
        Ok(())
    }

    /// Tells a field that counts what it counts.
    fn settle(&mut self, reference: Reference, counted: usize) -> Result<(), EncodeError> {
        let number = i128::try_from(counted).unwrap_or(i128::MAX);
        let (order, depth) = (self.order, self.open.len());
        let slots = depth.checked_sub(reference.up + 1).and_then(|depth| self.open.get_mut(depth));
        let slot =
            slots.and_then(|slots| slots.iter_mut().find(|slot| slot.item == reference.item));
        let Some(slot) = slot else { return Ok(()) }; // reading the layout made sure that it is there
        let problem = match slot.says {
            Some(says) if says == number => return Ok(()),
            Some(says) => Miswritten::Count { says, counted },
            None => {
                slot.says = Some(number);
                let mut bytes = Vec::with_capacity(8);
                match slot.code.write(&Value::Int(number), order, &mut bytes) {
                    Ok(()) => {
                        let place = self.out.iter_mut().skip(slot.at);
                        place.zip(bytes).for_each(|(old, new)| *old = new);
                        return Ok(());
                    }
                    Err(unfit) => unfit.into(),
                }
            }
        };
        Err(EncodeError { field: slot.name.clone(), problem })
    }

    fn align(&mut self, code: Code) {
        self.out.resize(aligned(self.out.len(), code, self.order), 0);
    }

    fn list<'v>(&self, value: &'v Value) -> Result<&'v [Value], EncodeError> {
        value.as_list().ok_or_else(|| self.wrong(Miswritten::Sort("a list")))
    }

    fn bytes<'v>(&self, value: &'v Value) -> Result<&'v [u8], EncodeError> {
        value.as_bytes().ok_or_else(|| self.wrong(Miswritten::Sort("text")))
    }

    fn check_length(&self, given: usize, wanted: usize) -> Result<(), EncodeError> {
        if given == wanted {
            return Ok(());
        }
        Err(self.wrong(Miswritten::Length { wanted, given }))
    }

    fn wrong(&self, problem: Miswritten) -> EncodeError {
        EncodeError { field: self.path.join("."), problem }
    }
}

fn has(items: &[Item], name: &str) -> bool {
    !name.is_empty() && items.iter().any(|item| item.name == name)
}

/// The one field of a group that somebody has to give.
pub(in crate::dialect) fn only_free(items: &[Item]) -> Option<&Item> {
    let is_free =
        |item: &&Item| !item.name.is_empty() && item.constant.is_none() && !item.is_counting;
    let mut free = items.iter().filter(is_free);
    let first = free.next()?;
    free.next().is_none().then_some(first)
}
