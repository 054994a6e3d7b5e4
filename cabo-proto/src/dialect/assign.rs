//! Values from text, as they are typed: `version=1 text=hola`.

use super::layout::{Code, Count, Item, Kind as Part, Layout, integer, only_free};
use super::value::{Fields, Value};

/// Stands for any text in an [`example`].
pub const TEXT: &str = "TEXT";

/// Why a text is no value of a field.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AssignError {
    /// The layout has no such field.
    #[error("there is no field {given:?} here: {known}")]
    Unknown {
        /// As given.
        given: String,
        /// The fields that there are.
        known: String,
    },
    /// A text that is no such value.
    #[error("field {field:?} takes {takes}, not {given:?}")]
    Value {
        /// The field.
        field: String,
        /// What it takes.
        takes: &'static str,
        /// As given.
        given: String,
    },
}

/// Sets a field from text, as it is typed: `version=1`. A list or a group is given one value at a time, and a group of
/// several fields by number and name: `people.0.name=ana`.
pub fn assign(
    layout: &Layout,
    fields: &mut Fields,
    path: &str,
    text: &[u8],
) -> Result<(), AssignError> {
    let names: Vec<&str> = path.split('.').collect();
    assign_in(layout.items(), fields, path, &names, text)
}

fn assign_in(
    items: &[Item],
    fields: &mut Fields,
    path: &str,
    names: &[&str],
    text: &[u8],
) -> Result<(), AssignError> {
    let unknown = || AssignError::Unknown { given: path.to_owned(), known: known(items) };
    let (name, rest) = names.split_first().ok_or_else(unknown)?;
    let is_it = |item: &&Item| item.name == *name && !name.is_empty();
    let item = items.iter().find(is_it).ok_or_else(unknown)?;
    match (&item.kind, rest) {
        (Part::Group(_, inner) | Part::Block(_, inner), []) => {
            let free = only_free(inner).ok_or_else(unknown)?;
            let mut one = Fields::default();
            assign_in(inner, &mut one, path, &[free.name.as_str()], text)?;
            append(fields, name, Value::Group(one));
        }
        (Part::Group(_, inner) | Part::Block(_, inner), [number, rest @ ..]) => {
            let mut times = fields.take_list(name);
            // One after the other, so that a number is never an allocation of its own.
            let number = number.parse().ok().filter(|number| *number <= times.len());
            let number: usize = number.ok_or_else(unknown)?;
            if number == times.len() {
                times.push(Value::Group(Fields::default()));
            }
            if let Some(Value::Group(one)) = times.get_mut(number) {
                assign_in(inner, one, path, rest, text)?;
            }
            fields.set(name, Value::List(times));
        }
        (Part::Several(code, _), []) => {
            let value = read_value(*code, path, text)?;
            append(fields, name, value);
        }
        (Part::One(code), []) => fields.set(name, read_value(*code, path, text)?),
        (Part::Text(_) | Part::Pascal(_), []) => fields.set(name, Value::Bytes(text.to_vec())),
        _ => return Err(unknown()),
    }
    Ok(())
}

/// What [`assign`] takes to fill a layout, as an example: every field that can be given, and does not count another. A
/// group or a list that a field counts stands there twice.
pub fn example(layout: &Layout) -> Vec<(String, String)> {
    let mut given = Vec::new();
    example_in(layout.items(), "", &mut given);
    given
}

fn example_in(items: &[Item], path: &str, given: &mut Vec<(String, String)>) {
    let is_free = |item: &&Item| item.constant.is_none() && !item.is_counting;
    for item in items.iter().filter(is_free) {
        let own = format!("{path}{}", item.name);
        match &item.kind {
            Part::Pad(_) | Part::Align(_) => {}
            Part::One(code) => given.push((own, code.example().to_owned())),
            Part::Several(code, count) => {
                let one = (own, code.example().to_owned());
                given.extend(std::iter::repeat_n(one, *count));
            }
            Part::Text(_) | Part::Pascal(_) => given.push((own, TEXT.to_owned())),
            Part::Group(count, inner) | Part::Block(count, inner) => {
                let times = match (count, &item.kind) {
                    (Count::Fixed(times), Part::Group(..)) => *times,
                    _ => 2,
                };
                for time in 0..times {
                    match only_free(inner).map(|free| &free.kind) {
                        Some(Part::One(code)) => {
                            given.push((own.clone(), code.example().to_owned()))
                        }
                        Some(Part::Text(_) | Part::Pascal(_)) => {
                            given.push((own.clone(), TEXT.to_owned()))
                        }
                        _ => example_in(inner, &format!("{own}.{time}."), given),
                    }
                }
            }
        }
    }
}

/// Adds a value to a list.
fn append(fields: &mut Fields, name: &str, value: Value) {
    let mut values = fields.take_list(name);
    values.push(value);
    fields.set(name, Value::List(values));
}

impl Code {
    /// A value as it is typed.
    fn example(self) -> &'static str {
        match self {
            Self::Char => "x",
            Self::Bool => "true",
            Self::Signed(_) | Self::Unsigned(_) => "0",
            Self::Half | Self::Single | Self::Double => "0.5",
        }
    }
}

fn read_value(code: Code, field: &str, text: &[u8]) -> Result<Value, AssignError> {
    let wrong = || AssignError::Value {
        field: field.to_owned(),
        takes: code.takes(),
        given: String::from_utf8_lossy(text).into_owned(),
    };
    let words = std::str::from_utf8(text).ok();
    let value = match code {
        Code::Char => Some(Value::Bytes(text.to_vec())),
        Code::Bool => match words {
            Some("true" | "1") => Some(Value::Bool(true)),
            Some("false" | "0") => Some(Value::Bool(false)),
            _ => None,
        },
        Code::Signed(_) | Code::Unsigned(_) => words.and_then(integer).map(Value::Int),
        Code::Half | Code::Single | Code::Double => {
            words.and_then(|words| words.parse().ok()).map(Value::Float)
        }
    };
    value.ok_or_else(wrong)
}

fn known(items: &[Item]) -> String {
    let names = items.iter().filter(|item| !item.name.is_empty() && item.constant.is_none());
    let one = |item: &Item| match (&item.kind, item.is_counting) {
        (Part::Group(Count::By(_), inner) | Part::Block(_, inner), _)
            if only_free(inner).is_none() =>
        {
            format!("{}.0.({})", item.name, known(inner))
        }
        (_, true) => format!("[{}]", item.name),
        _ => item.name.clone(),
    };
    names.map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(layout: &str, given: &[(&str, &str)]) -> Result<Fields, AssignError> {
        let layout = Layout::parse(layout).expect("a layout");
        let mut fields = Fields::default();
        for (path, text) in given {
            assign(&layout, &mut fields, path, text.as_bytes())?;
        }
        Ok(fields)
    }

    #[test]
    fn what_was_typed_becomes_values() {
        let layout = "!B:on ?:is f:x 3h:xyz B:n {n}(B:len {len}s:name B:age):people";
        let given = [
            ("on", "0x10"),
            ("is", "true"),
            ("x", "-1.5e3"),
            ("xyz", "1"),
            ("xyz", "-2"),
            ("people.0.name", "ana"),
            ("people.0.age", "9"),
            ("people.1.name", "bo=b"),
        ];
        let fields = assigned(layout, &given).expect("all fit");
        let list = Value::List(vec![Value::Int(1), Value::Int(-2)]);
        let ana = Fields::from([("name", Value::from("ana")), ("age", Value::Int(9))]);
        let bob = Fields::from([("name", Value::from("bo=b"))]);
        assert_eq!(fields.get("on"), Some(&Value::Int(16)));
        assert_eq!(fields.get("is"), Some(&Value::Bool(true)));
        assert_eq!(fields.get("x"), Some(&Value::Float(-1500.0)));
        assert_eq!(fields.get("xyz"), Some(&list));
        let people = vec![Value::Group(ana), Value::Group(bob)];
        assert_eq!(fields.get("people"), Some(&Value::List(people)));
    }

    /// What an example shows can be typed as it stands, and makes a message.
    #[test]
    fn examples_are_messages() {
        for layout in [
            "!B:version L:order L:size 20s:text",
            "<i:op=1 i:size {size}s(i:len {len}s:value):values",
            "@c:letter ?:is 3h:xyz e:half 2x 5p:pascal",
            "!B:n {n}(B:len {len}s:name B:age):people 2(B:x B:y):corners",
        ] {
            let layout = Layout::parse(layout).expect("a layout");
            let mut fields = Fields::default();
            for (path, text) in example(&layout) {
                assign(&layout, &mut fields, &path, text.as_bytes()).expect("fits");
            }
            layout.encode(&fields).unwrap_or_else(|error| panic!("{}: {error}", layout.text()));
        }
        let layout = Layout::parse("!B:n {n}(B:len {len}s:name B:age):people").expect("a layout");
        let paths: Vec<String> = example(&layout).into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["people.0.name", "people.0.age", "people.1.name", "people.1.age"],);
    }

    #[test]
    fn what_does_not_fit_is_named_with_what_would() {
        let layout = "!B:version B:n {n}(B:len {len}s:name B:age):people B:end=7";
        let known = "version, [n], people.0.([len], name, age)";
        for path in
            ["versions", "people", "people.1.name", "people.x.name", "version.0", "", "end.x"]
        {
            match assigned(layout, &[(path, "1")]) {
                Err(AssignError::Unknown { given, known: shown }) => {
                    assert_eq!((given.as_str(), shown.as_str()), (path, known));
                }
                other => panic!("{path}: {other:?}"),
            }
        }
        let error = assigned(layout, &[("version", "one")]).expect_err("no number");
        assert_eq!(error.to_string(), "field \"version\" takes an integer, not \"one\"");
    }
}
