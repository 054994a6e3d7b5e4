//! `cabo dialect`: the foreign protocols that are built in or described in a file: as text, checked, drawn, as commands.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cabo::proto::dialect::Dialect;
use cabo::proto::dialect::assign::{TEXT, example};
use cabo::proto::dialect::cut::{Cut, Header};
use cabo::proto::dialect::kind::{Kind, Rules, Unit};
use cabo::proto::dialect::layout::{Layout, Order, Place};
use cabo::proto::dialect::value::Value;
use serde_json::{Value as Json, json};
use tracing_subscriber::filter::LevelFilter;

use super::Globals;
use crate::exit::{self, Failure};
use crate::show::human::escaped;
use crate::show::table::{self, Align, Cell};
use crate::show::{json as json_lines, stdout};
use crate::talk::{self, picture};

/// Show, check and draw descriptions of foreign protocols
///
/// What `--as` of listen, connect and send takes. NAME is a built-in dialect, a cut such as length:!L, a layout such as
/// struct:!BLL20s, or a file.toml.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cabo dialect list
  cabo dialect show tp0 > mine.toml                  a file to begin with
  cabo dialect check mine.toml                       the first mistake, or all fields with offset and size
  cabo dialect picture labs-header
  cabo dialect template tp0                          commands to fill in")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// The dialects that are built in
    List,
    /// The text of a built-in dialect
    Show {
        /// Which
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Whether a file describes a dialect: the first mistake, or its messages with every field
    Check {
        /// A file, or any other dialect
        #[arg(value_name = "FILE|NAME")]
        file: PathBuf,
    },
    /// The bytes of each message, drawn
    Picture {
        /// Which
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// A command for each message, to fill in
    Template {
        /// Which
        #[arg(value_name = "NAME")]
        name: String,
    },
}

impl Args {
    pub(crate) fn run(self, globals: Globals) -> anyhow::Result<ExitCode> {
        globals.log(LevelFilter::WARN);
        match self.what {
            What::List => list(globals)?,
            What::Show { name } => {
                let unknown = || {
                    let all = Dialect::built_in().collect::<Vec<_>>().join(", ");
                    let why = match Dialect::parse(&name) {
                        Ok(_) => "is a cut or a layout: that is all of its text; built in are",
                        Err(_) => "is not built in:",
                    };
                    Failure::usage(format!("{name:?} {why} {all}"))
                };
                let text = Dialect::built_in_text(&name).ok_or_else(unknown)?;
                write!(stdout::styled(), "{text}")?;
            }
            What::Check { file } => check(&file, globals)?,
            What::Picture { name } => draw(&named(&name)?)?,
            What::Template { name } => template(&name, &named(&name)?)?,
        }
        Ok(ExitCode::from(exit::OK))
    }
}

fn named(name: &str) -> Result<Dialect, Failure> {
    let wrong = |problem: String| problem.trim_start_matches([':', ' ']).to_owned();
    talk::named(name).map_err(|problem| Failure::usage(wrong(problem)))
}

fn list(globals: Globals) -> anyhow::Result<()> {
    let dialects = Dialect::built_in().filter_map(|name| Dialect::parse(name).ok());
    if globals.json {
        for dialect in dialects {
            let kinds: Vec<_> = dialect.kinds.iter().filter_map(|kind| kind.name.clone()).collect();
            json_lines::line(&json!({
                "name": dialect.name, "port": dialect.port, "kinds": kinds, "about": dialect.about,
            }))?;
        }
        return Ok(());
    }
    let port = |port: Option<u16>| port.map(|port| port.to_string()).unwrap_or_default();
    let row = |dialect: Dialect| {
        [dialect.name, port(dialect.port), dialect.about].map(Cell::new).to_vec()
    };
    let rows: Vec<_> = dialects.map(row).collect();
    let head = [("name", Align::Left), ("port", Align::Right), ("what it is", Align::Left)];
    Ok(table::write(&mut stdout::styled(), &head, &rows)?)
}

fn check(file: &Path, globals: Globals) -> anyhow::Result<()> {
    let name = file.to_str().filter(|name| !file.exists() && Dialect::parse(name).is_ok());
    let dialect = match name {
        Some(name) => named(name)?,
        None => talk::read_file(file).map_err(|problem| {
            let shown = escaped(&file.display().to_string());
            Failure::new(exit::FAILED, format!("{shown}: {}", escaped(&problem)))
        })?,
    };
    if globals.json {
        return Ok(json_lines::line(&checked(&dialect))?);
    }
    let mut out = stdout::styled();
    for line in facts(&dialect) {
        writeln!(out, "{line}")?;
    }
    for kind in &dialect.kinds {
        writeln!(out, "\n{}", title(kind))?;
        let rows: Vec<_> = kind.layout.places().iter().map(|place| row(kind, place)).collect();
        let head = [
            ("at", Align::Right),
            ("bytes", Align::Right),
            ("code", Align::Left),
            ("field", Align::Left),
        ];
        table::write(&mut out, &head, &rows)?;
    }
    Ok(())
}

/// All that [`check`] shows, for machines.
fn checked(dialect: &Dialect) -> Json {
    let kinds = dialect.kinds.iter().map(|kind| {
        let places = kind.layout.places();
        let fields = places.iter().map(|place| field(kind, &places, place));
        json!({
            "name": kind.name, "order": order(kind), "bytes": kind.layout.fixed_size(),
            "least_bytes": kind.layout.least_size(), "layout": kind.layout.text(),
            "fields": fields.collect::<Json>(),
        })
    });
    json!({
        "name": dialect.name, "about": dialect.about, "port": dialect.port,
        "limit_bytes": dialect.limit_bytes, "has_hello": dialect.hello.is_some(),
        "kinds": kinds.collect::<Json>(),
    })
}

fn field(kind: &Kind, all: &[Place<'_>], place: &Place<'_>) -> Json {
    let rules = kind.rules.get(&path(all, place)).map(rules).unwrap_or_default();
    json!({
        "field": path(all, place), "at": place.at, "bytes": place.size,
        "code": picture::code(place), "counted_by": place.counted_by, "rules": rules,
    })
}

/// What is true of all messages.
fn facts(dialect: &Dialect) -> Vec<String> {
    let hex =
        |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    let mut lines = vec![escaped(&format!("{}: {}", dialect.name, dialect.about))];
    lines.extend(dialect.port.map(|port| format!("port {port}")));
    let ends = match &dialect.cut {
        Cut::Raw => "a message is what one read gives".to_owned(),
        Cut::Lines => "a message ends with LF".to_owned(),
        Cut::Nul => "a message ends with NUL".to_owned(),
        Cut::Any => "a message ends with NUL, LF or CR LF".to_owned(),
        Cut::Length(header) => {
            format!("a message is as long as its header says: {}", header.layout().text())
        }
        Cut::Struct(_) => "a message is as long as its layout says".to_owned(),
    };
    lines.push(format!("{ends}; at most {} bytes", dialect.limit_bytes));
    lines.extend(dialect.hello.as_ref().map(|hello| {
        let (client, accept, refuse) = (hex(&hello.client), hex(&hello.accept), hex(&hello.refuse));
        format!(
            "a client begins with {client} and hears {accept} or, refused, {refuse}; within {:?}",
            hello.deadline
        )
    }));
    lines.extend(dialect.config.as_ref().map(|config| {
        let keys = [&config.host, &config.port].into_iter().flatten();
        let keys = keys.map(String::as_str).collect::<Vec<_>>().join(", ");
        let first = config.opens.as_ref().map(|opens| format!("; a client says first: {opens}"));
        escaped(&format!("--config FILE has {keys}{}", first.unwrap_or_default()))
    }));
    if !dialect.leave.is_empty() {
        let words: Vec<String> = dialect.leave.iter().map(|line| talk::text(line)).collect();
        lines.push(format!("a line that ends it, typed alone: {}", words.join(", ")));
    }
    lines
}

/// Its name, the order of its bytes, and how many it has.
fn title(kind: &Kind) -> String {
    let order = order(kind);
    let size = match kind.layout.fixed_size() {
        Some(size) => format!("{size} bytes"),
        None => format!("{} bytes and more", kind.layout.least_size()),
    };
    let name = kind.name.as_deref().map(|name| format!("{name}: ")).unwrap_or_default();
    escaped(&format!("{name}{size}, {order}"))
}

fn order(kind: &Kind) -> &'static str {
    match kind.layout.order() {
        Order::Native => "native",
        Order::Little => "little-endian",
        Order::Big => "big-endian",
    }
}

/// One field; what is in a group is counted from the group's start, with a plus.
fn row(kind: &Kind, place: &Place<'_>) -> Vec<Cell> {
    let plus = if place.depth > 0 { "+" } else { "" };
    let at = place.at.map(|at| format!("{plus}{at}")).unwrap_or_default();
    let size = match (place.size, place.counted_by) {
        (Some(size), _) => size.to_string(),
        (None, Some(by)) if picture::code(place).ends_with(['s', ')']) => by.to_owned(),
        (None, _) => String::new(),
    };
    let mut field = format!("{}{}", "  ".repeat(place.depth), picture::label(place));
    let path = path(kind.layout.places().as_slice(), place);
    for word in kind.rules.get(&path).map(rules).unwrap_or_default() {
        field.push_str(", ");
        field.push_str(&word);
    }
    [at, size, picture::code(place), escaped(&field)].map(Cell::new).to_vec()
}

/// The names that lead to a field, as rules have them.
fn path(all: &[Place<'_>], place: &Place<'_>) -> String {
    let mut names: Vec<&str> = Vec::new();
    for own in all {
        names.truncate(own.depth);
        names.push(&own.item.name);
        if std::ptr::eq(own.item, place.item) {
            break;
        }
    }
    names.join(".")
}

fn rules(rules: &Rules) -> Vec<String> {
    let mut words = Vec::new();
    words.extend(rules.default.as_ref().map(|value| format!("{} if not given", shown(value))));
    words.extend(rules.counter.map(|first| format!("counts messages from {first}")));
    words.extend(rules.fill.map(|byte| format!("filled with '{}'", talk::text(&[byte]))));
    words.extend(rules.ends_with_nul.then(|| "ends with NUL".to_owned()));
    words.extend(rules.counts.as_ref().map(|(of, unit)| match unit {
        Unit::Characters => format!("characters of {of}"),
        Unit::Bytes => format!("bytes of {of}"),
    }));
    words
}

fn shown(value: &Value) -> String {
    match value {
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::Bytes(bytes) => talk::text(bytes),
        Value::List(_) | Value::Group(_) => String::new(),
    }
}

fn draw(dialect: &Dialect) -> anyhow::Result<()> {
    let mut out = stdout::styled();
    let header = header(dialect).map(Header::layout);
    let kinds = dialect.kinds.iter().map(|kind| (Some(title(kind)), &kind.layout));
    let all: Vec<(Option<String>, &Layout)> =
        kinds.chain(header.map(|layout| (None, layout))).collect();
    if all.is_empty() {
        return Err(Failure::usage("its messages have no fields to draw").into());
    }
    for (index, (title, layout)) in all.into_iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        if let Some(title) = title {
            writeln!(out, "{title}")?;
        }
        write!(out, "{}", escaped_lines(&picture::drawn(layout)))?;
    }
    Ok(())
}

/// The header of a dialect whose messages are that and a payload.
fn header(dialect: &Dialect) -> Option<&Header> {
    match &dialect.cut {
        Cut::Length(header) => dialect.kinds.is_empty().then_some(header),
        Cut::Raw | Cut::Lines | Cut::Nul | Cut::Any | Cut::Struct(_) => None,
    }
}

fn escaped_lines(text: &str) -> String {
    text.lines().map(|line| escaped(line) + "\n").collect()
}

fn template(name: &str, dialect: &Dialect) -> anyhow::Result<()> {
    let mut out = stdout::styled();
    let place = if dialect.port.is_some() { "HOST" } else { "HOST:PORT" };
    let command = format!("cabo send tcp://{place} --as {}", quoted(name));
    for kind in &dialect.kinds {
        let own = kind.name.as_deref().map(|name| format!(" {}", quoted(name))).unwrap_or_default();
        let mut left_out = Vec::new();
        let mut words = String::new();
        for (field, text) in example(&kind.layout) {
            let usual = kind.rules.get(&field).and_then(usual);
            left_out.extend(usual.as_ref().map(|_| field.clone()));
            words.push_str(&word(&field, &usual.unwrap_or(text)));
        }
        writeln!(out, "{command}{own}{words}")?;
        if !left_out.is_empty() {
            writeln!(out, "# may be left out: {}", escaped(&left_out.join(", ")))?;
        }
    }
    if dialect.kinds.is_empty() {
        let typed = |header: &Header| typed_header(header.layout(), header.announcing());
        writeln!(out, "{command}{} {TEXT}", header(dialect).map(typed).unwrap_or_default())?;
    }
    Ok(())
}

/// What a field has in the first message if it is not given.
fn usual(rules: &Rules) -> Option<String> {
    let counter = rules.counter.map(|first| first.to_string());
    let counts = rules.counts.as_ref().map(|_| TEXT.len().to_string());
    counter.or(counts).or_else(|| rules.default.as_ref().map(shown))
}

fn word(field: &str, text: &str) -> String {
    format!(" {}", quoted(&format!("{field}={text}")))
}

/// The fields of a header but for the one that is the size of the payload.
fn typed_header(layout: &Layout, announcing: &str) -> String {
    let given = example(layout).into_iter().filter(|(field, _)| field != announcing);
    given.map(|(field, text)| word(&field, &text)).collect()
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_=.:/%,+@".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", escaped(word).replace('\'', "'\\''"))
    }
}
