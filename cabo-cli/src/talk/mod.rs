//! What `listen`, `connect` and `send` have in common: which dialect, values from words, and messages as people and
//! machines see them.

pub(crate) mod calls;
pub(crate) mod config;
pub(crate) mod converse;
mod dump;
mod exec;
pub(crate) mod explain;
pub(crate) mod headway;
pub(crate) mod line;
pub(crate) mod manner;
pub(crate) mod picture;
mod record;
pub(crate) mod reply;
pub(crate) mod room;
pub(crate) mod view;
mod watch;

use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cabo::address::{Address, Place};
use cabo::carrier::OpenError;
use cabo::config::read_named;
use cabo::proto::dialect::assign::assign;
use cabo::proto::dialect::cut::Cut;
use cabo::proto::dialect::file::FILE_MAX;
use cabo::proto::dialect::kind::Counters;
use cabo::proto::dialect::value::{Fields, Value};
use cabo::proto::dialect::{Dialect, PAYLOAD, file};
use cabo::talk::{Client, ClientError, Message, PlaceError, Settings, Watch};
use serde_json::{Map, json};
use tokio::time::timeout;

use crate::cmd::Globals;
use crate::exit::{self, Failure};
use crate::session;
use crate::show::human::escaped;
use crate::show::stderr;

/// How a message is shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Show {
    /// Bytes as they are
    Raw,
    /// Text, with escapes for what would drive a terminal
    Text,
    /// Hexadecimal, one line a message
    Hex,
}

/// Which dialect.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct DialectArgs {
    /// How the other side speaks: raw, lines, nul, any, length:LAYOUT, struct:LAYOUT, a built-in dialect (tp0,
    /// labs-record, labs-header, led ..), a file.toml, or cabo: a cabo peer, which `listen` takes beside any dialect
    #[arg(id = "dialect", long = "as", value_name = "DIALECT", default_value = "raw")]
    dialect: String,
}

/// The dialect that is none: the other side is a cabo peer.
const CABO: &str = "cabo";

impl DialectArgs {
    /// Whether the other side of `address` is a cabo peer: where it was said so, or where nobody else is.
    pub(crate) fn is_cabo(&self, address: &Address) -> bool {
        self.dialect == CABO || matches!(address.place, Place::Eth { .. })
    }

    /// The dialect; a file where the words name one. What cabo peers carry is raw.
    pub(crate) fn dialect(&self) -> Result<Arc<Dialect>, Failure> {
        if self.dialect == CABO {
            return Ok(Arc::new(Dialect::of_cut("raw", Cut::Raw)));
        }
        let named = named(&self.dialect);
        named.map(Arc::new).map_err(|problem| Failure::usage(format!("--as{problem}")))
    }
}

/// The way to the other side.
pub(crate) struct Way {
    pub(crate) is_cabo: bool,
    pub(crate) within: Duration,
    pub(crate) watch: Option<Watch>,
}

/// A conversation with a cabo peer or a foreign program.
pub(crate) async fn connect(
    address: &Address,
    dialect: Arc<Dialect>,
    way: Way,
    globals: Globals,
) -> anyhow::Result<Client> {
    if !way.is_cabo {
        let client = Client::connect_watched(address, dialect, way.within, way.watch).await;
        return Ok(client.map_err(failed)?);
    }
    let over = session::client_to(address, false)?;
    let say = move |line: &str| {
        if !globals.quiet {
            stderr::say(line);
        }
    };
    let connecting = timeout(way.within, session::connect(&over, address, say));
    let late = || format!("{address}: no answer within {:?}", way.within);
    let session = connecting.await.map_err(|_| Failure::new(exit::UNREACHABLE, late()))??;
    let settings = Settings { dialect, ..Settings::default() };
    let client = Client::over(session.connection, settings).await.map_err(failed)?;
    Ok(client.watched(way.watch))
}

/// The exit code of a conversation that failed.
pub(crate) fn failed(error: ClientError) -> Failure {
    let code = match &error {
        ClientError::Address(_) | ClientError::Send(_) | ClientError::TooLarge { .. } => {
            exit::USAGE
        }
        ClientError::Place(
            PlaceError::Query { .. } | PlaceError::Scheme { .. } | PlaceError::Address(_),
        ) => exit::USAGE,
        ClientError::Place(PlaceError::Carrier(OpenError::TlsSetup { .. }))
        | ClientError::House(_) => exit::FAILED,
        ClientError::Place(PlaceError::Carrier(OpenError::TlsRefused { .. })) => exit::REFUSED,
        // A channel that was refused after all, and one that was cut.
        ClientError::Io(error) if error.kind() == ErrorKind::InvalidData => exit::REFUSED,
        ClientError::Io(error) if error.kind() == ErrorKind::UnexpectedEof => exit::INCOMPLETE,
        ClientError::Place(_)
        | ClientError::NoAnswer { .. }
        | ClientError::NeedsInterface { .. }
        | ClientError::NobodyListens { .. }
        | ClientError::Io(_)
        | ClientError::Session(_) => exit::UNREACHABLE,
        ClientError::Refused { .. }
        | ClientError::Stranger { .. }
        | ClientError::Unsecured(_)
        | ClientError::NoService
        | ClientError::NotLetIn => exit::REFUSED,
        ClientError::Malformed(_) | ClientError::Broken(_) => exit::INCOMPLETE,
        ClientError::Ended(ended) => exit::of_end(ended),
    };
    Failure::new(code, error.to_string())
}

/// The dialect that a text names: a built-in one, a cut, a file. The problem says which, after a colon or a blank.
pub(crate) fn named(spec: &str) -> Result<Dialect, String> {
    let is_file = spec.ends_with(".toml") || (spec.contains('/') && !spec.contains(':'));
    if is_file {
        let shown = escaped(spec);
        return read_file(Path::new(spec)).map_err(|problem| format!(" {shown}: {problem}"));
    }
    let built_in = || Dialect::built_in().collect::<Vec<_>>().join(", ");
    let wrong = |error| format!(": {error}; built in: {}; or a file.toml", built_in());
    Dialect::parse(spec).map_err(wrong)
}

/// The dialect of a file.
pub(crate) fn read_file(path: &Path) -> Result<Dialect, String> {
    file::read(&read_text(path)?).map_err(|error| error.to_string())
}

/// The text of a file, which is a small one.
fn read_text(path: &Path) -> Result<String, String> {
    let bytes = read_named(path, FILE_MAX as u64).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|_| "is not text in UTF-8".to_owned())
}

/// A message as it was typed: its kind, where the dialect names its kinds, and its values.
#[derive(Debug)]
pub(crate) struct Typed {
    pub(crate) kind: Option<String>,
    pub(crate) fields: Fields,
}

impl Typed {
    /// Whether it can be sent at all, tried where it costs nothing.
    pub(crate) fn check(&self, dialect: &Dialect) -> Result<(), Failure> {
        let encoded = dialect.encode(self.kind.as_deref(), &self.fields, &mut Counters::default());
        encoded.map(drop).map_err(|error| Failure::usage(escaped(&error.to_string())))
    }
}

/// Makes a message of words: `KIND name=value ..`, or the payload itself where the dialect has no fields.
pub(crate) fn typed(dialect: &Dialect, words: &[Vec<u8>]) -> Result<Typed, Failure> {
    if dialect.kinds.is_empty() {
        return payload(dialect, words);
    }
    let is_named = dialect.kinds.len() > 1 || dialect.kinds.iter().any(|kind| kind.name.is_some());
    let (kind, words) = match words.split_first() {
        Some((first, rest)) if is_named && !first.contains(&b'=') => {
            (Some(String::from_utf8_lossy(first).into_owned()), rest)
        }
        _ => (None, words),
    };
    let wrong = |error: String| Failure::usage(escaped(&error));
    let found = dialect.kind(kind.as_deref()).map_err(|error| wrong(error.to_string()))?;
    let mut fields = Fields::default();
    let Some(found) = found else { return Ok(Typed { kind, fields }) };
    for word in words {
        let at = word.iter().position(|byte| *byte == b'=');
        let (name, value) = word.split_at(at.unwrap_or(word.len()));
        let Some((_, value)) = value.split_first() else {
            let word = String::from_utf8_lossy(word);
            return Err(wrong(format!("a value is given as name=value, not {word:?}")));
        };
        let name = String::from_utf8_lossy(name);
        assign(&found.layout, &mut fields, &name, value)
            .map_err(|error| wrong(error.to_string()))?;
    }
    Ok(Typed { kind, fields })
}

/// The words as they stand, with blanks between; a header's other fields may stand before them.
fn payload(dialect: &Dialect, words: &[Vec<u8>]) -> Result<Typed, Failure> {
    let mut fields = Fields::default();
    let mut words = words;
    if let Cut::Length(header) = &dialect.cut {
        while let Some((word, rest)) = words.split_first() {
            let Some(at) = word.iter().position(|byte| *byte == b'=') else { break };
            let (name, value) = word.split_at(at);
            let name = String::from_utf8_lossy(name);
            let known = header.layout().items().iter().any(|item| item.name == name);
            if !known {
                break;
            }
            let value = value.get(1..).unwrap_or_default();
            let assigned = assign(header.layout(), &mut fields, &name, value);
            assigned.map_err(|error| Failure::usage(escaped(&error.to_string())))?;
            words = rest;
        }
    }
    fields.set(PAYLOAD, Value::Bytes(words.join(&b' ')));
    Ok(Typed { kind: None, fields })
}

/// The words of a typed line: parted by blanks, held together by single or double quotes.
pub(crate) fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, Failure> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<Vec<u8>>, None);
    for &byte in line {
        match (quote, byte) {
            (Some(open), byte) if open == byte => quote = None,
            (None, b'"' | b'\'') => {
                quote = Some(byte);
                word.get_or_insert_default();
            }
            (None, byte) if byte.is_ascii_whitespace() => words.extend(word.take()),
            (_, byte) => word.get_or_insert_default().push(byte),
        }
    }
    if quote.is_some() {
        return Err(Failure::usage("a quote is not closed"));
    }
    words.extend(word);
    Ok(words)
}

/// A message in one line that cannot drive a terminal.
pub(crate) fn shown(message: &Message) -> String {
    match message.decode() {
        Ok(decoded) => {
            let kind = decoded.kind.into_iter();
            let is_payload_alone = decoded.fields.len() == 1;
            let values = decoded.fields.iter().map(|(name, value)| match value.as_bytes() {
                Some(bytes) if name == PAYLOAD && is_payload_alone => text(bytes),
                _ => format!("{name}={}", value_shown(value)),
            });
            kind.chain(values).collect::<Vec<_>>().join(" ")
        }
        Err(error) => format!("{} ({})", text(message.bytes()), escaped(&error.to_string())),
    }
}

fn value_shown(value: &Value) -> String {
    match value {
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::Bytes(bytes) => format!("\"{}\"", text(bytes).replace('"', "\\\"")),
        Value::List(values) => {
            let all: Vec<String> = values.iter().map(value_shown).collect();
            format!("[{}]", all.join(", "))
        }
        Value::Group(fields) => {
            let one = |(name, value)| format!("{name}={}", value_shown(value));
            format!("{{{}}}", fields.iter().map(one).collect::<Vec<_>>().join(" "))
        }
    }
}

/// Text where it is UTF-8, and each other byte as `\xNN`.
pub(crate) fn text(bytes: &[u8]) -> String {
    let mut shown = String::new();
    for part in bytes.utf8_chunks() {
        shown.push_str(&escaped(part.valid()));
        for byte in part.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    shown
}

/// A message as JSON: its kind and values, or its bytes and what stands against every kind.
pub(crate) fn as_json(message: &Message) -> Map<String, serde_json::Value> {
    let mut object = Map::new();
    match message.decode() {
        Ok(decoded) => {
            if let Some(kind) = decoded.kind {
                object.insert("kind".to_owned(), json!(kind));
            }
            object.insert("fields".to_owned(), fields_json(&decoded.fields));
        }
        Err(error) => {
            object.insert("bytes".to_owned(), bytes_json(message.bytes()));
            object.insert("error".to_owned(), json!(error.to_string()));
        }
    }
    object
}

fn fields_json(fields: &Fields) -> serde_json::Value {
    let one = |(name, value): (&str, &Value)| (name.to_owned(), value_json(value));
    serde_json::Value::Object(fields.iter().map(one).collect())
}

fn value_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Int(number) => match (i64::try_from(*number), u64::try_from(*number)) {
            (Ok(number), _) => json!(number),
            (_, Ok(number)) => json!(number),
            (Err(_), Err(_)) => json!(number.to_string()),
        },
        // JSON has no infinities and no NaN.
        Value::Float(number) if number.is_finite() => json!(number),
        Value::Float(number) => json!(number.to_string()),
        Value::Bool(truth) => json!(truth),
        Value::Bytes(bytes) => bytes_json(bytes),
        Value::List(values) => values.iter().map(value_json).collect(),
        Value::Group(fields) => fields_json(fields),
    }
}

/// Text where it is UTF-8, else an object with the bytes in hexadecimal.
fn bytes_json(bytes: &[u8]) -> serde_json::Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "hex": hex(bytes) }),
    }
}

/// Two digits a byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of what was typed as arguments.
pub(crate) fn bytes_of(words: &[std::ffi::OsString]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typed_line_has_the_words_of_a_shell() {
        let cases: [(&[u8], &[&[u8]]); 5] = [
            (b"  a  b ", &[b"a", b"b"]),
            (b"text='hola mundo' x=\"it's\"", &[b"text=hola mundo", b"x=it's"]),
            (b"'' a''b", &[b"", b"ab"]),
            (b"\xff\xfe", &[b"\xff\xfe"]),
            (b"", &[]),
        ];
        for (line, wanted) in cases {
            assert_eq!(words(line).unwrap(), wanted, "{}", line.escape_ascii());
        }
        assert!(words(b"it's").is_err());
    }

    #[test]
    fn foreign_bytes_cannot_drive_a_terminal() {
        assert_eq!(text(b"ol\xc3\xa1 \x1b[2J\n\xff"), "ol\u{e1} \\u{1b}[2J\\n\\xff");
    }

    #[test]
    fn words_become_the_message_that_they_describe() {
        let words =
            |text: &[&str]| text.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
        let tp0 = Dialect::parse("tp0").unwrap();
        let message = typed(&tp0, &words(&["PAQUETE", "values=hola", "values=mun=do"])).unwrap();
        assert_eq!(message.kind.as_deref(), Some("PAQUETE"));
        let error = typed(&tp0, &words(&["values=hola"])).unwrap_err();
        assert_eq!(error.text, "which message? MENSAJE, PAQUETE");
        let error = typed(&tp0, &words(&["MENSAJE", "hola"])).unwrap_err();
        assert_eq!(error.text, "a value is given as name=value, not \"hola\"");
        let error = typed(&tp0, &words(&["MENSAJE", "txt=hola"])).unwrap_err();
        assert_eq!(error.text, "there is no field \"txt\" here: [size], text");
        let lines = Dialect::parse("lines").unwrap();
        let message = typed(&lines, &words(&["hola", "a=b"])).unwrap();
        assert_eq!(message.fields.get(PAYLOAD), Some(&Value::from("hola a=b")));
        let header = Dialect::parse("length:!B:version L:size").unwrap();
        let message = typed(&header, &words(&["version=7", "hola", "version=8"])).unwrap();
        assert_eq!(message.fields.get("version"), Some(&Value::Int(7)));
        assert_eq!(message.fields.get(PAYLOAD), Some(&Value::from("hola version=8")));
    }
}
