//! One kind of message: a layout, and what the layout cannot say (D-3).

use std::collections::BTreeMap;

use super::layout::{
    Count, DecodeError, EncodeError, Item, Kind as Part, Layout, Misread, only_free,
};
use super::value::{Fields, Value};

/// A kind of message of a dialect.
#[derive(Clone, Debug, PartialEq)]
pub struct Kind {
    /// Its name; none where a dialect has one kind alone.
    pub name: Option<String>,
    /// Its bytes.
    pub layout: Layout,
    /// Rules by field; fields in groups with the group before them, `values.value`.
    pub rules: BTreeMap<String, Rules>,
}

/// What a dialect says of one field.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// Taken if nothing is given.
    pub default: Option<Value>,
    /// The first number; each message of a connection has one more.
    pub counter: Option<i128>,
    /// Text that is shorter than its field is filled with this byte.
    pub fill: Option<u8>,
    /// A NUL ends the text, and counts.
    pub ends_with_nul: bool,
    /// It says how much that field had as it was given.
    pub counts: Option<(String, Unit)>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unit {
    /// Characters, where the text is UTF-8; else bytes.
    Characters,
    /// Bytes.
    Bytes,
}

/// The next numbers of the counters of one connection.
#[derive(Clone, Debug, Default)]
pub struct Counters(BTreeMap<(Option<String>, String), i128>);

impl Kind {
    /// A layout without rules.
    pub fn plain(layout: Layout) -> Self {
        Self { name: None, layout, rules: BTreeMap::new() }
    }

    /// The bytes of a message.
    pub fn encode(&self, given: &Fields, counters: &mut Counters) -> Result<Vec<u8>, EncodeError> {
        let mut fields = given.clone();
        let mut counted = Vec::new();
        for (path, rules) in &self.rules {
            if path.contains('.') || fields.get(path).is_some() {
                continue;
            }
            if let Some(first) = rules.counter {
                let key = (self.name.clone(), path.clone());
                let number = counters.0.get(&key).copied().unwrap_or(first);
                counted.push((key, number.saturating_add(1)));
                fields.set(path, Value::Int(number));
            } else if let Some((of, unit)) = &rules.counts {
                if let Some(Value::Bytes(text)) = given.get(of) {
                    fields.set(path, Value::Int(unit.count(text)));
                }
            } else if let Some(default) = &rules.default {
                fields.set(path, default.clone());
            }
        }
        self.each_text(&mut fields, |item, rules, text| {
            rules.finish(item, text);
            Ok(())
        })?;
        let bytes = self.layout.encode(&fields)?;
        counters.0.extend(counted); // a message that could not be written takes no number
        Ok(bytes)
    }

    /// The values of a message, as they were given.
    pub fn decode(&self, message: &[u8]) -> Result<Fields, DecodeError> {
        let mut fields = self.layout.decode(message)?;
        self.each_text(&mut fields, |item, rules, text| {
            if rules.ends_with_nul && text.pop() != Some(0) {
                let field = item.name.clone();
                return Err(DecodeError { at: message.len(), field, problem: Misread::NoNul });
            }
            if let Some(fill) = rules.fill {
                let len = text.iter().rposition(|byte| *byte != fill).map_or(0, |last| last + 1);
                text.truncate(len);
            }
            Ok(())
        })?;
        Ok(fields)
    }

    /// Does something with every text that has rules.
    fn each_text<E>(
        &self,
        fields: &mut Fields,
        mut work: impl FnMut(&Item, &Rules, &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        for (path, rules) in self.rules.iter().filter(|(_, rules)| rules.is_about_text()) {
            let names: Vec<&str> = path.split('.').collect();
            walk(self.layout.items(), fields, &names, &mut |item, text| work(item, rules, text))?;
        }
        Ok(())
    }

    /// Whether a path of rules leads to a field, and to which.
    pub(super) fn item(&self, path: &str) -> Option<&Item> {
        let mut items = self.layout.items();
        let mut found = None;
        for name in path.split('.') {
            let item = items.iter().find(|item| item.name == name)?;
            items = match &item.kind {
                Part::Group(_, inner) | Part::Block(_, inner) => inner,
                Part::Pad(_)
                | Part::Align(_)
                | Part::One(_)
                | Part::Several(..)
                | Part::Text(_)
                | Part::Pascal(_) => &[],
            };
            found = Some(item);
        }
        found
    }
}

impl Rules {
    fn is_about_text(&self) -> bool {
        self.fill.is_some() || self.ends_with_nul
    }

    /// Makes of a given text what is written.
    fn finish(&self, item: &Item, text: &mut Vec<u8>) {
        if let (Some(fill), Part::Text(Count::Fixed(size))) = (self.fill, &item.kind) {
            let room = size.saturating_sub(usize::from(self.ends_with_nul));
            text.truncate(cut_between_characters(text, room));
            text.resize(room, fill);
        }
        if self.ends_with_nul {
            text.push(0);
        }
    }
}

impl Unit {
    fn count(self, text: &[u8]) -> i128 {
        let count = match (self, std::str::from_utf8(text)) {
            (Self::Characters, Ok(text)) => text.chars().count(),
            _ => text.len(),
        };
        i128::try_from(count).unwrap_or(i128::MAX)
    }
}

/// How much of a text to keep so that it has at most `room` bytes and no half character (D-3.1).
fn cut_between_characters(text: &[u8], room: usize) -> usize {
    match std::str::from_utf8(text) {
        Ok(text) => {
            (0..=room.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
        }
        Err(_) => text.len().min(room),
    }
}

/// What is done with a text, and the item that it is of.
type Work<'w, E> = dyn FnMut(&Item, &mut Vec<u8>) -> Result<(), E> + 'w;

/// Goes down a path, into every time that a group on it stands there.
fn walk<E>(
    items: &[Item],
    fields: &mut Fields,
    path: &[&str],
    work: &mut Work<'_, E>,
) -> Result<(), E> {
    let Some((name, rest)) = path.split_first() else { return Ok(()) };
    let Some(item) = items.iter().find(|item| item.name == *name) else { return Ok(()) };
    match (&item.kind, fields.get_mut(name)) {
        (Part::Group(_, inner) | Part::Block(_, inner), Some(Value::List(times))) => {
            for time in times {
                match (time, only_free(inner), rest) {
                    (Value::Group(fields), ..) => walk(inner, fields, rest, work)?,
                    (Value::Bytes(bare), Some(free), [last]) if free.name == *last => {
                        work(free, bare)?;
                    }
                    _ => {} // writing it will say what is wrong with it
                }
            }
            Ok(())
        }
        (_, Some(Value::Bytes(text))) if rest.is_empty() => work(item, text),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(layout: &str, rules: &[(&str, Rules)]) -> Kind {
        Kind {
            name: None,
            layout: Layout::parse(layout).expect("a layout"),
            rules: rules.iter().map(|(path, rules)| ((*path).to_owned(), rules.clone())).collect(),
        }
    }

    /// D-3: the record of the labs: a counter, a filled text, a size in characters before the cut.
    #[test]
    fn a_record_counts_and_fills() {
        let record = kind(
            "!B:version L:order L:size 20s:text",
            &[
                ("version", Rules { default: Some(Value::Int(1)), ..Rules::default() }),
                ("order", Rules { counter: Some(1), ..Rules::default() }),
                (
                    "size",
                    Rules { counts: Some(("text".into(), Unit::Characters)), ..Rules::default() },
                ),
                ("text", Rules { fill: Some(b'-'), ..Rules::default() }),
            ],
        );
        let mut counters = Counters::default();
        let long = "ten letters, and twice as many: \u{e1}\u{e1}\u{e1}";
        for (order, text, size, shown) in [
            (1, "hola", 4, "hola"),
            (2, long, 35, "ten letters, and twi"),
            (3, "nineteen letters...\u{e1}", 20, "nineteen letters..."),
        ] {
            let given = Fields::from([("text", Value::from(text))]);
            let bytes = record.encode(&given, &mut counters).expect("fits");
            assert_eq!(bytes.len(), 29);
            assert_eq!(bytes[28] == b'-', order != 2, "filled, not cut in a character: {bytes:x?}");
            let fields = record.decode(&bytes).expect("a record");
            let wanted = [
                ("version", Value::Int(1)),
                ("order", Value::Int(order)),
                ("size", Value::Int(size)),
                ("text", Value::from(shown)),
            ];
            assert_eq!(fields, Fields::from(wanted));
        }
        let unfit = Fields::from([("text", Value::from("x")), ("size", Value::Int(-1))]);
        record.encode(&unfit, &mut counters).expect_err("-1");
        let next = record.encode(&Fields::from([("text", Value::from("x"))]), &mut counters);
        assert_eq!(next.expect("fits")[1..5], [0, 0, 0, 4], "what was not written takes no number");
    }

    /// D-3: a NUL is part of the text on the wire, and of its size, also in each time of a group.
    #[test]
    fn texts_end_with_nul_where_they_are_said_to() {
        let ends = Rules { ends_with_nul: true, ..Rules::default() };
        let message = kind("<i:op=0 i:size {size}s:text", &[("text", ends.clone())]);
        let given = Fields::from([("text", Value::from("valor"))]);
        let bytes = message.encode(&given, &mut Counters::default()).expect("fits");
        assert_eq!(bytes, b"\0\0\0\0\x06\0\0\0valor\0");
        assert_eq!(
            message.decode(&bytes).expect("a message").get("text"),
            Some(&Value::from("valor"))
        );
        message.decode(b"\0\0\0\0\x04\0\0\0ABCD").expect_err("no NUL");
        message.decode(b"\0\0\0\0\0\0\0\0").expect_err("not even an empty text");

        let package =
            kind("<i:op=1 i:size {size}s(i:len {len}s:value):values", &[("values.value", ends)]);
        let values = Value::List(vec![Value::from("hola"), Value::from("mundo")]);
        let bytes = package.encode(&Fields::from([("values", values)]), &mut Counters::default());
        let wire = b"\x01\0\0\0\x13\0\0\0\x05\0\0\0hola\0\x06\0\0\0mundo\0";
        assert_eq!(bytes.expect("fits"), wire);
        let fields = package.decode(wire).expect("a package");
        assert_eq!(package.encode(&fields, &mut Counters::default()).expect("fits"), wire);
    }
}
