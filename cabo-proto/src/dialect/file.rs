//! Reads a dialect from TOML (D-5). Every mistake is named with its line and column.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Dialect;
use super::config::Config;
use super::cut::{Cut, LIMIT_BYTES};
use super::hello::{DEADLINE, Hello};
use super::kind::{Kind, Rules, Unit};
use super::layout::{Count, Kind as Part, Layout};
use crate::dialect::value::Value;

/// Bytes of a dialect file.
pub const FILE_MAX: usize = 256 * 1024;
/// The longest that a hello may be.
const HELLO_MAX: usize = 4096;
/// The longest deadline of a hello.
const DEADLINE_MAX: Duration = Duration::from_secs(600);

/// A mistake in a dialect file.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct FileError {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong there.
    pub problem: String,
}

/// A problem, and the bytes that have it.
type Fault = (Range<usize>, String);

/// Reads the text of a dialect file.
pub fn read(text: &str) -> Result<Dialect, FileError> {
    if text.len() > FILE_MAX {
        let problem = format!("a dialect has at most {FILE_MAX} bytes");
        return Err(FileError { line: 1, column: 1, problem });
    }
    dialect(text).map_err(|(span, problem)| {
        let before = text.get(..span.start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        FileError { line: before.matches('\n').count() + 1, column, problem }
    })
}

fn dialect(text: &str) -> Result<Dialect, Fault> {
    let whole = DeTable::parse(text)
        .map_err(|error| (error.span().unwrap_or_default(), error.message().to_owned()))?;
    let top = Table { span: whole.span(), entries: whole.get_ref() };
    top.check(&[
        "name",
        "about",
        "port",
        "cut",
        "limit-bytes",
        "hello",
        "config",
        "leave",
        "kind",
    ])?;
    let kinds = kinds(&top)?;
    let cut = cut(&top, &kinds)?;
    let hello = match top.table("hello")? {
        Some(table) => Some(hello(&table)?),
        None => None,
    };
    let config = match top.table("config")? {
        Some(table) => Some(config(&table, &kinds)?),
        None => None,
    };
    Ok(Dialect {
        name: top.text("name")?.unwrap_or_default().to_owned(),
        about: top.text("about")?.unwrap_or_default().to_owned(),
        port: top.number("port", 1..=65_535)?,
        cut,
        limit_bytes: top.number("limit-bytes", 1..=1 << 31)?.unwrap_or(LIMIT_BYTES),
        hello,
        config,
        leave: leave(&top)?,
        kinds,
    })
}

fn cut(top: &Table<'_>, kinds: &[Kind]) -> Result<Cut, Fault> {
    match (top.get("cut"), kinds) {
        (Some(value), _) => {
            Cut::parse(value.text()?).map_err(|error| (value.span.clone(), error.to_string()))
        }
        (None, []) => Ok(Cut::Raw),
        (None, [only]) if only.layout.least_size() > 0 => Ok(Cut::Struct(only.layout.clone())),
        (None, _) => {
            let problem =
                "several kinds need a cut, so that a message of none of them ends somewhere";
            Err((top.span.start..top.span.start, problem.to_owned()))
        }
    }
}

fn hello(table: &Table<'_>) -> Result<Hello, Fault> {
    table.check(&["client", "accept", "refuse", "deadline-ms"])?;
    let words = |key: &str| match table.get(key) {
        Some(value) => bytes(value.text()?).map_err(|problem| (value.span.clone(), problem)),
        None => Ok(Vec::new()),
    };
    let most = u64::try_from(DEADLINE_MAX.as_millis()).unwrap_or(u64::MAX);
    let deadline = table.number("deadline-ms", 1..=most)?.map_or(DEADLINE, Duration::from_millis);
    let hello = Hello {
        client: words("client")?,
        accept: words("accept")?,
        refuse: words("refuse")?,
        deadline,
    };
    if hello.client.is_empty() {
        return Err((
            table.span.clone(),
            "a hello has the client's first words, client = ..".into(),
        ));
    }
    Ok(hello)
}

fn config(table: &Table<'_>, kinds: &[Kind]) -> Result<Config, Fault> {
    table.check(&["host", "port", "opens", "gathers"])?;
    let text = |key: &str| Ok::<_, Fault>(table.text(key)?.map(str::to_owned));
    let gathers = match table.get("gathers") {
        Some(value) => Some(gathers(&value, kinds)?),
        None => None,
    };
    Ok(Config { host: text("host")?, port: text("port")?, opens: text("opens")?, gathers })
}

/// Lines that end a conversation: bytes as a hello has them, without an end of line.
fn leave(top: &Table<'_>) -> Result<Vec<Vec<u8>>, Fault> {
    let Some(entry) = top.get("leave") else { return Ok(Vec::new()) };
    let lines = entry.value.as_array().ok_or_else(|| entry.wrong("a list"))?;
    let line = |line: &Spanned<DeValue<'_>>| {
        let fault = |problem: &str| (line.span(), problem.to_owned());
        let text = line.get_ref().as_str().ok_or_else(|| fault("a line is text"))?;
        match bytes(text) {
            Ok(bytes) if bytes.is_empty() || bytes.contains(&b'\n') => {
                Err(fault("a line is not empty, and has no end of line in it"))
            }
            result => result.map_err(|problem| fault(&problem)),
        }
    };
    lines.iter().map(line).collect()
}

/// A kind and its field that takes one line after the other.
fn gathers(value: &Entry<'_>, kinds: &[Kind]) -> Result<(String, String), Fault> {
    let wrong = |problem: &str| (value.span.clone(), problem.to_owned());
    let (name, field) = value
        .text()?
        .split_once(' ')
        .ok_or_else(|| wrong("lines go into a kind's list, as in gathers = \"PAQUETE values\""))?;
    let kind = kinds.iter().find(|kind| kind.name.as_deref() == Some(name));
    let kind = kind.ok_or_else(|| wrong("there is no such kind"))?;
    match kind.item(field).map(|item| &item.kind) {
        Some(Part::Group(..) | Part::Block(..)) => Ok((name.to_owned(), field.to_owned())),
        _ => Err(wrong("the kind has no list of that name")),
    }
}

/// Bytes as hexadecimal, or as text in single quotes with `\n`, `\r`, `\t`, `\0` and `\\`.
fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let quoted = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    let bytes = match quoted {
        Some(quoted) => unescaped(quoted)?,
        None => hexadecimal(text)
            .ok_or("bytes are hexadecimal, as in \"01 00\", or text as in \"'HELLO\\\\n'\"")?,
    };
    if bytes.len() > HELLO_MAX { Err(format!("at most {HELLO_MAX} bytes")) } else { Ok(bytes) }
}

fn unescaped(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut letters = text.bytes();
    while let Some(letter) = letters.next() {
        out.push(match letter {
            b'\\' => match letters.next() {
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(b'0') => 0,
                Some(b'\\') => b'\\',
                _ => return Err("after a backslash comes n, r, t, 0 or a backslash".to_owned()),
            },
            letter => letter,
        });
    }
    Ok(out)
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|letter| !letter.is_ascii_whitespace())
        .map(|letter| letter.to_digit(16))
        .collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    Some(pairs.map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | *digit as u8)).collect())
}

/// The kinds in the order of the file.
fn kinds(top: &Table<'_>) -> Result<Vec<Kind>, Fault> {
    let Some(all) = top.table("kind")? else { return Ok(Vec::new()) };
    let mut kinds = Vec::new();
    for (name, value) in all.in_order() {
        let table = value.table()?;
        table.check(&["layout", "field"])?;
        let Some(text) = table.get("layout") else {
            return Err((table.span.clone(), format!("kind {name:?} has no layout")));
        };
        let layout =
            Layout::parse(text.text()?).map_err(|error| (text.span.clone(), error.to_string()))?;
        let mut kind = Kind { name: Some(name.to_owned()), layout, rules: BTreeMap::new() };
        if let Some(fields) = table.table("field")? {
            fields_of(&mut kind, &fields, "")?;
        }
        kinds.push(kind);
    }
    Ok(kinds)
}

/// Rules, by the path to their field.
fn fields_of(kind: &mut Kind, table: &Table<'_>, path: &str) -> Result<(), Fault> {
    for (name, value) in table.in_order() {
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let Some(item) = kind.item(&path) else {
            let problem = format!("the layout has no field {path:?}: {}", kind.layout.text());
            return Err((value.span.clone(), problem));
        };
        if matches!(item.kind, Part::Group(..) | Part::Block(..)) {
            fields_of(kind, &value.table()?, &path)?;
        } else {
            let rules = rules(kind, &path, &value.table()?)?;
            kind.rules.insert(path, rules);
        }
    }
    Ok(())
}

fn rules(kind: &Kind, path: &str, table: &Table<'_>) -> Result<Rules, Fault> {
    let item_kind = kind.item(path).map(|item| &item.kind);
    let is_text = matches!(item_kind, Some(Part::Text(_)));
    let is_filled = matches!(item_kind, Some(Part::Text(Count::Fixed(_))));
    let is_integer = kind.item(path).is_some_and(|item| item.is_integer()) && !path.contains('.');
    let known = match (is_text, is_filled, is_integer) {
        (true, true, _) => &["default", "fill", "ends"][..],
        (true, ..) => &["default", "ends"],
        (_, _, true) => &["default", "counter", "counts", "unit"],
        _ => &["default"],
    };
    table.check(known)?;
    let mut rules = Rules::default();
    if let Some(value) = table.get("default") {
        rules.default = Some(value.value()?);
    }
    if let Some(value) = table.get("counter") {
        rules.counter = Some(value.integer()?);
    }
    if let Some(value) = table.get("fill") {
        match value.text()?.as_bytes() {
            [byte] => rules.fill = Some(*byte),
            _ => return Err((value.span.clone(), "a filling is one byte of text".to_owned())),
        }
    }
    if let Some(value) = table.get("ends") {
        match value.text()? {
            "nul" => rules.ends_with_nul = true,
            _ => {
                return Err((
                    value.span.clone(),
                    "a text ends with \"nul\" or has no such rule".into(),
                ));
            }
        }
    }
    rules.counts = counts(kind, table)?;
    Ok(rules)
}

fn counts(kind: &Kind, table: &Table<'_>) -> Result<Option<(String, Unit)>, Fault> {
    let unit = match table.get("unit") {
        None => Unit::Characters,
        Some(value) => match value.text()? {
            "characters" => Unit::Characters,
            "bytes" => Unit::Bytes,
            _ => return Err((value.span.clone(), "a unit is \"characters\" or \"bytes\"".into())),
        },
    };
    let Some(value) = table.get("counts") else { return Ok(None) };
    let of = value.text()?;
    match kind.item(of).map(|item| &item.kind) {
        Some(Part::Text(_)) if !of.contains('.') => Ok(Some((of.to_owned(), unit))),
        _ => Err((value.span.clone(), format!("the layout has no text {of:?}"))),
    }
}

/// A table of the file, and where it stands.
struct Table<'t> {
    span: Range<usize>,
    entries: &'t DeTable<'t>,
}

/// A value of the file, and where it stands.
struct Entry<'t> {
    span: Range<usize>,
    value: &'t DeValue<'t>,
}

impl<'t> Table<'t> {
    /// Refuses keys that mean nothing here.
    fn check(&self, known: &[&str]) -> Result<(), Fault> {
        let is_unknown = |key: &&Spanned<_>| {
            let key: &Spanned<std::borrow::Cow<'_, str>> = key;
            !known.contains(&key.get_ref().as_ref())
        };
        match self.entries.keys().find(is_unknown) {
            None => Ok(()),
            Some(key) => {
                let problem =
                    format!("{:?} means nothing here: {}", key.get_ref(), known.join(", "));
                Err((key.span(), problem))
            }
        }
    }

    fn get(&self, key: &str) -> Option<Entry<'t>> {
        let found = self.entries.iter().find(|(own, _)| own.get_ref() == key);
        found.map(|(_, value)| Entry { span: value.span(), value: value.get_ref() })
    }

    fn text(&self, key: &str) -> Result<Option<&'t str>, Fault> {
        self.get(key).map(|entry| entry.text()).transpose()
    }

    fn table(&self, key: &str) -> Result<Option<Self>, Fault> {
        self.get(key).map(|entry| entry.table()).transpose()
    }

    /// A whole number within bounds.
    fn number<N: TryFrom<i128>>(
        &self,
        key: &str,
        bounds: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<N>, Fault> {
        let Some(entry) = self.get(key) else { return Ok(None) };
        let number = entry.integer()?;
        let is_within = (i128::from(*bounds.start())..=i128::from(*bounds.end())).contains(&number);
        match N::try_from(number) {
            Ok(number) if is_within => Ok(Some(number)),
            _ => {
                let problem = format!("{key} is {} to {}", bounds.start(), bounds.end());
                Err((entry.span, problem))
            }
        }
    }

    /// What is in it, in the order of the file.
    fn in_order(&self) -> Vec<(&'t str, Entry<'t>)> {
        let mut all: Vec<_> = self.entries.iter().collect();
        all.sort_by_key(|(key, _)| key.span().start);
        let one =
            |(key, value): (&'t Spanned<std::borrow::Cow<'t, str>>, &'t Spanned<DeValue<'t>>)| {
                (key.get_ref().as_ref(), Entry { span: value.span(), value: value.get_ref() })
            };
        all.into_iter().map(one).collect()
    }
}

impl<'t> Entry<'t> {
    fn text(&self) -> Result<&'t str, Fault> {
        self.value.as_str().ok_or_else(|| self.wrong("text"))
    }

    fn table(&self) -> Result<Table<'t>, Fault> {
        let entries = self.value.as_table().ok_or_else(|| self.wrong("a table"))?;
        Ok(Table { span: self.span.clone(), entries })
    }

    fn integer(&self) -> Result<i128, Fault> {
        let integer = self.value.as_integer().ok_or_else(|| self.wrong("an integer"))?;
        i128::from_str_radix(integer.as_str(), integer.radix())
            .map_err(|_| self.wrong("an integer"))
    }

    fn value(&self) -> Result<Value, Fault> {
        match self.value {
            DeValue::String(text) => Ok(Value::Bytes(text.as_bytes().to_vec())),
            DeValue::Integer(_) => self.integer().map(Value::Int),
            DeValue::Boolean(truth) => Ok(Value::Bool(*truth)),
            DeValue::Float(number) => {
                number.as_str().parse().map(Value::Float).map_err(|_| self.wrong("a number"))
            }
            DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                Err(self.wrong("text, a number, true or false"))
            }
        }
    }

    fn wrong(&self, wanted: &str) -> Fault {
        (self.span.clone(), format!("this is {}, and has to be {wanted}", self.value.type_str()))
    }
}
